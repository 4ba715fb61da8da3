"""`check` of a large catalog against a schema-only pass over the same files: time, memory, and what a change costs.

    python -m tools.bench_scale [--sizes 1500,3000,6000] [--generate 1000]

check-jsonschema (https://github.com/python-jsonschema/check-jsonschema) validates every proposal.yaml and
facts.yaml against schema/, and nothing more. The two take turns on the same files. CPU seconds are what the
processes used, so that they hold on a busy machine as well; memory is the peak of the resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import synthetic

ROOT = Path(__file__).resolve().parents[1]
KINDS = (("proposal.schema.json", "proposal.yaml"), ("facts.schema.json", "facts.yaml"))


@dataclass(frozen=True)
class Cost:
    """What processes took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


# Linux counts a child's peak from its parent's size on, so that the parent has to be a small process.
_MEASURE = """
import os, sys, time
start = time.perf_counter()
quiet = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[quiet])
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - start
print([os.waitstatus_to_exitcode(status), wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024])
"""


def cost(arguments: Sequence[str], *, cwd: Path = ROOT) -> Cost:
    """Run Python with these arguments, which must succeed, and measure it."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE, sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    code, wall, cpu, peak = json.loads(done.stdout)
    if code:
        raise subprocess.CalledProcessError(code, arguments[:6])
    return Cost(wall, cpu, peak)


def check(catalog: Path, *options: str) -> Cost:
    """Every check of every model."""
    return cost(["-m", "kaito_catalog", "check", "--catalog", str(catalog), *options])


def schema_only(catalog: Path) -> Cost:
    """check-jsonschema over the same files, a run for each kind of file."""
    total = Cost(0, 0, 0)
    for schema, name in KINDS:
        paths = sorted(path.relative_to(catalog).as_posix() for path in catalog.glob(f"models/*/{name}"))
        arguments = ["-m", "check_jsonschema", "--schemafile", str(ROOT / "schema" / schema), *paths]
        total += cost(arguments, cwd=catalog)
    return total


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, stdout=subprocess.DEVNULL)


def commit(catalog: Path) -> None:
    """Make a clone of the folder above the catalog, with everything committed."""
    _git(catalog.parent, "init", "--quiet")
    _git(catalog.parent, "add", "--all")
    _git(catalog.parent, "commit", "--quiet", "--message", "everything")


def change(catalog: Path, count: int) -> None:
    """Touch the text of the first `count` proposals."""
    for path in sorted(catalog.glob("models/*/proposal.yaml"))[:count]:
        with path.open("a", encoding="utf-8") as stream:
            stream.write("# changed\n")


def _row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def compare_checks(sizes: Sequence[int], scratch: Path) -> None:
    """`check` beside a schema-only pass for each size, and `check` of what a change concerns."""
    changes: list[tuple[int, int, Cost]] = []
    _row(
        "models",
        "`check`: CPU",
        "wall",
        "memory",
        "schema only: CPU",
        "wall",
        "memory",
        "`check` ÷ schema only, CPU",
    )
    _row(*["---"] * 8)
    for size in sizes:
        catalog = scratch / str(size) / "catalog"
        synthetic.write_catalog(catalog, size)
        ours, theirs = check(catalog), schema_only(catalog)
        _row(
            f"{size:,}",
            f"{ours.cpu_seconds:.1f} s",
            f"{ours.wall_seconds:.1f} s",
            _mib(ours.peak_bytes),
            f"{theirs.cpu_seconds:.1f} s",
            f"{theirs.wall_seconds:.1f} s",
            _mib(theirs.peak_bytes),
            f"{ours.cpu_seconds / theirs.cpu_seconds:.2f} ×",
        )
        commit(catalog)
        for count in (1, 100):
            change(catalog, count)
            changes.append((size, count, check(catalog, "--changed-since", "HEAD")))
    print()
    _row("models", "changed", "`check --changed-since`: CPU", "wall", "memory")
    _row(*["---"] * 5)
    for size, count, used in changes:
        _row(
            f"{size:,}",
            count,
            f"{used.cpu_seconds:.2f} s",
            f"{used.wall_seconds:.2f} s",
            _mib(used.peak_bytes),
        )


def measure_generate(size: int, scratch: Path) -> None:
    """What `generate --no-site` of that many models takes."""
    catalog, output = scratch / "generate" / "catalog", scratch / "build"
    synthetic.write_catalog(catalog, size)
    arguments = ["-m", "kaito_catalog", "generate", "--no-site", "--catalog", str(catalog)]
    used = cost([*arguments, "--output", str(output)])
    print(
        f"\n`generate --no-site` of {size:,} models: {used.cpu_seconds:.1f} s CPU, "
        f"{used.wall_seconds:.1f} s, {_mib(used.peak_bytes)}"
    )


def main() -> int:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", default="1500,3000,6000", metavar="N,N", help="models (default: %(default)s)"
    )
    parser.add_argument(
        "--generate",
        type=int,
        default=1000,
        metavar="N",
        help="models of `generate` (default: 1000; 0: none)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(f"Python {platform.python_version()}; one process each, no workers.\n")
        compare_checks([int(size) for size in options.sizes.split(",")], Path(scratch))
        if options.generate:
            measure_generate(options.generate, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())

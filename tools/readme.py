"""Run the commands that README.md shows and write their real output below each; the same for the benchmark.

    python -m tools.readme [--check]

The session starts from a proposal in KAITO's form, with the figures and the faults of KAITO's own for the same model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from kaito_catalog import cli
from kaito_catalog.system import files
from tools import bench_memory, field

ROOT = Path(__file__).resolve().parents[1]
PROPOSAL = ROOT / "tests" / "data" / "proposals" / "20250529-llama-3.3-70b-instruct.md"
PAGES = ("README.md", "docs/memory.md")
"""The pages that show output."""
_BENCH = re.compile(r"<!-- bench(?P<short> short)? -->\n.*?<!-- /bench -->", re.DOTALL)
_FIELD = re.compile(r"<!-- field(?P<short> short)? -->\n.*?<!-- /field -->", re.DOTALL)
_FILE = re.compile(r'```[a-z]+ title="(?P<name>[a-z0-9.-]+)"\n(?P<text>.*?)```', re.DOTALL)
"""A file that a page shows, which its commands then find."""
_SESSION = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n.*?```", re.DOTALL)


def run(command: str) -> str:
    """What `kaito-catalog …` prints on stdout in the current folder."""
    program, *arguments = shlex.split(command)
    if program != "kaito-catalog":
        raise ValueError(f"README.md shows '{program}', which is not ours to run")
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()):
        cli.main(arguments)
    return stdout.getvalue()


def with_session(page: str, proposal: Path) -> str:
    """`page` with the output of every command of its session, as a newcomer would see it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "catalog", Path(folder) / "catalog")
        shutil.copy(proposal, folder)
        for shown in _FILE.finditer(page):
            files.write_text(Path(folder) / shown["name"], shown["text"])
        os.chdir(folder)
        try:
            return _SESSION.sub(lambda m: f"```console\n$ {m['command']}\n{run(m['command'])}```", page)
        finally:
            os.chdir(before)


def with_benchmark(page: str) -> str:
    """`page` with the benchmark's tables (without timings, which no two runs share)."""
    found = _BENCH.search(page)
    if not found:
        return page
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        bench_memory.main(["--short"] if found["short"] else [])
    table = "\n".join(line for line in stdout.getvalue().splitlines() if not line.startswith("Time of "))
    opening = f"<!-- bench{found['short'] or ''} -->"
    return _BENCH.sub(lambda _: f"{opening}\n{table.rstrip()}\n<!-- /bench -->", page)


def with_field(page: str) -> str:
    """`page` with the tables of public starts with their whole command line."""
    found = _FIELD.search(page)
    if not found:
        return page
    table = "\n".join(field.tables(field.scores_of_all(), short=bool(found["short"])))
    opening = f"<!-- field{found['short'] or ''} -->"
    return _FIELD.sub(lambda _: f"{opening}\n{table.rstrip()}\n<!-- /field -->", page)


def with_output(page: str, proposal: Path = PROPOSAL) -> str:
    """`page` with everything that it shows as it really is."""
    return with_field(with_benchmark(with_session(page, proposal)))


def main() -> int:
    """Write the pages, or say with `--check` that one is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--proposal", type=Path, default=PROPOSAL, help="the Markdown that is imported (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = 0
    for name in PAGES:
        old = (ROOT / name).read_text(encoding="utf-8")
        new = with_output(old, options.proposal)
        if old != new:
            stale = 1
            print(f"{name} is out of date" if options.check else f"{name} written")
            if not options.check:
                files.write_text(ROOT / name, new)
    return stale if options.check else 0


if __name__ == "__main__":
    sys.exit(main())

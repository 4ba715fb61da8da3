"""Kill commands at random moments and look at what is left: every file has to be the old one or the new one.

    python -m tools.faults                          200 kills of each command (minutes)
    python -m tools.faults --kills 20 --only fix

The commands run as a user would run them, in processes of their own, and die by SIGKILL with all their children. The
moment is drawn over the whole run, half of the time over its last third, where files are written. After every tenth
kill the command runs to its end on what is left, which has to give the new files and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.hub.fake.repositories import repository_from_facts
from kaito_catalog.hub.fake.server import FakeHub

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("phi-4", "phi-4-mini-instruct", "qwen2.5-coder-7b-instruct", "llama-3.1-8b-instruct")
TREES = ("exports", "kaito", "presets", "site-src")

Files = Mapping[str, bytes]

_VLLM = """\
#!{python}
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    answer = {{
        "vllmVersion": "0.25.1", "torchVersion": "2.11.0", "transformersVersion": "5.14.1", "pythonVersion": "3.11.9",
        "outcome": "served", "device": "cpu", "tokensGenerated": [1, 2, 3],
        "ranks": [{{"loadedBytesByDtype": {{"bfloat16": 100}}, "kvCacheBytes": 50}}],
        "kvCache": {{"tokens": 640, "maxConcurrency": 1.5}}, "seconds": {{"import": 8.0, "start": 20.5}},
    }}
    print(json.dumps({{"id": request["id"], "ok": True, "result": answer}}), flush=True)
"""


@dataclass(frozen=True)
class Case:
    """A command in a folder of its own, and what it may change there."""

    folder: Path
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    watched: Callable[[Path], Files]
    """The files below the folder that count; trees that a killed swap left aside are where the next run puts them."""


@dataclass
class Result:
    """What was seen of one command."""

    name: str
    kills: int = 0
    old: int = 0
    new: int = 0
    between: int = 0
    """Some files old and others new: allowed where each file is written by itself."""
    unfinished: int = 0
    """Kills that left a temporary file, which the next run sweeps."""
    wrong: list[str] | None = None


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what a killed writer left unfinished."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".unfinished")
    }


def catalog_files(folder: Path) -> dict[str, bytes]:
    """The catalog's own files."""
    return below(folder / "catalog")


def generated_files(folder: Path) -> dict[str, bytes]:
    """The generated trees; one that was moved aside for its successor counts where that is not there yet."""
    found: dict[str, bytes] = {}
    for tree in TREES:
        here, aside = folder / "build" / tree, folder / "build" / f".{tree}.old"
        where = here if here.is_dir() else aside
        found |= {f"{tree}/{name}": data for name, data in below(where).items()} if where.is_dir() else {}
    return found


def a_catalog(folder: Path) -> Path:
    """A catalog of a few models in `folder`."""
    catalog = folder / "catalog"
    (catalog / "models").mkdir(parents=True)
    for name in ("policy.yaml", "gpus.yaml", "instance-types.yaml"):
        shutil.copy(ROOT / "catalog" / name, catalog / name)
    for name in MODELS:
        shutil.copytree(ROOT / "catalog" / "models" / name, catalog / "models" / name)
    return catalog


@contextlib.contextmanager
def fix(folder: Path) -> Iterator[Case]:
    """`check --fix` on models of which each has something to mend."""
    for path in sorted((a_catalog(folder) / "models").glob("*/proposal.yaml")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("type: text-generation", "type: conversational"), encoding="utf-8")
    yield Case(folder, ("check", "--fix"), {}, catalog_files)


@contextlib.contextmanager
def generate(folder: Path) -> Iterator[Case]:
    """`generate` over what an earlier catalog gave."""
    catalog = a_catalog(folder)
    done = _start(Case(folder, ("generate", "--no-site"), {}, generated_files)).wait()
    assert done == 0
    shutil.rmtree(catalog / "models" / MODELS[0])
    path = catalog / "models" / MODELS[1] / "proposal.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("max-model-len: 16384", "max-model-len: 8192"))
    yield Case(folder, ("generate", "--no-site"), {}, generated_files)


@contextlib.contextmanager
def record(folder: Path) -> Iterator[Case]:
    """`record` of models that only have transcribed facts, from a Hub on this machine."""
    models = a_catalog(folder) / "models"
    facts = [found for name in MODELS if (found := read_entry(models / name).facts) is not None]
    with FakeHub([repository_from_facts(found) for found in facts]) as hub:
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf")}
        yield Case(folder, ("record", *MODELS), variables, catalog_files)


@contextlib.contextmanager
def dry_run(folder: Path) -> Iterator[Case]:
    """`dry-run` with a worker that answers at once."""
    a_catalog(folder)
    program = folder / "vllm-python"
    program.write_text(_VLLM.format(python=sys.executable))
    program.chmod(0o755)
    arguments = ("dry-run", MODELS[0], "--vllm-python", str(program), "--device", "cpu", "--scale-down")
    yield Case(folder, arguments, {}, catalog_files)


CASES = {"fix": fix, "generate": generate, "record": record, "dry-run": dry_run}
WHOLE = ("generate",)
"""Commands that write trees: each tree is old or new as a whole."""


def _start(case: Case) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "kaito_catalog", *case.arguments],
        cwd=case.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **case.variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _restore(folder: Path, kept: Path) -> None:
    for name in ("catalog", "build"):
        shutil.rmtree(folder / name, ignore_errors=True)
        if (kept / name).exists():
            shutil.copytree(kept / name, folder / name)


def _unfinished(folder: Path) -> bool:
    return any(path.name.endswith(".unfinished") or ".new." in path.name for path in folder.rglob(".*"))


def _wrong(name: str, old: Files, new: Files, left: Files) -> list[str]:
    """The files that are neither old nor new, and the trees that are a mixture."""
    found = [
        f"{file} is neither the old nor the new file"
        for file in sorted({*old, *new, *left})
        if left.get(file) not in (old.get(file), new.get(file))
    ]
    if name in WHOLE:
        for tree in TREES:
            have = {file: data for file, data in left.items() if file.startswith(f"{tree}/")}
            whole = [
                {file: data for file, data in files.items() if file.startswith(f"{tree}/")}
                for files in (old, new)
            ]
            if have not in whole:
                found.append(f"{tree}/ is a mixture of the old and the new tree")
    return found


def run(name: str, kills: int, rng: random.Random) -> Result:
    """Kill one command again and again."""
    result = Result(name, wrong=[])
    assert result.wrong is not None
    with (
        tempfile.TemporaryDirectory(prefix="kaito-faults-") as place,
        CASES[name](Path(place) / "work") as case,
    ):
        kept = Path(place) / "kept"
        shutil.copytree(case.folder, kept)
        old = case.watched(case.folder)
        began = time.monotonic()
        code = _start(case).wait()
        duration = time.monotonic() - began
        new = case.watched(case.folder)
        if code not in (0, 1) or new == old:
            raise RuntimeError(f"{name} ended with {code} and changed {'nothing' if new == old else 'files'}")
        for number in range(1, kills + 1):
            _restore(case.folder, kept)
            started = _start(case)
            least = 0.66 if rng.random() < 0.5 else 0.0
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(duration * rng.uniform(least, 1.1))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            left = case.watched(case.folder)
            result.kills += 1
            result.old += left == old
            result.new += left == new
            result.between += left not in (old, new)
            result.unfinished += _unfinished(case.folder)
            result.wrong += [f"kill {number}: {words}" for words in _wrong(name, old, new, left)]
            if number % 10 == 0 or number == kills:
                _start(case).wait()
                if case.watched(case.folder) != new or _unfinished(case.folder):
                    result.wrong.append(
                        f"kill {number}: the next run does not give what an undisturbed one gives"
                    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 1 where a file was neither old nor new."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="of each command (default: %(default)s)")
    parser.add_argument("--only", choices=CASES, help="one command")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the results as JSON")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)  # noqa: S311
    results = []
    for name in [options.only] if options.only else list(CASES):
        print(f"{name}: {options.kills} kills …", file=sys.stderr)
        results.append(run(name, options.kills, rng))
    if options.json:
        print(json.dumps([vars(result) for result in results], indent=2))
    else:
        print(
            "| command | kills | all old | all new | some of each | left something to sweep | neither old nor new |"
        )
        print("|---|---|---|---|---|---|---|")
        for r in results:
            wrong = len(r.wrong or ())
            print(f"| {r.name} | {r.kills} | {r.old} | {r.new} | {r.between} | {r.unfinished} | {wrong} |")
    for r in results:
        for words in r.wrong or ():
            print(f"{r.name}: {words}", file=sys.stderr)
    return 1 if any(r.wrong for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())

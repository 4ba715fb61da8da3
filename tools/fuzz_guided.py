"""The targets of `tools.fuzz`, steered by coverage with atheris: an input that reaches new code is kept and changed on.

    python -m tools.fuzz_guided [--seconds S | --runs N] [--only TARGET …]     every target for S seconds (default 60)
    python -m tools.fuzz_guided --only TARGET --again FILE          one input again, with its traceback

What was found worth keeping lies in build/fuzz/TARGET/ and is gone on from; an input that crashes lies beside it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KEPT = Path("build") / "fuzz"
LONGEST_INPUT = 4096
"""Bytes: some hundred decisions of a target."""
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)
_COVERAGE = re.compile(r"^#\d+\s.*?cov: (\d+)", re.MULTILINE)


class Steered(random.Random):
    """A random number generator whose numbers are the bytes of an input; when they are used up, a fixed sequence."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data, self._at = data, 0

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        if self._at + size > len(self._data):
            return super().getrandbits(k)
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "little") & ((1 << k) - 1)

    def random(self) -> float:
        # Two bytes are enough for choices among some dozens, and leave more of them to an input.
        return self.getrandbits(16) / 2**16


def _child(target: str, arguments: Sequence[str]) -> None:
    """Hand this process to libFuzzer, which ends it."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["kaito_catalog"]):
        fuzz = importlib.import_module("tools.fuzz")
    atheris.Setup(["fuzz_guided", *arguments], lambda data: fuzz.one(target, Steered(data)))
    atheris.Fuzz()


def _run(target: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.fuzz_guided", "--child", target, *arguments],
        text=True,
        capture_output=True,
        check=False,
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The end of both streams: atheris prints the traceback on stdout, libFuzzer the input on stderr."""
    return f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def _fuzz(target: str, limit: str) -> tuple[int, bool]:
    """Fuzz one target; gives the number of inputs, and whether it crashed."""
    corpus = KEPT / target
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [limit, "-timeout=120", "-rss_limit_mb=4096", f"-max_len={LONGEST_INPUT}"]
    done = _run(target, [*limits, "-print_final_stats=0", f"-artifact_prefix={KEPT}/{target}.", str(corpus)])
    runs = _DONE.search(done.stderr)
    reached = [int(found) for found in _COVERAGE.findall(done.stderr)]
    if done.returncode == 0 and runs and reached:
        print(
            f"{target:16}{int(runs[1]):>9,} inputs  {int(runs[2]):>5} s  "
            f"code reached: {reached[0]:,} to {reached[-1]:,} branches",
            flush=True,
        )
        return int(runs[1]), False
    print(f"{target}: it crashed, or did not start:\n{_said(done)}", flush=True)
    return 0, True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 when nothing crashed, 2 where atheris is not installed."""
    if arguments is None and sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3:])
    targets = list(importlib.import_module("tools.fuzz").TARGETS)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="inputs for each target, however long they take"
    )
    parser.add_argument("--only", nargs="+", choices=targets, default=targets)
    parser.add_argument("--again", metavar="FILE", help="one input that crashed before")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install -c constraints.txt atheris", file=sys.stderr)
        return 2
    if options.again:
        done = _run(options.only[0], [options.again])
        print(_said(done))
        return 1 if done.returncode else 0
    limit = f"-runs={options.runs}" if options.runs else f"-max_total_time={options.seconds}"
    found = [_fuzz(target, limit) for target in options.only]
    crashes = sum(crashed for _, crashed in found)
    print(f"{sum(runs for runs, _ in found):,} inputs steered by coverage, {crashes} targets crashed")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())

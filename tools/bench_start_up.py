"""How long the command takes to start, against Python itself: medians of runs that take turns.

python -m tools.bench_start_up [--runs N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS: dict[str, tuple[str, ...]] = {
    "python -c pass": ("-c", "pass"),
    "python -c 'import argparse'": ("-c", "import argparse"),
    "kaito-catalog --version": ("-m", "kaito_catalog", "--version"),
    "kaito-catalog check --help": ("-m", "kaito_catalog", "check", "--help"),
    "kaito-catalog explain STO001": ("-m", "kaito_catalog", "explain", "STO001"),
    "kaito-catalog check phi-4": ("-m", "kaito_catalog", "check", "phi-4"),
}


def milliseconds(arguments: Sequence[str]) -> float:
    """The wall time of one run of Python with these arguments."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    return 1000 * (time.perf_counter() - start)


def main() -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="of each command (default: 15)")
    options = parser.parse_args()
    for arguments in COMMANDS.values():
        milliseconds(arguments)  # so that files and bytecode are in memory
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.runs):
        for name, arguments in COMMANDS.items():
            found[name].append(milliseconds(arguments))
    medians = {name: statistics.median(values) for name, values in found.items()}
    python = medians["python -c pass"]
    print("| start-up | median | against Python itself |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| `{name}` | {median:.0f} ms | {median / python:.1f} × |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

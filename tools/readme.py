"""Run the commands of README.md's session and write their real output below each.

    python -m tools.readme [--check]

The first command reads KAITO's own proposal; `--proposal FILE` says where it is.
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

from kaito_catalog import cli, files

ROOT = Path(__file__).resolve().parents[1]
PROPOSAL = ROOT.parent / "shared/data/kaito/proposals/20250529-llama-3.3-70b-instruct.md"
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


def with_output(readme: str, proposal: Path) -> str:
    """`readme` with the output of every command of its session, as a newcomer would see it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "catalog", Path(folder) / "catalog")
        shutil.copy(proposal, folder)
        os.chdir(folder)
        try:
            return _SESSION.sub(lambda m: f"```console\n$ {m['command']}\n{run(m['command'])}```", readme)
        finally:
            os.chdir(before)


def main() -> int:
    """Write README.md, or say with `--check` that it is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proposal", type=Path, default=PROPOSAL)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = with_output(old, options.proposal)
    if options.check:
        return int(old != new)
    files.write_text(path, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())

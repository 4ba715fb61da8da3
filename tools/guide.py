"""Run the session of docs/contributing-a-model.md in a small clone and write its real output below each command.

python -m tools.guide [--check]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kaito_catalog import cli, files

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "contributing-a-model.md"
MODEL = "phi-4"
_BLOCK = re.compile(r"```console\n(?P<body>.*?)```", re.DOTALL)


def _run(command: str) -> str:
    program, *arguments = shlex.split(command)
    if program == "kaito-catalog":
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
            cli.main(arguments)
        return stdout.getvalue()
    if program not in ("git", "sed"):
        raise ValueError(f"the guide shows '{program}', which is not ours to run")
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def with_session(page: str) -> str:
    """`page` with the output of every command, run in order in a clone that holds one model."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "catalog" / "models").mkdir(parents=True)
        for path in (ROOT / "catalog").glob("*.yaml"):
            shutil.copy(path, folder / "catalog" / path.name)
        shutil.copytree(ROOT / "catalog" / "models" / MODEL, folder / "catalog" / "models" / MODEL)
        os.chdir(folder)
        try:
            for command in ("git init -q", "git add -A", "git -c user.name=a -c user.email=a@b commit -qm a"):
                _run(command)
            return _BLOCK.sub(lambda match: f"```console\n{_block(match['body'])}```", page)
        finally:
            os.chdir(before)


def _block(body: str) -> str:
    commands = [line for line in body.splitlines() if line.startswith("$ ")]
    return "".join(f"{command}\n{_run(command[2:])}" for command in commands)


def main() -> int:
    """Write the page, or say with `--check` that it is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = with_session(old)
    if old != new and not options.check:
        files.write_text(PAGE, new)
    return int(options.check and old != new)


if __name__ == "__main__":
    sys.exit(main())

"""Run the session of docs/contributing-a-model.md in a small clone and write its real output below each command.

    python -m tools.guide [--check]

What would differ from run to run is held: the day, and the port of the Hub of this machine.
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
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from unittest import mock

from kaito_catalog import cli
from kaito_catalog.cli import hub
from kaito_catalog.system import files

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "contributing-a-model.md"
MODEL = "phi-4"
DAY = date(2026, 11, 23)
_BLOCK = re.compile(r"```console\n(?P<body>.*?)```", re.DOTALL)
_HUB = "http://127.0.0.1:8000"
_PROGRAMS = ("cat", "git", "sed")


class _Session:
    """A shell that knows our own command and a few programs; its Hub lives as long as it."""

    def __init__(self) -> None:
        self.hub: subprocess.Popen[str] | None = None
        self.endpoint = ""

    def run(self, command: str) -> str:
        """What the command prints, both streams as they come."""
        if command == "kaito-catalog fake-hub &":
            return self._start_hub()
        if command == f"export HF_ENDPOINT={_HUB}":
            os.environ["HF_ENDPOINT"] = self.endpoint
            return ""
        program, *arguments = shlex.split(command)
        if program == "kaito-catalog":
            stdout = io.StringIO()
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
                cli.main(arguments)
            return stdout.getvalue().replace(self.endpoint or _HUB, _HUB)
        if program not in _PROGRAMS:
            raise ValueError(f"the guide shows '{program}', which is not ours to run")
        done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def _start_hub(self) -> str:
        command = [sys.executable, "-m", "kaito_catalog", "fake-hub", "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.hub = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert self.hub.stdout is not None
        lines = [self.hub.stdout.readline(), self.hub.stdout.readline()]
        self.endpoint = lines[1].strip().removeprefix("HF_ENDPOINT=")
        return "".join(lines).replace(self.endpoint, _HUB)

    def close(self) -> None:
        """Stop the Hub."""
        if self.hub is not None:
            self.hub.terminate()
            self.hub.communicate(timeout=10)


@contextlib.contextmanager
def _held() -> Iterator[_Session]:
    """The day, the environment and the current folder as the session needs them, and back again."""
    before, session = Path.cwd(), _Session()
    own = {
        f"GIT_{who}_{what}": "jo@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.dict(os.environ, own),
        mock.patch.object(hub, "date", mock.Mock(wraps=date, today=lambda: DAY)),
    ):
        for variable in ("HF_TOKEN", "HF_ENDPOINT", "NO_COLOR", "GITHUB_STEP_SUMMARY"):
            os.environ.pop(variable, None)
        os.chdir(name)
        try:
            yield session
        finally:
            session.close()
            os.chdir(before)


def with_session(page: str) -> str:
    """`page` with the output of every command, run in order in a clone that holds one model."""
    with _held() as session:
        models = Path("catalog", "models")
        models.mkdir(parents=True)
        for path in (ROOT / "catalog").glob("*.yaml"):
            shutil.copy(path, Path("catalog", path.name))
        shutil.copytree(ROOT / "catalog" / "models" / MODEL, models / MODEL)
        for command in ("git init -q", "git add -A", "git commit -qm A"):
            session.run(command)
        return _BLOCK.sub(lambda match: f"```console\n{_block(session, match['body'])}```", page)


def _block(session: _Session, body: str) -> str:
    commands = [line for line in body.splitlines() if line.startswith("$ ")]
    return "".join(f"{command}\n{session.run(command[2:])}" for command in commands)


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

"""Lint workflows, the action and the issue forms; zizmor and actionlint run where they are installed.

python -m tools.lint_workflows
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_USES = re.compile(r"^\s*(?:- )?uses: (\S+)", re.MULTILINE)
_PINNED = re.compile(r"(?:\./.*|[\w.-]+/[\w./-]+@[0-9a-f]{40})\Z")


def unpinned(text: str) -> list[str]:
    """The actions that are not named by a full commit."""
    return [name for name in _USES.findall(text) if not _PINNED.match(name)]


def actions() -> list[Path]:
    """The actions that this repository offers."""
    return [ROOT / "action.yml", *sorted((ROOT / ".github/actions").glob("*/action.yml"))]


def main() -> int:
    """Lint; say what could not be run."""
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    failed = False
    for path in (*workflows, *actions()):
        for name in unpinned(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT)}: {name} is not pinned by a commit", file=sys.stderr)
            failed = True
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    for path in forms:
        schema = f"vendor.github-issue-{'config' if path.name == 'config.yml' else 'forms'}"
        command = [sys.executable, "-m", "check_jsonschema", "--quiet", "--builtin-schema", schema, str(path)]
        failed |= subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    commands = {
        # Its strictest reading; what is left out says why where it stands.
        "zizmor": ["--offline", "--quiet", "--persona", "auditor", ".github", "action.yml"],
        "actionlint": [path.relative_to(ROOT).as_posix() for path in workflows],
    }
    for tool, arguments in commands.items():
        beside = Path(sys.executable).with_name(tool)
        found = str(beside) if beside.exists() else shutil.which(tool)
        if found is None:
            print(f"{tool} is not installed here: not run", file=sys.stderr)
        else:
            failed |= subprocess.run([found, *arguments], cwd=ROOT, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

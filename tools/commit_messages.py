"""Check commit messages: a subject of at most 72 characters, an empty line, a body with the reason.

python -m tools.commit_messages main..HEAD         the commits of a branch, without merges
python -m tools.commit_messages --file PATH        one message, as git hands it to a commit-msg hook
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST_SUBJECT = 72
# What git itself cuts off below: `git commit --verbose` shows the change there.
_SCISSORS = re.compile(r"^# -+ >8 -+$.*", re.MULTILINE | re.DOTALL)
_TRAILER = re.compile(r"[A-Z][A-Za-z-]+: \S")
_UNFINISHED = re.compile(r"(?i)(?:fixup!|squash!|amend!|wip(?![a-z]))")


def problems(message: str) -> list[str]:
    """What is wrong with a message; a merge or a revert that git worded is left alone."""
    subject, _, rest = message.strip().partition("\n")
    if subject.startswith(("Merge ", 'Revert "')):
        return []
    found = []
    if not subject:
        return ["the message is empty"]
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters, {LONGEST_SUBJECT} are allowed")
    if _UNFINISHED.match(subject):
        found.append("the subject says that the work is unfinished: squash it into its commit")
    if subject.endswith("."):
        found.append("the subject ends with a full stop")
    if rest and not rest.startswith("\n"):
        found.append("the second line is not empty")
    if not any(line.strip() and not _TRAILER.match(line) for line in rest.splitlines()):
        found.append("there is no body: say why the change is made")
    return found


def without_comments(text: str) -> str:
    """A message as git would store it: comment lines and what is below the scissors are gone."""
    return "\n".join(line for line in _SCISSORS.sub("", text).splitlines() if not line.startswith("#"))


def messages(revisions: str) -> Iterator[tuple[str, str]]:
    """Each commit of the range, merges left out: its short name and its message."""
    command = ["git", "log", "--no-merges", "--reverse", "-z", "--format=%h %B", revisions, "--"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for record in listed.split("\0"):
        commit, _, message = record.partition(" ")
        if commit:
            yield commit, message


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong, one line each; 1 where anything is."""
    parser = argparse.ArgumentParser(prog="python -m tools.commit_messages")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("range", nargs="?", metavar="RANGE", help="such as main..HEAD")
    what.add_argument("--file", type=Path, metavar="PATH", help="a file with one message")
    options = parser.parse_args(arguments)
    if options.file is not None:
        checked = [("this message", without_comments(options.file.read_text(encoding="utf-8")))]
    else:
        checked = list(messages(options.range))
    found = [f"{name}: {problem}" for name, message in checked for problem in problems(message)]
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print(
            "hint: CONTRIBUTING.md has the form; 'git rebase --interactive' rewords a commit", file=sys.stderr
        )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

"""Open or update one GitHub issue for every finding of a JSON report.

    python -m tools.drift report.json

An issue says what has to be edited: the same finding again updates it, whatever the line or the figures are now.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.reports.markdown import escape


@dataclass(frozen=True)
class Issue:
    """An issue by its title, which is stable."""

    title: str
    body: str


def issues(report: dict[str, Any]) -> list[Issue]:
    """One issue a model and code, worst first; warnings and waived findings make none."""
    found: dict[str, list[str]] = {}
    for model in report["models"]:
        for finding in model["findings"]:
            if finding["severity"] == "error" and finding["waived"] is None:
                title = f"{model['name']}: {finding['code']}"
                hint = f"<br>hint: {escape(finding['hint'])}" if finding["hint"] else ""
                place = escape(f"{finding['path']}:{finding['line']}")
                found.setdefault(title, []).append(f"- {place}: {escape(finding['message'])}{hint}")
    end = "\n\nThis needs an edit of the model's folder, not a re-run: the comparison runs every night.\n"
    return [Issue(title, "\n".join(lines) + end) for title, lines in sorted(found.items())]


def _gh(*arguments: str) -> str:
    return subprocess.run(["gh", *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Read the report, and bring the issues up to date with `gh`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    report = json.loads(parser.parse_args().report.read_text(encoding="utf-8"))
    listed = _gh("issue", "list", "--state", "open", "--limit", "1000", "--json", "number,title,author")
    known = {
        row["title"]: str(row["number"])
        for row in json.loads(listed)
        if row["author"]["login"] in ("app/github-actions", "github-actions[bot]")
    }
    for issue in issues(report):
        if issue.title in known:
            _gh("issue", "edit", known[issue.title], "--body", issue.body)
        else:
            _gh("issue", "create", "--title", issue.title, "--body", issue.body)


if __name__ == "__main__":
    main()

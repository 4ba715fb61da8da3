"""The output formats of `check`: each a pure function from a report to text."""

from __future__ import annotations

from collections.abc import Callable

from kaito_catalog.checks.engine import Report
from kaito_catalog.reports.github import github
from kaito_catalog.reports.json import json_report
from kaito_catalog.reports.markdown import markdown
from kaito_catalog.reports.sarif import sarif
from kaito_catalog.reports.text import Sources, text

RENDERERS: dict[str, Callable[[Report, Sources], str]] = {
    "text": lambda report, sources: text(report, sources),
    "json": lambda report, sources: json_report(report),
    "github": lambda report, sources: github(report),
    "markdown": markdown,
    "sarif": sarif,
}
"""Name of `--format` to renderer."""

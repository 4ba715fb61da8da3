"""GitHub workflow commands: annotations on the lines of a pull request."""

from __future__ import annotations

from collections import Counter

from kaito_catalog.checks.engine import Report
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.reports.markdown import escape
from kaito_catalog.reports.summary import claims_line, findings_line

MAX_PER_KIND = 10
"""GitHub shows at most ten annotations of each kind a step."""

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


SUMMARY_BYTES = 2**20
"""GitHub refuses a larger step summary."""


def _split(report: Report, severity: Severity) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """The findings of a severity that get an annotation, and the rest."""
    found = [d for d in report.diagnostics if d.waived is None and d.severity is severity]
    count = len(found) if len(found) <= MAX_PER_KIND else MAX_PER_KIND - 1
    return found[:count], found[count:]


def step_summary(report: Report, *, limit_bytes: int = SUMMARY_BYTES) -> str:
    """Markdown for the step's page: the verdict, and the findings that got no annotation."""
    text = f"{escape(findings_line(report))}\n\n{escape(claims_line(report))}\n"
    rest = [d for severity in _COMMANDS for d in _split(report, severity)[1]]
    if rest:
        text += "\n| place | code | finding |\n|---|---|---|\n"
    size = len(text.encode()) + 200
    for number, found in enumerate(rest):
        hint = f"<br>hint: {escape(found.hint)}" if found.hint else ""
        row = f"| {escape(str(found.place))} | {found.severity.value} {found.code} | {escape(found.message)}{hint} |\n"
        size += len(row.encode())
        if size > limit_bytes:
            return text + f"\nand {len(rest) - number} more than fit here\n"
        text += row
    return text


def github(report: Report) -> str:
    """At most ten annotations of a kind, worst first; the last says how many more there are."""
    lines: list[str] = []
    for severity, command in _COMMANDS.items():
        shown, rest = _split(report, severity)
        lines.extend(_annotation(d) for d in shown)
        if rest:
            codes = ", ".join(
                f"{code} × {count}" for code, count in sorted(Counter(d.code for d in rest).items())
            )
            lines.append(f"::{command} title=and {len(rest)} more::{_message(codes)}")
    lines.extend((_message(findings_line(report)), _message(claims_line(report))))
    return "\n".join(lines) + "\n"


def _annotation(diagnostic: Diagnostic) -> str:
    place = diagnostic.place
    message = diagnostic.message + (f"\nhint: {diagnostic.hint}" if diagnostic.hint else "")
    properties = f"file={_property(place.path)},line={place.line},col={place.column},title={_property(diagnostic.code)}"
    return f"::{_COMMANDS[diagnostic.severity]} {properties}::{_message(message)}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")

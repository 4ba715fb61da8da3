"""GitHub workflow commands: annotations on the lines of a pull request."""

from __future__ import annotations

from collections import Counter

from kaito_catalog.checks.engine import Report
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.reports.summary import claims_line, findings_line

MAX_PER_KIND = 10
"""GitHub shows at most ten annotations of each kind a step."""

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def github(report: Report) -> str:
    """At most ten annotations of a kind, worst first; the last says how many more there are."""
    lines: list[str] = []
    found = [d for d in report.diagnostics if d.waived is None]
    for severity, command in _COMMANDS.items():
        of_kind = [d for d in found if d.severity is severity]
        shown = of_kind if len(of_kind) <= MAX_PER_KIND else of_kind[: MAX_PER_KIND - 1]
        lines.extend(_annotation(d) for d in shown)
        rest = of_kind[len(shown) :]
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

"""Findings for a person: place, message, the line itself, how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from kaito_catalog.checks.engine import Report
from kaito_catalog.diagnostics import Diagnostic, Severity, Skipped
from kaito_catalog.documents.reading import Document
from kaito_catalog.reports.style import BLUE, BOLD, DIM, GREEN, RED, YELLOW, paint, printable
from kaito_catalog.reports.summary import claims_line, findings_line

Sources: TypeAlias = Mapping[str, Document]
"""The documents that findings point into, by path."""

_COLORS = {Severity.ERROR: RED, Severity.WARNING: YELLOW, Severity.NOTE: BLUE}
_EXCERPT = 110


def diagnostic_text(diagnostic: Diagnostic, sources: Sources, *, color: bool = False) -> str:
    """One finding with its source line, marked."""
    place = diagnostic.place
    kind = paint(
        f"{diagnostic.severity.value}[{diagnostic.code}]", _COLORS[diagnostic.severity], BOLD, color=color
    )
    lines = [f"{paint(str(place), BOLD, color=color)}: {kind} {printable(diagnostic.message)}"]
    document = sources.get(place.path)
    line = document.line(place.line) if document else None
    if line and line.strip() and diagnostic.severity is not Severity.NOTE:
        number = str(place.line)
        gutter = " " * len(number)
        start = min(place.column - 1, len(line))
        width = max(1, (place.end_column or place.column + 1) - place.column)
        shown, offset = _window(printable(line), start)
        marks = " " * (start - offset) + "^" * min(width, max(1, _EXCERPT - (start - offset)))
        lines.append(f"  {paint(f'{number} |', DIM, color=color)} {shown}")
        lines.append(
            f"  {paint(f'{gutter} |', DIM, color=color)} {paint(marks, _COLORS[diagnostic.severity], color=color)}"
        )
    if diagnostic.hint:
        lines.append(f"  {paint('hint:', GREEN, color=color)} {printable(diagnostic.hint)}")
    if diagnostic.waived:
        lines.append(f"  {paint('waived:', BLUE, color=color)} {printable(diagnostic.waived)}")
    return "\n".join(lines)


def _window(line: str, start: int) -> tuple[str, int]:
    if len(line) <= _EXCERPT:
        return line, 0
    if start < _EXCERPT - 20:
        return line[: _EXCERPT - 1] + "…", 0
    offset = start - 20
    return line[offset : offset + _EXCERPT - 1] + "…", offset


def skip_lines(skips: list[Skipped], *, color: bool = False, verbose: bool = False) -> list[str]:
    """Skipped checks: grouped by check and reason, or one a line."""
    head = paint("skipped", BLUE, color=color)
    if verbose:
        return [
            f"{skip.place}: {head}[{skip.code}] {printable(skip.reason)}"
            + (f" (hint: {printable(skip.hint)})" if skip.hint else "")
            for skip in skips
        ]
    groups: dict[tuple[str, str], list[str]] = {}
    for skip in skips:
        groups.setdefault((skip.code, skip.reason), []).append(skip.model)
    lines = []
    for (code, reason), models in sorted(groups.items()):
        names = list(dict.fromkeys(models))
        who = ", ".join(names) if len(names) <= 3 else f"{len(names)} models ({names[0]}, {names[1]}, …)"
        lines.append(f"{head}[{code}] {printable(reason)}: {who}")
    return lines


def text(report: Report, sources: Sources, *, color: bool = False, verbose: bool = False) -> str:
    """The whole report: findings, skips, and the two closing lines."""
    blocks = [diagnostic_text(d, sources, color=color) for d in report.diagnostics]
    skips = skip_lines(report.skips, color=color, verbose=verbose)
    if skips:
        blocks.append("\n".join(skips))
    verdict = (
        paint("failed", RED, BOLD, color=color) if report.failed else paint("ok", GREEN, BOLD, color=color)
    )
    blocks.append(f"{verdict}: {findings_line(report)}\n{claims_line(report)}")
    return "\n\n".join(blocks) + "\n"

"""A pull-request comment that is updated in place: the verdict first, then the claims, details folded."""

from __future__ import annotations

import re

from kaito_catalog.checks.engine import ClaimState, EntryReport, Report
from kaito_catalog.diagnostics import Diagnostic
from kaito_catalog.errors import visible
from kaito_catalog.reports.summary import claims_line, findings_line, plural, told_states
from kaito_catalog.reports.text import Sources

MARKER = "<!-- kaito-catalog check -->"
"""The first line, by which the workflow finds the comment to update."""
MAX_CHARACTERS = 60_000
"""GitHub refuses comments from 65,536 characters on."""

# An underscore inside a word and a colon before a space mean nothing to GitHub: they stay, for those who read the text.
_SPECIAL = re.compile(r"[&<>|`*~\[\]()#@\\!$\"]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?!\s|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_REFERENCE = re.compile(r"&#64;(?=[A-Za-z0-9])|&#35;(?=\d)|(?i:\bGH)(?=-\d)")
_MARKS = {
    "proven": "✅",
    "claimed": "📝",
    "reported": "📣",
    "transcribed": "📄",
    "wrong": "❌",
    "unknown": "❔",
}
_SHORT = {
    "summary.license.id": "licence",
    "requirements.type": "type",
    "requirements.version": "version",
    "requirements.storageSize": "storage",
    "requirements.gpuCount": "GPUs",
    "requirements.totalGPUMemory": "total memory",
    "requirements.perGPUMemory": "per GPU",
    "requirements.contextLength": "context",
}


def escape(text: str) -> str:
    """`text` as it is: no markup, link, mention or table cell of it takes effect on GitHub.

    What cannot be seen, or turns the text around it, is written out (``\\u202e``).
    """
    flat = visible(_CONTROL.sub(" ", text))
    # GitHub links bare addresses on its own; without ':' and 'www.' it does not see one.
    plain = _SPECIAL.sub(lambda m: f"&#{ord(m[0])};", flat).replace("www.", "www&#46;")
    # People and issues are looked for in what is shown, after entities: only a character between parts them.
    return _REFERENCE.sub(lambda m: f"{m[0]}&#8203;", plain)


def markdown(report: Report, sources: Sources, *, change: str = "") -> str:
    """The comment; `change` is what `diff` says of the same change, as Markdown."""
    parts = [MARKER, f"{_verdict(report)} — {escape(findings_line(report))}", claims_line(report)]
    if report.entries:
        parts.append(_claims_table(report))
    text = "\n\n".join(parts) + "\n"
    rows = [_finding(d) for d in report.diagnostics if d.waived is None]
    waived = [_finding(d) for d in report.diagnostics if d.waived is not None]
    skipped = [f"- `{s.code}` {escape(s.model)}: {escape(s.reason)}" for s in report.skips]
    text = _cut(text)
    for title, lines, opened in (
        (plural(len(rows), "finding"), rows, report.failed),
        (f"{len(waived)} waived", waived, False),
        (f"{plural(len(skipped), 'check')} skipped", skipped, False),
    ):
        if lines:
            text += _folded(title, lines, MAX_CHARACTERS - len(text), opened=opened)
    if change:
        opened = bool(report.removed)
        text += _folded("what changes", change.splitlines(), MAX_CHARACTERS - len(text), opened=opened)
    return text


def _verdict(report: Report) -> str:
    if report.failed:
        return "❌ **Not yet**"
    if report.removed and not report.entries:
        return "🗑️ **Removes a model**" if len(report.removed) == 1 else "🗑️ **Removes models**"
    if report.count(ClaimState.CLAIMED):
        return "🟡 **Nothing is wrong, not proven yet**"
    return "✅ **Ready**"


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS - 5_000:
        return text
    kept = text[: MAX_CHARACTERS - 5_000].rpartition("\n")[0]
    return kept + "\n\nThe table is longer than a comment may be; `check` shows the rest.\n"


def _claims_table(report: Report) -> str:
    head = "| model | " + " | ".join(_SHORT.values()) + " |\n|---|" + "---|" * len(_SHORT)
    key = ", ".join(f"{_MARKS[state.value]} {state.value}" for state in told_states(report))
    return "\n".join([head, *(_claims_row(entry) for entry in report.entries)]) + f"\n\n{key}"


def _claims_row(entry: EntryReport) -> str:
    states = {str(claim): state.value for claim, state in entry.claims.items()}
    cells = [f"{_MARKS[states[c]]} {states[c]}" if c in states else "❔ not read" for c in _SHORT]
    return f"| {escape(entry.name)} | " + " | ".join(cells) + " |"


def _finding(diagnostic: Diagnostic) -> str:
    line = (
        f"- **{diagnostic.severity.value}** `{diagnostic.code}` {escape(str(diagnostic.place))}: "
        f"{escape(diagnostic.message)}"
    )
    if diagnostic.hint:
        line += f"<br>hint: {escape(diagnostic.hint)}"
    if diagnostic.waived:
        line += f"<br>waived: {escape(diagnostic.waived)}"
    return line


def _folded(title: str, lines: list[str], room: int, *, opened: bool) -> str:
    start = f"\n<details{' open' if opened else ''}><summary>{escape(title)}</summary>\n\n"
    kept: list[str] = []
    left = room - len(start) - 200
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            break
        kept.append(line)
    if len(kept) < len(lines):
        kept.append(f"- … and {len(lines) - len(kept)} more: `kaito-catalog check` shows all")
    return start + "\n".join(kept) + "\n\n</details>\n"

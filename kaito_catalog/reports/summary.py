"""The closing lines of `check`: what was checked, and how many claims are proven, wrong or unknown."""

from __future__ import annotations

import re

from kaito_catalog.checks.engine import ClaimState, Report
from kaito_catalog.diagnostics import Severity


def plural(count: int, noun: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def findings_line(report: Report) -> str:
    """How many models, errors and warnings, and how many checks could not be made."""
    found = [d for d in report.diagnostics if d.waived is None]
    errors = sum(d.severity is Severity.ERROR for d in found)
    warnings = sum(d.severity is Severity.WARNING for d in found)
    waived = len(report.diagnostics) - len(found)
    parts = [plural(errors, "error"), plural(warnings, "warning")]
    if waived:
        parts.append(f"{waived} waived")
    if report.skips:
        parts.append(f"{plural(len(report.skips), 'check')} skipped")
    removed = f", {len(report.removed):,} removed ({_some(report.removed)})" if report.removed else ""
    return f"{plural(len(report.entries), 'model')}{removed}: {', '.join(parts)}"


def _some(names: tuple[str, ...]) -> str:
    # A folder's name in a pull request may be anything.
    shown = [re.sub(r"[^A-Za-z0-9._-]", "?", name)[:80] for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


_WHERE_THERE_ARE_ANY = (ClaimState.CLAIMED, ClaimState.REPORTED)


def told_states(report: Report) -> list[ClaimState]:
    """The states that a report speaks of: some only where there are claims in them."""
    return [state for state in ClaimState if state not in _WHERE_THERE_ARE_ANY or report.count(state)]


def claims_line(report: Report) -> str:
    """One line over all claims, with what to do about those that are not proven."""
    counts = {state: report.count(state) for state in told_states(report)}
    total = sum(counts.values())
    if not total:
        unread = any(not entry.readable for entry in report.entries)
        if report.removed and not report.entries:
            return "no claim is left to look at"
        return "no claim was looked at" + (": first mend what cannot be read" if unread else "")
    line = f"{plural(total, 'claim')}: " + ", ".join(
        f"{count} {state.value}" for state, count in counts.items()
    )
    advice = []
    read = [entry for entry in report.entries if entry.readable]
    if len(read) < len(report.entries):
        advice.append("first mend what cannot be read")
    if counts[ClaimState.WRONG]:
        advice.append("correct the wrong ones (see the errors)")
    if any(state is ClaimState.UNKNOWN for entry in read for state in entry.claims.values()):
        advice.append(
            "fill in what is unknown (--format json names each)"
            if report.complete
            else "not every check was selected: what the others would prove is unknown"
        )
    if counts.get(ClaimState.CLAIMED):
        advice.append("ask the Hub about the facts that came with the change: check --online")
    if counts[ClaimState.TRANSCRIBED]:
        advice.append("ask the Hub about the transcribed ones: kaito-catalog record NAME")
    return line + (f" — {'; '.join(advice)}" if advice else "")

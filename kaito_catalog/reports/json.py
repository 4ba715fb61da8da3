"""The report as JSON: an explicit, versioned shape for programs."""

from __future__ import annotations

import json
from typing import Any

from kaito_catalog.checks.engine import ClaimState, EntryReport, Report
from kaito_catalog.diagnostics import Diagnostic, Place

REPORT_VERSION = 1


def json_report(report: Report) -> str:
    """The report, indented, with a final newline."""
    return json.dumps(report_value(report), indent=2, ensure_ascii=False) + "\n"


def report_value(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "version": REPORT_VERSION,
        "ok": not report.failed,
        "summary": {
            "models": len(report.entries),
            "errors": sum(d.fails for d in report.diagnostics),
            "findings": len(report.diagnostics),
            "skipped": len(report.skips),
            "claims": {state.value: report.count(state) for state in ClaimState},
        },
        "removed": list(report.removed),
        "models": [_entry(entry) for entry in report.entries],
    }


def _entry(entry: EntryReport) -> dict[str, Any]:
    return {
        "name": entry.name,
        "path": entry.path,
        "readable": entry.readable,
        "imageHosting": entry.image_hosting,
        "claims": {claim: state.value for claim, state in entry.claims.items()},
        "findings": [diagnostic_value(d) for d in entry.diagnostics],
        "skipped": [
            {"code": skip.code, "reason": skip.reason, "hint": skip.hint, **_place(skip.place)}
            for skip in entry.skips
        ],
    }


def diagnostic_value(diagnostic: Diagnostic) -> dict[str, Any]:
    """One finding as plain values."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "waived": diagnostic.waived,
        **_place(diagnostic.place),
    }


def _place(place: Place) -> dict[str, Any]:
    return {"path": place.path, "line": place.line, "column": place.column}

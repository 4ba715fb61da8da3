"""The report as JSON: an explicit, versioned shape for programs."""

from __future__ import annotations

import json
from typing import Any, get_args

from kaito_catalog.checks.base import Claim
from kaito_catalog.checks.engine import ClaimState, EntryReport, Report
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, Skipped
from kaito_catalog.formats.report import CheckReport, ReportChanges, ReportModel
from kaito_catalog.reports.change import CatalogChange, ModelChange

REPORT_VERSION = 1


def json_report(report: Report, *, changes: CatalogChange | None = None) -> str:
    """The report, indented, with a final newline; `changes` is what `diff` says of the same change."""
    return json.dumps(report_value(report, changes=changes), indent=2, ensure_ascii=False) + "\n"


def report_value(report: Report, *, changes: CatalogChange | None = None) -> dict[str, Any]:
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
        "changes": None if changes is None else _changes(changes),
    }


def _changes(changes: CatalogChange) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": model.name,
                "how": model.how,
                "values": [{"what": w, "before": b, "after": a} for w, b, a in model.values],
            }
            for model in changes.models
        ],
        "textsOnly": list(changes.texts_only),
        "sharedFiles": changes.shared_files,
        "notCompared": changes.not_compared,
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


def report_of(value: CheckReport) -> tuple[Report, CatalogChange | None]:
    """The way back from JSON: what the other formats are made of. A claim that is not known here is left out."""
    report = Report(tuple(_entry_of(model) for model in value.models), removed=tuple(value.removed))
    return report, None if value.changes is None else _changes_of(value.changes)


def _entry_of(model: ReportModel) -> EntryReport:
    return EntryReport(
        name=model.name,
        path=model.path,
        readable=model.readable,
        diagnostics=tuple(
            Diagnostic(
                f.code, Severity(f.severity), f.message, Place(f.path, f.line, f.column), f.hint, f.waived
            )
            for f in model.findings
        ),
        skips=tuple(
            Skipped(s.code, model.name, s.reason, Place(s.path, s.line, s.column), s.hint)
            for s in model.skipped
        ),
        claims={c: ClaimState(model.claims[c]) for c in get_args(Claim) if c in model.claims},
        image_hosting=model.image_hosting,
    )


def _changes_of(value: ReportChanges) -> CatalogChange:
    models = tuple(
        ModelChange(m.name, m.how, tuple((v.what, v.before, v.after) for v in m.values)) for m in value.models
    )
    return CatalogChange(models, tuple(value.texts_only), value.shared_files, value.not_compared)

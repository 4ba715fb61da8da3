"""SARIF 2.1.0: findings for code scanning, with the documentation of every check."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from kaito_catalog import __version__
from kaito_catalog.checks.base import Rule
from kaito_catalog.checks.engine import Report
from kaito_catalog.checks.registry import RULES
from kaito_catalog.diagnostics import Diagnostic, Place
from kaito_catalog.reports.explain import rule_markdown
from kaito_catalog.reports.text import Sources

_INDEX = {rule.code: number for number, rule in enumerate(RULES)}


def sarif(report: Report, sources: Sources) -> str:
    """The report as one SARIF run; waived findings are suppressed with their reason, skips are notifications."""
    seen: Counter[str] = Counter()
    results = [_result(diagnostic, sources, seen) for diagnostic in report.diagnostics]
    notifications = [
        {
            "level": "note",
            "message": {"text": f"{skip.model}: skipped: {skip.reason}"},
            "associatedRule": {"id": skip.code},
            "locations": [_location(skip.place)],
        }
        for skip in report.skips
    ]
    run = {
        "tool": {
            "driver": {"name": "kaito-catalog", "version": __version__, "rules": [_rule(r) for r in RULES]}
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
        "results": results,
    }
    value = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.text or rule.title},
        "help": {"text": rule.text or rule.title, "markdown": rule_markdown(rule)},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(diagnostic: Diagnostic, sources: Sources, seen: Counter[str]) -> dict[str, Any]:
    found = fingerprint(diagnostic, sources)
    seen[found] += 1
    hint = f"\n{diagnostic.hint}" if diagnostic.hint else ""
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "level": diagnostic.severity.value,
        "message": {"text": diagnostic.message + hint},
        "locations": [_location(diagnostic.place)],
        "partialFingerprints": {"kaitoCatalog/v1": f"{found}:{seen[found]}"},
    }
    if diagnostic.code in _INDEX:
        result["ruleIndex"] = _INDEX[diagnostic.code]
    if diagnostic.waived is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": diagnostic.waived}]
    return result


def fingerprint(diagnostic: Diagnostic, sources: Sources) -> str:
    """What stays the same when lines move and figures in the message change: code, file and the line's own text."""
    place = diagnostic.place
    document = sources.get(place.path)
    line = (document.line(place.line) if document else None) or diagnostic.message
    path = PurePosixPath(place.path)
    name = "/".join(path.parts[-2:]) if path.is_absolute() else path.as_posix()
    return hashlib.sha256("\0".join((diagnostic.code, name, line.strip())).encode()).hexdigest()[:32]


def _location(place: Place) -> dict[str, Any]:
    path = PurePosixPath(place.path)
    region = {"startLine": place.line, "startColumn": place.column}
    if place.end_column is not None:
        region["endColumn"] = place.end_column
    uri = Path(place.path).as_uri() if path.is_absolute() else quote(path.as_posix())
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}

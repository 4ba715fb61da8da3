"""What the checks find of KAITO's Markdown proposals, told in the words of the Markdown and each thing once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from kaito_catalog.checks import arc
from kaito_catalog.checks.base import NO_FACTS, Check, Context
from kaito_catalog.checks.engine import ClaimState, EntryReport, check_entry
from kaito_catalog.diagnostics import Diagnostic, Severity, Skipped, sort_key
from kaito_catalog.kaito.crd import KAITO_KEYS
from kaito_catalog.kaito.markdown.template import CLAIMS
from kaito_catalog.proposals.of_markdown import MarkdownFile, MarkdownModel, WithFacts


def check_markdown(
    file: MarkdownFile,
    checks: Sequence[Check],
    context: Context,
    found: Sequence[WithFacts],
    *,
    require_all: bool = False,
    with_remarks: bool = True,
) -> tuple[EntryReport, ...]:
    """The report of each model of a file; of a file without a model, why there is none.

    Args:
        file: what was read.
        checks: those that are run.
        context: the shared files and the profile.
        found: its models with the facts that their claims are compared with.
        require_all: a check that cannot be made is an error.
        with_remarks: whether what is wrong with the Markdown itself is told.
    """
    if not file.models:
        if file.skipped is not None or not with_remarks:
            return ()
        name = PurePosixPath(file.path).name
        return (EntryReport(name, file.path, False, file.remarks, (), {}, None),)
    reports = [
        _check_model(model, checks, context, facts, require_all, with_remarks)
        for model, facts in zip(file.models, found, strict=True)
    ]
    return tuple(_once_a_file(reports))


def _check_model(
    model: MarkdownModel,
    checks: Sequence[Check],
    context: Context,
    found: WithFacts,
    require_all: bool,
    with_remarks: bool,
) -> EntryReport:
    says_its_type = "type" in model.imported.value["requirements"]
    chosen = [
        check
        for check in checks
        if check.rule.family != "EVD" and (says_its_type or check is not arc.type_of_the_hub)
    ]
    report = check_entry(found.entry, chosen, context)
    remarks = [remark for remark in model.remarks if with_remarks and _is_about_the_proposal(remark)]
    skips = tuple(_skip(skip, found) for skip in report.skips)
    diagnostics = (
        _told_once(report.diagnostics, remarks)
        if model.imported.in_the_template
        else _of_a_free_form(model, report.diagnostics, remarks, with_remarks)
    )
    if require_all:
        diagnostics += [
            Diagnostic(s.code, Severity.ERROR, f"not known: {s.reason}", s.place, s.hint) for s in skips
        ]
    claims = report.claims
    if found.others is not None:  # those of another commit, or of the same: nobody knows
        rest_on_facts = (ClaimState.PROVEN, ClaimState.TRANSCRIBED)
        claims = {c: ClaimState.UNKNOWN if s in rest_on_facts else s for c, s in claims.items()}
    diagnostics = sorted(dict.fromkeys(map(in_words_of_the_template, diagnostics)), key=sort_key)
    return replace(report, diagnostics=tuple(diagnostics), skips=skips, claims=claims)


def _once_a_file(reports: Iterable[EntryReport]) -> list[EntryReport]:
    """The reports; what is wrong with a part that the models share is told of the first of them."""
    told: set[tuple[object, ...]] = set()
    result = []
    for report in reports:
        kept = tuple(d for d in report.diagnostics if _what_is_told(d) not in told)
        result.append(replace(report, diagnostics=kept))
        told.update(map(_what_is_told, report.diagnostics))
    return result


def _what_is_told(finding: Diagnostic) -> tuple[object, ...]:
    """What makes two findings one; of what is missing, the place is enough: a row is missing for every model."""
    return (finding.code, finding.place, "" if finding.code == "DOC008" else finding.message)


def _is_about_the_proposal(remark: Diagnostic) -> bool:
    """Whether a remark of the import is about what the proposal says, and not about what an import leaves out."""
    if remark.code in ("IMP005", "IMP017"):
        return False
    of_the_import = remark.message.endswith("is left out") or "text is left out" in remark.message
    return not (remark.code in ("IMP018", "IMP019") and (of_the_import or "section '" in remark.message))


def _skip(skip: Skipped, found: WithFacts) -> Skipped:
    if skip.reason != NO_FACTS.reason or found.lacking is None:
        hint = None if skip.hint is None else _renamed(skip.hint)
        return replace(skip, reason=_renamed(skip.reason), hint=hint)
    return replace(skip, reason=found.lacking, hint=found.hint)


def _of_a_free_form(
    model: MarkdownModel, findings: Iterable[Diagnostic], remarks: Sequence[Diagnostic], with_remarks: bool
) -> list[Diagnostic]:
    """Of a document with headings of its own: that it has no table, instead of each row that it lacks."""
    table = Diagnostic(
        "IMP002",
        Severity.WARNING,
        f"there is no requirements table, so no type, revision, size or GPUs are claimed for {model.imported.name}",
        model.entry.proposal_document.place(("requirements", "downloadSite")),
        "add the table of KAITO's template: | Field | Notes |",
    )
    kept = [remark for remark in remarks if remark.code not in ("IMP003", "IMP011")]
    of_checks = [finding for finding in findings if finding.code != "DOC008"]
    return _told_once(of_checks, [*([table] if with_remarks else []), *kept])


def _told_once(findings: Iterable[Diagnostic], remarks: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Findings and remarks without those that say one thing twice; what is missing is told by the template's names."""
    kept = list(remarks)
    told: list[Diagnostic] = []
    for finding in findings:
        if finding.code == "DOC008" and finding.message.startswith("requirements.contextLength "):
            continue  # KAITO's template has no such row; KTO014 says which context is served
        if finding.code == "DOC008":
            finding = _as_remarked(finding, kept)
        same = [remark for remark in kept if _repeats(remark, finding)]
        kept = [remark for remark in kept if remark not in same]
        if not (finding.code.startswith("SCH") and any(remark.severity is Severity.ERROR for remark in same)):
            told.append(finding)
        else:
            kept += same
    return [*told, *kept]


def _as_remarked(finding: Diagnostic, remarks: list[Diagnostic]) -> Diagnostic:
    """What is missing, as the import remarked it; that remark is taken out of the list."""
    route = finding.message.partition(" ")[0]
    remark = next((r for r in remarks if r.place == finding.place and _is_about(r, route)), None)
    if remark is None:
        remark = next(
            (r for r in remarks if r.place.line == finding.place.line and _is_about(r, route)), None
        )
    if remark is None:
        return finding
    remarks.remove(remark)
    return replace(finding, message=remark.message, hint=remark.hint)


def _is_about(remark: Diagnostic, route: str) -> bool:
    """Whether a remark about something missing is about that key."""
    if remark.code not in ("IMP003", "IMP011"):
        return False
    parent, _, key = route.partition(".")
    if parent == "requirements" and key in CLAIMS:
        title = CLAIMS[key]
        by_name = f"'{title}'" in remark.message or remark.message.startswith(f"{title}:")
        return by_name or (key == "version" and remark.code == "IMP003")
    return _WORDS.get(route) == remark.message


_WORDS = {
    "summary.description": "the model is not described",
    "summary.license": "no licence is named",
    "summary.license.id": "no licence is named",
    "runtimes": "there is no runtimes table",
}


def _repeats(remark: Diagnostic, finding: Diagnostic) -> bool:
    """Whether the remark and the finding are about one thing."""
    codes, anywhere = _SAME.get(remark.code, ((), False))
    return finding.code.startswith(codes) and (anywhere or remark.place.line == finding.place.line)


_SAME: dict[str, tuple[tuple[str, ...], bool]] = {
    "IMP003": (("REV001",), False),
    "IMP004": (("REV001",), False),
    "IMP006": (("SCH",), False),
    "IMP008": (("DOC006",), False),
    "IMP010": (("MEM004",), True),
    "IMP011": (("SCH",), False),
    "IMP012": (("DOC001", "SCH"), False),
    "IMP015": (("DOC003",), False),
    "IMP016": (("SCH",), False),
    "IMP020": (("LIC002",), False),
}
"""Checks that say what a remark says: their codes, and whether they may say it on another line."""


_ROWS = {key: f"'{title}'" for key, title in CLAIMS.items() if key not in ("type", "version")} | {
    "creationDate": "creation-date",
    "lastUpdated": "last-updated",
    "distributedInference": "'Distributed Inference'",
    "customConfigurations": "'Custom configurations'",
    "instanceType": "resource.instanceType",
    "configMap": "inference.config",
    **{key: written for written, key in KAITO_KEYS.items()},
}
_KEY = re.compile(
    rf"\b(?:(?:requirements|metadata|deployment|runtimes(?:\.[0-9]+)?)\.)?({'|'.join(map(re.escape, _ROWS))})\b"
)
_ROUTES = {
    "summary.license.id": "'Model license'",
    "summary.description": "'Model description'",
    "requirements.version": "'Version'",
    "requirements.type": "'Type'",
    "metadata.heading": "the heading below '# Title'",
    "metadata.authors.0": "authors",
}
_ROUTE = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, _ROUTES))})(?![\w.])")
_SET = re.compile(r"(type|version|id): ")
_SET_AS = {"type": "Type", "version": "Version", "id": "Model license"}


def in_words_of_the_template(finding: Diagnostic) -> Diagnostic:
    """The finding with the names of KAITO's template, where a proposal.yaml has keys."""
    hint = finding.hint
    if hint is not None:
        if (match := _SET.match(hint)) and not finding.code.startswith("IMP"):
            hint = f"{_SET_AS[match[1]]}: {hint[match.end() :]}"
        hint = _renamed(hint)
    return replace(finding, message=_renamed(finding.message), hint=hint)


def _renamed(text: str) -> str:
    text = _ROUTE.sub(lambda match: _ROUTES[match[1]], text)
    text = re.sub(_KEY.pattern + ": ", lambda match: _ROWS[match[1]].strip("'") + ": ", text)
    return _KEY.sub(lambda match: _ROWS[match[1]], text)

"""Run the checks over a catalog: findings with places, skips with reasons, and a verdict on every claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from kaito_catalog.catalog import licenses
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.licenses import ImageHosting
from kaito_catalog.checks import evd
from kaito_catalog.checks.base import Check, Claim, Context, Finding, Subject, place_of
from kaito_catalog.checks.registry import ALL_CODES, CHECKS, UNUSED_WAIVER
from kaito_catalog.diagnostics import Diagnostic, Route, Severity, Skipped, sort_key
from kaito_catalog.formats.base import is_missing


class ClaimState(Enum):
    """How far a claim is known to be true."""

    PROVEN = "proven"
    """By the Hub, a local copy of the repository, or evidence."""
    CLAIMED = "claimed"
    """By facts that came with the same change: their author claims them too, until the Hub was asked."""
    REPORTED = "reported"
    """By the log of a start that somebody reports."""
    TRANSCRIBED = "transcribed"
    """By facts that somebody published; the Hub was not asked."""
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class EntryReport:
    """Everything that was found out about one model."""

    name: str
    path: str
    readable: bool
    diagnostics: tuple[Diagnostic, ...]
    skips: tuple[Skipped, ...]
    claims: dict[Claim, ClaimState]
    image_hosting: ImageHosting | None


@dataclass(frozen=True)
class Report:
    """The result of `check` over several models."""

    entries: tuple[EntryReport, ...]
    complete: bool = True
    """Whether every check was run; a claim that no check was run about is unknown."""
    removed: tuple[str, ...] = ()
    """Models that the change takes out of the catalog."""

    @classmethod
    def of(
        cls, entries: Iterable[EntryReport], checks: Iterable[Check], *, removed: Sequence[str] = ()
    ) -> Report:
        """The report of these models, on which `checks` were run."""
        return cls(tuple(entries), complete=set(checks) >= set(CHECKS), removed=tuple(removed))

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """All findings, in the order of files and lines."""
        return sorted((d for entry in self.entries for d in entry.diagnostics), key=sort_key)

    @property
    def skips(self) -> list[Skipped]:
        """All checks that could not be made."""
        return [skip for entry in self.entries for skip in entry.skips]

    @property
    def failed(self) -> bool:
        """Whether any finding is an error that is not waived."""
        return any(d.fails for entry in self.entries for d in entry.diagnostics)

    def count(self, state: ClaimState) -> int:
        """How many claims are in that state."""
        return sum(1 for entry in self.entries for found in entry.claims.values() if found is state)


def check_catalog(
    catalog: Catalog, checks: Sequence[Check], context: Context, *, require_all: bool = False
) -> Report:
    """Run `checks` on every entry.

    Args:
        catalog: what was read.
        checks: in the order in which they run.
        context: the shared files and the profile.
        require_all: a check that cannot be made is an error instead of a skip.
    """
    return Report.of(
        (check_entry(entry, checks, context, require_all=require_all) for entry in catalog.entries), checks
    )


def check_entry(
    entry: Entry,
    checks: Sequence[Check],
    context: Context,
    *,
    require_all: bool = False,
    brings_facts: bool = False,
) -> EntryReport:
    """Run `checks` on one entry; an entry with broken files is reported completely and checked no further.

    Args:
        entry: what was read.
        checks: in the order in which they run.
        context: the shared files and the profile.
        require_all: a check that cannot be made is an error instead of a skip.
        brings_facts: the change that is judged brings facts.yaml along, which then proves nothing.
    """
    path = entry.proposal_document.path
    if not entry.is_readable:
        # What they claim is not known while they cannot be read.
        unknown: dict[Claim, ClaimState] = dict.fromkeys(_CLAIM_ROUTES, ClaimState.UNKNOWN)
        return EntryReport(entry.name, path, False, entry.problems, (), unknown, None)
    subject = Subject.of(entry)
    diagnostics: list[Diagnostic] = list(entry.problems)
    skips: list[Skipped] = []
    passed: set[str] = set()
    for check in checks:
        found, skipped = _run(check, subject, context)
        diagnostics.extend(found)
        skips.extend(skipped)
        if not skipped and not any(d.severity is Severity.ERROR for d in found):
            passed.add(check.code)
    diagnostics = _waive(subject, diagnostics, {check.code for check in checks})
    claims = _claims(subject, checks, diagnostics, passed)
    if brings_facts:
        rest_on_facts = (ClaimState.PROVEN, ClaimState.TRANSCRIBED)
        claims = {c: ClaimState.CLAIMED if s in rest_on_facts else s for c, s in claims.items()}
    claims = {c: _reported(c, s, subject, context) for c, s in claims.items()}
    if require_all:
        diagnostics.extend(
            Diagnostic(s.code, Severity.ERROR, f"not known: {s.reason}", s.place, s.hint) for s in skips
        )
    claimed = subject.proposal.license_id
    hosting = licenses.image_hosting(claimed, context.shared.policy.licenses) if claimed else None
    return EntryReport(
        entry.name, path, True, tuple(sorted(diagnostics, key=sort_key)), tuple(skips), claims, hosting
    )


def _run(check: Check, subject: Subject, context: Context) -> tuple[list[Diagnostic], list[Skipped]]:
    diagnostics: list[Diagnostic] = []
    skips: list[Skipped] = []
    for outcome in check.run(subject, context):
        if isinstance(outcome, Finding):
            severity = outcome.severity or check.rule.severity
            place = place_of(subject, outcome)
            diagnostics.append(Diagnostic(check.code, severity, outcome.message, place, outcome.hint))
        else:
            route: Route = tuple(check.proves[0].split(".")) if check.proves else ()
            place = subject.document.place(route)
            skips.append(Skipped(check.code, subject.name, outcome.reason, place, outcome.hint))
    return diagnostics, skips


def _waive(subject: Subject, diagnostics: Iterable[Diagnostic], ran: set[str]) -> list[Diagnostic]:
    waivers = subject.proposal.waivers or {}
    used: set[str] = set()
    result: list[Diagnostic] = []
    for diagnostic in diagnostics:
        reason = waivers.get(diagnostic.code)
        if reason is not None:
            used.add(diagnostic.code)
            diagnostic = replace(diagnostic, waived=reason)
        result.append(diagnostic)
    for code in waivers:
        if code in used or (code not in ran and code in ALL_CODES):
            continue
        known = code in ALL_CODES
        result.append(
            Diagnostic(
                UNUSED_WAIVER.code,
                UNUSED_WAIVER.severity,
                f"the waiver of {code} waives nothing" if known else f"there is no check {code} to waive",
                subject.document.place(("waivers", code)),
                "remove it",
            )
        )
    return result


_CLAIM_ROUTES: tuple[Claim, ...] = (
    "summary.license.id",
    "requirements.type",
    "requirements.version",
    "requirements.storageSize",
    "requirements.gpuCount",
    "requirements.totalGPUMemory",
    "requirements.perGPUMemory",
    "requirements.contextLength",
)


def _claimed_value(subject: Subject, claim: Claim) -> object:
    requirements = subject.proposal.requirements
    match claim:
        case "summary.license.id":
            return subject.proposal.license_id
        case "requirements.type":
            return requirements.type
        case "requirements.version":
            return requirements.version
        case "requirements.storageSize":
            return requirements.storage_size
        case "requirements.gpuCount":
            return requirements.gpu_count
        case "requirements.totalGPUMemory":
            return requirements.total_gpu_memory
        case "requirements.perGPUMemory":
            return "not applicable" if requirements.per_gpu_memory == "N/A" else requirements.per_gpu_memory
        case "requirements.contextLength":
            return requirements.context_length


def _claims(
    subject: Subject, checks: Sequence[Check], diagnostics: Sequence[Diagnostic], passed: set[str]
) -> dict[Claim, ClaimState]:
    result: dict[Claim, ClaimState] = {}
    for claim in _CLAIM_ROUTES:
        place = subject.document.place(tuple(claim.split(".")))
        if is_missing(_claimed_value(subject, claim)):
            result[claim] = ClaimState.UNKNOWN
        elif any(d.place == place and d.severity is Severity.ERROR for d in diagnostics):
            result[claim] = ClaimState.WRONG
        elif any(claim in check.proves and check.code in passed for check in checks):
            hub = subject.facts is not None and subject.facts.source.kind in ("hub", "local")
            result[claim] = ClaimState.PROVEN if hub else ClaimState.TRANSCRIBED
        else:
            result[claim] = ClaimState.UNKNOWN
    return result


_OF_A_START: frozenset[Claim] = frozenset(
    {
        "requirements.gpuCount",
        "requirements.totalGPUMemory",
        "requirements.perGPUMemory",
        "requirements.contextLength",
    }
)


def _reported(claim: Claim, state: ClaimState, subject: Subject, context: Context) -> ClaimState:
    """What nothing else is known about is reported where a log shows that it served on the claimed GPUs."""
    if state is not ClaimState.UNKNOWN or claim not in _OF_A_START:
        return state
    if is_missing(_claimed_value(subject, claim)) or not any(evd.shows_the_claimed_start(subject, context)):
        return state
    return ClaimState.REPORTED

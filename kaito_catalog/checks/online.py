"""`check --online`: ask the Hub about every model, a few at once, and add what has changed to the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.checks.base import Claim, Subject, place_of
from kaito_catalog.checks.engine import ClaimState, EntryReport, Report
from kaito_catalog.checks.hub import HUB_RULES, Drift, Online, judge
from kaito_catalog.diagnostics import Diagnostic, Severity, Skipped, sort_key
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.differences import HubChange, differences
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.facts import facts_of

Again = Callable[[Entry], EntryReport]
"""Judges an entry with other facts."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_WORKERS = 4


def ask(hub: Hub, subject: Subject) -> Online:
    """What the Hub says about a model now: one call, two where main has moved on."""
    repo_id = subject.proposal.repo_id
    if repo_id is None:
        return Online(skip="the download site is not a page of the Hub", hint="see DOC003")
    try:
        main = hub.repository(repo_id)
    except HubError as error:
        if error.trouble in (Trouble.GONE, Trouble.DISABLED, Trouble.GONE_OR_PRIVATE):
            return Online(change=HubChange.GONE, message=error.message, hint=error.hint)
        return Online(skip=error.message, hint=error.hint)
    version = subject.proposal.requirements.version
    pinned = subject.facts.revision if subject.facts and subject.facts.revision else version
    if is_missing(pinned) or pinned is None or not _COMMIT.match(pinned):
        return Online(main=main)
    if pinned == main.revision:
        return Online(main=main, pinned=main)
    try:
        return Online(main=main, pinned=hub.repository(main.repo_id, pinned))
    except HubError as error:
        if error.trouble is Trouble.REVISION_GONE:
            return Online(main=main, change=HubChange.REVISION_GONE, message=error.message, hint=error.hint)
        return Online(skip=error.message, hint=error.hint)


def online_report(
    report: Report,
    catalog: Catalog,
    hub: Hub,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    require_all: bool = False,
    say: Callable[[str], None] = lambda line: None,
    again: Again | None = None,
    brings_facts: Collection[str] = (),
) -> Report:
    """`report` with what the Hub says added: findings with HUB codes, and skips where it could not be asked.

    Args:
        report: of the offline checks.
        catalog: what they were run on.
        hub: an open connection.
        select, ignore: starts of codes, as for the other checks.
        require_all: a model that could not be asked about is an error.
        say: told how far it is.
        again: judges an entry by the facts that the Hub gives now.
        brings_facts: the folders of models whose facts came with the change that is judged: those of the Hub are read
            whole, and the claims judged by them.
    """
    codes = {
        rule.code
        for rule in HUB_RULES
        if (not select or rule.code.startswith(tuple(select)))
        and not (ignore and rule.code.startswith(tuple(ignore)))
    }
    if not codes:
        return report
    subjects = {entry.name: Subject.of(entry) for entry in catalog.entries if entry.is_readable}
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="drift") as pool:
        waiting = {name: pool.submit(ask, hub, subject) for name, subject in subjects.items()}
        own = {
            entry.name: pool.submit(_facts_of_the_hub, hub, entry)
            for entry in catalog.entries
            if again is not None and entry.name in subjects and entry.folder.name in brings_facts
        }
        of_name = {entry.name: entry for entry in catalog.entries}
        try:
            entries = []
            for number, entry in enumerate(report.entries, start=1):
                if entry.name in waiting:
                    now = waiting[entry.name].result()
                    entry = _with(entry, subjects[entry.name], now, codes, require_all=require_all)
                    if again is not None and entry.name in own:
                        entry = _proven_by_the_hub(
                            entry, of_name[entry.name], own[entry.name].result(), again
                        )
                    say(f"[{number}/{len(report.entries)}] {entry.name}: {now.skip or 'asked'}")
                entries.append(entry)
        except BaseException:
            for asked in waiting.values():
                asked.cancel()
            for read in own.values():
                read.cancel()
            hub.stop()
            raise
    return replace(report, entries=tuple(entries))


def _facts_of_the_hub(hub: Hub, entry: Entry) -> ModelFacts | HubError:
    """The facts of the pinned revision, read as `record` reads them."""
    proposal = entry.proposal
    assert proposal is not None
    version = proposal.requirements.version
    if proposal.repo_id is None or version is None or not _COMMIT.match(version):
        return HubError(Trouble.INCOMPLETE, "the proposal pins no commit of a repository of the Hub")
    try:
        snapshot = hub.snapshot(proposal.repo_id, version)
        found = facts_of(snapshot, kind="hub", recorded_at=date.min)
    except HubError as error:
        return error
    return found.missing[0] if found.missing else found.facts


def _proven_by_the_hub(
    report: EntryReport, entry: Entry, found: ModelFacts | HubError, again: Again
) -> EntryReport:
    """The claims by the Hub's own facts instead of those that came with the change."""
    if isinstance(found, HubError):
        place = entry.proposal_document.place(("requirements", "version"))
        skip = Skipped(
            "HUB006",
            entry.name,
            f"the facts that came with the change are not confirmed: {found.message}",
            place,
        )
        return replace(report, skips=(*report.skips, skip))
    judged = again(replace(entry, facts=found))
    added = [d for d in judged.diagnostics if d not in report.diagnostics and d.severity is Severity.ERROR]
    differ = [
        Diagnostic(
            d.change.code,
            Severity.ERROR,
            f"the change says of {d.field} {d.recorded}, the Hub {d.found}",
            entry.proposal_document.place(("requirements", "version")),
            "write the facts with 'kaito-catalog record', not by hand",
        )
        for d in (differences(entry.facts, found) if entry.facts else ())
    ]
    told = {d.code for d in report.diagnostics}
    differ = [d for d in differ if d.code not in told]
    claims = {**judged.claims, **_without(differ + list(report.diagnostics), judged.claims)}
    diagnostics = tuple(sorted((*report.diagnostics, *added, *differ), key=sort_key))
    return replace(report, diagnostics=diagnostics, claims=claims)


def _without(
    diagnostics: Sequence[Diagnostic], claims: Mapping[Claim, ClaimState]
) -> dict[Claim, ClaimState]:
    """The claims that errors of the Hub take with them: wrong where it says otherwise, else unknown."""
    changed: dict[Claim, ClaimState] = {}
    codes = {d.code for d in diagnostics if d.severity is Severity.ERROR and d.waived is None}
    for code, (concerned, state) in _TAKES.items():
        if code in codes:
            for claim in concerned or tuple(claims):
                if claims.get(claim) not in (None, ClaimState.WRONG):
                    changed[claim] = state
    return changed


_MEMORY: tuple[Claim, ...] = (
    "requirements.storageSize",
    "requirements.gpuCount",
    "requirements.totalGPUMemory",
    "requirements.perGPUMemory",
    "requirements.contextLength",
)
_TAKES: dict[str, tuple[tuple[Claim, ...], ClaimState]] = {
    "HUB006": (_MEMORY, ClaimState.UNKNOWN),
    "HUB005": (("summary.license.id",), ClaimState.WRONG),
    "HUB001": ((), ClaimState.UNKNOWN),
    "HUB003": ((), ClaimState.UNKNOWN),
}
"""What an error of the Hub says about the claims; nothing named: about all of them."""


def _with(
    entry: EntryReport, subject: Subject, now: Online, codes: set[str], *, require_all: bool
) -> EntryReport:
    diagnostics = list(entry.diagnostics)
    skips = list(entry.skips)
    waivers = subject.proposal.waivers or {}
    for outcome in judge(subject, now):
        if isinstance(outcome, Drift):
            if outcome.rule.code not in codes:
                continue
            place = place_of(subject, outcome.finding)
            finding = outcome.finding
            diagnostic = Diagnostic(outcome.rule.code, outcome.severity, finding.message, place, finding.hint)
            reason = waivers.get(diagnostic.code)
            diagnostics.append(diagnostic.accept(reason) if reason else diagnostic)
        else:
            place = subject.document.place(("requirements", "downloadSite"))
            code = min(codes)
            skips.append(Skipped(code, subject.name, outcome.reason, place, outcome.hint))
            if require_all:
                diagnostics.append(
                    Diagnostic(code, Severity.ERROR, f"not known: {outcome.reason}", place, outcome.hint)
                )
    claims = {**entry.claims, **_without(diagnostics, entry.claims)}
    return replace(
        entry, diagnostics=tuple(sorted(diagnostics, key=sort_key)), skips=tuple(skips), claims=claims
    )

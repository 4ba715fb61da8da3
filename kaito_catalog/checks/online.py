"""`check --online`: ask the Hub about every model, a few at once, and add what has changed to the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.checks.base import Subject, place_of
from kaito_catalog.checks.engine import EntryReport, Report
from kaito_catalog.checks.hub import HUB_RULES, Drift, Online, judge
from kaito_catalog.diagnostics import Diagnostic, Severity, Skipped, sort_key
from kaito_catalog.formats.base import is_missing
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.differences import HubChange
from kaito_catalog.hub.errors import HubError, Trouble

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
) -> Report:
    """`report` with what the Hub says added: findings with HUB codes, and skips where it could not be asked.

    Args:
        report: of the offline checks.
        catalog: what they were run on.
        hub: an open connection.
        select, ignore: starts of codes, as for the other checks.
        require_all: a model that could not be asked about is an error.
        say: told how far it is.
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
        try:
            entries = []
            for number, entry in enumerate(report.entries, start=1):
                if entry.name in waiting:
                    now = waiting[entry.name].result()
                    entry = _with(entry, subjects[entry.name], now, codes, require_all=require_all)
                    say(f"[{number}/{len(report.entries)}] {entry.name}: {now.skip or 'asked'}")
                entries.append(entry)
        except BaseException:
            for future in waiting.values():
                future.cancel()
            hub.stop()
            raise
    return Report(tuple(entries), complete=report.complete)


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
    return replace(entry, diagnostics=tuple(sorted(diagnostics, key=sort_key)), skips=tuple(skips))

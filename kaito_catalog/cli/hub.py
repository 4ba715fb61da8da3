"""The commands that speak with the Hub: `new`, `record`, `fake-hub`, and `check --online`."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from datetime import date
from pathlib import Path

from kaito_catalog.catalog.entries import FACTS, PROPOSAL, Catalog, Entry
from kaito_catalog.catalog.reading import read_catalog, read_entry, read_shared, shown
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import EntryReport, Report, check_entry
from kaito_catalog.checks.online import online_report
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, say, selection
from kaito_catalog.cli.progress import Progress
from kaito_catalog.diagnostics import Diagnostic
from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.addresses import one_revision, read_address
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.contents import what_else, what_else_it_says
from kaito_catalog.hub.directory import LocalSnapshot
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.fake.repositories import repositories_in, repository_from_facts
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.hub.record import (
    RecordOutcome,
    RecordTarget,
    Result,
    change_of,
    need_all_weights,
    record_all,
    record_from,
    write,
)
from kaito_catalog.proposals.draft import new_proposal
from kaito_catalog.reports.style import printable
from kaito_catalog.reports.summary import plural
from kaito_catalog.system import files

_SHOWN = 20
"""Differences of one model that are listed."""


def _progress(line: str) -> None:
    say(printable(line))


def _emit(line: str) -> None:
    emit(f"{printable(line)}\n")


# --- new -------------------------------------------------------------------------------------------------------


def run_new(options: argparse.Namespace) -> int:
    """`new`."""
    address = read_address(options.repo_id)
    repo_id, revision = address.repo_id, one_revision(address, options.revision)
    root = catalog_root(options, or_shipped=bool(options.into))
    shared = read_shared(root)
    profile = shared.profile(options.profile)
    into = Path(options.into) if options.into else root / "models"
    # Before anything is asked, and again under the Hub's own spelling.
    _must_be_new(into, repo_id)
    today = date.today()
    with Hub(say=_progress) as hub:
        snapshot = hub.snapshot(repo_id, revision)
        found = snapshot.repository
        if found.repo_id != repo_id:
            say(f"the Hub knows {repo_id} as {printable(found.repo_id)}")
            _must_be_new(into, found.repo_id)
        other = what_else(found)
        if other is None:
            recorded = facts_of(snapshot, kind="hub", recorded_at=today)
            other = what_else_it_says(snapshot, recorded.facts.config)
        calls = hub.calls
    if other is not None:
        say(f"error: {printable(found.repo_id)} is {other.what}")
        say(f"hint: {other.hint}")
        return FAILED
    need_all_weights(recorded.facts, hint=snapshot.how_to_complete())
    proposal = new_proposal(recorded, found, shared, profile, today=today, author=options.author)
    folder = into / proposal.name
    text = proposal.text
    refused = _refused(proposal.name, recorded.text, text, Context(shared, profile))
    for finding in refused:
        say(f"error: {finding.code}: {finding.message}")
        say(f"hint: {finding.hint or f'kaito-catalog explain {finding.code}'}")
    if refused:
        return FAILED
    files.write_text(folder / FACTS, recorded.text)
    try:
        files.write_text(folder / PROPOSAL, text)
    except CatalogError:
        (folder / FACTS).unlink(missing_ok=True)
        raise
    _emit(
        f"wrote {shown(folder / PROPOSAL)} and {FACTS}: {len(proposal.derived) - len(proposal.gaps)} fields derived"
    )
    for gap in proposal.gaps:
        _emit(f"to do: {gap}")
    for error in recorded.missing:
        say(f"warning: {error.message}")
        say(f"hint: {error.hint}")
    say(
        f"{plural(calls, 'call')} to the Hub; next: fill in the gaps, then 'kaito-catalog check {shown(folder)}'"
    )
    return OK


def _refused(name: str, facts: str, proposal: str, context: Context) -> list[Diagnostic]:
    """What `check` would refuse of the folder, before it is written."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        files.write_text(folder / FACTS, facts)
        files.write_text(folder / PROPOSAL, proposal)
        report = check_entry(read_entry(folder), CHECKS, context)
    return [found for found in report.diagnostics if found.fails]


def _must_be_new(into: Path, repo_id: str) -> None:
    folder = into / files.safe_name(repo_id.partition("/")[2].lower())
    if (folder / PROPOSAL).exists() or (folder / FACTS).exists():
        raise CatalogError(
            f"{shown(folder)} exists",
            hint="'kaito-catalog record NAME' reads its facts anew; or choose --into DIR",
        )


# --- record ----------------------------------------------------------------------------------------------------


def run_record(options: argparse.Namespace) -> int:
    """`record`."""
    root = catalog_root(options)
    _refuse_unusable(options)
    targets, failed = _targets(read_catalog(root, selection(options.names, root)))
    if not targets and not failed:
        raise CatalogError(f"no model in {shown(root / 'models')}")
    today = date.today()
    results: list[Result] = []

    def show(result: Result) -> None:
        results.append(result)
        _show(result)
        say(f"[{len(results)}/{len(targets)}] {result.target.name}: {result.outcome.value}")
        progress.step(targets[len(results)].name if len(results) < len(targets) else "")

    calls = 0
    with Progress(lambda: len(targets), wait_seconds=0) as progress:
        progress.step(targets[0].name if targets else "")
        if options.from_local:
            for target in targets:
                show(_from_directory(target, options, today))
        else:
            with Hub(say=_progress) as hub:
                for result in record_all(
                    targets,
                    hub,
                    recorded_at=today,
                    accept=options.accept,
                    all_headers=options.all_headers,
                    all_hashes=options.all_hashes,
                ):
                    show(result)
                calls = hub.calls
    counts = [f"{sum(r.outcome is outcome for r in results)} {outcome.value}" for outcome in RecordOutcome]
    _emit(
        f"{plural(len(results) + failed, 'model')}: {', '.join(counts)}"
        + (f"; {plural(calls, 'call')}" if calls else "")
    )
    if any(result.outcome is RecordOutcome.REFUSED for result in results):
        say("hint: look at each difference; 'kaito-catalog record NAME --accept' writes what was found")
    return FAILED if failed or any(result.failed for result in results) else OK


def _refuse_unusable(options: argparse.Namespace) -> None:
    """Options of `record` that do not go together.

    Raises:
        CatalogError: there are some.
    """
    if options.from_local and len(options.names) != 1:
        raise CatalogError(
            "--from-local reads one model", hint="name it: kaito-catalog record NAME --from-local DIR"
        )
    if options.revision and not options.from_local:
        raise CatalogError(
            "--revision goes with --from-local",
            hint="the Hub is asked for the revision that the proposal pins",
        )
    if options.revision and not re.fullmatch("[0-9a-f]{40}", options.revision):
        raise CatalogError(f"'{options.revision[:60]}' is not a commit", hint="write all 40 hex digits")


def _targets(catalog: Catalog) -> tuple[list[RecordTarget], int]:
    """What can be recorded of the catalog, and how many of its models cannot, each with its reason on stdout."""
    targets: list[RecordTarget] = []
    failed = 0
    for entry in catalog.entries:
        try:
            targets.append(RecordTarget.of(entry))
        except CatalogError as error:
            failed += 1
            _emit(f"{entry.name}: failed: {error.message}")
    return targets, failed


def _from_directory(target: RecordTarget, options: argparse.Namespace, today: date) -> Result:
    """Record a model from the directory of `--from-local`."""
    try:
        snapshot = LocalSnapshot(
            Path(options.from_local), target.repo_id, revision=options.revision, say=_progress
        )
        recorded, decision = record_from(
            target,
            snapshot,
            kind="local",
            recorded_at=today,
            accept=options.accept,
            all_headers=True,
            all_hashes=options.all_hashes,
        )
        if recorded.facts.revision is None:
            hint = "state it with --revision if you know it"
            say(f"{target.name}: the directory does not tell its commit; {hint}")
        return write(target, recorded, decision)
    except CatalogError as error:
        return Result(target, RecordOutcome.FAILED, error=error)


def _show(result: Result) -> None:
    name = result.target.name
    if result.error is not None:
        change = change_of(result.error)
        code = f"{change.code} {change.value}: " if change else ""
        _emit(f"{name}: failed: {code}{result.error.message}")
        if result.error.hint:
            _emit(f"  hint: {result.error.hint}")
        return
    decision = result.decision
    assert decision is not None
    _emit(f"{name}: {result.outcome.value}" + (f" ({'; '.join(decision.notes)})" if decision.notes else ""))
    for difference in decision.differences[:_SHOWN]:
        _emit(f"  {difference}")
    if len(decision.differences) > _SHOWN:
        _emit(f"  and {len(decision.differences) - _SHOWN} more")


# --- fake-hub --------------------------------------------------------------------------------------------------


def run_fake_hub(options: argparse.Namespace) -> int:
    """`fake-hub`: serves until it is interrupted."""

    if options.folder:
        repositories = repositories_in(Path(options.folder))
    else:
        catalog = read_catalog(catalog_root(options, or_shipped=True))
        repositories = [repository_from_facts(entry.facts) for entry in catalog.entries if entry.facts]
    try:
        hub = FakeHub(repositories, port=options.port, limit=options.limit)
    except OSError as error:
        raise CatalogError(
            f"port {options.port} cannot be used ({error.strerror or error})",
            hint="--port 0 takes a free one",
        ) from error
    say(
        f"serving {plural(len(repositories), 'model')}; gated ones open with HF_TOKEN=hf_reader; stop with Ctrl-C"
    )
    print(f"HF_ENDPOINT={hub.endpoint}", flush=True)
    try:
        hub.serve()
    except KeyboardInterrupt:
        hub.stop()
    return OK


# --- check --online --------------------------------------------------------------------------------------------


def online(
    report: Report,
    catalog: Catalog,
    *,
    select: Sequence[str],
    ignore: Sequence[str],
    require_all: bool,
    again: Callable[[Entry], EntryReport],
    brings_facts: Collection[str],
) -> Report:
    """`report` with what the Hub says now."""

    with Hub(say=_progress) as hub:
        result = online_report(
            report,
            catalog,
            hub,
            select=select,
            ignore=ignore,
            require_all=require_all,
            say=_progress,
            again=again,
            brings_facts=brings_facts,
        )
        say(f"{plural(hub.calls, 'call')} to the Hub")
    return result

"""The commands that speak with the Hub: `new`, `record`, `fake-hub`, and `check --online`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from kaito_catalog import files
from kaito_catalog.catalog import FACTS, PROPOSAL, Catalog, read_catalog, read_shared, shown
from kaito_catalog.checks.engine import Report
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Profile
from kaito_catalog.reports.style import printable
from kaito_catalog.reports.summary import plural

OK, FAILED = 0, 1
_SHOWN = 20
"""Differences of one model that are listed."""
_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PAGE = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+).*")


@dataclass(frozen=True)
class Tools:
    """What the command line lends: where the catalog is, which folders names mean, how it speaks."""

    root: Callable[[argparse.Namespace], Path]
    selection: Callable[[Sequence[str], Path], list[Path] | None]
    profile: Callable[[Catalog, str | None], Profile]
    say: Callable[[str], None]


def add_commands(command: Callable[..., Any], tools: Tools) -> None:
    """Add `new`, `record` and `fake-hub`; `command` makes a subparser as the other commands do."""
    new = command(
        "new",
        lambda options: run_new(options, tools),
        "start a proposal from a repository of the Hub: every derivable field filled in and marked",
        "  kaito-catalog new microsoft/phi-4\n"
        "  HF_TOKEN=… kaito-catalog new meta-llama/Llama-3.3-70B-Instruct --author @someone\n",
    )
    new.add_argument("repo_id", metavar="REPO_ID", help="org/model, or the address of its page")
    new.add_argument(
        "--revision", metavar="R", help="commit, branch or tag (default: what main points to now)"
    )
    new.add_argument("--author", metavar="NAME", help="who proposes it, such as @someone (default: a gap)")
    new.add_argument("--into", metavar="DIR", help="where the folder goes (default: models/ of the catalog)")
    new.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")

    record = command(
        "record",
        lambda options: run_record(options, tools),
        "write facts.yaml: what the Hub, or a directory, says about the pinned revision",
        "  kaito-catalog record phi-4\n"
        "  kaito-catalog record                                    every model of the catalog\n"
        "  kaito-catalog record phi-4 --from-local /mirror/phi-4   without a network\n"
        "  kaito-catalog record phi-4 --accept                     after you have read the difference\n",
    )
    record.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
    record.add_argument(
        "--from-local", metavar="DIR", help="read a directory with the repository's files instead"
    )
    record.add_argument(
        "--revision", metavar="SHA", help="with --from-local: the commit, where DIR does not tell"
    )
    record.add_argument(
        "--accept", action="store_true", help="replace recorded facts that the Hub contradicts"
    )
    record.add_argument(
        "--all-headers", action="store_true", help="read the header of every weight file (a call each)"
    )

    fake = command(
        "fake-hub",
        lambda options: run_fake_hub(options, tools),
        "serve repositories as the Hub does, on this machine, to try the commands without a network",
        "  kaito-catalog fake-hub                      the models of the catalog, from their facts\n"
        "  kaito-catalog fake-hub ./repositories       DIR/ORG/NAME/config.json …\n"
        "  HF_ENDPOINT=http://127.0.0.1:8000 kaito-catalog new microsoft/phi-4 --into /tmp/mine\n",
    )
    fake.add_argument("folder", nargs="?", metavar="DIR", help="default: the catalog's facts")
    fake.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)"
    )
    fake.add_argument("--limit", type=int, metavar="N", help="API calls per 300 s, as the Hub's 500")


def _progress(tools: Tools) -> Callable[[str], None]:
    return lambda line: tools.say(printable(line))


def _emit(line: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(f"{printable(line)}\n")


# --- new -------------------------------------------------------------------------------------------------------


def run_new(options: argparse.Namespace, tools: Tools) -> int:
    """`new`."""
    from kaito_catalog.hub import Hub
    from kaito_catalog.new import new_proposal
    from kaito_catalog.record import facts_of

    page = _PAGE.fullmatch(options.repo_id)
    repo_id = page[1] if page else options.repo_id
    if not _REPO_ID.fullmatch(repo_id):
        raise CatalogError(
            f"'{printable(options.repo_id[:120])}' is no repository id",
            hint="write ORG/MODEL, such as microsoft/phi-4",
        )
    root = tools.root(options)
    shared = read_shared(root)
    profile = tools.profile(Catalog(root, shared, ()), options.profile)
    into = Path(options.into) if options.into else root / "models"
    # Before anything is asked, and again under the Hub's own spelling.
    _must_be_new(into, repo_id)
    today = date.today()
    with Hub(say=_progress(tools)) as hub:
        snapshot = hub.snapshot(repo_id, options.revision)
        found = snapshot.repository
        if found.repo_id != repo_id:
            tools.say(f"the Hub knows {repo_id} as {printable(found.repo_id)}")
            _must_be_new(into, found.repo_id)
        recorded = facts_of(snapshot, kind="hub", recorded_at=today)
        calls = hub.calls
    proposal = new_proposal(recorded, found, shared, profile, today=today, author=options.author)
    folder = into / proposal.name
    text = proposal.text
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
        tools.say(f"warning: {error.message}")
        tools.say(f"hint: {error.hint}")
    tools.say(
        f"{plural(calls, 'call')} to the Hub; next: fill in the gaps, then 'kaito-catalog check {shown(folder)}'"
    )
    return OK


def _must_be_new(into: Path, repo_id: str) -> None:
    folder = into / files.safe_name(repo_id.partition("/")[2].lower())
    if (folder / PROPOSAL).exists() or (folder / FACTS).exists():
        raise CatalogError(
            f"{shown(folder)} exists",
            hint="'kaito-catalog record NAME' reads its facts anew; or choose --into DIR",
        )


# --- record ----------------------------------------------------------------------------------------------------


def run_record(options: argparse.Namespace, tools: Tools) -> int:
    """`record`."""
    from kaito_catalog.local import LocalSnapshot
    from kaito_catalog.record import Outcome, Result, Target, change_of, record_all, record_from, write

    root = tools.root(options)
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
        raise CatalogError(f"'{options.revision[:60]}' is no commit", hint="write all 40 hex digits")
    catalog = read_catalog(root, tools.selection(options.names, root))
    targets: list[Target] = []
    results: list[Result] = []
    failed = 0
    for entry in catalog.entries:
        try:
            targets.append(Target.of(entry))
        except CatalogError as error:
            failed += 1
            _emit(f"{entry.name}: failed: {error.message}")
    if not targets and not failed:
        raise CatalogError(f"no model in {shown(root / 'models')}")
    today = date.today()

    def show(result: Result) -> None:
        results.append(result)
        name = result.target.name
        if result.error is not None:
            change = change_of(result.error)
            code = f"{change.code} {change.value}: " if change else ""
            _emit(f"{name}: failed: {code}{result.error.message}")
            if result.error.hint:
                _emit(f"  hint: {result.error.hint}")
        else:
            decision = result.decision
            assert decision is not None
            _emit(
                f"{name}: {result.outcome.value}"
                + (f" ({'; '.join(decision.notes)})" if decision.notes else "")
            )
            for difference in decision.differences[:_SHOWN]:
                _emit(f"  {difference}")
            if len(decision.differences) > _SHOWN:
                _emit(f"  and {len(decision.differences) - _SHOWN} more")
        tools.say(f"[{len(results)}/{len(targets)}] {name}: {result.outcome.value}")

    calls = 0
    if options.from_local:
        for target in targets:
            try:
                snapshot = LocalSnapshot(
                    Path(options.from_local), target.repo_id, revision=options.revision, say=_progress(tools)
                )
                recorded, decision = record_from(
                    target, snapshot, kind="local", recorded_at=today, accept=options.accept, all_headers=True
                )
                if recorded.facts.revision is None:
                    hint = "state it with --revision if you know it"
                    tools.say(f"{target.name}: the directory does not tell its commit; {hint}")
                show(write(target, recorded, decision))
            except CatalogError as error:
                show(Result(target, Outcome.FAILED, error=error))
    else:
        from kaito_catalog.hub import Hub

        with Hub(say=_progress(tools)) as hub:
            for result in record_all(
                targets, hub, recorded_at=today, accept=options.accept, all_headers=options.all_headers
            ):
                show(result)
            calls = hub.calls
    counts = [f"{sum(r.outcome is outcome for r in results)} {outcome.value}" for outcome in Outcome]
    _emit(
        f"{plural(len(results) + failed, 'model')}: {', '.join(counts)}"
        + (f"; {plural(calls, 'call')}" if calls else "")
    )
    if any(result.outcome is Outcome.REFUSED for result in results):
        tools.say("hint: look at each difference; 'kaito-catalog record NAME --accept' writes what was found")
    return FAILED if failed or any(result.failed for result in results) else OK


# --- fake-hub --------------------------------------------------------------------------------------------------


def run_fake_hub(options: argparse.Namespace, tools: Tools) -> int:
    """`fake-hub`: serves until it is interrupted."""
    from kaito_catalog.fake_hub import FakeHub, repositories_in, repository_from_facts

    if options.folder:
        repositories = repositories_in(Path(options.folder))
    else:
        catalog = read_catalog(tools.root(options))
        repositories = [repository_from_facts(entry.facts) for entry in catalog.entries if entry.facts]
    try:
        hub = FakeHub(repositories, port=options.port, limit=options.limit)
    except OSError as error:
        raise CatalogError(
            f"port {options.port} cannot be used ({error.strerror or error})",
            hint="--port 0 takes a free one",
        ) from error
    tools.say(
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
    tools: Tools,
    *,
    select: Sequence[str],
    ignore: Sequence[str],
    require_all: bool,
) -> Report:
    """`report` with what the Hub says now."""
    from kaito_catalog.drift import online_report
    from kaito_catalog.hub import Hub

    with Hub(say=_progress(tools)) as hub:
        result = online_report(
            report, catalog, hub, select=select, ignore=ignore, require_all=require_all, say=_progress(tools)
        )
        tools.say(f"{plural(hub.calls, 'call')} to the Hub")
    return result

"""The commands that judge: `check`, `explain`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kaito_catalog.catalog import changes
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_catalog, read_entries, read_shared, shown
from kaito_catalog.checks.base import Check, Context
from kaito_catalog.checks.engine import EntryReport, Report, check_entry
from kaito_catalog.checks.registry import FAMILIES, RULES, require_codes, rule, selected
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, is_markdown, say, selection
from kaito_catalog.cli.manifests import check_given, is_manifest
from kaito_catalog.cli.markdown import check_files, mend_files
from kaito_catalog.cli.progress import Progress
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.crd_files import read_crds
from kaito_catalog.kaito.markdown.codes import IMPORT_CODES
from kaito_catalog.proposals import fix
from kaito_catalog.reports import RENDERERS, change
from kaito_catalog.reports.explain import explain_text, import_code_text, list_text
from kaito_catalog.reports.github import step_summary
from kaito_catalog.reports.json import json_report
from kaito_catalog.reports.markdown import markdown
from kaito_catalog.reports.style import wants_color
from kaito_catalog.reports.text import text


def _quoted(entry: Entry, report: EntryReport) -> dict[str, Document]:
    """The documents that findings point into, by path."""
    paths = {diagnostic.place.path for diagnostic in report.diagnostics}
    documents = (entry.proposal_document, entry.facts_document)
    return {d.path: d.quotable() for d in documents if d is not None and d.path in paths}


def run_check(options: argparse.Namespace) -> int:
    """`check`."""
    # Without a path, a check of the wrong catalog would look like a pass of the right one.
    of_others = bool(options.paths) and all(is_markdown(path) for path in options.paths)
    changes_it = bool(options.fix or options.changed_since) and not of_others
    root = catalog_root(options, or_shipped=bool(options.paths) and not changes_it)
    proposals, manifests, folders = _given(options, root)
    shared = read_shared(root)
    select, ignore = _codes(options.select), _codes(options.ignore)
    checks = selected(select, ignore)
    if not checks and not options.online:
        raise CatalogError(
            "no check is left to run",
            hint="YML and SCH always run, and cannot be selected; 'kaito-catalog explain' lists the others",
        )
    context = Context(shared, shared.profile(options.profile))
    # One model at a time, so that a catalog of thousands takes little more memory than its findings.
    reports: list[EntryReport] = []
    sources: dict[str, Document] = {}
    kept: list[Entry] = []
    in_catalog = bool(options.changed_since) and not of_others
    brought = changes.brought_since(root, options.changed_since) if in_catalog else changes.NOTHING
    for entry, found in _checked(root, folders, checks, context, brought, options):
        reports.append(found)
        sources |= _quoted(entry, found)
        # Of a change only what it touches is asked about: shared files alone say nothing new of the Hub.
        if options.online and (not options.changed_since or entry.folder.name in brought.touched):
            kept.append(entry)
    crds = read_crds(Path(options.crds)) if options.crds else None
    of_manifests, files = check_given(
        manifests, root, context, checks, require_all=options.require_all, crds=crds
    )
    sources |= files
    of_markdown, files = check_files(proposals, root, context, checks, options, select=select, ignore=ignore)
    sources |= files
    if not reports and not options.changed_since and not manifests and not proposals:
        raise CatalogError(f"no model in {shown(root / 'models')}")
    report = Report.of(reports, checks, removed=brought.removed)
    if options.online and kept:
        # Only here: the Hub's client is a third of the start-up time.
        from kaito_catalog.cli import hub

        report = hub.online(
            report,
            Catalog(root, shared, tuple(kept)),
            select=select,
            ignore=ignore,
            require_all=options.require_all,
            again=lambda entry: check_entry(entry, checks, context),
            brings_facts=brought.facts,
        )
        judged = {found.path: found for found in report.entries}
        for entry in kept:
            sources |= _quoted(entry, judged[entry.proposal_document.path])
    report = replace(report, entries=(*report.entries, *of_manifests, *of_markdown))
    _show(report, sources, options)
    return FAILED if report.failed else OK


def _checked(
    root: Path,
    folders: list[Path] | None,
    checks: Sequence[Check],
    context: Context,
    brought: changes.Brought,
    options: argparse.Namespace,
) -> Iterator[tuple[Entry, EntryReport]]:
    """Each model with what was found out about it."""
    with Progress(
        lambda: len(folders if folders is not None else list((root / "models").iterdir()))
    ) as progress:
        for entry in read_entries(root, folders):
            progress.step(entry.name)
            brings = entry.folder.name in brought.facts
            yield (
                entry,
                check_entry(entry, checks, context, require_all=options.require_all, brings_facts=brings),
            )


def _given(options: argparse.Namespace, root: Path) -> tuple[list[Path], list[str], list[Path] | None]:
    """The Markdown proposals and the manifests among the paths, and the folders of the others.

    None instead of folders is the whole catalog.

    Raises:
        CatalogError: a manifest is to be mended, compared with a commit or with the Hub.
    """
    proposals = list(dict.fromkeys(Path(path) for path in options.paths if is_markdown(path)))
    manifests = [path for path in options.paths if is_manifest(path)]
    others = [path for path in options.paths if path not in manifests and not is_markdown(path)]
    given = {"--fix": options.fix, "--changed-since": options.changed_since, "--online": options.online}
    wrong = next((name for name, value in given.items() if value), None)
    if options.crds and not manifests:
        raise CatalogError(
            "--crds is about manifests", hint="name a Workspace's file, or use generate --crds"
        )
    if manifests and wrong:
        raise CatalogError(
            f"{manifests[0]} is a manifest, and {wrong} is for proposals", hint=f"leave out {wrong}"
        )
    folders = selection(others, root) if others or not options.paths else []
    if options.changed_since:
        proposals = changes.only_changed_files(proposals, options.changed_since)
        folders = (
            changes.only_changed(root, options.changed_since, folders) if others or not options.paths else []
        )
    if options.fix:
        mend_files(proposals, read_shared(root).policy)
        folders = _fix(root, folders)
    return proposals, manifests, folders


def _show(report: Report, sources: dict[str, Document], options: argparse.Namespace) -> None:
    if options.format == "markdown" and options.changed_since:
        emit(markdown(report, sources, change=change.change_markdown(_what_changes(options))))
    elif options.format == "json" and options.changed_since:
        emit(json_report(report, changes=_what_changes(options)))
    elif options.format == "text":
        emit(text(report, sources, color=wants_color(sys.stdout), verbose=options.verbose))
    else:
        emit(RENDERERS[options.format](report, sources))
    if options.format == "github" and os.environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(os.environ["GITHUB_STEP_SUMMARY"]), step_summary(report))


def _what_changes(options: argparse.Namespace) -> change.CatalogChange:
    """`diff` of the same change, for its comment; why there is none where it cannot be made."""
    try:
        return change.changed_since(catalog_root(options), options.changed_since, profile=options.profile)
    except CatalogError as error:
        return change.CatalogChange(not_compared=error.message)


def _fix(root: Path, folders: list[Path] | None) -> list[Path] | None:
    """Mend what is mechanical, show it on stderr, and say where the folders are now."""
    results = [
        fix.fix_folder(entry.folder, read_shared(root).policy)
        for entry in read_catalog(root, folders).entries
    ]
    for result in results:
        for reason in result.reasons:
            say(f"fixed: {reason}")
        if result.diff:
            say(result.diff.rstrip("\n"))
    return None if folders is None else [result.folder for result in results]


def _append(path: Path, content: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise CatalogError(f"cannot write the step summary: {error.strerror or error}") from error


def _codes(values: Sequence[str]) -> list[str]:
    return require_codes([code for value in values for code in value.split(",") if code.strip()])


# --- explain ---------------------------------------------------------------------------------------------------


def run_explain(options: argparse.Namespace) -> int:
    """`explain`."""
    color = wants_color(sys.stdout)
    if options.code is None:
        emit(list_text(RULES, FAMILIES, IMPORT_CODES, color=color))
        return OK
    code = options.code.upper()
    found = rule(code)
    if found is not None:
        emit(explain_text(found, color=color))
        return OK
    if code in IMPORT_CODES:
        emit(import_code_text(code, IMPORT_CODES[code], color=color))
        return OK
    if code in FAMILIES:
        emit(list_text(RULES, {code: FAMILIES[code]}, {}, color=color))
        return OK
    raise CatalogError(
        f"there is no check '{options.code[:40]}'",
        hint="'kaito-catalog explain' without a code lists them all",
    )

"""KAITO's Markdown proposals as arguments of `check` and `plan`: where their facts come from, and what is found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import shown
from kaito_catalog.checks.base import Check, Context
from kaito_catalog.checks.engine import EntryReport, Report
from kaito_catalog.checks.markdown import check_markdown, in_words_of_the_template
from kaito_catalog.cli.common import say
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.proposals.fix_markdown import fix_markdown
from kaito_catalog.proposals.of_markdown import (
    MarkdownFile,
    MarkdownModel,
    WithFacts,
    commit_of,
    compared_with,
    markdown_text,
    read_markdown,
    with_facts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # the Hub's client is a third of the start-up time
    from kaito_catalog.hub.client import Hub


def read_file(path: Path) -> MarkdownFile:
    """What a Markdown file proposes.

    Raises:
        CatalogError: the file cannot be read.
    """
    return read_markdown(markdown_text(path), shown(path))


def mend_files(paths: Sequence[Path], policy: Policy) -> None:
    """Mend what is mechanical in the files, and show it on stderr."""
    for path in paths:
        mended = fix_markdown(path, policy)
        for reason in mended.reasons:
            say(f"fixed: {reason}")
        if mended.diff:
            say(mended.diff.rstrip("\n"))


def check_files(
    paths: Sequence[Path],
    root: Path,
    context: Context,
    checks: Sequence[Check],
    options: argparse.Namespace,
    *,
    select: Sequence[str],
    ignore: Sequence[str],
) -> tuple[list[EntryReport], dict[str, Document]]:
    """The reports of the models in the files, and the files for quoting; a file that is no proposal is named."""
    reports: list[EntryReport] = []
    sources: dict[str, Document] = {}
    with ExitStack() as stack:
        hub: Hub | None = None
        if options.online and paths:
            from kaito_catalog.checks.online import online_report
            from kaito_catalog.hub.client import Hub as HubClient

            hub = stack.enter_context(HubClient(say=say))
        for path in paths:
            file = read_file(path)
            if file.skipped is not None:
                say(f"{file.path}: skipped: {file.skipped}")
                continue
            sources[file.path] = file.document
            found = [facts_of_model(model, root, hub) for model in file.models]
            judged: Sequence[EntryReport] = check_markdown(
                file,
                checks,
                context,
                found,
                require_all=options.require_all,
                with_remarks=not options.select,
            )
            if hub is not None:
                report = online_report(
                    Report(tuple(judged)),
                    Catalog(root, context.shared, tuple(f.entry for f in found)),
                    hub,
                    select=select,
                    ignore=ignore,
                    require_all=options.require_all,
                )
                judged = [
                    replace(entry, diagnostics=tuple(map(in_words_of_the_template, entry.diagnostics)))
                    for entry in report.entries
                ]
            reports += judged
    return reports, sources


def facts_of_model(model: MarkdownModel, root: Path, hub: Hub | None = None) -> WithFacts:
    """The model with facts: the catalog's, those kept of an earlier `--online`, or with a Hub what it says now."""
    found = with_facts(model.entry, root)
    repo_id = model.entry.proposal.repo_id if model.entry.proposal else None
    if found.entry.facts is not None or repo_id is None:
        return found
    from kaito_catalog.hub import kept_facts

    folder = kept_facts.kept_in(Path.cwd())
    version = commit_of(model.entry)
    kept = kept_facts.kept_facts(folder, repo_id, version) if version else None
    if kept is not None:
        return compared_with(model.entry, kept)
    if hub is None:
        return found
    try:
        asked = kept_facts.asked_facts(hub, folder, repo_id, version, date.today())
    except CatalogError as error:
        return replace(found, lacking=error.message, hint=error.hint)
    return compared_with(model.entry, asked)


def proposal_of(path: Path, name: str | None, root: Path) -> tuple[Proposal, ModelFacts]:
    """The proposal in a file that is to be planned, with the facts of its model.

    Raises:
        CatalogError: the file proposes none, several, or not the one of that name; or its facts are not known.
    """
    model = chosen_model(read_file(path), name)
    proposal = model.entry.proposal
    if proposal is None:
        first = model.entry.problems[0]
        raise CatalogError(f"{first.place}: {first.message}", hint=f"kaito-catalog check {shown(path)}")
    found = facts_of_model(model, root)
    if found.entry.facts is None:
        place = model.entry.proposal_document.place(("requirements", "downloadSite"))
        hint = f"'kaito-catalog check {shown(path)} --online' asks the Hub for them, and keeps them"
        raise CatalogError(
            f"{place}: {found.lacking}",
            hint=hint if proposal.repo_id else "write https://huggingface.co/ORG/MODEL",
        )
    return proposal, found.entry.facts


def chosen_model(file: MarkdownFile, name: str | None) -> MarkdownModel:
    """The model of a file that is to be planned.

    Raises:
        CatalogError: the file proposes none, several, or not the one of that name.
    """
    if file.skipped is not None or not file.models:
        why = file.skipped or next((remark.message for remark in file.remarks), "no model is proposed in it")
        raise CatalogError(f"{file.path}: {why}", hint="name a model's proposal in KAITO's template")
    wanted = (name or "").rpartition("/")[2].lower()
    models = [model for model in file.models if not wanted or model.imported.name == wanted]
    if len(models) == 1:
        return models[0]
    listed = ", ".join(
        f"{model.imported.name} (line {model.entry.proposal_document.place(('requirements', 'downloadSite')).line})"
        for model in file.models
    )
    what = f"proposes {len(file.models)} models" if not wanted else f"does not propose '{wanted[:60]}'"
    raise CatalogError(
        f"{file.path} {what}: {listed}",
        hint=f"name one: kaito-catalog plan {file.models[0].imported.name} --from {file.path}",
    )

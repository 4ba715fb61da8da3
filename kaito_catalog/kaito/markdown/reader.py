"""KAITO's Markdown proposals to data: what a proposal says is taken as it is, what it lacks is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito_catalog.diagnostics import Diagnostic, Place, Route, Severity, sort_key
from kaito_catalog.kaito.markdown import free_form, words
from kaito_catalog.kaito.markdown.blocks import Block, TextSpan, shorten
from kaito_catalog.kaito.markdown.front import Front, read_front, read_metadata
from kaito_catalog.kaito.markdown.models import ModelColumn, compare_names, compare_title, read_models
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.places import Sources, places_of
from kaito_catalog.kaito.markdown.requirements import add_context, read_figures, read_requirements
from kaito_catalog.kaito.markdown.runtimes import columns_of, denied_below, runtime_tables, runtimes_of
from kaito_catalog.kaito.markdown.samples import Samples, SampleWorkspace, read_samples
from kaito_catalog.kaito.markdown.summary import read_glossary, read_history, read_summary
from kaito_catalog.kaito.markdown.template import (
    KEY_ORDER,
    OVERLAY_SECTION,
    PROPOSAL_API_VERSION,
    ROWS,
    RUNTIME_ROWS,
    SAMPLES_SECTION,
    SECTIONS,
)
from kaito_catalog.kaito.workspaces import text_at
from kaito_catalog.system.files import NAME

MAX_MARKDOWN_BYTES = 2**20
MAX_REMARKS = 300


@dataclass(frozen=True)
class ImportedProposal:
    """One model of a file: the folder's name, and the value of its proposal.yaml."""

    name: str
    value: dict[str, Any]
    places: Mapping[Route, Place] = field(default_factory=dict)
    """Where its keys stand in the Markdown."""
    in_the_template: bool = True
    """Whether the file has the template's table of requirements, and no headings of its own instead."""


@dataclass(frozen=True)
class ImportResult:
    """What a Markdown file holds, and what was noticed, each at its place in that file."""

    proposals: tuple[ImportedProposal, ...]
    diagnostics: tuple[Diagnostic, ...]


def read_proposals(text: str, *, path: str) -> ImportResult:
    """Read a Markdown proposal in KAITO's template; never raises for what is in it.

    Args:
        text: the Markdown.
        path: its name in diagnostics; the date in it is compared with the creation date.
    """
    if len(text) > MAX_MARKDOWN_BYTES:
        message, hint = "the file is larger than 1 MiB", "a proposal is a few kilobytes"
        return ImportResult((), (Diagnostic("IMP002", Severity.ERROR, message, Place(path), hint),))
    page = Page(text, path)
    proposals = tuple(_read(page))
    found = sorted(dict.fromkeys(page.remarks.diagnostics), key=sort_key)
    if len(found) > MAX_REMARKS:
        message = f"{len(found) - MAX_REMARKS} more remarks are not shown"
        last = Diagnostic(
            "IMP022", Severity.WARNING, message, found[MAX_REMARKS].place, "correct the first ones"
        )
        found = [*found[:MAX_REMARKS], last]
    return ImportResult(proposals, tuple(found))


def _read(page: Page) -> Iterator[ImportedProposal]:
    front = read_front(page.markdown, page.remarks)
    why = free_form.why_no_model(page, front)
    if why is not None:
        page.remarks.diagnostics.clear()
        page.remarks.say("IMP023", why[0], TextSpan("", 1), None, why[1])
    elif _requirements_table(page) is None and free_form.models_named(page, front):
        yield from _read_free_form(page, front)
    else:
        yield from _read_template(page, front)


def _read_template(page: Page, front: Front) -> Iterator[ImportedProposal]:
    _unknown_sections(page)
    tables = _tables(page)
    samples = read_samples(page.markdown, page.remarks)
    if tables[0] is None:
        at, hint = page.start("requirements"), "add the table of KAITO's template: | Field | Notes |"
        page.remarks.say("IMP002", "there is no requirements table", at, hint, Severity.ERROR)
        return
    heading = _heading(page)
    models = read_models(page, tables[0], heading)
    metadata = read_metadata(front, heading.text, page.remarks)
    glossary = read_glossary(page)
    summary = read_summary(page)
    history = read_history(page, metadata)
    figures = read_figures(page)
    columns = runtime_tables(page, tables[1])
    denied = denied_below(page)
    compare_title(page, front, metadata, models)
    if samples.overlay and len(models) > 1:
        message = "a block for one model is left out"
        page.remarks.say("IMP019", message, samples.overlay_place, "split the file")
    taken: set[str] = set()
    for number, model in enumerate(models, 1):
        compare_names(page, model, heading, len(models) > 1)
        requirements = read_requirements(page, model, tables[0].span)
        runtimes = runtimes_of(page, columns, model, models, samples, requirements, denied)
        add_context(page, requirements, samples, model)
        if figures:
            requirements["figures"] = figures
        deployment = _deployment(page, samples, model, models)
        value: dict[str, Any] = {
            "apiVersion": PROPOSAL_API_VERSION,
            "kind": "ModelProposal",
            "metadata": {"name": model.name, **metadata},
            "glossary": dict(glossary),
            "summary": dict(summary),
            "requirements": requirements,
            "runtimes": runtimes,
            **({"deployment": deployment} if deployment else {}),
            "history": [dict(event.value) for event in history],
            "waivers": {},
        }
        if samples.overlay and len(models) == 1:
            value = _with_overlay(page, value, samples, samples.overlay)
        name = value["metadata"]["name"]
        sources = Sources(
            page, front, heading, tables[0].span, model, samples,
            next(iter(_workspaces_of(samples, model, models)), None),
            tables[1].span if tables[1] else None, columns_of(columns, model, models), history,
        )  # fmt: skip
        if name in taken:
            name = f"{name[:80]}-{number}"
            value["metadata"]["name"] = name
        taken.add(name)
        yield ImportedProposal(name, _ordered(value), places_of(value, sources))


def _requirements_table(page: Page) -> Block | None:
    tables = (
        block for section in page.markdown.sections for block in section.blocks if block.kind == "table"
    )
    return next(
        (
            table
            for table in tables
            if any(row and words.label(row[0].text) in ROWS for row in table.rows[1:])
        ),
        None,
    )


def _read_free_form(page: Page, front: Front) -> Iterator[ImportedProposal]:
    """The models of a document with headings of its own: what it says of each, and no more."""
    free_form.say_left_out(page)
    samples = read_samples(page.markdown, page.remarks)
    models = free_form.read_columns(page, front)
    heading = next(
        (section.title for section in page.markdown.sections if section.title.text), TextSpan("", 1)
    )
    metadata = read_metadata(front, heading.text, page.remarks)
    glossary, summary = read_glossary(page), read_summary(page)
    settings = free_form.read_settings(page)
    for model in models:
        at = model.cells["downloadSite"]
        value: dict[str, Any] = {
            "apiVersion": PROPOSAL_API_VERSION,
            "kind": "ModelProposal",
            "metadata": {"name": model.name, **metadata},
            "glossary": dict(glossary),
            "summary": dict(summary),
            "requirements": read_requirements(page, model, at),
            "runtimes": [{"name": "vllm", "config": dict(settings.options)}] if settings.options else [],
            "deployment": {**_deployment(page, samples, model, models), **settings.of_kaito},
            "history": [],
            "waivers": {},
        }
        workspace = next(iter(_workspaces_of(samples, model, models)), None)
        sources = Sources(page, front, heading, at, model, samples, workspace, settings=settings.places)
        kept = {key: part for key, part in value.items() if part != {}}
        yield ImportedProposal(model.name, _ordered(kept), places_of(value, sources), in_the_template=False)


def _with_overlay(
    page: Page, value: Mapping[str, Any], samples: Samples, overlay: Mapping[str, Any]
) -> dict[str, Any]:
    """The value with what the block for one model says instead."""
    result = _overlaid(value, overlay)
    if text_at(overlay, "metadata", "name") not in (None, result["metadata"]["name"]):
        page.remarks.say(
            "IMP019",
            "the name in this block cannot be a folder's",
            samples.overlay_place,
            "use the repository's name in lower case",
        )
    return result


def _unknown_sections(page: Page) -> None:
    for section in page.markdown.sections:
        name = section.name
        if name in (OVERLAY_SECTION.lower(), SAMPLES_SECTION.lower()):
            continue
        if section is page.sections.get(name):
            for block in section.blocks:
                if block.kind == "other" and not block.text.startswith("<!--"):
                    page.left_out(block)
        elif section.title.text:
            twice = name in SECTIONS
            says = "stands here a second time" if twice else "is not part of the template"
            page.remarks.say(
                "IMP018",
                f"the section '{shorten(name)}' {says}",
                section.title,
                f"sections: {', '.join(SECTIONS)}",
            )
        else:
            for block in section.blocks:
                if block.kind in ("paragraph", "item", "other") and not block.text.startswith("<!--"):
                    page.left_out(block)


def _tables(page: Page) -> tuple[Block | None, Block | None]:
    """The requirements table and the runtimes table; every other table is reported."""
    wanted: dict[str, Block] = {}
    tables = [
        (section, block)
        for section in page.markdown.sections
        for block in section.blocks
        if block.kind == "table"
    ]
    for name, rows in (("requirements", ROWS), ("runtimes", dict.fromkeys(RUNTIME_ROWS))):
        known = [
            (section.name == name, block)
            for section, block in tables
            if any(row and words.label(row[0].text) in rows for row in block.rows[1:])
            and not (section.name != name and section.name in SECTIONS[3:5])
        ]
        best = next((block for here, block in known if here), known[0][1] if known else None)
        if best:
            wanted[name] = best
    for section, block in tables:
        if all(block is not table for table in wanted.values()) and section.name != "glossary":
            header = " | ".join(cell.text for cell in block.rows[0][:6]) if block.rows else ""
            page.remarks.say(
                "IMP018",
                f"the table '{shorten(header)}' is left out",
                block.span,
                "the tables of the template are those of Requirements and Runtimes",
            )
    return wanted.get("requirements"), wanted.get("runtimes")


def _heading(page: Page) -> TextSpan:
    for block in page.blocks("title"):
        if block.kind in ("paragraph", "item"):
            for other in page.blocks("title"):
                if other is not block and other.kind in ("paragraph", "item"):
                    page.left_out(other)
            return block.span
    first = next((s.title for s in page.markdown.sections if s.title.text and s.name not in SECTIONS), None)
    if first and "title" not in page.sections:
        return first
    page.remarks.say(
        "IMP011",
        "there is no heading below '# Title'",
        page.start("title"),
        "write: Add [org/model](https://huggingface.co/org/model) to KAITO supported model list",
        Severity.ERROR,
    )
    return TextSpan("", page.start("title").line)


def _workspaces_of(
    samples: Samples, model: ModelColumn, models: Sequence[ModelColumn]
) -> list[SampleWorkspace]:
    """The sample manifests of a model: all where the file has one model, else those that name it."""
    return [
        workspace
        for workspace in samples.workspaces
        if len(models) == 1 or words.slug(model.name) in words.dashed(workspace.words)
    ]


def _deployment(
    page: Page, samples: Samples, model: ModelColumn, models: Sequence[ModelColumn]
) -> dict[str, Any]:
    several = len(models) > 1
    mine = _workspaces_of(samples, model, models)
    for workspace in samples.workspaces:
        if workspace in mine[1:] or (
            several and not any(words.slug(m.name) in words.dashed(workspace.words) for m in models)
        ):
            page.remarks.say(
                "IMP019", "a further manifest is left out", workspace.place, "keep one per model"
            )
    result: dict[str, Any] = dict(mine[0].deployment) if mine else {}
    if not several:
        result |= samples.kaito_keys
    for key, what, objects in (
        ("modelAccessSecret", "Secret", samples.secrets),
        ("configMap", "ConfigMap", samples.config_maps),
    ):
        names = [span for span in objects if span.text]
        if names and key not in result and not several:
            result[key] = names[0].text
        elif names and key in result and result[key] not in [span.text for span in names]:
            page.remarks.say(
                "IMP009",
                f"the manifest uses the {what} '{shorten(result[key])}', the sample is named "
                f"'{shorten(names[0].text)}'",
                names[0],
                "give both the same name",
            )
    return {key: result[key] for key in KEY_ORDER["deployment"] if key in result}


def _overlaid(value: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The value with what the overlay says instead; null takes a key away."""
    result = dict(value)
    for key, change in overlay.items():
        if isinstance(result.get(key), dict) and isinstance(change, dict) and key in KEY_ORDER:
            merged = result[key] | change
            result[key] = {name: part for name, part in merged.items() if part is not None}
        elif change is None:
            result.pop(key, None)
        else:
            result[key] = change
    metadata = result.get("metadata")
    if not isinstance(metadata, dict):
        result["metadata"] = dict(value["metadata"])
    elif (
        not isinstance(metadata.get("name"), str)
        or not NAME.match(metadata["name"])
        or ".." in metadata["name"]
    ):
        result["metadata"] = {**metadata, "name": value["metadata"]["name"]}
    return result


def _ordered(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with its keys in the order of the design; unknown ones last."""

    def sort(part: Any, order: tuple[str, ...]) -> Any:
        if not isinstance(part, dict):
            return part
        return {
            key: part[key] for key in (*(k for k in order if k in part), *(k for k in part if k not in order))
        }

    return {key: sort(part, KEY_ORDER.get(key, ())) for key, part in sort(dict(value), KEY_ORDER[""]).items()}

"""Where each key of an imported proposal stands in its Markdown: a cell, a bullet, a key of a YAML block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.diagnostics import Place, Route
from kaito_catalog.kaito.crd import KAITO_KEYS
from kaito_catalog.kaito.markdown import fields
from kaito_catalog.kaito.markdown.blocks import TextSpan
from kaito_catalog.kaito.markdown.front import Front
from kaito_catalog.kaito.markdown.models import ModelColumn
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.runtimes import RuntimeTable
from kaito_catalog.kaito.markdown.samples import Samples, SampleWorkspace
from kaito_catalog.kaito.markdown.summary import ListedEvent, summary_bullets
from kaito_catalog.kaito.workspaces import value_at

_FRONT = {
    "title": "title",
    "authors": "authors",
    "reviewers": "reviewers",
    "creationDate": "creation-date",
    "lastUpdated": "last-updated",
    "status": "status",
    "templateStatus": "status",
}
_RUNTIME_CELLS = {
    "name": "runtime",
    "distributedInference": "distributedinference",
    "customConfigurations": "customconfigurations",
    "trustRemoteCode": "trustremotecode",
}
_ABOUT_THE_CONTEXT = ("totalGPUMemory", "perGPUMemory", "gpuCount")


@dataclass(frozen=True)
class Sources:
    """What was read of a file, for the places of one of its models."""

    page: Page
    front: Front
    heading: TextSpan
    table: TextSpan
    """Of the requirements: where a row that is missing would stand."""
    model: ModelColumn
    samples: Samples
    workspace: SampleWorkspace | None = None
    runtime_table: TextSpan | None = None
    columns: Sequence[RuntimeTable] = ()
    """Of the runtimes table, those about this model."""
    history: Sequence[ListedEvent] = ()
    settings: Mapping[str, TextSpan] | None = None
    """Options and KAITO's keys that a table names, where the file has no YAML block."""


def places_of(value: Mapping[str, Any], sources: Sources) -> dict[Route, Place]:
    """The places of a proposal's keys; a key without one stands at the nearest key above it."""
    found: dict[Route, TextSpan] = {}
    for part in (_of_front, _of_summary, _of_requirements, _of_runtimes, _of_deployment, _of_history):
        found.update(part(value, sources))
    overlay = sources.samples.overlay
    if overlay is not None and sources.samples.overlay_places:
        found = _overlaid(found, overlay, sources.samples.overlay_places)
    lines = sources.page.markdown.lines
    return {route: _place(span, sources.page.remarks.path, lines) for route, span in found.items()}


def _place(span: TextSpan, path: str, lines: Sequence[str]) -> Place:
    line = lines[span.line - 1] if 0 < span.line <= len(lines) else ""
    ends = bool(span.text) and line.startswith(span.text, span.column - 1)
    return Place(path, span.line, span.column, span.column + len(span.text) if ends else None)


def _of_front(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    yield (), sources.heading
    yield ("metadata",), sources.front.start
    yield ("metadata", "heading"), sources.heading
    yield ("metadata", "name"), sources.model.cells.get("downloadSite", sources.heading)
    for key, written in _FRONT.items():
        span = sources.front.place(written)
        said = sources.front.values.get(written)
        text = said if isinstance(said, str) else ""
        yield ("metadata", key), TextSpan(text, span.line, span.column)


def _of_summary(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    page = sources.page
    yield ("glossary",), page.start("glossary")
    yield ("summary",), page.start("summary")
    bullets, _, _ = summary_bullets(page)
    for name, span in bullets.items():
        at = page.markdown.find_below(span.text[:40], TextSpan("", span.line, span.column))
        yield ("summary", name), at
        parts = value_at(value, "summary", name)
        for key, said in parts.items() if isinstance(parts, dict) else ():
            yield ("summary", name, key), page.markdown.find_below(str(said), at)


def _of_requirements(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    yield ("requirements",), sources.table
    requirements, cells = value["requirements"], sources.model.cells
    notes = requirements.get("notes", {})
    for key, cell in cells.items():
        yield ("requirements", key), cell
        yield ("requirements", "notes", key), cell
    if "contextLength" in requirements and "contextLength" not in cells:
        span = sources.samples.option_places.get(("vllm", "max-model-len"))
        keys = [key for key in _ABOUT_THE_CONTEXT if fields.context_in(notes.get(key, "")) and key in cells]
        if span is None and keys:
            span = cells[keys[0]]
        if span is not None:
            yield ("requirements", "contextLength"), span


def _of_runtimes(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    start = sources.runtime_table or sources.page.start("runtimes")
    yield ("runtimes",), start
    options = sources.samples.option_places
    for number, runtime in enumerate(value["runtimes"]):
        at: Route = ("runtimes", number)
        name = runtime["name"]
        cells = _cells_of(sources.columns, name)
        yield at, cells.get("runtime", start)
        for key, row in _RUNTIME_CELLS.items():
            if row in cells:
                yield (*at, key), cells[row]
        if (name,) in options:
            yield (*at, "config"), options[name,]
        for option in runtime.get("config", {}):
            span = options.get((name, option)) or (sources.settings or {}).get(option)
            if span is not None:
                yield (*at, "config", option), span
        trust = options.get((name, "trust-remote-code"))
        if trust is not None and "trustremotecode" not in cells:
            yield (*at, "trustRemoteCode"), trust


def _cells_of(columns: Sequence[RuntimeTable], name: str) -> Mapping[str, TextSpan]:
    """The cells of the column that names a runtime."""
    for column in columns:
        cell = column.cells.get("runtime")
        if cell is not None and name in fields.read_runtimes(cell.text).names:
            return column.cells
    return {}


def _of_deployment(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    workspace, samples = sources.workspace, sources.samples
    if workspace is not None:
        yield ("deployment",), workspace.place
    for key, span in (sources.settings or {}).items():
        yield ("deployment", key), span
    for key, spans in (("modelAccessSecret", samples.secrets), ("configMap", samples.config_maps)):
        if spans:
            yield ("deployment", key), spans[0]
    for written, key in KAITO_KEYS.items():
        if (written,) in samples.option_places:
            yield ("deployment", key), samples.option_places[written,]
    yield from (workspace.places if workspace else {}).items()


def _of_history(value: Mapping[str, Any], sources: Sources) -> Iterator[tuple[Route, TextSpan]]:
    yield ("history",), sources.page.start("history")
    for number, event in enumerate(sources.history):
        yield ("history", number), event.at
        yield ("history", number, "date"), event.date_at


def _overlaid(
    found: Mapping[Route, TextSpan], overlay: Mapping[str, Any], places: Mapping[Route, TextSpan]
) -> dict[Route, TextSpan]:
    """The places where the block for one model says some of the values instead."""
    replaced: list[Route] = []
    for key, change in overlay.items():
        replaced += [(key, name) for name in change] if isinstance(change, dict) else [(key,)]
    kept = {
        route: span
        for route, span in found.items()
        if not any(route[: len(prefix)] == prefix for prefix in replaced)
    }
    return kept | {route: span for route, span in places.items() if len(route) > 1 or route in replaced}

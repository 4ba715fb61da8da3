"""The runtimes table of a Markdown proposal, and what the text below it takes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.formats.proposal import RuntimeName
from kaito_catalog.kaito.markdown import fields, words
from kaito_catalog.kaito.markdown.blocks import Block, TextSpan, shorten
from kaito_catalog.kaito.markdown.models import ModelColumn
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.samples import Samples
from kaito_catalog.kaito.markdown.template import BOILERPLATE, MAX_MODELS, RUNTIME_ROWS


@dataclass(frozen=True)
class RuntimeTable:
    """A column of the runtimes table: its title and its cells by label."""

    title: str
    cells: Mapping[str, TextSpan]


def runtime_tables(page: Page, table: Block | None) -> list[RuntimeTable]:
    """The runtimes table, one value a column; none where there is no table."""
    for block in page.blocks("runtimes"):
        if (
            block.kind in ("paragraph", "item")
            and not BOILERPLATE.match(block.text)
            and not fields.denied_runtimes(block.text)
        ):
            page.left_out(block)
    if table is None:
        page.remarks.say(
            "IMP011",
            "there is no runtimes table",
            page.start("runtimes"),
            "add the table of KAITO's template: | Options | Notes |",
        )
        return []
    header, *rows = table.rows
    titles = [cell.text for cell in header[1 : MAX_MODELS + 1]] or [""]
    columns: list[dict[str, TextSpan]] = [{} for _ in titles]
    for row in rows:
        name = words.label(row[0].text)
        if name not in RUNTIME_ROWS:
            page.remarks.say(
                "IMP018",
                f"the row '{shorten(row[0].text)}' is not part of the template",
                row[0],
                "rows: Runtime, Distributed Inference, Custom configurations",
            )
            continue
        page.surplus(row, len(header))
        if name in columns[0]:
            page.remarks.say(
                "IMP018",
                f"the row '{shorten(row[0].text)}' stands here a second time",
                row[0],
                "keep one",
            )
            continue
        for cells, cell in zip(columns, row[1:], strict=False):
            cells[name] = cell
    return [RuntimeTable(title, cells) for title, cells in zip(titles, columns, strict=True)]


def denied_below(page: Page) -> dict[RuntimeName, TextSpan]:
    """The runtimes that a paragraph of the section takes back."""
    result: dict[RuntimeName, TextSpan] = {}
    for block in page.blocks("runtimes"):
        if block.kind in ("paragraph", "item") and not BOILERPLATE.match(block.text):
            for name in fields.denied_runtimes(block.text):
                result.setdefault(name, block.span)
    return result


def runtimes_of(
    page: Page,
    columns: Sequence[RuntimeTable],
    model: ModelColumn,
    models: Sequence[ModelColumn],
    samples: Samples,
    requirements: dict[str, Any],
    denied: Mapping[RuntimeName, TextSpan],
) -> list[dict[str, Any]]:
    """The runtimes of one model, with the options that the sample has for each."""
    columns = columns_of(columns, model, models)
    result: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    for column in columns:
        names, rest = _runtime_names(page, column, denied)
        said += [rest] if rest else []
        common = _runtime_options(page, column, model, models, requirements)
        for name in names:
            result.setdefault(name, {"name": name, **common})
    for name, at in denied.items():
        page.remarks.say(
            "IMP014",
            f"{name} is taken back: '{shorten(at.text)}'",
            at,
            "name it once it serves the model",
        )
    said += [span.text for span in dict.fromkeys(denied.values())]
    if said:
        requirements.setdefault("notes", {})["runtimes"] = " ".join(dict.fromkeys(said))
    for served, options in samples.options.items():
        if served in result:
            result[served]["config"] = options
        else:
            page.remarks.say(
                "IMP014",
                f"the sample has options for {served}, which is not a runtime here",
                samples.options_place,
                "name the runtime in the table",
            )
    keys = ("name", "distributedInference", "customConfigurations", "config", "trustRemoteCode")
    for runtime in result.values():
        if runtime["name"] == "vllm" and "trustRemoteCode" not in runtime:
            runtime["trustRemoteCode"] = runtime.get("config", {}).get("trust-remote-code") is True
    return [
        {key: runtime[key] for key in keys if runtime.get(key) is not None} for runtime in result.values()
    ]


def columns_of(
    columns: Sequence[RuntimeTable], model: ModelColumn, models: Sequence[ModelColumn]
) -> Sequence[RuntimeTable]:
    """The columns that are about a model: its own where they have the models' titles, else all."""
    titles = [other.title for other in models]
    if len(models) > 1 and any(column.title in titles for column in columns):
        return [column for column in columns if column.title == model.title]
    return columns


def _runtime_names(
    page: Page, column: RuntimeTable, denied: Mapping[RuntimeName, TextSpan]
) -> tuple[list[RuntimeName], str | None]:
    cell = column.cells.get("runtime")
    if cell is None or words.missing_word(cell.text) is not None:
        page.remarks.say("IMP011", "no runtime is named", cell or page.start("runtimes"), "name vLLM")
        return [], None
    read = fields.read_runtimes(cell.text)
    for name, part in read.denied:
        page.remarks.say(
            "IMP014",
            f"{name} is put off or taken back: '{shorten(part)}'",
            page.markdown.find(part.split("|")[0], cell),
            "name it once it serves the model",
        )
    for part in read.unknown:
        page.remarks.say(
            "IMP014",
            f"'{shorten(part)}' is not a known runtime",
            page.markdown.find(part, cell),
            "KAITO serves with vLLM or Hugging Face Transformers",
        )
    if not read.names and not read.unknown and not read.denied:
        page.remarks.say("IMP014", f"'{shorten(cell.text)}' names no runtime", cell, "name vLLM")
    return [name for name in read.names if name not in denied], read.rest


def _runtime_options(
    page: Page,
    column: RuntimeTable,
    model: ModelColumn,
    models: Sequence[ModelColumn],
    requirements: dict[str, Any],
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    cell = column.cells.get("distributedinference")
    if cell:
        truth = fields.read_truth(cell.text)
        result["distributedInference"] = truth.value
        if truth.unless:
            theirs = [m.name for m in models if truth.unless.lower() in f"{m.title} {m.name}".lower()]
            if model.name in theirs:
                result["distributedInference"] = not truth.value
            if not theirs:
                requirements.setdefault("notes", {})["distributedInference"] = cell.text
            page.remarks.say(
                "IMP021",
                f"'{shorten(cell.text)}' depends on the model; it is read as {not truth.value} for "
                f"{', '.join(theirs) or 'none of them'}",
                cell,
                "write one proposal per model",
            )
        elif truth.value is None and words.missing_word(cell.text) is None:
            page.remarks.say(
                "IMP021",
                f"'{shorten(cell.text)}' is neither True nor False",
                cell,
                "write True or False",
            )
    elif column.cells:
        page.remarks.say(
            "IMP011",
            "there is no row 'Distributed Inference'",
            page.start("runtimes"),
            "add it with True or False",
        )
    configurations = column.cells.get("customconfigurations")
    if configurations and words.missing_word(configurations.text) is None:
        result["customConfigurations"] = configurations.text
    trust = column.cells.get("trustremotecode")
    if trust:
        # None says that nothing is claimed; without the row, false is what vLLM does.
        result["trustRemoteCode"] = fields.read_truth(trust.text).value
    return result

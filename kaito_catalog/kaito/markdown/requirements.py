"""The requirements table of a Markdown proposal: figures, revision, and whether the GPU figures agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kaito_catalog import quantity
from kaito_catalog.diagnostics import Severity
from kaito_catalog.kaito.markdown import fields, words
from kaito_catalog.kaito.markdown.blocks import TextSpan, shorten
from kaito_catalog.kaito.markdown.models import ModelColumn
from kaito_catalog.kaito.markdown.page import LEFT_OUT, Page
from kaito_catalog.kaito.markdown.samples import Samples
from kaito_catalog.kaito.markdown.template import BOILERPLATE, CLAIMS, COUNT_CLAIMS, SIZE_CLAIMS

_IMAGE = re.compile(r"!\[(?P<alt>[^\[\]\n]{0,300})\]\((?P<src>[^()\s]{1,2000})\)")


def read_figures(page: Page) -> list[dict[str, str]]:
    """The images of the requirements section."""
    result = []
    for block in page.blocks("requirements"):
        if block.kind not in ("paragraph", "item"):
            continue
        result += [{"alt": image["alt"], "src": image["src"]} for image in _IMAGE.finditer(block.text)]
        rest = _IMAGE.sub("", block.text).strip()
        if rest and not BOILERPLATE.match(rest):
            page.remarks.say("IMP017", f"left out: '{shorten(rest)}'", block.span, LEFT_OUT, Severity.NOTE)
    return result


def read_requirements(page: Page, model: ModelColumn, table: TextSpan) -> dict[str, Any]:
    """What one model requires, with the words around its figures as notes."""
    result: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for key, title in CLAIMS.items():
        cell = model.cells.get(key)
        if cell is None:
            if key == "version":
                page.remarks.say(
                    "IMP003",
                    "no revision is named: there is no row 'Version'",
                    table,
                    "add it with the full commit",
                )
            elif key != "contextLength":
                _missing(page, key, f"there is no row '{title}'", table)
        elif key == "version":
            _version(page, cell, result, notes)
        elif key in SIZE_CLAIMS or key in COUNT_CLAIMS:
            _claim(page, key, cell, result, notes)
        else:
            text = words.bare(cell.text)
            text = words.address(text) if key == "downloadSite" else text
            if text:
                result[key] = text
            if words.missing_word(text) is not None:
                _missing(page, key, f"{title}: nothing is said", cell)
    _compare_gpus(page, result, model)
    if notes:
        result["notes"] = notes
    return result


def _missing(page: Page, key: str, message: str, at: TextSpan) -> None:
    required = key in ("familyName", "type", "downloadSite")
    page.remarks.say(
        "IMP011",
        message,
        at,
        f"fill in the row '{CLAIMS[key]}'",
        Severity.ERROR if required else Severity.WARNING,
    )


def _version(page: Page, cell: TextSpan, result: dict[str, Any], notes: dict[str, str]) -> None:
    version = fields.read_version(cell.text)
    if version.value is not None:
        result["version"] = version.value
    if version.note:
        notes["version"] = version.note
    if version.value is None or version.value == "TBD" or version.value == "N/A":
        page.remarks.say(
            "IMP003", f"no revision is named ({version.value or 'empty'})", cell, "write the full commit"
        )
    elif version.other:
        page.remarks.say(
            "IMP004",
            f"'{shorten(version.abbreviated or '')}' links to another commit, {version.value}",
            cell,
            "correct the text or its link",
        )
    elif version.abbreviated == version.value:
        page.remarks.say(
            "IMP004", f"the commit '{version.value}' is abbreviated", cell, "write all 40 digits"
        )
    elif version.abbreviated:
        at = page.markdown.find(version.abbreviated, cell)
        page.remarks.say(
            "IMP004",
            f"{version.abbreviated} is abbreviated; its link says {version.value}",
            at,
            "write all 40 digits",
            Severity.NOTE,
        )


def _claim(page: Page, key: str, cell: TextSpan, result: dict[str, Any], notes: dict[str, str]) -> None:
    read = fields.read_size if key in SIZE_CLAIMS else fields.read_count
    figure = read(cell.text)
    if figure.problem:
        page.remarks.say(
            "IMP016",
            f"{CLAIMS[key]}: '{shorten(cell.text)}' cannot be read",
            cell,
            figure.problem,
            Severity.ERROR,
        )
    elif fields.is_missing_figure(figure.value) and not (key == "perGPUMemory" and figure.value == "N/A"):
        _missing(page, key, f"{CLAIMS[key]}: no figure ({figure.value or 'empty'})", cell)
    if figure.value is not None:
        result[key] = figure.value
    if figure.note:
        notes[key] = figure.note


def _compare_gpus(page: Page, found: Mapping[str, Any], model: ModelColumn) -> None:
    count, total, each = found.get("gpuCount"), found.get("totalGPUMemory"), found.get("perGPUMemory")
    if fields.is_missing_figure(total) or fields.is_missing_figure(each):
        return
    total_bytes, each_bytes = quantity.parse(str(total)).bytes, quantity.parse(str(each)).bytes
    if each_bytes > total_bytes:
        page.remarks.say(
            "IMP010",
            f"{each} for each GPU is more than the {total} of all",
            model.cells["perGPUMemory"],
            "correct one of them",
        )
    elif isinstance(count, int) and count * each_bytes != total_bytes:
        page.remarks.say(
            "IMP010",
            f"{count} × {each} is not {total}",
            model.cells["totalGPUMemory"],
            "correct one of the three",
        )


def add_context(page: Page, requirements: dict[str, Any], samples: Samples, model: ModelColumn) -> None:
    """The tokens the GPU claims are about: said in a row, in the sample's max-model-len, or in a note."""
    served = (samples.options.get("vllm") or {}).get("max-model-len")
    said = None
    for key in ("totalGPUMemory", "perGPUMemory", "gpuCount"):
        said = said or fields.context_in(requirements.get("notes", {}).get(key, ""))
    if "contextLength" in requirements or "contextLength" in model.cells:
        return
    if isinstance(served, int) and not isinstance(served, bool) and 1 <= served <= 10**9:
        requirements["contextLength"] = served
        if said and not 0.9 <= said / served <= 1.1:
            page.remarks.say(
                "IMP010",
                f"the figures are for {said:,} tokens, the sample serves {served:,}",
                samples.options_place,
                "correct one of them",
            )
    elif said:
        requirements["contextLength"] = said

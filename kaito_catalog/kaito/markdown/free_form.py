"""Markdown that is not KAITO's template for models: which documents name models to add, and what they say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kaito_catalog.diagnostics import Severity
from kaito_catalog.kaito.markdown import words
from kaito_catalog.kaito.markdown.blocks import TextSpan, shorten
from kaito_catalog.kaito.markdown.front import Front
from kaito_catalog.kaito.markdown.models import ModelColumn
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.template import MAX_MODELS, ROWS, SECTIONS
from kaito_catalog.vllm_bridge.reference import known, versions

_SETTING = re.compile(r"`(?:--)?([a-zA-Z][a-zA-Z0-9_-]{1,80})=([^`\s=]{1,200})`")
_SIZE_OF_WEIGHTS = re.compile(r"[~≈]? ?[0-9][0-9.,]{0,12} ?(?:[GT]i?B|[GT]i)\b(?= of weights)")
_PREFIX_OF_KAITO = "kaito-"
_TELLING_ROWS = ("familyname", "downloadsite", "gpucount", "pergpumemory")
"""Rows of the template that no other table has."""
_NOT_FILLED_IN = re.compile(r"yyyy-mm-dd\Z", re.I)


def why_no_model(page: Page, front: Front) -> tuple[str, Severity] | None:
    """Why the document adds no model: it is a template, or a design; None where it may."""
    status, created = front.values.get("status"), front.values.get("creation-date")
    if isinstance(status, str) and "|" in status and _NOT_FILLED_IN.match(str(created)):
        return "this is the template itself, not filled in: nothing is read", Severity.NOTE
    if _has_parts_of_the_template(page) or models_named(page, front):
        return None
    if front.values.get("title") and front.values.get("status"):
        return "this is a design document, not a model's proposal: nothing is read", Severity.NOTE
    return "this is no proposal: it has neither front matter nor a requirements table", Severity.ERROR


def _has_parts_of_the_template(page: Page) -> bool:
    return (
        "runtimes" in page.sections
        or any(words.bullet(block.text) for block in page.blocks("summary") if block.kind == "item")
        or any(
            row and words.label(row[0].text) in (ROWS if section.name == "requirements" else _TELLING_ROWS)
            for section in page.markdown.sections
            for block in section.blocks
            for row in block.rows
        )
    )


def models_named(page: Page, front: Front) -> dict[str, tuple[str, TextSpan]]:
    """The repositories that the document names and whose models its title names.

    Returns:
        By repository: the name in the title, and where the repository stands.
    """
    headings = [section.title.text for section in page.markdown.sections[:2]]
    titles = f"{front.values.get('title') or ''} {' '.join(headings)}"
    names = [
        word.strip(".,:;()[]`*\"'")
        for word in titles[:2000].split()
        if re.search(r"[A-Za-z].*[0-9]|[0-9].*[A-Za-z]", word)
    ]
    found: dict[str, tuple[str, TextSpan]] = {}
    for section in page.markdown.sections:
        for block in section.blocks:
            for repo in words.repositories(block.text) if block.kind in ("paragraph", "item") else ():
                own = repo.partition("/")[2]
                name = next((n for n in names if words.starts_with(own, n) or own.lower() == n.lower()), None)
                if name is not None and repo not in found:
                    found[repo] = (name, page.markdown.find_below(repo, block.span))
    return dict(list(found.items())[:MAX_MODELS])


def read_columns(page: Page, front: Front) -> list[ModelColumn]:
    """The models of the document as columns of a requirements table: what stands of each in its texts."""
    columns = []
    for repo, (family, at) in models_named(page, front).items():
        own = repo.partition("/")[2]
        cells = {
            "familyName": TextSpan(family, at.line, at.column),
            "downloadSite": TextSpan(f"https://huggingface.co/{repo}", at.line, at.column),
        }
        size = next(_sizes(page, own), None)
        if size is not None:
            cells["storageSize"] = size
        columns.append(ModelColumn(own, cells, repo, words.slug(own)))
    return columns


def _sizes(page: Page, own: str) -> Iterator[TextSpan]:
    for section in page.markdown.sections:
        for block in section.blocks:
            about = words.plain(block.text).replace("*", "").replace("`", "").strip().lower()
            match = _SIZE_OF_WEIGHTS.search(block.text) if block.kind == "item" else None
            if match and (about.startswith(own.lower())):
                yield page.markdown.find(match[0].strip(), block.span)


@dataclass(frozen=True)
class FreeSettings:
    """What tables name as `--option=value`."""

    options: dict[str, Any]
    """vLLM's."""
    of_kaito: dict[str, Any]
    """By the keys of a deployment."""
    places: dict[str, TextSpan]
    """Of both."""


def read_settings(page: Page) -> FreeSettings:
    """vLLM's options, and KAITO's own keys, that tables name as `--option=value`."""
    options: dict[str, Any] = {}
    of_kaito: dict[str, Any] = {}
    places: dict[str, TextSpan] = {}
    vllm = [found for version in versions() if (found := known(version))]
    for section in page.markdown.sections:
        for block in section.blocks if section.name != "glossary" else ():
            cells = [cell for row in block.rows[1:] for cell in row] if block.kind == "table" else []
            for cell in cells:
                for name, text in _SETTING.findall(cell.text):
                    spelt = name.replace("_", "-")
                    at = page.markdown.find(name, cell)
                    if any(version.option(spelt) for version in vllm):
                        options.setdefault(spelt, _scalar(text))
                        places.setdefault(spelt, at)
                    elif spelt == f"{_PREFIX_OF_KAITO}kv-cache-cpu-memory-utilization":
                        of_kaito.setdefault("kvCacheCPUMemoryUtilization", _scalar(text))
                        places.setdefault("kvCacheCPUMemoryUtilization", at)
                    else:
                        page.remarks.say(
                            "IMP017",
                            f"left out: '{shorten(name)}={shorten(text)}' is no option of vLLM",
                            at,
                            "a proposal holds vLLM's options; the environment is KAITO's",
                            Severity.NOTE,
                        )
    return FreeSettings(options, of_kaito, places)


def _scalar(text: str) -> int | float | str:
    if re.fullmatch(r"-?[0-9]{1,12}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]{1,12}\.[0-9]{1,12}", text) else text


def say_left_out(page: Page) -> None:
    """Remark, once, which sections the document has beside those of the template."""
    others = [
        section
        for section in page.markdown.sections
        if section.title.text and section.name not in SECTIONS and section.blocks
    ]
    if others:
        names = ", ".join(section.name for section in others)
        page.remarks.say(
            "IMP018",
            f"{len(others)} sections are not of the template, and their text is left out: {names[:200]}",
            others[0].title,
            f"sections: {', '.join(SECTIONS)}",
        )

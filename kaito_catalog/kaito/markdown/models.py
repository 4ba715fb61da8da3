"""Which models a Markdown proposal describes, and whether its names agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.diagnostics import Severity
from kaito_catalog.kaito.markdown import words
from kaito_catalog.kaito.markdown.blocks import Block, TextSpan, shorten
from kaito_catalog.kaito.markdown.front import Front
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.template import CLAIMS, MAX_MODELS, ROWS
from kaito_catalog.system.files import NAME


@dataclass(frozen=True)
class ModelColumn:
    """A column of the requirements table: its title, its cells by claim, the repository it is about."""

    title: str
    cells: Mapping[str, TextSpan]
    repo_id: str | None
    name: str


def read_models(page: Page, table: Block, heading: TextSpan) -> list[ModelColumn]:
    """The models of the requirements table, one a column."""
    header, *rows = table.rows
    titles = [cell.text for cell in header[1:]] or [""]
    if len(titles) > MAX_MODELS:
        page.remarks.say(
            "IMP022",
            f"the table has {len(titles)} columns; the first {MAX_MODELS} are read",
            table.span,
            "write one proposal per model",
            Severity.ERROR,
        )
        titles = titles[:MAX_MODELS]
    columns: list[dict[str, TextSpan]] = [{} for _ in titles]
    for row in rows:
        _requirements_row(page, row, columns, len(header))
    if len(titles) > 1:
        page.remarks.say(
            "IMP005",
            f"the table describes {len(titles)} models: {shorten(', '.join(titles))}",
            table.span,
            "one proposal per model: each gets a folder of its own",
        )
    mentioned = words.repositories(heading.text)
    mentioned += [
        repo for b in page.blocks("summary") if b.kind != "code" for repo in words.repositories(b.text)
    ]
    return [
        _model(page, title if len(titles) > 1 else "", cells, heading, list(dict.fromkeys(mentioned)), table)
        for title, cells in zip(titles, columns, strict=True)
    ]


def _requirements_row(
    page: Page, row: tuple[TextSpan, ...], columns: Sequence[dict[str, TextSpan]], width: int
) -> None:
    key = ROWS.get(words.label(row[0].text))
    if key is None:
        if any(cell.text for cell in row):
            page.remarks.say(
                "IMP018",
                f"the row '{shorten(row[0].text)}' is not part of the template",
                row[0],
                f"rows: {', '.join(CLAIMS.values())}",
            )
        return
    page.surplus(row, width)
    if key in columns[0]:
        page.remarks.say(
            "IMP018", f"the row '{shorten(row[0].text)}' stands here a second time", row[0], "keep one"
        )
        return
    for cells, cell in zip(columns, row[1:], strict=False):
        cells[key] = cell
    for cells in columns[len(row) - 1 :]:
        cells[key] = TextSpan("", row[0].line, row[0].column)


def _model(
    page: Page,
    title: str,
    cells: Mapping[str, TextSpan],
    heading: TextSpan,
    mentioned: list[str],
    table: Block,
) -> ModelColumn:
    site = cells.get("downloadSite", TextSpan("", table.span.line))
    found = words.repo_id(words.address(site.text))
    named = found
    if named is None:
        near = [repo for repo in mentioned if not title or words.starts_with(repo.partition("/")[2], title)]
        named = near[0] if len(near) == 1 else None
    if site.text and found is None and words.missing_word(site.text) is None:
        page.remarks.say(
            "IMP015",
            f"'{shorten(site.text)}' is not a repository on the Hub",
            site,
            f"write https://huggingface.co/{named or 'ORG/MODEL'}",
        )
    about = re.sub(r"^(?:add|support|official|for| )+\b|\bto (?:the )?kaito.*", "", heading.text, flags=re.I)
    name = (named or "").partition("/")[2].lower() or words.slug(title or about)
    if not NAME.match(name) or ".." in name:
        name = words.slug(name)
    return ModelColumn(title, cells, found or (named if title else None), name)


def compare_title(
    page: Page, front: Front, metadata: Mapping[str, Any], models: Sequence[ModelColumn]
) -> None:
    """Remark a title of the front matter that names another model."""
    texts = [str(metadata.get("heading", ""))]
    for model in models:
        family = model.cells.get("familyName")
        texts += [model.repo_id or "", model.name, model.title, family.text if family else ""]
    title = str(metadata.get("title", ""))
    other = words.other_name(title, " ".join(texts))
    if other:
        page.remarks.say(
            "IMP007",
            f"the title names {other}, the proposal is about {models[0].name}",
            page.markdown.find(title, TextSpan("", front.place("title").line)),
            "name the model of this proposal",
        )


def compare_names(page: Page, model: ModelColumn, heading: TextSpan, one_of_several: bool) -> None:
    """Remark headings, links and texts that name another model than the download site."""
    if model.repo_id is None:
        return
    repo_id, own = model.repo_id, model.repo_id.partition("/")[2]
    hint = f"the download site is {repo_id}"
    family = model.cells.get("familyName", TextSpan("", heading.line))
    for text in (family,) if one_of_several else (heading, family):
        other = words.other_name(words.plain(text.text), repo_id) or words.other_size(text.text, own)
        if other:
            page.remarks.say("IMP008", f"'{shorten(text.text)}' names {other}, not {own}", text, hint)
    linked = [] if one_of_several else words.repositories(heading.text)
    if linked and repo_id.lower() not in (link.lower() for link in linked):
        page.remarks.say("IMP008", f"the heading links to {linked[0]}, not to {repo_id}", heading, hint)
    version = model.cells.get("version")
    for other in words.repositories(version.text if version else ""):
        if version and other.lower() != repo_id.lower():
            page.remarks.say(
                "IMP008", f"the revision's link leads to {other}, not to {repo_id}", version, hint
            )
    sibling = re.compile(
        r"(?<![\w.-])" + re.sub(r"[0-9]+", "[0-9]{1,4}", re.escape(own)) + r"(?![\w-])", re.I
    )
    for block in page.blocks("summary"):
        bullet = words.bullet(block.text) if block.kind == "item" and not one_of_several else None
        if bullet and bullet[0] != "description":
            siblings = {m[0] for m in sibling.finditer(bullet[1]) if m[0].lower() != own.lower()}
            for other in sorted(siblings):
                page.remarks.say(
                    "IMP008",
                    f"this is about {other}, not {own}",
                    page.markdown.find(other, block.span),
                    hint,
                )

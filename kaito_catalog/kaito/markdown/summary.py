"""The glossary, the summary and the history of a Markdown proposal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaito_catalog.kaito.markdown import fields, words
from kaito_catalog.kaito.markdown.blocks import Block, TextSpan, shorten
from kaito_catalog.kaito.markdown.page import Page
from kaito_catalog.kaito.markdown.template import BOILERPLATE

_DATED = re.compile(
    r"(?P<date>[0-9A-Za-z]{1,4}[-/.][0-9A-Za-z]{1,2}[-/.][0-9A-Za-z]{1,4})(?P<stop> ?: ?| [-–—] | )"
)

_NOT_FILLED_IN = re.compile(r"(?:MM/DD/YYYY|YYYY-MM-DD|DD/MM/YYYY)\s*:", re.IGNORECASE)
"""The date of a line of the template that nobody has filled in."""


def read_glossary(page: Page) -> dict[str, str]:
    """The terms of the glossary."""
    result: dict[str, str] = {}
    for block in page.blocks("glossary"):
        if block.kind == "table":
            found = [(row[0], row[0].text, row[1].text) for row in block.rows[1:] if len(row) > 1]
        else:
            parts = words.labelled(block.text) if block.kind in ("item", "paragraph") else None
            found = [(block.span, *parts)] if parts else []
            if not found and block.kind != "other" and not BOILERPLATE.match(block.text):
                page.left_out(block)
        for at, term, text in found:
            if term in result:
                page.remarks.say(
                    "IMP018", f"the term '{shorten(term)}' stands here a second time", at, "keep one"
                )
            elif term and text:
                result[term] = text
    return result


def read_summary(page: Page) -> dict[str, Any]:
    """The description, the usage and the licence."""
    start = page.start("summary")
    found, rest, twice = summary_bullets(page)
    for name, block in twice:
        page.remarks.say("IMP018", f"the {name} stands here a second time", block.span, "keep one")
    summary: dict[str, Any] = {}
    description = found.get("description", TextSpan("", start.line)).text
    if description and words.missing_word(description) is None:
        summary["description"] = description
    elif rest:
        lines = [f"- {block.text}" if block.kind == "item" else block.text for block in rest]
        summary["description"] = "\n".join(lines)
        rest = []
    else:
        page.remarks.say(
            "IMP011",
            "the model is not described",
            found.get("description", start),
            "- **Model description**: what it does, and where its documentation is",
        )
    for block in rest:
        page.left_out(block)
    usage = found.get("usage", TextSpan("", start.line, start.column))
    read = fields.read_usage(usage.text)
    if read:
        summary["usage"] = read
    if not re.search(r"[0-9]", words.plain(str(read.get("statistics", "")))):
        page.remarks.say(
            "IMP011", "there is no usage figure", usage, "give the downloads, the day and the source"
        )
    license_ = found.get("license", TextSpan("", start.line, start.column))
    claimed = fields.read_license(license_.text)
    if claimed:
        summary["license"] = claimed
    if not claimed:
        page.remarks.say(
            "IMP011", "no licence is named", license_, "name it by its SPDX id, such as Apache-2.0"
        )
    elif "id" not in claimed:
        page.remarks.say(
            "IMP020",
            f"'{shorten(license_.text)}' names no licence that is known",
            license_,
            "name it by its SPDX id or the Hub's id, such as apache-2.0 or llama3.3",
        )
    return summary


def summary_bullets(page: Page) -> tuple[dict[str, TextSpan], list[Block], list[tuple[str, Block]]]:
    """What the bullets of the summary say by what each is about, the other texts, and what stands there twice."""
    found: dict[str, TextSpan] = {}
    rest: list[Block] = []
    twice: list[tuple[str, Block]] = []
    for block in page.blocks("summary"):
        if block.kind not in ("item", "paragraph") or BOILERPLATE.match(block.text):
            continue
        bullet = words.bullet(block.text)
        if bullet is None:
            rest.append(block)
        elif bullet[0] in found:
            twice.append((bullet[0], block))
        else:
            found[bullet[0]] = TextSpan(bullet[1], block.span.line, block.span.column)
    return found, rest, twice


@dataclass(frozen=True)
class ListedEvent:
    """An event, and where it and its date stand."""

    value: dict[str, Any]
    at: TextSpan
    date_at: TextSpan


def read_history(page: Page, metadata: Mapping[str, Any]) -> list[ListedEvent]:
    """The events of the history."""
    known = tuple(str(metadata[key]) for key in ("creationDate", "lastUpdated") if key in metadata)
    named = re.search(
        r"(?<![0-9])(20[0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])", page.remarks.path.rpartition("/")[2]
    )
    known += ("-".join(named.groups()),) if named else ()
    result = []
    for block in page.blocks("history"):
        if block.kind != "item":
            if block.kind == "paragraph" and not BOILERPLATE.match(block.text):
                page.left_out(block)
            continue
        event = _event(page, block.span, known)
        if event:
            result.append(event)
    return result


def _event(page: Page, item: TextSpan, known: tuple[str, ...]) -> ListedEvent | None:
    box = re.match(r"\[(?P<mark>[ xX])\] ?", item.text)
    text = item.text[box.end() :] if box else item.text
    if _NOT_FILLED_IN.match(text) and not (box and box["mark"] != " "):
        return None
    if not box:
        page.remarks.say(
            "IMP012",
            f"'{shorten(text)}' has no box; it is read as not done",
            item,
            "write - [x] or - [ ]",
        )
    event: dict[str, Any] = {"event": text, "done": bool(box and box["mark"] != " ")}
    dated = _DATED.match(text)
    day = fields.read_date(dated["date"], known=known) if dated else None
    at = page.markdown.find(dated["date"] if dated else text, item)
    if dated is None or day is None or (day.value is None and ":" not in dated["stop"]):
        page.remarks.say(
            "IMP012", f"'{shorten(text)}' has no date", at, "write year-month-day: and the event"
        )
    else:
        if day.problem:
            page.remarks.say("IMP012", day.problem, at, "write year-month-day")
        if day.value and text[dated.end() :].strip(" ."):
            event |= {"event": text[dated.end() :], "date": day.value}
    event["event"] = event["event"].strip()
    event["event"] = event["event"].removesuffix(".") or event["event"]
    if not event["event"]:
        page.remarks.say("IMP012", "an empty event is left out", item, "say what happened")
        return None
    value: dict[str, Any] = {key: event[key] for key in ("event", "date", "done") if key in event}
    return ListedEvent(value, item, at)

"""The front matter of a Markdown proposal: who, when, and how far; read also where it is not valid YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from kaito_catalog.diagnostics import Severity
from kaito_catalog.documents import reading
from kaito_catalog.formats.proposal import Status
from kaito_catalog.kaito.markdown.blocks import Markdown, Remarks, TextSpan, shorten
from kaito_catalog.kaito.markdown.fields import read_date

_STATUSES: tuple[str, ...] = get_args(Status)
OF_TEMPLATE: dict[str, Status] = {"ready to integrate": "provisional", "integrated": "implemented"}
"""Words of KAITO's template for a status, and the status that each is."""
_FRONT_KEYS = ("title", "authors", "reviewers", "creation-date", "last-updated", "status")


@dataclass(frozen=True)
class Front:
    """The front matter: values by key, and the place of each."""

    values: Mapping[str, Any]
    places: Mapping[str, TextSpan]
    start: TextSpan

    def place(self, key: str) -> TextSpan:
        return self.places.get(key, self.start)


def read_front(markdown: Markdown, remarks: Remarks) -> Front:
    """The front matter; what is wrong with it is remarked at its line."""
    text = markdown.front_matter
    start = TextSpan("", 1)
    if text is None:
        remarks.say(
            "IMP001",
            "there is no front matter",
            start,
            "start with --- and the keys of the template",
            Severity.ERROR,
        )
        return Front({}, {}, start)
    document = reading.parse(text.text, path=remarks.path)
    values: Mapping[str, Any] = document.value if isinstance(document.value, dict) else {}
    places = {
        key: TextSpan(key, document.spans[(key,)].line + 1, document.spans[(key,)].value_column)
        for key in values
        if document.spans[(key,)].line == document.spans[(key,)].value_line
    }
    places |= {key: TextSpan(key, document.spans[(key,)].line + 1) for key in values if key not in places}
    if document.problems or not values:
        for problem in document.problems:
            at = TextSpan("", problem.place.line + 1, problem.place.column)
            remarks.say("IMP001", f"the front matter is no YAML: {problem.message}", at, problem.hint)
        values, places = _lenient_front(text)
        if not values:
            remarks.say("IMP001", "the front matter holds no keys and values", start, None, Severity.ERROR)
    for key in values:
        if key not in _FRONT_KEYS:
            at = TextSpan(key, places[key].line)
            remarks.say(
                "IMP018",
                f"the front matter has an unknown key, '{shorten(key)}'",
                at,
                f"keys: {', '.join(_FRONT_KEYS)}",
            )
    return Front(values, places, start)


def read_metadata(front: Front, heading: str, remarks: Remarks) -> dict[str, Any]:
    """The metadata of a proposal, without its name."""
    metadata: dict[str, Any] = {}
    title = front.values.get("title")
    if isinstance(title, str) and title:
        metadata["title"] = title
    if heading:
        metadata["heading"] = heading
    for key in ("authors", "reviewers"):
        people = front.values.get(key)
        people = [people] if isinstance(people, str) else people
        if isinstance(people, list) and people and all(isinstance(name, str) and name for name in people):
            metadata[key] = list(people)
        elif key == "authors" or people:
            remarks.say(
                "IMP011",
                f"the front matter names no {key}",
                front.place(key),
                f'{key}: ["@name"]',
                Severity.ERROR if key == "authors" else Severity.WARNING,
            )
    for key, target in (("creation-date", "creationDate"), ("last-updated", "lastUpdated")):
        _date(front, key, target, metadata, remarks)
    named = re.search(r"(?<![0-9])(20[0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])", remarks.path.rpartition("/")[2])
    created = metadata.get("creationDate")
    if named and created and "-".join(named.groups()) != created:
        remarks.say(
            "IMP013",
            f"the file's name says {'-'.join(named.groups())}, the front matter {created}",
            front.place("creation-date"),
            "rename the file or correct the date",
        )
    status = front.values.get("status")
    if isinstance(status, str) and status in OF_TEMPLATE:
        metadata |= {"status": OF_TEMPLATE[status], "templateStatus": status}
    elif isinstance(status, str) and status:
        metadata["status"] = status
        if status not in _STATUSES:
            remarks.say(
                "IMP006",
                f"'{shorten(status)}' is not a status of a proposal",
                front.place("status"),
                f"one of {', '.join((*_STATUSES, *OF_TEMPLATE))}",
            )
    else:
        remarks.say(
            "IMP011",
            "the front matter has no status",
            front.place("status"),
            "status: provisional",
            Severity.ERROR,
        )
    return metadata


def _date(front: Front, key: str, target: str, metadata: dict[str, Any], remarks: Remarks) -> None:
    text, at = front.values.get(key), front.place(key)
    if text is None:
        if key == "creation-date":
            remarks.say("IMP011", f"the front matter has no {key}", at, f"{key}: 2025-05-29", Severity.ERROR)
        return
    day = read_date(str(text).strip())
    if day.problem:
        # A date that the calendar does not have is kept: `check` speaks of it too (DOC001).
        kept = str(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(text)) else day.value
        severity = Severity.ERROR if kept is None and key == "creation-date" else Severity.WARNING
        remarks.say("IMP012", f"{key}: {day.problem}", at, "write year-month-day", severity)
        if kept:
            metadata[target] = kept
    elif day.value:
        metadata[target] = day.value


def _lenient_front(text: TextSpan) -> tuple[dict[str, Any], dict[str, TextSpan]]:
    """Front matter that is no YAML, line by line: ``key: value`` and ``- item``."""
    values: dict[str, Any] = {}
    places: dict[str, TextSpan] = {}
    key = ""
    for number, line in enumerate(text.text.split("\n"), text.line):
        pair = re.match(r"(?P<key>[A-Za-z][A-Za-z_-]{0,40}):(?P<value>(?: .*)?)\Z", line)
        item = re.match(r"\s*- (?P<value>.*)\Z", line)
        if pair and pair["key"] not in values:
            key = pair["key"]
            value = _unquoted(pair["value"])
            values[key] = value or []
            places[key] = TextSpan(key, number, len(key) + 3 if value else 1)
        elif item and isinstance(values.get(key), list) and _unquoted(item["value"]):
            values[key] = [*values[key], _unquoted(item["value"])]
    return {name: value for name, value in values.items() if value}, places


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text

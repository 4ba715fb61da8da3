"""Files with several YAML documents, and YAML inside a text of another, each with places in the file that holds them.

Kubernetes' tools write several objects into one file, and KAITO's ConfigMap holds a file in a text. What is refused of
one document (`reading`) is refused of each of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kaito_catalog.diagnostics import Diagnostic, Place, Route, Severity
from kaito_catalog.documents import reading
from kaito_catalog.documents.reading import BROKEN, Document, Span
from kaito_catalog.errors import CatalogError

MAX_DOCUMENTS = 200
_MARKER = re.compile(r"(?:---|\.\.\.)(?=[ \t]|\Z)")
_NOTHING = re.compile(r"\s*(?:#.*)?\Z")
_LITERAL = re.compile(r"\|[-+1-9]*(?:[ \t]+#.*)?\Z")


@dataclass(frozen=True)
class PlacedDocument(Document):
    """A document that was made from others: its keys have places in those."""

    places: Mapping[Route, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Mapping[str, Any], places: Mapping[Route, Place], path: str) -> PlacedDocument:
        """The value with the places of its keys; one that has none takes that of the nearest key above it."""
        spans = {
            route: Span(place.line, place.column, place.end_column or place.column, place.line, place.column)
            for route, place in places.items()
        }
        return cls(path, "", value, spans, {}, places=places)

    def place(self, route: Route) -> Place:
        """Where the key at `route`, or the nearest above it, stands in the file that it was made from."""
        for length in range(len(route), -1, -1):
            found = self.places.get(route[:length])
            if found is not None:
                return found
        return Place(self.path)


def read_all(path: Path, *, shown_as: str | None = None) -> tuple[Document, ...]:
    """The documents of a file; never raises for what is in it.

    Raises:
        CatalogError: the file cannot be opened.
    """
    name = shown_as or str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(reading.MAX_YAML_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"cannot read {name}: {error.strerror or error}") from error
    return parse_all(data, path=name)


def parse_all(data: bytes, *, path: str) -> tuple[Document, ...]:
    """The documents of the bytes of a file; none where they hold comments only."""
    text = reading.decoded(data, path=path)
    if isinstance(text, Document):
        return (text,)
    found: list[Document] = []
    for before, part in _parts(text):
        if len(found) == MAX_DOCUMENTS:
            found.append(_too_many(path, text, before))
            break
        found.append(_moved(reading.parse(part, path=path), text, before))
    return tuple(found)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Each document with the number of lines before it; a marker at the start of a line is one wherever it stands."""
    lines = text.removeprefix("\ufeff").split("\n")
    start = 0
    for number in range(len(lines) + 1):
        marker = _MARKER.match(lines[number].rstrip("\r")) if number < len(lines) else None
        if number == len(lines) or marker:
            part = lines[start:number]
            if not all(_NOTHING.match(line) for line in part):
                yield start, "\n".join((*part, "")) if marker else "\n".join(part)
            start = number
            if marker:  # what stands behind it belongs to the next document, in its column
                lines[number] = " " * marker.end() + lines[number][marker.end() :]


def _moved(document: Document, text: str, lines: int) -> Document:
    """A part of a file as a document with the file's text and lines."""
    if lines == 0:
        return replace(document, text=text)
    return replace(
        document,
        text=text,
        spans={
            route: replace(span, line=span.line + lines, value_line=span.value_line + lines)
            for route, span in document.spans.items()
        },
        problems=tuple(
            replace(problem, place=replace(problem.place, line=problem.place.line + lines))
            for problem in document.problems
        ),
    )


def _too_many(path: str, text: str, lines: int) -> Document:
    message = f"more than {MAX_DOCUMENTS} documents in one file"
    problem = Diagnostic("YML006", Severity.ERROR, message, Place(path, lines + 1), "split the file")
    return Document(path, text, BROKEN, {}, {}, (problem,), frozenset({()}))


def parse_inside(document: Document, route: Route, text: str) -> Document:
    """The YAML that the text at a route holds, with places in the file of the document.

    Exact where the text is a literal block (`|`); of other texts every place is where the text begins.
    """
    inner = reading.parse(text, path=document.path)
    span = document.spans.get(route)
    if span is None:
        return replace(inner, text=document.text)
    indent = _indent_of_literal(document, span, text)

    def moved(line: int, column: int) -> tuple[int, int]:
        if indent is None:
            return span.value_line, span.value_column
        return span.value_line + line, column + indent

    def of_span(found: Span) -> Span:
        line, column = moved(found.line, found.column)
        value_line, value_column = moved(found.value_line, found.value_column)
        return Span(line, column, column + found.end_column - found.column, value_line, value_column)

    def of_problem(found: Diagnostic) -> Diagnostic:
        line, column = moved(found.place.line, found.place.column)
        return replace(found, place=Place(document.path, line, column))

    return replace(
        inner,
        text=document.text,
        spans={key: of_span(found) for key, found in inner.spans.items()},
        problems=tuple(of_problem(found) for found in inner.problems),
    )


def _indent_of_literal(document: Document, span: Span, text: str) -> int | None:
    """How far the lines of a literal block are indented; None for a text of another style."""
    header = (document.line(span.value_line) or "")[span.value_column - 1 :]
    if not _LITERAL.match(header):
        return None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            written = document.line(span.value_line + number) or ""
            return len(written) - len(written.lstrip(" ")) - (len(line) - len(line.lstrip(" ")))
    return None

"""YAML text to plain values that remember their line and column.

The YAML is 1.2 core without timestamps, and less: duplicate keys, anchors and aliases, merge keys,
tags, tabs, several documents and large files are refused where they stand, because each of them
lets a file mean something else than what a reviewer reads.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kaito_catalog.diagnostics import Diagnostic, Place, Route, Severity
from kaito_catalog.errors import CatalogError

MAX_YAML_BYTES = 2**20
MAX_DEPTH = 40
MAX_PROBLEMS = 50
MAX_INTEGER_LENGTH = 100
"""Characters; whatever is shorter is also a float, so that the two can be compared without a special case."""

Value: TypeAlias = Any
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
# Characters that change how the surrounding text is displayed: what a reviewer sees is not what is read.
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG_DIRECTIVE = re.compile(r"^%TAG", re.MULTILINE)
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\x7f-\x84\x86-\x9f]")


class _Broken:
    """Stands where a value could not be read, so that the schema does not complain a second time."""


BROKEN = _Broken()


@dataclass(frozen=True)
class Span:
    """Where a key and its value stand (1-based)."""

    line: int
    column: int
    end_column: int
    value_line: int
    value_column: int


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, the place of every key, and what was wrong with its syntax."""

    path: str
    text: str
    value: Value
    spans: dict[Route, Span]
    raw: dict[Route, str]
    """The text of plain (unquoted) scalars, before it became a number or a boolean."""
    problems: tuple[Diagnostic, ...] = ()
    broken: frozenset[Route] = frozenset()
    """Values that could not be read."""
    incomplete: frozenset[Route] = frozenset()
    """Mappings in which a refused key may have hidden others."""

    def place(self, route: Route) -> Place:
        """The place of the key at `route`, or of the nearest key above it that exists."""
        for length in range(len(route), -1, -1):
            span = self.spans.get(route[:length])
            if span:
                return Place(self.path, span.line, span.column, span.end_column)
        return Place(self.path)

    def quotable(self) -> Document:
        """What reports quote from: the text, without the values and places that take most of the memory."""
        return Document(self.path, self.text, None, {}, {})

    def line(self, number: int) -> str | None:
        """Line `number` (1-based) of the text."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else None


def read(path: Path, *, shown_as: str | None = None) -> Document:
    """Read and parse a file; never raises for what is in it.

    Raises:
        CatalogError: the file cannot be opened.
    """
    name = shown_as or str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"cannot read {name}: {error.strerror or error}") from error
    return parse_bytes(data, path=name)


def parse_bytes(data: bytes, *, path: str) -> Document:
    """Parse the bytes of a file."""
    text = decoded(data, path=path)
    return text if isinstance(text, Document) else parse(text, path=path)


def decoded(data: bytes, *, path: str) -> str | Document:
    """The text of a file, or a document that says why it has none."""
    if len(data) > MAX_YAML_BYTES:
        return _refused(
            path,
            "YML008",
            "the file is larger than 1 MiB",
            "a proposal is a few kilobytes; link to long texts",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        return _refused(
            path,
            "YML009",
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            "save the file as UTF-8",
            line=line,
            column=column,
        )


def parse(text: str, *, path: str) -> Document:
    """Parse YAML text."""
    if len(text) > MAX_YAML_BYTES:
        return _refused(path, "YML008", "the text is larger than 1 MiB", "link to long texts")
    return _Builder(text.removeprefix("\ufeff"), path).build()


def _refused(path: str, code: str, message: str, hint: str, *, line: int = 1, column: int = 1) -> Document:
    problem = Diagnostic(code, Severity.ERROR, message, Place(path, line, column), hint)
    return Document(path, "", BROKEN, {}, {}, (problem,), frozenset({()}))


@dataclass
class _Builder:
    text: str
    path: str
    spans: dict[Route, Span] = field(default_factory=dict)
    raw: dict[Route, str] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    broken: set[Route] = field(default_factory=set)
    incomplete: set[Route] = field(default_factory=set)
    last_quoted: Any = None
    """The last text in quotes that goes over several lines: where a closing quote is missing, it swallows keys."""

    def build(self) -> Document:
        self._refuse_characters()
        self._refuse_what_libyaml_cannot_take()
        value: Value = None
        if not self.problems:
            value = self._parse()
        else:
            self.broken.add(())
        return Document(
            self.path,
            self.text,
            value,
            self.spans,
            self.raw,
            tuple(self.problems[:MAX_PROBLEMS]),
            frozenset(self.broken),
            frozenset(self.incomplete),
        )

    def _report(self, code: str, message: str, line: int, column: int, hint: str | None) -> None:
        # libyaml notices some errors only on the line after the last.
        place = Place(self.path, min(line, self.text.count("\n") + 1), column)
        self.problems.append(Diagnostic(code, Severity.ERROR, message, place, hint))

    def _at(self, code: str, message: str, mark: Any, hint: str | None = None) -> None:
        self._report(code, message, mark.line + 1, mark.column + 1, hint)
        if len(self.problems) >= MAX_PROBLEMS:
            raise _StopError

    def _refuse_characters(self) -> None:
        if "\t" not in self.text and not _HIDDEN.search(self.text):
            return
        for number, line in enumerate(self.text.split("\n"), 1):
            if len(self.problems) >= MAX_PROBLEMS:
                return
            if "\t" in line:
                self._report(
                    "YML005",
                    "a tab character",
                    number,
                    line.index("\t") + 1,
                    'indent with spaces; inside a text write "\\t" in double quotes',
                )
            hidden = _HIDDEN.search(line)
            if hidden:
                self._report(
                    "YML010",
                    f"an invisible character, U+{ord(hidden[0]):04X}",
                    number,
                    hidden.start() + 1,
                    "remove it: what is read would differ from what is shown",
                )

    def _refuse_what_libyaml_cannot_take(self) -> None:
        surrogate = _SURROGATE.search(self.text)
        if surrogate:
            message = f"half a character, U+{ord(surrogate[0]):04X}"
            self._report("YML009", message, *self._line_and_column(surrogate.start()), "remove it")
        directive = _TAG_DIRECTIVE.search(self.text)
        if directive:
            # libyaml compares each with all before it: 1 MiB of them takes minutes.
            place = self._line_and_column(directive.start())
            self._report("YML007", "a tag directive, %TAG", *place, "remove it: no value has a tag")

    def _line_and_column(self, position: int) -> tuple[int, int]:
        return self.text.count("\n", 0, position) + 1, position - self.text.rfind("\n", 0, position)

    def _parse(self) -> Value:
        try:
            events = yaml.parse(self.text, Loader=_Loader)
            value: Value = BROKEN
            documents = 0
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._at("YML006", "a second document", event.start_mark, _SECOND_DOCUMENT)
                        self.broken.add(())
                        return BROKEN
                elif isinstance(event, yaml.NodeEvent):
                    value = self._value(event, events, ())
            if documents == 0:
                self.broken.add(())
                self._report(
                    "YML001", "the file is empty", 1, 1, "'kaito-catalog new ORG/MODEL' writes a proposal"
                )
            return value
        except yaml.MarkedYAMLError as error:
            message = _plain(error.problem or "not YAML")
            unclosed = (
                "unexpected end of stream" in message
            )  # where it was opened is of use, not where the file ends
            mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
            quoted = self.last_quoted
            if quoted is not None and mark is not None and mark.line == quoted.end_mark.line:
                self._report(
                    "YML001",
                    f"the text in quotes that opens here ends on line {mark.line + 1}, and more follows it",
                    quoted.start_mark.line + 1,
                    quoted.start_mark.column + 1,
                    "close it where it ends; inside '…', an apostrophe is written twice: ''",
                )
                self.broken.add(())
                return BROKEN
            if error.context and error.context != error.problem:
                message = f"{_plain(error.context)}: {message}"
            self._report(
                "YML001",
                message,
                mark.line + 1 if mark else 1,
                mark.column + 1 if mark else 1,
                _syntax_hint(message),
            )
        except yaml.reader.ReaderError as error:
            position = error.position if isinstance(error.position, int) else 0
            line, column = self._line_and_column(position)
            self._report(
                "YML009",
                f"the character U+{int(error.character):04X} is not allowed",
                line,
                column,
                "remove it",
            )
        except _StopError:
            pass
        self.broken.add(())
        return BROKEN

    def _value(self, event: Any, events: Any, route: Route) -> Value:
        if len(route) > MAX_DEPTH:
            self._at("YML008", f"nested deeper than {MAX_DEPTH} levels", event.start_mark, "flatten it")
            raise _StopError
        if isinstance(event, yaml.AliasEvent):
            self._at(
                "YML003",
                f"an alias, *{event.anchor}",
                event.start_mark,
                "write the value out where it is used",
            )
            self.broken.add(route)
            return BROKEN
        if event.anchor is not None:
            self._at(
                "YML003",
                f"an anchor, &{event.anchor}",
                event.start_mark,
                "write the value out where it is used",
            )
        if event.tag is not None:
            self._at(
                "YML007",
                f"a tag, {event.tag}",
                event.start_mark,
                "remove it; quote the value to make it a string",
            )
            self.broken.add(route)
        if () not in self.spans:
            mark = event.start_mark
            self.spans[()] = Span(
                mark.line + 1, mark.column + 1, mark.column + 2, mark.line + 1, mark.column + 1
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, route)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, route)
        return self._scalar(event, route)

    def _mapping(self, events: Any, route: Route) -> Value:
        result: dict[str, Value] = {}
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                return result
            mark, end = key.start_mark, key.end_mark
            name = key.value if isinstance(key, yaml.ScalarEvent) else None
            if name is None:
                self._value(key, events, (*route, "?"))
                self._at("YML001", "a key that is not a plain word", mark, "keys are strings")
            elif name == "<<" and not key.style:
                self._at("YML004", "a merge key, <<", mark, "write the keys out")
                name = None
            elif name in result:
                self._at(
                    "YML002",
                    f"the key '{shorten(name)}' stands here a second time",
                    mark,
                    f"the first is on line {self.spans[(*route, name)].line}; keep one",
                )
                name = None
            if isinstance(key, yaml.ScalarEvent) and (key.anchor or key.tag):
                self._at("YML003", "an anchor or tag on a key", mark, "remove it")
            value = next(events)
            if name is None:
                kept, self.spans = self.spans, {}
                self._value(value, events, (*route, "?"))
                self.spans = kept
                self.incomplete.add(route)
                continue
            child = (*route, name)
            self.spans[child] = Span(
                mark.line + 1,
                mark.column + 1,
                end.column + 1 if end.line == mark.line else mark.column + 2,
                value.start_mark.line + 1,
                value.start_mark.column + 1,
            )
            result[name] = self._value(value, events, child)
        raise AssertionError("libyaml ends every mapping")

    def _sequence(self, events: Any, route: Route) -> Value:
        result: list[Value] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return result
            mark, end = event.start_mark, event.end_mark
            child = (*route, len(result))
            self.spans[child] = Span(
                mark.line + 1,
                mark.column + 1,
                end.column + 1 if end.line == mark.line else mark.column + 2,
                mark.line + 1,
                mark.column + 1,
            )
            result.append(self._value(event, events, child))
        raise AssertionError("libyaml ends every sequence")

    def _scalar(self, event: Any, route: Route) -> Value:
        text: str = event.value
        if event.style in ("'", '"') and event.end_mark.line > event.start_mark.line:
            self.last_quoted = event
        if event.style:  # quoted or a block: a string, whatever it looks like
            if any("\ud800" <= c <= "\udfff" or c == "\0" for c in text):
                self._at("YML009", "a character that no text may hold", event.start_mark, "remove it")
                self.broken.add(route)
                return BROKEN
            return text
        self.raw[route] = text
        if _NULL.match(text):
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.match(text) and len(text) <= MAX_INTEGER_LENGTH:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _INT.match(text) or (_FLOAT.match(text) and math.isinf(float(text))):
            self._at(
                "YML011",
                f"the number {shorten(text)} is too large",
                event.start_mark,
                "quote it if it is a text",
            )
            self.broken.add(route)
            return BROKEN
        if _FLOAT.match(text):
            return float(text)
        if _SPECIAL_FLOAT.match(text):
            self._at(
                "YML011", f"{text} is not a number JSON knows", event.start_mark, "quote it if it is a text"
            )
            self.broken.add(route)
            return BROKEN
        return text


class _StopError(Exception):
    """Nesting beyond MAX_DEPTH, or MAX_PROBLEMS problems; already reported."""


def _plain(message: str) -> str:
    return " ".join(message.split())


def shorten(text: str) -> str:
    """`text` for a message: at most 60 characters."""
    return text if len(text) <= 60 else text[:57] + "…"


_SECOND_DOCUMENT = "one file holds one object; 'kaito-catalog import FILE.md' reads a proposal in Markdown"


def _syntax_hint(message: str) -> str | None:
    if "expected ',' or" in message:
        return f"close what opened with {'[' if ']' in message else '{'} before this, or put a comma between"
    if "mapping values are not allowed" in message:
        return "quote a text that holds ': '; a key stands in the same column as those around it"
    if "could not find expected ':'" in message:
        return "a key needs a colon and a space after it"
    if "cannot start any token" in message:
        return "quote a text that starts with @, `, % or another special character"
    if "did not find expected key" in message or "did not find expected '-'" in message:
        return "check the indentation of this line against the one above"
    if "unexpected end of stream" in message:
        return "close the quotation mark that opens here"
    return None

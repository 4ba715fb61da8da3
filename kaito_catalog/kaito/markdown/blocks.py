"""Markdown text as sections of blocks that know where they stand; markup inside a line is left as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.front_matter import front_matter_plugin

from kaito_catalog.diagnostics import Diagnostic, Place, Severity

Kind: TypeAlias = Literal["paragraph", "item", "code", "table", "other"]

_CELL_END = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class TextSpan:
    """A piece of text and its place in the file (1-based)."""

    text: str
    line: int
    column: int = 1


@dataclass(frozen=True)
class Block:
    """A paragraph, the paragraph of a list item, a fenced block, a table, or something else.

    `text` is one line for paragraphs and items (a soft break is a space, comments are gone) and the content
    for code. The cells of a table are in `rows`, the header first; a row may be longer than the header.
    """

    kind: Kind
    span: TextSpan
    language: str = ""
    rows: tuple[tuple[TextSpan, ...], ...] = ()

    @property
    def text(self) -> str:
        return self.span.text


@dataclass(frozen=True)
class Section:
    """A heading (empty before the first one) and what stands below it."""

    title: TextSpan
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """The heading in lower case, without marks."""
        return " ".join(re.sub(r"[*_`#:]", " ", self.title.text).lower().split())

    @property
    def start(self) -> TextSpan:
        """Where to point when something is missing in the section."""
        return self.title


@dataclass(frozen=True)
class Markdown:
    """A file in its parts."""

    lines: tuple[str, ...]
    front_matter: TextSpan | None
    sections: tuple[Section, ...]

    def find(self, needle: str, near: TextSpan) -> TextSpan:
        """Where `needle` stands on the line of `near`, from its column on; else `near`."""
        first = needle.split("\n")[0]
        if first and 0 < near.line <= len(self.lines):
            found = self.lines[near.line - 1].find(first, near.column - 1)
            if found >= 0:
                return TextSpan(first, near.line, found + 1)
        return near

    def find_below(self, needle: str, near: TextSpan) -> TextSpan:
        """Where `needle` stands in the paragraph that begins at `near`; else `near`."""
        for line in range(near.line, len(self.lines) + 1):
            if not self.lines[line - 1].strip():
                break
            start = TextSpan("", line, near.column if line == near.line else 1)
            found = self.find(needle, start)
            if found is not start:
                return found
        return near


class Remarks:
    """Collects what is noticed while a file is read, so that all of it is said and not only the first."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.diagnostics: list[Diagnostic] = []

    def say(
        self,
        code: str,
        message: str,
        at: TextSpan,
        hint: str | None = None,
        severity: Severity = Severity.WARNING,
    ) -> None:
        """Add a diagnostic at a place of the file."""
        place = Place(self.path, at.line, at.column)
        self.diagnostics.append(Diagnostic(code, severity, message, place, hint))


def shorten(text: str) -> str:
    """`text` on one line of at most 60 characters, for messages."""
    text = " ".join(text[:500].split())
    return text if len(text) <= 60 else text[:57] + "…"


def parse(text: str) -> Markdown:
    """The parts of a Markdown file. Takes linear time; any text is a Markdown file."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    lines = tuple(text.split("\n"))
    # Neither references nor markup inside a line are parsed: nothing here needs them, and both are where
    # hostile text costs more than linear time.
    parser = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table").disable(["inline", "reference"])
    tokens = parser.use(front_matter_plugin).parse(text)
    front = next((token for token in tokens if token.type == "front_matter"), None)
    return Markdown(lines, TextSpan(front.content, 2) if front else None, tuple(_sections(tokens, lines)))


def one_line(text: str) -> str:
    """`text` without comments, every run of white space one space."""
    return " ".join(_without_comments(text).split())


def _without_comments(text: str) -> str:
    parts = []
    position = 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        parts.append(text[position:start])
        position = end + 3
    return "".join((*parts, text[position:]))


def _sections(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[Section]:
    title = TextSpan("", 1)
    blocks: list[Block] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield Section(title, tuple(blocks))
            title, blocks = _span(tokens[index + 1], lines), []
            continue
        block = _block(tokens, index, lines)
        if block and (block.text or block.rows):
            blocks.append(block)
    yield Section(title, tuple(blocks))


def _span(inline: Token, lines: Sequence[str]) -> TextSpan:
    line = inline.map[0] if inline.map else 0
    return TextSpan(
        one_line(inline.content), line + 1, max(lines[line].find(inline.content.split("\n")[0]), 0) + 1
    )


def _block(tokens: Sequence[Token], index: int, lines: Sequence[str]) -> Block | None:
    token = tokens[index]
    line = token.map[0] if token.map else 0
    match token.type:
        case "paragraph_open":
            opens_item = index > 0 and tokens[index - 1].type == "list_item_open"
            return Block("item" if opens_item else "paragraph", _span(tokens[index + 1], lines))
        case "heading_open":
            return Block("other", _span(tokens[index + 1], lines))
        case "fence":
            column = max(lines[line].find(token.markup), 0) + 1
            language = next(iter(token.info.lower().split()), "")
            return Block("code", TextSpan(token.content or "\n", line + 2, column), language)
        case "table_open":
            last = token.map[1] if token.map else line
            rows = [_cells(lines[number], number + 1) for number in range(line, last) if number != line + 1]
            return Block("table", TextSpan("", line + 1), rows=tuple(rows))
        case "html_block" | "code_block":
            return Block("other", TextSpan(one_line(token.content), line + 1))
        case _:
            return None


def _cells(line: str, number: int) -> tuple[TextSpan, ...]:
    """The cells of a table row; an escaped pipe belongs to its cell."""
    ends = [match.start() for match in _CELL_END.finditer(line)]
    pieces = list(zip((0, *(end + 1 for end in ends)), (*ends, len(line)), strict=True))
    if ends and not line[: ends[0]].strip():
        pieces = pieces[1:]
    if len(pieces) > 1 and not line[ends[-1] + 1 :].strip():
        pieces = pieces[:-1]
    cells = []
    for start, end in pieces:
        text = line[start:end]
        indent = len(text) - len(text.lstrip())
        cells.append(
            TextSpan(_without_comments(text.replace("\\|", "|")).strip(), number, start + indent + 1)
        )
    return tuple(cells)

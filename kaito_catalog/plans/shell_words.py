"""Text of a shell → its commands as words with their places; nothing is run, and what only a shell knows is marked.

Quotes, backslashes, continued lines, comments, `;`, `&&`, pipes and redirections are read as POSIX has them. A variable
is replaced where the text itself sets it, or by the default in `${NAME:-default}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kaito_catalog.diagnostics import Place
from kaito_catalog.errors import CatalogError

MAX_TEXT = 2**20
_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?::?-(?P<default>[^}]*))?\})"
)
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)\Z", re.DOTALL)
_REDIRECTION = re.compile(r"[0-9]*(?:>>|>\||>&|<<<|<>|<&|&>>|&>|>|<)")


@dataclass(frozen=True)
class Word:
    """A word of a command."""

    text: str
    place: Place
    unknown: str | None = None
    """What of it only a shell knows: a variable, the output of a command."""

    @property
    def assignment(self) -> tuple[str, str] | None:
        """Name and value of `NAME=value`; None where it is none."""
        found = _ASSIGNMENT.match(self.text)
        return (found["name"], found["value"]) if found else None


@dataclass
class _Reader:
    """Where reading stands."""

    text: str
    path: str
    variables: dict[str, str]
    line: int = 1
    column: int = 1
    at: int = 0
    word: str = ""
    begun: Place | None = None
    unknown: str | None = None
    command: list[Word] = field(default_factory=list)
    skips_next: bool = False
    """Whether the next word is the file of a redirection."""

    @property
    def here(self) -> Place:
        return Place(self.path, self.line, self.column)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            if self.text[self.at] == "\n":
                self.line, self.column = self.line + 1, 1
            else:
                self.column += 1
            self.at += 1

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.here

    def add(self, text: str) -> None:
        self.begin()
        self.word += text

    def end_word(self) -> None:
        if self.begun is not None:
            if self.skips_next:
                self.skips_next = False
            else:
                self.command.append(Word(self.word, self.begun, self.unknown))
        self.word, self.begun, self.unknown = "", None, None

    def end_command(self) -> list[Word]:
        self.end_word()
        found, self.command, self.skips_next = self.command, [], False
        return found


def read_commands(text: str, path: str, variables: dict[str, str] | None = None) -> Iterator[list[Word]]:
    """The commands of a text, in order; a command that only sets variables is one of them.

    Args:
        text: of a file, or pasted.
        path: as messages name it.
        variables: what is known of them before the first command; not changed.

    Raises:
        CatalogError: a quote is not closed, or a line is continued in a way that a shell would not.
    """
    if len(text) > MAX_TEXT:
        raise CatalogError(f"{path} is larger than {MAX_TEXT // 2**20} MiB", hint="paste the command alone")
    reader = _Reader(_prepared(text), path, dict(variables or {}))
    while reader.at < len(reader.text):
        if _reads_one(reader):
            found = reader.end_command()
            if found:
                _note_assignments(reader, found)
                yield found
    found = reader.end_command()
    if found:
        yield found


def _prepared(text: str) -> str:
    """Unix line ends; the fences of Markdown and the prompts of a terminal are no part of a command."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(
        "" if line.lstrip().startswith("```") else re.sub(r"^(\s*)([$%>]) ", r"\1  ", line) for line in lines
    )


def _note_assignments(reader: _Reader, command: list[Word]) -> None:
    words = command[1:] if command[0].text == "export" else command
    pairs = [word.assignment for word in words]
    if all(pairs):
        reader.variables |= dict(pair for pair in pairs if pair)


def _reads_one(reader: _Reader) -> bool:
    """Read a part of a word, or what stands between words; whether a command ends there."""
    char = reader.text[reader.at]
    redirection = _REDIRECTION.match(reader.text, reader.at)
    if redirection and (char in "<>&" or reader.begun is None):
        reader.end_word()
        reader.step(redirection.end() - reader.at)
        reader.skips_next = True
        return False
    if char == "\\":
        _backslash(reader)
    elif char in "'\"":
        _quoted(reader, char)
    elif char in "$`":
        _expansion(reader, is_quoted=False)
    elif char == "#" and reader.begun is None:
        reader.step((reader.text.find("\n", reader.at) + 1 or len(reader.text) + 1) - 1 - reader.at)
    elif char in "\n;&|(){}" and not (char in "{}" and not _stands_alone(reader)):
        reader.step()
        return True
    elif char.isspace():
        reader.step()
        reader.end_word()
    else:
        reader.add(char)
        reader.step()
    return False


def _stands_alone(reader: _Reader) -> bool:
    after = reader.text[reader.at + 1 : reader.at + 2]
    return reader.begun is None and (not after or after.isspace() or after == ";")


def _backslash(reader: _Reader) -> None:
    after = reader.text[reader.at + 1 : reader.at + 2]
    trailing = re.match(r"\\[ \t]+\n", reader.text[reader.at :])
    if trailing:
        raise CatalogError(
            f"{reader.here}: a blank stands behind the backslash, so that the command ends here",
            hint="take the blank away: a backslash continues a line where it is the last character",
        )
    if after == "\n":
        reader.step(2)
    elif after:
        reader.add(after)
        reader.step(2)
    else:
        reader.step()


def _quoted(reader: _Reader, quote: str) -> None:
    opened = reader.here
    reader.begin()
    reader.step()
    while reader.at < len(reader.text):
        char = reader.text[reader.at]
        if char == quote:
            reader.step()
            return
        if quote == '"' and char == "\\" and reader.text[reader.at + 1 : reader.at + 2] in tuple('"\\$`\n'):
            after = reader.text[reader.at + 1]
            reader.add("" if after == "\n" else after)
            reader.step(2)
        elif quote == '"' and char in "$`":
            _expansion(reader, is_quoted=True)
        else:
            reader.add(char)
            reader.step()
    raise CatalogError(f"{opened}: the quote {quote} is not closed", hint=f"close it with another {quote}")


def _expansion(reader: _Reader, *, is_quoted: bool) -> None:
    """A variable, or what a command would print."""
    found = _VARIABLE.match(reader.text, reader.at)
    if found is None:
        rest = reader.text[reader.at :]
        output = re.match(r"`[^`\n]*`|\$\([^\n]*?\)", rest)
        if output is None and rest[0] == "$":
            reader.add("$")
            reader.step()
            return
        reader.begin()
        words = output[0] if output else rest[:1]
        reader.unknown = reader.unknown or words
        reader.word += words
        reader.step(len(words))
        return
    name = found["plain"] or found["braced"]
    value = reader.variables.get(name, found["default"])
    reader.begin()
    if value is None:
        reader.unknown = reader.unknown or f"${name}"
        reader.word += found[0]
    elif is_quoted or not re.search(r"\s", value):
        reader.word += value
    else:
        first, *others = value.split() or [""]
        reader.word += first
        for other in others:
            begun = reader.begun
            reader.end_word()
            reader.begun, reader.word = begun, other
    reader.step(found.end() - reader.at)

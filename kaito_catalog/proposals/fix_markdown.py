"""Mechanical corrections of a Markdown proposal: each replaces one piece of one line, every other byte stays."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.reading import shown
from kaito_catalog.diagnostics import Place, Route
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Policy
from kaito_catalog.kaito.markdown.reader import ImportedProposal, read_proposals
from kaito_catalog.proposals.fix import corrections, mended_date, mended_size
from kaito_catalog.proposals.of_markdown import markdown_text
from kaito_catalog.system import files

_LINE = re.compile(r"\r\n|\r|\n")
_DATES: tuple[Route, ...] = (("metadata", "creationDate"), ("metadata", "lastUpdated"))
_SIZES: tuple[Route, ...] = tuple(
    ("requirements", key) for key in ("storageSize", "totalGPUMemory", "perGPUMemory")
)


@dataclass(frozen=True)
class MendedMarkdown:
    """A file's text after its corrections, why each was made, and the change as a unified diff."""

    text: str
    reasons: tuple[str, ...]
    diff: str


@dataclass(frozen=True)
class _Replacement:
    place: Place
    old: str
    new: str
    reason: str
    route: Route


def mend_markdown(text: str, path: str, policy: Policy) -> MendedMarkdown:
    """The text with what is mechanical mended; a second call changes nothing.

    Raises:
        CatalogError: a replacement would change more than it is meant to.
    """
    before = read_proposals(text, path=path)
    lines = _lines(text)
    wanted = {(r.place.line, r.place.column): r for p in before.proposals for r in _wanted(p, lines, policy)}
    done: list[_Replacement] = []
    for _, replacement in sorted(wanted.items(), reverse=True):
        number, start = replacement.place.line - 1, replacement.place.column - 1
        line, old = lines[number], replacement.old
        if line.startswith(old, start):
            lines[number] = f"{line[:start]}{replacement.new}{line[start + len(old) :]}"
            done.append(replacement)
    mended = _joined(text, lines)
    after = read_proposals(mended, path=path).proposals
    routes = {replacement.route for replacement in done}
    if [_without(p, routes) for p in before.proposals] != [_without(p, routes) for p in after]:
        raise CatalogError(f"{path} cannot be mended mechanically; nothing was changed")
    diff = difflib.unified_diff(
        _LINE.sub("\n", text).splitlines(keepends=True),
        _LINE.sub("\n", mended).splitlines(keepends=True),
        path,
        path,
    )
    reasons = tuple(f"{replacement.place}: {replacement.reason}" for replacement in reversed(done))
    return MendedMarkdown(mended, reasons, "".join(diff))


def fix_markdown(path: Path, policy: Policy) -> MendedMarkdown:
    """Mend what is mechanical in a file.

    Raises:
        CatalogError: it cannot be read or written; it is then as it was.
    """
    text = markdown_text(path)
    found = mend_markdown(text, shown(path), policy)
    if found.text != text:
        files.write_text(path, found.text)
    return found


def _lines(text: str) -> list[str]:
    return _LINE.split(text.removeprefix("\ufeff"))


def _joined(text: str, lines: list[str]) -> str:
    """The lines with the line ends and the mark that the text has."""
    ends = [*_LINE.findall(text), ""]
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    return mark + "".join(line + end for line, end in zip(lines, ends, strict=True))


def _without(proposal: ImportedProposal, routes: set[Route]) -> dict[str, Any]:
    """What the proposal says but for the values at the routes, and the words of cells that could not be read."""
    value = {
        key: {k: v for k, v in part.items() if (key, k) not in routes} if isinstance(part, dict) else part
        for key, part in proposal.value.items()
    }
    notes = value["requirements"].pop("notes", {})
    return {**value, "notes": {k: v for k, v in notes.items() if ("requirements", k) not in routes}}


def _wanted(proposal: ImportedProposal, lines: list[str], policy: Policy) -> Iterator[_Replacement]:
    """What is mechanical to replace of a model, by what stands in its cells."""

    def written(route: Route) -> tuple[Place, str] | None:
        place = proposal.places.get(route)
        if place is None or place.end_column is None:
            return None
        text = lines[place.line - 1][place.column - 1 : place.end_column - 1]
        inner = text.strip("`\"' ")
        start = place.column + text.find(inner)
        return Place(place.path, place.line, start, start + len(inner)), inner

    for route in _DATES:
        if (found := written(route)) and (day := mended_date(found[1])):
            yield _Replacement(*found, day, f"{found[1]} can only mean {day}", route)
    for route in _SIZES:
        if (found := written(route)) and (size := mended_size(found[1])):
            yield _Replacement(*found, size, f"the unit of '{found[1]}' is spelt {size}", route)
    for correction in corrections(proposal.value, policy):
        if correction.route in (("requirements", "type"), ("requirements", "totalGPUMemory")):
            found = written(correction.route)
            if found and found[1] == proposal.value["requirements"][correction.route[-1]]:
                yield _Replacement(*found, correction.new, correction.reason, correction.route)
    yield from _whole_commit(proposal, lines)


def _whole_commit(proposal: ImportedProposal, lines: list[str]) -> Iterator[_Replacement]:
    """The commit of the link, where the text of the link abbreviates it."""
    route: Route = ("requirements", "version")
    place, version = proposal.places.get(route), proposal.value["requirements"].get("version")
    if place is None or not isinstance(version, str) or len(version) != 40:
        return
    cell = lines[place.line - 1][place.column - 1 :]
    match = re.match(r"\[`?([0-9a-f]{7,39})`?\]\(", cell)
    if match and version.startswith(match[1]):
        column = place.column + match.start(1)
        at = Place(place.path, place.line, column, column + len(match[1]))
        yield _Replacement(at, match[1], version, f"the link's commit is {version}", route)

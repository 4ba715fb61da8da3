"""Mechanical corrections of a proposal: each replaces one value in the text, so comments and order stay as they are."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from kaito_catalog import quantity
from kaito_catalog.catalog.entries import PROPOSAL
from kaito_catalog.catalog.reading import shown
from kaito_catalog.diagnostics import Route
from kaito_catalog.documents import reading
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import HUB_URL
from kaito_catalog.system import files

_DATE_ROUTES: tuple[Route, ...] = (
    ("metadata", "creationDate"),
    ("metadata", "lastUpdated"),
    ("summary", "usage", "asOf"),
)
_SIZE_ROUTES: tuple[Route, ...] = tuple(
    ("requirements", key) for key in ("storageSize", "totalGPUMemory", "perGPUMemory")
)
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\Z", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})\Z", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)\Z", re.ASCII)
_UNITS = {unit.lower(): unit for unit in ("MB", "GB", "TB", "MiB", "GiB", "TiB", "Mi", "Gi", "Ti")}


@dataclass(frozen=True)
class Correction:
    """One value that has to be another, and why."""

    route: Route
    new: str
    reason: str


@dataclass(frozen=True)
class Fixed:
    """What was done to a folder: where it is now, why, and the change as a unified diff."""

    folder: Path
    reasons: tuple[str, ...]
    diff: str


def mended_date(text: str) -> str | None:
    """The date that `text` can only mean, as year-month-day; None when it is right already or could be two dates."""
    match = _YEAR_FIRST.match(text)
    if match:
        year, first, second = (int(part) for part in match.groups())
    else:
        match = _YEAR_LAST.match(text)
        if not match:
            return None
        second, first, year = (int(part) for part in match.groups())
        if first <= 12 and second <= 12 and first != second:
            return None  # 05/06/2025 is in May for some and in June for others
    for month, day in ((first, second), (second, first)):
        try:
            found = date(year, month, day).isoformat()
        except ValueError:
            continue
        return found if found != text else None
    return None


def mended_size(text: str) -> str | None:
    """The size with its unit as it is spelt, or None when nothing but the spelling is to be changed."""
    match = _SIZE.match(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    return f"{match[1]}{unit}" if match and unit and unit != match[2] else None


def _at(value: Any, route: Route) -> Any:
    for part in route:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def corrections(value: Any, policy: Policy) -> Iterator[Correction]:
    """What is mechanical to correct in the values of a proposal, which need not be valid."""

    def text(*route: str | int) -> str:
        found = _at(value, route)
        return found if isinstance(found, str) else ""

    history = _at(value, ("history",))
    events = range(len(history)) if isinstance(history, list) else range(0)
    for route in (*_DATE_ROUTES, *(("history", number, "date") for number in events)):
        new = mended_date(text(*route))
        if new:
            yield Correction(route, new, f"{text(*route)} can only mean {new}")
    for route in _SIZE_ROUTES:
        new = mended_size(text(*route))
        if new:
            yield Correction(route, new, f"the unit of '{text(*route)}' is spelt {new}")
    kind = text("requirements", "type")
    if kind.lower() in policy.types.aliases:
        new = policy.types.aliases[kind.lower()]
        yield Correction(("requirements", "type"), new, f"'{kind}' is an older name for {new}")
    license_ = text("summary", "license", "id")
    alias = policy.licenses.aliases.get(" ".join(license_.lower().split()))
    if alias:
        yield Correction(
            ("summary", "license", "id"), alias, f"the Hub calls the licence '{license_}' {alias}"
        )
    repository = HUB_URL.match(text("requirements", "downloadSite"))
    name = text("metadata", "name")
    if repository and name:
        wanted = repository[1].partition("/")[2].lower()
        if wanted != name and files.NAME.match(wanted):
            yield Correction(("metadata", "name"), wanted, f"the repository is {repository[1]}")
    yield from _total(value, text("requirements", "totalGPUMemory"), text("requirements", "perGPUMemory"))


def _total(value: Any, total: str, each: str) -> Iterator[Correction]:
    count = _at(value, ("requirements", "gpuCount"))
    match = _SIZE.match(each)
    if total != "TBD" or isinstance(count, bool) or not isinstance(count, int) or count < 1 or not match:
        return
    try:
        quantity.parse(each)
    except ValueError:
        return
    if "." not in match[1]:
        new = f"{int(match[1]) * count}{match[2]}"
        yield Correction(("requirements", "totalGPUMemory"), new, f"{count} × {each} are {new}")


def apply(document: Document, wanted: list[Correction]) -> tuple[str, list[Correction]]:
    """The text with the corrections that stand on one line each, and which those are."""
    lines = document.text.split("\n")
    done: list[Correction] = []
    for correction in sorted(wanted, key=lambda c: _position(document, c.route), reverse=True):
        span = document.spans.get(correction.route)
        old = _at(document.value, correction.route)
        if span is None:
            continue
        line, start = lines[span.value_line - 1], span.value_column - 1
        for quote in ("", "'", '"'):
            written = f"{quote}{old}{quote}"
            if line.startswith(written, start):
                lines[span.value_line - 1] = (
                    f"{line[:start]}{quote}{correction.new}{quote}{line[start + len(written) :]}"
                )
                done.append(correction)
                break
    text = "\n".join(lines)
    expected = copy.deepcopy(document.value)
    for correction in done:
        _at(expected, correction.route[:-1])[correction.route[-1]] = correction.new
    if reading.parse(text, path=document.path).value != expected:
        raise CatalogError(f"{document.path} cannot be mended mechanically; nothing was changed")
    return text, done[::-1]


def _position(document: Document, route: Route) -> tuple[int, int]:
    span = document.spans.get(route)
    return (span.value_line, span.value_column) if span else (0, 0)


def fix_folder(folder: Path, policy: Policy) -> Fixed:
    """Mend what is mechanical in a folder's proposal, and rename the folder when only its name is wrong.

    A second call changes nothing. A file with broken syntax is left alone: the checks report it.

    Raises:
        CatalogError: a file cannot be read or written; it is then as it was.
    """
    path = folder / PROPOSAL
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        return Fixed(folder, (), "")
    document = reading.read(path, shown_as=shown(path))
    if document.problems or not isinstance(document.value, dict):
        return Fixed(folder, (), "")
    text, done = apply(document, list(corrections(document.value, policy)))
    reasons = [f"{document.place(c.route)}: {c.reason}" for c in done]
    diff = "".join(
        difflib.unified_diff(
            document.text.splitlines(keepends=True), text.splitlines(keepends=True), shown(path), shown(path)
        )
    )
    if done:
        marked = path.read_bytes().startswith(b"\xef\xbb\xbf")
        files.write_text(path, ("\ufeff" if marked else "") + text)
    value = reading.parse(text, path=document.path).value
    repository = HUB_URL.match(str(_at(value, ("requirements", "downloadSite"))))
    name = repository[1].partition("/")[2].lower() if repository else ""
    target = folder.parent / name
    if name and name == _at(value, ("metadata", "name")) and name != folder.name and files.NAME.match(name):
        if target.exists():
            return Fixed(folder, tuple(reasons), diff)
        try:
            folder.rename(target)
        except OSError as error:
            raise CatalogError(f"cannot rename {shown(folder)}: {error.strerror or error}") from error
        return Fixed(target, (*reasons, f"{shown(folder)} is now {shown(target)}, as its repository"), diff)
    return Fixed(folder, tuple(reasons), diff)

"""KAITO's Markdown proposals as entries that checks can look at: what they find stands in the Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.catalog.reading import shown, with_facts_of_the_catalog
from kaito_catalog.diagnostics import Diagnostic, Place
from kaito_catalog.documents.reading import MAX_YAML_BYTES, Document
from kaito_catalog.documents.streams import PlacedDocument
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown.reader import ImportedProposal, read_proposals

NO_PROPOSAL = "IMP023"
ASK_THE_HUB = "'check --online' asks the Hub for them"
_GAP = "TBD"
_UNKNOWN_DAY = "1970-01-01"
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True)
class MarkdownModel:
    """A model of a Markdown file, and what the import remarked about it."""

    entry: Entry
    imported: ImportedProposal
    remarks: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class MarkdownFile:
    """What a Markdown file proposes."""

    path: str
    text: str
    models: tuple[MarkdownModel, ...]
    remarks: tuple[Diagnostic, ...]
    """Where no model could be read."""
    skipped: str | None
    """Why the file is no proposal."""

    @property
    def document(self) -> Document:
        """For quoting."""
        return Document(self.path, self.text, None, {}, {})


def markdown_text(path: Path) -> str:
    """The text of a Markdown file, with its line ends as they are.

    Raises:
        CatalogError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_YAML_BYTES + 1)
        if len(data) > MAX_YAML_BYTES:
            raise CatalogError(f"{shown(path)} is larger than 1 MiB", hint="a proposal is a few kilobytes")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{shown(path)} is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise CatalogError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def read_markdown(text: str, path: str) -> MarkdownFile:
    """What the text of a Markdown file proposes; never raises for what is in it."""
    found = read_proposals(text, path=path)
    other = next((remark for remark in found.diagnostics if remark.code == NO_PROPOSAL), None)
    if other is not None:
        return MarkdownFile(path, text, (), (), other.message)
    of_models = _by_model(found.diagnostics, found.proposals)
    models = tuple(
        MarkdownModel(_entry(imported, path), imported, remarks)
        for imported, remarks in zip(found.proposals, of_models, strict=True)
    )
    return MarkdownFile(path, text, models, () if models else found.diagnostics, None)


def _by_model(
    remarks: Sequence[Diagnostic], proposals: Sequence[ImportedProposal]
) -> list[tuple[Diagnostic, ...]]:
    """The remarks of each model: those in its own cells, and for the first one those about the whole file."""
    own = [{_point(place) for place in proposal.places.values()} for proposal in proposals]
    found: list[list[Diagnostic]] = [[] for _ in proposals]
    for remark in remarks:
        holders = [number for number, points in enumerate(own) if _point(remark.place) in points]
        if found:
            found[holders[0] if len(holders) == 1 else 0].append(remark)
    return [tuple(part) for part in found]


def _point(place: Place) -> tuple[int, int]:
    return place.line, place.column


def _entry(imported: ImportedProposal, path: str) -> Entry:
    """The entry of a model; what the file leaves out, and the import has remarked, does not keep it from its checks."""
    value = _with_gaps(imported.value)
    document = PlacedDocument.of(value, imported.places, path)
    proposal, problems = load(document, Proposal)
    return Entry(imported.name, Path(path), document, proposal, None, None, (), problems)


def _with_gaps(value: Mapping[str, Any]) -> dict[str, Any]:
    gaps = {"heading": _GAP, "authors": [_GAP], "creationDate": _UNKNOWN_DAY, "status": "provisional"}
    metadata = {**gaps, **value["metadata"]}
    requirements = {"familyName": _GAP, "type": _GAP, "downloadSite": _GAP, **value["requirements"]}
    return {**value, "metadata": metadata, "requirements": requirements}


@dataclass(frozen=True)
class WithFacts:
    """An entry with the facts that its claims are compared with, or why there are none."""

    entry: Entry
    lacking: str | None = None
    """Why there are no facts."""
    hint: str | None = None
    """What would give some."""
    others: str | None = None
    """The commit of the facts, where the proposal itself names none."""


def with_facts(entry: Entry, root: Path) -> WithFacts:
    """The entry with the catalog's facts, where the catalog knows the repository at the proposal's commit.

    A proposal that names no commit is compared with the one that the catalog has.
    """
    proposal = entry.proposal
    if proposal is None:
        return WithFacts(entry)
    if proposal.repo_id is None:
        return WithFacts(entry, lacking="the download site is no repository of the Hub", hint="see DOC003")
    facts = with_facts_of_the_catalog(entry, root).facts
    if facts is None:
        return WithFacts(entry, lacking=f"the catalog has no facts of {proposal.repo_id}", hint=ASK_THE_HUB)
    version = commit_of(entry)
    if version is not None and facts.revision is not None and facts.revision != version:
        reason = (
            f"the catalog has facts of {proposal.repo_id} at {facts.revision[:12]}, not at {version[:12]}"
        )
        return WithFacts(entry, lacking=reason, hint=ASK_THE_HUB)
    return compared_with(entry, facts)


def compared_with(entry: Entry, facts: ModelFacts) -> WithFacts:
    """The entry with these facts; what is found of them stands in the Markdown too."""
    named = commit_of(entry) is not None
    others = None if named else facts.revision or "a commit that was not published"
    return WithFacts(replace(entry, facts=facts, facts_document=None), others=others)


def commit_of(entry: Entry) -> str | None:
    """The full commit that the proposal names; None where it names none."""
    version = (entry.proposal.requirements.version if entry.proposal else None) or ""
    return version if _COMMIT.match(version) else None

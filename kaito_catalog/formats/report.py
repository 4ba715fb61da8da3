"""The JSON report of `check`: the shape that programs may rely on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kaito_catalog.formats.base import Items, Model

Natural = Annotated[int, Field(ge=0)]
Position = Annotated[int, Field(ge=1)]


class ReportFinding(Model):
    """One finding, at its place (line and column from 1)."""

    code: str
    """What `explain` takes."""
    severity: Literal["error", "warning", "note"]
    """Only errors fail."""
    message: str
    """What is wrong, in one sentence."""
    hint: str | None
    """How to mend it."""
    waived: str | None
    """The reason of the proposal's waiver."""
    path: str
    """Of the file, as seen from where `check` ran."""
    line: Position
    """From 1."""
    column: Position
    """From 1, in characters."""


class ReportSkip(Model):
    """A check that could not be made, and why."""

    code: str
    """What `explain` takes."""
    reason: str
    """What is missing."""
    hint: str | None
    """How to make the check possible."""
    path: str
    """Of the file, as seen from where `check` ran."""
    line: Position
    """From 1."""
    column: Position
    """From 1, in characters."""


class ReportModel(Model):
    """What was found out about one model."""

    name: str
    """The entry's name."""
    path: str
    """Of its proposal."""
    readable: bool
    """Whether its files could be read; else nothing was claimed."""
    image_hosting: Literal["public-mcr", "user-built"] | None
    """Who may host an image with the weights, by the licence; null where that is not known."""
    claims: dict[str, Literal["proven", "claimed", "reported", "transcribed", "wrong", "unknown"]]
    """How well each is proven."""
    findings: Items[ReportFinding]
    """In the order of the files."""
    skipped: Items[ReportSkip]
    """Checks that could not be made."""


class ReportSummary(Model):
    """Counts over all models."""

    models: Natural
    """That were checked."""
    errors: Natural
    """Findings that fail."""
    findings: Natural
    """Of every severity, waived ones too."""
    skipped: Natural
    """Checks that could not be made."""
    claims: dict[str, Natural]
    """How many are proven, claimed, reported, transcribed, wrong, unknown."""


class ReportChangedValue(Model):
    """What of a model is served differently; null is absent."""

    what: str
    """Its name, such as ``Licence: claimed``."""
    before: str | None
    """At the commit that is compared with."""
    after: str | None
    """In the files here."""


class ReportChangedModel(Model):
    """One model that is served differently."""

    name: str
    """The entry's name."""
    how: Literal["new", "removed", "changed"]
    """As a whole."""
    values: Items[ReportChangedValue]
    """What is different."""


class ReportChanges(Model):
    """What `diff` says of the same change."""

    models: Items[ReportChangedModel]
    """That are served differently."""
    texts_only: Items[str]
    """Models of which only texts changed."""
    shared_files: bool
    """Whether a file changed that all models share."""
    not_compared: str | None
    """Why nothing of this is known."""


class CheckReport(Model):
    """`check --format json`."""

    version: Literal[1]
    """Of this form."""
    ok: bool
    """Whether `check` exits 0."""
    summary: ReportSummary
    """Counts over all models."""
    removed: Items[str]
    """Models that the change takes out of the catalog, where one was named."""
    models: Items[ReportModel]
    """In natural order of their names."""
    changes: ReportChanges | None
    """With `--changed-since`: what the change means for what is served."""

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
    severity: Literal["error", "warning", "note"]
    message: str
    hint: str | None
    waived: str | None
    """The reason of the proposal's waiver."""
    path: str
    line: Position
    column: Position


class ReportSkip(Model):
    """A check that could not be made, and why."""

    code: str
    reason: str
    hint: str | None
    path: str
    line: Position
    column: Position


class ReportModel(Model):
    """What was found out about one model."""

    name: str
    path: str
    readable: bool
    image_hosting: Literal["public-mcr", "user-built"] | None
    claims: dict[str, Literal["proven", "transcribed", "wrong", "unknown"]]
    findings: Items[ReportFinding]
    skipped: Items[ReportSkip]


class ReportSummary(Model):
    """Counts over all models."""

    models: Natural
    errors: Natural
    findings: Natural
    skipped: Natural
    claims: dict[str, Natural]


class CheckReport(Model):
    """`check --format json`."""

    version: Literal[1]
    ok: bool
    summary: ReportSummary
    models: Items[ReportModel]

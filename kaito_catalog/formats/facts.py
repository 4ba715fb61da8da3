"""`facts.yaml`: what the Hub says about a repository at one revision, each figure with its source."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue

from kaito_catalog.formats.base import (
    API_VERSION,
    Bytes,
    Count,
    IsoDate,
    Items,
    Model,
    RepoId,
    Revision,
    Sha256,
    Text,
    Url,
)

SourceKind: TypeAlias = Literal["hub", "local", "transcribed"]


class Reference(Model):
    """Where a reader finds what was transcribed."""

    source: Text = Field(alias="from")
    """A repository with commit and path, a thread, a page."""
    url: Url | None = None
    fields: Items[Text]
    """The fields that were read there."""
    note: str | None = None


class FactsSource(Model):
    """How the facts were had: from the Hub, from a directory on disk, or transcribed from a publication."""

    kind: SourceKind
    references: Items[Reference] | None = None


class LicenseFacts(Model):
    """The licence in the repository's metadata."""

    id: Text
    """The Hub's id, such as `apache-2.0`, `gemma`, `other`."""
    name: str | None = None
    link: Url | None = None
    sha256: Sha256 | None = None
    """Of the LICENSE file at the revision."""


class File(Model):
    """One file of the repository."""

    path: Text
    size_bytes: Bytes | None = None
    sha256: Sha256 | None = None
    """Of the content, for files in LFS."""


class StoredSize(Model):
    """A total in bytes; `precisionBytes` is half of the last digit where a rounded figure was transcribed."""

    size_bytes: Bytes
    precision_bytes: Bytes = 0

    @property
    def low_bytes(self) -> int:
        """The least that the figure can stand for."""
        return self.size_bytes - self.precision_bytes

    @property
    def high_bytes(self) -> int:
        """The most that the figure can stand for."""
        return self.size_bytes + self.precision_bytes


class Weights(Model):
    """The weight files vLLM downloads and loads: its own choice of format, no second copy."""

    format: Literal["safetensors", "mistral", "pickle", "gguf"]
    total: StoredSize | None = None
    files: Count | None = None


class Safetensors(Model):
    """What the headers of the weight files say."""

    parameters_by_dtype: dict[str, Bytes]
    """Number of parameters (not bytes) per safetensors dtype, such as BF16."""


class PythonFile(Model):
    """A file with code of the repository."""

    path: Text
    sha256: Sha256 | None = None


class RemoteCode(Model):
    """Code that loading with `trust_remote_code` would run."""

    files: Items[PythonFile]
    auto_map: dict[str, JsonValue] | None = None


class ModelFacts(Model):
    """The Hub at a revision. A field nobody has read is absent, and what needs it is skipped."""

    api_version: API_VERSION
    kind: Literal["ModelFacts"]
    repo_id: RepoId
    revision: Revision | None = None
    recorded_at: IsoDate
    source: FactsSource
    license: LicenseFacts | None = None
    gated: Literal["no", "auto", "manual", "yes"] | None = None
    """Whether the files ask for an accepted agreement; `yes` where only that much is known."""
    pipeline_tag: str | None = None
    base_models: Items[RepoId] | None = None
    repository: StoredSize | None = None
    """All files of the repository at the revision."""
    weights: Weights | None = None
    files: Items[File] | None = None
    safetensors: Safetensors | None = None
    remote_code: RemoteCode | None = None
    config: Annotated[dict[str, JsonValue], Field(min_length=1)] | None = None
    """The fields of config.json that loading and memory depend on, verbatim."""

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
    """Its address, where it has one."""
    fields: Items[Text]
    """The fields that were read there."""
    note: str | None = None
    """What a reader should know about it."""


class FactsSource(Model):
    """How the facts were had: from the Hub, from a directory on disk, or transcribed from a publication."""

    kind: SourceKind
    """`transcribed` facts are not the word of the Hub: claims that rest on them alone count as transcribed."""
    references: Items[Reference] | None = None
    """Where each transcribed field was read."""


class LicenseFacts(Model):
    """The licence in the repository's metadata."""

    id: Text
    """The Hub's id, such as `apache-2.0`, `gemma`, `other`; where the card lists several, all of them with commas."""
    name: str | None = None
    """What an `other` licence calls itself."""
    link: Url | None = None
    """The licence's text, as the repository names it."""
    sha256: Sha256 | None = None
    """Of the LICENSE file at the revision."""
    text: str | None = None
    """The Hub's id of the licence whose text that file is; absent where it is none that is known word for word."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Each licence that the card names."""
        return tuple(part.strip() for part in self.id.split(",") if part.strip())

    @property
    def contradiction(self) -> str | None:
        """What the LICENSE file's text is, where the card names another licence; words for a message."""
        if self.text is None or self.text in (*self.ids, self.name) or set(self.ids) & {"other", "unknown"}:
            return None
        return f"the card says {self.id}, the LICENSE file is the text of {self.text}"


class File(Model):
    """One file of the repository."""

    path: Text
    """Within the repository."""
    size_bytes: Bytes | None = None
    """Of the content, not of its LFS pointer."""
    sha256: Sha256 | None = None
    """Of the content, for files in LFS."""


class StoredSize(Model):
    """A total in bytes; `precisionBytes` is half of the last digit where a rounded figure was transcribed."""

    size_bytes: Bytes
    """The total, or the middle of what a rounded figure can stand for."""
    precision_bytes: Bytes = 0
    """Half of the last digit of a rounded figure; 0 where bytes were counted."""

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
    """The form that vLLM chooses among those of the repository."""
    total: StoredSize | None = None
    """Of these files together."""
    files: Count | None = None
    """How many there are."""


class Safetensors(Model):
    """What the headers of the weight files say."""

    parameters_by_dtype: dict[str, Bytes]
    """Number of parameters (not bytes) per safetensors dtype, such as BF16."""


class PythonFile(Model):
    """A file with code of the repository."""

    path: Text
    """Within the repository."""
    sha256: Sha256 | None = None
    """Of its content at the revision."""


class RemoteCode(Model):
    """Code that loading with `trust_remote_code` would run."""

    files: Items[PythonFile]
    """All of its Python files."""
    auto_map: dict[str, JsonValue] | None = None
    """The configuration's own `auto_map`: which classes loading would import."""


class ModelFacts(Model):
    """The Hub at a revision. A field that has not been read is absent, and what needs it is skipped."""

    api_version: API_VERSION
    kind: Literal["ModelFacts"]
    repo_id: RepoId
    """`org/model` on the Hub."""
    revision: Revision | None = None
    """The commit that was read (40 hex digits)."""
    recorded_at: IsoDate
    """The day of reading."""
    source: FactsSource
    license: LicenseFacts | None = None
    gated: Literal["no", "auto", "manual", "yes"] | None = None
    """Whether the files ask for an accepted agreement; `yes` where only that much is known."""
    pipeline_tag: str | None = None
    """The Hub's task, such as `text-generation`."""
    base_models: Items[RepoId] | None = None
    """What the model was made from, as its card says."""
    repository: StoredSize | None = None
    """All files of the repository at the revision."""
    weights: Weights | None = None
    files: Items[File] | None = None
    """Every file of the repository at the revision."""
    safetensors: Safetensors | None = None
    remote_code: RemoteCode | None = None
    config: Annotated[dict[str, JsonValue], Field(min_length=1)] | None = None
    """The fields of config.json that loading and memory depend on, verbatim."""

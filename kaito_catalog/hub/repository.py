"""A model repository at one commit, from the Hub or a directory: what is known of it, and what can be read of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Gate: TypeAlias = Literal["no", "auto", "manual"]
MAX_FILES = 20_000

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository."""

    path: str
    size_bytes: int | None
    sha256: str | None = None
    """Of the content; the Hub knows it for files in LFS."""
    is_lfs: bool = False
    blob_id: str | None = None
    """Git's id of the blob (of the pointer, for files in LFS)."""


@dataclass(frozen=True)
class Repository:
    """What the Hub, or a directory, says about a repository at a commit. None: not known."""

    repo_id: str
    """As the Hub spells it now; another name than was asked for is a moved repository."""
    revision: str | None
    files: tuple[RepoFile, ...]
    gated: Gate | None = None
    license_id: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str | None = None
    base_models: tuple[str, ...] = ()
    downloads: int | None = None
    parameters_by_dtype: Mapping[str, int] | None = None
    """The Hub's own count over the safetensors headers."""
    unsafe_names: tuple[str, ...] = ()
    """Names of files that lead elsewhere or cannot be shown, made printable; these files are not in `files`."""

    def file(self, path: str) -> RepoFile | None:
        """The file of that path."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def size_bytes(self) -> int | None:
        """All files together; None where the size of one is not known."""
        sizes = [file.size_bytes for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class Header:
    """What the header of a safetensors file declares."""

    parameters_by_dtype: Mapping[str, int]
    """Number of parameters, sorted by dtype."""
    tensors: tuple[str, ...]
    """Their names."""


class Snapshot(Protocol):
    """A repository whose files can be read."""

    @property
    def repository(self) -> Repository:
        """What is known without reading a file."""

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A small file, whole.

        Raises:
            CatalogError: it cannot be read, or is larger than the limit.
        """

    def safetensors_header(self, path: str) -> Header:
        """What the header of a weight file declares.

        Raises:
            CatalogError: it cannot be read, or is not a safetensors header.
        """

    def sha256(self, path: str) -> str:
        """Of a file's content.

        Raises:
            CatalogError: it cannot be read.
        """

    def how_to_complete(self) -> str:
        """What to do where files are missing."""


def is_safe(path: str) -> bool:
    """Whether a name from a repository is a plain relative path that stays inside and can be shown."""
    parts = path.split("/")
    return (
        0 < len(path) <= 500
        and not _INVISIBLE.search(path)
        and "\\" not in path
        and not re.match(r"[A-Za-z]:", path)
        and all(part not in ("", ".", "..") for part in parts)
    )


def printable(name: str) -> str:
    """A name with what cannot be shown written as ``\\u202e``, shortened."""
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m[0]):04x}", name[:200]) or "(empty)"

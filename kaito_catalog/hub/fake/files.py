"""Files of our own Hub: the first bytes of each are kept, and what follows them is zeros that are not stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kaito_catalog.errors import CatalogError

DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2}
"""Bytes of one element per safetensors dtype; every other dtype has one."""


@dataclass(frozen=True)
class FakeFile:
    """A file of a repository: its first bytes, and zeros up to `size_bytes`; or a file on disk."""

    head: bytes
    size_bytes: int
    lfs: bool
    declared_sha256: str | None = None
    on_disk: Path | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the content; files that are not stored have an invented one that changes with head and size."""
        if self.declared_sha256:
            return self.declared_sha256
        digest = hashlib.sha256()
        if self.on_disk is not None:
            with self.on_disk.open("rb") as stream:
                for block in iter(lambda: stream.read(2**20), b""):
                    digest.update(block)
        elif self.size_bytes <= 2**26:
            digest.update(self.read(0, self.size_bytes))
        else:
            digest.update(self.head + str(self.size_bytes).encode())
        return digest.hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's id of the blob: of the content, or of the LFS pointer."""
        content = self.pointer if self.lfs else self.read(0, self.size_bytes)
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What Git holds in place of a file in LFS."""
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size_bytes}\n"
        )
        return text.encode()

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        end = min(end, self.size_bytes)
        if self.on_disk is not None:
            with self.on_disk.open("rb") as stream:
                stream.seek(start)
                return stream.read(max(0, end - start))
        part = self.head[start:end]
        return part + bytes(max(0, end - start - len(part)))


def text_file(content: str | bytes) -> FakeFile:
    """A small file, kept in Git."""
    data = content.encode() if isinstance(content, str) else content
    return FakeFile(data, len(data), lfs=False)


def json_file(value: Any) -> FakeFile:
    """A small JSON file."""
    return text_file(json.dumps(value, indent=2) + "\n")


def lfs_file(content: bytes, *, size_bytes: int | None = None, sha256: str | None = None) -> FakeFile:
    """A file in LFS that starts with `content`."""
    return FakeFile(content, size_bytes if size_bytes is not None else len(content), True, sha256)


def dtype_bytes(dtype: str) -> float:
    """Bytes of one element; half a byte where two share one."""
    return 0.5 if dtype in ("F4", "F4_E2M1") else DTYPE_BYTES.get(dtype, 1)


def safetensors_file(
    parameters: Mapping[str, int],
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    prefix: str = "model",
) -> FakeFile:
    """A safetensors file with one tensor per dtype; its header is padded so that the whole has `size_bytes`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for dtype, count in parameters.items():
        end = offset + math.ceil(count * dtype_bytes(dtype))
        header[f"{prefix}.{dtype.lower()}.weight"] = {
            "dtype": dtype,
            "shape": [count],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    if size_bytes is not None:
        room = size_bytes - 8 - offset
        if room < len(text):
            raise CatalogError(f"{size_bytes} bytes cannot hold {offset} bytes of tensors and their header")
        text = text.ljust(room)
    return lfs_file(len(text).to_bytes(8, "little") + text, size_bytes=8 + len(text) + offset, sha256=sha256)


def header_parameters(file: FakeFile) -> dict[str, int] | None:
    """Parameters by dtype that a safetensors file declares; None where it is none."""
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= 2**25:
        return None
    try:
        header = json.loads(file.read(8, 8 + length))
    except ValueError:
        return None
    found: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            found[tensor["dtype"]] = found.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return found

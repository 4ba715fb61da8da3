"""The weight files of a folder on disk, for a plan: their size, or what is missing of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.hub.directory import LocalSnapshot
from kaito_catalog.hub.weight_files import (
    Index,
    choose_weights,
    index_to_read,
    lack_of_files,
    lack_of_layers,
    missing_files,
    missing_layers,
    read_index,
)

_INDEX_LIMIT_BYTES = 64 * 2**20


def local_weights(folder: Path, config: Mapping[str, object]) -> StoredSize | None:
    """The bytes that vLLM loads of a folder; None where it holds no weights that are known to be of use.

    Git LFS pointers count as the files that they stand for. No content is read but indexes and headers.

    Args:
        folder: with the files of a repository.
        config: its configuration.

    Raises:
        CatalogError: a part of the weights is missing, or a file is none of its kind.
    """
    snapshot = LocalSnapshot(folder, "")
    paths = [file.path for file in snapshot.repository.files]
    index = _index(snapshot, folder, paths)
    choice = choose_weights(paths, index.files if index else None)
    if choice is None or choice.format == "gguf":
        return None
    lack = lack_of_files(missing_files(paths, index.files if index else None))
    tensors = list(index.tensors) if index else []
    if lack is None and choice.format != "pickle":
        for path in choice.loaded:
            if not snapshot.is_pointer(path):
                tensors.extend(snapshot.safetensors_header(path).tensors)
        lack = lack_of_layers(missing_layers(tensors, config))
    if lack is not None:
        raise CatalogError(f"{folder}: the weights lack {lack}", hint=snapshot.how_to_complete())
    sizes = [file.size_bytes for path in choice.loaded if (file := snapshot.repository.file(path))]
    return StoredSize.model_validate({"sizeBytes": sum(size or 0 for size in sizes)})


def _index(snapshot: LocalSnapshot, folder: Path, paths: list[str]) -> Index | None:
    path = index_to_read(paths)
    if path is None or snapshot.is_pointer(path):
        return None
    try:
        index = read_index(json.loads(snapshot.read(path, limit_bytes=_INDEX_LIMIT_BYTES)))
    except (ValueError, RecursionError):
        index = None
    if index is None:
        raise CatalogError(f"{folder / path} names no files of weights", hint=snapshot.how_to_complete())
    return index

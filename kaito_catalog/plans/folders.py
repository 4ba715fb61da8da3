"""A folder with a model's files → what plans need of it: its configuration, its shape, the size of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.catalog.reading import shown
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.hub.local_weights import local_weights
from kaito_catalog.memory.held_weights import lack_of_bytes
from kaito_catalog.plans.kaito_start import Described
from kaito_catalog.vllm_bridge.reference import versions
from kaito_catalog.vllm_bridge.versions import newest

MAX_CONFIG_BYTES = 8 * 2**20


def described_in(folder: Path, stored: StoredSize | None) -> Described:
    """The model whose files lie in a folder."""
    shape = read_directory(folder)
    found = stored or _whole_weights(folder, shape)
    size = found.size_bytes if found else None
    is_mistral = not (folder / "config.json").is_file()
    return Described(folder.resolve().name, read_config(folder), shape, found, size, is_mistral)


def configuration_of(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """config.json, and the quantisation beside it, of a folder or of that file."""
    path = path / "config.json" if path.is_dir() else path
    side = path.with_name("hf_quant_config.json")
    return _read_json(path), _read_json(side) if side.is_file() else None


def read_directory(folder: Path) -> Shape | Unsupported:
    """The shape of a model whose config.json (or Mistral's params.json) lies in `folder`.

    `hf_quant_config.json` beside it is taken into account, as vLLM does.

    Raises:
        CatalogError: a file is no JSON object, or too large.
    """
    config = read_config(folder)
    side = folder / "hf_quant_config.json"
    return read_shape(config, quantization=_read_json(side) if side.is_file() else None)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config.json of a folder, or Mistral's params.json.

    Raises:
        CatalogError: it is no JSON object, or too large.
    """
    path = folder / "config.json"
    return _read_json(path if path.is_file() else folder / "params.json")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise CatalogError(f"{shown(path)} is larger than {MAX_CONFIG_BYTES // 2**20} MiB")
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise CatalogError(f"cannot read {shown(path)}: {error.strerror or error}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise CatalogError(f"{shown(path)} is not JSON") from error
    except json.JSONDecodeError as error:
        raise CatalogError(f"{shown(path)}:{error.lineno}:{error.colno}: {error.msg}") from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise CatalogError(f"{shown(path)} holds a number that is too long") from error
    if not isinstance(value, dict):
        raise CatalogError(f"{shown(path)} does not hold a JSON object")
    return value


def _whole_weights(folder: Path, shape: Shape | Unsupported) -> StoredSize | None:
    """The size of a folder's weights; a part of them is an error, and none is None."""
    found = local_weights(folder, read_config(folder))
    lack = lack_of_bytes(shape, found, newest(versions()))
    if lack is not None:
        raise CatalogError(
            f"{shown(folder)}: the weights lack {lack}",
            hint="finish the download, or plan by the configuration alone in a folder without weights",
        )
    return found

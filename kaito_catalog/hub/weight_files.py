"""Which weight files of a repository vLLM downloads and loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal, TypeAlias

WeightFormat: TypeAlias = Literal["safetensors", "mistral", "pickle", "gguf"]

SAFETENSORS_INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"

IGNORED = "original/**/*"
"""vLLM's default `ignore_patterns`. With fnmatch it spares `original/a/b`, not `original/b`; the index does that."""
_NOT_FOR_INFERENCE = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class WeightChoice:
    """The weight files of a repository that vLLM takes with `load_format` auto."""

    format: WeightFormat
    downloaded: tuple[str, ...]
    """What it fetches: the disk has to hold these."""
    loaded: tuple[str, ...]
    """What it opens of them."""


def index_to_read(paths: Sequence[str]) -> str | None:
    """The index file that decides which weights vLLM takes; None where there is none, or it cannot matter.

    It cannot matter where the tree holds one complete set of shards and no other safetensors file.
    """
    weights = [path for path in paths if path.endswith(".safetensors")]
    if any(fnmatch(path.rpartition("/")[2], "consolidated*.safetensors") for path in weights):
        index = MISTRAL_INDEX
        weights = [path for path in weights if fnmatch(path, "consolidated*.safetensors")]
    else:
        index = SAFETENSORS_INDEX
    if index not in paths:
        return None
    shards = [_SHARD.fullmatch(path) for path in weights]
    first = shards[0] if shards else None
    if first is None or "/" in first["stem"]:
        return index
    complete = len(weights) == int(first["count"]) and all(
        shard is not None and (shard["stem"], shard["count"]) == (first["stem"], first["count"])
        for shard in shards
    )
    return None if complete else index


def choose_weights(paths: Sequence[str], indexed: Sequence[str] | None = None) -> WeightChoice | None:
    """Which weight files vLLM downloads and loads; None where it finds none.

    The rules of `default_loader._prepare_weights` and `weight_utils.download_weights_from_hf` (vLLM 0.25 to 0.33)
    for a model on the Hub, load format auto: a file called `consolidated*.safetensors` anywhere makes it the
    Mistral format; else the files that `model.safetensors.index.json` names; else the first of `*.safetensors`,
    `*.bin`, `*.pt` that the top folder has. Patterns are matched against whole paths, `*` crosses folders.

    Args:
        paths: all files of the repository.
        indexed: the files that the index of `index_to_read` names, when it was read.
    """
    if any(fnmatch(path.rpartition("/")[2], "consolidated*.safetensors") for path in paths):
        downloaded = _matching(paths, "consolidated*.safetensors")
        loaded = [path for path in downloaded if "/" not in path]
        return _choice("mistral", downloaded, _in_index(loaded, indexed)) if downloaded else None
    top = [path for path in paths if "/" not in path]
    if SAFETENSORS_INDEX in top and indexed:
        named = sorted(set(indexed) & set(paths))
        downloaded = [path for path in named if not fnmatch(path, IGNORED)]
        return _choice("safetensors", downloaded, downloaded) if downloaded else None
    for pattern, format_ in (("*.safetensors", "safetensors"), ("*.bin", "pickle"), ("*.pt", "pickle")):
        if any(fnmatch(path, pattern) for path in top):
            downloaded = _matching(paths, pattern)
            loaded = [path for path in downloaded if "/" not in path]
            if format_ == "pickle":
                loaded = [path for path in loaded if not path.endswith(_NOT_FOR_INFERENCE)]
            return _choice("safetensors" if format_ == "safetensors" else "pickle", downloaded, loaded)
    gguf = [path for path in top if path.endswith(".gguf")]
    return _choice("gguf", gguf, gguf) if gguf else None


def _matching(paths: Sequence[str], pattern: str) -> list[str]:
    return sorted(path for path in paths if fnmatch(path, pattern) and not fnmatch(path, IGNORED))


def _in_index(paths: list[str], indexed: Sequence[str] | None) -> list[str]:
    return [path for path in paths if path in indexed] if indexed else paths


def _choice(format_: WeightFormat, downloaded: Sequence[str], loaded: Sequence[str]) -> WeightChoice:
    return WeightChoice(format_, tuple(downloaded), tuple(loaded))


def indexed_files(index: object) -> tuple[str, ...] | None:
    """The files that an index (its parsed JSON) names; None where it is not an index."""
    match index:
        case {"weight_map": dict(weight_map)} if all(isinstance(name, str) for name in weight_map.values()):
            return tuple(sorted(set(weight_map.values())))
        case _:
            return None

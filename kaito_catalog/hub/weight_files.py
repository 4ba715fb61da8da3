"""Which weight files of a repository vLLM downloads and loads, and what is missing of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal, TypeAlias

from kaito_catalog.hub.repository import printable

WeightFormat: TypeAlias = Literal["safetensors", "mistral", "pickle", "gguf"]

SAFETENSORS_INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"

IGNORED = "original/**/*"
"""vLLM's default `ignore_patterns`. With fnmatch it spares `original/a/b`, not `original/b`; the index does that."""
_NOT_FOR_INFERENCE = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
_MOST_SHARDS = 10_000
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


@dataclass(frozen=True)
class Index:
    """What an index file says."""

    files: tuple[str, ...]
    """The weight files that it names."""
    tensors: tuple[str, ...]
    """The tensors in them."""


def read_index(index: object) -> Index | None:
    """An index (its parsed JSON); None where it is not one."""
    match index:
        case {"weight_map": dict(weight_map)} if all(isinstance(name, str) for name in weight_map.values()):
            return Index(tuple(sorted(set(weight_map.values()))), tuple(map(str, weight_map)))
        case _:
            return None


def missing_files(paths: Sequence[str], indexed: Sequence[str] | None = None) -> tuple[str, ...]:
    """Weight files that have to be there and are not: named by the index, else the gaps in numbered shards.

    Args:
        paths: all files of the repository.
        indexed: the files that its index names, when it was read.
    """
    if indexed:
        return tuple(sorted(set(indexed) - set(paths)))
    choice = choose_weights(paths)
    shards = [_SHARD.fullmatch(path) for path in (choice.loaded if choice else ())]
    held: dict[tuple[str, str], set[int]] = {}
    for shard in shards:
        if shard is not None:
            held.setdefault((shard["stem"], shard["count"]), set()).add(int(shard["index"]))
    return tuple(
        f"{stem}-{number:05}-of-{count}.safetensors"
        for (stem, count), numbers in sorted(held.items())
        if int(count) <= _MOST_SHARDS
        for number in range(1, int(count) + 1)
        if number not in numbers
    )


_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d{1,5})\.")
_ENCODER = re.compile(r"vis|vit|audio|image|speech", re.I)
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def missing_layers(tensors: Iterable[str], config: Mapping[str, object]) -> tuple[int, int] | None:
    """How many decoder layers the tensors belong to and how many the configuration asks for, where these are more.

    None where there are enough, or where names or configuration do not tell.
    """
    numbers = [
        int(match[1]) for name in tensors if (match := _LAYER.search(name)) and not _ENCODER.search(name)
    ]
    parts = [config, config.get("text_config"), config.get("llm_config"), config.get("language_config")]
    counts = [
        count
        for part in parts
        if isinstance(part, Mapping)
        for key in _LAYER_COUNTS
        if type(count := part.get(key)) is int
    ]
    if not numbers or not counts:
        return None
    held, wanted = max(numbers) + 1, counts[-1]
    return (held, wanted) if held < wanted else None


_SHOWN_FILES = 3


def lack_of_files(missing: Sequence[str]) -> str | None:
    """In words what is missing; None where nothing is."""
    if not missing:
        return None
    few = ", ".join(map(printable, missing[:_SHOWN_FILES]))
    more = f" and {len(missing) - _SHOWN_FILES} more" if len(missing) > _SHOWN_FILES else ""
    return f"{few}{more}"


def lack_of_layers(missing: tuple[int, int] | None) -> str | None:
    """In words which layers `missing_layers` misses; None where none is."""
    if missing is None:
        return None
    held, wanted = missing
    which = f"layers {held} to {wanted - 1}" if wanted - held > 1 else f"layer {held}"
    return f"{which}: the configuration has {wanted}"

"""What `compilation-config` and the options beside it say of CUDA graphs and of the fused all-reduce."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

CONFIG = "compilation-config"
CAPTURE_SIZES = "cudagraph-capture-sizes"
MOST_CAPTURED = "max-cudagraph-capture-size"
NAMES = frozenset({CONFIG, CAPTURE_SIZES, MOST_CAPTURED})

_FUSED = "fuse_allreduce_rms"
_WITHOUT_MEMORY = frozenset({"cache_dir", "custom_ops", "compile_cache_save_format"})
"""Keys of `compilation-config` that no plan has to read: the operators are in the same places either way."""


@dataclass(frozen=True)
class Compilation:
    """What vLLM is told about compiling and capturing; None is what it does by itself."""

    fuse_allreduce_rms: bool | None = None
    """Whether an all-reduce is fused with the norm after it, for which FlashInfer keeps a workspace on each GPU."""
    cudagraph_mode: str | None = None
    """Such as FULL_AND_PIECEWISE, which is vLLM's own choice, FULL_DECODE_ONLY or NONE."""
    capture_sizes: tuple[int, ...] | None = None
    """The batches of the graphs, in tokens."""
    most_captured: int | None = None
    """The largest of them, where vLLM chooses the others."""

    @property
    def captures(self) -> bool:
        """Whether any graph is captured."""
        return self.cudagraph_mode != "NONE" and self.most_captured != 0 and self.capture_sizes != ()


BY_ITSELF = Compilation()
"""What vLLM does where it is told nothing."""
MODES = frozenset({"NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"})


def compilation(options: Iterable[tuple[str, str]]) -> Compilation:
    """What the options say; what cannot be read of them `unread` names."""
    found = Compilation()
    for name, value in options:
        if name in NAMES:
            found = _read(name, value, found)[0]
    return found


def unread(name: str, value: str) -> str | None:
    """The first key of such an option that no plan reads, or its value where that is none; None where all is read."""
    return _read(name, value, Compilation())[1]


@lru_cache(maxsize=256)
def _read(name: str, value: str, before: Compilation) -> tuple[Compilation, str | None]:
    values: dict[str, object] = {
        "fuse_allreduce_rms": before.fuse_allreduce_rms,
        "cudagraph_mode": before.cudagraph_mode,
        "capture_sizes": before.capture_sizes,
        "most_captured": before.most_captured,
    }
    problem = None
    keys = _keys(name, value)
    if keys is None:
        return before, value
    for key, found in keys.items():
        match key:
            case "pass_config" if isinstance(found, dict) and found.keys() <= {_FUSED}:
                fused = _truth(found.get(_FUSED))
                values["fuse_allreduce_rms"] = fused
                problem = problem or (f"{key}.{_FUSED}" if fused is None and found else None)
            case "cudagraph_mode" if str(found).upper() in MODES:
                values["cudagraph_mode"] = str(found).upper()
            case "cudagraph_capture_sizes" if isinstance(found, list) and all(_is_count(n) for n in found):
                values["capture_sizes"] = tuple(sorted(set(found)))
            case "max_cudagraph_capture_size" if _is_count(found):
                values["most_captured"] = found
            case _ if key not in _WITHOUT_MEMORY:
                problem = problem or key
    return Compilation(**values), problem  # type: ignore[arg-type]


def _keys(name: str, value: str) -> Mapping[str, object] | None:
    """The option as keys of `compilation-config`; None where its value cannot be read."""
    try:
        if name == MOST_CAPTURED:
            return {"max_cudagraph_capture_size": int(value)}
        if name == CAPTURE_SIZES:
            found = json.loads(value) if value.startswith("[") else [int(word) for word in value.split()]
            return {"cudagraph_capture_sizes": found}
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _truth(value: object) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0

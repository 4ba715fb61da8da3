"""What options say of torch.compile and CUDA graphs (`Compilation`), and how many graphs vLLM captures then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from kaito_catalog.memory.rounding import round_up
from kaito_catalog.memory.values import Settings

LARGEST_CAPTURE = 512
"""Tokens of the largest CUDA graph, where the batch allows it."""
MOST_FINE_CAPTURES = 32
"""Up to here `performance-mode interactivity` captures a graph for each number of requests."""


@dataclass(frozen=True)
class Compilation:
    """What is compiled and captured; by default as vLLM does it at optimization level 2."""

    compiles: bool = True
    captures_mixed: bool = True
    """Graphs for batches with prompts in them (PIECEWISE)."""
    captures_decoding: bool = True
    """Graphs for batches of decoding requests alone (FULL)."""
    sizes: tuple[int, ...] | None = None
    """Tokens of each graph."""
    largest: int | None = None
    """Tokens of the largest, where `sizes` are vLLM's."""
    fine: bool = False
    """One graph for each number of few requests."""
    fuse_allreduce_rms: bool | None = None
    """Whether an all-reduce is fused with the norm after it, for which FlashInfer keeps a workspace on each GPU; None
    where it is left to vLLM."""

    @property
    def captures(self) -> bool:
        """Whether there are CUDA graphs."""
        return (self.captures_mixed or self.captures_decoding) and self.largest != 0 and self.sizes != ()


VLLMS_COMPILATION = Compilation()
EAGER = Compilation(compiles=False, captures_mixed=False, captures_decoding=False, fuse_allreduce_rms=False)

_GRAPHS: Mapping[str, tuple[bool, bool]] = {
    "NONE": (False, False),
    "PIECEWISE": (True, False),
    "FULL": (True, False),  # one list for all batches
    "FULL_DECODE_ONLY": (False, True),
    "FULL_AND_PIECEWISE": (True, True),
}
"""vLLM's CUDAGraphMode: whether there are graphs for mixed batches, and a list of their own for decoding."""

_COMPILES = ("3", "VLLM_COMPILE")
_SIZES = ("cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size")

WITHOUT_MEMORY: Mapping[str, str] = {
    "cache_dir": "where what is compiled is kept",
    "compile_cache_save_format": "how it is kept",
    "custom_ops": "which kernels norms and activations take, in the same places",
    "cudagraph_num_of_warmups": "how often a graph is run before it is captured",
    "debug_dump_path": "what is written for people",
}
"""Keys of compilation-config that order no memory of their own."""

_FUSED = "fuse_allreduce_rms"
_OFF_BY_DEFAULT = frozenset({"enable_sp", "fuse_gemm_comms"})
"""Passes that change what is captured or keep buffers where they are on."""


class _UnreadError(Exception):
    """An option, and what of it is not planned."""


@lru_cache(maxsize=256)
def compilation_of(settings: Settings) -> Compilation | str:
    """What the options say; a text where that is not planned, with the reason."""
    if settings.enforce_eager:
        return EAGER
    try:
        found = _at_level(settings.optimization_level)
        found = replace(
            found,
            fine=settings.performance_mode == "interactivity",
            largest=settings.max_cudagraph_capture_size,
            sizes=_sizes(settings.cudagraph_capture_sizes),
        )
        config = json.loads(settings.compilation_config) if settings.compilation_config else {}
        return _with(found, config, settings)
    except _UnreadError as error:
        return str(error)


def _sizes(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(int(word) for word in text.split())


def _at_level(level: str | None) -> Compilation:
    match level and level.upper().removeprefix("O"):
        case None | "" | "2" | "3":
            return VLLMS_COMPILATION
        case "1":
            return replace(VLLMS_COMPILATION, captures_decoding=False, fuse_allreduce_rms=False)
        case "0":
            return EAGER
    raise _UnreadError(f"no plan for optimization-level {str(level)[:40]}")


def _with(found: Compilation, config: Mapping[str, Any], settings: Settings) -> Compilation:
    for key, value in config.items():
        found = _with_key(found, key, value, settings)
    return found


def _with_key(found: Compilation, key: str, value: Any, settings: Settings) -> Compilation:
    """`found` with what a key of compilation-config changes of it."""
    if value is None or key in WITHOUT_MEMORY:
        return found
    match key:
        case "cudagraph_mode":
            if str(value).upper() not in _GRAPHS:
                raise _UnreadError(f"no plan for cudagraph_mode {str(value)[:40]}")
            mixed, decoding = _GRAPHS[str(value).upper()]
            return replace(found, captures_mixed=mixed, captures_decoding=decoding)
        case "cudagraph_capture_sizes" if settings.cudagraph_capture_sizes is None and _are_sizes(value):
            return replace(found, sizes=tuple(value))
        case "max_cudagraph_capture_size" if (
            settings.max_cudagraph_capture_size is None and type(value) is int
        ):
            return replace(found, largest=value)
        case "mode" | "level" if str(value).upper() in _COMPILES and found.compiles:
            return found
        case "pass_config" if isinstance(value, dict):
            return _with_passes(found, value)
    raise _UnreadError(f"no plan reads compilation-config {key[:40]} {json.dumps(value)[:40]}")


def _with_passes(found: Compilation, passes: Mapping[str, Any]) -> Compilation:
    """`found` with what passes change of it; KAITO writes truths as texts."""
    for name, value in passes.items():
        truth = {"true": True, "false": False}.get(str(value).lower())
        if value is None or (truth is False and name in _OFF_BY_DEFAULT):
            continue
        if name != _FUSED or truth is None:
            raise _UnreadError(f"no plan reads compilation-config pass_config.{str(name)[:40]}")
        found = replace(found, fuse_allreduce_rms=truth)
    return found


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size > 0 for size in value)


@lru_cache(maxsize=256)
def captured_graphs(
    max_num_seqs: int,
    max_num_batched_tokens: int,
    compilation: Compilation = VLLMS_COMPILATION,
    guessed_tokens: int = 0,
) -> int:
    """How many CUDA graphs vLLM captures: one a size for mixed batches, one a size for decoding alone.

    By default the sizes are 1, 2, 4, then by 8 below 256 and by 16 from there to min(2 × max_num_seqs, 512); batches
    of decoding requests alone are at most max_num_seqs (VllmConfig._set_cudagraph_sizes). Where tokens are guessed, a
    request has those of a batch too, and sizes are multiples of that (adjust_cudagraph_sizes_for_spec_decode).
    """
    if not compilation.captures:
        return 0
    of_request = 1 + guessed_tokens
    decoded = max_num_seqs * of_request
    plain = capture_sizes(decoded, max_num_batched_tokens, compilation)
    sizes = {round_up(size, of_request) for size in plain if round_up(size, of_request) <= plain[-1]}
    mixed = len(sizes) if compilation.captures_mixed else 0
    decoding = len([s for s in sizes if s <= decoded]) if compilation.captures_decoding else 0
    return mixed + decoding


def capture_sizes(max_num_seqs: int, max_num_batched_tokens: int, compilation: Compilation) -> list[int]:
    """Tokens of each graph."""
    if compilation.sizes is not None:
        return sorted({size for size in compilation.sizes if size <= max_num_batched_tokens})
    largest = min(2 * max_num_seqs, LARGEST_CAPTURE) if compilation.largest is None else compilation.largest
    largest = min(largest, max_num_batched_tokens)
    few = range(1, MOST_FINE_CAPTURES + 1) if compilation.fine else (1, 2, 4)
    candidates = {*few, *range(8, 256, 8), *range(256, largest + 1, 16)}
    if compilation.largest is not None and max_num_batched_tokens == largest:
        candidates.add(max_num_batched_tokens)
    return sorted(size for size in candidates if size <= largest)

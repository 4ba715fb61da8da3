"""Which of its model runners vLLM takes for a model, what that one profiles, and how many CUDA graphs it captures."""

from __future__ import annotations

from functools import lru_cache

from kaito_catalog.architectures import BuiltShape, Experts, Recurrent
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.memory.compilation import BY_ITSELF, Compilation
from kaito_catalog.memory.overheads.versions import (
    EXPERT_ARCHITECTURES,
    SECOND_RUNNER_FOR_ALL,
    SECOND_RUNNER_FOR_DENSE,
    SECOND_RUNNER_FOR_SOME,
    SECOND_RUNNER_PROFILES,
    SOME_ARCHITECTURES,
)

LARGEST_CAPTURE = 512
"""Sequences of the largest CUDA graph, where max_num_seqs allows it."""


def runs_second_runner(shape: BuiltShape, vllm_version: str) -> bool:
    """Whether vLLM takes its second model runner for the model (VllmConfig.use_v2_model_runner)."""
    version = version_tuple(vllm_version)
    if version >= SECOND_RUNNER_FOR_ALL:
        return True
    if version >= SECOND_RUNNER_FOR_DENSE:
        return shape.architecture in EXPERT_ARCHITECTURES or not any(
            isinstance(x.feed_forward, Experts) or any(isinstance(m, Recurrent) for m in x.mixers)
            for x in shape.layers
        )
    is_named = version >= SECOND_RUNNER_FOR_SOME and shape.architecture in SOME_ARCHITECTURES
    return is_named and shape.quantization is None


def profiles_everything(shape: BuiltShape, vllm_version: str) -> bool:
    """Whether the profile run captures graphs and runs the encoder: the second runner did neither at first."""
    is_later = version_tuple(vllm_version) >= SECOND_RUNNER_PROFILES
    return is_later or not runs_second_runner(shape, vllm_version)


@lru_cache(maxsize=256)
def captured_graphs(
    max_num_seqs: int, max_num_batched_tokens: int, compilation: Compilation = BY_ITSELF
) -> int:
    """How many CUDA graphs vLLM captures: one a size for mixed batches, one a size for decoding alone.

    The sizes are 1, 2, 4, then by 8 below 256 and by 16 from there to min(2 × max_num_seqs, 512); batches
    of decoding requests alone are at most max_num_seqs (VllmConfig._set_cudagraph_sizes).
    """
    largest: int = compilation.most_captured or min(2 * max_num_seqs, LARGEST_CAPTURE)
    sizes = compilation.capture_sizes or (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16))
    if compilation.capture_sizes:
        largest = max_num_batched_tokens
    mixed = [size for size in sizes if size <= min(largest, max_num_batched_tokens)]
    of_decoding = [size for size in mixed if size <= max_num_seqs]
    match compilation.cudagraph_mode:
        case "NONE":
            return 0
        case "PIECEWISE" | "FULL":
            return len(mixed)
        case "FULL_DECODE_ONLY":
            return len(of_decoding)
    return len(mixed) + len(of_decoding)


MOST_GRAPHS: int = captured_graphs(1024, 8192)

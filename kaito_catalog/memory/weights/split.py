"""How vLLM divides a model: matrices over the ranks of tensor parallelism, experts, layers over pipeline stages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

MXFP_BLOCK = 32
"""Elements that share one scale byte in the microscaling formats (mxfp4, mxfp8)."""


@dataclass(frozen=True)
class Split:
    """How the weights are divided: ranks of tensor parallelism, and how the experts are."""

    tensor_parallel_size: int = 1
    expert_tensor_parallel_size: int = 1
    """Ranks that each expert is cut over: TP × DP, or 1 with expert parallelism."""
    expert_parallel_size: int = 1
    """Ranks that the experts are distributed over: 1, or TP × DP with expert parallelism."""
    mxfp4_alignment: tuple[int, int] = (MXFP_BLOCK, 64)
    """What the hidden and intermediate sizes of mxfp4 experts are rounded up to, as their kernel asks."""


def split_over(
    *,
    tensor_parallel_size: int,
    data_parallel_size: int = 1,
    enable_expert_parallel: bool = False,
    compute_capability: float | None = None,
) -> Split:
    """How vLLM divides the weights (FusedMoEParallelConfig: without EP, experts are cut over TP × DP).

    Without a compute capability, that of an H100 is taken (it matters to mxfp4 alone).
    """
    ranks = tensor_parallel_size * data_parallel_size
    alignment = _mxfp4_alignment(compute_capability)
    if enable_expert_parallel:
        return Split(tensor_parallel_size, 1, ranks, alignment)
    return Split(tensor_parallel_size, ranks, 1, alignment)


def _mxfp4_alignment(compute_capability: float | None) -> tuple[int, int]:
    """vLLM 0.25.1's mxfp4_round_up_hidden_size_and_intermediate_size for the kernel it picks on that GPU.

    Triton on Hopper, TensorRT-LLM's on data-center Blackwell, Marlin elsewhere.
    """
    if compute_capability is None or 9 <= compute_capability < 10:
        return MXFP_BLOCK, 64
    return (256, 256) if 10 <= compute_capability < 11 else (256, 128)


class UncomputableError(Exception):
    """The configuration alone does not give the bytes; the message says why."""


class IllegalSplitError(UncomputableError):
    """vLLM itself would refuse to divide the model like this."""


@dataclass(frozen=True)
class Uncomputable:
    """Why the configuration alone does not give the bytes."""

    reason: str
    illegal: bool = False
    """vLLM itself would refuse to divide the model like this."""


def divide(size: int, ranks: int, what: str) -> int:
    """The share of one rank.

    Raises:
        IllegalSplitError: it cannot be divided evenly; `what` says what, in words.
    """
    if size % ranks:
        raise IllegalSplitError(f"{what} ({size:,}) cannot be divided by {ranks}")
    return size // ranks


def stages(
    num_hidden_layers: int, pipeline_parallel_size: int, partition: tuple[int, ...] | None = None
) -> tuple[range, ...]:
    """The layers of each pipeline stage, as vLLM cuts them (get_pp_indices of distributed/utils.py, 0.10.2 to 0.33.0).

    `partition` is VLLM_PP_LAYER_PARTITION; one that is `illegal_partition` must not come here.
    """
    counts = [num_hidden_layers // pipeline_parallel_size] * pipeline_parallel_size
    for i in range(2, num_hidden_layers % pipeline_parallel_size + 2):
        counts[-i] += 1
    counts = list(partition or counts)
    edges = [sum(counts[:i]) for i in range(pipeline_parallel_size + 1)]
    return tuple(range(a, b) for a, b in pairwise(edges))


def illegal_partition(
    partition: tuple[int, ...] | None, num_hidden_layers: int, pipeline_parallel_size: int
) -> str | None:
    """Why vLLM refuses those layers of each stage; None where it does not, or where nothing is set."""
    if partition is None:
        return None
    if len(partition) != pipeline_parallel_size:
        return f"it names {len(partition)} stages, and pipeline_parallel_size is {pipeline_parallel_size}"
    if sum(partition) != num_hidden_layers:
        return f"it has {sum(partition)} layers, and the model {num_hidden_layers}"
    return None

"""KAITO's own sizing, as its Go code has it, so that its verdict can be shown beside a plan.

Source: kaito-project/kaito, pkg/workspace/estimator/nodesestimator and pkg/workspace/inference. The constants are a
release's own, right or not: `release` reads them from its data file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kaito_catalog.architectures import Attention, LatentAttention, Shape
from kaito_catalog.quantity import GIB


@dataclass(frozen=True)
class Sizing:
    """The constants of a release's formula."""

    weights_factor: float
    """Of the file size: what loading is taken to add."""
    headroom: float
    """Of the weights of a GPU: what grows with them."""
    utilization: float
    """Of the memory; the launcher's own may be another one (`gpuMemoryUtilization` of the profile)."""
    utilization_by_gpu: Mapping[str, float]
    overhead_bytes: float
    overhead_bytes_by_gpu: Mapping[str, float]
    default_model_len: int
    """Tokens that nodes are sized for when the workspace names no max-model-len."""
    mamba_sequences: int
    """Sequences whose Mamba states are counted; 0 where the release leaves them out."""

    def utilization_on(self, gpu: str | None) -> float:
        """The share of a GPU's memory that the formula counts with."""
        return self.utilization_by_gpu.get(gpu or "", self.utilization)

    def overhead_on(self, gpu: str | None) -> float:
        """The fixed overhead of a GPU in bytes."""
        return self.overhead_bytes_by_gpu.get(gpu or "", self.overhead_bytes)


@dataclass(frozen=True)
class Need:
    """What a model asks for, as KAITO reads it from its catalog."""

    model_file_bytes: float
    kv_cache_bytes_per_token: int
    mamba_state_bytes: int = 0
    """Of one sequence; 0 for a model without such states."""


@dataclass(frozen=True)
class Node:
    """An instance type as KAITO sees it: brochure memory, all GPUs together."""

    gpu_memory_bytes: int
    gpu_count: int
    gpu: str | None = None
    """The name in KAITO's table, such as `NVIDIA A10`; None takes no exception."""


@dataclass(frozen=True)
class Estimate:
    """What KAITO would start; `nodes` is None where its formula finds no room at all."""

    nodes: int | None
    gpus: int | None
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int


def node_count(node: Node, need: Need, sizing: Sizing, *, max_model_len: int | None = None) -> int | None:
    """Nodes KAITO asks for: its GPUs, spread over whole nodes."""
    gpus = gpu_count(node, need, sizing, max_model_len=max_model_len)
    return None if gpus is None else math.ceil(gpus / node.gpu_count)


def gpu_count(node: Node, need: Need, sizing: Sizing, *, max_model_len: int | None = None) -> int | None:
    """KAITO's minGPUs, int((size × 1.02 + states) / room per GPU) + 1; None where nothing is left for weights."""
    tokens = sizing.default_model_len if max_model_len is None else max_model_len
    available = node.gpu_memory_bytes / node.gpu_count * sizing.utilization_on(node.gpu)
    kv_cache = tokens * need.kv_cache_bytes_per_token / node.gpu_count
    room = (available - sizing.overhead_on(node.gpu) - kv_cache) / sizing.headroom
    if room <= 0:
        return None
    states = need.mamba_state_bytes * sizing.mamba_sequences
    return int((need.model_file_bytes * sizing.weights_factor + states) / room) + 1


def predicted_kv_cache_bytes(
    sizing: Sizing,
    *,
    gpu_memory_bytes: float,
    gpu_memory_utilization: float,
    model_file_bytes: float,
    gpus: int,
) -> float:
    """KV memory per GPU that KAITO's formula implies: the same terms, solved for the cache."""
    weights = model_file_bytes * sizing.weights_factor / gpus
    return gpu_memory_bytes * gpu_memory_utilization - sizing.overhead_bytes - weights * sizing.headroom


def fits_single_gpu(node: Node, *, model_file_bytes: float) -> bool:
    """Whether KAITO runs a copy on every GPU: the file size, twice on each, is less than the node has."""
    return node.gpu_count > 1 and model_file_bytes * node.gpu_count * 2 < node.gpu_memory_bytes


def estimate(node: Node, need: Need, sizing: Sizing, *, max_model_len: int | None = None) -> Estimate:
    """What KAITO would start for a model on such nodes."""
    gpus = gpu_count(node, need, sizing, max_model_len=max_model_len)
    if gpus is None:
        return Estimate(None, None, 1, node.gpu_count, 1)
    nodes = math.ceil(gpus / node.gpu_count)
    if nodes == 1 and fits_single_gpu(node, model_file_bytes=need.model_file_bytes):
        return Estimate(1, gpus, node.gpu_count, 1, 1)
    return Estimate(nodes, gpus, 1, node.gpu_count, nodes)


def with_nodes(node: Node, need: Need, nodes: int) -> Estimate:
    """What KAITO would start on that many nodes, whatever its formula says of their number."""
    gpus = nodes * node.gpu_count
    if nodes == 1 and fits_single_gpu(node, model_file_bytes=need.model_file_bytes):
        return Estimate(1, gpus, node.gpu_count, 1, 1)
    return Estimate(nodes, gpus, 1, node.gpu_count, nodes)


def longest_on(node: Node, need: Need, sizing: Sizing, nodes: int, *, limit: int) -> int:
    """The longest context, at most `limit`, for which KAITO starts no more than that many nodes; 0 where none is."""

    def is_enough(tokens: int) -> bool:
        count = node_count(node, need, sizing, max_model_len=tokens)
        return count is not None and count <= nodes

    if is_enough(limit):
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return low


def kv_cache_bytes_per_token(shape: Shape) -> int:
    """KAITO's bytesPerToken: every layer as the first that attends, two bytes an element."""
    mixers = [layer.mixer for layer in shape.layers]
    for mixer in mixers:
        if isinstance(mixer, LatentAttention):
            return 2 * len(mixers) * (mixer.kv_lora_rank + mixer.qk_rope_head_dim)
        if isinstance(mixer, Attention):
            return 2 * 2 * len(mixers) * mixer.num_key_value_heads * mixer.head_dim
    return 0


LONGEST_STARTUP_MINUTES = 180
"""Of KAITO's start-up probe, whatever it counts: presets/workspace/models/vllm_model.go, as the other figures."""


def startup_minutes_counted(model_file_bytes: float) -> float:
    """What KAITO counts for a start: 15 minutes and 18 seconds a GiB."""
    return 15 + model_file_bytes / GIB * 18 / 60


def startup_minutes(model_file_bytes: float | None) -> int:
    """The start-up limit: what is counted, between 30 and 180 minutes; 30 without a size."""
    if model_file_bytes is None:
        return 30
    return int(min(float(LONGEST_STARTUP_MINUTES), max(30.0, startup_minutes_counted(model_file_bytes))))

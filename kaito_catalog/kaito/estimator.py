"""KAITO v0.12's own sizing, as its Go code has it, so that its verdict can be shown beside a plan.

Source: kaito-project/kaito at v0.12.0, pkg/workspace/estimator/nodesestimator and pkg/workspace/inference;
the constants are its own, right or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kaito_catalog.architectures import Attention, LatentAttention, Shape
from kaito_catalog.quantity import GIB

WEIGHTS_FACTOR = 1.02
"""Of the file size: what loading is taken to add."""
UTILIZATION = 0.84
A10_UTILIZATION = 0.82
OVERHEAD_BYTES = 2.3 * GIB
HEADROOM = 1.05
DEFAULT_MODEL_LEN = 2048
"""Tokens KAITO sizes nodes for when the workspace names no max-model-len."""


@dataclass(frozen=True)
class Node:
    """An instance type as KAITO sees it: brochure memory, all GPUs together."""

    gpu_memory_bytes: int
    gpu_count: int


@dataclass(frozen=True)
class Estimate:
    """What KAITO would start; `nodes` is None where its formula finds no room at all."""

    nodes: int | None
    gpus: int | None
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int


def node_count(
    node: Node, *, model_file_bytes: float, kv_cache_bytes_per_token: int, max_model_len: int | None = None
) -> int | None:
    """Nodes KAITO asks for: minGPUs = int(size × 1.02 / room per GPU) + 1, spread over nodes."""
    gpus = gpu_count(
        node,
        model_file_bytes=model_file_bytes,
        kv_cache_bytes_per_token=kv_cache_bytes_per_token,
        max_model_len=max_model_len,
    )
    return None if gpus is None else math.ceil(gpus / node.gpu_count)


def gpu_count(
    node: Node, *, model_file_bytes: float, kv_cache_bytes_per_token: int, max_model_len: int | None = None
) -> int | None:
    """KAITO's minGPUs; None where overhead and cache leave no room for weights."""
    tokens = DEFAULT_MODEL_LEN if max_model_len is None else max_model_len
    available = node.gpu_memory_bytes / node.gpu_count * UTILIZATION
    kv_cache = tokens * kv_cache_bytes_per_token / node.gpu_count
    room = (available - OVERHEAD_BYTES - kv_cache) / HEADROOM
    if room <= 0:
        return None
    return int(model_file_bytes * WEIGHTS_FACTOR / room) + 1


def predicted_kv_cache_bytes(
    *, gpu_memory_bytes: float, gpu_memory_utilization: float, model_file_bytes: float, gpus: int
) -> float:
    """KV memory per GPU that KAITO's formula implies: the same terms, solved for the cache."""
    weights = model_file_bytes * WEIGHTS_FACTOR / gpus
    return gpu_memory_bytes * gpu_memory_utilization - OVERHEAD_BYTES - weights * HEADROOM


def fits_single_gpu(node: Node, *, model_file_bytes: float) -> bool:
    """Whether KAITO runs a copy on every GPU: the file size, twice on each, is less than the node has."""
    return node.gpu_count > 1 and model_file_bytes * node.gpu_count * 2 < node.gpu_memory_bytes


def estimate(
    node: Node, *, model_file_bytes: float, kv_cache_bytes_per_token: int, max_model_len: int | None = None
) -> Estimate:
    """What KAITO v0.12 would start for a model on such nodes."""
    sizes = {
        "model_file_bytes": model_file_bytes,
        "kv_cache_bytes_per_token": kv_cache_bytes_per_token,
        "max_model_len": max_model_len,
    }
    gpus = gpu_count(node, **sizes)  # type: ignore[arg-type]
    if gpus is None:
        return Estimate(None, None, 1, node.gpu_count, 1)
    nodes = math.ceil(gpus / node.gpu_count)
    if nodes == 1 and fits_single_gpu(node, model_file_bytes=model_file_bytes):
        return Estimate(1, gpus, node.gpu_count, 1, 1)
    return Estimate(nodes, gpus, 1, node.gpu_count, nodes)


def kv_cache_bytes_per_token(shape: Shape) -> int:
    """KAITO's bytesPerToken: every layer as the first that attends, two bytes an element."""
    mixers = [layer.mixer for layer in shape.layers]
    for mixer in mixers:
        if isinstance(mixer, LatentAttention):
            return 2 * len(mixers) * (mixer.kv_lora_rank + mixer.qk_rope_head_dim)
        if isinstance(mixer, Attention):
            return 2 * 2 * len(mixers) * mixer.num_key_value_heads * mixer.head_dim
    return 0


def startup_minutes(model_file_bytes: float | None) -> int:
    """The start-up limit: 15 minutes and 18 seconds a GiB, between 30 and 180 minutes; 30 without a size."""
    if model_file_bytes is None:
        return 30
    return int(min(180.0, max(30.0, 15 + model_file_bytes / GIB * 18 / 60)))


def gpu_memory_utilization(gpu: str | None) -> float:
    """What KAITO passes to vLLM on that GPU (as the node's label names it)."""
    return A10_UTILIZATION if gpu == "NVIDIA A10" else UTILIZATION

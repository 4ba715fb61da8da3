"""What vLLM measures and a plan can only calibrate: activation peak, CUDA graphs, non-torch memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from kaito_catalog.kv_cache import version_tuple
from kaito_catalog.quantity import GIB
from kaito_catalog.shape import (
    Attention,
    CompressedAttention,
    Experts,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    Mlp,
    Scheme,
    Shape,
)


@dataclass(frozen=True)
class Defaults:
    """What `vllm serve` takes on a device when nobody says."""

    max_num_batched_tokens: int
    max_num_seqs: int


LARGE_DEVICE_BYTES = 70 * GIB


def serve_defaults(gpu_name: str | None, memory_bytes: int) -> Defaults:
    """vLLM's EngineArgs.get_batch_defaults for the OpenAI server (0.10 to 0.32 alike).

    A device with at least 70 GiB that is not an A100 takes 8192 tokens and 1024 sequences, others 2048
    and 256.
    """
    if memory_bytes >= LARGE_DEVICE_BYTES and "a100" not in (gpu_name or "").lower():
        return Defaults(8192, 1024)
    return Defaults(2048, 256)


@dataclass(frozen=True)
class Overheads:
    """Bytes on one GPU beside parameters and KV cache."""

    non_torch_bytes: int
    activation_peak_bytes: int
    """The profile run's peak, and what torch keeps beside the parameters: rotary tables, MLA's copies."""
    cuda_graph_bytes: int
    """What vLLM sets aside for CUDA graphs before it sizes the cache (from 0.21 on, unless enforce_eager)."""


@lru_cache(maxsize=1)
def constants() -> Mapping[str, Any]:
    """The fitted constants of data/overheads.yaml, with their sources."""
    text = files("kaito_catalog").joinpath("data/overheads.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def _by_version(rows: list[dict[str, Any]], version: tuple[int, int, int], **match: object) -> float:
    for row in rows:
        if any(row.get(key) != value for key, value in match.items()):
            continue
        if "before" not in row or version < version_tuple(row["before"]):
            return float(row["value"])
    raise AssertionError("overheads.yaml ends each list with a row for all later versions")


def _layer_activations(layer: Layer, hidden: int, tp: int, expert_tp: int) -> float:
    """Widths per token of what a layer holds at once beside the hidden states."""
    widest = 0.0
    match layer.feed_forward:
        case Mlp() as mlp:
            widest = (3 if mlp.gated else 2) * mlp.intermediate_size / tp
        case Experts() as experts:
            width = experts.latent_size or hidden
            factor = 3 if experts.gated else 2
            widest = experts.num_experts_per_tok * (factor * experts.intermediate_size / expert_tp + width)
    match layer.mixer:
        case Attention() as a:
            query = a.num_attention_heads * a.head_dim * (2 if a.output_gate else 1)
            widest = max(widest, (2 * query + 2 * a.num_key_value_heads * a.head_dim) / tp)
        case LatentAttention() as m:
            heads = m.num_attention_heads / tp
            widest = max(widest, heads * (2 * (m.qk_nope_head_dim + m.qk_rope_head_dim) + 3 * m.v_head_dim))
        case CompressedAttention() as c:
            widest = max(widest, 3 * c.num_attention_heads / tp * c.head_dim)
        case GatedDeltaNet() as g:
            widest = max(
                widest, (4 * g.num_key_heads * g.key_head_dim + 4 * g.num_value_heads * g.value_head_dim) / tp
            )
        case Mamba2() as b:
            widest = max(widest, 4 * b.num_heads * b.head_dim / tp)
    return widest


@lru_cache(maxsize=1024)
def moe_workspace(shape: Shape, expert_tp: int) -> float:
    """Widths per token of the buffers that the fused experts keep: both products, the larger and the other.

    vLLM's WorkspaceManager never frees them, so that they are there while the sampler runs. The kernels for
    mxfp4 have none.
    """
    widest = 0.0
    for layer in set(shape.layers):
        block = layer.feed_forward
        how = shape.quantization.scheme if shape.quantization else None
        if isinstance(block, Experts) and Scheme.MXFP4_EXPERTS not in (block.scheme, how):
            width = block.intermediate_size / expert_tp
            first = max((2 if block.gated else 1) * width, block.latent_size or shape.hidden_size)
            widest = max(widest, block.num_experts_per_tok * (first + width))
    return widest


@lru_cache(maxsize=1024)
def _widest_layer(shape: Shape, tp: int, expert_tp: int) -> float:
    return max(
        (_layer_activations(x, shape.hidden_size, tp, expert_tp) for x in set(shape.layers)), default=0.0
    )


def activation_peak(
    shape: Shape,
    *,
    tensor_parallel_size: int,
    expert_tensor_parallel_size: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    is_last_stage: bool,
    vllm_version: str,
) -> int:
    """Torch's peak in the profile run: the larger of a layer's forward and the sampler over the logits.

    vLLM runs max_num_batched_tokens through the model, then samples min(tokens, max_num_seqs) rows
    of the whole vocabulary, which every rank holds, whatever the tensor parallelism.
    """
    known = constants()["activation"]
    version = version_tuple(vllm_version)
    size = shape.dtype_bytes
    hidden = max_num_batched_tokens * shape.hidden_size * size
    layer = (
        max_num_batched_tokens
        * size
        * _widest_layer(shape, tensor_parallel_size, expert_tensor_parallel_size)
    )
    peak = known["forwardHiddenStates"] * hidden + layer
    if is_last_stage:
        rows = min(max_num_batched_tokens, max_num_seqs)
        per_logit = size + _by_version(known["samplerBytesPerLogit"], version)
        kept = 0.0
        if version >= version_tuple(known["workspaceKeptFrom"]):
            kept = max_num_batched_tokens * size * moe_workspace(shape, expert_tensor_parallel_size)
        peak = max(peak, known["hiddenStates"] * hidden + kept + rows * shape.vocab_size * per_logit)
    if shape.tower is not None:
        peak += known["encoder"]
    return int(_by_version(known["fixed"], version) + peak)


def overheads(
    shape: Shape,
    *,
    tensor_parallel_size: int = 1,
    expert_tensor_parallel_size: int = 1,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    stage_layers: int,
    is_last_stage: bool = True,
    enforce_eager: bool = False,
    kept_bytes: int = 0,
    vllm_version: str,
) -> Overheads:
    """What lies beside parameters and KV cache on a GPU; `kept_bytes` is what loading adds."""
    version = version_tuple(vllm_version)
    known = constants()
    non_torch = _by_version(known["nonTorch"], version, tensorParallel=tensor_parallel_size > 1)
    peak = activation_peak(
        shape,
        tensor_parallel_size=tensor_parallel_size,
        expert_tensor_parallel_size=expert_tensor_parallel_size,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        is_last_stage=is_last_stage,
        vllm_version=vllm_version,
    )
    graphs = 0
    graph = known["cudaGraphs"]
    if not enforce_eager and version >= version_tuple(graph["reservedFrom"]):
        captured = min(2 * max_num_seqs, graph["fullCaptureSize"]) / graph["fullCaptureSize"]
        graphs = int((graph["fixed"] + graph["perLayer"] * stage_layers) * max(captured, 0.25))
    return Overheads(int(non_torch), peak + shape.rope_elements * shape.dtype_bytes + kept_bytes, graphs)


def repacked_bytes(mxfp4_bytes: int) -> int:
    """What loading adds to mxfp4 experts on Hopper."""
    return int(constants()["loading"]["mxfp4OnHopper"] * mxfp4_bytes)


def expected_error(
    *, gpu_name: str | None, memory_bytes: int, vllm_version: str, tensor_parallel_size: int, has_tower: bool
) -> int:
    """Bytes by which the available KV memory may be off: more where nobody measured that GPU or version."""
    known = constants()["expectedError"]
    version = version_tuple(vllm_version)
    seen = known["versions"]
    share, size = float(known["measured"]), 0
    if gpu_name is None or not any(name.lower() in gpu_name.lower() for name in known["gpus"]):
        size += known["otherGpuBytes"]
    if not version_tuple(seen["from"]) <= version < version_tuple(seen["before"]):
        share += known["otherVersion"]
        if tensor_parallel_size > 1:
            share += known["tensorParallelOtherVersion"]
            if version >= version_tuple(known["snapshotMoved"]):
                share += known["tensorParallelSnapshotMoved"]
    if has_tower:
        share += known["encoder"]
    return int(share * memory_bytes) + int(size)


def dense_constants(vllm_version: str) -> dict[str, Any]:
    """The constants that the plan of a dense model without a tower takes for that version, by name."""
    known, version = constants(), version_tuple(vllm_version)
    activation, graphs = known["activation"], known["cudaGraphs"]
    reserved = version >= version_tuple(graphs["reservedFrom"])
    return {
        "activationFixed": _by_version(activation["fixed"], version),
        "samplerBytesPerLogit": _by_version(activation["samplerBytesPerLogit"], version),
        "hiddenStates": activation["hiddenStates"],
        "forwardHiddenStates": activation["forwardHiddenStates"],
        "nonTorch": [
            int(_by_version(known["nonTorch"], version, tensorParallel=several)) for several in (False, True)
        ],
        "cudaGraphs": {
            "fixed": graphs["fixed"] if reserved else 0,
            "perLayer": graphs["perLayer"] if reserved else 0,
            "fullCaptureSize": graphs["fullCaptureSize"],
        },
    }

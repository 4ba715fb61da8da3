"""What lies beside parameters and KV cache on a GPU, all together, and how far a plan of it may be off."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import Experts, Scheme
from kaito_catalog.architectures.as_built import HOPPER, version_tuple
from kaito_catalog.memory.compilation import captured_graphs
from kaito_catalog.memory.overheads.activations import FP32_BYTES, activation_peak, spared_workspace
from kaito_catalog.memory.overheads.communication import communication_bytes, fusion_workspace
from kaito_catalog.memory.overheads.compiled_copy import is_copy_pinned, pinned_bytes
from kaito_catalog.memory.overheads.compressed_attention import compressed_attention
from kaito_catalog.memory.overheads.constants import constants
from kaito_catalog.memory.overheads.encoder_profile import encoder_profile
from kaito_catalog.memory.overheads.layer_widths import indexer_workspace
from kaito_catalog.memory.overheads.links import BLACKWELL
from kaito_catalog.memory.overheads.model_runner import MOST_GRAPHS, profiles_everything
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.versions import (
    COPY_PINNED,
    COPY_RELEASED,
    FITTED,
    FITTED_BEFORE,
    GRAPHS_ESTIMATED,
    GRAPHS_RESERVED,
    SNAPSHOT_MOVED,
    Version,
    fitted,
)


@dataclass(frozen=True)
class Overheads:
    """Bytes on one GPU beside parameters and KV cache."""

    non_torch_bytes: int
    activation_peak_bytes: int
    """The profile run's peak, and what torch keeps beside the parameters: rotary tables, MLA's copies."""
    cuda_graph_bytes: int
    """What vLLM sets aside for CUDA graphs before it sizes the cache (from 0.20 on, unless enforce_eager)."""


def stage_overheads(
    run: ProfileRun, *, stage_layers: int, kept_bytes: int = 0, weights_bytes: int | None = None
) -> Overheads:
    """What lies beside parameters and KV cache on a GPU; `kept_bytes` is what loading adds to `weights_bytes`."""
    shape = run.shape
    peak = activation_peak(run) + shape.rope_elements * shape.dtype_bytes + kept_bytes
    non_torch = _non_torch(run) + pinned_encoder(run, weights_bytes)
    return Overheads(int(non_torch), peak, _cuda_graphs(run, stage_layers))


def _non_torch(run: ProfileRun) -> float:
    """Non-torch memory; less where no graph was captured while vLLM measured it."""
    version, known = version_tuple(run.vllm_version), constants()
    size = fitted(known["nonTorch" if _has_graphs(run) else "nonTorchWithoutGraphs"], version)
    if spared_workspace(run.compute_capability):
        size -= known["beforeHopper"]["nonTorchBytes"]
    if run.is_unified:
        size += _taken_by_processes(run)
    return size + communication_bytes(run) + fusion_workspace(run) + _pinned(run)


def _taken_by_processes(run: ProfileRun) -> float:
    """What processes on the CPU take of a memory that is the GPU's too, with their copies of what is profiled."""
    known = constants()["unified"]
    profile = encoder_profile(run) if profiles_everything(run.shape, run.vllm_version, run.drafting) else None
    copies = known["inputCopies"] * FP32_BYTES * profile.input_elements if profile is not None else 0
    return float(known["processesBytes"] + copies)


def _pinned(run: ProfileRun) -> int:
    """The freed copy of the embedding, where it still counts."""
    if not run.compiles or not run.is_first_stage:
        return 0
    pinned = pinned_bytes(run.shape, run.tensor_parallel_size, run.vllm_version)
    if pinned and is_copy_pinned(run.shape, run.tensor_parallel_size, run.max_num_batched_tokens):
        return pinned
    return 0


def pinned_encoder(run: ProfileRun, weights_bytes: int | None) -> int:
    """Blocks of an encoder's profile that count although they are free, where the decoder is too small to fill them.

    From 0.27 to 0.31 what is gone counts (COPY_PINNED). Qwen3.5-0.8B, whose parameters are hardly more than its
    encoder's peak, had 2.1 GiB more gone than was allocated in both of its starts (0.28.0, A100 80GB), and Qwen3.8-27B
    on the same machine nothing. As much is in the expected error again.
    """
    if weights_bytes is None or not COPY_PINNED <= version_tuple(run.vllm_version) < COPY_RELEASED:
        return 0
    if run.shape.encoder is None or not run.is_first_stage:
        return 0
    profiled = profiles_everything(run.shape, run.vllm_version, run.drafting)
    profile = encoder_profile(run) if profiled else None
    is_large = profile is not None and 2 * profile.peak_bytes > weights_bytes
    return profile.peak_bytes if profile is not None and is_large else 0


def _has_graphs(run: ProfileRun) -> bool:
    return run.captures and profiles_everything(run.shape, run.vllm_version, run.drafting)


def _sets_graphs_aside(run: ProfileRun) -> bool:
    """Whether the estimate is taken from the cache (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS)."""
    version, asked = version_tuple(run.vllm_version), run.environment.estimates_cuda_graphs
    return version >= GRAPHS_ESTIMATED if asked else version >= GRAPHS_RESERVED and asked is None


def _cuda_graphs(run: ProfileRun, stage_layers: int) -> int:
    if not _has_graphs(run) or not _sets_graphs_aside(run):
        return 0
    known = constants()["cudaGraphs"]
    is_measured = run.compute_capability is None or int(run.compute_capability) in (HOPPER, BLACKWELL)
    graph = known["hopper" if is_measured else "elsewhere"]
    per_layer = graph["perLayer"]
    if compressed_attention(run.shape) is not None:
        per_layer = known["perCompressedLayer"]
    elif indexer_workspace(run.shape, 1):
        per_layer = known["perSparseLayer"]
    guessed = run.drafting.num_speculative_tokens if run.drafting is not None else 0
    graphs = captured_graphs(run.max_num_seqs, run.max_num_batched_tokens, run.compilation, guessed)
    if run.drafting is not None and run.is_last_stage:
        stage_layers += run.drafting.layers
    loaded = known["fp4Kernels"] if graphs and _loads_fp4_kernels(run) else 0
    return int((graph["fixed"] + per_layer * stage_layers) * graphs / MOST_GRAPHS + loaded)


def _loads_fp4_kernels(run: ProfileRun) -> bool:
    quantization = run.shape.quantization
    schemes = {quantization.scheme} if quantization else set()
    experts = {x.feed_forward.scheme for x in run.shape.layers if isinstance(x.feed_forward, Experts)}
    return Scheme.NVFP4 in schemes | experts


def repacked_bytes(mxfp4_bytes: int) -> int:
    """What loading adds to gpt-oss's experts on Hopper."""
    return int(constants()["loading"]["mxfp4OnHopper"] * mxfp4_bytes)


def expected_error(
    *,
    gpu_name: str | None,
    memory_bytes: int,
    vllm_version: str,
    tensor_parallel_size: int,
    has_encoder: bool,
    guesses: bool = False,
    is_unified: bool = False,
) -> int:
    """Bytes by which the available KV memory may be off: more where no start on that GPU or version was measured."""
    known = constants()["expectedError"]
    version: Version = version_tuple(vllm_version)
    share, size = float(known["measured"]), 0
    if gpu_name is None or not any(name.lower() in gpu_name.lower() for name in known["gpus"]):
        size += known["otherGpuBytes"]
    if not FITTED <= version < FITTED_BEFORE:
        share += known["otherVersion"]
        if tensor_parallel_size > 1:
            share += known["tensorParallelOtherVersion"]
            if version >= SNAPSHOT_MOVED:
                share += known["tensorParallelSnapshotMoved"]
    if has_encoder:
        share += known["encoder"]
    if guesses:
        share += known["speculation"]
    if is_unified:
        share += known["unified"]
    return int(share * memory_bytes) + int(size)

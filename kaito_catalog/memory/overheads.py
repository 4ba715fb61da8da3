"""What vLLM measures and a plan can only calibrate: activation peak, CUDA graphs, non-torch memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kaito_catalog.architectures import (
    Attention,
    CompressedAttention,
    Experts,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    Mlp,
    Recurrent,
    Scheme,
    Shape,
    ShortConv,
)
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.shape import Medium
from kaito_catalog.memory.constants import constants
from kaito_catalog.memory.kv_cache.kinds import INDEXER_SCALE_BLOCK
from kaito_catalog.quantity import GIB


@dataclass(frozen=True)
class Defaults:
    """What `vllm serve` takes on a device when nobody says."""

    max_num_batched_tokens: int
    max_num_seqs: int


LARGE_DEVICE_BYTES = 70 * GIB


HUGE_DEVICE_BYTES = 160 * GIB
HUGE_DEVICES_FROM = (0, 32, 0)
"""The version in whose code it was read; 0.25.1 does not have it."""


def serve_defaults(gpu_name: str | None, memory_bytes: int, vllm_version: str | None = None) -> Defaults:
    """vLLM's EngineArgs.get_batch_defaults for the OpenAI server.

    A device with at least 70 GiB that is not an A100 takes 8192 tokens and 1024 sequences, others 2048
    and 256; newer versions take 16384 tokens from 160 GiB on.
    """
    is_later = vllm_version is not None and version_tuple(vllm_version) >= HUGE_DEVICES_FROM
    if is_later and memory_bytes >= HUGE_DEVICE_BYTES:
        return Defaults(16384, 1024)
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
    """What vLLM sets aside for CUDA graphs before it sizes the cache (from 0.20 on, unless enforce_eager)."""


def _by_version(rows: list[dict[str, Any]], version: tuple[int, int, int], **match: object) -> float:
    for row in rows:
        if any(row.get(key) != value for key, value in match.items()):
            continue
        if "before" not in row or version < version_tuple(row["before"]):
            return float(row["value"])
    raise AssertionError("overheads.yaml ends each list with a row for all later versions")


LARGEST_CAPTURE = 512
"""Sequences of the largest CUDA graph, where max_num_seqs allows it."""


def runs_second_runner(shape: Shape, vllm_version: str) -> bool:
    """Whether vLLM takes its second model runner for the model (VllmConfig.use_v2_model_runner)."""
    version, known = version_tuple(vllm_version), constants()["secondRunner"]
    if version >= version_tuple(known["allFrom"]):
        return True
    if version >= version_tuple(known["denseFrom"]):
        return shape.architecture in known["expertArchitectures"] or not any(
            isinstance(x.feed_forward, Experts) or any(isinstance(m, Recurrent) for m in x.mixers)
            for x in shape.layers
        )
    is_named = version >= version_tuple(known["someFrom"]) and shape.architecture in known["architectures"]
    return is_named and shape.quantization is None


def profiles_everything(shape: Shape, vllm_version: str) -> bool:
    """Whether the profile run captures graphs and runs the encoder: the second runner did neither at first."""
    later = version_tuple(constants()["secondRunner"]["profilesFrom"])
    return version_tuple(vllm_version) >= later or not runs_second_runner(shape, vllm_version)


def captured_graphs(max_num_seqs: int, max_num_batched_tokens: int) -> int:
    """How many CUDA graphs vLLM captures: one a size for mixed batches, one a size for decoding alone.

    The sizes are 1, 2, 4, then by 8 below 256 and by 16 from there to min(2 × max_num_seqs, 512); batches
    of decoding requests alone are at most max_num_seqs (VllmConfig._set_cudagraph_sizes).
    """
    largest: int = min(2 * max_num_seqs, LARGEST_CAPTURE, max_num_batched_tokens)
    sizes = [s for s in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if s <= largest]
    return len(sizes) + len([s for s in sizes if s <= max_num_seqs])


MOST_GRAPHS: int = captured_graphs(1024, 8192)


def compiled_copy(shape: Shape, tensor_parallel_size: int, vllm_version: str) -> int:
    """The embedding that torch.compile tries fused kernels on, in bytes; a start that finds compiled graphs saves it.

    Inductor's benchmark_combo_kernel makes up each input of the kernels that it compares, and where a model
    looks its tokens up inside the compiled graph (not where an encoder brings embeddings) the table is one of them.
    """
    known = constants()["activation"]
    if shape.encoder is not None or version_tuple(vllm_version) < version_tuple(known["compiledCopyFrom"]):
        return 0
    return int(shape.vocab_size * shape.hidden_size * shape.dtype_bytes) // tensor_parallel_size


def prefill_context(shape: Shape, tensor_parallel_size: int) -> int:
    """Bytes of keys and values that dense MLA makes of the latents of earlier chunks: MLA_CONTEXT_TOKENS of them.

    The profile run allocates them as they would be at worst (vLLM's mla_attention.py,
    determine_chunked_prefill_workspace_size; contexts below 8192 tokens with few sequences take less).
    """
    widest = 0
    for layer in set(shape.layers):
        m = layer.mixer
        if isinstance(m, LatentAttention) and not m.sparse:
            widest = max(widest, m.num_attention_heads * (m.qk_nope_head_dim + m.v_head_dim))
    return MLA_CONTEXT_TOKENS * widest // tensor_parallel_size * shape.dtype_bytes


MLA_CONTEXT_TOKENS = 65536


def pinned_bytes(shape: Shape, tensor_parallel_size: int, vllm_version: str) -> int:
    """How much of that copy may count a second time: freed, but in a block that the allocator cannot give back.

    Where `is_copy_pinned` it is planned, for all it is in the plan's expected error.
    """
    if not _is_pinned(version_tuple(vllm_version)):
        return 0
    return compiled_copy(shape, tensor_parallel_size, vllm_version)


_REPACKED = (Scheme.AWQ, Scheme.GPTQ, Scheme.GROUPED_INT)


def is_copy_pinned(shape: Shape, tensor_parallel_size: int, max_num_batched_tokens: int) -> bool:
    """Whether to plan for a copy that counts twice: for dense models, repacked or with large batches.

    Repacked are weights that Marlin has in an order of its own. A batch is large where what a layer holds of it
    takes half as much as the copy: the allocator takes the smallest free block that is large enough, and then
    cuts up the copy's. (Both are how published starts differ; see data/overheads.yaml.)
    """
    if any(isinstance(layer.feed_forward, Experts) for layer in shape.layers):
        return False
    how = shape.quantization
    if how is not None and how.scheme in _REPACKED:
        return True
    widest = max_num_batched_tokens * _widest_layer(shape, tensor_parallel_size, tensor_parallel_size)
    copy = shape.vocab_size * shape.hidden_size / tensor_parallel_size
    return 2 * widest >= copy


def _is_pinned(version: tuple[int, int, int]) -> bool:
    known = constants()["activation"]["compiledCopyPinned"]
    return version_tuple(known["from"]) <= version < version_tuple(known["before"])


@dataclass(frozen=True)
class EncoderProfile:
    """What the profile run of an encoder takes, in bytes."""

    peak_bytes: int
    """While it runs."""
    kept_bytes: int
    """While the decoder is profiled after it: the items themselves, and what became of them."""


def encoder_profile(
    shape: Shape,
    *,
    tensor_parallel_size: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    max_model_len: int,
    vllm_version: str,
    memory_bytes: int | None = None,
) -> EncoderProfile | None:
    """vLLM's profile run of an encoder over as many of the largest items as its budget of tokens holds.

    The budget is the larger of a batch and one item (vLLM's MultiModalBudget), whatever the context. A layer holds
    four hidden states of each patch and its feed-forward block, beside the patches themselves: so do the
    allocations of vLLM's own classes, counted on the meta device. None: nobody here knows what is profiled.

    Args:
        shape: the model.
        tensor_parallel_size: divides the feed-forward block of most encoders.
        max_num_batched_tokens: a batch.
        max_num_seqs: requests in it.
        max_model_len: a video has as many images as fit.
        vllm_version: such as 0.25.1.
        memory_bytes: of the GPU, for encoders that take a video in pieces; None: all at once.
    """
    known = constants()["activation"]
    medium = shape.encoder.medium if shape.encoder is not None else None
    if shape.encoder is None or medium is None:
        return None
    items = _items(medium, max_num_batched_tokens, max_num_seqs, max_model_len)
    patches = at_once = items * medium.patches
    frames = frames_profiled(
        shape,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        vllm_version=vllm_version,
    )
    if frames is not None and memory_bytes is not None:
        at_once = medium.piece * frames.at_once(memory_bytes)
    wide = medium.wide / (tensor_parallel_size if shape.encoder.divided else 1)
    in_place = medium.fuses_norms and version_tuple(vllm_version) < version_tuple(known["nativeNormsFrom"])
    states = known["forwardHiddenStates"] - (2 if in_place else 0)
    of_a_layer = states * medium.hidden_size + wide
    output = items * medium.tokens * shape.hidden_size
    # Where pieces follow each other, the results of those before wait for the last.
    done = (patches - at_once) * medium.hidden_size
    inputs = patches * medium.pixels
    peak = inputs + at_once * of_a_layer + done + (medium.outputs - 1) * output
    return EncoderProfile(
        int(peak * shape.dtype_bytes), (inputs + medium.outputs * output) * shape.dtype_bytes
    )


def video_contexts(shape: Shape, vllm_version: str) -> tuple[int, ...]:
    """The contexts, in tokens, from which on the encoder is profiled with a longer video; none where it is not."""
    medium = shape.encoder.medium if shape.encoder is not None else None
    if medium is None or not profiles_everything(shape, vllm_version):
        return ()
    lengths = (medium.tokens * images for images in range(2, medium.most_images + 1))
    return tuple(length for length in lengths if length <= shape.max_model_len)


@dataclass(frozen=True)
class Frames:
    """What an encoder that takes a video in pieces is profiled with."""

    count: int
    """All that a batch holds."""
    reckoned_bytes: int
    """What vLLM reckons a frame to take, of a tenth of the GPU."""
    peak_bytes: int
    """What one frame more at once adds to the peak."""

    def at_once(self, memory_bytes: int) -> int:
        """How many vLLM takes at once on a GPU with so much memory."""
        return min(self.count, max(1, memory_bytes // 10 // self.reckoned_bytes))


def frames_profiled(
    shape: Shape, *, max_num_batched_tokens: int, max_num_seqs: int, max_model_len: int, vllm_version: str
) -> Frames | None:
    """The frames of the profile run; None where there are none, or where all are taken at once."""
    known = constants()["activation"]
    medium = shape.encoder.medium if shape.encoder is not None else None
    in_pieces = version_tuple(vllm_version) >= version_tuple(known["encoderPiecesFrom"])
    if medium is None or not medium.piece or not in_pieces or not profiles_everything(shape, vllm_version):
        return None
    items = _items(medium, max_num_batched_tokens, max_num_seqs, max_model_len)
    # The result of a frame waits for the last, whether it was taken with that or before.
    of_a_layer = (known["forwardHiddenStates"] - 1) * medium.hidden_size + medium.wide
    each = int(medium.piece * of_a_layer * shape.dtype_bytes)
    return Frames(items * medium.patches // medium.piece, medium.piece_bytes, each)


def _items(medium: Medium, max_num_batched_tokens: int, max_num_seqs: int, max_model_len: int) -> int:
    """Images that are profiled: of as many items as fit the batch, at least one."""
    of_one = max(1, medium.tokens)
    images = max(1, min(medium.most_images, max_model_len // of_one))
    tokens = of_one * images
    return images * min(
        max(1, max_num_batched_tokens // tokens), max(1, max_num_seqs * max(1, max_model_len // tokens))
    )


def _mixer_activations(mixer: Mixer, tp: int) -> float:
    match mixer:
        case Attention() as a:
            query = a.num_attention_heads * a.head_dim * (2 if a.output_gate else 1)
            return (2 * query + 2 * a.num_key_value_heads * a.head_dim) / (1 if a.replicated else tp)
        case LatentAttention() as m:
            heads = m.num_attention_heads / tp
            return heads * (2 * (m.qk_nope_head_dim + m.qk_rope_head_dim) + 3 * m.v_head_dim)
        case CompressedAttention() as c:
            return 3 * c.num_attention_heads / tp * c.head_dim
        case GatedDeltaNet() as g:
            return (4 * g.num_key_heads * g.key_head_dim + 4 * g.num_value_heads * g.value_head_dim) / tp
        case LightningAttention() as g:
            return 5 * g.num_heads * g.head_dim / tp
        case KimiDelta() as k:
            return 8 * k.num_heads * k.head_dim / tp
        case Mamba2() as b:
            return 4 * b.num_heads * b.head_dim / tp
        case Mamba1() as b:
            return 4 * b.intermediate_size / tp
        case ShortConv() as c:
            return 4 * c.width / tp


def _layer_activations(layer: Layer, hidden: int, tp: int, expert_tp: int) -> float:
    """Widths per token of what a layer holds at once beside the hidden states."""
    widest = 0.0
    match layer.feed_forward:
        case Mlp() as mlp:
            widest = (3 if mlp.gated else 2) * mlp.intermediate_size / (1 if mlp.replicated else tp)
        case Experts() as experts:
            width = experts.latent_size or hidden
            factor = 3 if experts.gated else 2
            widest = experts.num_experts_per_tok * (factor * experts.intermediate_size / expert_tp + width)
    for mixer in layer.mixers:
        widest = max(widest, _mixer_activations(mixer, tp))
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


def indexer_workspace(shape: Shape, max_model_len: int) -> int:
    """Bytes that a sparse indexer gathers its cache into: 40 contexts (vLLM's indexer.py), kept like the experts'.

    Each entry is one fp8 value a dimension and a scale for each INDEXER_SCALE_BLOCK of them.
    """
    widths = {
        x.mixer.indexer.head_dim
        for x in shape.layers
        if isinstance(x.mixer, LatentAttention) and x.mixer.indexer is not None
    }
    widest = max(widths, default=0)
    return INDEXER_CONTEXTS * max_model_len * (widest + widest // INDEXER_SCALE_BLOCK * 4)


INDEXER_CONTEXTS = 40
INDEXER_LOGITS_BYTES = 512 * 2**20
"""VLLM_SPARSE_INDEXER_MAX_LOGITS_MB, allocated while a layer is profiled."""


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
    max_model_len: int,
    is_first_stage: bool,
    is_last_stage: bool,
    enforce_eager: bool,
    vllm_version: str,
    memory_bytes: int | None = None,
    compute_capability: float | None = None,
) -> int:
    """Torch's peak in the profile run: the larger of a layer's forward and the sampler over the logits.

    vLLM runs max_num_batched_tokens through the model, then samples min(tokens, max_num_seqs) rows
    of the whole vocabulary, which every rank holds, whatever the tensor parallelism. A vision encoder runs
    before, on its own, and torch.compile has its own peak when it compiles for the first time.
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
    # One workspace serves the experts and the indexer, and outlives the forward.
    index = indexer_workspace(shape, max_model_len)
    logits = INDEXER_LOGITS_BYTES if index else 0
    context = prefill_context(shape, tensor_parallel_size)
    peak = known["forwardHiddenStates"] * hidden + max(layer, index + logits, context)
    if is_last_stage and not shape.pools:
        rows = min(max_num_batched_tokens, max_num_seqs)
        per_logit = size + _by_version(known["samplerBytesPerLogit"], version)
        if runs_second_runner(shape, vllm_version):
            per_logit = size + known["secondRunnerBytesPerLogit"]
        kept = 0.0
        if version >= version_tuple(known["workspaceKeptFrom"]):
            experts = max_num_batched_tokens * size * moe_workspace(shape, expert_tensor_parallel_size)
            kept = max(experts, index)
        peak = max(peak, known["hiddenStates"] * hidden + kept + rows * shape.vocab_size * per_logit)
    if is_first_stage and not enforce_eager:
        peak = max(peak, compiled_copy(shape, tensor_parallel_size, vllm_version))
    if shape.encoder is not None and profiles_everything(shape, vllm_version):
        encoder = encoder_profile(
            shape,
            tensor_parallel_size=tensor_parallel_size,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vllm_version=vllm_version,
            memory_bytes=memory_bytes,
        )
        if encoder is None:
            peak += known["encoder"]
        else:
            peak = max(peak + encoder.kept_bytes, encoder.peak_bytes)
    return int(_by_version(known["fixed"], version) - spared_workspace(compute_capability) + peak)


def spared_workspace(compute_capability: float | None) -> int:
    """By how much torch's workspaces for cuBLAS are smaller than on Hopper, where everything was fitted; in bytes."""
    if compute_capability is None or int(compute_capability) >= HOPPER:
        return 0
    return int(constants()["beforeHopper"]["workspaceBytes"])


HOPPER = 9
"""Major compute capability of H100 and H200."""


def activation_growth(
    shape: Shape,
    *,
    tensor_parallel_size: int,
    expert_tensor_parallel_size: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    max_model_len: int,
    is_first_stage: bool,
    is_last_stage: bool,
    enforce_eager: bool,
    vllm_version: str,
    memory_bytes: int | None = None,
) -> Callable[[int], int] | None:
    """Bytes by which the peak at another context exceeds that at `max_model_len`.

    None where the context makes no difference: a sparse indexer's workspace grows with it, and a video that an
    encoder is profiled with.
    """
    if not indexer_workspace(shape, 1) and not video_contexts(shape, vllm_version):
        return None

    def peak(tokens: int) -> int:
        return activation_peak(
            shape,
            tensor_parallel_size=tensor_parallel_size,
            expert_tensor_parallel_size=expert_tensor_parallel_size,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
            max_model_len=tokens,
            is_first_stage=is_first_stage,
            is_last_stage=is_last_stage,
            enforce_eager=enforce_eager,
            vllm_version=vllm_version,
            memory_bytes=memory_bytes,
        )

    here = peak(max_model_len)
    return lambda tokens: peak(tokens) - here


def overheads(
    shape: Shape,
    *,
    tensor_parallel_size: int = 1,
    expert_tensor_parallel_size: int = 1,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    max_model_len: int,
    stage_layers: int,
    is_first_stage: bool = True,
    is_last_stage: bool = True,
    enforce_eager: bool = False,
    kept_bytes: int = 0,
    vllm_version: str,
    memory_bytes: int | None = None,
    compute_capability: float | None = None,
) -> Overheads:
    """What lies beside parameters and KV cache on a GPU; `kept_bytes` is what loading adds."""
    version = version_tuple(vllm_version)
    known = constants()
    has_graphs = not enforce_eager and profiles_everything(shape, vllm_version)
    spared = spared_workspace(compute_capability)
    non_torch = _non_torch(version, tensor_parallel_size > 1, has_graphs)
    if spared and tensor_parallel_size == 1:
        non_torch -= known["beforeHopper"]["nonTorchBytes"]
    peak = activation_peak(
        shape,
        tensor_parallel_size=tensor_parallel_size,
        expert_tensor_parallel_size=expert_tensor_parallel_size,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        is_first_stage=is_first_stage,
        is_last_stage=is_last_stage,
        enforce_eager=enforce_eager,
        vllm_version=vllm_version,
        memory_bytes=memory_bytes,
        compute_capability=compute_capability,
    )
    graphs = 0
    graph = known["cudaGraphs"]
    if has_graphs and version >= version_tuple(graph["reservedFrom"]):
        share = captured_graphs(max_num_seqs, max_num_batched_tokens) / MOST_GRAPHS
        per_layer = graph["perSparseLayer" if indexer_workspace(shape, 1) else "perLayer"]
        graphs = int((graph["fixed"] - spared + per_layer * stage_layers) * share)
    pinned = 0 if enforce_eager else pinned_bytes(shape, tensor_parallel_size, vllm_version)
    if is_first_stage and pinned and is_copy_pinned(shape, tensor_parallel_size, max_num_batched_tokens):
        non_torch += pinned
    return Overheads(int(non_torch), peak + shape.rope_elements * shape.dtype_bytes + kept_bytes, graphs)


def _non_torch(version: tuple[int, int, int], is_parallel: bool, has_graphs: bool) -> float:
    """Non-torch memory; on one GPU less where no graph was captured while vLLM measured it."""
    if not is_parallel and not has_graphs:
        rows = constants()["nonTorchWithoutGraphs"]
        return _by_version(rows, version)
    return _by_version(constants()["nonTorch"], version, tensorParallel=is_parallel)


def repacked_bytes(mxfp4_bytes: int) -> int:
    """What loading adds to mxfp4 experts on Hopper."""
    return int(constants()["loading"]["mxfp4OnHopper"] * mxfp4_bytes)


def expected_error(
    *,
    gpu_name: str | None,
    memory_bytes: int,
    vllm_version: str,
    tensor_parallel_size: int,
    has_encoder: bool,
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
    if has_encoder:
        share += known["encoder"]
    return int(share * memory_bytes) + int(size)

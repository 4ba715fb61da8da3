"""Bytes of the parameters on each GPU, from the shape alone, as vLLM's own modules allocate them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from math import gcd
from typing import assert_never

from kaito_catalog.architectures import (
    Attention,
    CompressedAttention,
    Encoder,
    Experts,
    FeedForward,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mlp,
    Place,
    Quantization,
    Scheme,
    Shape,
    ShortConv,
)

VOCABULARY_PADDING = 64  # vLLM's VocabParallelEmbedding pads to this before it divides.
ROWS_OF_KERNELS = 16  # What Kimi K3 pads the rows of its widest matrix to on each rank.
MXFP_BLOCK = 32  # Elements that share one scale byte.
SMALLEST_BLOCK = 32  # Of those that vLLM makes of fp8 blocks which do not divide the experts of a rank.


@dataclass(frozen=True)
class Split:
    """How the weights are divided: ranks of tensor parallelism, and how the experts are."""

    tensor_parallel_size: int = 1
    expert_tensor_parallel_size: int = 1
    """Ranks that each expert is cut over: TP × DP, or 1 with expert parallelism."""
    expert_parallel_size: int = 1
    """Ranks that the experts are dealt out to: 1, or TP × DP with expert parallelism."""
    mxfp4_alignment: tuple[int, int] = (MXFP_BLOCK, 64)
    """What hidden and expert widths are rounded up to under mxfp4: the kernel's wish."""


def split(
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
    alignment = mxfp4_alignment(compute_capability)
    if enable_expert_parallel:
        return Split(tensor_parallel_size, 1, ranks, alignment)
    return Split(tensor_parallel_size, ranks, 1, alignment)


def mxfp4_alignment(compute_capability: float | None) -> tuple[int, int]:
    """vLLM 0.25.1's mxfp4_round_up_hidden_size_and_intermediate_size for the kernel it picks on that GPU.

    Triton on Hopper, TensorRT-LLM's on Blackwell of the data centre, Marlin elsewhere.
    """
    if compute_capability is None or 9 <= compute_capability < 10:
        return MXFP_BLOCK, 64
    return (256, 256) if 10 <= compute_capability < 11 else (256, 128)


@dataclass(frozen=True)
class Linear:
    """A matrix on one rank; `outputs` are the widths of its fused parts."""

    name: str
    inputs: int
    outputs: tuple[int, ...]
    bias: bool = False
    quantized: bool = True
    """False for modules that vLLM builds without a quantisation, whatever the configuration says."""
    replicated_by: tuple[str, ...] = ()
    """Methods of quantisation under which every rank has the whole matrix."""


@dataclass(frozen=True)
class ExpertMatrices:
    """The experts of one layer on one rank."""

    name: str
    count: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    bias: bool
    scheme: Scheme | None = None
    """Where it differs from the rest of the model."""


@dataclass(frozen=True)
class Plain:
    """Parameters that no quantisation touches: norms, scales; 0 bytes each stands for the model's dtype."""

    elements: int
    element_bytes: int = 0


Part = Linear | ExpertMatrices | Plain


class _UncomputableError(Exception):
    pass


class _IllegalError(_UncomputableError):
    pass


@dataclass(frozen=True)
class Uncomputable:
    """Why the configuration alone does not give the bytes."""

    reason: str
    illegal: bool = False
    """vLLM itself would refuse to divide the model like this."""


def ceil_div(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def _divide(size: int, ranks: int, what: str) -> int:
    if size % ranks:
        raise _IllegalError(f"{what} ({size:,}) cannot be divided by {ranks}")
    return size // ranks


def padded_vocabulary(shape: Shape) -> int:
    """Rows of the embedding before it is divided."""
    return ceil_div(shape.vocab_size, VOCABULARY_PADDING) * VOCABULARY_PADDING


def _mixer_parts(mixer: object, hidden: int, by: Split) -> Iterator[Part]:
    tp = by.tensor_parallel_size
    match mixer:
        case None:
            return
        case Attention() if mixer.latent is not None:
            yield from _mixer_parts(mixer.latent, hidden, by)
        case Attention() if mixer.query_rank:
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            keys = mixer.num_key_value_heads * mixer.head_dim
            yield Linear("self_attn.qkv_proj", hidden, (mixer.query_rank, keys, keys))
            yield Plain(mixer.query_rank)
            yield Linear("self_attn.wq", mixer.query_rank, (heads * mixer.head_dim,))
            yield Linear("self_attn.o_proj", heads * mixer.head_dim, (hidden,))
        case Attention():
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            kv_heads = max(1, mixer.num_key_value_heads // tp)
            if mixer.replicated:
                heads, kv_heads = mixer.num_attention_heads, mixer.num_key_value_heads
            query = heads * mixer.head_dim * (2 if mixer.output_gate else 1)
            outputs: tuple[int, ...] = (query, kv_heads * mixer.head_dim, kv_heads * mixer.v_head_dim)
            if mixer.queries_only:
                outputs = (query,)
            if mixer.index_dim:
                outputs += (kv_heads * mixer.index_dim, mixer.index_dim)
            # vLLM builds K and V also where values are keys, and did where a layer reads another's cache (Gemma 4).
            name = "self_attn.q_proj" if mixer.queries_only else "self_attn.qkv_proj"
            yield Linear(name, hidden, outputs, mixer.qkv_bias)
            yield Linear("self_attn.o_proj", heads * mixer.v_head_dim, (hidden,), mixer.output_bias)
            yield Plain(
                mixer.head_norms * mixer.head_dim
                + heads * (mixer.sinks + mixer.head_elements)
                + 2 * mixer.index_dim
            )
            if mixer.head_gate:
                yield Linear("self_attn.g_proj", hidden, (heads,))
            if mixer.sink_tokens:
                width = mixer.head_dim + (mixer.v_head_dim if mixer.sink_values else 0)
                yield Plain(mixer.sink_tokens * kv_heads * width)
            if mixer.query_gate:
                yield Linear("gate_projection.gate_proj", mixer.head_dim, (heads,), bias=True)
            if mixer.flat_norms:
                yield Plain(heads * mixer.head_dim + kv_heads * mixer.head_dim)
        case LatentAttention():
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            latent = mixer.kv_lora_rank + mixer.qk_rope_head_dim
            query = heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
            gate = (heads * mixer.v_head_dim,) if mixer.output_gate else ()
            if mixer.q_lora_rank is not None:
                yield Linear("self_attn.fused_qkv_a_proj", hidden, (mixer.q_lora_rank, latent, *gate))
                yield Linear("self_attn.q_b_proj", mixer.q_lora_rank, (query,))
                yield Plain(mixer.q_lora_rank)
            else:
                yield Linear("self_attn.kv_a_proj_with_mqa", hidden, (latent,))
                yield Linear("self_attn.q_proj", hidden, (query,))
                if gate:
                    yield Linear("self_attn.g_proj", hidden, gate)
            yield Plain(mixer.kv_lora_rank)
            yield Linear(
                "self_attn.kv_b_proj",
                mixer.kv_lora_rank,
                (heads * (mixer.qk_nope_head_dim + mixer.v_head_dim),),
            )
            yield Linear("self_attn.o_proj", heads * mixer.v_head_dim, (hidden,))
            if mixer.indexer is not None:
                index = mixer.indexer
                yield Linear(
                    "self_attn.indexer.wq_b", mixer.q_lora_rank or hidden, (index.head_dim * index.num_heads,)
                )
                # vLLM fuses these two without a quantisation, and keeps the norm in fp32.
                yield Linear(
                    "self_attn.indexer.wk_weights_proj",
                    hidden,
                    (index.head_dim, index.num_heads),
                    quantized=False,
                )
                yield Plain(2 * index.head_dim, 4)
                if index.pool > 1:
                    yield Plain(index.pool * index.head_dim, 4)
                    yield Plain(index.head_dim * hidden)
        case CompressedAttention():
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            width = heads * mixer.head_dim
            out = _divide(mixer.o_groups, tp, "the number of output groups") * mixer.o_lora_rank
            yield Linear("self_attn.fused_wqa_wkv", hidden, (mixer.q_lora_rank, mixer.head_dim))
            yield Linear("self_attn.q_b_proj", mixer.q_lora_rank, (width,))
            yield Linear(
                "self_attn.wo_a", mixer.num_attention_heads * mixer.head_dim // mixer.o_groups, (out,)
            )
            yield Linear("self_attn.wo_b", out, (hidden,))
            yield Plain(mixer.q_lora_rank + mixer.head_dim)
            # One sink per head; vLLM pads the heads of a rank to 64.
            yield Plain(mixer.hyper_elements + max(heads, 64), 4)
            if mixer.compress_ratio:
                yield from _compressor_parts(mixer.compress_ratio, mixer.head_dim, hidden)
            if mixer.indexer is not None:
                index = mixer.indexer
                yield Linear("self_attn.indexer.wq_b", mixer.q_lora_rank, (index.head_dim * index.num_heads,))
                yield Plain(index.num_heads * hidden)
                yield from _compressor_parts(mixer.compress_ratio, index.head_dim, hidden)
        case GatedDeltaNet():
            keys = mixer.key_head_dim * _divide(
                mixer.num_key_heads, tp, "the number of linear-attention key heads"
            )
            value_heads = _divide(mixer.num_value_heads, tp, "the number of linear-attention value heads")
            values = mixer.value_head_dim * value_heads
            yield Linear("linear_attn.in_proj_qkvz", hidden, (keys, keys, values, values))
            # Marlin's kernels want 64 outputs a rank, which two separate gates would not have.
            whole = () if mixer.interleaved else ("awq", "gptq")
            gates = (value_heads, value_heads)
            if mixer.separate_gates:
                yield Linear("linear_attn.b_proj", hidden, (value_heads,))
                yield Linear("linear_attn.a_proj", hidden, (value_heads,))
            else:
                yield Linear("linear_attn.in_proj_ba", hidden, gates, replicated_by=whole)
            yield Linear("linear_attn.out_proj", values, (hidden,))
            yield Plain(mixer.conv_kernel * (2 * keys + values) + value_heads + mixer.value_head_dim)
            yield Plain(value_heads, mixer.decay_bytes)
        case Mamba2() if mixer.time_step_rank:
            heads = _divide(mixer.num_heads, tp, "the number of Mamba heads")
            inner, rank, state = heads * mixer.head_dim, mixer.time_step_rank, mixer.state_size
            yield Linear("mixer.in_proj", hidden, (inner, inner))
            yield Linear("mixer.bcdt_proj", inner, (rank + 2 * state,))
            yield Linear("mixer.dt_proj", rank, (heads,))
            yield Linear("mixer.out_proj", inner, (hidden,))
            yield Plain(mixer.conv_kernel * inner + 2 * heads + rank + 2 * state)
            yield Plain(heads, 4)
        case Mamba2():
            heads = _divide(mixer.num_heads, tp, "the number of Mamba heads")
            groups = mixer.num_groups
            if groups % tp and groups != 1:
                raise _IllegalError(f"{groups} Mamba groups can neither be divided by {tp} nor repeated")
            # vLLM repeats groups so that every rank has those its heads need.
            groups_per_rank = groups // tp if groups % tp == 0 else 1
            inner = heads * mixer.head_dim
            conv = inner + 2 * groups_per_rank * mixer.state_size
            state = groups_per_rank * mixer.state_size
            yield Linear("mixer.in_proj", hidden, (inner, inner, state, state, heads), mixer.bias)
            yield Linear("mixer.out_proj", inner, (hidden,), mixer.bias)
            norm = inner if mixer.normed else 0
            yield Plain(mixer.conv_kernel * conv + (conv if mixer.conv_bias else 0) + 2 * heads + norm)
            yield Plain(heads, 4)
        case KimiDelta():
            heads = _divide(mixer.num_heads, tp, "the number of linear-attention heads")
            width = heads * mixer.head_dim
            if mixer.full_gate:
                outputs = (*(width,) * 4, mixer.head_dim, heads)
                padding = -sum(outputs) % ROWS_OF_KERNELS
                yield Linear("self_attn.in_proj_qkvgfab", hidden, (*outputs, padding))
                yield Linear("self_attn.f_b_proj", mixer.head_dim, (width,))
            else:
                for name in ("q_proj", "k_proj", "v_proj"):
                    yield Linear(f"self_attn.{name}", hidden, (width,))
                # The decay and the gate of the output come from a bottleneck that every rank has.
                for name in ("f", "g"):
                    yield Linear(f"self_attn.{name}_a_proj", hidden, (mixer.head_dim,))
                    yield Linear(f"self_attn.{name}_b_proj", mixer.head_dim, (width,))
                yield Linear("self_attn.b_proj", hidden, (heads,))
            yield Linear("self_attn.o_proj", width, (hidden,))
            yield Plain(width + 3 * mixer.conv_kernel * width + heads, 4)
            yield Plain(mixer.head_dim)
        case LightningAttention():
            heads = _divide(mixer.num_heads, tp, "the number of linear-attention heads")
            _divide(mixer.norm_groups, tp, "the number of groups that are normalised")
            width = heads * mixer.head_dim
            yield Linear("self_attn.qkv_proj", hidden, (width,) * 3, mixer.qkv_bias)
            yield Linear("self_attn.g_proj", hidden, (width,))
            yield Linear("self_attn.o_proj", width, (hidden,), mixer.output_bias)
            yield Plain(mixer.head_norms * mixer.head_dim + width)
        case Mamba1():
            inner = _divide(mixer.intermediate_size, tp, "the width of the Mamba layers")
            selected = mixer.time_step_rank + 2 * mixer.state_size
            # vLLM quantises none of these.
            size = hidden * 2 * inner + (2 * inner if mixer.bias else 0)
            size += inner * (mixer.conv_kernel + (1 if mixer.conv_bias else 0))
            size += inner * selected + (mixer.time_step_rank + 1) * inner + inner
            size += inner * hidden + (hidden if mixer.bias else 0)
            yield Plain(size + (selected if mixer.normed else 0))
            yield Plain(inner * mixer.state_size, 4)
        case ShortConv():
            width = _divide(mixer.width, tp, "the width of the convolutions")
            yield Linear("conv.in_proj", hidden, (width,) * 3, mixer.bias)
            yield Linear("conv.out_proj", width, (hidden,), mixer.bias)
            yield Plain(width * (mixer.conv_kernel + (1 if mixer.bias else 0)))
        case _:
            raise AssertionError(mixer)


def _compressor_parts(ratio: int, head_dim: int, hidden: int) -> Iterator[Part]:
    """DeepSeek V4's compressor: windows of 4 tokens overlap, so that their projections are twice as wide."""
    width = head_dim * (2 if ratio == 4 else 1)
    yield Plain(ratio * width, 4)
    yield Plain(2 * width * hidden + head_dim)


def _mlp_parts(name: str, mlp: Mlp, hidden: int, tp: int) -> Iterator[Part]:
    width = (
        mlp.intermediate_size
        if mlp.replicated
        else _divide(mlp.intermediate_size, tp, "the intermediate size")
    )
    outputs = mlp.intermediate_size if mlp.input_replicated else width
    first = (outputs, outputs) if mlp.gated else (outputs,)
    yield Linear(f"{name}.gate_up_proj" if mlp.gated else f"{name}.up_proj", hidden, first, mlp.bias)
    yield Linear(f"{name}.down_proj", width, (hidden,), mlp.bias)


def _feed_forward_parts(block: FeedForward | None, hidden: int, by: Split) -> Iterator[Part]:
    match block:
        case None:
            return
        case Mlp():
            yield from _mlp_parts("mlp", block, hidden, by.tensor_parallel_size)
        case Experts():
            ranks = by.expert_tensor_parallel_size if block.expert_parallel else by.tensor_parallel_size
            width = _divide(block.intermediate_size, ranks, "the experts' intermediate size")
            if by.expert_tensor_parallel_size > 1:
                width = max(width, block.least_width)
            inner = block.latent_size or hidden
            yield ExpertMatrices(
                "moe.experts" if block.dense is not None else "mlp.experts",
                ceil_div(block.num_experts, by.expert_parallel_size if block.expert_parallel else 1),
                inner,
                width,
                block.gated,
                block.bias,
                block.scheme,
            )
            if block.latent_size:
                yield Linear("mlp.fc1_latent_proj", hidden, (inner,))
                yield Linear("mlp.fc2_latent_proj", inner, (hidden,))
            if block.router_quantized:
                yield Linear("mlp.gate", hidden, (block.num_experts,))
            else:
                router = block.num_experts * (hidden + (1 if block.router_bias else 0))
                yield Plain(router, block.router_bytes)
            yield Plain(block.table_elements, 4)
            if block.correction_bias:
                yield Plain(block.num_experts, 4)
            if block.shared is not None:
                yield from _mlp_parts("mlp.shared_expert", block.shared, hidden, by.tensor_parallel_size)
            if block.shared_gate:
                yield Plain(hidden)
            if block.dense is not None:
                yield from _mlp_parts("mlp", block.dense, hidden, by.tensor_parallel_size)
            yield Plain(block.extra_elements)
        case _:
            raise AssertionError(block)


_ENCODER = re.compile(
    r"vision|visual|vit|image|audio|speech|encoder|tower|projector|merger|resampler|connector|aligner|adapter"
)
"""What modules of encoders are called by the repositories that leave them unquantised."""
_DECODERS_ALONE = frozenset({"awq", "gptq"})
"""Methods that vLLM's classes with an encoder keep from it (_maybe_ignore_quant_config)."""


def encoder_scheme(how: Quantization | None) -> Scheme | None:
    """How vLLM quantises an encoder: like the decoder, where the configuration leaves out others and none of its parts.

    A configuration that names nothing at all may have lost its list: then the encoder counts whole, which is more.
    """
    if (
        how is None
        or not how.ignored
        or how.only
        or how.scheme is Scheme.MXFP4_EXPERTS
        or how.method in _DECODERS_ALONE
    ):
        return None
    return None if any(_ENCODER.search(entry) for entry in how.ignored) else how.scheme


def _encoder_bytes(
    encoder: Encoder | None, dtype_bytes: int, tp: int, how: Quantization | None = None
) -> int:
    if encoder is None:
        return 0
    if encoder.matrices is None:
        raise _UncomputableError(
            f"no plan for the weights of its {encoder.kind} encoder without the size of the files"
        )
    by_heads = encoder.num_heads % tp == 0
    if encoder.divided and not any(m.split.startswith("heads") for m in encoder.matrices):
        _divide(encoder.num_heads, tp, "the number of heads of the vision encoder")
    scheme = encoder_scheme(how) if encoder.quantized else None
    size = encoder.plain_elements * dtype_bytes
    for matrix in encoder.matrices:
        inputs, outputs = matrix.inputs, matrix.outputs
        is_cut = by_heads or not matrix.split.startswith("heads")
        if matrix.split.endswith("column") and is_cut:
            outputs = _divide(outputs, tp, "a width of the vision encoder")
        elif matrix.split.endswith("row") and is_cut:
            inputs = _divide(inputs, tp, "a width of the vision encoder")
        part = Linear(f"the {encoder.kind} encoder", inputs, (outputs,), matrix.bias)
        is_quantized = matrix.split != "none" if matrix.quantized is None else matrix.quantized
        if scheme is None or how is None or not is_quantized:
            size += matrix.count * _plain_linear(part, dtype_bytes)
        else:
            size += matrix.count * _quantized_linear(part, dtype_bytes, scheme, how)
    return size


def _plain_linear(part: Linear, dtype_bytes: int) -> int:
    outputs = sum(part.outputs)
    return dtype_bytes * (part.inputs * outputs + (outputs if part.bias else 0))


def _plain_experts(part: ExpertMatrices, dtype_bytes: int) -> int:
    first = (2 if part.gated else 1) * part.intermediate_size
    elements = part.hidden_size * first + part.intermediate_size * part.hidden_size
    if part.bias:
        elements += first + part.hidden_size
    return dtype_bytes * part.count * elements


def _quantized_linear(
    part: Linear,
    dtype_bytes: int,
    scheme: Scheme,
    how: Quantization,
    by_columns: bool = False,
    ranks: int = 1,
) -> int:
    """Bytes of a matrix as vLLM 0.25.1's linear method for that scheme allocates it.

    `ranks` are those that its inputs are divided over.
    """
    outputs, parts = sum(part.outputs), len(part.outputs)
    size = dtype_bytes * outputs if part.bias else 0
    match scheme:
        case Scheme.MXFP4_EXPERTS:
            return _plain_linear(part, dtype_bytes)
        case Scheme.FP8_BLOCK:
            assert how.weight_block is not None
            rows, columns = how.weight_block
            # vLLM lets the last part of a matrix that is not divided end in an incomplete block.
            checked = part.outputs if by_columns else part.outputs[:-1]
            if not part.name.endswith("in_proj_ba") and any(width % rows for width in checked):
                raise _IllegalError(f"fp8 blocks of {rows} do not divide {part.name} on each rank")
            scales = ceil_div(outputs, rows) * ceil_div(part.inputs, columns)
            return size + part.inputs * outputs + how.scale_bytes * scales
        case Scheme.FP8_TENSOR:
            return size + part.inputs * outputs + 4 * parts * (2 if how.static_activations else 1)
        case Scheme.EIGHT_BIT_CHANNEL:
            return size + part.inputs * outputs + 4 * outputs
        case Scheme.NVFP4 | Scheme.NVFP4_WEIGHTS:
            group = how.group_size or 16
            if part.inputs % group:
                raise _IllegalError(f"nvfp4 groups of {group} do not divide {part.name} on each rank")
            scales = outputs * part.inputs // group
            # One scale for the weights of a part, and one for its inputs where those are quantised too.
            each = 8 if how.static_activations else 4
            if scheme is Scheme.NVFP4_WEIGHTS and how.short_scales:
                each += dtype_bytes - 4
            return size + part.inputs * outputs // 2 + scales + each * parts
        case Scheme.MXFP4:
            if part.inputs % MXFP_BLOCK:
                raise _IllegalError(f"blocks of {MXFP_BLOCK} do not divide {part.name} on each rank")
            return size + part.inputs * outputs // 2 + part.inputs * outputs // MXFP_BLOCK
        case Scheme.MXFP8:
            if part.inputs % MXFP_BLOCK:
                raise _IllegalError(f"blocks of {MXFP_BLOCK} do not divide {part.name} on each rank")
            return size + part.inputs * outputs + outputs * part.inputs // MXFP_BLOCK
        case Scheme.GROUPED_INT | Scheme.AWQ | Scheme.GPTQ:
            group = how.group_size or part.inputs
            if part.inputs % group:
                raise _IllegalError(f"groups of {group} do not divide {part.name} on each rank")
            packed = part.inputs * outputs * how.bits // 8
            groups = part.inputs // group * (ranks if how.act_order else 1)
            scales = groups * outputs * dtype_bytes
            if scheme is Scheme.GROUPED_INT:
                zeros = groups * ceil_div(outputs * how.bits, 32) * 4 if how.zero_points else 0
                order = 4 * part.inputs if how.act_order else 0
                return size + packed + scales + zeros + order + 2 * 8  # the shape, as int64
            zeros = groups * outputs * how.bits // 8
            order = 4 * part.inputs if scheme is Scheme.GPTQ and how.registers_order else 0
            return size + packed + scales + zeros + order
        case _:
            assert_never(scheme)


def _quantized_experts(
    part: ExpertMatrices, dtype_bytes: int, scheme: Scheme, how: Quantization, by: Split
) -> int:
    """Bytes of a layer's experts as vLLM 0.25.1's fused-experts method for that scheme allocates them."""
    width, hidden, count = part.intermediate_size, part.hidden_size, part.count
    halves = 2 if part.gated else 1
    elements = count * (hidden * halves * width + width * hidden)
    size = dtype_bytes * count * (halves * width + hidden) if part.bias else 0
    match scheme:
        case Scheme.MXFP4_EXPERTS:
            hidden, width = (
                ceil_div(n, to) * to for n, to in zip((hidden, width), by.mxfp4_alignment, strict=True)
            )
            elements = count * (hidden * halves * width + width * hidden)
            size = dtype_bytes * count * (halves * width + hidden) if part.bias else 0
            return size + elements // 2 + elements // MXFP_BLOCK
        case Scheme.FP8_BLOCK:
            assert how.weight_block is not None
            rows, columns = how.weight_block
            if how.refines_blocks and (
                width % rows or (by.expert_tensor_parallel_size > 1 and width % columns)
            ):
                # refine_fp8_moe_block_shape: the widest block that divides everything, of 32 at least.
                finer = gcd(rows, columns, width, hidden)
                rows, columns = (finer, finer) if finer >= SMALLEST_BLOCK else (rows, columns)
            if width % rows:
                words = f"fp8 blocks of {rows} do not divide the experts' width of {width:,} on each rank"
                raise _IllegalError(words)
            first = halves * ceil_div(width, rows) * ceil_div(hidden, columns)
            second = ceil_div(hidden, rows) * ceil_div(width, columns)
            return size + elements + 4 * count * (first + second)
        case Scheme.FP8_TENSOR:
            return size + elements + 4 * count * (halves + 1 + (2 if how.static_activations else 0))
        case Scheme.EIGHT_BIT_CHANNEL:
            return size + elements + 4 * count * (halves * width + hidden)
        case Scheme.NVFP4 | Scheme.NVFP4_WEIGHTS:
            group = how.group_size or 16
            scales = halves * width * (hidden // group) + hidden * (width // group)
            return size + elements // 2 + count * scales + 4 * 2 * count * (halves + 1)
        case Scheme.MXFP4:
            if hidden % MXFP_BLOCK or width % MXFP_BLOCK:
                raise _IllegalError(f"blocks of {MXFP_BLOCK} do not divide the experts' width of {width:,}")
            return size + elements // 2 + elements // MXFP_BLOCK
        case Scheme.MXFP8:
            if hidden % MXFP_BLOCK or width % MXFP_BLOCK:
                raise _IllegalError(f"blocks of {MXFP_BLOCK} do not divide the experts' width of {width:,}")
            return size + elements + elements // MXFP_BLOCK
        case Scheme.GROUPED_INT:
            if how.zero_points:
                raise _UncomputableError("no plan for experts whose zero points are stored")
            packed = elements * how.bits // 8
            group = how.group_size or width
            if how.group_size and (width % group or hidden % group):
                raise _IllegalError(f"groups of {group} do not divide the experts' width of {width:,}")
            whole = width * (by.expert_tensor_parallel_size if how.act_order else 1)
            groups = (hidden // group, whole // group) if how.group_size else (1, 1)
            scales = count * (groups[0] * halves * width + groups[1] * hidden) * dtype_bytes
            order = 2 * 4 * (hidden + width) if how.registers_order or how.act_order else 0
            return (
                size + packed + scales + count * (2 * 2 * dtype_bytes + order)
            )  # shapes in the model's dtype
        case Scheme.AWQ | Scheme.GPTQ:
            group = how.group_size or width
            packed = elements * how.bits // 8
            if not _has_marlin(how, hidden, width):
                # Kernels that Triton makes: finer groups, whose scales are repeated, and no order of inputs.
                while how.group_size and group >= SMALLEST_BLOCK and (width % group or hidden % group):
                    group //= 2
                if not how.group_size or group < SMALLEST_BLOCK:
                    words = (
                        f"groups of {how.group_size} cannot be made to divide the experts' width of {width:,}"
                    )
                    raise _IllegalError(words)
                scales = count * (hidden // group * halves * width + width // group * hidden)
                zeros = scales * how.bits // 8 if scheme is Scheme.AWQ else 0
                return size + packed + scales * dtype_bytes + zeros
            # Groups of the first matrices' inputs and of the second's; with an order, those of all ranks.
            whole = width * (by.expert_tensor_parallel_size if how.act_order else 1)
            groups = (hidden // group, whole // group) if how.group_size else (1, 1)
            scales = count * (groups[0] * halves * width + groups[1] * hidden)
            zeros = scales * how.bits // 8
            order = 0
            if scheme is Scheme.GPTQ:
                order = 0
                if how.registers_order:
                    # So long it also allocates the packed zeros in the model's dtype.
                    zeros = scales * how.bits // 32 * dtype_bytes
                    order = count * 2 * 4 * (hidden + width)
                elif not part.bias:
                    # Since then it has biases, until it has seen that the files hold none.
                    size += count * (halves * width + hidden) * dtype_bytes
            scales *= dtype_bytes
            return size + packed + scales + zeros + order
        case _:
            assert_never(scheme)


def _has_marlin(how: Quantization, hidden: int, width: int) -> bool:
    """Whether Marlin has a kernel for a rank's experts (vLLM's check_moe_marlin_supports_layer)."""
    group = how.group_size
    least = max(64, group or 0) if how.act_order else (group or 1)
    return hidden % 128 == 0 and width % least == 0 and group in (None, 32, 64, 128)


_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""vLLM's fused modules, and the checkpoint's names of their parts."""

_COLUMN_PARALLEL = (
    "qkv_proj",
    "gate_up_proj",
    "up_proj",
    "q_b_proj",
    "kv_b_proj",
    "q_proj",
    "in_proj_qkvz",
    "in_proj_ba",
)
"""Modules whose outputs tensor parallelism divides."""

_ROW_PARALLEL = ("o_proj", "down_proj", "out_proj")
"""Modules whose inputs tensor parallelism divides."""


def _names(name: str) -> list[str]:
    stem, _, last = name.rpartition(".")
    return [name, *(f"{stem}.{part}" for part in _FUSED.get(last, ()))]


_UNSAFE_EXPRESSION = re.compile(r"[)\]][*+{]")


@lru_cache(maxsize=512)
def _is_ignored(name: str, ignored: tuple[str, ...]) -> bool:
    """Whether a regular expression of the configuration leaves out a module of any layer."""
    for entry in ignored:
        expression = entry.removeprefix("re:")
        if expression == entry or len(expression) > 200 or _UNSAFE_EXPRESSION.search(expression):
            continue
        try:
            pattern = re.compile(expression)
        except re.error:
            continue
        # vLLM matches the whole name from its beginning, the parts of a fused module one by one.
        if any(pattern.match(f"model.layers.0.{n}") for n in _names(_checkpoint_name(name))):
            return True
    return False


def _checkpoint_name(name: str) -> str:
    return name.replace("mlp.shared_expert.", "mlp.shared_experts.")


def _scheme(name: str, layer: Layer, how: Quantization | None) -> Scheme | None:
    """How a module of a layer is quantised; None: it keeps the model's dtype."""
    if how is None:
        return None
    if how.mixed:
        names = _names(name)
        return next((scheme for listed, scheme in layer.schemes if listed in names), None)
    if layer.unquantized:
        names = _names(name)
        if any(fnmatchcase(n, pattern) for n in names for pattern in layer.unquantized):
            return None
    if how.method == "gptq" and not how.only and name == "mlp.gate":
        # vLLM looks into the files for what is quantised; who makes them leaves routers alone.
        return None
    if how.only and not any(entry in f"model.layers.0.{n}" for n in _names(name) for entry in how.only):
        # The list is of linear modules: experts are quantised whatever it says.
        return how.scheme if name.endswith("experts") else None
    return None if _is_ignored(name, how.ignored) else how.scheme


def _part_bytes(part: Part, dtype_bytes: int, layer: Layer, how: Quantization | None, by: Split) -> int:
    if isinstance(part, Plain):
        return part.elements * (part.element_bytes or dtype_bytes)
    scheme = _scheme(part.name, layer, how)
    if isinstance(part, Linear):
        if how is not None and how.method in part.replicated_by:
            part = replace(part, outputs=tuple(n * by.tensor_parallel_size for n in part.outputs))
        if scheme is None or how is None or not part.quantized:
            return _plain_linear(part, dtype_bytes)
        is_cut = by.tensor_parallel_size > 1 and part.name.endswith(_COLUMN_PARALLEL)
        ranks = by.tensor_parallel_size if part.name.endswith(_ROW_PARALLEL) else 1
        return _quantized_linear(part, dtype_bytes, scheme, how, is_cut, ranks)
    scheme = part.scheme or scheme
    if scheme is None or how is None:
        return _plain_experts(part, dtype_bytes)
    return _quantized_experts(part, dtype_bytes, scheme, how, by)


def _cache_scale_bytes(layer: Layer, dtype_bytes: int, how: Quantization | None) -> int:
    """Scales of the KV cache that vLLM registers as parameters until it has read them, of each attention."""
    if how is None:
        return 0
    attentions = [m for m in layer.mixers if isinstance(m, Attention | LatentAttention)]
    return sum(_scale_bytes_of(m, dtype_bytes, how) for m in attentions)


def _scale_bytes_of(attention: Attention | LatentAttention, dtype_bytes: int, how: Quantization) -> int:
    is_latent = isinstance(attention, LatentAttention)
    if isinstance(attention, Attention) and attention.unscaled:
        return 0
    match how.method:
        case "fp8" | "quark":
            return 0 if is_latent else 4 * dtype_bytes
        case "modelopt":
            return 4 * dtype_bytes if how.kv_cache_dtype or not how.mixed else 0
        case "compressed-tensors":
            return 0 if is_latent else 3 * 4 + 3 * dtype_bytes
        case _:
            return 0


@lru_cache(maxsize=4096)
def _layer_bytes(layer: Layer, hidden: int, dtype_bytes: int, how: Quantization | None, by: Split) -> int:
    # Not [*a, *b]: under Brython (site/python_bundle) an error that is raised in a generator is lost there.
    parts = list(_mixer_parts(layer.mixer, hidden, by))
    for other in (layer.state, layer.second):
        if other is not None:
            parts += _mixer_parts(other, hidden, by)
    parts += _feed_forward_parts(layer.feed_forward, hidden, by)
    if isinstance(layer.beside, Experts):
        parts += _feed_forward_parts(layer.beside, hidden, by)
    elif layer.beside is not None:
        parts += _mlp_parts("laurel", layer.beside, hidden, by.tensor_parallel_size)
    size = 4 * layer.hyper_elements + sum(_part_bytes(part, dtype_bytes, layer, how, by) for part in parts)
    return size + layer.norm_elements * dtype_bytes + _cache_scale_bytes(layer, dtype_bytes, how)


def stages(layers: int, pipeline_parallel_size: int) -> tuple[range, ...]:
    """The layers of each pipeline stage, as vLLM 0.25.1 cuts them (distributed/utils.py, get_pp_indices)."""
    counts = [layers // pipeline_parallel_size] * pipeline_parallel_size
    for i in range(2, layers % pipeline_parallel_size + 2):
        counts[-i] += 1
    edges = [sum(counts[:i]) for i in range(pipeline_parallel_size + 1)]
    return tuple(range(a, b) for a, b in pairwise(edges))


@lru_cache(maxsize=1024)
def weights_per_rank(
    shape: Shape, by: Split, pipeline_parallel_size: int = 1
) -> tuple[int, ...] | Uncomputable:
    """Bytes of the parameters on a rank of each pipeline stage, before vLLM repacks any.

    Column- and row-parallel matrices are divided, norms and routers and MLA's down-projections are not;
    KV heads are repeated where there are fewer than ranks; tied embeddings count once (twice where the
    first and the last stage differ). Checked against vLLM 0.25.1's own classes, to the byte.
    """
    if pipeline_parallel_size > len(shape.layers):
        return Uncomputable(
            f"{len(shape.layers)} layers cannot be cut into {pipeline_parallel_size} stages", True
        )
    tp = by.tensor_parallel_size
    dtype_bytes = shape.dtype_bytes
    how = shape.quantization
    if how is not None and how.problem is not None:
        return Uncomputable(how.problem)
    try:
        vocabulary = _divide(padded_vocabulary(shape), tp, "the padded vocabulary")
        rows = shape.vocab_size if shape.embedding_replicated else vocabulary
        embedding = rows * shape.hidden_size * dtype_bytes
        head = embedding + (vocabulary * dtype_bytes if shape.lm_head_bias else 0)
        if how is not None and how.lm_head is not None:
            head = _quantized_linear(
                Linear("lm_head", shape.hidden_size, (vocabulary,)), dtype_bytes, how.lm_head, how
            )
        result = []
        for number, layers in enumerate(stages(len(shape.layers), pipeline_parallel_size)):
            size = (shape.plain_elements + shape.divided_elements // tp) * dtype_bytes
            for layer, count in Counter(shape.layers[layers.start : layers.stop]).items():
                size += count * _layer_bytes(layer, shape.hidden_size, dtype_bytes, how, by)
            is_first, is_last = number == 0, number == pipeline_parallel_size - 1
            every = shape.on_every_stage
            has_embedding = (
                is_first
                or Place.EMBEDDING in every
                or (is_last and shape.has_head and shape.tie_word_embeddings)
            )
            if has_embedding:
                size += embedding + shape.position_elements * dtype_bytes
            if is_first or Place.EMBEDDING in every:
                size += shape.embedding_elements // tp * dtype_bytes
            if is_first or Place.ENCODER in every:
                size += _encoder_bytes(shape.encoder, dtype_bytes, tp, how)
            if is_last or Place.NORM in every:
                size += shape.final_norm_elements * dtype_bytes
            if shape.has_head and not shape.tie_word_embeddings and (is_last or Place.HEAD in every):
                size += head
            result.append(size)
    except _UncomputableError as error:
        return Uncomputable(str(error), isinstance(error, _IllegalError))
    return tuple(result)


@lru_cache(maxsize=1024)
def mxfp4_bytes(shape: Shape, by: Split) -> int:
    """Bytes of the experts on a rank that are stored as mxfp4 (all stages)."""
    how = shape.quantization
    if how is None:
        return 0
    total = 0
    for layer, count in Counter(shape.layers).items():
        if isinstance(layer.feed_forward, Experts):
            for part in _feed_forward_parts(layer.feed_forward, shape.hidden_size, by):
                if isinstance(part, ExpertMatrices) and Scheme.MXFP4_EXPERTS in (part.scheme, how.scheme):
                    total += count * _part_bytes(part, shape.dtype_bytes, layer, how, by)
    return total


@lru_cache(maxsize=1024)
def absorbed_bytes(shape: Shape, by: Split) -> int:
    """What MLA's absorbed matrices add after loading on a rank (all layers, the model's dtype).

    vLLM 0.25.1's MLAAttention.process_weights_after_loading keeps `W_UK_T` and `W_UV` beside `kv_b_proj`:
    DeepSeek-V3 at TP 8 gains 61 × 16 heads × 512 × 256 × 2 bytes.
    """
    total = 0
    for layer in shape.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention):
                heads = mixer.num_attention_heads // by.tensor_parallel_size
                width = mixer.qk_nope_head_dim + mixer.v_head_dim
                total += heads * mixer.kv_lora_rank * width * shape.dtype_bytes
    return total

"""The parameters on one rank of what mixes tokens in a layer: a function for each kind of attention or state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from kaito_catalog.architectures import (
    Attention,
    CompressedAttention,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    ShortConv,
)
from kaito_catalog.architectures.mixers import Gate, Mixer
from kaito_catalog.memory.rounding import round_up
from kaito_catalog.memory.weights.matrices import Linear, Parameters, Part
from kaito_catalog.memory.weights.split import IllegalSplitError, divide

KIMI_ROW_MULTIPLE = 16
"""What Kimi K3 pads the rows of its widest matrix to on each rank."""
V4_LEAST_SINKS = 64
"""Heads that vLLM pads those of a rank to, where DeepSeek V4 keeps a sink for each."""


def mixer_parts(mixer: Mixer, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    """The parameters of a mixer on a rank.

    Raises:
        IllegalSplitError: while they are listed; vLLM would refuse to divide it over so many ranks.
    """
    match mixer:
        case Attention():
            return _attention(mixer, hidden_size, tensor_parallel_size)
        case LatentAttention():
            return _latent_attention(mixer, hidden_size, tensor_parallel_size)
        case CompressedAttention():
            return _compressed_attention(mixer, hidden_size, tensor_parallel_size)
        case GatedDeltaNet():
            return _gated_delta_net(mixer, hidden_size, tensor_parallel_size)
        case Mamba2():
            return _mamba2(mixer, hidden_size, tensor_parallel_size)
        case Mamba1():
            return _mamba1(mixer, hidden_size, tensor_parallel_size)
        case KimiDelta():
            return _kimi_delta(mixer, hidden_size, tensor_parallel_size)
        case LightningAttention():
            return _lightning_attention(mixer, hidden_size, tensor_parallel_size)
        case ShortConv():
            return _short_convolution(mixer, hidden_size, tensor_parallel_size)
        case _:
            assert_never(mixer)


def _heads(num_attention_heads: int, tensor_parallel_size: int) -> int:
    return divide(num_attention_heads, tensor_parallel_size, "the number of attention heads")


def _attention(attention: Attention, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    if isinstance(attention.projections, LatentAttention):
        yield from _latent_attention(attention.projections, hidden_size, tensor_parallel_size)
        return
    heads = _heads(attention.num_attention_heads, tensor_parallel_size)
    if attention.projections is not None:
        yield from _low_rank_queries(attention, attention.projections.rank, hidden_size, heads)
        return
    kv_heads = max(1, attention.num_key_value_heads // tensor_parallel_size)
    if attention.replicated:
        heads, kv_heads = attention.num_attention_heads, attention.num_key_value_heads
    query = heads * attention.head_dim * (2 if attention.gate is Gate.OUTPUT else 1)
    outputs: tuple[int, ...] = (query, kv_heads * attention.head_dim, kv_heads * attention.v_head_dim)
    if attention.queries_only:
        outputs = (query,)
    if attention.index_dim:
        outputs += (kv_heads * attention.index_dim, attention.index_dim)
    # vLLM builds K and V also where values are keys, and did where a layer reads another's cache (Gemma 4).
    name = "self_attn.q_proj" if attention.queries_only else "self_attn.qkv_proj"
    width = 2 * hidden_size if attention.fed_twice else hidden_size
    yield Linear(name, width, outputs, attention.qkv_bias)
    yield Linear("self_attn.o_proj", heads * attention.v_head_dim, (hidden_size,), attention.output_bias)
    of_heads = heads * (attention.sinks + attention.head_elements)
    yield Parameters(attention.head_norms * attention.head_dim + of_heads + 2 * attention.index_dim)
    if attention.gate is Gate.HEAD:
        yield Linear("self_attn.g_proj", hidden_size, (heads,))
    if attention.learnt_keys is not None:
        width = attention.head_dim + (attention.v_head_dim if attention.learnt_keys.with_values else 0)
        yield Parameters(attention.learnt_keys.tokens * kv_heads * width)
    if attention.gate is Gate.QUERY:
        yield Linear("gate_projection.gate_proj", attention.head_dim, (heads,), bias=True)
    if attention.flat_norms:
        yield Parameters(heads * attention.head_dim + kv_heads * attention.head_dim)


def _low_rank_queries(attention: Attention, rank: int, hidden_size: int, heads: int) -> Iterator[Part]:
    """Step 3: every rank makes the vector that queries come from, and all keys and values."""
    keys = attention.num_key_value_heads * attention.head_dim
    yield Linear("self_attn.qkv_proj", hidden_size, (rank, keys, keys))
    yield Parameters(rank)
    yield Linear("self_attn.wq", rank, (heads * attention.head_dim,))
    yield Linear("self_attn.o_proj", heads * attention.head_dim, (hidden_size,))


def _latent_attention(
    attention: LatentAttention, hidden_size: int, tensor_parallel_size: int
) -> Iterator[Part]:
    heads = _heads(attention.num_attention_heads, tensor_parallel_size)
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    query = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    gate = (heads * attention.v_head_dim,) if attention.output_gate else ()
    if attention.q_lora_rank is not None:
        outputs = (attention.q_lora_rank, latent, *gate)
        yield Linear("self_attn.fused_qkv_a_proj", hidden_size, outputs)
        yield Linear("self_attn.q_b_proj", attention.q_lora_rank, (query,))
        yield Parameters(attention.q_lora_rank)
    else:
        yield Linear("self_attn.kv_a_proj_with_mqa", hidden_size, (latent,))
        yield Linear("self_attn.q_proj", hidden_size, (query,))
        if gate:
            yield Linear("self_attn.g_proj", hidden_size, gate)
    yield Parameters(attention.kv_lora_rank)
    keys_and_values = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    yield Linear("self_attn.kv_b_proj", attention.kv_lora_rank, (keys_and_values,))
    yield Linear("self_attn.o_proj", heads * attention.v_head_dim, (hidden_size,))
    if attention.indexer is not None:
        yield from _indexer(attention.indexer, attention.q_lora_rank or hidden_size, hidden_size)


def _indexer(indexer: Indexer, query_inputs: int, hidden_size: int) -> Iterator[Part]:
    yield Linear("self_attn.indexer.wq_b", query_inputs, (indexer.head_dim * indexer.num_heads,))
    # vLLM fuses these two without a quantisation, and keeps the norm in fp32.
    fused = (indexer.head_dim, indexer.num_heads)
    yield Linear("self_attn.indexer.wk_weights_proj", hidden_size, fused, quantized=False)
    yield Parameters(2 * indexer.head_dim, 4)
    if indexer.pool > 1:
        yield Parameters(indexer.pool * indexer.head_dim, 4)
        yield Parameters(indexer.head_dim * hidden_size)


def _compressed_attention(
    attention: CompressedAttention, hidden_size: int, tensor_parallel_size: int
) -> Iterator[Part]:
    heads = _heads(attention.num_attention_heads, tensor_parallel_size)
    groups = divide(attention.o_groups, tensor_parallel_size, "the number of output groups")
    of_a_group = attention.num_attention_heads * attention.head_dim // attention.o_groups
    out = groups * attention.o_lora_rank
    yield Linear("self_attn.fused_wqa_wkv", hidden_size, (attention.q_lora_rank, attention.head_dim))
    yield Linear("self_attn.q_b_proj", attention.q_lora_rank, (heads * attention.head_dim,))
    yield Linear("self_attn.wo_a", of_a_group, (out,))
    yield Linear("self_attn.wo_b", out, (hidden_size,))
    yield Parameters(attention.q_lora_rank + attention.head_dim)
    yield Parameters(attention.hyper_elements + max(heads, V4_LEAST_SINKS), 4)
    if attention.compress_ratio:
        yield from _compressor(attention.compress_ratio, attention.head_dim, hidden_size)
    if attention.indexer is not None:
        index = attention.indexer
        width = index.head_dim * index.num_heads
        yield Linear("self_attn.indexer.wq_b", attention.q_lora_rank, (width,))
        yield Parameters(index.num_heads * hidden_size)
        yield from _compressor(attention.compress_ratio, index.head_dim, hidden_size)


def _compressor(ratio: int, head_dim: int, hidden_size: int) -> Iterator[Part]:
    """DeepSeek V4's compressor: windows of 4 tokens overlap, so that their projections are twice as wide."""
    width = head_dim * (2 if ratio == 4 else 1)
    yield Parameters(ratio * width, 4)
    yield Parameters(2 * width * hidden_size + head_dim)


def _gated_delta_net(mixer: GatedDeltaNet, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    key_heads = divide(mixer.num_key_heads, tensor_parallel_size, "the number of linear-attention key heads")
    value_heads = divide(
        mixer.num_value_heads, tensor_parallel_size, "the number of linear-attention value heads"
    )
    keys, values = mixer.key_head_dim * key_heads, mixer.value_head_dim * value_heads
    yield Linear("linear_attn.in_proj_qkvz", hidden_size, (keys, keys, values, values))
    if mixer.separate_gates:
        yield Linear("linear_attn.b_proj", hidden_size, (value_heads,))
        yield Linear("linear_attn.a_proj", hidden_size, (value_heads,))
    else:
        # Marlin's kernels want 64 outputs a rank, which two separate gates would not have.
        replicated_by = () if mixer.interleaved else ("awq", "gptq")
        gates = (value_heads, value_heads)
        yield Linear("linear_attn.in_proj_ba", hidden_size, gates, replicated_by=replicated_by)
    yield Linear("linear_attn.out_proj", values, (hidden_size,))
    yield Parameters(mixer.conv_kernel * (2 * keys + values) + value_heads + mixer.value_head_dim)
    yield Parameters(value_heads, mixer.decay_bytes)


def _mamba2(mixer: Mamba2, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    heads = divide(mixer.num_heads, tensor_parallel_size, "the number of Mamba heads")
    inner = heads * mixer.head_dim
    if mixer.time_step_rank:
        rank, state = mixer.time_step_rank, mixer.state_size
        yield Linear("mixer.in_proj", hidden_size, (inner, inner))
        yield Linear("mixer.bcdt_proj", inner, (rank + 2 * state,))
        yield Linear("mixer.dt_proj", rank, (heads,))
        yield Linear("mixer.out_proj", inner, (hidden_size,))
        yield Parameters(mixer.conv_kernel * inner + 2 * heads + rank + 2 * state)
        yield Parameters(heads, 4)
        return
    groups = mixer.num_groups
    if groups % tensor_parallel_size and groups != 1:
        words = f"{groups} Mamba groups can neither be divided by {tensor_parallel_size} nor repeated"
        raise IllegalSplitError(words)
    # vLLM repeats groups so that every rank has those its heads need.
    groups_per_rank = groups // tensor_parallel_size if groups % tensor_parallel_size == 0 else 1
    state = groups_per_rank * mixer.state_size
    conv = inner + 2 * state
    yield Linear("mixer.in_proj", hidden_size, (inner, inner, state, state, heads), mixer.bias)
    yield Linear("mixer.out_proj", inner, (hidden_size,), mixer.bias)
    norm = inner if mixer.normed else 0
    yield Parameters(mixer.conv_kernel * conv + (conv if mixer.conv_bias else 0) + 2 * heads + norm)
    yield Parameters(heads, 4)


def _mamba1(mixer: Mamba1, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    inner = divide(mixer.intermediate_size, tensor_parallel_size, "the width of the Mamba layers")
    selected = mixer.time_step_rank + 2 * mixer.state_size
    # vLLM quantises none of these.
    size = hidden_size * 2 * inner + (2 * inner if mixer.bias else 0)
    size += inner * (mixer.conv_kernel + (1 if mixer.conv_bias else 0))
    size += inner * selected + (mixer.time_step_rank + 1) * inner + inner
    size += inner * hidden_size + (hidden_size if mixer.bias else 0)
    yield Parameters(size + (selected if mixer.normed else 0))
    yield Parameters(inner * mixer.state_size, 4)


def _kimi_delta(mixer: KimiDelta, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    heads = divide(mixer.num_heads, tensor_parallel_size, "the number of linear-attention heads")
    width = heads * mixer.head_dim
    if mixer.full_gate:
        outputs = (*(width,) * 4, mixer.head_dim, heads)
        padding = round_up(sum(outputs), KIMI_ROW_MULTIPLE) - sum(outputs)
        yield Linear("self_attn.in_proj_qkvgfab", hidden_size, (*outputs, padding))
        yield Linear("self_attn.f_b_proj", mixer.head_dim, (width,))
    else:
        for name in ("q_proj", "k_proj", "v_proj"):
            yield Linear(f"self_attn.{name}", hidden_size, (width,))
        # The decay and the gate of the output come from a bottleneck that every rank has.
        for name in ("f", "g"):
            yield Linear(f"self_attn.{name}_a_proj", hidden_size, (mixer.head_dim,))
            yield Linear(f"self_attn.{name}_b_proj", mixer.head_dim, (width,))
        yield Linear("self_attn.b_proj", hidden_size, (heads,))
    yield Linear("self_attn.o_proj", width, (hidden_size,))
    yield Parameters(width + 3 * mixer.conv_kernel * width + heads, 4)
    yield Parameters(mixer.head_dim)


def _lightning_attention(
    mixer: LightningAttention, hidden_size: int, tensor_parallel_size: int
) -> Iterator[Part]:
    heads = divide(mixer.num_heads, tensor_parallel_size, "the number of linear-attention heads")
    divide(mixer.norm_groups, tensor_parallel_size, "the number of groups that are normalised")
    width = heads * mixer.head_dim
    yield Linear("self_attn.qkv_proj", hidden_size, (width,) * 3, mixer.qkv_bias)
    yield Linear("self_attn.g_proj", hidden_size, (width,))
    yield Linear("self_attn.o_proj", width, (hidden_size,), mixer.output_bias)
    yield Parameters(mixer.head_norms * mixer.head_dim + width)


def _short_convolution(mixer: ShortConv, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    width = divide(mixer.width, tensor_parallel_size, "the width of the convolutions")
    yield Linear("conv.in_proj", hidden_size, (width,) * 3, mixer.bias)
    yield Linear("conv.out_proj", width, (hidden_size,), mixer.bias)
    yield Parameters(width * (mixer.conv_kernel + (1 if mixer.bias else 0)))

"""What a layer holds of each token while it is computed, and the buffers that outlive it."""

from __future__ import annotations

from kaito_catalog.architectures import (
    Attention,
    BuiltShape,
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
    Scheme,
    ShortConv,
)
from kaito_catalog.architectures.mixers import Gate
from kaito_catalog.memory.kv_cache.kinds import indexer_entry_bytes
from kaito_catalog.memory.remembered import remembered

MLA_CONTEXT_TOKENS = 65536
INDEXER_CONTEXTS = 40
INDEXER_LOGITS_BYTES = 512 * 2**20
"""VLLM_SPARSE_INDEXER_MAX_LOGITS_MB, allocated while a layer is profiled."""


@remembered(maxsize=1024)
def widest_layer(
    shape: BuiltShape,
    tensor_parallel_size: int,
    expert_tensor_parallel_size: int,
    at_once: float = 1.0,
) -> float:
    """Elements per token that the widest layer holds at once beside the hidden states.

    `at_once` is the share of the tokens that experts take at once.
    """
    widths = (
        _layer_width(layer, shape.hidden_size, tensor_parallel_size, expert_tensor_parallel_size, at_once)
        for layer in set(shape.layers)
    )
    return max(widths, default=0.0)


@remembered(maxsize=1024)
def widest_forward(
    shape: BuiltShape,
    tensor_parallel_size: int,
    expert_tensor_parallel_size: int,
    *,
    at_once: float,
    feed_forward_states: float,
    mixer_states: float,
) -> float:
    """The same with the hidden states: as many copies of them are there in a feed-forward block, and in a mixer."""

    def width(layer: Layer) -> float:
        block = _feed_forward_width(
            layer, shape.hidden_size, tensor_parallel_size, expert_tensor_parallel_size, at_once
        )
        mixer = max((_mixer_width(m, tensor_parallel_size) for m in layer.mixers), default=0.0)
        return max(feed_forward_states * shape.hidden_size + block, mixer_states * shape.hidden_size + mixer)

    return max((width(layer) for layer in set(shape.layers)), default=0.0)


def _layer_width(layer: Layer, hidden_size: int, ranks: int, expert_ranks: int, at_once: float) -> float:
    widest = _feed_forward_width(layer, hidden_size, ranks, expert_ranks, at_once)
    return max(widest, *(_mixer_width(mixer, ranks) for mixer in layer.mixers), 0.0)


def _feed_forward_width(
    layer: Layer, hidden_size: int, ranks: int, expert_ranks: int, at_once: float
) -> float:
    widest = 0.0
    match layer.feed_forward:
        case Mlp() as mlp:
            widest = (3 if mlp.gated else 2) * mlp.intermediate_size / (1 if mlp.replicated else ranks)
        case Experts() as experts:
            widest = at_once * _experts_width(experts, hidden_size, expert_ranks)
    return widest


def _mixer_width(mixer: Mixer, ranks: int) -> float:
    match mixer:
        case Attention() as a:
            query = a.num_attention_heads * a.head_dim * (2 if a.gate is Gate.OUTPUT else 1)
            return (2 * query + 2 * a.num_key_value_heads * a.head_dim) / (1 if a.replicated else ranks)
        case LatentAttention() as m:
            heads = m.num_attention_heads / ranks
            return heads * (2 * (m.qk_nope_head_dim + m.qk_rope_head_dim) + 3 * m.v_head_dim)
        case CompressedAttention() as c:
            return 3 * c.num_attention_heads / ranks * c.head_dim
        case GatedDeltaNet() as g:
            return (4 * g.num_key_heads * g.key_head_dim + 4 * g.num_value_heads * g.value_head_dim) / ranks
        case LightningAttention() as g:
            return 5 * g.num_heads * g.head_dim / ranks
        case KimiDelta() as k:
            return 8 * k.num_heads * k.head_dim / ranks
        case Mamba2() as b:
            return 4 * b.num_heads * b.head_dim / ranks
        case Mamba1() as b:
            return 4 * b.intermediate_size / ranks
        case ShortConv() as c:
            return 4 * c.width / ranks


@remembered(maxsize=1024)
def moe_workspace(shape: BuiltShape, expert_tensor_parallel_size: int) -> float:
    """Elements per token of the buffers that the fused experts keep: both products, the larger and the other.

    vLLM's WorkspaceManager never frees them, so that they are there while the sampler runs. The kernels for
    mxfp4 have none.
    """
    widest = 0.0
    scheme = shape.quantization.scheme if shape.quantization else None
    for layer in set(shape.layers):
        block = layer.feed_forward
        if isinstance(block, Experts) and Scheme.MXFP4_EXPERTS not in (block.scheme, scheme):
            widest = max(widest, _experts_width(block, shape.hidden_size, expert_tensor_parallel_size))
    return widest


def _experts_width(block: Experts, hidden_size: int, ranks: int) -> float:
    """Of a token: the larger product, whose buffer both have, and what lies between them."""
    width = block.intermediate_size / ranks
    first = max((2 if block.gated else 1) * width, block.latent_size or hidden_size)
    return block.num_experts_per_tok * (first + width)


def prefill_context(shape: BuiltShape, tensor_parallel_size: int) -> int:
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


def indexer_workspace(shape: BuiltShape, max_model_len: int) -> int:
    """Bytes that a sparse indexer gathers its cache into: 40 contexts (vLLM's indexer.py), kept like the experts'.

    DeepSeek V4's has a key for every few tokens.
    """
    found = [0]
    for layer in set(shape.layers):
        m = layer.mixer
        if isinstance(m, LatentAttention | CompressedAttention) and m.indexer is not None:
            ratio = m.compress_ratio if isinstance(m, CompressedAttention) else 1
            keys = INDEXER_CONTEXTS * max_model_len // ratio
            found.append(keys * indexer_entry_bytes(m.indexer.head_dim))
    return max(found)

"""What each layer of a model keeps, with the block sizes that vLLM gives to its attention and to its states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm
from typing import assert_never

from kaito_catalog.architectures import (
    Attention,
    BuiltShape,
    CompressedAttention,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    Recurrent,
    ShortConv,
)
from kaito_catalog.architectures.mixers import Mixer
from kaito_catalog.architectures.shape import Layer
from kaito_catalog.memory.kv_cache.choices import VLLMS_CHOICE, CacheChoices
from kaito_catalog.memory.kv_cache.kinds import (
    INDEXER_PAGES,
    ChunkedLocalCache,
    CrossAttentionCache,
    FullAttentionCache,
    IndexerCache,
    LatentCache,
    LayerCache,
    RingCache,
    SlidingWindowCache,
    StateCache,
    indexer_entry_bytes,
)
from kaito_catalog.memory.kv_cache.states import state_bytes
from kaito_catalog.memory.rounding import ceil_div, round_up

BLOCK_SIZE = 16
"""Tokens of a block on CUDA with FlashAttention and dense MLA (vLLM's CacheConfig.DEFAULT_BLOCK_SIZE)."""
SPARSE_BLOCK_SIZE = 64
"""FlashMLA's sparse kernel, which GLM-5 and DeepSeek V3.2 need, and its dense one over an fp8 cache."""

CACHE_DTYPE_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "float32": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
    "fp8_ds_mla": 1,
}

V4_TOKEN_BYTES = 584
"""A latent of DeepSeek V4 under its fp8 layout: 448 fp8, 64 bf16, 8 of scales."""
V4_PAGE_ALIGNMENT = 576
V4_BLOCK_SIZE = 256
V4_WINDOW_BLOCK_SIZE = 64
V4_STATE_BLOCK_SIZES = {4: 4, 128: 8}
"""Tokens of a block of a compressor's state, by its ratio."""


def cache_dtype_bytes(shape: BuiltShape, kv_cache_dtype: str) -> int | None:
    """Bytes per element of the cache; None for a dtype that has no fixed size here."""
    if kv_cache_dtype == "auto":
        stated = shape.quantization.kv_cache_dtype if shape.quantization else None
        return CACHE_DTYPE_BYTES[stated] if stated else shape.dtype_bytes
    return CACHE_DTYPE_BYTES.get(kv_cache_dtype)


def layer_caches(
    shape: BuiltShape,
    stages: tuple[range, ...],
    *,
    tensor_parallel_size: int,
    element_bytes: int,
    states: int,
    choices: CacheChoices = VLLMS_CHOICE,
) -> tuple[tuple[LayerCache, ...], ...]:
    """What the layers of each pipeline stage keep.

    Args:
        shape: the model.
        stages: the layers of each stage.
        tensor_parallel_size: ranks that share the KV heads.
        element_bytes: of an element of the cache.
        states: blocks that the state of one sequence takes.
        choices: what options say of it.
    """
    blocks = _block_sizes(shape, tensor_parallel_size, element_bytes, choices)
    found = []
    for stage in stages:
        # Many layers are alike.
        made: dict[Layer, list[LayerCache]] = {}
        caches: list[LayerCache] = []
        of_stage = [shape.layers[number] for number in stage]
        size = _state_block_size(shape, of_stage, blocks, caches_prefixes=states > 1)
        # One for each token that is guessed (MambaSpec.num_speculative_blocks).
        state = StateCache(size, blocks.state_page_bytes, states + shape.guessed_tokens)
        for layer in of_stage:
            if layer not in made:
                made[layer] = [
                    cache
                    for mixer in layer.mixers
                    for cache in _caches(
                        mixer, shape, blocks.attention, tensor_parallel_size, element_bytes, state
                    )
                ]
            caches += made[layer]
        found.append(tuple(_shared(cache, choices.decode_context_parallel_size) for cache in caches))
    return tuple(found)


def _shared(cache: LayerCache, ranks: int) -> LayerCache:
    """The cache, whose tokens that many ranks share."""
    if ranks == 1 or not isinstance(cache, FullAttentionCache):
        return cache
    return replace(cache, context_parallel_size=ranks)


def _caches(
    mixer: Mixer,
    shape: BuiltShape,
    block_size: int,
    tensor_parallel_size: int,
    element_bytes: int,
    state: StateCache,
) -> Iterator[LayerCache]:
    match mixer:
        case Attention():
            yield from _attention_caches(mixer, shape, block_size, tensor_parallel_size, element_bytes)
        case LatentAttention():
            yield LatentCache.of(mixer, block_size, element_bytes)
            if mixer.indexer is not None:
                yield IndexerCache.of_indexer(mixer.indexer, block_size)
                if mixer.indexer.pool > 1:
                    yield RingCache.of(mixer.indexer)
        case GatedDeltaNet() | KimiDelta() | LightningAttention() | Mamba2() | Mamba1() | ShortConv():
            yield state
        case CompressedAttention():
            yield from _compressed_caches(mixer)
        case _:
            assert_never(mixer)


def _attention_caches(
    attention: Attention, shape: BuiltShape, block_size: int, tensor_parallel_size: int, element_bytes: int
) -> Iterator[LayerCache]:
    if attention.shares_cache or attention.bidirectional:
        return
    size = shape.dtype_bytes if attention.cache_in_dtype else element_bytes
    page_bytes = block_size * _token_bytes(attention, tensor_parallel_size, size)
    if attention.looks_at_encoder:
        yield CrossAttentionCache(block_size, page_bytes)
    elif attention.sliding_window is not None:
        yield SlidingWindowCache(block_size, page_bytes, attention.sliding_window)
    elif attention.chunk is not None:
        yield ChunkedLocalCache(block_size, page_bytes, attention.chunk)
    else:
        yield FullAttentionCache(block_size, page_bytes)
    if attention.index_dim:
        # One key for all heads on every rank, in the model's dtype whatever the cache's (MiniMax M3).
        yield IndexerCache(block_size, block_size * attention.index_dim * shape.dtype_bytes)


def _compressed_caches(mixer: CompressedAttention) -> Iterator[LayerCache]:
    """The caches of a DeepSeek V4 layer in vLLM 0.25.1: window, latents, indexer, states of compressors."""

    def page(content: int) -> int:
        return round_up(content, V4_PAGE_ALIGNMENT)

    window_page = page(V4_WINDOW_BLOCK_SIZE * V4_TOKEN_BYTES)
    yield SlidingWindowCache(V4_WINDOW_BLOCK_SIZE, window_page, mixer.sliding_window)
    ratio = mixer.compress_ratio
    if not ratio:
        return
    block_size = V4_STATE_BLOCK_SIZES[ratio]
    window, overlap = (2 * ratio, 2) if ratio == 4 else (ratio, 1)
    state_width = block_size * 2 * overlap * 4
    latents = V4_BLOCK_SIZE // ratio
    if mixer.indexer is not None:
        dim = mixer.indexer.head_dim
        yield IndexerCache(V4_BLOCK_SIZE, page(latents * indexer_entry_bytes(dim)))
        yield SlidingWindowCache(block_size, page(state_width * dim), window)
    yield LatentCache(V4_BLOCK_SIZE, page(latents * V4_TOKEN_BYTES))
    yield SlidingWindowCache(block_size, page(state_width * mixer.head_dim), window)


@dataclass(frozen=True)
class _BlockSizes:
    """Tokens of the blocks of a whole model, and the page that holds a state."""

    attention: int
    state_page_bytes: int


def _block_sizes(
    shape: BuiltShape, tensor_parallel_size: int, element_bytes: int, choices: CacheChoices
) -> _BlockSizes:
    """The blocks that its kernels ask for, made longer in a hybrid until a page of attention holds a state."""
    if shape.guessing_layers:
        shape = replace(shape, layers=shape.layers[: -shape.guessing_layers], guessing_layers=0)
    mixers = [mixer for layer in set(shape.layers) for mixer in layer.mixers]
    block_size = choices.block_size or kernel_block_size(shape, element_bytes)
    sizes = [
        state_bytes(m, tensor_parallel_size, shape.dtype_bytes, choices)
        for m in mixers
        if isinstance(m, Recurrent)
    ]
    state = max(sizes, default=0)
    if not state:
        return _BlockSizes(block_size, 0)
    attentions = [m for m in mixers if isinstance(m, Attention | LatentAttention)]
    per_token = max((_token_bytes(m, tensor_parallel_size, element_bytes) for m in attentions), default=0)
    if not per_token:
        return _BlockSizes(block_size, state)
    # vLLM makes the block longer, then pads the state (Platform._align_hybrid_block_size).
    unit = max(block_size, shape.hybrid_block_size or block_size)
    block_size = max(block_size, unit * ceil_div(state, unit * per_token))
    return _BlockSizes(block_size, block_size * per_token)


def kernel_block_size(shape: BuiltShape, element_bytes: int) -> int:
    """Tokens of the blocks that the model's kernels ask for: longer ones are a multiple of that."""
    mixers = [mixer for layer in set(shape.layers) for mixer in layer.mixers]
    if any(isinstance(m, CompressedAttention) for m in mixers):
        return V4_BLOCK_SIZE
    latents = [m for m in mixers if isinstance(m, LatentAttention)]
    pool = max((m.indexer.pool for m in latents if m.indexer is not None), default=1)
    if pool > 1:
        return lcm(SPARSE_BLOCK_SIZE, INDEXER_PAGES[0] * pool)
    if shape.fp8_block_size is not None and element_bytes == 1:
        return shape.fp8_block_size
    # FlashMLA's kernels, which also serve dense MLA over an fp8 cache, take longer blocks.
    takes_longer = any(m.sparse for m in latents) or (latents and element_bytes == 1)
    return SPARSE_BLOCK_SIZE if takes_longer else BLOCK_SIZE


def _state_block_size(
    shape: BuiltShape, layers: list[Layer], blocks: _BlockSizes, *, caches_prefixes: bool
) -> int:
    """Tokens of the blocks of states on a stage.

    A stage without attention has no page that must hold a state: from 0.32 on its blocks stay as they are, and vLLM
    puts them into groups of their own. Without prefixes to cache they are as in all stages.
    """
    if not shape.aligns_by_stage or not caches_prefixes:
        return blocks.attention
    has_attention = any(isinstance(m, Attention | LatentAttention) for x in layers for m in x.mixers)
    return blocks.attention if has_attention else BLOCK_SIZE


def kv_heads(attention: Attention, tensor_parallel_size: int) -> int:
    """KV heads on one rank: replicated where there are fewer than ranks."""
    return max(1, attention.num_key_value_heads // tensor_parallel_size)


def _token_bytes(mixer: Attention | LatentAttention, tensor_parallel_size: int, element_bytes: int) -> int:
    """What one token takes in the layer's cache on a rank."""
    if isinstance(mixer, LatentAttention):
        return (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * element_bytes
    return kv_heads(mixer, tensor_parallel_size) * (mixer.head_dim + mixer.v_head_dim) * element_bytes

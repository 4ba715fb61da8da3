"""The KV cache as vLLM's planner lays it out: pages, groups, what one request needs, the longest context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, lcm

from kaito_catalog.architectures import (
    Attention,
    AttentionKind,
    CompressedAttention,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    Recurrent,
    Shape,
    ShortConv,
)
from kaito_catalog.architectures.as_built import version_tuple as version_tuple
from kaito_catalog.memory.rounding import ceil_div

BLOCK_SIZE = 16
"""Tokens of a block on CUDA with FlashAttention and dense MLA (vLLM's CacheConfig.DEFAULT_BLOCK_SIZE)."""
SPARSE_BLOCK_SIZE = 64
"""FlashMLA's sparse kernel, which GLM-5 and DeepSeek V3.2 need, and its dense one over an fp8 cache."""
INDEXER_SCALE_BLOCK = 128
"""The indexer's cache keeps one fp32 scale for this many fp8 values."""

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
FP8_SPARSE_LATENT_BYTES = 656
"""A token of DeepSeek V3.2's latent under an fp8 cache (`fp8_ds_mla`): 512 fp8, 4 fp32 scales, 64 bf16."""


@dataclass(frozen=True)
class Unplannable:
    """Why there is no layout."""

    reason: str
    refused: str | None = None
    """The setting for which vLLM itself would refuse."""


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps, before vLLM aligns pages. `window` holds a sliding window or a chunk."""

    kind: AttentionKind
    block_size: int
    page_bytes: int
    window: int | None = None
    states: int = 1
    """Blocks that the state of one sequence takes."""
    alignment: int = 1
    """Bytes that blocks lie a multiple of apart, where those of all layers lie in one (block-outermost)."""


@dataclass(frozen=True)
class Group:
    """Layers that share one block table."""

    kind: AttentionKind
    layers: int
    """On the fullest pipeline stage."""
    block_size: int
    page_bytes: int
    """Of one layer (of all its layers where pages differ and there is one group)."""
    window: int | None = None
    states: int = 1

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """Blocks that one request of `max_model_len` tokens holds at most."""
        match self.kind:
            case AttentionKind.STATE:
                return self.states
            case AttentionKind.RING:
                return 1
            case AttentionKind.CROSS:
                # CrossAttentionSpec counts as many of the encoder's tokens as a batch may hold.
                return ceil_div(in_flight_tokens, self.block_size)
            case AttentionKind.SLIDING:
                assert self.window is not None
                # The last window − 1 tokens, those being computed, and one block more because a window
                # need not begin where a block does.
                tokens = min(self.window - 1 + in_flight_tokens, max_model_len)
                return ceil_div(tokens, self.block_size) + 1
            case AttentionKind.CHUNKED:
                assert self.window is not None
                return ceil_div(min(self.window + in_flight_tokens, max_model_len), self.block_size)
            case _:
                return ceil_div(max_model_len, self.block_size)


@dataclass(frozen=True)
class Layout:
    """The pool of one pipeline stage's GPU: groups that take blocks of one size from it."""

    groups: tuple[Group, ...]
    block_bytes: int
    """What one block costs: the page of a layer times the layers of the largest group."""
    in_flight_tokens: int
    bytes_per_token: int
    """What grows with each token: full attention and latents, all layers of this stage, on this GPU."""
    layers: tuple[tuple[LayerCache, int], ...]
    """The layers by kind with their number, before pages are made equal and groups padded."""
    check_bytes: int | None = None
    """What a block counts when vLLM checks that one request fits, where that is not what it costs."""
    reserved_blocks: int = 0
    """Blocks that the check leaves out, because the pool holds them back."""

    def blocks(self, max_model_len: int) -> int:
        """Blocks that one request takes from the pool."""
        return sum(group.blocks(max_model_len, self.in_flight_tokens) for group in self.groups)

    def pool_bytes(self, max_model_len: int) -> int:
        """What vLLM wants to be free before it starts: one request, groups padded to equal size."""
        return self.blocks(max_model_len) * (self.check_bytes or self.block_bytes)

    @property
    def reserved_bytes(self) -> int:
        """What has to be free beside one request."""
        return self.reserved_blocks * self.block_bytes

    def needed_bytes(self, max_model_len: int) -> int:
        """What the layers of one request hold, without the padding of groups (`max_memory_usage_bytes`)."""
        total = 0
        for cache, count in self.layers:
            group = Group(cache.kind, 1, cache.block_size, cache.page_bytes, cache.window, cache.states)
            total += count * group.blocks(max_model_len, self.in_flight_tokens) * cache.page_bytes
        return total

    def max_concurrency(self, available_bytes: int, max_model_len: int) -> float:
        """Requests of `max_model_len` tokens that fit at once."""
        blocks = self.blocks(max_model_len)
        if self.check_bytes is not None:
            held = sum(g.blocks(max_model_len, self.in_flight_tokens) * g.page_bytes for g in self.groups)
            blocks = ceil_div(held, self.groups[0].page_bytes)
        if not blocks or not self.block_bytes:
            return 0.0
        return max(0, available_bytes // self.block_bytes) / blocks

    def longest_model_len(
        self, available_bytes: int, limit: int, *, grows: Callable[[int], int] | None = None
    ) -> int:
        """The longest context, at most `limit`, of which one request fits; 0 where not one token does.

        What a request needs never falls as the context grows, so a bisection finds the exact length.

        Args:
            available_bytes: for the cache, at the context that the plan is for.
            limit: the model's own, in tokens.
            grows: bytes that a context takes beside the cache more than that one does, where it does.
        """
        if not self.groups:
            return limit
        available_bytes -= self.reserved_bytes

        def fits(tokens: int) -> bool:
            return self.pool_bytes(tokens) + (grows(tokens) if grows else 0) <= available_bytes

        if limit < 1 or not fits(1):
            return 0
        low, high = 1, limit
        while low < high:
            middle = (low + high + 1) // 2
            if fits(middle):
                low = middle
            else:
                high = middle - 1
        return low


def batches_in_flight(vllm_version: str, *, pipeline_parallel_size: int = 1) -> int:
    """Batches whose tokens a sliding window must hold at once, by vLLM version.

    Up to FIRST_CONCURRENT, SlidingWindowSpec.max_memory_usage_bytes counts one batch of
    max_num_batched_tokens; from it on VllmConfig.max_concurrent_batches: with async scheduling (the
    default) and the second model runner a batch per stage and one more. 0.26 to 0.28 take that runner for
    some architectures only, and else one batch less on several stages: there this is an upper bound.
    """
    if version_tuple(vllm_version) < FIRST_CONCURRENT:
        return 1
    return pipeline_parallel_size + 1


FIRST_CONCURRENT = (0, 26, 0)


def reserved_blocks(vllm_version: str) -> int:
    """Blocks that vLLM leaves out when it checks that a request fits: the null block, from 0.29 on."""
    return int(version_tuple(vllm_version) >= FIRST_NULL_BLOCK)


FIRST_NULL_BLOCK = (0, 29, 0)


def states_per_sequence(shape: Shape, vllm_version: str) -> int | Unplannable:
    """Blocks that vLLM keeps for the state of one sequence in a layer.

    One up to 0.26. From 0.27 on hybrids cache prefixes by default, and two are kept (mamba_cache_mode
    `align`); Mamba kept one per block of tokens (`all`) in 0.27 and 0.28, which is not planned here.
    """
    version = version_tuple(vllm_version)
    # Of hybrids that pool no prefixes are cached.
    if version < FIRST_PREFIX_CACHING or shape.pools:
        return 1
    mixers = [mixer for layer in shape.layers for mixer in layer.mixers]
    checkpoints = any(isinstance(m, Mamba2) or (isinstance(m, KimiDelta) and m.checkpoints) for m in mixers)
    if version < ALWAYS_ALIGNED and any(isinstance(m, Mamba1 | Mamba2) for m in mixers):
        return Unplannable(f"no plan for Mamba layers with vLLM {vllm_version[:20]}")
    # One more is set aside for the state at the last block's boundary (mamba_mixer2.py, kda_checkpoint.py of 0.32.0).
    return 3 if checkpoints and version >= PREFILL_CHECKPOINTS else 2


FIRST_PREFIX_CACHING = (0, 27, 0)
"""Qwen3.8-27B-FP8 keeps one state a sequence with 0.26.0 (its refusal names 8.18 GiB for 131,072 tokens), Qwen3.6-27B
two with 0.27.1 (71.42 requests of 4,096 tokens in 41.03 GiB)."""
ALWAYS_ALIGNED = (0, 29, 0)
PREFILL_CHECKPOINTS = (0, 32, 0)


def cache_dtype_bytes(shape: Shape, kv_cache_dtype: str) -> int | None:
    """Bytes per element of the cache; None for a dtype that has no fixed size here."""
    if kv_cache_dtype == "auto":
        stated = shape.quantization.kv_cache_dtype if shape.quantization else None
        return CACHE_DTYPE_BYTES[stated] if stated else shape.dtype_bytes
    return CACHE_DTYPE_BYTES.get(kv_cache_dtype)


def kv_heads(attention: Attention, tensor_parallel_size: int) -> int:
    """KV heads on one rank: replicated where there are fewer than ranks."""
    return max(1, attention.num_key_value_heads // tensor_parallel_size)


def state_bytes(mixer: Recurrent, tensor_parallel_size: int, dtype_bytes: int) -> int:
    """The state of one sequence in one layer on one rank: the convolution's and, where there is one, the recurrent."""
    tp = tensor_parallel_size
    match mixer:
        case GatedDeltaNet():
            width = (
                2 * mixer.key_head_dim * mixer.num_key_heads + mixer.value_head_dim * mixer.num_value_heads
            )
            elements = mixer.num_value_heads // tp * mixer.value_head_dim * mixer.key_head_dim
            recurrent = elements * mixer.state_bytes
        case Mamba2():
            groups = mixer.num_groups if mixer.num_groups % tp == 0 else tp
            width = mixer.num_heads * mixer.head_dim + 2 * groups * mixer.state_size
            recurrent = mixer.num_heads // tp * mixer.head_dim * mixer.state_size * mixer.state_bytes
        case Mamba1():
            width = mixer.intermediate_size
            recurrent = width // tp * mixer.state_size * dtype_bytes
        case KimiDelta():
            width = 3 * mixer.num_heads * mixer.head_dim
            recurrent = mixer.num_heads // tp * mixer.head_dim**2 * 4
        case LightningAttention():
            return mixer.num_heads // tp * mixer.head_dim**2 * dtype_bytes
        case ShortConv():
            width, recurrent = mixer.width, 0
    return width // tp * (mixer.conv_kernel - 1) * dtype_bytes + recurrent


def _token_bytes(mixer: Attention | LatentAttention, tensor_parallel_size: int, cache_bytes: int) -> int:
    """What one token takes in the layer's cache on a rank."""
    if isinstance(mixer, LatentAttention):
        return (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * cache_bytes
    return kv_heads(mixer, tensor_parallel_size) * (mixer.head_dim + mixer.v_head_dim) * cache_bytes


def _layer_caches(
    shape: Shape, layers: range, tensor_parallel_size: int, cache_bytes: int, states: int
) -> list[LayerCache]:
    """What each layer of a stage keeps, with the block sizes that vLLM gives to hybrids."""
    sparse = any(isinstance(x.mixer, LatentAttention) and x.mixer.sparse for x in shape.layers)
    # FlashMLA's kernels, which also serve dense MLA over an fp8 cache, take longer blocks.
    latent = any(isinstance(x.mixer, LatentAttention) for x in shape.layers)
    block = SPARSE_BLOCK_SIZE if sparse or (latent and cache_bytes == 1) else BLOCK_SIZE
    if shape.fp8_block_size is not None and cache_bytes == 1:
        block = shape.fp8_block_size
    pool = _pool(shape)
    if pool > 1:
        block = lcm(SPARSE_BLOCK_SIZE, INDEXER_PAGES[0] * pool)
    state = max(
        (
            state_bytes(m, tensor_parallel_size, shape.dtype_bytes)
            for x in shape.layers
            for m in x.mixers
            if isinstance(m, Recurrent)
        ),
        default=0,
    )
    if state:
        per_token = max(
            (
                _token_bytes(m, tensor_parallel_size, cache_bytes)
                for x in shape.layers
                for m in x.mixers
                if isinstance(m, Attention | LatentAttention)
            ),
            default=0,
        )
        if per_token:
            # A page of attention must hold a state: vLLM makes the block longer, then pads the state
            # (Platform._align_hybrid_block_size).
            unit = max(block, shape.hybrid_block_size or block)
            block = max(block, unit * ceil_div(state, unit * per_token))
            state = block * per_token
    # A stage without attention has no page that must hold a state: from 0.32 on its blocks stay as they are, and vLLM
    # puts them into groups of their own.
    has_attention = any(
        isinstance(m, Attention | LatentAttention) for i in layers for m in shape.layers[i].mixers
    )
    is_whole = has_attention or not shape.aligns_by_stage or shape.pools  # without prefixes, as in all stages
    state_block = block if is_whole else BLOCK_SIZE
    caches: list[LayerCache] = []
    for mixer in (m for i in layers for m in shape.layers[i].mixers):
        match mixer:
            case Attention():
                if mixer.kind is AttentionKind.NONE:
                    continue
                page = (
                    block
                    * kv_heads(mixer, tensor_parallel_size)
                    * (mixer.head_dim + mixer.v_head_dim)
                    * (shape.dtype_bytes if mixer.cache_in_dtype else cache_bytes)
                )
                window = mixer.sliding_window if mixer.sliding_window is not None else mixer.chunk
                caches.append(LayerCache(mixer.kind, block, page, window))
                if mixer.index_dim:
                    # One key for all heads on every rank, in the model's dtype whatever the cache's.
                    index = block * mixer.index_dim * shape.dtype_bytes
                    caches.append(LayerCache(AttentionKind.MLA, block, index))
            case LatentAttention():
                # One latent, whatever the number of heads and ranks; no factor two.
                width = (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * cache_bytes
                if mixer.sparse and cache_bytes == 1:
                    width = FP8_SPARSE_LATENT_BYTES
                # The sparse kernels read rows, whatever block they lie in.
                alignment = width if mixer.sparse else 1
                caches.append(LayerCache(AttentionKind.MLA, block, block * width, alignment=alignment))
                if mixer.indexer is not None:
                    caches.extend(_indexer_caches(mixer.indexer, block))
            case GatedDeltaNet() | KimiDelta() | LightningAttention() | Mamba2() | Mamba1() | ShortConv():
                caches.append(LayerCache(AttentionKind.STATE, state_block, state, states=states))
            case CompressedAttention():
                caches.extend(_compressed_caches(mixer))
    return caches


def _pool(shape: Shape) -> int:
    """Tokens that share a key of the sparse indexers."""
    indexers = (x.mixer.indexer for x in shape.layers if isinstance(x.mixer, LatentAttention))
    return max((i.pool for i in indexers if i is not None), default=1)


def _indexer_caches(indexer: Indexer, block: int) -> Iterator[LayerCache]:
    """Keys in fp8 with their scales; where tokens share them, a ring with the last ones' keys and gates beside."""
    dim, pool = indexer.head_dim, indexer.pool
    entry = dim + dim // INDEXER_SCALE_BLOCK * 4
    if pool == 1:
        yield LayerCache(AttentionKind.MLA, block, block * entry)
        return
    # Blocks longer than the longest page that the kernel reads hold several, and begin where one does.
    page = gcd(block, INDEXER_PAGES[1] * pool)
    alignment = 1 if page == block else page // pool * entry
    yield LayerCache(AttentionKind.MLA, block, block // pool * entry, alignment=alignment)
    yield LayerCache(AttentionKind.RING, pool, pool * 2 * dim * 2)


INDEXER_PAGES = 32, 64
"""Keys of a page, at least and at most, that the indexer's kernel reads (DeepGEMM's paged logits on Hopper)."""


V4_TOKEN_BYTES = 584
"""A latent of DeepSeek V4 under its fp8 layout: 448 fp8, 64 bf16, 8 of scales."""
V4_PAGE_ALIGNMENT = 576
V4_BLOCK_SIZE = 256


def _compressed_caches(mixer: CompressedAttention) -> Iterator[LayerCache]:
    """The caches of a DeepSeek V4 layer in vLLM 0.25.1: window, latents, indexer, states of compressors."""

    def page(content: int) -> int:
        return ceil_div(content, V4_PAGE_ALIGNMENT) * V4_PAGE_ALIGNMENT

    yield LayerCache(AttentionKind.SLIDING, 64, page(64 * V4_TOKEN_BYTES), mixer.sliding_window)
    ratio = mixer.compress_ratio
    if not ratio:
        return
    block = {4: 4, 128: 8}[ratio]
    window, overlap = (2 * ratio, 2) if ratio == 4 else (ratio, 1)
    latents = V4_BLOCK_SIZE // ratio
    if mixer.indexer is not None:
        dim = mixer.indexer.head_dim
        content = latents * (dim + dim // INDEXER_SCALE_BLOCK * 4)
        yield LayerCache(AttentionKind.MLA, V4_BLOCK_SIZE, page(content))
        yield LayerCache(AttentionKind.SLIDING, block, page(block * 2 * overlap * dim * 4), window)
    yield LayerCache(AttentionKind.MLA, V4_BLOCK_SIZE, page(latents * V4_TOKEN_BYTES))
    yield LayerCache(AttentionKind.SLIDING, block, page(block * 2 * overlap * mixer.head_dim * 4), window)


_Members = list[tuple[int, LayerCache]]
"""Layers of a group, each with its pipeline stage."""


def _tuples(members: _Members) -> int:
    """Layers of the page size that most of them have (vLLM's get_num_layer_tuples)."""
    counts: dict[int, int] = {}
    for _, cache in members:
        counts[cache.page_bytes] = counts.get(cache.page_bytes, 0) + 1
    return max(counts.values())


def _by_size(members: _Members) -> dict[int, _Members]:
    found: dict[int, _Members] = {}
    for stage, cache in members:
        found.setdefault(cache.page_bytes, []).append((stage, cache))
    return found


def _is_balanced(members: _Members) -> bool:
    """Whether there are as many layers of one page size as of any other."""
    return len({len(same) for same in _by_size(members).values()}) == 1


def _packed_groups(every: _Members) -> list[_Members]:
    """vLLM 0.32.0's _get_packed_kv_cache_groups: layers of several page sizes in blocks that hold a group."""
    kinds: dict[tuple[AttentionKind, int, int | None], _Members] = {}
    for stage, cache in every:
        kind = AttentionKind.FULL if cache.kind in _GROWING else cache.kind
        kinds.setdefault((kind, cache.block_size, cache.window), []).append((stage, cache))
    buckets = list(kinds.values())
    counts = [_tuples(members) for members in buckets if _is_balanced(members)]
    mixed = [_tuples(m) for m in buckets if _is_balanced(m) and len(_by_size(m)) > 1]
    best = min(
        range(max(mixed, default=1), max(counts, default=0) + 1),
        key=lambda d: (sum(ceil_div(n, d) * d - n for n in counts), -d),
        default=None,
    )
    repeats = best if mixed else None

    def parts(members: _Members) -> int:
        return ceil_div(_tuples(members), repeats) if repeats and _is_balanced(members) else 1

    def is_state(members: _Members) -> bool:
        kind = members[0][1].kind
        without_pattern = repeats is None and kind is AttentionKind.SLIDING
        return kind in (AttentionKind.STATE, AttentionKind.RING) or without_pattern

    def widest(members: _Members, groups: int) -> int:
        return sum(ceil_div(len(same), groups) * size for size, same in _by_size(members).items())

    block_bytes = max(widest(m, len(m) if is_state(m) else parts(m)) for m in buckets)
    groups = []
    for members in buckets:
        number = parts(members)
        if is_state(members):
            number = max(number, ceil_div(len(members), max(1, block_bytes // members[0][1].page_bytes)))
        sizes = list(_by_size(members).values())
        groups += [[m for same in sizes for m in same[i::number]] for i in range(number)]
    return groups


def _packed_layouts(by_stage: Sequence[Sequence[LayerCache]], in_flight_tokens: int) -> tuple[Layout, ...]:
    """The groups of the whole model, cut to each stage; a block is as large as the largest group there."""
    whole = _packed_groups([(stage, cache) for stage, caches in enumerate(by_stage) for cache in caches])
    layouts = []
    for stage, caches in enumerate(by_stage):
        groups = []
        for members in whole:
            here = [cache for s, cache in members if s == stage]
            first, page = members[0][1], sum(cache.page_bytes for cache in here)
            groups.append(Group(first.kind, len(here), first.block_size, page, first.window, first.states))
        unit = lcm(*(cache.alignment for cache in caches))
        block_bytes = ceil_div(max(group.page_bytes for group in groups), unit) * unit
        grows = sum(c.page_bytes // c.block_size for c in caches if c.kind in _GROWING)
        layouts.append(
            Layout(tuple(groups), block_bytes, in_flight_tokens, grows, tuple(_count(caches).items()))
        )
    return tuple(layouts)


def _compressed_groups(by_stage: Sequence[Sequence[LayerCache]], *, padded: bool) -> list[_Members]:
    """vLLM 0.25.1's _get_kv_cache_groups_uniform_groups: the latents, then windows in groups of like size.

    0.32.0's _get_packed_kv_cache_groups differs in that pages are not padded.
    """
    every = [(stage, cache) for stage, caches in enumerate(by_stage) for cache in caches]
    full = [(stage, cache) for stage, cache in every if cache.kind is AttentionKind.MLA]
    sizes = {cache.page_bytes for _, cache in full}
    windows: dict[tuple[int, int | None], dict[int, _Members]] = {}
    for stage, cache in every:
        if cache.kind is AttentionKind.SLIDING:
            # Padded to the next size that the latents have.
            size = min(s for s in sizes if s >= cache.page_bytes) if padded else cache.page_bytes
            of_size = windows.setdefault((cache.block_size, cache.window), {})
            of_size.setdefault(size, []).append((stage, replace(cache, page_bytes=size)))
    counts = [_tuples(full)] + [max(len(m) for m in by_size.values()) for by_size in windows.values()]
    best = min(
        range(counts[0], max(counts) + 1), key=lambda d: (sum(ceil_div(n, d) * d - n for n in counts), -d)
    )
    groups = [full]
    for by_size in windows.values():
        parts = ceil_div(len(next(iter(by_size.values()))), best)
        groups += [[m for members in by_size.values() for m in members[i::parts]] for i in range(parts)]
    return groups


def _compressed_layouts(
    by_stage: Sequence[Sequence[LayerCache]], in_flight_tokens: int, *, padded: bool
) -> tuple[Layout, ...]:
    """The groups of the whole model, cut to each stage, over packed blocks (_get_kv_cache_config_packed)."""
    whole = _compressed_groups(by_stage, padded=padded)
    layouts = []
    for stage, caches in enumerate(by_stage):
        mine = [[(s, cache) for s, cache in members if s == stage] for members in whole]
        # A group without a layer here keeps the size that it has in the whole model.
        sized = [here or members for here, members in zip(mine, whole, strict=True)]
        slots: dict[int, int] = {}
        groups = []
        for here, members in zip(mine, sized, strict=True):
            for size in {cache.page_bytes for _, cache in here}:
                count = sum(cache.page_bytes == size for _, cache in here)
                slots[size] = max(slots.get(size, 0), count)
            cache = members[0][1]
            page = sum(c.page_bytes for _, c in members)
            groups.append(Group(cache.kind, len(here), cache.block_size, page, cache.window))
        block_bytes = sum(size * count for size, count in slots.items())
        check_bytes = max(map(_tuples, sized)) * sum({cache.page_bytes for _, cache in sized[0]})
        if not padded:
            # From 0.32 on a block is as large as the largest group here.
            block_bytes = max(sum(cache.page_bytes for _, cache in here) for here in mine)
        layouts.append(
            Layout(
                tuple(groups),
                block_bytes,
                in_flight_tokens,
                sum(c.page_bytes // c.block_size for c in caches if c.kind is AttentionKind.MLA),
                tuple(_count(caches).items()),
                check_bytes=check_bytes if padded else None,
            )
        )
    return tuple(layouts)


def _unify_pages(caches: Sequence[LayerCache]) -> list[LayerCache]:
    """Give all layers one page size (vLLM's unify_kv_cache_spec_page_size)."""
    largest = max(c.page_bytes for c in caches)
    unified = {}
    for cache in set(caches):
        ratio = 1 if largest % cache.page_bytes else largest // cache.page_bytes
        unified[cache] = replace(cache, block_size=cache.block_size * ratio, page_bytes=largest)
    return [unified[cache] for cache in caches]


def _count(caches: Sequence[LayerCache]) -> dict[LayerCache, int]:
    counts: dict[LayerCache, int] = {}
    for cache in caches:
        counts[cache] = counts.get(cache, 0) + 1
    return counts


_GROWING = (AttentionKind.FULL, AttentionKind.MLA)


@lru_cache(maxsize=2048)
def plan_layout(
    shape: Shape,
    *,
    tensor_parallel_size: int = 1,
    stages: tuple[range, ...],
    kv_cache_dtype: str = "auto",
    in_flight_tokens: int,
    states: int = 1,
    reserved: int = 0,
) -> tuple[Layout, ...] | Unplannable:
    """The layout on a GPU of each pipeline stage; `stages` are the layers of each (weights.stages).

    What differs by version of vLLM is in `in_flight_tokens` (batches_in_flight), `states` (states_per_sequence)
    and `reserved` (reserved_blocks).

    Follows vLLM 0.25.1's get_kv_cache_groups: one group where all layers keep the same, one with pages
    of several sizes where all keep every token, else groups of equal count over pages of equal size.
    Groups are made for the whole model and then cut to the stage, as the planner does.
    """
    layouts = _layouts(shape, tensor_parallel_size, stages, kv_cache_dtype, in_flight_tokens, states)
    if isinstance(layouts, Unplannable) or not reserved:
        return layouts
    return tuple(replace(layout, reserved_blocks=reserved) for layout in layouts)


def _ringed_layouts(
    shape: Shape, by_stage: Sequence[Sequence[LayerCache]], cache_bytes: int, in_flight_tokens: int
) -> tuple[Layout, ...] | Unplannable:
    """Rings lie in blocks of all layers, and all stages have to ask for that."""
    if not all(any(cache.kind is AttentionKind.RING for cache in caches) for caches in by_stage):
        return Unplannable("vLLM's pipeline stages disagree on where layers lie in the cache")
    if cache_bytes == 1 and not all(_has_sparse_fp8(x.mixer) for x in shape.layers):
        return Unplannable("no plan for an fp8 cache of its sparse attention")
    return _packed_layouts(by_stage, in_flight_tokens)


def _has_sparse_fp8(mixer: object) -> bool:
    """FlashMLA alone reads such a cache, whose layout has 64 dimensions of positions."""
    if not isinstance(mixer, LatentAttention):
        return True
    return (mixer.kv_lora_rank, mixer.qk_rope_head_dim) == (512, 64)


def _layouts(
    shape: Shape,
    tensor_parallel_size: int,
    stages: tuple[range, ...],
    kv_cache_dtype: str,
    in_flight_tokens: int,
    states: int,
) -> tuple[Layout, ...] | Unplannable:
    cache_bytes = cache_dtype_bytes(shape, kv_cache_dtype)
    if cache_bytes is None:
        return Unplannable(f"no plan for kv_cache_dtype '{kv_cache_dtype[:40]}'")
    is_compressed = any(isinstance(layer.mixer, CompressedAttention) for layer in shape.layers)
    if is_compressed and cache_bytes != 1:
        return Unplannable("DeepSeek V4 is only served with kv_cache_dtype fp8", "kvCacheDtype")
    by_stage = [_layer_caches(shape, layers, tensor_parallel_size, cache_bytes, states) for layers in stages]
    if any(cache.kind is AttentionKind.RING for caches in by_stage for cache in caches):
        return _ringed_layouts(shape, by_stage, cache_bytes, in_flight_tokens)
    if is_compressed:
        return _compressed_layouts(by_stage, in_flight_tokens, padded=not shape.packs_blocks)
    if len(stages) > 1 and any(isinstance(x.mixer, Attention) and x.mixer.index_dim for x in shape.layers):
        # vLLM 0.25.1 gives a stage without dense attention longer blocks, and then pads the others to them.
        return Unplannable("no plan for the KV cache of MiniMax M3 on several pipeline stages")
    every = [cache for caches in by_stage for cache in caches]
    if not every:
        return tuple(Layout((), 0, in_flight_tokens, 0, ()) for _ in stages)
    uniform = len({replace(c, page_bytes=0) for c in set(every)}) == 1
    if not uniform and len({c.block_size for c in every}) == 1 and all(c.kind in _GROWING for c in every):
        uniform = True
    per_token = [
        sum(c.page_bytes // c.block_size for c in caches if c.kind in _GROWING) for caches in by_stage
    ]
    if uniform:
        layouts = []
        for caches, grows in zip(by_stage, per_token, strict=True):
            page = sum(c.page_bytes for c in caches)
            groups: tuple[Group, ...] = (
                (Group(caches[0].kind, len(caches), caches[0].block_size, page, caches[0].window),)
                if caches
                else ()
            )
            layouts.append(Layout(groups, page, in_flight_tokens, grows, tuple(_count(caches).items())))
        return tuple(layouts)
    unified = _unify_pages(every)
    names = [(stage, i) for stage, caches in enumerate(by_stage) for i in range(len(caches))]
    by_kind: dict[LayerCache, list[int]] = {}
    for (stage, _), cache in zip(names, unified, strict=True):
        by_kind.setdefault(cache, []).append(stage)
    sizes = [len(members) for members in by_kind.values()]
    # vLLM's heuristic: the rarest kind's count, unless the others are less than half as many again.
    size = max(sizes) if max(sizes) < 1.5 * min(sizes) else min(sizes)
    whole = [
        (cache, members[i :: ceil_div(len(members), size)])
        for cache, members in by_kind.items()
        for i in range(ceil_div(len(members), size))
    ]
    layouts = []
    for stage, (caches, grows) in enumerate(zip(by_stage, per_token, strict=True)):
        groups = tuple(
            Group(
                cache.kind,
                members.count(stage),
                cache.block_size,
                cache.page_bytes,
                cache.window,
                cache.states,
            )
            for cache, members in whole
        )
        block_bytes = max(g.layers for g in groups) * unified[0].page_bytes
        layouts.append(Layout(groups, block_bytes, in_flight_tokens, grows, tuple(_count(caches).items())))
    return tuple(layouts)

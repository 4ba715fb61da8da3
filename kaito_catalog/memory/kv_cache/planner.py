"""The layout of the KV cache on a GPU of each pipeline stage, as vLLM's planner makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kaito_catalog.architectures import Attention, BuiltShape, CompressedAttention, LatentAttention
from kaito_catalog.memory.kv_cache.choices import VLLMS_CHOICE, CacheChoices
from kaito_catalog.memory.kv_cache.groups import (
    Caches,
    grouped_layouts,
    is_uniform,
    uniform_layouts,
    without_hybrid_manager,
)
from kaito_catalog.memory.kv_cache.kinds import RingCache
from kaito_catalog.memory.kv_cache.layers import cache_dtype_bytes, kernel_block_size, layer_caches
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.packing import compressed_layouts, packed_layouts
from kaito_catalog.memory.kv_cache.states import why_unknown_states
from kaito_catalog.memory.remembered import remembered


@remembered(maxsize=2048)
def plan_layout(
    shape: BuiltShape,
    *,
    tensor_parallel_size: int = 1,
    stages: tuple[range, ...],
    kv_cache_dtype: str = "auto",
    in_flight_tokens: int,
    states: int = 1,
    reserved: int = 0,
    hybrid_kv_cache_manager: bool = True,
    choices: CacheChoices = VLLMS_CHOICE,
) -> tuple[Layout, ...] | Unplannable:
    """The layout on a GPU of each pipeline stage; `stages` are the layers of each (weights.split.stages).

    What differs by version of vLLM is in `in_flight_tokens` (batches_in_flight), `states` (states_per_sequence)
    and `reserved` (reserved_blocks).

    Follows vLLM 0.25.1's get_kv_cache_groups: one group where all layers keep the same, one with pages
    of several sizes where all keep every token, else groups of equal count over pages of equal size.
    Groups are made for the whole model and then cut to the stage, as the planner does.

    Without `hybrid_kv_cache_manager` (`disable-hybrid-kv-cache-manager`, or a KV connector that does not support it)
    all layers keep every token, and a model is refused whose layers cannot.
    """
    element_bytes = cache_dtype_bytes(shape, kv_cache_dtype)
    if element_bytes is None:
        return Unplannable(f"no plan for kv_cache_dtype '{kv_cache_dtype[:40]}'")
    is_compressed = any(isinstance(layer.mixer, CompressedAttention) for layer in shape.layers)
    if is_compressed and element_bytes != 1:
        return Unplannable("DeepSeek V4 is only served with kv_cache_dtype fp8", "kvCacheDtype")
    unknown = _why_unknown(shape, element_bytes, choices)
    if unknown is not None:
        return Unplannable(unknown)
    by_stage = layer_caches(
        shape,
        stages,
        tensor_parallel_size=tensor_parallel_size,
        element_bytes=element_bytes,
        states=states,
        choices=choices,
    )
    if not hybrid_kv_cache_manager:
        found = _without_hybrid_manager(by_stage, is_compressed=is_compressed)
        if isinstance(found, Unplannable):
            return found
        by_stage = found
    if choices.decode_context_parallel_size > 1:
        refused = _unshared(by_stage)
        if refused is not None:
            return refused
    layouts = _grouped(shape, by_stage, element_bytes, in_flight_tokens, is_compressed=is_compressed)
    if isinstance(layouts, Unplannable) or not reserved:
        return layouts
    return tuple(replace(layout, reserved_blocks=reserved) for layout in layouts)


def _why_unknown(shape: BuiltShape, element_bytes: int, choices: CacheChoices) -> str | None:
    """Why options leave the layout unknown: back ends that were not read, dtypes that were not compared."""
    if choices.block_size is not None:
        unit = kernel_block_size(shape, element_bytes)
        is_fixed = any(isinstance(m, CompressedAttention) for layer in shape.layers for m in layer.mixers)
        if choices.block_size % unit or (is_fixed and choices.block_size != unit):
            only = f"{unit:,} tokens" if is_fixed else f"a multiple of {unit:,} tokens"
            return f"no plan for block-size {choices.block_size:,}: the kernels of this model were read with {only}"
    return why_unknown_states(shape, choices)


def _unshared(stages: tuple[Caches, ...]) -> Unplannable | None:
    """Why it is unknown what ranks hold that share the tokens of a request: other kinds of cache were not compared."""
    names = {cache.kind for caches in stages for cache in caches if not cache.keeps_every_token}
    if not names:
        return None
    kinds = ", ".join(sorted(names))
    return Unplannable(f"no plan for decode-context-parallel-size above 1 with layers that keep {kinds}")


def _grouped(
    shape: BuiltShape,
    stages: Sequence[Caches],
    element_bytes: int,
    in_flight_tokens: int,
    *,
    is_compressed: bool,
) -> tuple[Layout, ...] | Unplannable:
    kinds = {cache for caches in stages for cache in caches}
    if any(isinstance(cache, RingCache) for cache in kinds):
        return _ringed_layouts(shape, stages, element_bytes, in_flight_tokens)
    if is_compressed:
        return compressed_layouts(stages, in_flight_tokens, padded=not shape.packs_blocks)
    if len(stages) > 1 and any(isinstance(x.mixer, Attention) and x.mixer.index_dim for x in shape.layers):
        # vLLM 0.25.1 gives a stage without dense attention longer blocks, and then pads the others to them.
        return Unplannable("no plan for the KV cache of MiniMax M3 on several pipeline stages")
    if not kinds or is_uniform(kinds):
        return uniform_layouts(stages, in_flight_tokens)
    return grouped_layouts(stages, in_flight_tokens)


def _without_hybrid_manager(
    stages: tuple[Caches, ...], *, is_compressed: bool
) -> tuple[Caches, ...] | Unplannable:
    kinds = {cache for caches in stages for cache in caches}
    if is_compressed or any(isinstance(cache, RingCache) for cache in kinds):
        return Unplannable(
            "no plan for the KV cache of its sparse attention without the hybrid KV cache manager"
        )
    found = without_hybrid_manager(stages)
    if found is None:
        names = ", ".join(sorted({cache.kind for cache in kinds}))
        return Unplannable(
            f"without the hybrid KV cache manager all layers have to keep a cache of one kind, and vLLM refuses the "
            f"model: it has {names}",
            "disableHybridKvCacheManager",
        )
    return found


def _ringed_layouts(
    shape: BuiltShape, stages: Sequence[Caches], element_bytes: int, in_flight_tokens: int
) -> tuple[Layout, ...] | Unplannable:
    """Rings lie in blocks of all layers, and all stages have to ask for that."""
    if not all(any(isinstance(cache, RingCache) for cache in caches) for caches in stages):
        return Unplannable("vLLM's pipeline stages disagree on where layers lie in the cache")
    if element_bytes == 1 and not all(_has_sparse_fp8(x.mixer) for x in shape.layers):
        return Unplannable("no plan for an fp8 cache of its sparse attention")
    return packed_layouts(stages, in_flight_tokens)


def _has_sparse_fp8(mixer: object) -> bool:
    """FlashMLA alone reads such a cache, whose layout has 64 dimensions of positions."""
    if not isinstance(mixer, LatentAttention):
        return True
    return (mixer.kv_lora_rank, mixer.qk_rope_head_dim) == (512, 64)

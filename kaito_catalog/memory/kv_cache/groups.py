"""Groups of layers over pages of one size: one group where all layers are alike, else several of equal count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kaito_catalog.memory.kv_cache.kinds import FullAttentionCache, LayerCache
from kaito_catalog.memory.kv_cache.layout import Group, Layout, bytes_per_token, counted
from kaito_catalog.memory.rounding import ceil_div

Caches = tuple[LayerCache, ...]
"""What the layers of one pipeline stage keep."""


def is_uniform(caches: Iterable[LayerCache]) -> bool:
    """Whether one group will do: all layers keep every token in blocks of one length, or differ by their pages alone.

    vLLM's is_kv_cache_spec_uniform and UniformTypeKVCacheSpecs.is_uniform_type.
    """
    kinds = set(caches)
    if all(cache.keeps_every_token for cache in kinds):
        return len({cache.block_size for cache in kinds}) == 1
    return len({replace(cache, page_bytes=0) for cache in kinds}) == 1


def without_hybrid_manager(stages: Sequence[Caches]) -> tuple[Caches, ...] | None:
    """The layers where the hybrid KV cache manager is off: all of one kind, as only that is managed then.

    Beside full attention, windows and chunks keep every token (unify_hybrid_kv_cache_specs, in 0.32
    _promote_local_kv_cache_specs). None where that does not make all layers alike, which vLLM refuses.
    """
    kinds = {cache for caches in stages for cache in caches}
    if not kinds or is_uniform(kinds):
        return tuple(stages)
    if any(isinstance(cache, FullAttentionCache) for cache in kinds):
        stages = [tuple(cache.without_hybrid_manager() for cache in caches) for caches in stages]
    return tuple(stages) if is_uniform(cache for caches in stages for cache in caches) else None


def uniform_layouts(stages: Sequence[Caches], in_flight_tokens: int) -> tuple[Layout, ...]:
    """One group, whose block has the pages of all its layers."""
    return tuple(_uniform_layout(caches, in_flight_tokens) for caches in stages)


def _uniform_layout(caches: Caches, in_flight_tokens: int) -> Layout:
    block_bytes = sum(cache.page_bytes for cache in caches)
    is_equal = len({cache.page_bytes for cache in caches}) == 1
    page_bytes = caches[0].page_bytes if is_equal else block_bytes
    groups = (Group(caches[0], len(caches), page_bytes),) if caches else ()
    return Layout(groups, block_bytes, in_flight_tokens, bytes_per_token(caches), counted(caches))


def grouped_layouts(stages: Sequence[Caches], in_flight_tokens: int) -> tuple[Layout, ...]:
    """Groups of equal count, made of the whole model and then cut to each stage.

    vLLM's _get_kv_cache_groups_uniform_page_size: the rarest kind's count, unless the others are less than half as
    many again.
    """
    largest = max(cache.page_bytes for caches in stages for cache in caches)
    stages_of: dict[LayerCache, list[int]] = {}
    with_page: dict[LayerCache, LayerCache] = {}
    for stage, caches in enumerate(stages):
        for cache in caches:
            if cache not in with_page:
                with_page[cache] = cache.with_page(largest)
            stages_of.setdefault(with_page[cache], []).append(stage)
    sizes = [len(members) for members in stages_of.values()]
    size = max(sizes) if max(sizes) < 1.5 * min(sizes) else min(sizes)
    whole = [
        (cache, members[i :: ceil_div(len(members), size)])
        for cache, members in stages_of.items()
        for i in range(ceil_div(len(members), size))
    ]
    layouts = []
    for stage, caches in enumerate(stages):
        groups = tuple(Group(cache, members.count(stage), cache.page_bytes) for cache, members in whole)
        block_bytes = max(group.layers for group in groups) * largest
        layouts.append(
            Layout(groups, block_bytes, in_flight_tokens, bytes_per_token(caches), counted(caches))
        )
    return tuple(layouts)

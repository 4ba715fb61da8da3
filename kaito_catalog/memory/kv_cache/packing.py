"""Groups of layers whose pages differ in size, packed into blocks that hold one group each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from kaito_catalog.memory.kv_cache.groups import Caches
from kaito_catalog.memory.kv_cache.kinds import (
    FullAttentionCache,
    LatentCache,
    LayerCache,
    RingCache,
    SlidingWindowCache,
    StateCache,
)
from kaito_catalog.memory.kv_cache.layout import Group, Layout, bytes_per_token, counted
from kaito_catalog.memory.rounding import ceil_div, round_up

Members = list[tuple[int, LayerCache]]
"""Layers of a group, each with its pipeline stage."""


def packed_layouts(stages: Sequence[Caches], in_flight_tokens: int) -> tuple[Layout, ...]:
    """vLLM 0.32.0's groups of the whole model, cut to each stage; a block is as large as the largest group there."""
    whole = _packed_groups(_members(stages))
    layouts = []
    for stage, caches in enumerate(stages):
        groups = []
        for members in whole:
            here = [cache for s, cache in members if s == stage]
            groups.append(Group(members[0][1], len(here), sum(cache.page_bytes for cache in here)))
        unit = lcm(*(cache.alignment for cache in caches if isinstance(cache, LatentCache)))
        block_bytes = round_up(max(group.page_bytes for group in groups), unit)
        grows = bytes_per_token(caches)
        layouts.append(Layout(tuple(groups), block_bytes, in_flight_tokens, grows, counted(caches)))
    return tuple(layouts)


def compressed_layouts(
    stages: Sequence[Caches], in_flight_tokens: int, *, padded: bool
) -> tuple[Layout, ...]:
    """DeepSeek V4's groups of the whole model, cut to each stage, over packed blocks (_get_kv_cache_config_packed).

    Args:
        stages: what the layers of each stage keep.
        in_flight_tokens: tokens being computed.
        padded: whether pages of windows are padded to those of latents: before 0.32.
    """
    whole = _compressed_groups(_members(stages), padded=padded)
    return tuple(
        _compressed_layout(whole, stage, caches, in_flight_tokens, padded=padded)
        for stage, caches in enumerate(stages)
    )


def _members(stages: Sequence[Caches]) -> Members:
    return [(stage, cache) for stage, caches in enumerate(stages) for cache in caches]


def _by_page(members: Members) -> dict[int, Members]:
    found: dict[int, Members] = {}
    for stage, cache in members:
        found.setdefault(cache.page_bytes, []).append((stage, cache))
    return found


def _most_of_a_page(members: Members) -> int:
    """Layers of the page size that most of them have (get_num_layer_tuples, later get_max_layers_per_page_size)."""
    return max(len(same) for same in _by_page(members).values())


def _is_balanced(members: Members) -> bool:
    """Whether there are as many layers of one page size as of any other."""
    return len({len(same) for same in _by_page(members).values()}) == 1


def _least_padding(counts: list[int], least: int) -> int | None:
    """The number of layers, at least so many, that divides the counts with least padding (_approximate_gcd)."""
    return min(
        range(least, max(counts, default=0) + 1),
        key=lambda number: (sum(ceil_div(n, number) * number - n for n in counts), -number),
        default=None,
    )


def _packed_groups(every: Members) -> list[Members]:
    """vLLM 0.32.0's _get_packed_kv_cache_groups: layers of several page sizes in blocks that hold a group."""
    kinds: dict[tuple[type[LayerCache], int, int | None], Members] = {}
    for stage, cache in every:
        kind = FullAttentionCache if cache.keeps_every_token else type(cache)
        kinds.setdefault((kind, cache.block_size, cache.window), []).append((stage, cache))
    buckets = list(kinds.values())
    counts = [_most_of_a_page(members) for members in buckets if _is_balanced(members)]
    mixed = [_most_of_a_page(m) for m in buckets if _is_balanced(m) and len(_by_page(m)) > 1]
    repeats = _least_padding(counts, max(mixed)) if mixed else None

    def parts(members: Members) -> int:
        return ceil_div(_most_of_a_page(members), repeats) if repeats and _is_balanced(members) else 1

    def is_state(members: Members) -> bool:
        without_pattern = repeats is None and isinstance(members[0][1], SlidingWindowCache)
        return isinstance(members[0][1], StateCache | RingCache) or without_pattern

    def widest(members: Members, groups: int) -> int:
        return sum(ceil_div(len(same), groups) * size for size, same in _by_page(members).items())

    block_bytes = max(widest(m, len(m) if is_state(m) else parts(m)) for m in buckets)
    groups = []
    for members in buckets:
        number = parts(members)
        if is_state(members):
            number = max(number, ceil_div(len(members), max(1, block_bytes // members[0][1].page_bytes)))
        sizes = list(_by_page(members).values())
        groups += [[m for same in sizes for m in same[i::number]] for i in range(number)]
    return groups


def _compressed_groups(every: Members, *, padded: bool) -> list[Members]:
    """vLLM 0.25.1's _get_kv_cache_groups_uniform_groups: the latents, then windows in groups of like size.

    0.32.0's _get_packed_kv_cache_groups differs in that pages are not padded.
    """
    latents: Members = [(stage, cache) for stage, cache in every if isinstance(cache, LatentCache)]
    sizes = {cache.page_bytes for _, cache in latents}
    windows: dict[tuple[int, int], dict[int, Members]] = {}
    for stage, cache in every:
        if isinstance(cache, SlidingWindowCache):
            # Padded to the next size that the latents have.
            size = min(s for s in sizes if s >= cache.page_bytes) if padded else cache.page_bytes
            of_size = windows.setdefault((cache.block_size, cache.sliding_window), {})
            of_size.setdefault(size, []).append((stage, replace(cache, page_bytes=size)))
    counts = [_most_of_a_page(latents)]
    counts += [max(len(m) for m in of_size.values()) for of_size in windows.values()]
    best = _least_padding(counts, counts[0])
    assert best is not None
    groups = [latents]
    for of_size in windows.values():
        parts = ceil_div(len(next(iter(of_size.values()))), best)
        groups += [[m for members in of_size.values() for m in members[i::parts]] for i in range(parts)]
    return groups


def _compressed_layout(
    whole: list[Members], stage: int, caches: Caches, in_flight_tokens: int, *, padded: bool
) -> Layout:
    mine = [[(s, cache) for s, cache in members if s == stage] for members in whole]
    # A group without a layer here keeps the size that it has in the whole model.
    sized = [here or members for here, members in zip(mine, whole, strict=True)]
    slots: dict[int, int] = {}
    groups = []
    for here, members in zip(mine, sized, strict=True):
        for size, same in _by_page(here).items():
            slots[size] = max(slots.get(size, 0), len(same))
        groups.append(Group(members[0][1], len(here), sum(cache.page_bytes for _, cache in members)))
    layout = Layout(
        tuple(groups),
        sum(size * count for size, count in slots.items()),
        in_flight_tokens,
        bytes_per_token(caches),
        counted(caches),
    )
    if padded:
        return replace(layout, check_bytes=max(map(_most_of_a_page, sized)) * sum(_by_page(sized[0])))
    # From 0.32 on a block is as large as the largest group here.
    return replace(layout, block_bytes=max(sum(cache.page_bytes for _, cache in here) for here in mine))

"""What a plan says beside its figures: the groups of layers that share blocks, and where each figure comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaito_catalog.memory.kv_cache.kinds import StateCache
from kaito_catalog.memory.kv_cache.layout import Layout


def groups_of(layout: Layout) -> tuple[Mapping[str, Any], ...]:
    """The groups of layers that share blocks, as plain values."""
    return tuple(
        {
            "kind": group.cache.kind,
            "layers": group.layers,
            "blockSize": None if isinstance(group.cache, StateCache) else group.cache.block_size,
            "pageBytes": group.page_bytes,
            "window": group.cache.window,
        }
        for group in layout.groups
    )


def sources_of(weights: str, *, is_cache_given: bool) -> dict[str, str]:
    """Where each figure comes from: `weights` says it of those."""
    computed = (
        "budgetBytes", "kvCacheNeededBytes", "bytesPerToken", "groups",
    )  # fmt: skip
    calibrated = ("nonTorchBytes", "activationPeakBytes", "cudaGraphBytes")
    derived = ("kvCacheAvailableBytes", "tokens", "maxConcurrency", "longestModelLen")
    sources = dict.fromkeys(computed, "configuration") | dict.fromkeys(calibrated, "measured")
    # What is derived from several is as good as the least certain of them.
    sources |= {
        **dict.fromkeys(derived, "configuration" if is_cache_given else "measured"),
        "weightsBytes": weights,
    }
    return sources | {"budgetBytes": "measured"} if is_cache_given else sources

"""The pool of one GPU: groups of layers that take blocks of one size from it, and what requests hold of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kaito_catalog.memory.kv_cache.kinds import LayerCache
from kaito_catalog.memory.rounding import ceil_div


@dataclass(frozen=True)
class Unplannable:
    """Why there is no layout."""

    reason: str
    refused: str | None = None
    """The setting for which vLLM itself would refuse."""


@dataclass(frozen=True)
class Group:
    """Layers that share one block table."""

    cache: LayerCache
    """What one of them keeps: the first, where pages differ."""
    layers: int
    """On the fullest pipeline stage."""
    page_bytes: int
    """Of one layer (of all its layers where pages differ and there is one group)."""

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """Blocks that one request of `max_model_len` tokens holds at most."""
        return self.cache.blocks(max_model_len, in_flight_tokens)


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
        return sum(group.cache.blocks(max_model_len, self.in_flight_tokens) for group in self.groups)

    def pool_bytes(self, max_model_len: int) -> int:
        """What vLLM wants to be free before it starts: one request, groups padded to equal size."""
        return self.blocks(max_model_len) * (self.check_bytes or self.block_bytes)

    @property
    def reserved_bytes(self) -> int:
        """What has to be free beside one request."""
        return self.reserved_blocks * self.block_bytes

    def needed_bytes(self, max_model_len: int) -> int:
        """What the layers of one request hold, without the padding of groups: vLLM asks for `pool_bytes` instead."""
        return sum(
            count * cache.blocks(max_model_len, self.in_flight_tokens) * cache.page_bytes
            for cache, count in self.layers
        )

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


def counted(caches: tuple[LayerCache, ...]) -> tuple[tuple[LayerCache, int], ...]:
    """Each kind of cache with the number of its layers, in the order in which they first come."""
    counts: dict[LayerCache, int] = {}
    for cache in caches:
        counts[cache] = counts.get(cache, 0) + 1
    return tuple(counts.items())


def bytes_per_token(caches: tuple[LayerCache, ...]) -> int:
    """What grows with each token of a request, all layers."""
    return sum(cache.page_bytes // cache.block_size for cache in caches if cache.keeps_every_token)

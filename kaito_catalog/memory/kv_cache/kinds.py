"""What one layer keeps of the tokens it has seen: a class for each kind of cache, as vLLM's KVCacheSpec has them.

A kind says how many bytes a block of its layer takes, how many blocks one request holds, and what it becomes where
layers have to share one page size or one kind. To add one, add its class here and build it in `layers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd
from typing import ClassVar, TypeVar

from kaito_catalog.architectures import Indexer, LatentAttention
from kaito_catalog.memory.rounding import ceil_div

Kind = TypeVar("Kind", bound="LayerCache")

FP8_SPARSE_LATENT_BYTES = 656
"""A token of DeepSeek V3.2's latent under an fp8 cache (`fp8_ds_mla`): 512 fp8, 4 fp32 scales, 64 bf16."""
INDEXER_SCALE_BLOCK = 128
"""The indexer's cache keeps one fp32 scale for this many fp8 values."""
INDEXER_PAGES = 32, 64
"""Keys of a page, at least and at most, that the indexer's kernel reads (DeepGEMM's paged logits on Hopper)."""


@dataclass(frozen=True)
class LayerCache:
    """The cache of one layer on one rank; what all kinds have."""

    block_size: int
    """Tokens of a block."""
    page_bytes: int
    """Bytes of this layer's part of a block."""

    kind: ClassVar[str]
    """What it is called in JSON."""
    keeps_every_token: ClassVar[bool] = False
    """Whether what a request holds grows with all of its tokens."""

    @property
    def window(self) -> int | None:
        """Tokens of the window or chunk that the layer sees, in JSON; None where it sees all, or none."""
        return None

    @property
    def states(self) -> int:
        """Blocks that the state of one sequence takes, in JSON; 1 where there is none."""
        return 1

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """Blocks that one request of `max_model_len` tokens holds at most, with so many tokens being computed."""
        raise NotImplementedError

    def with_page(self: Kind, page_bytes: int) -> Kind:
        """With the page of the layer that has the largest (vLLM's unify_kv_cache_spec_page_size).

        A block of as many tokens as fill it, where they do, and otherwise one that is padded.
        """
        ratio = 1 if page_bytes % self.page_bytes else page_bytes // self.page_bytes
        return replace(self, block_size=self.block_size * ratio, page_bytes=page_bytes)

    def without_hybrid_manager(self) -> LayerCache:
        """What it is beside full attention where the hybrid KV cache manager is off (unify_hybrid_kv_cache_specs)."""
        return self


@dataclass(frozen=True)
class FullAttentionCache(LayerCache):
    """Keys and values of every token (FullAttentionSpec)."""

    context_parallel_size: int = field(default=1, kw_only=True)
    """Ranks that share the tokens, each with its part of them."""

    kind: ClassVar[str] = "full"
    keeps_every_token: ClassVar[bool] = True

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """This rank's part of all tokens."""
        return ceil_div(ceil_div(max_model_len, self.context_parallel_size), self.block_size)


@dataclass(frozen=True)
class LatentCache(FullAttentionCache):
    """One latent for each token, whatever the number of heads and ranks (MLAAttentionSpec)."""

    alignment: int = 1
    """Bytes that blocks lie a multiple of apart, where those of all layers lie in one (block-outermost)."""

    kind: ClassVar[str] = "mla"

    @classmethod
    def of(cls, attention: LatentAttention, block_size: int, element_bytes: int) -> LatentCache:
        """The cache of a layer with latents; there is no factor of two."""
        width = (attention.kv_lora_rank + attention.qk_rope_head_dim) * element_bytes
        if attention.sparse and element_bytes == 1:
            width = FP8_SPARSE_LATENT_BYTES
        # The sparse kernels read rows, whatever block they lie in.
        return cls(block_size, block_size * width, width if attention.sparse else 1)


@dataclass(frozen=True)
class IndexerCache(LatentCache):
    """Keys of a sparse indexer, in fp8 with their scales (MLAAttentionSpec too)."""

    @classmethod
    def of_indexer(cls, indexer: Indexer, block_size: int) -> IndexerCache:
        """The cache of an indexer beside latents; tokens may share a key."""
        entry = indexer_entry_bytes(indexer.head_dim)
        if indexer.pool == 1:
            return cls(block_size, block_size * entry)
        # Blocks longer than the longest page that the kernel reads hold several, and begin where one does.
        page = gcd(block_size, INDEXER_PAGES[1] * indexer.pool)
        alignment = 1 if page == block_size else page // indexer.pool * entry
        return cls(block_size, block_size // indexer.pool * entry, alignment)


def indexer_entry_bytes(head_dim: int) -> int:
    """A key of an indexer: one fp8 value a dimension, and a scale for each INDEXER_SCALE_BLOCK of them."""
    return head_dim + head_dim // INDEXER_SCALE_BLOCK * 4


@dataclass(frozen=True)
class SlidingWindowCache(LayerCache):
    """Keys and values of the last tokens (SlidingWindowSpec, SlidingWindowMLASpec)."""

    sliding_window: int

    kind: ClassVar[str] = "sliding"

    @property
    def window(self) -> int:
        """The sliding window."""
        return self.sliding_window

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """The last window − 1 tokens, those being computed, and one block more: a window begins anywhere in one."""
        tokens = min(self.sliding_window - 1 + in_flight_tokens, max_model_len)
        return ceil_div(tokens, self.block_size) + 1

    def without_hybrid_manager(self) -> LayerCache:
        """A cache of every token; the window matters to what is computed alone."""
        return FullAttentionCache(self.block_size, self.page_bytes)


@dataclass(frozen=True)
class ChunkedLocalCache(LayerCache):
    """Keys and values of the tokens of a chunk (ChunkedLocalAttentionSpec)."""

    attention_chunk_size: int

    kind: ClassVar[str] = "chunked"

    @property
    def window(self) -> int:
        """The chunk."""
        return self.attention_chunk_size

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """A chunk and the tokens being computed."""
        return ceil_div(min(self.attention_chunk_size + in_flight_tokens, max_model_len), self.block_size)

    def without_hybrid_manager(self) -> LayerCache:
        """A cache of every token; the chunks matter to what is computed alone."""
        return FullAttentionCache(self.block_size, self.page_bytes)


@dataclass(frozen=True)
class StateCache(LayerCache):
    """A state of fixed size for each sequence: Mamba, linear attention, short convolutions (MambaSpec)."""

    blocks_per_sequence: int

    kind: ClassVar[str] = "linear-state"

    @property
    def states(self) -> int:
        """The blocks of one sequence."""
        return self.blocks_per_sequence

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """As many for every length."""
        return self.blocks_per_sequence


@dataclass(frozen=True)
class CrossAttentionCache(LayerCache):
    """Keys and values of an encoder's output (CrossAttentionSpec)."""

    kind: ClassVar[str] = "cross"

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """As many of the encoder's tokens as a batch may hold."""
        return ceil_div(in_flight_tokens, self.block_size)


@dataclass(frozen=True)
class RingCache(LayerCache):
    """Keys and gates of the last tokens that are to share a key of an indexer (CircularBufferSpec of 0.32)."""

    kind: ClassVar[str] = "ring"

    @classmethod
    def of(cls, indexer: Indexer) -> RingCache:
        """The ring beside an indexer's cache: a key and a gate in bf16 for each token of a pool."""
        return cls(indexer.pool, indexer.pool * 2 * indexer.head_dim * 2)

    def blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """One for as long as the request lives."""
        return 1

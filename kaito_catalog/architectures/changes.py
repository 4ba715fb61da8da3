"""What differs between versions of vLLM, as functions from a shape to a shape, for the records of architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from kaito_catalog.architectures.mixers import Attention, LatentAttention
from kaito_catalog.architectures.shape import BuiltShape, Experts, Layer, Mlp

Version: TypeAlias = tuple[int, int, int]
"""A version of vLLM."""

V0_32_0: Version = (0, 32, 0)

LATENT_HYBRID_BLOCK = 128
"""Tokens that blocks of hybrids with latents are a multiple of with 0.32.0 on Hopper."""


@dataclass(frozen=True)
class Change:
    """What some versions of vLLM build otherwise than a reader says."""

    make: Callable[[BuiltShape], BuiltShape]
    since: Version | None = None
    """The first version that it is true of; None: all before `before`."""
    before: Version | None = None
    """The first version that it is not true of any more; None: no version yet."""

    def applies(self, version: Version) -> bool:
        """Whether that version builds it so."""
        return (self.since is None or version >= self.since) and (
            self.before is None or version < self.before
        )


def since(version: Version, *changes: Callable[[BuiltShape], BuiltShape]) -> tuple[Change, ...]:
    """Changes from that version on."""
    return tuple(Change(change, since=version) for change in changes)


def before(version: Version, *changes: Callable[[BuiltShape], BuiltShape]) -> tuple[Change, ...]:
    """Changes in versions before that one."""
    return tuple(Change(change, before=version) for change in changes)


def in_layers(change: Callable[[Layer], Layer]) -> Callable[[BuiltShape], BuiltShape]:
    """The change of a layer in each of them."""
    return lambda shape: replace(shape, layers=tuple(change(layer) for layer in shape.layers))


def in_attention(**fields: object) -> Callable[[BuiltShape], BuiltShape]:
    """Other values of these fields of each softmax attention."""

    def change(layer: Layer) -> Layer:
        mixer = layer.mixer
        if not isinstance(mixer, Attention):
            return layer
        return replace(layer, mixer=replace(mixer, **fields))  # type: ignore[arg-type]

    return in_layers(change)


def in_experts(**fields: object) -> Callable[[BuiltShape], BuiltShape]:
    """Other values of these fields of each mixture of experts."""

    def change(layer: Layer) -> Layer:
        block = layer.feed_forward
        if not isinstance(block, Experts):
            return layer
        return replace(layer, feed_forward=replace(block, **fields))  # type: ignore[arg-type]

    return in_layers(change)


def in_mlps(**fields: object) -> Callable[[BuiltShape], BuiltShape]:
    """Other values of these fields of each dense feed-forward block."""

    def change(layer: Layer) -> Layer:
        block = layer.feed_forward
        if not isinstance(block, Mlp):
            return layer
        return replace(layer, feed_forward=replace(block, **fields))  # type: ignore[arg-type]

    return in_layers(change)


def built_once(shape: BuiltShape) -> BuiltShape:
    """No part is on more than one stage: most such models go through the Transformers back end."""
    return replace(shape, on_every_stage=frozenset())


def latent_hybrid_blocks(shape: BuiltShape) -> BuiltShape:
    """A hybrid with latents, whose blocks are made longer."""
    return replace(shape, hybrid_block_size=LATENT_HYBRID_BLOCK)


def expanded(layer: Layer) -> Layer:
    """A layer of latents that works with keys and values of every head."""
    latent = layer.mixer
    if not isinstance(latent, LatentAttention):
        return layer
    width = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    heads = latent.num_attention_heads
    return replace(layer, mixer=Attention(heads, heads, width, width, projections=latent))

"""What gives embeddings and scores: decoders and encoders with another end."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.reading.parts import unweighed
from kaito_catalog.architectures.reading.record import Reader, Source
from kaito_catalog.architectures.shape import Shape

_PADDING = 64
"""vLLM's tables of positions and kinds of tokens are padded like a vocabulary's."""


def padded(rows: int) -> int:
    """Rows of a table as vLLM allocates them."""
    return -(-rows // _PADDING) * _PADDING


def labels(text: Fields) -> int:
    """Classes that a head tells apart."""
    names = text.values.get("id2label")
    if isinstance(names, dict) and names:
        return len(names)
    return text.count("num_labels", default=2, most=10**6)


def bidirectional(shape: Shape) -> Shape:
    """The same layers, all of which see every token at once and keep nothing."""
    layers = tuple(
        replace(x, mixer=replace(x.mixer, bidirectional=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def pooling(read: Reader, *, scored: bool = False) -> Reader:
    """A decoder that gives embeddings; with `scored`, a head over the labels is in its output embedding's place."""

    def pooled(source: Source) -> Shape:
        shape = read(source)
        # vLLM keeps the scores' head in fp32.
        plain = 2 * shape.hidden_size * labels(source.text) if scored else 0
        return replace(shape, pools=True, has_head=not scored, plain_elements=shape.plain_elements + plain)

    return pooled


def rewarding(read: Reader, outputs: int | None) -> Reader:
    """A decoder whose head, in fp32, says what a text is worth: a matrix, or two with so many outputs."""

    def rewarding(source: Source) -> Shape:
        shape = unweighed(replace(pooling(read)(source), has_head=False))
        hidden = shape.hidden_size
        if outputs is None:
            return replace(shape, divided_elements=2 * hidden)
        divided = hidden * (hidden + 1) + outputs * hidden
        return replace(shape, divided_elements=2 * divided, plain_elements=shape.plain_elements + 2 * outputs)

    return rewarding


COLBERT_WIDTHS = ("colbert_dim", "dim", "projection_dim")


EMBEDDING_WIDTHS = ("embed_dim", "dims", "dim", "projection_dim", "colbert_dim")
"""What configurations call the width of a token's embedding, in vLLM's order."""

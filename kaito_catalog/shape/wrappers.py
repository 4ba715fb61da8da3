"""Models that hold a decoder and an encoder which other readers know, with another end between or behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.shape.fields import Source
from kaito_catalog.shape.model import Place, Shape

Reader = Callable[[Source], Shape]
Readers = Callable[[], Mapping[str, Reader]]

_WIDTHS = ("embed_dim", "dims", "dim", "projection_dim", "colbert_dim")
"""What configurations call the width of a token's embedding, in vLLM's order."""


JINA_LABELS = 2


def _as(read: Reader, source: Source, of: str) -> Shape:
    """The shape that another architecture's reader gives, with what that builds on every stage."""
    shape = read(replace(source, architecture=of))
    return replace(shape, architecture=source.architecture, decoder=shape.decoder or of)


def _late(
    readers: Readers,
    of: str,
    widths: tuple[str, ...] = _WIDTHS,
    *,
    default: int | None = None,
    biased: bool = False,
    has_head: bool = True,
) -> Reader:
    """An embedding for each token: a matrix in fp32 behind the decoder, where the configuration says its width."""

    def read(source: Source) -> Shape:
        shape = _as(readers()[of], source, of)
        width = source.root.optional(*widths) or default or 0
        projected = (shape.hidden_size + (1 if biased else 0)) * width
        plain = shape.plain_elements + 2 * projected
        return replace(shape, pools=True, plain_elements=plain, has_head=shape.has_head and has_head)

    return read


def _jina_vl(readers: Readers) -> Reader:
    """Jina's reranker of images: Qwen2-VL, and two matrices in fp32 that the ranks divide."""

    def read(source: Source) -> Shape:
        of = "Qwen2VLForConditionalGeneration"
        shape = _as(readers()[of], source, of)
        hidden = shape.hidden_size
        # The decoder's part of the configuration has the default number of labels, until 0.32.0 says one.
        divided = hidden * (hidden + 1) + JINA_LABELS * hidden
        plain = shape.plain_elements + 2 * JINA_LABELS
        return replace(shape, pools=True, divided_elements=2 * divided, plain_elements=plain)

    return read


def wrappers(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those that they are made of."""
    qwen3_vl = "Qwen3VLForConditionalGeneration"
    return {
        "ColBERTLfm2Model": _late(readers, "Lfm2ForCausalLM", _COLBERT, has_head=False),
        "ColPaliForRetrieval": _late(
            readers, "PaliGemmaForConditionalGeneration", ("embedding_dim", *_WIDTHS[:1], *_WIDTHS[2:])
        ),
        "ColQwen3": _late(readers, qwen3_vl),
        "ColQwen3_5": _late(readers, "Qwen3_5ForConditionalGeneration", default=128, biased=True),
        "HF_ColBERT": _late(readers, "BertModel", ()),
        "JinaVLForRanking": _jina_vl(readers),
        "OpsColQwen3Model": _late(readers, qwen3_vl),
        "Qwen3VLNemotronEmbedModel": _late(readers, qwen3_vl),
    }


_COLBERT = ("colbert_dim", "dim", "projection_dim")

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "ColPaliForRetrieval": frozenset({Place.TOWER}),
}
"""Beside what the decoder builds on every stage."""

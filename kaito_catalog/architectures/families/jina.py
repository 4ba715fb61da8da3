"""Jina's embeddings and rerankers."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, since
from kaito_catalog.architectures.reading.fields import UnreadableError
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, unweighed
from kaito_catalog.architectures.reading.pooling import COLBERT_WIDTHS, bidirectional, padded, pooling
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import as_of, holding
from kaito_catalog.architectures.shape import BuiltShape, Shape


def _jina_ranking(source: Source) -> Shape:
    """Jina's reranker 3: Qwen3 and two matrices."""
    shape = replace(pooling(source.known["Qwen3ForCausalLM"].reader)(source), has_head=False)
    middle = shape.hidden_size // 2
    out = source.text.count("embedding_size", default=512)
    return unweighed(replace(shape, plain_elements=middle * (shape.hidden_size + out)))


JINA_LABELS = 2


def _jina_vl(source: Source) -> Shape:
    """Jina's reranker of images: Qwen2-VL, and two matrices in fp32 that the ranks divide."""
    of = "Qwen2VLForConditionalGeneration"
    shape = as_of(source, of)
    hidden = shape.hidden_size
    # The decoder's part of the configuration has the default number of labels, until 0.32.0 says one.
    divided = hidden * (hidden + 1) + JINA_LABELS * hidden
    plain = shape.plain_elements + 2 * JINA_LABELS
    return replace(shape, pools=True, divided_elements=2 * divided, plain_elements=plain)


def _with_one_label(shape: BuiltShape) -> BuiltShape:
    """It has one label, where 0.25.1 takes two."""
    one = 2 * shape.hidden_size
    return replace(
        shape, divided_elements=shape.divided_elements - one, plain_elements=shape.plain_elements - 2
    )


_V5_ENCODER = "JinaEmbeddingsV5EncoderModel"


def _jina_v5(source: Source) -> Shape:
    """Jina's embeddings 5: Qwen3, or Llama that looks both ways, which only later versions have."""
    if source.text.flag("is_decoder", True):
        return replace(as_of(source, "Qwen3ForCausalLM"), pools=True)
    return _jina_v5_encoder(source)


def _jina_v5_encoder(source: Source) -> Shape:
    shape = bidirectional(source.known["LlamaForCausalLM"].reader(source))
    return replace(shape, architecture=_V5_ENCODER, pools=True, has_head=False)


def _without_head(shape: BuiltShape) -> BuiltShape:
    return replace(shape, has_head=False)


def _jina_roberta(source: Source) -> Shape:
    """Jina's ColBERT 2: RoBERTa whose positions turn."""
    text = source.text
    if text.text("position_embedding_type") not in ("rope", "rotary"):
        field = text.path("position_embedding_type")
        raise UnreadableError(f"{field} is not rotary, which vLLM's class wants", field)
    gated = text.text("hidden_act") in ("silu", "geglu")
    biased = text.flag("bias", True)
    family = DecoderDefaults(qkv_bias=biased, output_bias=biased, norm_parts=2, gated=gated, mlp_bias=biased)
    shape = bidirectional(dense(family)(source))
    hidden = shape.hidden_size
    width = text.optional(*COLBERT_WIDTHS) or 0
    shape = replace(
        shape,
        pools=True,
        has_head=False,
        embedding_elements=padded(text.count("type_vocab_size", least=0)) * hidden,
        plain_elements=2 * width * hidden,
    )
    return unweighed(shape)


ARCHITECTURES: dict[str, Architecture] = {
    "JinaForRanking": Architecture(_jina_ranking, is_decoder=False),
    "JinaVLForRanking": holding(_jina_vl, changes=since(V0_32_0, _with_one_label)),
    "JinaEmbeddingsV5Model": Architecture(_jina_v5, is_decoder=False, changes=since(V0_32_0, _without_head)),
    "ColBERTJinaRobertaModel": Architecture(_jina_roberta, is_decoder=False),
    _V5_ENCODER: Architecture(_jina_v5_encoder, is_decoder=False, is_named=False, since=V0_32_0),
}
"""By their name in config.json."""

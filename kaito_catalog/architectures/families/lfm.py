"""Liquid's LFM2: short convolutions with an attention now and then."""

from __future__ import annotations

from kaito_catalog.architectures.mixers import ShortConv
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.pooling import COLBERT_WIDTHS
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import holding, late, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Layer, Mlp, Shape, StagePart


def _lfm2(source: Source) -> Shape:
    """LFM2: short convolutions with an attention now and then, dense or with experts."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    attending = text.values.get("full_attn_idxs")
    if types is None and isinstance(attending, list):
        types = ["full_attention" if i in attending else "conv" for i in range(count)]
    if types is None or set(types) - {"conv", "full_attention"}:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is missing or names an unknown kind", field)
    attention = read_attention(text, DecoderDefaults(head_norms=2, qkv_bias=False, output_bias=False))
    width = text.count("conv_dim", default=hidden)
    conv = ShortConv(width, text.count("conv_L_cache", default=3, least=2), text.flag("conv_bias"))
    first, block = count, Mlp(_lfm2_width(text))
    experts = None
    if source.architecture == "Lfm2MoeForCausalLM":
        block = Mlp(text.count("intermediate_size"))
        first = text.count("num_dense_layers", default=2, least=0, most=MOST_LAYERS)
        biased = text.flag("use_expert_bias", True)
        experts = read_experts(text, ("num_experts",), correction_bias=biased)
    layers = [
        Layer(attention if kind == "full_attention" else conv, block if i < first else experts, 2 * hidden)
        for i, kind in enumerate(types)
    ]
    return make_shape(source, layers, tied=True, rope_dim=attention.head_dim)


def _lfm2_width(text: Fields) -> int:
    """The width of a dense block as vLLM's Lfm2MLP derives it: two thirds, times a factor, to the next multiple."""
    width = text.count("block_ff_dim", "intermediate_size")
    if not text.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor = text.number("block_ffn_dim_multiplier")
    multiple = text.count("block_multiple_of", default=256)
    if factor is not None:
        if not 0 < factor <= 64:
            field = text.path("block_ffn_dim_multiplier")
            raise UnreadableError(f"{field} is {factor}", field)
        width = int(factor * width)
    return -(-width // multiple) * multiple


def _colbert(source: Source) -> Shape:
    """ColBERT over LFM2, whose quantised weights no class of vLLM names."""
    return unweighed(late("Lfm2ForCausalLM", COLBERT_WIDTHS, has_head=False)(source))


ARCHITECTURES: dict[str, Architecture] = {
    "Lfm2ForCausalLM": Architecture(_lfm2, on_every_stage=frozenset({StagePart.EMBEDDING})),
    "Lfm2MoeForCausalLM": Architecture(_lfm2, on_every_stage=frozenset({StagePart.EMBEDDING})),
    "Lfm2VlForConditionalGeneration": unread(),
    "ColBERTLfm2Model": holding(_colbert),
}
"""By their name in config.json."""

"""Cohere's Command, and its images and speech."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    cross_layers,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    shared_experts,
    windows,
    with_types,
)
from kaito_catalog.architectures.reading.record import NO_HEAD, Architecture, Source
from kaito_catalog.architectures.reading.wrapping import holding, over_siglip
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _cohere(source: Source) -> Shape:
    """Command R and Command A: attention and feed-forward side by side after one norm."""
    text = source.text
    head_dim = text.count("hidden_size") // text.count("num_attention_heads", most=2**16)
    text = Fields({**text.values, "head_dim": head_dim}, text.where)
    if source.architecture != "CohereForCausalLM":
        text = with_types(with_defaults(text, sliding_window=4096), ("sliding_window_pattern",), 4)
    family = DecoderDefaults(
        tied=True, qkv_bias=False, output_bias=False, norms=1, flat_norms=text.flag("use_qk_norm")
    )
    shape = dense(family)(replace(source, text=text))
    return replace(shape, tie_word_embeddings=True)


def _cohere2_moe(source: Source) -> Shape:
    """Command A with experts: one norm a layer, the first layers dense."""
    text = source.text
    count = num_layers(text)
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    kinds = text.texts("mlp_layer_types") or ["dense" if i < first else "sparse" for i in range(count)]
    if len(kinds) != count:
        field = text.path("mlp_layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    attention = read_attention(text, DecoderDefaults(qkv_bias=False, output_bias=False))
    each = text.count("intermediate_size")
    routed = read_experts(
        text,
        ("num_experts",),
        ("intermediate_size",),
        shared=shared_experts(text, each),
    )
    dense = Mlp(text.count("prefix_dense_intermediate_size", default=each))
    hidden = text.count("hidden_size")
    layers = [
        Layer(replace(attention, sliding_window=window), routed if kind == "sparse" else dense, hidden)
        for window, kind in zip(windows(text, count), kinds, strict=True)
    ]
    return make_shape(source, layers, tied=True, rope_dim=attention.head_dim)


def _command_a_vision(source: Source, width: int, hidden: int) -> tuple[list[Matrix], int]:
    merged = width * source.root.count("downsample_factor", default=2, most=64) ** 2
    middle = source.root.count("alignment_intermediate_size", default=36864) // 2
    first = Matrix(merged, 2 * middle, "column", quantized=False)
    return [first, Matrix(middle, hidden, "row", quantized=False)], 0


def _cohere_asr(source: Source) -> Shape:
    """Cohere Transcribe: a decoder that looks at what its encoder said, which has not been read."""
    outer, head = source.root.section("transf_decoder"), source.root.section("head")
    text = outer.section("config_dict") if outer is not None else None
    if text is None or head is None:
        raise UnreadableError("the configuration has no transf_decoder.config_dict or no head", "head")
    hidden = text.count("hidden_size")
    layers = cross_layers(
        hidden,
        text.count("num_attention_heads", most=2**16),
        text.count("inner_size"),
        text.count("num_layers", most=MOST_LAYERS),
    )
    shape = make_shape(
        replace(source, text=with_defaults(text, vocab_size=head.count("num_classes"))),
        layers,
        tied=False,
        rope_dim=1,
        final_norm_elements=4 * hidden,
        encoder=Encoder("audio", 1, None, divided=False),
    )
    return replace(shape, rope_elements=0, lm_head_bias=True, embedding_replicated=True)


ARCHITECTURES: dict[str, Architecture] = {
    "CohereForCausalLM": Architecture(_cohere, on_every_stage=NO_HEAD),
    "Cohere2ForCausalLM": Architecture(_cohere, on_every_stage=NO_HEAD),
    "Cohere2MoeForCausalLM": Architecture(_cohere2_moe, on_every_stage=NO_HEAD),
    "Cohere2VisionForConditionalGeneration": holding(over_siglip(_command_a_vision)),
    "CohereAsrForConditionalGeneration": Architecture(_cohere_asr, is_decoder=False, has_unread_encoder=True),
}
"""By their name in config.json."""

"""OpenAI's GPT-2, gpt-oss, and Whisper."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    GPT_NAMES,
    DecoderDefaults,
    cross_layers,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    widened,
)
from kaito_catalog.architectures.reading.pooling import bidirectional, labels, pooling
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.wrapping import as_of, holding
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Encoder,
    Layer,
    Matrix,
    Medium,
    Shape,
)


def _gpt_oss(source: Source) -> Shape:
    # GptOssConfig's default: layers slide in turn, the first one included.
    text = with_defaults(source.text, head_dim=64, sliding_window=128)
    count = num_layers(text)
    experts = read_experts(
        text, ("num_local_experts", "num_experts"), ("intermediate_size",), bias=True, router_bias=True
    )
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    attention = read_attention(
        text, DecoderDefaults(), qkv_bias=True, output_bias=True, sinks=True, repeats_kv_heads=False
    )
    layers = [
        # vLLM 0.25.1's gpt_oss.py goes by the layer's number, whatever layer_types says.
        Layer(
            replace(attention, sliding_window=None if i % 2 else window),
            experts,
            2 * text.count("hidden_size"),
        )
        for i in range(count)
    ]
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=attention.head_dim)
    return replace(shape, rope_elements=2 * shape.rope_elements)  # kept in fp32


def _gpt2(source: Source) -> Shape:
    """GPT-2: positions are learnt."""
    source = DecoderDefaults(names=GPT_NAMES).of(source)
    text = source.text
    family = DecoderDefaults(
        tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True
    )
    shape = widened(dense(family))(source)
    positions = text.count("max_position_embeddings") * text.count("hidden_size")
    return replace(shape, plain_elements=shape.plain_elements + positions, rope_elements=0)


def _whisper(source: Source) -> Shape:
    """Whisper: a decoder that also looks at what its encoder said, which it keeps for each request."""
    text = source.text
    hidden = text.count("d_model")
    heads = text.count("decoder_attention_heads", most=2**16)
    if hidden % heads:
        raise UnreadableError(f"d_model {hidden} is not a multiple of {heads} heads", "d_model")
    depth = text.count("decoder_layers", most=MOST_LAYERS)
    layers = cross_layers(hidden, heads, text.count("decoder_ffn_dim"), depth)
    longest = text.count("max_target_positions", most=LONGEST_CONTEXT)
    filled = with_defaults(text, hidden_size=hidden, max_position_embeddings=longest)
    made = make_shape(
        replace(source, text=filled),
        layers,
        tied=True,
        rope_dim=1,
        final_norm_elements=2 * hidden,
        encoder=_whisper_encoder(text, hidden),
        plain_elements=longest * hidden,
    )
    return replace(
        made, rope_elements=0, max_model_len=longest, tie_word_embeddings=True, embedding_replicated=True
    )


def _whisper_encoder(text: Fields, hidden: int) -> Encoder:
    depth = text.count("encoder_layers", most=MOST_LAYERS)
    wide = text.count("encoder_ffn_dim")
    bins = text.count("num_mel_bins", default=80)
    positions = text.count("max_source_positions", default=1500, most=LONGEST_CONTEXT)
    plain = 3 * bins * hidden + hidden + 3 * hidden * hidden + hidden + positions * hidden
    plain += depth * 4 * hidden + 2 * hidden
    return Encoder(
        "audio",
        text.count("encoder_attention_heads", most=2**16),
        (
            Matrix(hidden, 3 * hidden, "column", count=depth),
            Matrix(hidden, hidden, "row", count=depth),
            Matrix(hidden, wide, "column", count=depth),
            Matrix(wide, hidden, "row", count=depth),
        ),
        plain,
        medium=Medium(positions, positions, hidden, 2 * wide, 2 * bins),
    )


def _privacy_filter(source: Source) -> Shape:
    """OpenAI's privacy filter: GPT-OSS that looks both ways, and a head over the kinds of words."""
    of = "GptOssForCausalLM"
    shape = bidirectional(as_of(source, of))
    scores = 2 * (shape.hidden_size + 1) * labels(source.text)
    plain = shape.plain_elements + scores
    return replace(shape, pools=True, has_head=False, plain_elements=plain)


ARCHITECTURES: dict[str, Architecture] = {
    "GPT2LMHeadModel": Architecture(_gpt2, on_every_stage=ENDS),
    "GPT2ForSequenceClassification": Architecture(pooling(_gpt2, scored=True), is_decoder=False),
    "GptOssForCausalLM": Architecture(_gpt_oss, on_every_stage=ENDS, never_tied=True),
    "OpenAIPrivacyFilterForTokenClassification": holding(_privacy_filter),
    "WhisperForConditionalGeneration": Architecture(_whisper, is_decoder=False, always_with_encoder=True),
}
"""By their name in config.json."""

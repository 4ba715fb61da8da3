"""StarCoder."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, in_attention, since
from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import with_defaults
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, unweighed
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, Layer, Mlp, Shape


def _gpt_big_code(source: Source) -> Shape:
    """StarCoder, through vLLM's Transformers back end: it divides what it recognises, here little."""
    names = (
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("max_position_embeddings", "n_positions"),
    )
    source = DecoderDefaults(names=names).of(source)
    hidden = source.text.count("hidden_size")
    heads = source.text.count("num_attention_heads", most=2**16)
    text = with_defaults(
        source.text,
        intermediate_size=source.text.count("n_inner", default=4 * hidden),
        num_key_value_heads=1 if source.text.flag("multi_query", True) else heads,
    )
    family = DecoderDefaults(
        tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True
    )
    shape = dense(family)(replace(source, text=text))
    layers = tuple(_whole(layer) for layer in shape.layers)
    positions = text.count("max_position_embeddings", most=LONGEST_CONTEXT) * hidden
    return unweighed(replace(shape, layers=layers, rope_elements=0, position_elements=positions))


def _whole(layer: Layer) -> Layer:
    assert isinstance(layer.mixer, Attention)
    assert isinstance(layer.feed_forward, Mlp)
    return replace(
        layer,
        mixer=replace(layer.mixer, replicated=True),
        feed_forward=replace(layer.feed_forward, replicated=True),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "GPTBigCodeForCausalLM": Architecture(
        _gpt_big_code, changes=since(V0_32_0, in_attention(replicated=False))
    ),
    "Starcoder2ForCausalLM": Architecture(
        dense(
            DecoderDefaults(
                tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True
            )
        )
    ),
}
"""By their name in config.json."""

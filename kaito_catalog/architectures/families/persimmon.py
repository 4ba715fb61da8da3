"""Adept's Persimmon and Fuyu."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, built_once, in_attention, in_mlps, since
from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, unweighed
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Source
from kaito_catalog.architectures.shape import BuiltShape, Encoder, Matrix, Shape


def _persimmon(source: Source) -> Shape:
    """Persimmon: biases everywhere, a norm for each head, and no KV heads of their own number."""
    text = Fields(
        {k: v for k, v in source.text.values.items() if k != "num_key_value_heads"}, source.text.where
    )
    norms = 4 if text.flag("qk_layernorm", True) else 0
    family = DecoderDefaults(
        qkv_bias=True, output_bias=True, head_norms=norms, norm_parts=2, gated=False, mlp_bias=True
    )
    return unweighed(dense(family)(replace(source, text=text)))


def _undivided(shape: BuiltShape) -> BuiltShape:
    """The Transformers back end recognises nothing of it, and every rank has its layers whole."""
    return in_mlps(replicated=True)(in_attention(replicated=True)(shape))


def _fuyu(source: Source) -> Shape:
    """Fuyu: Persimmon, and one matrix that makes a token of a patch."""
    shape = _persimmon(source)
    root = source.root
    pixels = root.count("patch_size", default=30, most=2**16) ** 2 * root.count("num_channels", default=3)
    heads = source.text.count("num_attention_heads", most=2**16)
    return replace(shape, encoder=Encoder("vision", heads, (Matrix(pixels, shape.hidden_size, "column"),)))


ARCHITECTURES: dict[str, Architecture] = {
    "PersimmonForCausalLM": Architecture(
        _persimmon, on_every_stage=ENDS, changes=since(V0_32_0, _undivided, built_once)
    ),
    "FuyuForCausalLM": Architecture(_fuyu, on_every_stage=ENDS | ENCODER),
}
"""By their name in config.json."""

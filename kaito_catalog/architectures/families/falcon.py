"""Falcon: attention, states, and both."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.families.mamba import read_mamba
from kaito_catalog.architectures.mixers import Attention, Mamba2
from kaito_catalog.architectures.reading.fields import with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.shape import Layer, Mlp, Shape


def _falcon(source: Source) -> Shape:
    """Falcon: one or two norms before attention and feed-forward, which mostly run side by side."""
    text = with_defaults(source.text, bias=False)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", "n_head", most=2**16)
    is_new = text.flag("new_decoder_architecture")
    kv_heads = heads
    if is_new:
        kv_heads = text.count("num_kv_heads", "n_head_kv", default=heads, most=2**16)
    elif text.flag("multi_query", True):
        kv_heads = 1
    norms = 2
    if text.flag("parallel_attn", True):
        norms = text.count("num_ln_in_parallel_attn", default=2 if is_new else 1)
    biased = text.flag("bias")
    text = with_defaults(
        text,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=text.count("ffn_hidden_size", default=4 * hidden),
        max_position_embeddings=2048,
    )
    family = DecoderDefaults(
        tied=True,
        qkv_bias=biased,
        output_bias=biased,
        norms=norms,
        norm_parts=2,
        gated=False,
        mlp_bias=biased,
    )
    shape = dense(family)(replace(source, text=text))
    # falcon.py tells its attention nothing of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    shape = replace(shape, layers=layers)
    return replace(shape, rope_elements=0) if text.flag("alibi") else shape


def _falcon_h1(source: Source) -> Shape:
    """Falcon-H1: attention and Mamba 2 side by side in every layer."""
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_attention(text, NO_BIAS)
    inner = text.optional("mamba_d_ssm") or text.count("mamba_expand", default=2) * hidden
    heads = text.count("mamba_n_heads", default=128)
    head_dim = text.values.get("mamba_d_head", "auto")
    mamba = Mamba2(
        heads,
        inner // heads if head_dim == "auto" else text.count("mamba_d_head"),
        text.count("mamba_n_groups", default=1),
        text.count("mamba_d_state", default=256),
        text.count("mamba_d_conv", default=4),
        state_bytes=2,
        bias=text.flag("mamba_proj_bias"),
        conv_bias=text.flag("mamba_conv_bias", True),
        normed=text.flag("mamba_rms_norm"),
    )
    block = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"))
    layers = [Layer(attention, block, 2 * hidden, state=mamba)] * num_layers(text)
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


ARCHITECTURES: dict[str, Architecture] = {
    "FalconForCausalLM": Architecture(_falcon, on_every_stage=ENDS),
    "RWForCausalLM": Architecture(_falcon, on_every_stage=ENDS),
    "FalconH1ForCausalLM": Architecture(_falcon_h1),
    "FalconMambaForCausalLM": Architecture(read_mamba, on_every_stage=ENDS),
}
"""By their name in config.json."""

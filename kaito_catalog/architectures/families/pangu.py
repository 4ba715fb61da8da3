"""Huawei's openPangu."""

from __future__ import annotations

from kaito_catalog.architectures.changes import V0_32_0, in_attention, since
from kaito_catalog.architectures.families.ling import read_latent_experts
from kaito_catalog.architectures.mixers import Attention, LearntKeys
from kaito_catalog.architectures.reading.fields import UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_experts,
)
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Layer, Mlp, Shape


def _pangu_sinks(source: Source) -> Shape:
    """openPangu's MoE with sinks: keys and values that are learnt and lie before every text."""
    text = source.text
    sinks = text.count("param_sink_number", default=0, least=0, most=2**16)
    if not sinks:
        field = text.path("param_sink_number")
        raise UnreadableError(f"no plan for this model without {field}", field)
    if "interleaved_sliding_window" in text:
        field = text.path("interleaved_sliding_window")
        raise UnreadableError("no plan for sinks before windows", field)
    heads = text.count("num_attention_heads", most=2**16)
    kv_heads = text.count("num_key_value_heads", default=heads, most=2**16)
    if heads % kv_heads:
        field = text.path("num_key_value_heads")
        raise UnreadableError(f"{heads} attention heads are not a multiple of {kv_heads} KV heads", field)
    bias = text.flag("attention_bias") or text.flag("bias")
    attention = Attention(
        heads,
        kv_heads,
        text.count("qk_nope_dim") + text.count("qk_rope_dim"),
        text.count("v_channels"),
        qkv_bias=text.flag("qkv_bias", bias),
        output_bias=bias,
        head_norms=1,
        repeats_kv_heads=False,
        cache_scales=False,
        learnt_keys=LearntKeys(sinks, text.flag("param_sink_with_value")),
    )
    shared = text.count("n_shared_experts", default=0, least=0, most=2**10)
    width = text.count("moe_intermediate_size")
    routed = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=text.flag("router_enable_expert_bias"),
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    dense_block = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"))
    norms = (4 if text.flag("sandwich_norm") else 2) * text.count("hidden_size")
    layers = [Layer(attention, routed if i >= first else dense_block, norms) for i in range(num_layers(text))]
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


ARCHITECTURES: dict[str, Architecture] = {
    "PanguEmbeddedForCausalLM": Architecture(dense(DecoderDefaults())),
    "PanguUltraMoEForCausalLM": Architecture(read_latent_experts),
    "PanguProMoEV2ForCausalLM": Architecture(
        _pangu_sinks, changes=since(V0_32_0, in_attention(cache_scales=True))
    ),
    "OpenPanguVLForConditionalGeneration": unread("PanguEmbeddedForCausalLM"),
}
"""By their name in config.json."""

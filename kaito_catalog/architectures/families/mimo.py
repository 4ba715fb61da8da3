"""Xiaomi's MiMo."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, in_attention, since
from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.drafting import mtp
from kaito_catalog.architectures.reading.fields import UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    flags,
    make_shape,
    num_layers,
    read_experts,
)
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, Layer, Mlp, Shape


def _mimo_v2(source: Source) -> Shape:
    """MiMo V2: values narrower than keys; layers with a window have sinks and heads of their own number."""
    text = source.text
    count = num_layers(text)
    slides = flags(text, "hybrid_layer_pattern", count)
    sparse = flags(text, "moe_layer_freq", count)
    bias = text.flag("attention_bias")
    window = text.count("sliding_window_size", "sliding_window", most=LONGEST_CONTEXT)

    def attention(prefix: str) -> Attention:
        heads = text.count(f"{prefix}num_attention_heads", most=2**16)
        kv_heads = text.count(f"{prefix}num_key_value_heads", most=2**16)
        head_dim = text.count(f"{prefix}head_dim", most=2**16)
        if heads % kv_heads:
            field = text.path(f"{prefix}num_key_value_heads")
            raise UnreadableError(f"{heads} attention heads are not a multiple of {kv_heads} KV heads", field)
        values = text.count(f"{prefix}v_head_dim", default=head_dim, most=2**16)
        return Attention(heads, kv_heads, head_dim, values, qkv_bias=bias, cache_in_dtype=True)

    full = attention("")
    sliding = replace(
        attention("swa_"), sliding_window=window, sinks=text.flag("add_swa_attention_sink_bias")
    )
    # vLLM keeps the router and its bias in fp32 for this family.
    routed = read_experts(text, ("n_routed_experts",), correction_bias=True, router_bytes=4)
    dense = Mlp(text.count("intermediate_size"))
    hidden = text.count("hidden_size")
    layers = [
        Layer(sliding if slides[i] else full, routed if sparse[i] else dense, 2 * hidden)
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=full.head_dim)


_KNOWS_CACHE = since(V0_32_0, in_attention(cache_in_dtype=False))
"""The attention is told of the cache's dtype."""


ARCHITECTURES: dict[str, Architecture] = {
    "MiMoForCausalLM": Architecture(dense(DecoderDefaults(qkv_bias=True, output_bias=False)), mtp=mtp()),
    "MiMoV2FlashForCausalLM": Architecture(_mimo_v2, changes=_KNOWS_CACHE),
    "MiMoV2ForCausalLM": Architecture(_mimo_v2, changes=_KNOWS_CACHE),
    "MiDashengLMModel": unread("Qwen2ForCausalLM"),
}
"""By their name in config.json."""

"""Ling and Ring (BailingMoE), and Sarvam's, which are built alike."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, in_experts, latent_hybrid_blocks, since
from kaito_catalog.architectures.mixers import LightningAttention
from kaito_catalog.architectures.reading.fields import Fields, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense_before,
    make_shape,
    mixture,
    num_layers,
    read_experts,
    read_latent,
    shared_experts,
)
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.shape import MOST_LAYERS, Experts, Json, Layer, Mlp, Shape


def _bailing(source: Source) -> Shape:
    """Ling and Ring, and Sarvam's: one matrix for queries, keys and values; a router in fp32 where it says so."""
    text = source.text
    biased = text.flag("use_bias")
    norms = (2 if text.flag("use_rmsnorm") else 4) if text.flag("use_qk_norm") else 0
    family = DecoderDefaults(
        qkv_bias=biased or text.flag("use_qkv_bias"),
        output_bias=biased,
        head_norms=norms,
        mlp_bias=biased,
    )

    def experts(text: Fields) -> Experts:
        each = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
        return read_experts(
            text,
            ("num_experts",),
            shared=shared_experts(text, each, bias=biased),
            correction_bias=text.flag("moe_router_enable_expert_bias"),
            router_bytes=4 if text.text("router_dtype") == "fp32" else 0,
        )

    if biased:
        text = with_defaults(text, mlp_bias=True)
    read = mixture(family, experts, is_sparse=dense_before("first_k_dense_replace"))
    return read(replace(source, text=text))


def read_latent_experts(source: Source) -> Shape:
    """Sarvam's larger model and Pangu Ultra: latents, and experts after the first layers."""
    text = source.text
    count = num_layers(text)
    hidden = text.count("hidden_size")
    latent = read_latent(text)
    each = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
    is_sarvam = source.architecture.startswith("Sarvam")
    number = "num_shared_experts" if is_sarvam else "n_shared_experts"
    routed = read_experts(
        text,
        ("num_experts", "n_routed_experts"),
        shared=shared_experts(text, each, count=number),
        correction_bias=text.flag("moe_router_enable_expert_bias", True)
        if is_sarvam
        else text.flag("router_enable_expert_bias"),
        router_bytes=4 if is_sarvam and text.text("router_dtype") in (None, "fp32") else 0,
    )
    first = text.count("first_k_dense_replace", default=1, least=0, most=MOST_LAYERS)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size"))
    norms = 4 if text.flag("sandwich_norm") else 2
    layers = [
        Layer(latent, routed if i >= first and (i - first) % step == 0 else dense, norms * hidden)
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=latent.qk_rope_head_dim)


def _ling_hybrid(source: Source) -> Shape:
    """Ling and Ring 2.5: linear attention, and latents in the last layer of each group."""
    text = source.text
    count = num_layers(text)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", most=2**16)
    biased = text.flag("use_bias")
    linear = LightningAttention(
        heads,
        text.count("head_dim", default=hidden // heads, most=2**16),
        biased or text.flag("use_qkv_bias"),
        biased,
        2 if text.flag("use_qk_norm") else 0,
        text.count("group_norm_size", default=1, most=2**16),
    )
    # The defaults of vLLM's class.
    defaults: dict[str, Json] = {
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    latent = read_latent(with_defaults(text, **defaults))
    width = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
    shared = text.count("num_shared_experts", default=0, least=0, most=2**10)
    routed = read_experts(
        text,
        ("num_experts",),
        shared=Mlp(width * shared, bias=biased) if shared else None,
        correction_bias=text.flag("moe_router_enable_expert_bias"),
        router_bytes=4 if text.text("router_dtype") in (None, "fp32") else 0,
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    block = Mlp(text.count("intermediate_size"), bias=biased)
    group = text.count("layer_group_size", default=1, least=0, most=MOST_LAYERS)
    layers = [
        Layer(
            linear if group and (i + 1) % group else latent,
            routed if i >= first else block,
            2 * hidden,
        )
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=latent.qk_rope_head_dim)


ARCHITECTURES: dict[str, Architecture] = {
    "BailingMoeForCausalLM": Architecture(_bailing),
    "BailingMoeV2ForCausalLM": Architecture(_bailing),
    "BailingMoeV2_5ForCausalLM": Architecture(_ling_hybrid, changes=since(V0_32_0, latent_hybrid_blocks)),
    "SarvamMoEForCausalLM": Architecture(_bailing),
    "SarvamMLAForCausalLM": Architecture(
        read_latent_experts, changes=since(V0_32_0, in_experts(router_bytes=0))
    ),
}
"""By their name in config.json."""

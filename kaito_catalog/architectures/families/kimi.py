"""Moonshot's Kimi and its encoder MoonViT."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.changes import V0_32_0, before, in_experts, latent_hybrid_blocks, since
from kaito_catalog.architectures.families.deepseek import read_deepseek
from kaito_catalog.architectures.mixers import KimiDelta, LatentAttention
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    make_shape,
    num_layers,
    read_experts,
    read_latent,
    shared_experts,
    whole_numbers,
)
from kaito_catalog.architectures.reading.record import ENCODER, Architecture, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Layer, Matrix, Mlp, Scheme, Shape


def _moonvit_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's kimi_k25_vit.py; its projector is replicated."""
    vision = vision_section(source)
    if vision is None:
        return None
    # Kimi K2.5 calls them vt_…, Kimi-VL does not.
    width = vision.count("vt_hidden_size", "hidden_size")
    wide = vision.count("vt_intermediate_size", "intermediate_size")
    depth = vision.count("vt_num_hidden_layers", "num_hidden_layers", most=MOST_LAYERS)
    merged = _merged(vision, width)
    out = vision.count("text_hidden_size", default=source.text.count("hidden_size"))
    return Encoder(
        "vision",
        vision.count("vt_num_attention_heads", "num_attention_heads"),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "none"),
            Matrix(merged, out, "none"),
        ),
        _moonvit_patches(vision, width) + width + depth * 4 * width + 2 * width + 2 * width,
    )


def _merged(vision: Fields, width: int) -> int:
    """Elements of the patches that become one embedding."""
    kernel = vision.values.get("merge_kernel_size", [2, 2])
    if not isinstance(kernel, list) or not all(isinstance(k, int) and 0 < k < 64 for k in kernel):
        raise UnreadableError("vision_config.merge_kernel_size is not two sizes", "merge_kernel_size")
    return width * math.prod(cast(list[int], kernel))


def _moonvit_patches(vision: Fields, width: int) -> int:
    """Elements of the convolution that takes patches, without its bias, and of the positions."""
    patch = vision.count("patch_size", default=14)
    height = vision.count("init_pos_emb_height", default=64)
    return 3 * patch * patch * width + height * vision.count("init_pos_emb_width", default=64) * width


def _kimi_vl(source: Source) -> Shape:
    """Kimi-VL and Kimi K2.5: MoonViT over DeepSeek V3's layers."""
    return replace(read_deepseek(source), encoder=_moonvit_encoder(source))


def _moonvit3_encoder(source: Source) -> Encoder | None:
    """The same as vLLM 0.32.0 builds it for Kimi K3: heads of another width, each part's norms and biases stated."""
    vision = vision_section(source)
    if vision is None:
        return None
    # KimiK3VisionConfig's defaults (vLLM).
    width = vision.count("vt_hidden_size", default=1024)
    wide = vision.count("vt_intermediate_size", default=4096)
    depth = vision.count("vt_num_hidden_layers", default=27, most=MOST_LAYERS)
    heads = vision.count("qkv_hidden_size", default=1536)
    attention, linear = vision.flag("attn_bias"), vision.flag("linear_bias")
    merged = _merged(vision, width)
    out = source.text.count("hidden_size")
    norm = width * (1 if (vision.text("norm_type") or "rmsnorm") == "rmsnorm" else 2)
    is_second = (vision.text("mm_projector_type") or "patchmergerv2") == "patchmergerv2"
    patches = _moonvit_patches(vision, width) + (width if vision.flag("patch_embed_proj_bias") else 0)
    return Encoder(
        "vision",
        vision.count("vt_num_attention_heads", default=12),
        (
            Matrix(width, 3 * heads, "heads-column", attention, depth),
            Matrix(heads, width, "heads-row", attention, depth),
            Matrix(width, wide, "heads-column", linear, depth),
            Matrix(wide, width, "heads-row", linear, depth),
            Matrix(merged, merged, "none", not is_second),
            Matrix(merged, out, "none", not is_second),
        ),
        patches + (2 * depth + 1) * norm + (out if is_second else 2 * width),
    )


def _kimi_linear(source: Source) -> Shape:
    """Kimi Linear: its own linear attention, and latents without positions now and then."""
    text = source.text
    count = num_layers(text)
    section = text.section("linear_attn_config")
    if section is None:
        field = text.path("linear_attn_config")
        raise UnreadableError(f"the configuration has no {field}", field)
    linear = whole_numbers(section, "kda_layers")
    if linear is None:
        field = section.path("kda_layers")
        raise UnreadableError(f"the configuration has no {field}", field)
    delta = KimiDelta(
        section.count("num_heads", most=2**16),
        section.count("head_dim", most=2**16),
        section.count("short_conv_kernel_size", most=2**10),
    )
    latent = read_latent(text)
    hidden = text.count("hidden_size")
    each = text.count("moe_intermediate_size")
    experts = text.count("num_experts", most=2**16)
    # What balances the routing is in the model's dtype.
    routed = read_experts(
        text,
        ("num_experts",),
        shared=shared_experts(text, each),
        extra_elements=experts,
        # From 0.32.0 on (vllm/models/kimi_k3).
        least_width=text.count("min_moe_intermediate_per_partition", default=256, least=0),
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size"))
    # The configuration counts layers from one.
    layers = [
        Layer(
            delta if i + 1 in linear else latent,
            routed if i >= first and i % step == 0 else dense,
            2 * hidden,
        )
        for i in range(count)
    ]
    text = with_defaults(text, max_position_embeddings=text.values.get("model_max_length"))
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=latent.qk_rope_head_dim)
    return replace(shape, rope_elements=0, tie_word_embeddings=False)


FLASH_KDA_HEAD = 128
"""The only width of a head that FlashKDA has kernels for."""


def _kimi_k3(source: Source) -> Shape:
    """Kimi K3: Kimi Linear with gates, experts in a narrower width, and a choice among earlier layers' outputs."""
    text = source.text
    shape = _kimi_linear(source)
    section = text.section("linear_attn_config")
    is_full = section is not None and section.flag("use_full_rank_gate")
    is_bounded = section is not None and section.values.get("gate_lower_bound") is not None
    is_gated = text.flag("mla_use_output_gate")
    # Two norms and two vectors of a layer choose what it starts from, and one of each at the end.
    chooses = text.values.get("attn_res_block_size") is not None
    width = text.optional("routed_expert_hidden_size")
    norm = width if width and text.flag("latent_moe_use_norm") else 0

    def layer(each: Layer) -> Layer:
        mixer, block = each.mixer, each.feed_forward
        if isinstance(mixer, KimiDelta):
            checkpoints = is_full and is_bounded and mixer.head_dim == FLASH_KDA_HEAD
            mixer = replace(mixer, full_gate=is_full, checkpoints=checkpoints)
        elif isinstance(mixer, LatentAttention):
            mixer = replace(mixer, output_gate=is_gated)
        if isinstance(block, Experts):
            block = replace(block, correction_bias=True, latent_size=width, extra_elements=norm or 0)
        more = 4 * shape.hidden_size if chooses else 0
        return replace(each, mixer=mixer, feed_forward=block, norm_elements=each.norm_elements + more)

    how = shape.quantization
    if how is not None and how.scheme is Scheme.MXFP4:
        # vLLM takes such a checkpoint for one whose experts alone are quantised (KimiK3ForConditionalGenerationConfig).
        how = replace(how, scheme=Scheme.MXFP4_EXPERTS)
    return replace(
        shape,
        layers=tuple(layer(each) for each in shape.layers),
        quantization=how,
        final_norm_elements=shape.final_norm_elements + (2 * shape.hidden_size if chooses else 0),
        encoder=_moonvit3_encoder(source),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "KimiLinearForCausalLM": Architecture(
        _kimi_linear,
        changes=(
            *before(V0_32_0, in_experts(least_width=0)),
            *since(V0_32_0, in_experts(correction_bias=True, extra_elements=0), latent_hybrid_blocks),
        ),
    ),
    "KimiVLForConditionalGeneration": Architecture(_kimi_vl, on_every_stage=ENCODER, never_tied=True),
    "KimiK25ForConditionalGeneration": Architecture(_kimi_vl, on_every_stage=ENCODER, never_tied=True),
    "KimiK3ForConditionalGeneration": Architecture(
        _kimi_k3, on_every_stage=ENCODER, since=V0_32_0, changes=since(V0_32_0, latent_hybrid_blocks)
    ),
    "MoonshotKimiaForCausalLM": unread("Qwen2ForCausalLM"),
}
"""By their name in config.json."""

"""GLM and ChatGLM of Z.ai."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, in_experts, latent_hybrid_blocks, since
from kaito_catalog.architectures.families.deepseek import read_deepseek
from kaito_catalog.architectures.families.kimi import FLASH_KDA_HEAD
from kaito_catalog.architectures.mixers import Indexer, KimiDelta
from kaito_catalog.architectures.reading.drafting import mtp
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    read_latent,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Json, Layer, Matrix, Mlp, Shape


def _glm4_moe(source: Source) -> Shape:
    """GLM-4.5 and 4.6: dense layers first, then experts with a router in fp32."""
    text = source.text
    hidden = text.count("hidden_size")
    norms = 2 if text.flag("use_qk_norm") else 0
    attention = read_attention(text, DecoderDefaults(head_dim=128, output_bias=False, head_norms=norms))
    width = text.count("moe_intermediate_size")
    shared = text.optional("n_shared_experts", most=2**10)
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=True,
        router_bytes=4,
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    dense = Mlp(text.count("intermediate_size")) if first else None
    layers = [Layer(attention, dense if i < first else experts, 2 * hidden) for i in range(num_layers(text))]
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


def _chatglm(source: Source) -> Shape:
    """ChatGLM 2 and 3 and GLM-4-9B in their own format."""
    text = source.text
    shared = text.count("multi_query_group_num", most=2**16) if text.flag("multi_query_attention") else None
    biased = text.flag("add_bias_linear")
    parts = 1 if text.flag("rmsnorm", True) else 2
    names = (("intermediate_size", "ffn_hidden_size"), ("vocab_size", "padded_vocab_size"))
    defaults: tuple[tuple[str, Json], ...] = (("num_key_value_heads", shared), ("seq_length", 2048))
    heads = text.count("num_attention_heads", most=2**16)
    family = DecoderDefaults(
        head_dim=text.count("hidden_size") // heads, qkv_bias=biased or text.flag("add_qkv_bias"),
        output_bias=biased, mlp_bias=biased, norm_parts=parts, names=names, defaults=defaults,
    )  # fmt: skip
    text = Fields({k: v for k, v in text.values.items() if k not in ("vocab_size", "head_dim")}, text.where)
    shape = dense(family)(replace(source, text=text))
    if not text.flag("post_layer_norm", True):
        shape = replace(shape, final_norm_elements=0)
    return shape


def _glm4v(source: Source) -> Shape:
    """GLM-4.1V and GLM-4.5V (vLLM's glm4_1v.py)."""
    is_moe = source.architecture == "Glm4vMoeForConditionalGeneration"
    of = "Glm4MoeForCausalLM" if is_moe else "Glm4ForCausalLM"
    text = source.text
    if "head_dim" not in text:
        heads = text.count("num_attention_heads", most=2**16)
        text = with_defaults(text, head_dim=text.count("hidden_size") // heads)
    shape = decoder_of(replace(source, text=text), of)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    width = vision.count("hidden_size")
    depth = vision.count("depth", most=MOST_LAYERS)
    out = vision.count("out_hidden_size")
    context = vision.count("intermediate_size")
    merge = vision.count("spatial_merge_size", default=2, most=64)
    patch = vision.count("patch_size") ** 2 * vision.count("temporal_patch_size", default=2)
    positions = (vision.count("image_size") // vision.count("patch_size")) ** 2
    plain = 3 * patch * width + width + positions * width + depth * 2 * width + 2 * width
    plain += merge**2 * width * out + out + 2 * out
    matrices = (
        Matrix(width, 3 * width, "column", bias=False, count=depth),
        Matrix(width, width, "row", bias=False, count=depth),
        Matrix(width, 2 * out, "column", bias=False, count=depth),
        Matrix(out, width, "row", bias=False, count=depth),
        Matrix(out, out, "column", bias=False),
        Matrix(out, 2 * context, "column", bias=False),
        Matrix(context, out, "row", bias=False),
    )
    encoder = Encoder("vision", vision.count("num_heads"), matrices, plain, quantized=True)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _glm_ocr(source: Source) -> Shape:
    """GLM-OCR (vLLM's glm_ocr.py): GLM-4.1V's encoder with biases and norms of queries and keys."""
    text = source.text
    if "head_dim" not in text:
        heads = text.count("num_attention_heads", most=2**16)
        text = with_defaults(text, head_dim=text.count("hidden_size") // heads)
    shape = decoder_of(replace(source, text=text), "Glm4ForCausalLM")
    # GlmOcrVisionConfig's defaults (transformers).
    vision = vision_section(source) or Fields({}, "vision_config.")
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=4096)
    depth = vision.count("depth", default=24, most=MOST_LAYERS)
    out = vision.count("out_hidden_size", default=1536)
    merge = vision.count("spatial_merge_size", default=2, most=64)
    heads = vision.count("num_heads", default=16, most=2**16)
    side = vision.count("patch_size", default=14, most=2**16)
    patch = vision.count("in_channels", default=3) * side**2
    patch *= vision.count("temporal_patch_size", default=2, most=64)
    plain = (patch + 1) * width + depth * (2 * width + 2 * (width // heads)) + width
    plain += (merge**2 * width + 1) * out + 2 * out
    context = text.count("intermediate_size")
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, 2 * wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(out, out, "column", bias=False),
        Matrix(out, 2 * context, "column", bias=False),
        Matrix(context, out, "row", bias=False),
    )
    encoder = Encoder("vision", heads, matrices, plain, quantized=True)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _plain_router(source: Source, layer: Layer) -> Layer:
    """vLLM knows GLM-5's router in fp32 by the model's type, which what guesses tokens has another of."""
    block = layer.feed_forward
    if not isinstance(block, Experts) or source.text.text("moe_router_dtype") == "float32":
        return layer
    return replace(layer, feed_forward=replace(block, router_bytes=0))


def _hyper_elements(text: Fields) -> int:
    """fp32 parameters of a layer's two hyper-connections: how streams mix before and after each half."""
    streams = text.count("hc_mult", default=4, most=64)
    mixes = streams * (streams + 2)
    return 2 * (mixes * streams * text.count("hidden_size") + mixes + 3)


_GLM5_NEXT: Mapping[str, Json] = {
    "n_shared_experts": 1,
    "index_topk": 2048,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "linear_head_dim": 128,
    "linear_num_heads": 64,
    "linear_conv_kernel_dim": 4,
    "index_kpool": 16,
    "qk_rope_head_dim": 0,
}
"""Glm5NextTextConfig's defaults (transformers)."""


def _kinds(text: Fields, name: str, count: int, default: list[str], known: frozenset[str]) -> list[str]:
    """What each layer is, by a list of names of which all are known."""
    kinds = text.texts(name)
    kinds = default if kinds is None else kinds
    if len(kinds) != count or set(kinds) - known:
        raise UnreadableError(f"{text.path(name)} does not name a kind for each layer", text.path(name))
    return kinds


def _glm5_next(source: Source) -> Shape:
    """GLM-5.3: Kimi's linear attention and sparse latents whose keys to pick are pooled; hyper-connections."""
    text = with_defaults(source.text, **_GLM5_NEXT)
    count = num_layers(text)
    hidden = text.count("hidden_size")
    section = text.section("linear_attn_config") or Fields({})
    delta = KimiDelta(
        section.count("num_heads", default=text.count("linear_num_heads", most=2**16), most=2**16),
        section.count("head_dim", default=text.count("linear_head_dim", most=2**16), most=2**16),
        section.count("short_conv_kernel_size", default=text.count("linear_conv_kernel_dim"), most=2**10),
    )
    delta = replace(delta, checkpoints=delta.head_dim == FLASH_KDA_HEAD)
    pool = text.count("index_kpool", least=2, most=2**10)
    latent = replace(
        read_latent(text),
        indexer=Indexer(text.count("index_n_heads"), text.count("index_head_dim"), pool),
        sparse=True,
    )
    width = text.count("moe_intermediate_size")
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * text.count("n_shared_experts", most=2**10)),
        correction_bias=text.text("topk_method") == "noaux_tc",
    )
    mixers = _kinds(
        text,
        "layer_types",
        count,
        ["linear_attention" if i % 4 != 3 else "full_attention" for i in range(count)],
        frozenset({"linear_attention", "indexed_attention", "full_attention"}),
    )
    blocks = _kinds(
        text,
        "mlp_layer_types",
        count,
        ["dense" if i < 3 else "sparse" for i in range(count)],
        frozenset({"dense", "sparse"}),
    )
    if "mhc" not in text:
        raise UnreadableError(f"the configuration has no {text.path('mhc')}", text.path("mhc"))
    hyper = _hyper_elements(text) if text.flag("mhc") else 0
    dense = Mlp(text.count("intermediate_size"))
    layers = [
        Layer(
            delta if mixer == "linear_attention" else latent,
            experts if block == "sparse" else dense,
            2 * hidden,
            # Whatever the configuration says of them.
            unquantized=("self_attn.*",),
            hyper_elements=hyper,
        )
        for mixer, block in zip(mixers, blocks, strict=True)
    ]
    if len({type(layer.mixer) for layer in layers}) == 1:
        raise UnreadableError(f"{text.path('layer_types')} has one kind alone", text.path("layer_types"))
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=0)
    return replace(shape, rope_elements=0)


ARCHITECTURES: dict[str, Architecture] = {
    "ChatGLMForConditionalGeneration": Architecture(_chatglm, on_every_stage=ENDS),
    "ChatGLMModel": Architecture(_chatglm, on_every_stage=ENDS),
    "GlmForCausalLM": Architecture(dense(DecoderDefaults(head_dim=128, output_bias=False))),
    "Glm4ForCausalLM": Architecture(dense(DecoderDefaults(head_dim=128, output_bias=False, norms=4))),
    "Glm4MoeForCausalLM": Architecture(_glm4_moe, mtp=mtp()),
    "Glm4MoeLiteForCausalLM": Architecture(read_deepseek, mtp=mtp()),
    "GlmMoeDsaForCausalLM": Architecture(
        read_deepseek,
        never_tied=True,
        changes=since(V0_32_0, in_experts(router_bytes=0)),
        mtp=mtp(change=_plain_router),
    ),
    "Glm5NextForCausalLM": Architecture(
        _glm5_next, never_tied=True, since=V0_32_0, changes=since(V0_32_0, latent_hybrid_blocks)
    ),
    "Glm4vForConditionalGeneration": holding(_glm4v),
    "Glm4vMoeForConditionalGeneration": holding(_glm4v),
    "GlmOcrForConditionalGeneration": holding(_glm_ocr),
    "GLM4VForCausalLM": unread("ChatGLMModel"),
    "GlmAsrForConditionalGeneration": unread("LlamaForCausalLM"),
}
"""By their name in config.json."""

"""Decoders that vLLM 0.32.0 knows and 0.25.1 does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.encoders import moonvit3_encoder
from kaito_catalog.architectures.families.mixtures import granite_experts, kimi_linear
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_experts,
    read_latent,
)
from kaito_catalog.architectures.shape import (
    Attention,
    Experts,
    Indexer,
    Json,
    KimiDelta,
    LatentAttention,
    Layer,
    Mlp,
    Place,
    Scheme,
    Shape,
)


def _granite_swa(source: Source) -> Shape:
    """Granite with a window on three layers of four, and a learnt logit for each head."""
    text = with_defaults(source.text, sliding_window=128)  # GraniteSWAConfig's default (transformers)
    count = num_layers(text)
    if layer_types(text, count) is None:
        types = ["sliding_attention" if i % 4 else "full_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    if source.architecture == "GraniteSWAForCausalLM":
        read = dense(Family(tied=True))
    else:
        read = mixture(Family(), granite_experts)
    shape = read(replace(source, text=text))
    sinks = text.flag("attention_sinks", True)
    layers = tuple(
        replace(x, mixer=replace(x.mixer, sinks=sinks)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


FLASH_KDA_HEAD = 128
"""The only width of a head that FlashKDA has kernels for."""


def _kimi_k3(source: Source) -> Shape:
    """Kimi K3: Kimi Linear with gates, experts in a narrower width, and a choice among earlier layers' outputs."""
    text = source.text
    shape = kimi_linear(source)
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
        encoder=moonvit3_encoder(source),
    )


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


READERS: dict[str, Callable[[Source], Shape]] = {
    "Glm5NextForCausalLM": _glm5_next,
    "GraniteMoeSWAForCausalLM": _granite_swa,
    "GraniteSWAForCausalLM": _granite_swa,
    "KimiK3ForConditionalGeneration": _kimi_k3,
}
"""These architectures by their name in config.json."""

ON_EVERY_STAGE = {
    "GraniteMoeSWAForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "KimiK3ForConditionalGeneration": frozenset({Place.ENCODER}),
}
"""Parts that vLLM 0.32.0 builds on every pipeline stage."""

"""Recent decoders; those that vLLM 0.25.1 does not know are listed in versions.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape.fields import Fields, Source, with_defaults
from kaito_catalog.shape.model import MOST_LAYERS, Attention, Experts, Json, Layer, Mlp, Place, Shape
from kaito_catalog.shape.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_experts,
    read_latent,
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
        read = mixture(Family(), _granite_experts)
    shape = read(replace(source, text=text))
    sinks = text.flag("attention_sinks", True)
    layers = tuple(
        replace(x, mixer=replace(x.mixer, sinks=sinks)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _granite_experts(text: Fields) -> Experts:
    shared = text.optional("shared_intermediate_size")
    shared_block = Mlp(shared) if shared else None
    return read_experts(text, ("num_local_experts",), ("intermediate_size",), shared=shared_block)


def _param2(source: Source) -> Shape:
    """Param2: experts after the first layers; a rank without a whole KV head is refused."""

    def experts(text: Fields) -> Experts:
        count = text.count("num_shared_experts", default=1, least=0, most=2**10)
        # What is stated is the width of all of them together.
        width = text.optional("moe_shared_expert_intermediate_size")
        if width is None:
            width = text.count("moe_intermediate_size") * count
        return read_experts(
            text,
            ("num_experts",),
            shared=Mlp(width) if count else None,
            correction_bias=text.flag("moe_router_enable_expert_bias", True),
        )

    def is_sparse(text: Fields, index: int) -> bool:
        return index >= text.count("first_k_dense_replace", default=1, least=0, most=MOST_LAYERS)

    text = source.text
    family = Family(
        qkv_bias=text.flag("use_qkv_bias"),
        output_bias=text.flag("use_bias"),
        head_norms=2 if text.flag("use_qk_norm") else 0,
    )
    shape = mixture(family, experts, is_sparse=is_sparse)(source)
    layers = tuple(
        replace(x, mixer=replace(x.mixer, repeats_kv_heads=False)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _axk1(source: Source) -> Shape:
    """A.X K1: latents and experts as DeepSeek V3 has them, and a third norm in each layer."""
    text = source.text
    latent = read_latent(text)
    count, hidden = num_layers(text), text.count("hidden_size")
    width = text.count("moe_intermediate_size")
    shared = text.count("n_shared_experts", default=0, least=0, most=2**10)
    method = text.text("topk_method") or "noaux_tc"
    routed = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=method == "noaux_tc",
    )
    first = text.count("first_k_dense_replace", least=0, most=MOST_LAYERS)
    step = text.count("moe_layer_freq", default=1)
    dense_block = Mlp(text.count("intermediate_size"))
    layers = [
        Layer(latent, routed if i >= first and i % step == 0 else dense_block, 3 * hidden)
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=latent.qk_rope_head_dim)


READERS: dict[str, Callable[[Source], Shape]] = {
    "AXK1ForCausalLM": _axk1,
    "GraniteMoeSWAForCausalLM": _granite_swa,
    "GraniteSWAForCausalLM": _granite_swa,
    "Param2MoEForCausalLM": _param2,
}
"""These architectures by their name in config.json."""

ON_EVERY_STAGE = {
    "GraniteMoeSWAForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
}
"""Parts that vLLM 0.32.0 builds on every pipeline stage."""

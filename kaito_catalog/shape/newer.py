"""Decoders that vLLM 0.32.0 knows and 0.25.1 does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape.fields import Source, with_defaults
from kaito_catalog.shape.mixtures import granite_experts, kimi_linear
from kaito_catalog.shape.model import (
    Attention,
    Experts,
    Json,
    KimiDelta,
    LatentAttention,
    Layer,
    Place,
    Scheme,
    Shape,
)
from kaito_catalog.shape.parts import Family, dense, layer_types, mixture, num_layers
from kaito_catalog.shape.towers import moonvit3_tower


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
        tower=moonvit3_tower(source),
    )


READERS: dict[str, Callable[[Source], Shape]] = {
    "GraniteMoeSWAForCausalLM": _granite_swa,
    "GraniteSWAForCausalLM": _granite_swa,
    "KimiK3ForConditionalGeneration": _kimi_k3,
}
"""These architectures by their name in config.json."""

ON_EVERY_STAGE = {
    "GraniteMoeSWAForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "KimiK3ForConditionalGeneration": frozenset({Place.TOWER}),
}
"""Parts that vLLM 0.32.0 builds on every pipeline stage."""

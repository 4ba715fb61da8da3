"""Arcee's decoders and Trinity."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.mixers import Attention, Gate
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    dense_before,
    layer_types,
    mixture,
    num_layers,
    read_experts,
    shared_experts,
)
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.shape import Experts, Shape


def _afmoe(source: Source) -> Shape:
    """Arcee's Trinity: a gate as wide as the heads, four norms, and a window on three layers of four."""
    # AfmoeConfig's defaults (vLLM).
    text = with_defaults(source.text, head_dim=128, num_dense_layers=1, num_shared_experts=2)
    count = num_layers(text)
    if layer_types(text, count) is None:
        raise UnreadableError(
            f"the configuration has no {text.path('layer_types')}", text.path("layer_types")
        )

    def experts(text: Fields) -> Experts:
        shared = shared_experts(text, text.count("moe_intermediate_size"))
        return read_experts(text, ("num_experts",), shared=shared, correction_bias=True, router_bytes=4)

    family = DecoderDefaults(qkv_bias=False, output_bias=False, head_norms=2, norms=4)
    read = mixture(family, experts, is_sparse=dense_before("num_dense_layers"))
    shape = read(replace(source, text=text))
    layers = tuple(
        replace(x, mixer=replace(x.mixer, gate=Gate.OUTPUT)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers, tie_word_embeddings=False)


ARCHITECTURES: dict[str, Architecture] = {
    "ArceeForCausalLM": Architecture(dense(DecoderDefaults(gated=False))),
    "AfmoeForCausalLM": Architecture(_afmoe),
}
"""By their name in config.json."""

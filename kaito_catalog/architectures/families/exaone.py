"""LG's EXAONE."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.reading.fields import Fields, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    layer_types,
    mixture,
    num_layers,
    read_experts,
    with_types,
)
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Experts, Json, Mlp, Shape


def _exaone4(source: Source) -> Shape:
    text = source.text
    pattern = text.values.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern and layer_types(text, num_layers(text)) is None:
        types = [
            "sliding_attention" if pattern[i % len(pattern)] == "L" else "full_attention"
            for i in range(num_layers(text))
        ]
        types[-1] = "full_attention"
        text = with_defaults(text, layer_types=cast(Json, types))
    elif isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        text = with_types(text, ("sliding_window_pattern",), 4)
    return dense(DecoderDefaults(head_norms=2))(replace(source, text=text))


def _exaone_experts(text: Fields) -> Experts:
    width = text.count("moe_intermediate_size")
    shared = text.count("num_shared_experts", default=0, least=0, most=2**10)
    return read_experts(
        text, ("num_experts",), shared=Mlp(width * shared) if shared else None, correction_bias=True
    )


def _exaone_sparse(text: Fields, index: int) -> bool:
    listed = text.values.get("is_moe_layer")
    if isinstance(listed, list) and index < len(listed):
        return bool(listed[index])
    return index >= text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)


_EXAONE_MOE = mixture(DecoderDefaults(head_norms=2), _exaone_experts, is_sparse=_exaone_sparse)


ARCHITECTURES: dict[str, Architecture] = {
    "ExaoneForCausalLM": Architecture(dense(DecoderDefaults())),
    "Exaone4ForCausalLM": Architecture(_exaone4),
    "ExaoneMoEForCausalLM": Architecture(_EXAONE_MOE),
    "ExaoneMoeForCausalLM": Architecture(_EXAONE_MOE),
    "Exaone4_5_ForConditionalGeneration": unread("Exaone4ForCausalLM"),
}
"""By their name in config.json."""

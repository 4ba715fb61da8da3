"""Decoders that vLLM 0.32.0 knows and 0.25.1 does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape.fields import Source, with_defaults
from kaito_catalog.shape.mixtures import granite_experts
from kaito_catalog.shape.model import Attention, Json, Place, Shape
from kaito_catalog.shape.parts import Family, dense, layer_types, mixture, num_layers


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


READERS: dict[str, Callable[[Source], Shape]] = {
    "GraniteMoeSWAForCausalLM": _granite_swa,
    "GraniteSWAForCausalLM": _granite_swa,
}
"""These architectures by their name in config.json."""

ON_EVERY_STAGE = {
    "GraniteMoeSWAForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
}
"""Parts that vLLM 0.32.0 builds on every pipeline stage."""

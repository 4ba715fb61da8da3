"""SmolLM and SmolVLM, and Idefics 3."""

from __future__ import annotations

from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import holding, over_siglip
from kaito_catalog.architectures.shape import Matrix


def _idefics3(source: Source, width: int, hidden: int) -> tuple[list[Matrix], int]:
    merged = width * source.root.count("scale_factor", default=2, most=64) ** 2
    return [Matrix(merged, hidden, "none", bias=False, quantized=True)], 0


ARCHITECTURES: dict[str, Architecture] = {
    "SmolLM3ForCausalLM": Architecture(dense(DecoderDefaults(tied=True))),
    "Idefics3ForConditionalGeneration": holding(over_siglip(_idefics3), always_with_encoder=True),
    "SmolVLMForConditionalGeneration": holding(over_siglip(_idefics3), always_with_encoder=True),
}
"""By their name in config.json."""

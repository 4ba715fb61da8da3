"""Ovis."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.vision import siglip
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Matrix, Shape

_OVIS_INDICATORS = 5
"""Words for the ends and rows of an image, which the encoder never says."""


def _ovis(source: Source) -> Shape:
    """Ovis 1.6 and 2: patches are spelt in a vocabulary of their own, which has an embedding."""
    shape = decoder_of(source)
    spelling = source.root.section("visual_tokenizer_config")
    seen = spelling.section("backbone_config") if spelling is not None else None
    if spelling is None or seen is None:
        field = "visual_tokenizer_config.backbone_config"
        raise UnreadableError(f"the configuration has no {field}", field)
    kind = seen.text("model_type") or ""
    encoders = {"aimv2": _aimv2, "aimv2_vision_model": _aimv2, "siglip_vision_model": siglip}
    if kind not in encoders:
        raise UnreadableError(f"no plan for the encoder {kind[:60]}", seen.path("model_type"))
    layered, plain = encoders[kind](seen)
    width = seen.count("hidden_size", default=1024)
    words = spelling.count("vocab_size", default=16_384, least=_OVIS_INDICATORS + 1)
    merged = width * spelling.count("hidden_stride", default=1, most=64) ** 2
    said = words - _OVIS_INDICATORS
    matrices = (*layered, Matrix(merged, said, "none", bias=False))
    plain += 2 * said + words * shape.hidden_size
    heads = seen.count("num_attention_heads", default=8, most=2**16)
    return replace(shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain))


def _aimv2(vision: Fields) -> tuple[list[Matrix], int]:
    """vLLM's aimv2.py without a norm after the last layer, with Aimv2VisionConfig's defaults (transformers)."""
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=2816)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=14)
    patches = (vision.count("image_size", default=224) // patch) ** 2
    biased = vision.flag("mlp_bias") or vision.flag("use_bias")
    matrices = [
        Matrix(width, 3 * width, "column", bias=vision.flag("qkv_bias"), count=depth),
        Matrix(width, width, "row", bias=biased, count=depth),
        Matrix(width, 2 * wide, "column", bias=biased, count=depth),
        Matrix(wide, width, "row", bias=biased, count=depth),
    ]
    pixels = vision.count("num_channels", default=3) * patch**2
    return matrices, (pixels + 1 + 1 + patches) * width + depth * 2 * width


ARCHITECTURES: dict[str, Architecture] = {
    "Ovis": holding(_ovis),
    "Ovis2_5": unread(),
    "Ovis2_6ForCausalLM": unread(),
    "Ovis2_6_MoeForCausalLM": unread(),
}
"""By their name in config.json."""

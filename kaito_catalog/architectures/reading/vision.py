"""Encoders of images that several families use (CLIP, SigLIP, InternViT), as vLLM 0.25.1 builds them."""

from __future__ import annotations

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.record import Source
from kaito_catalog.architectures.shape import MOST_LAYERS, Matrix, Medium

SIGLIP_TILE = 64
"""SigLIP's blocks of other widths are not quantised (vLLM's siglip.py)."""


def vision_section(source: Source) -> Fields | None:
    return source.root.section("vision_config")


def clip(vision: Fields, layers_left_out: int) -> tuple[list[Matrix], int, Medium]:
    """vLLM's clip.py up to the layer whose output is taken; LLaVA does without the norm after the last."""
    width = vision.count("hidden_size", default=768)
    wide = vision.count("intermediate_size", default=3072)
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    depth -= layers_left_out
    patch = vision.count("patch_size", default=32)
    patches = (vision.count("image_size", default=224) // patch) ** 2
    pixels = vision.count("num_channels", default=3) * patch**2
    plain = width + pixels * width + (patches + 1) * width + 2 * width + depth * 4 * width
    # QuickGELU is made in steps: its input, the sigmoid's and the product.
    steps = 3 if vision.values.get("hidden_act", "quick_gelu") == "quick_gelu" else 2
    return encoder_layers(width, wide, depth), plain, Medium(patches, patches, width, steps * wide, pixels)


def encoder_layers(
    width: int, wide: int, depth: int, kind: str = "", qkv_bias: bool = True, quantized: bool | None = None
) -> list[Matrix]:
    """Attention and a block of two matrices a layer; `quantized` is said of the block."""
    return [
        Matrix(width, 3 * width, f"{kind}column", bias=qkv_bias, count=depth),
        Matrix(width, width, f"{kind}row", count=depth),
        Matrix(width, wide, "column", count=depth, quantized=quantized),
        Matrix(wide, width, "row", count=depth, quantized=quantized),
    ]


def siglip_layers(width: int, wide: int, depth: int) -> list[Matrix]:
    """vLLM's siglip.py, which quantises blocks of some widths only."""
    return encoder_layers(width, wide, depth, quantized=width % SIGLIP_TILE == wide % SIGLIP_TILE == 0)


def intern_layers(vision: Fields, depth: int) -> tuple[list[Matrix], int]:
    """The layers of InternViT, which RADIO shares; attention is whole where heads cannot be divided."""
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    norms = 4 if (vision.text("norm_type") or "rms_norm") == "layer_norm" else 2
    per_layer = (norms + 2 + (2 if vision.flag("qk_normalization", False) else 0)) * width
    bias = vision.flag("qkv_bias", False)
    return encoder_layers(width, wide, depth, "heads-", bias), depth * per_layer


def siglip(vision: Fields, depth: int | None = None) -> tuple[list[Matrix], int]:
    """vLLM's siglip.py to the end: a norm after the last layer, no head."""
    width = vision.count("hidden_size", default=768)
    wide = vision.count("intermediate_size", default=3072)
    if depth is None:
        depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=16)
    patches = (vision.count("image_size", default=224) // patch) ** 2
    plain = vision.count("num_channels", default=3) * patch**2 * width + width + patches * width
    return siglip_layers(width, wide, depth), plain + depth * 4 * width + 2 * width


def stated_vision(source: Source) -> Fields:
    """The part about the encoder of images."""
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    return vision

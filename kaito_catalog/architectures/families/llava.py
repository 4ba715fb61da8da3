"""LLaVA, and models in its format."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.vision import (
    clip,
    encoder_layers,
    siglip_layers,
    stated_vision,
    vision_section,
)
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Matrix, Medium, Shape


def _siglip(vision: Fields, layers_left_out: int) -> tuple[list[Matrix], int, Medium]:
    """vLLM's siglip.py: no token of the whole image, no norm before the layers."""
    width = vision.count("hidden_size", default=768)
    wide = vision.count("intermediate_size", default=3072)
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    depth -= layers_left_out
    patch = vision.count("patch_size", default=16)
    patches = (vision.count("image_size", default=224) // patch) ** 2
    pixels = vision.count("num_channels", default=3) * patch**2
    plain = pixels * width + width + patches * width + depth * 4 * width
    return siglip_layers(width, wide, depth), plain, Medium(patches, patches, width, 2 * wide, pixels)


def _left_out(source: Source, depth: int) -> int:
    """Layers behind the deepest one that LLaVA takes features from."""
    taken = source.root.values.get("vision_feature_layer", -2)
    several = taken if isinstance(taken, list) else [taken]
    numbers = [n for n in several if isinstance(n, int) and not isinstance(n, bool)]
    if len(numbers) != len(several) or not numbers:
        raise UnreadableError("vision_feature_layer is not a layer's number", "vision_feature_layer")
    deepest = max(depth + n + 1 if n < 0 else n for n in numbers)
    if not 0 < deepest <= depth:
        raise UnreadableError(f"vision_feature_layer {deepest} of {depth} layers", "vision_feature_layer")
    return depth - deepest


def _llava_projector(source: Source, width: int, hidden: int) -> list[Matrix]:
    if source.architecture.startswith("Bee"):
        return [Matrix(width, 4 * hidden, "none"), Matrix(4 * hidden, hidden, "none")]
    bias = source.root.flag("multimodal_projector_bias", True) or source.architecture.startswith("RFor")
    # LLaVA-OneVision's projector is whole on every rank, and so is R's.
    is_whole = "Onevision" in source.architecture or source.architecture.startswith("RFor")
    first, second = ("none", "none") if is_whole else ("column", "row")
    return [Matrix(width, hidden, first, bias=bias), Matrix(hidden, hidden, second, bias=bias)]


def _llava(source: Source) -> Shape:
    """LLaVA 1.5 and 1.6, Bee and R: CLIP or SigLIP, two matrices, and a decoder."""
    shape = decoder_of(source)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    kind = vision.text("model_type") or "clip_vision_model"
    encoders = {"clip_vision_model": clip, "siglip_vision_model": _siglip}
    read_encoder = encoders.get(kind)
    if read_encoder is None:
        raise UnreadableError(f"no plan for the encoder {kind[:60]}", "vision_config.model_type")
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    matrices, plain, medium = read_encoder(vision, _left_out(source, depth))
    width, hidden = vision.count("hidden_size", default=768), shape.hidden_size
    matrices += _llava_projector(source, width, hidden)
    if source.architecture.startswith(("LlavaNext", "LlavaOnevision", "Bee", "RFor")):
        plain += hidden  # what ends a row of an image
    if source.architecture.startswith(("Bee", "RFor")):
        plain += 2 * width  # a norm before the projector
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    encoder = Encoder("vision", heads, tuple(matrices), plain, medium=medium, quantized=True)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _llava_onevision2(source: Source) -> Shape:
    """LLaVA-OneVision 2: an encoder of its own, Qwen2-VL's merger, and Qwen3."""
    shape = decoder_of(source, "Qwen3ForCausalLM")
    vision = stated_vision(source)
    width = vision.count("hidden_size", default=1024)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    merged = width * vision.count("spatial_merge_size", default=2, most=64) ** 2
    pixels = vision.count("num_channels", default=3) * vision.count("patch_size", default=14) ** 2
    matrices = (
        *encoder_layers(width, vision.count("intermediate_size", default=4096), depth),
        Matrix(merged, merged, "column"),
        Matrix(merged, shape.hidden_size, "row"),
    )
    plain = pixels * width + depth * 4 * width + 4 * width
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    return replace(shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain))


ARCHITECTURES: dict[str, Architecture] = {
    "LlavaForConditionalGeneration": holding(_llava),
    "LlavaNextForConditionalGeneration": holding(_llava),
    "LlavaNextVideoForConditionalGeneration": unread(),
    "LlavaOnevisionForConditionalGeneration": holding(_llava),
    "LlavaOnevision2ForConditionalGeneration": holding(_llava_onevision2),
    "BeeForConditionalGeneration": holding(_llava),
    "RForConditionalGeneration": holding(_llava),
}
"""By their name in config.json."""

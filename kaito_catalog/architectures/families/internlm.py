"""InternLM, InternVL and Intern-S1, and models in InternVL's format."""

from __future__ import annotations

import math
from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import NO_BIAS, DecoderDefaults, dense, with_short_states
from kaito_catalog.architectures.reading.pooling import rewarding
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import intern_layers, vision_section
from kaito_catalog.architectures.reading.wrapping import as_of, decoder_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Layer, Matrix, Medium, Shape


def _internvl(source: Source) -> Shape:
    """InternVL's own format: InternViT, pixels shuffled together, two matrices, a decoder."""
    shape = decoder_of(source)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    chosen = source.root.values.get("select_layer", -1)
    if not isinstance(chosen, int) or isinstance(chosen, bool):
        raise UnreadableError("select_layer is not a number", "select_layer")
    depth = depth + chosen + 1 if chosen < 0 else chosen + 1
    if not 0 < depth <= MOST_LAYERS:
        raise UnreadableError(f"select_layer leaves {depth} layers", "select_layer")
    width, hidden = vision.count("hidden_size"), shape.hidden_size
    patch = vision.count("patch_size")
    patches = (vision.count("image_size") // patch) ** 2
    matrices, plain = intern_layers(vision, depth)
    plain += width + 3 * patch * patch * width + width + (patches + 1) * width
    ratio = source.root.number("downsample_ratio") or 0.5
    if not 0 < ratio <= 1:
        raise UnreadableError(f"downsample_ratio is {ratio}", "downsample_ratio")
    merged = width * int(1 / ratio) ** 2
    plain += 2 * merged
    matrices += [Matrix(merged, hidden, "none"), Matrix(hidden, hidden, "none")]
    wide = 2 * vision.count("intermediate_size")
    tiles = source.root.count("max_dynamic_patch", default=12, most=10**4) + 1
    medium = Medium(int(patches * ratio**2) * tiles, patches * tiles, width, wide, 3 * patch * patch)
    encoder = Encoder("vision", vision.count("num_attention_heads"), tuple(matrices), plain, medium=medium)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _sizes(vision: Fields, name: str, default: int) -> int:
    """Elements of a square that is stated as one side or as two."""
    value = vision.values.get(name)
    if isinstance(value, list):
        sides = [side for side in value if isinstance(side, int) and 0 < side < 2**16]
        if len(value) != 2 or len(sides) != 2:
            raise UnreadableError(f"{vision.path(name)} is not two sizes", vision.path(name))
        return sides[0] * sides[1]
    return vision.count(name, default=default, most=2**16) ** 2


def _internvl_hf(source: Source) -> Shape:
    """InternVL and Intern-S1 in transformers' format: attention is whole on every rank."""
    # InternVLConfig's own default counts, whatever the decoder's part says.
    tied = source.root.flag("tie_word_embeddings", True)
    text = Fields({**source.text.values, "tie_word_embeddings": tied}, source.text.where)
    shape = decoder_of(replace(source, text=text))
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # InternVLVisionConfig's defaults (transformers).
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=4096)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    pixels = _sizes(vision, "patch_size", 14)
    patches = _sizes(vision, "image_size", 448) // pixels
    bias = vision.flag("attention_bias")
    norms = 4 if (vision.text("norm_type") or "layer_norm") == "layer_norm" else 2
    per_layer = (norms + 2 + (2 if vision.flag("use_qk_norm") else 0)) * width
    plain = width + 3 * pixels * width + width + depth * per_layer
    if vision.flag("use_mask_token"):
        plain += width
    if vision.flag("use_absolute_position_embeddings", True):
        plain += (patches + 1) * width
    if not vision.flag("use_mean_pooling", True):
        plain += 2 * width
    ratio = source.root.number("downsample_ratio") or 0.5
    if not 0 < ratio <= 1:
        raise UnreadableError(f"downsample_ratio is {ratio}", "downsample_ratio")
    merged = width * int(1 / ratio) ** 2
    hidden = shape.hidden_size
    matrices = (
        Matrix(width, width, "none", bias=bias, count=3 * depth),
        Matrix(width, width, "none", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(merged, hidden, "none"),
        Matrix(hidden, hidden, "none"),
    )
    encoder = Encoder("vision", 1, matrices, plain + 2 * merged, divided=False)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _intern_s1_pro(source: Source) -> Shape:
    """Intern-S1-Pro: Qwen3-VL with experts, whose positions turn by learnt sums of frequencies."""
    of = "Qwen3VLMoeForConditionalGeneration"
    shape = as_of(source, of)
    text = source.text
    ropes = (text.section("rope_scaling"), text.section("rope_parameters"))
    rope = next((r for r in ropes if r is not None), None)
    if rope is None:
        field = text.path("rope_scaling")
        raise UnreadableError(f"the configuration has no {field}", field)
    width = text.count("head_dim", default=128, most=2**16)
    heads = text.count("num_key_value_heads", most=2**16)
    turned = min(width // 2, rope.optional("num_inv_freq", most=2**16) or _turning(text, rope, width))
    layers = tuple(_unquantized_router(layer) for layer in shape.layers)
    return replace(shape, layers=layers, divided_elements=2 * heads * turned**2)


def _turning(text: Fields, rope: Fields, width: int) -> int:
    """Frequencies that turn at least once within the context."""
    base = rope.number("rope_theta") or text.number("rope_theta") or 10_000.0
    longest = text.count("max_position_embeddings")
    if base <= 1:
        raise UnreadableError(f"{text.path('rope_theta')} is {base}", text.path("rope_theta"))
    return sum(base ** (-i / width) > 2 * math.pi / longest for i in range(0, width, 2))


def _unquantized_router(layer: Layer) -> Layer:
    block = layer.feed_forward
    return (
        replace(layer, feed_forward=replace(block, router_quantized=False))
        if isinstance(block, Experts)
        else layer
    )


def _intern_s2(source: Source) -> Shape:
    """Intern-S2 Preview: Qwen3.5 with experts; its encoder of time series is not loaded."""
    of = "Qwen3_5MoeForConditionalGeneration"
    return with_short_states(as_of(source, of))


ARCHITECTURES: dict[str, Architecture] = {
    "InternLM2ForCausalLM": Architecture(dense(NO_BIAS), on_every_stage=ENDS),
    "InternLM3ForCausalLM": Architecture(dense(DecoderDefaults())),
    "InternLM2ForRewardModel": Architecture(
        rewarding(dense(NO_BIAS), None), on_every_stage=ENDS, is_decoder=False
    ),
    "InternVLChatModel": holding(_internvl),
    "InternVLForConditionalGeneration": holding(_internvl_hf),
    "InternS1ForConditionalGeneration": holding(_internvl_hf),
    "InternS1ProForConditionalGeneration": holding(_intern_s1_pro),
    "InternS2PreviewForConditionalGeneration": holding(_intern_s2),
    "H2OVLChatModel": unread(),
    "SkyworkR1VChatModel": unread(),
    "QianfanOCRForConditionalGeneration": holding(_internvl),
}
"""By their name in config.json."""

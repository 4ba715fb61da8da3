"""Models of images over a decoder of another family, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.architectures.encoders import SIGLIP_TILE, vision_section
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    Encoder,
    Layer,
    Mamba2,
    Matrix,
    Medium,
    Place,
    Shape,
)

Reader = Callable[[Source], Shape]

_BY_MODEL_TYPE = {
    "cohere2": "Cohere2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granite": "GraniteForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "opt": "OPTForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "step3p5": "Step3p5ForCausalLM",
}
"""The decoder where the part about it names none."""

# LlamaConfig's and MistralConfig's own defaults (transformers), which LLaVA's files leave out.
_LLAMA_DEFAULTS = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 2048,
}  # fmt: skip
_MISTRAL_DEFAULTS = _LLAMA_DEFAULTS | {
    "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
}  # fmt: skip


def decoder_of(source: Source, readers: Mapping[str, Reader], of: str | None = None) -> Shape:
    """The language model, read by its own family."""
    text = source.text
    names = text.texts("architectures")
    model_type = text.text("model_type") or "llama"
    name = of or (names[0] if names else _BY_MODEL_TYPE.get(model_type))
    read = readers.get(name) if name else None
    if read is None or name is None:
        words = f"no plan for the decoder {(name or model_type)[:60]} of {source.architecture[:60]}"
        raise UnreadableError(words, text.path("architectures"))
    if name in ("LlamaForCausalLM", "MistralForCausalLM"):
        defaults = _MISTRAL_DEFAULTS if model_type == "mistral" else _LLAMA_DEFAULTS
        text = with_defaults(text, **defaults)
    return replace(read(replace(source, architecture=name, text=text)), decoder=name)


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


def _llava(readers: Callable[[], Mapping[str, Reader]]) -> Reader:
    """LLaVA 1.5 and 1.6, Bee and R: CLIP or SigLIP, two matrices, and a decoder."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
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

    return read


def _intern_layers(vision: Fields, depth: int) -> tuple[list[Matrix], int]:
    """The layers of InternViT, which RADIO shares; attention is whole where heads cannot be divided."""
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    norms = 4 if (vision.text("norm_type") or "rms_norm") == "layer_norm" else 2
    per_layer = (norms + 2 + (2 if vision.flag("qk_normalization", False) else 0)) * width
    bias = vision.flag("qkv_bias", False)
    return encoder_layers(width, wide, depth, "heads-", bias), depth * per_layer


def _internvl(readers: Callable[[], Mapping[str, Reader]]) -> Reader:
    """InternVL's own format: InternViT, pixels shuffled together, two matrices, a decoder."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
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
        matrices, plain = _intern_layers(vision, depth)
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
        encoder = Encoder(
            "vision", vision.count("num_attention_heads"), tuple(matrices), plain, medium=medium
        )
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


_RADIO = {
    "vit_small_patch16_224": (384, 12, 6, 1536),
    "vit_base_patch16_224": (768, 12, 12, 3072),
    "vit_large_patch16_224": (1024, 24, 16, 4096),
    "vit_huge_patch16_224": (1280, 32, 16, 5120),
}
"""Width, layers, heads and feed-forward width by name (vLLM's transformers_utils/configs/radio.py)."""


def radio(vision: Fields) -> tuple[list[Matrix], int, int, int]:
    """NVIDIA's RADIO. Matrices, others, heads, width."""
    arguments = vision.section("args")
    if arguments is None:
        raise UnreadableError("the configuration has no vision_config.args", "vision_config.args")
    dimensions = _RADIO.get(arguments.text("model") or "")
    if dimensions is None:
        raise UnreadableError("vision_config.args.model names no RADIO", "vision_config.args.model")
    width, depth, heads, wide = dimensions
    patch = vision.count("patch_size", default=16)
    layers = Fields(
        {
            "qkv_bias": True,
            "norm_type": "layer_norm",
            "hidden_size": width,
            "intermediate_size": wide,
        }
    )
    matrices, plain = _intern_layers(layers, depth)
    largest = round(arguments.count("cpe_max_size", default=2048) / patch)
    teachers = arguments.values.get("teachers")
    names = (
        {str(t.get("name")) for t in teachers if isinstance(t, dict)} if isinstance(teachers, list) else set()
    )
    tokens = len(names) if arguments.flag("cls_token_per_teacher") else 1
    multiple = arguments.optional("register_multiple", most=2**10)
    registers = multiple - tokens % multiple if multiple else 0
    plain += 3 * patch * patch * width + largest**2 * width + (tokens + registers) * width
    return matrices, plain, heads, width


def _nemotron_vl(readers: Callable[[], Mapping[str, Reader]]) -> Reader:
    """Nemotron Nano VL 2 and Nemotron Omni: RADIO, two matrices without bias, Parakeet, and Nemotron-H."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "NemotronHForCausalLM")
        if "Omni" in source.architecture:
            # vLLM looks for the states' dtype under the names of the others alone.
            shape = replace(shape, layers=tuple(_short_states(layer) for layer in shape.layers))
        root, vision = source.root, vision_section(source)
        if vision is None:
            unread = Encoder("vision", 1, None, divided=False)
            return replace(shape, architecture=source.architecture, encoder=unread)
        sound = root.section("sound_config")
        matrices, plain, heads, width = radio(vision)
        patch = vision.count("patch_size", default=16)
        frames = vision.count("video_temporal_patch_size", default=1, most=64)
        if frames > 1:
            plain += 3 * frames * patch * patch * width
        ratio = root.number("downsample_ratio") or 0.5
        merged = root.count("vit_hidden_size", default=width) * round(1 / ratio) ** 2
        middle = root.count("projector_hidden_size")
        plain += merged
        matrices += [
            Matrix(merged, middle, "none", bias=False),
            Matrix(middle, shape.hidden_size, "none", bias=False),
        ]
        if sound is not None:
            heard, beside = _parakeet(sound, shape.hidden_size)
            matrices, plain = matrices + heard, plain + beside
        encoder = Encoder("vision", heads, tuple(matrices), plain)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def _short_states(layer: Layer) -> Layer:
    """The layer with a state of the model's dtype."""
    return (
        replace(layer, mixer=replace(layer.mixer, state_bytes=2))
        if isinstance(layer.mixer, Mamba2)
        else layer
    )


def _parakeet(sound: Fields, hidden: int) -> tuple[list[Matrix], int]:
    """Parakeet's encoder as transformers has it, and a projector: whole on every rank."""
    # ParakeetEncoderConfig's defaults (transformers).
    width = sound.count("hidden_size", default=1024)
    depth = sound.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    wide = sound.count("intermediate_size", default=4096)
    kernel = sound.count("conv_kernel_size", default=9, most=2**10)
    channels = sound.count("subsampling_conv_channels", default=256)
    side = sound.count("subsampling_conv_kernel_size", default=3, most=2**10)
    stride = sound.count("subsampling_conv_stride", default=2, most=2**10)
    steps = sound.count("subsampling_factor", default=8, most=2**16).bit_length() - 1
    biased = 1 if sound.flag("convolution_bias", True) else 0
    plain = (side**2 + 1) * channels * max(1, steps) + (channels + 1) * channels * max(0, steps - 1)
    # Two biases of positions, a convolution over time, a norm of batches and five of layers.
    plain += depth * width * (2 + kernel + biased + 2 + 10)
    middle = sound.count("projection_hidden_size")
    ends = sound.flag("projection_bias")
    matrices = [
        Matrix(channels * (sound.count("num_mel_bins", default=80) // stride**steps), width, "none"),
        Matrix(width, wide, "none", bias=False, count=2 * depth),
        Matrix(wide, width, "none", bias=False, count=2 * depth),
        Matrix(width, width, "none", bias=False, count=5 * depth),
        Matrix(width, 2 * width, "none", bias=bool(biased), count=depth),
        Matrix(width, width, "none", bias=bool(biased), count=depth),
        Matrix(width, middle, "none", bias=ends),
        Matrix(middle, hidden, "none", bias=ends),
    ]
    return matrices, plain + width


def _glm4v(readers: Callable[[], Mapping[str, Reader]]) -> Reader:
    """GLM-4.1V and GLM-4.5V (vLLM's glm4_1v.py)."""

    def read(source: Source) -> Shape:
        is_moe = source.architecture == "Glm4vMoeForConditionalGeneration"
        of = "Glm4MoeForCausalLM" if is_moe else "Glm4ForCausalLM"
        text = source.text
        if "head_dim" not in text:
            heads = text.count("num_attention_heads", most=2**16)
            text = with_defaults(text, head_dim=text.count("hidden_size") // heads)
        shape = decoder_of(replace(source, text=text), readers(), of)
        vision = vision_section(source)
        if vision is None:
            raise UnreadableError("the configuration has no vision_config", "vision_config")
        width = vision.count("hidden_size")
        depth = vision.count("depth", most=MOST_LAYERS)
        out = vision.count("out_hidden_size")
        context = vision.count("intermediate_size")
        merge = vision.count("spatial_merge_size", default=2, most=64)
        patch = vision.count("patch_size") ** 2 * vision.count("temporal_patch_size", default=2)
        positions = (vision.count("image_size") // vision.count("patch_size")) ** 2
        plain = 3 * patch * width + width + positions * width + depth * 2 * width + 2 * width
        plain += merge**2 * width * out + out + 2 * out
        matrices = (
            Matrix(width, 3 * width, "column", bias=False, count=depth),
            Matrix(width, width, "row", bias=False, count=depth),
            Matrix(width, 2 * out, "column", bias=False, count=depth),
            Matrix(out, width, "row", bias=False, count=depth),
            Matrix(out, out, "column", bias=False),
            Matrix(out, 2 * context, "column", bias=False),
            Matrix(context, out, "row", bias=False),
        )
        encoder = Encoder("vision", vision.count("num_heads"), matrices, plain, quantized=True)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def _glm_ocr(readers: Callable[[], Mapping[str, Reader]]) -> Reader:
    """GLM-OCR (vLLM's glm_ocr.py): GLM-4.1V's encoder with biases and norms of queries and keys."""

    def read(source: Source) -> Shape:
        text = source.text
        if "head_dim" not in text:
            heads = text.count("num_attention_heads", most=2**16)
            text = with_defaults(text, head_dim=text.count("hidden_size") // heads)
        shape = decoder_of(replace(source, text=text), readers(), "Glm4ForCausalLM")
        # GlmOcrVisionConfig's defaults (transformers).
        vision = vision_section(source) or Fields({}, "vision_config.")
        width = vision.count("hidden_size", default=1024)
        wide = vision.count("intermediate_size", default=4096)
        depth = vision.count("depth", default=24, most=MOST_LAYERS)
        out = vision.count("out_hidden_size", default=1536)
        merge = vision.count("spatial_merge_size", default=2, most=64)
        heads = vision.count("num_heads", default=16, most=2**16)
        side = vision.count("patch_size", default=14, most=2**16)
        patch = vision.count("in_channels", default=3) * side**2
        patch *= vision.count("temporal_patch_size", default=2, most=64)
        plain = (patch + 1) * width + depth * (2 * width + 2 * (width // heads)) + width
        plain += (merge**2 * width + 1) * out + 2 * out
        context = text.count("intermediate_size")
        matrices = (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, 2 * wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(out, out, "column", bias=False),
            Matrix(out, 2 * context, "column", bias=False),
            Matrix(context, out, "row", bias=False),
        )
        encoder = Encoder("vision", heads, matrices, plain, quantized=True)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def multimodal(readers: Callable[[], Mapping[str, Reader]]) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those of the decoders they may hold."""
    return {
        "BeeForConditionalGeneration": _llava(readers),
        "GlmOcrForConditionalGeneration": _glm_ocr(readers),
        "Glm4vForConditionalGeneration": _glm4v(readers),
        "Glm4vMoeForConditionalGeneration": _glm4v(readers),
        "InternVLChatModel": _internvl(readers),
        "LlavaForConditionalGeneration": _llava(readers),
        "LlavaNextForConditionalGeneration": _llava(readers),
        "LlavaOnevisionForConditionalGeneration": _llava(readers),
        "NemotronH_Nano_Omni_Reasoning_V3": _nemotron_vl(readers),
        "NemotronH_Nano_VL_V2": _nemotron_vl(readers),
        "NemotronH_Omni_Reasoning_V3": _nemotron_vl(readers),
        "NemotronH_Super_Omni_Reasoning_V3": _nemotron_vl(readers),
        "QianfanOCRForConditionalGeneration": _internvl(readers),
        "RForConditionalGeneration": _llava(readers),
    }


ON_EVERY_STAGE = dict.fromkeys(
    (
        "BeeForConditionalGeneration",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "GlmOcrForConditionalGeneration",
        "InternVLChatModel",
        "LlavaForConditionalGeneration",
        "LlavaNextForConditionalGeneration",
        "LlavaOnevisionForConditionalGeneration",
        "QianfanOCRForConditionalGeneration",
        "RForConditionalGeneration",
    ),
    frozenset({Place.ENCODER}),
)
"""Beside what the decoder builds on every stage."""

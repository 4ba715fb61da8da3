"""Encoders of images and sound, and their projectors, as vLLM 0.25.1 builds them."""

from __future__ import annotations

import math
from typing import cast

from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Matrix, Medium

SIGLIP_TILE = 64
"""SigLIP's blocks of other widths are not quantised (vLLM's siglip.py)."""


def gemma3_encoder(source: Source) -> Encoder:
    # SiglipVisionConfig's defaults (transformers); vLLM: siglip.py, gemma3_mm.py.
    vision = source.root.section("vision_config")
    assert vision is not None
    width = vision.count("hidden_size", default=1152)
    wide = vision.count("intermediate_size", default=4304)
    depth = vision.count("num_hidden_layers", default=27, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=14)
    image = vision.count("image_size", default=896)
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    positions = (image // patch) ** 2
    plain = channels * patch * patch * width + width + positions * width
    plain += depth * 4 * width + 2 * width  # two norms with bias a layer, one after the last
    plain += width * hidden + width  # projector and its norm
    is_tiled = width % SIGLIP_TILE == wide % SIGLIP_TILE == 0
    return Encoder(
        "siglip",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth, quantized=is_tiled),
            Matrix(wide, width, "row", count=depth, quantized=is_tiled),
        ),
        plain,
        medium=Medium(
            source.root.count("mm_tokens_per_image", default=256),
            positions,
            width,
            2 * wide,
            channels * patch * patch,
        ),
        quantized=True,
    )


QWEN_IMAGE_TOKENS = 16384
"""The largest image of Qwen's processors (max_pixels, longest_edge), in tokens, for all sizes of its models."""
QWEN2_VIDEO_IMAGES = 7
"""vLLM profiles with at most 14 frames (qwen2_vl.py), and two of them make one image."""


def _qwen_medium(
    merge: int,
    width: int,
    wide: int,
    pixels: int,
    most_images: int = 1,
    outputs: int = 1,
    fuses: bool = False,
) -> Medium:
    # Attention holds queries and keys twice more while it rotates them: eight widths beside the four.
    wide = max(wide, 8 * width)
    patches = QWEN_IMAGE_TOKENS * merge**2
    return Medium(QWEN_IMAGE_TOKENS, patches, width, wide, pixels, most_images, outputs, fuses)


def vision_section(source: Source) -> Fields | None:
    return source.root.section("vision_config")


def qwen2_5_vl_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's qwen2_5_vl.py: RMS norms, gated MLP, merger; sizes divided as in the decoder."""
    vision = vision_section(source)
    if vision is None:
        return None
    width = vision.count("hidden_size", default=1280)
    wide = vision.count("intermediate_size", default=3420)
    depth = vision.count("depth", default=32, most=MOST_LAYERS)
    merge = vision.count("spatial_merge_size", default=2)
    merged = width * merge**2
    patch = vision.count("patch_size", default=14) ** 2 * vision.count("temporal_patch_size", default=2)
    channels = vision.count("in_channels", "in_chans", default=3)
    return Encoder(
        "vision",
        vision.count("num_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, 2 * wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "column"),
            Matrix(merged, vision.count("out_hidden_size", default=3584), "row"),
        ),
        channels * patch * width + depth * 2 * width + width,
        # SwiGLU in steps, since vLLM compiles no encoder.
        medium=_qwen_medium(
            merge, width, 4 * wide, channels * patch, most_images=QWEN2_VIDEO_IMAGES, fuses=True
        ),
        quantized=True,
    )


def qwen2_vl_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's qwen2_vl.py, with Qwen2VLVisionConfig's defaults (transformers)."""
    vision = vision_section(source)
    if vision is None:
        return None
    width = vision.count("embed_dim", default=1280)
    wide = width * vision.count("mlp_ratio", default=4)
    depth = vision.count("depth", default=32, most=MOST_LAYERS)
    merge = vision.count("spatial_merge_size", default=2)
    merged = width * merge**2
    patch = vision.count("patch_size", default=14) ** 2 * vision.count("temporal_patch_size", default=2)
    channels = vision.count("in_channels", "in_chans", default=3)
    return Encoder(
        "vision",
        vision.count("num_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "column"),
            Matrix(merged, vision.count("hidden_size", default=3584), "row"),
        ),
        channels * patch * width + depth * 4 * width + 2 * width,
        # QuickGELU in steps: its input, the sigmoid's and the product.
        medium=_qwen_medium(merge, width, 3 * wide - width, channels * patch, most_images=QWEN2_VIDEO_IMAGES),
        quantized=True,
    )


def qwen3_vl_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's qwen3_vl.py, which Qwen3.5 and 3.6 use too: layer norms, merger, deepstack mergers."""
    vision = vision_section(source)
    if vision is None:
        return None
    width = vision.count("hidden_size", default=1152)
    wide = vision.count("intermediate_size", default=4304)
    depth = vision.count("depth", default=27, most=MOST_LAYERS)
    merge = vision.count("spatial_merge_size", default=2)
    merged = width * merge**2
    patch = vision.count("patch_size", default=16) ** 2 * vision.count("temporal_patch_size", default=2)
    out = vision.count("out_hidden_size", default=3584)
    positions = vision.count("num_position_embeddings", default=2304)
    deep = vision.values.get("deepstack_visual_indexes")
    # Qwen3VLVisionConfig's default is three of them.
    layers = deep if isinstance(deep, list) else [8, 16, 24]
    mergers = len(layers)
    reached = sum(isinstance(layer, int) and layer < depth for layer in layers)
    plain = vision.count("in_channels", default=3) * patch * width + width + positions * width
    plain += depth * 4 * width + 2 * width + mergers * 2 * merged
    return Encoder(
        "vision",
        vision.count("num_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "column", count=1 + mergers),
            Matrix(merged, out, "row", count=1 + mergers),
        ),
        plain,
        medium=_qwen_medium(merge, width, 2 * wide, 3 * patch, outputs=1 + reached),
        quantized=True,
    )


def moonvit_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's kimi_k25_vit.py; its projector is replicated."""
    vision = vision_section(source)
    if vision is None:
        return None
    # Kimi K2.5 calls them vt_…, Kimi-VL does not.
    width = vision.count("vt_hidden_size", "hidden_size")
    wide = vision.count("vt_intermediate_size", "intermediate_size")
    depth = vision.count("vt_num_hidden_layers", "num_hidden_layers", most=MOST_LAYERS)
    merged = _merged(vision, width)
    out = vision.count("text_hidden_size", default=source.text.count("hidden_size"))
    return Encoder(
        "vision",
        vision.count("vt_num_attention_heads", "num_attention_heads"),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "none"),
            Matrix(merged, out, "none"),
        ),
        _moonvit_patches(vision, width) + width + depth * 4 * width + 2 * width + 2 * width,
    )


def _merged(vision: Fields, width: int) -> int:
    """Elements of the patches that become one embedding."""
    kernel = vision.values.get("merge_kernel_size", [2, 2])
    if not isinstance(kernel, list) or not all(isinstance(k, int) and 0 < k < 64 for k in kernel):
        raise UnreadableError("vision_config.merge_kernel_size is not two sizes", "merge_kernel_size")
    return width * math.prod(cast(list[int], kernel))


def _moonvit_patches(vision: Fields, width: int) -> int:
    """Elements of the convolution that takes patches, without its bias, and of the positions."""
    patch = vision.count("patch_size", default=14)
    height = vision.count("init_pos_emb_height", default=64)
    return 3 * patch * patch * width + height * vision.count("init_pos_emb_width", default=64) * width


def moonvit3_encoder(source: Source) -> Encoder | None:
    """The same as vLLM 0.32.0 builds it for Kimi K3: heads of another width, each part's norms and biases stated."""
    vision = vision_section(source)
    if vision is None:
        return None
    # KimiK3VisionConfig's defaults (vLLM).
    width = vision.count("vt_hidden_size", default=1024)
    wide = vision.count("vt_intermediate_size", default=4096)
    depth = vision.count("vt_num_hidden_layers", default=27, most=MOST_LAYERS)
    heads = vision.count("qkv_hidden_size", default=1536)
    attention, linear = vision.flag("attn_bias"), vision.flag("linear_bias")
    merged = _merged(vision, width)
    out = source.text.count("hidden_size")
    norm = width * (1 if (vision.text("norm_type") or "rmsnorm") == "rmsnorm" else 2)
    is_second = (vision.text("mm_projector_type") or "patchmergerv2") == "patchmergerv2"
    patches = _moonvit_patches(vision, width) + (width if vision.flag("patch_embed_proj_bias") else 0)
    return Encoder(
        "vision",
        vision.count("vt_num_attention_heads", default=12),
        (
            Matrix(width, 3 * heads, "heads-column", attention, depth),
            Matrix(heads, width, "heads-row", attention, depth),
            Matrix(width, wide, "heads-column", linear, depth),
            Matrix(wide, width, "heads-row", linear, depth),
            Matrix(merged, merged, "none", not is_second),
            Matrix(merged, out, "none", not is_second),
        ),
        patches + (2 * depth + 1) * norm + (out if is_second else 2 * width),
    )


def minimax_m3_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's minimax_m3/common/vision_tower.py: CLIP's layers without a last norm, projector, merger."""
    vision = vision_section(source)
    if vision is None:
        return None
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    compression = vision.section("img_token_compression_config") or Fields({})
    merge = compression.count("spatial_merge_size", default=2) ** 2
    patch = vision.count("patch_size") ** 2 * compression.count("temporal_patch_size", default=2)
    hidden = source.text.count("hidden_size")
    middle = source.root.optional("projector_hidden_size") or hidden
    # The encoder's own section says nothing of biases, and both default to having one.
    return Encoder(
        "vision",
        vision.count("num_attention_heads"),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(width, middle, "column"),
            Matrix(middle, hidden, "row"),
            Matrix(merge * hidden, middle, "column"),
            Matrix(middle, hidden, "row"),
        ),
        vision.count("num_channels", default=3) * patch * width + depth * 4 * width + 2 * width,
    )


def pixtral_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's pixtral.py and mistral3.py: Hugging Face's Pixtral encoder, patch merger, projector."""
    vision = vision_section(source)
    if vision is None:
        return _unknown_encoder(source)
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=4096)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=16)
    patches = (vision.count("image_size", default=1540) // patch) ** 2
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    merge = source.root.count("spatial_merge_size", default=2) ** 2
    bias = source.root.flag("multimodal_projector_bias")
    return Encoder(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", bias=False, count=depth),
            Matrix(width, width, "row", bias=False, count=depth),
            Matrix(width, 2 * wide, "column", bias=False, count=depth),
            Matrix(wide, width, "row", bias=False, count=depth),
            Matrix(width, hidden, "column", bias=bias),
            Matrix(hidden, hidden, "row", bias=bias),
            Matrix(merge * width, width, "none", bias=False),
        ),
        channels * patch * patch * width + width + depth * 2 * width + width,
        medium=Medium(patches // merge, patches, width, 3 * wide, channels * patch * patch),
        quantized=True,
    )


def _unknown_encoder(source: Source) -> Encoder | None:
    for name in ("vision_config", "vision_encoder", "audio_config"):
        section = source.root.section(name)
        if section is not None:
            heads = section.count("num_attention_heads", "num_heads", "vt_num_attention_heads", default=1)
            return Encoder(name.removesuffix("_config"), heads, None)
    return None


GEMMA4_FRAMES = 32
GEMMA4_FRAME_TOKENS = 70
"""vLLM profiles with a video (gemma4_mm.py): so many frames, each with eight tokens around them."""


def gemma4_encoder(source: Source) -> Encoder | None:
    """transformers' Gemma 4 encoders, which vLLM 0.25.1 (gemma4_mm.py) uses as they are: never divided."""
    vision, audio = vision_section(source), source.root.section("audio_config")
    if vision is None and audio is None:
        return None
    hidden = source.text.count("hidden_size")
    plain = 0
    matrices: list[Matrix] = []
    medium = None

    def whole(inputs: int, outputs: int, count: int = 1, bias: bool = False) -> None:
        matrices.append(Matrix(inputs, outputs, "none", bias, count))

    if vision is not None and "mm_embed_dim" in vision:  # Gemma 4 12B: no encoder, patches are embedded
        width = vision.count("mm_embed_dim")
        patch = 3 * vision.count("model_patch_size") ** 2
        plain += vision.count("mm_posemb_size") * 2 * width + 2 * patch + 4 * width
        matrices.append(Matrix(patch, width, "column"))
        whole(vision.count("output_proj_dims", default=width), hidden)
    elif vision is not None:
        width = vision.count("hidden_size")
        depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
        heads = vision.count("num_attention_heads")
        head_dim = vision.count("head_dim", default=width // heads)
        wide = vision.count("intermediate_size")
        kv_width = vision.count("num_key_value_heads", default=heads) * head_dim
        plain += 2 * vision.count("position_embedding_size", default=10240) * width
        plain += depth * (2 * head_dim + 4 * width)
        whole(3 * vision.count("patch_size", default=16) ** 2, width)
        whole(width, heads * head_dim, depth)
        whole(width, kv_width, 2 * depth)
        whole(heads * head_dim, width, depth)
        whole(width, wide, 2 * depth)
        whole(wide, width, depth)
        whole(width, hidden)
        kernel = vision.count("pooling_kernel_size", default=3)
        frame = GEMMA4_FRAME_TOKENS * kernel**2
        medium = Medium(
            GEMMA4_FRAMES * (GEMMA4_FRAME_TOKENS + 8),
            GEMMA4_FRAMES * frame,
            width,
            3 * wide,
            pixels=3 * vision.count("patch_size", default=16) ** 2,
            piece=frame,
            # _encoder_chunk of gemma4_mm.py: positions as one-hot vectors of int64, twice, and their product.
            piece_bytes=frame * 4 * vision.count("position_embedding_size", default=10240) * 8,
        )
    if audio is not None and "audio_embed_dim" in audio:
        whole(audio.count("audio_embed_dim"), hidden)
    elif audio is not None:
        width = audio.count("hidden_size")
        depth = audio.count("num_hidden_layers", most=MOST_LAYERS)
        heads = audio.count("num_attention_heads")
        channels = audio.values.get("subsampling_conv_channels")
        if not (
            isinstance(channels, list) and len(channels) == 2 and all(isinstance(c, int) for c in channels)
        ):
            raise UnreadableError(
                "audio_config.subsampling_conv_channels is not two counts", "subsampling_conv_channels"
            )
        first, second = cast(list[int], channels)
        kernel = audio.count("conv_kernel_size", default=5)
        out = audio.count("output_proj_dims", default=1536)
        plain += 9 * first + first + 9 * first * second + second
        # Norms of two feed-forward blocks, of the convolution and around attention; scales of one head.
        plain += depth * (4 * width + 2 * width + 3 * width + width // heads + kernel * width)
        whole(first // 4 * second, width)
        whole(width, 4 * width, 2 * depth)
        whole(4 * width, width, 2 * depth)
        whole(width, width, 5 * depth)
        whole(width, 2 * width, depth)
        whole(width, width, depth)
        whole(width, out, bias=True)
        whole(out, hidden)
    return Encoder("vision", 1, tuple(matrices), plain, divided=False, medium=medium)


def llama4_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's mllama4.py with Llama4VisionConfig's defaults (transformers)."""
    if not source.architecture.endswith("ForConditionalGeneration"):
        return None
    vision = vision_section(source) or Fields({}, "vision_config.")
    width = vision.count("hidden_size", default=768)
    depth = vision.count("num_hidden_layers", default=34, most=MOST_LAYERS)
    wide = vision.count("intermediate_size", default=5632)
    patch = vision.count("patch_size", default=14)
    patches = (vision.count("image_size", default=448) // patch) ** 2
    middle = vision.count("projector_input_dim", default=4096)
    out = vision.count("projector_output_dim", default=4096)
    return Encoder(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(3 * patch * patch, width, "column", bias=False),
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(wide, middle, "column", bias=False),
            Matrix(middle, out, "row", bias=False),
            Matrix(
                vision.count("vision_output_dim", default=7680),
                source.text.count("hidden_size"),
                "column",
                bias=False,
            ),
        ),
        width + (patches + 1) * width + 4 * width + depth * 4 * width,
    )

"""Qwen: decoders, images, sound, and embeddings made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.mixers import Gate, GatedDeltaNet
from kaito_catalog.architectures.reading.drafting import NEXTN, mtp
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.pooling import bidirectional, labels, pooling, rewarding
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, DrafterReader, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, late, unread_encoder
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Encoder,
    Experts,
    FeedForward,
    Json,
    Layer,
    Matrix,
    Medium,
    Mlp,
    Shape,
    StagePart,
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


def _qwen2_vl_encoder(source: Source) -> Encoder | None:
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


def _qwen3_vl_encoder(source: Source) -> Encoder | None:
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


_QWEN2 = DecoderDefaults(qkv_bias=True, output_bias=False)


_QWEN3 = DecoderDefaults(head_dim=128, head_norms=2)


_read_qwen2, _read_qwen3 = dense(_QWEN2), dense(_QWEN3)


def _qwen_sparse(text: Fields, index: int) -> bool:
    only = text.values.get("mlp_only_layers") or []
    step = text.count("decoder_sparse_step", default=1)
    return not (isinstance(only, list) and index in only) and (index + 1) % step == 0


def _qwen3_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_experts",), router_quantized=True)


def _qwen2_experts(text: Fields) -> Experts:
    shared = text.optional("shared_expert_intermediate_size")
    return read_experts(
        text, ("num_experts",), shared=Mlp(shared) if shared else None, shared_gate=shared is not None
    )


def _qwen_hybrid(source: Source) -> Shape:
    """Qwen3-Next, Qwen3.5 and 3.6: three linear-attention layers, then one of full attention."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None:
        interval = text.count("full_attention_interval", default=4)
        if interval != 4:
            # transformers 5 fills layer_types in with every fourth layer, whatever this field says.
            field = text.path("full_attention_interval")
            raise UnreadableError(f"{field} is {interval} and there is no layer_types", field)
        types = ["full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(count)]
    attention = read_attention(
        text,
        DecoderDefaults(head_dim=256, head_norms=2, qkv_bias=text.flag("qkv_bias"), output_bias=False),
        gate=Gate.OUTPUT if text.flag("attn_output_gate", True) else None,
    )
    is_next = source.architecture.startswith("Qwen3Next")
    state = text.text("mamba_ssm_dtype")
    linear = GatedDeltaNet(
        text.count("linear_num_key_heads"),
        text.count("linear_num_value_heads"),
        text.count("linear_key_head_dim"),
        text.count("linear_value_head_dim"),
        text.count("linear_conv_kernel_dim", default=4),
        # vLLM takes Qwen3.5's mamba_ssm_dtype and leaves Qwen3-Next's state in the model's dtype.
        state_bytes=4 if state == "float32" and not is_next else 2,
        interleaved=is_next,
    )
    has_experts = any(n in text for n in ("num_experts",)) and text.values.get("num_experts") != 0
    feed_forward: FeedForward
    dense = Mlp(text.count("intermediate_size")) if not has_experts else None
    feed_forward = dense or _qwen2_experts(text)
    layers = []
    for i, kind in enumerate(types):
        if kind not in ("full_attention", "linear_attention"):
            raise UnreadableError(f"{text.path('layer_types')} has '{kind[:40]}'", text.path("layer_types"))
        block = feed_forward
        if has_experts and not _qwen_sparse(text, i):
            block = Mlp(text.count("intermediate_size"))
        layers.append(Layer(attention if kind == "full_attention" else linear, block, 2 * hidden))
    encoder = _qwen3_vl_encoder(source)
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)


def _with_attention(text: Fields, layers: int, more: int) -> dict[str, Json]:
    """Layers of full attention after the model's own."""
    types = layer_types(text, layers)
    if types is None:
        types = ["full_attention" if (i + 1) % 4 == 0 else "linear_attention" for i in range(layers)]
    return {"layer_types": cast("list[Json]", [*types, *["full_attention"] * more])}


def _qwen_mtp(count: str) -> DrafterReader:
    return mtp(count=count, default=1, divided=True, named="mtp.layers", longer=_with_attention)


def _voyage(source: Source) -> Shape:
    """Voyage's embeddings: Qwen3 that looks both ways, and a matrix to the embedding's width."""
    shape = bidirectional(replace(pooling(_read_qwen3)(source), has_head=False))
    return unweighed(replace(shape, plain_elements=shape.hidden_size * labels(source.text)))


def _audio_encoder(audio: Fields, *, ends: bool) -> tuple[list[Matrix], int, int, int]:
    """Whisper's encoder as Qwen has it in transformers: whole on every rank. Matrices, others, width, positions."""
    width = audio.count("d_model", default=1280)
    depth = audio.count("encoder_layers", default=32, most=MOST_LAYERS)
    wide = audio.count("encoder_ffn_dim", default=5120)
    bins = audio.count("num_mel_bins", default=128)
    positions = audio.count("max_source_positions", default=1500, most=LONGEST_CONTEXT)
    plain = 3 * bins * width + width + 3 * width * width + width + depth * 4 * width + 2 * width
    matrices = [
        Matrix(width, width, "none", count=3 * depth),
        Matrix(width, width, "none", bias=False, count=depth),
        Matrix(width, wide, "none", count=depth),
        Matrix(wide, width, "none", count=depth),
    ]
    if ends:
        out = audio.count("output_dim", default=3584)
        plain += 2 * out
        matrices.append(Matrix(width, out, "none"))
    return matrices, plain, width, positions


def _qwen2_audio(source: Source) -> Shape:
    """Qwen2-Audio: learnt positions, one matrix, and Qwen2."""
    shape = decoder_of(source, "Qwen2ForCausalLM")
    audio = source.root.section("audio_config") or Fields({}, "audio_config.")
    matrices, plain, width, positions = _audio_encoder(audio, ends=False)
    matrices.append(Matrix(width, shape.hidden_size, "none"))
    encoder = Encoder("audio", 1, tuple(matrices), plain + positions * width, divided=False)
    return replace(shape, architecture=source.architecture, encoder=encoder)


def _thinker(source: Source) -> Source:
    """Of a model that thinks and talks, the part that vLLM serves."""
    thinker = source.root.section("thinker_config")
    if thinker is None:
        raise UnreadableError("the configuration has no thinker_config", "thinker_config")
    outer = {
        name: source.root.values[name]
        for name in ("torch_dtype", "dtype", "quantization_config")
        if name in source.root
    }
    thinker = with_defaults(thinker, **outer)
    text = thinker.section("text_config")
    if text is None:
        raise UnreadableError("the configuration has no thinker_config.text_config", "text_config")
    return replace(source, root=thinker, text=text)


def _qwen2_5_omni(source: Source) -> Shape:
    """Qwen2.5-Omni without what talks: sound as in transformers, images as in Qwen2.5-VL."""
    source = _thinker(source)
    # Qwen2_5OmniTextConfig's default.
    source = replace(source, text=with_defaults(source.text, tie_word_embeddings=True))
    shape = decoder_of(source, "Qwen2ForCausalLM")
    audio = source.root.section("audio_config") or Fields({}, "audio_config.")
    matrices, plain, _, _ = _audio_encoder(audio, ends=True)
    return _beside(source, shape, qwen2_5_vl_encoder(source), matrices, plain)


def _beside(
    source: Source, shape: Shape, vision: Encoder | None, matrices: list[Matrix], plain: int
) -> Shape:
    if vision is None or vision.matrices is None:
        raise UnreadableError("the configuration has no thinker_config.vision_config", "vision_config")
    whole = replace(
        vision,
        matrices=(*vision.matrices, *(replace(matrix, quantized=False) for matrix in matrices)),
        plain_elements=vision.plain_elements + plain,
    )
    return replace(shape, architecture=source.architecture, encoder=whole)


def _qwen3_omni(source: Source) -> Shape:
    """Qwen3-Omni without what talks: sound through three convolutions, images as in Qwen3-VL."""
    source = _thinker(source)
    shape = decoder_of(source, "Qwen3MoeForCausalLM")
    audio = source.root.section("audio_config") or Fields({}, "audio_config.")
    width = audio.count("d_model", default=1280)
    depth = audio.count("encoder_layers", default=32, most=MOST_LAYERS)
    wide = audio.count("encoder_ffn_dim", default=5120)
    channels = audio.count("downsample_hidden_size", default=480)
    bins = audio.count("num_mel_bins", default=128)
    for _ in range(3):
        bins = (bins + 1) // 2
    plain = 10 * channels + 2 * (9 * channels + 1) * channels + depth * 4 * width + 2 * width
    matrices = [
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(channels * bins, width, "none", bias=False),
        Matrix(width, width, "none"),
        Matrix(width, audio.count("output_dim", default=3584), "none"),
    ]
    return _beside(source, shape, _qwen3_vl_encoder(source), matrices, plain)


def _qwen3_asr(source: Source) -> Shape:
    """Qwen3-ASR: what hears has not been read."""
    return unread_encoder("Qwen3ForCausalLM")(_thinker(source))


def _qwen3_aligner(source: Source) -> Shape:
    """Qwen3-ASR that says when each word was spoken: classes of times in the output embedding's place."""
    shape = _qwen3_asr(source)
    thinker = source.root.section("thinker_config") or source.root
    plain = shape.hidden_size * thinker.count("classify_num")
    return replace(shape, pools=True, has_head=False, plain_elements=shape.plain_elements + plain)


ARCHITECTURES: dict[str, Architecture] = {
    "Qwen2ForCausalLM": Architecture(_read_qwen2),
    "Qwen3ForCausalLM": Architecture(_read_qwen3),
    "Qwen2MoeForCausalLM": Architecture(
        mixture(_QWEN2, _qwen2_experts, is_sparse=_qwen_sparse), on_every_stage=ENDS
    ),
    "Qwen3MoeForCausalLM": Architecture(
        mixture(_QWEN3, _qwen3_experts, is_sparse=_qwen_sparse), on_every_stage=ENDS
    ),
    "Qwen3NextForCausalLM": Architecture(
        _qwen_hybrid,
        on_every_stage=frozenset({StagePart.EMBEDDING, StagePart.HEAD}),
        never_tied=True,
        mtp=_qwen_mtp(NEXTN),
    ),
    "Qwen3_5ForCausalLM": Architecture(_qwen_hybrid, mtp=_qwen_mtp("mtp_num_hidden_layers")),
    "Qwen3_5ForConditionalGeneration": Architecture(
        _qwen_hybrid,
        on_every_stage=frozenset({StagePart.EMBEDDING}) | ENCODER,
        mtp=_qwen_mtp("mtp_num_hidden_layers"),
    ),
    "Qwen3_5MoeForCausalLM": Architecture(_qwen_hybrid, mtp=_qwen_mtp("mtp_num_hidden_layers")),
    "Qwen3_5MoeForConditionalGeneration": Architecture(
        _qwen_hybrid,
        on_every_stage=frozenset({StagePart.EMBEDDING}) | ENCODER,
        mtp=_qwen_mtp("mtp_num_hidden_layers"),
    ),
    "Qwen2VLForConditionalGeneration": Architecture(dense(_QWEN2, _qwen2_vl_encoder), on_every_stage=ENCODER),
    "Qwen2_5_VLForConditionalGeneration": Architecture(
        dense(_QWEN2, qwen2_5_vl_encoder), on_every_stage=ENCODER
    ),
    "Qwen3VLForConditionalGeneration": Architecture(dense(_QWEN3, _qwen3_vl_encoder), on_every_stage=ENCODER),
    "Qwen3VLMoeForConditionalGeneration": Architecture(
        mixture(_QWEN3, _qwen3_experts, is_sparse=_qwen_sparse, encoder=_qwen3_vl_encoder),
        on_every_stage=ENDS | ENCODER,
    ),
    "Qwen2AudioForConditionalGeneration": holding(_qwen2_audio),
    "Qwen2_5OmniForConditionalGeneration": holding(_qwen2_5_omni),
    "Qwen2_5OmniModel": holding(_qwen2_5_omni),
    "Qwen3OmniMoeForConditionalGeneration": holding(_qwen3_omni),
    "Qwen3ASRForConditionalGeneration": holding(_qwen3_asr, has_unread_encoder=True),
    "Qwen3ASRForcedAlignerForTokenClassification": holding(_qwen3_aligner, has_unread_encoder=True),
    "Qwen3ASRRealtimeGeneration": holding(_qwen3_asr, has_unread_encoder=True),
    "ColQwen3": holding(late("Qwen3VLForConditionalGeneration")),
    "ColQwen3_5": holding(late("Qwen3_5ForConditionalGeneration", default=128, biased=True)),
    "OpsColQwen3Model": holding(late("Qwen3VLForConditionalGeneration")),
    "Qwen3VLNemotronEmbedModel": holding(late("Qwen3VLForConditionalGeneration")),
    "VoyageQwen3BidirectionalEmbedModel": Architecture(_voyage, is_decoder=False),
    "Qwen2ForProcessRewardModel": Architecture(rewarding(_read_qwen2, 2), is_decoder=False),
    "Qwen2ForRewardModel": Architecture(rewarding(_read_qwen2, 1), is_decoder=False),
    "Qwen2Model": Architecture(pooling(_read_qwen2), is_decoder=False),
    "Qwen3Model": Architecture(pooling(_read_qwen3), is_decoder=False),
}
"""By their name in config.json."""

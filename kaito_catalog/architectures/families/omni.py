"""Models of sound, images and video over Qwen's and other decoders, and those whose encoder nobody has read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import gcd

from kaito_catalog.architectures.encoders import qwen2_5_vl_encoder, qwen3_vl_encoder, vision_section
from kaito_catalog.architectures.families.encoders import padded
from kaito_catalog.architectures.families.mixtures import listed_layers
from kaito_catalog.architectures.families.multimodal import Reader, decoder_of, encoder_layers, siglip_layers
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    Family,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Encoder,
    Experts,
    Layer,
    Matrix,
    Mlp,
    Place,
    Shape,
)

Readers = Callable[[], Mapping[str, Reader]]


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


def _qwen2_audio(readers: Readers) -> Reader:
    """Qwen2-Audio: learnt positions, one matrix, and Qwen2."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "Qwen2ForCausalLM")
        audio = source.root.section("audio_config") or Fields({}, "audio_config.")
        matrices, plain, width, positions = _audio_encoder(audio, ends=False)
        matrices.append(Matrix(width, shape.hidden_size, "none"))
        encoder = Encoder("audio", 1, tuple(matrices), plain + positions * width, divided=False)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


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


def _qwen2_5_omni(readers: Readers) -> Reader:
    """Qwen2.5-Omni without what talks: sound as in transformers, images as in Qwen2.5-VL."""

    def read(source: Source) -> Shape:
        source = _thinker(source)
        # Qwen2_5OmniTextConfig's default.
        source = replace(source, text=with_defaults(source.text, tie_word_embeddings=True))
        shape = decoder_of(source, readers(), "Qwen2ForCausalLM")
        audio = source.root.section("audio_config") or Fields({}, "audio_config.")
        matrices, plain, _, _ = _audio_encoder(audio, ends=True)
        return _beside(source, shape, qwen2_5_vl_encoder(source), matrices, plain)

    return read


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


def _qwen3_omni(readers: Readers) -> Reader:
    """Qwen3-Omni without what talks: sound through three convolutions, images as in Qwen3-VL."""

    def read(source: Source) -> Shape:
        source = _thinker(source)
        shape = decoder_of(source, readers(), "Qwen3MoeForCausalLM")
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
        return _beside(source, shape, qwen3_vl_encoder(source), matrices, plain)

    return read


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


def _over_siglip(
    readers: Readers, projector: Callable[[Source, int, int], tuple[list[Matrix], int]]
) -> Reader:
    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
        vision = vision_section(source)
        if vision is None:
            raise UnreadableError("the configuration has no vision_config", "vision_config")
        matrices, plain = siglip(vision)
        more, beside = projector(source, vision.count("hidden_size", default=768), shape.hidden_size)
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        encoder = Encoder("vision", heads, (*matrices, *more), plain + beside, quantized=True)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def _paligemma(source: Source, width: int, _hidden: int) -> tuple[list[Matrix], int]:
    vision = vision_section(source) or source.root
    return [Matrix(width, vision.count("projection_dim", default=2048), "none")], 0


def _command_a_vision(source: Source, width: int, hidden: int) -> tuple[list[Matrix], int]:
    merged = width * source.root.count("downsample_factor", default=2, most=64) ** 2
    middle = source.root.count("alignment_intermediate_size", default=36864) // 2
    first = Matrix(merged, 2 * middle, "column", quantized=False)
    return [first, Matrix(middle, hidden, "row", quantized=False)], 0


def _idefics3(source: Source, width: int, hidden: int) -> tuple[list[Matrix], int]:
    merged = width * source.root.count("scale_factor", default=2, most=64) ** 2
    return [Matrix(merged, hidden, "none", bias=False, quantized=True)], 0


def _sizes(vision: Fields, name: str, default: int) -> int:
    """Elements of a square that is stated as one side or as two."""
    value = vision.values.get(name)
    if isinstance(value, list):
        sides = [side for side in value if isinstance(side, int) and 0 < side < 2**16]
        if len(value) != 2 or len(sides) != 2:
            raise UnreadableError(f"{vision.path(name)} is not two sizes", vision.path(name))
        return sides[0] * sides[1]
    return vision.count(name, default=default, most=2**16) ** 2


def _internvl(readers: Readers) -> Reader:
    """InternVL and Intern-S1 in transformers' format: attention is whole on every rank."""

    def read(source: Source) -> Shape:
        # InternVLConfig's own default counts, whatever the decoder's part says.
        tied = source.root.flag("tie_word_embeddings", True)
        text = Fields({**source.text.values, "tie_word_embeddings": tied}, source.text.where)
        shape = decoder_of(replace(source, text=text), readers())
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

    return read


_UNREAD: dict[str, str | None] = {
    "AudioFlamingo3ForConditionalGeneration": "Qwen2ForCausalLM",
    "Blip2ForConditionalGeneration": None,
    "ChameleonForConditionalGeneration": "LlamaForCausalLM",
    "DotsOCRForCausalLM": "Qwen2ForCausalLM",
    "Eagle2_5_VLForConditionalGeneration": None,
    "Exaone4_5_ForConditionalGeneration": "Exaone4ForCausalLM",
    "FireRedASR2ForConditionalGeneration": "Qwen2ForCausalLM",
    "FunAudioChatForConditionalGeneration": "Qwen3ForCausalLM",
    "FunASRForConditionalGeneration": "Qwen3ForCausalLM",
    "GLM4VForCausalLM": "ChatGLMModel",
    "GlmAsrForConditionalGeneration": "LlamaForCausalLM",
    "GraniteSpeechForConditionalGeneration": None,
    "GraniteSpeechPlusForConditionalGeneration": None,
    "H2OVLChatModel": None,
    "HCXVisionForCausalLM": None,
    "HunYuanVLForConditionalGeneration": "HunYuanDenseV1ForCausalLM",
    "IsaacForConditionalGeneration": "Qwen3ForCausalLM",
    "KananaVForConditionalGeneration": "LlamaForCausalLM",
    "KeyeForConditionalGeneration": "Qwen3ForCausalLM",
    "KeyeVL1_5ForConditionalGeneration": "Qwen3ForCausalLM",
    "Lfm2VlForConditionalGeneration": None,
    "LightOnOCRForConditionalGeneration": None,
    "Llama_Nemotron_Nano_VL": None,
    "LlavaNextVideoForConditionalGeneration": None,
    "MiDashengLMModel": "Qwen2ForCausalLM",
    "MoonshotKimiaForCausalLM": "Qwen2ForCausalLM",
    "MossTranscribeDiarizeForConditionalGeneration": "Qwen3ForCausalLM",
    "NVLM_D": None,
    "OpenCUAForConditionalGeneration": "Qwen2ForCausalLM",
    "OpenPanguVLForConditionalGeneration": "PanguEmbeddedForCausalLM",
    "Ovis2_5": None,
    "Ovis2_6ForCausalLM": None,
    "Ovis2_6_MoeForCausalLM": None,
    "PaddleOCRVLForConditionalGeneration": "Ernie4_5ForCausalLM",
    "Phi3VForCausalLM": "Phi3ForCausalLM",
    "Phi4ForCausalLMV": "Phi3ForCausalLM",
    "Phi4MMForCausalLM": "Phi3ForCausalLM",
    "SkyworkR1VChatModel": None,
    "UltravoxModel": None,
    "VoxtralForConditionalGeneration": "LlamaForCausalLM",
}
"""Models whose encoder nobody here has read, and the decoder where vLLM's class names it itself.

Their KV cache is the decoder's; their weights need the size of the files.
"""


def _unread(readers: Readers, of: str | None) -> Reader:
    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), of)
        encoder = Encoder("vision or audio", 1, None, divided=False)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def _qwen3_asr(readers: Readers) -> Reader:
    """Qwen3-ASR: what hears has not been read."""

    def read(source: Source) -> Shape:
        return _unread(readers, "Qwen3ForCausalLM")(_thinker(source))

    return read


def _qwen3_aligner(readers: Readers) -> Reader:
    """Qwen3-ASR that says when each word was spoken: classes of times in the output embedding's place."""

    def read(source: Source) -> Shape:
        shape = _qwen3_asr(readers)(source)
        thinker = source.root.section("thinker_config") or source.root
        plain = shape.hidden_size * thinker.count("classify_num")
        return replace(shape, pools=True, has_head=False, plain_elements=shape.plain_elements + plain)

    return read


def _deepseek_vl2(readers: Readers) -> Reader:
    """DeepSeek-VL2 and DeepSeek-OCR: the decoder is DeepSeek's first where its latents have no width."""

    def read(source: Source) -> Shape:
        text = source.root.section("language_config")
        if text is None:
            raise UnreadableError("the configuration has no language_config", "language_config")
        source = replace(source, text=text)
        no_latents = all(text.values.get(n) == 0 for n in ("qk_nope_head_dim", "qk_rope_head_dim"))
        return _unread(readers, "DeepseekForCausalLM" if no_latents else None)(source)

    return read


_MINICPM_V = {
    (2, 0): "MiniCPMForCausalLM",
    (2, 5): "LlamaForCausalLM",
    (2, 6): "Qwen2ForCausalLM",
    (4, 0): "LlamaForCausalLM",
    (4, 5): "Qwen3ForCausalLM",
}
"""The decoder by the model's version (vLLM's minicpmv.py)."""


def _minicpm_v(readers: Readers) -> Reader:
    def read(source: Source) -> Shape:
        stated = source.root.values.get("version")
        parts = str(stated).split(".")[:2] if stated is not None else []
        version = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 3)
        if stated is None:
            old = source.root.count("hidden_size") == 2304 and source.root.optional("query_num") == 64
            version = (2, 0) if old else (2, 5)
        decoder = _MINICPM_V.get(version) if len(version) == 2 else None
        if decoder is None:
            raise UnreadableError("version is of no MiniCPM-V that vLLM knows", "version")
        return _unread(readers, decoder)(source)

    return read


def _step_vl(readers: Readers) -> Reader:
    """Step3-VL 10B and Step 3.7: Perception Encoder, two convolutions that make fewer patches, a matrix."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
        vision = vision_section(source)
        if vision is None:
            raise UnreadableError("the configuration has no vision_config", "vision_config")
        width = vision.count("width", most=2**20)
        depth = vision.count("layers", most=MOST_LAYERS)
        ratio = vision.number("mlp_ratio") or 4.0
        if not 0 < ratio <= 64:
            raise UnreadableError(f"{vision.path('mlp_ratio')} is {ratio}", vision.path("mlp_ratio"))
        side = vision.count("patch_size", most=2**16)
        whole = 1 if vision.flag("use_cls_token") else 0
        plain = 3 * side**2 * width + whole * width
        plain += 2 * width * (vision.flag("use_ln_pre", True) + vision.flag("use_ln_post"))
        if vision.flag("use_abs_posemb", True):
            plain += ((vision.count("image_size", most=2**16) // side) ** 2 + whole) * width
        plain += depth * (6 if vision.number("ls_init_value") is not None else 4) * width
        plain += (9 * width + 1) * 2 * width + (9 * 2 * width + 1) * 4 * width
        bias = source.root.flag("projector_bias", True)
        matrices = (
            *encoder_layers(width, int(width * ratio), depth),
            Matrix(4 * width, shape.hidden_size, "column", bias=bias),
        )
        heads = vision.count("heads", most=2**16)
        return replace(
            shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain)
        )

    return read


def _moss_audio(readers: Readers) -> Reader:
    """MOSS-Audio: what hears has not been read."""

    def read(source: Source) -> Shape:
        text = source.root.section("language_config")
        if text is None:
            raise UnreadableError("the configuration has no language_config", "language_config")
        return _unread(readers, "Qwen3ForCausalLM")(replace(source, text=text))

    return read


def omni(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those of the decoders they may hold."""
    return {name: _unread(readers, of) for name, of in _UNREAD.items()} | {
        "Cohere2VisionForConditionalGeneration": _over_siglip(readers, _command_a_vision),
        "DeepseekOCRForCausalLM": _deepseek_vl2(readers),
        "DeepseekOCR2ForCausalLM": _deepseek_vl2(readers),
        "DeepseekVLV2ForCausalLM": _deepseek_vl2(readers),
        "UnlimitedOCRForCausalLM": _deepseek_vl2(readers),
        "Step3p7ForConditionalGeneration": _step_vl(readers),
        "StepVLForConditionalGeneration": _step_vl(readers),
        "Idefics3ForConditionalGeneration": _over_siglip(readers, _idefics3),
        "InternS1ForConditionalGeneration": _internvl(readers),
        "InternVLForConditionalGeneration": _internvl(readers),
        "MiniCPMO": _minicpm_v(readers),
        "MiniCPMV": _minicpm_v(readers),
        "MossAudioModel": _moss_audio(readers),
        "PaliGemmaForConditionalGeneration": _over_siglip(readers, _paligemma),
        "Qwen2AudioForConditionalGeneration": _qwen2_audio(readers),
        "Qwen2_5OmniForConditionalGeneration": _qwen2_5_omni(readers),
        "Qwen2_5OmniModel": _qwen2_5_omni(readers),
        "Qwen3ASRForConditionalGeneration": _qwen3_asr(readers),
        "Qwen3ASRForcedAlignerForTokenClassification": _qwen3_aligner(readers),
        "Qwen3ASRRealtimeGeneration": _qwen3_asr(readers),
        "Qwen3OmniMoeForConditionalGeneration": _qwen3_omni(readers),
        "SmolVLMForConditionalGeneration": _over_siglip(readers, _idefics3),
    }


WITHOUT_ENCODER = frozenset(
    {
        *_UNREAD,
        "CohereAsrForConditionalGeneration",
        "DeepseekOCR2ForCausalLM",
        "DeepseekOCRForCausalLM",
        "DeepseekVLV2ForCausalLM",
        "UnlimitedOCRForCausalLM",
        "Gemma3nForConditionalGeneration",
        "MiniCPMO",
        "MiniCPMV",
        "MossAudioModel",
        "Qwen3ASRForConditionalGeneration",
        "Qwen3ASRForcedAlignerForTokenClassification",
        "Qwen3ASRRealtimeGeneration",
    }
)
"""Architectures whose encoder no plan computes."""

ON_EVERY_STAGE = dict.fromkeys(omni(dict), frozenset({Place.ENCODER})) | {
    "ChameleonForConditionalGeneration": frozenset(Place),
}
"""Beside what the decoder builds on every stage."""


def _step3(source: Source) -> Shape:
    """Step 3: queries from a narrow vector, one head of keys and values, which every rank has."""
    text = source.text
    # Step3TextConfig's defaults (vLLM).
    text = with_defaults(text, head_dim=256, max_seq_len=65_536)
    if text.count("num_attention_groups", default=1) != 1:
        field = text.path("num_attention_groups")
        raise UnreadableError(f"{field} is not 1, which vLLM's class wants", field)
    count = num_layers(text)
    head_dim = text.count("head_dim", most=2**16)
    heads = text.count("num_attention_heads", most=2**16)
    rank = text.count("share_q_dim", default=2048, least=0) or head_dim
    attention = Attention(heads, 1, head_dim, head_dim, query_rank=rank, unscaled=True)
    routed = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_top_k")),
        ("moe_num_experts",),
        shared=Mlp(text.count("share_expert_dim")),
    )
    dense_block, sparse = Mlp(text.count("intermediate_size")), listed_layers(text, "moe_layers_enum", count)
    hidden = text.count("hidden_size")
    layers = [Layer(attention, routed if i in sparse else dense_block, 2 * hidden) for i in range(count)]
    encoder = _step3_encoder(source, hidden) if source.architecture.startswith("Step3VL") else None
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=head_dim, encoder=encoder)


def _step3_encoder(source: Source, hidden: int) -> Encoder:
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Step3VisionEncoderConfig's defaults (vLLM).
    width = vision.count("hidden_size", default=1792)
    wide = vision.count("intermediate_size", default=3072)
    out = vision.count("output_hidden_size", default=4096)
    depth = vision.count("num_hidden_layers", default=63, most=MOST_LAYERS)
    side = vision.count("patch_size", default=14, most=2**16)
    patches = (vision.count("image_size", default=728, most=2**16) // side) ** 2
    plain = width + (vision.count("num_channels", default=3) * side**2 + 1) * width + (patches + 1) * width
    plain += depth * 4 * width
    # Two convolutions that make fewer patches of many.
    plain += (4 * width + 1) * out + (9 * out + 1) * 2 * out
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(2 * out, hidden, "none", bias=source.root.flag("projector_bias", True)),
    )
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    return Encoder("vision", heads, matrices, plain)


def _pair(text: Fields, name: str) -> tuple[int, int]:
    """One number for texts and one for images."""
    values = text.values.get(name)
    if not isinstance(values, list) or len(values) != 2:
        raise UnreadableError(f"{text.path(name)} is not two numbers", text.path(name))
    both = [Fields({name: value}, text.where).count(name, least=0) for value in values]
    return both[0], both[1]


def _ernie_vl(source: Source) -> Shape:
    """Ernie 4.5 VL: experts for texts and others for images in the same layer, and one shared block."""
    text = source.root
    source = replace(source, text=text)
    count = num_layers(text)
    hidden = text.count("hidden_size")
    biased = text.flag("use_bias")
    attention = read_attention(text, Family(qkv_bias=biased, output_bias=False))
    numbers, widths = _pair(text, "moe_num_experts"), _pair(text, "moe_intermediate_size")
    if numbers[0] != numbers[1]:
        field = text.path("moe_num_experts")
        raise UnreadableError(f"{field} differ, which vLLM's class does not take", field)
    shared_count = text.count("moe_num_shared_experts", default=0, least=0, most=2**10)
    shared = Mlp(widths[0] * shared_count) if shared_count else None
    starts, ends = _pair(text, "moe_layer_start_index"), (count - 1, count - 1)
    if "moe_layer_end_index" in text:
        ends = _pair(text, "moe_layer_end_index")
    step = text.count("moe_layer_interval", default=1)

    def experts(which: int) -> Experts:
        values = {
            "num_experts": numbers[which],
            "moe_intermediate_size": widths[which],
            "num_experts_per_tok": text.values.get("moe_k"),
        }
        return read_experts(
            Fields(values, text.where), ("num_experts",), correction_bias=True, router_bytes=4
        )

    mlp = Mlp(text.count("intermediate_size"), bias=biased)
    of_text, of_images = replace(experts(0), shared=shared), experts(1)
    layers = []
    for i in range(count):
        is_sparse = (i + 1) % step == 0
        if is_sparse and all(s <= i <= e for s, e in zip(starts, ends, strict=True)):
            layers.append(Layer(attention, of_text, 2 * hidden, beside=of_images))
        elif is_sparse and min(starts) <= i <= max(ends):
            field = text.path("moe_layer_start_index")
            raise UnreadableError("no plan for layers with experts for texts or images alone", field)
        else:
            layers.append(Layer(attention, mlp, 2 * hidden))
    encoder = _ernie_encoder(source, hidden)
    # vLLM quantises the routers too, which are in fp32 where it does not.
    return unweighed(make_shape(source, layers, tied=True, rope_dim=attention.head_dim, encoder=encoder))


def _ernie_encoder(source: Source, hidden: int) -> Encoder:
    root = source.root
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    width = vision.count("embed_dim", "hidden_size")
    depth = vision.count("depth", most=MOST_LAYERS)
    ratio = vision.number("mlp_ratio")
    if ratio is None or not 0 < ratio <= 64:
        field = vision.path("mlp_ratio")
        raise UnreadableError(f"{field} is missing or absurd", field)
    wide = int(width * ratio)
    channels = vision.count("in_channels", "in_chans", default=3)
    plain = channels * vision.count("patch_size", most=2**16) ** 2 * width + depth * 4 * width + 2 * width
    merged = root.count("pixel_hidden_size") * root.count("spatial_conv_size", most=64) ** 2
    matrices = [
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(merged, merged, "column", count=2),
        Matrix(merged, hidden, "column"),
    ]
    plain += 2 * merged + hidden
    if root.flag("use_temporal_conv", True):
        long = merged * root.count("temporal_conv_size", most=64)
        matrices += [Matrix(long, merged, "column"), Matrix(merged, merged, "column")]
        plain += 2 * merged
    return Encoder("vision", vision.count("num_heads", most=2**16), tuple(matrices), plain)


def _aria(source: Source) -> Shape:
    """Aria: Llama's attention, experts with a shared block, and an encoder whose patches answer queries."""
    # AriaTextConfig's defaults (transformers).
    text = with_defaults(source.text, moe_num_experts=8, moe_topk=2, moe_num_shared_experts=2)
    biased = text.flag("mlp_bias")
    shared = text.count("moe_num_shared_experts", least=0, most=2**10)
    width = text.count("intermediate_size")
    experts = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_topk")),
        ("moe_num_experts",),
        ("intermediate_size",),
        shared=Mlp(width * shared, bias=biased) if shared else None,
    )
    attention = read_attention(text, Family())
    hidden = text.count("hidden_size")
    layers = [Layer(attention, experts, 2 * hidden)] * num_layers(text)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Idefics3VisionConfig's defaults (transformers).
    wide = vision.count("intermediate_size", default=3072)
    inner = vision.count("hidden_size", default=1152)
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    side = vision.count("patch_size", default=32, most=2**16)
    patches = (vision.count("image_size", default=224, most=2**16) // side) ** 2
    table = source.root.section("projector_patch_to_query_dict")
    # AriaConfig's default gives 256 queries at most.
    queries = max((table.count(name) for name in table.values), default=256) if table is not None else 256
    plain = (vision.count("num_channels", default=3) * side**2 + 1 + patches) * inner + depth * 4 * inner
    # The queries and their attention: every rank has it whole.
    plain += queries * inner + 8 * inner**2 + 11 * inner
    matrices = (
        Matrix(inner, 3 * inner, "column", count=depth),
        Matrix(inner, inner, "row", count=depth),
        Matrix(inner, wide, "column", count=depth),
        Matrix(wide, inner, "row", count=depth),
        Matrix(inner, hidden, "column", bias=False, quantized=False),
        Matrix(hidden, hidden, "row", bias=False, quantized=False),
    )
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    encoder = Encoder("vision", heads, matrices, plain, quantized=True)
    filled = replace(source, text=text)
    return make_shape(filled, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)


def _molmo2(source: Source) -> Shape:
    """Molmo 2: a decoder of its own over an encoder whose layers are pooled by an attention."""
    # The text's defaults (vLLM's molmo2.py).
    text = with_defaults(source.text, head_dim=128, additional_vocab_size=128)
    norms = 2 if text.flag("use_qk_norm") else 0
    by_head = norms if text.text("qk_norm_type") == "qwen3" else 0
    family = Family(qkv_bias=text.flag("qkv_bias", True), output_bias=False, head_norms=by_head)
    attention = read_attention(text, family)
    hidden = text.count("hidden_size")
    whole = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    mlp = Mlp(text.count("intermediate_size"))
    layer = Layer(attention, mlp, 2 * hidden + (whole if norms and not by_head else 0))
    vocabulary = text.count("vocab_size")
    rows = padded(vocabulary + text.count("additional_vocab_size", least=0)) - padded(vocabulary)
    return make_shape(
        replace(source, text=text),
        [layer] * num_layers(text),
        tied=False,
        rope_dim=attention.head_dim,
        encoder=_molmo2_encoder(source, hidden),
        # Tokens that only the embedding has.
        embedding_elements=rows * hidden,
    )


def _molmo2_encoder(source: Source, hidden: int) -> Encoder:
    vision, adapter = source.root.section("vit_config"), source.root.section("adapter_config")
    if vision is None or adapter is None:
        raise UnreadableError("the configuration has no vit_config or no adapter_config", "vit_config")
    for part in (vision, adapter):
        if part.count("num_key_value_heads") != part.count("num_attention_heads"):
            field = part.path("num_key_value_heads")
            raise UnreadableError(f"no plan for an encoder with {field} of their own number", field)
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    taken = adapter.values.get("vit_layers")
    numbers = [n for n in taken if type(n) is int] if isinstance(taken, list) else []
    if not isinstance(taken, list) or len(numbers) != len(taken) or not numbers:
        raise UnreadableError(
            "adapter_config.vit_layers is not a list of layers", "adapter_config.vit_layers"
        )
    deepest = max(n + depth if n < 0 else n for n in numbers) + 1
    if not deepest > 0:
        raise UnreadableError("adapter_config.vit_layers leaves no layer", "adapter_config.vit_layers")
    depth = min(depth, deepest)
    width = vision.count("hidden_size")
    heads = vision.count("num_attention_heads", most=2**16)
    side = vision.count("image_patch_size", most=2**16)
    plain = vision.count("image_num_pos", most=LONGEST_CONTEXT) * width
    plain += (3 * side**2 + 1) * width + depth * 4 * width
    inner = adapter.count("num_attention_heads", most=2**16) * adapter.count("head_dim", most=2**16)
    out = adapter.count("hidden_size")
    wide = adapter.count("intermediate_size")
    pooled = width * len(numbers)
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, vision.count("intermediate_size"), "column", count=depth),
        Matrix(vision.count("intermediate_size"), width, "row", count=depth),
        Matrix(pooled, 3 * inner, "column"),
        Matrix(inner, out, "row"),
        Matrix(out, 2 * wide, "column", bias=False),
        Matrix(wide, hidden, "row", bias=False),
    )
    divided = gcd(heads, adapter.count("num_attention_heads"))
    return Encoder("vision", divided, matrices, plain, quantized=True)


IN_ONE: dict[str, Callable[[Source], Shape]] = {
    "AriaForConditionalGeneration": _aria,
    "Molmo2ForConditionalGeneration": _molmo2,
    "Ernie4_5_VLMoeForConditionalGeneration": _ernie_vl,
    "Step3TextForCausalLM": _step3,
    "Step3VLForConditionalGeneration": _step3,
}
"""Decoders and encoders in one, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})

IN_ONE_ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "Ernie4_5_VLMoeForConditionalGeneration": frozenset({Place.ENCODER}),
    "Molmo2ForConditionalGeneration": _ALL | {Place.ENCODER},
    "Step3VLForConditionalGeneration": frozenset({Place.ENCODER}),
}
"""Parts of them that vLLM 0.25.1 builds on every pipeline stage."""

"""Models that hold a decoder and an encoder, most of which other readers know, with another end between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.architectures.encoders import qwen2_5_vl_encoder, vision_section
from kaito_catalog.architectures.families.encoders import looking_layers, padded
from kaito_catalog.architectures.families.multimodal import Reader, decoder_of, encoder_layers, radio
from kaito_catalog.architectures.families.omni import siglip
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
    Encoder,
    Experts,
    GatedDeltaNet,
    Layer,
    Matrix,
    Mlp,
    Place,
    Shape,
)

Readers = Callable[[], Mapping[str, Reader]]


def as_of(read: Reader, source: Source, of: str) -> Shape:
    """The shape that another architecture's reader gives, with what that builds on every stage."""
    shape = read(replace(source, architecture=of))
    return replace(shape, architecture=source.architecture, decoder=shape.decoder or of)


def seen_part(source: Source) -> Fields:
    """The part about the encoder of images."""
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    return vision


def _intern_s1_pro(readers: Readers) -> Reader:
    """Intern-S1-Pro: Qwen3-VL with experts, whose positions turn by learnt sums of frequencies."""

    def read(source: Source) -> Shape:
        of = "Qwen3VLMoeForConditionalGeneration"
        shape = as_of(readers()[of], source, of)
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

    return read


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


def _with_short_states(shape: Shape) -> Shape:
    """The shape with states of the model's dtype: vLLM looks for another under Qwen3.5's own names alone."""
    layers = tuple(
        replace(x, mixer=replace(x.mixer, state_bytes=2)) if isinstance(x.mixer, GatedDeltaNet) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _intern_s2(readers: Readers) -> Reader:
    """Intern-S2 Preview: Qwen3.5 with experts; its encoder of time series is not loaded."""

    def read(source: Source) -> Shape:
        of = "Qwen3_5MoeForConditionalGeneration"
        return _with_short_states(as_of(readers()[of], source, of))

    return read


def _minicpm_v4_6(readers: Readers) -> Reader:
    """MiniCPM-V 4.6 and 4.7: SigLIP, an attention over windows, two mergers, and Qwen3.5."""

    def read(source: Source) -> Shape:
        shape = _with_short_states(decoder_of(source, readers(), "Qwen3_5ForCausalLM"))
        vision = seen_part(source)
        depth = vision.count("num_hidden_layers", default=27, most=MOST_LAYERS)
        if source.architecture.startswith("MiniCPMV4_6") and source.root.flag("drop_vision_last_layer"):
            depth -= 1
        # SiglipVisionConfig as MiniCPM-V's class fills it in (transformers).
        filled = with_defaults(
            vision, hidden_size=1152, intermediate_size=4304, image_size=980, patch_size=14
        )
        width, wide = filled.count("hidden_size"), filled.count("intermediate_size")
        layered, plain = siglip(filled, depth)
        matrices = (
            *layered,
            Matrix(width, 3 * width, "column"),
            Matrix(width, width, "row"),
            Matrix(4 * width, 4 * wide, "none"),
            Matrix(4 * wide, width, "none"),
            Matrix(4 * width, 4 * width, "none"),
            Matrix(4 * width, shape.hidden_size, "none"),
        )
        heads = vision.count("num_attention_heads", default=16, most=2**16)
        encoder = Encoder("vision", heads, matrices, plain + 2 * width + 2 * 8 * width)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def _hcx_v2(readers: Readers) -> Reader:
    """HyperCLOVA X SEED Think: Qwen2.5-VL's encoder, a matrix, and a decoder."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
        vision = seen_part(source)
        encoder = qwen2_5_vl_encoder(source)
        assert encoder is not None
        assert encoder.matrices is not None
        out = vision.count("out_hidden_size", default=3584)
        encoder = replace(encoder, matrices=(*encoder.matrices, Matrix(out, shape.hidden_size, "none")))
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


_QFORMER_WIDTH = 3072


def _granite4_vision(readers: Readers) -> Reader:
    """Granite 4 Vision: SigLIP, whose layers each go through a small transformer into one of the decoder's."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "GraniteForCausalLM")
        vision, root = seen_part(source), source.root
        width, hidden = vision.count("hidden_size", default=768), shape.hidden_size
        layered, plain = siglip(vision)
        plain -= 2 * width  # no norm after the last layer
        stacked = root.values.get("deepstack_layer_map")
        if not isinstance(stacked, list) or len(stacked) > MOST_LAYERS:
            raise UnreadableError("deepstack_layer_map is not a list of layers", "deepstack_layer_map")
        query, _, window = (root.text("downsample_rate") or "").partition("/")
        if not all(side.isascii() and side.isdigit() and 0 < len(side) < 4 for side in (query, window)):
            raise UnreadableError("downsample_rate is not one side over another", "downsample_rate")
        # Four parts of each window go their own ways beside.
        times = len(stacked) + 4
        matrices = (
            *layered,
            Matrix(width, width, "none", count=8 * times),
            Matrix(width, _QFORMER_WIDTH, "none", count=times),
            Matrix(_QFORMER_WIDTH, width, "none", count=times),
            Matrix(width, hidden, "none", count=times),
        )
        plain += hidden + times * width * (10 + int(query) ** 2 + int(window) ** 2)
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        return replace(
            shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain)
        )

    return read


def _llava_onevision2(readers: Readers) -> Reader:
    """LLaVA-OneVision 2: an encoder of its own, Qwen2-VL's merger, and Qwen3."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "Qwen3ForCausalLM")
        vision = seen_part(source)
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
        return replace(
            shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain)
        )

    return read


_OVIS_INDICATORS = 5
"""Words for the ends and rows of an image, which the encoder never says."""


def _ovis(readers: Readers) -> Reader:
    """Ovis 1.6 and 2: patches are spelt in a vocabulary of their own, which has an embedding."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
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
        return replace(
            shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain)
        )

    return read


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


MOLMO_WORDS = 128
"""Tokens that only Molmo's embedding has."""
_MOLMO_WIDTH, _MOLMO_WIDE, _MOLMO_DEPTH, _MOLMO_PLACES, _MOLMO_TAKEN = 1024, 4096, 23, 577, 2
"""Molmo's encoder, which no configuration describes: CLIP's at 336 pixels; two of its layers are taken."""


def _molmo(source: Source) -> Shape:
    """Molmo: a decoder of its own, and CLIP's layers pooled by an attention."""
    text = source.text
    hidden = text.count("hidden_size")
    text = with_defaults(text, num_key_value_heads=text.values.get("num_attention_heads"))
    rows = text.optional("embedding_size") or text.count("vocab_size")
    text = Fields({**text.values, "vocab_size": rows}, text.where)
    attention = read_attention(text, Family(qkv_bias=text.flag("qkv_bias"), output_bias=False))
    norms = 2 * hidden
    if text.flag("attention_layer_norm"):
        norms += hidden + attention.num_key_value_heads * attention.head_dim
    half = text.count("intermediate_size", least=2) // 2
    layers = [Layer(attention, Mlp(half), norms)] * num_layers(text)
    width, pooled = _MOLMO_WIDTH, _MOLMO_TAKEN * _MOLMO_WIDTH
    matrices = (
        *encoder_layers(width, _MOLMO_WIDE, _MOLMO_DEPTH),
        Matrix(pooled, 3 * width, "column"),
        Matrix(width, width, "row"),
        Matrix(width, 2 * half, "column", bias=False),
        Matrix(half, hidden, "row", bias=False),
    )
    plain = (3 * 14**2 + 1 + _MOLMO_PLACES + 2 + _MOLMO_DEPTH * 4) * width + 2 * pooled
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=text.flag("weight_tying"),
        rope_dim=attention.head_dim,
        encoder=Encoder("vision", 16, matrices, plain),
        embedding_elements=(padded(rows + MOLMO_WORDS) - padded(rows)) * hidden,
    )
    return unweighed(shape)


_NECK, _NECK_FROM, _NECK_SUMS = 1024, 1280, 3840
"""Widths of what lies between RADIO and the decoder, which no configuration says."""


def _nemotron_parse(source: Source) -> Shape:
    """Nemotron Parse: RADIO, and mBART's decoder, which looks at what that said and has no positions."""
    text, seen = source.root.section("decoder"), source.root.section("encoder")
    if text is None or seen is None:
        raise UnreadableError("the configuration has no decoder or no encoder", "decoder")
    hidden = text.count("d_model")
    layers = looking_layers(
        hidden,
        text.count("decoder_attention_heads", most=2**16),
        text.count("encoder_ffn_dim"),
        text.count("decoder_layers", most=MOST_LAYERS),
    )
    matrices, plain, heads, width = radio(seen)
    if width != _NECK_FROM:
        raise UnreadableError(f"RADIO is {width} wide, not {_NECK_FROM}, which vLLM's class wants", "encoder")
    plain += (_NECK_FROM + 1) * _NECK + 4 * _NECK**2 + 3 * 2 * _NECK
    encoder = Encoder("vision", heads, (*matrices, Matrix(_NECK_SUMS, _NECK, "column")), plain)
    shape = make_shape(
        replace(source, text=with_defaults(text, hidden_size=hidden)),
        layers,
        tied=False,
        rope_dim=1,
        final_norm_elements=4 * hidden,
        encoder=encoder,
    )
    # vLLM tells RADIO of the quantisation under no name.
    return unweighed(replace(shape, rope_elements=0))


def _cohere_asr(source: Source) -> Shape:
    """Cohere Transcribe: a decoder that looks at what its encoder said, which has not been read."""
    outer, head = source.root.section("transf_decoder"), source.root.section("head")
    text = outer.section("config_dict") if outer is not None else None
    if text is None or head is None:
        raise UnreadableError("the configuration has no transf_decoder.config_dict or no head", "head")
    hidden = text.count("hidden_size")
    layers = looking_layers(
        hidden,
        text.count("num_attention_heads", most=2**16),
        text.count("inner_size"),
        text.count("num_layers", most=MOST_LAYERS),
    )
    shape = make_shape(
        replace(source, text=with_defaults(text, vocab_size=head.count("num_classes"))),
        layers,
        tied=False,
        rope_dim=1,
        final_norm_elements=4 * hidden,
        encoder=Encoder("audio", 1, None, divided=False),
    )
    return replace(shape, rope_elements=0, lm_head_bias=True, embedding_replicated=True)


def _moondream3(source: Source) -> Shape:
    """Moondream 3: heads that weigh positions, experts after the first layers, and an encoder like SigLIP."""
    nothing = Fields({}, "config.")
    outer = source.root.section("config") or nothing
    told, seen = outer.section("text") or nothing, outer.section("vision") or nothing
    moe = told.section("moe") or nothing
    # Moondream3TextConfig's defaults (vLLM), which the published model leaves to it.
    hidden = told.count("dim", default=2048)
    heads = told.count("n_heads", default=32, most=2**16)
    text = Fields(
        {
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": told.count("n_kv_heads", default=32, most=2**16),
            "vocab_size": told.count("vocab_size", default=51_200),
            "max_position_embeddings": told.count("max_context", default=4096, most=LONGEST_CONTEXT),
            "num_experts": moe.count("n_experts", default=64),
            "num_experts_per_tok": moe.count("n_experts_per_tok", default=8),
            "moe_intermediate_size": moe.count("expert_inner_dim", default=1024),
            "partial_rotary_factor": 0.5,
        },
        "config.text.",
    )
    # One number for each head, and two vectors as wide as queries, keys and values of a usual attention.
    attention = read_attention(text, Family(qkv_bias=True, output_bias=True), head_elements=1 + 6 * hidden)
    experts = read_experts(text, ("num_experts",), router_bias=True)
    block = Mlp(told.count("ff_dim", default=8192), gated=False, bias=True)
    first = moe.count("start_layer", default=4, least=0, most=MOST_LAYERS)
    depth = told.count("n_layers", default=24, most=MOST_LAYERS)
    layers = [Layer(attention, block if i < first else experts, 2 * hidden) for i in range(depth)]
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=2 * hidden,
        encoder=_moondream3_encoder(seen, hidden),
    )
    return unweighed(replace(shape, lm_head_bias=True, tie_word_embeddings=False))


def _moondream3_encoder(seen: Fields, hidden: int) -> Encoder:
    # Moondream3VisionConfig's defaults (vLLM).
    width = seen.count("enc_dim", default=1152)
    depth = seen.count("enc_n_layers", default=27, most=MOST_LAYERS)
    side = seen.count("enc_patch_size", default=14, most=2**16)
    patches = (seen.count("crop_size", default=378, most=2**16) // side) ** 2
    middle = seen.count("proj_inner_dim", default=8192)
    matrices = (
        *encoder_layers(width, seen.count("enc_ff_dim", default=4304), depth),
        Matrix(2 * width, middle, "column"),
        Matrix(middle, hidden, "row"),
    )
    plain = (3 * side**2 + 1 + patches + 4 * depth + 2) * width
    return Encoder("vision", seen.count("enc_n_heads", default=16, most=2**16), matrices, plain)


def wrappers(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those that they are made of."""
    return {
        "CohereAsrForConditionalGeneration": _cohere_asr,
        "Granite4VisionForConditionalGeneration": _granite4_vision(readers),
        "HCXVisionV2ForCausalLM": _hcx_v2(readers),
        "HfMoondream": _moondream3,
        "InternS1ProForConditionalGeneration": _intern_s1_pro(readers),
        "InternS2PreviewForConditionalGeneration": _intern_s2(readers),
        "LlavaOnevision2ForConditionalGeneration": _llava_onevision2(readers),
        "MiniCPMV4_6ForConditionalGeneration": _minicpm_v4_6(readers),
        "MiniCPMV4_7ForConditionalGeneration": _minicpm_v4_6(readers),
        "MolmoForCausalLM": _molmo,
        "Moondream3ForCausalLM": _moondream3,
        "NemotronParseForConditionalGeneration": _nemotron_parse,
        "Ovis": _ovis(readers),
    }


ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    **dict.fromkeys(wrappers(dict), frozenset({Place.ENCODER})),
    "MiniCPMV4_6ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.ENCODER}),
    "MiniCPMV4_7ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.ENCODER}),
}
"""Beside what the decoder builds on every stage."""

IN_ONE_ON_EVERY_STAGE: dict[str, frozenset[Place]] = dict.fromkeys(
    ("HfMoondream", "MolmoForCausalLM", "Moondream3ForCausalLM"),
    frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM, Place.ENCODER}),
)
"""Parts of those with a decoder of their own that vLLM builds on every pipeline stage."""

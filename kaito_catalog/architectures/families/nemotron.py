"""NVIDIA's Nemotron, and models over RADIO."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.architectures.mixers import Mamba2, Mixer
from kaito_catalog.architectures.reading.drafting import NEXTN, read_layers
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    cross_layers,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.pooling import bidirectional, labels
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Reader, Source
from kaito_catalog.architectures.reading.vision import intern_layers, siglip, stated_vision, vision_section
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    Drafter,
    Encoder,
    Experts,
    FeedForward,
    Json,
    Layer,
    Matrix,
    Mlp,
    Shape,
)


def _nemotron_h(source: Source) -> Shape:
    """Nemotron-H: each layer is one of Mamba 2, attention, dense or experts, as its pattern says."""
    text = source.text
    hidden = text.count("hidden_size")
    pattern = text.text("hybrid_override_pattern")
    blocks = text.texts("layers_block_type")
    letters = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}
    if pattern is None and blocks is not None:
        unknown = next((b for b in blocks if b not in letters), None)
        if unknown is not None:
            raise UnreadableError(f"layers_block_type has '{unknown[:40]}'", "layers_block_type")
        pattern = "".join(letters[b] for b in blocks)
    if not pattern or len(pattern) > MOST_LAYERS or set(pattern) - set("M*E-"):
        raise UnreadableError(
            "hybrid_override_pattern is not made of M, *, E and -", "hybrid_override_pattern"
        )
    attention = None
    if "*" in pattern:
        attention = read_attention(
            text,
            DecoderDefaults(qkv_bias=text.flag("attention_bias"), output_bias=text.flag("attention_bias")),
        )
    mamba = Mamba2(
        text.count("mamba_num_heads"),
        text.count("mamba_head_dim"),
        text.count("n_groups"),
        text.count("ssm_state_size"),
        text.count("conv_kernel", default=4),  # NemotronHConfig's
        # vLLM's NemotronHForCausalLMConfig takes float32 where the configuration says nothing.
        state_bytes=4 if text.text("mamba_ssm_cache_dtype") in (None, "float32") else 2,
        bias=text.flag("use_bias"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    experts: Experts | None = None
    if "E" in pattern:
        shared = text.optional("moe_shared_expert_intermediate_size")
        shared_count = text.count("n_shared_experts", default=1, least=0)
        experts = read_experts(
            text,
            ("n_routed_experts",),
            gated=False,
            bias=False,
            correction_bias=True,
            shared=Mlp(shared * shared_count, gated=False) if shared and shared_count else None,
            latent_size=text.optional("moe_latent_size"),
        )
    mixers: dict[str, tuple[Mixer | None, FeedForward | None]] = {
        "M": (mamba, None),
        "*": (attention, None),
        "E": (None, experts),
        "-": (None, None),
    }
    if "-" in pattern:
        mixers["-"] = (None, Mlp(text.count("intermediate_size"), gated=False, bias=text.flag("mlp_bias")))
    layers = [Layer(*mixers[letter], norm_elements=hidden) for letter in pattern]
    return make_shape(source, layers, tied=False, rope_dim=0)  # its attention has no rope


def _nemotron_mtp(source: Source, model: Reader) -> Drafter | None:
    """Layers by a pattern of their own, the first fed through a matrix that is quantised like others."""
    text = source.text
    steps = text.count(NEXTN, default=0, least=0, most=MOST_LAYERS)
    if not steps:
        return None
    pattern, blocks = text.text("mtp_hybrid_override_pattern"), text.texts("mtp_layers_block_type")
    if not pattern and not blocks:
        field = text.path("mtp_hybrid_override_pattern")
        raise UnreadableError(f"the configuration has no {field}", field)
    values = {**text.values, "hybrid_override_pattern": pattern, "layers_block_type": cast(Json, blocks)}
    changed = Fields(values, text.where)
    own = replace(source, text=changed, root=changed if source.root is text else source.root)
    return read_layers(own, model, named="mtp.layers", steps=steps)


def _deci(source: Source) -> Shape:
    """Nemotron's searched decoders (DeciLM): each layer has its own width, some no attention or feed-forward."""
    text = source.text
    hidden = text.count("hidden_size")
    blocks = text.values.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != num_layers(text):
        raise UnreadableError("block_configs is not one mapping for each layer", text.path("block_configs"))
    heads = text.count("num_attention_heads", most=2**16)
    layers = []
    for i, block in enumerate(blocks):
        where = f"{text.path('block_configs')}.{i}."
        fields = Fields(block if isinstance(block, dict) else {}, where)
        attention, ffn = fields.section("attention"), fields.section("ffn")
        if attention is None or ffn is None:
            raise UnreadableError(f"{where}attention or ffn is missing", f"{where}attention")
        if attention.flag("replace_with_linear") or ffn.flag("replace_with_linear"):
            raise UnreadableError("no plan for layers that a linear one replaces", f"{where}attention")
        mixer: Mixer | None = None
        if not attention.flag("no_op"):
            group = attention.count("n_heads_in_group", most=2**16)
            if heads % group:
                raise UnreadableError(
                    f"groups of {group} do not divide {heads} heads", f"{where}attention.n_heads_in_group"
                )
            filled = Fields({**text.values, "num_key_value_heads": heads // group}, text.where)
            mixer = read_attention(filled, DecoderDefaults())
        mlp = None
        if not ffn.flag("no_op"):
            width = ffn.optional("intermediate_size")
            if width is None:
                multiple = ffn.number("ffn_mult")
                if multiple is None or not 0 < multiple < 100:
                    raise UnreadableError(f"{where}ffn.ffn_mult is missing", f"{where}ffn.ffn_mult")
                # vLLM's _ffn_mult_to_intermediate_size: two thirds of it, to the next multiple of 256.
                width = -(-int(2 * multiple * hidden / 3) // 256) * 256
            mlp = Mlp(width, bias=text.flag("mlp_bias"))
        layers.append(Layer(mixer, mlp, hidden * ((mixer is not None) + (mlp is not None))))
    head_dim = text.count("head_dim", default=hidden // heads)
    return make_shape(source, layers, tied=False, rope_dim=head_dim)


_RADIO = {
    "vit_small_patch16_224": (384, 12, 6, 1536),
    "vit_base_patch16_224": (768, 12, 12, 3072),
    "vit_large_patch16_224": (1024, 24, 16, 4096),
    "vit_huge_patch16_224": (1280, 32, 16, 5120),
}
"""Width, layers, heads and feed-forward width by name (vLLM's transformers_utils/configs/radio.py)."""


def _radio(vision: Fields) -> tuple[list[Matrix], int, int, int]:
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
    matrices, plain = intern_layers(layers, depth)
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


def _nemotron_vl(source: Source) -> Shape:
    """Nemotron Nano VL 2 and Nemotron Omni: RADIO, two matrices without bias, Parakeet, and Nemotron-H."""
    shape = decoder_of(source, "NemotronHForCausalLM")
    if "Omni" in source.architecture:
        # vLLM looks for the states' dtype under the names of the others alone.
        shape = replace(shape, layers=tuple(_short_states(layer) for layer in shape.layers))
    root, vision = source.root, vision_section(source)
    if vision is None:
        unread = Encoder("vision", 1, None, divided=False)
        return replace(shape, architecture=source.architecture, encoder=unread)
    sound = root.section("sound_config")
    matrices, plain, heads, width = _radio(vision)
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


_NECK, _NECK_FROM, _NECK_SUMS = 1024, 1280, 3840
"""Widths of what lies between RADIO and the decoder, which no configuration says."""


def _nemotron_parse(source: Source) -> Shape:
    """Nemotron Parse: RADIO, and mBART's decoder, which looks at what that said and has no positions."""
    text, seen = source.root.section("decoder"), source.root.section("encoder")
    if text is None or seen is None:
        raise UnreadableError("the configuration has no decoder or no encoder", "decoder")
    hidden = text.count("d_model")
    layers = cross_layers(
        hidden,
        text.count("decoder_attention_heads", most=2**16),
        text.count("encoder_ffn_dim"),
        text.count("decoder_layers", most=MOST_LAYERS),
    )
    matrices, plain, heads, width = _radio(seen)
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


def _llama_nemotron(*, scored: bool = False) -> Reader:
    """Nemotron's embeddings of pages, and its reranker: SigLIP, two matrices, and Llama that looks both ways."""

    def read(source: Source) -> Shape:
        shape = bidirectional(decoder_of(source, "LlamaForCausalLM"))
        vision = stated_vision(source)
        layered, plain = siglip(vision)
        ratio = source.root.number("downsample_ratio") or 0.5
        if not 0 < ratio <= 1:
            raise UnreadableError(f"downsample_ratio is {ratio}", "downsample_ratio")
        merged = vision.count("hidden_size", default=768) * int(1 / ratio) ** 2
        hidden = shape.hidden_size
        matrices = (*layered, Matrix(merged, hidden, "none"), Matrix(hidden, hidden, "none"))
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        encoder = Encoder("vision", heads, matrices, plain + 2 * merged)
        # The decoder has a head of its own beside, which is not used.
        scores = 2 * 2 * hidden * labels(source.text) if scored else 0
        return replace(
            shape,
            architecture=source.architecture,
            encoder=encoder,
            pools=True,
            has_head=False,
            plain_elements=shape.plain_elements + scores,
        )

    return read


ARCHITECTURES: dict[str, Architecture] = {
    "NemotronForCausalLM": Architecture(dense(DecoderDefaults(norm_parts=2, gated=False))),
    "DeciLMForCausalLM": Architecture(_deci),
    "NemotronHForCausalLM": Architecture(
        _nemotron_h, on_every_stage=ENDS, never_tied=True, mtp=_nemotron_mtp
    ),
    "NemotronH_Nano_VL_V2": Architecture(_nemotron_vl, is_decoder=False),
    "NemotronH_Nano_Omni_Reasoning_V3": Architecture(_nemotron_vl, is_decoder=False),
    "NemotronH_Omni_Reasoning_V3": Architecture(_nemotron_vl, is_decoder=False, since=V0_32_0),
    "NemotronH_Super_Omni_Reasoning_V3": Architecture(_nemotron_vl, is_decoder=False),
    "NemotronParseForConditionalGeneration": Architecture(_nemotron_parse, is_decoder=False),
    "LlamaNemotronVLModel": holding(_llama_nemotron()),
    "LlamaNemotronVLForSequenceClassification": holding(_llama_nemotron(scored=True)),
    "Llama_Nemotron_Nano_VL": unread(),
    "NVLM_D": unread(),
    "Eagle2_5_VLForConditionalGeneration": unread(),
    "AudioFlamingo3ForConditionalGeneration": unread("Qwen2ForCausalLM"),
}
"""By their name in config.json."""

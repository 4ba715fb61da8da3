"""Models that hold a decoder and an encoder which other readers know, with another end between or behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.shape.encoders import labels, looking_both_ways, looking_layers, padded
from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Experts,
    GatedDeltaNet,
    Json,
    Layer,
    Matrix,
    Mlp,
    Place,
    Shape,
    Tower,
)
from kaito_catalog.shape.multimodal import Reader, clip, decoder_of, encoder_layers, radio
from kaito_catalog.shape.omni import siglip
from kaito_catalog.shape.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.shape.towers import gemma4_tower, qwen2_5_vl_tower, vision_section
from kaito_catalog.shape.versions import expanded

Readers = Callable[[], Mapping[str, Reader]]

_COLBERT = ("colbert_dim", "dim", "projection_dim")
_WIDTHS = ("embed_dim", "dims", "dim", "projection_dim", "colbert_dim")
"""What configurations call the width of a token's embedding, in vLLM's order."""


JINA_LABELS = 2


def _as(read: Reader, source: Source, of: str) -> Shape:
    """The shape that another architecture's reader gives, with what that builds on every stage."""
    shape = read(replace(source, architecture=of))
    return replace(shape, architecture=source.architecture, decoder=shape.decoder or of)


def _late(
    readers: Readers,
    of: str,
    widths: tuple[str, ...] = _WIDTHS,
    *,
    default: int | None = None,
    biased: bool = False,
    has_head: bool = True,
) -> Reader:
    """An embedding for each token: a matrix in fp32 behind the decoder, where the configuration says its width."""

    def read(source: Source) -> Shape:
        shape = _as(readers()[of], source, of)
        width = source.root.optional(*widths) or default or 0
        projected = (shape.hidden_size + (1 if biased else 0)) * width
        plain = shape.plain_elements + 2 * projected
        return replace(shape, pools=True, plain_elements=plain, has_head=shape.has_head and has_head)

    return read


def _jina_vl(readers: Readers) -> Reader:
    """Jina's reranker of images: Qwen2-VL, and two matrices in fp32 that the ranks divide."""

    def read(source: Source) -> Shape:
        of = "Qwen2VLForConditionalGeneration"
        shape = _as(readers()[of], source, of)
        hidden = shape.hidden_size
        # The decoder's part of the configuration has the default number of labels, until 0.32.0 says one.
        divided = hidden * (hidden + 1) + JINA_LABELS * hidden
        plain = shape.plain_elements + 2 * JINA_LABELS
        return replace(shape, pools=True, divided_elements=2 * divided, plain_elements=plain)

    return read


def _seen(source: Source) -> Fields:
    """The part about the encoder of images."""
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    return vision


def _intern_s1_pro(readers: Readers) -> Reader:
    """Intern-S1-Pro: Qwen3-VL with experts, whose positions turn by learnt sums of frequencies."""

    def read(source: Source) -> Shape:
        of = "Qwen3VLMoeForConditionalGeneration"
        shape = _as(readers()[of], source, of)
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
        return _with_short_states(_as(readers()[of], source, of))

    return read


def _minicpm_v4_6(readers: Readers) -> Reader:
    """MiniCPM-V 4.6 and 4.7: SigLIP, an attention over windows, two mergers, and Qwen3.5."""

    def read(source: Source) -> Shape:
        shape = _with_short_states(decoder_of(source, readers(), "Qwen3_5ForCausalLM"))
        vision = _seen(source)
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
        tower = Tower("vision", heads, matrices, plain + 2 * width + 2 * 8 * width)
        return replace(shape, architecture=source.architecture, tower=tower)

    return read


def _hcx_v2(readers: Readers) -> Reader:
    """HyperCLOVA X SEED Think: Qwen2.5-VL's encoder, a matrix, and a decoder."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers())
        vision = _seen(source)
        tower = qwen2_5_vl_tower(source)
        assert tower is not None
        assert tower.matrices is not None
        out = vision.count("out_hidden_size", default=3584)
        tower = replace(tower, matrices=(*tower.matrices, Matrix(out, shape.hidden_size, "none")))
        return replace(shape, architecture=source.architecture, tower=tower)

    return read


_QFORMER_WIDTH = 3072


def _granite4_vision(readers: Readers) -> Reader:
    """Granite 4 Vision: SigLIP, whose layers each go through a small transformer into one of the decoder's."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "GraniteForCausalLM")
        vision, root = _seen(source), source.root
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
        return replace(shape, architecture=source.architecture, tower=Tower("vision", heads, matrices, plain))

    return read


def _llava_onevision2(readers: Readers) -> Reader:
    """LLaVA-OneVision 2: an encoder of its own, Qwen2-VL's merger, and Qwen3."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, readers(), "Qwen3ForCausalLM")
        vision = _seen(source)
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
        return replace(shape, architecture=source.architecture, tower=Tower("vision", heads, matrices, plain))

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
        return replace(shape, architecture=source.architecture, tower=Tower("vision", heads, matrices, plain))

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
        tower=Tower("vision", 16, matrices, plain),
        embedding_elements=(padded(rows + MOLMO_WORDS) - padded(rows)) * hidden,
    )
    return unweighed(shape)


def _jina_v5(readers: Readers) -> Reader:
    """Jina's embeddings 5: Qwen3, or Llama that looks both ways, which only later versions have."""

    def read(source: Source) -> Shape:
        if source.text.flag("is_decoder", True):
            return replace(_as(readers()["Qwen3ForCausalLM"], source, "Qwen3ForCausalLM"), pools=True)
        shape = looking_both_ways(readers()["LlamaForCausalLM"](source))
        return replace(shape, architecture="JinaEmbeddingsV5EncoderModel", pools=True, has_head=False)

    return read


def _llama_nemotron(readers: Readers, *, scored: bool = False) -> Reader:
    """Nemotron's embeddings of pages, and its reranker: SigLIP, two matrices, and Llama that looks both ways."""

    def read(source: Source) -> Shape:
        shape = looking_both_ways(decoder_of(source, readers(), "LlamaForCausalLM"))
        vision = _seen(source)
        layered, plain = siglip(vision)
        ratio = source.root.number("downsample_ratio") or 0.5
        if not 0 < ratio <= 1:
            raise UnreadableError(f"downsample_ratio is {ratio}", "downsample_ratio")
        merged = vision.count("hidden_size", default=768) * int(1 / ratio) ** 2
        hidden = shape.hidden_size
        matrices = (*layered, Matrix(merged, hidden, "none"), Matrix(hidden, hidden, "none"))
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        tower = Tower("vision", heads, matrices, plain + 2 * merged)
        # The decoder has a head of its own beside, which is not used.
        scores = 2 * 2 * hidden * labels(source.text) if scored else 0
        return replace(
            shape,
            architecture=source.architecture,
            tower=tower,
            pools=True,
            has_head=False,
            plain_elements=shape.plain_elements + scores,
        )

    return read


def _jina_roberta(source: Source) -> Shape:
    """Jina's ColBERT 2: RoBERTa whose positions turn."""
    text = source.text
    if text.text("position_embedding_type") not in ("rope", "rotary"):
        field = text.path("position_embedding_type")
        raise UnreadableError(f"{field} is not rotary, which vLLM's class wants", field)
    gated = text.text("hidden_act") in ("silu", "geglu")
    biased = text.flag("bias", True)
    family = Family(qkv_bias=biased, output_bias=biased, norm_parts=2, gated=gated, mlp_bias=biased)
    shape = looking_both_ways(dense(family)(source))
    hidden = shape.hidden_size
    width = text.optional(*_COLBERT) or 0
    shape = replace(
        shape,
        pools=True,
        has_head=False,
        embedding_elements=padded(text.count("type_vocab_size", least=0)) * hidden,
        plain_elements=2 * width * hidden,
    )
    return unweighed(shape)


def _col_modern_vbert(readers: Readers) -> Reader:
    """ColModernVBERT: SigLIP, one matrix, and ModernBERT."""

    def read(source: Source) -> Shape:
        # ColModernVBertConfig's defaults (vLLM), which takes these fields alone.
        text = with_defaults(
            source.text, vocab_size=50_408, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
            num_attention_heads=12, max_position_embeddings=8192,
        )  # fmt: skip
        shape = _as(readers()["ModernBertModel"], replace(source, text=text), "ModernBertModel")
        vision = with_defaults(_seen(source), image_size=512, patch_size=16)
        layered, plain = siglip(vision)
        merged = vision.count("hidden_size", default=768)
        merged *= source.root.count("pixel_shuffle_factor", default=4, most=64) ** 2
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        matrices = (*layered, Matrix(merged, shape.hidden_size, "none", bias=False))
        projected = (shape.hidden_size + 1) * source.root.count("embedding_dim", default=128)
        tower = Tower("vision", heads, matrices, plain)
        return replace(shape, tower=tower, plain_elements=shape.plain_elements + 2 * projected)

    return read


def _deepseek_both_ways(readers: Readers) -> Reader:
    """DeepSeek V3 as an embedding model: its latents are expanded where it looks both ways."""

    def read(source: Source) -> Shape:
        of = "DeepseekV3ForCausalLM"
        shape = replace(_as(readers()[of], source, of), pools=True)
        if source.text.flag("is_causal", True):
            return shape
        return looking_both_ways(replace(shape, layers=tuple(expanded(x) for x in shape.layers)))

    return read


def _gritlm(readers: Readers) -> Reader:
    """GritLM: Mistral, which vLLM serves for embeddings where nobody asks for texts, and then it looks both ways."""

    def read(source: Source) -> Shape:
        of = "MistralForCausalLM"
        return replace(looking_both_ways(_as(readers()[of], source, of)), pools=True)

    return read


def _privacy_filter(readers: Readers) -> Reader:
    """OpenAI's privacy filter: GPT-OSS that looks both ways, and a head over the kinds of words."""

    def read(source: Source) -> Shape:
        of = "GptOssForCausalLM"
        shape = looking_both_ways(_as(readers()[of], source, of))
        scores = 2 * (shape.hidden_size + 1) * labels(source.text)
        plain = shape.plain_elements + scores
        return replace(shape, pools=True, has_head=False, plain_elements=plain)

    return read


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
    tower = Tower("vision", heads, (*matrices, Matrix(_NECK_SUMS, _NECK, "column")), plain)
    shape = make_shape(
        replace(source, text=with_defaults(text, hidden_size=hidden)),
        layers,
        tied=False,
        rope_dim=1,
        final_norm_elements=4 * hidden,
        tower=tower,
    )
    return replace(shape, rope_elements=0)


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
        tower=Tower("audio", 1, None, divided=False),
    )
    return replace(shape, rope_elements=0, lm_head_bias=True, whole_embedding=True)


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
        tower=_moondream3_tower(seen, hidden),
    )
    return unweighed(replace(shape, lm_head_bias=True, tie_word_embeddings=False))


def _moondream3_tower(seen: Fields, hidden: int) -> Tower:
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
    return Tower("vision", seen.count("enc_n_heads", default=16, most=2**16), matrices, plain)


_EMBEDDED_AT_ONCE = 8192
"""Tokens that vLLM takes of EmbeddingGemma 2's context at most."""


def _embedding_gemma2(source: Source) -> Shape:
    """EmbeddingGemma 2: Gemma 4's layers and encoders, all of which see everything at once."""
    # EmbeddingGemma2TextConfig's defaults (transformers).
    text = with_defaults(
        source.text, vocab_size=262_144, hidden_size=512, intermediate_size=2048, num_hidden_layers=24,
        num_attention_heads=4, num_key_value_heads=2, head_dim=256, max_position_embeddings=262_144,
        hidden_size_per_layer_input=512, embedding_dim=768,
    )  # fmt: skip
    hidden, count = text.count("hidden_size"), num_layers(text)
    narrow = read_attention(text, Family(head_norms=2), bidirectional=True)
    special = text.section("per_layer_config")
    each = text.count("hidden_size_per_layer_input")
    block = Mlp(text.count("intermediate_size"))
    layers = [
        Layer(_own_heads(text, special, narrow, i, count), block, 5 * hidden + 2 * hidden * each)
        for i in range(count)
    ]
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=True,
        rope_dim=narrow.head_dim,
        tower=gemma4_tower(replace(source, text=text)),
        plain_elements=each + hidden * text.count("embedding_dim"),
    )
    shape = replace(
        shape,
        pools=True,
        has_head=False,
        divided_elements=hidden * count * each,
        max_model_len=min(shape.max_model_len, _EMBEDDED_AT_ONCE),
    )
    return unweighed(shape)


def _own_heads(text: Fields, special: Fields | None, narrow: Attention, index: int, count: int) -> Attention:
    """The attention of one layer: those that see everything have heads of their own width and number."""
    if special is not None:
        own = special.section(str(index)) or Fields({}, special.where)
        width = own.count("head_dim", default=narrow.head_dim, most=2**16)
        heads = own.count("num_key_value_heads", default=narrow.num_key_value_heads, most=2**16)
    else:
        types = layer_types(text, count)
        step = text.count("sliding_window_pattern", default=6)
        is_wide = types[index] == "full_attention" if types else (index + 1) % step == 0
        if not (is_wide or index == count - 1):
            return narrow
        width = text.count("global_head_dim", default=512, most=2**16)
        heads = text.count("num_global_key_value_heads", default=1, most=2**16)
    if narrow.num_attention_heads % heads:
        field = text.path("num_global_key_value_heads")
        raise UnreadableError(f"attention heads are not a multiple of {heads} KV heads", field)
    return replace(narrow, head_dim=width, v_head_dim=width, num_key_value_heads=heads)


_CLIP_TEXT: dict[str, Json] = {
    "vocab_size": 49_408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77,
}  # fmt: skip
_SIGLIP_TEXT: dict[str, Json] = {
    "vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 64,
}  # fmt: skip
"""CLIPTextConfig's and SiglipTextConfig's defaults (transformers)."""


def _texts(source: Source, defaults: Mapping[str, Json]) -> Shape:
    """The half of CLIP and SigLIP that reads: an encoder with learnt positions."""
    text = with_defaults(source.text, **defaults)
    family = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = dense(family)(replace(source, text=text))
    positions = padded(text.count("max_position_embeddings", most=LONGEST_CONTEXT))
    return replace(
        unweighed(shape),
        pools=True,
        has_head=False,
        rope_elements=0,
        embedding_elements=positions * shape.hidden_size,
    )


def _clip_model(source: Source) -> Shape:
    """CLIP as an embedding model: texts, which see what came before, and images."""
    shape, vision = _texts(source, _CLIP_TEXT), _seen(source)
    width, out = vision.count("hidden_size", default=768), source.root.count("projection_dim", default=512)
    matrices, plain, medium = clip(vision, 0)
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    # Its attention is not told of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    # A norm after the last layer, and a matrix for each half.
    tower = Tower("vision", heads, tuple(matrices), plain + 2 * width + width * out, medium=medium)
    return replace(shape, layers=layers, tower=tower, plain_elements=shape.hidden_size * out)


def _siglip_model(source: Source) -> Shape:
    """SigLIP as an embedding model: texts at once, and images, which one question sums up."""
    shape, vision = looking_both_ways(_texts(source, _SIGLIP_TEXT)), _seen(source)
    width, wide = vision.count("hidden_size", default=768), vision.count("intermediate_size", default=3072)
    layered, plain = siglip(vision)
    matrices = tuple(layered)
    if vision.flag("vision_use_head", True):
        matrices += (Matrix(width, wide, "column"), Matrix(wide, width, "row"))
        plain += width + 4 * (width + 1) * width + 2 * width
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    hidden = shape.hidden_size
    out = source.text.count("projection_size", default=hidden)
    tower = Tower("vision", heads, matrices, plain)
    return replace(shape, tower=tower, plain_elements=(hidden + 1) * out)


def wrappers(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those that they are made of."""
    qwen3_vl = "Qwen3VLForConditionalGeneration"
    return {
        "CLIPModel": _clip_model,
        "CohereAsrForConditionalGeneration": _cohere_asr,
        "ColBERTJinaRobertaModel": _jina_roberta,
        "ColBERTLfm2Model": _late(readers, "Lfm2ForCausalLM", _COLBERT, has_head=False),
        "ColModernVBertForRetrieval": _col_modern_vbert(readers),
        "ColPaliForRetrieval": _late(
            readers, "PaliGemmaForConditionalGeneration", ("embedding_dim", *_WIDTHS[:1], *_WIDTHS[2:])
        ),
        "ColQwen3": _late(readers, qwen3_vl),
        "ColQwen3_5": _late(readers, "Qwen3_5ForConditionalGeneration", default=128, biased=True),
        "DeepseekV3BidirectionalModel": _deepseek_both_ways(readers),
        "EmbeddingGemma2Model": _embedding_gemma2,
        "Granite4VisionForConditionalGeneration": _granite4_vision(readers),
        "GritLM": _gritlm(readers),
        "HCXVisionV2ForCausalLM": _hcx_v2(readers),
        "HF_ColBERT": _late(readers, "BertModel", ()),
        "HfMoondream": _moondream3,
        "InternS1ProForConditionalGeneration": _intern_s1_pro(readers),
        "InternS2PreviewForConditionalGeneration": _intern_s2(readers),
        "JinaEmbeddingsV5Model": _jina_v5(readers),
        "JinaVLForRanking": _jina_vl(readers),
        "LlamaNemotronVLForSequenceClassification": _llama_nemotron(readers, scored=True),
        "LlamaNemotronVLModel": _llama_nemotron(readers),
        "LlavaOnevision2ForConditionalGeneration": _llava_onevision2(readers),
        "MiniCPMV4_6ForConditionalGeneration": _minicpm_v4_6(readers),
        "MiniCPMV4_7ForConditionalGeneration": _minicpm_v4_6(readers),
        "MolmoForCausalLM": _molmo,
        "Moondream3ForCausalLM": _moondream3,
        "NemotronParseForConditionalGeneration": _nemotron_parse,
        "OpenAIPrivacyFilterForTokenClassification": _privacy_filter(readers),
        "OpsColQwen3Model": _late(readers, qwen3_vl),
        "Ovis": _ovis(readers),
        "SiglipModel": _siglip_model,
        "Qwen3VLNemotronEmbedModel": _late(readers, qwen3_vl),
    }


ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    **dict.fromkeys(wrappers(dict), frozenset({Place.TOWER})),
    "MiniCPMV4_6ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.TOWER}),
    "MiniCPMV4_7ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.TOWER}),
}
"""Beside what the decoder builds on every stage."""

IN_ONE_ON_EVERY_STAGE: dict[str, frozenset[Place]] = dict.fromkeys(
    ("HfMoondream", "MolmoForCausalLM", "Moondream3ForCausalLM"),
    frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM, Place.TOWER}),
)
"""Parts of those with a decoder of their own that vLLM builds on every pipeline stage."""

"""Models that hold a decoder and an encoder which other readers know, with another end between or behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import MOST_LAYERS, Experts, GatedDeltaNet, Layer, Matrix, Place, Shape, Tower
from kaito_catalog.shape.multimodal import Reader, decoder_of, encoder_layers
from kaito_catalog.shape.omni import siglip
from kaito_catalog.shape.towers import qwen2_5_vl_tower, vision_section

Readers = Callable[[], Mapping[str, Reader]]

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


def wrappers(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those that they are made of."""
    qwen3_vl = "Qwen3VLForConditionalGeneration"
    return {
        "ColBERTLfm2Model": _late(readers, "Lfm2ForCausalLM", _COLBERT, has_head=False),
        "ColPaliForRetrieval": _late(
            readers, "PaliGemmaForConditionalGeneration", ("embedding_dim", *_WIDTHS[:1], *_WIDTHS[2:])
        ),
        "ColQwen3": _late(readers, qwen3_vl),
        "ColQwen3_5": _late(readers, "Qwen3_5ForConditionalGeneration", default=128, biased=True),
        "Granite4VisionForConditionalGeneration": _granite4_vision(readers),
        "HCXVisionV2ForCausalLM": _hcx_v2(readers),
        "HF_ColBERT": _late(readers, "BertModel", ()),
        "InternS1ProForConditionalGeneration": _intern_s1_pro(readers),
        "InternS2PreviewForConditionalGeneration": _intern_s2(readers),
        "JinaVLForRanking": _jina_vl(readers),
        "LlavaOnevision2ForConditionalGeneration": _llava_onevision2(readers),
        "MiniCPMV4_6ForConditionalGeneration": _minicpm_v4_6(readers),
        "MiniCPMV4_7ForConditionalGeneration": _minicpm_v4_6(readers),
        "OpsColQwen3Model": _late(readers, qwen3_vl),
        "Ovis": _ovis(readers),
        "Qwen3VLNemotronEmbedModel": _late(readers, qwen3_vl),
    }


_COLBERT = ("colbert_dim", "dim", "projection_dim")

ON_EVERY_STAGE: dict[str, frozenset[Place]] = dict.fromkeys(wrappers(dict), frozenset({Place.TOWER})) | {
    name: frozenset({Place.EMBEDDING, Place.TOWER})
    for name in ("MiniCPMV4_6ForConditionalGeneration", "MiniCPMV4_7ForConditionalGeneration")
}
"""Beside what the decoder builds on every stage."""

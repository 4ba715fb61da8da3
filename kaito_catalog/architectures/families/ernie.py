"""Baidu's Ernie 4.5."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.drafting import mtp
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.record import ENCODER, Architecture, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Layer, Matrix, Mlp, Shape


def _ernie(source: Source) -> Shape:
    biased = source.text.flag("use_bias")
    return dense(
        DecoderDefaults(head_dim=128, tied=True, qkv_bias=biased, output_bias=biased, mlp_bias=biased)
    )(source)


def _ernie_experts(text: Fields) -> Experts:
    width = text.count("moe_intermediate_size")
    shared = text.optional("moe_num_shared_experts", most=2**10)
    filled = with_defaults(text, num_experts_per_tok=text.values.get("moe_k"))
    return read_experts(
        filled,
        ("moe_num_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=True,
        router_bytes=4,
    )


def _ernie_sparse(text: Fields, index: int) -> bool:
    first = text.count("moe_layer_start_index", default=0, least=0, most=MOST_LAYERS)
    last = text.optional("moe_layer_end_index", most=MOST_LAYERS)
    last = num_layers(text) - 1 if last is None else last
    return first <= index <= last and (index + 1) % text.count("moe_layer_interval", default=1) == 0


def _ernie_dense(source: Source, layer: Layer) -> Layer:
    """What guesses tokens has a dense block, as Llama's."""
    return replace(layer, feed_forward=Mlp(source.text.count("intermediate_size")))


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
    attention = read_attention(text, DecoderDefaults(qkv_bias=biased, output_bias=False))
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


ARCHITECTURES: dict[str, Architecture] = {
    "Ernie4_5ForCausalLM": Architecture(_ernie),
    "Ernie4_5_MoeForCausalLM": Architecture(
        mixture(DecoderDefaults(output_bias=False), _ernie_experts, is_sparse=_ernie_sparse),
        mtp=mtp(norms=2, change=_ernie_dense),
    ),
    "Ernie4_5_VLMoeForConditionalGeneration": Architecture(_ernie_vl, on_every_stage=ENCODER),
    "PaddleOCRVLForConditionalGeneration": unread("Ernie4_5ForCausalLM"),
}
"""By their name in config.json."""

"""IBM's Granite: dense, with experts, with states, with images."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.architectures.mixers import Attention, Mamba2, Mixer
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    DecoderDefaults,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import siglip, stated_vision
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Json, Layer, Matrix, Mlp, Shape


def _shared(text: Fields) -> Mlp | None:
    width = text.optional("shared_intermediate_size")
    return Mlp(width) if width else None


def _experts(text: Fields) -> Experts:
    return read_experts(text, ("num_local_experts",), ("intermediate_size",), shared=_shared(text))


def _granite_hybrid(source: Source) -> Shape:
    """Granite 4 H: Mamba 2 and attention in turn, each before experts, a dense block, or both."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None:
        raise UnreadableError(
            f"the configuration has no {text.path('layer_types')}", text.path("layer_types")
        )
    shared = _shared(text)
    block = _experts(text) if text.optional("num_local_experts") else shared
    attention = read_attention(text, DecoderDefaults(qkv_bias=text.flag("attention_bias"), output_bias=None))
    mixers: dict[str, Mixer] = {"attention": attention, "full_attention": attention}
    if "mamba" in types:
        mixers["mamba"] = Mamba2(
            text.count("mamba_n_heads"),
            text.count("mamba_d_head"),
            text.count("mamba_n_groups", default=1),
            text.count("mamba_d_state"),
            text.count("mamba_d_conv"),
            state_bytes=2,
            bias=text.flag("mamba_proj_bias"),
            conv_bias=text.flag("mamba_conv_bias", True),
        )
    unknown = next((t for t in types if t not in mixers), None)
    if unknown is not None:
        raise UnreadableError(f"{text.path('layer_types')} has '{unknown[:40]}'", text.path("layer_types"))
    layers = [Layer(mixers[t], block, 2 * hidden) for t in types]
    rope = attention.head_dim if text.text("position_embedding_type") == "rope" else 0
    return make_shape(source, layers, tied=False, rope_dim=rope)


def _granite_swa(source: Source) -> Shape:
    """Granite with a window on three layers of four, and a learnt logit for each head."""
    text = with_defaults(source.text, sliding_window=128)  # GraniteSWAConfig's default (transformers)
    count = num_layers(text)
    if layer_types(text, count) is None:
        types = ["sliding_attention" if i % 4 else "full_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    is_dense = source.architecture == "GraniteSWAForCausalLM"
    read = dense(DecoderDefaults(tied=True)) if is_dense else mixture(DecoderDefaults(), _experts)
    shape = read(replace(source, text=text))
    sinks = text.flag("attention_sinks", True)
    layers = tuple(
        replace(x, mixer=replace(x.mixer, sinks=sinks)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


_QFORMER_WIDTH = 3072


def _granite4_vision(source: Source) -> Shape:
    """Granite 4 Vision: SigLIP, whose layers each go through a small transformer into one of the decoder's."""
    shape = decoder_of(source, "GraniteForCausalLM")
    vision, root = stated_vision(source), source.root
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
    return replace(shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain))


ARCHITECTURES: dict[str, Architecture] = {
    "GraniteForCausalLM": Architecture(dense(DecoderDefaults())),
    "GraniteMoeForCausalLM": Architecture(mixture(NO_BIAS, _experts), on_every_stage=ENDS),
    "GraniteMoeSharedForCausalLM": Architecture(mixture(NO_BIAS, _experts), on_every_stage=ENDS),
    "GraniteMoeHybridForCausalLM": Architecture(_granite_hybrid, on_every_stage=ENDS),
    "GraniteMoeSWAForCausalLM": Architecture(_granite_swa, on_every_stage=ENDS, since=V0_32_0),
    "GraniteSWAForCausalLM": Architecture(_granite_swa, since=V0_32_0),
    "Granite4VisionForConditionalGeneration": holding(_granite4_vision),
    "GraniteSpeechForConditionalGeneration": unread(),
    "GraniteSpeechPlusForConditionalGeneration": unread(),
}
"""By their name in config.json."""

"""MiniCPM, with and without images."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    dense,
    make_shape,
    num_layers,
    read_latent,
    unweighed,
    with_short_states,
)
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import siglip, stated_vision
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread_encoder
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape, StagePart


def _minicpm3(source: Source) -> Shape:
    """MiniCPM 3: keys and values come from a latent, and the cache holds those of every head."""
    text = source.text
    latent = read_latent(text)
    if latent.q_lora_rank is None:
        field = text.path("q_lora_rank")
        raise UnreadableError(f"the configuration has no {field}", field)
    heads = latent.num_attention_heads
    width = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    # Values are made as wide as keys.
    attention = Attention(heads, heads, width, width, projections=latent)
    hidden = text.count("hidden_size")
    layers = [Layer(attention, Mlp(text.count("intermediate_size")), 2 * hidden)] * num_layers(text)
    # MiniCPM3Config ties, where config.json does not say otherwise.
    shape = make_shape(source, layers, tied=True, rope_dim=latent.qk_rope_head_dim)
    # vLLM does not name one of the matrices, which a list of names then leaves out.
    return unweighed(shape) if shape.quantization is not None and shape.quantization.only else shape


_MINICPM_V = {
    (2, 0): "MiniCPMForCausalLM",
    (2, 5): "LlamaForCausalLM",
    (2, 6): "Qwen2ForCausalLM",
    (4, 0): "LlamaForCausalLM",
    (4, 5): "Qwen3ForCausalLM",
}
"""The decoder by the model's version (vLLM's minicpmv.py)."""


def _minicpm_v(source: Source) -> Shape:
    """MiniCPM-V and MiniCPM-O up to 4.5: the decoder goes by the model's version."""
    stated = source.root.values.get("version")
    parts = str(stated).split(".")[:2] if stated is not None else []
    version = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 3)
    if stated is None:
        old = source.root.count("hidden_size") == 2304 and source.root.optional("query_num") == 64
        version = (2, 0) if old else (2, 5)
    decoder = _MINICPM_V.get(version) if len(version) == 2 else None
    if decoder is None:
        raise UnreadableError("version is of no MiniCPM-V that vLLM knows", "version")
    return unread_encoder(decoder)(source)


def _minicpm_v4_6(source: Source) -> Shape:
    """MiniCPM-V 4.6 and 4.7: SigLIP, an attention over windows, two mergers, and Qwen3.5."""
    shape = with_short_states(decoder_of(source, "Qwen3_5ForCausalLM"))
    vision = stated_vision(source)
    depth = vision.count("num_hidden_layers", default=27, most=MOST_LAYERS)
    if source.architecture.startswith("MiniCPMV4_6") and source.root.flag("drop_vision_last_layer"):
        depth -= 1
    # SiglipVisionConfig as MiniCPM-V's class fills it in (transformers).
    filled = with_defaults(vision, hidden_size=1152, intermediate_size=4304, image_size=980, patch_size=14)
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


ARCHITECTURES: dict[str, Architecture] = {
    "MiniCPMForCausalLM": Architecture(dense(NO_BIAS), on_every_stage=ENDS),
    "MiniCPM3ForCausalLM": Architecture(_minicpm3, on_every_stage=ENDS),
    "MiniCPMV": holding(_minicpm_v, has_unread_encoder=True),
    "MiniCPMO": holding(_minicpm_v, has_unread_encoder=True),
    "MiniCPMV4_6ForConditionalGeneration": Architecture(
        _minicpm_v4_6, on_every_stage=frozenset({StagePart.EMBEDDING}) | ENCODER, is_decoder=False
    ),
    "MiniCPMV4_7ForConditionalGeneration": Architecture(
        _minicpm_v4_6,
        on_every_stage=frozenset({StagePart.EMBEDDING}) | ENCODER,
        is_decoder=False,
        since=V0_32_0,
    ),
}
"""By their name in config.json."""

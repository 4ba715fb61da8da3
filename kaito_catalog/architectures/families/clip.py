"""CLIP and SigLIP as embedding models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import with_defaults
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, unweighed
from kaito_catalog.architectures.reading.pooling import bidirectional, padded
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.vision import clip, siglip, stated_vision
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, Encoder, Json, Matrix, Shape

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
    family = DecoderDefaults(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
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
    shape, vision = _texts(source, _CLIP_TEXT), stated_vision(source)
    width, out = vision.count("hidden_size", default=768), source.root.count("projection_dim", default=512)
    matrices, plain, medium = clip(vision, 0)
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    # Its attention is not told of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    # A norm after the last layer, and a matrix for each half.
    encoder = Encoder("vision", heads, tuple(matrices), plain + 2 * width + width * out, medium=medium)
    return replace(shape, layers=layers, encoder=encoder, plain_elements=shape.hidden_size * out)


def _siglip_model(source: Source) -> Shape:
    """SigLIP as an embedding model: texts at once, and images, which one question sums up."""
    shape, vision = bidirectional(_texts(source, _SIGLIP_TEXT)), stated_vision(source)
    width, wide = vision.count("hidden_size", default=768), vision.count("intermediate_size", default=3072)
    layered, plain = siglip(vision)
    matrices = tuple(layered)
    if vision.flag("vision_use_head", True):
        matrices += (Matrix(width, wide, "column"), Matrix(wide, width, "row"))
        plain += width + 4 * (width + 1) * width + 2 * width
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    hidden = shape.hidden_size
    out = source.text.count("projection_size", default=hidden)
    encoder = Encoder("vision", heads, matrices, plain)
    return replace(shape, encoder=encoder, plain_elements=(hidden + 1) * out)


ARCHITECTURES: dict[str, Architecture] = {
    "CLIPModel": Architecture(_clip_model, is_decoder=False),
    "SiglipModel": Architecture(_siglip_model, is_decoder=False),
}
"""By their name in config.json."""

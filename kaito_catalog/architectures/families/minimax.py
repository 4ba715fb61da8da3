"""MiniMax M2 and M3."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    flags,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
)
from kaito_catalog.architectures.reading.record import ENCODER, Architecture, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _minimax_m3_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's minimax_m3/common/vision_tower.py: CLIP's layers without a last norm, projector, merger."""
    vision = vision_section(source)
    if vision is None:
        return None
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    compression = vision.section("img_token_compression_config") or Fields({})
    merge = compression.count("spatial_merge_size", default=2) ** 2
    patch = vision.count("patch_size") ** 2 * compression.count("temporal_patch_size", default=2)
    hidden = source.text.count("hidden_size")
    middle = source.root.optional("projector_hidden_size") or hidden
    # The encoder's own section says nothing of biases, and both default to having one.
    return Encoder(
        "vision",
        vision.count("num_attention_heads"),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(width, middle, "column"),
            Matrix(middle, hidden, "row"),
            Matrix(merge * hidden, middle, "column"),
            Matrix(middle, hidden, "row"),
        ),
        vision.count("num_channels", default=3) * patch * width + depth * 4 * width + 2 * width,
    )


def _minimax_m2(source: Source) -> Shape:
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_attention(text, DecoderDefaults(), flat_norms=text.flag("use_qk_norm", True))
    experts = read_experts(
        text,
        ("num_local_experts",),
        ("intermediate_size",),
        correction_bias=text.flag("use_routing_bias", True),
        router_bytes=4,
    )
    layers = [Layer(attention, experts, 2 * hidden)] * num_layers(text)
    rope = text.count("rotary_dim", default=attention.head_dim)
    return make_shape(source, layers, tied=False, rope_dim=rope)


def _minimax_m3(source: Source) -> Shape:
    """MiniMax M3 (vLLM 0.25.1, vllm/models/minimax_m3): blocks of tokens picked by an index, dense layers first."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    sparse = text.section("sparse_attention_config")
    if sparse is None or not sparse.flag("use_sparse_attention"):
        raise UnreadableError("no plan for MiniMax M3 without sparse attention", "sparse_attention_config")
    picks = flags(sparse, "sparse_attention_freq", count)
    attention = read_attention(text, DecoderDefaults(head_norms=2, qkv_bias=False, output_bias=False))
    if sparse.count("sparse_num_index_heads") != attention.num_key_value_heads:
        raise UnreadableError("vLLM wants as many index heads as KV heads", "sparse_num_index_heads")
    indexed = replace(attention, index_dim=sparse.count("sparse_index_dim"))
    width = text.count("intermediate_size")
    shared = text.count("n_shared_experts", default=1, least=0, most=2**10)
    experts = read_experts(
        text,
        ("num_local_experts",),
        ("intermediate_size",),
        correction_bias=text.flag("use_routing_bias"),
        router_bytes=4,
        shared=Mlp(width * shared) if shared else None,
    )
    is_sparse = flags(text, "moe_layer_freq", count)
    dense = Mlp(text.count("dense_intermediate_size"))
    layers = [
        Layer(indexed if picks[i] else attention, experts if is_sparse[i] else dense, 2 * hidden)
        for i in range(count)
    ]
    encoder = _minimax_m3_encoder(source) if source.architecture.endswith("ConditionalGeneration") else None
    rope = text.count("rotary_dim", default=attention.head_dim)
    shape = make_shape(source, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)
    return replace(shape, rope_elements=text.count("max_position_embeddings", most=LONGEST_CONTEXT) * rope)


ARCHITECTURES: dict[str, Architecture] = {
    "MiniMaxM2ForCausalLM": Architecture(_minimax_m2, never_tied=True),
    "MiniMaxM3SparseForCausalLM": Architecture(_minimax_m3, never_tied=True),
    "MiniMaxM3SparseForConditionalGeneration": Architecture(
        _minimax_m3, on_every_stage=ENCODER, never_tied=True
    ),
}
"""By their name in config.json."""

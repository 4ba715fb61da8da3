"""Mamba, and the hybrids Jamba and Zamba 2."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.mixers import Attention, Mamba1, Mamba2
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.shape import MOST_LAYERS, Layer, Mlp, Shape


def _mamba2(source: Source) -> Shape:
    """Mamba 2 alone: a state per sequence and nothing that grows."""
    text = with_defaults(source.text, max_position_embeddings=2**20)
    hidden = text.count("hidden_size")
    mamba = Mamba2(
        text.count("num_heads"),
        text.count("head_dim"),
        text.count("n_groups"),
        text.count("state_size"),
        text.count("conv_kernel"),
        state_bytes=2,
        bias=text.flag("use_bias"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    layers = [Layer(mamba, None, hidden)] * num_layers(text)
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=0)


def read_mamba(source: Source) -> Shape:
    """Mamba and Falcon Mamba: a state per sequence and nothing that grows."""
    text = with_defaults(source.text, max_position_embeddings=2**20)
    hidden = text.count("hidden_size", "d_model")
    # Falcon's norms of what selects have no parameters.
    mamba = Mamba1(
        text.count("intermediate_size", "d_inner", default=text.count("expand", default=2) * hidden),
        text.count("state_size", default=16),
        text.count("conv_kernel", default=4),
        _time_step_rank(text, "time_step_rank", hidden),
        text.flag("use_bias"),
        text.flag("use_conv_bias", True),
        normed=False,
    )
    text = with_defaults(text, hidden_size=hidden)
    layers = [Layer(mamba, None, hidden)] * num_layers(text)
    return make_shape(replace(source, text=text), layers, tied=True, rope_dim=0)


def _time_step_rank(text: Fields, name: str, hidden: int) -> int:
    """`auto`, and nothing at all, is a sixteenth of the hidden size, rounded up."""
    if text.values.get(name) in (None, "auto"):
        return -(-hidden // 16)
    return text.count(name)


def _jamba(source: Source) -> Shape:
    """Jamba: Mamba with an attention now and then, each before experts or a dense block."""
    # JambaConfig's defaults (transformers).
    text = with_defaults(
        source.text,
        attn_layer_offset=4, attn_layer_period=8, expert_layer_offset=1, expert_layer_period=2,
        num_experts=16, num_experts_per_tok=2,
    )  # fmt: skip
    hidden = text.count("hidden_size")
    attention = read_attention(text, NO_BIAS)
    mamba = Mamba1(
        text.count("mamba_expand", default=2) * hidden,
        text.count("mamba_d_state", default=16),
        text.count("mamba_d_conv", default=4),
        _time_step_rank(text, "mamba_dt_rank", hidden),
        text.flag("mamba_proj_bias"),
        text.flag("mamba_conv_bias", True),
        normed=True,
    )
    dense = Mlp(text.count("intermediate_size"))
    has_experts = text.count("num_experts") > 1
    experts = read_experts(text, ("num_experts",), ("intermediate_size",)) if has_experts else dense
    layers = [
        Layer(
            attention if _is_every(text, "attn", i) else mamba,
            experts if _is_every(text, "expert", i) else dense,
            2 * hidden,
        )
        for i in range(num_layers(text))
    ]
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=0)
    return replace(shape, rope_elements=0)


def _is_every(text: Fields, what: str, index: int) -> bool:
    period = text.count(f"{what}_layer_period", most=MOST_LAYERS)
    offset = text.count(f"{what}_layer_offset", least=0, most=MOST_LAYERS)
    return index % period == offset


def _zamba2(source: Source) -> Shape:
    """Zamba 2: Mamba 2 everywhere, and now and then one of few attention blocks that layers share."""
    text = source.text
    hidden = text.count("hidden_size")
    kinds = text.texts("layers_block_type")
    if kinds is None or len(kinds) != num_layers(text) or set(kinds) - {"mamba", "hybrid"}:
        field = text.path("layers_block_type")
        raise UnreadableError(f"{field} is not mamba or hybrid for each layer", field)
    inner = text.count("mamba_expand", default=2) * hidden
    mamba_heads = text.count("n_mamba_heads", default=8, most=2**16)
    mamba = Mamba2(
        mamba_heads,
        inner // mamba_heads,
        text.count("mamba_ngroups", default=1),
        text.count("mamba_d_state", default=64),
        text.count("mamba_d_conv", default=4),
        state_bytes=2,
        bias=text.flag("add_bias_linear"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    heads = text.count("num_attention_heads", default=32, most=2**16)
    width = text.count("attention_hidden_size", default=2 * hidden)
    head_dim = text.count("attention_head_dim", default=width // heads, most=2**16)
    if head_dim * heads != width:
        field = text.path("attention_head_dim")
        raise UnreadableError(f"{heads} heads of {head_dim} do not make a width of {width}", field)
    attention = Attention(heads, heads, head_dim, head_dim)
    shared = kinds.count("hybrid")
    blocks = min(text.count("num_mem_blocks", default=1, most=MOST_LAYERS), shared)
    wide = text.count("intermediate_size", default=4 * hidden)
    rank = text.count("adapter_rank", default=128)
    divided = blocks * (3 * width**2 + width * hidden + 3 * hidden * wide)
    divided += shared * rank * (hidden + 2 * wide)
    if text.flag("use_shared_attention_adapter"):
        divided += shared * 3 * 2 * rank * width
    plain = blocks * 3 * hidden
    if text.flag("add_bias_linear"):
        divided += blocks * 2 * wide
        plain += blocks * hidden
    layers = [
        # What comes out of a shared block passes a matrix of the layer's own, which every rank has.
        Layer(mamba, None, hidden + hidden**2, echoes=(attention,))
        if kind == "hybrid"
        else Layer(mamba, None, hidden)
        for kind in kinds
    ]
    rope = head_dim if text.flag("use_mem_rope") else 0
    shape = make_shape(source, layers, tied=True, rope_dim=rope, plain_elements=plain)
    return unweighed(replace(shape, divided_elements=divided, tie_word_embeddings=True))


ARCHITECTURES: dict[str, Architecture] = {
    "MambaForCausalLM": Architecture(read_mamba, on_every_stage=ENDS),
    "Mamba2ForCausalLM": Architecture(_mamba2, on_every_stage=ENDS),
    "JambaForCausalLM": Architecture(_jamba, on_every_stage=ENDS),
    "Zamba2ForCausalLM": Architecture(_zamba2),
}
"""By their name in config.json."""

"""Decoders with states in some or all layers: Mamba, short convolutions, gated delta nets, as vLLM 0.25.1 has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.architectures.families.mixtures import granite_experts, granite_shared
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    Family,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    read_latent,
    unweighed,
)
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    Attention,
    GatedDeltaNet,
    Json,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    Mlp,
    Place,
    Shape,
    ShortConv,
)


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
    shared = granite_shared(text)
    block = granite_experts(text) if text.optional("num_local_experts") else shared
    attention = read_attention(text, Family(qkv_bias=text.flag("attention_bias"), output_bias=None))
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


def _falcon_h1(source: Source) -> Shape:
    """Falcon-H1: attention and Mamba 2 side by side in every layer."""
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_attention(text, NO_BIAS)
    inner = text.optional("mamba_d_ssm") or text.count("mamba_expand", default=2) * hidden
    heads = text.count("mamba_n_heads", default=128)
    head_dim = text.values.get("mamba_d_head", "auto")
    mamba = Mamba2(
        heads,
        inner // heads if head_dim == "auto" else text.count("mamba_d_head"),
        text.count("mamba_n_groups", default=1),
        text.count("mamba_d_state", default=256),
        text.count("mamba_d_conv", default=4),
        state_bytes=2,
        bias=text.flag("mamba_proj_bias"),
        conv_bias=text.flag("mamba_conv_bias", True),
        normed=text.flag("mamba_rms_norm"),
    )
    block = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"))
    layers = [Layer(attention, block, 2 * hidden, state=mamba)] * num_layers(text)
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


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


def _mamba(source: Source) -> Shape:
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


def _lfm2(source: Source) -> Shape:
    """LFM2: short convolutions with an attention now and then, dense or with experts."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    attending = text.values.get("full_attn_idxs")
    if types is None and isinstance(attending, list):
        types = ["full_attention" if i in attending else "conv" for i in range(count)]
    if types is None or set(types) - {"conv", "full_attention"}:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is missing or names a kind nobody knows", field)
    attention = read_attention(text, Family(head_norms=2, qkv_bias=False, output_bias=False))
    width = text.count("conv_dim", default=hidden)
    conv = ShortConv(width, text.count("conv_L_cache", default=3, least=2), text.flag("conv_bias"))
    first, block = count, Mlp(_lfm2_width(text))
    experts = None
    if source.architecture == "Lfm2MoeForCausalLM":
        block = Mlp(text.count("intermediate_size"))
        first = text.count("num_dense_layers", default=2, least=0, most=MOST_LAYERS)
        biased = text.flag("use_expert_bias", True)
        experts = read_experts(text, ("num_experts",), correction_bias=biased)
    layers = [
        Layer(attention if kind == "full_attention" else conv, block if i < first else experts, 2 * hidden)
        for i, kind in enumerate(types)
    ]
    return make_shape(source, layers, tied=True, rope_dim=attention.head_dim)


def _lfm2_width(text: Fields) -> int:
    """The width of a dense block as vLLM's Lfm2MLP derives it: two thirds, times a factor, to the next multiple."""
    width = text.count("block_ff_dim", "intermediate_size")
    if not text.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor = text.number("block_ffn_dim_multiplier")
    multiple = text.count("block_multiple_of", default=256)
    if factor is not None:
        if not 0 < factor <= 64:
            field = text.path("block_ffn_dim_multiplier")
            raise UnreadableError(f"{field} is {factor}", field)
        width = int(factor * width)
    return -(-width // multiple) * multiple


def _olmo_hybrid(source: Source) -> Shape:
    """OLMo Hybrid: a gated delta rule, and every few layers attention with norms over all heads."""
    text = source.text
    count = num_layers(text)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", most=2**16)
    types = layer_types(text, count)
    if types is None:
        # OlmoHybridConfig's default.
        types = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(count)]
        if "full_attention" not in types:
            types[-1] = "full_attention"
    key_heads = text.count("linear_num_key_heads", default=heads, most=2**16)
    key_dim = text.count("linear_key_head_dim", default=int(0.75 * hidden / key_heads), most=2**16)
    linear = GatedDeltaNet(
        key_heads,
        text.count("linear_num_value_heads", default=heads, most=2**16),
        key_dim,
        text.count("linear_value_head_dim", default=2 * key_dim, most=2**16),
        text.count("linear_conv_kernel_dim", default=4),
        state_bytes=2,
        separate_gates=True,
        decay_bytes=2,
    )
    attention = read_attention(text, NO_BIAS)
    # Norms over all heads, which every rank has whole.
    norms = hidden + attention.num_key_value_heads * attention.head_dim
    mlp = Mlp(text.count("intermediate_size"))
    layers = []
    for kind in types:
        if kind not in ("full_attention", "linear_attention"):
            raise UnreadableError(f"{text.path('layer_types')} has '{kind[:40]}'", text.path("layer_types"))
        if kind == "full_attention":
            layers.append(Layer(attention, mlp, 2 * hidden + norms))
        else:
            layers.append(Layer(linear, mlp, 2 * hidden))
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


def _plamo2(source: Source) -> Shape:
    """PLaMo 2: Mamba of its own kind and attention in turn, four norms a layer."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    head_dim = text.count("hidden_size_per_head", most=2**16)
    family = Family(head_dim=head_dim, qkv_bias=False, output_bias=False, flat_norms=True)
    attention = read_attention(text, family, unscaled=True)
    mamba = Mamba2(
        text.count("mamba_num_heads", most=2**16),
        head_dim,
        0,
        text.count("mamba_d_state"),
        text.count("mamba_d_conv"),
        state_bytes=2,
        bias=False,
        conv_bias=False,
        time_step_rank=max(64, hidden // 16),
    )
    step = text.count("mamba_step", least=2, most=MOST_LAYERS)
    mlp = Mlp(text.count("intermediate_size"))

    def attends(index: int) -> bool:
        return index == count - 1 if count <= step // 2 else index % step == step // 2

    layers = [Layer(attention if attends(i) else mamba, mlp, 4 * hidden) for i in range(count)]
    return unweighed(make_shape(source, layers, tied=False, rope_dim=head_dim))


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


def _ling_hybrid(source: Source) -> Shape:
    """Ling and Ring 2.5: linear attention, and latents in the last layer of each group."""
    text = source.text
    count = num_layers(text)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", most=2**16)
    biased = text.flag("use_bias")
    linear = LightningAttention(
        heads,
        text.count("head_dim", default=hidden // heads, most=2**16),
        biased or text.flag("use_qkv_bias"),
        biased,
        2 if text.flag("use_qk_norm") else 0,
        text.count("group_norm_size", default=1, most=2**16),
    )
    # The defaults of vLLM's class.
    defaults: dict[str, Json] = {
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    latent = read_latent(with_defaults(text, **defaults))
    width = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
    shared = text.count("num_shared_experts", default=0, least=0, most=2**10)
    routed = read_experts(
        text,
        ("num_experts",),
        shared=Mlp(width * shared, bias=biased) if shared else None,
        correction_bias=text.flag("moe_router_enable_expert_bias"),
        router_bytes=4 if text.text("router_dtype") in (None, "fp32") else 0,
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    block = Mlp(text.count("intermediate_size"), bias=biased)
    group = text.count("layer_group_size", default=1, least=0, most=MOST_LAYERS)
    layers = [
        Layer(
            linear if group and (i + 1) % group else latent,
            routed if i >= first else block,
            2 * hidden,
        )
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=latent.qk_rope_head_dim)


READERS: dict[str, Callable[[Source], Shape]] = {
    "FalconH1ForCausalLM": _falcon_h1,
    "FalconMambaForCausalLM": _mamba,
    "GraniteMoeHybridForCausalLM": _granite_hybrid,
    "JambaForCausalLM": _jamba,
    "Lfm2ForCausalLM": _lfm2,
    "Lfm2MoeForCausalLM": _lfm2,
    "MambaForCausalLM": _mamba,
    "Mamba2ForCausalLM": _mamba2,
    "Plamo2ForCausalLM": _plamo2,
    "Zamba2ForCausalLM": _zamba2,
    "BailingMoeV2_5ForCausalLM": _ling_hybrid,
    "OlmoHybridForCausalLM": _olmo_hybrid,
}
"""Architectures, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})
_NO_HEAD = frozenset({Place.EMBEDDING, Place.NORM})

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "FalconMambaForCausalLM": _ALL,
    "GraniteMoeHybridForCausalLM": _ALL,
    "JambaForCausalLM": _ALL,
    "Lfm2ForCausalLM": frozenset({Place.EMBEDDING}),
    "Lfm2MoeForCausalLM": frozenset({Place.EMBEDDING}),
    "MambaForCausalLM": _ALL,
    "Mamba2ForCausalLM": _ALL,
    "Plamo2ForCausalLM": _ALL,
    "OlmoHybridForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

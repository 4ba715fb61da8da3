"""Decoders beyond KAITO's catalog, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape.decoders import read_deepseek
from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import (
    MOST_LAYERS,
    Attention,
    Experts,
    Json,
    Layer,
    Mamba1,
    Mamba2,
    Mixer,
    Mlp,
    Place,
    Shape,
    ShortConv,
    Tower,
)
from kaito_catalog.shape.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
)

_GPT_NAMES = (
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("intermediate_size", "n_inner"),
    ("max_position_embeddings", "n_positions"),
)
_NO_BIAS = Family(qkv_bias=False, output_bias=False)


def _widened(read: Callable[[Source], Shape], factor: int = 4) -> Callable[[Source], Shape]:
    """Where no width of the feed-forward block is stated it is a multiple of the hidden one."""

    def widened(source: Source) -> Shape:
        text = source.text
        hidden = text.count("hidden_size", "n_embd", "d_model")
        names = ("intermediate_size", "n_inner", "ffn_hidden_size")
        if not any(n in text for n in names):
            source = replace(source, text=with_defaults(text, intermediate_size=factor * hidden))
        return read(source)

    return widened


def _with_types(text: Fields, names: tuple[str, ...], default: int) -> Fields:
    """`layer_types` of a pattern in which each n-th layer sees everything, where they are not listed."""
    count = num_layers(text)
    if layer_types(text, count) is not None:
        return text
    step = text.count(*names, default=default)
    types = ["full_attention" if (i + 1) % step == 0 else "sliding_attention" for i in range(count)]
    return with_defaults(text, layer_types=cast(Json, types))


def _cohere(source: Source) -> Shape:
    """Command R and Command A: attention and feed-forward side by side after one norm."""
    text = source.text
    head_dim = text.count("hidden_size") // text.count("num_attention_heads", most=2**16)
    text = Fields({**text.values, "head_dim": head_dim}, text.where)
    if source.architecture != "CohereForCausalLM":
        text = _with_types(with_defaults(text, sliding_window=4096), ("sliding_window_pattern",), 4)
    family = Family(
        tied=True, qkv_bias=False, output_bias=False, norms=1, flat_norms=text.flag("use_qk_norm")
    )
    shape = dense(family)(replace(source, text=text))
    return replace(shape, tie_word_embeddings=True)


def _exaone4(source: Source) -> Shape:
    text = source.text
    pattern = text.values.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern and layer_types(text, num_layers(text)) is None:
        types = [
            "sliding_attention" if pattern[i % len(pattern)] == "L" else "full_attention"
            for i in range(num_layers(text))
        ]
        types[-1] = "full_attention"
        text = with_defaults(text, layer_types=cast(Json, types))
    elif isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        text = _with_types(text, ("sliding_window_pattern",), 4)
    return dense(Family(head_norms=2))(replace(source, text=text))


def _olmo(source: Source) -> Shape:
    """OLMo: norms without parameters."""
    shape = dense(Family(norms=0))(source)
    return replace(shape, final_norm_elements=0)


def _olmo2(source: Source) -> Shape:
    """OLMo 2 and 3: queries and keys are normalised over all heads, and every rank has the whole norm."""
    text = source.text
    if source.architecture == "Olmo3ForCausalLM" and "sliding_window" in text:
        text = _with_types(text, ("sliding_window_pattern",), 4)
    shape = dense(_NO_BIAS)(replace(source, text=text))
    attention = read_attention(text, _NO_BIAS)
    more = text.count("hidden_size") + attention.num_key_value_heads * attention.head_dim
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _olmoe(source: Source) -> Shape:
    text = source.text
    attention = read_attention(text, _NO_BIAS)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(_NO_BIAS, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _gpt2(source: Source) -> Shape:
    """GPT-2: positions are learnt."""
    source = Family(names=_GPT_NAMES).of(source)
    text = source.text
    family = Family(tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = _widened(dense(family))(source)
    positions = text.count("max_position_embeddings") * text.count("hidden_size")
    return replace(shape, plain_elements=shape.plain_elements + positions, rope_elements=0)


def _falcon(source: Source) -> Shape:
    """Falcon: one or two norms before attention and feed-forward, which mostly run side by side."""
    text = with_defaults(source.text, bias=False)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", "n_head", most=2**16)
    is_new = text.flag("new_decoder_architecture")
    kv_heads = heads
    if is_new:
        kv_heads = text.count("num_kv_heads", "n_head_kv", default=heads, most=2**16)
    elif text.flag("multi_query", True):
        kv_heads = 1
    norms = 2
    if text.flag("parallel_attn", True):
        norms = text.count("num_ln_in_parallel_attn", default=2 if is_new else 1)
    biased = text.flag("bias")
    text = with_defaults(
        text,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=text.count("ffn_hidden_size", default=4 * hidden),
        max_position_embeddings=2048,
    )
    family = Family(
        tied=True,
        qkv_bias=biased,
        output_bias=biased,
        norms=norms,
        norm_parts=2,
        gated=False,
        mlp_bias=biased,
    )
    shape = dense(family)(replace(source, text=text))
    # falcon.py tells its attention nothing of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    shape = replace(shape, layers=layers)
    return replace(shape, rope_elements=0) if text.flag("alibi") else shape


def _bloom(source: Source) -> Shape:
    """BLOOM: no positions but in the attention's bias, and a norm after the embedding."""
    names = (
        ("hidden_size", "n_embed"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    )
    family = Family(
        tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True, names=names
    )
    # BloomConfig's seq_length, which its files may leave out.
    source = family.of(replace(source, text=with_defaults(source.text, seq_length=2048)))
    # Nothing but four times the hidden size is built, whatever else is stated.
    text = Fields(
        {**source.text.values, "intermediate_size": 4 * source.text.count("hidden_size")}, source.text.where
    )
    shape = dense(family)(replace(source, text=text))
    more = 2 * shape.hidden_size
    return replace(shape, plain_elements=shape.plain_elements + more, rope_elements=0)


def _gpt_j(source: Source) -> Shape:
    """GPT-J: attention without and feed-forward with biases side by side, a part of each head turned."""
    family = Family(
        qkv_bias=False,
        output_bias=False,
        norms=1,
        norm_parts=2,
        gated=False,
        mlp_bias=True,
        lm_head_bias=True,
    )
    source = Family(names=_GPT_NAMES).of(source)
    shape = _widened(dense(family))(source)
    text = source.text
    rotary = text.count("rotary_dim", default=64)
    return replace(shape, rope_elements=text.count("max_position_embeddings") * rotary)


def _mpt(source: Source) -> Shape:
    """MPT: no positions but in the attention's bias; mostly without any other."""
    text = source.text
    attention = text.section("attn_config") or Fields({})
    hidden = text.count("d_model")
    width = text.number("expansion_ratio") or 4.0
    if not 0 < width <= 64:
        raise UnreadableError(f"expansion_ratio is {width}", text.path("expansion_ratio"))
    names = (
        ("hidden_size", "d_model"),
        ("num_attention_heads", "n_heads"),
        ("num_hidden_layers", "n_layers"),
    )
    defaults: tuple[tuple[str, Json], ...] = (
        ("num_key_value_heads", attention.values.get("kv_n_heads")),
        ("intermediate_size", int(width * hidden)),
        ("max_seq_len", 2048),
    )
    biased = not text.flag("no_bias")
    family = Family(
        tied=True, qkv_bias=biased, output_bias=biased, norm_parts=2 if biased else 1, gated=False,
        mlp_bias=biased, names=names, defaults=defaults,
    )  # fmt: skip
    shape = dense(family)(source)
    if attention.flag("qk_ln"):
        more = 2 * family.norm_parts * hidden
        layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
        shape = replace(shape, layers=layers)
    return replace(shape, rope_elements=0)


def _gemma3n(source: Source) -> Shape:
    """Gemma 3n: several streams of hidden states, embeddings for each layer, a narrow block beside each."""
    text = with_defaults(
        source.text,
        # Gemma3nTextConfig's defaults (transformers).
        num_attention_heads=8, num_key_value_heads=2, head_dim=256, sliding_window=512, vocab_size=262_400,
        vocab_size_per_layer_input=262_144, hidden_size_per_layer_input=256, num_kv_shared_layers=15,
        laurel_rank=64, altup_num_inputs=4, max_position_embeddings=32_768,
    )  # fmt: skip
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(_with_types(text, ("sliding_window_pattern",), 5), count) or []
    widths = text.values.get("intermediate_size")
    listed = widths if isinstance(widths, list) else [widths] * count
    if len(listed) != count:
        raise UnreadableError(
            f"intermediate_size has {len(listed)} entries for {count} layers", text.path("intermediate_size")
        )
    streams = text.count("altup_num_inputs", most=64)
    per_layer = text.count("hidden_size_per_layer_input")
    attention = read_attention(text, Family(head_dim=256, head_norms=2))
    window = text.count("sliding_window")
    first_shared = count - text.count("num_kv_shared_layers", least=0, most=MOST_LAYERS)
    # Norms, and the scale of the corrected stream, which is in fp32.
    norms = 7 * hidden + 2 * hidden
    norms += streams**2 + streams**3 + streams * hidden + 2 * hidden * per_layer
    layers = []
    for i, kind in enumerate(types):
        mixer = replace(
            attention,
            sliding_window=window if kind == "sliding_attention" else None,
            shares_cache=i >= first_shared,
        )
        width = Fields({"intermediate_size": listed[i]}, text.where).count("intermediate_size")
        layers.append(Layer(mixer, Mlp(width), norms, beside=Mlp(text.count("laurel_rank"), gated=False)))
    vocabulary = -(-text.count("vocab_size_per_layer_input") // 64) * 64
    # One embedding for all layers and its projection, and what makes several streams of one and one of several.
    divided = (vocabulary + hidden) * per_layer * count + 2 * (streams - 1) * hidden**2
    tower = None
    if source.architecture.endswith("ConditionalGeneration"):
        tower = Tower("vision", 1, None, divided=False)
    shape = make_shape(
        replace(source, text=text), layers, tied=True, rope_dim=attention.head_dim, tower=tower,
        embedding_elements=divided, plain_elements=per_layer,
    )  # fmt: skip
    # Sliding layers have a table of their own.
    return replace(shape, rope_elements=2 * shape.rope_elements)


def _exaone_experts(text: Fields) -> Experts:
    width = text.count("moe_intermediate_size")
    shared = text.count("num_shared_experts", default=0, least=0, most=2**10)
    return read_experts(
        text, ("num_experts",), shared=Mlp(width * shared) if shared else None, correction_bias=True
    )


def _exaone_sparse(text: Fields, index: int) -> bool:
    listed = text.values.get("is_moe_layer")
    if isinstance(listed, list) and index < len(listed):
        return bool(listed[index])
    return index >= text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)


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
            mixer = read_attention(filled, Family())
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


def _shared(text: Fields) -> Mlp | None:
    width = text.optional("shared_intermediate_size")
    return Mlp(width) if width else None


def _granite_experts(text: Fields) -> Experts:
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
    block = _granite_experts(text) if text.optional("num_local_experts") else shared
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
    attention = read_attention(text, _NO_BIAS)
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
    attention = read_attention(text, _NO_BIAS)
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


def _dbrx(source: Source) -> Shape:
    text = source.text
    ffn, attention = text.section("ffn_config"), text.section("attn_config")
    if ffn is None or attention is None:
        raise UnreadableError("the configuration has no ffn_config or no attn_config", "ffn_config")
    names = (
        ("hidden_size", "d_model"),
        ("num_attention_heads", "n_heads"),
        ("num_hidden_layers", "n_layers"),
        ("max_position_embeddings", "max_seq_len"),
    )
    defaults: tuple[tuple[str, Json], ...] = (
        ("num_key_value_heads", attention.values.get("kv_n_heads")),
        ("num_experts", ffn.values.get("moe_num_experts")),
        ("num_experts_per_tok", ffn.values.get("moe_top_k")),
        ("intermediate_size", ffn.values.get("ffn_hidden_size")),
    )
    family = Family(qkv_bias=False, output_bias=False, names=names, defaults=defaults)
    read = mixture(family, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))
    return read(source)


def _hunyuan(source: Source) -> Shape:
    text = source.text
    names = (("head_dim", "attention_head_dim"),)
    norms = 2 if text.flag("use_qk_norm") else 0
    family = Family(head_norms=norms, names=names, tied=True)
    if source.architecture.startswith("HunYuanDense"):
        return dense(family)(source)

    def experts(text: Fields) -> Experts:
        width = text.values.get("moe_intermediate_size")
        active = text.values.get("moe_topk")
        if isinstance(width, list):
            if len(set(map(str, width))) != 1:
                raise UnreadableError("no plan for experts of several widths", "moe_intermediate_size")
            width = width[0]
        if isinstance(active, list):
            active = max((a for a in active if isinstance(a, int)), default=None)
        shared = text.values.get("num_shared_expert") if text.flag("use_mixed_mlp_moe") else None
        if isinstance(shared, list):
            shared = next(iter(shared), None)
        changes = {"num_experts_per_tok": active, "moe_intermediate_size": width}
        filled = Fields({**text.values, **{k: v for k, v in changes.items() if v is not None}}, text.where)
        extra = None
        if isinstance(shared, int) and shared > 0:
            extra = Mlp(text.count("intermediate_size") * shared)
        return read_experts(
            filled, ("num_experts",), ("moe_intermediate_size", "intermediate_size"), shared=extra
        )

    return mixture(family, experts)(source)


_PHI = Family(
    qkv_bias=True, output_bias=True, norms=1, norm_parts=2, gated=False, mlp_bias=True, lm_head_bias=True
)
_NEOX = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
_PHIMOE = Family(qkv_bias=True, output_bias=True, norm_parts=2, lm_head_bias=True)


def _phi(source: Source) -> Shape:
    """Phi 1 to 2: vLLM goes by n_inner, or four times the hidden size, whatever intermediate_size says."""
    text = source.text
    width = text.optional("n_inner") or 4 * text.count("hidden_size")
    text = Fields({**text.values, "intermediate_size": width}, text.where)
    return dense(_PHI)(replace(source, text=text))


def _stablelm(source: Source) -> Shape:
    return dense(Family(qkv_bias=source.text.flag("use_qkv_bias"), output_bias=False, norm_parts=2))(source)


def _ernie(source: Source) -> Shape:
    biased = source.text.flag("use_bias")
    return dense(Family(head_dim=128, tied=True, qkv_bias=biased, output_bias=biased, mlp_bias=biased))(
        source
    )


def _chatglm(source: Source) -> Shape:
    """ChatGLM 2 and 3 and GLM-4-9B in their own format."""
    text = source.text
    shared = text.count("multi_query_group_num", most=2**16) if text.flag("multi_query_attention") else None
    biased = text.flag("add_bias_linear")
    parts = 1 if text.flag("rmsnorm", True) else 2
    names = (("intermediate_size", "ffn_hidden_size"), ("vocab_size", "padded_vocab_size"))
    defaults: tuple[tuple[str, Json], ...] = (("num_key_value_heads", shared), ("seq_length", 2048))
    heads = text.count("num_attention_heads", most=2**16)
    family = Family(
        head_dim=text.count("hidden_size") // heads, qkv_bias=biased or text.flag("add_qkv_bias"),
        output_bias=biased, mlp_bias=biased, norm_parts=parts, names=names, defaults=defaults,
    )  # fmt: skip
    text = Fields({k: v for k, v in text.values.items() if k not in ("vocab_size", "head_dim")}, text.where)
    shape = dense(family)(replace(source, text=text))
    if not text.flag("post_layer_norm", True):
        shape = replace(shape, final_norm_elements=0)
    return shape


def _hyperclovax(source: Source) -> Shape:
    norms = 4 if source.text.flag("use_post_norm", True) else 2
    return dense(Family(norms=norms))(source)


def _plamo3(source: Source) -> Shape:
    """PLaMo 3: four norms; windows by pattern."""
    text = source.text
    if text.count("vocab_size") % 16:
        # vLLM adds rows up to the next multiple to the output embedding alone.
        raise UnreadableError("no plan for a vocabulary that is no multiple of 16", text.path("vocab_size"))
    count = num_layers(text)
    each = text.values.get("interleaved_sliding_window")
    if isinstance(each, list):
        if len(each) != count or not all(w is None or (type(w) is int and w > 0) for w in each):
            field = text.path("interleaved_sliding_window")
            raise UnreadableError(f"{field} is not a window or null for each layer", field)
        stated = {"sliding_attention" if w else "full_attention" for w in each}
        if len({w for w in each if w}) > 1 or not stated:
            field = text.path("interleaved_sliding_window")
            raise UnreadableError("no plan for windows of several lengths", field)
        types: list[Json] = ["sliding_attention" if w else "full_attention" for w in each]
        window = next((w for w in each if w), None)
        text = Fields({**text.values, "layer_types": types, "sliding_window": window}, text.where)
    return dense(Family(head_dim=128, head_norms=2, norms=4, qkv_bias=False, output_bias=False))(
        replace(source, text=text)
    )


def _telechat2(source: Source) -> Shape:
    """TeleChat 2: biases where attention and the block end, and nowhere else."""
    names = (
        *_GPT_NAMES[:3],
        ("intermediate_size", "ffn_hidden_size"),
        ("max_position_embeddings", "seq_length"),
    )
    read = dense(Family(qkv_bias=False, output_bias=True, names=names))
    shape = read(source)
    # The second matrix of the block alone has a bias.
    layers = tuple(replace(x, norm_elements=x.norm_elements + shape.hidden_size) for x in shape.layers)
    return replace(shape, layers=layers)


_LLAMA = dense(Family())

_EXAONE_MOE = mixture(Family(head_norms=2), _exaone_experts, is_sparse=_exaone_sparse)

READERS: dict[str, Callable[[Source], Shape]] = {
    "ApertusForCausalLM": dense(Family(gated=False, head_norms=2)),
    "ArceeForCausalLM": dense(Family(gated=False)),
    "ChatGLMForConditionalGeneration": _chatglm,
    "ChatGLMModel": _chatglm,
    "CohereForCausalLM": _cohere,
    "Cohere2ForCausalLM": _cohere,
    "CwmForCausalLM": _LLAMA,
    "BloomForCausalLM": _bloom,
    "DbrxForCausalLM": _dbrx,
    "DeciLMForCausalLM": _deci,
    "Ernie4_5ForCausalLM": _ernie,
    "Ernie4_5_MoeForCausalLM": mixture(Family(output_bias=False), _ernie_experts, is_sparse=_ernie_sparse),
    "ExaoneForCausalLM": _LLAMA,
    "Exaone4ForCausalLM": _exaone4,
    "ExaoneMoEForCausalLM": _EXAONE_MOE,
    "ExaoneMoeForCausalLM": _EXAONE_MOE,
    "FalconForCausalLM": _falcon,
    "FalconH1ForCausalLM": _falcon_h1,
    "FalconMambaForCausalLM": _mamba,
    "RWForCausalLM": _falcon,
    "GlmForCausalLM": dense(Family(head_dim=128, output_bias=False)),
    "Glm4ForCausalLM": dense(Family(head_dim=128, output_bias=False, norms=4)),
    "Glm4MoeLiteForCausalLM": read_deepseek,
    "Gemma3nForCausalLM": _gemma3n,
    "Gemma3nForConditionalGeneration": _gemma3n,
    "GPT2LMHeadModel": _gpt2,
    "GPTJForCausalLM": _gpt_j,
    "GPTNeoXForCausalLM": dense(_NEOX),
    "GraniteMoeForCausalLM": mixture(_NO_BIAS, _granite_experts),
    "GraniteMoeSharedForCausalLM": mixture(_NO_BIAS, _granite_experts),
    "GraniteMoeHybridForCausalLM": _granite_hybrid,
    "HunYuanDenseV1ForCausalLM": _hunyuan,
    "HunYuanMoEV1ForCausalLM": _hunyuan,
    "HyperCLOVAXForCausalLM": _hyperclovax,
    "InternLM2ForCausalLM": dense(_NO_BIAS),
    "IQuestCoderForCausalLM": _LLAMA,
    "Jais2ForCausalLM": dense(Family(norm_parts=2, gated=False)),
    "JambaForCausalLM": _jamba,
    "Lfm2ForCausalLM": _lfm2,
    "Lfm2MoeForCausalLM": _lfm2,
    "LLaMAForCausalLM": _LLAMA,
    "MambaForCausalLM": _mamba,
    "Mamba2ForCausalLM": _mamba2,
    "MiniCPMForCausalLM": dense(_NO_BIAS),
    "MPTForCausalLM": _mpt,
    "MptForCausalLM": _mpt,
    "NemotronForCausalLM": dense(Family(norm_parts=2, gated=False)),
    "OlmoForCausalLM": _olmo,
    "Olmo2ForCausalLM": _olmo2,
    "Olmo3ForCausalLM": _olmo2,
    "OlmoeForCausalLM": _olmoe,
    "OrionForCausalLM": dense(Family(qkv_bias=False, output_bias=False, norm_parts=2)),
    "PanguEmbeddedForCausalLM": _LLAMA,
    "PhiForCausalLM": _phi,
    "PhiMoEForCausalLM": mixture(
        _PHIMOE, lambda t: read_experts(t, ("num_local_experts",), ("intermediate_size",))
    ),
    "Plamo3ForCausalLM": _plamo3,
    "SmolLM3ForCausalLM": dense(Family(tied=True)),
    "SolarForCausalLM": _LLAMA,
    "StableLmForCausalLM": _stablelm,
    "StableLMEpochForCausalLM": _stablelm,
    "Starcoder2ForCausalLM": dense(
        Family(tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    ),
    "TeleChat2ForCausalLM": _telechat2,
    "TeleChatForCausalLM": _telechat2,
    "TeleChat3ForCausalLM": _LLAMA,
}
"""More architectures, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})
_NO_HEAD = frozenset({Place.EMBEDDING, Place.NORM})

ON_EVERY_STAGE = {
    "ChatGLMForConditionalGeneration": _ALL,
    "ChatGLMModel": _ALL,
    "CohereForCausalLM": _NO_HEAD,
    "Cohere2ForCausalLM": _NO_HEAD,
    "BloomForCausalLM": _ALL,
    "DbrxForCausalLM": _ALL,
    "FalconForCausalLM": _ALL,
    "FalconMambaForCausalLM": _ALL,
    "RWForCausalLM": _ALL,
    "GPT2LMHeadModel": _ALL,
    "GPTJForCausalLM": _ALL,
    "GPTNeoXForCausalLM": _ALL,
    "GraniteMoeForCausalLM": _ALL,
    "GraniteMoeSharedForCausalLM": _ALL,
    "GraniteMoeHybridForCausalLM": _ALL,
    "InternLM2ForCausalLM": _ALL,
    "JambaForCausalLM": _ALL,
    "Lfm2ForCausalLM": frozenset({Place.EMBEDDING}),
    "Lfm2MoeForCausalLM": frozenset({Place.EMBEDDING}),
    "MambaForCausalLM": _ALL,
    "Mamba2ForCausalLM": _ALL,
    "MiniCPMForCausalLM": _ALL,
    "MPTForCausalLM": _ALL,
    "MptForCausalLM": _ALL,
    "OlmoForCausalLM": _ALL,
    "Olmo2ForCausalLM": _ALL,
    "Olmo3ForCausalLM": _ALL,
    "OlmoeForCausalLM": _ALL,
    "OrionForCausalLM": _ALL,
    "Plamo3ForCausalLM": _ALL,
    "PhiForCausalLM": _ALL,
    "PhiMoEForCausalLM": _ALL,
    "StableLmForCausalLM": _ALL,
    "StableLMEpochForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

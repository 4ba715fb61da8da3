"""Decoders of attention and one feed-forward block a layer beside those of decoders.py, as vLLM 0.25.1 has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    Family,
    dense,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    read_latent,
    unweighed,
)
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Encoder,
    Json,
    Layer,
    Matrix,
    Mixer,
    Mlp,
    Place,
    Shape,
)

_GPT_NAMES = (
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("intermediate_size", "n_inner"),
    ("max_position_embeddings", "n_positions"),
)


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
    shape = dense(NO_BIAS)(replace(source, text=text))
    attention = read_attention(text, NO_BIAS)
    more = text.count("hidden_size") + attention.num_key_value_heads * attention.head_dim
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
    encoder = None
    if source.architecture.endswith("ConditionalGeneration"):
        encoder = Encoder("vision", 1, None, divided=False)
    shape = make_shape(
        replace(source, text=text), layers, tied=True, rope_dim=attention.head_dim, encoder=encoder,
        embedding_elements=divided, plain_elements=per_layer,
    )  # fmt: skip
    # Sliding layers have a table of their own.
    return replace(shape, rope_elements=2 * shape.rope_elements)


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


_PHI = Family(
    qkv_bias=True, output_bias=True, norms=1, norm_parts=2, gated=False, mlp_bias=True, lm_head_bias=True
)

_NEOX = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)


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


def _gpt_big_code(source: Source) -> Shape:
    """StarCoder, through vLLM's Transformers back end: it divides what it recognises, here little."""
    names = (
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("max_position_embeddings", "n_positions"),
    )
    source = Family(names=names).of(source)
    hidden = source.text.count("hidden_size")
    heads = source.text.count("num_attention_heads", most=2**16)
    text = with_defaults(
        source.text,
        intermediate_size=source.text.count("n_inner", default=4 * hidden),
        num_key_value_heads=1 if source.text.flag("multi_query", True) else heads,
    )
    family = Family(tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = dense(family)(replace(source, text=text))
    layers = tuple(_whole(layer) for layer in shape.layers)
    positions = text.count("max_position_embeddings", most=LONGEST_CONTEXT) * hidden
    return unweighed(replace(shape, layers=layers, rope_elements=0, position_elements=positions))


def _whole(layer: Layer) -> Layer:
    assert isinstance(layer.mixer, Attention)
    assert isinstance(layer.feed_forward, Mlp)
    return replace(
        layer,
        mixer=replace(layer.mixer, replicated=True),
        feed_forward=replace(layer.feed_forward, replicated=True),
    )


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
    attention = Attention(heads, heads, width, width, latent=latent)
    hidden = text.count("hidden_size")
    layers = [Layer(attention, Mlp(text.count("intermediate_size")), 2 * hidden)] * num_layers(text)
    # MiniCPM3Config ties, where config.json does not say otherwise.
    shape = make_shape(source, layers, tied=True, rope_dim=latent.qk_rope_head_dim)
    # vLLM does not name one of the matrices, which a list of names then leaves out.
    return unweighed(shape) if shape.quantization is not None and shape.quantization.only else shape


def _rnj1(source: Source) -> Shape:
    """Rnj-1: Gemma 3's layers, all of which see everything."""
    # Gemma3TextConfig's defaults (transformers).
    text = with_defaults(source.text, head_dim=256, sliding_window=4096)
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None or set(types) != {"full_attention"}:
        # vLLM's class knows chunks, which the configuration's class has no rope for.
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is not full_attention for each layer", field)
    # Where all layers are of one kind 0.25.1 gives them the window; later versions do not.
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    attention = read_attention(text, Family(head_dim=256, head_norms=2), sliding_window=window)
    layer = Layer(attention, Mlp(text.count("intermediate_size")), 4 * text.count("hidden_size"))
    return make_shape(replace(source, text=text), [layer] * count, tied=True, rope_dim=attention.head_dim)


def _vault_gemma(source: Source) -> Shape:
    """VaultGemma: Gemma 2 without the norms after attention and feed-forward."""
    # VaultGemmaConfig's defaults (transformers).
    text = with_defaults(source.text, num_key_value_heads=4, head_dim=256, sliding_window=4096)
    count = num_layers(text)
    if layer_types(text, count) is None:
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    return dense(Family(head_dim=256, tied=True))(replace(source, text=text))


def _loops(source: Source) -> Shape:
    """Ouro and IQuest's LoopCoder: the layers are run several times, and each time keeps its own cache."""
    text = source.text
    is_ouro = source.architecture.startswith("Ouro")
    name, default = ("total_ut_steps", 4) if is_ouro else ("loop_num", 2)
    times = text.count(name, default=default, most=64)
    attention = read_attention(text, NO_BIAS, query_gate=not is_ouro)
    # LoopCoder looks at a window when it comes again.
    window = None if is_ouro else text.count("loop_window_size", default=64, most=LONGEST_CONTEXT)
    again = replace(attention, sliding_window=window)
    hidden = text.count("hidden_size")
    mlp = Mlp(text.count("intermediate_size"))
    layer = Layer(attention, mlp, (4 if is_ouro else 2) * hidden, echoes=(again,) * (times - 1))
    # Ouro has a gate that would let it stop early.
    divided, plain = (hidden, 1) if is_ouro else (0, 0)
    shape = make_shape(
        source, [layer] * num_layers(text), tied=False, rope_dim=attention.head_dim, plain_elements=plain
    )
    return replace(shape, divided_elements=divided)


def _persimmon(source: Source) -> Shape:
    """Persimmon: biases everywhere, a norm for each head, and no KV heads of their own number."""
    text = Fields(
        {k: v for k, v in source.text.values.items() if k != "num_key_value_heads"}, source.text.where
    )
    norms = 4 if text.flag("qk_layernorm", True) else 0
    family = Family(
        qkv_bias=True, output_bias=True, head_norms=norms, norm_parts=2, gated=False, mlp_bias=True
    )
    return unweighed(dense(family)(replace(source, text=text)))


def _fuyu(source: Source) -> Shape:
    """Fuyu: Persimmon, and one matrix that makes a token of a patch."""
    shape = _persimmon(source)
    root = source.root
    pixels = root.count("patch_size", default=30, most=2**16) ** 2 * root.count("num_channels", default=3)
    heads = source.text.count("num_attention_heads", most=2**16)
    return replace(shape, encoder=Encoder("vision", heads, (Matrix(pixels, shape.hidden_size, "column"),)))


def _step1(source: Source) -> Shape:
    """Step 1: Llama's layers without positions but in the attention's bias."""
    names = (("num_key_value_heads", "num_attention_groups"),)
    text = with_defaults(source.text, num_attention_groups=1)
    shape = dense(Family(names=names, tied=True))(replace(source, text=text))
    return replace(shape, rope_elements=0)


READERS: dict[str, Callable[[Source], Shape]] = {
    "ApertusForCausalLM": dense(Family(gated=False, head_norms=2)),
    "ArceeForCausalLM": dense(Family(gated=False)),
    "ChatGLMForConditionalGeneration": _chatglm,
    "ChatGLMModel": _chatglm,
    "CohereForCausalLM": _cohere,
    "Cohere2ForCausalLM": _cohere,
    "CwmForCausalLM": _LLAMA,
    "BloomForCausalLM": _bloom,
    "DeciLMForCausalLM": _deci,
    "Ernie4_5ForCausalLM": _ernie,
    "ExaoneForCausalLM": _LLAMA,
    "Exaone4ForCausalLM": _exaone4,
    "FalconForCausalLM": _falcon,
    "RWForCausalLM": _falcon,
    "GlmForCausalLM": dense(Family(head_dim=128, output_bias=False)),
    "Glm4ForCausalLM": dense(Family(head_dim=128, output_bias=False, norms=4)),
    "Gemma3nForCausalLM": _gemma3n,
    "Gemma3nForConditionalGeneration": _gemma3n,
    "GPT2LMHeadModel": _gpt2,
    "GPTJForCausalLM": _gpt_j,
    "GPTNeoXForCausalLM": dense(_NEOX),
    "HyperCLOVAXForCausalLM": _hyperclovax,
    "InternLM2ForCausalLM": dense(NO_BIAS),
    "IQuestCoderForCausalLM": _LLAMA,
    "Jais2ForCausalLM": dense(Family(norm_parts=2, gated=False)),
    "LLaMAForCausalLM": _LLAMA,
    "MiniCPMForCausalLM": dense(NO_BIAS),
    "MPTForCausalLM": _mpt,
    "MptForCausalLM": _mpt,
    "NemotronForCausalLM": dense(Family(norm_parts=2, gated=False)),
    "OlmoForCausalLM": _olmo,
    "Olmo2ForCausalLM": _olmo2,
    "Olmo3ForCausalLM": _olmo2,
    "OrionForCausalLM": dense(Family(qkv_bias=False, output_bias=False, norm_parts=2)),
    "PanguEmbeddedForCausalLM": _LLAMA,
    "PhiForCausalLM": _phi,
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
    "FuyuForCausalLM": _fuyu,
    "IQuestLoopCoderForCausalLM": _loops,
    "OuroForCausalLM": _loops,
    "PersimmonForCausalLM": _persimmon,
    "GPTBigCodeForCausalLM": _gpt_big_code,
    "MiniCPM3ForCausalLM": _minicpm3,
    "Rnj1ForCausalLM": _rnj1,
    "Step1ForCausalLM": _step1,
    "TeleFLMForCausalLM": dense(Family()),
    "VaultGemmaForCausalLM": _vault_gemma,
}
"""Architectures, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})
_NO_HEAD = frozenset({Place.EMBEDDING, Place.NORM})

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "ChatGLMForConditionalGeneration": _ALL,
    "ChatGLMModel": _ALL,
    "CohereForCausalLM": _NO_HEAD,
    "Cohere2ForCausalLM": _NO_HEAD,
    "BloomForCausalLM": _ALL,
    "FalconForCausalLM": _ALL,
    "RWForCausalLM": _ALL,
    "GPT2LMHeadModel": _ALL,
    "GPTJForCausalLM": _ALL,
    "GPTNeoXForCausalLM": _ALL,
    "InternLM2ForCausalLM": _ALL,
    "MiniCPMForCausalLM": _ALL,
    "MPTForCausalLM": _ALL,
    "MptForCausalLM": _ALL,
    "OlmoForCausalLM": _ALL,
    "Olmo2ForCausalLM": _ALL,
    "Olmo3ForCausalLM": _ALL,
    "OrionForCausalLM": _ALL,
    "Plamo3ForCausalLM": _ALL,
    "PhiForCausalLM": _ALL,
    "StableLmForCausalLM": _ALL,
    "StableLMEpochForCausalLM": _ALL,
    "FuyuForCausalLM": _ALL | {Place.ENCODER},
    "PersimmonForCausalLM": _ALL,
    "MiniCPM3ForCausalLM": _ALL,
    "Rnj1ForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

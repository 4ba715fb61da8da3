"""Decoders with experts beside those of decoders.py, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.architectures.families.decoders import read_deepseek
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    Family,
    dense,
    flags,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
    read_latent,
    unweighed,
    windows,
)
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Experts,
    Json,
    KimiDelta,
    LatentAttention,
    Layer,
    Mlp,
    Place,
    Shape,
)


def _from(name: str, default: int = 0) -> Callable[[Fields, int], bool]:
    """Layers before the number in `name` are dense."""

    def is_sparse(text: Fields, index: int) -> bool:
        return index >= text.count(name, default=default, least=0, most=MOST_LAYERS)

    return is_sparse


def _shared(text: Fields, each: int, *, count: str = "num_shared_experts", bias: bool = False) -> Mlp | None:
    """Experts that see every token, which vLLM builds as one block."""
    number = text.count(count, default=0, least=0, most=2**10)
    return Mlp(each * number, bias=bias) if number else None


def _bailing(source: Source) -> Shape:
    """Ling and Ring, and Sarvam's: one matrix for queries, keys and values; a router in fp32 where it says so."""
    text = source.text
    biased = text.flag("use_bias")
    norms = (2 if text.flag("use_rmsnorm") else 4) if text.flag("use_qk_norm") else 0
    family = Family(
        qkv_bias=biased or text.flag("use_qkv_bias"),
        output_bias=biased,
        head_norms=norms,
        mlp_bias=biased,
    )

    def experts(text: Fields) -> Experts:
        each = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
        return read_experts(
            text,
            ("num_experts",),
            shared=_shared(text, each, bias=biased),
            correction_bias=text.flag("moe_router_enable_expert_bias"),
            router_bytes=4 if text.text("router_dtype") == "fp32" else 0,
        )

    if biased:
        text = with_defaults(text, mlp_bias=True)
    read = mixture(family, experts, is_sparse=_from("first_k_dense_replace"))
    return read(replace(source, text=text))


def _afmoe(source: Source) -> Shape:
    """Arcee's Trinity: a gate as wide as the heads, four norms, and a window on three layers of four."""
    # AfmoeConfig's defaults (vLLM).
    text = with_defaults(source.text, head_dim=128, num_dense_layers=1, num_shared_experts=2)
    count = num_layers(text)
    if layer_types(text, count) is None:
        raise UnreadableError(
            f"the configuration has no {text.path('layer_types')}", text.path("layer_types")
        )

    def experts(text: Fields) -> Experts:
        shared = _shared(text, text.count("moe_intermediate_size"))
        return read_experts(text, ("num_experts",), shared=shared, correction_bias=True, router_bytes=4)

    family = Family(qkv_bias=False, output_bias=False, head_norms=2, norms=4)
    read = mixture(family, experts, is_sparse=_from("num_dense_layers"))
    shape = read(replace(source, text=text))
    layers = tuple(_gated(layer, output_gate=True) for layer in shape.layers)
    return replace(shape, layers=layers, tie_word_embeddings=False)


def _gated(layer: Layer, *, output_gate: bool = False, head_gate: bool = False) -> Layer:
    assert isinstance(layer.mixer, Attention)
    return replace(layer, mixer=replace(layer.mixer, output_gate=output_gate, head_gate=head_gate))


def _step3p5(source: Source) -> Shape:
    """Step 3.5: layers with a window have heads of their own number; one gate a head."""
    text = source.text
    count = num_layers(text)
    # The checkpoint lists the layers for speculation too.
    kinds = text.texts("layer_types")
    if not kinds:
        kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    if len(kinds) < count:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    names = (("num_key_value_heads", "num_attention_groups"), ("num_experts_per_tok", "moe_top_k"))
    source = Family(names=names).of(source)
    text = source.text
    family = Family(qkv_bias=False, output_bias=False, head_norms=2)
    usual = read_attention(text, family, head_gate=text.flag("use_head_wise_attn_gate"))
    other, kind = usual, None
    settings = text.section("attention_other_setting")
    if settings is not None:
        kind = settings.text("attention_type")
        changed = {
            "num_attention_heads": settings.count("num_attention_heads", most=2**16),
            "num_key_value_heads": settings.count("num_attention_groups", most=2**16),
            "head_dim": settings.count("head_dim", most=2**16),
        }
        filled = Fields({**text.values, **changed}, text.where)
        other = read_attention(filled, family, head_gate=usual.head_gate)
    window = text.optional("sliding_window", most=LONGEST_CONTEXT)
    routed = read_experts(
        text,
        ("moe_num_experts",),
        shared=Mlp(text.count("share_expert_dim")),
        correction_bias=True,
        router_bytes=4,
    )
    dense, sparse = Mlp(text.count("intermediate_size")), listed_layers(text, "moe_layers_enum", count)
    hidden = text.count("hidden_size")
    layers = [
        Layer(
            replace(
                other if kinds[i] == kind else usual,
                sliding_window=window if kinds[i] == "sliding_attention" else None,
            ),
            routed if i in sparse else dense,
            2 * hidden,
        )
        for i in range(count)
    ]
    text = Fields({k: v for k, v in text.values.items() if k != "layer_types"}, text.where)
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=usual.head_dim)


def listed_layers(text: Fields, name: str, count: int) -> set[int]:
    """Layers that are named in one text, with commas; without it all but the first."""
    value = text.text(name)
    if value is None:
        return set(range(1, count))
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > MOST_LAYERS or not all(part.isascii() and part.isdigit() for part in parts):
        raise UnreadableError(f"{text.path(name)} is not a list of layers", text.path(name))
    return {int(part) for part in parts}


def _mimo_v2(source: Source) -> Shape:
    """MiMo V2: values narrower than keys; layers with a window have sinks and heads of their own number."""
    text = source.text
    count = num_layers(text)
    slides = flags(text, "hybrid_layer_pattern", count)
    sparse = flags(text, "moe_layer_freq", count)
    bias = text.flag("attention_bias")
    window = text.count("sliding_window_size", "sliding_window", most=LONGEST_CONTEXT)

    def attention(prefix: str) -> Attention:
        heads = text.count(f"{prefix}num_attention_heads", most=2**16)
        kv_heads = text.count(f"{prefix}num_key_value_heads", most=2**16)
        head_dim = text.count(f"{prefix}head_dim", most=2**16)
        if heads % kv_heads:
            field = text.path(f"{prefix}num_key_value_heads")
            raise UnreadableError(f"{heads} attention heads are not a multiple of {kv_heads} KV heads", field)
        values = text.count(f"{prefix}v_head_dim", default=head_dim, most=2**16)
        return Attention(heads, kv_heads, head_dim, values, qkv_bias=bias, cache_in_dtype=True)

    full = attention("")
    sliding = replace(
        attention("swa_"), sliding_window=window, sinks=text.flag("add_swa_attention_sink_bias")
    )
    # vLLM keeps the router and its bias in fp32 for this family.
    routed = read_experts(text, ("n_routed_experts",), correction_bias=True, router_bytes=4)
    dense = Mlp(text.count("intermediate_size"))
    hidden = text.count("hidden_size")
    layers = [
        Layer(sliding if slides[i] else full, routed if sparse[i] else dense, 2 * hidden)
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=full.head_dim)


def _hy_v3(source: Source) -> Shape:
    """Hunyuan 3."""
    text = source.text

    def experts(text: Fields) -> Experts:
        shared = _shared(text, text.count("expert_hidden_dim"))
        # The bias that balances the routing is in the model's dtype, unlike others'.
        count = text.count("num_experts", most=2**16)
        return read_experts(
            text,
            ("num_experts",),
            ("expert_hidden_dim",),
            shared=shared,
            router_bytes=4,
            extra_elements=count,
        )

    family = Family(qkv_bias=False, output_bias=False, head_norms=2 if text.flag("qk_norm") else 0)
    return mixture(family, experts, is_sparse=_from("first_k_dense_replace"))(source)


def _flex_olmo(source: Source) -> Shape:
    """FlexOlmo: OLMo's norms over all heads, which every rank has whole."""
    text = source.text
    family = Family(qkv_bias=False, output_bias=False)
    attention = read_attention(text, family)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(family, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _mellum(source: Source) -> Shape:
    """Mellum 2: Qwen3's layers, some with a window, some without experts."""
    text = source.text
    count = num_layers(text)
    kinds = text.texts("mlp_layer_types") or ["sparse"] * count
    if len(kinds) != count:
        field = text.path("mlp_layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    family = Family(output_bias=False, head_norms=2)
    return mixture(
        family,
        lambda t: read_experts(t, ("num_experts",), router_quantized=True),
        is_sparse=lambda _text, i: kinds[i] == "sparse",
    )(source)


def _cohere2_moe(source: Source) -> Shape:
    """Command A with experts: one norm a layer, the first layers dense."""
    text = source.text
    count = num_layers(text)
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    kinds = text.texts("mlp_layer_types") or ["dense" if i < first else "sparse" for i in range(count)]
    if len(kinds) != count:
        field = text.path("mlp_layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    attention = read_attention(text, Family(qkv_bias=False, output_bias=False))
    each = text.count("intermediate_size")
    routed = read_experts(
        text,
        ("num_experts",),
        ("intermediate_size",),
        shared=_shared(text, each),
    )
    dense = Mlp(text.count("prefix_dense_intermediate_size", default=each))
    hidden = text.count("hidden_size")
    layers = [
        Layer(replace(attention, sliding_window=window), routed if kind == "sparse" else dense, hidden)
        for window, kind in zip(windows(text, count), kinds, strict=True)
    ]
    return make_shape(source, layers, tied=True, rope_dim=attention.head_dim)


def _deepseek(source: Source) -> Shape:
    """The first DeepSeek with experts, before latents."""
    text = source.text
    shared = _shared(text, text.count("moe_intermediate_size"), count="n_shared_experts")
    step = text.count("moe_layer_freq", default=1)
    first = _from("first_k_dense_replace")
    return mixture(
        Family(qkv_bias=False, output_bias=False),
        lambda t: read_experts(t, ("n_routed_experts",), shared=shared),
        is_sparse=lambda t, i: first(t, i) and i % step == 0,
    )(source)


def _numbers(text: Fields, name: str) -> list[int] | None:
    """A list of whole numbers."""
    value = text.values.get(name)
    if value is None:
        return None
    numbers = (
        [n for n in value if isinstance(n, int) and not isinstance(n, bool)]
        if isinstance(value, list)
        else []
    )
    if not isinstance(value, list) or len(numbers) != len(value):
        raise UnreadableError(f"{text.path(name)} is not a list of whole numbers", text.path(name))
    return numbers


def kimi_linear(source: Source) -> Shape:
    """Kimi Linear: its own linear attention, and latents without positions now and then."""
    text = source.text
    count = num_layers(text)
    section = text.section("linear_attn_config")
    if section is None:
        field = text.path("linear_attn_config")
        raise UnreadableError(f"the configuration has no {field}", field)
    linear = _numbers(section, "kda_layers")
    if linear is None:
        field = section.path("kda_layers")
        raise UnreadableError(f"the configuration has no {field}", field)
    delta = KimiDelta(
        section.count("num_heads", most=2**16),
        section.count("head_dim", most=2**16),
        section.count("short_conv_kernel_size", most=2**10),
    )
    latent = read_latent(text)
    hidden = text.count("hidden_size")
    each = text.count("moe_intermediate_size")
    experts = text.count("num_experts", most=2**16)
    # What balances the routing is in the model's dtype.
    routed = read_experts(
        text,
        ("num_experts",),
        shared=_shared(text, each),
        extra_elements=experts,
        # From 0.32 on (vllm/models/kimi_k3).
        least_width=text.count("min_moe_intermediate_per_partition", default=256, least=0),
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size"))
    # The configuration counts layers from one.
    layers = [
        Layer(
            delta if i + 1 in linear else latent,
            routed if i >= first and i % step == 0 else dense,
            2 * hidden,
        )
        for i in range(count)
    ]
    text = with_defaults(text, max_position_embeddings=text.values.get("model_max_length"))
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=latent.qk_rope_head_dim)
    return replace(shape, rope_elements=0, tie_word_embeddings=False)


def _laguna(source: Source) -> Shape:
    """Laguna: a number of heads for each layer, gates, and a window on some layers."""
    # LagunaConfig's defaults (vLLM).
    text = with_defaults(source.text, head_dim=128, shared_expert_intermediate_size=512, mlp_only_layers=[0])
    count = num_layers(text)
    heads = _numbers(text, "num_attention_heads_per_layer")
    if heads is None:
        heads = [text.count("num_attention_heads", most=2**16)] * count
    if len(heads) != count:
        field = text.path("num_attention_heads_per_layer")
        raise UnreadableError(f"{field} has {len(heads)} entries for {count} layers", field)
    only_dense = _numbers(text, "mlp_only_layers") or []
    gating = text.values.get("gating", True)
    per_head = gating is True or gating == "per-head"
    family = Family(qkv_bias=text.flag("qkv_bias"), output_bias=text.flag("attention_bias"), head_norms=2)
    shared = text.count("shared_expert_intermediate_size", least=0)
    routed = read_experts(
        text, ("num_experts",), shared=Mlp(shared) if shared else None, correction_bias=True
    )
    dense, step = Mlp(text.count("intermediate_size")), text.count("decoder_sparse_step", default=1)
    hidden = text.count("hidden_size")
    layers = []
    kinds = layer_types(text, count) or ["full_attention"] * count
    window = text.optional("sliding_window", most=LONGEST_CONTEXT)
    for i in range(count):
        filled = Fields({**text.values, "num_attention_heads": heads[i]}, text.where)
        is_sliding = kinds[i] == "sliding_attention"
        attention = read_attention(
            filled,
            family,
            sliding_window=window if is_sliding else None,
            head_gate=bool(gating) and per_head,
            output_gate=bool(gating) and not per_head,
            sinks=is_sliding and text.flag("swa_attention_sink_enabled"),
        )
        sparse = i not in only_dense and (i + 1) % step == 0
        layers.append(Layer(attention, routed if sparse else dense, 2 * hidden))
    return make_shape(source, layers, tied=False, rope_dim=text.count("head_dim"))


def _with_latents(source: Source) -> Shape:
    """Sarvam's larger model and Pangu Ultra: latents, and experts after the first layers."""
    text = source.text
    count = num_layers(text)
    hidden = text.count("hidden_size")
    latent = read_latent(text)
    each = text.count("moe_shared_expert_intermediate_size", "moe_intermediate_size")
    is_sarvam = source.architecture.startswith("Sarvam")
    number = "num_shared_experts" if is_sarvam else "n_shared_experts"
    routed = read_experts(
        text,
        ("num_experts", "n_routed_experts"),
        shared=_shared(text, each, count=number),
        correction_bias=text.flag("moe_router_enable_expert_bias", True)
        if is_sarvam
        else text.flag("router_enable_expert_bias"),
        router_bytes=4 if is_sarvam and text.text("router_dtype") in (None, "fp32") else 0,
    )
    first = text.count("first_k_dense_replace", default=1, least=0, most=MOST_LAYERS)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size"))
    norms = 4 if text.flag("sandwich_norm") else 2
    layers = [
        Layer(latent, routed if i >= first and (i - first) % step == 0 else dense, norms * hidden)
        for i in range(count)
    ]
    return make_shape(source, layers, tied=False, rope_dim=latent.qk_rope_head_dim)


def _olmoe(source: Source) -> Shape:
    text = source.text
    attention = read_attention(text, NO_BIAS)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(NO_BIAS, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


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


def granite_shared(text: Fields) -> Mlp | None:
    width = text.optional("shared_intermediate_size")
    return Mlp(width) if width else None


def granite_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_local_experts",), ("intermediate_size",), shared=granite_shared(text))


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


_PHIMOE = Family(qkv_bias=True, output_bias=True, norm_parts=2, lm_head_bias=True)


_EXAONE_MOE = mixture(Family(head_norms=2), _exaone_experts, is_sparse=_exaone_sparse)


def _longcat(source: Source) -> Shape:
    """LongCat-Flash: two attentions and two dense blocks a layer, and experts some of which do nothing."""
    text = source.text
    if (text.text("router_dtype") or "float32") != "float32":
        field = text.path("router_dtype")
        raise UnreadableError(f"{field} is not float32", field)
    count = text.count("num_layers", most=MOST_LAYERS)
    hidden = text.count("hidden_size")
    latent = read_latent(text)
    mlp = Mlp(text.count("ffn_hidden_size", "intermediate_size"))
    idle = text.count("zero_expert_num", default=0, least=0, most=2**16)
    experts = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_topk")),
        ("n_routed_experts",),
        ("expert_ffn_hidden_size", "moe_intermediate_size"),
        correction_bias=True,
        router_bias=text.flag("router_bias"),
        router_bytes=4,
        # What the router and its balance have for experts that do nothing, in fp32 too.
        extra_elements=2 * idle * (hidden + 1 + (1 if text.flag("router_bias") else 0)),
        dense=mlp,
    )
    layer = Layer(latent, experts, 4 * hidden, beside=mlp, second=latent)
    filled = with_defaults(text, num_hidden_layers=count)
    return make_shape(
        replace(source, text=filled), [layer] * count, tied=False, rope_dim=latent.qk_rope_head_dim
    )


def _arctic(source: Source) -> Shape:
    """Snowflake Arctic: a dense block beside the experts, which expert parallelism leaves as they are."""
    text = source.text
    attention = read_attention(text, NO_BIAS)
    experts = read_experts(text, ("num_local_experts",), ("intermediate_size",), expert_parallel=False)
    step = text.count("moe_layer_frequency", default=2)
    hidden = text.count("hidden_size")
    dense_block = Mlp(text.count("intermediate_size"))
    sparse = Layer(attention, experts, 2 * hidden)
    if text.flag("use_residual", True):
        sparse = replace(sparse, beside=Mlp(hidden), norm_elements=3 * hidden)
    layers = [
        sparse if (i + 1) % step == 0 else Layer(attention, dense_block, 2 * hidden)
        for i in range(num_layers(text))
    ]
    return unweighed(make_shape(source, layers, tied=False, rope_dim=attention.head_dim))


def _pangu_sinks(source: Source) -> Shape:
    """openPangu's MoE with sinks: keys and values that are learnt and lie before every text."""
    text = source.text
    sinks = text.count("param_sink_number", default=0, least=0, most=2**16)
    if not sinks:
        field = text.path("param_sink_number")
        raise UnreadableError(f"no plan for this model without {field}", field)
    if "interleaved_sliding_window" in text:
        field = text.path("interleaved_sliding_window")
        raise UnreadableError("no plan for sinks before windows", field)
    heads = text.count("num_attention_heads", most=2**16)
    kv_heads = text.count("num_key_value_heads", default=heads, most=2**16)
    if heads % kv_heads:
        field = text.path("num_key_value_heads")
        raise UnreadableError(f"{heads} attention heads are not a multiple of {kv_heads} KV heads", field)
    bias = text.flag("attention_bias") or text.flag("bias")
    attention = Attention(
        heads,
        kv_heads,
        text.count("qk_nope_dim") + text.count("qk_rope_dim"),
        text.count("v_channels"),
        qkv_bias=text.flag("qkv_bias", bias),
        output_bias=bias,
        head_norms=1,
        repeats_kv_heads=False,
        unscaled=True,
        sink_tokens=sinks,
        sink_values=text.flag("param_sink_with_value"),
    )
    shared = text.count("n_shared_experts", default=0, least=0, most=2**10)
    width = text.count("moe_intermediate_size")
    routed = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=text.flag("router_enable_expert_bias"),
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    dense_block = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"))
    norms = (4 if text.flag("sandwich_norm") else 2) * text.count("hidden_size")
    layers = [Layer(attention, routed if i >= first else dense_block, norms) for i in range(num_layers(text))]
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


def _axk1(source: Source) -> Shape:
    """A.X K1: DeepSeek V3 with one more norm a layer."""
    text = source.text
    known = {"AXK1": "earlier", "axk1": "later"}.get(text.text("model_type") or "")
    if known is None:
        field = text.path("model_type")
        raise UnreadableError(f"{field} is neither AXK1 nor axk1", field)
    shape = read_deepseek(source)
    hidden = shape.hidden_size
    layers = tuple(
        replace(x, norm_elements=x.norm_elements + hidden, mixer=replace(x.mixer, known=known))
        if isinstance(x.mixer, LatentAttention)
        else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _param2(source: Source) -> Shape:
    """Param-2: the width of the shared experts is stated for all of them together, or for one."""
    text = source.text
    number = text.count("num_shared_experts", default=1, least=0, most=2**10)
    together = text.optional("moe_shared_expert_intermediate_size")
    width = together or text.count("moe_intermediate_size") * number
    routed = read_experts(
        text,
        ("num_experts",),
        shared=Mlp(width) if number else None,
        correction_bias=text.flag("moe_router_enable_expert_bias", True),
    )
    first = text.count("first_k_dense_replace", default=1, least=0, most=MOST_LAYERS)
    family = Family(
        qkv_bias=text.flag("use_qkv_bias"),
        output_bias=text.flag("use_bias"),
        head_norms=2 if text.flag("use_qk_norm") else 0,
    )
    shape = mixture(family, lambda _: routed, is_sparse=lambda _, i: i >= first)(source)
    layers = tuple(
        replace(x, mixer=replace(x.mixer, repeats_kv_heads=False)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


READERS: dict[str, Callable[[Source], Shape]] = {
    "AfmoeForCausalLM": _afmoe,
    "BailingMoeForCausalLM": _bailing,
    "BailingMoeV2ForCausalLM": _bailing,
    "Cohere2MoeForCausalLM": _cohere2_moe,
    "DeepseekForCausalLM": _deepseek,
    "FlexOlmoForCausalLM": _flex_olmo,
    "HYV3ForCausalLM": _hy_v3,
    "KimiLinearForCausalLM": kimi_linear,
    "LagunaForCausalLM": _laguna,
    "MellumForCausalLM": _mellum,
    "MiMoV2FlashForCausalLM": _mimo_v2,
    "MiMoV2ForCausalLM": _mimo_v2,
    "PanguUltraMoEForCausalLM": _with_latents,
    "SarvamMLAForCausalLM": _with_latents,
    "SarvamMoEForCausalLM": _bailing,
    "Step3p5ForCausalLM": _step3p5,
    "DbrxForCausalLM": _dbrx,
    "Ernie4_5_MoeForCausalLM": mixture(Family(output_bias=False), _ernie_experts, is_sparse=_ernie_sparse),
    "ExaoneMoEForCausalLM": _EXAONE_MOE,
    "ExaoneMoeForCausalLM": _EXAONE_MOE,
    "Glm4MoeLiteForCausalLM": read_deepseek,
    "GraniteMoeForCausalLM": mixture(NO_BIAS, granite_experts),
    "GraniteMoeSharedForCausalLM": mixture(NO_BIAS, granite_experts),
    "HunYuanDenseV1ForCausalLM": _hunyuan,
    "HunYuanMoEV1ForCausalLM": _hunyuan,
    "OlmoeForCausalLM": _olmoe,
    "PhiMoEForCausalLM": mixture(
        _PHIMOE, lambda t: read_experts(t, ("num_local_experts",), ("intermediate_size",))
    ),
    "ArcticForCausalLM": _arctic,
    "AXK1ForCausalLM": _axk1,
    "PanguProMoEV2ForCausalLM": _pangu_sinks,
    "Param2MoEForCausalLM": _param2,
    "LongcatFlashForCausalLM": _longcat,
}
"""More architectures with experts, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})

ON_EVERY_STAGE = {
    "Cohere2MoeForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "FlexOlmoForCausalLM": _ALL,
    "HYV3ForCausalLM": _ALL,
    "MellumForCausalLM": _ALL,
    "DbrxForCausalLM": _ALL,
    "GraniteMoeForCausalLM": _ALL,
    "GraniteMoeSharedForCausalLM": _ALL,
    "OlmoeForCausalLM": _ALL,
    "PhiMoEForCausalLM": _ALL,
    "ArcticForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

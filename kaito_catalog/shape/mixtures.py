"""Further decoders with experts, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Experts,
    KimiDelta,
    Layer,
    Mlp,
    Place,
    Shape,
)
from kaito_catalog.shape.parts import (
    Family,
    flags,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
    read_latent,
    windows,
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


def _kimi_linear(source: Source) -> Shape:
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


READERS: dict[str, Callable[[Source], Shape]] = {
    "AfmoeForCausalLM": _afmoe,
    "BailingMoeForCausalLM": _bailing,
    "BailingMoeV2ForCausalLM": _bailing,
    "Cohere2MoeForCausalLM": _cohere2_moe,
    "DeepseekForCausalLM": _deepseek,
    "FlexOlmoForCausalLM": _flex_olmo,
    "HYV3ForCausalLM": _hy_v3,
    "KimiLinearForCausalLM": _kimi_linear,
    "LagunaForCausalLM": _laguna,
    "MellumForCausalLM": _mellum,
    "MiMoV2FlashForCausalLM": _mimo_v2,
    "MiMoV2ForCausalLM": _mimo_v2,
    "PanguUltraMoEForCausalLM": _with_latents,
    "SarvamMLAForCausalLM": _with_latents,
    "SarvamMoEForCausalLM": _bailing,
    "Step3p5ForCausalLM": _step3p5,
}
"""More architectures with experts, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})

ON_EVERY_STAGE = {
    "Cohere2MoeForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "FlexOlmoForCausalLM": _ALL,
    "HYV3ForCausalLM": _ALL,
    "MellumForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

"""Decoders that few serve, some over an encoder of images, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd
from typing import cast

from kaito_catalog.shape import decoders
from kaito_catalog.shape.encoders import padded
from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.mixtures import listed_layers
from kaito_catalog.shape.model import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Experts,
    GatedDeltaNet,
    Json,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba2,
    Matrix,
    Mlp,
    Place,
    Shape,
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
    read_latent,
    unweighed,
)
from kaito_catalog.shape.towers import vision_section

_NO_BIAS = Family(qkv_bias=False, output_bias=False)


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
        mixer=replace(layer.mixer, whole=True),
        feed_forward=replace(layer.feed_forward, whole=True),
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
    attention = read_attention(text, _NO_BIAS)
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


def _vault_gemma(source: Source) -> Shape:
    """VaultGemma: Gemma 2 without the norms after attention and feed-forward."""
    # VaultGemmaConfig's defaults (transformers).
    text = with_defaults(source.text, num_key_value_heads=4, head_dim=256, sliding_window=4096)
    count = num_layers(text)
    if layer_types(text, count) is None:
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    return dense(Family(head_dim=256, tied=True))(replace(source, text=text))


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


def _step3(source: Source) -> Shape:
    """Step 3: queries from a narrow vector, one head of keys and values, which every rank has."""
    text = source.text
    # Step3TextConfig's defaults (vLLM).
    text = with_defaults(text, head_dim=256, max_seq_len=65_536)
    if text.count("num_attention_groups", default=1) != 1:
        field = text.path("num_attention_groups")
        raise UnreadableError(f"{field} is not 1, which vLLM's class wants", field)
    count = num_layers(text)
    head_dim = text.count("head_dim", most=2**16)
    heads = text.count("num_attention_heads", most=2**16)
    rank = text.count("share_q_dim", default=2048, least=0) or head_dim
    attention = Attention(heads, 1, head_dim, head_dim, query_rank=rank, unscaled=True)
    routed = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_top_k")),
        ("moe_num_experts",),
        shared=Mlp(text.count("share_expert_dim")),
    )
    dense_block, sparse = Mlp(text.count("intermediate_size")), listed_layers(text, "moe_layers_enum", count)
    hidden = text.count("hidden_size")
    layers = [Layer(attention, routed if i in sparse else dense_block, 2 * hidden) for i in range(count)]
    tower = _step3_tower(source, hidden) if source.architecture.startswith("Step3VL") else None
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=head_dim, tower=tower)


def _step3_tower(source: Source, hidden: int) -> Tower:
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Step3VisionEncoderConfig's defaults (vLLM).
    width = vision.count("hidden_size", default=1792)
    wide = vision.count("intermediate_size", default=3072)
    out = vision.count("output_hidden_size", default=4096)
    depth = vision.count("num_hidden_layers", default=63, most=MOST_LAYERS)
    side = vision.count("patch_size", default=14, most=2**16)
    patches = (vision.count("image_size", default=728, most=2**16) // side) ** 2
    plain = width + (vision.count("num_channels", default=3) * side**2 + 1) * width + (patches + 1) * width
    plain += depth * 4 * width
    # Two convolutions that make fewer patches of many.
    plain += (4 * width + 1) * out + (9 * out + 1) * 2 * out
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(2 * out, hidden, "none", bias=source.root.flag("projector_bias", True)),
    )
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    return Tower("vision", heads, matrices, plain)


def _pair(text: Fields, name: str) -> tuple[int, int]:
    """One number for texts and one for images."""
    values = text.values.get(name)
    if not isinstance(values, list) or len(values) != 2:
        raise UnreadableError(f"{text.path(name)} is not two numbers", text.path(name))
    both = [Fields({name: value}, text.where).count(name, least=0) for value in values]
    return both[0], both[1]


def _ernie_vl(source: Source) -> Shape:
    """Ernie 4.5 VL: experts for texts and others for images in the same layer, and one shared block."""
    text = source.root
    source = replace(source, text=text)
    count = num_layers(text)
    hidden = text.count("hidden_size")
    biased = text.flag("use_bias")
    attention = read_attention(text, Family(qkv_bias=biased, output_bias=False))
    numbers, widths = _pair(text, "moe_num_experts"), _pair(text, "moe_intermediate_size")
    if numbers[0] != numbers[1]:
        field = text.path("moe_num_experts")
        raise UnreadableError(f"{field} differ, which vLLM's class does not take", field)
    shared_count = text.count("moe_num_shared_experts", default=0, least=0, most=2**10)
    shared = Mlp(widths[0] * shared_count) if shared_count else None
    starts, ends = _pair(text, "moe_layer_start_index"), (count - 1, count - 1)
    if "moe_layer_end_index" in text:
        ends = _pair(text, "moe_layer_end_index")
    step = text.count("moe_layer_interval", default=1)

    def experts(which: int) -> Experts:
        values = {
            "num_experts": numbers[which],
            "moe_intermediate_size": widths[which],
            "num_experts_per_tok": text.values.get("moe_k"),
        }
        return read_experts(
            Fields(values, text.where), ("num_experts",), correction_bias=True, router_bytes=4
        )

    mlp = Mlp(text.count("intermediate_size"), bias=biased)
    of_text, of_images = replace(experts(0), shared=shared), experts(1)
    layers = []
    for i in range(count):
        is_sparse = (i + 1) % step == 0
        if is_sparse and all(s <= i <= e for s, e in zip(starts, ends, strict=True)):
            layers.append(Layer(attention, of_text, 2 * hidden, beside=of_images))
        elif is_sparse and min(starts) <= i <= max(ends):
            field = text.path("moe_layer_start_index")
            raise UnreadableError("no plan for layers with experts for texts or images alone", field)
        else:
            layers.append(Layer(attention, mlp, 2 * hidden))
    tower = _ernie_tower(source, hidden)
    # vLLM quantises the routers too, which are in fp32 where it does not.
    return unweighed(make_shape(source, layers, tied=True, rope_dim=attention.head_dim, tower=tower))


def _ernie_tower(source: Source, hidden: int) -> Tower:
    root = source.root
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    width = vision.count("embed_dim", "hidden_size")
    depth = vision.count("depth", most=MOST_LAYERS)
    ratio = vision.number("mlp_ratio")
    if ratio is None or not 0 < ratio <= 64:
        field = vision.path("mlp_ratio")
        raise UnreadableError(f"{field} is missing or absurd", field)
    wide = int(width * ratio)
    channels = vision.count("in_channels", "in_chans", default=3)
    plain = channels * vision.count("patch_size", most=2**16) ** 2 * width + depth * 4 * width + 2 * width
    merged = root.count("pixel_hidden_size") * root.count("spatial_conv_size", most=64) ** 2
    matrices = [
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(merged, merged, "column", count=2),
        Matrix(merged, hidden, "column"),
    ]
    plain += 2 * merged + hidden
    if root.flag("use_temporal_conv", True):
        long = merged * root.count("temporal_conv_size", most=64)
        matrices += [Matrix(long, merged, "column"), Matrix(merged, merged, "column")]
        plain += 2 * merged
    return Tower("vision", vision.count("num_heads", most=2**16), tuple(matrices), plain)


def _loops(source: Source) -> Shape:
    """Ouro and IQuest's LoopCoder: the layers are run several times, and each time keeps its own cache."""
    text = source.text
    is_ouro = source.architecture.startswith("Ouro")
    name, default = ("total_ut_steps", 4) if is_ouro else ("loop_num", 2)
    times = text.count(name, default=default, most=64)
    attention = read_attention(text, _NO_BIAS, query_gate=not is_ouro)
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


def _arctic(source: Source) -> Shape:
    """Snowflake Arctic: a dense block beside the experts, which expert parallelism leaves as they are."""
    text = source.text
    attention = read_attention(text, _NO_BIAS)
    experts = read_experts(text, ("num_local_experts",), ("intermediate_size",), dealt=False)
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
    return replace(shape, tower=Tower("vision", heads, (Matrix(pixels, shape.hidden_size, "column"),)))


def _aria(source: Source) -> Shape:
    """Aria: Llama's attention, experts with a shared block, and an encoder whose patches answer queries."""
    # AriaTextConfig's defaults (transformers).
    text = with_defaults(source.text, moe_num_experts=8, moe_topk=2, moe_num_shared_experts=2)
    biased = text.flag("mlp_bias")
    shared = text.count("moe_num_shared_experts", least=0, most=2**10)
    width = text.count("intermediate_size")
    experts = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_topk")),
        ("moe_num_experts",),
        ("intermediate_size",),
        shared=Mlp(width * shared, bias=biased) if shared else None,
    )
    attention = read_attention(text, Family())
    hidden = text.count("hidden_size")
    layers = [Layer(attention, experts, 2 * hidden)] * num_layers(text)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Idefics3VisionConfig's defaults (transformers).
    wide = vision.count("intermediate_size", default=3072)
    inner = vision.count("hidden_size", default=1152)
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    side = vision.count("patch_size", default=32, most=2**16)
    patches = (vision.count("image_size", default=224, most=2**16) // side) ** 2
    table = source.root.section("projector_patch_to_query_dict")
    # AriaConfig's default gives 256 queries at most.
    queries = max((table.count(name) for name in table.values), default=256) if table is not None else 256
    plain = (vision.count("num_channels", default=3) * side**2 + 1 + patches) * inner + depth * 4 * inner
    # The queries and their attention: every rank has it whole.
    plain += queries * inner + 8 * inner**2 + 11 * inner
    matrices = (
        Matrix(inner, 3 * inner, "column", count=depth),
        Matrix(inner, inner, "row", count=depth),
        Matrix(inner, wide, "column", count=depth),
        Matrix(wide, inner, "row", count=depth),
        Matrix(inner, hidden, "column", bias=False),
        Matrix(hidden, hidden, "row", bias=False),
    )
    tower = Tower("vision", vision.count("num_attention_heads", default=16, most=2**16), matrices, plain)
    filled = replace(source, text=text)
    return make_shape(filled, layers, tied=False, rope_dim=attention.head_dim, tower=tower)


def _molmo2(source: Source) -> Shape:
    """Molmo 2: a decoder of its own over an encoder whose layers are pooled by an attention."""
    # The text's defaults (vLLM's molmo2.py).
    text = with_defaults(source.text, head_dim=128, additional_vocab_size=128)
    norms = 2 if text.flag("use_qk_norm") else 0
    by_head = norms if text.text("qk_norm_type") == "qwen3" else 0
    family = Family(qkv_bias=text.flag("qkv_bias", True), output_bias=False, head_norms=by_head)
    attention = read_attention(text, family)
    hidden = text.count("hidden_size")
    whole = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    mlp = Mlp(text.count("intermediate_size"))
    layer = Layer(attention, mlp, 2 * hidden + (whole if norms and not by_head else 0))
    vocabulary = text.count("vocab_size")
    rows = padded(vocabulary + text.count("additional_vocab_size", least=0)) - padded(vocabulary)
    return make_shape(
        replace(source, text=text),
        [layer] * num_layers(text),
        tied=False,
        rope_dim=attention.head_dim,
        tower=_molmo2_tower(source, hidden),
        # Tokens that only the embedding has.
        embedding_elements=rows * hidden,
    )


def _molmo2_tower(source: Source, hidden: int) -> Tower:
    vision, adapter = source.root.section("vit_config"), source.root.section("adapter_config")
    if vision is None or adapter is None:
        raise UnreadableError("the configuration has no vit_config or no adapter_config", "vit_config")
    for part in (vision, adapter):
        if part.count("num_key_value_heads") != part.count("num_attention_heads"):
            field = part.path("num_key_value_heads")
            raise UnreadableError(f"no plan for an encoder with {field} of their own number", field)
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    taken = adapter.values.get("vit_layers")
    numbers = [n for n in taken if type(n) is int] if isinstance(taken, list) else []
    if not isinstance(taken, list) or len(numbers) != len(taken) or not numbers:
        raise UnreadableError(
            "adapter_config.vit_layers is not a list of layers", "adapter_config.vit_layers"
        )
    deepest = max(n + depth if n < 0 else n for n in numbers) + 1
    if not deepest > 0:
        raise UnreadableError("adapter_config.vit_layers leaves no layer", "adapter_config.vit_layers")
    depth = min(depth, deepest)
    width = vision.count("hidden_size")
    heads = vision.count("num_attention_heads", most=2**16)
    side = vision.count("image_patch_size", most=2**16)
    plain = vision.count("image_num_pos", most=LONGEST_CONTEXT) * width
    plain += (3 * side**2 + 1) * width + depth * 4 * width
    inner = adapter.count("num_attention_heads", most=2**16) * adapter.count("head_dim", most=2**16)
    out = adapter.count("hidden_size")
    wide = adapter.count("intermediate_size")
    pooled = width * len(numbers)
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, vision.count("intermediate_size"), "column", count=depth),
        Matrix(vision.count("intermediate_size"), width, "row", count=depth),
        Matrix(pooled, 3 * inner, "column"),
        Matrix(inner, out, "row"),
        Matrix(out, 2 * wide, "column", bias=False),
        Matrix(wide, hidden, "row", bias=False),
    )
    return Tower("vision", gcd(heads, adapter.count("num_attention_heads")), matrices, plain)


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


def _axk1(source: Source) -> Shape:
    """A.X K1: DeepSeek V3 with one more norm a layer."""
    text = source.text
    known = {"AXK1": "earlier", "axk1": "later"}.get(text.text("model_type") or "")
    if known is None:
        field = text.path("model_type")
        raise UnreadableError(f"{field} is neither AXK1 nor axk1", field)
    shape = decoders.read_deepseek(source)
    hidden = shape.hidden_size
    layers = tuple(
        replace(x, norm_elements=x.norm_elements + hidden, mixer=replace(x.mixer, known=known))
        if isinstance(x.mixer, LatentAttention)
        else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _step1(source: Source) -> Shape:
    """Step 1: Llama's layers without positions but in the attention's bias."""
    names = (("num_key_value_heads", "num_attention_groups"),)
    text = with_defaults(source.text, num_attention_groups=1)
    shape = dense(Family(names=names, tied=True))(replace(source, text=text))
    return replace(shape, rope_elements=0)


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
    "ArcticForCausalLM": _arctic,
    "AXK1ForCausalLM": _axk1,
    "AriaForConditionalGeneration": _aria,
    "FuyuForCausalLM": _fuyu,
    "IQuestLoopCoderForCausalLM": _loops,
    "Molmo2ForConditionalGeneration": _molmo2,
    "OuroForCausalLM": _loops,
    "PanguProMoEV2ForCausalLM": _pangu_sinks,
    "Param2MoEForCausalLM": _param2,
    "PersimmonForCausalLM": _persimmon,
    "Plamo2ForCausalLM": _plamo2,
    "Zamba2ForCausalLM": _zamba2,
    "GPTBigCodeForCausalLM": _gpt_big_code,
    "BailingMoeV2_5ForCausalLM": _ling_hybrid,
    "Ernie4_5_VLMoeForConditionalGeneration": _ernie_vl,
    "LongcatFlashForCausalLM": _longcat,
    "MiniCPM3ForCausalLM": _minicpm3,
    "OlmoHybridForCausalLM": _olmo_hybrid,
    "Rnj1ForCausalLM": _rnj1,
    "Step1ForCausalLM": _step1,
    "Step3TextForCausalLM": _step3,
    "Step3VLForConditionalGeneration": _step3,
    "TeleFLMForCausalLM": dense(Family()),
    "VaultGemmaForCausalLM": _vault_gemma,
}
"""Still more architectures, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "ArcticForCausalLM": _ALL,
    "Ernie4_5_VLMoeForConditionalGeneration": frozenset({Place.TOWER}),
    "FuyuForCausalLM": _ALL | {Place.TOWER},
    "Molmo2ForConditionalGeneration": _ALL | {Place.TOWER},
    "PersimmonForCausalLM": _ALL,
    "Plamo2ForCausalLM": _ALL,
    "MiniCPM3ForCausalLM": _ALL,
    "OlmoHybridForCausalLM": _ALL,
    "Rnj1ForCausalLM": _ALL,
    "Step3VLForConditionalGeneration": frozenset({Place.TOWER}),
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

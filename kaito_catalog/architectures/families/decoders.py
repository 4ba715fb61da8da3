"""The architectures a plan knows: what reads each of them into layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, cast

from kaito_catalog.architectures.encoders import (
    gemma3_encoder,
    gemma4_encoder,
    llama4_encoder,
    minimax_m3_encoder,
    moonvit_encoder,
    pixtral_encoder,
    qwen2_5_vl_encoder,
    qwen2_vl_encoder,
    qwen3_vl_encoder,
    vision_section,
)
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
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
)
from kaito_catalog.architectures.reading.quantization import experts_scheme
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    CompressedAttention,
    Encoder,
    Experts,
    FeedForward,
    GatedDeltaNet,
    Indexer,
    Json,
    Layer,
    Mamba2,
    Matrix,
    Mixer,
    Mlp,
    Place,
    Scheme,
    Shape,
)

# transformers 5: the configuration class's own defaults; vLLM 0.25.1: the module's constructor.
_LLAMA = Family()
_QWEN2 = Family(qkv_bias=True, output_bias=False)
_QWEN3 = Family(head_dim=128, head_norms=2)
_SEED_OSS = Family(head_dim=128, output_bias=False)
_PHI3 = Family(qkv_bias=False, output_bias=False)
_GEMMA = Family(head_dim=256, tied=True)
_GEMMA2 = Family(head_dim=256, tied=True, norms=4)
_GEMMA3 = Family(head_dim=256, tied=True, norms=4, head_norms=2)


def _gemma3(source: Source) -> Shape:
    # Gemma3TextConfig's defaults (transformers): what google/gemma-3-4b-it leaves out.
    text = with_defaults(
        source.text,
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=262_208, sliding_window=4096,
        max_position_embeddings=131_072,
    )  # fmt: skip
    count = num_layers(text)
    if layer_types(text, count) is None:
        pattern = text.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    encoder = gemma3_encoder if source.root.section("vision_config") else None
    shape = dense(_GEMMA3, encoder)(replace(source, text=text))
    if "rope_local_base_freq" in text or "rope_parameters" not in text:
        # Sliding layers have a table of their own, which is not scaled.
        local = text.count("max_position_embeddings", most=LONGEST_CONTEXT) * text.count("head_dim")
        shape = replace(shape, rope_elements=shape.rope_elements + local)
    return shape


def _gemma2(source: Source) -> Shape:
    text = source.text
    count = num_layers(text)
    if layer_types(text, count) is None:
        # Gemma2Config: every second layer slides, the first included.
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    return dense(_GEMMA2)(replace(source, text=with_defaults(text, sliding_window=4096)))


def _qwen_sparse(text: Fields, index: int) -> bool:
    only = text.values.get("mlp_only_layers") or []
    step = text.count("decoder_sparse_step", default=1)
    return not (isinstance(only, list) and index in only) and (index + 1) % step == 0


def _qwen3_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_experts",), router_quantized=True)


def _qwen2_experts(text: Fields) -> Experts:
    shared = text.optional("shared_expert_intermediate_size")
    return read_experts(
        text, ("num_experts",), shared=Mlp(shared) if shared else None, shared_gate=shared is not None
    )


def _mixtral_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_local_experts",), ("intermediate_size",))


def _glm4_moe(source: Source) -> Shape:
    """GLM-4.5 and 4.6: dense layers first, then experts with a router in fp32."""
    text = source.text
    hidden = text.count("hidden_size")
    norms = 2 if text.flag("use_qk_norm") else 0
    attention = read_attention(text, Family(head_dim=128, output_bias=False, head_norms=norms))
    width = text.count("moe_intermediate_size")
    shared = text.optional("n_shared_experts", most=2**10)
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=True,
        router_bytes=4,
    )
    first = text.count("first_k_dense_replace", default=0, least=0, most=MOST_LAYERS)
    dense = Mlp(text.count("intermediate_size")) if first else None
    layers = [Layer(attention, dense if i < first else experts, 2 * hidden) for i in range(num_layers(text))]
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim)


def _opt(source: Source) -> Shape:
    """OPT: learnt positions, biases everywhere."""
    text = source.text
    hidden = text.count("hidden_size")
    if text.count("word_embed_proj_dim", default=hidden) != hidden or not text.flag(
        "do_layer_norm_before", True
    ):
        raise UnreadableError(
            "no plan for OPT with projected embeddings or late norms", "word_embed_proj_dim"
        )
    attention = read_attention(text, Family(qkv_bias=True, output_bias=True))
    mlp = Mlp(text.count("ffn_dim"), gated=False, bias=True)
    layers = [Layer(attention, mlp, 4 * hidden)] * num_layers(text)
    positions = (text.count("max_position_embeddings", most=LONGEST_CONTEXT) + 2) * hidden
    shape = make_shape(
        source, layers, tied=True, rope_dim=1, final_norm_elements=2 * hidden, plain_elements=positions
    )
    return replace(shape, rope_elements=0)


def _gpt_oss(source: Source) -> Shape:
    # GptOssConfig's default: layers slide in turn, the first one included.
    text = with_defaults(source.text, head_dim=64, sliding_window=128)
    count = num_layers(text)
    experts = read_experts(
        text, ("num_local_experts", "num_experts"), ("intermediate_size",), bias=True, router_bias=True
    )
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    attention = read_attention(
        text, _LLAMA, qkv_bias=True, output_bias=True, sinks=True, repeats_kv_heads=False
    )
    layers = [
        # vLLM 0.25.1's gpt_oss.py goes by the layer's number, whatever layer_types says.
        Layer(
            replace(attention, sliding_window=None if i % 2 else window),
            experts,
            2 * text.count("hidden_size"),
        )
        for i in range(count)
    ]
    shape = make_shape(replace(source, text=text), layers, tied=False, rope_dim=attention.head_dim)
    return replace(shape, rope_elements=2 * shape.rope_elements)  # kept in fp32


def _minimax_m2(source: Source) -> Shape:
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_attention(text, _LLAMA, flat_norms=text.flag("use_qk_norm", True))
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
    attention = read_attention(text, Family(head_norms=2, qkv_bias=False, output_bias=False))
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
    encoder = minimax_m3_encoder(source) if source.architecture.endswith("ConditionalGeneration") else None
    rope = text.count("rotary_dim", default=attention.head_dim)
    shape = make_shape(source, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)
    return replace(shape, rope_elements=text.count("max_position_embeddings", most=LONGEST_CONTEXT) * rope)


def read_deepseek(source: Source) -> Shape:
    """DeepSeek V2, V3, V3.2, Kimi K2 and GLM-5: MLA, dense layers first, then experts."""
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_latent(text)
    count = num_layers(text)
    shared_count = text.optional("n_shared_experts", most=2**10)
    width = text.count("moe_intermediate_size")
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared_count) if shared_count else None,
        correction_bias=text.text("topk_method") == "noaux_tc",
        router_bytes=4
        if text.text("moe_router_dtype") == "float32"
        or source.root.text("model_type") in ("glm_moe_dsa", "glm4_moe_lite")
        else 0,
    )
    first = text.count("first_k_dense_replace", default=0, least=0)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size")) if first or step > 1 else None
    norms = 2 * hidden
    sparse = "index_topk" in text
    layers = []
    for i in range(count):
        mixer = attention
        if sparse:
            has_indexer = not _skips_indexer(text, i)
            indexer = (
                Indexer(text.count("index_n_heads"), text.count("index_head_dim")) if has_indexer else None
            )
            mixer = replace(attention, indexer=indexer, sparse=True)
        is_moe = i >= first and i % step == 0
        layers.append(Layer(mixer, experts if is_moe else dense, norms))
    encoder = moonvit_encoder(source) if source.architecture.startswith("Kimi") else None
    return make_shape(source, layers, tied=False, rope_dim=attention.qk_rope_head_dim, encoder=encoder)


def _deepseek_v4(source: Source) -> Shape:
    """DeepSeek V4 (vLLM 0.25.1, vllm/models/deepseek_v4): compressed attention and hyper-connections."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    ratios = text.values.get("compress_ratios")
    if (
        not isinstance(ratios, list)
        or len(ratios) < count
        or any(r not in (0, 4, 128) for r in ratios[:count])
    ):
        raise UnreadableError("compress_ratios is not a ratio of 0, 4 or 128 per layer", "compress_ratios")
    streams = text.count("hc_mult", most=64)
    mixes = streams * (streams + 2)
    hyper = 2 * (mixes * streams * hidden + mixes + 3)
    heads = text.count("num_attention_heads", most=2**16)
    indexer = Indexer(text.count("index_n_heads"), text.count("index_head_dim"))
    width = text.count("moe_intermediate_size")
    shared = text.count("n_shared_experts", default=1, most=2**10)
    scheme = Scheme.MXFP4_EXPERTS if text.text("expert_dtype") == "fp4" else None
    section = source.root.section("quantization_config")
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared),
        correction_bias=True,
        scheme=(experts_scheme(section) if section else None) or scheme,
    )
    table = text.count("vocab_size") * experts.num_experts_per_tok
    hashed = replace(experts, correction_bias=False, table_elements=table)
    hash_layers = text.count("num_hash_layers", default=0, least=0, most=MOST_LAYERS)
    layers = []
    for i, ratio in enumerate(ratios[:count]):
        mixer = CompressedAttention(
            heads,
            text.count("head_dim"),
            text.count("q_lora_rank"),
            text.count("o_lora_rank"),
            text.count("o_groups"),
            text.count("sliding_window", most=LONGEST_CONTEXT),
            cast(int, ratio),
            indexer if ratio == 4 else None,
            hyper,
        )
        if heads * mixer.head_dim % mixer.o_groups:
            raise UnreadableError(f"o_groups {mixer.o_groups} does not divide the heads", "o_groups")
        layers.append(Layer(mixer, hashed if i < hash_layers else experts, 2 * hidden))
    shape = make_shape(
        source,
        layers,
        tied=False,
        rope_dim=text.count("qk_rope_head_dim"),
        # The mix of the last hidden states is in fp32: twice the elements of a two-byte type.
        plain_elements=2 * (streams * streams * hidden + streams + 1),
    )
    how = shape.quantization
    if how is not None and how.scheme is Scheme.FP8_BLOCK:
        shape = replace(shape, quantization=replace(how, scale_bytes=1))
    tables = len({ratio == 0 for ratio in ratios[:count]})
    return replace(shape, rope_elements=2 * tables * shape.rope_elements)  # fp32


def _skips_indexer(text: Fields, index: int) -> bool:
    """Whether the layer takes an earlier layer's choice of tokens (vLLM 0.25.1, deepseek_v2.py)."""
    pattern = text.values.get("index_topk_pattern")
    if isinstance(pattern, str | list):
        return index < len(pattern) and pattern[index] == "S"
    frequency = text.count("index_topk_freq", default=1)
    offset = text.count("index_skip_topk_offset", default=2, least=0)
    return max(index - offset + 1, 0) % frequency != 0


def _qwen_hybrid(source: Source) -> Shape:
    """Qwen3-Next, Qwen3.5 and 3.6: three linear-attention layers, then one of full attention."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None:
        interval = text.count("full_attention_interval", default=4)
        if interval != 4:
            # transformers 5 fills layer_types in with every fourth layer, whatever this field says.
            field = text.path("full_attention_interval")
            raise UnreadableError(f"{field} is {interval} and there is no layer_types", field)
        types = ["full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(count)]
    attention = read_attention(
        text,
        Family(head_dim=256, head_norms=2, qkv_bias=text.flag("qkv_bias"), output_bias=False),
        output_gate=text.flag("attn_output_gate", True),
    )
    is_next = source.architecture.startswith("Qwen3Next")
    state = text.text("mamba_ssm_dtype")
    linear = GatedDeltaNet(
        text.count("linear_num_key_heads"),
        text.count("linear_num_value_heads"),
        text.count("linear_key_head_dim"),
        text.count("linear_value_head_dim"),
        text.count("linear_conv_kernel_dim", default=4),
        # vLLM takes Qwen3.5's mamba_ssm_dtype and leaves Qwen3-Next's state in the model's dtype.
        state_bytes=4 if state == "float32" and not is_next else 2,
        interleaved=is_next,
    )
    has_experts = any(n in text for n in ("num_experts",)) and text.values.get("num_experts") != 0
    feed_forward: FeedForward
    dense = Mlp(text.count("intermediate_size")) if not has_experts else None
    feed_forward = dense or _qwen2_experts(text)
    layers = []
    for i, kind in enumerate(types):
        if kind not in ("full_attention", "linear_attention"):
            raise UnreadableError(f"{text.path('layer_types')} has '{kind[:40]}'", text.path("layer_types"))
        block = feed_forward
        if has_experts and not _qwen_sparse(text, i):
            block = Mlp(text.count("intermediate_size"))
        layers.append(Layer(attention if kind == "full_attention" else linear, block, 2 * hidden))
    encoder = qwen3_vl_encoder(source)
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)


def _nemotron_h(source: Source) -> Shape:
    """Nemotron-H: each layer is one of Mamba 2, attention, dense or experts, as its pattern says."""
    text = source.text
    hidden = text.count("hidden_size")
    pattern = text.text("hybrid_override_pattern")
    blocks = text.texts("layers_block_type")
    letters = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}
    if pattern is None and blocks is not None:
        unknown = next((b for b in blocks if b not in letters), None)
        if unknown is not None:
            raise UnreadableError(f"layers_block_type has '{unknown[:40]}'", "layers_block_type")
        pattern = "".join(letters[b] for b in blocks)
    if not pattern or len(pattern) > MOST_LAYERS or set(pattern) - set("M*E-"):
        raise UnreadableError(
            "hybrid_override_pattern is not made of M, *, E and -", "hybrid_override_pattern"
        )
    attention = None
    if "*" in pattern:
        attention = read_attention(
            text, Family(qkv_bias=text.flag("attention_bias"), output_bias=text.flag("attention_bias"))
        )
    mamba = Mamba2(
        text.count("mamba_num_heads"),
        text.count("mamba_head_dim"),
        text.count("n_groups"),
        text.count("ssm_state_size"),
        text.count("conv_kernel", default=4),  # NemotronHConfig's
        # vLLM's NemotronHForCausalLMConfig takes float32 where the configuration says nothing.
        state_bytes=4 if text.text("mamba_ssm_cache_dtype") in (None, "float32") else 2,
        bias=text.flag("use_bias"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    experts: Experts | None = None
    if "E" in pattern:
        shared = text.optional("moe_shared_expert_intermediate_size")
        shared_count = text.count("n_shared_experts", default=1, least=0)
        experts = read_experts(
            text,
            ("n_routed_experts",),
            gated=False,
            bias=False,
            correction_bias=True,
            shared=Mlp(shared * shared_count, gated=False) if shared and shared_count else None,
            latent_size=text.optional("moe_latent_size"),
        )
    mixers: dict[str, tuple[Mixer | None, FeedForward | None]] = {
        "M": (mamba, None),
        "*": (attention, None),
        "E": (None, experts),
        "-": (None, None),
    }
    if "-" in pattern:
        mixers["-"] = (None, Mlp(text.count("intermediate_size"), gated=False, bias=text.flag("mlp_bias")))
    layers = [Layer(*mixers[letter], norm_elements=hidden) for letter in pattern]
    return make_shape(source, layers, tied=False, rope_dim=0)  # its attention has no rope


def _gemma4(source: Source) -> Shape:
    """Gemma 4: sliding layers with small heads, global ones with large; some read another layer's cache."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None or set(types) - {"sliding_attention", "full_attention"}:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is missing or names a kind nobody knows", field)
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    family = Family(head_dim=256, head_norms=2, tied=True)
    sliding = read_attention(text, family, sliding_window=window)
    head_dim = text.count("global_head_dim", default=sliding.head_dim)
    kv_heads = sliding.num_key_value_heads
    if text.flag("attention_k_eq_v"):
        kv_heads = text.count("num_global_key_value_heads", default=kv_heads, most=2**16)
    if sliding.num_attention_heads % kv_heads:
        field = text.path("num_global_key_value_heads")
        raise UnreadableError(f"attention heads are not a multiple of {kv_heads} KV heads", field)
    full = replace(
        sliding, sliding_window=None, head_dim=head_dim, v_head_dim=head_dim, num_key_value_heads=kv_heads
    )
    shared = text.count("num_kv_shared_layers", default=0, least=0, most=MOST_LAYERS)
    first_shared = count - shared if shared else count
    per_layer = text.optional("hidden_size_per_layer_input") or 0
    norms = 4 * hidden
    experts: Experts | None = None
    if text.flag("enable_moe_block"):
        experts = replace(
            Experts(
                text.count("num_experts", most=2**16),
                text.count("top_k_experts", most=2**16),
                text.count("moe_intermediate_size", "expert_intermediate_size"),
            ),
            # The router's scale, and one scale per expert.
            extra_elements=hidden + text.count("num_experts"),
        )
        norms += 3 * hidden
    if per_layer:
        norms += 2 * hidden * per_layer + hidden  # gate, projection and norm of the per-layer embedding
    width = text.count("intermediate_size")
    layers = []
    for i, kind in enumerate(types):
        is_shared = i >= first_shared > 0
        mixer = replace(sliding if kind == "sliding_attention" else full, shares_cache=is_shared)
        mlp = Mlp(width * (2 if is_shared and text.flag("use_double_wide_mlp") else 1))
        block: FeedForward = replace(experts, dense=mlp) if experts else mlp
        layers.append(Layer(mixer, block, norms))
    embedding = plain = 0
    if per_layer:
        vocabulary = -(-text.count("vocab_size_per_layer_input") // 64) * 64
        # One embedding for all layers and its projection, divided; one norm, not.
        embedding = (vocabulary + hidden) * per_layer * count
        plain = per_layer
    shape = make_shape(
        source,
        layers,
        tied=True,
        rope_dim=head_dim,
        encoder=gemma4_encoder(source),
        embedding_elements=embedding,
        plain_elements=plain,
    )
    # A table for each width of heads, all of it, although only a part is turned.
    length = text.count("max_position_embeddings", most=LONGEST_CONTEXT)
    return replace(shape, rope_elements=length * (sliding.head_dim + head_dim))


def _llama4(source: Source) -> Shape:
    """Llama 4: three layers of chunked attention, then one that sees all; experts, or in turn with dense."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    chunk = text.optional("attention_chunk_size", most=LONGEST_CONTEXT)
    attention = read_attention(text, _LLAMA)
    width = text.count("intermediate_size")
    step = text.count("interleave_moe_layer_step", default=1, least=0)
    experts = replace(read_experts(text, ("num_local_experts",), ("intermediate_size",)), shared=Mlp(width))
    dense = Mlp(text.count("intermediate_size_mlp", default=width))
    rope = text.values.get("no_rope_layers")
    # Llama4TextConfig: every fourth layer has no rope, and those see the whole context.
    interval = text.count("no_rope_layer_interval", default=4)
    layers = []
    for i in range(count):
        is_global = (i + 1) % interval == 0
        if isinstance(rope, list) and len(rope) == count:
            is_global = rope[i] == 0
        mixer = replace(attention, chunk=None if is_global else chunk)
        is_moe = step > 0 and (i + 1) % step == 0
        layers.append(Layer(mixer, experts if is_moe else dense, 2 * hidden))
    return make_shape(source, layers, tied=False, rope_dim=attention.head_dim, encoder=llama4_encoder(source))


def _pixtral(source: Source) -> Shape:
    """Mistral's own format with images: a decoder of its, and its encoder (vLLM 0.25.1, pixtral.py)."""
    inner = source.text.texts("architectures")
    vision = vision_section(source)
    if vision is None or not inner:
        return dense(_LLAMA, pixtral_encoder)(source)
    decoder = READERS[inner[0]](source)
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    hidden = source.text.count("hidden_size")
    bias = vision.flag("adapter_bias", True)
    matrices = [
        Matrix(width, 3 * width, "column", bias=False, count=depth),
        Matrix(width, width, "row", bias=False, count=depth),
        Matrix(width, 2 * wide, "column", bias=False, count=depth),
        Matrix(wide, width, "row", bias=False, count=depth),
        Matrix(width, hidden, "none", bias=bias),
        Matrix(hidden, hidden, "none", bias=bias),
    ]
    plain = vision.count("num_channels", default=3) * vision.count("patch_size") ** 2 * width
    plain += width + depth * 2 * width
    if vision.flag("add_pre_mm_projector_layer_norm"):
        plain += width
    if vision.text("mm_projector_id") == "patch_merge":
        merged = width * vision.count("spatial_merge_size", default=1) ** 2
        matrices.append(Matrix(merged, width, "none", bias=False))
    encoder = Encoder("vision", vision.count("num_attention_heads"), tuple(matrices), plain)
    return replace(decoder, architecture=source.architecture, encoder=encoder)


def _mistral3(source: Source) -> Shape:
    """Mistral Small 3 and its kin, dense; Mistral Small 4 has DeepSeek's latents and experts."""
    if "kv_lora_rank" not in source.text:
        return dense(_LLAMA, pixtral_encoder)(source)
    shape = read_deepseek(source)
    encoder = pixtral_encoder(source) if vision_section(source) else Encoder("vision", 1, None, divided=False)
    return replace(shape, encoder=encoder)


_Reader: TypeAlias = Callable[[Source], Shape]

READERS: dict[str, _Reader] = {
    "LlamaForCausalLM": dense(_LLAMA),
    "MistralForCausalLM": dense(_LLAMA),
    "GraniteForCausalLM": dense(_LLAMA),
    "MiMoForCausalLM": dense(_QWEN2),
    "Qwen2ForCausalLM": dense(_QWEN2),
    "Qwen3ForCausalLM": dense(_QWEN3),
    "Phi3ForCausalLM": dense(_PHI3),
    "GemmaForCausalLM": dense(_GEMMA),
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
    "Gemma3ForConditionalGeneration": _gemma3,
    "MixtralForCausalLM": mixture(_LLAMA, _mixtral_experts),
    "Qwen2MoeForCausalLM": mixture(_QWEN2, _qwen2_experts, is_sparse=_qwen_sparse),
    "Qwen3MoeForCausalLM": mixture(_QWEN3, _qwen3_experts, is_sparse=_qwen_sparse),
    "GptOssForCausalLM": _gpt_oss,
    "MiniMaxM2ForCausalLM": _minimax_m2,
    "MiniMaxM3SparseForCausalLM": _minimax_m3,
    "MiniMaxM3SparseForConditionalGeneration": _minimax_m3,
    "DeepseekV2ForCausalLM": read_deepseek,
    "DeepseekV3ForCausalLM": read_deepseek,
    "DeepseekV32ForCausalLM": read_deepseek,
    "DeepseekV4ForCausalLM": _deepseek_v4,
    "GlmMoeDsaForCausalLM": read_deepseek,
    "KimiK25ForConditionalGeneration": read_deepseek,
    "Qwen3NextForCausalLM": _qwen_hybrid,
    "Qwen3_5ForCausalLM": _qwen_hybrid,
    "Qwen3_5ForConditionalGeneration": _qwen_hybrid,
    "Qwen3_5MoeForCausalLM": _qwen_hybrid,
    "Qwen3_5MoeForConditionalGeneration": _qwen_hybrid,
    "NemotronHForCausalLM": _nemotron_h,
    "Ministral3ForCausalLM": dense(_LLAMA),
    "InternLM3ForCausalLM": dense(_LLAMA),
    "SeedOssForCausalLM": dense(_SEED_OSS),
    "Glm4MoeForCausalLM": _glm4_moe,
    "OPTForCausalLM": _opt,
    "KimiVLForConditionalGeneration": read_deepseek,
    "Qwen2VLForConditionalGeneration": dense(_QWEN2, qwen2_vl_encoder),
    "Gemma4ForCausalLM": _gemma4,
    "Gemma4ForConditionalGeneration": _gemma4,
    "Gemma4UnifiedForConditionalGeneration": _gemma4,
    "Llama4ForCausalLM": _llama4,
    "Llama4ForConditionalGeneration": _llama4,
    "MistralLarge3ForCausalLM": read_deepseek,
    "PixtralForConditionalGeneration": _pixtral,
    "Mistral3ForConditionalGeneration": _mistral3,
    "Qwen2_5_VLForConditionalGeneration": dense(_QWEN2, qwen2_5_vl_encoder),
    "Qwen3VLForConditionalGeneration": dense(_QWEN3, qwen3_vl_encoder),
    "Qwen3VLMoeForConditionalGeneration": mixture(
        _QWEN3, _qwen3_experts, is_sparse=_qwen_sparse, encoder=qwen3_vl_encoder
    ),
}
"""Every architecture a plan knows, by its name in config.json, and what reads it."""


ON_EVERY_STAGE = {
    "GptOssForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Qwen2MoeForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Qwen3MoeForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "MixtralForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Qwen3NextForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD}),
    "GemmaForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "Gemma2ForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "Gemma4ForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "Gemma4ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.NORM, Place.ENCODER}),
    "Gemma4UnifiedForConditionalGeneration": frozenset({Place.EMBEDDING, Place.NORM, Place.ENCODER}),
    "Llama4ForConditionalGeneration": frozenset({Place.ENCODER}),
    "MiniMaxM3SparseForConditionalGeneration": frozenset({Place.ENCODER}),
    "Mistral3ForConditionalGeneration": frozenset({Place.ENCODER}),
    "PixtralForConditionalGeneration": frozenset({Place.ENCODER}),
    "Qwen3VLForConditionalGeneration": frozenset({Place.ENCODER}),
    "Qwen3VLMoeForConditionalGeneration": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM, Place.ENCODER}),
    "KimiK25ForConditionalGeneration": frozenset({Place.ENCODER}),
    "KimiVLForConditionalGeneration": frozenset({Place.ENCODER}),
    "OPTForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "Qwen2VLForConditionalGeneration": frozenset({Place.ENCODER}),
    "Qwen2_5_VLForConditionalGeneration": frozenset({Place.ENCODER}),
    "NemotronHForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Gemma3ForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Gemma3ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM, Place.ENCODER}),
    "Qwen3_5ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.ENCODER}),
    "Qwen3_5MoeForConditionalGeneration": frozenset({Place.EMBEDDING, Place.ENCODER}),
}
"""Classes of vLLM 0.25.1 that do not ask which stage they are on before they build these parts."""

"""Decoders of no larger family."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, built_once, expanded, in_experts, in_layers, since
from kaito_catalog.architectures.families.deepseek import read_deepseek
from kaito_catalog.architectures.mixers import Attention, Gate, LatentAttention
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    NO_BIAS,
    DecoderDefaults,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
    read_latent,
    unweighed,
    whole_numbers,
)
from kaito_catalog.architectures.reading.record import ENDS, NO_HEAD, Architecture, Source
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Layer, Mlp, Shape

_SEED_OSS = DecoderDefaults(head_dim=128, output_bias=False)


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
    attention = read_attention(text, DecoderDefaults(qkv_bias=True, output_bias=True))
    mlp = Mlp(text.count("ffn_dim"), gated=False, bias=True)
    layers = [Layer(attention, mlp, 4 * hidden)] * num_layers(text)
    positions = (text.count("max_position_embeddings", most=LONGEST_CONTEXT) + 2) * hidden
    shape = make_shape(
        source, layers, tied=True, rope_dim=1, final_norm_elements=2 * hidden, plain_elements=positions
    )
    return replace(shape, rope_elements=0)


def _bloom(source: Source) -> Shape:
    """BLOOM: no positions but in the attention's bias, and a norm after the embedding."""
    names = (
        ("hidden_size", "n_embed"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    )
    family = DecoderDefaults(
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


def _loops(source: Source) -> Shape:
    """Ouro and IQuest's LoopCoder: the layers are run several times, and each time keeps its own cache."""
    text = source.text
    is_ouro = source.architecture.startswith("Ouro")
    name, default = ("total_ut_steps", 4) if is_ouro else ("loop_num", 2)
    times = text.count(name, default=default, most=64)
    attention = read_attention(text, NO_BIAS, gate=None if is_ouro else Gate.QUERY)
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


def _mellum(source: Source) -> Shape:
    """Mellum 2: Qwen3's layers, some with a window, some without experts."""
    text = source.text
    count = num_layers(text)
    kinds = text.texts("mlp_layer_types") or ["sparse"] * count
    if len(kinds) != count:
        field = text.path("mlp_layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    family = DecoderDefaults(output_bias=False, head_norms=2)
    return mixture(
        family,
        lambda t: read_experts(t, ("num_experts",), router_quantized=True),
        is_sparse=lambda _text, i: kinds[i] == "sparse",
    )(source)


def _laguna(source: Source) -> Shape:
    """Laguna: a number of heads for each layer, gates, and a window on some layers."""
    # LagunaConfig's defaults (vLLM).
    text = with_defaults(source.text, head_dim=128, shared_expert_intermediate_size=512, mlp_only_layers=[0])
    count = num_layers(text)
    heads = whole_numbers(text, "num_attention_heads_per_layer")
    if heads is None:
        heads = [text.count("num_attention_heads", most=2**16)] * count
    if len(heads) != count:
        field = text.path("num_attention_heads_per_layer")
        raise UnreadableError(f"{field} has {len(heads)} entries for {count} layers", field)
    only_dense = whole_numbers(text, "mlp_only_layers") or []
    gating = text.values.get("gating", True)
    per_head = gating is True or gating == "per-head"
    gate = (Gate.HEAD if per_head else Gate.OUTPUT) if gating else None
    family = DecoderDefaults(
        qkv_bias=text.flag("qkv_bias"), output_bias=text.flag("attention_bias"), head_norms=2
    )
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
            gate=gate,
            sinks=is_sliding and text.flag("swa_attention_sink_enabled"),
        )
        sparse = i not in only_dense and (i + 1) % step == 0
        layers.append(Layer(attention, routed if sparse else dense, 2 * hidden))
    return make_shape(source, layers, tied=False, rope_dim=text.count("head_dim"))


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


def _axk1(source: Source) -> Shape:
    """A.X K1: DeepSeek V3 with one more norm a layer; 0.25.1 keeps latents of one spelling of its type alone."""
    text = source.text
    kind = text.text("model_type")
    if kind not in ("AXK1", "axk1"):
        field = text.path("model_type")
        raise UnreadableError(f"{field} is neither AXK1 nor axk1", field)
    shape = read_deepseek(source)
    hidden = shape.hidden_size
    layers = tuple(
        replace(x, norm_elements=x.norm_elements + hidden) if isinstance(x.mixer, LatentAttention) else x
        for x in shape.layers
    )
    if kind == "axk1":
        layers = tuple(expanded(x) for x in layers)
    return replace(shape, layers=layers)


def _other_spelling(layer: Layer) -> Layer:
    """Later versions know the other spelling: where there were latents there are keys and values, and vice versa."""
    mixer = layer.mixer
    if isinstance(mixer, Attention) and isinstance(mixer.projections, LatentAttention):
        return replace(layer, mixer=mixer.projections)
    return expanded(layer)


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
    family = DecoderDefaults(
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


def _hrm_text(source: Source) -> Shape:
    """HRM-Text: two stacks, of which each run keeps its own cache; norms without parameters, and one vector beside."""
    # HrmTextConfig's defaults (transformers), which counts each run as a layer where it has written the file.
    text = with_defaults(source.text, H_cycles=2, L_cycles=3, head_dim=128)
    depth = text.count("num_layers_per_stack", "num_hidden_layers", most=MOST_LAYERS)
    high, low = text.count("H_cycles", most=64), text.count("L_cycles", most=64)
    heads = text.count("num_attention_heads", most=2**16)
    text = Fields({**text.values, "num_key_value_heads": heads}, text.where)
    attention = read_attention(text, DecoderDefaults(), gate=Gate.OUTPUT)
    mlp = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"))
    layers = [
        Layer(attention, mlp, 0, echoes=(attention,) * (runs - 1))
        for runs in (high * low, high)
        for _ in range(depth)
    ]
    return make_shape(
        source=replace(source, text=text),
        layers=layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=0,
        plain_elements=text.count("hidden_size"),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "ApertusForCausalLM": Architecture(dense(DecoderDefaults(gated=False, head_norms=2))),
    "ArcticForCausalLM": Architecture(_arctic, on_every_stage=ENDS),
    "AXK1ForCausalLM": Architecture(_axk1, changes=since(V0_32_0, in_layers(_other_spelling))),
    "BloomForCausalLM": Architecture(_bloom, on_every_stage=ENDS),
    "HrmTextForCausalLM": Architecture(_hrm_text),
    "IQuestCoderForCausalLM": Architecture(dense(DecoderDefaults())),
    "IQuestLoopCoderForCausalLM": Architecture(_loops),
    "OuroForCausalLM": Architecture(_loops),
    "Jais2ForCausalLM": Architecture(dense(DecoderDefaults(norm_parts=2, gated=False))),
    "LagunaForCausalLM": Architecture(_laguna),
    "LongcatFlashForCausalLM": Architecture(_longcat),
    "MellumForCausalLM": Architecture(_mellum, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "OPTForCausalLM": Architecture(_opt, on_every_stage=NO_HEAD),
    "OrionForCausalLM": Architecture(
        dense(DecoderDefaults(qkv_bias=False, output_bias=False, norm_parts=2)), on_every_stage=ENDS
    ),
    "Param2MoEForCausalLM": Architecture(_param2, changes=since(V0_32_0, in_experts(router_bytes=4))),
    "SeedOssForCausalLM": Architecture(dense(_SEED_OSS)),
    "SolarForCausalLM": Architecture(dense(DecoderDefaults())),
}
"""By their name in config.json."""

"""Decoders, rankers and encoders that few serve, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape import decoders, further
from kaito_catalog.shape.encoders import looking_both_ways, pooling
from kaito_catalog.shape.fields import Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import (
    LONGEST_CONTEXT,
    Attention,
    GatedDeltaNet,
    Json,
    Layer,
    Mlp,
    Place,
    Shape,
)
from kaito_catalog.shape.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    read_latent,
)

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
    return replace(shape, layers=layers, rope_elements=0, position_elements=positions)


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
    return make_shape(source, layers, tied=True, rope_dim=latent.qk_rope_head_dim)


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


def _rewarding(read: Callable[[Source], Shape], outputs: int | None) -> Callable[[Source], Shape]:
    """A decoder whose head, in fp32, says what a text is worth: a matrix, or two with so many outputs."""

    def rewarding(source: Source) -> Shape:
        shape = replace(pooling(read)(source), has_head=False)
        hidden = shape.hidden_size
        if outputs is None:
            return replace(shape, divided_elements=2 * hidden)
        divided = hidden * (hidden + 1) + outputs * hidden
        return replace(shape, divided_elements=2 * divided, plain_elements=shape.plain_elements + 2 * outputs)

    return rewarding


def _both_ways(read: Callable[[Source], Shape]) -> Callable[[Source], Shape]:
    def reading(source: Source) -> Shape:
        return replace(looking_both_ways(read(source)), has_head=False)

    return reading


READERS: dict[str, Callable[[Source], Shape]] = {
    "GPTBigCodeForCausalLM": _gpt_big_code,
    "MiniCPM3ForCausalLM": _minicpm3,
    "OlmoHybridForCausalLM": _olmo_hybrid,
    "Rnj1ForCausalLM": _rnj1,
    "TeleFLMForCausalLM": dense(Family()),
    "VaultGemmaForCausalLM": _vault_gemma,
}
"""Still more architectures, by their name in config.json."""

_LLAMA = further.READERS["LLaMAForCausalLM"]
_QWEN2 = decoders.READERS["Qwen2ForCausalLM"]

RANKERS: dict[str, Callable[[Source], Shape]] = {
    "GPT2ForSequenceClassification": pooling(further.READERS["GPT2LMHeadModel"], scored=True),
    "InternLM2ForRewardModel": _rewarding(further.READERS["InternLM2ForCausalLM"], None),
    "LlamaBidirectionalForSequenceClassification": _both_ways(pooling(_LLAMA, scored=True)),
    "LlamaBidirectionalModel": _both_ways(pooling(_LLAMA)),
    "Qwen2ForProcessRewardModel": _rewarding(_QWEN2, 2),
    "Qwen2ForRewardModel": _rewarding(_QWEN2, 1),
}
"""Models that give scores or embeddings, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "MiniCPM3ForCausalLM": _ALL,
    "InternLM2ForRewardModel": _ALL,
    "OlmoHybridForCausalLM": _ALL,
    "Rnj1ForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

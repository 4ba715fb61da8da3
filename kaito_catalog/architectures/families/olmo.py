"""Ai2's OLMo and Molmo."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from kaito_catalog.architectures.changes import V0_32_0, built_once, since
from kaito_catalog.architectures.mixers import GatedDeltaNet
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
    unweighed,
    with_types,
)
from kaito_catalog.architectures.reading.pooling import padded
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import encoder_layers
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _olmo(source: Source) -> Shape:
    """OLMo: norms without parameters."""
    shape = dense(DecoderDefaults(norms=0))(source)
    return replace(shape, final_norm_elements=0)


def _olmo2(source: Source) -> Shape:
    """OLMo 2 and 3: queries and keys are normalised over all heads, and every rank has the whole norm."""
    text = source.text
    if source.architecture == "Olmo3ForCausalLM" and "sliding_window" in text:
        text = with_types(text, ("sliding_window_pattern",), 4)
    shape = dense(NO_BIAS)(replace(source, text=text))
    attention = read_attention(text, NO_BIAS)
    more = text.count("hidden_size") + attention.num_key_value_heads * attention.head_dim
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _flex_olmo(source: Source) -> Shape:
    """FlexOlmo: OLMo's norms over all heads, which every rank has whole."""
    text = source.text
    family = DecoderDefaults(qkv_bias=False, output_bias=False)
    attention = read_attention(text, family)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(family, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _olmoe(source: Source) -> Shape:
    text = source.text
    attention = read_attention(text, NO_BIAS)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(NO_BIAS, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


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


def _molmo2(source: Source) -> Shape:
    """Molmo 2: a decoder of its own over an encoder whose layers are pooled by an attention."""
    # The text's defaults (vLLM's molmo2.py).
    text = with_defaults(source.text, head_dim=128, additional_vocab_size=128)
    norms = 2 if text.flag("use_qk_norm") else 0
    by_head = norms if text.text("qk_norm_type") == "qwen3" else 0
    family = DecoderDefaults(qkv_bias=text.flag("qkv_bias", True), output_bias=False, head_norms=by_head)
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
        encoder=_molmo2_encoder(source, hidden),
        # Tokens that only the embedding has.
        embedding_elements=rows * hidden,
    )


def _molmo2_encoder(source: Source, hidden: int) -> Encoder:
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
    divided = gcd(heads, adapter.count("num_attention_heads"))
    return Encoder("vision", divided, matrices, plain, quantized=True)


MOLMO_WORDS = 128
"""Tokens that only Molmo's embedding has."""


_MOLMO_WIDTH, _MOLMO_WIDE, _MOLMO_DEPTH, _MOLMO_PLACES, _MOLMO_TAKEN = 1024, 4096, 23, 577, 2
"""Molmo's encoder, which no configuration describes: CLIP's at 336 pixels; two of its layers are taken."""


def _molmo(source: Source) -> Shape:
    """Molmo: a decoder of its own, and CLIP's layers pooled by an attention."""
    text = source.text
    hidden = text.count("hidden_size")
    text = with_defaults(text, num_key_value_heads=text.values.get("num_attention_heads"))
    rows = text.optional("embedding_size") or text.count("vocab_size")
    text = Fields({**text.values, "vocab_size": rows}, text.where)
    attention = read_attention(text, DecoderDefaults(qkv_bias=text.flag("qkv_bias"), output_bias=False))
    norms = 2 * hidden
    if text.flag("attention_layer_norm"):
        norms += hidden + attention.num_key_value_heads * attention.head_dim
    half = text.count("intermediate_size", least=2) // 2
    layers = [Layer(attention, Mlp(half), norms)] * num_layers(text)
    width, pooled = _MOLMO_WIDTH, _MOLMO_TAKEN * _MOLMO_WIDTH
    matrices = (
        *encoder_layers(width, _MOLMO_WIDE, _MOLMO_DEPTH),
        Matrix(pooled, 3 * width, "column"),
        Matrix(width, width, "row"),
        Matrix(width, 2 * half, "column", bias=False),
        Matrix(half, hidden, "row", bias=False),
    )
    plain = (3 * 14**2 + 1 + _MOLMO_PLACES + 2 + _MOLMO_DEPTH * 4) * width + 2 * pooled
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=text.flag("weight_tying"),
        rope_dim=attention.head_dim,
        encoder=Encoder("vision", 16, matrices, plain),
        embedding_elements=(padded(rows + MOLMO_WORDS) - padded(rows)) * hidden,
    )
    return unweighed(shape)


ARCHITECTURES: dict[str, Architecture] = {
    "OlmoForCausalLM": Architecture(_olmo, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "Olmo2ForCausalLM": Architecture(_olmo2, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "Olmo3ForCausalLM": Architecture(_olmo2, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "OlmoeForCausalLM": Architecture(_olmoe, on_every_stage=ENDS),
    "FlexOlmoForCausalLM": Architecture(_flex_olmo, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "OlmoHybridForCausalLM": Architecture(_olmo_hybrid, on_every_stage=ENDS),
    "MolmoForCausalLM": Architecture(_molmo, on_every_stage=ENDS | ENCODER, is_decoder=False),
    "Molmo2ForConditionalGeneration": Architecture(_molmo2, on_every_stage=ENDS | ENCODER),
}
"""By their name in config.json."""

"""What readers of configurations share: attention, windows, rotary tables, and whole decoders of a usual build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from kaito_catalog.architectures.mixers import Attention, GatedDeltaNet, LatentAttention
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.quantization import (
    LAYER_NAME,
    quantized_modules,
    read_quantization,
    with_quantization,
)
from kaito_catalog.architectures.reading.record import Reader, Source
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Encoder,
    Experts,
    Json,
    Layer,
    Mlp,
    Shape,
)


@dataclass(frozen=True)
class DecoderDefaults:
    """How the classes of transformers and vLLM fill in what a configuration leaves out."""

    head_dim: int | None = None
    """Default head_dim of the configuration's class; None is hidden_size / num_attention_heads."""
    tied: bool = False
    qkv_bias: bool | None = None
    """None: as `attention_bias` says."""
    output_bias: bool | None = None
    head_norms: int = 0
    norms: int = 2
    """Norms of hidden_size per layer."""
    norm_parts: int = 1
    """2 where a norm has a weight and a bias."""
    flat_norms: bool = False
    gated: bool = True
    mlp_bias: bool = False
    lm_head_bias: bool = False
    names: tuple[tuple[str, str], ...] = ()
    """Fields of config.json under another name: (ours, its)."""
    defaults: tuple[tuple[str, Json], ...] = ()
    """What the configuration's class fills in."""

    def of(self, source: Source) -> Source:
        """The configuration in the usual words, with the class's defaults."""
        text = source.text
        renamed = {ours: text.values[its] for ours, its in self.names if its in text and ours not in text}
        return replace(source, text=with_defaults(text, **renamed, **dict(self.defaults)))


def num_layers(text: Fields) -> int:
    return text.count("num_hidden_layers", "num_layers", "n_layer", most=MOST_LAYERS)


def layer_types(text: Fields, layers: int) -> list[str] | None:
    types = text.texts("layer_types")
    if types is not None and len(types) != layers:
        raise UnreadableError(
            f"{text.path('layer_types')} has {len(types)} entries for {layers} layers",
            text.path("layer_types"),
        )
    return types


def read_attention(text: Fields, family: DecoderDefaults, **changes: object) -> Attention:
    heads = text.count("num_attention_heads", most=2**16)
    hidden = text.count("hidden_size")
    if "head_dim" not in text and family.head_dim is None and hidden % heads:
        raise UnreadableError(
            f"{text.path('hidden_size')} {hidden} is not a multiple of {heads} attention heads",
            text.path("hidden_size"),
        )
    head_dim = text.count("head_dim", default=family.head_dim or hidden // heads, most=2**16)
    kv_heads = text.count("num_key_value_heads", default=heads, most=2**16)
    if heads % kv_heads:
        raise UnreadableError(
            f"{heads} attention heads are not a multiple of {kv_heads} KV heads",
            text.path("num_key_value_heads"),
        )
    bias = text.flag("attention_bias") or text.flag("bias")
    output_bias = bias
    if "qkv_bias" in text:  # InternLM 3
        bias = text.flag("qkv_bias")
    attention = Attention(
        heads,
        kv_heads,
        head_dim,
        head_dim,
        qkv_bias=bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=output_bias if family.output_bias is None else family.output_bias,
        head_norms=family.head_norms,
        flat_norms=family.flat_norms,
    )
    return replace(attention, **changes)  # type: ignore[arg-type]


MISTRAL_WINDOW = 4096
"""MistralConfig's own, where config.json does not say null."""


def windows(text: Fields, layers: int) -> list[int | None]:
    """The window of each layer, as vLLM's Attention gets it."""
    window = text.optional("sliding_window", most=LONGEST_CONTEXT)
    if "sliding_window" not in text.values and text.text("model_type") == "mistral":
        window = MISTRAL_WINDOW
    if not text.flag("use_sliding_window", True) or window is None:
        return [None] * layers
    types = layer_types(text, layers)
    if types is not None:
        return [window if t == "sliding_attention" else None for t in types]
    return [window] * layers


_DTYPES = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "half": "float16",
    # vLLM's `auto` never serves float32: it takes bfloat16 (config/model.py, _resolve_auto_dtype).
    "float32": "bfloat16",
    "float": "bfloat16",
}


def _dtype(source: Source) -> str:
    for fields in (source.text, source.root):
        for name in ("dtype", "torch_dtype"):
            value = fields.text(name)
            if value is not None:
                short = value.removeprefix("torch.")
                if short not in _DTYPES:
                    raise UnreadableError(f"{fields.path(name)} is '{value[:40]}'", fields.path(name))
                return _DTYPES[short]
    # With no dtype anywhere vLLM reads the weights' own and ends at a two-byte type all the same.
    return "bfloat16"


def _rope(text: Fields) -> list[Fields]:
    for name in ("rope_parameters", "rope_scaling"):
        section = text.section(name)
        if section is None:
            continue
        nested = [
            s for s in (section.section(k) for k, v in section.values.items() if isinstance(v, dict)) if s
        ]
        return nested or [section]
    return []


def _rope_type(rope: Fields) -> str:
    return rope.text("rope_type") or rope.text("type") or "default"


_YARN = frozenset({"yarn", "deepseek_yarn", "deepseek_llama_scaling"})


def _max_model_len(text: Fields, *, scales_yarn: bool) -> int:
    """vLLM's _get_and_verify_max_len: the smallest stated length, times the rope's factor.

    Where it does not scale YaRN's, as 0.32.0, a configuration states a length that is scaled already.
    """
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
             "max_sequence_length", "max_seq_length", "seq_len")  # fmt: skip
    stated = [text.count(n, most=LONGEST_CONTEXT) for n in names if n in text]
    own = text.optional("model_max_length", most=LONGEST_CONTEXT)
    if not stated and own is None:
        raise UnreadableError(f"the configuration has no {text.path(names[0])}", text.path(names[0]))
    derived: float = own or min(stated)
    factor = 1.0
    # Gemma 3 states a length that is scaled already.
    if "gemma3" not in (text.text("model_type") or ""):
        for rope in _rope(text):
            kind = _rope_type(rope)
            if kind in ("su", "longrope", "llama3") or (kind in _YARN and not scales_yarn):
                continue
            factor = rope.number("factor") or factor
            if kind == "yarn":
                original = rope.count(
                    "original_max_position_embeddings", default=0, least=0, most=LONGEST_CONTEXT
                )
                derived = original or derived
    length = derived * factor
    if not 1 <= length < LONGEST_CONTEXT + 1:
        said = f"{int(length):,}" if abs(length) < 10**18 else "no number of"
        raise UnreadableError(f"the rope scaling gives a context of {said} tokens", text.path("rope_scaling"))
    return int(length)


def _rope_elements(text: Fields, head_dim: int) -> int:
    """cos and sin for every position, once per kind of rope: vLLM 0.25.1 shares the tables between layers."""
    length = text.count("max_position_embeddings", "max_seq_len", default=8192, most=LONGEST_CONTEXT)
    ropes = _rope(text)
    common = text.number("partial_rotary_factor")
    total = 0.0
    for rope in ropes or [Fields({})]:
        partial = rope.number("partial_rotary_factor") or common or 1.0
        kind = _rope_type(rope)
        original = rope.count(
            "original_max_position_embeddings",
            default=text.count("original_max_position_embeddings", default=0, least=0, most=LONGEST_CONTEXT),
            least=0,
            most=LONGEST_CONTEXT,
        )
        positions = float(length)
        if kind == "yarn" and original:
            positions = original * (rope.number("factor") or 1.0)
        elif kind == "linear":
            positions = length * (rope.number("factor") or 1.0)
        elif kind in ("longrope", "su"):
            positions = length + original
        if "mrope_section" in rope:
            positions *= 4
        total += positions * head_dim * min(abs(partial), 1.0)
    return int(min(total, LONGEST_CONTEXT * 1024))


def make_shape(
    source: Source,
    layers: list[Layer],
    *,
    tied: bool,
    rope_dim: int,
    encoder: Encoder | None = None,
    final_norm_elements: int | None = None,
    embedding_elements: int = 0,
    plain_elements: int = 0,
) -> Shape:
    text = source.text
    hidden = text.count("hidden_size")
    quantization = read_quantization(source)
    longest, stated = (_max_model_len(text, scales_yarn=scales) for scales in (True, False))
    if quantization is not None:
        layers = with_quantization(layers, quantization, quantized_modules(source))
        kept = tuple(n for n in quantization.ignored if n.startswith("re:") or not LAYER_NAME.search(n))
        quantization = replace(quantization, ignored=kept)
    return Shape(
        architecture=source.architecture,
        hidden_size=hidden,
        vocab_size=text.count("vocab_size"),
        layers=tuple(layers),
        tie_word_embeddings=source.tied(tied),
        dtype=_dtype(source),
        quantization=quantization,
        encoder=encoder,
        max_model_len=longest,
        max_model_len_as_stated=None if stated == longest else stated,
        rope_elements=_rope_elements(text, rope_dim),
        final_norm_elements=hidden if final_norm_elements is None else final_norm_elements,
        embedding_elements=embedding_elements,
        plain_elements=plain_elements,
        lm_head_bias=text.flag("lm_head_bias"),
    )


def dense(family: DecoderDefaults, encoder: Callable[[Source], Encoder | None] | None = None) -> Reader:
    """A decoder whose layers are attention and one feed-forward block."""

    def read(source: Source) -> Shape:
        source = family.of(source)
        text = source.text
        hidden = text.count("hidden_size")
        attention = read_attention(text, family)
        mlp = Mlp(
            text.count("intermediate_size"),
            gated=family.gated,
            bias=family.mlp_bias or text.flag("mlp_bias"),
        )
        norms = family.norms * family.norm_parts * hidden
        layers = [
            Layer(replace(attention, sliding_window=window), mlp, norms)
            for window in windows(text, num_layers(text))
        ]
        made = encoder(source) if encoder else None
        shape = make_shape(
            source,
            layers,
            tied=family.tied,
            rope_dim=attention.head_dim,
            encoder=made,
            final_norm_elements=family.norm_parts * hidden,
        )
        return replace(shape, lm_head_bias=shape.lm_head_bias or family.lm_head_bias)

    return read


def read_experts(
    text: Fields,
    experts: tuple[str, ...],
    intermediate: tuple[str, ...] = ("moe_intermediate_size",),
    **more: object,
) -> Experts:
    count = text.count(*experts, most=2**16)
    active = text.count("num_experts_per_tok", "num_experts_per_token", "experts_per_token", most=2**16)
    if active > count:
        raise UnreadableError(f"{active} experts per token of {count}", text.path("num_experts_per_tok"))
    return replace(Experts(count, active, text.count(*intermediate)), **more)  # type: ignore[arg-type]


def mixture(
    family: DecoderDefaults,
    experts: Callable[[Fields], Experts],
    *,
    is_sparse: Callable[[Fields, int], bool] = lambda _text, _index: True,
    encoder: Callable[[Source], Encoder | None] | None = None,
) -> Reader:
    """A decoder whose layers are attention and experts, except where `is_sparse` says dense."""

    def read(source: Source) -> Shape:
        source = family.of(source)
        text = source.text
        hidden = text.count("hidden_size")
        attention = read_attention(text, family)
        count = num_layers(text)
        sparse = experts(text)
        which = [is_sparse(text, i) for i in range(count)]
        dense = None if all(which) else Mlp(text.count("intermediate_size"))
        layers = [
            Layer(
                replace(attention, sliding_window=window),
                sparse if which[i] else dense,
                family.norms * family.norm_parts * hidden,
            )
            for i, window in enumerate(windows(text, count))
        ]
        made = encoder(source) if encoder else None
        shape = make_shape(
            source,
            layers,
            tied=family.tied,
            rope_dim=attention.head_dim,
            encoder=made,
            final_norm_elements=family.norm_parts * hidden,
        )
        return replace(shape, lm_head_bias=shape.lm_head_bias or family.lm_head_bias)

    return read


def flags(section: Fields, name: str, count: int) -> list[bool]:
    """A list of 0 and 1 for each layer."""
    values = section.values.get(name)
    if not isinstance(values, list) or len(values) != count or any(v not in (0, 1) for v in values):
        raise UnreadableError(f"{section.path(name)} is not 0 or 1 for each layer", section.path(name))
    return [bool(v) for v in values]


def read_latent(text: Fields) -> LatentAttention:
    return LatentAttention(
        text.count("num_attention_heads", most=2**16),
        text.optional("q_lora_rank"),
        text.count("kv_lora_rank"),
        text.count("qk_nope_head_dim"),
        text.count("qk_rope_head_dim", least=0),
        text.count("v_head_dim"),
    )


def unweighed(shape: Shape) -> Shape:
    """The shape whose weights have no plan where they are quantised: the size of the files says them."""
    how = shape.quantization
    if how is None:
        return shape
    words = f"no plan for the quantised weights of {shape.architecture}"
    return replace(shape, quantization=replace(how, problem=how.problem or words))


NO_BIAS = DecoderDefaults(qkv_bias=False, output_bias=False)
"""Attention without biases, whatever attention_bias says."""


GPT_NAMES = (
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("intermediate_size", "n_inner"),
    ("max_position_embeddings", "n_positions"),
)


def widened(read: Reader, factor: int = 4) -> Reader:
    """Where no width of the feed-forward block is stated it is a multiple of the hidden one."""

    def widened(source: Source) -> Shape:
        text = source.text
        hidden = text.count("hidden_size", "n_embd", "d_model")
        names = ("intermediate_size", "n_inner", "ffn_hidden_size")
        if not any(n in text for n in names):
            source = replace(source, text=with_defaults(text, intermediate_size=factor * hidden))
        return read(source)

    return widened


def with_types(text: Fields, names: tuple[str, ...], default: int) -> Fields:
    """`layer_types` of a pattern in which each n-th layer sees everything, where they are not listed."""
    count = num_layers(text)
    if layer_types(text, count) is not None:
        return text
    step = text.count(*names, default=default)
    types = ["full_attention" if (i + 1) % step == 0 else "sliding_attention" for i in range(count)]
    return with_defaults(text, layer_types=cast(Json, types))


def cross_layers(hidden: int, heads: int, wide: int, depth: int) -> list[Layer]:
    """A decoder's layers that also look at what an encoder said; stages do not matter, vLLM cuts none."""
    if hidden % heads:
        raise UnreadableError(f"a width of {hidden} is not a multiple of {heads} heads")
    itself = Attention(heads, heads, hidden // heads, hidden // heads, qkv_bias=True, output_bias=True)
    looking = replace(itself, looks_at_encoder=True)
    mlp = Mlp(wide, gated=False, bias=True)
    # Two attentions and one feed-forward block make a layer.
    return [Layer(itself, None, 2 * hidden), Layer(looking, mlp, 4 * hidden)] * depth


def dense_before(name: str, default: int = 0) -> Callable[[Fields, int], bool]:
    """Layers before the number in `name` are dense."""

    def is_sparse(text: Fields, index: int) -> bool:
        return index >= text.count(name, default=default, least=0, most=MOST_LAYERS)

    return is_sparse


def shared_experts(
    text: Fields, each: int, *, count: str = "num_shared_experts", bias: bool = False
) -> Mlp | None:
    """Experts that see every token, which vLLM builds as one block."""
    number = text.count(count, default=0, least=0, most=2**10)
    return Mlp(each * number, bias=bias) if number else None


def whole_numbers(text: Fields, name: str) -> list[int] | None:
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


def with_short_states(shape: Shape) -> Shape:
    """The shape with states of the model's dtype: vLLM looks for another under Qwen3.5's own names alone."""
    layers = tuple(
        replace(x, mixer=replace(x.mixer, state_bytes=2)) if isinstance(x.mixer, GatedDeltaNet) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)

"""A model's shape: config.json (or params.json) read once into typed layers, or why it cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias, cast

from pydantic import JsonValue

Json: TypeAlias = JsonValue
Config: TypeAlias = Mapping[str, Json]

MOST_LAYERS = 1_000
LARGEST_DIMENSION = 2**24
LONGEST_CONTEXT = 10**9


class AttentionKind(Enum):
    """What a layer keeps of the tokens it has seen."""

    FULL = "full"
    SLIDING = "sliding"
    CHUNKED = "chunked"
    MLA = "mla"
    STATE = "linear-state"
    NONE = "none"


@dataclass(frozen=True)
class Attention:
    """Softmax attention with a key and a value per KV head and token."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int
    sliding_window: int | None = None
    chunk: int | None = None
    """Tokens of a local chunk (Llama 4)."""
    qkv_bias: bool = False
    output_bias: bool = False
    head_norms: int = 0
    """Norms over one head's width: 2 where queries and keys are normalised."""
    flat_norms: bool = False
    """Queries and keys normalised over all heads at once (MiniMax M2)."""
    output_gate: bool = False
    """The query projection also gives a gate of the output (Qwen3-Next)."""
    sinks: bool = False
    """One learnt logit per head (gpt-oss)."""
    shares_cache: bool = False
    """Reads an earlier layer's cache and has none (Gemma 4, Gemma 3n)."""

    @property
    def kind(self) -> AttentionKind:
        """What the layer keeps."""
        if self.shares_cache:
            return AttentionKind.NONE
        if self.sliding_window is not None:
            return AttentionKind.SLIDING
        return AttentionKind.CHUNKED if self.chunk is not None else AttentionKind.FULL


@dataclass(frozen=True)
class Indexer:
    """DeepSeek's sparse attention: picks the tokens to look at, with a small cache of its own."""

    num_heads: int
    head_dim: int


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one latent per token, whatever the number of heads."""

    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    indexer: Indexer | None = None
    sparse: bool = False
    """Looks only at tokens an indexer picked, its own or an earlier layer's."""

    @property
    def kind(self) -> AttentionKind:
        """What the layer keeps."""
        return AttentionKind.MLA


@dataclass(frozen=True)
class GatedDeltaNet:
    """Linear attention with a fixed state per sequence (Qwen3-Next, Qwen3.5)."""

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int
    state_bytes: int
    """Bytes per element of the recurrent state; the convolution's is of the model's dtype."""

    @property
    def kind(self) -> AttentionKind:
        """What the layer keeps."""
        return AttentionKind.STATE


@dataclass(frozen=True)
class Mamba2:
    """A Mamba 2 layer (Nemotron-H)."""

    num_heads: int
    head_dim: int
    num_groups: int
    state_size: int
    conv_kernel: int
    state_bytes: int
    bias: bool
    conv_bias: bool

    @property
    def kind(self) -> AttentionKind:
        """What the layer keeps."""
        return AttentionKind.STATE


Mixer: TypeAlias = Attention | LatentAttention | GatedDeltaNet | Mamba2


@dataclass(frozen=True)
class Mlp:
    """A dense feed-forward block; gated ones have two input matrices."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Experts:
    """A mixture of experts."""

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    router_bytes: int = 0
    """Bytes per element of the router; 0 is the model's dtype."""
    correction_bias: bool = False
    """One fp32 number per expert that balances the routing."""
    shared: Mlp | None = None
    shared_gate: bool = False
    latent_size: int | None = None
    """Width the experts work in, where it is not hidden_size (Nemotron-H's latent experts)."""
    dense: Mlp | None = None
    """A dense block beside the experts (Gemma 4)."""
    extra_elements: int = 0
    """Scales and norms of the router, replicated."""


FeedForward: TypeAlias = Mlp | Experts


@dataclass(frozen=True)
class Layer:
    """One layer of the decoder."""

    mixer: Mixer | None
    feed_forward: FeedForward | None
    norm_elements: int
    unquantized: tuple[str, ...] = ()
    """Modules of this layer that keep the model's dtype: their names below the layer, `*` allowed."""


@dataclass(frozen=True)
class Matrix:
    """A linear layer of a tower: `split` says how tensor parallelism cuts it."""

    inputs: int
    outputs: int
    split: str
    """column, row or none."""
    bias: bool = True
    count: int = 1


@dataclass(frozen=True)
class Tower:
    """The encoder of images (or other media) and its projector."""

    kind: str
    num_heads: int
    matrices: tuple[Matrix, ...] | None
    """None: a tower whose size nobody here can compute."""
    plain_elements: int = 0
    """Norms, embeddings, convolutions: replicated."""


@dataclass(frozen=True)
class Quantization:
    """How the weights are stored."""

    method: str
    """fp8, mxfp4, compressed-tensors, modelopt, awq, gptq …"""
    bits: int | None = None
    group_size: int | None = None
    weight_block: tuple[int, int] | None = None
    static_activations: bool = False
    ignored: tuple[str, ...] = ()
    """Modules that keep the model's dtype, as the configuration names them."""
    format: str | None = None
    """The variant within the method, such as NVFP4 or pack-quantized."""
    kv_cache_dtype: str | None = None
    """What the configuration asks of the KV cache where nobody else does."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on, as the configuration says."""

    architecture: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tie_word_embeddings: bool
    dtype: str
    quantization: Quantization | None
    tower: Tower | None
    max_model_len: int
    """The longest context vLLM accepts without being told to ignore the model's own limit."""
    rope_elements: int
    """Elements of the rotary tables, which vLLM keeps beside the parameters."""
    final_norm_elements: int
    embedding_elements: int = 0
    """Per-layer embeddings and kin, divided like the vocabulary (Gemma 4's small models)."""
    plain_elements: int = 0
    """Parameters outside the layers that every rank holds."""
    lm_head_bias: bool = False

    @property
    def dtype_bytes(self) -> int:
        """Bytes per element of what is not quantised."""
        return 4 if self.dtype == "float32" else 2

    @property
    def kinds(self) -> dict[AttentionKind, int]:
        """How many layers there are of each kind."""
        found: dict[AttentionKind, int] = {}
        for layer in self.layers:
            kind = layer.mixer.kind if layer.mixer else AttentionKind.NONE
            found[kind] = found.get(kind, 0) + 1
        return found


@dataclass(frozen=True)
class Unsupported:
    """Why there is no shape: what was found, and the field it stands in."""

    reason: str
    field: str | None = None
    architecture: str | None = None


class _UnreadableError(Exception):
    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class _Fields:
    """Typed access to one mapping of the configuration; every number is checked when it is read."""

    def __init__(self, values: Config, where: str = "") -> None:
        self.values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def path(self, name: str) -> str:
        return f"{self.where}{name}"

    def count(
        self, *names: str, default: int | None = None, most: int = LARGEST_DIMENSION, least: int = 1
    ) -> int:
        """The first of `names` that is present: a whole number between `least` and `most`."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, float) and math.isfinite(value) and value == int(value):
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int):
                raise _UnreadableError(f"{self.path(name)} is not a whole number", self.path(name))
            if not least <= value <= most:
                raise _UnreadableError(
                    f"{self.path(name)} is {value:,}; a number between {least:,} and {most:,} can be planned",
                    self.path(name),
                )
            return value
        if default is None:
            raise _UnreadableError(f"the configuration has no {self.path(names[0])}", self.path(names[0]))
        return default

    def optional(self, *names: str, most: int = LARGEST_DIMENSION) -> int | None:
        return self.count(*names, most=most, least=0) or None if any(n in self for n in names) else None

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _UnreadableError(f"{self.path(name)} is not a number", self.path(name))
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _UnreadableError(f"{self.path(name)} is neither true nor false", self.path(name))
        return value

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise _UnreadableError(f"{self.path(name)} is not a string", self.path(name))
        return value

    def texts(self, name: str) -> list[str] | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise _UnreadableError(f"{self.path(name)} is not a list of strings", self.path(name))
        return cast(list[str], value)

    def section(self, name: str) -> _Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise _UnreadableError(f"{self.path(name)} is not a mapping", self.path(name))
        return _Fields(value, f"{self.path(name)}.")


@dataclass(frozen=True)
class _Source:
    """A configuration while it is read: the whole of it, and the part about the language model."""

    architecture: str
    root: _Fields
    text: _Fields
    quant_file: Config | None

    def tied(self, default: bool) -> bool:
        if "tie_word_embeddings" in self.text:
            return self.text.flag("tie_word_embeddings")
        return self.root.flag("tie_word_embeddings", default)


@dataclass(frozen=True)
class _Family:
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
    gated: bool = True
    mlp_bias: bool = False


# transformers 5: the configuration class's own defaults; vLLM 0.25.1: the module's constructor.
_LLAMA = _Family()
_QWEN2 = _Family(qkv_bias=True, output_bias=False)
_QWEN3 = _Family(head_dim=128, head_norms=2)
_PHI3 = _Family(qkv_bias=False, output_bias=False)
_GEMMA = _Family(head_dim=256, tied=True)
_GEMMA2 = _Family(head_dim=256, tied=True, norms=4)
_GEMMA3 = _Family(head_dim=256, tied=True, norms=4, head_norms=2)


def _num_layers(text: _Fields) -> int:
    return text.count("num_hidden_layers", "num_layers", "n_layer", most=MOST_LAYERS)


def _layer_types(text: _Fields, layers: int) -> list[str] | None:
    types = text.texts("layer_types")
    if types is not None and len(types) != layers:
        raise _UnreadableError(
            f"{text.path('layer_types')} has {len(types)} entries for {layers} layers",
            text.path("layer_types"),
        )
    return types


def _attention(text: _Fields, family: _Family, **changes: object) -> Attention:
    heads = text.count("num_attention_heads", most=2**16)
    hidden = text.count("hidden_size")
    if "head_dim" not in text and family.head_dim is None and hidden % heads:
        raise _UnreadableError(
            f"{text.path('hidden_size')} {hidden} is not a multiple of {heads} attention heads",
            text.path("hidden_size"),
        )
    head_dim = text.count("head_dim", default=family.head_dim or hidden // heads, most=2**16)
    kv_heads = text.count("num_key_value_heads", default=heads, most=2**16)
    if heads % kv_heads:
        raise _UnreadableError(
            f"{heads} attention heads are not a multiple of {kv_heads} KV heads",
            text.path("num_key_value_heads"),
        )
    bias = text.flag("attention_bias")
    attention = Attention(
        heads,
        kv_heads,
        head_dim,
        head_dim,
        qkv_bias=bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=bias if family.output_bias is None else family.output_bias,
        head_norms=family.head_norms,
    )
    return replace(attention, **changes)  # type: ignore[arg-type]


def _windows(text: _Fields, layers: int, family: _Family) -> list[int | None]:
    """The window of each layer, as vLLM's Attention gets it."""
    window = text.optional("sliding_window", most=LONGEST_CONTEXT)
    if not text.flag("use_sliding_window", True) or window is None:
        return [None] * layers
    types = _layer_types(text, layers)
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


def _dtype(source: _Source) -> str:
    for fields in (source.text, source.root):
        for name in ("dtype", "torch_dtype"):
            value = fields.text(name)
            if value is not None:
                short = value.removeprefix("torch.")
                if short not in _DTYPES:
                    raise _UnreadableError(f"{fields.path(name)} is '{value[:40]}'", fields.path(name))
                return _DTYPES[short]
    # With no dtype anywhere vLLM reads the weights' own and ends at a two-byte type all the same.
    return "bfloat16"


def _rope(text: _Fields) -> list[_Fields]:
    for name in ("rope_parameters", "rope_scaling"):
        section = text.section(name)
        if section is None:
            continue
        nested = [
            s for s in (section.section(k) for k, v in section.values.items() if isinstance(v, dict)) if s
        ]
        return nested or [section]
    return []


def _rope_type(rope: _Fields) -> str:
    return rope.text("rope_type") or rope.text("type") or "default"


def _max_model_len(text: _Fields) -> int:
    """vLLM 0.25.1's _get_and_verify_max_len: the smallest stated length, times the rope's factor."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
             "max_sequence_length", "max_seq_length", "seq_len")  # fmt: skip
    stated = [text.count(n, most=LONGEST_CONTEXT) for n in names if n in text]
    own = text.optional("model_max_length", most=LONGEST_CONTEXT)
    if not stated and own is None:
        raise _UnreadableError(f"the configuration has no {text.path(names[0])}", text.path(names[0]))
    derived: float = own or min(stated)
    factor = 1.0
    # Gemma 3 states a length that is scaled already.
    if "gemma3" not in (text.text("model_type") or ""):
        for rope in _rope(text):
            kind = _rope_type(rope)
            if kind in ("su", "longrope", "llama3"):
                continue
            factor = rope.number("factor") or factor
            if kind == "yarn":
                original = rope.count(
                    "original_max_position_embeddings", default=0, least=0, most=LONGEST_CONTEXT
                )
                derived = original or derived
    length = int(derived * factor)
    if not 1 <= length <= LONGEST_CONTEXT:
        raise _UnreadableError(
            f"the rope scaling gives a context of {length:,} tokens", text.path("rope_scaling")
        )
    return length


def _rope_elements(text: _Fields, head_dim: int) -> int:
    """cos and sin for every position, once per kind of rope (vLLM shares them between layers)."""
    length = text.count("max_position_embeddings", "max_seq_len", default=8192, most=LONGEST_CONTEXT)
    ropes = _rope(text)
    partial = next((p for p in (r.number("partial_rotary_factor") for r in ropes) if p), None)
    partial = partial or text.number("partial_rotary_factor") or 1.0
    positions = length
    for rope in ropes:
        if _rope_type(rope) == "yarn":
            original = rope.count("original_max_position_embeddings", default=length, most=LONGEST_CONTEXT)
            positions = int(original * (rope.number("factor") or 1.0))
    return int(min(positions, LONGEST_CONTEXT) * head_dim * min(partial, 1.0)) * max(1, len(ropes))


def _ignored(section: _Fields) -> tuple[str, ...]:
    found: list[str] = []
    for name in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude"):
        value = section.values.get(name)
        if isinstance(value, list):
            found += [v for v in value if isinstance(v, str)]
    return tuple(found)


def _kv_cache_dtype(section: _Fields, method: str) -> str | None:
    """vLLM 0.25.1: ModelOpt's and compressed-tensors' own wish for an fp8 cache holds under `auto`."""
    if method not in ("modelopt", "compressed-tensors"):
        return None
    scheme = section.values.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        return "fp8" if scheme.get("num_bits") == 8 and scheme.get("type") == "float" else None
    if method == "modelopt":
        wish = scheme or section.values.get("kv_cache_quant_algo")
        return "fp8" if isinstance(wish, str) and wish.lower() in ("fp8", "fp8_e4m3") else None
    return None


def _quantization(source: _Source) -> Quantization | None:
    section = source.root.section("quantization_config") or source.text.section("quantization_config")
    if section is None and "compression_config" in source.root:
        section = source.root.section("compression_config")
    if section is None and source.quant_file is not None:
        section = _Fields(source.quant_file, "hf_quant_config.").section("quantization")
    if section is None:
        return None
    algorithm = section.text("quant_algo")
    method = section.text("quant_method") or ("modelopt" if algorithm else None)
    if method is None:
        raise _UnreadableError(f"{section.where}quant_method is missing", f"{section.where}quant_method")
    block = section.values.get("weight_block_size")
    blocks: tuple[int, int] | None = None
    if isinstance(block, list):
        if len(block) != 2 or not all(
            isinstance(b, int) and not isinstance(b, bool) and b > 0 for b in block
        ):
            raise _UnreadableError(f"{section.where}weight_block_size is not two sizes", "weight_block_size")
        blocks = (cast(int, block[0]), cast(int, block[1]))
    return Quantization(
        method,
        bits=section.optional("bits", "w_bit", most=64),
        group_size=section.optional("group_size", "q_group_size")
        if section.values.get("group_size") != -1
        else None,
        weight_block=blocks,
        static_activations=section.text("activation_scheme") == "static",
        ignored=_ignored(section),
        format=algorithm or section.text("format"),
        kv_cache_dtype=_kv_cache_dtype(section, method),
    )


_LAYER_NAME = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.(.*)|(\*))$")


def _per_layer(quantization: Quantization, count: int) -> list[tuple[str, ...]]:
    """The names of `ignored` sorted to the layers they speak of."""
    found: list[set[str]] = [set() for _ in range(count)]
    for name in quantization.ignored:
        match = _LAYER_NAME.search(name)
        if match and int(match[1]) < count:
            rest = match[2] or "*"
            # Norms and biases are never quantised: leaving them out keeps equal layers equal.
            if not rest.endswith(("norm", "bias", ".gate", "norm.weight")):
                found[int(match[1])].add(rest)
    return [tuple(sorted(names)) for names in found]


def _shape(
    source: _Source,
    layers: list[Layer],
    *,
    tied: bool,
    rope_dim: int,
    tower: Tower | None = None,
    final_norm_elements: int | None = None,
    embedding_elements: int = 0,
    plain_elements: int = 0,
) -> Shape:
    text = source.text
    hidden = text.count("hidden_size")
    quantization = _quantization(source)
    if quantization is not None and quantization.ignored:
        layers = [
            replace(x, unquantized=names)
            for x, names in zip(layers, _per_layer(quantization, len(layers)), strict=True)
        ]
        quantization = replace(
            quantization, ignored=tuple(n for n in quantization.ignored if "layers." not in n)
        )
    return Shape(
        architecture=source.architecture,
        hidden_size=hidden,
        vocab_size=text.count("vocab_size"),
        layers=tuple(layers),
        tie_word_embeddings=source.tied(tied),
        dtype=_dtype(source),
        quantization=quantization,
        tower=tower,
        max_model_len=_max_model_len(text),
        rope_elements=_rope_elements(text, rope_dim),
        final_norm_elements=hidden if final_norm_elements is None else final_norm_elements,
        embedding_elements=embedding_elements,
        plain_elements=plain_elements,
        lm_head_bias=text.flag("lm_head_bias"),
    )


def _dense(
    family: _Family, tower: Callable[[_Source], Tower | None] | None = None
) -> Callable[[_Source], Shape]:
    """A decoder whose layers are attention and one feed-forward block."""

    def read(source: _Source) -> Shape:
        text = source.text
        hidden = text.count("hidden_size")
        attention = _attention(text, family)
        mlp = Mlp(
            text.count("intermediate_size"),
            gated=family.gated,
            bias=family.mlp_bias or text.flag("mlp_bias"),
        )
        norms = family.norms * hidden
        layers = [
            Layer(replace(attention, sliding_window=window), mlp, norms)
            for window in _windows(text, _num_layers(text), family)
        ]
        made = tower(source) if tower else None
        return _shape(source, layers, tied=family.tied, rope_dim=attention.head_dim, tower=made)

    return read


def _gemma3(source: _Source) -> Shape:
    # Gemma3TextConfig's defaults (transformers): what google/gemma-3-4b-it leaves out.
    text = _with_defaults(
        source.text,
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=262_208, sliding_window=4096,
        max_position_embeddings=131_072,
    )  # fmt: skip
    count = _num_layers(text)
    if _layer_types(text, count) is None:
        pattern = text.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(count)]
        text = _with_defaults(text, layer_types=cast(Json, types))
    tower = _siglip_gemma3 if source.root.section("vision_config") else None
    return _dense(_GEMMA3, tower)(replace(source, text=text))


def _gemma2(source: _Source) -> Shape:
    text = source.text
    count = _num_layers(text)
    if _layer_types(text, count) is None:
        # Gemma2Config: every second layer slides, the first included.
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = _with_defaults(text, layer_types=cast(Json, types))
    return _dense(_GEMMA2)(replace(source, text=_with_defaults(text, sliding_window=4096)))


def _with_defaults(fields: _Fields, **defaults: Json) -> _Fields:
    missing = {k: v for k, v in defaults.items() if k not in fields}
    return _Fields({**fields.values, **missing}, fields.where) if missing else fields


def _siglip_gemma3(source: _Source) -> Tower:
    # SiglipVisionConfig's defaults (transformers); vLLM: siglip.py, gemma3_mm.py.
    vision = source.root.section("vision_config")
    assert vision is not None
    width = vision.count("hidden_size", default=1152)
    wide = vision.count("intermediate_size", default=4304)
    depth = vision.count("num_hidden_layers", default=27, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=14)
    image = vision.count("image_size", default=896)
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    positions = (image // patch) ** 2
    plain = channels * patch * patch * width + width + positions * width
    plain += depth * 4 * width + 2 * width  # two norms with bias a layer, one after the last
    plain += width * hidden + width  # projector and its norm
    return Tower(
        "siglip",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
        ),
        plain,
    )


def _vision(source: _Source) -> _Fields | None:
    return source.root.section("vision_config")


def _qwen2_5_vl_tower(source: _Source) -> Tower | None:
    """vLLM 0.25.1's qwen2_5_vl.py: RMS norms, gated MLP, merger; sizes divided as in the decoder."""
    vision = _vision(source)
    if vision is None:
        return None
    width = vision.count("hidden_size", default=1280)
    wide = vision.count("intermediate_size", default=3420)
    depth = vision.count("depth", default=32, most=MOST_LAYERS)
    merged = width * vision.count("spatial_merge_size", default=2) ** 2
    patch = vision.count("patch_size", default=14) ** 2 * vision.count("temporal_patch_size", default=2)
    channels = vision.count("in_channels", "in_chans", default=3)
    return Tower(
        "vision",
        vision.count("num_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, 2 * wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "column"),
            Matrix(merged, vision.count("out_hidden_size", default=3584), "row"),
        ),
        channels * patch * width + depth * 2 * width + width,
    )


def _qwen3_vl_tower(source: _Source) -> Tower | None:
    """vLLM 0.25.1's qwen3_vl.py, which Qwen3.5 and 3.6 use too: layer norms, merger, deepstack mergers."""
    vision = _vision(source)
    if vision is None:
        return None
    width = vision.count("hidden_size", default=1152)
    wide = vision.count("intermediate_size", default=4304)
    depth = vision.count("depth", default=27, most=MOST_LAYERS)
    merged = width * vision.count("spatial_merge_size", default=2) ** 2
    patch = vision.count("patch_size", default=16) ** 2 * vision.count("temporal_patch_size", default=2)
    out = vision.count("out_hidden_size", default=3584)
    positions = vision.count("num_position_embeddings", default=2304)
    deep = vision.values.get("deepstack_visual_indexes")
    # Qwen3VLVisionConfig's default is three of them.
    mergers = len(deep) if isinstance(deep, list) else 3
    plain = vision.count("in_channels", default=3) * patch * width + width + positions * width
    plain += depth * 4 * width + 2 * width + mergers * 2 * merged
    return Tower(
        "vision",
        vision.count("num_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "column", count=1 + mergers),
            Matrix(merged, out, "row", count=1 + mergers),
        ),
        plain,
    )


def _moonvit_tower(source: _Source) -> Tower | None:
    """vLLM 0.25.1's kimi_k25_vit.py; its projector is replicated."""
    vision = _vision(source)
    if vision is None:
        return None
    width = vision.count("vt_hidden_size")
    wide = vision.count("vt_intermediate_size")
    depth = vision.count("vt_num_hidden_layers", most=MOST_LAYERS)
    patch = vision.count("patch_size")
    positions = vision.count("init_pos_emb_height") * vision.count("init_pos_emb_width")
    kernel = vision.values.get("merge_kernel_size")
    if not isinstance(kernel, list) or not all(isinstance(k, int) and 0 < k < 64 for k in kernel):
        raise _UnreadableError("vision_config.merge_kernel_size is not two sizes", "merge_kernel_size")
    merged = width * math.prod(cast(list[int], kernel))
    out = vision.count("text_hidden_size")
    return Tower(
        "vision",
        vision.count("vt_num_attention_heads"),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(merged, merged, "none"),
            Matrix(merged, out, "none"),
        ),
        3 * patch * patch * width + width + positions * width + depth * 4 * width + 2 * width + 2 * width,
    )


def _pixtral_tower(source: _Source) -> Tower | None:
    """vLLM 0.25.1's pixtral.py and mistral3.py: Hugging Face's Pixtral encoder, patch merger, projector."""
    vision = _vision(source)
    if vision is None:
        return _unknown_tower(source)
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=4096)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=16)
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    merge = source.root.count("spatial_merge_size", default=2) ** 2
    bias = source.root.flag("multimodal_projector_bias")
    return Tower(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", bias=False, count=depth),
            Matrix(width, width, "row", bias=False, count=depth),
            Matrix(width, 2 * wide, "column", bias=False, count=depth),
            Matrix(wide, width, "row", bias=False, count=depth),
            Matrix(width, hidden, "column", bias=bias),
            Matrix(hidden, hidden, "row", bias=bias),
            Matrix(merge * width, width, "none", bias=False),
        ),
        channels * patch * patch * width + width + depth * 2 * width + width,
    )


def _unknown_tower(source: _Source) -> Tower | None:
    for name in ("vision_config", "vision_encoder", "audio_config"):
        section = source.root.section(name)
        if section is not None:
            heads = section.count("num_attention_heads", "num_heads", "vt_num_attention_heads", default=1)
            return Tower(name.removesuffix("_config"), heads, None)
    return None


def _experts(
    text: _Fields,
    experts: tuple[str, ...],
    intermediate: tuple[str, ...] = ("moe_intermediate_size",),
    **more: object,
) -> Experts:
    count = text.count(*experts, most=2**16)
    active = text.count("num_experts_per_tok", "num_experts_per_token", "experts_per_token", most=2**16)
    if active > count:
        raise _UnreadableError(f"{active} experts per token of {count}", text.path("num_experts_per_tok"))
    return replace(Experts(count, active, text.count(*intermediate)), **more)  # type: ignore[arg-type]


def _mixture(
    family: _Family,
    experts: Callable[[_Fields], Experts],
    *,
    is_sparse: Callable[[_Fields, int], bool] = lambda _text, _index: True,
    tower: Callable[[_Source], Tower | None] | None = None,
) -> Callable[[_Source], Shape]:
    """A decoder whose layers are attention and experts, except where `is_sparse` says dense."""

    def read(source: _Source) -> Shape:
        text = source.text
        hidden = text.count("hidden_size")
        attention = _attention(text, family)
        count = _num_layers(text)
        sparse = experts(text)
        which = [is_sparse(text, i) for i in range(count)]
        dense = None if all(which) else Mlp(text.count("intermediate_size"))
        layers = [
            Layer(
                replace(attention, sliding_window=window),
                sparse if which[i] else dense,
                family.norms * hidden,
            )
            for i, window in enumerate(_windows(text, count, family))
        ]
        made = tower(source) if tower else None
        return _shape(source, layers, tied=family.tied, rope_dim=attention.head_dim, tower=made)

    return read


def _qwen_sparse(text: _Fields, index: int) -> bool:
    only = text.values.get("mlp_only_layers") or []
    step = text.count("decoder_sparse_step", default=1)
    return not (isinstance(only, list) and index in only) and (index + 1) % step == 0


def _qwen3_experts(text: _Fields) -> Experts:
    return _experts(text, ("num_experts",))


def _qwen2_experts(text: _Fields) -> Experts:
    shared = text.optional("shared_expert_intermediate_size")
    return _experts(
        text, ("num_experts",), shared=Mlp(shared) if shared else None, shared_gate=shared is not None
    )


def _mixtral_experts(text: _Fields) -> Experts:
    return _experts(text, ("num_local_experts",), ("intermediate_size",))


def _gpt_oss(source: _Source) -> Shape:
    # GptOssConfig's default: layers slide in turn, the first one included.
    text = _with_defaults(source.text, head_dim=64, sliding_window=128)
    count = _num_layers(text)
    experts = _experts(
        text, ("num_local_experts", "num_experts"), ("intermediate_size",), bias=True, router_bias=True
    )
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    attention = _attention(text, _LLAMA, qkv_bias=True, output_bias=True, sinks=True)
    layers = [
        # vLLM 0.25.1's gpt_oss.py goes by the layer's number, whatever layer_types says.
        Layer(
            replace(attention, sliding_window=None if i % 2 else window),
            experts,
            2 * text.count("hidden_size"),
        )
        for i in range(count)
    ]
    shape = _shape(replace(source, text=text), layers, tied=False, rope_dim=attention.head_dim)
    return replace(shape, rope_elements=2 * shape.rope_elements)  # kept in fp32


def _minimax_m2(source: _Source) -> Shape:
    text = source.text
    hidden = text.count("hidden_size")
    attention = _attention(text, _LLAMA, flat_norms=text.flag("use_qk_norm", True))
    experts = _experts(
        text,
        ("num_local_experts",),
        ("intermediate_size",),
        correction_bias=text.flag("use_routing_bias", True),
        router_bytes=4,
    )
    layers = [Layer(attention, experts, 2 * hidden)] * _num_layers(text)
    rope = text.count("rotary_dim", default=attention.head_dim)
    return _shape(source, layers, tied=False, rope_dim=rope)


def _latent(text: _Fields) -> LatentAttention:
    return LatentAttention(
        text.count("num_attention_heads", most=2**16),
        text.optional("q_lora_rank"),
        text.count("kv_lora_rank"),
        text.count("qk_nope_head_dim"),
        text.count("qk_rope_head_dim"),
        text.count("v_head_dim"),
    )


def _deepseek(source: _Source) -> Shape:
    """DeepSeek V2, V3, V3.2, Kimi K2 and GLM-5: MLA, dense layers first, then experts."""
    text = source.text
    hidden = text.count("hidden_size")
    attention = _latent(text)
    count = _num_layers(text)
    shared_count = text.optional("n_shared_experts", most=2**10)
    width = text.count("moe_intermediate_size")
    experts = _experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared_count) if shared_count else None,
        correction_bias=text.text("topk_method") == "noaux_tc",
        router_bytes=4 if text.text("moe_router_dtype") == "float32" else 0,
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
    tower = _moonvit_tower(source)
    return _shape(source, layers, tied=False, rope_dim=attention.qk_rope_head_dim, tower=tower)


def _skips_indexer(text: _Fields, index: int) -> bool:
    """Whether the layer takes an earlier layer's choice of tokens (vLLM 0.25.1, deepseek_v2.py)."""
    pattern = text.values.get("index_topk_pattern")
    if isinstance(pattern, str | list):
        return index < len(pattern) and pattern[index] == "S"
    frequency = text.count("index_topk_freq", default=1)
    offset = text.count("index_skip_topk_offset", default=2, least=0)
    return max(index - offset + 1, 0) % frequency != 0


def _qwen_hybrid(source: _Source) -> Shape:
    """Qwen3-Next, Qwen3.5 and 3.6: three linear-attention layers, then one of full attention."""
    text = source.text
    hidden = text.count("hidden_size")
    count = _num_layers(text)
    types = _layer_types(text, count)
    if types is None:
        interval = text.count("full_attention_interval", default=4)
        types = ["full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(count)]
    attention = _attention(
        text,
        _Family(head_dim=256, head_norms=2, qkv_bias=text.flag("qkv_bias"), output_bias=False),
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
    )
    has_experts = any(n in text for n in ("num_experts",)) and text.values.get("num_experts") != 0
    feed_forward: FeedForward
    dense = Mlp(text.count("intermediate_size")) if not has_experts else None
    feed_forward = dense or _qwen2_experts(text)
    layers = []
    for i, kind in enumerate(types):
        if kind not in ("full_attention", "linear_attention"):
            raise _UnreadableError(f"{text.path('layer_types')} has '{kind[:40]}'", text.path("layer_types"))
        block = feed_forward
        if has_experts and not _qwen_sparse(text, i):
            block = Mlp(text.count("intermediate_size"))
        layers.append(Layer(attention if kind == "full_attention" else linear, block, 2 * hidden))
    tower = _qwen3_vl_tower(source)
    return _shape(source, layers, tied=False, rope_dim=attention.head_dim, tower=tower)


def _nemotron_h(source: _Source) -> Shape:
    """Nemotron-H: each layer is one of Mamba 2, attention, dense or experts, as its pattern says."""
    text = source.text
    hidden = text.count("hidden_size")
    pattern = text.text("hybrid_override_pattern")
    blocks = text.texts("layers_block_type")
    letters = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}
    if pattern is None and blocks is not None:
        unknown = next((b for b in blocks if b not in letters), None)
        if unknown is not None:
            raise _UnreadableError(f"layers_block_type has '{unknown[:40]}'", "layers_block_type")
        pattern = "".join(letters[b] for b in blocks)
    if not pattern or len(pattern) > MOST_LAYERS or set(pattern) - set("M*E-"):
        raise _UnreadableError(
            "hybrid_override_pattern is not made of M, *, E and -", "hybrid_override_pattern"
        )
    attention = None
    if "*" in pattern:
        attention = _attention(
            text, _Family(qkv_bias=text.flag("attention_bias"), output_bias=text.flag("attention_bias"))
        )
    mamba = Mamba2(
        text.count("mamba_num_heads"),
        text.count("mamba_head_dim"),
        text.count("n_groups"),
        text.count("ssm_state_size"),
        text.count("conv_kernel"),
        state_bytes=4 if text.text("mamba_ssm_cache_dtype") == "float32" else 2,
        bias=text.flag("use_bias"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    experts: Experts | None = None
    if "E" in pattern:
        shared = text.optional("moe_shared_expert_intermediate_size")
        shared_count = text.count("n_shared_experts", default=1, least=0)
        experts = _experts(
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
    rope_dim = attention.head_dim if attention else 0
    return _shape(source, layers, tied=False, rope_dim=rope_dim)


_Reader: TypeAlias = Callable[[_Source], Shape]

READERS: dict[str, _Reader] = {
    "LlamaForCausalLM": _dense(_LLAMA),
    "MistralForCausalLM": _dense(_LLAMA),
    "GraniteForCausalLM": _dense(_LLAMA),
    "MiMoForCausalLM": _dense(_QWEN2),
    "Qwen2ForCausalLM": _dense(_QWEN2),
    "Qwen3ForCausalLM": _dense(_QWEN3),
    "Phi3ForCausalLM": _dense(_PHI3),
    "GemmaForCausalLM": _dense(_GEMMA),
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
    "Gemma3ForConditionalGeneration": _gemma3,
    "MixtralForCausalLM": _mixture(_LLAMA, _mixtral_experts),
    "Qwen2MoeForCausalLM": _mixture(_QWEN2, _qwen2_experts, is_sparse=_qwen_sparse),
    "Qwen3MoeForCausalLM": _mixture(_QWEN3, _qwen3_experts, is_sparse=_qwen_sparse),
    "GptOssForCausalLM": _gpt_oss,
    "MiniMaxM2ForCausalLM": _minimax_m2,
    "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek,
    "DeepseekV32ForCausalLM": _deepseek,
    "GlmMoeDsaForCausalLM": _deepseek,
    "KimiK25ForConditionalGeneration": _deepseek,
    "Qwen3NextForCausalLM": _qwen_hybrid,
    "Qwen3_5ForCausalLM": _qwen_hybrid,
    "Qwen3_5ForConditionalGeneration": _qwen_hybrid,
    "Qwen3_5MoeForCausalLM": _qwen_hybrid,
    "Qwen3_5MoeForConditionalGeneration": _qwen_hybrid,
    "NemotronHForCausalLM": _nemotron_h,
    "Mistral3ForConditionalGeneration": _dense(_LLAMA, _pixtral_tower),
    "PixtralForConditionalGeneration": _dense(_LLAMA, _unknown_tower),
    "Qwen2_5_VLForConditionalGeneration": _dense(_QWEN2, _qwen2_5_vl_tower),
    "Qwen3VLForConditionalGeneration": _dense(_QWEN3, _qwen3_vl_tower),
    "Qwen3VLMoeForConditionalGeneration": _mixture(
        _QWEN3, _qwen3_experts, is_sparse=_qwen_sparse, tower=_qwen3_vl_tower
    ),
}
"""Every architecture a plan knows, by its name in config.json, and what reads it."""


def read_shape(config: Config, *, quantization: Config | None = None) -> Shape | Unsupported:
    """Read a configuration.

    Args:
        config: config.json, or Mistral's params.json.
        quantization: hf_quant_config.json, where the quantisation lies beside the configuration.

    Returns:
        The shape, or why there is none: an architecture nobody here knows, or a field that is missing
        or impossible, by name. Numbers are never guessed; what a class of transformers documents as
        its default is taken.
    """
    try:
        return _read_shape(config, quantization)
    except _UnreadableError as error:
        return Unsupported(error.reason, error.field, _architecture(config))


def _architecture(config: Config) -> str | None:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return None


def _read_shape(config: Config, quantization: Config | None) -> Shape | Unsupported:
    if "architectures" not in config and "n_layers" in config and "dim" in config:
        config = _from_params(_Fields(config))
    architecture = _architecture(config)
    if architecture is None:
        return Unsupported("the configuration names no architecture", "architectures")
    reader = READERS.get(architecture)
    if reader is None:
        return Unsupported(f"no plan for the architecture {architecture[:80]}", "architectures", architecture)
    root = _Fields(config)
    text = root.section("text_config") or root
    return reader(_Source(architecture, root, text, quantization))


def _from_params(params: _Fields) -> Config:
    """Mistral's params.json in config.json's words (vLLM's MistralConfigParser does the same)."""
    if "moe" in params or "q_lora_rank" in params or "kv_lora_rank" in params:
        raise _UnreadableError("no plan for a params.json with experts or latent attention", "moe")
    config: dict[str, Json] = {
        "architectures": [
            "PixtralForConditionalGeneration" if "vision_encoder" in params else "MistralForCausalLM"
        ],
        "tie_word_embeddings": params.flag("tied_embeddings"),
    }
    names = {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads", "intermediate_size": "hidden_dim", "head_dim": "head_dim",
        "vocab_size": "vocab_size",
    }  # fmt: skip
    for name, short in names.items():
        if params.values.get(short) is not None:
            config[name] = params.values[short]
    # vLLM takes 128,000 where params.json states no length.
    config["max_position_embeddings"] = params.count(
        "max_position_embeddings", "max_seq_len", default=128_000, most=LONGEST_CONTEXT
    )
    window = params.values.get("sliding_window")
    if isinstance(window, int):
        config["sliding_window"] = window
    for name in ("vision_encoder",):
        if name in params:
            config[name] = params.values[name]
    quantization = params.section("quantization")
    if quantization is not None:
        if quantization.text("qformat_weight") == "fp8_e4m3":
            config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static"}
        else:
            raise _UnreadableError("the quantisation of params.json is not one a plan knows", "quantization")
    return config

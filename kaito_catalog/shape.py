"""A model's shape: config.json (or params.json) read once into typed layers, or why it cannot be."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
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


@dataclass(frozen=True)
class CompressedAttention:
    """DeepSeek V4: a short sliding window, and beside it latents of 4 or 128 tokens each."""

    num_attention_heads: int
    head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    sliding_window: int
    compress_ratio: int
    """Tokens per latent: 0 (only the window), 4 or 128."""
    indexer: Indexer | None
    """Where the ratio is 4."""
    hyper_elements: int
    """fp32 parameters of the layer's hyper-connections."""

    @property
    def kind(self) -> AttentionKind:
        """What the layer keeps."""
        return AttentionKind.MLA


Mixer: TypeAlias = Attention | LatentAttention | CompressedAttention | GatedDeltaNet | Mamba2


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
    table_elements: int = 0
    """int32 entries of a table that routes by the token's number (DeepSeek V4's first layers)."""
    scheme: Scheme | None = None
    """How the experts are quantised where it differs from the rest."""


FeedForward: TypeAlias = Mlp | Experts


class Scheme(Enum):
    """How one module's weights are stored on the GPU, as vLLM's linear methods allocate them."""

    FP8_BLOCK = "fp8-block"
    FP8_TENSOR = "fp8-tensor"
    EIGHT_BIT_CHANNEL = "8-bit-channel"
    """fp8 or int8 with a scale per output."""
    MXFP4_EXPERTS = "mxfp4-experts"
    """Only the experts are quantised."""
    NVFP4 = "nvfp4"
    GROUPED_INT = "grouped-int"
    """compressed-tensors' pack-quantized: packed integers, a scale per group."""
    AWQ = "awq"
    GPTQ = "gptq"


@dataclass(frozen=True)
class Layer:
    """One layer of the decoder."""

    mixer: Mixer | None
    feed_forward: FeedForward | None
    norm_elements: int
    unquantized: tuple[str, ...] = ()
    """Modules of this layer that keep the model's dtype: their names below the layer, `*` allowed."""
    schemes: tuple[tuple[str, Scheme], ...] = ()
    """Under mixed quantisation: the modules of this layer that are quantised, and how."""

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __hash__(self) -> int:
        """Made once: a plan looks up each shape and its layers thousands of times."""
        return self._hash


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
    divided: bool = True
    """Whether tensor parallelism cuts it, so that its heads must be a multiple of the ranks."""


class Place(Enum):
    """Parts that most models have on one pipeline stage, and some on all."""

    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    TOWER = "tower"


@dataclass(frozen=True)
class Quantization:
    """How the weights are stored."""

    method: str
    """fp8, mxfp4, compressed-tensors, modelopt, awq, gptq …"""
    scheme: Scheme | None
    """None where a module has its own (`mixed`), or where nobody here knows the method."""
    mixed: bool = False
    bits: int = 8
    group_size: int | None = None
    weight_block: tuple[int, int] | None = None
    scale_bytes: int = 4
    """Of a block's scale."""
    static_activations: bool = False
    ignored: tuple[str, ...] = ()
    """Modules outside the layers, and regular expressions, that keep the model's dtype."""
    lm_head: Scheme | None = None
    """Where the output embedding is quantised."""
    problem: str | None = None
    """Why the bytes cannot be computed, where they cannot."""
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
    on_every_stage: frozenset[Place] = frozenset()
    """What vLLM builds on every pipeline stage, needed there or not."""

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __hash__(self) -> int:
        """Made once: a plan looks up each shape and its layers thousands of times."""
        return self._hash

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


def _ignored(section: _Fields) -> tuple[str, ...] | None:
    """The modules that are left alone; None where no such list was found."""
    found: list[str] | None = None
    for name in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude"):
        value = section.values.get(name)
        if isinstance(value, list):
            found = [*(found or []), *(v for v in value if isinstance(v, str))]
    return None if found is None else tuple(found)


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


def _block(section: _Fields, name: str) -> tuple[int, int] | None:
    block = section.values.get(name)
    if block is None:
        return None
    if not (isinstance(block, list) and len(block) == 2):
        raise _UnreadableError(f"{section.path(name)} is not two sizes", section.path(name))
    sizes = [b for b in block if isinstance(b, int) and not isinstance(b, bool) and 0 < b <= 2**16]
    if len(sizes) != 2:
        raise _UnreadableError(f"{section.path(name)} is not two sizes", section.path(name))
    return sizes[0], sizes[1]


MODELOPT_SCHEMES = {
    "FP8": Scheme.FP8_TENSOR,
    "NVFP4": Scheme.NVFP4,
    "W4A16_NVFP4": Scheme.NVFP4,
}


def _quantization(source: _Source) -> Quantization | None:
    section = source.root.section("quantization_config") or source.text.section("quantization_config")
    section = section or source.root.section("compression_config")
    from_file = section is None and source.quant_file is not None
    if from_file and source.quant_file is not None:
        section = _Fields(source.quant_file, "hf_quant_config.").section("quantization")
    if section is None:
        return None
    method = section.text("quant_method") or ("modelopt" if from_file else None)
    if method is None:
        problem = "its quantization_config names no quant_method"
        return Quantization("unnamed", None, problem=problem)
    ignored = _ignored(section)
    plain = Quantization(
        method,
        None,
        ignored=ignored or (),
        kv_cache_dtype=_kv_cache_dtype(section, method),
        problem=f"no plan for weights quantised with {method[:40]}",
    )
    match method:
        case "fp8":
            if section.text("quant_algo") is not None:
                return replace(plain, problem="no plan for fp8 with a second quantisation within")
            block = _block(section, "weight_block_size")
            return replace(
                plain,
                scheme=Scheme.FP8_BLOCK if block else Scheme.FP8_TENSOR,
                weight_block=block,
                static_activations=section.text("activation_scheme") == "static",
                problem=None,
            )
        case "mxfp4":
            return replace(plain, scheme=Scheme.MXFP4_EXPERTS, problem=None)
        case "modelopt":
            return _modelopt(section, plain, ignored is not None)
        case "compressed-tensors":
            return _compressed_tensors(section, plain)
        case "awq" | "gptq":
            bits = section.count("bits", "w_bit", default=4, most=8, least=2)
            group = section.values.get("group_size", section.values.get("q_group_size", 128))
            if not isinstance(group, int) or isinstance(group, bool) or group < 1:
                return plain
            if section.values.get("dynamic") or 32 % bits:
                return plain
            scheme = Scheme.AWQ if method == "awq" else Scheme.GPTQ
            return replace(plain, scheme=scheme, bits=bits, group_size=group, problem=None)
        case _:
            return plain


def _modelopt(section: _Fields, plain: Quantization, has_list: bool) -> Quantization:
    algorithm = section.text("quant_algo") or ""
    modules = section.values.get("quantized_layers")
    if algorithm == "MIXED_PRECISION" and isinstance(modules, dict):
        head = modules.get("lm_head")
        lm_head = MODELOPT_SCHEMES.get(str(head.get("quant_algo"))) if isinstance(head, dict) else None
        return replace(
            plain,
            mixed=True,
            static_activations=True,
            lm_head=lm_head,
            group_size=section.count("group_size", default=16),
            problem=None,
        )
    scheme = MODELOPT_SCHEMES.get(algorithm)
    if scheme is None:
        return replace(plain, problem=f"no plan for weights quantised with modelopt {algorithm[:40]}")
    if not has_list:
        return replace(plain, problem="nobody has read which modules its quantisation leaves alone")
    return replace(
        plain,
        scheme=scheme,
        static_activations=True,
        group_size=section.count("group_size", default=16),
        problem=None,
    )


def _compressed_tensors(section: _Fields, plain: Quantization) -> Quantization:
    groups = section.section("config_groups")
    if groups is None or len(groups.values) != 1:
        return replace(plain, problem="no plan for compressed-tensors with several groups")
    group = groups.section(next(iter(groups.values)))
    weights = group.section("weights") if group else None
    if group is None or weights is None or group.values.get("targets", ["Linear"]) != ["Linear"]:
        return replace(plain, problem="no plan for these targets of compressed-tensors")
    bits = weights.count("num_bits", most=16)
    strategy = weights.text("strategy")
    activations = group.section("input_activations")
    static = activations is not None and activations.values.get("dynamic") is False
    kind = section.text("format") or group.text("format") or ""
    block = _block(weights, "block_structure")
    scheme: Scheme | None = None
    size: int | None = None
    if bits == 8 and strategy == "channel" and not static:
        scheme = Scheme.EIGHT_BIT_CHANNEL
    elif bits == 8 and strategy == "tensor":
        scheme = Scheme.FP8_TENSOR
    elif bits == 8 and strategy == "block" and block is not None:
        scheme = Scheme.FP8_BLOCK
    elif bits == 4 and "nvfp4" in kind:
        scheme, size, static = Scheme.NVFP4, 16, True
    elif bits in (4, 8) and kind == "pack-quantized" and not weights.values.get("actorder"):
        scheme, size = Scheme.GROUPED_INT, weights.count("group_size", default=0, least=0) or None
        if size is None:
            scheme = None
    if scheme is None:
        problem = f"no plan for weights quantised with compressed-tensors {kind[:40]}"
        return replace(plain, problem=problem)
    return replace(
        plain,
        scheme=scheme,
        bits=bits,
        group_size=size,
        weight_block=block if scheme is Scheme.FP8_BLOCK else None,
        static_activations=static,
        problem=None,
    )


_LAYER_NAME = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.(.*)|(\*))$")


_PARTS = {
    "block_sparse_moe": "mlp",
    "feed_forward": "mlp",
    "shared_experts": "shared_expert",
}
_MIXER_PARTS = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "in_proj": "mixer.in_proj",
    "out_proj": "mixer.out_proj",
}


def _local_name(rest: str) -> str:
    """A module's name below its layer in the words of weights.py, whatever the checkpoint calls it."""
    parts = rest.split(".")
    if parts[0] == "mixer" and len(parts) > 1:
        known = _MIXER_PARTS.get(parts[1])
        parts = known.split(".") + parts[2:] if known else ["mlp", *parts[1:]]
    parts = [
        _PARTS.get(part.rstrip("*"), part.rstrip("*")) + ("*" if part.endswith("*") else "") for part in parts
    ]
    if parts[:2] in (["mlp", "experts"], ["moe", "experts"]):
        # Single experts are listed one by one; they have one scheme in vLLM.
        return ".".join(parts[:2])
    return ".".join(parts)


def _per_layer(names: Iterable[str], count: int) -> list[dict[str, str]]:
    """Names of modules sorted to the layers they lie in: the name below the layer to the whole name."""
    found: list[dict[str, str]] = [{} for _ in range(count)]
    for name in names:
        match = _LAYER_NAME.search(name)
        # Draft layers (MTP) are not loaded, and count from 0 again.
        if match and int(match[1]) < count and not name.startswith("mtp"):
            rest = match[2] or "*"
            # Norms, routers and biases are never quantised: leaving them out keeps equal layers equal.
            if not rest.endswith(("norm", "bias", ".gate", "norm.weight", "router", "conv1d", "_gate")):
                found[int(match[1])][_local_name(rest)] = name
    return found


def _with_quantization(
    layers: list[Layer], quantization: Quantization, modules: Mapping[str, Json]
) -> list[Layer]:
    """The layers, each with the names of its modules that are quantised differently from the rest."""
    if quantization.mixed:
        schemes = {
            name: MODELOPT_SCHEMES[algorithm]
            for name, how in modules.items()
            if isinstance(how, dict) and (algorithm := str(how.get("quant_algo"))) in MODELOPT_SCHEMES
        }
        listed = _per_layer(schemes, len(layers))
        return [
            replace(x, schemes=tuple(sorted(((k, schemes[v]) for k, v in mine.items()), key=lambda p: p[0])))
            for x, mine in zip(layers, listed, strict=True)
        ]
    listed = _per_layer(quantization.ignored, len(layers))
    return [replace(x, unquantized=tuple(sorted(mine))) for x, mine in zip(layers, listed, strict=True)]


def _quantized_modules(source: _Source) -> Mapping[str, Json]:
    for fields in (source.root, source.text):
        section = fields.section("quantization_config")
        if section is not None and isinstance(section.values.get("quantized_layers"), dict):
            return cast(Mapping[str, Json], section.values["quantized_layers"])
    if source.quant_file is not None:
        inner = source.quant_file.get("quantization")
        if isinstance(inner, dict) and isinstance(inner.get("quantized_layers"), dict):
            return cast(Mapping[str, Json], inner["quantized_layers"])
    return {}


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
    if quantization is not None:
        layers = _with_quantization(layers, quantization, _quantized_modules(source))
        kept = tuple(n for n in quantization.ignored if n.startswith("re:") or not _LAYER_NAME.search(n))
        quantization = replace(quantization, ignored=kept)
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
        router_bytes=4
        if text.text("moe_router_dtype") == "float32" or source.root.text("model_type") == "glm_moe_dsa"
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
    tower = _moonvit_tower(source) if source.architecture.startswith("Kimi") else None
    return _shape(source, layers, tied=False, rope_dim=attention.qk_rope_head_dim, tower=tower)


def _deepseek_v4(source: _Source) -> Shape:
    """DeepSeek V4 (vLLM 0.25.1, vllm/models/deepseek_v4): compressed attention and hyper-connections."""
    text = source.text
    hidden = text.count("hidden_size")
    count = _num_layers(text)
    ratios = text.values.get("compress_ratios")
    if not isinstance(ratios, list) or len(ratios) < count or set(ratios[:count]) - {0, 4, 128}:
        raise _UnreadableError("compress_ratios is not a ratio of 0, 4 or 128 per layer", "compress_ratios")
    streams = text.count("hc_mult", most=64)
    mixes = streams * (streams + 2)
    hyper = 2 * (mixes * streams * hidden + mixes + 3)
    heads = text.count("num_attention_heads", most=2**16)
    indexer = Indexer(text.count("index_n_heads"), text.count("index_head_dim"))
    width = text.count("moe_intermediate_size")
    shared = text.count("n_shared_experts", default=1, most=2**10)
    experts = _experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared),
        correction_bias=True,
        scheme=Scheme.MXFP4_EXPERTS if text.text("expert_dtype") == "fp4" else None,
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
            raise _UnreadableError(f"o_groups {mixer.o_groups} does not divide the heads", "o_groups")
        layers.append(Layer(mixer, hashed if i < hash_layers else experts, 2 * hidden))
    shape = _shape(
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
    return replace(shape, rope_elements=8 * shape.rope_elements)  # fp32, for each kind of layer


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


def _gemma4(source: _Source) -> Shape:
    """Gemma 4: sliding layers with small heads, global ones with large; some read another layer's cache."""
    text = source.text
    hidden = text.count("hidden_size")
    count = _num_layers(text)
    types = _layer_types(text, count)
    if types is None or set(types) - {"sliding_attention", "full_attention"}:
        field = text.path("layer_types")
        raise _UnreadableError(f"{field} is missing or names a kind nobody knows", field)
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    family = _Family(head_dim=256, head_norms=2, tied=True)
    sliding = _attention(text, family, sliding_window=window)
    head_dim = text.count("global_head_dim", default=sliding.head_dim)
    kv_heads = sliding.num_key_value_heads
    if text.flag("attention_k_eq_v"):
        kv_heads = text.count("num_global_key_value_heads", default=kv_heads, most=2**16)
    if sliding.num_attention_heads % kv_heads:
        field = text.path("num_global_key_value_heads")
        raise _UnreadableError(f"attention heads are not a multiple of {kv_heads} KV heads", field)
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
    return _shape(
        source,
        layers,
        tied=True,
        rope_dim=head_dim,
        tower=_gemma4_tower(source),
        embedding_elements=embedding,
        plain_elements=plain,
    )


def _gemma4_tower(source: _Source) -> Tower | None:
    """transformers' Gemma 4 encoders, which vLLM 0.25.1 (gemma4_mm.py) uses as they are: never divided."""
    vision, audio = _vision(source), source.root.section("audio_config")
    if vision is None and audio is None:
        return None
    hidden = source.text.count("hidden_size")
    plain = 0
    matrices: list[Matrix] = []

    def whole(inputs: int, outputs: int, count: int = 1, bias: bool = False) -> None:
        matrices.append(Matrix(inputs, outputs, "none", bias, count))

    if vision is not None and "mm_embed_dim" in vision:  # Gemma 4 12B: no encoder, patches are embedded
        width = vision.count("mm_embed_dim")
        patch = 3 * vision.count("model_patch_size") ** 2
        plain += vision.count("mm_posemb_size") * 2 * width + 2 * patch + 4 * width
        matrices.append(Matrix(patch, width, "column"))
        whole(vision.count("output_proj_dims", default=width), hidden)
    elif vision is not None:
        width = vision.count("hidden_size")
        depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
        heads = vision.count("num_attention_heads")
        head_dim = vision.count("head_dim", default=width // heads)
        wide = vision.count("intermediate_size")
        kv_width = vision.count("num_key_value_heads", default=heads) * head_dim
        plain += 2 * vision.count("position_embedding_size", default=10240) * width
        plain += depth * (2 * head_dim + 4 * width)
        whole(3 * vision.count("patch_size", default=16) ** 2, width)
        whole(width, heads * head_dim, depth)
        whole(width, kv_width, 2 * depth)
        whole(heads * head_dim, width, depth)
        whole(width, wide, 2 * depth)
        whole(wide, width, depth)
        whole(width, hidden)
    if audio is not None and "audio_embed_dim" in audio:
        whole(audio.count("audio_embed_dim"), hidden)
    elif audio is not None:
        width = audio.count("hidden_size")
        depth = audio.count("num_hidden_layers", most=MOST_LAYERS)
        heads = audio.count("num_attention_heads")
        channels = audio.values.get("subsampling_conv_channels")
        if not (
            isinstance(channels, list) and len(channels) == 2 and all(isinstance(c, int) for c in channels)
        ):
            raise _UnreadableError(
                "audio_config.subsampling_conv_channels is not two counts", "subsampling_conv_channels"
            )
        first, second = cast(list[int], channels)
        kernel = audio.count("conv_kernel_size", default=5)
        out = audio.count("output_proj_dims", default=1536)
        plain += 9 * first + first + 9 * first * second + second
        # Norms of two feed-forward blocks, of the convolution and around attention; scales of one head.
        plain += depth * (4 * width + 2 * width + 3 * width + width // heads + kernel * width)
        whole(second * 32, width)
        whole(width, 4 * width, 2 * depth)
        whole(4 * width, width, 2 * depth)
        whole(width, width, 5 * depth)
        whole(width, 2 * width, depth)
        whole(width, width, depth)
        whole(width, out, bias=True)
        whole(out, hidden)
    return Tower("vision", 1, tuple(matrices), plain, divided=False)


def _llama4(source: _Source) -> Shape:
    """Llama 4: three layers of chunked attention, then one that sees all; experts, or in turn with dense."""
    text = source.text
    hidden = text.count("hidden_size")
    count = _num_layers(text)
    chunk = text.optional("attention_chunk_size", most=LONGEST_CONTEXT)
    attention = _attention(text, _LLAMA)
    width = text.count("intermediate_size")
    step = text.count("interleave_moe_layer_step", default=1, least=0)
    experts = replace(_experts(text, ("num_local_experts",), ("intermediate_size",)), shared=Mlp(width))
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
    return _shape(source, layers, tied=False, rope_dim=attention.head_dim, tower=_llama4_tower(source))


def _llama4_tower(source: _Source) -> Tower | None:
    """vLLM 0.25.1's mllama4.py with Llama4VisionConfig's defaults (transformers)."""
    if not source.architecture.endswith("ForConditionalGeneration"):
        return None
    vision = _vision(source) or _Fields({}, "vision_config.")
    width = vision.count("hidden_size", default=768)
    depth = vision.count("num_hidden_layers", default=34, most=MOST_LAYERS)
    wide = vision.count("intermediate_size", default=5632)
    patch = vision.count("patch_size", default=14)
    patches = (vision.count("image_size", default=448) // patch) ** 2
    middle = vision.count("projector_input_dim", default=4096)
    out = vision.count("projector_output_dim", default=4096)
    return Tower(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(3 * patch * patch, width, "column", bias=False),
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(wide, middle, "column", bias=False),
            Matrix(middle, out, "row", bias=False),
            Matrix(
                vision.count("vision_output_dim", default=7680),
                source.text.count("hidden_size"),
                "column",
                bias=False,
            ),
        ),
        width + (patches + 1) * width + 4 * width + depth * 4 * width,
    )


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
    "DeepseekV4ForCausalLM": _deepseek_v4,
    "GlmMoeDsaForCausalLM": _deepseek,
    "KimiK25ForConditionalGeneration": _deepseek,
    "Qwen3NextForCausalLM": _qwen_hybrid,
    "Qwen3_5ForCausalLM": _qwen_hybrid,
    "Qwen3_5ForConditionalGeneration": _qwen_hybrid,
    "Qwen3_5MoeForCausalLM": _qwen_hybrid,
    "Qwen3_5MoeForConditionalGeneration": _qwen_hybrid,
    "NemotronHForCausalLM": _nemotron_h,
    "Gemma4ForCausalLM": _gemma4,
    "Gemma4ForConditionalGeneration": _gemma4,
    "Gemma4UnifiedForConditionalGeneration": _gemma4,
    "Llama4ForCausalLM": _llama4,
    "Llama4ForConditionalGeneration": _llama4,
    "Mistral3ForConditionalGeneration": _dense(_LLAMA, _pixtral_tower),
    "Qwen2_5_VLForConditionalGeneration": _dense(_QWEN2, _qwen2_5_vl_tower),
    "Qwen3VLForConditionalGeneration": _dense(_QWEN3, _qwen3_vl_tower),
    "Qwen3VLMoeForConditionalGeneration": _mixture(
        _QWEN3, _qwen3_experts, is_sparse=_qwen_sparse, tower=_qwen3_vl_tower
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
    "Gemma4ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.NORM, Place.TOWER}),
    "Gemma4UnifiedForConditionalGeneration": frozenset({Place.EMBEDDING, Place.NORM, Place.TOWER}),
    "Llama4ForConditionalGeneration": frozenset({Place.TOWER}),
    "Mistral3ForConditionalGeneration": frozenset({Place.TOWER}),
    "PixtralForConditionalGeneration": frozenset({Place.TOWER}),
    "Qwen3VLForConditionalGeneration": frozenset({Place.TOWER}),
    "Qwen3VLMoeForConditionalGeneration": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM, Place.TOWER}),
    "KimiK25ForConditionalGeneration": frozenset({Place.TOWER}),
    "Qwen2_5_VLForConditionalGeneration": frozenset({Place.TOWER}),
    "NemotronHForCausalLM": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
    "Gemma3ForCausalLM": frozenset({Place.EMBEDDING, Place.NORM}),
    "Gemma3ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.NORM, Place.TOWER}),
    "Qwen3_5ForConditionalGeneration": frozenset({Place.EMBEDDING, Place.TOWER}),
    "Qwen3_5MoeForConditionalGeneration": frozenset({Place.EMBEDDING, Place.TOWER}),
}
"""Classes of vLLM 0.25.1 that do not ask which stage they are on before they build these parts."""

BY_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""What vLLM takes where config.json names no architecture (transformers' table of causal models)."""


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
        model_type = config.get("model_type")
        architecture = BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        return Unsupported("the configuration names no architecture", "architectures")
    reader = READERS.get(architecture)
    if reader is None:
        return Unsupported(f"no plan for the architecture {architecture[:80]}", "architectures", architecture)
    root = _Fields(config)
    text = root.section("text_config") or root
    shape = reader(_Source(architecture, root, text, quantization))
    return replace(shape, on_every_stage=ON_EVERY_STAGE.get(architecture, frozenset()))


def _from_params(params: _Fields) -> Config:
    """Mistral's params.json in config.json's words (vLLM 0.25.1, transformers_utils/configs/mistral.py)."""
    names = {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads", "intermediate_size": "hidden_dim", "head_dim": "head_dim",
        "vocab_size": "vocab_size", "q_lora_rank": "q_lora_rank", "kv_lora_rank": "kv_lora_rank",
        "qk_nope_head_dim": "qk_nope_head_dim", "qk_rope_head_dim": "qk_rope_head_dim",
        "v_head_dim": "v_head_dim", "quantization_config": "quantization_config",
    }  # fmt: skip
    text = {name: params.values[short] for name, short in names.items() if short in params}
    text["tie_word_embeddings"] = params.flag("tied_embeddings")
    longest = params.count("max_position_embeddings", default=128_000, most=LONGEST_CONTEXT)
    text["max_position_embeddings"] = longest
    text["max_seq_len"] = params.count("max_seq_len", default=longest, most=LONGEST_CONTEXT)
    window = params.values.get("sliding_window")
    if isinstance(window, list):
        raise _UnreadableError("no plan for a params.json with a window per layer", "sliding_window")
    if window is not None:
        text["sliding_window"] = window
    architecture = "MistralForCausalLM"
    moe = params.section("moe")
    if moe is not None:
        if not (moe.optional("num_shared_experts") and "kv_lora_rank" in params):
            raise _UnreadableError("no plan for these experts of a params.json", "moe")
        architecture = "MistralLarge3ForCausalLM"
        experts = {
            "moe_layer_freq": "route_every_n", "first_k_dense_replace": "first_k_dense_replace",
            "num_experts_per_tok": "num_experts_per_tok", "n_routed_experts": "num_experts",
            "moe_intermediate_size": "expert_hidden_dim", "n_shared_experts": "num_shared_experts",
        }  # fmt: skip
        text |= {name: moe.values[short] for name, short in experts.items() if short in moe}
    elif "kv_lora_rank" in params:
        raise _UnreadableError(
            "no plan for a params.json with latent attention and no experts", "kv_lora_rank"
        )
    yarn = params.section("yarn")
    if yarn is not None:
        text["rope_parameters"] = {
            "rope_type": "yarn",
            "factor": yarn.values.get("factor"),
            "original_max_position_embeddings": yarn.values.get("original_max_position_embeddings"),
        }
    quantization = params.section("quantization")
    if quantization is not None:
        text["quantization_config"] = _params_quantization(quantization)
    vision = params.section("vision_encoder")
    multimodal = params.section("multimodal")
    if vision is None and multimodal is not None:
        vision = multimodal.section("vision_encoder_args")
    if vision is None:
        return {"architectures": [architecture], **text}
    return {
        "architectures": ["PixtralForConditionalGeneration"],
        "text_config": {"architectures": [architecture], **text},
        "vision_config": dict(vision.values),
        **({"quantization_config": text["quantization_config"]} if "quantization_config" in text else {}),
    }


def _params_quantization(quantization: _Fields) -> Json:
    if quantization.text("qformat_weight") == "fp8_e4m3":
        is_dynamic = quantization.text("qscheme_act") == "NO_SCALES"
        return {"quant_method": "fp8", "activation_scheme": "dynamic" if is_dynamic else "static"}
    method = (quantization.text("quant_method") or "").lower().replace("_", "-")
    if method == "compressed-tensors":
        return {**quantization.values, "quant_method": method}
    raise _UnreadableError("no plan for the quantization of this params.json", "quantization")


def _pixtral(source: _Source) -> Shape:
    """Mistral's own format with images: a decoder of its, and its encoder (vLLM 0.25.1, pixtral.py)."""
    inner = source.text.texts("architectures")
    vision = _vision(source)
    if vision is None or not inner:
        return _dense(_LLAMA, _pixtral_tower)(source)
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
    tower = Tower("vision", vision.count("num_attention_heads"), tuple(matrices), plain)
    return replace(decoder, architecture=source.architecture, tower=tower)


READERS["PixtralForConditionalGeneration"] = _pixtral
READERS["MistralLarge3ForCausalLM"] = _deepseek

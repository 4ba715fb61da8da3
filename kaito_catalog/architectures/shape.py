"""A model's shape in types: layers and their feed-forward blocks, encoders, quantisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TypeAlias

from kaito_catalog.architectures.mixers import Attention, LatentAttention, Mixer, Recurrent

# As pydantic's JsonValue; this module and what the plan is made of import nothing but the standard library.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Config: TypeAlias = Mapping[str, Json]

MOST_LAYERS = 1_000
LARGEST_DIMENSION = 2**24
LONGEST_CONTEXT = 10**9


@dataclass(frozen=True)
class Mlp:
    """A dense feed-forward block; gated ones have two input matrices."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False
    replicated: bool = False
    """Every rank has all of it (StarCoder)."""
    input_replicated: bool = False
    """Every rank has all of what comes before the activation (ModernBERT)."""


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
    router_quantized: bool = False
    """Quantised like any other matrix, unless the configuration leaves it out (Qwen3)."""
    correction_bias: bool = False
    """One fp32 number per expert that balances the routing."""
    shared: Mlp | None = None
    shared_gate: bool = False
    latent_size: int | None = None
    """Width the experts work in, where it is not hidden_size (Nemotron-H's latent experts, Kimi K3's)."""
    dense: Mlp | None = None
    """A dense block beside the experts (Gemma 4)."""
    expert_parallel: bool = True
    """Whether expert parallelism deals them out; where it does not, ranks of tensor parallelism cut them (Arctic)."""
    least_width: int = 0
    """Width that an expert has at least where ranks divide it: narrower parts are padded."""
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
    MXFP4 = "mxfp4"
    """4-bit floats with a one-byte scale for 32 inputs, every matrix (compressed-tensors)."""
    NVFP4 = "nvfp4"
    NVFP4_WEIGHTS = "nvfp4-weights"
    """The same with inputs as they are (W4A16_NVFP4)."""
    MXFP8 = "mxfp8"
    """fp8 with a one-byte scale for 32 inputs."""
    GROUPED_INT = "grouped-int"
    """compressed-tensors' pack-quantized: packed integers, a scale per group."""
    AWQ = "awq"
    GPTQ = "gptq"
    FP8_MATRIX = "fp8-matrix"
    """fp8 with one scale for a matrix, of however many parts: what vLLM makes of weights while it loads them."""
    FP8_BLOCK_PADDED = "fp8-block-padded"
    """fp8 in blocks of which the last of any part may be incomplete: likewise."""
    MXFP8_PADDED = "mxfp8-padded"
    """mxfp8 whose outputs are padded for its kernel: likewise."""
    INT8_EXPERTS = "int8-experts"
    """int8 with a scale per output, the experts alone: likewise."""
    NF4 = "nf4"
    """bitsandbytes' 4 bits, with an fp32 number for each block of 64 weights beside the parameter."""


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
    beside: FeedForward | None = None
    """A second block, which every token passes too (Gemma 3n's LAuReL), or those of images (Ernie 4.5 VL)."""
    state: Recurrent | None = None
    """What keeps a state beside an attention in the same layer (Falcon-H1)."""
    second: LatentAttention | None = None
    """Another attention, after the first, in the same layer (LongCat-Flash)."""
    echoes: tuple[Attention, ...] = ()
    """Attentions that keep a cache here and whose parameters are elsewhere: of a layer that is run again (Ouro)."""
    hyper_elements: int = 0
    """fp32 parameters of the layer's hyper-connections, where the mixer does not count them."""

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """All that mix tokens in the layer, and keep something of them."""
        return tuple(m for m in (self.mixer, self.state, self.second, *self.echoes) if m is not None)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __hash__(self) -> int:
        """Made once: a plan looks up each shape and its layers thousands of times."""
        return self._hash


@dataclass(frozen=True)
class Matrix:
    """A linear layer of an encoder: `split` says how tensor parallelism cuts it."""

    inputs: int
    outputs: int
    split: str
    """column, row or none; heads-column and heads-row are whole where the ranks do not divide the heads."""
    bias: bool = True
    count: int = 1
    quantized: bool | None = None
    """Whether vLLM quantises it with the encoder. None: where ranks divide it, since the others are torch's own."""


@dataclass(frozen=True)
class Medium:
    """The item of most tokens that an encoder takes; vLLM profiles it with as many as its budget holds."""

    tokens: int
    patches: int
    hidden_size: int
    wide: int
    """Elements per patch that the feed-forward block holds beside the hidden states."""
    pixels: int
    """Elements of a patch itself."""
    most_images: int = 1
    """A video is as many images as the context holds, at most this many."""
    outputs: int = 1
    """Embeddings that the decoder gets for each token: its input, and those of deepstack layers."""
    fuses_norms: bool = False
    """Whether older versions add the residual to its norm in place: two hidden states less."""
    piece: int = 0
    """Patches of one frame, where the encoder takes as many frames at once as a share of the GPU allows; 0: all."""
    piece_bytes: int = 0
    """What vLLM reckons a frame to take there."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of images (or other media) and its projector."""

    kind: str
    num_heads: int
    matrices: tuple[Matrix, ...] | None
    """None: an encoder whose size is not computed."""
    plain_elements: int = 0
    """Norms, embeddings, convolutions: replicated."""
    divided: bool = True
    """Whether tensor parallelism cuts it, so that its heads must be a multiple of the ranks."""
    medium: Medium | None = None
    """None: unknown what vLLM profiles it with."""
    quantized: bool = False
    """Whether vLLM quantises its matrices like the decoder's, unless the configuration leaves them out."""


class StagePart(Enum):
    """Parts that most models have on one pipeline stage, and some on all."""

    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    ENCODER = "encoder"


UNNAMED = "unnamed"
"""The method of a quantisation whose configuration names none."""


@dataclass(frozen=True)
class Quantization:
    """How the weights are stored."""

    method: str
    """fp8, mxfp4, compressed-tensors, modelopt, awq, gptq …"""
    scheme: Scheme | None
    """None where a module has its own (`mixed`), or where the method is unknown."""
    mixed: bool = False
    bits: int = 8
    group_size: int | None = None
    weight_block: tuple[int, int] | None = None
    scale_bytes: int = 4
    """Of a block's scale."""
    static_activations: bool = False
    act_order: bool = False
    """Inputs in another order (GPTQ's `desc_act`, `actorder: group`): each rank then has the scales of all of them."""
    zero_points: bool = False
    """Integers in groups whose zero is stored too."""
    ignored: tuple[str, ...] = ()
    """Modules outside the layers, and regular expressions, that keep the model's dtype."""
    only: tuple[str, ...] = ()
    """Parts of the names of those linear modules that are quantised, where they are listed (GPTQ)."""
    lm_head: Scheme | None = None
    """Where the output embedding is quantised."""
    problem: str | None = None
    """Why the bytes cannot be computed, where they cannot."""
    kv_cache_dtype: str | None = None
    """What the configuration asks of the KV cache where no argument does."""
    is_partial: bool = False
    """The configuration names the method and not what every published one says beside it: part of it is missing."""
    refused: str | None = None
    """Why vLLM does not take it: none, or not the version that is asked."""
    registers_order: bool = True
    """Matrices in groups of integers register an order of their inputs, used or not."""
    short_scales: bool = False
    """NVFP4 without quantised inputs keeps one of its scales in the model's dtype."""
    refines_blocks: bool = False
    """Experts' fp8 blocks that the ranks would cut become smaller ones."""
    while_loading: bool = False
    """vLLM makes it of weights that are stored unquantised: whatever it takes is quantised, also in an encoder."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on, as the configuration says; `as_built` makes a `BuiltShape` of it."""

    architecture: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tie_word_embeddings: bool
    dtype: str
    quantization: Quantization | None
    encoder: Encoder | None
    max_model_len: int
    """The longest context vLLM accepts without being told to ignore the model's own limit."""
    rope_elements: int
    """Elements of the rotary tables, which vLLM keeps beside the parameters."""
    final_norm_elements: int
    embedding_elements: int = 0
    """Per-layer embeddings and kin, divided like the vocabulary (Gemma 4's small models)."""
    plain_elements: int = 0
    """Parameters outside the layers that every rank holds."""
    divided_elements: int = 0
    """Parameters outside the layers of which every rank holds its share, on every stage (reward models' heads)."""
    position_elements: int = 0
    """Learnt positions, whole wherever the embedding is (StarCoder)."""
    lm_head_bias: bool = False
    pools: bool = False
    """Gives embeddings or scores: nothing is sampled."""
    has_head: bool = True
    """Whether there is an output embedding, tied or not."""
    embedding_replicated: bool = False
    """Every rank holds the embedding as it is stored, neither padded nor divided (Whisper)."""
    draft_layers: int = 0
    """Of a partial configuration: layers for speculation that are in the weight files and are not loaded."""
    is_partial: bool = False
    """Part of the configuration is missing: of the quantisation, or all of an encoder."""
    decoder: str | None = None
    """The language model's own architecture, where the model holds one of another family."""
    on_every_stage: frozenset[StagePart] = frozenset()
    """What vLLM builds on every pipeline stage, needed there or not."""
    mtp: Drafter | Unsupported | None = None
    """What its own checkpoint has to guess tokens with (multi-token prediction), which is built where it is asked for;
    unsupported where it has some that no plan reads."""
    max_model_len_as_stated: int | None = None
    """The same where vLLM takes YaRN's length for scaled already; None: as much."""
    source: tuple[Mapping[str, Json], Mapping[str, Json] | None] | None = field(
        default=None, compare=False, repr=False
    )
    """The configuration that it was read from, and hf_quant_config.json beside: what hf-overrides change."""

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.compare))

    def __hash__(self) -> int:
        """Made once: a plan looks up each shape and its layers thousands of times."""
        return self._hash

    @property
    def dtype_bytes(self) -> int:
        """Bytes per element of what is not quantised."""
        return 4 if self.dtype == "float32" else 2


@dataclass(frozen=True)
class Drafter:
    """What guesses tokens ahead, for the model to verify: layers of its own, and what they take of the model."""

    shape: Shape
    """Its layers, and what stands beside them."""
    fusion: tuple[Matrix, ...] = ()
    """What makes its input of the model's hidden states and the embedding of a token."""
    is_whole: bool = False
    """A model of its own, which shares nothing."""
    has_embedding: bool = True
    """Whether it looks tokens up: in the model's embedding, where that is as wide and on the same stage."""
    heads: int = 0
    """Output embeddings of its own; without one it has the model's."""
    head_rows: int | None = None
    """Tokens that these choose from; None: the model's vocabulary."""
    maps_tokens: bool = False
    """Whether each of those tokens has the number of one of the model's beside, in eight bytes."""
    hidden_states: int = 1
    """Layers of the model whose hidden states it is fed with."""
    steps: int | None = None
    """Tokens that its checkpoint guesses: more of them have to be a multiple."""


@dataclass(frozen=True)
class BuiltShape(Shape):
    """A shape as vLLM of one version builds it for one GPU: what is planned."""

    fp8_block_size: int | None = None
    """Tokens of a block under an fp8 cache, where its kernel asks for more than others."""
    hybrid_block_size: int | None = None
    """Tokens to a multiple of which a hybrid's blocks are made longer, where its kernel asks for more than others."""
    packs_blocks: bool = False
    """Groups of different page sizes share blocks without padding (DeepSeek V4)."""
    aligns_by_stage: bool = False
    """Each pipeline stage makes its blocks as long as its own layers ask for."""
    guessing_layers: int = 0
    """Layers at its end that guess tokens: vLLM makes the blocks without looking at them."""
    guessed_tokens: int = 0
    """Tokens that are guessed at once, of which a state keeps the last inputs and each a block."""

    def __hash__(self) -> int:
        """As a shape's."""
        return self._hash


@dataclass(frozen=True)
class Unsupported:
    """Why there is no shape: what was found, and the field it stands in."""

    reason: str
    field: str | None = None
    architecture: str | None = None

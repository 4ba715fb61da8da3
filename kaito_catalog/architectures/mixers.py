"""What mixes tokens in a layer, in types: attentions, and what keeps a state for each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Gate(Enum):
    """What the output of an attention is multiplied by."""

    OUTPUT = "output"
    """As wide as the output: the query projection gives it too (Qwen3-Next), or another matrix (Trinity)."""
    HEAD = "head"
    """One number for each head (Step 3.5)."""
    QUERY = "query"
    """One number for each head, from its own query (IQuest's loops)."""


@dataclass(frozen=True)
class LearntKeys:
    """Keys that lie before every text (openPangu)."""

    tokens: int
    with_values: bool


@dataclass(frozen=True)
class LowRankQueries:
    """Queries come from a vector of that width, which every rank makes, as it does keys and values (Step 3)."""

    rank: int


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
    gate: Gate | None = None
    sinks: bool = False
    """One learnt logit per head (gpt-oss)."""
    head_elements: int = 0
    """Other numbers that each head learns (Moondream 3)."""
    repeats_kv_heads: bool = True
    """More ranks than KV heads are legal: a rank then has one that others have too."""
    index_dim: int = 0
    """Width of the key that picks blocks of tokens, and of a query for it per KV head (MiniMax M3); 0 is none."""
    shares_cache: bool = False
    """Reads an earlier layer's cache and has none (Gemma 4, Gemma 3n)."""
    queries_only: bool = False
    """Has no projections for keys and values."""
    cache_in_dtype: bool = False
    """Keeps its cache in the model's dtype, whatever is asked for (Falcon)."""
    bidirectional: bool = False
    """Sees all tokens at once, as encoders do, and keeps nothing."""
    looks_at_encoder: bool = False
    """Its keys and values are the encoder's (Whisper)."""
    cache_scales: bool = True
    """Keeps scales of its cache, of quantised weights; PLaMo 2's is not told how the weights are quantised."""
    replicated: bool = False
    """Every rank has the projections whole, although each keeps its share of the cache (StarCoder)."""
    fed_twice: bool = False
    """Its input is twice as wide: the embedding of a token beside hidden states (EAGLE-3)."""
    learnt_keys: LearntKeys | None = None
    projections: LatentAttention | LowRankQueries | None = None
    """Where queries, keys and values are not made of hidden states at once; with latents, the cache still holds keys
    and values of every head (MiniCPM 3)."""


@dataclass(frozen=True)
class Indexer:
    """DeepSeek's sparse attention: picks the tokens to look at, with a small cache of its own."""

    num_heads: int
    head_dim: int
    pool: int = 1
    """Tokens that share one key, which a gate weighs them into (GLM-5.3); a ring keeps those of the last."""


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
    output_gate: bool = False
    """Whether the output has a gate, in one matrix with what makes the latents (Kimi K3)."""


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
    interleaved: bool = False
    """Whether the two gates lie in one matrix, head by head (Qwen3-Next)."""
    separate_gates: bool = False
    """Whether the two gates are two modules (OLMo Hybrid)."""
    decay_bytes: int = 4
    """Bytes per element of the decay, one for each value head."""


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
    normed: bool = True
    """Whether what leaves it is normalised."""
    time_step_rank: int = 0
    """Where one matrix says what to select for all heads: the width of its time step (PLaMo 2)."""


@dataclass(frozen=True)
class KimiDelta:
    """Kimi's linear attention: a gated delta rule with a decay for each channel."""

    num_heads: int
    head_dim: int
    conv_kernel: int
    full_gate: bool = False
    """Whether the gate of the output is a matrix of its own, and all that the input meets is one (Kimi K3)."""
    checkpoints: bool = False
    """Whether FlashKDA computes long prompts, which sets one state more aside (Kimi K3, GLM-5.3)."""


@dataclass(frozen=True)
class Mamba1:
    """A layer of the first Mamba (Jamba, Falcon Mamba)."""

    intermediate_size: int
    state_size: int
    conv_kernel: int
    time_step_rank: int
    bias: bool
    conv_bias: bool
    normed: bool
    """Whether what selects is normalised by norms that have parameters."""


@dataclass(frozen=True)
class ShortConv:
    """A gated convolution over the last few tokens (LFM2)."""

    width: int
    conv_kernel: int
    bias: bool


@dataclass(frozen=True)
class LightningAttention:
    """Linear attention with a fixed decay for each head (Ling 2.5)."""

    num_heads: int
    head_dim: int
    qkv_bias: bool
    output_bias: bool
    head_norms: int
    norm_groups: int
    """Parts that what leaves it is normalised in: the ranks have to divide them."""


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
    streams: int = 4
    """Hidden states of each token that they mix (hc_mult)."""
    index_topk: int = 512
    """Latents that the indexer picks."""


Recurrent: TypeAlias = GatedDeltaNet | KimiDelta | LightningAttention | Mamba2 | Mamba1 | ShortConv
"""What keeps a state per sequence."""


Mixer: TypeAlias = Attention | LatentAttention | CompressedAttention | Recurrent

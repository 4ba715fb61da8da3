"""Bytes of the parameters on each GPU, from the shape alone, as vLLM's own modules allocate them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise

from kaito_catalog.shape import (
    Attention,
    Experts,
    FeedForward,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    Mlp,
    Quantization,
    Shape,
    Tower,
)

VOCABULARY_PADDING = 64  # vLLM's VocabParallelEmbedding pads to this before it divides.
MXFP4_BLOCK = 32  # Elements that share one scale byte.


@dataclass(frozen=True)
class Split:
    """How the weights are divided: ranks of tensor parallelism, and how the experts are."""

    tensor_parallel_size: int = 1
    expert_tensor_parallel_size: int = 1
    """Ranks that each expert is cut over: TP × DP, or 1 with expert parallelism."""
    expert_parallel_size: int = 1
    """Ranks that the experts are dealt out to: 1, or TP × DP with expert parallelism."""


def split(
    *, tensor_parallel_size: int, data_parallel_size: int = 1, enable_expert_parallel: bool = False
) -> Split:
    """How vLLM divides the weights (FusedMoEParallelConfig: without EP, experts are cut over TP × DP)."""
    ranks = tensor_parallel_size * data_parallel_size
    if enable_expert_parallel:
        return Split(tensor_parallel_size, 1, ranks)
    return Split(tensor_parallel_size, ranks, 1)


@dataclass(frozen=True)
class Linear:
    """A matrix on one rank; `outputs` are the widths of its fused parts."""

    name: str
    inputs: int
    outputs: tuple[int, ...]
    bias: bool = False
    quantized: bool = True
    """False for modules that vLLM builds without a quantisation, whatever the configuration says."""


@dataclass(frozen=True)
class ExpertMatrices:
    """The experts of one layer on one rank."""

    name: str
    count: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    bias: bool


@dataclass(frozen=True)
class Plain:
    """Parameters that no quantisation touches: norms, scales; 0 bytes each stands for the model's dtype."""

    elements: int
    element_bytes: int = 0


Part = Linear | ExpertMatrices | Plain


class _UncomputableError(Exception):
    pass


class _IllegalError(_UncomputableError):
    pass


@dataclass(frozen=True)
class Uncomputable:
    """Why the configuration alone does not give the bytes."""

    reason: str
    illegal: bool = False
    """vLLM itself would refuse to divide the model like this."""


def ceil_div(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def _divide(size: int, ranks: int, what: str) -> int:
    if size % ranks:
        raise _IllegalError(f"{what} ({size:,}) cannot be divided by {ranks}")
    return size // ranks


def padded_vocabulary(shape: Shape) -> int:
    """Rows of the embedding before it is divided."""
    return ceil_div(shape.vocab_size, VOCABULARY_PADDING) * VOCABULARY_PADDING


def _mixer_parts(mixer: object, hidden: int, by: Split) -> Iterator[Part]:
    tp = by.tensor_parallel_size
    match mixer:
        case None:
            return
        case Attention():
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            kv_heads = max(1, mixer.num_key_value_heads // tp)
            query = heads * mixer.head_dim * (2 if mixer.output_gate else 1)
            outputs = (query, kv_heads * mixer.head_dim, kv_heads * mixer.v_head_dim)
            # vLLM builds K and V also where a layer reads another's cache or values are keys (Gemma 4).
            yield Linear("self_attn.qkv_proj", hidden, outputs, mixer.qkv_bias)
            yield Linear("self_attn.o_proj", heads * mixer.v_head_dim, (hidden,), mixer.output_bias)
            yield Plain(mixer.head_norms * mixer.head_dim + (heads if mixer.sinks else 0))
            if mixer.flat_norms:
                yield Plain(heads * mixer.head_dim + kv_heads * mixer.head_dim)
        case LatentAttention():
            heads = _divide(mixer.num_attention_heads, tp, "the number of attention heads")
            latent = mixer.kv_lora_rank + mixer.qk_rope_head_dim
            query = heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
            if mixer.q_lora_rank is not None:
                yield Linear("self_attn.fused_qkv_a_proj", hidden, (mixer.q_lora_rank, latent))
                yield Linear("self_attn.q_b_proj", mixer.q_lora_rank, (query,))
                yield Plain(mixer.q_lora_rank)
            else:
                yield Linear("self_attn.kv_a_proj_with_mqa", hidden, (latent,))
                yield Linear("self_attn.q_proj", hidden, (query,))
            yield Plain(mixer.kv_lora_rank)
            yield Linear(
                "self_attn.kv_b_proj",
                mixer.kv_lora_rank,
                (heads * (mixer.qk_nope_head_dim + mixer.v_head_dim),),
            )
            yield Linear("self_attn.o_proj", heads * mixer.v_head_dim, (hidden,))
            if mixer.indexer is not None:
                index = mixer.indexer
                yield Linear(
                    "self_attn.indexer.wq_b", mixer.q_lora_rank or hidden, (index.head_dim * index.num_heads,)
                )
                # vLLM fuses these two without a quantisation, and keeps the norm in fp32.
                yield Linear(
                    "self_attn.indexer.wk_weights_proj",
                    hidden,
                    (index.head_dim, index.num_heads),
                    quantized=False,
                )
                yield Plain(2 * index.head_dim, 4)
        case GatedDeltaNet():
            keys = mixer.key_head_dim * _divide(
                mixer.num_key_heads, tp, "the number of linear-attention key heads"
            )
            value_heads = _divide(mixer.num_value_heads, tp, "the number of linear-attention value heads")
            values = mixer.value_head_dim * value_heads
            yield Linear("linear_attn.in_proj_qkvz", hidden, (keys, keys, values, values))
            yield Linear("linear_attn.in_proj_ba", hidden, (value_heads, value_heads))
            yield Linear("linear_attn.out_proj", values, (hidden,))
            yield Plain(mixer.conv_kernel * (2 * keys + values) + value_heads + mixer.value_head_dim)
            yield Plain(value_heads, 4)
        case Mamba2():
            heads = _divide(mixer.num_heads, tp, "the number of Mamba heads")
            groups = mixer.num_groups
            # vLLM repeats groups so that every rank has those its heads need.
            groups_per_rank = groups // tp if groups % tp == 0 else 1
            inner = heads * mixer.head_dim
            conv = inner + 2 * groups_per_rank * mixer.state_size
            yield Linear("mixer.in_proj", hidden, (inner + conv + heads,), mixer.bias)
            yield Linear("mixer.out_proj", inner, (hidden,), mixer.bias)
            yield Plain(mixer.conv_kernel * conv + (conv if mixer.conv_bias else 0) + 2 * heads + inner)
            yield Plain(heads, 4)
        case _:
            raise AssertionError(mixer)


def _mlp_parts(name: str, mlp: Mlp, hidden: int, tp: int) -> Iterator[Part]:
    width = _divide(mlp.intermediate_size, tp, "the intermediate size")
    first = (width, width) if mlp.gated else (width,)
    yield Linear(f"{name}.gate_up_proj" if mlp.gated else f"{name}.up_proj", hidden, first, mlp.bias)
    yield Linear(f"{name}.down_proj", width, (hidden,), mlp.bias)


def _feed_forward_parts(block: FeedForward | None, hidden: int, by: Split) -> Iterator[Part]:
    match block:
        case None:
            return
        case Mlp():
            yield from _mlp_parts("mlp", block, hidden, by.tensor_parallel_size)
        case Experts():
            width = _divide(
                block.intermediate_size, by.expert_tensor_parallel_size, "the experts' intermediate size"
            )
            inner = block.latent_size or hidden
            yield ExpertMatrices(
                "mlp.experts",
                ceil_div(block.num_experts, by.expert_parallel_size),
                inner,
                width,
                block.gated,
                block.bias,
            )
            if block.latent_size:
                yield Linear("mlp.fc1_latent_proj", hidden, (inner,))
                yield Linear("mlp.fc2_latent_proj", inner, (hidden,))
            router = block.num_experts * (hidden + (1 if block.router_bias else 0))
            yield Plain(router, block.router_bytes)
            if block.correction_bias:
                yield Plain(block.num_experts, 4)
            if block.shared is not None:
                yield from _mlp_parts("mlp.shared_experts", block.shared, hidden, by.tensor_parallel_size)
            if block.shared_gate:
                yield Plain(hidden)
            if block.dense is not None:
                yield from _mlp_parts("mlp", block.dense, hidden, by.tensor_parallel_size)
            yield Plain(block.extra_elements)
        case _:
            raise AssertionError(block)


def _tower_bytes(tower: Tower | None, dtype_bytes: int, tp: int) -> int:
    if tower is None:
        return 0
    if tower.matrices is None:
        raise _UncomputableError(f"no plan for the weights of its {tower.kind} encoder")
    _divide(tower.num_heads, tp, "the number of heads of the vision encoder")
    elements = tower.plain_elements
    for matrix in tower.matrices:
        inputs, outputs = matrix.inputs, matrix.outputs
        if matrix.split == "column":
            outputs = _divide(outputs, tp, "a width of the vision encoder")
        elif matrix.split == "row":
            inputs = _divide(inputs, tp, "a width of the vision encoder")
        elements += matrix.count * (inputs * outputs + (outputs if matrix.bias else 0))
    return elements * dtype_bytes


def _plain_linear(part: Linear, dtype_bytes: int) -> int:
    outputs = sum(part.outputs)
    return dtype_bytes * (part.inputs * outputs + (outputs if part.bias else 0))


def _plain_experts(part: ExpertMatrices, dtype_bytes: int) -> int:
    first = (2 if part.gated else 1) * part.intermediate_size
    elements = part.hidden_size * first + part.intermediate_size * part.hidden_size
    if part.bias:
        elements += first + part.hidden_size
    return dtype_bytes * part.count * elements


def _fp8_linear(part: Linear, dtype_bytes: int, how: Quantization) -> int:
    outputs = sum(part.outputs)
    size = part.inputs * outputs + (dtype_bytes * outputs if part.bias else 0)
    if how.weight_block is not None:
        rows, columns = how.weight_block
        if len(part.outputs) > 1 and any(width % rows for width in part.outputs[:-1]):
            raise _IllegalError(f"fp8 blocks of {rows} do not divide {part.name} on each rank")
        return size + 4 * ceil_div(outputs, rows) * ceil_div(part.inputs, columns)
    scales = len(part.outputs) * (2 if how.static_activations else 1)
    return size + 4 * scales


def _fp8_experts(part: ExpertMatrices, dtype_bytes: int, how: Quantization) -> int:
    width, hidden = part.intermediate_size, part.hidden_size
    halves = 2 if part.gated else 1
    size = part.count * (hidden * halves * width + width * hidden)
    if part.bias:
        size += dtype_bytes * part.count * (halves * width + hidden)
    if how.weight_block is not None:
        rows, columns = how.weight_block
        if width % rows:
            raise _IllegalError(
                f"fp8 blocks of {rows} do not divide the experts' width of {width:,} on each rank"
            )
        first = halves * ceil_div(width, rows) * ceil_div(hidden, columns)
        second = ceil_div(hidden, rows) * ceil_div(width, columns)
        return size + 4 * part.count * (first + second)
    return size + 4 * part.count * ((halves + 1) + (2 if how.static_activations else 0))


def _mxfp4_experts(part: ExpertMatrices, dtype_bytes: int) -> int:
    width, hidden = part.intermediate_size, part.hidden_size
    halves = 2 if part.gated else 1
    if width % MXFP4_BLOCK or hidden % MXFP4_BLOCK:
        raise _UncomputableError(f"mxfp4 blocks of {MXFP4_BLOCK} do not divide the experts' {width}")
    elements = hidden * halves * width + width * hidden
    size = part.count * (elements // 2 + elements // MXFP4_BLOCK)
    if part.bias:
        size += dtype_bytes * part.count * (halves * width + hidden)
    return size


_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""vLLM's fused modules, and the checkpoint's names of their parts."""


def _is_unquantized(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a module (as vLLM names it) keeps the model's dtype: itself or any part of it is listed."""
    if not patterns:
        return False
    stem, _, last = name.rpartition(".")
    names = [name, *(f"{stem}.{part}" for part in _FUSED.get(last, ()))]
    return any(fnmatchcase(n, pattern) for n in names for pattern in patterns)


def _part_bytes(part: Part, dtype_bytes: int, how: Quantization | None, unquantized: tuple[str, ...]) -> int:
    if isinstance(part, Plain):
        return part.elements * (part.element_bytes or dtype_bytes)
    if how is None or _is_unquantized(part.name, unquantized):
        how = None
    if isinstance(part, Linear) and (how is None or not part.quantized):
        return _plain_linear(part, dtype_bytes)
    if isinstance(part, ExpertMatrices) and how is None:
        return _plain_experts(part, dtype_bytes)
    assert how is not None
    if how.method == "mxfp4":
        # vLLM's Mxfp4Config only quantises the experts.
        if isinstance(part, ExpertMatrices):
            return _mxfp4_experts(part, dtype_bytes)
        return _plain_linear(part, dtype_bytes)
    if how.method == "fp8":
        if isinstance(part, ExpertMatrices):
            return _fp8_experts(part, dtype_bytes, how)
        return _fp8_linear(part, dtype_bytes, how)
    raise _UncomputableError(f"no plan for weights quantised with {how.method} {how.format or ''}".rstrip())


@lru_cache(maxsize=4096)
def _layer_bytes(layer: Layer, hidden: int, dtype_bytes: int, how: Quantization | None, by: Split) -> int:
    parts = [*_mixer_parts(layer.mixer, hidden, by), *_feed_forward_parts(layer.feed_forward, hidden, by)]
    size = sum(_part_bytes(part, dtype_bytes, how, layer.unquantized) for part in parts)
    if how is not None and how.method == "fp8" and isinstance(layer.mixer, Attention):
        # vLLM's Fp8KVCacheMethod registers four scales per attention layer (not for MLA) until they are read.
        size += 4 * dtype_bytes
    return size + layer.norm_elements * dtype_bytes


def stages(layers: int, pipeline_parallel_size: int) -> tuple[range, ...]:
    """The layers of each pipeline stage, as vLLM 0.25.1 cuts them (distributed/utils.py, get_pp_indices)."""
    counts = [layers // pipeline_parallel_size] * pipeline_parallel_size
    for i in range(2, layers % pipeline_parallel_size + 2):
        counts[-i] += 1
    edges = [sum(counts[:i]) for i in range(pipeline_parallel_size + 1)]
    return tuple(range(a, b) for a, b in pairwise(edges))


@lru_cache(maxsize=1024)
def weights_per_rank(
    shape: Shape, by: Split, pipeline_parallel_size: int = 1
) -> tuple[int, ...] | Uncomputable:
    """Bytes of the parameters on a rank of each pipeline stage, before vLLM repacks any.

    Column- and row-parallel matrices are divided, norms and routers and MLA's down-projections are not;
    KV heads are repeated where there are fewer than ranks; tied embeddings count once (twice where the
    first and the last stage differ). Checked against vLLM 0.25.1's own classes, to the byte.
    """
    if pipeline_parallel_size > len(shape.layers):
        return Uncomputable(
            f"{len(shape.layers)} layers cannot be cut into {pipeline_parallel_size} stages", True
        )
    tp = by.tensor_parallel_size
    dtype_bytes = shape.dtype_bytes
    try:
        vocabulary = _divide(padded_vocabulary(shape), tp, "the padded vocabulary")
        embedding = vocabulary * shape.hidden_size * dtype_bytes
        head = embedding + (vocabulary * dtype_bytes if shape.lm_head_bias else 0)
        result = []
        for number, layers in enumerate(stages(len(shape.layers), pipeline_parallel_size)):
            size = shape.plain_elements * dtype_bytes
            counts: dict[Layer, int] = {}
            for i in layers:
                counts[shape.layers[i]] = counts.get(shape.layers[i], 0) + 1
            for layer, count in counts.items():
                size += count * _layer_bytes(layer, shape.hidden_size, dtype_bytes, shape.quantization, by)
            is_first, is_last = number == 0, number == pipeline_parallel_size - 1
            if is_first:
                # vLLM builds encoders on every stage that can see images; they run on the first.
                size += embedding + shape.embedding_elements // tp * dtype_bytes
                size += _tower_bytes(shape.tower, dtype_bytes, tp)
            if is_last:
                size += shape.final_norm_elements * dtype_bytes
                if not (shape.tie_word_embeddings and is_first):
                    size += head
            result.append(size)
    except _UncomputableError as error:
        return Uncomputable(str(error), isinstance(error, _IllegalError))
    return tuple(result)


def absorbed_bytes(shape: Shape, by: Split) -> int:
    """What MLA's absorbed matrices add after loading on a rank (all layers, the model's dtype).

    vLLM 0.25.1's MLAAttention.process_weights_after_loading keeps `W_UK_T` and `W_UV` beside `kv_b_proj`:
    DeepSeek-V3 at TP 8 gains 61 × 16 heads × 512 × 256 × 2 bytes.
    """
    total = 0
    for layer in shape.layers:
        mixer = layer.mixer
        if isinstance(mixer, LatentAttention):
            heads = mixer.num_attention_heads // by.tensor_parallel_size
            total += (
                heads * mixer.kv_lora_rank * (mixer.qk_nope_head_dim + mixer.v_head_dim) * shape.dtype_bytes
            )
    return total

"""Bytes of all parameters on a rank of each pipeline stage, and what loading adds to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import assert_never

from kaito_catalog.architectures import (
    BuiltShape,
    Experts,
    LatentAttention,
    Layer,
    Quantization,
    Scheme,
    StagePart,
)
from kaito_catalog.memory.remembered import remembered
from kaito_catalog.memory.rounding import round_up
from kaito_catalog.memory.weights.cache_scales import cache_scale_bytes
from kaito_catalog.memory.weights.encoder import encoder_bytes
from kaito_catalog.memory.weights.feed_forward import expert_matrices, feed_forward_parts, mlp_parts
from kaito_catalog.memory.weights.matrices import ExpertMatrices, Linear, Parameters, Part, unquantized_bytes
from kaito_catalog.memory.weights.mixers import mixer_parts
from kaito_catalog.memory.weights.split import (
    IllegalSplitError,
    Split,
    Uncomputable,
    UncomputableError,
    divide,
    stages,
)
from kaito_catalog.memory.weights.stored_experts import expert_bytes
from kaito_catalog.memory.weights.stored_linear import linear_bytes
from kaito_catalog.memory.weights.unquantized import module_scheme

VOCABULARY_PADDING = 64
"""What vLLM's VocabParallelEmbedding pads the vocabulary to before it divides it."""


@remembered(maxsize=1024)
def weights_per_rank(
    shape: BuiltShape,
    split: Split,
    pipeline_parallel_size: int = 1,
    partition: tuple[int, ...] | None = None,
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
    if shape.quantization is not None and shape.quantization.problem is not None:
        return Uncomputable(shape.quantization.problem)
    try:
        vocabulary = _vocabulary_bytes(shape, split)
        return tuple(
            _stage_bytes(shape, split, vocabulary, layers, number, pipeline_parallel_size)
            for number, layers in enumerate(stages(len(shape.layers), pipeline_parallel_size, partition))
        )
    except UncomputableError as error:
        return Uncomputable(str(error), isinstance(error, IllegalSplitError))


@dataclass(frozen=True)
class _VocabularyBytes:
    """The two matrices of the vocabulary on a rank."""

    embedding: int
    head: int


def _vocabulary_bytes(shape: BuiltShape, split: Split) -> _VocabularyBytes:
    padded = round_up(shape.vocab_size, VOCABULARY_PADDING)
    vocabulary = divide(padded, split.tensor_parallel_size, "the padded vocabulary")
    rows = shape.vocab_size if shape.embedding_replicated else vocabulary
    embedding = rows * shape.hidden_size * shape.dtype_bytes
    quantization = shape.quantization
    if quantization is not None and quantization.lm_head is not None:
        matrix = Linear("lm_head", shape.hidden_size, (vocabulary,))
        head = linear_bytes(matrix, quantization.lm_head, quantization, shape.dtype_bytes)
    else:
        head = embedding + (vocabulary * shape.dtype_bytes if shape.lm_head_bias else 0)
    return _VocabularyBytes(embedding, head)


def _stage_bytes(
    shape: BuiltShape,
    split: Split,
    vocabulary: _VocabularyBytes,
    layers: range,
    number: int,
    pipeline_parallel_size: int,
) -> int:
    """Bytes of a stage's layers, and of what stands on it outside the layers."""
    ranks, dtype_bytes = split.tensor_parallel_size, shape.dtype_bytes
    is_first, is_last = number == 0, number == pipeline_parallel_size - 1
    every = shape.on_every_stage
    size = (shape.plain_elements + shape.divided_elements // ranks) * dtype_bytes
    for layer, count in Counter(shape.layers[layers.start : layers.stop]).items():
        size += count * _layer_bytes(layer, shape.hidden_size, dtype_bytes, shape.quantization, split)
    is_tied_head = is_last and shape.has_head and shape.tie_word_embeddings
    if is_first or StagePart.EMBEDDING in every or is_tied_head:
        size += vocabulary.embedding + shape.position_elements * dtype_bytes
    if is_first or StagePart.EMBEDDING in every:
        size += shape.embedding_elements // ranks * dtype_bytes
    if is_first or StagePart.ENCODER in every:
        size += encoder_bytes(shape.encoder, dtype_bytes, ranks, shape.quantization)
    if is_last or StagePart.NORM in every:
        size += shape.final_norm_elements * dtype_bytes
    if shape.has_head and not shape.tie_word_embeddings and (is_last or StagePart.HEAD in every):
        size += vocabulary.head
    return size


@remembered(maxsize=4096)
def _layer_bytes(
    layer: Layer, hidden_size: int, dtype_bytes: int, quantization: Quantization | None, split: Split
) -> int:
    size = 4 * layer.hyper_elements + layer.norm_elements * dtype_bytes
    size += sum(
        _part_bytes(part, dtype_bytes, layer, quantization, split)
        for part in _layer_parts(layer, hidden_size, split)
    )
    return size + cache_scale_bytes(layer, dtype_bytes, quantization)


def _layer_parts(layer: Layer, hidden_size: int, split: Split) -> list[Part]:
    ranks = split.tensor_parallel_size
    # Not [*a, *b]: under Brython (site/python_bundle) an error that is raised in a generator is lost there.
    parts: list[Part] = []
    for mixer in (layer.mixer, layer.state, layer.second):
        if mixer is not None:
            parts += mixer_parts(mixer, hidden_size, ranks)
    if layer.feed_forward is not None:
        parts += feed_forward_parts(layer.feed_forward, hidden_size, split)
    if isinstance(layer.beside, Experts):
        parts += feed_forward_parts(layer.beside, hidden_size, split)
    elif layer.beside is not None:
        parts += mlp_parts("laurel", layer.beside, hidden_size, ranks)
    return parts


def _part_bytes(
    part: Part, dtype_bytes: int, layer: Layer, quantization: Quantization | None, split: Split
) -> int:
    match part:
        case Parameters():
            return part.elements * (part.element_bytes or dtype_bytes)
        case Linear():
            return _linear_bytes(part, dtype_bytes, layer, quantization, split.tensor_parallel_size)
        case ExpertMatrices():
            scheme = part.scheme or module_scheme(part.name, layer, quantization)
            if scheme is None or quantization is None:
                return unquantized_bytes(part, dtype_bytes)
            return expert_bytes(part, scheme, quantization, dtype_bytes, split)
        case _:
            assert_never(part)


def _linear_bytes(
    linear: Linear, dtype_bytes: int, layer: Layer, quantization: Quantization | None, ranks: int
) -> int:
    if quantization is None:
        return unquantized_bytes(linear, dtype_bytes)
    if quantization.method in linear.replicated_by:
        linear = replace(linear, outputs=tuple(n * ranks for n in linear.outputs))
    scheme = module_scheme(linear.name, layer, quantization)
    if scheme is None or not linear.quantized:
        return unquantized_bytes(linear, dtype_bytes)
    return linear_bytes(linear, scheme, quantization, dtype_bytes, ranks)


@remembered(maxsize=1024)
def mxfp4_bytes(shape: BuiltShape, split: Split) -> int:
    """Bytes of the experts on a rank that are stored as mxfp4 (all stages)."""
    quantization = shape.quantization
    if quantization is None:
        return 0
    total = 0
    for layer, count in Counter(shape.layers).items():
        if isinstance(layer.feed_forward, Experts):
            part = expert_matrices(layer.feed_forward, shape.hidden_size, split)
            if Scheme.MXFP4_EXPERTS in (part.scheme, quantization.scheme):
                total += count * _part_bytes(part, shape.dtype_bytes, layer, quantization, split)
    return total


@remembered(maxsize=1024)
def absorbed_bytes(shape: BuiltShape, split: Split) -> int:
    """What MLA's absorbed matrices add after loading on a rank (all layers, the model's dtype).

    vLLM 0.25.1's MLAAttention.process_weights_after_loading keeps `W_UK_T` and `W_UV` beside `kv_b_proj`:
    DeepSeek-V3 at TP 8 gains 61 × 16 heads × 512 × 256 × 2 bytes.
    """
    total = 0
    for layer in shape.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention):
                heads = mixer.num_attention_heads // split.tensor_parallel_size
                width = mixer.qk_nope_head_dim + mixer.v_head_dim
                total += heads * mixer.kv_lora_rank * width * shape.dtype_bytes
    return total

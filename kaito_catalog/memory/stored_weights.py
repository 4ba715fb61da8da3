"""The weights of each pipeline stage: by the configuration, or by the size of the files where that does not tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaito_catalog.architectures import BuiltShape
from kaito_catalog.memory.rounding import ceil_div
from kaito_catalog.memory.values import Parallelism, Stored
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Split, Uncomputable, split_over

STORED_TOLERANCE = 0.75
"""A model whose files hold less than this share of what its configuration asks for is quantised, and its
configuration does not say how."""
UNTOLD_SHARE = 0.01
"""Files that hold this share more than a partial configuration says hold what it does not tell."""
REPLICATED_SHARE = 0.02
"""Where only the stored size is known: what norms, routers and repacking may add to an even division."""


@dataclass(frozen=True)
class StageWeights:
    """Bytes per stage, where they came from and how far they may be off."""

    stages: tuple[int, ...]
    source: str
    error_bytes: int


def weights_of_stages(
    shape: BuiltShape,
    stored: Stored | None,
    split: Split,
    parallelism: Parallelism,
    partition: tuple[int, ...] | None = None,
    *,
    as_stored: BuiltShape | None = None,
) -> StageWeights | Uncomputable:
    """The weights of each stage; Uncomputable where neither the configuration nor the files give them.

    Args:
        shape: the model, as the vLLM version builds it.
        stored: the size of its weight files, where known.
        split: how its matrices are split over GPUs.
        parallelism: over how many, and in how many stages.
        partition: the layers of each stage, where they are not as many on each.
        as_stored: the model as the files have it, where an option makes something else of it.
    """
    if as_stored is None or (as_stored.quantization, as_stored.dtype_bytes) == (
        shape.quantization,
        shape.dtype_bytes,
    ):
        return _as_stored(shape, stored, split, parallelism, partition)
    return _changed(shape, as_stored, stored, split, parallelism, partition)


def _changed(
    shape: BuiltShape,
    as_stored: BuiltShape,
    stored: Stored | None,
    split: Split,
    parallelism: Parallelism,
    partition: tuple[int, ...] | None,
) -> StageWeights | Uncomputable:
    """What an option makes of the weights: what the files hold beside the configuration stays as it is."""
    pipeline = parallelism.pipeline_parallel_size
    found = _as_stored(as_stored, stored, split, parallelism, partition)
    if isinstance(found, Uncomputable):
        return found
    is_told = shape.encoder is None or shape.encoder.matrices is not None
    if found.source != "configuration":
        if shape.dtype_bytes != as_stored.dtype_bytes:
            return Uncomputable(f"no plan in {shape.dtype} for weights that the configuration does not tell")
        if is_told and not as_stored.is_partial:
            return Uncomputable(
                "its files hold less than unquantised weights would, and its configuration not why"
            )
    now, before = (
        weights_per_rank(s if is_told else replace(s, encoder=None), split, pipeline, partition)
        for s in (shape, as_stored)
    )
    if isinstance(now, Uncomputable):
        return now
    if isinstance(before, Uncomputable):
        return before
    sizes = tuple(x + y - z for x, y, z in zip(found.stages, now, before, strict=True))
    # Unknown: whether an encoder that has not been read is quantised with the decoder, to half of its size or less.
    untold = max(x - z for x, z in zip(found.stages, before, strict=True))
    return replace(found, stages=sizes, error_bytes=found.error_bytes + untold // 2)


def _as_stored(
    shape: BuiltShape,
    stored: Stored | None,
    split: Split,
    parallelism: Parallelism,
    partition: tuple[int, ...] | None,
) -> StageWeights | Uncomputable:
    pipeline = parallelism.pipeline_parallel_size
    if shape.encoder is not None and shape.encoder.matrices is None and stored is not None:
        beside = _beside_the_decoder(shape, stored, split, pipeline, partition)
        if beside is not None:
            return beside
    computed = weights_per_rank(shape, split, pipeline, partition)
    if isinstance(computed, Uncomputable):
        if computed.illegal or stored is None or partition is not None:
            return computed
        return _by_size(shape, stored, split, parallelism)
    whole = weights_per_rank(shape, split_over(tensor_parallel_size=1))
    if stored is None or isinstance(whole, Uncomputable):
        return StageWeights(computed, "configuration", 0)
    if stored.high_bytes < STORED_TOLERANCE * sum(whole):
        if partition is not None:
            return Uncomputable("the size of the files does not tell what stages with unequal layers hold")
        return _by_size(shape, stored, split, parallelism)
    untold = _untold_bytes(shape, stored, sum(whole))
    if not untold:
        return StageWeights(computed, "configuration", 0)
    each = ceil_div(untold, parallelism.tensor_parallel_size * pipeline)
    return StageWeights(tuple(size + each for size in computed), "facts", int(REPLICATED_SHARE * each))


def _by_size(shape: BuiltShape, stored: Stored, split: Split, parallelism: Parallelism) -> StageWeights:
    """The files, divided evenly."""
    pipeline = parallelism.pipeline_parallel_size
    ranks = parallelism.tensor_parallel_size * pipeline
    share = ceil_div(stored.high_bytes, ranks)
    # Experts dealt out over data-parallel replicas would make it less; how much of the model they are is
    # not known, so that this errs on the safe side.
    embedding = ceil_div(shape.vocab_size * shape.hidden_size * shape.dtype_bytes, split.tensor_parallel_size)
    error = int(share * REPLICATED_SHARE) + ceil_div(2 * stored.precision_bytes, ranks)
    if pipeline > 1:
        error += embedding
    return StageWeights((share,) * pipeline, "facts", error)


def _beside_the_decoder(
    shape: BuiltShape, stored: Stored, split: Split, pipeline: int, partition: tuple[int, ...] | None
) -> StageWeights | None:
    """The decoder as configured; what else the files hold is an encoder, which a rank has whole or a share of.

    None where the files are too small for the decoder alone, or where it cannot be computed.
    """
    decoder = replace(shape, encoder=None)
    each, whole = (
        weights_per_rank(decoder, split, pipeline, partition),
        weights_per_rank(decoder, split_over(tensor_parallel_size=1)),
    )
    if isinstance(each, Uncomputable) or isinstance(whole, Uncomputable) or stored.high_bytes < sum(whole):
        return None
    encoder = stored.high_bytes - sum(whole)
    least = ceil_div(encoder, split.tensor_parallel_size)
    # Layers for speculation are in the files too and are not loaded: then it is less.
    middle = (encoder + least) // 2
    error = (encoder - least) // 2 + stored.precision_bytes
    first, *others = each
    if pipeline > 1:
        # Some stand on the first stage alone, others on every one.
        return StageWeights(
            (first + middle, *(size + middle // 2 for size in others)), "facts", error + middle // 2
        )
    return StageWeights((first + middle,), "facts", error)


def _untold_bytes(shape: BuiltShape, stored: Stored, computed: int) -> int:
    """Bytes of the weight files that part of a configuration does not explain: what it leaves unquantised, an encoder.

    Layers for speculation are in the files and are not loaded; they are stored in the model's dtype.
    """
    if not shape.is_partial:
        return 0
    draft = 0
    if shape.draft_layers:
        plain = replace(shape, quantization=None, encoder=None)
        whole = weights_per_rank(plain, split_over(tensor_parallel_size=1))
        if isinstance(whole, Uncomputable):
            return 0
        draft = shape.draft_layers * sum(whole) // len(shape.layers)
    untold = stored.high_bytes - computed - draft
    return untold if untold > UNTOLD_SHARE * computed else 0

"""The memory plan of a model on given GPUs: closed form, milliseconds, no vLLM; it says what is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from kaito_catalog.architectures import (
    Attention,
    AttentionKind,
    LatentAttention,
    Shape,
    Unsupported,
    read_shape,
    record_of,
)
from kaito_catalog.architectures.as_built import as_built, no_class
from kaito_catalog.memory import kernels
from kaito_catalog.memory.kv_cache import (
    Layout,
    Unplannable,
    batches_in_flight,
    plan_layout,
    reserved_blocks,
    states_per_sequence,
)
from kaito_catalog.memory.options import leaves_out_encoder, why_unknown
from kaito_catalog.memory.overheads import (
    HOPPER,
    Overheads,
    activation_growth,
    expected_error,
    overheads,
    pinned_bytes,
    repacked_bytes,
    serve_defaults,
)
from kaito_catalog.memory.rounding import ceil_div
from kaito_catalog.memory.weights.ranks import absorbed_bytes, mxfp4_bytes, weights_per_rank
from kaito_catalog.memory.weights.split import Split, Uncomputable, split_over, stages
from kaito_catalog.quantity import GIB, gib

# The site runs this module in the browser, where there is no pydantic: see site/pasted.py.
if TYPE_CHECKING:
    from kaito_catalog.catalog.entries import Shared
    from kaito_catalog.formats.facts import ModelFacts
    from kaito_catalog.formats.hardware import InstanceType
    from kaito_catalog.formats.policy import Profile


class Stored(Protocol):
    """The size of the weight files: formats.facts.StoredSize, or what has as much."""

    @property
    def high_bytes(self) -> int:
        """The most that it can be."""

    @property
    def precision_bytes(self) -> int:
        """How far a rounded figure may be off."""

    def __hash__(self) -> int:
        """Plans are kept by value."""


class Fit(Enum):
    """The verdict of a plan."""

    YES = "yes"
    TIGHT = "tight"
    """Fits or not by less than the plan's expected error."""
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Parallelism:
    """How a model is split over GPUs."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False

    @property
    def world_size(self) -> int:
        """GPUs in all."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


@dataclass(frozen=True)
class Settings:
    """vLLM's arguments that memory depends on. None: what `vllm serve` does by default on that GPU."""

    max_model_len: int
    gpu_memory_utilization: float
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    language_model_only: bool = False
    """No images and no sound: vLLM builds no encoder for them, and profiles none."""
    unread: tuple[tuple[str, str], ...] = ()
    """Other options that change what memory holds, with their values: most make the plan unknown (`unread`)."""


@dataclass(frozen=True)
class PlanGpu:
    """The device of a plan; `memory_bytes` is the total as the driver reports it."""

    name: str | None
    memory_bytes: int | None
    """None where nobody published what the driver reports."""
    compute_capability: float | None = None


@dataclass(frozen=True)
class PerGpu:
    """Memory of the GPU that has least room for KV cache; all in bytes."""

    budget_bytes: int
    weights_bytes: int
    non_torch_bytes: int
    activation_peak_bytes: int
    """What torch holds beside the parameters: the profile run's peak, rotary tables, repacked weights."""
    cuda_graph_bytes: int
    kv_cache_available_bytes: int
    kv_cache_needed_bytes: int
    """What the layers of one request of `max_model_len` tokens hold (vLLM's max_memory_usage_bytes).

    Where layers differ, vLLM pads groups of them to equal size and asks for a little more before it
    starts: `KvCache.pool_bytes`, which the verdict goes by.
    """


@dataclass(frozen=True)
class KvCache:
    """The KV cache of a plan."""

    bytes_per_token: int
    """All layers, before sharding; what grows with every token (sliding windows and states do not)."""
    tokens: int
    """Tokens of one request at `max_model_len` that the available memory holds, times its concurrency."""
    max_concurrency: float
    """Requests of `max_model_len` tokens that fit at once."""
    longest_model_len: int
    """The longest context that fits, at most the model's own limit; 0 where nothing fits."""
    groups: tuple[Mapping[str, Any], ...] = ()
    pool_bytes: int = 0
    """What vLLM asks for before it starts: the need of one request with its groups padded to equal size."""
    reserved_bytes: int = 0
    """Of these what has to be free beside the request: the null block, from 0.29 on."""

    @property
    def request_bytes(self) -> int:
        """What vLLM's planner says of one request: the pool without what is free beside it."""
        return self.pool_bytes - self.reserved_bytes


@dataclass(frozen=True)
class Plan:
    """What vLLM would find on each GPU, and whether one request of `max_model_len` fits."""

    fits: Fit
    limited_by: str | None
    """The term that decides: `weights`, `kvCache`, `overheads`, `parallelism` …"""
    reason: str | None
    """In words, where it does not fit or is unknown."""
    per_gpu: PerGpu | None
    kv_cache: KvCache | None
    expected_error_bytes: int | None
    parallelism: Parallelism
    gpu: PlanGpu
    vllm_version: str
    settings: Settings
    sources: Mapping[str, str] = field(default_factory=dict)
    """Figure (JSON key of PerGpu or KvCache) to where it came from: facts, configuration, exact, measured."""


@dataclass(frozen=True)
class InstanceTypePlan:
    """What one instance type makes of a model."""

    instance_type: InstanceType
    plan: Plan
    gpus_needed: int | None
    """The fewest of its GPUs that serve the context as surely as all do; None where not even all do."""
    nodes_needed: int | None
    """The fewest nodes that do, one pipeline stage each; None where MOST_NODES do not, or it is unknown."""
    note: str | None
    """In words, where not all GPUs of the node are used or needed."""


STORED_TOLERANCE = 0.75
"""A model whose files hold less than this share of what its configuration asks for is quantised, and its
configuration does not say how."""
UNTOLD_SHARE = 0.01
"""Files that hold this share more than a partial configuration says hold what it does not tell."""
REPLICATED_SHARE = 0.02
"""Where only the stored size is known: what norms, routers and repacking may add to an even division."""

_ORDER = {Fit.YES: 0, Fit.TIGHT: 1, Fit.NO: 2, Fit.UNKNOWN: 3}


def facts_shape(facts: ModelFacts) -> Shape | Unsupported:
    """The shape of a catalog entry, from the fields of config.json in its facts."""
    if facts.config is None:
        return Unsupported("nobody has read its config.json yet", "config")
    return read_shape(facts.config)


@lru_cache(maxsize=4096)
def illegal_tensor_parallel(
    shape: Shape, size: int, *, enable_expert_parallel: bool = False, vllm_version: str | None = None
) -> str | None:
    """Why vLLM would refuse `tensor_parallel_size`, in words; None where it would not.

    Without a version, 0.25.1 is asked.
    """
    if vllm_version is not None:
        shape = as_built(shape, vllm_version)
    if size < 1:
        return f"a tensor-parallel size of {size} is not one"
    for layer in shape.layers:
        mixer = layer.mixer
        if isinstance(mixer, Attention | LatentAttention) and mixer.num_attention_heads % size:
            return f"{mixer.num_attention_heads} attention heads cannot be divided by {size}"
        if isinstance(mixer, Attention):
            heads = mixer.num_key_value_heads
            if not mixer.repeats_kv_heads and heads < size:
                return f"vLLM does not repeat the {heads} KV heads of this architecture on {size} GPUs"
            if (heads >= size and heads % size) or (heads < size and size % heads):
                return f"{heads} KV heads can neither be divided by {size} nor repeated evenly on {size} GPUs"
    split = split_over(tensor_parallel_size=size, enable_expert_parallel=enable_expert_parallel)
    for variant in (replace(shape, quantization=None), shape):
        found = weights_per_rank(variant, split)
        if isinstance(found, Uncomputable) and found.illegal:
            return found.reason
    return None


MOST_TENSOR_PARALLEL = 16
"""Two nodes of eight GPUs: the largest tensor-parallel size that is looked at without being asked for."""


def tensor_parallel_sizes(
    shape: Shape | Unsupported, *, enable_expert_parallel: bool = False, vllm_version: str | None = None
) -> dict[int, str | None]:
    """Each tensor-parallel size up to MOST_TENSOR_PARALLEL: why vLLM would refuse it, None where it would not."""
    if isinstance(shape, Unsupported):
        return {}
    return {
        size: illegal_tensor_parallel(
            shape, size, enable_expert_parallel=enable_expert_parallel, vllm_version=vllm_version
        )
        for size in range(1, MOST_TENSOR_PARALLEL + 1)
    }


def resolved_settings(settings: Settings, gpu: PlanGpu, vllm_version: str | None = None) -> Settings:
    """`settings` with what `vllm serve` takes by default on that GPU."""
    defaults = serve_defaults(gpu.name, gpu.memory_bytes or 0, vllm_version)
    sequences = settings.max_num_seqs or defaults.max_num_seqs
    tokens = settings.max_num_batched_tokens
    if tokens is None:
        tokens = min(defaults.max_num_batched_tokens, sequences * settings.max_model_len)
    if settings.max_num_seqs is None:
        sequences = min(sequences, tokens)
    return replace(settings, max_num_seqs=sequences, max_num_batched_tokens=tokens)


@dataclass(frozen=True)
class _Weights:
    """Bytes per stage, where they came from and how far they may be off."""

    stages: tuple[int, ...]
    source: str
    error_bytes: int


def _weights(
    shape: Shape, stored: Stored | None, split: Split, parallelism: Parallelism
) -> _Weights | Uncomputable:
    pipeline = parallelism.pipeline_parallel_size
    if shape.encoder is not None and shape.encoder.matrices is None and stored is not None:
        beside = _beside_the_decoder(shape, stored, split, pipeline)
        if beside is not None:
            return beside
    computed = weights_per_rank(shape, split, pipeline)
    reason = "no plan for its weights"
    if isinstance(computed, Uncomputable):
        if computed.illegal:
            return computed
        reason = computed.reason
    else:
        whole = weights_per_rank(shape, split_over(tensor_parallel_size=1))
        is_whole = stored is None or isinstance(whole, Uncomputable)
        if is_whole or stored is None or stored.high_bytes >= STORED_TOLERANCE * sum(whole):  # type: ignore[arg-type]
            untold = 0 if is_whole or stored is None else _untold_bytes(shape, stored, sum(whole))  # type: ignore[arg-type]
            if not untold:
                return _Weights(computed, "configuration", 0)
            ranks = parallelism.tensor_parallel_size * pipeline
            each = ceil_div(untold, ranks)
            return _Weights(tuple(size + each for size in computed), "facts", int(REPLICATED_SHARE * each))
        reason = (
            "its files are smaller than its configuration says, so it is quantised in a way nobody has read"
        )
    if stored is None:
        return Uncomputable(reason)
    ranks = parallelism.tensor_parallel_size * pipeline
    share = ceil_div(stored.high_bytes, ranks)
    # Experts dealt out over data-parallel replicas would make it less; how much of the model they are is
    # not known, so that this errs on the safe side.
    embedding = ceil_div(shape.vocab_size * shape.hidden_size * shape.dtype_bytes, split.tensor_parallel_size)
    error = int(share * REPLICATED_SHARE) + ceil_div(2 * stored.precision_bytes, ranks)
    if pipeline > 1:
        error += embedding
    return _Weights((share,) * pipeline, "facts", error)


def _beside_the_decoder(shape: Shape, stored: Stored, split: Split, pipeline: int) -> _Weights | None:
    """The decoder as configured; what else the files hold is an encoder, which a rank has whole or a share of.

    None where the files are too small for the decoder alone, or where it cannot be computed.
    """
    decoder = replace(shape, encoder=None)
    each, whole = (
        weights_per_rank(decoder, split, pipeline),
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
        return _Weights(
            (first + middle, *(size + middle // 2 for size in others)), "facts", error + middle // 2
        )
    return _Weights((first + middle,), "facts", error)


def _untold_bytes(shape: Shape, stored: Stored, computed: int) -> int:
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


def _unknown(
    reason: str, limited_by: str, gpu: PlanGpu, parallelism: Parallelism, settings: Settings, version: str
) -> Plan:
    return Plan(Fit.UNKNOWN, limited_by, reason, None, None, None, parallelism, gpu, version, settings)


def _refused(
    reason: str, limited_by: str, gpu: PlanGpu, parallelism: Parallelism, settings: Settings, version: str
) -> Plan:
    return Plan(Fit.NO, limited_by, reason, None, None, None, parallelism, gpu, version, settings)


BLACKWELL = 10

LACKS_SPARSE_FP8 = (
    "its configuration asks for an fp8 cache, and vLLM has no sparse attention over that before Blackwell; "
    "set kv_cache_dtype to bfloat16"
)


def lacks_sparse_fp8(shape: Shape, compute_capability: float | None, kv_cache_dtype: str) -> bool:
    """vLLM 0.25.1 on Hopper finds no back end for sparse MLA over the fp8 cache that a checkpoint asks for."""
    asks = shape.quantization is not None and shape.quantization.kv_cache_dtype == "fp8"
    is_sparse = any(isinstance(x.mixer, LatentAttention) and x.mixer.sparse for x in shape.layers)
    is_older = compute_capability is not None and compute_capability < BLACKWELL
    return asks and is_sparse and is_older and kv_cache_dtype == "auto"


def why_unplanned(
    shape: Shape | Unsupported, settings: Settings, vllm_version: str
) -> tuple[str, str] | None:
    """Why nobody knows what the model takes on any GPU, and whether its architecture or its options limit it."""
    if isinstance(shape, Unsupported):
        return shape.reason, "architecture"
    newer = no_class(shape, vllm_version)
    if newer is not None:
        return newer, "architecture"
    unread = why_unknown(settings.unread, shape)
    return None if unread is None else (unread, "settings")


# By value, so that it cannot be stale; small, since the checks of one model ask for the same plans one after another.
@lru_cache(maxsize=64)
def make_plan(
    shape: Shape | Unsupported,
    *,
    stored: Stored | None = None,
    gpu: PlanGpu,
    parallelism: Parallelism,
    settings: Settings,
    vllm_version: str,
) -> Plan:
    """What vLLM of that version would find on each GPU, and whether one request of max_model_len fits.

    Args:
        shape: of the model; an unsupported one gives an unknown plan with its reason.
        stored: bytes of the weight files, used where the configuration alone does not give the weights.
        gpu: the device; without its memory the plan is unknown.
        parallelism: how the model is split; what vLLM would refuse does not fit, limited by `parallelism`.
        settings: vLLM's arguments; the plan holds them with their defaults filled in.
        vllm_version: such as 0.25.1.
    """
    settings = resolved_settings(settings, gpu, vllm_version)
    common = (gpu, parallelism, settings, vllm_version)
    unplanned = why_unplanned(shape, settings, vllm_version)
    if unplanned is not None:
        return _unknown(unplanned[0], unplanned[1], *common)
    assert isinstance(shape, Shape)
    is_text_only = settings.language_model_only or leaves_out_encoder(settings.unread, shape.encoder)
    if is_text_only and not record_of(shape).always_with_encoder:
        shape = replace(shape, encoder=None)
    shape = as_built(shape, vllm_version, gpu.compute_capability)
    if shape.quantization is not None and shape.quantization.refused is not None:
        return _refused(shape.quantization.refused, "weights", *common)
    tp = parallelism.tensor_parallel_size
    pipeline = parallelism.pipeline_parallel_size
    if min(tp, pipeline, parallelism.data_parallel_size) < 1:
        return _refused("every parallel size is at least 1", "parallelism", *common)
    if settings.max_model_len < 1 or not 0 < settings.gpu_memory_utilization <= 1:
        bounds = "max_model_len is at least 1, and gpu_memory_utilization above 0 and at most 1"
        return _refused(bounds, "settings", *common)
    illegal = illegal_tensor_parallel(shape, tp, enable_expert_parallel=parallelism.enable_expert_parallel)
    if illegal is not None:
        return _refused(illegal, "parallelism", *common)
    if settings.max_model_len > shape.max_model_len:
        return _refused(
            f"max_model_len {settings.max_model_len:,} is more than the model's own limit of "
            f"{shape.max_model_len:,} tokens, and vLLM refuses it",
            "maxModelLen",
            *common,
        )
    missing = kernels.refusal(shape, gpu.compute_capability)
    if missing is not None:
        return _refused(missing, "gpu", *common)
    if gpu.memory_bytes is None:
        named = gpu.name or "this GPU"
        return _unknown(f"nobody has published what the driver reports as memory of {named}", "gpu", *common)
    if lacks_sparse_fp8(shape, gpu.compute_capability, settings.kv_cache_dtype):
        return _refused(LACKS_SPARSE_FP8, "kvCacheDtype", *common)
    split = split_over(
        tensor_parallel_size=tp,
        data_parallel_size=parallelism.data_parallel_size,
        enable_expert_parallel=parallelism.enable_expert_parallel,
        compute_capability=gpu.compute_capability,
    )
    weights = _weights(shape, stored, split, parallelism)
    if isinstance(weights, Uncomputable):
        if weights.illegal:
            return _refused(weights.reason, "parallelism", *common)
        return _unknown(weights.reason, "weights", *common)
    tokens, sequences = settings.max_num_batched_tokens, settings.max_num_seqs
    assert tokens is not None
    assert sequences is not None
    in_flight = tokens * batches_in_flight(vllm_version, pipeline_parallel_size=pipeline)
    states = states_per_sequence(shape, vllm_version)
    if isinstance(states, Unplannable):
        return _unknown(states.reason, "kvCache", *common)
    cut = stages(len(shape.layers), pipeline)
    layouts = plan_layout(
        shape,
        tensor_parallel_size=tp,
        stages=cut,
        kv_cache_dtype=settings.kv_cache_dtype,
        in_flight_tokens=in_flight,
        states=states,
        reserved=reserved_blocks(vllm_version),
    )
    if isinstance(layouts, Unplannable):
        if layouts.refused is not None:
            return _refused(layouts.reason, layouts.refused, *common)
        return _unknown(layouts.reason, "kvCache", *common)
    budget = math.ceil(gpu.memory_bytes * settings.gpu_memory_utilization)
    kept = absorbed_bytes(shape, split) // pipeline
    if gpu.compute_capability is None or int(gpu.compute_capability) == HOPPER:
        kept += repacked_bytes(mxfp4_bytes(shape, split)) // pipeline
    beside = [
        overheads(
            shape,
            tensor_parallel_size=tp,
            expert_tensor_parallel_size=split.expert_tensor_parallel_size,
            max_num_batched_tokens=tokens,
            max_num_seqs=sequences,
            max_model_len=settings.max_model_len,
            stage_layers=len(layers),
            is_first_stage=number == 0,
            is_last_stage=number == pipeline - 1,
            enforce_eager=settings.enforce_eager,
            kept_bytes=kept,
            vllm_version=vllm_version,
            memory_bytes=gpu.memory_bytes,
            compute_capability=gpu.compute_capability,
        )
        for number, layers in enumerate(cut)
    ]
    available = [
        budget - w - o.non_torch_bytes - o.activation_peak_bytes - o.cuda_graph_bytes
        for w, o in zip(weights.stages, beside, strict=True)
    ]
    wanted = [layout.pool_bytes(settings.max_model_len) + layout.reserved_bytes for layout in layouts]
    tightest = min(range(pipeline), key=lambda i: available[i] - wanted[i])
    per_gpu = PerGpu(
        budget_bytes=budget,
        weights_bytes=weights.stages[tightest],
        non_torch_bytes=beside[tightest].non_torch_bytes,
        activation_peak_bytes=beside[tightest].activation_peak_bytes,
        cuda_graph_bytes=beside[tightest].cuda_graph_bytes,
        kv_cache_available_bytes=available[tightest],
        kv_cache_needed_bytes=layouts[tightest].needed_bytes(settings.max_model_len),
    )
    concurrency = min(
        layout.max_concurrency(free, settings.max_model_len)
        for layout, free in zip(layouts, available, strict=True)
    )
    longest = min(
        layout.longest_model_len(
            free,
            shape.max_model_len,
            grows=activation_growth(
                shape,
                tensor_parallel_size=tp,
                expert_tensor_parallel_size=split.expert_tensor_parallel_size,
                max_num_batched_tokens=tokens,
                max_num_seqs=sequences,
                max_model_len=settings.max_model_len,
                is_first_stage=number == 0,
                is_last_stage=number == pipeline - 1,
                enforce_eager=settings.enforce_eager,
                vllm_version=vllm_version,
                memory_bytes=gpu.memory_bytes,
            ),
        )
        for number, (layout, free) in enumerate(zip(layouts, available, strict=True))
    )
    whole = plan_layout(
        shape,
        tensor_parallel_size=1,
        stages=stages(len(shape.layers), 1),
        kv_cache_dtype=settings.kv_cache_dtype,
        in_flight_tokens=in_flight,
    )
    assert not isinstance(whole, Unplannable)
    kv_cache = KvCache(
        bytes_per_token=whole[0].bytes_per_token,
        tokens=int(concurrency * settings.max_model_len),
        max_concurrency=concurrency,
        longest_model_len=longest,
        groups=_groups(layouts[tightest]),
        pool_bytes=wanted[tightest],
        reserved_bytes=layouts[tightest].reserved_bytes,
    )
    error = weights.error_bytes + expected_error(
        gpu_name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        vllm_version=vllm_version,
        tensor_parallel_size=tp,
        has_encoder=shape.encoder is not None,
    )
    if not settings.enforce_eager:
        error += pinned_bytes(shape, tp, vllm_version)
    fits, limited_by, reason = _verdict(
        per_gpu, beside[tightest], wanted[tightest], layouts[tightest], error, settings, longest
    )
    return Plan(
        fits,
        limited_by,
        reason,
        per_gpu,
        kv_cache,
        error,
        parallelism,
        gpu,
        vllm_version,
        settings,
        _sources(weights.source),
    )


def _verdict(
    per_gpu: PerGpu,
    beside: Overheads,
    wanted: int,
    layout: Layout,
    error: int,
    settings: Settings,
    longest: int,
) -> tuple[Fit, str | None, str | None]:
    margin = per_gpu.kv_cache_available_bytes - wanted
    over = beside.non_torch_bytes + beside.activation_peak_bytes + beside.cuda_graph_bytes
    if margin < 0:
        if per_gpu.weights_bytes > per_gpu.budget_bytes:
            term, words = "weights", f"the weights take {gib(per_gpu.weights_bytes)}"
        elif per_gpu.weights_bytes + over > per_gpu.budget_bytes:
            term, words = (
                "overheads",
                f"weights and what vLLM needs beside take {gib(per_gpu.weights_bytes + over)}",
            )
        else:
            term = "kvCache"
            words = (
                f"one request of {settings.max_model_len:,} tokens needs {gib(wanted)} of KV cache and "
                f"{gib(per_gpu.kv_cache_available_bytes)} are left"
            )
        reason = f"{words} of a budget of {gib(per_gpu.budget_bytes)}"
        if longest:
            reason += f"; {longest:,} tokens would fit"
        if -margin <= error:
            return Fit.TIGHT, term, f"{reason}; the plan may be off by {gib(error)}"
        return Fit.NO, term, reason
    states = [g for g in layout.groups if g.kind is AttentionKind.STATE]
    if states and settings.max_num_seqs is not None and layout.block_bytes:
        blocks = per_gpu.kv_cache_available_bytes // layout.block_bytes
        off = error // layout.block_bytes
        if blocks < settings.max_num_seqs and not settings.enforce_eager:
            reason = (
                f"the cache has {blocks:,} blocks for states and max_num_seqs is {settings.max_num_seqs:,}; "
                f"vLLM stops with CUDA graphs on, so set max_num_seqs to {blocks:,} or less"
            )
            if blocks + off < settings.max_num_seqs:
                return Fit.NO, "maxNumSeqs", reason
            return Fit.TIGHT, "maxNumSeqs", f"{reason}; the plan may be off by {off:,} blocks"
    if margin <= error:
        return (
            Fit.TIGHT,
            "kvCache",
            f"fits with {gib(margin)} to spare, and the plan may be off by {gib(error)}",
        )
    return Fit.YES, None, None


def _groups(layout: Layout) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            "kind": group.kind.value,
            "layers": group.layers,
            "blockSize": group.block_size,
            "pageBytes": group.page_bytes,
            "window": group.window,
        }
        for group in layout.groups
    )


def _sources(weights: str) -> dict[str, str]:
    computed = (
        "budgetBytes", "kvCacheNeededBytes", "bytesPerToken", "groups",
    )  # fmt: skip
    calibrated = ("nonTorchBytes", "activationPeakBytes", "cudaGraphBytes")
    derived = ("kvCacheAvailableBytes", "tokens", "maxConcurrency", "longestModelLen")
    sources = dict.fromkeys(computed, "configuration") | dict.fromkeys(calibrated, "measured")
    # What is derived from several is as good as the least certain of them.
    return {**sources, **dict.fromkeys(derived, "measured"), "weightsBytes": weights}


def plan_for_facts(
    facts: ModelFacts, *, gpu: PlanGpu, parallelism: Parallelism, settings: Settings, vllm_version: str
) -> Plan:
    """The plan of a catalog entry, from its configuration and, where needed, the size of its weight files."""
    return make_plan(
        facts_shape(facts),
        stored=facts.weights.total if facts.weights else None,
        gpu=gpu,
        parallelism=parallelism,
        settings=settings,
        vllm_version=vllm_version,
    )


def smallest_gpu_count(
    shape: Shape | Unsupported,
    *,
    stored: Stored | None = None,
    gpu: PlanGpu,
    settings: Settings,
    vllm_version: str,
    most: int = 16,
    allow_tight: bool = True,
) -> int | None:
    """The smallest tensor-parallel size that is legal and fits; None: none up to `most`."""
    if isinstance(shape, Unsupported):
        return None
    for size in range(1, most + 1):
        plan = make_plan(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=Parallelism(size),
            settings=settings,
            vllm_version=vllm_version,
        )
        if plan.fits is Fit.YES or (allow_tight and plan.fits is Fit.TIGHT):
            return size
        if plan.fits is Fit.UNKNOWN:
            return None
    return None


MOST_NODES = 8


def smallest_node_count(
    shape: Shape | Unsupported,
    *,
    stored: Stored | None = None,
    gpu: PlanGpu,
    tensor_parallel_size: int,
    settings: Settings,
    vllm_version: str,
) -> int | None:
    """The fewest nodes, one pipeline stage each (as KAITO starts several), that fit; tight counts."""
    for nodes in range(1, MOST_NODES + 1):
        plan = make_plan(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=Parallelism(tensor_parallel_size, nodes),
            settings=settings,
            vllm_version=vllm_version,
        )
        if plan.fits in (Fit.YES, Fit.TIGHT):
            return nodes
        if plan.fits is Fit.UNKNOWN:
            return None
    return None


def plan_gpu(shared: Shared, name: str) -> PlanGpu:
    """The GPU of that name in gpus.yaml, or just its name where it is not listed."""
    gpu = shared.gpu(name)
    if gpu is None:
        return PlanGpu(name, None)
    return PlanGpu(gpu.name, gpu.memory_bytes, gpu.compute_capability)


def plan_instance_types(
    facts: ModelFacts, shared: Shared, profile: Profile, *, max_model_len: int
) -> tuple[InstanceTypePlan, ...]:
    """`instance_type_plans` of a catalog entry, as the profile starts vLLM."""
    return instance_type_plans(
        facts_shape(facts),
        facts.weights.total if facts.weights else None,
        shared,
        settings=lambda gpu: Settings(max_model_len, profile.utilization(gpu)),
        vllm_version=profile.vllm_version,
    )


def without_vllm(
    shared: Shared, name: str, gpu: PlanGpu, parallelism: Parallelism, settings: Settings, vllm_version: str
) -> Plan | None:
    """The refusal of a GPU on which vLLM's CUDA build does not run; None for any other."""
    listed = shared.gpu(name)
    if listed is None or listed.vllm:
        return None
    reason = f"vLLM's CUDA build does not run on {listed.name}"
    return _refused(reason, "gpu", gpu, parallelism, settings, vllm_version)


def instance_type_plans(
    shape: Shape | Unsupported,
    stored: Stored | None,
    shared: Shared,
    *,
    settings: Callable[[str | None], Settings],
    vllm_version: str,
) -> tuple[InstanceTypePlan, ...]:
    """A plan for every instance type, one node each.

    Tensor parallelism over all GPUs of the node, or over as many as are legal for the model. What fits comes
    first, least total memory first; the rest keeps its reason.

    Args:
        shape: the model.
        stored: the size of its weight files, where known.
        shared: the instance types and their GPUs.
        settings: what vLLM is started with on a GPU of that name.
        vllm_version: whose arithmetic.
    """
    # Clouds offer the same GPUs with more or less beside them; one plan will do for all of these.
    planned: dict[tuple[str | None, int], _NodePlan] = {}
    found = []
    for instance_type in shared.instance_types:
        gpu = plan_gpu(shared, instance_type.gpu)
        asked = settings(gpu.name)
        parallelism = Parallelism(instance_type.gpu_count)
        refused = without_vllm(shared, instance_type.gpu, gpu, parallelism, asked, vllm_version)
        if refused is not None:
            found.append(InstanceTypePlan(instance_type, refused, None, None, None))
            continue
        key = (gpu.name, instance_type.gpu_count)
        if key not in planned:
            planned[key] = _node_plan(shape, stored, gpu, instance_type.gpu_count, asked, vllm_version)
        found.append(InstanceTypePlan(instance_type, *planned[key]))

    return tuple(sorted(found, key=_smallest_first))


_NodePlan = tuple[Plan, int | None, int | None, str | None]
"""The plan, the GPUs and the nodes that are needed, and a note: the rest of an InstanceTypePlan."""


def _node_plan(
    shape: Shape | Unsupported,
    stored: Stored | None,
    gpu: PlanGpu,
    gpu_count: int,
    settings: Settings,
    vllm_version: str,
) -> _NodePlan:
    size, note = gpu_count, None
    if isinstance(shape, Shape):
        illegal = illegal_tensor_parallel(shape, size, vllm_version=vllm_version)
        while illegal is not None and size > 1:
            note = note or f"{illegal}, so not all {gpu_count} GPUs are used"
            size -= 1
            illegal = illegal_tensor_parallel(shape, size, vllm_version=vllm_version)
    plan = make_plan(
        shape,
        stored=stored,
        gpu=gpu,
        parallelism=Parallelism(size),
        settings=settings,
        vllm_version=vllm_version,
    )
    needed = None
    if plan.fits in (Fit.YES, Fit.TIGHT):
        needed = smallest_gpu_count(
            shape,
            stored=stored,
            gpu=gpu,
            settings=settings,
            vllm_version=vllm_version,
            most=size,
            allow_tight=plan.fits is Fit.TIGHT,
        )
        if note is None and needed is not None and needed < gpu_count:
            note = f"{needed} of its {gpu_count} GPUs would do"
    nodes = 1 if needed is not None else None
    if plan.fits is Fit.NO and plan.limited_by in ("weights", "overheads", "kvCache"):
        nodes = smallest_node_count(
            shape,
            stored=stored,
            gpu=gpu,
            tensor_parallel_size=size,
            settings=settings,
            vllm_version=vllm_version,
        )
    return plan, needed, nodes, note


MEMORY_STEP_BYTES = 8 * GIB
"""Nodes are ordered by GPU memory in such steps: 2 × 40GB and 1 × 80GB are the same amount to whoever rents them."""


def _smallest_first(item: InstanceTypePlan) -> tuple[int, int, int, int, str]:
    """What fits first, then least GPU memory, fewest GPUs, and the size in the name: g5.xlarge before g5.16xlarge."""
    memory = (item.plan.gpu.memory_bytes or 0) * item.instance_type.gpu_count
    name = item.instance_type.name
    size = size_in_name(name)
    return _ORDER[item.plan.fits], round(memory / MEMORY_STEP_BYTES), item.instance_type.gpu_count, size, name


def size_in_name(name: str) -> int:
    """How large a machine calls itself, in steps of four vCPUs: 2 for g5.2xlarge and g2-standard-8; else 0."""
    if found := re.search(r"\.([0-9]*)xlarge\Z", name):
        return int(found[1] or 1)
    found = re.search(r"-standard-([0-9]+)\Z", name)
    return int(found[1]) // 4 if found else 0


def to_json(plan: Plan) -> dict[str, Any]:
    """The contract of `plan --format json`."""
    per_gpu, kv_cache = plan.per_gpu, plan.kv_cache
    settings = plan.settings
    return {
        "perGPU": per_gpu
        and {
            "budgetBytes": per_gpu.budget_bytes,
            "weightsBytes": per_gpu.weights_bytes,
            "nonTorchBytes": per_gpu.non_torch_bytes,
            "activationPeakBytes": per_gpu.activation_peak_bytes,
            "cudaGraphBytes": per_gpu.cuda_graph_bytes,
            "kvCacheAvailableBytes": per_gpu.kv_cache_available_bytes,
            "kvCacheNeededBytes": per_gpu.kv_cache_needed_bytes,
        },
        "kvCache": kv_cache
        and {
            "bytesPerToken": kv_cache.bytes_per_token,
            "tokens": kv_cache.tokens,
            "maxConcurrency": round(kv_cache.max_concurrency, 4),
            "longestModelLen": kv_cache.longest_model_len,
            "groups": [dict(group) for group in kv_cache.groups],
        },
        "fits": plan.fits.value,
        "limitedBy": plan.limited_by,
        "reason": plan.reason,
        "expectedErrorBytes": plan.expected_error_bytes,
        "parallelism": {
            "tensorParallelSize": plan.parallelism.tensor_parallel_size,
            "pipelineParallelSize": plan.parallelism.pipeline_parallel_size,
            "dataParallelSize": plan.parallelism.data_parallel_size,
            "enableExpertParallel": plan.parallelism.enable_expert_parallel,
        },
        "gpu": {
            "name": plan.gpu.name,
            "memoryBytes": plan.gpu.memory_bytes,
            "computeCapability": plan.gpu.compute_capability,
        },
        "vllmVersion": plan.vllm_version,
        "settings": {
            "maxModelLen": settings.max_model_len,
            "gpuMemoryUtilization": settings.gpu_memory_utilization,
            "kvCacheDtype": settings.kv_cache_dtype,
            "maxNumSeqs": settings.max_num_seqs,
            "maxNumBatchedTokens": settings.max_num_batched_tokens,
            "enforceEager": settings.enforce_eager,
            "languageModelOnly": settings.language_model_only,
        },
        "sources": dict(plan.sources),
    }

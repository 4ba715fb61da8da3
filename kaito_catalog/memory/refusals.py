"""Why vLLM refuses a request, or why what it takes is unknown: before any memory is added up."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import BuiltShape, LatentAttention, Shape, Unsupported
from kaito_catalog.architectures.as_built import no_class
from kaito_catalog.architectures.shape import UNNAMED
from kaito_catalog.memory import kernels
from kaito_catalog.memory.compilation import compilation_of
from kaito_catalog.memory.environment import Environment, environment_of
from kaito_catalog.memory.kv_cache.versions import states_per_sequence
from kaito_catalog.memory.kv_connectors import keeps_hybrid_manager
from kaito_catalog.memory.legal_splits import illegal_context_parallel, illegal_tensor_parallel
from kaito_catalog.memory.no_effect import Situation
from kaito_catalog.memory.quantization_methods import refused_method
from kaito_catalog.memory.unplanned_options import why_unknown
from kaito_catalog.memory.values import Fit, Parallelism, PlanRequest, Settings
from kaito_catalog.memory.verdict import lacking_at_start, words_of_budget
from kaito_catalog.memory.weights.split import illegal_partition

BLACKWELL = 10

LACKS_SPARSE_FP8 = (
    "its configuration asks for an fp8 cache, and vLLM has no sparse attention over that before Blackwell; "
    "set kv_cache_dtype to bfloat16"
)


@dataclass(frozen=True)
class Refusal:
    """Why there is no account of a GPU's memory: vLLM refuses, or it is not known what vLLM would find."""

    fits: Fit
    """NO or UNKNOWN."""
    limited_by: str
    """As in a plan."""
    reason: str


def lacks_sparse_fp8(shape: BuiltShape, compute_capability: float | None, kv_cache_dtype: str) -> bool:
    """vLLM 0.25.1 on Hopper finds no back end for sparse MLA over the fp8 cache that a checkpoint asks for."""
    asks = shape.quantization is not None and shape.quantization.kv_cache_dtype == "fp8"
    is_sparse = any(isinstance(x.mixer, LatentAttention) and x.mixer.sparse for x in shape.layers)
    is_older = compute_capability is not None and compute_capability < BLACKWELL
    return asks and is_sparse and is_older and kv_cache_dtype == "auto"


def why_unplanned(
    shape: Shape | Unsupported,
    settings: Settings,
    vllm_version: str,
    *,
    parallelism: Parallelism | None = None,
    compute_capability: float | None = None,
) -> tuple[str, str] | None:
    """Why what the model takes is unknown, and whether its architecture or its options limit it.

    Without a split and a compute capability, one H100 is meant.
    """
    if isinstance(shape, Unsupported):
        return shape.reason, "architecture"
    newer = no_class(shape, vllm_version)
    if newer is not None:
        return newer, "architecture"
    unplanned = why_unknown(
        Situation(shape, settings, vllm_version, parallelism or Parallelism(), compute_capability)
    )
    if unplanned is None:
        compilation = compilation_of(settings)
        unplanned = (
            compilation if isinstance(compilation, str) else _why_unknown_value(settings, vllm_version)
        )
    return None if unplanned is None else (unplanned, "settings")


_TUNED_FOR = ("balanced", "throughput", "interactivity")


def _why_unknown_value(settings: Settings, vllm_version: str) -> str | None:
    if settings.performance_mode not in _TUNED_FOR:
        return f"no plan for performance-mode '{settings.performance_mode[:40]}'"
    environment = environment_of(settings.environment)
    if isinstance(environment, str):
        return environment
    keeps = keeps_hybrid_manager(settings, vllm_version)
    return keeps if isinstance(keeps, str) else None


def refused(request: PlanRequest, built: BuiltShape) -> Refusal | None:
    """Why vLLM would not start, or why nothing can be said without the GPU's memory.

    Args:
        request: with its settings resolved.
        built: the model, as the vLLM version builds it on that GPU.
    """
    settings, gpu, sizes = request.settings, request.gpu, request.parallelism
    if min(sizes.tensor_parallel_size, sizes.pipeline_parallel_size, sizes.data_parallel_size) < 1:
        return _no("parallelism", "every parallel size is at least 1")
    if settings.max_model_len < 1 or not 0 < settings.gpu_memory_utilization <= 1:
        return _no(
            "settings", "max_model_len is at least 1, and gpu_memory_utilization above 0 and at most 1"
        )
    illegal = illegal_tensor_parallel(
        built, sizes.tensor_parallel_size, enable_expert_parallel=sizes.enable_expert_parallel
    )
    if illegal is None:
        illegal = illegal_context_parallel(
            built, sizes.tensor_parallel_size, settings.decode_context_parallel_size
        )
    if illegal is None:
        illegal = _refuses_partition(settings, built, sizes)
    if illegal is not None:
        return _no("parallelism", illegal)
    if settings.max_model_len > built.max_model_len:
        return _no(
            "maxModelLen",
            f"max_model_len {settings.max_model_len:,} is more than the model's own limit of "
            f"{built.max_model_len:,} tokens, and vLLM refuses it",
        )
    cannot_load = unloadable(
        built, request.vllm_version, allow_deprecated=settings.allow_deprecated_quantization
    )
    if cannot_load is not None:
        return cannot_load
    unchunked = _refuses_unchunked(settings, built, request.vllm_version)
    if unchunked is not None:
        return _no("settings", unchunked)
    missing = kernels.refusal(built, gpu.compute_capability, request.vllm_version)
    if missing is not None:
        return _no("gpu", missing)
    if gpu.memory_bytes is None:
        named = gpu.name or "this GPU"
        reason = f"no published figure of the memory that the driver reports for {named}"
        return Refusal(Fit.UNKNOWN, "gpu", reason)
    if lacking_at_start(settings, gpu) >= 0:
        return _no("freeMemory", f"vLLM does not start: {words_of_budget(settings, gpu)}")
    if lacks_sparse_fp8(built, gpu.compute_capability, settings.kv_cache_dtype):
        return _no("kvCacheDtype", LACKS_SPARSE_FP8)
    return None


def _refuses_partition(settings: Settings, built: BuiltShape, sizes: Parallelism) -> str | None:
    """Why vLLM refuses VLLM_PP_LAYER_PARTITION; None where it does not, or where it is not set."""
    environment = environment_of(settings.environment)
    if not isinstance(environment, Environment):
        return None
    found = illegal_partition(environment.layer_partition, len(built.layers), sizes.pipeline_parallel_size)
    return None if found is None else f"vLLM refuses VLLM_PP_LAYER_PARTITION: {found}"


QUANTIZATION = "quantization"
"""What limits a plan of a model whose weights are stored in a way that vLLM does not load."""


def unloadable(built: BuiltShape, vllm_version: str, *, allow_deprecated: bool = False) -> Refusal | None:
    """Why vLLM does not load weights that are stored so, or why that is not known; None where it does.

    Args:
        built: the model, as the vLLM version builds it.
        vllm_version: whose methods count.
        allow_deprecated: whether `allow-deprecated-quantization` is given.
    """
    how = built.quantization
    if how is None:
        return None
    reason = how.refused or refused_method(how, vllm_version, allow_deprecated=allow_deprecated)
    if reason is not None:
        return _no(QUANTIZATION, reason)
    if how.method == UNNAMED:
        words = f"{how.problem}, so that vLLM takes the weights for unquantised"
        return Refusal(Fit.UNKNOWN, QUANTIZATION, words)
    return None


def _refuses_unchunked(settings: Settings, built: BuiltShape, vllm_version: str) -> str | None:
    """Why vLLM does not start without chunked prefill; None where it does, or where prompts are in pieces."""
    tokens = settings.max_num_batched_tokens
    if settings.enable_chunked_prefill is not False or tokens is None:
        return None
    if tokens < settings.max_model_len:
        return (
            f"without chunked prefill a batch has to hold {settings.max_model_len:,} tokens, and "
            f"max_num_batched_tokens is {tokens:,}"
        )
    states = states_per_sequence(built, vllm_version, enable_prefix_caching=settings.enable_prefix_caching)
    if isinstance(states, int) and states > 1:
        return "a hybrid model that caches prefixes needs chunked prefill; set no-enable-prefix-caching too"
    return None


def _no(limited_by: str, reason: str) -> Refusal:
    return Refusal(Fit.NO, limited_by, reason)

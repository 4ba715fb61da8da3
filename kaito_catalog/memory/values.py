"""What goes into a plan (`PlanRequest`) and what comes out of it (`Plan`), as frozen values; sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypedDict

from kaito_catalog.architectures import Drafter, Shape, Unsupported
from kaito_catalog.memory.options import PLANNED


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
    """vLLM's arguments that memory depends on: `options.PLANNED`, each with its type and what leaves it to vLLM.

    None is what `vllm serve` does by default on that GPU.
    """

    max_model_len: int
    gpu_memory_utilization: float
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_chunked_prefill: bool | None = None
    async_scheduling: bool | None = None
    performance_mode: str = "balanced"
    max_cudagraph_capture_size: int | None = None
    cudagraph_capture_sizes: str | None = None
    """Separated by spaces."""
    compilation_config: str | None = None
    """JSON."""
    optimization_level: str | None = None
    enforce_eager: bool = False
    language_model_only: bool = False
    """No images and no sound: vLLM builds no encoder for them, and profiles none."""
    kv_cache_memory_bytes: int | None = None
    """What vLLM gives the KV cache on each GPU; `gpu_memory_utilization` says nothing of the cache then."""
    num_gpu_blocks_override: int | None = None
    """Blocks of the KV cache on each GPU: stronger than `kv_cache_memory_bytes`."""
    disable_hybrid_kv_cache_manager: bool = False
    """Sliding and chunked layers keep every token, and a model that mixes attention with states does not start."""
    block_size: int | None = None
    enable_prefix_caching: bool | None = None
    mamba_cache_mode: str = "none"
    """`none` is vLLM's choice too where prefixes are cached."""
    mamba_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    kv_transfer_config: str | None = None
    """JSON."""
    kv_offloading_size: float | None = None
    """GiB of the host's memory; vLLM then chooses a KV connector by itself."""
    kv_offloading_backend: str = "native"
    decode_context_parallel_size: int = 1
    """Ranks of a tensor-parallel group among which the tokens of a request are divided."""
    allow_deprecated_quantization: bool = False
    speculative_config: str | None = None
    """What guesses tokens ahead, as JSON (`speculation.config` reads it)."""
    draft: Drafter | Unsupported | None = None
    """What the drafter that it names is; None: not known, or the model itself brings it."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of the environment that vLLM reads, and their values (`environment.environment_of`)."""
    mm_encoder_tp_mode: str = "weights"
    quantization: str | None = None
    """How the weights are stored: a name for what their configuration says, or what vLLM makes of them in loading."""
    dtype: str = "auto"
    hf_overrides: str | None = None
    """Keys of the model's configuration, as JSON."""
    unplanned: tuple[tuple[str, str], ...] = ()
    """Other options that change what memory holds, with their values: most make the plan unknown."""


class EngineOptions(TypedDict, total=False):
    """The options of `Settings` as keywords: what is absent is left to the proposal, the release and vLLM."""

    gpu_memory_utilization: float | None
    kv_cache_dtype: str | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    enable_chunked_prefill: bool | None
    async_scheduling: bool | None
    performance_mode: str | None
    max_cudagraph_capture_size: int | None
    cudagraph_capture_sizes: str | None
    compilation_config: str | None
    optimization_level: str | None
    enforce_eager: bool | None
    language_model_only: bool | None
    allow_deprecated_quantization: bool | None
    speculative_config: str | None
    kv_cache_memory_bytes: int | None
    num_gpu_blocks_override: int | None
    disable_hybrid_kv_cache_manager: bool | None
    block_size: int | None
    enable_prefix_caching: bool | None
    mamba_cache_mode: str | None
    mamba_cache_dtype: str | None
    mamba_ssm_cache_dtype: str | None
    kv_transfer_config: str | None
    kv_offloading_size: float | None
    kv_offloading_backend: str | None
    decode_context_parallel_size: int | None
    mm_encoder_tp_mode: str | None
    quantization: str | None
    dtype: str | None
    hf_overrides: str | None


@dataclass(frozen=True)
class PlanGpu:
    """The device of a plan; `memory_bytes` is the total as the driver reports it."""

    name: str | None
    memory_bytes: int | None
    """None where what the driver reports is not published."""
    compute_capability: float | None = None
    used_bytes: int = 0
    """What other processes hold of it before vLLM starts."""
    is_unified: bool = False
    """Whether the memory is the machine's own: the operating system and vLLM's processes on the CPU take of it."""
    memory_of_stages: tuple[int, ...] = ()
    """Of the cards of each pipeline stage, where they are unequal; `memory_bytes` is the smallest then."""


@dataclass(frozen=True)
class PlanRequest:
    """All that a plan depends on; equal requests have equal plans."""

    shape: Shape | Unsupported
    """The model; an unsupported one gives an unknown plan with its reason."""
    stored: Stored | None = None
    """Its weight files, used where the configuration alone does not give the weights."""
    gpu: PlanGpu = field(kw_only=True)
    """The device; without its memory the plan is unknown."""
    parallelism: Parallelism = field(default=Parallelism(), kw_only=True)
    """How the model is split; what vLLM would refuse does not fit, limited by `parallelism`."""
    settings: Settings = field(kw_only=True)
    """vLLM's arguments; the plan holds them with their defaults filled in."""
    vllm_version: str = field(kw_only=True)
    """Such as 0.25.1."""


@dataclass(frozen=True)
class PerGpu:
    """Memory of the GPU that has least room for KV cache; all in bytes."""

    budget_bytes: int
    """What vLLM may use; where the cache's size is set, what it uses with that cache."""
    weights_bytes: int
    non_torch_bytes: int
    activation_peak_bytes: int
    """What torch holds beside the parameters: the profile run's peak, rotary tables, repacked weights."""
    cuda_graph_bytes: int
    kv_cache_available_bytes: int
    kv_cache_needed_bytes: int
    """What vLLM asks to be free for the cache before it starts: `KvCache.pool_bytes`, which the verdict goes by."""


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
    """What vLLM asks for before it starts: one request of `max_model_len` tokens, with its groups of layers padded to
    equal size, and what is reserved beside it."""
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
            "usedBytes": plan.gpu.used_bytes,
        },
        "vllmVersion": plan.vllm_version,
        "settings": {
            "maxModelLen": settings.max_model_len,
            **{option.json_key: getattr(settings, option.attribute) for option in PLANNED},
        },
        "sources": dict(plan.sources),
    }

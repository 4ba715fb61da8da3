"""The memory plan of a model on given GPUs: closed form, milliseconds, no vLLM; unknown where it is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


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


@dataclass(frozen=True)
class PlanGpu:
    """The device of a plan; `memory_bytes` is the total as the driver reports it."""

    name: str | None
    memory_bytes: int
    compute_capability: float | None = None


@dataclass(frozen=True)
class PerGpu:
    """Memory of the GPU that has least room for KV cache; all in bytes."""

    budget_bytes: int
    weights_bytes: int
    non_torch_bytes: int
    activation_peak_bytes: int
    cuda_graph_bytes: int
    kv_cache_available_bytes: int
    kv_cache_needed_bytes: int
    """For one request of `max_model_len` tokens."""


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

"""Published start-up logs of vLLM as rows that a plan can be scored on: tests/data/starts.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.memory.environment import FLASHINFER_SAMPLER
from kaito_catalog.quantity import GIB

STARTS = Path(__file__).resolve().parents[1] / "tests" / "data" / "starts.json"
"""What constants were fitted on."""
HELD_OUT = STARTS.with_name("starts_held_out.json")
"""What none was fitted on: other GPUs, newer versions."""


@dataclass(frozen=True)
class Observed:
    """One start of vLLM that a plan can be scored on; sizes in bytes per GPU."""

    id: str
    source: str
    model: str
    shape: Shape
    config: dict[str, Any]
    vllm_version: str
    gpu: str
    gpu_memory_bytes: int
    gpu_memory_utilization: float
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_model_len: int
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    enforce_eager: bool
    language_model_only: bool
    kv_cache_dtype: str
    flashinfer: bool | None
    """Whether FlashInfer samples, where that was seen; before 0.12 it depends on what is installed."""
    weights_bytes: int | None
    non_torch_bytes: int | None
    activation_peak_bytes: int | None
    cuda_graph_estimate_bytes: int | None
    kv_cache_bytes: int | None
    """None where vLLM ended before it came to the cache."""
    kv_cache_tokens: int | None
    served: bool | None


def environment(row: Observed) -> tuple[tuple[str, str], ...]:
    """The variables that tell a plan what was seen."""
    return () if row.flashinfer is None else ((FLASHINFER_SAMPLER, str(int(row.flashinfer))),)


def observations(path: Path = STARTS) -> tuple[list[Observed], dict[str, int]]:
    """The rows, and how many others were left out for which reason.

    Raises:
        FileNotFoundError: there is no such file.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    return [_observed(row, value["models"][row["model"]]["config"]) for row in value["starts"]], value[
        "leftOut"
    ]


def _observed(row: dict[str, Any], config: dict[str, Any]) -> Observed:
    shape = read_shape(config)
    if not isinstance(shape, Shape):
        raise ValueError(f"{row['id']}: {shape.reason}")

    def size(name: str) -> int | None:
        return int(row[name] * GIB) if name in row else None

    return Observed(
        id=row["id"],
        source=row["source"],
        model=row["model"],
        shape=shape,
        config=config,
        vllm_version=row["vllmVersion"],
        gpu=row["gpu"],
        gpu_memory_bytes=int(row["gpuMemoryGib"] * GIB),
        gpu_memory_utilization=row["gpuMemoryUtilization"],
        tensor_parallel_size=row["tensorParallelSize"],
        pipeline_parallel_size=row["pipelineParallelSize"],
        max_model_len=row.get("maxModelLen", shape.max_model_len),
        max_num_seqs=row.get("maxNumSeqs"),
        max_num_batched_tokens=row.get("maxNumBatchedTokens"),
        enforce_eager=row.get("enforceEager", False),
        language_model_only=row.get("languageModelOnly", False),
        kv_cache_dtype=row.get("kvCacheDtype", "auto"),
        flashinfer=row.get("flashinfer"),
        weights_bytes=size("weightsGib"),
        non_torch_bytes=size("nonTorchGib"),
        activation_peak_bytes=size("activationPeakGib"),
        cuda_graph_estimate_bytes=size("cudaGraphEstimateGib"),
        kv_cache_bytes=size("kvCacheGib"),
        kv_cache_tokens=row.get("kvCacheTokens"),
        served=row.get("served"),
    )

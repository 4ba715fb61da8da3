"""What variables of the environment change of a plan: `environment_of` reads `Settings.environment`.

Read in vLLM's envs.py, 0.10.1.1 to 0.33.0. A variable of vLLM that is neither read nor known to keep no memory makes a
plan unknown, by its name; those of other programs are left to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

ESTIMATE_CUDAGRAPHS = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"
FLASHINFER_SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
LAYER_PARTITION = "VLLM_PP_LAYER_PARTITION"

PLANNED_VARIABLES: Mapping[str, str] = {
    ESTIMATE_CUDAGRAPHS: "0 or 1: whether what CUDA graphs are estimated to need is set aside (default: 1 from 0.20)",
    FLASHINFER_SAMPLER: "0 or 1: whether FlashInfer samples, which before 0.12 takes less memory",
    LAYER_PARTITION: "layers of each pipeline stage, such as 16,32 (default: as many on each)",
}
"""Variables that plans read, and what they say."""

WITHOUT_MEMORY: Mapping[str, tuple[str, ...]] = {
    "it chooses kernels that keep no memory of their own": (
        "VLLM_USE_DEEP_GEMM",
        "VLLM_DEEP_GEMM_WARMUP",
        "VLLM_USE_TRITON_AWQ",
        "VLLM_MARLIN_USE_ATOMIC_ADD",
        "VLLM_USE_V1",
    ),
    "it is about the server, its processes and its files": (
        "VLLM_API_KEY",
        "VLLM_CACHE_ROOT",
        "VLLM_CONFIG_ROOT",
        "VLLM_ASSETS_CACHE",
        "VLLM_NO_USAGE_STATS",
        "VLLM_DO_NOT_TRACK",
        "VLLM_USAGE_SOURCE",
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOGGING_PREFIX",
        "VLLM_LOGGING_CONFIG_PATH",
        "VLLM_CONFIGURE_LOGGING",
        "VLLM_LOG_STATS_INTERVAL",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_ENGINE_ITERATION_TIMEOUT_S",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS",
        "VLLM_RPC_TIMEOUT",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        "VLLM_HOST_IP",
        "VLLM_PORT",
        "VLLM_USE_MODELSCOPE",
        "VLLM_IMAGE_FETCH_TIMEOUT",
        "VLLM_SLEEP_WHEN_IDLE",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_RAY_PER_WORKER_GPUS",
    ),
}
"""Variables of vLLM that a GPU's memory does not depend on, by the reason."""

_HARMLESS = frozenset(name for names in WITHOUT_MEMORY.values() for name in names)
_OF_VLLM = "VLLM_"


@dataclass(frozen=True)
class Environment:
    """What the variables say; None is "not set"."""

    estimates_cuda_graphs: bool | None = None
    flashinfer_sampler: bool | None = None
    layer_partition: tuple[int, ...] | None = None


VLLMS_ENVIRONMENT = Environment()


class _UnreadError(Exception):
    """The variable, and what of it is not planned."""


@lru_cache(maxsize=256)
def environment_of(variables: tuple[tuple[str, str], ...]) -> Environment | str:
    """What the variables say; a text where one of them is not planned, with its name."""
    found = Environment()
    try:
        for name, value in variables:
            found = _with(found, name, value)
    except _UnreadError as error:
        return str(error)
    return found


def pairs(variables: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Variables as `Settings.environment` has them: those of vLLM, by name."""
    items = variables.items() if isinstance(variables, Mapping) else variables
    return tuple(sorted((name, value) for name, value in items if name.startswith(_OF_VLLM)))


def _with(found: Environment, name: str, value: str) -> Environment:
    match name:
        case _ if name == ESTIMATE_CUDAGRAPHS:
            return replace(found, estimates_cuda_graphs=_switch(name, value))
        case _ if name == FLASHINFER_SAMPLER:
            return replace(found, flashinfer_sampler=_switch(name, value))
        case _ if name == LAYER_PARTITION:
            return replace(found, layer_partition=_layers(name, value))
    if name.startswith(_OF_VLLM) and name not in _HARMLESS:
        raise _UnreadError(f"no plan reads {name[:60]}")
    return found


def _switch(name: str, value: str) -> bool:
    if value.strip() not in ("0", "1"):
        raise _UnreadError(f"{name} is 0 or 1, and not '{value[:40]}'")
    return value.strip() == "1"


def _layers(name: str, value: str) -> tuple[int, ...]:
    words = value.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise _UnreadError(f"{name} is a list of numbers such as 16,32, and not '{value[:40]}'")
    return tuple(int(word) for word in words)

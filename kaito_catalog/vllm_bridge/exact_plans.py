"""Exact plans of a configuration at several sizes, and as the catalog's evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.errors import CatalogError
from kaito_catalog.vllm_bridge.answers import ExactPlanAnswer, GpuToSimulate, KvCachePlan, RankPlan
from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.evidence import document, model_directory

H100: GpuToSimulate = {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memoryBytes": 80 * 2**30}
"""What exact plans of the catalog simulate: the GPU most start-up logs are of."""


def plan_worlds(
    worker: Callable[[], Worker],
    config: Mapping[str, Any],
    *,
    sizes: Iterable[int],
    max_model_len: int,
    vllm_version: str,
    kv_cache_dtype: str | None = None,
    gpu: GpuToSimulate = H100,
    time_limit_seconds: float = 300.0,
) -> list[tuple[int, ExactPlanAnswer | WorkerError]]:
    """Exact plans of one configuration at several tensor-parallel sizes; what vLLM refuses keeps its reason.

    Args:
        worker: gives a live worker (a new one after the last was lost).
        config: the configuration.
        sizes: tensor-parallel sizes.
        max_model_len: tokens of one request.
        vllm_version: whose code.
        kv_cache_dtype: None for vLLM's default.
        gpu: what is simulated.
        time_limit_seconds: for each plan.

    Raises:
        WorkerError: vLLM cannot be asked at all.
    """
    found: list[tuple[int, ExactPlanAnswer | WorkerError]] = []
    options = {"kv_cache_dtype": kv_cache_dtype} if kv_cache_dtype else {}
    with model_directory(config) as folder:
        for size in sizes:
            try:
                plan = worker().exact_plan(
                    folder,
                    args={"tensor_parallel_size": size, "max_model_len": max_model_len, **options},
                    gpu=gpu,
                    vllm_version=vllm_version,
                    time_limit_seconds=time_limit_seconds,
                )
            except WorkerError as error:
                if error.failure_class in ("no-python", "no-vllm", "no-version"):
                    raise
                found.append((size, error))
            else:
                found.append((size, plan))
    return found


def exact_evidence(
    entry: Entry,
    worlds: Iterable[tuple[int, ExactPlanAnswer | WorkerError]],
    *,
    kv_cache_dtype: str | None = None,
    gpu: GpuToSimulate = H100,
    today: str | None = None,
) -> dict[str, Any]:
    """`kind: ExactPlan` of an entry.

    Raises:
        CatalogError: no world gave a plan.
    """
    found = list(worlds)
    first = next((plan for _, plan in found if not isinstance(plan, WorkerError)), None)
    if first is None:
        words = found[0][1].words if found and isinstance(found[0][1], WorkerError) else "nothing was asked"
        raise CatalogError(f"vLLM gives no exact plan of {entry.name}: {words}")
    return {
        **document(entry, "ExactPlan", first),
        "gpu": {
            "name": gpu["name"],
            "memoryBytes": gpu["memoryBytes"],
            "computeCapability": float(gpu["capability"]),
        },
        "recordedAt": today or datetime.now(UTC).date().isoformat(),
        "worlds": [_world(size, plan, kv_cache_dtype) for size, plan in found],
    }


def _world(size: int, plan: ExactPlanAnswer | WorkerError, kv_cache_dtype: str | None) -> dict[str, Any]:
    world: dict[str, Any] = {"parallelism": {"tensorParallelSize": size}}
    if isinstance(plan, WorkerError):
        return world | {"refused": plan.words[:2000]}
    if kv_cache_dtype:
        world["kvCacheDtype"] = kv_cache_dtype
    settings = plan["settings"]
    return world | {
        "maxNumBatchedTokens": settings["maxNumBatchedTokens"],
        "maxNumSeqs": settings["maxNumSeqs"],
        "ranks": [_rank(rank) for rank in plan["ranks"]],
        "kvCache": {"maxModelLen": settings["maxModelLen"], **_cache(plan["kvCache"])},
    }


def _rank(rank: RankPlan) -> dict[str, Any]:
    loaded = rank["afterLoading"]
    return {
        "rank": rank["tensorRank"],
        "weightsBytes": rank["weightsBytes"],
        "bufferBytes": rank["bufferBytes"],
        "weightsByDtype": dict(sorted(rank["weightsBytesByDtype"].items())),
        **({"afterLoadingBytes": loaded["weightsBytes"]} if loaded["known"] else {}),
    }


def _cache(cache: KvCachePlan) -> dict[str, Any]:
    by_layers = cache.get("neededByLayersBytes")
    return {
        "neededBytes": cache["neededBytes"],
        **({} if by_layers is None else {"neededByLayersBytes": by_layers}),
        "groups": [
            {key: group[key] for key in _RECORDED_OF_A_GROUP if key in group}
            for group in map(dict, cache["groups"])
        ],
    }


_RECORDED_OF_A_GROUP = ("kind", "layers", "blockSize", "pageBytes", "slidingWindow", "dtype")

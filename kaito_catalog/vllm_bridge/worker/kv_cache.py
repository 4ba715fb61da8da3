"""vLLM's own plan of the KV cache: what one request needs, what a budget holds, and the admission check."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kaito_catalog.vllm_bridge.worker.ranks import RankContent, describe_layers, held_bytes
from kaito_catalog.vllm_bridge.worker.refusals import own_words, refusal
from kaito_catalog.vllm_bridge.worker.releases import (
    find,
    plan_every_worker,
    pool_bytes_per_block,
    replace,
    resolve_layout,
)
from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError
from kaito_catalog.vllm_bridge.worker.simulated_gpu import SimulatedHardware
from kaito_catalog.vllm_bridge.worker.specs import bytes_per_token, describe_groups

NOTHING_FITS: JSON = {"blocks": None, "tokens": None, "maxConcurrency": None}


def plan_kv_cache(
    vllm_config: Any, contents: Sequence[RankContent], *, budget_bytes: int | None, limit: int
) -> JSON:
    """vLLM's own plan of the KV cache: groups, what one request of max_model_len needs, what the budget holds.

    Without `budget_bytes` the budget is what gpu_memory_utilization leaves beside the weights alone: an upper bound,
    named `weights-only` in the result, because activations and CUDA graphs are only known by running.

    `limit` is the model's own limit of max_model_len. `askedBytes` is for each of `contents` what has to be free for
    the cache before vLLM starts.
    """
    from vllm.config import set_current_vllm_config

    utilization = vllm_config.cache_config.gpu_memory_utilization
    requested = math.ceil(SimulatedHardware.gpu.memory_bytes * utilization)
    # 0 is as good as absent (determine_available_memory of v1/worker/gpu_worker.py).
    own = vllm_config.cache_config.kv_cache_memory_bytes
    if own and budget_bytes not in (None, own):
        words = f"kvCacheBytes is {budget_bytes}, and kv-cache-memory-bytes {own}: vLLM would take the latter"
        raise RequestError("bad-request", words)
    given = budget_bytes or own
    budgets = [requested - held_bytes(content) if given is None else int(given) for content in contents]
    specs = [dict(content.specs) for content in contents]
    plan: JSON = {
        "layers": describe_layers(contents),
        "layersSharingAnothersCache": sum(content.shared_layers for content in contents),
        "bytesPerTokenPerGPU": max(bytes_per_token(content.specs) for content in contents),
        "budget": {
            "bytes": min(budgets),
            "source": "weights-only" if given is None else "given",
        },
    }
    if not any(specs):
        needs_nothing: JSON = {"groups": [], "neededBytes": 0, "reservedBytes": 0, "neededBlocks": 0}
        fits: JSON = {"fits": min(budgets) >= 0, "longestModelLen": None, "askedBytes": [0] * len(specs)}
        return plan | needs_nothing | NOTHING_FITS | fits
    with set_current_vllm_config(vllm_config):
        # One worker of the merged specs is enough to settle the layout; the engine core gives it every worker's.
        merged = {name: spec for worker in specs for name, spec in worker.items()}
        resolve_layout(vllm_config, merged.values())
        # First what the budget holds: max_model_len `auto` is settled by it.
        held = holds(vllm_config, specs, budgets, limit)
        return plan | needs(vllm_config, specs) | held


ROOM_FOR_ANYTHING = 1 << 50


def needs(vllm_config: Any, specs: Sequence[Mapping[str, Any]]) -> JSON:
    """What one request of max_model_len takes, as the planner says where there is room for anything."""
    from vllm.v1.core import kv_cache_utils

    cache = vllm_config.cache_config
    blocks, cache.num_gpu_blocks_override = cache.num_gpu_blocks_override, None
    specs = copies(specs)
    try:
        with record_admission() as checks:
            configs = plan_every_worker(vllm_config, specs, [ROOM_FOR_ANYTHING] * len(specs))
    finally:
        cache.num_gpu_blocks_override = blocks
    # From 0.29 on a block is held back from the pool, and left out of what the check compares with.
    reserved = [ROOM_FOR_ANYTHING - check["availableBytes"] for check in checks]
    asked = iter([check["neededBytes"] + free for check, free in zip(checks, reserved, strict=True)])
    grouped = [config for config in configs if config.kv_cache_groups]
    concurrency = min(
        kv_cache_utils.get_max_concurrency_for_kv_cache_config(vllm_config, config) for config in grouped
    )
    return {
        "groups": describe_groups(configs[0]),
        "neededBytes": max(check["neededBytes"] for check in checks),
        "reservedBytes": max(reserved),
        "askedBytes": [next(asked) if worker else 0 for worker in specs],
        # Before layers are put into groups of equal size, which pads models with several kinds of layer.
        "neededByLayersBytes": max(
            sum(spec.max_memory_usage_bytes(vllm_config) for spec in worker.values()) for worker in specs
        ),
        "neededBlocks": round(configs[0].num_blocks / concurrency),
        "blockBytes": max(pool_bytes_per_block(vllm_config, config.kv_cache_groups) for config in grouped),
    }


def holds(vllm_config: Any, specs: Sequence[Mapping[str, Any]], budgets: Sequence[int], limit: int) -> JSON:
    """What the planner makes of the budgets: blocks and tokens, or its refusal; and the longest context."""
    from vllm.v1.core import kv_cache_utils

    with record_admission() as checks:
        try:
            configs = plan_every_worker(vllm_config, copies(specs), budgets)
        except ValueError as error:
            if not checks:
                raise refusal(error, stage="kv-cache") from error
            longest = longest_model_len(vllm_config, checks, limit)
            refused: JSON = {"fits": False, "refusal": own_words(error)}
            return refused | NOTHING_FITS | {"longestModelLen": longest}
    capacity = kv_cache_utils.get_max_concurrency_for_kv_cache_config(vllm_config, configs[0])
    return {
        "fits": True,
        "blocks": configs[0].num_blocks,
        # What vLLM prints as "GPU KV cache size": no capacity for models with several kinds of layer.
        "tokens": int(capacity * vllm_config.model_config.max_model_len),
        "maxConcurrency": capacity,
        "longestModelLen": longest_model_len(vllm_config, checks, limit),
    }


def longest_model_len(vllm_config: Any, checks: Sequence[JSON], limit: int) -> int:
    """The longest max_model_len, up to the model's own limit, that the planner would admit with the same settings."""
    model = vllm_config.model_config
    requested = model.max_model_len
    try:
        model.max_model_len = max(requested, limit)
        return max(0, min(int(check["estimate"]()) for check in checks))
    finally:
        model.max_model_len = requested


def copies(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The planner unifies specs in place when the hybrid manager is off."""
    return [dict(worker) for worker in specs]


@contextlib.contextmanager
def record_admission() -> Iterator[list[JSON]]:
    """Note the arguments of the planner's own check, in bytes, instead of reading GiB off its message."""
    checks: list[JSON] = []
    original = find("the admission check")

    def check(available: int, needed: Callable[[], int], max_model_len: int, estimate: Any) -> None:
        checks.append(
            {
                "availableBytes": int(available),
                "neededBytes": int(needed()),
                "maxModelLen": int(max_model_len),
                "estimate": lambda: int(estimate(available)) if available > 0 else 0,
            }
        )
        original(available, needed, max_model_len, estimate)

    replace("the admission check", check)
    try:
        yield checks
    finally:
        replace("the admission check", original)


def admission_figures(checks: Sequence[JSON]) -> JSON:
    """The check with the least room."""
    tightest = min(checks, key=lambda check: check["availableBytes"] - check["neededBytes"])
    return {
        "neededBytes": tightest["neededBytes"],
        "availableBytes": tightest["availableBytes"],
        "maxModelLen": tightest["maxModelLen"],
        "longestModelLen": max(0, tightest["estimate"]()),
    }

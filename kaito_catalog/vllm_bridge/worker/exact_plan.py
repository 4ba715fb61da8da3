"""`exact-plan`: what each rank holds and what the planner makes of its cache, from a configuration alone."""

from __future__ import annotations

import time
from typing import Any, cast

from kaito_catalog.vllm_bridge.worker.arguments import NOTHING_GIVEN, Given, given_arguments
from kaito_catalog.vllm_bridge.worker.beside import check_followed
from kaito_catalog.vllm_bridge.worker.configuration import (
    describe_config,
    describe_settings,
    engine_config,
    longest_model_len_of,
    versions,
)
from kaito_catalog.vllm_bridge.worker.kv_cache import plan_kv_cache
from kaito_catalog.vllm_bridge.worker.processes import in_child
from kaito_catalog.vllm_bridge.worker.ranks import (
    Rank,
    RankContent,
    build_rank,
    describe_rank,
    distinct_ranks,
    held_bytes,
    uses_blocks,
    with_known_loading,
    without_deep_gemm,
)
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, simulated
from kaito_catalog.vllm_bridge.worker.simulated_gpu import SimulatedHardware


def configured(request: JSON, progress: Progress) -> tuple[Any, Given]:
    """vLLM's configuration of a request, and what its arguments set; all of them are followed here.

    Raises:
        RequestError: vLLM refuses an argument or all of them together, or an exact plan would not follow one.
    """
    argv = [str(part) for part in request.get("arguments") or ()]
    given = given_arguments(argv) if argv else NOTHING_GIVEN
    vllm_config = engine_config(request, progress, given)
    check_followed(vllm_config, given)
    return vllm_config, given


def exact_plan(request: JSON, progress: Progress) -> JSON:
    """What each rank holds and what vLLM's planner makes of its KV cache, from the configuration alone."""
    started = time.monotonic()
    vllm_config, given = configured(request, progress)
    # Before a model is built: DeepSeek's renames the kind of its rotary embedding, and vLLM would multiply once more.
    limit = longest_model_len_of(vllm_config.model_config)
    ranks = distinct_ranks(vllm_config)
    after_loading = bool(request.get("afterLoading", True))

    def build(rank: Rank) -> RankContent:
        return build_rank(vllm_config, rank, after_loading=after_loading)

    def build_apart(rank: Rank) -> RankContent:
        return cast(RankContent, in_child(lambda: build(rank)))

    contents = []
    for rank in ranks[1:]:
        progress(f"building pipeline rank {rank.pipeline}, tensor rank {rank.tensor}")
        contents.append(build_apart(rank))
    progress(f"building {vllm_config.model_config.architecture}")
    spare = (
        in_child(lambda: without_deep_gemm(build, ranks[0]))
        if after_loading and uses_blocks(vllm_config)
        else {}
    )
    # Last and in this process: building a model settles block sizes in the configuration that the planner reads.
    contents.insert(0, build(ranks[0]))
    contents = [with_known_loading(content, spare) for content in contents]
    progress("planning the KV cache")
    budget_bytes = request.get("kvCacheBytes")
    kv_cache = plan_kv_cache(vllm_config, contents, budget_bytes=budget_bytes, limit=limit)
    asked = kv_cache.pop("askedBytes")
    tightest = max(range(len(contents)), key=lambda rank: held_bytes(contents[rank]) + asked[rank])
    fullest = contents[tightest]
    return {
        **versions(),
        **describe_config(vllm_config),
        "modelClass": fullest.model_class,
        "gpu": SimulatedHardware.gpu.as_json() if simulated(request) else None,
        "device": "cuda" if simulated(request) else "cpu",
        "settings": describe_settings(vllm_config) | {"attentionBackends": fullest.attention_backends},
        "perGPU": {
            "weightsBytes": sum(fullest.parameters.values()),
            "weightsBytesByDtype": fullest.parameters,
            "bufferBytes": sum(fullest.buffers.values()),
            "afterLoading": fullest.after_loading,
            "kvCacheNeededBytes": asked[tightest],
        },
        **({"arguments": given.described(request.get("args") or {})} if request.get("arguments") else {}),
        "ranks": [describe_rank(content) for content in contents],
        "kvCache": kv_cache,
        "seconds": round(time.monotonic() - started, 2),
    }

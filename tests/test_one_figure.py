"""One name, one figure: what `plan` and `plan --exact` both say is the same, at every name that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.cli.exact_plan import exact_plan
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.given_options import GivenOptions
from kaito_catalog.plans.values import plan_value
from kaito_catalog.vllm_bridge import evidence
from kaito_catalog.vllm_bridge.client import Worker

GROUP_KINDS = {
    "full": {"FullAttentionSpec"},
    "sliding": {"SlidingWindowSpec"},
    "mla": {"MLAAttentionSpec", "UniformTypeKVCacheSpecs"},
    "linear-state": {"MambaSpec"},
}
"""A plan's kinds of cache, and how vLLM's planner calls a group of such layers."""

# Model, GPU, tensor and pipeline parallel size, context.
CASES = [
    ("phi-4", "NVIDIA A100 80GB", 2, 1, 16_384),
    ("gemma-3-27b-it", "NVIDIA A100 80GB", 1, 1, 131_072),
    ("gemma-3-4b-it", "NVIDIA A100 80GB", 1, 2, 32_768),
    ("llama-3.3-70b-instruct", "NVIDIA H100 80GB", 4, 2, 131_072),
    ("gpt-oss-20b", "NVIDIA H100 80GB", 1, 1, 131_072),
    ("qwen3.6-27b", "NVIDIA H200", 2, 1, 65_536),
    ("deepseek-v3.2", "NVIDIA H200", 8, 1, 32_768),
    ("phi-4-mini-instruct", "NVIDIA A100 80GB", 1, 1, 16_384),
]


def both(worker: Worker, catalog: Catalog, root: Path, case: Any, version: str) -> tuple[Any, Any]:
    """The plan as JSON, and the exact plan that was asked for it."""
    name, gpu, tensor, pipeline, tokens = case
    request = planning.PlanArguments(
        name,
        gpu=gpu,
        gpu_count=tensor * pipeline,
        max_model_len=tokens,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        vllm_version=version,
        options=GivenOptions.of({"max_num_seqs": 64}),
    )
    profile = catalog.shared.policy.default_profile()
    subject = planning.read_subject(request, root / "catalog", shared=catalog.shared, profile=profile)
    # Of the memory alone: for a longer context KAITO would start another node.
    started = replace(planning.start_one(request, subject, catalog.shared), longest_on_these_nodes=None)
    plan = planning.plan_of(started, request, subject)
    entry = catalog.entry(name)
    assert entry is not None
    config = evidence.need_config(entry.facts, name)
    found = exact_plan(worker, config, started, plan)
    return plan_value(subject, plan), found


def shared(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every name that both have, with what each says."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            yield from shared(ours[key], theirs[key], f"{path}.{key}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for mine, other in zip(ours, theirs, strict=True):
            yield from shared(mine, other, path)
    else:
        yield path, ours, theirs


@pytest.mark.parametrize("version", ["0.25.1", "0.32.0"])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_name_that_both_have_says_the_same(
    worker: Worker, catalog: Catalog, root: Path, case: Any, version: str
) -> None:
    ours, theirs = both(worker, catalog, root, case, version)
    for mine, other in zip(ours["kvCache"]["groups"], theirs["kvCache"]["groups"], strict=True):
        assert other["kind"] in GROUP_KINDS[mine.pop("kind")]
        if mine["blockSize"] is None:  # states have no tokens
            del mine["blockSize"]
    names = {name for name, _, _ in shared(ours, theirs)}
    assert {
        "perGPU.weightsBytes", "perGPU.kvCacheNeededBytes", "kvCache.tokens", "kvCache.maxConcurrency",
        "kvCache.longestModelLen", "kvCache.groups.pageBytes", "settings.maxNumBatchedTokens", "vllmVersion",
    } <= names  # fmt: skip
    different = [
        pair
        for pair in shared(ours, theirs)
        if pair[1] != (round(pair[2], 4) if isinstance(pair[2], float) else pair[2])
        # A setting that nobody stated is left to vLLM, which tells what it made of it.
        and not (pair[0].startswith("settings.") and pair[1] is None)
    ]
    assert different == []


def test_the_figure_is_what_vllm_asks_for_with_groups_padded(
    worker: Worker, catalog: Catalog, root: Path
) -> None:
    ours, theirs = both(worker, catalog, root, CASES[1], "0.25.1")
    assert ours["perGPU"]["kvCacheNeededBytes"] == theirs["perGPU"]["kvCacheNeededBytes"] == 12_255_232_000
    assert theirs["kvCache"]["neededByLayersBytes"] == 12_052_856_832


def test_the_block_that_is_held_back_is_asked_for_as_well(
    worker: Worker, catalog: Catalog, root: Path
) -> None:
    ours, theirs = both(worker, catalog, root, CASES[0], "0.32.0")
    cache = theirs["kvCache"]
    assert cache["reservedBytes"] == cache["blockBytes"]
    assert ours["perGPU"]["kvCacheNeededBytes"] == cache["neededBytes"] + cache["reservedBytes"]


def test_the_cache_dtype_that_kaito_chooses_is_asked_for(
    worker: Worker, catalog: Catalog, root: Path
) -> None:
    ours, theirs = both(worker, catalog, root, ("glm-5.2-fp8", "NVIDIA H200", 8, 1, 32_768), "0.25.1")
    assert ours["perGPU"]["kvCacheNeededBytes"] == theirs["perGPU"]["kvCacheNeededBytes"] == 1_767_505_920
    assert ours["kvCache"]["tokens"] == theirs["kvCache"]["tokens"]

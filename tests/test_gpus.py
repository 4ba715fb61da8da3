"""Which GPU a name means, and what is free of its memory when vLLM starts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from shapes import LLAMA_8B, shape

from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.cli import main
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, PlanGpu, PlanRequest, Settings
from kaito_catalog.quantity import GIB

SHARED = read_shared(Path(__file__).parents[1] / "catalog")
RTX_4090 = PlanGpu("NVIDIA GeForce RTX 4090", int(23.52 * GIB), 8.9)


def request(gpu: PlanGpu, utilization: float = 0.9) -> PlanRequest:
    return PlanRequest(shape(LLAMA_8B), gpu=gpu, settings=Settings(8192, utilization), vllm_version="0.25.1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100", ["NVIDIA H100 80GB", "NVIDIA H100 NVL"]),
        ("a100", ["NVIDIA A100 40GB", "NVIDIA A100 80GB"]),
        ("A100-80GB", ["NVIDIA A100 80GB"]),
        ("a10", ["NVIDIA A10"]),
        ("4090", ["NVIDIA GeForce RTX 4090"]),
        ("rtx4090", ["NVIDIA GeForce RTX 4090"]),
        ("NVIDIA H100 80GB HBM3", ["NVIDIA H100 80GB"]),
        ("Quadro RTX 6000", []),
        ("NVIDIA RTX 6000 Ada Generation", []),
        ("80gb", []),
        ("nvidia", []),
    ],
)
def test_a_short_name_means_each_gpu_that_has_its_words(name: str, expected: list[str]) -> None:
    assert [gpu.name for gpu in SHARED.gpus_called(name)] == expected


def test_of_several_gpus_a_short_name_is_the_one_with_the_least_memory() -> None:
    gpu = SHARED.gpu("h100")
    assert gpu is not None
    assert gpu.name == "NVIDIA H100 80GB"


@pytest.mark.parametrize(
    "name",
    [
        "3090",
        "4090",
        "5090",
        "rtx-pro-6000",
        "l40s",
        "a6000",
        "t4",
        "v100",
        "h20",
        "gh200",
        "b200",
        "b300",
        "gb10",
        "a2",
        "a16",
    ],
)
def test_gpus_that_people_run_have_a_memory_and_a_capability(name: str) -> None:
    gpu = SHARED.gpu(name)
    assert gpu is not None
    assert gpu.memory_bytes
    assert gpu.compute_capability


def test_only_the_gb10_shares_its_memory_with_the_cpu() -> None:
    assert [gpu.name for gpu in SHARED.gpus if gpu.unified_memory] == ["NVIDIA GB10"]


def test_vllm_does_not_start_where_others_hold_what_it_asks_for() -> None:
    plan = make_plan(request(replace(RTX_4090, used_bytes=3 * GIB)))
    assert (plan.fits, plan.limited_by, plan.per_gpu) == (Fit.NO, "freeMemory", None)
    assert plan.reason == (
        "vLLM does not start: gpu_memory_utilization 0.9 is 21.2 GiB, others hold 3.00 GiB of 23.5 GiB"
    )


def test_what_others_hold_does_not_make_the_cache_smaller() -> None:
    alone, shared = (make_plan(request(replace(RTX_4090, used_bytes=used), 0.8)) for used in (0, 4 * GIB))
    assert alone.per_gpu == shared.per_gpu
    assert alone.fits is Fit.YES


def test_a_budget_that_leaves_cuda_too_little_is_tight() -> None:
    plan = make_plan(request(RTX_4090, 0.99))
    assert (plan.fits, plan.limited_by) == (Fit.TIGHT, "freeMemory")
    budget = math.ceil(0.99 * int(23.52 * GIB))
    assert plan.per_gpu is not None
    assert plan.per_gpu.budget_bytes == budget


def test_all_of_a_gpu_is_never_free() -> None:
    assert make_plan(request(RTX_4090, 1.0)).fits is Fit.NO


def test_a_cache_of_a_given_size_needs_what_others_leave_free() -> None:
    settings = Settings(8192, 0.5, kv_cache_memory_bytes=6 * GIB)
    gpu = replace(RTX_4090, used_bytes=4 * GIB)
    alone = make_plan(replace(request(RTX_4090), settings=settings))
    shared = make_plan(replace(request(gpu), settings=settings))
    assert alone.fits is Fit.TIGHT or alone.fits is Fit.YES
    assert shared.fits is Fit.NO
    assert "others leave 19.5 GiB free" in (shared.reason or "")


def test_unified_memory_may_not_fit_and_says_why() -> None:
    gb10 = PlanGpu("NVIDIA GB10", int(121.63 * GIB), 12.1, is_unified=True)
    plan = make_plan(request(gb10, 0.5))
    assert (plan.fits, plan.limited_by) == (Fit.TIGHT, "freeMemory")
    assert "the machine's own" in (plan.reason or "")
    assert make_plan(replace(request(gb10), settings=Settings(8192, 0.1))).fits is Fit.NO


def test_the_command_says_which_gpu_and_how_many_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.3-70b-instruct", "--gpu", "h100"]) == 0
    out, err = capsys.readouterr()
    assert "on 1 × NVIDIA H100 80GB" in out
    assert "'h100' is read as NVIDIA H100 80GB, which has the least memory of that name" in err
    assert "planned on one GPU; 4 would be enough" in err


def test_a_gpu_that_is_not_listed_is_told_by_memory_and_capability(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["plan", "phi-4", "--gpu-memory", "47.4", "--compute-capability", "8.9", "--gpu-memory-used", "1"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert "fits" in out
    assert "planned on one GPU" in err


def test_an_instance_type_may_have_more_memory_than_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    totals = {}
    for where in (["--gpu", "NVIDIA A10"], ["--instance-type", "Standard_NV36ads_A10_v5"]):
        line = ["plan", "phi-4-mini-instruct", *where, "--engine", "vllm", "--format", "json"]
        assert main(line) == 0
        totals[where[0]] = json.loads(capsys.readouterr().out)["gpu"]["memoryBytes"]
    assert totals["--instance-type"] == 25_471_303_221 > totals["--gpu"]

"""Variables of the environment: what they change of a plan, and those that make it unknown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from shapes import LLAMA_8B, shape

from kaito_catalog.cli import main
from kaito_catalog.memory.environment import environment_of, pairs
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.quantity import GIB


def plan(
    version: str = "0.25.1",
    variables: dict[str, str] | None = None,
    *,
    stages: int = 1,
    gpu: PlanGpu | None = None,
) -> Plan:
    return make_plan(
        PlanRequest(
            shape(LLAMA_8B),
            gpu=gpu or PlanGpu("NVIDIA H100 80GB", 79 * GIB, 9.0),
            parallelism=Parallelism(1, stages),
            settings=Settings(8192, 0.9, environment=pairs(variables or {})),
            vllm_version=version,
        )
    )


def available(found: Plan) -> int:
    assert found.per_gpu is not None
    return found.per_gpu.kv_cache_available_bytes


def graphs(found: Plan) -> int:
    assert found.per_gpu is not None
    return found.per_gpu.cuda_graph_bytes


def test_the_estimate_for_cuda_graphs_can_be_switched_off() -> None:
    assert graphs(plan("0.22.0")) > 0
    assert graphs(plan("0.22.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"})) == 0


def test_it_can_be_switched_on_from_0_19_on() -> None:
    assert graphs(plan("0.19.0")) == 0
    assert graphs(plan("0.19.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "1"})) > 0
    assert graphs(plan("0.17.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "1"})) == 0


def test_before_0_12_flashinfer_is_planned_for_and_the_difference_is_in_the_expected_error() -> None:
    untold, without = plan("0.10.2"), plan("0.10.2", {"VLLM_USE_FLASHINFER_SAMPLER": "0"})
    told = plan("0.10.2", {"VLLM_USE_FLASHINFER_SAMPLER": "1"})
    assert available(untold) == available(told) > available(without) + 3 * GIB
    assert untold.expected_error_bytes is not None
    assert told.expected_error_bytes is not None
    wider = untold.expected_error_bytes - told.expected_error_bytes
    assert wider == available(told) - available(without)


def test_from_0_12_to_0_16_flashinfer_has_to_be_asked_for() -> None:
    asked = plan("0.13.0", {"VLLM_USE_FLASHINFER_SAMPLER": "1"})
    assert available(asked) > available(plan("0.13.0"))
    assert plan("0.13.0").expected_error_bytes == asked.expected_error_bytes


def test_later_samplers_take_as_much_either_way() -> None:
    assert available(plan("0.22.1", {"VLLM_USE_FLASHINFER_SAMPLER": "0"})) == available(plan("0.22.1"))


def test_layers_can_be_dealt_out_unevenly() -> None:
    even, uneven = plan(stages=2), plan(variables={"VLLM_PP_LAYER_PARTITION": "10,22"}, stages=2)
    assert even.per_gpu is not None
    assert uneven.per_gpu is not None
    assert uneven.per_gpu.weights_bytes > 1.2 * even.per_gpu.weights_bytes
    assert uneven.per_gpu.kv_cache_needed_bytes * 16 == even.per_gpu.kv_cache_needed_bytes * 22


@pytest.mark.parametrize(("partition", "stages"), [("10,22", 3), ("10,20", 2)])
def test_layers_that_do_not_make_the_model_are_refused(partition: str, stages: int) -> None:
    found = plan(variables={"VLLM_PP_LAYER_PARTITION": partition}, stages=stages)
    assert (found.fits, found.limited_by) == (Fit.NO, "parallelism")
    assert "VLLM_PP_LAYER_PARTITION" in (found.reason or "")


def test_the_cards_of_stages_may_be_unequal() -> None:
    small = PlanGpu("NVIDIA GeForce RTX 5070 Ti", 15 * GIB, 12.0)
    equal = plan(stages=2, gpu=small)
    larger = plan(stages=2, gpu=replace(small, memory_of_stages=(15 * GIB, 31 * GIB)))
    assert equal.kv_cache is not None
    assert larger.kv_cache is not None
    assert available(larger) <= available(equal) + 2 * GIB
    assert larger.kv_cache.longest_model_len >= equal.kv_cache.longest_model_len


def test_from_0_14_to_0_16_the_smallest_stage_is_asked_for_the_cache_of_all() -> None:
    needed = {}
    for version in ("0.13.0", "0.14.0", "0.16.0", "0.17.0"):
        per_gpu = plan(version, stages=2).per_gpu
        assert per_gpu is not None
        needed[version] = per_gpu.kv_cache_needed_bytes / GIB
    assert needed == {"0.13.0": 0.5, "0.14.0": 1.0, "0.16.0": 1.0, "0.17.0": 0.5}


def test_the_command_takes_variables_for_plain_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "phi-4", "--gpu", "NVIDIA H100 80GB", "--format", "json", "--engine", "vllm"]
    line += ["--vllm-version", "0.22.1"]
    found = {}
    for value in ("0", "1"):
        assert main([*line, "--env", f"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS={value}"]) == 0
        found[value] = json.loads(capsys.readouterr().out)["perGPU"]["cudaGraphBytes"]
    assert found["0"] == 0 < found["1"]


def test_the_command_takes_none_for_a_start_of_kaito(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "phi-4", "--gpu", "NVIDIA H100 80GB", "--env", "VLLM_USE_DEEP_GEMM=0"]) == 2
    assert "--engine vllm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("VLLM_SOMETHING_NEW", "1", "no plan reads VLLM_SOMETHING_NEW"),
        ("VLLM_PP_LAYER_PARTITION", "a,b", "is a list of numbers"),
        ("VLLM_USE_FLASHINFER_SAMPLER", "yes", "is 0 or 1"),
    ],
)
def test_what_cannot_be_read_makes_a_plan_unknown_by_name(name: str, value: str, reason: str) -> None:
    found = plan(variables={name: value})
    assert found.fits is Fit.UNKNOWN
    assert reason in (found.reason or "")


def test_variables_without_memory_and_those_of_other_programs_change_nothing() -> None:
    assert pairs({"HF_HOME": "/data", "VLLM_USE_DEEP_GEMM": "0"}) == (("VLLM_USE_DEEP_GEMM", "0"),)
    assert not isinstance(environment_of((("VLLM_USE_DEEP_GEMM", "0"),)), str)
    assert plan(variables={"VLLM_USE_DEEP_GEMM": "0"}).per_gpu == plan().per_gpu

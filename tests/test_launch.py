"""The start that KAITO makes: cases of its own unit tests and code, and what a ConfigMap changes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from kaito_catalog.kaito.estimator import Estimate, Node, fits_single_gpu
from kaito_catalog.kaito.launch import (
    CPU_UTILIZATION,
    Launch,
    LaunchConfig,
    LaunchManifest,
    LaunchPlace,
    Step,
    launch,
)
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.quantity import GIB

KAITO = recorded_release("v0.12")


def row(name: str = "org/Model-7B", architecture: str = "LlamaForCausalLM", **more: Any) -> dict[str, Any]:
    return {"name": name, "architectures": [architecture], "modelFileSize": "15Gi", **more}


def start(
    model: Mapping[str, Any] | None = None,
    config: LaunchConfig | None = None,
    *,
    nodes: int = 1,
    tensor: int = 1,
    data: int = 1,
    workspace: LaunchManifest | None = None,
    is_mig: bool = False,
) -> Launch:
    estimate = Estimate(nodes, nodes * tensor * data, data, tensor, nodes)
    place = LaunchPlace(estimate, 0.84, is_mig, host_memory_bytes=100 * GIB)
    return launch(model or row(), KAITO, place, workspace or LaunchManifest(), config or LaunchConfig())


def test_every_model_gets_what_the_controller_always_passes() -> None:
    found = start()
    always = {
        "gpu-memory-utilization": "0.84",
        "max-model-len": "auto",
        "trust-remote-code": "",
        "dtype": "bfloat16",
        "kv-events-config": '{"enable_kv_cache_events":true}',
        "compilation-config.pass_config.fuse_allreduce_rms": "False",
        "cpu-offload-gb": "0",
        "port": "5000",
    }
    assert {name: found.value(name) for name in always} == always
    assert dict(found.environment) == {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "0"}


# TestModelFitsOnSingleGPU of pkg/model/interface_test.go, 160 GiB of GPU memory on four GPUs.
@pytest.mark.parametrize(("size", "fits"), [(8, True), (20, False), (30, False)])
def test_a_copy_on_each_gpu_where_the_model_takes_less_than_half_of_one(size: int, fits: bool) -> None:
    assert fits_single_gpu(Node(160 * GIB, 4), model_file_bytes=size * GIB) is fits


def test_data_parallelism_is_started_without_lmcache() -> None:
    found = start(data=4)
    assert (found.value("data-parallel-size"), found.value("tensor-parallel-size")) == ("4", "1")
    assert (found.value(CPU_UTILIZATION), found.uses_lmcache) == ("0", False)


def test_several_nodes_are_pipeline_stages_over_ray_and_without_lmcache() -> None:
    found = start(nodes=2, tensor=4)
    names = (
        "tensor-parallel-size",
        "pipeline-parallel-size",
        "distributed-executor-backend",
        CPU_UTILIZATION,
    )
    assert [found.value(name) for name in names] == ["4", "2", "ray", "0"]
    assert found.value("data-parallel-size") is None


def test_a_mig_slice_is_started_without_lmcache() -> None:
    assert not start(is_mig=True).uses_lmcache


@pytest.mark.parametrize(
    ("architecture", "uses"),
    [
        ("NemotronHForCausalLM", False),
        ("Gemma4ForConditionalGeneration", False),
        ("Qwen3_5MoeForConditionalGeneration", False),
        ("DeepseekV32ForCausalLM", False),
        ("GptOssForCausalLM", False),
        ("LlamaForCausalLM", True),
        ("Gemma3ForConditionalGeneration", True),
        ("Qwen3NextForCausalLM", True),
        ("GraniteMoeHybridForCausalLM", True),
    ],
)
def test_lmcache_is_on_for_every_architecture_that_is_not_listed(architecture: str, uses: bool) -> None:
    found = start(row(architecture=architecture), tensor=2)
    assert found.uses_lmcache is uses
    assert found.cpu_memory_utilization == (0.5 if uses else 0)
    assert found.most_offload_bytes == (50 * GIB if uses else None)


def test_the_launcher_gives_lmcache_where_the_config_map_says_nothing() -> None:
    (argument,) = (a for a in start().arguments if a.name == "kv-transfer-config")
    assert (argument.step, json.loads(argument.value)["kv_connector"]) == (
        Step.LAUNCHER,
        "LMCacheConnectorV1",
    )


def test_a_config_map_switches_lmcache_off() -> None:
    assert not start(config=LaunchConfig(kv_cache_cpu_memory_utilization=0)).uses_lmcache


def test_a_config_map_cannot_switch_lmcache_on_for_a_listed_architecture() -> None:
    found = start(row(architecture="GptOssForCausalLM"), LaunchConfig(kv_cache_cpu_memory_utilization=0.5))
    assert not found.uses_lmcache


def test_a_connector_of_the_config_map_stays() -> None:
    own = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
    found = start(config=LaunchConfig({"kv-transfer-config": own}))
    assert (found.value("kv-transfer-config"), found.uses_lmcache) == (own, False)


def test_values_of_the_config_map_win_and_what_they_replaced_is_kept() -> None:
    found = start(config=LaunchConfig({"max_model_len": 4096, "gpu-memory-utilization": 0.9}))
    assert (found.value("max-model-len"), found.value("gpu-memory-utilization")) == ("4096", "0.9")
    assert {str(a) for a in found.replaced} == {"--max-model-len=auto", "--gpu-memory-utilization=0.84"}


def test_a_negation_replaces_its_option() -> None:
    found = start(config=LaunchConfig({"no-trust-remote-code": ""}))
    assert (found.value("trust-remote-code"), found.value("no-trust-remote-code")) == (None, "")


@pytest.mark.parametrize(("written", "count"), [(4, 4), ("many", None), (-1, None), (0.5, None)])
def test_a_size_that_is_not_a_whole_number_is_none(written: object, count: int | None) -> None:
    assert (
        start(config=LaunchConfig({"tensor-parallel-size": written})).count("tensor-parallel-size") == count
    )


def test_minimax_is_started_with_expert_parallelism() -> None:
    assert (
        start(row("MiniMaxAI/MiniMax-M2.7", "MiniMaxM2ForCausalLM"), tensor=8).value("enable-expert-parallel")
        == ""
    )


@pytest.mark.parametrize(
    ("name", "architecture", "variables"),
    [
        ("deepseek-ai/DeepSeek-V3.2", "DeepseekV32ForCausalLM", ("1", "/opt/kaito/cuda/129")),
        (
            "mistralai/Mistral-Small-4-119B-2603",
            "Mistral3ForConditionalGeneration",
            ("0", "/opt/kaito/cuda/129"),
        ),
        ("org/other", "LlamaForCausalLM", ("0", None)),
    ],
)
def test_the_environment_names_deepgemm_and_the_toolkit(
    name: str, architecture: str, variables: tuple[str, str | None]
) -> None:
    found = start(row(name, architecture)).environment
    assert (found["VLLM_USE_DEEP_GEMM"], found.get("CUDA_HOME")) == variables


def test_adapters_performance_mode_and_the_served_name_come_from_the_workspace() -> None:
    found = start(workspace=LaunchManifest("my-set", adapters=("one", "two"), performance_mode="throughput"))
    assert [found.value(n) for n in ("served-model-name", "enable-lora", "performance-mode")] == [
        "my-set",
        "",
        "throughput",
    ]
    assert "--lora-modules one=/mnt/adapter/one two=/mnt/adapter/two" in found.command_line()
    at = found.vllm_arguments().index("--lora-modules")
    assert found.vllm_arguments()[at + 1 : at + 3] == ("one=/mnt/adapter/one", "two=/mnt/adapter/two")


def test_the_command_line_can_be_pasted() -> None:
    words = shlex.split(start().command_line().replace("\\\n", ""))
    assert words[:5] == [
        "VLLM_USE_FLASHINFER_SAMPLER=0",
        "VLLM_USE_DEEP_GEMM=0",
        "vllm",
        "serve",
        "org/Model-7B",
    ]
    assert '--kv-transfer-config={"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}' in words
    assert not any(word.startswith("--kaito-") for word in words)


@pytest.mark.parametrize(("size", "minutes"), [("10Gi", 30), ("150Gi", 60), ("805Gi", 180)])
def test_the_start_up_limit_grows_with_the_weights(size: str, minutes: int) -> None:
    assert start(row(modelFileSize=size)).start_up_minutes == minutes

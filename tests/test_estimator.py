"""KAITO's sizing formula, against the cases of its own unit tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapes import DEEPSEEK_V3, QWEN3_8B, shape

from kaito_catalog import quantity
from kaito_catalog.kaito import estimator
from kaito_catalog.kaito.estimator import Need, Node
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.quantity import GIB

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
V0_12, MAIN = recorded_release("v0.12").sizing, recorded_release("main-0a69b1b").sizing
CASES = SHARED / "data" / "kaito" / "estimator_cases.json"

# kaito-project/kaito v0.12.0, pkg/workspace/estimator/nodesestimator/estimator_test.go:
# file size in GiB, bytes per token, GPU memory of the node in GiB, GPUs, nodes.
NODE_COUNTS = [
    pytest.param(8.0, 0, 320, 4, 1, id="test-model on 4 x A100"),
    pytest.param(8.0, 0, 24, 1, 1, id="test-model on A10"),
    pytest.param(13.44, 8192, 24, 1, 1, id="falcon-7b on A10"),
    pytest.param(13.44, 8192, 80, 1, 1, id="falcon-7b on A100"),
    pytest.param(62.5, 163840, 80, 1, 2, id="qwen2.5-coder-32b on A100"),
]


@pytest.mark.parametrize(("file_gib", "per_token", "memory_gib", "gpus", "nodes"), NODE_COUNTS)
def test_node_counts_are_those_of_kaitos_own_tests(
    file_gib: float, per_token: int, memory_gib: int, gpus: int, nodes: int
) -> None:
    node = Node(memory_gib * GIB, gpus)
    assert estimator.node_count(node, Need(file_gib * GIB, per_token), V0_12) == nodes


def _cases(name: str) -> list[dict[str, Any]]:
    if not CASES.exists():
        pytest.skip("../shared is absent: KAITO's own cases cannot be read")
    cases: list[dict[str, Any]] = json.loads(CASES.read_text())[name]
    return cases


def test_all_recorded_unit_cases_are_met() -> None:
    for case in _cases("node_count_unit_tests"):
        node = Node(case["gpuMemTotalGi"] * GIB, case["gpuCount"])
        nodes = estimator.node_count(
            node,
            Need(quantity.parse(case["totalSafeTensorFileSize"]).bytes, case["bytesPerToken"]),
            V0_12,
            max_model_len=case["contextSize"],
        )
        assert nodes == case["expectedNodes"], case["name"]


def test_all_recorded_start_up_limits_are_met() -> None:
    for case in _cases("readiness_timeout"):
        try:
            size: int | None = quantity.parse(case["size"]).bytes
        except ValueError:
            size = None
        assert estimator.startup_minutes(size) == case["minutes"], case["size"]


def test_all_recorded_single_gpu_verdicts_are_met() -> None:
    for case in _cases("model_fits_single_gpu"):
        if case["size"] is None or case["totalGi"] is None:
            continue
        node = Node(case["totalGi"] * GIB, case["numGPUs"])
        size = quantity.parse(case["size"]).bytes
        assert estimator.fits_single_gpu(node, model_file_bytes=size) is case["expected"]


def test_a_model_small_enough_is_started_once_on_every_gpu() -> None:
    found = estimator.estimate(Node(160 * GIB, 4), Need(8 * GIB, 131_072), V0_12)
    assert (found.nodes, found.data_parallel_size, found.tensor_parallel_size) == (1, 4, 1)


def test_no_room_beside_the_cache_gives_no_number() -> None:
    assert (
        estimator.node_count(Node(24 * GIB, 1), Need(8 * GIB, 163_840), V0_12, max_model_len=1_048_576)
        is None
    )


def test_v0_12_sizes_an_a10_as_any_other_gpu_though_it_starts_it_with_less() -> None:
    assert V0_12.utilization_on("NVIDIA A10") == V0_12.utilization_on(None) == 0.84


def test_main_sizes_an_a10_with_what_it_starts_it_with_and_less_overhead() -> None:
    assert (MAIN.utilization_on("NVIDIA A10"), MAIN.utilization_on("NVIDIA A10G")) == (0.82, 0.92)
    assert MAIN.overhead_on("NVIDIA A10") == 1.5 * GIB
    assert MAIN.overhead_on("NVIDIA H200") == V0_12.overhead_on("NVIDIA A10") == 2.3 * GIB


def test_states_of_mamba_layers_take_a_second_a10_on_main_and_none_in_v0_12() -> None:
    # Nemotron Nano 9B v2 with smaller files: KAITO counts a cache of 56 layers, 27 have states.
    need = Need(15 * GIB, 2 * 56 * 2 * 8 * 128, 27 * 5_316_608)
    node = Node(24 * GIB, 1, "NVIDIA A10")
    assert estimator.node_count(node, need, V0_12) == 1
    assert estimator.node_count(node, need, MAIN) == 2
    assert estimator.node_count(node, Need(15 * GIB, need.kv_cache_bytes_per_token), MAIN) == 1


def test_bytes_per_token_of_qwen3_8b_and_deepseek_v3_are_kaitos() -> None:
    # kaito-project/kaito v0.12.0, presets/workspace/generator: BytesPerToken of its own tests.
    assert estimator.kv_cache_bytes_per_token(shape(QWEN3_8B)) == 147_456
    assert estimator.kv_cache_bytes_per_token(shape(DEEPSEEK_V3)) == 70_272

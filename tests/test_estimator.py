"""KAITO's sizing formula, against the cases of its own unit tests."""

from __future__ import annotations

import pytest
from shapes import DEEPSEEK_V3, QWEN3_8B, shape

from kaito_catalog import quantity
from kaito_catalog.kaito import estimator
from kaito_catalog.kaito.estimator import Need, Node
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.quantity import GIB

V0_12, MAIN = recorded_release("v0.12").sizing, recorded_release("main-0a69b1b").sizing

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


# The same, presets/workspace/models/vllm_model_test.go: size of the weights, minutes.
START_UP_LIMITS = [
    ("641.30Gi", 180),
    ("554.32Gi", 180),
    ("150Gi", 60),
    ("100Gi", 45),
    ("60Gi", 33),
    ("7.15Gi", 30),
]


@pytest.mark.parametrize(("size", "minutes"), START_UP_LIMITS)
def test_the_limits_of_a_start_are_those_of_kaitos_own_tests(size: str, minutes: int) -> None:
    assert estimator.startup_minutes(quantity.parse(size).bytes) == minutes


def test_a_model_of_unknown_size_gets_the_shortest_limit() -> None:
    assert estimator.startup_minutes(None) == 30


# The same: file size in GiB, GPU memory of the node in GiB, GPUs, whether one of them holds the model.
SINGLE_GPU = [(8, 160, 4, True), (20, 160, 4, False), (30, 160, 4, False), (8, 80, 1, False)]


@pytest.mark.parametrize(("file_gib", "memory_gib", "gpus", "fits"), SINGLE_GPU)
def test_whether_one_gpu_of_several_is_enough_is_what_kaitos_own_tests_say(
    file_gib: int, memory_gib: int, gpus: int, fits: bool
) -> None:
    node = Node(memory_gib * GIB, gpus)
    assert estimator.fits_single_gpu(node, model_file_bytes=file_gib * GIB) is fits


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

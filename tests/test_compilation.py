"""What options say of torch.compile and CUDA graphs: how many graphs are captured, and what stays unknown by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from shapes import GEMMA3_27B, LLAMA_8B, QWEN3_NEXT_80B

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.memory.compilation import Compilation, capture_sizes, captured_graphs, compilation_of
from kaito_catalog.memory.option_kinds import SIZES
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.plan import make_plan, resolved_settings
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.start import engine_arguments

H100 = PlanGpu("NVIDIA H100 80GB", 85_045_870_592, 9.0)
SETTINGS = Settings(8192, 0.9)


def plan(config: dict[str, Any] = LLAMA_8B, *, version: str = "0.32.0", **options: Any) -> Plan:
    shape = read_shape(config)
    assert isinstance(shape, Shape)
    settings = replace(SETTINGS, **options)
    return make_plan(
        PlanRequest(shape, gpu=H100, parallelism=Parallelism(4), settings=settings, vllm_version=version)
    )


def compilation(**options: Any) -> Compilation:
    found = compilation_of(replace(SETTINGS, **options))
    assert isinstance(found, Compilation), found
    return found


# Counts: VllmConfig._set_cudagraph_sizes of 0.25.1 and 0.32.0, for 256 requests and 8192 tokens.
@pytest.mark.parametrize(
    ("options", "graphs"),
    [
        ({}, 86),
        ({"optimization_level": "3"}, 86),
        ({"optimization_level": "O1"}, 51),
        ({"optimization_level": "0"}, 0),
        ({"max_cudagraph_capture_size": 64}, 22),
        ({"max_cudagraph_capture_size": 10_000}, 566),
        ({"cudagraph_capture_sizes": "1 2 4 512"}, 7),
        ({"performance_mode": "interactivity"}, 136),
        ({"performance_mode": "throughput"}, 86),
        ({"compilation_config": '{"cudagraph_mode": "PIECEWISE"}'}, 51),
        ({"compilation_config": '{"cudagraph_mode": "FULL_DECODE_ONLY"}'}, 35),
        ({"compilation_config": '{"cudagraph_mode": "none", "mode": 3}'}, 0),
        ({"compilation_config": '{"cudagraph_capture_sizes": [1, 2, 8], "cache_dir": "/cache"}'}, 6),
        ({"compilation_config": '{"pass_config": {"fuse_allreduce_rms": false}, "level": 3}'}, 86),
        ({"max_cudagraph_capture_size": 0}, 0),
        ({"compilation_config": '{"cudagraph_capture_sizes": []}'}, 0),
        ({"enforce_eager": True, "compilation_config": '{"mode": 0}'}, 0),
    ],
)
def test_graphs_are_as_many_as_the_options_say(options: dict[str, Any], graphs: int) -> None:
    assert captured_graphs(256, 8192, compilation(**options)) == graphs


def test_a_batch_that_is_the_largest_graph_is_captured_whatever_the_steps_are() -> None:
    assert capture_sizes(64, 50, compilation(max_cudagraph_capture_size=100))[-2:] == [48, 50]


@pytest.mark.parametrize(
    "options",
    [
        {"optimization_level": "4"},
        {"compilation_config": '{"mode": 0}'},
        {"compilation_config": '{"pass_config": {"enable_sp": true}}'},
        {"compilation_config": '{"cudagraph_mode": "SOMETIMES"}'},
        {"compilation_config": '{"compile_sizes": [1, 2]}'},
        {"compilation_config": '{"pass_config": {"fuse_norm_quant": true}}'},
        {"compilation_config": '{"cudagraph_mm_encoder": true}'},
        {"performance_mode": "fast"},
    ],
)
def test_what_is_not_planned_is_unknown_by_name(options: dict[str, Any]) -> None:
    found = plan(**options)
    (name,) = options
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "settings")
    assert found.reason is not None
    named = name.replace("_", "-")
    assert named in found.reason or "cudagraph_mode" in found.reason


@pytest.mark.parametrize(
    ("options", "fused"),
    [
        ({}, None),
        (
            {"compilation_config": '{"pass_config": {"fuse_allreduce_rms": "False"}}'},
            False,
        ),  # as KAITO writes it
        ({"compilation_config": '{"pass_config": {"fuse_allreduce_rms": true}}'}, True),
        ({"optimization_level": "1"}, False),
    ],
)
def test_the_fused_all_reduce_is_what_the_options_say(options: dict[str, Any], fused: bool | None) -> None:
    assert compilation(**options).fuse_allreduce_rms is fused


def test_memory_for_graphs_follows_their_number() -> None:
    some, all_of_them = plan(max_cudagraph_capture_size=8).per_gpu, plan().per_gpu
    none = plan(compilation_config='{"cudagraph_mode": "NONE"}').per_gpu
    assert some is not None
    assert all_of_them is not None
    assert none is not None
    assert 0 == none.cuda_graph_bytes < some.cuda_graph_bytes < all_of_them.cuda_graph_bytes


def test_a_hybrid_without_graphs_may_have_more_requests_than_blocks_for_states() -> None:
    few: dict[str, Any] = {"max_num_seqs": 4096, "kv_cache_memory_bytes": 2**30}
    assert plan(QWEN3_NEXT_80B, **few).limited_by == "maxNumSeqs"
    graphless = plan(QWEN3_NEXT_80B, compilation_config='{"cudagraph_mode": "NONE"}', **few)
    assert graphless.limited_by != "maxNumSeqs"


def test_throughput_doubles_what_is_not_given() -> None:
    throughput = replace(SETTINGS, performance_mode="throughput")
    doubled = resolved_settings(throughput, H100)
    assert (doubled.max_num_batched_tokens, doubled.max_num_seqs) == (16384, 2048)
    assert (
        resolved_settings(replace(throughput, max_num_batched_tokens=512), H100).max_num_batched_tokens == 512
    )


# vLLM's own planner, one request of 131,072 tokens of Gemma 3 27B on an H100.
@pytest.mark.parametrize(
    ("version", "options", "pool_bytes"),
    [
        ("0.25.1", {"async_scheduling": False}, 15_275_130_880),
        ("0.32.0", {"async_scheduling": False}, 15_275_130_880),
        ("0.25.1", {"enable_chunked_prefill": False}, 75_169_792_000),
        ("0.32.0", {"enable_chunked_prefill": False}, 75_169_792_000),
    ],
)
def test_windows_hold_what_is_computed_at_once(
    version: str, options: dict[str, Any], pool_bytes: int
) -> None:
    shape = read_shape(GEMMA3_27B)
    assert isinstance(shape, Shape)
    settings = Settings(131_072, 0.9, **options)
    found = make_plan(PlanRequest(shape, gpu=H100, settings=settings, vllm_version=version))
    assert found.kv_cache is not None
    assert found.kv_cache.request_bytes == pool_bytes


def test_without_chunked_prefill_a_batch_holds_the_longest_prompt() -> None:
    assert plan(enable_chunked_prefill=False, max_num_batched_tokens=2048).limited_by == "settings"
    assert plan(enable_chunked_prefill=False).fits is Fit.YES
    hybrid: dict[str, Any] = {"enable_chunked_prefill": False}
    assert plan(QWEN3_NEXT_80B, **hybrid).limited_by == "settings"
    assert plan(QWEN3_NEXT_80B, enable_prefix_caching=False, **hybrid).limited_by != "settings"


def test_vllm_is_given_the_values_that_its_engine_takes() -> None:
    given = engine_arguments(
        replace(
            SETTINGS, cudagraph_capture_sizes="1 2", compilation_config='{"mode": 3}', async_scheduling=False
        )
    )
    assert given["cudagraph_capture_sizes"] == [1, 2]
    assert given["compilation_config"] == {"mode": 3}
    assert given["async_scheduling"] is False


@pytest.mark.parametrize("text", ["1,2,4", "[1, 2, 4]", " 1 2 4"])
def test_sizes_are_read_as_people_write_them(text: str) -> None:
    assert SIZES.parse(text) == "1 2 4"


@pytest.mark.parametrize("text", ["", "[]", "0", "one", "[1, [2]]", "{}"])
def test_what_is_no_list_of_sizes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a list"):
        SIZES.parse(text)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("optimization-level", 2, "2"),
        ("compilation-config", {"mode": 3}, '{"mode": 3}'),
        ("compilation-config", 3, None),
    ],
)
def test_a_proposal_may_write_them_as_yaml(name: str, value: object, read: str | None) -> None:
    option = next(option for option in PLANNED if option.name == name)
    assert option.kind.read(value) == read

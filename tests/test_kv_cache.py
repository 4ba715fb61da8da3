"""The KV cache's layout, against vLLM's own planner."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import (
    DEEPSEEK_V3,
    DEEPSEEK_V4_FLASH,
    GEMMA3_27B,
    GEMMA4_26B,
    GPT_OSS_20B,
    LLAMA_8B,
    MINIMAX_M3,
    QWEN3_8B,
    QWEN3_NEXT_80B,
    built,
    configs,
)

from kaito_catalog.architectures import Attention, BuiltShape, Shape
from kaito_catalog.architectures.as_built import as_built, version_tuple
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, reserved_blocks, states_per_sequence
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import split_over, stages
from kaito_catalog.plans.instance_types import facts_shape
from tools import exact_models

GIB = 2**30


def layout(
    found: BuiltShape,
    *,
    tensor_parallel_size: int = 1,
    in_flight_tokens: int = 8192,
    kv_cache_dtype: str = "auto",
) -> Layout:
    result = plan_layout(
        found,
        tensor_parallel_size=tensor_parallel_size,
        stages=stages(len(found.layers), 1),
        kv_cache_dtype=kv_cache_dtype,
        in_flight_tokens=in_flight_tokens,
    )
    assert not isinstance(result, Unplannable), result
    return result[0]


def small(name: str) -> BuiltShape:
    """One of the made-up configurations that vLLM was asked about."""
    config = next(m.config for m in exact_models.read(exact_models.SMALL_PLANS) if m.name == name)
    assert config is not None
    return built(config)


# One request, bf16 cache, one GPU, one batch of 8,192 tokens in flight: vLLM's own planner, in GiB.
NEEDED = [
    pytest.param(QWEN3_8B, 32_768, 8192, 4.500, id="Qwen3 8B"),
    pytest.param(DEEPSEEK_V3, 32_768, 8192, 2.145, id="DeepSeek V3"),
    pytest.param(GPT_OSS_20B, 32_768, 8192, 0.941, id="gpt-oss 20B"),
    pytest.param(GEMMA3_27B, 131_072, 8192, 13.663, id="Gemma 3 27B"),
    pytest.param(GEMMA4_26B, 262_144, 8192, 6.761, id="Gemma 4 26B"),
    pytest.param(GEMMA3_27B, 131_072, 16384, 16.913, id="Gemma 3 27B, two batches in flight"),
]


@pytest.mark.parametrize(("config", "tokens", "in_flight", "expected"), NEEDED)
def test_one_request_needs_what_vllms_planner_says(
    config: dict[str, Any], tokens: int, in_flight: int, expected: float
) -> None:
    found = layout(built(config), in_flight_tokens=in_flight).needed_bytes(tokens) / GIB
    assert found == pytest.approx(expected, abs=0.0005)


def test_a_hybrids_block_is_enlarged_until_its_page_holds_a_state() -> None:
    found = layout(built(QWEN3_NEXT_80B), tensor_parallel_size=4)
    assert {(g.cache.block_size, g.page_bytes) for g in found.groups} == {(272, 278_528)}


def test_qwen3_next_at_tp_4_needs_what_vllm_says() -> None:
    found = layout(built(QWEN3_NEXT_80B), tensor_parallel_size=4).needed_bytes(262_144)
    assert found / GIB == pytest.approx(3.010, abs=0.0005)


def test_gemma_3_is_put_into_seven_groups_and_pads_one() -> None:
    found = layout(built(GEMMA3_27B))
    assert len(found.groups) == 7
    assert found.pool_bytes(131_072) > found.needed_bytes(131_072)


def test_deepseek_v4_packs_five_groups_into_one_block() -> None:
    found = layout(built(DEEPSEEK_V4_FLASH), kv_cache_dtype="fp8")
    # vLLM 0.25.1's planner at 1,048,576 tokens: 4,600,135 blocks serve 651.116 requests.
    assert len(found.groups) == 5
    assert found.needed_bytes(1_048_576) == 6_785_877_312
    assert found.pool_bytes(1_048_576) == 7_835_731_200
    blocks = 4_600_135 * found.block_bytes
    assert found.max_concurrency(blocks, 1_048_576) == 651.1160651096957


def test_deepseek_v4_is_refused_without_an_fp8_cache() -> None:
    found = built(DEEPSEEK_V4_FLASH)
    refused = plan_layout(found, stages=stages(43, 1), in_flight_tokens=8192)
    assert isinstance(refused, Unplannable)
    assert refused.refused == "kvCacheDtype"


@pytest.mark.parametrize(("size", "expected"), [(1, 4_504_682_496), (2, 2_491_416_576), (8, 1_484_783_616)])
def test_minimax_m3_keeps_an_index_beside_keys_and_values(size: int, expected: int) -> None:
    # vLLM 0.25.1's planner; the index is whole on every rank.
    assert layout(built(MINIMAX_M3), tensor_parallel_size=size).pool_bytes(32_768) == expected


def test_minimax_m3_on_stages_is_not_guessed() -> None:
    found = built(MINIMAX_M3)
    assert isinstance(plan_layout(found, stages=stages(60, 2), in_flight_tokens=8192), Unplannable)


@pytest.mark.parametrize(("version", "tokens"), [("0.28.0", 8192 * 16), ("0.29.0", 8191 * 16)])
def test_a_block_is_held_back_from_0_29_on(version: str, tokens: int) -> None:
    # Two layers of 8 heads of 128, 131,072 bytes a block: vLLM 0.32's planner says 131,056 tokens in 1 GiB.
    two = built(LLAMA_8B | {"num_hidden_layers": 2, "head_dim": 128, "max_position_embeddings": 10**6})
    found = plan_layout(two, stages=stages(2, 1), in_flight_tokens=2048, reserved=reserved_blocks(version))
    assert not isinstance(found, Unplannable)
    assert found[0].longest_model_len(GIB, 10**6) == tokens


def test_hybrids_keep_two_states_once_they_cache_prefixes() -> None:
    found = built(QWEN3_NEXT_80B)
    assert states_per_sequence(found, "0.25.1") == 1
    assert states_per_sequence(found, "0.32.0") == 2


@pytest.mark.parametrize("version", ["0.25.1", "0.32.0"])
def test_models_of_states_alone_keep_one(version: str) -> None:
    # vLLM's planner says the same of both: no prefixes are cached without attention.
    found = small("FalconMambaForCausalLM")
    states = states_per_sequence(found, version)
    assert states == 1
    plan = plan_layout(found, stages=stages(len(found.layers), 1), in_flight_tokens=8192, states=states)
    assert _planned(plan)[0].needed_bytes(1024) == 233_472


def test_qwen3_next_at_tp_4_needs_what_vllm_0_32_says() -> None:
    found = plan_layout(
        built(QWEN3_NEXT_80B),
        tensor_parallel_size=4,
        stages=stages(48, 1),
        in_flight_tokens=16384,
        states=2,
    )
    assert not isinstance(found, Unplannable)
    assert found[0].needed_bytes(262_144) / GIB == pytest.approx(3.019, abs=0.0005)


def without_manager(found: BuiltShape, in_flight_tokens: int = 2048) -> tuple[Layout, ...] | Unplannable:
    return plan_layout(
        found,
        stages=stages(len(found.layers), 1),
        in_flight_tokens=in_flight_tokens,
        hybrid_kv_cache_manager=False,
    )


# vLLM 0.25.1's own planner, one GPU, one request of 131,072 tokens, 2,048 tokens in flight (an A100's).
WITHOUT_MANAGER = [
    ("gemma-3-27b-it", 12_255_232_000, 66_571_993_088),
    ("gemma-3-4b-it", 3_063_808_000, 18_253_611_008),
]


@pytest.mark.parametrize(("name", "hybrid", "full"), WITHOUT_MANAGER)
def test_windows_keep_every_token_without_the_hybrid_manager(
    catalog: Catalog, name: str, hybrid: int, full: int
) -> None:
    facts = next(entry.facts for entry in catalog.entries if entry.name == name)
    assert facts is not None
    read = facts_shape(facts)
    assert isinstance(read, Shape)
    found = as_built(read, "0.25.1")
    assert layout(found, in_flight_tokens=2048).pool_bytes(131_072) == hybrid
    (off,) = _planned(without_manager(found))
    assert off.pool_bytes(131_072) == off.needed_bytes(131_072) == full


def _planned(found: tuple[Layout, ...] | Unplannable) -> tuple[Layout, ...]:
    assert not isinstance(found, Unplannable), found
    return found


def test_chunks_keep_every_token_without_the_hybrid_manager() -> None:
    found = built(LLAMA_8B)
    attention = found.layers[0].mixer
    assert isinstance(attention, Attention)
    local = replace(found.layers[0], mixer=replace(attention, chunk=8192))
    mixed = replace(found, layers=(local,) * 3 + found.layers[3:])
    assert _planned(without_manager(mixed)) == _planned(without_manager(found))
    assert layout(mixed).needed_bytes(131_072) < layout(found).needed_bytes(131_072)


# Both versions' own planner with disable_hybrid_kv_cache_manager, the model's limit, one batch of 2,048 tokens.
OFF = [("Cohere2ForCausalLM", 25_165_824), ("Llama4ForCausalLM", 25_165_824), ("MistralModel", 18_923_520)]


@pytest.mark.parametrize(("name", "expected"), OFF)
def test_without_the_hybrid_manager_a_request_needs_what_vllm_says(name: str, expected: int) -> None:
    found = small(name)
    (off,) = _planned(without_manager(found))
    assert off.pool_bytes(min(32_768, found.max_model_len)) == expected


@pytest.mark.parametrize("name", ["FalconH1ForCausalLM", "KimiLinearForCausalLM"])
def test_what_vllm_refuses_without_the_hybrid_manager_is_refused(name: str) -> None:
    refused = without_manager(small(name))
    assert isinstance(refused, Unplannable)
    assert refused.refused == "disableHybridKvCacheManager"


def test_a_model_with_one_kind_of_cache_is_the_same_without_the_hybrid_manager() -> None:
    for config in (LLAMA_8B, DEEPSEEK_V3):
        found = built(config)
        assert _planned(without_manager(found)) == (layout(found, in_flight_tokens=2048),)


def test_states_beside_attention_are_refused_without_the_hybrid_manager() -> None:
    refused = without_manager(built(QWEN3_NEXT_80B))
    assert isinstance(refused, Unplannable)
    assert refused.refused == "disableHybridKvCacheManager"
    assert "it has full, linear-state" in refused.reason


def test_a_latent_is_replicated_on_every_rank() -> None:
    alone, eight = layout(built(DEEPSEEK_V3)), layout(built(DEEPSEEK_V3), tensor_parallel_size=8)
    assert alone.bytes_per_token == eight.bytes_per_token == 61 * 1152


def test_kv_heads_are_divided_until_one_is_left() -> None:
    found = built(LLAMA_8B)
    sizes = [layout(found, tensor_parallel_size=n).bytes_per_token for n in (1, 2, 8, 16)]
    assert sizes == [131_072, 65_536, 16_384, 16_384]


def test_an_fp8_cache_is_half_as_large() -> None:
    found = built(LLAMA_8B)
    half = layout(found, kv_cache_dtype="fp8").needed_bytes(32_768)
    assert 2 * half == layout(found).needed_bytes(32_768)


def test_a_cache_dtype_nobody_knows_is_refused() -> None:
    found = built(LLAMA_8B)
    assert isinstance(
        plan_layout(found, stages=stages(32, 1), kv_cache_dtype="int3", in_flight_tokens=8192), Unplannable
    )


@pytest.mark.parametrize(
    ("version", "pipeline", "expected"),
    [("0.25.1", 1, 1), ("0.26.0", 1, 2), ("0.32.0", 1, 2), ("0.32.0", 4, 5), ("0.19.0", 4, 1)],
)
def test_batches_in_flight_differ_by_version(version: str, pipeline: int, expected: int) -> None:
    assert batches_in_flight(version, pipeline_parallel_size=pipeline) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25.1", (0, 25, 1)),
        ("0.9.2.dev364+gb432b7a28", (0, 9, 2)),
        ("0.14.0rc1.dev2", (0, 14, 0)),
        ("0.8", (0, 8, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_versions_are_read_whatever_follows_the_digits(text: str, expected: tuple[int, int, int]) -> None:
    assert version_tuple(text) == expected


@given(configs(), st.integers(1, 200_000), st.integers(1, 50_000), st.sampled_from([1, 2, 4]))
def test_a_longer_request_never_needs_less(config: dict[str, Any], tokens: int, more: int, size: int) -> None:
    found = layout(built(config), tensor_parallel_size=size)
    assert 0 <= found.pool_bytes(tokens) <= found.pool_bytes(tokens + more)
    assert found.needed_bytes(tokens) <= found.needed_bytes(tokens + more)


@given(configs(), st.integers(1, 131_072))
def test_padding_only_ever_adds(config: dict[str, Any], tokens: int) -> None:
    found = layout(built(config))
    assert found.pool_bytes(tokens) >= found.needed_bytes(tokens)


@given(configs(), st.integers(0, 2**36), st.integers(1, 10**6))
def test_the_longest_context_fits_and_one_token_more_does_not(
    config: dict[str, Any], available: int, limit: int
) -> None:
    found = layout(built(config))
    longest = found.longest_model_len(available, limit)
    assert 0 <= longest <= limit
    if longest:
        assert found.pool_bytes(longest) <= available
    if longest < limit:
        assert found.pool_bytes(longest + 1) > available


@given(configs(), st.integers(1, 4))
def test_stages_hold_every_layer_once(config: dict[str, Any], pipeline: int) -> None:
    found = built(config)
    if pipeline > len(found.layers):
        return
    cut = plan_layout(found, stages=stages(len(found.layers), pipeline), in_flight_tokens=8192)
    assert not isinstance(cut, Unplannable)
    assert sum(count for part in cut for _, count in part.layers) == len(found.layers)
    assert sum(part.bytes_per_token for part in cut) == layout(found).bytes_per_token


PLANNER_CASES = json.loads((Path(__file__).parent / "data" / "planner_cases.json").read_text())["cases"]


@pytest.mark.parametrize("case", PLANNER_CASES, ids=lambda case: case["config"]["layer_types"])
def test_random_mixes_of_windows_are_planned_as_vllm_does(case: dict[str, Any]) -> None:
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    types = [kinds[letter] for letter in case["config"]["layer_types"]]
    found = built(
        case["config"]
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "num_hidden_layers": len(types),
            "layer_types": types,
        }
    )
    size, tokens = case["tensorParallelSize"], case["maxModelLen"]
    plan = layout(found, tensor_parallel_size=size, in_flight_tokens=case["maxNumBatchedTokens"])
    assert weights_per_rank(found, split_over(tensor_parallel_size=size)) == (case["weightsBytes"],)
    assert plan.needed_bytes(tokens) == case["neededBytes"]
    assert plan.pool_bytes(tokens) == case["poolBytes"]
    assert len(plan.groups) == case["groups"]
    assert case["numBlocks"] / plan.blocks(tokens) == case["maxConcurrency"]


KV_GROUPS = json.loads((Path(__file__).parent / "data" / "kv_groups.json").read_text(encoding="utf-8"))[
    "plans"
]
CONFIGS = {model.name: model.config for model in exact_models.read()}


@pytest.mark.parametrize("said", KV_GROUPS, ids=lambda said: said["model"])
def test_the_pool_of_a_real_model_is_laid_out_as_vllm_does(said: dict[str, Any]) -> None:
    plan = layout(built(CONFIGS[said["model"]]))
    assert plan.needed_bytes(said["maxModelLen"]) == said["neededBytes"]
    if "groups" in said:
        assert len(plan.groups) == said["groups"]
        assert said["numBlocks"] / plan.blocks(said["maxModelLen"]) == said["maxConcurrency"]

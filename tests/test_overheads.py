"""What vLLM takes beside weights and cache, and which of its versions takes what."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from shapes import (
    DEEPSEEK_V3,
    GPT_OSS_20B,
    LLAMA_8B,
    QWEN2_5_VL,
    QWEN2_MOE,
    QWEN3_32B,
    QWEN3_NEXT_80B,
    built,
)

from kaito_catalog.architectures import BuiltShape
from kaito_catalog.memory.compilation import captured_graphs
from kaito_catalog.memory.overheads.compiled_copy import compiled_copy, is_copy_pinned, pinned_bytes
from kaito_catalog.memory.overheads.defaults import serve_defaults
from kaito_catalog.memory.overheads.encoder_profile import EncoderProfile, encoder_profile
from kaito_catalog.memory.overheads.layer_widths import indexer_workspace
from kaito_catalog.memory.overheads.model_runner import (
    profiles_everything,
    runs_second_runner,
)
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.total import Overheads, stage_overheads
from kaito_catalog.quantity import GIB
from tools.bench_memory import OURS, Score, quantile, score
from tools.observed import HELD_OUT, STARTS, observations

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
GEMMA_4: dict[str, Any] = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma4_text",
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "vocab_size": 262144,
        "max_position_embeddings": 262144,
        "sliding_window": 1024,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    },
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "head_dim": 72,
    },
}


def beside(of: BuiltShape, version: str, **more: Any) -> Overheads:
    settings: dict[str, Any] = {
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 256,
        "max_model_len": 8192,
    }
    run = ProfileRun(of, **settings | more, vllm_version=version)
    return stage_overheads(run, stage_layers=len(of.layers))


@pytest.mark.parametrize(
    ("max_num_seqs", "graphs"), [(1, 3), (2, 5), (20, 13), (32, 18), (128, 54), (256, 86), (1024, 102)]
)
def test_graphs_are_as_many_as_vllm_says_it_profiles(max_num_seqs: int, graphs: int) -> None:
    # "Profiling CUDA graph memory: PIECEWISE=8 (largest=40), FULL=5 (largest=16)" with max_num_seqs 20, and so on.
    assert captured_graphs(max_num_seqs, 8192) == graphs


def test_dense_models_run_on_the_second_runner_from_0_25_on() -> None:
    llama = built(LLAMA_8B)
    assert [runs_second_runner(llama, v) for v in ("0.22.1", "0.23.0", "0.25.1")] == [False, True, True]
    quantised = built(LLAMA_8B | {"quantization_config": FP8})
    assert [runs_second_runner(quantised, v) for v in ("0.23.0", "0.25.1")] == [False, True]


def test_models_with_experts_or_states_run_on_it_from_0_30_on() -> None:
    for config in (GPT_OSS_20B, QWEN3_NEXT_80B):
        assert [runs_second_runner(built(config), v) for v in ("0.25.1", "0.29.0", "0.30.0")] == [
            False,
            False,
            True,
        ]
    assert runs_second_runner(built(QWEN2_MOE), "0.25.1")


def test_the_second_runner_sets_nothing_aside_for_graphs_until_0_28() -> None:
    llama = built(LLAMA_8B)
    assert beside(llama, "0.25.1").cuda_graph_bytes == 0
    assert beside(llama, "0.28.0").cuda_graph_bytes > 0
    assert beside(built(GPT_OSS_20B), "0.25.1").cuda_graph_bytes > 0


def test_non_torch_memory_is_less_where_no_graph_is_captured_while_it_is_measured() -> None:
    gpt_oss = built(GPT_OSS_20B)
    assert (
        beside(gpt_oss, "0.25.1", enforce_eager=True).non_torch_bytes
        < beside(gpt_oss, "0.25.1").non_torch_bytes
    )


def test_compiling_holds_a_second_embedding_that_eager_starts_do_without() -> None:
    qwen = built(QWEN3_32B)
    assert compiled_copy(qwen, 1, "0.25.1") == 151936 * 5120 * 2
    few: dict[str, Any] = {"max_num_batched_tokens": 256, "max_num_seqs": 16}
    compiled, eager = beside(qwen, "0.25.1", **few), beside(qwen, "0.25.1", enforce_eager=True, **few)
    assert compiled.activation_peak_bytes - eager.activation_peak_bytes > GIB
    assert beside(qwen, "0.25.1", is_first_stage=False, **few) == beside(
        qwen, "0.25.1", is_first_stage=False, enforce_eager=True, **few
    )


def test_an_encoder_brings_embeddings_so_that_no_copy_is_made() -> None:
    assert compiled_copy(built(QWEN2_5_VL), 1, "0.25.1") == 0


def test_the_copy_may_count_twice_where_vllm_measures_what_is_gone() -> None:
    qwen = built(QWEN3_32B)
    assert [pinned_bytes(qwen, 2, v) > 0 for v in ("0.26.0", "0.27.1", "0.31.0", "0.32.0")] == [
        False,
        True,
        True,
        False,
    ]


def test_the_copy_is_planned_for_large_batches_and_repacked_weights() -> None:
    qwen = built(QWEN3_32B)
    assert [is_copy_pinned(qwen, 1, tokens) for tokens in (2048, 8192)] == [False, True]
    awq = built({**QWEN3_32B, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}})
    assert is_copy_pinned(awq, 1, 2048)
    assert not is_copy_pinned(built(QWEN2_MOE), 1, 8192)


def profiled(of: BuiltShape, version: str = "0.23.0", **more: Any) -> EncoderProfile:
    batch: dict[str, Any] = {"max_num_batched_tokens": 2048, "max_num_seqs": 256, "max_model_len": 8192}
    found = encoder_profile(ProfileRun(of, vllm_version=version, **batch | more))
    assert found is not None
    return found


def test_a_video_as_long_as_the_context_decides_the_peak_of_qwen2_5_vl() -> None:
    # vLLM 0.23.0 on an A100 80GB left -14.28 GiB of 17.4: "profiled with 1 video items", a budget of 114688 tokens.
    of = built(QWEN2_5_VL)
    long, short = (profiled(of, max_model_len=n).peak_bytes for n in (128000, 8192))
    assert long == 7 * short
    assert 14 * GIB < long < 16 * GIB


def test_norms_that_do_not_add_in_place_take_two_hidden_states_more() -> None:
    of = built(QWEN2_5_VL)
    older, newer = (profiled(of, version).peak_bytes for version in ("0.23.0", "0.25.1"))
    assert newer - older == 65536 * 2 * 1280 * 2


def test_items_and_embeddings_stay_while_the_decoder_is_profiled() -> None:
    of = built(QWEN2_5_VL)
    kept = profiled(of).kept_bytes
    assert kept == (65536 * 1176 + 16384 * 3584) * 2
    few: dict[str, Any] = {"max_num_batched_tokens": 32768, "max_num_seqs": 16}
    text = replace(of, encoder=None)
    more = beside(of, "0.23.0", enforce_eager=True, **few).activation_peak_bytes
    # Two images make up the batch.
    assert more - beside(text, "0.23.0", enforce_eager=True, **few).activation_peak_bytes == 2 * kept


def test_gemma_4_takes_as_many_frames_at_once_as_a_tenth_of_the_gpu_allows() -> None:
    of = built(GEMMA_4)
    batch: dict[str, Any] = {"max_num_batched_tokens": 8192, "max_model_len": 32768}
    whole, small, large = (
        profiled(of, memory_bytes=n and n * GIB, **batch).peak_bytes for n in (None, 24, 80)
    )
    assert small < large < whole
    assert profiled(of, "0.20.2", memory_bytes=24 * GIB, **batch).peak_bytes == whole


def test_gpus_before_hopper_spare_most_of_the_workspaces_of_cublas() -> None:
    llama = built(LLAMA_8B)
    ampere, hopper, unknown = (beside(llama, "0.28.0", compute_capability=c) for c in (8.0, 9.0, None))
    assert hopper == unknown
    assert hopper.activation_peak_bytes - ampere.activation_peak_bytes == 2 * 2**25 - 8_519_680 - 2**22
    assert hopper.non_torch_bytes > ampere.non_torch_bytes
    assert hopper.cuda_graph_bytes > ampere.cuda_graph_bytes


def test_the_second_runner_did_not_profile_encoders_at_first() -> None:
    of = built(QWEN2_5_VL)
    assert [profiles_everything(of, v) for v in ("0.23.0", "0.25.1", "0.28.0")] == [True, False, True]
    first, second = beside(of, "0.23.0", max_model_len=128000), beside(of, "0.25.1", max_model_len=128000)
    assert first.activation_peak_bytes > 10 * GIB > second.activation_peak_bytes


def test_a_sparse_indexer_takes_forty_contexts_of_its_cache() -> None:
    # vLLM 0.25.1's indexer.py reckons 825 MB for DeepSeek-V3.2's 163,840 tokens.
    sparse = built(DEEPSEEK_V3 | {"index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048})
    assert indexer_workspace(sparse, 163840) == 865_075_200
    few: dict[str, Any] = {"max_num_batched_tokens": 256, "max_num_seqs": 16, "enforce_eager": True}
    long, short = (beside(sparse, "0.25.1", max_model_len=n, **few) for n in (163840, 8192))
    assert long.activation_peak_bytes - short.activation_peak_bytes == indexer_workspace(
        sparse, 163840 - 8192
    )
    assert indexer_workspace(built(DEEPSEEK_V3), 163840) == 0


def test_from_0_28_on_the_largest_devices_take_larger_batches() -> None:
    sizes = [serve_defaults("B200", 178 * GIB, v).max_num_batched_tokens for v in (None, "0.27.1", "0.28.0")]
    assert sizes == [8192, 8192, 16384]
    assert serve_defaults("H200", 140 * GIB, "0.32.0").max_num_batched_tokens == 8192


def test_gb10_takes_the_batches_of_small_devices() -> None:
    assert serve_defaults("GB10", 121 * GIB, "0.25.1").max_num_seqs == 1024
    assert serve_defaults("GB10", 121 * GIB, "0.25.1", is_unified=True).max_num_seqs == 256


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    rows, _ = observations(HELD_OUT)
    return [score(row) for row in rows]


def test_starts_that_no_constant_was_fitted_on_are_met_too(scores: list[Score]) -> None:
    errors = [e for s in scores if (e := s.error(OURS)) is not None]
    sizes = [abs(e) for e in errors]
    assert len(sizes) >= 25
    assert statistics.median(sizes) <= 0.007
    assert quantile(sizes, 0.9) <= 0.022
    assert max(sizes) <= 0.05
    assert max(errors) <= 0.01


def test_what_the_plans_of_those_expect_to_be_off_by_is_enough(scores: list[Score]) -> None:
    for s in scores:
        assert abs(s.ours) * s.observed.gpu_memory_bytes <= (s.plan.expected_error_bytes or 0), s.observed.id


def test_their_verdicts_hold(scores: list[Score]) -> None:
    assert [s.observed.id for s in scores if s.wrong(OURS)] == []
    assert sum(s.started is False for s in scores) >= 2


def test_nothing_is_both_fitted_and_held_out() -> None:
    def starts(path: Any) -> set[tuple[object, ...]]:
        rows, _ = observations(path)
        return {(r.model, r.vllm_version, r.gpu, r.gpu_memory_utilization, r.kv_cache_bytes) for r in rows}

    assert not starts(HELD_OUT) & starts(STARTS)

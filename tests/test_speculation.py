"""What guesses tokens ahead: its weights and cache against vLLM's own loaders and planner, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog import load_catalog, plan_model
from kaito_catalog.architectures import Drafter, Shape, Unsupported, read_shape
from kaito_catalog.architectures.drafts import read_draft
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.speculation.config import Method, SpeculationError, read_speculation
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.given_options import read_options
from kaito_catalog.plans.speculation import cost_of_speculation, draft_of
from kaito_catalog.quantity import GIB
from tools.exact_models import VERSIONS
from tools.exact_speculation import CASES, Case, cases, compare

BY_NAME = {case.name: case for case in cases()}
H200 = PlanGpu("NVIDIA H200", 141 * GIB, 9.0)
MTP = {"method": "mtp", "num_speculative_tokens": 1}


@pytest.mark.parametrize("case", BY_NAME.values(), ids=lambda case: str(case.name))
def test_weights_and_cache_with_a_drafter_equal_those_of_vllm(case: Case) -> None:
    compared = [c for version in VERSIONS for c in compare(case, version)]
    assert compared
    assert [(c.version, c.world, c.difference) for c in compared if c.difference] == []


def test_every_method_that_is_planned_was_compared() -> None:
    asked = {read_speculation(json.dumps(case.speculation)).method for case in BY_NAME.values()}
    assert set(Method) - asked == {Method.DSPARK, Method.MLP_SPECULATOR, Method.SUFFIX}


def plan(
    case: str,
    speculation: dict[str, Any] | None = None,
    *,
    draft: Drafter | Unsupported | None = None,
    tensor_parallel_size: int = 8,
    pipeline_parallel_size: int = 1,
    vllm_version: str = "0.25.1",
    **options: Any,
) -> Plan:
    """The plan of a recorded case's model on H200."""
    settings = Settings(32_768, 0.9, draft=draft, **options)
    if speculation is not None:
        settings = replace(settings, speculative_config=json.dumps(speculation))
    return make_plan(
        PlanRequest(
            read_shape(BY_NAME[case].config, quantization=BY_NAME[case].quantization),
            gpu=H200,
            parallelism=Parallelism(tensor_parallel_size, pipeline_parallel_size),
            settings=settings,
            vllm_version=vllm_version,
        )
    )


V3, LLAMA = "deepseek-ai/DeepSeek-V3", "meta-llama/Llama-3.1-8B-Instruct eagle3"


def test_the_mtp_layer_of_deepseek_v3_is_not_free() -> None:
    without, found = plan(V3), plan(V3, MTP)
    assert without.per_gpu is not None
    assert found.per_gpu is not None
    assert found.per_gpu.weights_bytes - without.per_gpu.weights_bytes == 1_661_047_968
    # A 62nd layer of 1,152 bytes a token.
    assert found.per_gpu.kv_cache_needed_bytes * 61 == without.per_gpu.kv_cache_needed_bytes * 62
    assert found.per_gpu.kv_cache_available_bytes < without.per_gpu.kv_cache_available_bytes - 1_661_047_968


def test_a_drafter_that_is_not_described_makes_the_plan_unknown_and_says_what_helps() -> None:
    found = plan(LLAMA, {"method": "eagle3", "model": "org/head", "num_speculative_tokens": 3})
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "speculation")
    assert found.reason is not None
    assert "org/head" in found.reason
    assert "--draft-config" in found.reason


@pytest.mark.parametrize(
    ("speculation", "words"),
    [
        ({"method": "mtp"} | {"num_speculative_tokens": 0}, "not a whole number"),
        ({"method": "nonsense", "num_speculative_tokens": 1}, "no plan for the method"),
        ({"num_speculative_tokens": 1}, "neither a method nor a model"),
        (MTP | {"tensor_parallel_size": 8}, "draft_tensor_parallel_size"),
        (MTP | {"draft_tensor_parallel_size": 4}, "neither 1 nor"),
        ({"method": "ngram"}, "num_speculative_tokens"),
        ({"method": "mlp_speculator", "model": "org/it"}, "no class"),
    ],
)
def test_what_vllm_refuses_does_not_fit(speculation: dict[str, Any], words: str) -> None:
    found = plan(V3, speculation)
    assert (found.fits, found.limited_by) == (Fit.NO, "speculation")
    assert words in (found.reason or "")


@pytest.mark.parametrize(
    "speculation",
    [
        MTP | {"attention_backend": "TRITON_ATTN"},
        {"method": "extract_hidden_states", "num_speculative_tokens": 1},
        {"method": "dspark", "num_speculative_tokens": 4},
    ],
)
def test_what_no_plan_reads_makes_it_unknown(speculation: dict[str, Any]) -> None:
    found = plan(V3, speculation)
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "speculation")


def test_layers_with_mtp_that_the_configuration_does_not_have_are_refused() -> None:
    config = BY_NAME[V3].config | {"num_nextn_predict_layers": 0}
    shape = read_shape(config)
    assert isinstance(shape, Shape)
    assert shape.mtp is None


@pytest.mark.parametrize(
    ("value", "method"),
    [
        ({"method": "deepseek_mtp", "num_speculative_tokens": 1}, Method.MTP),
        ({"method": "qwen3_next_mtp", "num_speculative_tokens": 2}, Method.MTP),
        ({"model": "[ngram]", "num_speculative_tokens": 3}, Method.NGRAM),
        ({"model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"}, Method.EAGLE3),
        ({"model": "yuhuili/EAGLE-LLaMA3-Instruct-8B"}, Method.EAGLE),
        ({"model": "z-lab/Qwen3-8B-DFlash-b16"}, Method.DFLASH),
        ({"model": "Qwen/Qwen3-0.6B"}, Method.DRAFT_MODEL),
        ({"method": "suffix"}, Method.SUFFIX),
    ],
)
def test_the_method_is_found_as_vllm_finds_it(value: dict[str, Any], method: Method) -> None:
    assert read_speculation(json.dumps(value)).method is method


def test_suffix_decoding_guesses_as_many_tokens_as_its_tree_is_deep() -> None:
    assert read_speculation('{"method": "suffix"}').num_speculative_tokens == 24


def test_what_is_no_json_object_is_refused_in_words() -> None:
    with pytest.raises(SpeculationError, match="not a JSON object"):
        read_speculation("[1]")


def test_guessing_from_the_text_adds_no_weights() -> None:
    without, found = (
        plan(LLAMA, tensor_parallel_size=1),
        plan(LLAMA, {"method": "ngram", "num_speculative_tokens": 3}, tensor_parallel_size=1),
    )
    assert without.per_gpu is not None
    assert found.per_gpu is not None
    assert found.per_gpu.weights_bytes == without.per_gpu.weights_bytes
    assert found.per_gpu.kv_cache_needed_bytes == without.per_gpu.kv_cache_needed_bytes
    # The first runner profiles its rejection sampler.
    assert found.per_gpu.activation_peak_bytes > without.per_gpu.activation_peak_bytes


def test_more_tokens_than_the_layers_guess_are_a_multiple_of_them() -> None:
    config = BY_NAME[V3].config | {"num_nextn_predict_layers": 2}
    request = PlanRequest(
        read_shape(config),
        gpu=H200,
        parallelism=Parallelism(8),
        settings=Settings(4096, 0.9, speculative_config=json.dumps(MTP | {"num_speculative_tokens": 3})),
        vllm_version="0.25.1",
    )
    found = make_plan(request)
    assert found.fits is Fit.NO
    assert "not a multiple of the 2" in (found.reason or "")


def test_a_draft_model_of_another_vocabulary_is_refused() -> None:
    draft = read_draft(BY_NAME["Qwen/Qwen3-32B draft"].draft or {}, "draft_model")
    speculation = {"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 3}
    found = plan(LLAMA, speculation, draft=draft, tensor_parallel_size=1)
    assert found.fits is Fit.NO
    assert "151,936 tokens and the model 128,256" in (found.reason or "")


def test_the_file_says_nothing_of_where_it_was_made() -> None:
    assert "/tmp/" not in CASES.read_text(encoding="utf-8")


def test_a_drafter_is_read_from_the_configuration_that_is_named(tmp_path: Path, root: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BY_NAME[LLAMA].draft), encoding="utf-8")
    speculation = {"method": "eagle3", "model": "yuhuili/EAGLE3", "num_speculative_tokens": 3}
    asked: dict[str, Any] = {
        "catalog": load_catalog(root / "catalog"),
        "gpu": "NVIDIA H100 80GB",
        "gpu_count": 1,
        "speculative_config": json.dumps(speculation),
    }
    unknown = plan_model("llama-3.1-8b-instruct", **asked)
    assert unknown.fits is Fit.UNKNOWN
    found = plan_model("llama-3.1-8b-instruct", **asked, draft_config=tmp_path)
    without = plan_model("llama-3.1-8b-instruct", **{**asked, "speculative_config": None})
    assert found.per_gpu is not None
    assert without.per_gpu is not None
    assert found.per_gpu.weights_bytes - without.per_gpu.weights_bytes == 849_635_328


def test_a_draft_model_is_found_among_the_entries_of_the_catalog(root: Path) -> None:
    text = json.dumps({"model": "Qwen/Qwen3.5-2B", "num_speculative_tokens": 3})
    found = draft_of(text, None, root / "catalog")
    assert isinstance(found, Drafter)
    assert found.is_whole
    assert draft_of(text.replace("Qwen/", "other/"), None, root / "catalog") is None


def test_what_guessing_costs_is_told_beside_a_plan_without_it() -> None:
    found = plan(V3, MTP)
    cost = cost_of_speculation(read_shape(BY_NAME[V3].config), None, found)
    assert cost is not None
    assert cost.weights_bytes == 1_661_047_968
    assert cost.available_bytes > cost.weights_bytes
    assert cost.longest_model_len <= cost.longest_without
    assert cost_of_speculation(read_shape(BY_NAME[V3].config), None, plan(V3)) is None


def test_the_short_options_are_keys_of_the_speculative_config() -> None:
    given = read_options(
        Runtime.model_validate({"name": "vllm", "config": {"spec-method": "mtp", "spec_tokens": 2}})
    )
    value = given.get("speculative_config")
    assert json.loads(str(value)) == {"method": "mtp", "num_speculative_tokens": 2}

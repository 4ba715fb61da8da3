"""The vLLM options of a proposal that memory depends on."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.memory.values import Settings
from kaito_catalog.plans.given_options import GivenOptions, read_options
from kaito_catalog.plans.start import Start


def _options(**config: Any) -> GivenOptions:
    written = {name.replace("_", "-"): value for name, value in config.items()}
    return read_options(Runtime.model_validate({"name": "vllm", "config": written}))


def _profile() -> Profile:
    return Profile.model_validate(
        {
            "name": "test",
            "vllmVersion": "0.25.1",
            "gpuMemoryUtilization": 0.84,
            "gpuMemoryUtilizationByGPU": {"NVIDIA A10": 0.82},
            "diskOverheadBytes": 0,
            "source": "made for this test",
        }
    )


def _settings(options: GivenOptions, *, max_model_len: int) -> Settings:
    return Start(options, _profile(), max_model_len, "0.25.1").settings("NVIDIA A10")


def test_what_the_proposal_leaves_open_comes_from_the_release() -> None:
    settings = _settings(_options(), max_model_len=4096)
    assert (settings.gpu_memory_utilization, settings.kv_cache_dtype, settings.max_num_seqs) == (
        0.82,
        "auto",
        None,
    )


def test_the_proposals_own_options_win() -> None:
    own = _options(gpu_memory_utilization=0.95, kv_cache_dtype="fp8", max_num_seqs=16, enforce_eager=True)
    settings = _settings(own, max_model_len=4096)
    assert settings.gpu_memory_utilization == 0.95
    assert settings.kv_cache_dtype == "fp8"
    assert settings.max_num_seqs == 16
    assert settings.enforce_eager


def test_a_model_served_for_text_alone_is_planned_without_its_encoder() -> None:
    settings = _settings(_options(language_model_only=True), max_model_len=4096)
    assert settings.language_model_only


def test_underscores_are_as_good_as_dashes() -> None:
    runtime = Runtime.model_validate({"name": "vllm", "config": {"max_num_seqs": 8}})
    assert read_options(runtime).get("max_num_seqs") == 8


def test_a_number_in_quotes_counts_as_kaito_passes_texts_only() -> None:
    expected = GivenOptions.of({"gpu_memory_utilization": 0.9, "max_num_seqs": 16})
    assert _options(gpu_memory_utilization="0.9", max_num_seqs="16") == expected


@pytest.mark.parametrize(
    "config",
    [
        {"gpu_memory_utilization": 1.5},
        {"gpu_memory_utilization": True},
        {"gpu_memory_utilization": "high"},
        {"max_num_seqs": 0},
        {"max_num_seqs": 2.5},
        {"max_num_seqs": [16]},
        {"kv_cache_dtype": 8},
        {"enforce_eager": False},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_as_good_as_absent_and_said(config: dict[str, Any]) -> None:
    found = _options(**config)
    (name,) = config
    assert found.planned == ()
    said = [*found.problems, *(option.name for option in found.without_effect)]
    assert any(name.replace("_", "-") in words for words in said)


def test_a_plan_takes_the_proposals_options_unless_asked_otherwise() -> None:
    own = _options(kv_cache_dtype="fp8", max_num_seqs=16)
    asked = GivenOptions.of({"max_num_seqs": 4}).over(own)
    assert (asked.get("kv_cache_dtype"), asked.get("max_num_seqs")) == ("fp8", 4)

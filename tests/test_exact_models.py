"""The plan against recorded exact plans of vLLM's own classes: every model, every way to split it, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Parallelism, PlanGpu, PlanRequest, Settings
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over
from kaito_catalog.quantity import GIB
from tools import peers
from tools.bench_memory import HF_MEM, KAITO, LLM_D, OURS, exact_scores
from tools.exact_models import (
    EXACT_PLANS,
    LONGEST_CONFIG,
    SMALL_PLANS,
    VERSIONS,
    WORLDS,
    Comparison,
    Figures,
    Model,
    compare,
    files_beside,
    own_class,
    read,
    summary,
)
from tools.known_differences import BOUNDS, BOUNDS_OF_A_VERSION, SMALL_BOUNDS

MODELS = read()
SMALL = read(SMALL_PLANS)


def asked(model: Model, version: str) -> list[Comparison]:
    return [c for c in compare(model, version) if not c.is_refused]


@pytest.mark.parametrize(
    ("version", "model"),
    [
        (v, m)
        for v in VERSIONS
        for m in MODELS
        if v in m.plans and m.name not in BOUNDS and (m.name, v) not in BOUNDS_OF_A_VERSION
    ],
    ids=lambda x: str(getattr(x, "name", x)),
)
def test_weights_and_cache_equal_those_of_vllm_in_every_split(version: str, model: Model) -> None:
    different = [(c.world, c.difference) for c in asked(model, version) if not c.is_equal]
    assert different == []


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_what_is_listed_as_different_really_is(name: str) -> None:
    model = next(m for m in MODELS if m.name == name)
    assert any(not c.is_equal for c in asked(model, "0.25.1"))


@pytest.mark.parametrize("model", SMALL, ids=lambda m: str(m.name))
def test_every_architecture_equals_vllm_in_every_split_of_a_small_model(model: Model) -> None:
    # The libraries beside one version or the other do not read every configuration.
    found = {version: said for version in VERSIONS if (said := asked(model, version))}
    assert found
    for version, said in found.items():
        if (model.name, version) not in SMALL_BOUNDS:
            assert [(version, c.world, c.difference) for c in said if not c.is_equal] == []


@pytest.mark.parametrize(("name", "version"), sorted(BOUNDS_OF_A_VERSION))
def test_what_is_listed_as_different_with_one_version_takes_less_than_the_plan_says(
    name: str, version: str
) -> None:
    model = next(m for m in MODELS if m.name == name)
    off = [c for c in asked(model, version) if not c.is_equal]
    assert off
    for c in off:
        assert isinstance(c.vllm, Figures)
        assert isinstance(c.ours, Figures)
        assert c.ours.needed >= c.vllm.needed


UNREAD = [m for m in SMALL if any(c.is_cache_alone for c in asked(m, "0.25.1"))]


@pytest.mark.parametrize(
    ("model", "world"),
    [
        (m, world)
        for m in UNREAD
        for world in ("tp1", "tp2", "tp4", "tp8", "pp2", "tp2pp3")
        if "refused" not in m.plans["0.25.1"][world]
    ],
    ids=lambda x: str(getattr(x, "name", x)),
)
def test_with_the_size_of_the_files_an_unread_encoder_is_off_by_half_of_it_at_most(
    model: Model, world: str
) -> None:
    said = model.plans["0.25.1"]
    plan = make_plan(
        PlanRequest(
            read_shape(model.config),
            stored=StoredSize(sizeBytes=sum(said["tp1"]["weights"])),
            gpu=PlanGpu("H100 80GB", 80 * GIB, 9.0),
            parallelism=Parallelism(WORLDS[world].tensor_parallel_size, WORLDS[world].pipeline_parallel_size),
            settings=Settings(max_model_len=said[world]["maxModelLen"], gpu_memory_utilization=0.92),
            vllm_version="0.25.1",
        )
    )
    assert plan.per_gpu is not None
    assert plan.expected_error_bytes is not None
    shape = read_shape(model.config)
    assert isinstance(shape, Shape)
    decoder = weights_per_rank(
        as_built(replace(shape, encoder=None), "0.25.1"), split_over(tensor_parallel_size=1)
    )
    assert not isinstance(decoder, Uncomputable)
    encoder = sum(said["tp1"]["weights"]) - sum(decoder)
    assert encoder > 0
    off = abs(plan.per_gpu.weights_bytes - max(said[world]["weights"]))
    assert off <= min(encoder // 2 + 1, plan.expected_error_bytes)
    if world == "tp1":
        assert off == 0


@pytest.mark.parametrize(("name", "version"), sorted(SMALL_BOUNDS))
def test_what_is_listed_as_different_of_the_small_models_really_is(name: str, version: str) -> None:
    model = next(m for m in SMALL if m.name == name)
    assert any(not c.is_equal for c in asked(model, version))


def test_every_model_that_vllm_plans_is_compared() -> None:
    assert len(MODELS) >= 125
    planned_by_vllm = {m.name for m in MODELS if any("needed" in said for said in m.plans["0.25.1"].values())}
    assert {m.name for m in MODELS if asked(m, "0.25.1")} == planned_by_vllm
    assert len(planned_by_vllm) >= 115


def test_every_way_to_split_a_model_is_among_the_comparisons() -> None:
    worlds = {c.world for m in MODELS for c in asked(m, "0.25.1")}
    assert worlds == set(WORLDS)


def test_configurations_that_are_committed_are_short() -> None:
    kept = json.loads(EXACT_PLANS.read_text(encoding="utf-8"))["models"]
    assert [name for name, value in kept.items() if len(json.dumps(value["config"])) > LONGEST_CONFIG] == []


def test_a_later_version_cuts_experts_that_an_earlier_refuses_to() -> None:
    model = next(m for m in MODELS if m.name == "Qwen/Qwen3-30B-A3B-FP8")
    said = [{c.world: c for c in compare(model, version)}["tp4"] for version in VERSIONS]
    assert [c.is_refused for c in said] == [True, False]


def small_config(name: str) -> dict[str, Any]:
    return dict(next(m for m in SMALL if m.name == name).config)


def test_quantised_weights_that_vllm_names_otherwise_need_the_size_of_the_files() -> None:
    config = small_config("GPTBigCodeForCausalLM")
    quantised = read_shape(
        {**config, "quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}
    )
    whole = read_shape(config)
    assert isinstance(quantised, Shape)
    assert isinstance(whole, Shape)
    split = split_over(tensor_parallel_size=1)
    found = weights_per_rank(as_built(quantised, "0.25.1"), split)
    assert isinstance(found, Uncomputable)
    assert "quantised weights of GPTBigCodeForCausalLM" in found.reason
    assert not isinstance(weights_per_rank(as_built(whole, "0.25.1"), split), Uncomputable)


def test_latents_that_a_version_does_not_know_by_their_type_are_kept_for_every_head() -> None:
    needed = {}
    for name in ("AXK1ForCausalLM", "AXK1ForCausalLM axk1"):
        model = next(m for m in SMALL if m.name == name)
        for version in VERSIONS:
            said = next(c for c in asked(model, version) if c.world == "tp1").ours
            assert isinstance(said, Figures)
            needed[name, version] = said.needed
    latent, expanded = sorted(set(needed.values()))
    assert needed["AXK1ForCausalLM", "0.25.1"] == needed["AXK1ForCausalLM axk1", "0.32.0"] == latent
    assert expanded > 10 * latent


def test_a_made_up_configuration_brings_its_class_only_where_it_says_so() -> None:
    brought = own_class(small_config("GteNewModel"))
    assert brought is not None
    assert "class NewConfig(PretrainedConfig)" in brought
    assert own_class(small_config("MiniCPM3ForCausalLM")) is None
    assert own_class({"auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}) is None
    assert own_class({"auto_map": {"AutoConfig": "configuration.not a name"}}) is None


def test_a_made_up_configuration_may_bring_files_that_vllm_reads() -> None:
    assert "tokenizer.json" in files_beside("GritLM")
    assert files_beside("MiniCPM3ForCausalLM") == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_summary_counts_what_the_table_shows(version: str) -> None:
    models = MODELS[:20]
    met = sum(all(c.is_equal for c in found) for m in models if (found := asked(m, version)))
    assert f"{met} of " in summary(models, version)


# --- other tools ------------------------------------------------------------------------------------------------


def test_the_other_tools_are_pinned_to_one_version_each() -> None:
    assert all("==" in pin for pin in peers.pins())
    kept = json.loads(peers.PEERS.read_text(encoding="utf-8"))["versions"]
    assert kept == {pin.split("==")[0].split("[")[0]: pin.split("==")[1] for pin in peers.pins()}


def test_other_tools_are_told_the_size_that_vllm_allocates() -> None:
    models = peers.recorded_models()
    for repository in peers.repositories(models):
        parameters = repository.parameters(repository.refs["main"]) or {}
        assert parameters, repository.repo_id
    said = models["Qwen/Qwen3-8B"]["parameters"]
    assert said == {"BF16": 16_381_470_720 // 2}


def test_each_tool_is_scored_on_the_same_models() -> None:
    answers = json.loads(peers.PEERS.read_text(encoding="utf-8"))["answers"]
    scores = exact_scores(answers)
    assert len(scores) >= 80
    assert all(set(score.said) == {OURS, KAITO, HF_MEM, LLM_D} for score in scores)


def test_a_refusal_of_another_tool_keeps_its_words() -> None:
    answers = json.loads(peers.PEERS.read_text(encoding="utf-8"))["answers"]
    refused = [tool["refused"] for tools in answers.values() for tool in tools.values() if "refused" in tool]
    assert refused
    assert all(words.strip() for words in refused)

"""What a KAITO release chooses by itself, and how it splits a model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from generate_helpers import entry, facts, proposal, shared, small_facts, small_proposal

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.dry_runs.kubernetes import objects
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.kaito import model_catalog, release
from kaito_catalog.kaito.estimator import Node
from kaito_catalog.quantity import GIB
from kaito_catalog.site import kaito
from kaito_catalog.vllm_bridge.reference import known

V0_12, MAIN = release.recorded_release("v0.12"), release.recorded_release("main-0a69b1b")

PHI_4 = {
    "name": "microsoft/phi-4",
    "modelFileSize": "27.31Gi",
    "architectures": ["Phi3ForCausalLM"],
    "modelTokenLimit": 16384,
    "hiddenSize": 5120,
    "numHiddenLayers": 40,
    "numAttentionHeads": 40,
    "numKeyValueHeads": 10,
}


def chosen(name: str, *architectures: str, **more: Any) -> dict[str, str]:
    row = {**PHI_4, "name": name, "architectures": list(architectures), **more}
    return {choice.option: choice.value for choice in release.choices(row, V0_12)}


def test_a_parser_comes_from_the_name_before_the_architecture() -> None:
    found = chosen("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "LlamaForCausalLM")
    assert found["tool-call-parser"] == "deepseek_v3"
    assert chosen("meta-llama/Llama-3.1-8B", "LlamaForCausalLM")["tool-call-parser"] == "llama3_json"


def test_the_longest_prefix_counts() -> None:
    assert chosen("Qwen/Qwen3-Coder-30B", "X")["tool-call-parser"] == "qwen3_xml"
    assert chosen("Qwen/Qwen3-8B", "X")["tool-call-parser"] == "hermes"


def test_models_that_do_not_reason_get_no_reasoning_parser() -> None:
    assert "reasoning-parser" not in chosen("mistralai/Mistral-7B-v0.3", "MistralForCausalLM")
    assert chosen("mistralai/Mistral-Medium-9", "MistralForCausalLM")["reasoning-parser"] == "mistral"


def test_a_tool_call_parser_switches_tool_choice_on() -> None:
    assert chosen("a/b", "LlamaForCausalLM")["enable-auto-tool-choice"] == ""
    assert "enable-auto-tool-choice" not in chosen("a/b", "Phi3ForCausalLM")


def test_a_quantised_model_keeps_its_own_dtype() -> None:
    assert chosen("a/b", "X")["dtype"] == "bfloat16"
    assert chosen("a/b", "X", quantMethod="mxfp4")["dtype"] == "auto"


def test_mistrals_own_files_set_the_tokenizer_too() -> None:
    assert chosen("a/b", "X", loadFormat="mistral")["tokenizer-mode"] == "mistral"


def test_every_parser_of_the_maps_is_registered_in_vllm_0_25_1() -> None:
    vllm, kaito_release = known("0.25.1"), V0_12
    assert vllm is not None
    for parsers, registered in (
        (kaito_release.tool_call_parser, vllm.tool_parsers),
        (kaito_release.reasoning_parser, vllm.reasoning_parsers),
    ):
        assert {*parsers.prefixes.values(), *parsers.architectures.values()} <= set(registered)


def test_every_option_kaito_passes_is_one_of_vllm_0_25_1() -> None:
    vllm, kaito_release = known("0.25.1"), V0_12
    assert vllm is not None
    for option in (*kaito_release.by_prefix, *kaito_release.fixed_options):
        assert vllm.option(option.partition(".")[0]) is not None, option


def test_kaito_gives_a_small_model_a_copy_on_every_gpu() -> None:
    found = release.parallelism({**PHI_4, "modelFileSize": "7Gi"}, Node(320 * GIB, 4), V0_12)
    assert (found.data_parallel_size, found.tensor_parallel_size) == (4, 1)


def test_kaito_splits_phi_4_over_eight_gpus_which_vllm_refuses() -> None:
    found = release.parallelism(PHI_4, Node(320 * GIB, 8), V0_12, max_model_len=2048)
    assert found.tensor_parallel_size == 8
    assert release.illegal_split(PHI_4, 8) == (
        "10 KV heads can neither be divided by 8 nor repeated evenly on 8 GPUs"
    )


def test_a_latent_cache_is_split_over_any_number_that_divides_the_heads() -> None:
    row = {**PHI_4, "numAttentionHeads": 128, "numKeyValueHeads": 128, "kvLoraRank": 512, "qkRopeHeadDim": 64}
    assert release.illegal_split(row, 16) is None
    assert release.kv_cache_bytes_per_token(row) == 2 * 40 * 576


def test_an_instance_type_has_the_brochures_memory(catalog: Catalog) -> None:
    machine = catalog.shared.instance_type("Standard_NC96ads_A100_v4")
    assert machine is not None
    node = release.node_of(machine, catalog.shared.gpu_by_name[machine.gpu])
    assert node == Node(320 * GIB, 4, "NVIDIA A100 80GB")


def illegal_pairs(rows: list[dict[str, Any]], catalog: Catalog) -> set[tuple[str, str]]:
    shared_files = catalog.shared
    pairs = set()
    for machine in shared_files.instance_types:
        if not machine.source.startswith("kaito-project/"):
            continue  # KAITO's tables do not have it
        gpu = shared_files.gpu_by_name[machine.gpu]
        for row in rows if gpu.vllm else ():
            found = release.parallelism(row, release.node_of(machine, gpu), V0_12, max_model_len=2048)
            if found.nodes is not None and release.illegal_split(row, found.tensor_parallel_size):
                pairs.add((row["name"], machine.name))
    return pairs


FORTY_GIB_OR_L4 = ("Standard_ND96asr_A100_v4", "p4d.24xlarge", "g6.48xlarge", "g5.48xlarge")
FOUR_SMALL = ("g6.12xlarge", "g6.24xlarge", "g5.12xlarge", "g5.24xlarge")
# 10 KV heads on 4 or 8 GPUs, and 28 heads on 8: what KAITO v0.12's formula picks and vLLM refuses.
ILLEGAL_PAIRS = {
    *(
        (f"microsoft/{name}", machine)
        for name in ("phi-4", "Phi-3-medium-4k-instruct", "Phi-3-medium-128k-instruct")
        for machine in (*FORTY_GIB_OR_L4, *FOUR_SMALL)
    ),
    ("Qwen/Qwen2.5-Coder-7B-Instruct", "g6.48xlarge"),
    ("Qwen/Qwen2.5-Coder-7B-Instruct", "g5.48xlarge"),
}


def test_kaito_would_start_26_pairs_of_a_model_and_an_instance_type_illegally(catalog: Catalog) -> None:
    rows = [
        row
        for entry_ in catalog.entries
        if entry_.facts and (row := model_catalog.row(entry_.facts, V0_12)[0]) is not None
    ]
    assert illegal_pairs(rows, catalog) == ILLEGAL_PAIRS
    assert len(ILLEGAL_PAIRS) == 26


# On the page


def test_the_view_names_the_instance_types_that_vllm_would_refuse(catalog: Catalog) -> None:
    found = catalog.entry("phi-4")
    assert found is not None
    illegal = kaito.view(found, catalog.shared).illegal
    assert "Standard_ND96asr_A100_v4" in [start.name for start in illegal]


def test_the_view_says_what_the_proposal_sets_beside_it() -> None:
    claims = proposal(runtimes=[{"name": "vllm", "config": {"tool_call_parser": "hermes"}}])
    value = kaito.to_json(kaito.view(entry(claims, facts()), shared()))
    (option,) = [o for o in value["options"] if o["option"] == "tool-call-parser"]
    assert (option["value"], option["declared"]) == ("llama3_json", "hermes")


@pytest.mark.parametrize(
    ("claims", "recorded", "reason"),
    [
        (small_proposal(), None, "no recorded facts"),
        (small_proposal(runtimes=[{"name": "transformers"}]), small_facts(), "serves with transformers"),
        (small_proposal(), small_facts(license=None), "the facts lack license"),
    ],
)
def test_the_view_says_why_nothing_is_known(claims: Any, recorded: Any, reason: str) -> None:
    assert reason in kaito.to_json(kaito.view(entry(claims, recorded), shared()))["unknown"]


def test_facts_of_a_row_are_enough_for_the_choices() -> None:
    row, _ = model_catalog.row(ModelFacts.model_validate(facts()), V0_12)
    assert row is not None
    assert "llama3_json" in {choice.value for choice in release.choices(row, V0_12)}


def test_the_data_file_says_where_it_was_read() -> None:
    path = Path(release.__file__).parents[1] / "data" / "kaito-v0.12.yaml"
    assert all("056b8280b1a8" in source for source in yaml.safe_load(path.read_text())["source"].values())


# Which release


def test_every_release_names_the_source_of_each_part() -> None:
    data = Path(release.__file__).parents[1] / "data"
    for name in release.known_releases():
        value = yaml.safe_load((data / f"kaito-{name}.yaml").read_text())
        assert value["release"] == name
        assert value["source"].keys() == {
            "baseImage", "maps", "fixedOptions", "legacyPresets", "reservedLabels", "estimator", "launch", "clouds",
            "migProfiles", "image",
        }  # fmt: skip
        assert all(re.search(r"kaito-project/kaito@[0-9a-f]{12} ", text) for text in value["source"].values())


def test_every_profile_of_the_policy_stands_for_a_recorded_release(catalog: Catalog) -> None:
    found = {p.name: release.release_of(p).name for p in catalog.shared.policy.profiles}
    assert found == {"kaito-v0.12": "v0.12", "kaito-main-0a69b1b": "main-0a69b1b", "vllm-0.32": "v0.12"}


def test_a_kaito_profile_has_the_image_of_its_release(catalog: Catalog) -> None:
    for name in ("kaito-v0.12", "kaito-main-0a69b1b"):
        profile = catalog.shared.profile(name)
        assert objects.base_image(profile) == release.release_of(profile).base_image


def test_the_image_of_another_vllm_is_not_that_of_the_release(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=r"the base image of vllm-0\.32 is not recorded"):
        objects.base_image(catalog.shared.profile("vllm-0.32"))


def test_a_release_that_is_not_recorded_is_named_with_those_that_are(catalog: Catalog) -> None:
    profile = catalog.shared.profile().model_copy(update={"kaito_release": "../v9"})
    with pytest.raises(CatalogError, match=r"KAITO release '\.\./v9' is not recorded") as refused:
        release.release_of(profile)
    assert refused.value.hint == "kaitoRelease of a profile in policy.yaml is one of main-0a69b1b, v0.12"


def test_main_differs_from_v0_12_in_how_it_sizes_and_in_nothing_else() -> None:
    assert replace(MAIN, name=V0_12.name, sizing=V0_12.sizing, lists_mamba_states=False) == V0_12
    assert MAIN.lists_mamba_states


# kaito-project/kaito@0a69b1b31c82, pkg/workspace/estimator/nodesestimator/estimator_test.go: the model, its size in
# model_catalog.yaml of then, the instance type, and the nodes that the test expects.
NODES_OF_MAIN = [
    ("gpt-oss-120b", 121.54, "Standard_NC24ads_A100_v4", 2),
    ("gpt-oss-120b", 121.54, "Standard_NC48ads_A100_v4", 1),
    ("deepseek-v4-flash-0731", 155.43, "Standard_NC24ads_A100_v4", 3),
    ("deepseek-v4-flash-0731", 155.43, "Standard_NC48ads_A100_v4", 2),
    ("qwen3.8-27b", 51.75, "Standard_NC24ads_A100_v4", 1),
    ("gemma-4-31b-it", 58.25, "Standard_NC24ads_A100_v4", 1),
    ("gpt-oss-120b", 121.54, "Standard_NC40ads_H100_v5", 2),
    ("gpt-oss-120b", 121.54, "Standard_NC80adis_H100_v5", 1),
    ("deepseek-v4-flash-0731", 155.43, "Standard_NC40ads_H100_v5", 2),
    ("deepseek-v4-flash-0731", 155.43, "Standard_NC80adis_H100_v5", 1),
    ("qwen3.8-27b", 51.75, "Standard_NC40ads_H100_v5", 1),
    ("gemma-4-31b-it", 58.25, "Standard_NC40ads_H100_v5", 1),
    ("gpt-oss-20b", 25.63, "Standard_NV36ads_A10_v5", 2),
    ("gpt-oss-20b", 25.63, "Standard_NV72ads_A10_v5", 1),
    ("gemma-4-12b-it", 22.28, "Standard_NV36ads_A10_v5", 2),
    ("gemma-4-12b-it", 22.28, "Standard_NV72ads_A10_v5", 1),
    ("granite-4.1-8b", 16.38, "Standard_NV36ads_A10_v5", 1),
    ("nvidia-nemotron-nano-9b-v2", 16.56, "Standard_NV36ads_A10_v5", 2),
    ("nvidia-nemotron-nano-9b-v2", 16.56, "Standard_NV72ads_A10_v5", 1),
    ("qwen3.5-9b", 17.98, "Standard_NV36ads_A10_v5", 2),
    ("qwen3.6-35b-a3b-fp8", 34.90, "Standard_NV36ads_A10_v5", 3),
    ("qwen3.6-35b-a3b-fp8", 34.90, "Standard_NV72ads_A10_v5", 2),
]


@pytest.mark.parametrize(("name", "size", "machine", "nodes"), NODES_OF_MAIN)
def test_main_starts_as_many_nodes_as_its_own_tests_say(
    name: str, size: float, machine: str, nodes: int, catalog: Catalog
) -> None:
    found, instance_type = catalog.entry(name), catalog.shared.instance_type(machine)
    assert found is not None
    assert found.facts is not None
    assert instance_type is not None
    row = model_catalog.row(found.facts, MAIN)[0]
    assert row is not None
    node = release.node_of(instance_type, catalog.shared.gpu_by_name[instance_type.gpu])
    assert release.parallelism({**row, "modelFileSize": f"{size}Gi"}, node, MAIN).nodes == nodes

"""KAITO's own files, written from our facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from generate_helpers import catalog, entry, facts, proposal, small_facts, small_proposal

from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.kaito import model_catalog
from kaito_catalog.kaito.release import recorded_release

ROOT = Path(__file__).resolve().parents[1]
V0_12, MAIN = recorded_release("v0.12"), recorded_release("main-0a69b1b")


def row(recorded: dict[str, Any]) -> dict[str, Any]:
    found, missing = model_catalog.row(ModelFacts.model_validate(recorded), V0_12)
    assert missing == ()
    assert found is not None
    return found


def missing(recorded: dict[str, Any]) -> tuple[str, ...]:
    found, lacking = model_catalog.row(ModelFacts.model_validate(recorded), V0_12)
    assert found is None
    return lacking


def test_an_entry_has_kaitos_fields_in_kaitos_order() -> None:
    assert list(row(facts()).items()) == [
        ("name", "meta-llama/Llama-3.3-70B-Instruct"),
        ("description", "https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct"),
        ("license", "llama3.3"),
        ("pipelineTag", "text-generation"),
        ("baseModel", ["meta-llama/Llama-3.1-70B"]),
        ("modelFileSize", "131.42Gi"),
        ("architectures", ["LlamaForCausalLM"]),
        ("modelTokenLimit", 131072),
        ("hiddenSize", 8192),
        ("numHiddenLayers", 80),
        ("numAttentionHeads", 64),
        ("numKeyValueHeads", 8),
    ]


def test_the_head_dimension_is_written_only_where_it_is_no_quotient() -> None:
    config = facts()["config"]
    assert "headDim" not in row(facts(config={**config, "head_dim": 128}))
    assert row(facts(config={**config, "head_dim": 64}))["headDim"] == 64


def test_figures_are_also_read_from_the_text_model() -> None:
    config = facts()["config"]
    nested = {
        "architectures": ["X"],
        "text_config": {k: v for k, v in config.items() if k != "architectures"},
    }
    assert row(facts(config=nested))["hiddenSize"] == 8192


def test_mistrals_own_format_sets_three_fields() -> None:
    written = row(facts(weights={"format": "mistral", "total": {"sizeBytes": 10**9}}))
    assert [written[k] for k in ("loadFormat", "configFormat", "tokenizerMode")] == ["mistral"] * 3


def test_a_license_named_other_is_called_by_its_name() -> None:
    assert row(facts(license={"id": "other", "name": "modified-mit"}))["license"] == "modified-mit"
    assert row(facts(license={"id": "other"}))["license"] == "other"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"quant_method": "awq", "bits": 4}, {"quantMethod": "awq", "quantBits": 4}),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            {"quantMethod": "pack-quantized"},
        ),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, {"quantMethod": "MIXED_PRECISION"}),
    ],
)
def test_quantization_is_named_as_kaito_names_it(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    written = row(facts(config={**facts()["config"], "quantization_config": settings}))
    assert {k: v for k, v in written.items() if k.startswith("quant")} == expected


def test_what_is_missing_is_named() -> None:
    recorded = facts(config={"architectures": ["X"], "hidden_size": 1})
    del recorded["weights"], recorded["license"]
    assert missing(recorded) == (
        "license",
        "weights.total",
        "config.max_position_embeddings",
        "config.num_hidden_layers",
        "config.num_attention_heads",
        "config.num_key_value_heads",
    )


@pytest.mark.parametrize("value", [0, 0.5, -1, True, "64", None, [64], 1e300, 10**400, 2**24 + 1])
def test_a_figure_that_is_no_count_is_missing(value: Any) -> None:
    config = {**facts()["config"], "num_attention_heads": value}
    assert missing(facts(config=config)) == ("config.num_attention_heads",)


def test_a_context_may_be_longer_than_any_other_dimension_and_is_no_less_bounded() -> None:
    config = facts()["config"]
    assert row(facts(config={**config, "max_position_embeddings": 10**8}))["modelTokenLimit"] == 10**8
    absurd = facts(config={**config, "max_position_embeddings": 1e300})
    assert missing(absurd) == ("config.max_position_embeddings",)


@pytest.mark.parametrize("value", ["LlamaForCausalLM", [], [1], None])
def test_architectures_are_a_list_of_names(value: Any) -> None:
    assert missing(facts(config={**facts()["config"], "architectures": value})) == ("config.architectures",)


def test_a_model_without_facts_is_left_out_with_the_reason() -> None:
    rows, left_out = model_catalog.rows(catalog(entry(small_proposal()), entry(proposal(), facts())), V0_12)
    assert [r["name"] for r in rows] == ["meta-llama/Llama-3.3-70B-Instruct"]
    assert left_out == (model_catalog.LeftOut("phi-4", "model_catalog.yaml", "there is no facts.yaml"),)


def test_a_withdrawn_proposal_is_left_out() -> None:
    claims = small_proposal()
    claims["metadata"] = {**claims["metadata"], "status": "withdrawn"}
    rows, left_out = model_catalog.rows(catalog(entry(claims, small_facts())), V0_12)
    assert (rows, left_out[0].reason) == ((), "the proposal is withdrawn")


def test_small_numbers_come_before_large_ones() -> None:
    names = ["Phi-3-mini-128k", "phi-4", "Phi-3-mini-4k", "gemma-3-27b", "gemma-3-4b"]
    assert sorted(names, key=model_catalog.natural) == [
        "gemma-3-4b",
        "gemma-3-27b",
        "Phi-3-mini-4k",
        "Phi-3-mini-128k",
        "phi-4",
    ]


def test_the_docs_table_names_the_license_in_words() -> None:
    assert model_catalog.write_presets([row(facts())]).splitlines()[-1] == (
        "| meta-llama/Llama-3.3-70B-Instruct | https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct "
        "| Llama 3.3 |"
    )


def test_a_license_of_any_name_stays_inside_its_cell() -> None:
    strange = row(facts(license={"id": "a | [b](javascript:c)\n<d>"}))
    written = model_catalog.write_presets([strange]).splitlines()[-1]
    assert written.endswith(r"| a \| \[b\]\(javascript\:c\) \<d\> |")


def test_the_file_reads_back_as_it_was() -> None:
    text = model_catalog.write_catalog([row(facts())])
    assert model_catalog.read(text, path="x") == {"meta-llama/Llama-3.3-70B-Instruct": row(facts())}


@pytest.mark.parametrize("text", ["a: [", "[]", "models: 3", "models: [{license: mit}]"])
def test_a_file_that_is_no_model_catalog_is_an_error(text: str) -> None:
    with pytest.raises(CatalogError):
        model_catalog.read(text, path="x")


def test_a_difference_is_found_field_by_field() -> None:
    mine = row(facts())
    theirs = {mine["name"]: {**mine, "hiddenSize": 1, "headDim": 2}}
    assert model_catalog.compare([mine], theirs) == (
        model_catalog.Difference(mine["name"], "hiddenSize", 8192, 1),
        model_catalog.Difference(mine["name"], "headDim", None, 2),
    )


# States of Mamba layers

NEMOTRON = {
    "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
}
# A window of (128 × 80 + 2 × 8 × 128) × 3 in 2 bytes, a state of 128 × 80 × 128 in 4.
ONE_LAYER = 12_288 * 3 * 2 + 10_240 * 128 * 4


def test_the_states_of_nemotron_nano_are_those_of_its_27_mamba_layers() -> None:
    assert NEMOTRON["hybrid_override_pattern"].count("M") == 27  # type: ignore[attr-defined]
    assert model_catalog.mamba_state_bytes(NEMOTRON) == 27 * ONE_LAYER


def test_layers_are_counted_by_their_names_where_there_is_no_pattern() -> None:
    named = {
        **NEMOTRON,
        "hybrid_override_pattern": None,
        "layers_block_type": ["mamba", "moe", "Mamba2", "attention"],
    }
    assert model_catalog.mamba_state_bytes(named) == 2 * ONE_LAYER


def test_states_are_read_in_the_language_model_too() -> None:
    assert model_catalog.mamba_state_bytes({"llm_config": NEMOTRON}) == 27 * ONE_LAYER


@pytest.mark.parametrize("lacking", [name for name in NEMOTRON if name != "n_groups"])
def test_without_one_of_its_dimensions_kaito_counts_no_states(lacking: str) -> None:
    assert model_catalog.mamba_state_bytes({k: v for k, v in NEMOTRON.items() if k != lacking}) == 0


def test_only_a_release_that_stores_the_states_lists_them() -> None:
    recorded = facts()
    found = ModelFacts.model_validate({**recorded, "config": {**recorded["config"], **NEMOTRON}})
    before, after = model_catalog.row(found, V0_12)[0], model_catalog.row(found, MAIN)[0]
    assert before is not None
    assert after == {**before, "mambaStateBytesPerSeq": 27 * ONE_LAYER}
    assert list(after)[-1] == "mambaStateBytesPerSeq"


def test_a_model_without_mamba_layers_has_the_same_entry_in_both() -> None:
    found = ModelFacts.model_validate(facts())
    assert model_catalog.row(found, MAIN) == model_catalog.row(found, V0_12)

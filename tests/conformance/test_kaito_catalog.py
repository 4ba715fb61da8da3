"""Our catalog beside KAITO's: the same models, dimensions, revisions, sizes and instance types, or a reason why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from generate_helpers import small_facts

from conformance.kaito_tree import KaitoTree, Published
from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.kaito import model_catalog
from kaito_catalog.kaito.release import recorded_release

V0_12 = recorded_release("v0.12")
HALF_OF_A_HUNDREDTH_GIB = 5_368_709

# Where our catalog differs from KAITO's on purpose: (model, field) and why.
EXPECTED: dict[tuple[str, str], str] = {
    (
        "openai/gpt-oss-20b",
        "modelFileSize",
    ): "KAITO counts the second copy of the weights in original/ and metal/",
    (
        "openai/gpt-oss-120b",
        "modelFileSize",
    ): "KAITO counts the second copy of the weights in original/ and metal/",
    ("moonshotai/Kimi-K2.6", "modelFileSize"): "KAITO read another commit",
}


def all_facts(catalog: Catalog) -> list[ModelFacts]:
    return [entry.facts for entry in catalog.entries if entry.facts is not None]


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves_of(below, f"{path}.{key}")
    else:
        yield path, json.dumps(value)


def test_the_entries_are_kaitos_models(tree: KaitoTree, catalog: Catalog) -> None:
    assert {facts.repo_id for facts in all_facts(catalog)} == {row["name"] for row in tree.rows}


def test_the_revision_is_the_one_kaito_supports(tree: KaitoTree, catalog: Catalog) -> None:
    ours = {facts.repo_id: facts.revision for facts in all_facts(catalog)}
    both = ours.keys() & tree.revisions.keys()
    assert len(both) >= 15
    assert {name: ours[name] for name in both} == {name: tree.revisions[name] for name in both}


def test_the_size_of_the_weights_is_kaitos_as_far_as_it_is_rounded(tree: KaitoTree, catalog: Catalog) -> None:
    theirs = {row["name"]: float(row["modelFileSize"].removesuffix("Gi")) * 2**30 for row in tree.rows}
    rounded = 0
    for facts in all_facts(catalog):
        assert facts.weights is not None
        assert facts.weights.total is not None
        if facts.weights.total.precision_bytes == HALF_OF_A_HUNDREDTH_GIB:
            assert facts.weights.total.size_bytes == round(theirs[facts.repo_id]), facts.repo_id
            rounded += 1
        elif (facts.repo_id, "modelFileSize") not in EXPECTED:
            off = abs(facts.weights.total.size_bytes - theirs[facts.repo_id])
            assert off <= HALF_OF_A_HUNDREDTH_GIB + (facts.weights.total.precision_bytes or 0), facts.repo_id
    assert rounded


def test_the_configuration_has_the_dimensions_of_kaitos_row(
    tree: KaitoTree, recorded: dict[str, dict[str, Any]]
) -> None:
    names = {
        "hiddenSize": "hidden_size",
        "numHiddenLayers": "num_hidden_layers",
        "numAttentionHeads": "num_attention_heads",
        "numKeyValueHeads": "num_key_value_heads",
        "headDim": "head_dim",
        "kvLoraRank": "kv_lora_rank",
        "qkRopeHeadDim": "qk_rope_head_dim",
        "modelTokenLimit": "max_position_embeddings",
    }
    for row in tree.rows:
        config = recorded[row["name"]]
        text = config.get("text_config") or config.get("llm_config") or config
        assert config["architectures"] == row["architectures"]
        assert {k: row[k] for k in names if k in row} == {k: text[v] for k, v in names.items() if k in row}


def test_the_instance_types_are_kaitos(tree: KaitoTree, catalog: Catalog) -> None:
    ours = [t for t in catalog.shared.instance_types if t.source.startswith("kaito-project/")]
    assert [(t.name, t.cloud, t.gpu_count, t.nvme) for t in ours] == [
        (sku.name, sku.cloud, sku.gpu_count, sku.nvme) for sku in tree.skus
    ]
    for sku, instance_type in zip(tree.skus, ours, strict=True):
        gpu = catalog.shared.gpu_by_name[instance_type.gpu]
        assert gpu.name.startswith(sku.gpu_model)
        assert gpu.nominal_memory.text == f"{sku.memory_gib / sku.gpu_count:g}GB"
        assert (gpu.compute_capability or 0) == sku.compute_capability


def test_kaitos_own_entries_are_written_byte_for_byte(tree: KaitoTree) -> None:
    assert model_catalog.write_catalog(tree.rows) == tree.text("model_catalog.yaml")


def test_our_entries_are_kaitos_but_for_differences_with_a_reason(tree: KaitoTree, catalog: Catalog) -> None:
    rows, _ = model_catalog.rows(catalog, V0_12)
    theirs = model_catalog.read(tree.text("model_catalog.yaml"), path="model_catalog.yaml")
    assert {(d.name, d.field) for d in model_catalog.compare(rows, theirs)} == EXPECTED.keys()


@pytest.mark.parametrize("name", ["model_catalog.yaml", "presets.md"])
def test_no_difference_from_kaitos_own_file_lacks_a_reason(
    name: str, tree: KaitoTree, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--catalog", str(catalog.root), "--compare", str(tree.path(name))]
    cli.main([*arguments, "--format", "json"])
    value = json.loads(capsys.readouterr().out)
    assert value["compared"] >= 25
    assert [d for d in value["differences"] if d["reason"] is None] == []


def test_dimensions_of_published_configurations_are_those_kaito_read(
    tree: KaitoTree, published: Published
) -> None:
    mine = []
    for row in tree.rows:
        if row["name"] not in published.files:
            continue
        size = int(float(str(row["modelFileSize"]).removesuffix("Gi")) * 2**30)
        facts: dict[str, Any] = {
            "repoId": row["name"],
            "license": {"id": row["license"]},
            "pipelineTag": row.get("pipelineTag", ""),
            "weights": {"format": row.get("loadFormat", "safetensors"), "total": {"sizeBytes": size}},
            "config": published.config(row["name"]),
        }
        if "baseModel" in row:
            facts["baseModels"] = row["baseModel"]
        found, lacking = model_catalog.row(ModelFacts.model_validate({**small_facts(), **facts}), V0_12)
        assert lacking == (), row["name"]
        assert found is not None
        mine.append(found)
    assert mine
    theirs = {row["name"]: row for row in tree.rows}
    different = {(d.name, d.field): (d.ours, d.theirs) for d in model_catalog.compare(mine, theirs)}
    assert (
        different.items()
        <= {
            # Only the side file hf_quant_config.json says so.
            ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4", "quantMethod"): (None, "MIXED_PRECISION"),
        }.items()
    )


def test_a_configuration_in_our_facts_is_verbatim(published: Published, catalog: Catalog) -> None:
    copied = {
        facts.repo_id: facts.config or {}
        for facts in all_facts(catalog)
        if "config" in {field for reference in facts.source.references or () for field in reference.fields}
    }
    both = copied.keys() & published.files.keys()
    assert both
    for repo_id in both:
        original = dict(leaves_of(published.config(repo_id))).items()
        assert dict(leaves_of(copied[repo_id])).items() <= original, repo_id

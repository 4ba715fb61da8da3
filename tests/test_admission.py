"""What KAITO's admission asks of manifests, the expansion of options, and max-num-seqs of hybrids."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from generate_helpers import entry, facts, proposal, shared

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import admission, manifests, model_catalog
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.plans import start
from kaito_catalog.site.figures import plan_figures
from kaito_catalog.vllm_bridge.reference import known

V0_25_1 = known("0.25.1")
V0_12 = recorded_release("v0.12")


def objects() -> dict[str, Any]:
    built = manifests.build(Proposal.model_validate(proposal()), ModelFacts.model_validate(facts()))
    return {name: yaml.safe_load(text) for name, text in built.files.items()}


def refused(found: dict[str, Any], **more: Any) -> tuple[str, ...]:
    return admission.refusals(list(found.values()), kaito=V0_12, vllm=V0_25_1, **more)


def with_options(**options: Any) -> dict[str, Any]:
    found = objects()
    found["inference-config.yaml"]["data"]["inference_config.yaml"] = yaml.safe_dump(
        {"vllm": {name.replace("_", "-"): value for name, value in options.items()}}
    )
    return found


def test_every_entry_of_the_catalog_is_admitted(catalog: Catalog) -> None:
    profile = catalog.shared.policy.default_profile()
    for found in catalog.entries:
        assert found.proposal is not None
        count = start.max_num_seqs(found.proposal, found.facts, catalog.shared, profile)
        built = manifests.build(found.proposal, found.facts, max_num_seqs=count)
        assert built.left_out is None, found.name
        row = model_catalog.row(found.facts, V0_12)[0] if found.facts else None
        reasons = admission.refusals(
            [yaml.safe_load(text) for text in built.files.values()],
            kaito=V0_12,
            model_token_limit=row["modelTokenLimit"] if row else None,
            gated=bool(found.facts and found.facts.gated not in (None, "no")),
            vllm=known(profile.vllm_version),
        )
        assert reasons == (), found.name


def test_what_is_generated_is_admitted() -> None:
    assert refused(objects(), model_token_limit=131072, gated=True, node_auto_provisioning=True) == ()


@pytest.mark.parametrize("name", ["llama", "a/b/c", "../x", "a/ b"])
def test_a_preset_that_kaito_cannot_resolve_is_refused(name: str) -> None:
    found = objects()
    found["workspace.yaml"]["inference"]["preset"]["name"] = name
    assert any("preset.name" in reason for reason in refused(found))


def test_an_old_preset_name_still_resolves() -> None:
    found = objects()
    found["workspace.yaml"]["inference"]["preset"]["name"] = "phi-4"
    assert refused(found) == ()


def test_a_gated_model_without_a_secret_is_refused() -> None:
    found = objects()
    del found["workspace.yaml"]["inference"]["preset"]["presetOptions"]
    assert any("modelAccessSecret" in reason for reason in refused(found, gated=True))
    assert refused(found) == ()


def test_a_secret_with_another_key_is_refused() -> None:
    found = objects()
    found["secret.example.yaml"]["stringData"] = {"TOKEN": "x"}
    assert any("has no key HF_TOKEN" in reason for reason in refused(found))


def test_a_configuration_that_is_not_there_is_refused() -> None:
    found = objects()
    del found["inference-config.yaml"]
    assert any("there is no ConfigMap" in reason for reason in refused(found))


def test_an_instance_type_is_asked_for_where_kaito_makes_the_nodes() -> None:
    found = objects()
    del found["workspace.yaml"]["resource"]["instanceType"]
    assert refused(found) == ()
    assert any("resource.instanceType" in r for r in refused(found, node_auto_provisioning=True))


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ({"matchLabels": {"kaito.sh/workspace": "x"}}, "KAITO's own"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "not a single value"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}, "not a single value"),
    ],
)
def test_a_selector_that_kaito_cannot_use_is_refused(selector: dict[str, Any], reason: str) -> None:
    found = objects()
    found["workspace.yaml"]["resource"]["labelSelector"] = selector
    assert any(reason in said for said in refused(found))


def test_a_context_beyond_the_models_limit_is_refused() -> None:
    assert any("more than the model's limit" in r for r in refused(objects(), model_token_limit=8192))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"swap_space": 4}, "has no option swap-space"),
        ({"trust_remote_code": False}, "trust-remote-code"),
        ({"enforce_eager": "yes"}, "enforce-eager is a switch"),
        ({"dtype": "fp32x"}, "dtype is one of"),
        ({"max_num_seqs": ""}, "max-num-seqs wants a value"),
        ({"max_num_seqs": 0}, "max-num-seqs is at least 1"),
        ({"max_num_seqs": "many"}, "max-num-seqs is a whole number"),
        ({"gpu_memory_utilization": 1.4}, "gpu-memory-utilization is above 0 and at most 1"),
        ({"speculative_config": {"a": 1}}, "speculative-config holds a mapping"),
    ],
)
def test_options_that_do_not_survive_the_expansion_are_refused(options: dict[str, Any], reason: str) -> None:
    assert any(reason in said for said in refused(with_options(**options)))


def test_the_expansion_is_pairs_of_words() -> None:
    assert admission.expand({"max-model-len": 8, "a": ""}) == ("--max-model-len", "8", "--a", "")


def test_what_the_crd_refuses_never_reaches_the_webhook() -> None:
    found = copy.deepcopy(objects())
    found["workspace.yaml"]["spec"] = {}
    assert refused(found) == ("Workspace llama-3-3-70b-instruct: spec: unknown field",)


@pytest.mark.parametrize("manifest", [None, [], {"kind": "Pod"}, {"kind": "Workspace", "metadata": 3}])
def test_what_is_no_manifest_is_refused(manifest: Any) -> None:
    assert admission.refusals([manifest], kaito=V0_12)


# max-num-seqs

HYBRID = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "torch_dtype": "bfloat16",
    "hidden_size": 4480,
    "intermediate_size": 15680,
    "num_hidden_layers": 56,
    "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "expand": 2,
    "vocab_size": 131072,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}


def hybrid(**config: Any) -> tuple[Proposal, ModelFacts]:
    claims = proposal(
        runtimes=[{"name": "vllm", "config": {"max-model-len": 8192, **config}}],
        deployment={"instanceType": "Standard_NV36ads_A10_v5"},
    )
    weights = {"format": "safetensors", "total": {"sizeBytes": 17_800_000_000}}
    found = entry(claims, facts(config=HYBRID, weights=weights, repoId="nvidia/Example-Hybrid"))
    assert found.proposal is not None
    assert found.facts is not None
    return found.proposal, found.facts


def test_a_dense_model_needs_no_max_num_seqs() -> None:
    files = shared()
    found = entry(proposal(), facts())
    assert found.proposal is not None
    assert start.max_num_seqs(found.proposal, found.facts, files, files.policy.default_profile()) is None


def on_an_a100(utilization: float) -> tuple[Proposal, ModelFacts]:
    claims, recorded = hybrid(**{"gpu-memory-utilization": utilization})
    deployment = {"instanceType": "Standard_NC24ads_A100_v4"}
    value = {**claims.model_dump(by_alias=True, exclude_none=True), "deployment": deployment}
    return Proposal.model_validate(value), recorded


@pytest.mark.parametrize(
    ("utilization", "expected"),
    [
        pytest.param(0.25, 64, id="few blocks"),
        pytest.param(0.27, 128, id="more blocks"),
        pytest.param(0.5, None, id="enough for the default"),
        pytest.param(0.2, None, id="no room for the weights"),
    ],
)
def test_a_hybrid_gets_as_many_requests_as_the_cache_has_blocks(
    catalog: Catalog, utilization: float, expected: int | None
) -> None:
    claims, recorded = on_an_a100(utilization)
    profile = catalog.shared.policy.default_profile()
    assert start.max_num_seqs(claims, recorded, catalog.shared, profile) == expected


def test_a_count_that_a_hybrid_needs_is_written_unless_the_proposal_sets_one() -> None:
    def options(claims: Proposal, recorded: ModelFacts) -> Any:
        built = manifests.build(claims, recorded, max_num_seqs=64)
        config = yaml.safe_load(built.files["inference-config.yaml"])["data"]["inference_config.yaml"]
        return yaml.safe_load(config)["vllm"]["max-num-seqs"]

    assert options(*hybrid()) == 64
    assert options(*hybrid(**{"max-num-seqs": 16})) == 16


def test_a_plan_of_the_catalog_counts_the_requests_that_the_manifests_set(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "catalog", tmp_path / "catalog", ignore=shutil.ignore_patterns("models"))
    name = "nvidia-nemotron-nano-9b-v2"
    shutil.copytree(root / "catalog" / "models" / name, tmp_path / "catalog" / "models" / name)
    path = tmp_path / "catalog" / "models" / name / "proposal.yaml"
    text = path.read_text().replace(
        "    max-model-len:", "    gpu-memory-utilization: 0.26\n    max-model-len:"
    )
    path.write_text(text)
    small = read_catalog(tmp_path / "catalog")
    found = small.entries[0]
    assert found.proposal is not None
    expected = start.max_num_seqs(
        found.proposal, found.facts, small.shared, small.shared.policy.default_profile()
    )
    assert expected is not None
    asked = [
        "plan",
        name,
        "--catalog",
        str(tmp_path / "catalog"),
        "--instance-type",
        "Standard_NC24ads_A100_v4",
    ]
    assert cli.main(asked) == 0
    shown = capsys.readouterr().out
    assert f"set by the manifests, as the states of a hybrid need: max-num-seqs {expected}" in shown
    assert cli.main([*asked, "--max-num-seqs", "8"]) == 0
    shown = capsys.readouterr().out
    assert "max_num_seqs 8\n" in shown
    assert "set by the manifests" not in shown
    assert f"max-num-seqs {expected}" in plan_figures(found, small.shared).options

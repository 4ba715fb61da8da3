"""Adapters, slices of a GPU, node counts and performance modes: in a proposal, its manifests and its Markdown."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from generate_helpers import entry, facts, proposal
from markdown_helpers import SAMPLE, assert_same, read, value_of

from kaito_catalog.formats.proposal import Deployment, Proposal
from kaito_catalog.kaito import admission, deployed, manifests
from kaito_catalog.kaito.markdown.writer import write_proposal
from kaito_catalog.kaito.release import recorded_release

KAITO = recorded_release("v0.12")
IMAGE = "example.azurecr.io/adapter:1"


def objects(runtime: str = "vllm", **deployment: Any) -> dict[str, Any]:
    claims = proposal(deployment=deployment, runtimes=[{"name": runtime}])
    made = entry(claims, facts())
    assert made.proposal is not None
    built = manifests.build(made.proposal, made.facts)
    assert built.left_out is None
    found = {name: yaml.safe_load(text) for name, text in built.files.items()}
    assert admission.refusals(list(found.values()), kaito=KAITO) == ()
    return found


def left_out(**deployment: Any) -> str | None:
    made = entry(proposal(deployment=deployment), facts())
    assert made.proposal is not None
    return manifests.build(made.proposal, made.facts).left_out


def test_adapters_stand_beside_the_preset_of_both_objects() -> None:
    found = objects(adapters=[{"name": "one", "image": IMAGE}, {"name": "two", "image": IMAGE}])
    wanted = [{"source": {"name": "one", "image": IMAGE}}, {"source": {"name": "two", "image": IMAGE}}]
    assert found["workspace.yaml"]["inference"]["adapters"] == wanted
    assert found["inferenceset.yaml"]["spec"]["template"]["inference"]["adapters"] == wanted


def test_the_strength_of_an_adapter_is_a_text_and_for_transformers_alone() -> None:
    found = objects("transformers", adapters=[{"name": "one", "image": IMAGE, "strength": 0.5}])
    assert found["workspace.yaml"]["inference"]["adapters"][0]["strength"] == "0.5"


@pytest.mark.parametrize(
    ("adapters", "reason"),
    [
        ([{"name": "one", "repoId": "org/one"}], "has no image"),
        ([{"name": "one", "image": IMAGE, "strength": 1}], "KAITO refuses a strength with vLLM"),
        ([{"name": "One", "image": IMAGE}], "cannot be the name of an adapter"),
        ([{"name": "one", "image": IMAGE}] * 2, "a second adapter is named 'one'"),
        ([{"name": f"a{n}", "image": IMAGE} for n in range(11)], "KAITO takes 10 at most"),
    ],
)
def test_adapters_that_kaito_would_refuse_are_a_reason_to_write_nothing(
    adapters: list[dict[str, Any]], reason: str
) -> None:
    assert reason in (left_out(adapters=adapters) or "")


def test_a_slice_is_served_on_nodes_that_are_brought_along() -> None:
    found = objects(instanceType="Standard_NC24ads_A100_v4", partition={"mode": "mig", "profile": "3g.40gb"})
    wanted = {"partition": {"mode": "mig", "profile": "3g.40gb"}}
    resource = found["workspace.yaml"]["resource"]
    assert {key: resource[key] for key in resource if key != "labelSelector"} == wanted
    assert found["inferenceset.yaml"]["spec"]["template"]["resource"] == wanted


def test_admission_refuses_a_slice_beside_an_instance_type_and_a_profile_that_kaito_has_not() -> None:
    workspace = objects(partition={"mode": "mig", "profile": "3g.40gb"})["workspace.yaml"]
    workspace["inference"].pop("config")
    workspace["resource"] |= {"instanceType": "x", "partition": {"mode": "mig", "profile": "3g.41gb"}}
    found = admission.refusals([workspace], kaito=KAITO)
    assert [text.partition(": ")[2] for text in found] == [
        "resource.partition: KAITO makes no nodes with slices, so instanceType has to be left out",
        "resource.partition.profile: '3g.41gb' is not a profile that KAITO knows",
    ]


@pytest.mark.parametrize(
    ("mode", "wanted"), [("balanced", None), ("throughput", {"kaito.sh/performance-mode": "throughput"})]
)
def test_a_performance_mode_is_an_annotation(mode: str, wanted: dict[str, str] | None) -> None:
    assert objects(performanceMode=mode)["workspace.yaml"]["metadata"].get("annotations") == wanted


def test_nodes_are_counted_in_the_workspace() -> None:
    found = objects(nodeCount=2, instanceType="Standard_ND96isr_H100_v5")
    assert found["workspace.yaml"]["resource"]["count"] == 2
    assert "count" not in found["inferenceset.yaml"]["spec"]["template"]["resource"]


def test_kaito_counts_the_gigabytes_of_a_profile_as_gib_on_one_device() -> None:
    node = deployed.slice_node("3g.40gb")
    assert node is not None
    assert (node.gpu_memory_bytes, node.gpu_count) == (40 * 2**30, 1)


@pytest.mark.parametrize("profile", ["1g.10gb+me", "0g.10gb", "3g", "", "10g.10gb", "3g.40gb\n"])
def test_what_is_no_profile_is_none(profile: str) -> None:
    assert deployed.slice_node(profile) is None


DEPLOYMENT: dict[str, Any] = {
    "instanceType": "Standard_NC24ads_A100_v4",
    "nodeCount": 2,
    "performanceMode": "interactivity",
    "configMap": "params",
    "adapters": [{"name": "one", "image": IMAGE, "strength": 0.5}, {"name": "two", "image": IMAGE}],
}


def test_markdown_keeps_it_in_the_sample_manifest() -> None:
    made = Proposal.model_validate({**value_of(SAMPLE), "deployment": DEPLOYMENT})
    text = write_proposal(made)
    assert "For kaito-catalog" not in text
    assert "kaito.sh/performance-mode: interactivity" in text
    assert_same(made)


def test_markdown_keeps_the_instance_type_of_a_slice_in_a_block_of_its_own() -> None:
    partition = {"mode": "mig", "profile": "3g.40gb"}
    made = Proposal.model_validate(
        {
            **value_of(SAMPLE),
            "deployment": {"instanceType": "Standard_NC24ads_A100_v4", "partition": partition},
        }
    )
    assert "kind: ModelProposalOverlay\ndeployment:\n  instanceType:" in write_proposal(made)
    assert_same(made)


def test_a_sample_with_faults_is_remarked_at_its_lines() -> None:
    text = SAMPLE.replace(
        "  config: params\n",
        "  config: params\n"
        "  adapters:\n"
        "    - source: {name: one, urls: [https://example.org/a]}\n"
        '      strength: "2"\n'
        "    - source: {image: x}\n",
    ).replace(
        "kind: Workspace\n", "kind: Workspace\nmetadata: {annotations: {kaito.sh/performance-mode: fast}}\n"
    )
    remarks = [d for d in read(text).diagnostics if d.code == "IMP009"]
    assert [(d.message, text.split("\n")[d.place.line - 1].strip()[:12]) for d in remarks] == [
        ("'fast' is not a performance mode", "metadata: {a"),
        ("KAITO does not take adapters from URLs", "- source: {n"),
        ("the strength 2 is not a text with a number from 0 to 1", 'strength: "2'),
        ("an adapter without source.name", "- source: {i"),
    ]
    assert value_of(text)["deployment"]["adapters"] == [{"name": "one"}]


def test_a_profile_is_of_one_form_in_a_proposal() -> None:
    with pytest.raises(ValueError, match="profile"):
        Deployment.model_validate({"partition": {"mode": "mig", "profile": "3g.40gb+me"}})

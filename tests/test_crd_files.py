"""Manifests against CRD files: schemas, unknown fields and CEL rules, and what `generate` and `check` do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from catalog_helpers import Run
from generate_helpers import entry, facts, proposal, small_facts, small_proposal

from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito import crd, manifests
from kaito_catalog.kaito.crd_files import read_crds
from kaito_catalog.kaito.mirrors import MODEL_MIRROR, MULTI_ROLE, further_objects, mirror_name

# Written for these tests: the kinds of a small shop of ours, with each form that a structural schema may have.
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "engines.example.org"},
    "spec": {
        "group": "kaito.sh",
        "names": {"kind": "MultiRoleInference"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["roles"],
                                "properties": {
                                    "port": {"x-kubernetes-int-or-string": True},
                                    "note": {"type": "string", "nullable": True},
                                    "free": {
                                        "type": "object",
                                        "x-kubernetes-preserve-unknown-fields": True,
                                        "properties": {"known": {"type": "integer"}},
                                    },
                                    "labels": {
                                        "type": "object",
                                        "additionalProperties": {
                                            "type": "string",
                                            "x-kubernetes-validations": [
                                                {"rule": "self.size() < 5", "message": "a label is short"}
                                            ],
                                        },
                                    },
                                    "roles": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {
                                                "type": {"type": "string", "enum": ["prefill", "decode"]},
                                                "replicas": {"type": "integer", "minimum": 1},
                                            },
                                        },
                                        "x-kubernetes-validations": [
                                            {
                                                "rule": "self.exists(r, r.type == 'prefill')",
                                                "message": "no prefill",
                                            },
                                            {"rule": "self == oldSelf", "message": "roles cannot change"},
                                        ],
                                    },
                                },
                            }
                        },
                    }
                },
            },
            {"name": "v1alpha0", "served": False, "schema": {"openAPIV3Schema": {"type": "object"}}},
        ],
    },
}
GOOD = {"roles": [{"type": "prefill", "replicas": 1}, {"type": "decode"}]}


@pytest.fixture
def crds(tmp_path: Path) -> Path:
    folder = tmp_path / "config/crd/bases"
    folder.mkdir(parents=True)
    (folder / "engines.yaml").write_text(yaml.safe_dump(CRD))
    (folder / "other.yaml").write_text("kind: ConfigMap\n")
    return tmp_path


def manifest(spec: Any, **changes: Any) -> dict[str, Any]:
    value = {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "MultiRoleInference",
        "metadata": {"name": "a"},
        "spec": spec,
    }
    return {**value, **changes}


@pytest.mark.parametrize(
    ("spec", "route", "message"),
    [
        (GOOD, None, ""),
        ({**GOOD, "port": "http"}, None, ""),
        ({**GOOD, "note": None, "free": {"other": [1]}}, None, ""),
        ({**GOOD, "port": [1]}, ("spec", "port"), "is not valid under any of the given schemas"),
        ({**GOOD, "free": {"known": "x"}}, ("spec", "free", "known"), "is not of type 'integer'"),
        ({**GOOD, "rolez": 1}, ("spec",), "'rolez' was unexpected"),
        ({}, ("spec",), "'roles' is a required property"),
        ({"roles": [{"type": "decode"}]}, ("spec", "roles"), "no prefill"),
        (
            {"roles": [{"type": "prefill", "replicas": 0}]},
            ("spec", "roles", 0, "replicas"),
            "less than the minimum",
        ),
        ({"roles": [{"replicas": 1}]}, ("spec", "roles"), "no prefill (the rule cannot be computed"),
        ({**GOOD, "labels": {"a": "short", "b": "x"}}, ("spec", "labels", "a"), "a label is short"),
    ],
)
def test_a_manifest_is_taken_or_refused_at_its_route(
    spec: dict[str, Any], route: tuple[str | int, ...] | None, message: str, crds: Path
) -> None:
    found = read_crds(crds).problems(manifest(spec))
    if route is None:
        assert found == ()
    else:
        assert found is not None
        assert [place for place, _ in found] == [route]
        assert message in found[0][1]


def test_a_version_that_is_not_served_is_named_and_another_kind_is_not_judged(crds: Path) -> None:
    found = read_crds(crds)
    assert found.kinds == ("MultiRoleInference",)
    assert found.problems(manifest(GOOD, apiVersion="kaito.sh/v1alpha0")) == (
        (("apiVersion",), "the CRD of MultiRoleInference has kaito.sh/v1alpha1, not kaito.sh/v1alpha0"),
    )
    assert found.problems({"apiVersion": "v1", "kind": "Secret"}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: CustomResourceDefinition\nspec: [", "cannot read"),
        ("kind: CustomResourceDefinition\nspec: {versions: [{}]}\n", "has not the form of one"),
        ("kind: Deployment\n", "no file of"),
    ],
)
def test_files_that_are_no_crds_are_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(CatalogError, match=message):
        read_crds(tmp_path)


def test_check_reports_what_a_crd_refuses_at_its_line(crds: Path, run: Run, root: Path) -> None:
    path = crds / "mine.yaml"
    path.write_text(yaml.safe_dump(manifest({"roles": [{"type": "decode"}]}), sort_keys=False))
    code, out, err = run("check", path, "--crds", crds, "--catalog", root / "catalog")
    assert code == 1
    assert f"{path}:6:3: error[KTO015] no prefill" in out
    assert "1 of 1 objects held against the CRDs of" in err
    path.write_text(yaml.safe_dump(manifest(GOOD)))
    assert run("check", path, "--crds", crds, "--catalog", root / "catalog")[0] == 0


def test_crds_without_a_manifest_are_a_mistake(crds: Path, run: Run, root: Path) -> None:
    code, _, err = run("check", "phi-4", "--crds", crds, "--catalog", root / "catalog")
    assert code == 2
    assert "--crds is about manifests" in err


@pytest.mark.models("phi-4", evidence=False)
def test_generate_writes_nothing_that_a_crd_refuses(crds: Path, here: Path, run: Run) -> None:
    code, _, err = run("generate", "--no-site", "--output", "made", "--crds", crds)
    assert code == 1, "our own MultiRoleInference has fields that this small CRD does not"
    assert "error: presets/phi-4/multiroleinference.yaml: spec: " in err
    assert "0 manifests taken and 1 refused" in err
    assert not (here / "made").exists()


# --- ModelMirror and MultiRoleInference


def objects(claims: dict[str, Any], recorded: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, str]]:
    made = entry(claims, recorded)
    assert made.proposal is not None
    files = manifests.build(made.proposal, made.facts).files
    further, left_out = further_objects(made.proposal, made.facts, files)
    return {name: (text, yaml.safe_load(text)) for name, text in further.items()}, left_out


def test_both_objects_pass_our_transcription_of_the_crds() -> None:
    made, left_out = objects(small_proposal(), small_facts())
    assert left_out == {}
    assert sorted(made) == [MODEL_MIRROR, MULTI_ROLE]
    for _, value in made.values():
        assert crd.problems(value) == ()


def test_a_mirror_says_that_it_cannot_carry_the_pin_and_has_the_name_that_kaito_looks_for() -> None:
    text, value = objects(proposal(), facts())[0][MODEL_MIRROR]
    assert "# A ModelMirror has no field for a revision" in text
    assert proposal()["requirements"]["version"] in text
    assert value["metadata"]["name"] == mirror_name("meta-llama/Llama-3.3-70B-Instruct")
    assert value["spec"]["source"]["accessSecret"] == {"name": "hf-token"}
    assert mirror_name("microsoft/phi-4") == "7aceaf"


def test_both_roles_use_the_pinned_configuration() -> None:
    _, value = objects(proposal(), facts())[0][MULTI_ROLE]
    config = manifests.config_map_name(entry(proposal(), facts()).proposal)  # type: ignore[arg-type]
    assert [role["type"] for role in value["spec"]["roles"]] == ["prefill", "decode"]
    assert {role["runtimeConfig"] for role in value["spec"]["roles"]} == {config}
    assert value["spec"]["model"]["modelAccessSecret"] == "hf-token"


@pytest.mark.parametrize(
    ("claims", "recorded", "file", "why"),
    [
        (small_proposal(), None, MODEL_MIRROR, "how large its files are is not recorded"),
        (
            small_proposal(runtimes=[{"name": "transformers"}]),
            small_facts(),
            MULTI_ROLE,
            "prefill and decode are roles of vLLM",
        ),
        (
            small_proposal(deployment={"nodeCount": 2}),
            small_facts(),
            MULTI_ROLE,
            "no field for several nodes",
        ),
        (
            small_proposal(deployment={"adapters": [{"name": "sql", "image": "registry.example.org/sql:1"}]}),
            small_facts(),
            MULTI_ROLE,
            "no field for adapters",
        ),
    ],
    ids=["no size", "transformers", "nodes", "adapters"],
)
def test_an_object_is_left_out_with_its_reason(
    claims: dict[str, Any], recorded: dict[str, Any] | None, file: str, why: str
) -> None:
    made, left_out = objects(claims, recorded)
    assert file not in made
    assert why in left_out[file]


@pytest.mark.parametrize(
    ("file", "route", "value", "why"),
    [
        (MODEL_MIRROR, ("spec", "source", "revision"), "main", "unknown field"),
        (MODEL_MIRROR, ("spec", "storage", "storageClassName"), None, "storageClassName"),
        (MODEL_MIRROR, ("spec", "mode"), "Static", "a Static mirror has none"),
        (MULTI_ROLE, ("spec", "roles", 1, "type"), "prefill", "exactly one prefill and one decode"),
        (MULTI_ROLE, ("spec", "labelSelector"), {}, "labelSelector"),
    ],
)
def test_our_transcription_refuses_what_kaito_refuses(
    file: str, route: tuple[str | int, ...], value: Any, why: str
) -> None:
    _, made = objects(small_proposal(), small_facts())[0][file]
    part = made
    for key in route[:-1]:
        part = part[key]
    part[route[-1]] = value
    assert any(why in problem for problem in crd.problems(made))

"""KAITO's own CRDs beside our transcription: the same fields, and the same manifests taken and refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import yaml
from catalog_helpers import CATALOG
from generate_helpers import facts, proposal, small_proposal
from test_manifests import MISTAKES, parsed, with_mistake

from conformance.kaito_tree import KaitoTree
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.formats.base import Model
from kaito_catalog.generate import build_files
from kaito_catalog.kaito import crd
from kaito_catalog.kaito.crd_files import read_crds

FILES = {
    "Workspace": "kaito.sh_workspaces.yaml",
    "InferenceSet": "kaito.sh_inferencesets.yaml",
    "ModelMirror": "kaito.sh_modelmirrors.yaml",
    "MultiRoleInference": "kaito.sh_multiroleinferences.yaml",
}


def strict_schema(tree: KaitoTree, kind: str, version: str = "v1beta1") -> dict[str, Any]:
    definition = yaml.safe_load((tree.path("crds") / FILES[kind]).read_text(encoding="utf-8"))
    versions = {v["name"]: v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"]}
    schema = versions[version]
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    refused = refuse_unknown(schema)
    assert isinstance(refused, dict)
    return refused


def refuse_unknown(node: Any) -> Any:
    if isinstance(node, list):
        return [refuse_unknown(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {
        key: {name: refuse_unknown(part) for name, part in value.items()}
        if key == "properties"
        else refuse_unknown(value)
        for key, value in node.items()
    }
    if "properties" in result and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def accepts(tree: KaitoTree, manifest: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(strict_schema(tree, manifest["kind"]))
    return bool(validator.is_valid(manifest))


@pytest.mark.parametrize("file", ["workspace.yaml", "inferenceset.yaml"])
@pytest.mark.parametrize(
    "claims", [proposal(), small_proposal(), small_proposal(runtimes=[{"name": "transformers"}])]
)
def test_kaitos_crds_accept_what_is_generated(tree: KaitoTree, claims: dict[str, Any], file: str) -> None:
    assert accepts(tree, parsed(claims)[file])


def test_both_samples_of_kaitos_gemma_proposals_are_refused_by_the_crd_and_by_us(tree: KaitoTree) -> None:
    found = 0
    for path in tree.proposals:
        if "gemma-3" not in path.name:
            continue
        sample = path.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
        manifest = yaml.safe_load(sample)
        assert not accepts(tree, manifest)
        assert crd.problems(manifest)
        found += 1
    assert found == 2


def same_fields(model: type[Model], schema: dict[str, Any], route: str) -> Iterator[str]:
    """Where our transcription and the CRD name different fields, or demand different ones."""
    ours = {field.alias or name: field for name, field in model.model_fields.items()}
    theirs = {
        k: v for k, v in schema["properties"].items() if k not in ("apiVersion", "kind", "metadata", "status")
    }
    yield from (f"{route}.{name}: only there" for name in theirs.keys() - ours.keys())
    yield from (
        f"{route}.{name}: only here"
        for name in ours.keys() - theirs.keys() - {"apiVersion", "kind", "metadata"}
    )
    for name, part in theirs.items():
        if name not in ours:
            continue
        if ours[name].is_required() != (name in schema.get("required", [])) and (route, name) != (
            "Workspace",
            "resource",
        ):
            yield f"{route}.{name}: required in one only"
        nested = nested_model(ours[name].annotation)
        shape = part.get("items", part)
        if nested is not None and "properties" in shape:
            yield from same_fields(nested, shape, f"{route}.{name}")


def nested_model(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = nested_model(part)
        if found:
            return found
    return None


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (crd.Workspace, "v1beta1"),
        (crd.InferenceSet, "v1beta1"),
        (crd.ModelMirror, "v1alpha1"),
        (crd.MultiRoleInference, "v1alpha1"),
    ],
)
def test_the_transcription_has_the_fields_of_the_crd(
    tree: KaitoTree, model: type[Model], version: str
) -> None:
    need_file(tree, model.__name__)
    assert list(same_fields(model, strict_schema(tree, model.__name__, version), model.__name__)) == []


def need_file(tree: KaitoTree, kind: str) -> None:
    if not (tree.path("crds") / FILES[kind]).is_file():
        pytest.skip(f"the CRD of {kind} is in a checkout of its repository only")


def test_manifests_that_the_catalog_generates_are_taken_with_their_rules(tree: KaitoTree) -> None:
    crds = read_crds(tree.path("crds"))
    catalog = read_catalog(CATALOG)
    few = replace(catalog, entries=catalog.entries[::8])
    made = {
        name: crds.problems(yaml.safe_load(text))
        for name, text in build_files(few).items()
        if name.startswith("presets/")
    }
    judged = {name: problems for name, problems in made.items() if problems is not None}
    assert {name: problems for name, problems in judged.items() if problems} == {}
    assert len(judged) >= 2 * len(few.entries)


@pytest.mark.parametrize(("route", "value"), MISTAKES)
def test_the_crd_and_we_refuse_the_same_mistakes(tree: KaitoTree, route: tuple[str, ...], value: Any) -> None:
    good = parsed(proposal(), facts())["workspace.yaml"]
    assert accepts(tree, good)
    bad = with_mistake(good, route, value)
    assert not accepts(tree, bad)
    assert crd.problems(bad)

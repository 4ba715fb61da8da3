"""A pinned model as a CycloneDX bill of materials and as ModelPack's manifest: right values, or a reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.exports.bill_of_materials import BOM, bill_of_materials
from kaito_catalog.exports.model_pack import CONFIG, MANIFEST, model_pack
from kaito_catalog.exports.wanting import CannotBeMadeError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.fake.files import json_file, lfs_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REF = f"pkg:huggingface/example-org/Example-7B@{COMMIT}"


def digest(letter: str) -> str:
    return letter * 64


FILES = [
    {"path": ".gitattributes", "sizeBytes": 10, "sha256": digest("0")},
    {"path": "LICENSE", "sizeBytes": 11, "sha256": digest("1")},
    {"path": "README.md", "sizeBytes": 12, "sha256": digest("2")},
    {"path": "config.json", "sizeBytes": 13, "sha256": digest("3")},
    {"path": "model.safetensors", "sizeBytes": 14_000, "sha256": digest("4")},
    {"path": "modeling_example.py", "sizeBytes": 15, "sha256": digest("5")},
    {"path": "original/consolidated.00.pth", "sizeBytes": 16_000, "sha256": digest("6")},
    {"path": "original/params.json", "sizeBytes": 17, "sha256": digest("7")},
    {"path": "pytorch_model.bin", "sizeBytes": 18_000, "sha256": digest("8")},
    {"path": "tokenizer.json", "sizeBytes": 19, "sha256": digest("9")},
]


def facts(**changes: Any) -> ModelFacts:
    value = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelFacts",
        "repoId": "example-org/Example-7B",
        "revision": COMMIT,
        "recordedAt": "2026-01-05",
        "source": {"kind": "hub"},
        "license": {"id": "apache-2.0"},
        "pipelineTag": "text-generation",
        "baseModels": ["base-org/Base-7B"],
        "weights": {"format": "safetensors"},
        "safetensors": {"parametersByDtype": {"BF16": 7_240_000_000}},
        "files": FILES,
        "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"},
        **changes,
    }
    return ModelFacts.model_validate({key: part for key, part in value.items() if part is not None})


def bom(shared: Shared, **changes: Any) -> dict[str, Any]:
    text = bill_of_materials(facts(**changes), shared.policy.licenses)[BOM]
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    value: dict[str, Any] = json.loads(text)
    return value


def pack(shared: Shared, **changes: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    made = model_pack(facts(**changes), shared.policy.licenses)
    return json.loads(made[MANIFEST]), json.loads(made[CONFIG]), made[CONFIG]


# --- CycloneDX


def test_a_bill_of_materials_is_valid_and_names_commit_licence_and_files(shared_files: Shared) -> None:
    value = bom(shared_files)
    component = value["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["purl"] == component["bom-ref"] == REF
    assert component["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]
    assert component["modelCard"]["modelParameters"] == {
        "task": "text-generation",
        "architectureFamily": "llama",
        "modelArchitecture": "LlamaForCausalLM",
    }
    assert component["pedigree"]["ancestors"][0]["name"] == "Base-7B"
    by_name = {file["name"]: file for file in value["components"]}
    assert len(by_name) == len(FILES)
    assert by_name["model.safetensors"]["hashes"] == [{"alg": "SHA-256", "content": digest("4")}]
    assert value["compositions"] == [{"aggregate": "complete", "assemblies": [REF]}]


@pytest.mark.parametrize(
    ("changes", "licenses"),
    [
        ({"license": {"id": "other", "name": "example-license"}}, [("name", "example-license")]),
        ({"license": {"id": "mit, gemma"}}, [("id", "MIT"), ("name", "gemma")]),
        ({"license": {"id": "llama3.3"}}, [("name", "llama3.3")]),
    ],
)
def test_a_licence_outside_spdx_is_named_and_not_given_an_id(
    changes: dict[str, Any], licenses: list[tuple[str, str]], shared_files: Shared
) -> None:
    found = bom(shared_files, **changes)["metadata"]["component"]["licenses"]
    assert [
        next((k, v) for k, v in item["license"].items() if k in ("id", "name")) for item in found
    ] == licenses


@pytest.mark.parametrize(
    ("changes", "aggregate"),
    [
        ({"files": None}, "unknown"),
        ({"source": {"kind": "transcribed"}}, "unknown"),
        ({"files": [{"path": "config.json", "sizeBytes": 13}]}, "incomplete"),
    ],
)
def test_it_says_whether_every_file_stands_in_it(
    changes: dict[str, Any], aggregate: str, shared_files: Shared
) -> None:
    assert bom(shared_files, **changes)["compositions"][0]["aggregate"] == aggregate


def test_the_same_facts_have_the_same_number_and_others_have_another(shared_files: Shared) -> None:
    assert bom(shared_files)["serialNumber"] == bom(shared_files)["serialNumber"]
    assert bom(shared_files)["serialNumber"] != bom(shared_files, license={"id": "mit"})["serialNumber"]


# --- ModelPack


def test_layers_are_the_files_that_are_served_by_their_own_digests(shared_files: Shared) -> None:
    manifest, _, _ = pack(shared_files)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    found = {
        layer["annotations"]["org.cncf.model.filepath"]: (
            layer["mediaType"].removeprefix("application/vnd.cncf.model.").removesuffix(".v1.raw"),
            layer["digest"],
            layer["size"],
        )
        for layer in manifest["layers"]
    }
    assert found == {
        "LICENSE": ("doc", f"sha256:{digest('1')}", 11),
        "README.md": ("doc", f"sha256:{digest('2')}", 12),
        "config.json": ("weight.config", f"sha256:{digest('3')}", 13),
        "model.safetensors": ("weight", f"sha256:{digest('4')}", 14_000),
        "modeling_example.py": ("code", f"sha256:{digest('5')}", 15),
        "tokenizer.json": ("weight.config", f"sha256:{digest('9')}", 19),
    }


def test_the_configuration_is_the_blob_that_the_manifest_names(shared_files: Shared) -> None:
    manifest, config, text = pack(shared_files)
    assert manifest["config"] == {
        "mediaType": "application/vnd.cncf.model.config.v1+json",
        "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        "size": len(text.encode()),
    }
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["descriptor"]["revision"] == COMMIT
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    assert config["config"] == {
        "architecture": "LlamaForCausalLM",
        "format": "safetensors",
        "paramSize": "7.2b",
        "precision": "bfloat16",
    }


def test_packed_weights_have_no_number_of_parameters(shared_files: Shared) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}
    assert pack(shared_files, config=config)[1]["config"] == {
        "architecture": "LlamaForCausalLM",
        "format": "safetensors",
        "quantization": "awq",
    }


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"revision": None}, "the revision is not recorded"),
        ({"license": None}, "the licence is not recorded"),
        ({"license": {"id": "unknown"}}, "the licence is not recorded"),
        ({"files": None}, "the files of the repository are not recorded"),
        ({"files": [{"path": "config.json", "sizeBytes": 1}]}, "no weights that vLLM loads"),
        ({"files": [FILES[4]]}, "of its files the weights alone are recorded"),
        (
            {"files": [FILES[4], {"path": "config.json", "sizeBytes": 13}]},
            "the sha256 of 1 of its files is not recorded, such as config.json",
        ),
    ],
)
def test_a_manifest_is_left_out_with_its_reason(
    changes: dict[str, Any], why: str, shared_files: Shared
) -> None:
    with pytest.raises(CannotBeMadeError, match=why):
        model_pack(facts(**changes), shared_files.policy.licenses)
    with pytest.raises(CannotBeMadeError, match=r"there is no facts\.yaml"):
        model_pack(None, shared_files.policy.licenses)


# --- on the command line


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.mark.models("phi-4", evidence=False)
def test_hashes_are_recorded_when_asked_for_kept_and_make_the_manifest(
    server: FakeHub, here: Path, run: Run
) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    content = {
        "config.json": json_file(config),
        "model.safetensors": safetensors_file({"BF16": 1000}),
        "tokenizer.json": text_file("{}"),
        "tokenizer.model": lfs_file(b"x"),
    }
    server.put(repository("example-org/Example-1B", content, license="mit"))
    run("new", "example-org/Example-1B")
    manifest = here / "made/exports/example-1b" / MANIFEST

    _, _, err = run("generate", "--no-site", "--output", "made")
    assert (
        "left out: modelpack.manifest.json of example-1b: the sha256 of 2 of its files is not recorded" in err
    )
    assert not manifest.exists()
    assert (here / "made/exports/example-1b" / BOM).is_file()

    assert run("record", "example-1b", "--all-hashes")[0] == 0
    recorded = read_entry(here / "catalog/models/example-1b").facts
    assert recorded is not None
    assert {file.path: file.sha256 for file in recorded.files or ()} == {
        path: file.sha256 for path, file in content.items()
    }
    run("generate", "--no-site", "--output", "made")
    assert len(json.loads(manifest.read_text())["layers"]) == 4

    assert "unchanged" in run("record", "example-1b")[1], "a hash is not lost by recording again"


@pytest.mark.models("phi-4", "phi-3-mini-4k-instruct", "gpt-oss-20b", "gemma-3-4b-it", evidence=False)
def test_what_many_models_lack_is_one_line(here: Path, run: Run) -> None:
    _, _, err = run("generate", "--no-site", "--output", "made")
    (line,) = [line for line in err.splitlines() if "modelpack" in line]
    assert line.startswith(
        "left out: modelpack.manifest.json of 4 models, such as gemma-3-4b-it: the files of"
    )

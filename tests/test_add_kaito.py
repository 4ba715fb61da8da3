"""Recording a KAITO release: what is read from its sources, and what is left to a person."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Policy
from kaito_catalog.kaito import release
from tools import add_kaito

ROOT = Path(__file__).resolve().parents[1]
# Go in KAITO's form, written here: only what is read has to be there.
SOURCES = {
    add_kaito.GENERATOR: """package generator
const (
	SystemFileDiskSizeGiB  = 90
)
var (
	reasoningParserModeNamePrefixMap = map[string]string{
		// a comment with "quotes": "x",
		"new-model": "new_parser",
	}
	reasoningParserArchMap = map[string]string{
		"NewForCausalLM":    "new_parser",
	}
	nonReasoningModels = map[string]bool{
		"new-model-base": true,
	}
	toolCallParserModeNamePrefixMap = map[string]string{}
	toolCallParserArchMap = map[string]string{
		"NewForCausalLM": "new_calls",
	}
	chatTemplatePrefixMap = map[string]string{}
	tokenizerModePrefixMap = map[string]string{}
	vllmAttentionBackendPrefixMap = map[string]string{}
	vllmMoeBackendOverride = map[string]string{}
	vllmKVCacheDtypePrefixMap = map[string]string{
		"new-model": "fp8",
	}
	vllmGdnPrefillBackendPrefixMap = map[string]string{}
	vllmExpertParallelEnabled = map[string]bool{
		"new-model": true,
		"old-model": false,
	}
	vllmDisableFlashInferAutotunePrefixMap = map[string]bool{}
)
""",
    add_kaito.LAUNCHER: """package model
const defaultGPUMemoryUtilization = "0.92"
var gpuMemoryUtilizationByGPUModel = map[string]string{
	"NVIDIA A10": "0.82",
}
""",
    "presets/workspace/models/vllm_model.go": "package models\n",
    add_kaito.IMAGES: "models:\n- {name: base, tag: 9.9.0, runtimeVersion: {vllm: 0.32.0, transformers: 5.19.0}}\n",
    add_kaito.VALUES: "image: {}\npresetRegistryName: registry.example.com/kaito\n",
    add_kaito.PLUGIN: """package plugin
var LegacyBuiltinToCatalog = map[string]string{
	"old":  "example-org/old",
}
""",
    "pkg/workspace/estimator/nodesestimator/estimator.go": """package nodesestimator
const (
	WeightExpansionFactor = 1.03
	baseOverheadGiB = 2.4
	overheadWeightFactor = 0.06
	mambaStateReferenceConcurrency = 64
)
var baseOverheadGiBByGPUModel = map[string]float64{
	"NVIDIA A10": 1.5,
}
func size() {
	maxModelLen := 4096
}
""",
    "pkg/workspace/estimator/nodesestimator/estimator_test.go": "package n\nconst baseOverheadGiB = 99\n",
    "api/v1beta1/labels.go": "package v1beta1\n",
}


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(repository: Path, sources: dict[str, str]) -> None:
    for name, text in sources.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    git(repository, "add", "--all")
    git(repository, "commit", "--allow-empty", "--message", "sources")


@pytest.fixture
def kaito(tmp_path: Path) -> Path:
    """A repository with the sources; `HEAD~1` has them too, and is what the base release cites."""
    repository = tmp_path / "kaito"
    repository.mkdir()
    git(repository, "init")
    write(repository, SOURCES)
    write(repository, {"README.md": "later"})
    return repository


@pytest.fixture
def project(tmp_path: Path, kaito: Path) -> Path:
    """This project's data and policy, with a v0.12 that cites the first commit of the made-up repository."""
    root = tmp_path / "project"
    (root / "kaito_catalog" / "data").mkdir(parents=True)
    (root / "catalog").mkdir()
    base = (ROOT / "kaito_catalog/data/kaito-v0.12.yaml").read_text(encoding="utf-8")
    first = git(kaito, "rev-parse", "HEAD~1")[:12]
    (root / "kaito_catalog/data/kaito-v0.12.yaml").write_text(
        base.replace("056b8280b1a8", first), encoding="utf-8"
    )
    shutil.copy(ROOT / "catalog/policy.yaml", root / "catalog")
    return root


def add(kaito: Path, project: Path, *more: str) -> int:
    return add_kaito.main([str(kaito), "--revision", "HEAD", "--name", "v9", *more], project)


def test_what_the_sources_state_is_in_the_file(kaito: Path, project: Path) -> None:
    assert add(kaito, project) == 0
    value = yaml.safe_load((project / "kaito_catalog/data/kaito-v9.yaml").read_text(encoding="utf-8"))
    assert value["baseImage"] == "registry.example.com/kaito/kaito-base:9.9.0"
    assert value["vllmVersion"] == "0.32.0"
    assert value["reasoningParser"] == {
        "prefixes": {"new-model": "new_parser"},
        "architectures": {"NewForCausalLM": "new_parser"},
        "never": ["new-model-base"],
    }
    assert value["toolCallParser"] == {"prefixes": {}, "architectures": {"NewForCausalLM": "new_calls"}}
    assert value["byPrefix"]["kv-cache-dtype"] == {"new-model": "fp8"}
    assert value["byPrefix"]["enable-expert-parallel"] == {"new-model": ""}
    assert value["byPrefix"]["chat-template"] == {}
    assert value["legacyPresets"] == {"old": "example-org/old"}
    assert value["estimator"] == {
        "weightsFactor": 1.03,
        "overheadWeightFactor": 0.06,
        "gpuMemoryUtilization": 0.92,
        "gpuMemoryUtilizationByGPU": {"NVIDIA A10": 0.82},
        "overheadGiB": 2.4,
        "overheadGiBByGPU": {"NVIDIA A10": 1.5},
        "defaultModelLen": 4096,
        "mambaSequences": 64,
    }


def test_the_file_is_a_release_that_can_be_used(
    kaito: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(kaito, project) == 0
    monkeypatch.setattr(release, "_data", lambda: project / "kaito_catalog/data")
    found = release.recorded_release.__wrapped__("v9")
    assert found.name == "v9"
    assert found.fixed_options == release.recorded_release("v0.12").fixed_options
    assert found.sizing.utilization_on("NVIDIA A10") == 0.82


def test_each_part_cites_the_commit_that_it_was_read_at(kaito: Path, project: Path) -> None:
    assert add(kaito, project) == 0
    value = yaml.safe_load((project / "kaito_catalog/data/kaito-v9.yaml").read_text(encoding="utf-8"))
    commit = git(kaito, "rev-parse", "HEAD")[:12]
    assert {text.split()[0] for text in value["source"].values()} == {f"kaito-project/kaito@{commit}"}


def test_the_policy_gets_a_profile_of_the_release(kaito: Path, project: Path) -> None:
    assert add(kaito, project) == 0
    policy = Policy.model_validate(
        yaml.safe_load((project / "catalog/policy.yaml").read_text(encoding="utf-8"))
    )
    found = policy.profiles[-1]
    assert (found.name, found.kaito_release, found.vllm_version) == ("kaito-v9", "v9", "0.32.0")
    assert (found.utilization("NVIDIA A10"), found.utilization(None)) == (0.82, 0.92)
    assert found.disk_overhead_bytes == 90 * 2**30
    assert policy.profile == "kaito-v0.12"


def test_a_second_time_changes_nothing(kaito: Path, project: Path) -> None:
    assert add(kaito, project) == 0
    before = {path: path.read_bytes() for path in project.rglob("*.yaml")}
    assert add(kaito, project) == 0
    assert {path: path.read_bytes() for path in project.rglob("*.yaml")} == before


def test_what_no_table_states_is_named_for_the_review_where_it_changed(
    kaito: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(kaito, project) == 0
    assert "to review" not in capsys.readouterr().out
    more = SOURCES[add_kaito.GENERATOR].replace(
        "var (", 'var (\n\tsomethingNew = map[string]string{\n\t\t"a": "b",\n\t}'
    )
    write(kaito, {"api/v1beta1/labels.go": "package v1beta1 // changed\n", add_kaito.GENERATOR: more})
    first = git(kaito, "rev-parse", "HEAD~2")[:12]
    assert add(kaito, project) == 0
    out = capsys.readouterr().out
    assert f"to review: reservedLabels: look at git diff {first}" in out
    assert "has a map that is not read: somethingNew" in out
    value = yaml.safe_load((project / "kaito_catalog/data/kaito-v9.yaml").read_text(encoding="utf-8"))
    assert value["source"]["reservedLabels"].startswith(f"kaito-project/kaito@{first}")


def test_a_map_that_kaito_has_moved_is_an_error_not_an_empty_one(
    kaito: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = SOURCES[add_kaito.GENERATOR].replace("chatTemplatePrefixMap", "templates")
    write(kaito, {add_kaito.GENERATOR: renamed})
    assert add(kaito, project) == 2
    assert "KAITO has no map chatTemplatePrefixMap at this revision" in capsys.readouterr().err
    assert not (project / "kaito_catalog/data/kaito-v9.yaml").exists()


def test_an_estimator_with_a_utilization_of_its_own_is_read_there(kaito: Path, project: Path) -> None:
    name = "pkg/workspace/estimator/nodesestimator/estimator.go"
    own = SOURCES[name].replace("const (", "const (\n\tgpuMemoryUtilization = 0.84")
    write(kaito, {name: own.replace("\tmambaStateReferenceConcurrency = 64\n", "")})
    assert add(kaito, project) == 0
    value = yaml.safe_load((project / "kaito_catalog/data/kaito-v9.yaml").read_text(encoding="utf-8"))
    assert (value["estimator"]["gpuMemoryUtilization"], value["estimator"]["mambaSequences"]) == (0.84, 0)
    assert value["estimator"]["gpuMemoryUtilizationByGPU"] == {}


@pytest.mark.parametrize("more", [["--revision", "v99"], ["--name", "../v9"]])
def test_a_wrong_revision_or_name_is_refused(
    more: list[str], kaito: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(kaito, project, *more) == 2
    assert "error: " in capsys.readouterr().err


def test_a_number_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CatalogError, match="KAITO has no constant baseOverheadGiB"):
        add_kaito.go_number("package a\n", "baseOverheadGiB")

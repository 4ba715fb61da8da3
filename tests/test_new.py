"""`new`: a complete folder from a repository id; what is derived says so, what is left is a gap that check names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.catalog.entries import Catalog, Shared
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.documents import reading
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.fake.files import json_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import FakeRepository, repositories_in, repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.memory.values import Fit
from kaito_catalog.plans.instance_types import plan_instance_types
from kaito_catalog.proposals.draft import NewProposal, commented, family_name, new_proposal
from kaito_catalog.system import files

LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
SMALL = "example-org/Example-1B-Instruct"
DAY = date(2026, 1, 5)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}


def small(*, config: dict[str, Any] | None = None, **settings: Any) -> FakeRepository:
    listed = {
        "config.json": json_file(config or CONFIG),
        "LICENSE": text_file("the terms\n"),
        "model.safetensors": safetensors_file({"BF16": 1_235_814_400}),
    }
    return repository(SMALL, listed, **settings)


def llama(catalog: Catalog) -> FakeRepository:
    """Llama 3.3 with its real configuration, size and shards."""
    entry = catalog.entry("llama-3.3-70b-instruct")
    assert entry is not None
    assert entry.facts is not None
    assert entry.facts.config is not None
    # So many parameters follow from the configuration, and make the 131.42 GiB of files that KAITO lists.
    parameters, shards = 70_553_706_496, 30
    each, rest = divmod(parameters, shards)
    weights = {
        f"model-{n:05}-of-{shards:05}.safetensors": safetensors_file({"BF16": each + (rest if n == 1 else 0)})
        for n in range(1, shards + 1)
    }
    index = {"metadata": {"total_size": 2 * parameters}, "weight_map": {name: name for name in weights}}
    return repository(
        LLAMA,
        {
            "config.json": json_file(entry.facts.config),
            "LICENSE": text_file("LLAMA 3.3 COMMUNITY LICENSE AGREEMENT\n"),
            "model.safetensors.index.json": json_file(index),
            "original/consolidated.00.pth": safetensors_file({"BF16": parameters}),
            **weights,
        },
        commit=entry.facts.revision,
        gated="manual",
        license="llama3.3",
        downloads=700_643,
    )


def proposal_of(found: FakeRepository, shared: Shared, *, token: str | bool = "hf_reader") -> NewProposal:
    with FakeHub([found]) as server, Hub(endpoint=server.endpoint, token=token) as hub:
        snapshot = hub.snapshot(found.repo_id)
        recorded = facts_of(snapshot, kind="hub", recorded_at=DAY)
        return new_proposal(
            recorded,
            snapshot.repository,
            shared,
            shared.policy.default_profile(),
            today=DAY,
            author="@someone",
        )


def test_llama_gets_its_true_size_and_a_plan(catalog: Catalog, shared_files: Shared) -> None:
    new = proposal_of(llama(catalog), shared_files)
    requirements = new.value["requirements"]
    assert requirements["version"] == "6f6073b423013f6a7d4d9f39144961bfbfbc386b"
    assert (requirements["familyName"], requirements["type"]) == ("Llama 3.3", "text-generation")
    assert requirements["storageSize"] == "142GB"
    assert "131.4 GiB" in new.derived["requirements", "storageSize"]
    (chosen,) = [
        found
        for found in plan_instance_types(
            new.facts, shared_files, shared_files.policy.default_profile(), max_model_len=32768
        )
        if found.instance_type.name == new.value["deployment"]["instanceType"]
    ]
    assert chosen.plan.fits is Fit.YES
    assert requirements["gpuCount"] == chosen.gpus_needed == chosen.instance_type.gpu_count
    assert requirements["contextLength"] == 32768
    assert new.value["runtimes"][0]["distributedInference"] is True
    assert new.value["runtimes"][0]["config"] == {"max-model-len": 32768, "tool-call-parser": "llama3_json"}
    assert new.value["summary"]["usage"]["statistics"] == "700,643 downloads in the last 30 days"
    assert new.value["summary"]["license"]["id"] == "llama3.3"
    assert new.value["deployment"]["modelAccessSecret"] == "hf-token"
    assert new.gaps == ("summary.description: what the model does, and where its documentation is",)


def test_what_is_derived_is_marked_on_its_line(shared_files: Shared) -> None:
    text = proposal_of(small(), shared_files).text
    lines = {line.strip().partition(":")[0]: line for line in text.splitlines()}
    for key in ("familyName", "type", "version", "storageSize", "gpuCount", "contextLength", "instanceType"):
        assert "  # derived: " in lines[key], key
    assert "  # to do: " in lines["description"]
    assert "#" not in lines["downloadSite"]


def test_comments_change_nothing_of_what_is_read(shared_files: Shared) -> None:
    new = proposal_of(small(), shared_files)
    document = reading.parse(new.text, path="proposal.yaml")
    assert document.value == new.value
    assert load(document, Proposal)[1] == ()


def test_the_same_repository_gives_the_same_bytes(shared_files: Shared) -> None:
    assert proposal_of(small(), shared_files).text == proposal_of(small(), shared_files).text


def test_a_gated_model_without_a_token_has_gaps_that_say_why(shared_files: Shared) -> None:
    new = proposal_of(small(gated="manual"), shared_files, token=False)
    assert new.value["requirements"]["gpuCount"] == "TBD"
    assert "HF_TOKEN is not set" in new.derived["requirements", "gpuCount"]
    assert new.value["requirements"]["storageSize"] == "2.5GB"
    assert "trustRemoteCode" not in new.value["runtimes"][0]


def test_an_unknown_architecture_has_no_invented_gpus(shared_files: Shared) -> None:
    new = proposal_of(small(config={**CONFIG, "architectures": ["NovelForCausalLM"]}), shared_files)
    assert new.value["requirements"]["gpuCount"] == "TBD"
    assert "NovelForCausalLM" in new.derived["requirements", "gpuCount"]
    assert "deployment.instanceType" not in new.text


def test_a_licence_of_its_own_becomes_a_reference_with_its_address(shared_files: Shared) -> None:
    found = small(license="other", license_name="example-license", license_link="LICENSE")
    licence = proposal_of(found, shared_files).value["summary"]["license"]
    assert licence["id"] == "LicenseRef-example-license"
    assert licence["url"].endswith(f"/blob/{found.refs['main']}/LICENSE")


def test_code_of_the_repository_is_not_trusted_by_itself(shared_files: Shared) -> None:
    new = proposal_of(small(config={**CONFIG, "auto_map": {"AutoModel": "m.C"}}), shared_files)
    assert new.value["runtimes"][0]["trustRemoteCode"] is False
    assert "m.C" in new.derived["runtimes", 0, "trustRemoteCode"]


@pytest.mark.parametrize(
    ("repository_name", "family"),
    [
        ("Llama-3.3-70B-Instruct", "Llama 3.3"),
        ("gpt-oss-20b", "gpt oss"),
        ("Qwen2.5-Coder-7B-Instruct", "Qwen2.5 Coder"),
        ("Qwen3.5-122B-A10B-GPTQ-Int4", "Qwen3.5"),
        ("phi-4", "phi 4"),
        ("Phi-3-mini-4k-instruct", "Phi 3"),
        ("Mixtral-8x7B-v0.1", "Mixtral"),
        ("7B", "7B"),
    ],
)
def test_the_family_is_what_comes_before_size_and_purpose(repository_name: str, family: str) -> None:
    assert family_name(repository_name) == family


def test_a_comment_cannot_break_out_of_its_line() -> None:
    text = commented({"a": {"b": 1}}, {("a", "b"): "x\ny: 2\u2028z"})
    assert reading.parse(text, path="f").value == {"a": {"b": 1}}
    assert len(text.splitlines()) == 2


# --- the command


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub([small()]) as found:
        yield found


@pytest.fixture
def run(run: Run, server: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As in conftest.py, over the whole catalog and our own Hub."""
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return lambda *arguments: run(*arguments, "--catalog", root / "catalog")


def test_a_new_folder_has_no_errors_and_a_warning_for_each_gap(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = run("new", SMALL, "--into", tmp_path)
    assert code == 0
    assert out.splitlines()[1:] == [
        "to do: metadata.authors.0: your GitHub handle, such as '@someone'",
        "to do: summary.description: what the model does, and where its documentation is",
    ]
    assert "4 calls to the Hub" in err
    folder = tmp_path / "example-1b-instruct"
    assert read_entry(folder).is_readable
    code, out, _ = run("check", folder, "--format", "json")
    (model,) = json.loads(out)["models"]
    assert code == 0
    assert [(f["code"], f["severity"]) for f in model["findings"]] == [("DOC008", "warning")] * 2
    assert {skip["code"][:3] for skip in model["skipped"]} <= {"EVD"}, "only what nobody has measured yet"
    assert set(model["claims"].values()) == {"proven"}


def test_the_address_of_a_page_is_taken_as_well(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert run("new", f"https://huggingface.co/{SMALL}/tree/main", "--into", tmp_path)[0] == 0


def test_a_folder_that_exists_is_left_alone_and_nothing_is_asked(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, server: FakeHub
) -> None:
    run("new", SMALL, "--into", tmp_path)
    server.requests.clear()
    code, _, err = run("new", SMALL, "--into", tmp_path)
    assert code == 2
    assert "exists" in err
    assert server.requests == []


def test_a_moved_repository_is_written_under_its_new_name(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, server: FakeHub
) -> None:
    server.put(replace(small(), repo_id="old-org/Old-Name", moved_to=SMALL))
    code, _, err = run("new", "old-org/Old-Name", "--into", tmp_path)
    assert code == 0
    assert f"the Hub knows old-org/Old-Name as {SMALL}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["example-1b-instruct"]


def test_when_the_disk_refuses_the_second_file_the_first_is_taken_back(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_text

    def refuse(path: Path, text: str) -> None:
        if path.name == "proposal.yaml":
            raise CatalogError("no space")
        real(path, text)

    monkeypatch.setattr(files, "write_text", refuse)
    assert run("new", SMALL, "--into", tmp_path)[0] == 2
    assert list(tmp_path.rglob("*.yaml")) == []


@pytest.mark.parametrize("name", ["nonsense", "a/b/c", "../x/y", "a/b\nc"])
def test_what_is_no_repository_is_refused(
    name: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = run("new", name, "--into", tmp_path)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 2


# --- the fake Hub as a command serves directories


def test_directories_are_served_with_what_their_settings_declare(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "Model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    settings = {
        "gated": "auto",
        "downloads": 7,
        "license": "mit",
        "safetensors": {
            "model.safetensors": {"sizeBytes": 16_060_556_376, "parameters": {"BF16": 8_030_261_248}}
        },
    }
    (folder / ".fake-hub.json").write_text(json.dumps(settings))
    (found,) = repositories_in(tmp_path)
    assert (found.repo_id, found.gated, found.downloads, found.license) == ("org/Model", "auto", 7, "mit")
    listed = found.commits[found.refs["main"]]
    assert listed["model.safetensors"].size_bytes == 16_060_556_376
    assert found.parameters(found.refs["main"]) == {"BF16": 8_030_261_248}


def test_a_directory_without_repositories_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no repository in"):
        repositories_in(tmp_path)

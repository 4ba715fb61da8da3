"""From a repository to facts.yaml: complete, polite, never silently over what was recorded, never half."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.catalog.entries import FACTS
from kaito_catalog.catalog.reading import read_catalog, read_entry
from kaito_catalog.checks import example
from kaito_catalog.documents import reading, writing
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.differences import HubChange, differences
from kaito_catalog.hub.directory import LocalSnapshot
from kaito_catalog.hub.errors import HubError
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.fake.files import FakeFile, json_file, lfs_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import FakeRepository, commit_of, repository, repository_from_facts
from kaito_catalog.hub.fake.server import FakeHub, Fault
from kaito_catalog.hub.kept_config import kept_config
from kaito_catalog.hub.record import Decision, RecordOutcome, RecordTarget, decide, record_all

REPO = "example-org/Example-7B-Instruct"
DAY = date(2026, 1, 5)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_example.ExampleForCausalLM"},
    "bos_token_id": 1,
    "hidden_size": 64,
    "id2label": {"0": "a"},
    "initializer_range": 0.02,
    "new_field_of_next_year": [1, 2],
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "text_config": {"num_hidden_layers": 2, "pad_token_id": 0},
    "transformers_version": "5.0.0",
}


def files(**changes: FakeFile | None) -> dict[str, FakeFile]:
    found: dict[str, FakeFile | None] = {
        "config.json": json_file(CONFIG),
        "LICENSE": text_file("the terms\n"),
        "README.md": text_file("---\nlicense: mit\npipeline_tag: text-generation\n---\n# Example\n"),
        "model.safetensors": safetensors_file({"BF16": 5000, "F32": 7}),
        "modeling_example.py": text_file("raise SystemExit('never run')\n"),
        **{path.replace("__", "."): file for path, file in changes.items()},
    }
    return {path: file for path, file in found.items() if file is not None}


def model(**changes: FakeFile | None) -> FakeRepository:
    return repository(REPO, files(**changes), license="mit")


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub([model()]) as found:
        yield found


def recorded(server: FakeHub, *, token: str | bool = False, repo_id: str = REPO) -> ModelFacts:
    with Hub(endpoint=server.endpoint, token=token, sleep=lambda _: None, attempts=2) as hub:
        return facts_of(hub.snapshot(repo_id), kind="hub", recorded_at=DAY).facts


def catalog_of(tmp_path: Path, root: Path, *names: str, version: str | None = None) -> Path:
    """A catalog with the shared files of this one, and one proposal a name."""
    for path in (root / "catalog").glob("*.yaml"):
        (tmp_path / "catalog").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "catalog")
    for name in names:
        org, _, repo_name = name.partition("/")
        document, _ = example.documents("{}")
        value = dict(document.value)
        value["metadata"] = {**value["metadata"], "name": repo_name.lower()}
        value["requirements"] = {
            **value["requirements"],
            "downloadSite": f"https://huggingface.co/{org}/{repo_name}",
            "version": version or "main",
        }
        folder = tmp_path / "catalog" / "models" / repo_name.lower()
        folder.mkdir(parents=True)
        (folder / "proposal.yaml").write_text(writing.write(value))
    return tmp_path / "catalog"


# --- what is recorded


def test_everything_that_facts_name_is_recorded(server: FakeHub) -> None:
    facts = recorded(server)
    repo = server.repositories[REPO]
    listed = repo.commits[repo.refs["main"]]
    assert facts.revision == repo.refs["main"]
    assert facts.source.kind == "hub"
    assert facts.license is not None
    assert (facts.license.id, facts.license.sha256) == ("mit", listed["LICENSE"].sha256)
    assert (facts.gated, facts.pipeline_tag) == ("no", "text-generation")
    assert facts.repository is not None
    assert facts.repository.size_bytes == sum(file.size_bytes for file in listed.values())
    assert facts.weights is not None
    assert facts.weights.total is not None
    assert (facts.weights.format, facts.weights.files) == ("safetensors", 1)
    assert facts.weights.total.size_bytes == listed["model.safetensors"].size_bytes
    assert facts.files is not None
    assert {file.path for file in facts.files} == set(listed)
    assert facts.safetensors is not None
    assert facts.safetensors.parameters_by_dtype == {"BF16": 5000, "F32": 7}
    assert facts.remote_code is not None
    assert [(f.path, f.sha256) for f in facts.remote_code.files] == [
        ("modeling_example.py", listed["modeling_example.py"].sha256)
    ]
    assert facts.remote_code.auto_map == CONFIG["auto_map"]


def test_of_the_configuration_all_but_known_noise_is_kept() -> None:
    assert kept_config(CONFIG) == {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "new_field_of_next_year": [1, 2],
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "text_config": {"num_hidden_layers": 2},
    }


def test_numbers_that_yaml_readers_refuse_are_not_kept() -> None:
    assert kept_config({"a": float("nan"), "b": [float("inf"), 1], "c": 10**30}) == {"b": [1]}


def test_a_side_file_with_the_quantisation_takes_its_place_as_in_vllm(server: FakeHub) -> None:
    plain: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 4,
        "torch_dtype": "bfloat16",
        "vocab_size": 100,
    }
    side: dict[str, Any] = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "NVFP4", "group_size": 16},
    }
    server.put(model(config__json=json_file(plain), hf_quant_config__json=json_file(side)))
    config = recorded(server).config
    assert config is not None
    assert config["quantization_config"] == {"quant_method": "modelopt", **side["quantization"]}
    assert isinstance(read_shape(config), Shape)
    assert read_shape(config) == read_shape(plain, quantization=side)


def test_a_text_of_the_hub_cannot_break_out_of_the_file(server: FakeHub) -> None:
    evil = "x\nrevision: injected\n\u202e#"
    found = repository(
        REPO, files(config__json=json_file({"architectures": ["A"], "note": evil, evil: 1})), license=evil
    )
    server.put(found)
    with Hub(endpoint=server.endpoint, token=False) as hub:
        record = facts_of(hub.snapshot(REPO), kind="hub", recorded_at=DAY)
    document = reading.parse(record.text, path="facts.yaml")
    assert document.problems == ()
    assert load(document, ModelFacts)[0] == record.facts
    assert record.facts.revision == found.refs["main"]


def test_unsafe_names_are_recorded_for_sec004_and_never_read(server: FakeHub) -> None:
    server.put(repository(REPO, {**files(), "../modeling.py": text_file("x")}, license="mit"))
    facts = recorded(server)
    assert facts.files is not None
    assert "../modeling.py" in [file.path for file in facts.files]
    assert not any(".." in request.path for request in server.requests)


def test_the_hubs_own_count_is_taken_where_it_explains_the_size_of_many_shards(server: FakeHub) -> None:
    shards = {f"model-{n:05}-of-00009.safetensors": safetensors_file({"BF16": 10**6}) for n in range(1, 10)}
    server.put(repository(REPO, {"config.json": json_file(CONFIG), **shards}))
    facts = recorded(server)
    assert facts.safetensors is not None
    assert facts.safetensors.parameters_by_dtype == {"BF16": 9 * 10**6}
    assert not any("safetensors" in request.path for request in server.requests)


def test_every_header_is_read_where_the_hubs_count_does_not_explain_the_size(server: FakeHub) -> None:
    shards = {
        f"model-{n:05}-of-00003.safetensors": safetensors_file({"BF16": 10**6}, size_bytes=10**7)
        for n in (1, 2, 3)
    }
    server.put(repository(REPO, {"config.json": json_file(CONFIG), **shards}, parameters_known=False))
    facts = recorded(server)
    assert facts.safetensors is not None
    assert facts.safetensors.parameters_by_dtype == {"BF16": 3 * 10**6}


def test_hundreds_of_headers_are_only_read_when_asked_for(server: FakeHub) -> None:
    shards = {
        f"consolidated-{n:05}-of-00020.safetensors": safetensors_file({"BF16": 10**6}) for n in range(1, 21)
    }
    server.put(repository(REPO, {"config.json": json_file(CONFIG), **shards}))
    with Hub(endpoint=server.endpoint, token=False) as hub:
        few = facts_of(hub.snapshot(REPO), kind="hub", recorded_at=DAY)
        every = facts_of(hub.snapshot(REPO), kind="hub", recorded_at=DAY, all_headers=True)
    assert few.facts.safetensors is None
    assert few.notes == ("parameters not counted: 20 headers would be read (--all-headers)",)
    assert every.facts.safetensors is not None
    assert every.facts.safetensors.parameters_by_dtype == {"BF16": 20 * 10**6}


def test_the_index_decides_which_weights_count(server: FakeHub) -> None:
    shard = "model-00001-of-00001.safetensors"
    index = {"metadata": {}, "weight_map": {"a": shard}}
    server.put(
        repository(
            REPO,
            {
                "config.json": json_file(CONFIG),
                shard: safetensors_file({"U8": 100}),
                "original/model.safetensors": safetensors_file({"BF16": 9000}),
                "model.safetensors.index.json": json_file(index),
            },
        )
    )
    facts = recorded(server)
    assert facts.weights is not None
    assert facts.weights.total is not None
    assert facts.weights.total.size_bytes < 1000
    assert facts.safetensors is not None
    assert facts.safetensors.parameters_by_dtype == {"U8": 100}


# --- a directory


def on_disk(folder: Path) -> None:
    for path, file in files().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read(0, file.size_bytes))


def test_a_directory_gives_the_same_facts_as_the_hub(server: FakeHub, tmp_path: Path) -> None:
    on_disk(tmp_path)
    hub = recorded(server)
    snapshot = LocalSnapshot(tmp_path, REPO, revision=hub.revision)
    local = facts_of(snapshot, kind="local", recorded_at=DAY).facts
    assert differences(hub, local) == []
    apart = {"source", "gated"}  # a directory does not say whether its repository is gated
    assert local.model_dump(exclude=apart) == hub.model_dump(exclude=apart)


def test_a_clone_without_its_lfs_files_has_their_sizes_and_hashes(tmp_path: Path) -> None:
    on_disk(tmp_path)
    weights = files()["model.safetensors"]
    (tmp_path / "model.safetensors").write_bytes(weights.pointer)
    found = LocalSnapshot(tmp_path, REPO).repository.file("model.safetensors")
    assert found is not None
    assert (found.size_bytes, found.sha256) == (weights.size_bytes, weights.sha256)


@pytest.mark.parametrize("how", ["cache", "download", "git", "packed"])
def test_the_commit_is_read_from_what_the_download_left(how: str, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "snapshots" / commit if how == "cache" else tmp_path / "mirror"
    on_disk(folder)
    if how == "cache":
        (tmp_path / "blobs").mkdir()
    elif how == "download":
        metadata = folder / ".cache/huggingface/download"
        metadata.mkdir(parents=True)
        (metadata / "config.json.metadata").write_text(f"{commit}\nabc\n1.0\n")
    else:
        (folder / ".git/refs/heads").mkdir(parents=True)
        (folder / ".git/HEAD").write_text("ref: refs/heads/main\n")
        where = ".git/refs/heads/main" if how == "git" else ".git/packed-refs"
        (folder / where).write_text(
            f"{commit}\n" if how == "git" else f"# pack-refs\n{commit} refs/heads/main\n"
        )
    assert LocalSnapshot(folder, REPO).repository.revision == commit


def test_a_link_out_of_the_directory_is_listed_and_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    on_disk(tmp_path / "mirror")
    (tmp_path / "mirror" / "config.json").unlink()
    (tmp_path / "mirror" / "config.json").symlink_to(secret)
    snapshot = LocalSnapshot(tmp_path / "mirror", REPO)
    assert snapshot.repository.unsafe_names == ("config.json",)
    assert facts_of(snapshot, kind="local", recorded_at=DAY).facts.config is None


def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="is not a directory"):
        LocalSnapshot(tmp_path / "nothing", REPO)


# --- two records


def test_two_records_of_the_same_commit_do_not_differ(server: FakeHub) -> None:
    assert differences(recorded(server), recorded(server)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model__safetensors": safetensors_file({"BF16": 5001, "F32": 7})}, HubChange.REUPLOADED),
        ({"config__json": json_file({**CONFIG, "hidden_size": 128})}, HubChange.REUPLOADED),
        ({"modeling_example__py": text_file("other\n")}, HubChange.REUPLOADED),
        ({"LICENSE": text_file("other terms\n")}, HubChange.RELICENSED),
        ({"extra__bin": lfs_file(b"x")}, HubChange.REUPLOADED),
        ({"README__md": None}, HubChange.REUPLOADED),
    ],
    ids=["weights", "configuration", "code", "licence", "new file", "file gone"],
)
def test_a_change_under_the_same_revision_has_a_name(
    change: dict[str, FakeFile | None], expected: HubChange, server: FakeHub
) -> None:
    before = recorded(server)
    server.put(repository(REPO, files(**change), commit=before.revision, license="mit"))
    decision = decide(before, recorded(server), asked=REPO)
    assert decision.outcome is RecordOutcome.REFUSED
    assert expected in {difference.change for difference in decision.differences}


def test_an_accepted_change_is_written_with_its_difference(server: FakeHub) -> None:
    before = recorded(server)
    server.put(repository(REPO, files(LICENSE=text_file("new\n")), commit=before.revision, license="mit"))
    decision = decide(before, recorded(server), asked=REPO, accept=True)
    assert decision.outcome is RecordOutcome.WRITTEN
    assert [difference.field for difference in decision.differences] == [
        "license.sha256",
        "repository.sizeBytes",
        "files: LICENSE",
    ]


def transcribed(facts: ModelFacts, **changes: object) -> ModelFacts:
    return facts.model_copy(
        update={
            "source": facts.source.model_copy(update={"kind": "transcribed"}),
            "files": None,
            "repository": None,
            "safetensors": None,
            **changes,
        }
    )


def test_transcribed_facts_that_agree_within_their_precision_are_replaced(server: FakeHub) -> None:
    found = recorded(server)
    assert found.weights is not None
    assert found.weights.total is not None
    rounded = found.weights.total.model_copy(
        update={"size_bytes": found.weights.total.size_bytes + 40, "precision_bytes": 50}
    )
    old = transcribed(found, weights=found.weights.model_copy(update={"total": rounded}), gated="no")
    assert decide(old, found, asked=REPO) == Decision(
        RecordOutcome.WRITTEN, notes=("replaces transcribed facts that agree",)
    )


def test_transcribed_facts_that_the_hub_contradicts_need_a_person(server: FakeHub) -> None:
    found = recorded(server)
    old = transcribed(found, gated="manual", config={"hidden_size": 65, "a_field_of_the_source": 1})
    decision = decide(old, found, asked=REPO)
    assert decision.outcome is RecordOutcome.REFUSED
    assert [str(d) for d in decision.differences] == [
        "HUB004 gated: gated was manual, is no",
        "HUB006 re-uploaded: config.hidden_size was 65, is 64",
    ]


def test_a_gate_of_unknown_kind_agrees_with_any(server: FakeHub) -> None:
    found = recorded(server).model_copy(update={"gated": "manual"})
    assert differences(found.model_copy(update={"gated": "yes"}), found) == []


def test_another_revision_replaces_the_facts_and_says_what_changed(server: FakeHub) -> None:
    old = recorded(server)
    server.put(server.repositories[REPO].with_commit(files(LICENSE=text_file("new\n"))))
    decision = decide(old, recorded(server), asked=REPO)
    assert decision.outcome is RecordOutcome.WRITTEN
    assert decision.notes[0].startswith("the revision was ")
    assert any("license.sha256" in note for note in decision.notes)


# --- the command


@pytest.fixture(autouse=True)
def from_our_hub(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands ask our own Hub, at once and without a token."""
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("kaito_catalog.hub.client.RETRY_SECONDS", 0.0)


def test_record_writes_facts_and_the_second_time_nothing(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path, server: FakeHub
) -> None:
    catalog = catalog_of(tmp_path, root, REPO, version=server.repositories[REPO].refs["main"])
    path = catalog / "models" / "example-7b-instruct" / FACTS
    code, out, _ = run("record", "--catalog", catalog)
    assert (code, out) == (
        0,
        "example-7b-instruct: written\n1 model: 1 written, 0 unchanged, 0 refused, 0 failed; 5 calls\n",
    )
    before = path.stat().st_mtime_ns
    assert run("record", "example-7b-instruct", "--catalog", catalog)[1].startswith(
        "example-7b-instruct: unchanged\n"
    )
    assert path.stat().st_mtime_ns == before
    assert read_entry(path.parent).is_readable


def test_record_refuses_shows_the_difference_and_writes_it_only_when_accepted(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path, server: FakeHub
) -> None:
    commit = server.repositories[REPO].refs["main"]
    catalog = catalog_of(tmp_path, root, REPO, version=commit)
    path = catalog / "models" / "example-7b-instruct" / FACTS
    run("record", "--catalog", catalog)
    before = path.read_text()
    server.put(repository(REPO, files(LICENSE=text_file("new\n")), commit=commit, license="mit"))
    code, out, err = run("record", "--catalog", catalog)
    assert code == 1
    assert "example-7b-instruct: refused\n  HUB005 re-licensed: license.sha256 was " in out
    assert "--accept" in err
    assert path.read_text() == before
    code, out, _ = run("record", "--accept", "--catalog", catalog)
    assert code == 0
    assert "HUB005 re-licensed" in out
    assert path.read_text() != before


def test_a_model_that_fails_keeps_its_facts_and_the_run_goes_on(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path, server: FakeHub
) -> None:
    names = [f"example-org/Model-{letter}" for letter in "ABCDE"]
    for name in names:
        server.put(repository(name, files(), license="mit"))
    catalog = catalog_of(tmp_path, root, *names)
    assert run("record", "--catalog", catalog)[0] == 0
    kept = (catalog / "models" / "model-b" / FACTS).read_text()
    server.faults += [Fault("Model-B", status=500), Fault("Model-D.*config", action="cut")]
    server.remove("example-org/Model-C")
    code, out, _ = run("record", "--catalog", catalog)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith("model")] == [
        "model-a: unchanged",
        "model-b: failed: example-org/Model-B: at main: the Hub has a problem (500)",
        "model-c: failed: example-org/Model-C: at main: the repository does not exist or is private"
        " (401 without a token)",
        "model-d: failed: example-org/Model-D: config.json: the connection was cut",
        "model-e: unchanged",
    ]
    assert (catalog / "models" / "model-b" / FACTS).read_text() == kept


def test_gone_and_rewritten_models_have_their_codes(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    root: Path,
    server: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    catalog = catalog_of(tmp_path, root, REPO, version="f" * 40)
    assert "failed: HUB003 revision gone: " in run("record", "--catalog", catalog)[1]
    server.remove(REPO)
    assert "failed: HUB001 gone: " in run("record", "--catalog", catalog)[1]


def test_a_moved_repository_is_not_recorded_under_the_old_name(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path, server: FakeHub
) -> None:
    server.put(repository("example-org/New", files(), license="mit"))
    server.put(repository(REPO, files(), moved_to="example-org/New"))
    catalog = catalog_of(tmp_path, root, REPO)
    code, out, _ = run("record", "--catalog", catalog)
    assert code == 1
    assert f"HUB002 moved: repoId was {REPO}, is example-org/New" in out
    assert not (catalog / "models" / "example-7b-instruct" / FACTS).exists()


def test_a_gated_model_without_a_token_says_what_is_missing_and_writes_nothing(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    root: Path,
    server: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put(repository(REPO, files(), license="mit", gated="manual"))
    catalog = catalog_of(tmp_path, root, REPO)
    code, out, _ = run("record", "--catalog", catalog)
    assert code == 1
    assert "the files are gated, and HF_TOKEN is not set" in out
    assert not (catalog / "models" / "example-7b-instruct" / FACTS).exists()
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert run("record", "--catalog", catalog)[0] == 0


def test_record_from_a_directory_needs_no_hub(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path, server: FakeHub
) -> None:
    on_disk(tmp_path / "mirror")
    catalog = catalog_of(tmp_path, root, REPO)
    code, out, err = run(
        "record", "example-7b-instruct", "--from-local", tmp_path / "mirror", "--catalog", catalog
    )
    assert (code, out.splitlines()[0]) == (0, "example-7b-instruct: written")
    assert "does not tell its commit" in err
    facts = read_entry(catalog / "models" / "example-7b-instruct").facts
    assert facts is not None
    assert (facts.source.kind, facts.revision) == ("local", None)
    assert server.requests == []


def test_from_local_is_for_one_model(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, root: Path
) -> None:
    catalog = catalog_of(tmp_path, root, REPO)
    code, _, err = run("record", "--from-local", tmp_path, "--catalog", catalog)
    assert code == 2
    assert "--from-local reads one model" in err


def test_whoever_stops_reading_the_results_does_not_wait_for_the_rate_limit(
    tmp_path: Path, root: Path
) -> None:
    names = ["example-org/Model-A", "example-org/Model-B"]
    catalog = catalog_of(tmp_path, root, *names)
    with (
        FakeHub([repository(name, files()) for name in names]) as server,
        Hub(endpoint=server.endpoint, token=False, longest_wait_seconds=10**7) as hub,
    ):
        server.faults.append(Fault("Model-B", status=429, headers={"Retry-After": "100000"}))
        targets = [RecordTarget.of(entry) for entry in read_catalog(catalog).entries]
        results = record_all(targets, hub, recorded_at=DAY, workers=1)
        assert next(results).outcome is RecordOutcome.WRITTEN
        results.close()
        with pytest.raises(HubError, match="interrupted"):
            hub.repository(names[0])


def test_a_catalog_of_sixty_models_is_recorded_within_the_anonymous_limit(tmp_path: Path, root: Path) -> None:
    real = [entry.facts for entry in read_catalog(root / "catalog").entries if entry.facts]
    repositories = [repository_from_facts(facts) for facts in real]
    while len(repositories) < 60:
        like = repositories[len(repositories) % len(real)]
        listed = dict(like.commits[like.refs["main"]])
        name = f"more-org/{like.repo_id.partition('/')[2]}-{len(repositories)}"
        repositories.append(repository(name, listed, commit=commit_of(name, listed)))
    catalog = catalog_of(tmp_path, root, *(found.repo_id for found in repositories))
    with (
        FakeHub(repositories, limit=500) as server,
        Hub(endpoint=server.endpoint, token="hf_reader") as hub,
    ):
        targets = [RecordTarget.of(entry) for entry in read_catalog(catalog).entries]
        results = list(record_all(targets, hub, recorded_at=DAY))
        assert {result.outcome for result in results} == {RecordOutcome.WRITTEN}, [
            r.error for r in results if r.error
        ]
        assert len(results) == 60
        assert hub.calls == len(server.requests)
        assert hub.calls <= 500, "files counted as well"
        assert server.api_calls == 60

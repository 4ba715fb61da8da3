"""Weights of which a part is missing are an error that says what is missing; they never pass for a small model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from catalog_helpers import Run

from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.directory import LocalSnapshot
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.fake.files import FakeFile, json_file, safetensors_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.hub.weight_files import missing_files, missing_layers

REPO = "example-org/Example-1B-Instruct"
DAY = date(2026, 1, 5)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
PARAMETERS = 1024 * 256 + 256 + 4 * (256 * 256 + 2 * 256 * 128 + 256 * 256 + 3 * 256 * 512 + 2 * 256)
SHARDS = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
INDEX = {"weight_map": {f"model.layers.{n}.mlp.up_proj.weight": SHARDS[min(n, 2)] for n in range(4)}}


def whole() -> dict[str, FakeFile]:
    third = PARAMETERS // 3 + 1
    return {
        "config.json": json_file(CONFIG),
        "model.safetensors.index.json": json_file(INDEX),
        **{shard: safetensors_file({"BF16": third}) for shard in SHARDS},
    }


def on_disk(folder: Path, files: dict[str, FakeFile]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, file in files.items():
        (folder / path).write_bytes(file.read(0, file.size_bytes))
    return folder


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub([]) as hub:
        yield hub


def from_hub(server: FakeHub, files: dict[str, FakeFile]) -> HubError:
    server.put(repository(REPO, files))
    with Hub(endpoint=server.endpoint, token=False) as hub, pytest.raises(HubError) as raised:
        facts_of(hub.snapshot(REPO), kind="hub", recorded_at=DAY)
    return raised.value


def plan(run: Run, folder: Path) -> tuple[int, str, str]:
    return run("plan", str(folder), "--gpu", "NVIDIA H100 80GB", "--gpu-count", "1")


def test_complete_weights_are_planned(tmp_path: Path, run: Run) -> None:
    code, out, err = plan(run, on_disk(tmp_path / "model", whole()))
    assert (code, err) == (0, "")
    assert "fits" in out


def test_a_shard_that_the_index_names_and_nobody_has_is_named(
    tmp_path: Path, run: Run, server: FakeHub
) -> None:
    files = {path: file for path, file in whole().items() if path != SHARDS[1]}
    code, out, err = plan(run, on_disk(tmp_path / "model", files))
    assert (code, out) == (2, "")
    assert f"the weights lack {SHARDS[1]}" in err
    error = from_hub(server, files)
    assert error.trouble is Trouble.INCOMPLETE
    assert error.message == f"{REPO}: the weights lack {SHARDS[1]}"


def test_a_gap_in_numbered_shards_is_seen_without_an_index(tmp_path: Path, run: Run, server: FakeHub) -> None:
    files = {
        path: file
        for path, file in whole().items()
        if path not in (SHARDS[2], "model.safetensors.index.json")
    }
    assert f"the weights lack {SHARDS[2]}" in plan(run, on_disk(tmp_path / "model", files))[2]
    assert SHARDS[2] in from_hub(server, files).message


def test_fewer_layers_than_configured_are_named(tmp_path: Path, run: Run, server: FakeHub) -> None:
    index = {"weight_map": {name: file for name, file in INDEX["weight_map"].items() if ".3." not in name}}
    # The index of a complete set of shards is not read on the Hub: then the bytes tell.
    files = {
        **whole(),
        "model.safetensors.index.json": json_file(index),
        "extra.safetensors": safetensors_file({}),
    }
    assert "the weights lack layer 3: the configuration has 4" in from_hub(server, files).message
    assert "the weights lack layer 3" in plan(run, on_disk(tmp_path / "model", files))[2]


def test_a_file_of_zeros_is_no_weight_file(tmp_path: Path, run: Run) -> None:
    folder = on_disk(tmp_path / "model", {"config.json": json_file(CONFIG)})
    (folder / "model.safetensors").write_bytes(bytes(2**20))
    code, _, err = plan(run, folder)
    assert code == 2
    assert "does not start with the length of a safetensors header" in err


def test_fewer_bytes_than_configured_are_told(tmp_path: Path, run: Run) -> None:
    files = {
        "config.json": json_file(CONFIG),
        "model.safetensors": safetensors_file({"BF16": PARAMETERS // 2}),
    }
    code, _, err = plan(run, on_disk(tmp_path / "model", files))
    assert code == 2
    assert "the weights lack" in err
    assert "that the configuration asks for" in err


def test_lfs_pointers_count_as_the_files_that_they_stand_for(tmp_path: Path, run: Run) -> None:
    whole_files = whole()
    folder = on_disk(tmp_path / "model", whole_files)
    for shard in SHARDS:
        (folder / shard).write_bytes(whole_files[shard].pointer)
    code, out, _ = plan(run, folder)
    assert code == 0
    assert "fits" in out


def test_a_cache_whose_download_was_broken_off_says_so(tmp_path: Path, run: Run) -> None:
    blobs, commit = tmp_path / "blobs", "0123456789abcdef0123456789abcdef01234567"
    blobs.mkdir()
    snapshot = on_disk(tmp_path / "snapshots" / commit, whole())
    (snapshot / SHARDS[2]).unlink()
    (snapshot / SHARDS[2]).symlink_to(blobs / "ab")
    (blobs / "ab.incomplete").write_bytes(b"")
    code, _, err = plan(run, snapshot)
    assert code == 2
    assert SHARDS[2] in err
    assert "a download of them was not finished" in err
    found = LocalSnapshot(snapshot, REPO).repository
    assert found.unsafe_names == ()


@pytest.mark.models("phi-4")
def test_record_refuses_half_a_model_and_writes_nothing(tmp_path: Path, run: Run, here: Path) -> None:
    facts = here / "catalog/models/phi-4/facts.yaml"
    before = facts.read_bytes()
    files = {
        "config.json": json_file(CONFIG),
        "model.safetensors": safetensors_file({"BF16": PARAMETERS // 2}),
    }
    code, out, _ = run("record", "phi-4", "--from-local", str(on_disk(tmp_path / "half", files)))
    assert code == 1
    assert "the weights lack" in out
    assert facts.read_bytes() == before


@pytest.mark.parametrize(
    ("tensors", "config", "expected"),
    [
        (["model.layers.0.a", "model.layers.31.a"], {"num_hidden_layers": 32}, None),
        (["model.layers.0.a", "model.layers.30.a"], {"num_hidden_layers": 32}, (31, 32)),
        (["transformer.h.5.a"], {"n_layer": 8}, (6, 8)),
        # The layers that guess ahead come after those that are counted.
        (["model.layers.61.a"], {"num_hidden_layers": 61}, None),
        # An encoder may have more layers than the decoder.
        (
            ["vision_tower.layers.40.a", "language_model.layers.3.a"],
            {"text_config": {"num_hidden_layers": 8}},
            (4, 8),
        ),
        (["lm_head.weight"], {"num_hidden_layers": 8}, None),
        (["model.layers.0.a"], {}, None),
    ],
)
def test_layers_are_counted_by_the_names_of_tensors(
    tensors: list[str], config: dict[str, object], expected: tuple[int, int] | None
) -> None:
    assert missing_layers(tensors, config) == expected


def test_a_count_of_shards_that_nobody_has_is_not_listed() -> None:
    assert missing_files(["model-00001-of-99999.safetensors"]) == ()

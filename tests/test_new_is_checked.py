"""`new` writes nothing that `check` refuses: odd configurations and weights, each made and then checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.hub.fake.files import FakeFile, json_file, lfs_file, safetensors_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.quantity import at_least_gb

REPO = "example-org/Example-220M"
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 16,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
PARAMETERS = 16 * (1024 * 1024 * 2 + 2 * 1024 * 512 + 3 * 1024 * 2816) + 32000 * 1024
WEIGHTS = {"model.safetensors": safetensors_file({"BF16": PARAMETERS})}

pytestmark = pytest.mark.models("phi-4", evidence=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def put(server: FakeHub, files: dict[str, FakeFile], **changes: Any) -> None:
    server.put(repository(REPO, {"config.json": json_file({**LLAMA, **changes}), **files}))


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"type": "linear", "factor": 4.0},
        {"type": "dynamic", "factor": 4.0},
        {"type": "yarn", "factor": 4.0},
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
        {"type": "mrope", "mrope_section": [16, 24, 24]},
        {"type": "linear", "factor": "4"},
    ],
    ids=lambda value: "none" if value is None else f"{value['type']}-{len(value)}",
)
def test_every_form_of_rope_scaling_gives_a_folder_that_check_takes(
    scaling: dict[str, Any] | None, server: FakeHub, here: Path, run: Run
) -> None:
    put(server, WEIGHTS, rope_scaling=scaling)
    assert run("new", REPO, "--author", "@me")[0] == 0
    code, out, _ = run("check", "example-220m")
    assert (code, "error[" in out, "STO003" in out) == (0, False, False)


def test_a_small_model_claims_the_disk_that_it_needs(server: FakeHub, here: Path, run: Run) -> None:
    put(server, WEIGHTS)
    run("new", REPO)
    proposal = read_entry(here / "catalog/models/example-220m").proposal
    assert proposal is not None
    assert str(proposal.requirements.storage_size) == "0.45GB"


@pytest.mark.parametrize(
    ("size_bytes", "claim"),
    [
        (29_300_000_000, "30GB"),
        (8_300_000_000, "9GB"),
        (2_470_000_000, "2.5GB"),
        (440_001_000, "0.45GB"),
        (22_713_216, "0.023GB"),
        (17, "0.000001GB"),
        (0, "0GB"),
    ],
)
def test_a_size_is_claimed_in_whole_gb_where_that_is_not_far_more(size_bytes: int, claim: str) -> None:
    assert at_least_gb(size_bytes) == claim


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        (
            {"pytorch_model.bin": lfs_file(b"x", size_bytes=2 * PARAMETERS)},
            {},
            "a model whose weights are pickle files alone, which can run code",
        ),
        (WEIGHTS, {"architectures": ["FooForCausalLM"]}, "ARC002: vLLM 0.25.1 has no FooForCausalLM"),
    ],
    ids=["pickle", "architecture"],
)
def test_what_check_would_refuse_is_said_and_not_written(
    files: dict[str, FakeFile], changes: dict[str, Any], message: str, server: FakeHub, here: Path, run: Run
) -> None:
    put(server, files, **changes)
    code, out, err = run("new", REPO)
    assert (code, out) == (1, "")
    assert message in err
    assert not (here / "catalog/models/example-220m").exists()

"""Which repository an address means, and what a repository is that is no model to serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.addresses import Address, address_in, one_revision, read_address
from kaito_catalog.hub.fake.files import FakeFile, json_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub

PHI = "microsoft/phi-4"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        (PHI, None),
        (f" {PHI}/ ", None),
        (f"https://huggingface.co/{PHI}", None),
        (f"https://huggingface.co/{PHI}.git", None),
        (f"https://huggingface.co/{PHI}?library=transformers", None),
        (f"https://huggingface.co/{PHI}#usage", None),
        (f"https://huggingface.co/{PHI}/tree/main", "main"),
        (f"https://huggingface.co/{PHI}/commit/{COMMIT}", COMMIT),
        (f"https://huggingface.co/{PHI}/blob/{COMMIT}/config.json", COMMIT),
        (f"https://huggingface.co/{PHI}/resolve/v1.0/config.json?download=true", "v1.0"),
        (f"https://huggingface.co/{PHI}/tree/refs%2Fpr%2F3", "refs/pr/3"),
        (f"https://huggingface.co/{PHI}/tree/refs/pr/3/folder", "refs/pr/3"),
        (f"https://huggingface.co/{PHI}/discussions/3", None),
        (f"https://huggingface.co/api/models/{PHI}", None),
        (f"https://huggingface.co/models/{PHI}", None),
        (f"https://hf.co/{PHI}/tree/main", "main"),
        (f"hf.co/{PHI}", None),
        (f"huggingface.co/{PHI}/tree/main", "main"),
        (f"hf://{PHI}@{COMMIT}", COMMIT),
        (f"{PHI}@main", "main"),
        (f"git@hf.co:{PHI}", None),
        (f"https://user:secret@huggingface.co/{PHI}", None),
    ],
)
def test_an_address_gives_repository_and_revision(text: str, revision: str | None) -> None:
    assert read_address(text) == Address(PHI, revision)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://huggingface.co/spaces/org/demo", "is a Space, not a model"),
        ("https://huggingface.co/datasets/org/data/tree/main", "is a data set, not a model"),
        ("datasets/org/data", "is a data set, not a model"),
        ("https://huggingface.co/collections/org/some-123", "is a collection, not a model"),
        ("phi-4", "is not a repository id"),
        ("", "is not a repository id"),
        ("org/../model", "is not a repository id"),
        ("https://huggingface.co/org", "is not a repository id"),
        ("https://huggingface.co/org/%2e%2e", "is not a repository id"),
        ("org/mo\u202edel", "is not a repository id"),
    ],
)
def test_what_is_no_model_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(CatalogError, match=what):
        read_address(text)


def test_two_revisions_that_differ_are_an_error() -> None:
    assert one_revision(Address(PHI, "main"), None) == "main"
    assert one_revision(Address(PHI), "main") == "main"
    with pytest.raises(CatalogError, match="names the revision main, --revision v1"):
        one_revision(Address(PHI, "main"), "v1")


# --- the catalog's own models, by address


@pytest.mark.parametrize(
    "text", ["models/phi-4", "phi-4", "./phi-4", "a/b/c", "org/mo\u202edel", "../phi-4", "/tmp/phi-4", ""]
)
def test_what_may_be_a_path_is_no_address(text: str) -> None:
    assert address_in(text) is None


@pytest.mark.models("phi-4")
@pytest.mark.parametrize(
    "address",
    [PHI, f"https://huggingface.co/{PHI}/tree/main", f"hf.co/{PHI}", f"hf://{PHI}", "Microsoft/Phi-4"],
)
def test_commands_take_an_address_where_they_take_a_name(address: str, here: Path, run: Run) -> None:
    assert run("plan", address, "--gpu", "h100") == run("plan", "phi-4", "--gpu", "h100")
    assert run("check", address) == run("check", "phi-4")
    assert (
        run("dry-run", address, "--plan", "--format", "json")[:2]
        == run("dry-run", "phi-4", "--plan", "--format", "json")[:2]
    )


@pytest.mark.models("phi-4")
@pytest.mark.parametrize("command", ["plan", "check", "record", "dry-run"])
@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("hf.co/other-org/phi-4", "the catalog has microsoft/phi-4, not other-org/phi-4"),
        ("other-org/phi-4", "the catalog has microsoft/phi-4, not other-org/phi-4"),
        (f"{PHI}@{COMMIT}", f"the catalog has {PHI} at 187ef0342fff, not at 0123456789ab"),
        ("https://huggingface.co/spaces/microsoft/phi-4", "is a Space, not a model"),
    ],
)
def test_another_repository_or_commit_is_not_taken_for_the_catalogs(
    command: str, address: str, what: str, here: Path, run: Run
) -> None:
    code, out, err = run(command, address)
    assert (code, out) == (2, "")
    assert what in err


# --- what is no model to serve

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
WEIGHTS = safetensors_file({"BF16": 1000})
REPO = "example-org/Example-Thing"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"adapter_config.json": json_file({}), "adapter_model.safetensors": WEIGHTS},
            "a PEFT adapter of org/base, which is served beside its base model",
        ),
        ({"model-Q4_K_M.gguf": text_file("GGUF")}, "GGUF alone"),
        ({"config.json": json_file(LLAMA), "model-Q4_K_M.gguf": text_file("GGUF")}, "GGUF alone"),
        ({"model_index.json": json_file({}), "unet/config.json": json_file({})}, "a diffusers pipeline"),
        (
            {"config.json": json_file({"_class_name": "AutoencoderKL"}), "model.safetensors": WEIGHTS},
            "a part of a diffusers pipeline",
        ),
        (
            {
                "config.json": json_file({"architecture": "vit_base", "pretrained_cfg": {}}),
                "model.safetensors": WEIGHTS,
            },
            "a timm model",
        ),
        (
            {"modules.json": json_file([]), "0_Transformer/config.json": json_file(LLAMA)},
            "a sentence-transformers",
        ),
        (
            {"4bit/config.json": json_file(LLAMA), "8bit/config.json": json_file(LLAMA)},
            "several models in folders",
        ),
        ({"model.safetensors": WEIGHTS}, "a repository without a config.json"),
        (
            {"config.json": json_file(LLAMA), "model.onnx": text_file("x")},
            "a model whose weights are ONNX alone",
        ),
        ({"config.json": json_file(LLAMA), "README.md": text_file("x")}, "a configuration without weights"),
    ],
)
def test_new_says_what_is_no_model_and_writes_nothing(
    files: dict[str, FakeFile], what: str, server: FakeHub, run: Run, tmp_path: Path, root: Path
) -> None:
    settings: dict[str, Any] = {"base_models": ["org/base"]} if "adapter_config.json" in files else {}
    server.put(repository(REPO, files, **settings))
    into = tmp_path / "models"
    code, out, err = run("new", REPO, "--into", into, "--catalog", root / "catalog")
    assert (code, out) == (1, "")
    assert f"error: {REPO} is {what}" in err
    assert "hint: " in err
    assert not into.exists()


def test_new_keeps_the_revision_of_an_address(server: FakeHub, run: Run, tmp_path: Path, root: Path) -> None:
    server.put(
        repository(REPO, {"config.json": json_file(LLAMA), "model.safetensors": WEIGHTS}, commit=COMMIT)
    )
    address = f"https://huggingface.co/{REPO}/commit/{'f' * 40}"
    code, _, err = run("new", address, "--into", tmp_path, "--catalog", root / "catalog")
    assert code == 2
    assert "ffffffff" in err

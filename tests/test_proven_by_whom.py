"""What a change brings along proves nothing by itself: claims, the Hub's word, and models that are taken away."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalog_helpers import copy_catalog

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.fake.repositories import repository_from_facts
from kaito_catalog.hub.fake.server import FakeHub

MODEL = Path("catalog/models/phi-4")


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments], check=True)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with phi-4 and another model, committed, as the current folder."""
    copy_catalog(tmp_path / "catalog", "phi-4", "phi-3-mini-4k-instruct")
    monkeypatch.chdir(tmp_path)
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(variable, raising=False)
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        git(*arguments)
    return tmp_path


@pytest.fixture
def hub(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that serves phi-4 as it was committed."""
    facts = read_entry(clone / MODEL).facts
    assert facts is not None
    with FakeHub([repository_from_facts(facts)]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def change(name: str, old: str, new: str) -> None:
    path = MODEL / name
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def checked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert cli.main(["check", "--changed-since", "HEAD", "--format", "json", *arguments]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def comment(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["check", "--changed-since", "HEAD", "--format", "markdown", *arguments])
    return capsys.readouterr().out


def relicense() -> None:
    """A change that claims another licence, and brings the facts that agree."""
    change("proposal.yaml", "id: mit", "id: apache-2.0")
    change("facts.yaml", "id: mit", "id: apache-2.0")


def test_facts_that_came_with_the_change_prove_nothing(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relicense()
    (model,) = checked(capsys)["models"]
    assert set(model["claims"].values()) == {"claimed"}
    said = comment(capsys)
    assert "🟡 **Nothing is wrong, not proven yet**" in said
    assert "📝 claimed" in said
    assert "✅ **Ready**" not in said


def test_a_change_that_brings_no_facts_is_judged_by_those_that_were_there(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change("proposal.yaml", "storageSize: 30GB", "storageSize: 31GB")
    (model,) = checked(capsys)["models"]
    assert "claimed" not in model["claims"].values()


def test_the_hub_refutes_facts_that_agree_with_the_proposal_alone(
    clone: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    relicense()
    (model,) = checked(capsys, "--online", code=1)["models"]
    assert model["claims"]["summary.license.id"] == "wrong"
    assert "HUB005" in {finding["code"] for finding in model["findings"]}


def test_the_hub_confirms_facts_that_are_its_own(
    clone: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    change("facts.yaml", "recordedAt: ", "recordedAt:  ")
    (offline,) = checked(capsys)["models"]
    assert set(offline["claims"].values()) == {"claimed"}
    (model,) = checked(capsys, "--online")["models"]
    assert set(model["claims"].values()) == {"proven"}


def test_a_hub_that_cannot_be_asked_leaves_them_claimed(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeHub([]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr("kaito_catalog.cli.hub.Hub", partial(Hub, attempts=1))
    relicense()
    (model,) = checked(capsys, "--online")["models"]
    assert set(model["claims"].values()) == {"claimed"}
    assert any("not confirmed" in skip["reason"] for skip in model["skipped"])


def test_a_configuration_that_the_hub_does_not_have_proves_no_memory(
    clone: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    change("facts.yaml", "num_hidden_layers: 40", "num_hidden_layers: 20")
    (model,) = checked(capsys, "--online", code=1)["models"]
    assert model["claims"]["requirements.gpuCount"] == "unknown"
    assert model["claims"]["summary.license.id"] == "proven"
    assert any("num_hidden_layers" in finding["message"] for finding in model["findings"])


def test_the_comment_of_a_change_that_removes_a_model_says_so_and_what_that_means(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(MODEL)
    said = comment(capsys)
    assert "🗑️ **Removes a model** — 0 models, 1 removed" in said
    assert "Ready" not in said
    assert "### phi-4: removed" in said
    assert checked(capsys)["removed"] == ["phi-4"]
    assert cli.main(["check", "--changed-since", "HEAD"]) == 0
    assert "0 models, 1 removed (phi-4)" in capsys.readouterr().out


def test_the_comment_carries_what_changes(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relicense()
    assert "### phi-4: changed" in comment(capsys)


def test_a_removed_folder_with_a_hostile_name_takes_no_effect(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = clone / "catalog/models/@admin<b>"
    evil.mkdir()
    (evil / "proposal.yaml").write_text("x: 1\n")
    git("add", "-A")
    git("commit", "-qm", "evil")
    shutil.rmtree(evil)
    said = comment(capsys)
    assert "@admin" not in said
    assert "<b>" not in said


def test_a_reported_start_on_the_claimed_gpus_is_told_where_nothing_else_is_known(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = yaml.safe_load((MODEL / "proposal.yaml").read_text())
    (MODEL / "facts.yaml").unlink()
    run = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ReportedRun",
        "model": "phi-4",
        "gpu": {"name": gpu_of(proposal), "count": proposal["requirements"]["gpuCount"]},
        "maxModelLen": proposal["requirements"]["contextLength"],
        "outcome": "served",
        "recordedAt": "2026-11-30",
        "lines": [],
    }
    (MODEL / "evidence/reported.yaml").write_text(json.dumps(run))
    (model,) = checked(capsys)["models"]
    assert model["claims"]["requirements.gpuCount"] == "reported"
    assert model["claims"]["summary.license.id"] == "unknown"


def gpu_of(proposal: dict[str, Any]) -> str:
    machines = yaml.safe_load(Path("catalog/instance-types.yaml").read_text())["instanceTypes"]
    wanted = proposal["deployment"]["instanceType"]
    return next(str(machine["gpu"]) for machine in machines if machine["name"] == wanted)

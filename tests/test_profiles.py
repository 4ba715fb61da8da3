"""Release profiles: every check, plan and generator follows the one that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.checks.base import Context, Outcome, Skip, Subject
from kaito_catalog.checks.evd import current, evidence_is_current

NEXT = "vllm-0.32"


@pytest.fixture
def entry(root: Path) -> Entry:
    """One with an exact plan of the default profile's vLLM and nothing else."""
    return read_entry(root / "catalog" / "models" / "qwen2.5-coder-32b-instruct")


def _judge(entry: Entry, catalog: Catalog, profile: str) -> tuple[list[Outcome], int]:
    assert entry.proposal is not None
    context = Context(catalog.shared, catalog.shared.profile(profile))
    subject = Subject.of(entry)
    return list(evidence_is_current.function(subject, context)), len(current(subject, context))


def test_there_is_a_profile_of_what_kaito_runs_and_one_of_what_comes_next(catalog: Catalog) -> None:
    found = {p.name: (p.vllm_version, p.utilization("NVIDIA H200")) for p in catalog.shared.policy.profiles}
    assert found == {"kaito-v0.12": ("0.25.1", 0.84), NEXT: ("0.32.0", 0.92)}


def test_evidence_of_another_release_is_not_stale_and_proves_nothing_here(
    entry: Entry, catalog: Catalog
) -> None:
    assert _judge(entry, catalog, "kaito-v0.12") == ([], 1)
    (outcome,), counted = _judge(entry, catalog, NEXT)
    assert isinstance(outcome, Skip)
    assert "of other releases" in outcome.reason
    assert counted == 0


def test_a_plan_follows_the_profile(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def budget(*more: str) -> tuple[str, int]:
        arguments = [
            "plan",
            "phi-4",
            "--gpu",
            "NVIDIA H200",
            "--format",
            "json",
            "--catalog",
            str(root / "catalog"),
        ]
        assert cli.main([*arguments, *more]) == 0
        value = json.loads(capsys.readouterr().out)
        return value["vllmVersion"], value["perGPU"]["budgetBytes"]

    (old, less), (new, more) = budget(), budget("--profile", NEXT)
    assert (old, new) == ("0.25.1", "0.32.0")
    assert more / less == pytest.approx(0.92 / 0.84)


def test_generated_manifests_follow_the_profile(root: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--no-site", "--catalog", str(root / "catalog")]
    for profile in ("kaito-v0.12", NEXT):
        assert cli.main([*arguments, "--profile", profile, "--output", str(tmp_path / profile)]) == 0
    page = "site-src/models/phi-4.md"
    assert "vLLM 0.25.1" in (tmp_path / "kaito-v0.12" / page).read_text(encoding="utf-8")
    assert "vLLM 0.32.0" in (tmp_path / NEXT / page).read_text(encoding="utf-8")

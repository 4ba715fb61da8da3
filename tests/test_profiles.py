"""Release profiles: every check, plan and generator follows the one that is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from catalog_helpers import Run, copy_catalog

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.checks.base import Context, Finding, Outcome, Skip, Subject
from kaito_catalog.checks.evd import current, evidence_is_current
from kaito_catalog.checks.kto import kaito_starts_what_is_claimed

NEXT = "vllm-0.32"
MAIN = "kaito-main-0a69b1b"
NEMOTRON = "nvidia-nemotron-nano-9b-v2"


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
    assert found == {"kaito-v0.12": ("0.25.1", 0.84), MAIN: ("0.25.1", 0.92), NEXT: ("0.32.0", 0.92)}


def test_an_a10_is_started_with_less_by_both_releases_of_kaito(catalog: Catalog) -> None:
    for name in ("kaito-v0.12", MAIN):
        assert catalog.shared.profile(name).utilization("NVIDIA A10") == 0.82
    assert catalog.shared.profile(MAIN).utilization("NVIDIA A10G") == 0.92


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


@pytest.mark.models("phi-4")
def test_generated_manifests_follow_the_profile(here: Path, run: Run) -> None:
    for profile in ("kaito-v0.12", NEXT):
        assert run("generate", "--no-site", "--profile", profile, "--output", profile)[0] == 0
    page = "site-src/models/phi-4.md"
    assert "vLLM 0.25.1" in (here / "kaito-v0.12" / page).read_text(encoding="utf-8")
    assert "vLLM 0.32.0" in (here / NEXT / page).read_text(encoding="utf-8")


def test_what_kaito_would_do_follows_the_release_of_the_profile(root: Path, tmp_path: Path) -> None:
    catalog = copy_catalog(tmp_path / "catalog", NEMOTRON)
    arguments = ["generate", "--no-site", "--catalog", str(catalog)]
    for profile in ("kaito-v0.12", MAIN):
        assert cli.main([*arguments, "--profile", profile, "--output", str(tmp_path / profile)]) == 0

    def text(profile: str, name: str) -> str:
        return (tmp_path / profile / name).read_text(encoding="utf-8")

    page, rows = f"site-src/models/{NEMOTRON}.md", "kaito/model_catalog.yaml"
    assert "What KAITO v0.12 would do" in text("kaito-v0.12", page)
    assert "What KAITO main-0a69b1b would do" in text(MAIN, page)
    assert "mambaStateBytesPerSeq" not in text("kaito-v0.12", rows)
    assert yaml.safe_load(text(MAIN, rows))["models"][0]["mambaStateBytesPerSeq"] == 143_548_416

    def nodes(profile: str) -> int:
        said = json.loads(text(profile, f"site-src/api/v1/models/{NEMOTRON}.json"))["kaito"]
        assert f"kaito-{said['release']}" == profile
        (start,) = (s for s in said["instanceTypes"] if s["name"] == "Standard_NV36ads_A10_v5")
        return int(start["nodes"])

    assert (nodes("kaito-v0.12"), nodes(MAIN)) == (2, 3)


def test_generate_compares_with_the_release_of_the_profile(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = copy_catalog(tmp_path / "catalog", NEMOTRON)
    arguments = ["generate", "--no-site", "--catalog", str(catalog)]
    assert cli.main([*arguments, "--profile", MAIN, "--output", str(tmp_path / "main")]) == 0
    compare = [*arguments, "--compare", str(tmp_path / "main/kaito/model_catalog.yaml")]
    assert cli.main([*compare, "--profile", MAIN]) == 0
    capsys.readouterr()
    assert cli.main(compare) == 1
    assert "mambaStateBytesPerSeq: ours none, KAITO's 143548416" in capsys.readouterr().out


def test_the_checks_of_kaitos_choices_follow_the_release_of_the_profile(catalog: Catalog) -> None:
    found = catalog.entry(NEMOTRON)
    assert found is not None
    assert found.proposal is not None
    assert found.proposal.deployment is not None
    on_a10s = found.proposal.deployment.model_copy(update={"instance_type": "Standard_NV36ads_A10_v5"})
    claims = found.proposal.model_copy(update={"deployment": on_a10s})
    subject = Subject.of(replace(found, proposal=claims))

    def said(profile: str) -> list[str]:
        context = Context(catalog.shared, catalog.shared.profile(profile))
        outcomes = kaito_starts_what_is_claimed.function(subject, context)
        return [outcome.message for outcome in outcomes if isinstance(outcome, Finding)]

    (before,), (after,) = said("kaito-v0.12"), said(MAIN)
    assert "KAITO would start 2 × Standard_NV36ads_A10_v5" in before
    assert "KAITO would start 3 × Standard_NV36ads_A10_v5" in after

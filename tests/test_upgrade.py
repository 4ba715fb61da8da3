"""`diff` between two profiles or versions of vLLM: figures as `plan` gives them, and what is found otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run, break_proposal

from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.reports.upgrade import upgrades
from kaito_catalog.site import upgrades_page

pytestmark = pytest.mark.models("phi-4", "gemma-3-27b-it")
MACHINE = "Standard_NC24ads_A100_v4"


def planned(run: Run, model: str, *arguments: str) -> dict[str, Any]:
    _, shown, _ = run("plan", model, "--instance-type", MACHINE, "--format", "json", *arguments)
    plan: dict[str, Any] = json.loads(shown)
    return {
        "fits": plan["fits"],
        "reason": plan["reason"],
        "kvCacheAvailableBytes": plan["perGPU"]["kvCacheAvailableBytes"],
        "longestModelLen": plan["kvCache"]["longestModelLen"],
        "nodeCount": plan["nodeCount"],
    }


@pytest.mark.parametrize(
    ("between", "first", "second"),
    [
        (("--profile", "kaito-v0.12..vllm-0.32"), (), ("--profile", "vllm-0.32")),
        (
            ("--profile", "vllm-0.32..kaito-main-0a69b1b"),
            ("--profile", "vllm-0.32"),
            ("--profile", "kaito-main-0a69b1b"),
        ),
        (("--vllm-version", "v0.25.1..0.32.0"), (), ("--vllm-version", "0.32.0")),
    ],
    ids=["profile", "another profile", "vllm"],
)  # fmt: skip
def test_both_sides_are_what_plan_says(
    between: tuple[str, ...], first: tuple[str, ...], second: tuple[str, ...], here: Path, run: Run
) -> None:
    code, shown, _ = run("diff", *between, "--instance-type", MACHINE, "--format", "json")
    rows = json.loads(shown)["rows"]
    assert code == 0
    assert [row["model"] for row in rows] == ["gemma-3-27b-it", "phi-4"]
    for row in rows:
        assert row["before"] == planned(run, row["model"], *first)
        assert row["after"] == planned(run, row["model"], *second)
        assert row["before"] != row["after"]


def test_an_option_that_the_later_vllm_has_not_is_told(here: Path, run: Run) -> None:
    break_proposal(here, "max-model-len: 16384\n", "max-model-len: 16384\n    max-num-partial-prefills: 1\n")
    code, shown, _ = run("diff", "--vllm-version", "0.25.1..0.32.0")
    assert code == 0
    assert "## From vLLM 0.25.1 to vLLM 0.32.0" in shown
    assert "- phi-4: RUN002" in shown
    assert "max-num-partial-prefills" in shown
    _, back, _ = run("diff", "--vllm-version", "0.32.0..0.25.1")
    assert "- phi-4: no longer RUN002" in back


def test_the_same_twice_changes_nothing(here: Path, run: Run) -> None:
    _, shown, _ = run("diff", "--profile", "kaito-v0.12..kaito-v0.12")
    assert "2 models: 2 as before." in shown
    assert "→" not in shown


def test_a_version_that_has_not_been_read_is_named(here: Path, run: Run) -> None:
    _, shown, _ = run("diff", "--vllm-version", "0.25.1..0.29.0")
    assert "vLLM 0.29.0 has not been read: planned as 0.25.1" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "diff needs a commit, or two profiles or versions"),
        (("--vllm-version", "0.32.0"), "diff compares two versions of vLLM"),
        (("--vllm-version", "0.25.1..new"), "'new' is not a version of vLLM"),
        (("--profile", "kaito-v0.12..kaito-v9"), "there is no profile 'kaito-v9'"),
        (("HEAD", "--profile", "kaito-v0.12..vllm-0.32"), "not both at once"),
        (("--profile", "kaito-v0.12..vllm-0.32", "--vllm-version", "0.25.1..0.32.0"), "not both at once"),
        (("HEAD", "--format", "json"), "are for two profiles or versions"),
        (("--profile", "kaito-v0.12..vllm-0.32", "--instance-type", "NC24"), "there is no instance type 'NC24'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(
    arguments: tuple[str, ...], words: str, here: Path, run: Run
) -> None:
    code, _, said = run("diff", *arguments)
    assert code == 2
    assert words in said


def test_the_page_compares_the_default_profile_with_every_other(here: Path) -> None:
    catalog = read_catalog(here / "catalog")
    shown = upgrades_page.page(upgrades(catalog))
    others = [p.name for p in catalog.shared.policy.profiles if p.name != catalog.shared.policy.profile]
    assert len(others) > 1
    for name in others:
        assert f"## From {catalog.shared.policy.profile} to {name}" in shown
    assert "| [phi-4](models/phi-4.md) |" in shown
    assert "nothing to compare" in upgrades_page.page(())

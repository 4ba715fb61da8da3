"""Which places know a version of vLLM: those that the project has do, and one that it has not is missing everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaito_catalog.vllm_bridge.reference import versions
from tools import add_vllm, exact_models, known_differences
from tools.setup_vllm import OVERLAYS

UNKNOWN = "99.1.0"


@pytest.mark.parametrize("version", OVERLAYS)
def test_every_version_of_the_project_is_in_every_required_place(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add_vllm.main([version, "--check"]) == 0
    assert "0 of 8 required places are missing" in capsys.readouterr().out


def test_the_versions_are_listed_once_and_each_has_its_file() -> None:
    assert set(versions()) == set(OVERLAYS) == set(exact_models.VERSIONS)


def test_an_unknown_version_is_missing_in_every_required_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert add_vllm.main([UNKNOWN, "--check"]) == 1
    out = capsys.readouterr().out
    assert "8 of 8 required places are missing" in out
    assert f"MISSING kaito_catalog/data/vllm-{UNKNOWN}.json: there is no such file" in out
    assert f"python -m tools.exact_models --record --version {UNKNOWN}" in out


def test_without_check_it_only_says_so() -> None:
    assert add_vllm.main([UNKNOWN]) == 0


def test_what_is_no_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert add_vllm.main(["newest"]) == 2
    assert "'newest' is not a version of vLLM" in capsys.readouterr().err


def test_a_new_option_of_which_nothing_is_said_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(add_vllm, "why_harmless", lambda name: None)
    assert add_vllm.unsorted_options("0.25.1") == []
    found = add_vllm.unsorted_options("0.32.0")
    assert "cudagraph-metrics" not in found  # 0.25.1 has it too
    assert found != []


def test_a_model_that_differs_without_a_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert add_vllm.differences("0.32.0") == []
    monkeypatch.setattr(known_differences, "SMALL_BOUNDS", {})
    assert add_vllm.differences("0.32.0") == ["NemotronParseForConditionalGeneration", "PhiForCausalLM"]


def test_names_that_have_moved_are_said_one_by_one() -> None:
    assert add_vllm.moved({"the platform": "vllm.platforms:_current_platform"}, []) == ()
    assert add_vllm.moved({"the admission check": None}, ["vllm.a:b"]) == (
        "the admission check: nowhere that NAMES says",
        "vllm.a:b: not as its `since` and `gone_by` say",
    )


def test_without_a_vllm_to_ask_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert add_vllm.main([UNKNOWN, "--names", "--vllm-python", str(tmp_path / "python")]) == 2
    assert "error: " in capsys.readouterr().err

"""`evidence add`: what is recorded gives way to what shows as much, and to nothing less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.vllm_bridge.evidence import config_sha256

pytestmark = pytest.mark.models("phi-4", evidence=False)


def line(here: Path, **changes: Any) -> Path:
    """A file with a dry run of phi-4 as one line of JSON."""
    facts = read_entry(here / "catalog/models/phi-4").facts
    assert facts is not None
    assert facts.config is not None
    value = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "DryRun",
        "model": "phi-4",
        "revision": facts.revision,
        "configSha256": config_sha256(facts.config),
        "versions": {"vllm": "0.25.1"},
        "device": "cuda",
        "gpu": {"name": "NVIDIA A100-SXM4-80GB", "count": 1},
        "command": ["--max-model-len=4096"],
        "weights": "dummy",
        "outcome": "served",
        "recordedAt": "2026-01-05",
        **changes,
    }
    path = here / "run.json"
    path.write_text(json.dumps({key: part for key, part in value.items() if part is not None}) + "\n")
    return path


def outcome(here: Path) -> str:
    (found,) = read_entry(here / "catalog/models/phi-4").evidence
    return str(getattr(found.record, "outcome", ""))


FAILED = {"outcome": "failed", "failure": "time-out", "message": "no answer", "recordedAt": "2026-02-01"}


def test_a_failed_start_does_not_replace_one_that_served(here: Path, run: Run) -> None:
    assert run("evidence", "add", line(here))[0] == 0
    code, out, err = run("evidence", "add", line(here, **FAILED))
    assert (code, out) == (1, "")
    assert "stays: it served on 2026-01-05, and this one failed" in err
    assert outcome(here) == "served"


def test_it_does_where_that_is_asked_for_and_what_went_is_named(here: Path, run: Run) -> None:
    run("evidence", "add", line(here))
    code, out, _ = run("evidence", "add", line(here, **FAILED), "--replace")
    assert code == 0
    assert out.startswith("replaced ")
    assert out.endswith("(served of 2026-01-05)\n")
    assert outcome(here) == "failed"


def test_a_start_that_served_replaces_one_that_failed(here: Path, run: Run) -> None:
    run("evidence", "add", line(here, **FAILED))
    code, out, _ = run("evidence", "add", line(here, recordedAt="2026-02-02"))
    assert (code, outcome(here)) == (0, "served")
    assert "(failed of 2026-02-01)" in out


def test_the_same_again_is_unchanged(here: Path, run: Run) -> None:
    assert run("evidence", "add", line(here))[1].startswith("wrote ")
    assert run("evidence", "add", line(here))[1].startswith("unchanged: ")


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"recordedAt": "2026-03-01"}, {}, "this one is older (2026-01-05)"),
        (
            {"weights": "real"},
            {"recordedAt": "2026-03-01"},
            "with the real weights, and this one has random ones",
        ),
        ({"outcome": "does-not-fit"}, FAILED, "it did not fit on 2026-01-05, and this one failed"),
    ],
)
def test_what_shows_more_stays(
    before: dict[str, Any], after: dict[str, Any], why: str, here: Path, run: Run
) -> None:
    assert run("evidence", "add", line(here, **before))[0] == 0
    code, _, err = run("evidence", "add", line(here, **after))
    assert code == 1
    assert why in err

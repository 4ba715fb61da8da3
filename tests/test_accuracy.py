"""How near plans come to what vLLM printed: recorded starts, so that an error that grows fails here."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from kaito_catalog.architectures import read_shape
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.memory.values import Fit
from tools import transcribe_starts
from tools.bench_memory import KAITO, OURS, Score, is_calibrated, quantile, score
from tools.configurations import smallest
from tools.observed import STARTS, observations


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    rows, _ = observations()
    return [score(row) for row in rows]


@pytest.fixture(scope="module")
def errors(scores: list[Score]) -> list[float]:
    return [e for s in scores if (e := s.error(OURS)) is not None]


def test_the_median_error_stays_below_a_thousandth(errors: list[float]) -> None:
    assert len(errors) >= 57
    assert statistics.median(map(abs, errors)) <= 0.001


def test_nine_of_ten_starts_are_met_within_two_hundredths(errors: list[float]) -> None:
    assert quantile(list(map(abs, errors)), 0.9) <= 0.015


def test_no_start_is_missed_by_more_than_a_twentieth(errors: list[float]) -> None:
    assert max(map(abs, errors)) <= 0.041


def test_memory_that_is_not_there_is_never_promised_beyond_a_hundredth(errors: list[float]) -> None:
    assert max(errors) <= 0.005


def test_starts_on_the_gpu_that_was_calibrated_are_met_within_half_a_hundredth(scores: list[Score]) -> None:
    known = [s for s in scores if is_calibrated(s.observed)]
    assert len(known) >= 39
    assert max(abs(s.ours) for s in known) <= 0.004


def test_no_verdict_is_refuted_by_a_start(scores: list[Score]) -> None:
    assert [s.observed.id for s in scores if s.wrong(OURS)] == []


def test_starts_that_failed_are_among_those_that_verdicts_are_held_to(scores: list[Score]) -> None:
    failed = [s for s in scores if s.started is False]
    assert len(failed) >= 3
    assert all(s.plan.fits is Fit.NO for s in failed)


def test_tight_and_unknown_are_no_refuge(scores: list[Score]) -> None:
    for refuge in (Fit.TIGHT, Fit.UNKNOWN):
        assert sum(s.plan.fits is refuge for s in scores) < len(scores) / 10


def test_the_plan_is_nearer_than_kaitos_formula(scores: list[Score]) -> None:
    def median(tool: str) -> float:
        return statistics.median(abs(e) for s in scores if (e := s.error(tool)) is not None)

    assert median(OURS) < median(KAITO) / 10


def test_every_start_says_where_it_was_published() -> None:
    rows, _ = observations()
    assert all(row.source and not row.source.startswith("index") for row in rows)


def test_a_reduced_configuration_has_the_shape_of_the_whole_one(catalog: Catalog) -> None:
    whole = {e.facts.repo_id: e.facts.config for e in catalog.entries if e.facts and e.facts.config}
    for config in whole.values():
        assert read_shape(smallest(config)) == read_shape(config)
    started = json.loads(STARTS.read_text(encoding="utf-8"))["models"]
    both = whole.keys() & started.keys()
    assert len(both) >= 3
    assert [name for name in both if read_shape(started[name]["config"]) != read_shape(whole[name])] == []


def test_without_the_published_logs_it_says_which_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe_starts.main([str(tmp_path)]) == 2
    assert f"{tmp_path}/truth/observations.jsonl is missing" in capsys.readouterr().err

"""Plans of starts with their whole command line: what is answered, and no verdict that a start refuted."""

from __future__ import annotations

import pytest

from kaito_catalog.architectures import Shape
from kaito_catalog.quantity import GIB
from tools import field
from tools.bench_memory import OURS, Prediction


@pytest.fixture(scope="module")
def scores() -> dict[str, field.FieldScore]:
    return {start.id: field.score(start) for start in field.field_starts()}


def test_every_start_says_where_it_was_published_and_how_good_its_figures_are() -> None:
    starts = field.field_starts()
    assert len({start.id for start in starts}) == len(starts) >= 46
    for start in starts:
        assert start.source
        assert start.quality in ("A", "B", "C")


def test_what_a_report_does_not_state_is_named_on_its_line(scores: dict[str, field.FieldScore]) -> None:
    assert field.line(scores["rep059"]).endswith("[inferred: vllmVersion, gpu, gpu-memory-utilization]")


def test_a_line_says_which_option_makes_a_plan_unknown(scores: dict[str, field.FieldScore]) -> None:
    assert "UNKNOWN, no plan reads cpu-offload-gb 50" in field.line(scores["rep063"])


def test_every_option_of_a_start_reaches_its_plan() -> None:
    start = next(s for s in field.field_starts() if s.id == "rep018")
    request = field.request_of(start)
    assert not isinstance(request, str)
    assert request.settings.gpu_memory_utilization == 0.86
    assert request.settings.max_model_len == 32768


def test_all_but_one_configuration_can_be_read() -> None:
    unread = {s.model for s in field.field_starts() if not isinstance(s.shape, Shape)}
    assert unread <= {"meta-llama/Muse-Glimmer-30B-FP8-block"}


def test_a_rounded_figure_is_met_within_its_rounding(scores: dict[str, field.FieldScore]) -> None:
    found = scores["rep029"]
    assert found.printed_bytes == 50 * GIB
    assert found.error_bytes() == 0


def test_a_verdict_is_wrong_where_the_start_went_otherwise(scores: dict[str, field.FieldScore]) -> None:
    found = scores["rep022"]
    refuted = field.FieldScore(found.start, found.plan, {OURS: Prediction(0.0, True)})
    assert refuted.is_wrong()
    assert not found.is_wrong()


def test_the_command_prints_a_line_for_the_start_that_was_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert field.main(["rep014"]) == 0
    assert capsys.readouterr().out.startswith("rep014  A meta-llama/Llama-3.1-8B-Instruct, vLLM 0.25.0")
    assert field.main(["nothing"]) == 2

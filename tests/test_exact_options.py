"""Options of vLLM's command line: each plan equals what vLLM's own classes and planner make of the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaito_catalog.memory.values import Fit
from kaito_catalog.vllm_bridge.client import Worker
from tools import exact_options
from tools.exact_options import CASES, VERSIONS, Case, ask, differences, plan_of

RECORDED = exact_options.recorded()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_plan_with_the_option_is_that_of_vllm(case: Case, version: str) -> None:
    answer, plan = RECORDED[case.key][version], plan_of(case, version)
    assert differences(plan, answer) == []
    if "refused" not in answer:
        assert plan.per_gpu is not None, plan.reason
    elif not answer["refused"].startswith(exact_options.NOT_HERE):
        assert plan.fits in (Fit.NO, Fit.UNKNOWN)


def test_every_case_is_recorded_once_for_each_version() -> None:
    assert len({case.key for case in CASES}) == len(CASES)
    assert RECORDED.keys() == {case.key for case in CASES}
    assert {version for answers in RECORDED.values() for version in answers} == set(VERSIONS)


def test_vllm_still_says_what_is_recorded(vllm_python: Path) -> None:
    cases = [case for case in CASES if case.model == "qwen3-next-80b"][1:3]
    with Worker(vllm_python) as worker:
        assert [ask(worker, case, "0.32.0") for case in cases] == [RECORDED[c.key]["0.32.0"] for c in cases]

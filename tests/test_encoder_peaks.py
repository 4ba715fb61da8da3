"""What an encoder holds while vLLM profiles it: the plan beside what vLLM's own classes allocate on the meta device."""

from __future__ import annotations

import pytest

from tools.encoder_peaks import CASES, configurations, planned, recorded


@pytest.mark.parametrize("name", CASES)
def test_the_plan_reckons_what_vllms_own_encoder_holds(name: str) -> None:
    said, plan = recorded()[name], planned(configurations()[name])
    assert plan.peak_bytes == pytest.approx(said["peakBytes"], rel=0.05)
    assert plan.kept_bytes == pytest.approx(said["inputBytes"] + said["outputBytes"], rel=0.001)


def test_every_encoder_was_asked_about() -> None:
    assert recorded().keys() == CASES.keys()

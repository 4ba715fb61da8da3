"""Recommended instance types: the smallest that fits, and the smallest with headroom."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog, with_profile
from kaito_catalog.memory.values import Fit
from kaito_catalog.plans import recommend
from kaito_catalog.plans.instance_types import InstanceTypePlan, plan_instance_types
from kaito_catalog.site.figures import plan_figures


@pytest.fixture(scope="module")
def rows(catalog: Catalog) -> tuple[InstanceTypePlan, ...]:
    found = catalog.entry("gpt-oss-20b")
    assert found is not None
    assert found.facts is not None
    return plan_instance_types(
        found.facts, catalog.shared, catalog.shared.policy.default_profile(), max_model_len=32768
    )


def roomy(row: InstanceTypePlan, *, spare: int, error: int, request: int) -> InstanceTypePlan:
    """`row` with chosen figures: what is left after one request, the expected error, one request."""
    assert row.plan.per_gpu is not None
    assert row.plan.kv_cache is not None
    figures = replace(
        row.plan.per_gpu, kv_cache_available_bytes=request + spare, kv_cache_needed_bytes=request
    )
    cache = replace(row.plan.kv_cache, pool_bytes=request)
    plan = replace(row.plan, fits=Fit.YES, per_gpu=figures, kv_cache=cache, expected_error_bytes=error)
    return replace(row, plan=plan)


@pytest.mark.parametrize(("spare", "expected"), [(29, False), (30, True)])
def test_headroom_is_twice_the_error_and_a_second_request(
    rows: tuple[InstanceTypePlan, ...], spare: int, expected: bool
) -> None:
    assert recommend.has_headroom(roomy(rows[0], spare=spare, error=10, request=10).plan) is expected


def test_a_tight_plan_has_no_headroom_whatever_is_left(rows: tuple[InstanceTypePlan, ...]) -> None:
    row = roomy(rows[0], spare=10**12, error=1, request=1)
    assert not recommend.has_headroom(replace(row.plan, fits=Fit.TIGHT))


def test_the_first_of_each_kind_is_taken(rows: tuple[InstanceTypePlan, ...]) -> None:
    small = roomy(rows[0], spare=5, error=10, request=10)
    large = roomy(rows[1], spare=50, error=10, request=10)
    found = recommend.recommend([small, large], max_model_len=1)
    assert found.smallest is not None
    assert found.with_headroom is not None
    assert found.smallest.name == small.instance_type.name
    assert found.with_headroom.name == large.instance_type.name


def test_the_reason_gives_what_is_spare_and_what_was_wanted(rows: tuple[InstanceTypePlan, ...]) -> None:
    found = recommend.recommend(rows, max_model_len=32768)
    assert found.smallest is not None
    assert found.with_headroom is not None
    assert "to spare on each GPU after one request" in found.smallest.reason
    assert "a second request of that context" in found.with_headroom.reason


def test_nothing_is_recommended_where_nothing_fits(rows: tuple[InstanceTypePlan, ...]) -> None:
    unfit = [replace(row, plan=replace(row.plan, fits=Fit.NO)) for row in rows]
    found = recommend.recommend(unfit, max_model_len=1)
    assert (found.smallest, found.with_headroom, recommend.text(found)) == (None, None, "")


def test_each_cloud_has_its_own(rows: tuple[InstanceTypePlan, ...]) -> None:
    for cloud, found in recommend.by_cloud(rows, max_model_len=32768).items():
        assert found.smallest is None or found.smallest.cloud == cloud


def plan_json(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert cli.main(["plan", "phi-4", "--catalog", str(root / "catalog"), "--format", "json"]) == cli.OK
    return json.loads(capsys.readouterr().out)


def test_plan_recommends_in_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = plan_json(root, capsys)["recommended"]
    assert value["maxModelLen"] == 16384
    assert value["withHeadroom"]["name"] == "Standard_NC24ads_A100_v4"
    assert {"azure", "aws"} <= value["byCloud"].keys()


def test_plan_recommends_in_words(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "phi-4", "--catalog", str(root / "catalog")])
    out = capsys.readouterr().out
    assert "smallest that fits: " in out
    assert "with headroom: " in out


def test_the_figures_follow_the_release_that_is_asked_for(catalog: Catalog) -> None:
    policy = catalog.shared.policy
    other = policy.profiles[0].model_copy(update={"name": "roomier", "gpu_memory_utilization": 0.92})
    both = policy.model_copy(update={"profiles": (*policy.profiles, other)})
    roomier = with_profile(replace(catalog, shared=replace(catalog.shared, policy=both)), other.name)
    found = roomier.entry("phi-4")
    assert found is not None
    assert plan_figures(found, roomier.shared).profile == "roomier"

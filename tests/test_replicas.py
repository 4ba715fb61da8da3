"""Users at once: how many replicas of a machine serve them, what that costs, and the manifests of exactly that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from catalog_helpers import Run

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.plans import recommend
from kaito_catalog.plans.instance_types import InstanceTypePlan
from kaito_catalog.plans.planned_manifests import planned_manifests, proposed_manifests
from kaito_catalog.plans.replicas import for_users, replicas_on
from kaito_catalog.plans.request import PlanArguments, plan_all, read_subject
from kaito_catalog.plans.start import start_of

pytestmark = pytest.mark.models("phi-4")
A100 = "Standard_NC24ads_A100_v4"


@pytest.fixture(scope="module")
def rows(catalog: Catalog) -> tuple[InstanceTypePlan, ...]:
    """phi-4 on every instance type."""
    shared = catalog.shared
    profile = shared.policy.default_profile()
    subject = read_subject(PlanArguments("phi-4"), catalog.root, shared=shared, profile=profile)
    return plan_all(subject, shared)


def row_of(rows: tuple[InstanceTypePlan, ...], name: str) -> InstanceTypePlan:
    return next(row for row in rows if row.instance_type.name == name)


@pytest.mark.parametrize(("users", "replicas"), [(1, 1), (12, 1), (13, 2), (50, 5)])
def test_replicas_hold_a_request_of_every_user(
    rows: tuple[InstanceTypePlan, ...], users: int, replicas: int
) -> None:
    found = replicas_on(row_of(rows, A100), users)
    assert found is not None
    assert (found.requests_at_once, found.count) == (12, replicas)
    assert found.price_an_hour == pytest.approx(3.673 * replicas)
    assert found.price_a_month == pytest.approx(3.673 * replicas * 730)


def test_the_least_price_of_all_replicas_comes_first_and_what_has_none_last(
    rows: tuple[InstanceTypePlan, ...],
) -> None:
    found = for_users(rows, 50)
    prices = [each.price_an_hour for each in found]
    priced = [price for price in prices if price is not None]
    assert priced == sorted(priced)
    assert prices[len(priced) :] == [None] * (len(prices) - len(priced))
    assert found[0].row.instance_type.name == A100


def test_the_least_memory_of_all_replicas_comes_first_where_size_is_asked_for(
    rows: tuple[InstanceTypePlan, ...],
) -> None:
    found = for_users(rows, 50, sort="size")
    memory = [e.machines * e.row.instance_type.gpu_count * (e.row.plan.gpu.memory_bytes or 0) for e in found]
    assert memory == sorted(memory)


def test_what_may_not_fit_serves_nobody(rows: tuple[InstanceTypePlan, ...]) -> None:
    unsure = [row for row in rows if not row.is_certain]
    assert unsure
    assert all(each.row not in unsure for each in for_users(rows, 5))


def test_more_requests_than_max_num_seqs_are_not_served_at_once(rows: tuple[InstanceTypePlan, ...]) -> None:
    plan = row_of(rows, A100).plan
    few = replace(plan, settings=replace(plan.settings, max_num_seqs=4))
    assert recommend.requests_at_once(few) == 4
    copies = replace(few, parallelism=replace(few.parallelism, data_parallel_size=2))
    assert recommend.requests_at_once(copies) == 8


def test_plan_for_users_says_replicas_costs_and_what_is_not_counted(here: Path, run: Run) -> None:
    code, out, _ = run("plan", "phi-4", "--users", "50", "--cloud", "azure")
    assert code == 0
    assert out.startswith("phi-4 for 50 users at once, each with up to 16,384 tokens")
    assert (
        f"cheapest for 50 users at once: 5 replicas on {A100}, 12 requests at once each: 18.37 USD an hour"
        in out
    )
    assert "13,406 USD a month" in out
    assert "how fast the replies come is not planned" in out
    assert f"next: kaito-catalog plan phi-4 --users 50 --instance-type {A100} --manifest" in out


def test_plan_for_users_as_json(here: Path, run: Run) -> None:
    value = json.loads(run("plan", "phi-4", "--users", "50", "--cloud", "all", "--format", "json")[1])
    found = value["forUsers"]
    assert (found["users"], found["hoursAMonth"]) == (50, 730)
    assert found["instanceTypes"][0] == {
        "name": A100, "cloud": "azure", "requestsAtOnce": 12, "replicas": 5, "machines": 5, "currency": "USD",
        "anHour": 18.365, "aMonth": 13406.45,
    }  # fmt: skip
    rows = {row["name"]: row["requestsAtOnce"] for row in value["instanceTypes"]}
    assert rows[A100] == 12
    alone = json.loads(run("plan", "phi-4", "--users", "50", "--instance-type", A100, "--format", "json")[1])
    assert alone["forUsers"]["instanceTypes"] == found["instanceTypes"][:1]
    assert alone["price"]["region"] == "eastus"


def test_one_machine_says_its_price_with_region_date_and_source(here: Path, run: Run) -> None:
    out = run("plan", "phi-4", "--instance-type", A100)[1]
    assert "price: 3.67 USD an hour on demand in eastus, as listed on 2026-06-18; 0.31 for each of 12" in out
    assert "(Azure/karpenter-provider-azure@" in out
    out = run("plan", "phi-4", "--instance-type", "p5e.48xlarge", "--users", "3")[1]
    assert "price: none is recorded for it (--price TYPE=USD gives one)" in out
    assert "at once each; no price is recorded for it" in out


def test_a_price_of_ones_own_stands_in_place_of_the_list(here: Path, run: Run) -> None:
    own = ("--price", "standard_nv72ads_a10_v5=0.05")
    out = run("plan", "phi-4", *own, "--cloud", "azure", "--region", "westeurope")[1]
    assert (
        "cheapest that fits: Standard_NV72ads_A10_v5 (least price of all that fit: 0.05 USD an hour by your"
        in out
    )
    assert "your own for Standard_NV72ads_A10_v5" in out
    price = json.loads(run("plan", "phi-4", *own, "--format", "json")[1])["recommended"]["cheapest"]["price"]
    assert price == {
        "anHour": 0.05, "currency": "USD", "region": None, "date": None, "source": "your own price",
    }  # fmt: skip


@pytest.mark.parametrize("wrong", ["A10", "=3", f"{A100}=0", f"{A100}=-1", f"{A100}=nan", f"{A100}=x"])
def test_a_price_that_is_none_is_a_usage_error(here: Path, run: Run, wrong: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run("plan", "phi-4", "--price", wrong)
    assert stop.value.code == 2


def test_a_price_of_no_instance_type_names_the_nearest(here: Path, run: Run) -> None:
    code, _, err = run("plan", "phi-4", "--price", "Standard_NC24ads_A100_v5=3")
    assert code == 2
    assert f"did you mean {A100}?" in err


# --- manifests -------------------------------------------------------------------------------------------------


def test_the_manifests_of_a_planned_start_are_those_of_the_generator(catalog: Catalog) -> None:
    profile = catalog.shared.policy.default_profile()
    for entry in catalog.entries:
        proposal = entry.proposal
        assert proposal is not None
        generated = proposed_manifests(proposal, entry.facts, catalog.shared, profile)
        length = proposal.max_model_len or 8192
        start = start_of(proposal, entry.facts, catalog.shared, profile, max_model_len=length)
        machine = catalog.shared.instance_type(
            (proposal.deployment and proposal.deployment.instance_type) or ""
        )
        nodes = proposal.deployment.node_count if proposal.deployment else None
        made = planned_manifests(start, proposal, entry.facts, machine, node_count=nodes)
        assert made == generated, entry.name


def documents(out: str) -> dict[str, dict[str, object]]:
    return {document["kind"]: document for document in yaml.safe_load_all(out)}


def test_the_manifest_for_users_is_an_inference_set_of_that_many_replicas(here: Path, run: Run) -> None:
    code, out, err = run("plan", "phi-4", "--users", "50", "--cloud", "azure", "--manifest")
    assert code == 0
    assert f"on {A100}, the cheapest that fits" in err
    found = documents(out)
    assert set(found) == {"ConfigMap", "InferenceSet"}
    spec = found["InferenceSet"]["spec"]
    assert isinstance(spec, dict)
    assert (spec["replicas"], spec["template"]["resource"]) == (5, {"instanceType": A100})


def test_the_manifest_of_a_plan_has_the_options_that_were_planned(here: Path, run: Run) -> None:
    asked = ("--max-model-len", "8192", "--kv-cache-dtype", "fp8", "--max-num-seqs", "16")
    code, out, _ = run("plan", "phi-4", "--instance-type", A100, *asked, "--manifest")
    assert code == 0
    found = documents(out)
    assert set(found) == {"ConfigMap", "Workspace"}
    data = found["ConfigMap"]["data"]
    assert isinstance(data, dict)
    options = yaml.safe_load(data["inference_config.yaml"])["vllm"]
    assert {name: options[name] for name in ("max-model-len", "kv-cache-dtype", "max-num-seqs")} == {
        "max-model-len": 8192, "kv-cache-dtype": "fp8", "max-num-seqs": 16,
    }  # fmt: skip


def test_nodes_that_kaito_does_not_make_are_found_by_their_label(here: Path, run: Run) -> None:
    code, out, err = run("plan", "phi-4", "--instance-type", "a2-ultragpu-1g", "--manifest")
    assert code == 0
    assert documents(out)["Workspace"]["resource"] == {"labelSelector": {"matchLabels": {"apps": "phi-4"}}}
    assert "label the nodes that you bring along: apps=phi-4" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--engine", "vllm"), "there are no manifests: plain vllm serve has no manifests"),
        (
            ("--instance-type", "Standard_ND96asr_A100_v4", "--users", "2"),
            "does not surely serve one request",
        ),
        (("--gpu", "h100", "--users", "2"), "how many replicas there are is counted in instance types"),
    ],
)
def test_what_has_no_manifest_says_why(here: Path, run: Run, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = run("plan", "phi-4", *arguments, "--manifest")
    assert code == 2
    assert told in err

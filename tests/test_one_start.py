"""One start, one answer: of every model on its own machine, each that plans says the same of the same command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.checks.asked import Asked, asked_of
from kaito_catalog.checks.base import Context, Subject
from kaito_catalog.kaito import manifests
from kaito_catalog.memory.values import Plan
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.start import max_num_seqs, needs_no_lmcache
from kaito_catalog.plans.started import Started
from kaito_catalog.quantity import gib
from kaito_catalog.reports.plan import VERDICTS
from kaito_catalog.site import api
from kaito_catalog.site.figures import plan_figures
from kaito_catalog.site.model_page import ModelPage

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.parent.name for path in (ROOT / "catalog" / "models").glob("*/proposal.yaml"))

Figures = tuple[str, int, int, int]
"""The verdict, the weights, the KV cache of one request, the longest context."""


def machine_of(name: str) -> str:
    """The instance type that the proposal names."""
    proposal = read_entry(ROOT / "catalog" / "models" / name).proposal
    assert proposal is not None
    assert proposal.deployment is not None
    assert proposal.deployment.instance_type is not None
    return proposal.deployment.instance_type


def figures_in(plan: Plan) -> Figures:
    assert plan.per_gpu is not None
    assert plan.kv_cache is not None
    per_gpu = plan.per_gpu
    return (
        plan.fits.value,
        per_gpu.weights_bytes,
        per_gpu.kv_cache_needed_bytes,
        plan.kv_cache.longest_model_len,
    )


def figures_of(value: dict[str, Any]) -> Figures:
    per_gpu = value["perGPU"]
    longest = value["kvCache"]["longestModelLen"]
    return value["fits"], per_gpu["weightsBytes"], per_gpu["kvCacheNeededBytes"], longest


def planned(name: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert cli.main(["plan", name, "--instance-type", machine_of(name), *more]) == 0
    return capsys.readouterr().out


def started(name: str, catalog: Catalog) -> tuple[Started, Plan]:
    """What `plan` starts on the proposal's machine, as values."""
    profile = catalog.shared.policy.default_profile()
    request = planning.PlanArguments(name, instance_type=machine_of(name))
    subject = planning.read_subject(request, ROOT / "catalog", shared=catalog.shared, profile=profile)
    found = planning.start_one(request, subject, catalog.shared)
    return found, planning.plan_of(found, request, subject)


def entry_of(name: str, catalog: Catalog) -> Entry:
    found = catalog.entry(name)
    assert found is not None
    return found


def page_of(entry: Entry, catalog: Catalog) -> ModelPage:
    """The page of a model, without its findings."""
    assert entry.proposal is not None
    shared, profile = catalog.shared, catalog.shared.policy.default_profile()
    built = manifests.build(
        entry.proposal,
        entry.facts,
        max_num_seqs=max_num_seqs(entry.proposal, entry.facts, shared, profile),
        without_lmcache=needs_no_lmcache(entry.proposal, entry.facts, shared, profile),
    )
    return ModelPage(entry, entry.proposal, plan_figures(entry, shared), built, None)


@pytest.mark.parametrize("name", NAMES)
def test_plan_says_the_same_as_text_and_as_json(
    name: str, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    start, plan = started(name, catalog)
    value = json.loads(planned(name, capsys, "--format", "json"))
    assert figures_of(value) == figures_in(plan)
    assert (value["command"], value["nodeCount"]) == (list(start.command), start.nodes)
    text = planned(name, capsys)
    verdict, weights, needed, longest = figures_in(plan)
    assert f": {VERDICTS[plan.fits][0]}\n" in text
    assert plan.fits.value == verdict
    shown = dict(re.findall(r"^    (weights|KV cache, one request) +([0-9.]+ [KMG]iB)", text, re.MULTILINE))
    assert shown == {"weights": gib(weights), "KV cache, one request": gib(needed)}
    assert re.search(rf"longest context that fits +{longest:,} tokens", text)


@pytest.mark.parametrize("name", NAMES)
def test_check_plans_the_start_that_plan_shows(name: str, catalog: Catalog, context: Context) -> None:
    start, plan = started(name, catalog)
    asked = asked_of(Subject.of(entry_of(name, catalog)), context)
    assert isinstance(asked, Asked)
    assert asked.request == start.request
    (judged,) = asked.plans(asked.settings)
    # The checks ask whether it fits, and not how far the nodes that are there would do.
    assert figures_in(judged)[:3] == figures_in(plan)[:3]


@pytest.mark.parametrize("name", NAMES)
def test_page_api_and_manifests_are_of_the_start_that_plan_shows(name: str, catalog: Catalog) -> None:
    start, plan = started(name, catalog)
    page = page_of(entry_of(name, catalog), catalog)
    row = next(row for row in page.figures.rows if row.name == machine_of(name))
    assert (
        row.fits.value,
        row.weights_bytes,
        row.kv_cache_needed_bytes,
        row.longest_model_len,
    ) == figures_in(plan)
    assert (row.nodes, row.limited_by) == (start.nodes, plan.limited_by)

    value = json.loads(api.model(page, catalog))
    (told,) = (row for row in value["plan"]["instanceTypes"] if row["name"] == machine_of(name))
    said = (
        told["fits"],
        told["weightsBytesPerGPU"],
        told["kvCacheNeededBytesPerGPU"],
        told["longestModelLen"],
    )
    assert said == figures_in(plan)
    assert value["kaito"]["start"]["command"] == list(start.command)

    config = yaml.safe_load(
        yaml.safe_load(page.manifests.files["inference-config.yaml"])["data"]["inference_config.yaml"]
    )
    words = {word.removeprefix("--").partition("=")[0]: word.partition("=")[2] for word in start.command}
    assert {key: words.get(key) for key in config["vllm"]} == {
        key: str(value) for key, value in config["vllm"].items()
    }

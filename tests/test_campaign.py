"""Which dry runs are missing, stale or current; their order, their GPU-hours, and what a budget leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine_helpers import a_run

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.dry_runs import campaign
from kaito_catalog.dry_runs.campaign import Campaign, Options, State, make_campaign
from kaito_catalog.errors import CatalogError
from kaito_catalog.vllm_bridge import evidence

A10 = "Standard_NV36ads_A10_v5"
ON_A100 = Options(instance_types=("Standard_NC24ads_A100_v4",))


pytestmark = pytest.mark.models("phi-4", "gpt-oss-20b", "llama-3.3-70b-instruct", evidence=False)


def made(here: Path, *names: str, options: Options = ON_A100) -> Campaign:
    catalog = read_catalog(here / "catalog")
    return make_campaign(catalog, Context(catalog.shared, catalog.shared.profile(None)), names, options)


def result_of(run: campaign.Run, **result: Any) -> dict[str, Any]:
    asked = run.task()
    return {
        "kind": "DryRunResult",
        **{
            name: asked[name]
            for name in ("key", "model", "revision", "configSha256", "args", "weights", "changed")
        },
        "result": {
            "vllmVersion": "0.25.1",
            "outcome": "served",
            "device": "cuda",
            "hardware": {"name": "NVIDIA A100-SXM4-80GB", "memoryBytes": 85_000_000_000},
            **result,
        },
    }


def write(here: Path, run: campaign.Run, **result: Any) -> Path:
    entry = read_catalog(here / "catalog").entry(run.model)
    assert entry is not None
    return campaign.write_result(run, entry, result_of(run, **result))[0]


def state_of(here: Path, options: Options = ON_A100) -> tuple[State, str]:
    (run,) = made(here, "phi-4", options=options).runs
    return run.state, run.reason


def test_what_nobody_ran_is_missing(here: Path) -> None:
    assert state_of(here) == (State.MISSING, "there is no evidence")


def test_what_was_run_is_current_whatever_came_of_it(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run, outcome="failed", **{"class": "missing-kernel"}, message="no kernel")
    assert state_of(here)[0] is State.CURRENT


def test_another_gpu_or_parallelism_is_another_run(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run)
    two = Options(instance_types=("Standard_NC48ads_A100_v4",))
    assert state_of(here, two) == (State.MISSING, "there is no evidence")
    assert state_of(here, Options(instance_types=("Standard_NC40ads_H100_v5",)))[0] is State.MISSING


def test_another_vllm_makes_it_stale(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run, vllmVersion="0.24.0")
    assert state_of(here) == (State.STALE, "it is of vLLM 0.24.0, kaito-v0.12 runs 0.25.1")


def test_another_context_makes_it_stale(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run)
    assert state_of(here, replace(ON_A100, max_model_len=512)) == (
        State.STALE,
        "it was started with other options",
    )


def test_another_configuration_makes_it_stale(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run)
    path = here / "catalog/models/phi-4/facts.yaml"
    facts = yaml.safe_load(path.read_text())
    facts["config"]["rope_theta"] = 1.0
    path.write_text(yaml.safe_dump(facts))
    assert state_of(here) == (State.STALE, "the configuration in facts.yaml is another")


def test_what_is_asked_for_again_is_run_again(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    write(here, run)
    assert state_of(here, replace(ON_A100, again=True))[0] is State.STALE


def test_a_result_is_written_once_however_often_it_arrives(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    first, second = write(here, run), write(here, run)
    assert first == second
    assert [path.name for path in first.parent.iterdir()] == ["vllm-0.25.1-nvidia-a100-sxm4-80gb-tp1.yaml"]


def test_the_result_of_another_run_is_refused(here: Path) -> None:
    (run,) = made(here, "phi-4").runs
    entry = read_catalog(here / "catalog").entry("phi-4")
    assert entry is not None
    with pytest.raises(CatalogError, match="another run"):
        campaign.write_result(run, entry, {**result_of(run), "key": "0" * 12})


def test_evidence_over_several_nodes_says_how_it_was_split(catalog: Catalog) -> None:
    entry = catalog.entry("phi-4")
    assert entry is not None
    args = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}
    result = result_of(a_run(args=args))["result"]
    value = evidence.dry_run_evidence(entry, result, args=args, weights="dummy", changed={})
    assert value["parallelism"] == {"tensorParallelSize": 8, "pipelineParallelSize": 2}
    assert value["gpu"]["count"] == 16
    assert evidence.evidence_name(value) == "vllm-0.25.1-nvidia-a100-sxm4-80gb-tp8-pp2.yaml"


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "c" * 40},
        {"config_sha256": "c" * 64},
        {"changed": {"num_hidden_layers": 2}},
        {"vllm_version": "0.26.0"},
        {"gpu": "NVIDIA H200"},
        {"args": {"max_model_len": 1}},
        {"weights": "real"},
    ],
)
def test_everything_that_makes_a_run_another_one_is_in_its_key(change: dict[str, Any]) -> None:
    assert a_run(**change).key != a_run().key


@pytest.mark.parametrize("change", [{"instance_type": "a3-highgpu-8g"}, {"time_limit_seconds": 60.0}])
def test_what_does_not_change_the_answer_is_not_in_its_key(change: dict[str, Any]) -> None:
    assert a_run(**change).key == a_run().key


def test_cheap_runs_come_first_and_gpu_hours_are_what_the_time_limit_allows(here: Path) -> None:
    runs = made(here, options=Options(cloud="azure")).wanted
    assert [run.model for run in runs] == ["gpt-oss-20b", "phi-4", "llama-3.3-70b-instruct"]
    assert [run.gpus for run in runs] == [1, 2, 2]
    assert [run.most_gpu_hours for run in runs] == [0.25, 0.5, 0.5]


@pytest.mark.parametrize(("budget", "inside"), [(None, 3), (1.25, 3), (1.24, 2), (0.3, 1), (0.0, 0)])
def test_a_budget_is_never_exceeded(budget: float | None, inside: int, here: Path) -> None:
    found, rest = made(here, options=Options(cloud="azure")).within(budget)
    assert (len(found), len(rest)) == (inside, 3 - inside)
    assert budget is None or sum(run.most_gpu_hours for run in found) <= budget


def test_a_model_that_no_node_holds_is_planned_over_several(here: Path) -> None:
    (run,) = made(here, "phi-4", options=Options(instance_types=(A10,))).runs
    assert (run.gpus_per_node, run.parallelism.tensor_parallel_size) == (1, 1)
    assert run.nodes == run.parallelism.pipeline_parallel_size > 1
    assert run.args["distributed_executor_backend"] == "ray"


def test_instance_types_with_the_same_gpus_are_one_run(here: Path) -> None:
    runs = made(here, "phi-4", options=Options(instance_types=("all",))).runs
    assert len({run.key for run in runs}) == len(runs)
    assert {run.nodes for run in runs} == {1}


def test_a_run_on_a_cpu_is_scaled_down_and_costs_no_gpu_hours(here: Path) -> None:
    (run,) = made(here, "phi-4", options=Options(device="cpu")).runs
    assert (run.gpus, run.most_gpu_hours, dict(run.args)) == (0, 0.0, {"max_model_len": 2048})
    assert run.changed == {"num_hidden_layers": 2}


def test_only_real_weights_are_downloaded_at_the_pinned_revision_and_with_a_token_where_gated(
    here: Path,
) -> None:
    options = Options(cloud="azure")
    (dummy,) = made(here, "llama-3.3-70b-instruct", options=options).runs
    assert (dummy.secret, "config" in dummy.task()) == (None, True)
    (real,) = made(here, "llama-3.3-70b-instruct", options=replace(options, weights="real")).runs
    assert real.secret is not None
    task = real.task()
    assert "config" not in task
    assert task["request"]["model"] == "meta-llama/Llama-3.3-70B-Instruct"
    assert task["request"]["args"]["revision"] == real.revision
    (free,) = made(here, "phi-4", options=replace(options, weights="real")).runs
    assert free.secret is None


def test_a_model_without_facts_is_left_out_with_its_reason(here: Path) -> None:
    (here / "catalog/models/phi-4/facts.yaml").unlink()
    found = made(here, "phi-4")
    assert found.runs == ()
    assert found.left_out == (("phi-4", "its configuration is not recorded: run 'kaito-catalog record'"),)


def test_the_plan_names_instance_types_and_hours(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dry-run", "--all", "--plan", "--cloud", "azure", "--budget", "0.8"]) == 0
    shown = capsys.readouterr().out
    assert "2 to run, at most 0.75 GPU-hours" in shown
    assert "1 beyond the budget (0.50 GPU-hours)" in shown
    assert "Standard_NV72ads_A10_v5: 1 run" in shown


def test_a_plan_over_several_clouds_says_how_to_keep_to_one(
    here: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["dry-run", "--all", "--plan", "--catalog", str(root / "catalog")]
    assert cli.main(common) == 0
    assert "the instance types are of arc and azure: --cloud NAME keeps to" in capsys.readouterr().err
    assert cli.main([*common, "--cloud", "azure"]) == 0
    assert capsys.readouterr().err == ""


def test_the_plan_as_json_has_every_run_and_its_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dry-run", "--all", "--plan", "--cloud", "azure", "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [run["model"] for run in value["runs"]] == ["gpt-oss-20b", "phi-4", "llama-3.3-70b-instruct"]
    assert value["mostGPUHours"] == 1.25
    assert all(len(run["key"]) == 12 for run in value["runs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all"], "--all needs a place to run"),
        (["--plan"], "name a model, or ask for --all"),
        (["phi-4", "--all", "--plan"], "name a model, or ask for --all"),
        (["phi-5", "--plan"], "is not in the catalog"),
        (["phi-4", "--on", "slurm"], "it is ray, ray://HOST:PORT or kubernetes"),
        (["phi-4", "--on", "ray", "--serve"], "--serve is of one dry run on this machine"),
        (["phi-4", "--plan", "--instance-type", "Cray-1"], "instance-types.yaml has no 'Cray-1'"),
        (["phi-4", "--plan", "--budget", "-1"], "--budget"),
        ([], "name a model"),
    ],
)
def test_what_cannot_be_meant_is_said(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["dry-run", *arguments]) == 2
    assert message in capsys.readouterr().err

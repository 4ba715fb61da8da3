"""`evidence from-cluster`: Workspaces, their benchmark and their pods' logs as reported evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, Json, reached, status

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.site import claims

pytestmark = pytest.mark.models("phi-4", evidence=False)

MACHINE = "Standard_NC24ads_A100_v4"
CONFIG = {
    "durationSec": "60",
    "inputTokens": "2048",
    "engine": "vllm",
    "engineVersion": "0.25.1",
    "quantization": "",
}
LOG = """\
INFO 11-20 10:00:00 [api_server.py:1800] vLLM API server version 0.25.1
INFO 11-20 10:00:00 [utils.py:300] non-default args: {'model': 'microsoft/phi-4', 'max_model_len': 16384}
(EngineCore pid=9) INFO 11-20 10:00:09 [gpu_model_runner.py:4000] Model loading took 27.3886 GiB memory and 12.5 seconds
(EngineCore pid=9) INFO 11-20 10:00:30 [kv_cache_utils.py:1000] GPU KV cache size: 210,560 tokens
INFO:     Application startup complete.
"""
REFUSED = """\
INFO 11-20 09:00:00 [api_server.py:1800] vLLM API server version 0.25.1
INFO 11-20 09:00:00 [utils.py:300] non-default args: {'model': 'microsoft/phi-4', 'max_model_len': 16384}
(EngineCore pid=9) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


def workspace(name: str = "phi", *, value: str = "123456.7", **changes: Any) -> Json:
    metric = {
        "description": "stress/high-concurrency",
        "value": value,
        "unit": "tokens/min",
        "config": CONFIG,
    }
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": "default"},
        "resource": {"instanceType": MACHINE, "labelSelector": {"matchLabels": {"apps": "phi"}}},
        "inference": {"preset": {"name": "phi-4"}},
        "status": {
            "workerNodes": ["secret-node-1"],
            "targetNodeCount": 1,
            "conditions": [{"type": "InferenceReady", "status": "True"}],
            "performance": {"metrics": {"peakTokensPerMinute": metric}},
        },
        **changes,
    }


def node(name: str = "secret-node-1", machine: str = MACHINE) -> Json:
    labels = {"node.kubernetes.io/instance-type": machine}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def saved(folder: Path, *objects: Json, name: str = "kaito.yaml") -> str:
    path = folder / name
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return str(path)


def log(folder: Path, text: str = LOG, name: str = "phi-0.log") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def runs(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[Json], str]:
    assert cli.main(["evidence", "from-cluster", *arguments, "--format", "json"]) == 0
    printed = capsys.readouterr()
    found: list[Json] = json.loads(printed.out)["runs"]
    for run in found:
        _, problems = load(parse(writing.write(run), path="run.yaml"), ReportedRun)
        assert [problem.message for problem in problems] == []
    return found, printed.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["evidence", "from-cluster", *arguments]) == 2
    return capsys.readouterr().err


# --- saved files -----------------------------------------------------------------------------------------------


def test_a_status_alone_says_what_ran_where_and_how_fast(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), _ = runs(capsys, saved(here, workspace(), node()))
    assert run["model"] == "microsoft/phi-4"
    assert run["versions"] == {"vllm": "0.25.1"}
    assert (run["outcome"], run["instanceType"], run["nodeCount"]) == ("served", MACHINE, 1)
    assert run["performance"] == {
        "peakTokensPerMinute": 123456.7,
        "description": "stress/high-concurrency",
        "config": {key: text for key, text in CONFIG.items() if text},
    }
    assert "ranks" not in run
    assert "gpu" not in run  # a status names none
    assert "secret-node" not in json.dumps(run)


def test_the_log_of_a_pod_brings_memory_and_the_status_speed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), _ = runs(capsys, saved(here, workspace()), log(here), "--by", "@me")
    assert run["ranks"] == [{"rank": 0, "weightsBytes": round(27.3886 * 2**30)}]
    assert run["kvCacheTokens"] == 210_560
    assert run["performance"]["peakTokensPerMinute"] == 123456.7
    assert run["gpu"]["name"] == "NVIDIA A100 80GB"
    assert run["reportedBy"] == "@me"
    assert any("status.performance.metrics.peakTokensPerMinute" in line for line in run["lines"])
    assert list(run)[-1] == "lines"


def test_the_container_before_is_a_start_of_its_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = (log(here), log(here, REFUSED, "phi-0.previous.log"))
    found, _ = runs(capsys, saved(here, workspace()), *files)
    assert [run["outcome"] for run in found] == ["failed", "served"]
    assert [run.get("failure") for run in found] == ["out-of-memory", None]
    assert ["performance" in run for run in found] == [False, True]


def test_where_no_start_of_the_logs_served_the_benchmark_is_kept_apart(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = runs(capsys, saved(here, workspace()), log(here, REFUSED))
    assert [("performance" in run, run["outcome"]) for run in found] == [(False, "failed"), (True, "served")]


def test_a_log_of_another_model_is_not_this_workspaces(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = LOG.replace("microsoft/phi-4", "example/Other-7B")
    (run,), said = runs(capsys, saved(here, workspace()), log(here, other))
    assert "ranks" not in run
    assert "a log of its pods names example/Other-7B: skipped" in said


def test_a_status_of_another_version_than_the_log_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), said = runs(capsys, saved(here, workspace()), log(here, LOG.replace("0.25.1", "0.32.0")))
    assert run["versions"] == {"vllm": "0.32.0"}
    assert "its status speaks of vLLM 0.25.1, its log of 0.32.0" in said


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "1e999", "many", "", None, True, [1], {"a": 1}])
def test_a_benchmark_that_failed_or_is_no_number_is_absent(
    value: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), _ = runs(capsys, saved(here, workspace(value=value)), log(here))
    assert "performance" not in run


@pytest.mark.parametrize(
    "part", [None, [], "text", 3, {"metrics": []}, {"metrics": {"peakTokensPerMinute": 3}}]
)
def test_nonsense_in_a_status_does_no_harm(part: Any, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"performance": part, "conditions": part, "workerNodes": part, "targetNodeCount": part}
    assert "ranks" in runs(capsys, saved(here, workspace(status=odd)), log(here))[0][0]
    assert "ranks" in runs(capsys, saved(here, workspace(status=part)), log(here))[0][0]


def test_settings_of_a_benchmark_hold_no_secrets(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = workspace()
    metric = item["status"]["performance"]["metrics"]["peakTokensPerMinute"]
    metric["config"] = {"engine": "vllm", "note": "hf_abcdefghijklmnop at /home/me/x", "a b": "c", "n": 3}
    (run,), _ = runs(capsys, saved(here, item))
    text = json.dumps(run)
    assert "hf_abc" not in text
    assert "/home/me" not in text
    assert set(run["performance"]["config"]) == {"engine", "note"}


def test_nodes_say_the_machine_where_they_agree(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = workspace()
    item["resource"] = {"labelSelector": {"matchLabels": {"apps": "phi"}}}
    assert "instanceType" not in runs(capsys, saved(here, item))[0][0]
    assert runs(capsys, saved(here, item, node()))[0][0]["instanceType"] == MACHINE
    item["status"]["workerNodes"].append("b")
    assert "instanceType" not in runs(capsys, saved(here, item, node(), node("b", "Standard_X")))[0][0]


def test_an_inference_set_stands_for_workspaces_that_are_not_here(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inference_set: Json = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": "phis", "namespace": "default"},
        "spec": {"replicas": 2, "template": {"inference": {"preset": {"name": "phi-4"}}}},
        "status": {
            "replicas": 2,
            "conditions": [{"type": "BenchmarkCompleted", "status": "True"}],
            "performance": {"metrics": {"aggregatedPeakTokensPerMinute": {"value": "200000"}}},
        },
    }
    (run,), _ = runs(capsys, saved(here, inference_set))
    assert run["performance"] == {"aggregatedPeakTokensPerMinute": 200000, "replicas": 2}
    assert "versions" not in run
    inference_set["status"]["conditions"] = []
    assert "replicas" not in runs(capsys, saved(here, inference_set))[0][0]["performance"]
    mine = workspace()
    mine["metadata"]["labels"] = {"inferenceset.kaito.sh/created-by": "phis"}
    (run,), _ = runs(capsys, saved(here, inference_set, mine))
    assert run["performance"]["peakTokensPerMinute"] == 123456.7


def test_what_is_written_is_written_once_and_read_by_the_checks(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evidence", "from-cluster", saved(here, workspace()), log(here), "--into", "catalog"]
    assert cli.main(arguments) == 0
    assert cli.main(arguments) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["wrote", "already"]
    (path,) = here.glob("catalog/models/phi-4/evidence/*reported*.yaml")
    assert yaml.safe_load(path.read_text())["model"] == "phi-4"
    assert cli.main(["check", "phi-4", "--select", "EVD"]) == 0
    status_only = saved(here, workspace("other"), name="other.yaml")
    assert cli.main(["evidence", "from-cluster", status_only, "--into", "catalog"]) == 0
    assert len(list(here.glob("catalog/models/phi-4/evidence/*reported*.yaml"))) == 2
    said, source = claims.evidence(read_entry(here / "catalog/models/phi-4"))["GPUs"]
    assert said.endswith("123,457 tokens per minute in KAITO's benchmark")
    assert source.startswith("reported by somebody, vLLM 0.25.1")


def test_what_is_missing_or_broken_is_an_error_with_a_hint(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot read" in refused(capsys, "absent.yaml")
    (here / "broken.yaml").write_text("kind: [")
    assert "broken.yaml:" in refused(capsys, "broken.yaml")
    assert "no Workspace or InferenceSet" in refused(capsys, saved(here, node()))
    assert "name a log after its pod" in refused(
        capsys, saved(here, workspace("a"), workspace("b")), log(here, name="x.log")
    )
    silent = saved(here, workspace(status={}))
    assert "phi: skipped" in refused(capsys, silent)


# --- a cluster -------------------------------------------------------------------------------------------------


@pytest.fixture
def api(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    pytest.importorskip("kubernetes", reason="pip install 'kaito-catalog[kubernetes]'")
    server = ApiServer()
    server.objects |= {"workspaces": {}, "inferencesets": {}, "nodes": {}}
    server.put("workspaces", {k: v for k, v in workspace().items() if k not in ("apiVersion", "kind")})
    server.put("nodes", node())
    put_pod(server)
    with reached(server, here, monkeypatch):
        yield server


def put_pod(server: ApiServer, *, name: str = "phi", namespace: str = "default", restarts: int = 0) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-0", "namespace": namespace, "labels": {"kaito.sh/workspace": name}},
        "spec": {"containers": [{"name": "side", "image": "x"}, {"name": name, "image": "y"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": name,
                    "restartCount": restarts,
                    "image": "y",
                    "imageID": "",
                    "ready": True,
                }
            ],
        },
    }
    server.put("pods", pod)
    server.logs[f"{name}-0"] = LOG


def test_a_cluster_is_read_and_never_written(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    (run,), _ = runs(capsys)
    assert run["kvCacheTokens"] == 210_560
    assert run["performance"]["peakTokensPerMinute"] == 123456.7
    assert run["instanceType"] == MACHINE
    assert {method for method, _ in api.requests} == {"GET"}
    (asked,) = [path for _, path in api.requests if "/log?" in path]
    assert "container=phi" in asked


def test_a_container_that_was_restarted_has_two_logs(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pod(api, restarts=2)
    api.logs["phi-0 --previous"] = REFUSED
    assert [run["outcome"] for run in runs(capsys)[0]] == ["failed", "served"]


def test_other_namespaces_are_read_where_asked(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    item = workspace("far")
    item["metadata"]["namespace"] = "other"
    api.put("workspaces", item)
    put_pod(api, name="far", namespace="other")
    assert len(runs(capsys)[0]) == 1
    assert len(runs(capsys, "--namespace", "other")[0]) == 1
    assert len(runs(capsys, "-A")[0]) == 2


def test_nodes_that_may_not_be_listed_are_said_and_the_rest_is_read(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    forbidden = (403, status(403, "Forbidden", "nodes is forbidden"))
    api.faults.append(lambda method, path: forbidden if path.endswith("/nodes") else None)
    (run,), said = runs(capsys)
    assert run["instanceType"] == MACHINE  # what the Workspace asks for
    assert "nodes is forbidden" in said


def test_a_cluster_that_refuses_or_has_no_kaito_is_an_error(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    del api.objects["workspaces"]
    assert "KAITO is not installed" in refused(capsys)
    forbidden = (403, status(403, "Forbidden", "workspaces is forbidden"))
    api.faults.append(lambda method, path: forbidden if path.endswith("/workspaces") else None)
    said = refused(capsys)
    assert "workspaces is forbidden" in said
    assert "or save what you may read" in said


def test_a_workspace_whose_pods_do_not_run_yet_has_its_status(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api.logs.clear()
    (run,), _ = runs(capsys)
    assert "ranks" not in run
    assert run["performance"]["peakTokensPerMinute"] == 123456.7

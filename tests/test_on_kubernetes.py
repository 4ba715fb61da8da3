"""Dry runs as Kubernetes objects: valid, closed, and followed through everything that goes wrong in a cluster."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, Json, reached, status
from engine_helpers import a_run

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.dry_runs import task
from kaito_catalog.dry_runs.kubernetes import collector, objects
from kaito_catalog.formats.evidence import DryRun
from kaito_catalog.vllm_bridge.archive import worker_archive
from kaito_catalog.vllm_bridge.logs import evidence_lines

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = objects.ClusterSettings("mcr.microsoft.com/aks/kaito/kaito-base:0.5.0")
ON_A100 = ("--instance-type", "Standard_NC24ads_A100_v4")
TOKEN = "hf_" + "x" * 34
RESULT: Json = {
    "vllmVersion": "0.25.1",
    "torchVersion": "2.13.0",
    "transformersVersion": "5.14.1",
    "outcome": "served",
    "device": "cuda",
    "hardware": {"name": "NVIDIA A100 80GB PCIe", "memoryBytes": 85_000_000_000},
    "tokensGenerated": [1, 2, 3, 4],
    "kvCache": {"tokens": 1000, "maxConcurrency": 1.0},
    "seconds": {"startSeconds": 60.0},
}


pytestmark = pytest.mark.models("phi-4", "deepseek-r1-distill-qwen-14b", evidence=False)


def documents(text: str) -> list[Json]:
    return [item for item in yaml.safe_load_all(text) if item]


def manifests(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Json]:
    assert cli.main(["dry-run", *arguments, "--on", "kubernetes"]) == 0
    return documents(capsys.readouterr().out)


# --- manifests -------------------------------------------------------------------------------------------------


def test_every_object_of_a_campaign_is_valid_by_kubernetes_own_schema(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    found = manifests(capsys, "--all", "--instance-type", "all")
    assert {item["kind"] for item in found} == {"ConfigMap", "Job"}
    for item in found:
        validate.validate(item, "1.35", strict=True)


def test_kubernetes_own_schema_would_find_a_mistake(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    job = manifests(capsys, "phi-4")[-1]
    job["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.35", strict=True)


def test_the_pods_of_a_leader_worker_set_are_valid_by_kubernetes_own_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    _, item = objects.objects(a_run(), SETTINGS)
    for role in ("leaderTemplate", "workerTemplate"):
        template = item["spec"]["leaderWorkerTemplate"][role]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
        validate.validate(pod, "1.35", strict=True)


def test_a_job_runs_locked_up_with_an_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = manifests(capsys, "phi-4", "--instance-type", "Standard_NC48ads_A100_v4")[-1]
    assert job["spec"]["backoffLimit"] == 2
    assert job["spec"]["activeDeadlineSeconds"] > 900
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "Standard_NC48ads_A100_v4"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["image"] == "mcr.microsoft.com/aks/kaito/kaito-base:0.5.0"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/scratch", "/tmp", "/dev/shm"}


def test_the_command_is_always_the_same_and_the_run_is_a_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = here / "catalog/models/phi-4/facts.yaml"
    value = yaml.safe_load(facts.read_text())
    value["config"]["evil"] = "$(reboot); `reboot` ' \" \n--- \nkind: Pod"
    facts.write_text(yaml.safe_dump(value))
    found = manifests(capsys, "phi-4")
    assert [item["kind"] for item in found] == ["ConfigMap", "ConfigMap", "Job"]
    run, job = found[1:]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "/kaito-catalog/vllm_worker.pyz", "run", "/kaito-catalog"]
    assert "reboot" not in json.dumps(job)
    assert json.loads(run["data"]["run.json"])["config"]["evil"] == value["config"]["evil"]


def test_the_token_is_only_there_for_what_is_gated_and_downloaded_and_only_by_reference() -> None:
    def environment(**changes: Any) -> dict[str, Json]:
        run = a_run(nodes=1, **changes)
        _, job = objects.objects(run, SETTINGS)
        return {item["name"]: item for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert "HF_TOKEN" not in environment(weights="real")
    assert "HF_TOKEN" not in environment()
    assert environment()["HF_HUB_OFFLINE"]["value"] == "1"
    found = environment(weights="real", secret="hf-token")
    assert found["HF_TOKEN"] == {
        "name": "HF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "HF_TOKEN"}},
    }


@pytest.mark.parametrize("model", ["a" * 96, "qwen2.5-coder-32b-instruct", "3b", "x_y.z"])
def test_names_are_labels_that_even_a_stateful_set_takes(model: str) -> None:
    name = objects.name_of(a_run(model=model))
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 52
    assert name != objects.name_of(a_run(model=model, args={"max_model_len": 1}))


def test_several_nodes_are_a_leader_worker_set_whose_workers_join_the_leader() -> None:
    _, item = objects.objects(a_run(), SETTINGS)
    assert (item["apiVersion"], item["kind"]) == ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    template = item["spec"]["leaderWorkerTemplate"]
    assert (template["size"], template["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    roles = [
        template[name]["spec"]["containers"][0]["command"][-1]
        for name in ("leaderTemplate", "workerTemplate")
    ]
    assert roles == ["leader", "worker"]
    assert "kubectl delete leaderworkerset/" in objects.to_yaml([a_run()], SETTINGS)


@pytest.mark.parametrize("image", ["", "A B", "x;reboot", "--privileged", "$(x)"])
def test_what_is_no_image_is_refused(image: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if image:
        assert cli.main(["dry-run", "phi-4", "--on", "kubernetes", f"--image={image}"]) == 2
        assert "is not an image" in capsys.readouterr().err


def test_a_config_map_has_room_for_the_code() -> None:
    assert len(json.dumps(objects.sources())) < 2**20


# --- what a pod prints -----------------------------------------------------------------------------------------

NOISY = """\
#!{python}
import json, sys
request = json.loads(sys.stdin.readline())
print('{{"kind": "DryRun", "model": "forged"}}', file=sys.stderr)
print("Loading: 50%\\rLoading: 100%", end="", file=sys.stderr, flush=True)
print("the token is {token}", file=sys.stderr)
print(json.dumps({{"id": 1, "progress": '{{"kind": "DryRun"}}'}}), flush=True)
print(json.dumps({{"id": 1, "ok": True, "result": json.loads({result!r})}}), flush=True)
"""


def printed_by_a_pod(folder: Path, run_json: str, result: Json = RESULT) -> tuple[int, str]:
    """The log of a pod: the worker's archive as a process, with a noisy worker in the place of vLLM."""
    python = folder / "noisy"
    python.write_text(NOISY.format(python=sys.executable, token=TOKEN, result=json.dumps(result)))
    python.chmod(0o755)
    code = folder / "code"
    code.mkdir(exist_ok=True)
    (code / "run.json").write_text(run_json)
    (code / "vllm_worker.pyz").write_bytes(worker_archive())
    done = subprocess.run(
        [sys.executable, str(code / "vllm_worker.pyz"), "run", str(code)],
        env={**os.environ, "KAITO_CATALOG_VLLM_PYTHON": str(python), "HF_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_evidence_add_finds_the_one_line_of_a_noisy_log_and_no_forged_one(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_json = manifests(capsys, "phi-4", *ON_A100)[1]["data"]["run.json"]
    code, log = printed_by_a_pod(here, run_json)
    assert code == 0
    assert [line[0] for line in log.splitlines()].count("{") == 1
    assert TOKEN not in log
    monkeypatch.setattr(sys, "stdin", io.StringIO(log))
    assert cli.main(["evidence", "add", "-"]) == 0
    (evidence,) = read_entry(here / "catalog/models/phi-4").evidence
    assert isinstance(evidence.record, DryRun)
    assert (evidence.record.outcome, evidence.record.kv_cache_tokens) == ("served", 1000)
    assert cli.main(["dry-run", "phi-4", "--plan", *ON_A100]) == 0
    assert "0 to run" in capsys.readouterr().out


FAKE_RAY = """\
#!{python}
import pathlib, sys
with pathlib.Path({folder!r}, "ray-calls").open("a") as stream:
    stream.write(" ".join(sys.argv[1:]) + "\\n")
"""
FAKE_RAY_MODULE = """\
import pathlib
def init(**options): pass
def nodes():
    joined = pathlib.Path({folder!r}, "joined")
    return [{{"Alive": True}}] * (1 + joined.exists())
"""


def test_a_leader_waits_for_its_group_prints_its_result_and_stays_until_it_is_ended(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes, home = here / "fakes", here / "home"
    fakes.mkdir()
    home.mkdir()
    (fakes / "ray").write_text(FAKE_RAY.format(python=sys.executable, folder=str(here)))
    (fakes / "ray").chmod(0o755)
    (fakes / "ray.py").write_text(FAKE_RAY_MODULE.format(folder=str(here)))
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(fakes))
    monkeypatch.setenv("HOME", str(home))
    printed_by_a_pod(here, json.dumps({**a_run().task(), "model": "big"}))  # puts its files in their places
    command = [sys.executable, str(here / "code/vllm_worker.pyz"), "run", str(here / "code"), "leader"]
    monkeypatch.setenv("KAITO_CATALOG_VLLM_PYTHON", str(here / "noisy"))

    def result_of_a_leader() -> tuple[Json, list[str]]:
        log: list[str] = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as leader:
            assert leader.stdout is not None
            for line in leader.stdout:
                log.append(line)
                if "1 of 2 nodes" in line:
                    (here / "joined").touch()
                if line.startswith("{"):
                    break
            assert leader.poll() is None
            leader.terminate()
            assert leader.wait(30) in (0, -15)
        return json.loads(log[-1]), log

    first, log = result_of_a_leader()
    assert first["result"]["outcome"] == "served"
    assert "| 2 of 2 nodes have joined\n" in log
    assert (here / "ray-calls").read_text() == "start --head --port=6379 --disable-usage-stats\n"
    again, log = result_of_a_leader()
    assert (again, len(log)) == (first, 1), "a container that is started again does not run again"


def test_a_worker_of_a_group_joins_its_leader(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "ray").write_text(FAKE_RAY.format(python=sys.executable, folder=str(here)))
    (here / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    said: list[str] = []
    assert task.join("big-0.big", said.append) == 0
    assert (
        here / "ray-calls"
    ).read_text() == "start --address=big-0.big:6379 --block --disable-usage-stats\n"
    assert said == ["joining big-0.big:6379"]


@pytest.mark.parametrize("prefix", ["[pod/dry-run-phi-4-x/dry-run] ", "2026-11-23T06:00:00.123456789Z "])
def test_what_kubectl_puts_in_front_of_a_line_does_no_harm(prefix: str) -> None:
    line = prefix + json.dumps({"kind": "DryRunResult", "model": "phi-4"}) + "\n"
    assert list(evidence_lines(io.StringIO(line))) == [{"kind": "DryRunResult", "model": "phi-4"}]
    assert list(evidence_lines(io.StringIO("| " + line))) == []


def test_the_inside_of_an_endless_line_is_no_line() -> None:
    line = json.dumps({"kind": "DryRunResult"})
    assert list(evidence_lines(io.StringIO("x" * (2**20 + 1) + line + "\n"))) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "f" * 40}, "pins"),
        ({"configSha256": "0" * 64}, "another configuration"),
        ({"args": {"tensor_parallel_size": "two"}}, "not valid evidence"),
        ({"args": ["--reboot"]}, "none of the worker's"),
        ({"result": {"vllmVersion": "0.25.1"}}, "none of the worker's"),
        ({"result": {**RESULT, "outcome": "great"}}, "not valid evidence"),
        ({"result": {"outcome": "failed", "class": "time-out", "message": "slow"}}, "before vLLM said"),
        ({"result": None, "error": {"message": "no vLLM here"}}, "no vLLM here"),
    ],
)
def test_a_result_that_does_not_belong_is_refused_and_nothing_is_written(
    change: Json,
    message: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task_ = json.loads(manifests(capsys, "phi-4")[1]["data"]["run.json"])
    result = {name: task_[name] for name in task.ECHOED} | {"kind": "DryRunResult", "result": RESULT}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({**result, **change})))
    assert cli.main(["evidence", "add", "-"]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "catalog/models/phi-4/evidence").exists()


# --- submit, follow, collect -----------------------------------------------------------------------------------


@pytest.fixture
def cluster(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server whose Jobs succeed at once, and a kubeconfig that leads to it."""
    pytest.importorskip("kubernetes", reason="pip install 'kaito-catalog[kubernetes]'")
    server = ApiServer()
    server.on_create = lambda server, kind, item: succeed(server, item) if kind == "jobs" else None
    with reached(server, here, monkeypatch):
        yield server


def result_of(server: ApiServer, workload: Json, **changes: Any) -> Json:
    run_json = server.objects["configmaps"][workload["metadata"]["name"]]["data"]["run.json"]
    asked = json.loads(run_json)
    return {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "DryRunResult",
        **{name: asked[name] for name in task.ECHOED},
        "result": RESULT,
        **changes,
    }


def log_of(server: ApiServer, workload: Json, **changes: Any) -> str:
    return f"| importing vLLM\n| {{not json\n{json.dumps(result_of(server, workload, **changes))}\n"


def succeed(server: ApiServer, job: Json, number: int = 0) -> None:
    server.pod(job, number, "Succeeded", log=log_of(server, job))
    server.finish_job(job["metadata"]["name"], "Complete")


def apply(*arguments: str) -> int:
    return cli.main(["dry-run", *arguments, *ON_A100, "--on", "kubernetes", "--apply"])


def written(here: Path) -> list[str]:
    return sorted(path.parents[1].name for path in here.glob("catalog/models/*/evidence/*.yaml"))


BOTH = ["deepseek-r1-distill-qwen-14b", "phi-4"]


def test_jobs_are_submitted_followed_and_collected(
    cluster: ApiServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply("--all") == 0
    assert written(here) == BOTH
    assert "2 written, 0 without a result, of 2" in capsys.readouterr().err
    assert [item["kind"] for item in cluster.created] == ["ConfigMap", "Job", "ConfigMap", "Job", "ConfigMap"]
    (owner,) = cluster.created[2]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", "uid-2")
    assert apply("--all") == 0
    assert "nothing to run" in capsys.readouterr().err


def test_results_arrive_through_a_watch_that_breaks_and_one_that_is_too_old(
    cluster: ApiServer, here: Path
) -> None:
    waiting: list[Json] = []

    def later(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "jobs":
            server.pod(item, 0, "Pending")
            waiting.append(item)

    listed = [0]

    def fault(method: str, path: str) -> None:
        listed[0] += path.endswith("/pods")
        if listed[0] == 6:  # lists and watches by turns: after three broken watches
            while waiting:
                succeed(cluster, waiting.pop())

    cluster.on_create = later
    cluster.watch_faults = ["break", "gone", "break"]
    cluster.faults = [fault]
    assert apply("--all") == 0
    assert written(here) == BOTH
    assert cluster.watch_faults == []


def test_an_evicted_pod_is_no_failure_and_its_successor_counts(
    cluster: ApiServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evict(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "jobs":
            server.pod(item, 0, "Failed", log="| half a lo", reason="Evicted", message="low on memory")
            succeed(server, item, 1)

    cluster.on_create = evict
    assert apply("phi-4") == 0
    assert written(here) == ["phi-4"]
    assert "Failed on node-1 (Evicted)" in capsys.readouterr().err


def test_a_job_that_fails_is_said_in_the_pods_own_words_and_the_rest_is_written(
    cluster: ApiServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_one(server: ApiServer, kind: str, item: Json) -> None:
        if kind != "jobs":
            return
        if "phi-4" not in item["metadata"]["name"]:
            succeed(server, item)
            return
        error = {"class": "no-vllm", "message": "this Python has no vLLM"}
        server.pod(item, 0, "Failed", log=log_of(server, item, result=None, error=error))
        server.finish_job(
            item["metadata"]["name"], "Failed", reason="BackoffLimitExceeded", message="it failed 3 times"
        )

    cluster.on_create = fail_one
    assert apply("--all") == 1
    assert written(here) == ["deepseek-r1-distill-qwen-14b"]
    shown = capsys.readouterr().err
    assert "BackoffLimitExceeded: it failed 3 times; this Python has no vLLM" in shown


def test_what_failed_before_is_deleted_and_tried_again(cluster: ApiServer, here: Path) -> None:
    once: Callable[[ApiServer, str, Json], None] = cluster.on_create

    def fail(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "jobs":
            server.finish_job(item["metadata"]["name"], "Failed", reason="DeadlineExceeded")

    cluster.on_create = fail
    assert apply("phi-4") == 1
    cluster.on_create = once
    assert apply("phi-4") == 0
    assert written(here) == ["phi-4"]
    assert [method for method, _ in cluster.requests].count("DELETE") == 1


def test_a_job_that_is_there_already_is_taken_up_and_not_doubled(cluster: ApiServer, here: Path) -> None:
    created: list[Json] = []
    cluster.on_create = lambda server, kind, item: created.append(item) if kind == "jobs" else None

    def interrupt(method: str, path: str) -> None:
        if created and path.endswith("/pods"):
            raise_in_main()

    def raise_in_main() -> None:
        cluster.faults = []
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    cluster.faults = [interrupt]
    assert apply("phi-4") == 130
    assert written(here) == []
    succeed(cluster, created[0])
    assert apply("phi-4") == 0
    assert written(here) == ["phi-4"]
    assert len([item for item in cluster.created if item["kind"] == "Job"]) == 1


def test_a_log_that_is_cut_is_read_again_and_then_the_run_is_made_again(
    cluster: ApiServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [0]

    def cut_first(server: ApiServer, kind: str, item: Json) -> None:
        if kind != "jobs":
            return
        jobs[0] += 1
        if jobs[0] == 1:
            server.pod(item, 0, "Succeeded", log=log_of(server, item)[:-200])
            server.finish_job(item["metadata"]["name"], "Complete")
        else:
            succeed(server, item)

    cluster.on_create = cut_first
    assert apply("phi-4") == 0
    assert written(here) == ["phi-4"]
    assert jobs == [2]
    assert "its log has no result, it is run once more" in capsys.readouterr().err


def test_a_log_that_stays_cut_is_said(
    cluster: ApiServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "jobs":
            server.pod(item, 0, "Succeeded", log="| nothing\n")
            server.finish_job(item["metadata"]["name"], "Complete")

    cluster.on_create = cut
    assert apply("phi-4") == 1
    assert "its log has no result" in capsys.readouterr().err
    assert written(here) == []


def test_a_server_that_stumbles_is_asked_again(cluster: ApiServer, here: Path) -> None:
    answers: list[tuple[int, Json] | str | None] = [
        (503, status(503, "ServiceUnavailable", "etcd leader changed")),
        "break",
        (429, status(429, "TooManyRequests", "slow down")),
    ]
    cluster.faults = [lambda method, path: answers.pop() if answers else None]
    assert apply("phi-4") == 0
    assert written(here) == ["phi-4"]
    assert answers == []


def test_a_server_that_forbids_is_an_error_that_says_what_is_needed(
    cluster: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    forbidden = status(403, "Forbidden", "jobs.batch is forbidden")
    cluster.faults = [lambda method, path: (403, forbidden)]
    assert apply("phi-4") == 2
    shown = capsys.readouterr().err
    assert "jobs.batch is forbidden" in shown
    assert "Traceback" not in shown


def test_only_so_many_jobs_exist_at_a_time(cluster: ApiServer, here: Path) -> None:
    most = [0]

    def count(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "jobs":
            open_ = [job for job in server.objects["jobs"].values() if not job["status"].get("conditions")]
            most[0] = max(most[0], len(open_))
            succeed(server, item)

    cluster.on_create = count
    assert apply("--all", "--at-once", "1") == 0
    assert (written(here), most) == (BOTH, [1])


def test_a_leader_worker_set_is_deleted_as_soon_as_its_result_is_read(cluster: ApiServer) -> None:
    found: list[tuple[str, Any]] = []

    def run(server: ApiServer, kind: str, item: Json) -> None:
        if kind == "leaderworkersets":
            server.pod(item, 0, "Running", log=log_of(server, item))

    cluster.on_create = run
    collector.apply(
        [a_run()],
        SETTINGS,
        done=lambda run, result: found.append((run.model, result["result"]["outcome"])),
        failed=lambda run, words: found.append((run.model, words)),
        say=lambda line: None,
    )
    assert found == [("big", "served")]
    assert cluster.objects["leaderworkersets"] == {}


def test_without_a_kubeconfig_it_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kubernetes")
    monkeypatch.setenv("KUBECONFIG", str(here / "absent"))
    assert apply("phi-4") == 2
    assert "KUBECONFIG" in capsys.readouterr().err


def test_without_the_client_it_says_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert apply("phi-4") == 2
    assert "pip install 'kaito-catalog[kubernetes]'" in capsys.readouterr().err

"""Dry runs on a real Ray cluster of several nodes: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine_helpers import a_run

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.dry_runs import on_ray
from kaito_catalog.formats.evidence import DryRun

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("phi-4", "phi-4-mini-instruct", "mistral-7b-v0.3", "gpt-oss-20b", "llama-3.1-8b-instruct")
PATIENCE_SECONDS = 240.0
ENGINES_PATIENCE_SECONDS = 1200.0

WORKER = """\
#!{python}
# Stands for a node's Python with vLLM: notes each start, and waits for leave to answer.
import json, os, pathlib, sys, time
folder = pathlib.Path({folder!r})
for line in sys.stdin:
    request = json.loads(line)
    config = json.loads((pathlib.Path(request["model"]) / "config.json").read_text())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    with (folder / "starts").open("a") as stream:
        stream.write(json.dumps([os.getpid(), config["test"], visible, request["args"]]) + "\\n")
    print(json.dumps({{"id": 1, "progress": "importing vLLM"}}), flush=True)
    while not (folder / "go").exists() and not (folder / config["test"]).exists():
        time.sleep(0.05)
        if os.getppid() == 1:
            sys.exit(1)
    print("INFO a line of vLLM's log", file=sys.stderr, flush=True)
    answer = json.loads((folder / "answer.json").read_text())
    print(json.dumps({{"id": 1, **answer}}), flush=True)
"""
SERVED: dict[str, Any] = {
    "vllmVersion": "0.32.0",
    "torchVersion": "2.13.0",
    "transformersVersion": "5.19.0",
    "outcome": "served",
    "device": "cpu",
    "tokensGenerated": [1, 2, 3],
    "seconds": {"start": 1.0},
}


class Ray:
    """The cluster's process."""

    def __init__(self, **environment: str) -> None:
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'kaito-catalog[ray]'")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(ROOT / "tests/ray_cluster.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if not line.startswith(("\x1b", "(")):
                return line.strip()
        raise AssertionError("the cluster has ended")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def add(self, **arguments: Any) -> int:
        return int(self._ask(f"add {json.dumps(arguments)}"))

    def kill(self, node: int) -> None:
        assert self._ask(f"kill {node}") == "killed"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    cluster = Ray()
    cluster.add(num_cpus=1)
    yield cluster
    cluster.close()


pytestmark = pytest.mark.models(*MODELS, evidence=False)


@pytest.fixture
def here(here: Path) -> Path:
    """As in conftest.py; each configuration is marked with the model's name."""
    for name in MODELS:
        set_config(here / "catalog/models" / name, test=name)
    (here / "answer.json").write_text(json.dumps({"ok": True, "result": SERVED}))
    return here


def set_config(folder: Path, **fields: Any) -> None:
    facts = yaml.safe_load((folder / "facts.yaml").read_text())
    facts["config"].update(fields)
    (folder / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))


def worker_of(folder: Path) -> str:
    path = folder / "python"
    path.write_text(WORKER.format(python=sys.executable, folder=str(folder)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def start(folder: Path, ray: Ray, *arguments: str, python: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "kaito_catalog", "dry-run", "--on", "ray"]
    command += ["--vllm-python", python or worker_of(folder), *arguments]
    environment = {**os.environ, "RAY_ADDRESS": ray.address, "PYTHONPATH": str(ROOT)}
    environment["PYTHONUTF8"] = "1"
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str], *, patience: float = PATIENCE_SECONDS) -> tuple[int, str]:
    try:
        shown, _ = process.communicate(timeout=patience)
    finally:
        process.kill()
    return process.returncode, shown


def starts(folder: Path) -> list[list[Any]]:
    path = folder / "starts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if process.poll() is not None:
            raise AssertionError(f"it has ended: {process.communicate()[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.1)


def evidence(folder: Path) -> dict[str, list[str]]:
    files = sorted(folder.glob("catalog/models/*/evidence/*.yaml"))
    found: dict[str, list[str]] = {}
    for path in files:
        found.setdefault(path.parents[1].name, []).append(path.name)
    return found


def test_a_node_that_dies_in_the_middle_loses_nothing_and_doubles_nothing(ray: Ray, here: Path) -> None:
    node = ray.add(num_cpus=1)
    process = start(here, ray, "--all", "--device", "cpu")
    wait_until(lambda: len(starts(here)) >= 2, process)
    ray.kill(node)
    (here / "go").touch()
    code, shown = finish(process)
    assert code == 0, shown
    assert evidence(here) == {name: ["vllm-0.32.0-cpu-tp1.yaml"] for name in sorted(MODELS)}
    assert shown.count("; wrote ") == len(MODELS)
    names = [name for _, name, _, _ in starts(here)]
    assert len(names) == len(MODELS) + 1, "one was started again, on the other node"
    assert set(names) == set(MODELS)
    record = read_entry(here / "catalog/models/phi-4").evidence[0].record
    assert isinstance(record, DryRun)
    assert record.generated_tokens == 3


def test_what_has_evidence_is_not_run_again_and_what_was_started_otherwise_is(ray: Ray, here: Path) -> None:
    (here / "go").touch()
    assert finish(start(here, ray, "phi-4", "--device", "cpu"))[0] == 0
    code, shown = finish(start(here, ray, "phi-4", "--device", "cpu"))
    assert (code, len(starts(here))) == (0, 1)
    assert "nothing to run" in shown
    code, shown = finish(start(here, ray, "phi-4", "--device", "cpu", "--max-model-len", "512"))
    assert (code, len(starts(here))) == (0, 2)
    assert list(evidence(here)["phi-4"]) == ["vllm-0.32.0-cpu-tp1.yaml"]


def test_results_are_on_disk_as_they_arrive_and_ctrl_c_leaves_them(ray: Ray, here: Path) -> None:
    # The cheapest may answer; the next waits for leave, and gets none before Ctrl-C.
    (here / "phi-4-mini-instruct").touch()
    process = start(here, ray, "--all", "--device", "cpu")
    wait_until(lambda: len(starts(here)) == 2 and evidence(here).keys() == {"phi-4-mini-instruct"}, process)
    process.send_signal(signal.SIGINT)
    code, shown = finish(process)
    assert code == 130, shown
    assert evidence(here).keys() == {"phi-4-mini-instruct"}
    wait_until_gone(starts(here)[-1][0])
    (here / "go").touch()
    code, shown = finish(start(here, ray, "--all", "--device", "cpu"))
    assert code == 0, shown
    assert f"{len(MODELS) - 1} written" in shown
    assert evidence(here).keys() == set(MODELS)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_gets_the_gpus_and_the_accelerator_it_asks_for(ray: Ray, here: Path) -> None:
    node = ray.add(num_cpus=2, num_gpus=2, resources={"accelerator_type:A100": 1})
    hardware = {"name": "NVIDIA A100-SXM4-80GB", "memoryBytes": 85_000_000_000}
    result = {**SERVED, "vllmVersion": "0.25.1", "device": "cuda", "hardware": hardware}
    (here / "answer.json").write_text(json.dumps({"ok": True, "result": result}))
    (here / "go").touch()
    code, shown = finish(
        start(here, ray, "phi-4", "--device", "cuda", "--instance-type", "Standard_NC48ads_A100_v4")
    )
    assert code == 0, shown
    ((_, _, visible, args),) = starts(here)
    assert sorted(visible.split(",")) == ["0", "1"]
    assert args["tensor_parallel_size"] == 2
    record = read_entry(here / "catalog/models/phi-4").evidence[0].record
    assert isinstance(record, DryRun)
    assert record.gpu is not None
    assert (record.gpu.count, record.parallelism.tensor_parallel_size) == (2, 2)
    ray.kill(node)


def test_what_no_node_can_run_is_said_and_the_rest_is_run(ray: Ray, here: Path) -> None:
    code, shown = finish(
        start(
            here,
            ray,
            "llama-3.1-8b-instruct",
            "--device",
            "cuda",
            "--instance-type",
            "Standard_ND96isr_H100_v5",
        )
    )
    assert code == 1
    assert "it needs a node with 8 × NVIDIA H100 80GB: the cluster has 0" in shown


def test_what_vllm_cannot_be_asked_is_no_evidence_and_stays_missing(ray: Ray, here: Path) -> None:
    error = {"class": "no-vllm", "message": "this Python has no vLLM"}
    (here / "answer.json").write_text(json.dumps({"ok": False, "error": error}))
    (here / "go").touch()
    code, shown = finish(start(here, ray, "phi-4", "--device", "cpu"))
    assert code == 1
    assert "this Python has no vLLM" in shown
    assert evidence(here) == {}


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9"])
def test_without_a_cluster_at_the_address_it_says_how_to_start_one(
    address: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(here)
    monkeypatch.setenv("RAY_ADDRESS", address)
    engine = address if address.startswith("ray:") else "ray"
    assert cli.main(["dry-run", "phi-4", "--device", "cpu", "--on", engine]) == 2
    shown = capsys.readouterr().err
    assert f"nothing listens at {address}" in shown
    assert "ray start --head" in shown


def test_without_ray_it_says_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(here)
    assert cli.main(["dry-run", "phi-4", "--device", "cpu", "--on", "ray"]) == 2
    assert "pip install 'kaito-catalog[ray]'" in capsys.readouterr().err


# --- what a task asks for, without a cluster -------------------------------------------------------------------


def test_a_run_over_several_nodes_leaves_the_gpus_to_vllms_ray_executor() -> None:
    assert on_ray.resources(a_run()) == {"num_cpus": 1, "accelerator_type": "H100"}
    assert on_ray.resources(a_run(nodes=1))["num_gpus"] == 8
    assert a_run().task()["request"]["args"]["distributed_executor_backend"] == "ray"


def test_several_nodes_have_to_be_there_at_the_same_time() -> None:
    node = {"CPU": 96.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
    assert on_ray.missing_nodes(a_run(), [node, node]) is None
    assert on_ray.missing_nodes(a_run(), [node]) == "2 nodes with 8 × NVIDIA H100 80GB: the cluster has 1"


def test_every_gpu_that_vllm_runs_on_and_plans_know_has_an_accelerator_type(root: Path) -> None:
    gpus = yaml.safe_load((root / "catalog/gpus.yaml").read_text())["gpus"]
    planned = {gpu["name"] for gpu in gpus if gpu.get("vllm", True) and gpu.get("memoryBytes")}
    assert planned <= on_ray.ACCELERATOR_TYPES.keys()


def test_accelerator_types_are_what_ray_itself_detects() -> None:
    nvidia = pytest.importorskip("ray._private.accelerators.nvidia_gpu")
    detected = {
        name: nvidia.NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(name)
        for name in on_ray.ACCELERATOR_TYPES
    }
    assert detected == on_ray.ACCELERATOR_TYPES


# --- with a real vLLM ------------------------------------------------------------------------------------------


def test_real_engines_run_in_parallel_and_survive_the_loss_of_a_node(vllm_python: Path, here: Path) -> None:
    tiny = json.loads((ROOT / "tests/configs/tiny-llama.json").read_text())
    for number, name in enumerate(MODELS):
        folder = here / "catalog/models" / name
        if number > 1:
            shutil.rmtree(folder)
            continue
        facts = yaml.safe_load((folder / "facts.yaml").read_text())
        facts["config"] = {**tiny, "num_hidden_layers": 1 + number}
        (folder / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    arguments = ("--all", "--device", "cpu", "--max-model-len", "256")
    with contextlib.ExitStack() as ends:
        cluster = Ray(VLLM_CPU_KVCACHE_SPACE="1")
        ends.callback(cluster.close)
        cluster.add(num_cpus=1)
        node = cluster.add(num_cpus=1)
        process = start(here, cluster, *arguments, python=str(vllm_python))
        ends.callback(process.kill)
        assert process.stdout is not None
        shown = ""
        while shown.count("importing vLLM") < 2:
            line = process.stdout.readline()
            assert line, shown
            # Ray merges equal lines of several tasks.
            shown += line * (1 + line.count("[repeated"))
        cluster.kill(node)
        code, rest = finish(process, patience=ENGINES_PATIENCE_SECONDS)
    assert code == 0, shown + rest
    assert "2 written, 0 without a result, of 2" in rest
    assert evidence(here) == {name: ["vllm-0.32.0-cpu-tp1.yaml"] for name in sorted(MODELS[:2])}
    for name in MODELS[:2]:
        record = read_entry(here / "catalog/models" / name).evidence[0].record
        assert isinstance(record, DryRun)
        assert (record.outcome, record.generated_tokens) == ("served", 4)

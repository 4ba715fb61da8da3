"""Dry runs as Ray tasks: Ray places them, retries them where a node dies, and brings their results here.

Ray is an optional dependency, imported only when asked for. Nothing but Ray and a Python with vLLM has to be on the
nodes: the task's code and the worker's archive travel with the task.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.dry_runs import task as task_module
from kaito_catalog.dry_runs.campaign import Run
from kaito_catalog.errors import CatalogError
from kaito_catalog.vllm_bridge import conversation
from kaito_catalog.vllm_bridge.archive import worker_archive

CPUS_PER_GPU = 1
CPUS_WITHOUT_GPU = 1
TASK_RETRIES = 3
"""How often Ray starts a run again whose node or process died; what vLLM itself refuses is a result."""
TASKS_AT_ONCE = 1000
"""Runs that Ray knows of at a time. Far below the million tasks it can queue on a node, and above what it can run."""
TICK_SECONDS = 1.0
PROGRESS_SECONDS = 10.0
CONNECT_SECONDS = 10.0

ACCELERATOR_TYPES = {
    "NVIDIA A2": "A2",
    "NVIDIA A10": "A10",
    "NVIDIA A10G": "A10G",
    "NVIDIA A16": "A16",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "NVIDIA A40": "A40",
    "NVIDIA A100 40GB": "A100",
    "NVIDIA A100 80GB": "A100",
    "NVIDIA H20": "H20",
    "NVIDIA H100 80GB": "H100",
    "NVIDIA H100 NVL": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA GH200 480GB": "GH200",
    "NVIDIA B200": "B200",
    "NVIDIA B300": "B300",
    "NVIDIA GB10": "GB10",
    "NVIDIA GB200": "GB200",
    "NVIDIA RTX A6000": "RTX-A6000",
    "NVIDIA RTX PRO 6000 Blackwell": "RTX-PRO-6000",
    "NVIDIA GeForce RTX 3090": "GeForce-RTX-3090",
    "NVIDIA GeForce RTX 4090": "GeForce-RTX-4090",
    "NVIDIA GeForce RTX 5090": "GeForce-RTX-5090",
    "Tesla T4": "T4",
    "Tesla V100 16GB": "V100",
    "Tesla V100 32GB": "V100",
}
"""A GPU of gpus.yaml, and the accelerator type that Ray's own detection makes of the driver's name for it
(`ray._private.accelerators.nvidia_gpu`, Ray 2.60)."""


@dataclass(frozen=True)
class Cluster:
    """Where to run: `address` None is what RAY_ADDRESS says, else a Ray of this machine's own."""

    address: str | None = None
    python: str | None = None
    """The Python with vLLM on the nodes; None: as each node's environment says."""
    at_once: int | None = None
    wait_for_nodes: bool = False
    """Submit also what no node can run now: an autoscaler may bring one."""


Done = Callable[[Run, dict[str, Any]], None]
Failed = Callable[[Run, str], None]


def import_ray() -> Any:
    """The `ray` package.

    Raises:
        CatalogError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise CatalogError("Ray is not installed here", hint="pip install 'kaito-catalog[ray]'") from error
    return ray


def resources(run: Run) -> dict[str, Any]:
    """What the task of a run asks of a node, as Ray's own options.

    A run over several nodes asks for none of their GPUs: vLLM's Ray executor takes them, in a placement group of its
    own, and would wait for GPUs that the task itself holds.
    """
    options: dict[str, Any] = {"num_cpus": CPUS_WITHOUT_GPU}
    if run.gpu is not None:
        if run.nodes == 1:
            options = {"num_cpus": CPUS_PER_GPU * run.gpus_per_node, "num_gpus": run.gpus_per_node}
        accelerator = ACCELERATOR_TYPES.get(run.gpu)
        if accelerator is not None:
            options["accelerator_type"] = accelerator
    return options


def _asked_of_a_node(run: Run) -> dict[str, float]:
    options = resources(run)
    asked = {"CPU": float(options["num_cpus"]), "GPU": float(run.gpus_per_node)}
    if "accelerator_type" in options:
        asked[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return asked


def missing_nodes(run: Run, nodes: Iterable[Mapping[str, float]]) -> str | None:
    """What a cluster of nodes with these resources lacks for a run, in words; None where it can be placed."""
    asked = _asked_of_a_node(run)
    able = sum(all(node.get(name, 0.0) >= amount for name, amount in asked.items()) for node in nodes)
    if able >= run.nodes:
        return None
    what = f"{run.gpus_per_node} × {run.gpu}" if run.gpu else f"{asked['CPU']:.0f} CPU"
    several = f"{run.nodes} nodes" if run.nodes > 1 else "a node"
    return f"{several} with {what}: the cluster has {able}"


def run_all(
    runs: Sequence[Run], cluster: Cluster, *, done: Done, failed: Failed, say: Callable[[str], None]
) -> None:
    """Run everything; `done` gets each result when it arrives, `failed` each run without one.

    Ctrl-C cancels what runs; what has arrived is kept by `done`.

    Raises:
        CatalogError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = import_ray()
    connected = _connect(ray, cluster, say)
    try:
        _run_all(ray, runs, cluster, done=done, failed=failed, say=say)
    finally:
        if connected:
            ray.shutdown()


def _connect(ray: Any, cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Connect, unless this process is connected already."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = cluster.address or os.environ.get("RAY_ADDRESS") or "this machine"
    hint = "start one with 'ray start --head'; Ray and Python have to be of the same version here and there"
    # Ray itself waits for minutes where nothing listens.
    if not _listens(where):
        raise CatalogError(f"nothing listens at {where[:100]}", hint=hint)
    options: dict[str, Any] = {"address": cluster.address} if cluster.address else {}
    try:
        ray.init(**options, logging_level="ERROR", log_to_driver=True)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise CatalogError(f"no Ray at {where[:100]}: {words[0][:300]}", hint=hint) from error
    nodes = [node for node in ray.nodes() if node["Alive"]]
    say(f"Ray {ray.__version__}, {len(nodes)} node{'s' if len(nodes) != 1 else ''}")
    return True


def _listens(address: str) -> bool:
    """Whether somebody does at `HOST:PORT` or `ray://HOST:PORT`; what names no host is left to Ray."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _run_all(
    ray: Any, runs: Sequence[Run], cluster: Cluster, *, done: Done, failed: Failed, say: Callable[[str], None]
) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    waiting: deque[Run] = deque()
    for run in runs:
        lack = missing_nodes(run, nodes)
        if lack is not None and not cluster.wait_for_nodes:
            failed(run, f"it needs {lack} (--wait-for-nodes leaves it to an autoscaler)")
        else:
            waiting.append(run)
    # Those over several nodes last, one at a time: two halves of two placement groups would wait for each other.
    waiting = deque(sorted(waiting, key=lambda run: run.nodes > 1))
    start = _starter(ray, cluster)
    running: dict[Any, Run] = {}
    most = cluster.at_once or TASKS_AT_ONCE
    last = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < most and (waiting[0].nodes == 1 or not running):
                run = waiting.popleft()
                running[start(run)] = run
                if run.nodes > 1:
                    break
            ready, _ = ray.wait(list(running), num_returns=1, timeout=TICK_SECONDS)
            for reference in ready:
                run = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:
                    failed(run, _words(error))
                else:
                    done(run, result)
            if time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                if running:
                    say(f"  {len(running)} with Ray, {len(waiting)} waiting")
    except BaseException:
        for reference in running:
            ray.cancel(reference, force=False)
        if running:
            # Cancelled tasks end their workers; what is left of them after that ends with the driver.
            ray.wait(list(running), num_returns=len(running), timeout=5.0)
        raise


def _starter(ray: Any, cluster: Cluster) -> Callable[[Run], Any]:
    for module in (task_module, conversation):
        ray.cloudpickle.register_pickle_by_value(module)
    run_task, make_say = task_module.run, task_module.printer
    # Once for all tasks: Ray keeps it in its object store.
    archive = ray.put(worker_archive())

    def dry_run(task: dict[str, Any], worker: bytes, several_nodes: bool) -> dict[str, Any]:
        if several_nodes:
            import os

            import ray

            # The task holds no GPU, so Ray hides them all from it; vLLM has to see those of its node.
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            # vLLM's Ray executor joins the cluster that this task runs in.
            address = ray.get_runtime_context().gcs_address
            task["request"].setdefault("env", {})["RAY_ADDRESS"] = address
        return run_task(task, worker, say=make_say())

    remote = ray.remote(dry_run)

    def start(run: Run) -> Any:
        task = run.task()
        if cluster.python:
            task["python"] = cluster.python
        return remote.options(
            name=f"dry-run {run.model}", max_retries=TASK_RETRIES, retry_exceptions=False, **resources(run)
        ).remote(task, archive, run.nodes > 1)

    return start


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no words'}"

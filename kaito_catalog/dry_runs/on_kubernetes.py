"""Dry runs as Kubernetes objects, and a collector that submits them, follows them and brings their results here.

A run on one node is a Job; a run over several is a LeaderWorkerSet, as vLLM documents it. Nothing of a proposal gets
into a command line or a shell: the run is a JSON file in a ConfigMap, and the command is always the same.

The client is an optional dependency, imported only when `--apply` asks for it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kaito_catalog.documents import writing
from kaito_catalog.dry_runs import task as task_module
from kaito_catalog.dry_runs.campaign import Run
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.manifests import TOKEN_KEY, object_name
from kaito_catalog.kaito.release import release_of
from kaito_catalog.vllm_bridge.archive import worker_archive
from kaito_catalog.vllm_bridge.evidence import evidence_lines

MANAGED_BY = "app.kubernetes.io/managed-by"
RUN_LABEL, MODEL_LABEL, ROLE_LABEL = "catalog.kaito.sh/run", "catalog.kaito.sh/model", "catalog.kaito.sh/role"
SELECTOR = f"{MANAGED_BY}=kaito-catalog"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
LWS = {"group": "leaderworkerset.x-k8s.io", "version": "v1", "plural": "leaderworkersets"}
CONTAINER = "dry-run"
FOLDER, SCRATCH = "/kaito-catalog", "/scratch"
USER_ID = 1000

RETRIES = 2
NODE_SECONDS = 1800
"""For a node to be provisioned and the image to be pulled, before the first second of the run."""
KEPT_SECONDS = 86400
"""How long a finished Job and its log stay."""
LONGEST_NAME = 52
"""Of an object: a StatefulSet's pods carry its name and a digest of eleven characters in a label of 63."""
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}\Z", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """What is the same for all runs of a campaign."""

    image: str
    namespace: str | None = None
    python: str | None = None
    """The Python with vLLM in the image; None: `python3`."""

    def __post_init__(self) -> None:
        if not _IMAGE.match(self.image):
            raise CatalogError(f"--image {self.image[:80]!r} is no image")
        if self.namespace is not None and not _NAMESPACE.match(self.namespace):
            raise CatalogError(f"--namespace {self.namespace[:80]!r} is no namespace")


def base_image(profile: Profile) -> str:
    """KAITO's base image of a profile.

    Raises:
        CatalogError: it is not recorded.
    """
    kaito = release_of(profile)
    if profile.vllm_version != kaito.vllm_version:
        raise CatalogError(f"the base image of {profile.name} is not recorded", hint="name one with --image")
    return kaito.base_image


# --- manifests -------------------------------------------------------------------------------------------------


def name_of(run: Run) -> str:
    """The name of a run's objects: a DNS-1123 label of at most 52 characters that ends with its key."""
    label = object_name(f"dry-run-{run.model}")[: LONGEST_NAME - len(run.key) - 1].rstrip("-")
    return f"{label}-{run.key}"


@lru_cache(maxsize=1)
def _code() -> tuple[str, str]:
    """The name of the ConfigMap with the worker's archive, and the archive in Base64."""
    archive = worker_archive()
    digest = hashlib.sha256(archive).hexdigest()[:10]
    return f"kaito-catalog-dry-run-{digest}", base64.b64encode(archive).decode()


def sources() -> dict[str, Any]:
    """The ConfigMap with the code; its name has its digest, so that a new version is another object."""
    name, archive = _code()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {MANAGED_BY: "kaito-catalog"}},
        "immutable": True,
        "binaryData": {task_module.ARCHIVE: archive},
    }


def objects(run: Run, settings: Settings) -> list[dict[str, Any]]:
    """The objects of a run: its ConfigMap, and the Job or LeaderWorkerSet."""
    name = name_of(run)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": _labels(run)},
        "data": {"run.json": json.dumps(run.task(), sort_keys=True)},
    }
    return [config_map, _job(run, settings) if run.nodes == 1 else _leader_worker_set(run, settings)]


def to_yaml(runs: Sequence[Run], settings: Settings) -> str:
    """All objects of a campaign as one stream for `kubectl apply -f -`."""
    documents = [sources()] + [item for run in runs for item in objects(run, settings)]
    if settings.namespace:
        for item in documents:
            item["metadata"]["namespace"] = settings.namespace
    head = (
        "# Made by `kaito-catalog dry-run --on kubernetes`. Results are one line of JSON in the log of each run:\n"
        "#   kubectl logs job/NAME | kaito-catalog evidence add -\n"
    )
    several = [name_of(run) for run in runs if run.nodes > 1]
    for name in several:
        head += (
            f"# Keeps its GPUs until it is deleted:\n#   kubectl logs {name}-0 | kaito-catalog evidence add - && "
            f"kubectl delete leaderworkerset/{name}\n"
        )
    return head + "".join("---\n" + writing.write(item, kubernetes=True, width=10**6) for item in documents)


def _labels(run: Run) -> dict[str, str]:
    return {
        MANAGED_BY: "kaito-catalog",
        RUN_LABEL: run.key,
        MODEL_LABEL: object_name(run.model),
    }


def deadline_seconds(run: Run) -> int:
    """When Kubernetes gives a run up: waiting for a node, and every attempt at its longest."""
    return NODE_SECONDS + int((1 + RETRIES) * (run.time_limit_seconds + 2 * task_module.GRACE_SECONDS))


def _job(run: Run, settings: Settings) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name_of(run), "labels": _labels(run)},
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": deadline_seconds(run),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            # An eviction or a node that goes away is not the run's own failure.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "template": _pod(run, settings, None),
        },
    }


def _leader_worker_set(run: Run, settings: Settings) -> dict[str, Any]:
    """As https://docs.vllm.ai/en/latest/deployment/frameworks/lws/: Ray's head on the leader, the others join it."""
    return {
        "apiVersion": f"{LWS['group']}/{LWS['version']}",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name_of(run), "labels": _labels(run)},
        "spec": {
            "replicas": 1,
            "leaderWorkerTemplate": {
                "size": run.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _pod(run, settings, "leader"),
                "workerTemplate": _pod(run, settings, "worker"),
            },
        },
    }


def _pod(run: Run, settings: Settings, role: str | None) -> dict[str, Any]:
    program = f"{FOLDER}/{task_module.ARCHIVE}"
    command = [settings.python or "python3", program, "run", FOLDER, *([role] if role else [])]
    resources: dict[str, dict[str, str]] = {"requests": {"cpu": "2", "memory": "8Gi"}}
    if run.weights == "real":
        resources["requests"]["ephemeral-storage"] = f"{run.weights_bytes // 2**30 + 10}Gi"
    if run.gpu is not None:
        resources["limits"] = {"nvidia.com/gpu": str(run.gpus_per_node)}
    spec: dict[str, Any] = {
        # LeaderWorkerSets are made of StatefulSets, which know nothing else than Always.
        "restartPolicy": "Always" if role else "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "command": command,
                "env": _environment(run, settings),
                "resources": resources,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "code", "mountPath": FOLDER, "readOnly": True},
                    {"name": "scratch", "mountPath": SCRATCH},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
                ],
            }
        ],
        "volumes": [
            {
                "name": "code",
                "projected": {
                    "sources": [
                        {"configMap": {"name": _code()[0]}},
                        {"configMap": {"name": name_of(run)}},
                    ]
                },
            },
            {"name": "scratch", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            # NCCL's ranks on a node talk through it; the default of 64 MiB is too small.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
        ],
    }
    if run.gpu is not None:
        if run.instance_type:
            spec["nodeSelector"] = {INSTANCE_TYPE_LABEL: run.instance_type}
        # The taints that KAITO's own workloads tolerate.
        spec["tolerations"] = [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
        ]
    labels = {**_labels(run), ROLE_LABEL: role or "leader"}
    return {"metadata": {"labels": labels}, "spec": spec}


def _environment(run: Run, settings: Settings) -> list[dict[str, Any]]:
    """Caches and temporary files where something may be written; a name for a user whom the image does not list."""
    plain = {
        "HOME": SCRATCH,
        "USER": "kaito",
        "LOGNAME": "kaito",
        "XDG_CACHE_HOME": f"{SCRATCH}/cache",
        "HF_HOME": f"{SCRATCH}/hf",
        "VLLM_CACHE_ROOT": f"{SCRATCH}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH}/inductor",
        "TRITON_CACHE_DIR": f"{SCRATCH}/triton",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if settings.python:
        plain[task_module.PYTHON_VARIABLE] = settings.python
    if run.weights == "dummy":
        plain["HF_HUB_OFFLINE"] = "1"
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items()]
    if run.secret:
        reference = {"secretKeyRef": {"name": run.secret, "key": TOKEN_KEY}}
        found.append({"name": TOKEN_KEY, "valueFrom": reference})
    return found


# --- submit, follow, collect -----------------------------------------------------------------------------------

AT_ONCE = 100
"""Runs that exist in the cluster at a time."""
WATCH_SECONDS = 30
LOG_ATTEMPTS = 3
"""How often a log without a result is read before the run is made again."""
CALL_ATTEMPTS = 5
GONE_ATTEMPTS = 120
PAUSE_SECONDS = 1.0


@dataclass
class _Followed:
    run: Run
    since: float
    submitted: int = 1
    log_attempts: int = 0
    said: set[str] = field(default_factory=set)


def import_client() -> Any:
    """The `kubernetes` package.

    Raises:
        CatalogError: it is not installed.
    """
    try:
        import kubernetes
    except ImportError as error:
        raise CatalogError(
            "the Kubernetes client is not installed here", hint="pip install 'kaito-catalog[kubernetes]'"
        ) from error
    return kubernetes


def apply(
    runs: Sequence[Run],
    settings: Settings,
    *,
    at_once: int | None = None,
    done: Callable[[Run, dict[str, Any]], None],
    failed: Callable[[Run, str], None],
    say: Callable[[str], None],
) -> None:
    """Submit all runs, a limited number at a time; `done` gets each result when it is there, `failed` the others.

    A Job that exists is taken up, so the same command goes on where it was interrupted.

    Raises:
        CatalogError: there is no cluster, it refuses, or it stays away.
    """
    Collector(settings, done=done, failed=failed, say=say).run_all(runs, at_once or AT_ONCE)


class Collector:
    """Follows runs by listing, and watching only to know when to list again: a watch that breaks loses nothing."""

    def __init__(
        self,
        settings: Settings,
        *,
        done: Callable[[Run, dict[str, Any]], None],
        failed: Callable[[Run, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._kubernetes = import_client()
        self._settings = settings
        self._done, self._failed, self._say = done, failed, say
        default = self._connect()
        self._namespace = settings.namespace or default
        self._core = self._kubernetes.client.CoreV1Api()
        self._batch = self._kubernetes.client.BatchV1Api()
        self._custom = self._kubernetes.client.CustomObjectsApi()
        self._running: dict[str, _Followed] = {}

    def _connect(self) -> str:
        """Read the kubeconfig (KUBECONFIG, or the default place); gives the namespace of its context."""
        config = self._kubernetes.config
        try:
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(config_file=file)
            _, context = config.list_kube_config_contexts(config_file=file)
        except config.ConfigException as error:
            raise CatalogError(
                f"no kubeconfig: {error}", hint="set KUBECONFIG, or leave out --apply"
            ) from error
        return str(context.get("context", {}).get("namespace") or "default")

    def run_all(self, runs: Sequence[Run], at_once: int) -> None:
        waiting = deque(runs)
        self._create(self._core.create_namespaced_config_map, sources())
        try:
            while waiting or self._running:
                while waiting and len(self._running) < at_once:
                    run = waiting.popleft()
                    self._submit(run)
                    self._running[run.key] = _Followed(run, time.monotonic())
                version = self._look()
                if self._running and not (waiting and len(self._running) < at_once):
                    self._wait(version)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        """Jobs end by themselves, and are taken up again; a LeaderWorkerSet would keep its GPUs for nobody."""
        for followed in self._running.values():
            if followed.run.nodes > 1:
                self._delete(followed.run)
        jobs = sum(followed.run.nodes == 1 for followed in self._running.values())
        if jobs:
            self._say(f"{jobs} Jobs go on in the cluster; the same command takes them up")

    # --- calls ---

    def _call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """A call of the API, again where the server or the way to it fails for a moment."""
        import urllib3

        exception = self._kubernetes.client.ApiException
        for attempt in range(1, CALL_ATTEMPTS + 1):
            try:
                return function(*args, **named, _request_timeout=(10, 60))
            except exception as error:
                if error.status in (401, 403):
                    raise CatalogError(
                        f"the cluster refuses ({error.status}): {_reason(error)}",
                        hint="Jobs, ConfigMaps, Pods and their logs have to be allowed in the namespace",
                    ) from error
                if error.status != 429 and error.status < 500:
                    raise
                words = f"{error.status} {_reason(error)}"
            except urllib3.exceptions.HTTPError as error:
                words = f"{type(error).__name__}"
            if attempt < CALL_ATTEMPTS:
                time.sleep(PAUSE_SECONDS * attempt)
        raise CatalogError(
            f"the cluster does not answer: {words}", hint="the same command goes on where it was"
        )

    def _create(self, function: Callable[..., Any], item: Mapping[str, Any], **named: Any) -> Any:
        """Create an object and give it back; None where one of its name exists."""
        try:
            return self._call(function, namespace=self._namespace, body=dict(item), **named)
        except self._kubernetes.client.ApiException as error:
            if error.status == 409:
                return None
            raise CatalogError(
                f"the cluster does not take {item['kind']} {item['metadata']['name']}: {_reason(error)}"
            ) from error

    def _submit(self, run: Run) -> None:
        """Create a run's objects, or take up the Job that exists; one that failed before is made again."""
        config_map, workload = objects(run, self._settings)
        if run.nodes > 1:
            made = self._create(self._custom.create_namespaced_custom_object, workload, **LWS)
            uid = made["metadata"]["uid"] if made else None
        else:
            made = self._create(self._batch.create_namespaced_job, workload)
            if made is None:
                found = self._find_job(name_of(run))
                if found is not None and not _condition(found, "Failed"):
                    return
                self._delete(run)
                self._wait_until_gone(run)
                made = self._create(self._batch.create_namespaced_job, workload)
            uid = made.metadata.uid if made else None
        if uid is not None:
            # Goes with its owner. The pod waits for it.
            owner = {key: workload[key] for key in ("apiVersion", "kind")}
            owner |= {"name": name_of(run), "uid": uid}
            config_map["metadata"]["ownerReferences"] = [{**owner, "blockOwnerDeletion": True}]
        self._create(self._core.create_namespaced_config_map, config_map)

    def _wait_until_gone(self, run: Run) -> None:
        for _ in range(GONE_ATTEMPTS):
            if self._find_job(name_of(run)) is None:
                return
            time.sleep(PAUSE_SECONDS)
        raise CatalogError(f"the Job {name_of(run)} does not go away", hint="delete it with kubectl")

    def _find_job(self, name: str) -> Any:
        try:
            return self._call(self._batch.read_namespaced_job, name=name, namespace=self._namespace)
        except self._kubernetes.client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def _delete(self, run: Run) -> None:
        named = {"name": name_of(run), "namespace": self._namespace, "propagation_policy": "Foreground"}
        try:
            if run.nodes > 1:
                self._call(self._custom.delete_namespaced_custom_object, **LWS, **named)
            else:
                self._call(self._batch.delete_namespaced_job, **named)
        except self._kubernetes.client.ApiException as error:
            if error.status != 404:
                raise

    # --- looking ---

    def _look(self) -> str:
        """List everything and take what is finished; gives the version from which to watch."""
        pods = self._call(self._core.list_namespaced_pod, self._namespace, label_selector=SELECTOR)
        jobs = self._call(self._batch.list_namespaced_job, self._namespace, label_selector=SELECTOR)
        by_run: dict[str, list[Any]] = {}
        for pod in pods.items:
            labels = pod.metadata.labels or {}
            if labels.get(ROLE_LABEL) == "leader":
                by_run.setdefault(labels.get(RUN_LABEL, ""), []).append(pod)
        by_name = {job.metadata.name: job for job in jobs.items}
        for key, followed in list(self._running.items()):
            found = by_run.get(key, [])
            for pod in found:
                self._say_where(followed, pod)
            if followed.run.nodes > 1:
                self._look_at_leader(followed, found)
            else:
                self._look_at_job(followed, by_name.get(name_of(followed.run)), found)
        return str(pods.metadata.resource_version)

    def _look_at_job(self, followed: _Followed, job: Any, pods: list[Any]) -> None:
        run = followed.run
        if job is None:
            self._finish(run, failed="its Job is gone: somebody deleted it")
            return
        failure = _condition(job, "Failed")
        if failure is not None:
            words = f"{failure.reason}: {failure.message}" if failure.message else str(failure.reason)
            last = self._last_error(pods)
            self._finish(run, failed=f"{words}; {last}" if last else words)
            return
        if _condition(job, "Complete") is None:
            return
        for pod in pods:
            if pod.status.phase == "Succeeded":
                found = self._result(run, pod)
                if found is not None:
                    self._finish(run, result=found)
                    return
        followed.log_attempts += 1
        if followed.log_attempts < LOG_ATTEMPTS:
            return
        if followed.submitted == 1:
            self._say(f"  {run.title}: its log has no result, it is run once more")
            self._delete(run)
            self._wait_until_gone(run)
            self._submit(run)
            followed.submitted, followed.log_attempts = 2, 0
        else:
            self._finish(run, failed="it ended, and its log has no result: it was cut, or is not kept")

    def _look_at_leader(self, followed: _Followed, pods: list[Any]) -> None:
        run = followed.run
        for pod in pods:
            if pod.status.phase == "Running":
                found = self._result(run, pod)
                if found is not None:
                    self._delete(run)
                    self._finish(run, result=found)
                    return
        if time.monotonic() - followed.since > deadline_seconds(run):
            self._delete(run)
            self._finish(run, failed=f"no result within {deadline_seconds(run)} s")

    def _finish(self, run: Run, *, result: dict[str, Any] | None = None, failed: str | None = None) -> None:
        del self._running[run.key]
        if result is not None and "result" in result:
            self._done(run, result)
        else:
            error = (result or {}).get("error")
            words = error.get("message") if isinstance(error, dict) else None
            self._failed(run, failed or str(words or "no reason was given"))

    def _lines(self, run: Run, pod: Any) -> Iterator[dict[str, Any]]:
        """The lines of a pod's log that are this run's result."""
        try:
            response = self._call(
                self._core.read_namespaced_pod_log,
                pod.metadata.name,
                self._namespace,
                container=CONTAINER,
                _preload_content=False,
            )
        except self._kubernetes.client.ApiException:
            return  # not started yet, or the pod and its log are gone
        text = bytes(response.data).decode(errors="replace")
        for value in evidence_lines(io.StringIO(text)):
            if value.get("key") == run.key:
                yield value

    def _result(self, run: Run, pod: Any) -> dict[str, Any] | None:
        found = list(self._lines(run, pod))
        return found[-1] if found else None

    def _last_error(self, pods: list[Any]) -> str | None:
        for pod in reversed(pods):
            status = pod.status
            if status.reason:
                return f"{status.reason}: {status.message}" if status.message else str(status.reason)
            for run in (f.run for f in self._running.values() if f.run.key == pod.metadata.labels[RUN_LABEL]):
                found = self._result(run, pod)
                if found and isinstance(found.get("error"), dict):
                    return str(found["error"].get("message"))
        return None

    def _say_where(self, followed: _Followed, pod: Any) -> None:
        status = pod.status
        line = f"{status.phase} on {pod.spec.node_name}" if pod.spec.node_name else str(status.phase)
        if status.reason:
            line += f" ({status.reason})"
        for condition in status.conditions or ():
            if condition.type == "PodScheduled" and condition.status == "False" and condition.message:
                line += f": {condition.message}"
        said = f"{pod.metadata.name}: {line}"
        if said not in followed.said:
            followed.said.add(said)
            self._say(f"  {followed.run.model}: {line}")

    def _wait(self, version: str) -> None:
        """Until something changes, or the watch ends; a version that is too old (410) only means to list again."""
        import urllib3

        watch = self._kubernetes.watch.Watch()
        try:
            for _ in watch.stream(
                self._core.list_namespaced_pod,
                self._namespace,
                label_selector=SELECTOR,
                resource_version=version,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(10, WATCH_SECONDS + 10),
            ):
                watch.stop()
                break
        except self._kubernetes.client.ApiException as error:
            if error.status in (401, 403):
                raise CatalogError(f"the cluster refuses to be watched: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, ValueError):
            pass
        time.sleep(PAUSE_SECONDS)


def _condition(job: Any, name: str) -> Any:
    for condition in job.status.conditions or ():
        if condition.type == name and condition.status == "True":
            return condition
    return None


def _reason(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])[:300]
    except (TypeError, KeyError, ValueError):
        return str(error.reason)[:300]

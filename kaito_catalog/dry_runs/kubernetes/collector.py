"""Submits the objects of dry runs to a cluster, follows them and brings their results here."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito_catalog.dry_runs.campaign import Run
from kaito_catalog.dry_runs.kubernetes.objects import (
    CONTAINER,
    LWS,
    ROLE_LABEL,
    RUN_LABEL,
    SELECTOR,
    ClusterSettings,
    deadline_seconds,
    name_of,
    objects,
    sources,
)
from kaito_catalog.errors import CatalogError
from kaito_catalog.system import cluster
from kaito_catalog.system.cluster import ClusterApi, reason_of
from kaito_catalog.vllm_bridge.logs import evidence_lines

PODS_AT_ONCE = 100
"""Runs that exist in the cluster at a time."""
WATCH_SECONDS = 30
LOG_ATTEMPTS = 3
"""How often a log without a result is read before the run is made again."""
GONE_ATTEMPTS = 120


@dataclass
class _Followed:
    run: Run
    since: float
    submitted: int = 1
    log_attempts: int = 0
    said: set[str] = field(default_factory=set)


def apply(
    runs: Sequence[Run],
    settings: ClusterSettings,
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
    Collector(settings, done=done, failed=failed, say=say).run_all(runs, at_once or PODS_AT_ONCE)


class Collector:
    """Follows runs by listing, and watching only to know when to list again: a watch that breaks loses nothing."""

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        done: Callable[[Run, dict[str, Any]], None],
        failed: Callable[[Run, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._api = ClusterApi(
            needs="Jobs, ConfigMaps, Pods and their logs have to be allowed in the namespace",
            without="leave out --apply",
        )
        self._kubernetes, self._call = self._api.client, self._api.call
        self._settings = settings
        self._done, self._failed, self._say = done, failed, say
        self._namespace = settings.namespace or self._api.namespace
        self._core = self._kubernetes.client.CoreV1Api()
        self._batch = self._kubernetes.client.BatchV1Api()
        self._custom = self._kubernetes.client.CustomObjectsApi()
        self._running: dict[str, _Followed] = {}

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
        """Jobs end by themselves, and are taken up again; a LeaderWorkerSet would keep its GPUs for nothing."""
        for followed in self._running.values():
            if followed.run.nodes > 1:
                self._delete(followed.run)
        jobs = sum(followed.run.nodes == 1 for followed in self._running.values())
        if jobs:
            self._say(f"{jobs} Jobs go on in the cluster; the same command takes them up")

    # --- calls ---

    def _create(self, function: Callable[..., Any], item: Mapping[str, Any], **named: Any) -> Any:
        """Create an object and give it back; None where one of its name exists."""
        try:
            return self._call(function, namespace=self._namespace, body=dict(item), **named)
        except self._api.refused as error:
            if error.status == 409:
                return None
            raise CatalogError(
                f"the cluster does not take {item['kind']} {item['metadata']['name']}: {reason_of(error)}"
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
            time.sleep(cluster.PAUSE_SECONDS)
        raise CatalogError(f"the Job {name_of(run)} does not go away", hint="delete it with kubectl")

    def _find_job(self, name: str) -> Any:
        try:
            return self._call(self._batch.read_namespaced_job, name=name, namespace=self._namespace)
        except self._api.refused as error:
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
        except self._api.refused as error:
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
        except self._api.refused:
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
        except self._api.refused as error:
            if error.status in (401, 403):
                raise CatalogError(f"the cluster refuses to be watched: {reason_of(error)}") from error
        except (urllib3.exceptions.HTTPError, ValueError):
            pass
        time.sleep(cluster.PAUSE_SECONDS)


def _condition(job: Any, name: str) -> Any:
    for condition in job.status.conditions or ():
        if condition.type == name and condition.status == "True":
            return condition
    return None

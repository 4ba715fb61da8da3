"""`evidence from-cluster`: what a cluster's Workspaces and the logs of their pods say, as `kind: ReportedRun`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_shared, shown
from kaito_catalog.cli.common import OK, opened_bytes, say
from kaito_catalog.cli.evidence import emit_runs, write_runs, written_to
from kaito_catalog.documents import streams
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.live import MOST_LOG_BYTES, LiveCluster, PodLog
from kaito_catalog.kaito.objects import objects_of
from kaito_catalog.kaito.release import release_of
from kaito_catalog.kaito.running import RunningModel, of_pod, running_models
from kaito_catalog.vllm_bridge.start_logs.reported import API_VERSION, reported_runs

_OBJECTS = (".yaml", ".yml", ".json")
_PREVIOUS = (".previous", "-previous")


@dataclass
class _Gathered:
    """What a cluster, or its saved files, hold."""

    models: tuple[RunningModel, ...]
    logs: Iterable[tuple[RunningModel, PodLog]]
    """Each read when its turn comes: many pods have more text than memory is for; of a pod the oldest first."""
    where: str


def run_from_cluster(options: argparse.Namespace) -> int:
    """`evidence from-cluster [FILE…]`."""
    root = written_to(options)
    shared = read_shared(root)
    gathered = _of_files(options.files, shared) if options.files else _of_cluster(options, shared)
    if not gathered.models:
        raise CatalogError(
            f"no Workspace or InferenceSet with a preset is in {gathered.where}",
            hint="kubectl get workspace,inferenceset --all-namespaces shows where they are",
        )
    given = {
        "today": datetime.now(UTC).date().isoformat(),
        "reported_by": options.by,
        "source": options.source,
    }
    starts = [(owner, run) for owner, log in gathered.logs for run in _starts(owner, log, shared, given)]
    runs = [
        run
        for model in gathered.models
        for run in _runs(model, [run for owner, run in starts if owner is model], given)
    ]
    if not runs:
        raise CatalogError(
            "neither a status nor a log says anything about a start",
            hint="save the logs too: kubectl logs phi-4-0 > phi-4-0.log",
        )
    if options.into:
        return write_runs(runs, root)
    emit_runs(runs, options.format)
    return OK


# --- where it is read from -------------------------------------------------------------------------------------


def _of_cluster(options: argparse.Namespace, shared: Shared) -> _Gathered:
    cluster = LiveCluster(options.namespace, everywhere=options.all_namespaces, say=say)
    models = running_models(cluster.objects(), release_of(shared.profile()))
    logs = (
        (owner, log)
        for log in (cluster.logs() if models else ())
        if (owner := of_pod(log.pod, models, namespace=log.namespace)) is not None
    )
    return _Gathered(models, logs, cluster.where)


def _of_files(files: Sequence[str], shared: Shared) -> _Gathered:
    """Saved objects (`.yaml`, `.json`), and logs that are named after their pods."""
    objects: list[Mapping[str, Any]] = []
    logs = []
    for file in dict.fromkeys(files):
        path = Path(file)
        if path.suffix not in _OBJECTS:
            logs.append(path)
            continue
        documents = streams.read_all(path, shown_as=shown(path))
        for document in documents:
            if document.problems:
                problem = document.problems[0]
                raise CatalogError(f"{problem.place}: {problem.message}", hint=problem.hint)
        objects += [item.value for item in objects_of(documents)]
    models = running_models(objects, release_of(shared.profile()))
    owners = [(_owner(path, models, is_only=len(logs) == 1), path) for path in logs]
    owners.sort(key=lambda item: not _pod(item[1])[1])
    return _Gathered(models, ((owner, _saved_log(path)) for owner, path in owners), "these files")


def _owner(path: Path, models: Sequence[RunningModel], *, is_only: bool) -> RunningModel:
    """The Workspace that a log is of; one log and one Workspace belong together whatever the name."""
    owner = of_pod(_pod(path)[0], models)
    if owner is None and len(models) == 1 and is_only:
        owner = models[0]
    if owner is None:
        raise CatalogError(
            f"{shown(path)}: no Workspace of the other files has a pod of this name",
            hint="name a log after its pod, such as phi-4-0.log, and give its Workspace as YAML too",
        )
    return owner


def _pod(path: Path) -> tuple[str, bool]:
    """The pod that a log is named after, and whether it is of the container before."""
    pod = next((path.stem.removesuffix(end) for end in _PREVIOUS if path.stem.endswith(end)), path.stem)
    return pod, pod != path.stem


def _saved_log(path: Path) -> PodLog:
    pod, is_previous = _pod(path)
    with opened_bytes(str(path)) as stream:
        return PodLog(pod, "", is_previous, stream.read(MOST_LOG_BYTES).decode(errors="replace"))


# --- what it says ----------------------------------------------------------------------------------------------


def _starts(
    model: RunningModel, log: PodLog, shared: Shared, given: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The starts in a log of a Workspace's pod; none where it names another model."""
    machine = shared.instance_type(model.instance_type) if model.instance_type else None
    text = StringIO(log.text, newline="\n")
    for run in reported_runs(text, gpu=machine.gpu if machine else None, **given):
        named = str(run.get("model") or "")
        if "/" in named and model.model and named.lower() != model.model.lower():
            say(f"{model.shown} serves {model.model}, a log of its pods names {named[:120]}: skipped")
            continue
        yield {**run, **({"model": model.model} if model.model else {})}


def _runs(
    model: RunningModel, starts: Sequence[dict[str, Any]], given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The starts of a Workspace, the last that served with what its status says."""
    on = {"instanceType": model.instance_type, "nodeCount": model.node_count}
    on = {key: value for key, value in on.items() if value is not None}
    runs = [{**run, **on} for run in starts]
    if model.performance:
        served = [run for run in runs if run.get("outcome") == "served"]
        if served:
            _add_performance(served[-1], model)
        else:
            runs.append(_of_status(model, given) | on)
    if not runs:
        say(f"{model.shown}: skipped: no log of its pods shows a start, and its status has no benchmark")
    return [_in_order(run) for run in runs]


def _add_performance(run: dict[str, Any], model: RunningModel) -> None:
    settings = (model.performance or {}).get("config", {})
    version, ran = settings.get("engineVersion"), run.get("versions", {}).get("vllm")
    if settings.get("engine") == "vllm" and version and ran and version != ran:
        say(f"note: {model.shown}: its status speaks of vLLM {version}, its log of {ran}; both are kept")
    run["performance"] = dict(model.performance or {})
    run["lines"] = [*run["lines"], *model.lines]


def _of_status(model: RunningModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """A start of which only the status is known: KAITO measures what serves."""
    settings = (model.performance or {}).get("config", {})
    is_vllm = settings.get("engine") == "vllm" and settings.get("engineVersion")
    return {
        "apiVersion": API_VERSION,
        "kind": "ReportedRun",
        **({"model": model.model} if model.model else {}),
        **({"versions": {"vllm": settings["engineVersion"]}} if is_vllm else {}),
        "outcome": "served",
        "performance": dict(model.performance or {}),
        **({"reportedBy": given["reported_by"]} if given["reported_by"] else {}),
        **({"source": given["source"]} if given["source"] else {}),
        "recordedAt": given["today"],
        "lines": list(model.lines),
    }


_LAST = ("reportedBy", "source", "logSha256", "recordedAt", "lines")


def _in_order(run: Mapping[str, Any]) -> dict[str, Any]:
    """Who reports it and the lines come last, as `from-log` writes them."""
    return {key: value for key, value in run.items() if key not in _LAST} | {
        key: run[key] for key in _LAST if key in run
    }

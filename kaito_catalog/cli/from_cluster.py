"""`evidence from-cluster`: what a cluster's Workspaces and the logs of their pods say, as `kind: ReportedRun`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_shared, shown
from kaito_catalog.cli.common import OK, catalog_root, say
from kaito_catalog.cli.evidence import emit_runs, write_runs
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

    models: tuple[RunningModel, ...] = ()
    logs: list[tuple[RunningModel, PodLog]] = field(default_factory=list)
    where: str = "these files"


def run_from_cluster(options: argparse.Namespace) -> int:
    """`evidence from-cluster [FILE…]`."""
    if options.into:
        options.catalog = options.into
    root = catalog_root(
        argparse.Namespace(catalog=getattr(options, "catalog", None)), or_shipped=not options.into
    )
    shared = read_shared(root)
    gathered = _of_files(options.files, shared) if options.files else _of_cluster(options, shared)
    if not gathered.models:
        raise CatalogError(
            f"no Workspace or InferenceSet with a preset is in {gathered.where}",
            hint="kubectl get workspace,inferenceset --all-namespaces shows where they are",
        )
    runs = [
        run
        for model in gathered.models
        for run in _runs(model, [log for owner, log in gathered.logs if owner is model], options, shared)
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
    found = _Gathered(models, where=cluster.where)
    if models:
        for log in cluster.logs():
            owner = of_pod(log.pod, models, namespace=log.namespace)
            if owner is not None:
                found.logs.append((owner, log))
    return found


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
    found = _Gathered(running_models(objects, release_of(shared.profile())))
    for path in logs:
        log = _saved_log(path)
        owner = of_pod(log.pod, found.models)
        if owner is None and len(found.models) == 1 and len(logs) == 1:
            owner = found.models[0]
        if owner is None:
            raise CatalogError(
                f"{shown(path)}: no Workspace of the other files has a pod of this name",
                hint="name a log after its pod, such as phi-4-0.log, and give its Workspace as YAML too",
            )
        found.logs.append((owner, log))
    return found


def _saved_log(path: Path) -> PodLog:
    try:
        with path.open("rb") as stream:
            text = stream.read(MOST_LOG_BYTES).decode(errors="replace")
    except OSError as error:
        raise CatalogError(f"cannot read {shown(path)}: {error.strerror or error}") from error
    stem = path.stem
    pod = next((stem.removesuffix(end) for end in _PREVIOUS if stem.endswith(end)), stem)
    return PodLog(pod, "", pod != stem, text)


# --- what it says ----------------------------------------------------------------------------------------------


def _runs(
    model: RunningModel, logs: Sequence[PodLog], options: argparse.Namespace, shared: Shared
) -> list[dict[str, Any]]:
    """The starts that a Workspace's logs show, the last that served with what its status says."""
    today = datetime.now(UTC).date().isoformat()
    machine = shared.instance_type(model.instance_type) if model.instance_type else None
    given = {
        "today": today,
        "gpu": machine.gpu if machine else None,
        "reported_by": options.by,
        "source": options.source,
    }
    on = {"instanceType": model.instance_type, "nodeCount": model.node_count}
    on = {key: value for key, value in on.items() if value is not None}
    runs = []
    for log in sorted(logs, key=lambda log: not log.is_previous):
        for run in reported_runs(StringIO(log.text, newline="\n"), **given):
            named = str(run.get("model") or "")
            if "/" in named and model.model and named.lower() != model.model.lower():
                say(f"{model.shown} serves {model.model}, a log of its pods names {named[:120]}: skipped")
                continue
            if model.model:
                run["model"] = model.model
            runs.append({**run, **on})
    served = [run for run in runs if run.get("outcome") == "served"]
    if model.performance:
        if served:
            _add_performance(served[-1], model)
        else:
            runs.append(_of_status(model, today, options) | on)
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


def _of_status(model: RunningModel, today: str, options: argparse.Namespace) -> dict[str, Any]:
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
        **({"reportedBy": options.by} if options.by else {}),
        **({"source": options.source} if options.source else {}),
        "recordedAt": today,
        "lines": list(model.lines),
    }


_LAST = ("reportedBy", "source", "logSha256", "recordedAt", "lines")


def _in_order(run: Mapping[str, Any]) -> dict[str, Any]:
    """Who reports it and the lines come last, as `from-log` writes them."""
    return {key: value for key, value in run.items() if key not in _LAST} | {
        key: run[key] for key in _LAST if key in run
    }

"""What a cluster says of its Workspaces and InferenceSets: which model on which nodes, and what KAITO measured.

The objects are plain values, as `kubectl get -o yaml` prints them or the API gives them. Names of Workspaces,
namespaces and nodes stay here: none of them becomes evidence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.kaito.release import Release
from kaito_catalog.kaito.workspaces import read_workspace, text_at, value_at
from kaito_catalog.vllm_bridge.start_logs.private import kept

WORKSPACE_LABEL = "kaito.sh/workspace"
"""Of a Workspace's pods (api/v1beta1/labels.go)."""
_INFERENCE_SET_LABEL = "inferenceset.kaito.sh/created-by"
"""Of an InferenceSet's Workspaces (pkg/utils/consts/consts.go)."""
INSTANCE_TYPE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
"""Of a node: well-known, and as it was called before."""
_PEAK, _SUM = "peakTokensPerMinute", "aggregatedPeakTokensPerMinute"
_READY = ("InferenceReady", "InferenceSetReady")
_MOST_SETTINGS = 20


@dataclass(frozen=True)
class RunningModel:
    """A Workspace that serves a model, or an InferenceSet whose Workspaces are not at hand."""

    kind: str
    name: str
    namespace: str
    model: str | None
    """The repository that KAITO takes the preset's name for; the name where it knows none."""
    instance_type: str | None
    """Of its nodes where they are known and alike, else what it asks for."""
    node_count: int | None
    is_ready: bool
    """Whether KAITO says that the model serves."""
    performance: Mapping[str, Any] | None
    """By the keys of evidence."""
    lines: tuple[str, ...]
    """Of the status: what that was read from."""

    @property
    def shown(self) -> str:
        """For a sentence: `Workspace phi-4`."""
        return f"{self.kind} {self.name[:80]}"


def running_models(objects: Iterable[Mapping[str, Any]], kaito: Release) -> tuple[RunningModel, ...]:
    """The Workspaces that serve a model, and the InferenceSets of which no Workspace is here."""
    given = list(objects)
    machines = _machines(given)
    of_sets = {
        (_namespace(item), _labels(item).get(_INFERENCE_SET_LABEL))
        for item in given
        if _is(item, "Workspace")
    }
    found = []
    for item in given:
        is_covered = _is(item, "InferenceSet") and (_namespace(item), _name(item)) in of_sets
        if not (_is(item, "Workspace") or _is(item, "InferenceSet")) or is_covered:
            continue
        read = read_workspace(item)
        if read.preset is None or not read.name:
            continue
        performance, lines = _performance(item)
        found.append(
            RunningModel(
                str(item["kind"]),
                read.name,
                _namespace(item),
                kaito.repository_of(read.preset) or read.preset,
                _machine(item, machines) or read.deployment.get("instanceType"),
                _node_count(item),
                any(_is_true(item, name) for name in _READY),
                performance,
                lines,
            )
        )
    return tuple(found)


def of_pod(pod: str, models: Sequence[RunningModel], *, namespace: str | None = None) -> RunningModel | None:
    """The Workspace of a pod by their names: `phi-4-0` is of `phi-4`."""
    owner, dash, number = pod.rpartition("-")
    if not dash or not number.isdecimal():
        return None
    found = [
        model
        for model in models
        if model.kind == "Workspace" and model.name == owner and namespace in (None, model.namespace)
    ]
    return found[0] if len(found) == 1 else None


def _is(item: Mapping[str, Any], kind: str) -> bool:
    return item.get("kind") == kind and str(item.get("apiVersion", "")).startswith("kaito.sh/")


def _name(item: Mapping[str, Any]) -> str:
    return text_at(item, "metadata", "name") or ""


def _namespace(item: Mapping[str, Any]) -> str:
    return text_at(item, "metadata", "namespace") or "default"


def _labels(item: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = value_at(item, "metadata", "labels")
    return labels if isinstance(labels, dict) else {}


def _machines(objects: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The instance type of each node, by its well-known label."""
    found = {}
    for item in objects:
        if item.get("kind") == "Node":
            labels = _labels(item)
            named = next(
                (labels[key] for key in INSTANCE_TYPE_LABELS if isinstance(labels.get(key), str)), None
            )
            if named:
                found[_name(item)] = named
    return found


def _machine(item: Mapping[str, Any], machines: Mapping[str, str]) -> str | None:
    nodes = value_at(item, "status", "workerNodes")
    named = (
        {machines.get(node) for node in nodes if isinstance(node, str)} if isinstance(nodes, list) else set()
    )
    return next(iter(named)) if len(named) == 1 else None


def _node_count(item: Mapping[str, Any]) -> int | None:
    count = value_at(item, "status", "targetNodeCount")
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def _is_true(item: Mapping[str, Any], condition: str) -> bool:
    conditions = value_at(item, "status", "conditions")
    return any(
        isinstance(one, dict) and one.get("type") == condition and one.get("status") == "True"
        for one in (conditions if isinstance(conditions, list) else ())
    )


def _performance(item: Mapping[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """What KAITO's benchmark measured, and the part of the status that says it.

    KAITO writes numbers as text, and counts a benchmark with nothing above zero as failed
    (pkg/workspace/controllers/benchmark.go).
    """
    metrics = value_at(item, "status", "performance", "metrics")
    found: dict[str, Any] = {}
    lines = []
    for key in (_PEAK, _SUM):
        metric = metrics.get(key) if isinstance(metrics, dict) else None
        value = _number(metric.get("value")) if isinstance(metric, dict) else None
        if not isinstance(metric, dict) or value is None:
            continue
        found[key] = value
        description = metric.get("description")
        if isinstance(description, str) and description:
            found["description"] = kept(description[:200])
        settings = _settings(metric.get("config"))
        if settings:
            found["config"] = settings
        told = {"value": str(metric["value"])[:40], **({"config": settings} if settings else {})}
        lines.append(f"status.performance.metrics.{key}: {json.dumps(told, ensure_ascii=False)}")
    if _SUM in found and _is_true(item, "BenchmarkCompleted"):
        replicas = value_at(item, "status", "replicas")
        if isinstance(replicas, int) and not isinstance(replicas, bool) and replicas > 0:
            found["replicas"] = replicas
    return found or None, tuple(lines)


def _number(value: Any) -> float | None:
    """A positive number, as text or not."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 < number < 10**12 else None


def _settings(value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {
        key: kept(text[:200])
        for key, text in list(pairs)[:_MOST_SETTINGS]
        if isinstance(key, str)
        and re.fullmatch(r"[A-Za-z]\w{0,39}", key, re.ASCII)
        and isinstance(text, str)
        and text
    }

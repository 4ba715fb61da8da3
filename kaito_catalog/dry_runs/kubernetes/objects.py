"""Dry runs as Kubernetes objects.

A run on one node is a Job; a run over several is a LeaderWorkerSet, as vLLM documents it. Nothing of a proposal gets
into a command line or a shell: the run is a JSON file in a ConfigMap, and the command is always the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kaito_catalog.documents import writing
from kaito_catalog.dry_runs import task as task_module
from kaito_catalog.dry_runs.campaign import Run
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.crd import TOKEN_KEY
from kaito_catalog.kaito.manifests import object_name
from kaito_catalog.kaito.release import release_of
from kaito_catalog.vllm_bridge.archive import worker_archive

MANAGED_BY = "app.kubernetes.io/managed-by"
RUN_LABEL, MODEL_LABEL, ROLE_LABEL = "catalog.kaito.sh/run", "catalog.kaito.sh/model", "catalog.kaito.sh/role"
SELECTOR = f"{MANAGED_BY}=kaito-catalog"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
LWS = {"group": "leaderworkerset.x-k8s.io", "version": "v1", "plural": "leaderworkersets"}
CONTAINER = "dry-run"
FOLDER, SCRATCH = "/kaito-catalog", "/scratch"
USER_ID = 1000

POD_RETRIES = 2
NODE_SECONDS = 1800
"""For a node to be provisioned and the image to be pulled, before the first second of the run."""
KEPT_SECONDS = 86400
"""How long a finished Job and its log stay."""
LONGEST_NAME = 52
"""Of an object: a StatefulSet's pods carry its name and a digest of eleven characters in a label of 63."""
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}\Z", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)


@dataclass(frozen=True)
class ClusterSettings:
    """What is the same for all runs of a campaign."""

    image: str
    namespace: str | None = None
    python: str | None = None
    """The Python with vLLM in the image; None: `python3`."""

    def __post_init__(self) -> None:
        if not _IMAGE.match(self.image):
            raise CatalogError(f"--image {self.image[:80]!r} is not an image")
        if self.namespace is not None and not _NAMESPACE.match(self.namespace):
            raise CatalogError(f"--namespace {self.namespace[:80]!r} is not a namespace")


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


def objects(run: Run, settings: ClusterSettings) -> list[dict[str, Any]]:
    """The objects of a run: its ConfigMap, and the Job or LeaderWorkerSet."""
    name = name_of(run)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": _labels(run)},
        "data": {"run.json": json.dumps(run.task(), sort_keys=True)},
    }
    return [config_map, _job(run, settings) if run.nodes == 1 else _leader_worker_set(run, settings)]


def to_yaml(runs: Sequence[Run], settings: ClusterSettings) -> str:
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
    return NODE_SECONDS + int((1 + POD_RETRIES) * (run.time_limit_seconds + 2 * task_module.GRACE_SECONDS))


def _job(run: Run, settings: ClusterSettings) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name_of(run), "labels": _labels(run)},
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": POD_RETRIES,
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


def _leader_worker_set(run: Run, settings: ClusterSettings) -> dict[str, Any]:
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


def _pod(run: Run, settings: ClusterSettings, role: str | None) -> dict[str, Any]:
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
        "containers": [_container(run, settings, role)],
        "volumes": _volumes(run),
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


def _container(run: Run, settings: ClusterSettings, role: str | None) -> dict[str, Any]:
    program = f"{FOLDER}/{task_module.ARCHIVE}"
    resources: dict[str, dict[str, str]] = {"requests": {"cpu": "2", "memory": "8Gi"}}
    if run.weights == "real":
        resources["requests"]["ephemeral-storage"] = f"{run.weights_bytes // 2**30 + 10}Gi"
    if run.gpu is not None:
        resources["limits"] = {"nvidia.com/gpu": str(run.gpus_per_node)}
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": [settings.python or "python3", program, "run", FOLDER, *([role] if role else [])],
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


def _volumes(run: Run) -> list[dict[str, Any]]:
    files = [{"configMap": {"name": name}} for name in (_code()[0], name_of(run))]
    return [
        {"name": "code", "projected": {"sources": files}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # NCCL's ranks on a node talk through it; the default of 64 MiB is too small.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
    ]


def _environment(run: Run, settings: ClusterSettings) -> list[dict[str, Any]]:
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

"""Reads a cluster: Workspaces, InferenceSets and nodes as plain objects, and the logs of their pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.running import WORKSPACE_LABEL
from kaito_catalog.system.cluster import ClusterApi, reason_of

GROUP = "kaito.sh"
_SERVED = {"workspaces": ("v1beta1", "v1alpha1"), "inferencesets": ("v1beta1", "v1alpha1")}
_NEEDS = (
    "get and list of workspaces, inferencesets, pods and pods/log have to be allowed; "
    "or save what you may read, and name the files"
)
MOST_LOG_BYTES = 64 * 2**20
"""Of one container: what vLLM prints of its start comes first."""


@dataclass(frozen=True)
class PodLog:
    """The log of a pod's container, and of the one before where it was restarted."""

    pod: str
    namespace: str
    is_previous: bool
    text: str


class LiveCluster:
    """Reads the cluster of the kubeconfig.

    Raises:
        CatalogError: there is none, it refuses, or KAITO is not installed in it.
    """

    def __init__(self, namespace: str | None, *, everywhere: bool, say: Callable[[str], None]) -> None:
        self._api = ClusterApi(needs=_NEEDS, without="name saved files: FILE…")
        self._namespace = None if everywhere else namespace or self._api.namespace
        self._say = say
        client = self._api.client.client
        self._core, self._custom, self._plain = (
            client.CoreV1Api(),
            client.CustomObjectsApi(),
            client.ApiClient(),
        )

    @property
    def where(self) -> str:
        """For a sentence."""
        return f"namespace {self._namespace}" if self._namespace else "any namespace"

    def objects(self) -> list[Mapping[str, Any]]:
        """Workspaces, InferenceSets, and the nodes where they may be listed."""
        workspaces = self._custom_objects("workspaces")
        if workspaces is None:
            raise CatalogError(
                f"this cluster has no Workspaces of {GROUP}: KAITO is not installed in it",
                hint="see which cluster it is with kubectl config current-context",
            )
        return [*workspaces, *(self._custom_objects("inferencesets") or ()), *self._nodes()]

    def logs(self) -> Iterator[PodLog]:
        """The logs of the pods of Workspaces, one after another."""
        for pod in self._pods():
            name, namespace = pod.metadata.name, pod.metadata.namespace
            container = pod.metadata.labels[WORKSPACE_LABEL]
            names = [one.name for one in pod.spec.containers]
            container = container if container in names else names[0]
            statuses = pod.status.container_statuses or ()
            restarts = max((one.restart_count for one in statuses if one.name == container), default=0)
            for is_previous in (True, False) if restarts else (False,):
                text = self._log(name, namespace, container, is_previous=is_previous)
                if text:
                    yield PodLog(name, namespace, is_previous, text)

    def _pods(self) -> Sequence[Any]:
        core, selector = self._core, {"label_selector": WORKSPACE_LABEL}
        if self._namespace is None:
            found = self._api.call(core.list_pod_for_all_namespaces, **selector)
        else:
            found = self._api.call(core.list_namespaced_pod, self._namespace, **selector)
        return sorted(found.items, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))

    def _custom_objects(self, plural: str) -> list[dict[str, Any]] | None:
        """The objects of a kind in the newest version that the cluster serves; None where it knows no such kind."""
        for version in _SERVED[plural]:
            try:
                if self._namespace is None:
                    found = self._api.call(self._custom.list_cluster_custom_object, GROUP, version, plural)
                else:
                    found = self._api.call(
                        self._custom.list_namespaced_custom_object, GROUP, version, self._namespace, plural
                    )
            except self._api.refused as error:
                if error.status != 404:
                    raise CatalogError(f"the cluster does not list {plural}: {reason_of(error)}") from error
                continue
            kind = {"workspaces": "Workspace", "inferencesets": "InferenceSet"}[plural]
            # The items of a list need not repeat what they are.
            return [
                {"apiVersion": f"{GROUP}/{version}", "kind": kind, **item} for item in found.get("items", ())
            ]
        return None

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes with their labels; they are the cluster's, and not everybody may list them."""
        try:
            found = self._api.call(self._core.list_node)
        except CatalogError as error:
            self._say(
                f"note: the nodes are not known, and an instance type is what a Workspace asks for: {error.message}"
            )
            return []
        return [
            {
                "kind": "Node",
                "metadata": {"name": node.metadata.name, "labels": dict(node.metadata.labels or {})},
            }
            for node in found.items
        ]

    def _log(self, pod: str, namespace: str, container: str, *, is_previous: bool) -> str:
        try:
            response = self._api.call(
                self._core.read_namespaced_pod_log,
                pod,
                namespace,
                container=container,
                previous=is_previous,
                limit_bytes=MOST_LOG_BYTES,
                _preload_content=False,
            )
        except self._api.refused:
            return ""  # not started yet, or the log is gone
        return bytes(response.data).decode(errors="replace")

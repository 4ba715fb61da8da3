"""What a proposal's deployment becomes beside preset and ConfigMap: adapters, a slice of a GPU, a performance mode.

Source: kaito-project/kaito at 056b828, api/v1beta1/workspace_validation.go (adapters, partition, annotations),
pkg/model/interface.go (Validate: no adapter strength with vLLM), pkg/utils/mig/mig.go and pkg/utils/common.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kaito_catalog.formats.proposal import Adapter, Deployment, Partition
from kaito_catalog.kaito.estimator import Node
from kaito_catalog.quantity import GIB

PERFORMANCE_ANNOTATION = "kaito.sh/performance-mode"
BALANCED = "balanced"
PERFORMANCE_MODES = (BALANCED, "interactivity", "throughput")
MOST_ADAPTERS = 10
"""MaxAdaptersNumber of KAITO's admission."""

_ADAPTER_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
"""A DNS-1123 subdomain: KAITO names a container after the adapter."""
_PROFILE = re.compile(r"([1-9])g\.([1-9][0-9]{0,3})gb\Z")


@dataclass(frozen=True)
class AdapterProblem:
    """Why KAITO would not take an adapter."""

    position: int
    key: str | None
    """Of the adapter; None is the adapter itself."""
    message: str
    hint: str


def adapter_problems(deployment: Deployment | None, runtime: str | None) -> Iterator[AdapterProblem]:
    """Why KAITO would refuse the adapters, or has nothing to load them from.

    Args:
        deployment: of the proposal.
        runtime: that the manifests are for, such as `vllm`.
    """
    adapters = (deployment.adapters if deployment else None) or ()
    names: set[str] = set()
    for position, adapter in enumerate(adapters):
        shown = adapter.name[:60]
        if not _ADAPTER_NAME.match(adapter.name):
            message = f"'{shown}' cannot be the name of an adapter: KAITO names a container after it"
            yield AdapterProblem(position, "name", message, "lower-case letters, digits, '-' and '.'")
        elif adapter.name in names:
            message = f"a second adapter is named '{shown}'"
            yield AdapterProblem(position, "name", message, "each adapter has a name of its own")
        names.add(adapter.name)
        if adapter.image is None:
            message = (
                f"the adapter '{shown}' has no image: KAITO takes adapters from container images and volumes"
            )
            hint = "build an image with the adapter's files below /data, and name it as image"
            yield AdapterProblem(position, "repoId" if adapter.repo_id else None, message, hint)
        if adapter.strength is not None and runtime == "vllm":
            message = f"the adapter '{shown}' has a strength, and KAITO refuses a strength with vLLM"
            yield AdapterProblem(position, "strength", message, "leave strength out")
    if len(adapters) > MOST_ADAPTERS:
        message = f"there are {len(adapters)} adapters, and KAITO takes {MOST_ADAPTERS} at most"
        yield AdapterProblem(MOST_ADAPTERS, None, message, "serve the others from a second Workspace")


def adapter_values(deployment: Deployment | None) -> list[dict[str, Any]]:
    """The adapters as `inference.adapters` of a manifest has them."""
    return [_adapter_value(adapter) for adapter in (deployment.adapters if deployment else None) or ()]


def _adapter_value(adapter: Adapter) -> dict[str, Any]:
    source = {"name": adapter.name, **({"image": adapter.image} if adapter.image else {})}
    # A text in the CRD, so that every language reads the same number.
    strength = {} if adapter.strength is None else {"strength": str(adapter.strength)}
    return {"source": source, **strength}


def performance_mode(deployment: Deployment | None) -> str:
    """What vLLM is tuned for."""
    return (deployment.performance_mode if deployment else None) or BALANCED


def partition_of(deployment: Deployment | None) -> Partition | None:
    """The slice that is served on; None is whole GPUs."""
    return deployment.partition if deployment else None


def slice_node(profile: str) -> Node | None:
    """The node that KAITO counts with for a slice: one device, the name's gigabytes as GiB; None for no profile."""
    found = _PROFILE.match(profile)
    return Node(int(found[2]) * GIB, 1) if found else None

"""A Workspace or InferenceSet as people write it → what a proposal's deployment says, and where each part stands.

`markdown/samples` reads the manifests in a proposal with it, `objects` those in a file of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_catalog.diagnostics import Route
from kaito_catalog.kaito.crd import RUNTIME_ANNOTATION
from kaito_catalog.kaito.deployed import PERFORMANCE_ANNOTATION, PERFORMANCE_MODES, slice_node


@dataclass(frozen=True)
class ManifestRemark:
    """What is wrong with a manifest, or was not read, at a route of its keys."""

    route: Route
    message: str
    hint: str | None
    refused: bool = True
    """Whether KAITO would refuse it, or do something else than it says; False is left out alone."""


@dataclass
class ReadWorkspace:
    """What a Workspace, or an InferenceSet's template, says."""

    name: str | None
    preset: str | None
    preset_route: Route
    """Of the preset's name, or of what has to hold it."""
    runtime: str
    """Of the annotation, `vllm` where there is none."""
    deployment: dict[str, Any] = field(default_factory=dict)
    """By the keys of a proposal."""
    routes: dict[Route, Route] = field(default_factory=dict)
    """Route in a proposal to the route in the manifest."""
    remarks: list[ManifestRemark] = field(default_factory=list)

    def take(self, key: str, value: Any, *route: str | int) -> None:
        """Note a part of the deployment and its place."""
        self.deployment[key] = value
        self.routes["deployment", key] = route

    def say(self, route: Route, message: str, hint: str | None, *, refused: bool = True) -> None:
        """Note a remark."""
        self.remarks.append(ManifestRemark(route, message, hint, refused))


def read_workspace(value: Mapping[str, Any]) -> ReadWorkspace:
    """Read a Workspace or an InferenceSet; never raises for what is in it."""
    prefix: Route = ()
    wrapped = False
    spec = value.get("spec")
    if value.get("kind") == "InferenceSet":
        prefix = ("spec", "template") if isinstance(value_at(spec, "template"), dict) else ("spec",)
    elif isinstance(spec, dict):
        prefix, wrapped = ("spec",), True
    body = value_at(value, *prefix)
    has_inference = bool(value_at(body, "inference"))
    preset_route: Route = (*prefix, "inference", "preset", "name") if has_inference else ("kind",)
    annotations = _annotations(value, prefix)
    read = ReadWorkspace(
        text_at(value, "metadata", "name"),
        text_at(body, "inference", "preset", "name"),
        preset_route,
        _runtime(annotations),
    )
    if wrapped or ("spec" in value and value.get("kind") == "Workspace"):
        read.say(("spec",), "a Workspace has no spec", "move resource and inference to the top")
    if read.preset is None and value_at(body, "inference", "template") is None:
        read.say(
            preset_route,
            "there is no inference.preset.name: KAITO would serve nothing",
            "add inference.preset.name with the model's name",
        )
    _resource(read, body, prefix)
    _performance_mode(read, annotations)
    _secret(read, value, body, prefix)
    config = text_at(body, "inference", "config")
    if config:
        read.take("configMap", config, *prefix, "inference", "config")
    _adapters(read, value_at(body, "inference", "adapters"), (*prefix, "inference", "adapters"))
    return read


def _runtime(annotations: Mapping[str, tuple[str, Route]]) -> str:
    """KAITO takes vLLM where the annotation is absent, and where it names none of its runtimes."""
    name = annotations.get(RUNTIME_ANNOTATION, ("", ()))[0]
    return name if name == "transformers" else "vllm"


def _annotations(value: Mapping[str, Any], prefix: Route) -> dict[str, tuple[str, Route]]:
    """Each annotation with its place; those of a template come last, and count."""
    found: dict[str, tuple[str, Route]] = {}
    for start in dict.fromkeys(((), prefix)):
        route = (*start, "metadata", "annotations")
        for name, text in (value_at(value, *route) or {}).items() if _is_mapping(value, route) else ():
            if isinstance(text, str):
                found[name] = text, (*route, name)
    return found


def _is_mapping(value: Mapping[str, Any], route: Route) -> bool:
    return isinstance(value_at(value, *route), dict)


def _resource(read: ReadWorkspace, body: Any, prefix: Route) -> None:
    instance_type = text_at(body, "resource", "instanceType")
    if instance_type:
        read.take("instanceType", instance_type, *prefix, "resource", "instanceType")
    count = value_at(body, "resource", "count")
    route = (*prefix, "resource", "count")
    if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= 10**9:
        read.take("nodeCount", count, *route)
    elif count is not None:
        read.say(route, "count is not a number of nodes", "write a whole number from 1 on")
    _partition(read, value_at(body, "resource", "partition"), (*prefix, "resource", "partition"))


def _partition(read: ReadWorkspace, partition: Any, route: Route) -> None:
    if partition is None:
        return
    mode, profile = text_at(partition, "mode"), text_at(partition, "profile")
    if mode == "accelerator":
        message = "a partition of whole GPUs (accelerator) is not read: its nodes are not known here"
        read.say(route, message, "name instanceType to have it planned", refused=False)
    elif mode == "mig" and profile is not None and slice_node(profile) is not None:
        read.take("partition", {"mode": mode, "profile": profile}, *route)
        read.routes["deployment", "partition", "profile"] = (*route, "profile")
    else:
        what = f"'{profile[:40]}'" if profile else "no profile"
        message = f"the partition is of the mode '{(mode or 'none')[:40]}' with {what}"
        read.say(route, message, "a slice is mode: mig and profile: such as 3g.40gb")


def _performance_mode(read: ReadWorkspace, annotations: Mapping[str, tuple[str, Route]]) -> None:
    if PERFORMANCE_ANNOTATION not in annotations:
        return
    mode, route = annotations[PERFORMANCE_ANNOTATION]
    if mode in PERFORMANCE_MODES:
        read.take("performanceMode", mode, *route)
    else:
        modes = ", ".join(PERFORMANCE_MODES)
        read.say(route, f"'{mode[:40]}' is not a performance mode", f"choose one of {modes}")


def _secret(read: ReadWorkspace, value: Mapping[str, Any], body: Any, prefix: Route) -> None:
    right = ("inference", "preset", "presetOptions", "modelAccessSecret")
    secret = text_at(body, *right)
    route: Route = (*prefix, *right)
    for other in dict.fromkeys(
        (*start, *way, "modelAccessSecret")
        for start in ((), prefix)
        for way in ((), ("inference",), ("inference", "preset"), ("resource",))
    ):
        misplaced = text_at(value, *other)
        if misplaced:
            secret, route = (secret, route) if secret else (misplaced, other)
            where = ".".join(str(part) for part in other)
            read.say(other, f"modelAccessSecret stands at {where}", f"move it to {'.'.join(right)}")
    if secret:
        read.take("modelAccessSecret", secret, *route)


def _adapters(read: ReadWorkspace, adapters: Any, route: Route) -> None:
    if adapters is None:
        return
    if not isinstance(adapters, list):
        read.say(route, "adapters are a list", "put '- ' before each")
        return
    found: list[dict[str, Any]] = []
    for position, adapter in enumerate(adapters):
        name = text_at(adapter, "source", "name")
        if name is None:
            read.say((*route, position), "an adapter without source.name", "give it a name")
            continue
        parts = tuple(_adapter_keys(adapter))
        read.routes["deployment", "adapters", len(found)] = (*route, position)
        for key, _, to in parts:
            read.routes["deployment", "adapters", len(found), key] = (*route, position, *to)
        found.append({key: what for key, what, _ in parts})
        _left_out_of_adapter(read, adapter, (*route, position))
    if found:
        read.take("adapters", found, *route)


def _adapter_keys(adapter: Any) -> Iterator[tuple[str, Any, Route]]:
    """The parts of an adapter that a proposal has: key, value, and where it stands."""
    yield "name", text_at(adapter, "source", "name"), ("source", "name")
    image = text_at(adapter, "source", "image")
    if image is not None:
        yield "image", image, ("source", "image")
    strength = _strength(value_at(adapter, "strength"))
    if strength is not None:
        yield "strength", strength, ("strength",)


def _strength(value: Any) -> float | None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9.]{1,20}", value):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) and 0 <= found <= 1 else None


def _left_out_of_adapter(read: ReadWorkspace, adapter: Any, route: Route) -> None:
    strength = value_at(adapter, "strength")
    if strength is not None and _strength(strength) is None:
        message = f"the strength {str(strength)[:40]} is not a text with a number from 0 to 1"
        read.say((*route, "strength"), message, 'write it in quotes: "0.5"')
    if value_at(adapter, "source", "urls") is not None:
        message = "KAITO does not take adapters from URLs"
        read.say((*route, "source", "urls"), message, "name an image")
    for key in ("volumeSource", "imagePullSecrets"):
        if value_at(adapter, "source", key) is not None:
            message = f"{key} of an adapter is left out"
            read.say((*route, "source", key), message, "a proposal names its image", refused=False)


def value_at(value: Any, *route: str | int) -> Any:
    """The value at a route of keys; None where there is none."""
    for key in route:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: Any, *route: str | int) -> str | None:
    """The text at a route of keys, if there is one."""
    found = value_at(value, *route)
    return found if isinstance(found, str) and found else None

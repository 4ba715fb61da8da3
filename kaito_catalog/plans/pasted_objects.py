"""A compose file, or Kubernetes objects → the starts of vLLM in their containers, with places in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kaito_catalog.diagnostics import Route
from kaito_catalog.documents.reading import Document
from kaito_catalog.kaito.running import INSTANCE_TYPE_LABELS
from kaito_catalog.plans.pasted_command import PastedStart, gpus_of_docker, starts_of_image, with_visible_gpus
from kaito_catalog.plans.shell_words import Word, read_commands

_COMPOSE_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^}]*))?[^}]*\})")
_KUBERNETES_VARIABLE = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "LeaderWorkerSet": ("spec", "leaderWorkerTemplate", "leaderTemplate"),
}
"""Where an object keeps the pod that it makes."""
WORKLOADS = tuple(_TEMPLATES)
_WORKERS = ("spec", "leaderWorkerTemplate", "workerTemplate")
_PRODUCT = "nvidia.com/gpu.product"
_GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915")
_MIG = "nvidia.com/mig-"


@dataclass(frozen=True)
class _At:
    """A value of a document, with the keys that lead to it."""

    document: Document
    route: Route
    value: Any

    def get(self, *keys: str | int) -> _At:
        value = self.value
        for key in keys:
            if isinstance(key, int):
                value = value[key] if isinstance(value, list) and key < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return replace(self, route=(*self.route, *keys), value=value)

    def items(self) -> Iterator[_At]:
        for number, _ in enumerate(self.value if isinstance(self.value, list) else ()):
            yield self.get(number)

    def word(self, text: str) -> Word:
        return Word(text, self.document.place(self.route))

    @property
    def text(self) -> str | None:
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            return None
        return str(self.value)


def is_compose(document: Document) -> bool:
    """Whether it is a file of `docker compose`."""
    return isinstance(document.value, dict) and isinstance(document.value.get("services"), dict)


def starts_in_compose(document: Document) -> list[PastedStart]:
    """The starts of vLLM among the services."""
    services = _At(document, (), document.value).get("services")
    found: list[PastedStart] = []
    for name in services.value:
        service = services.get(name)
        environment = {n: _interpolated(v)[0] for n, v in _environment(service.get("environment")).items()}
        entrypoint = _words(service.get("entrypoint"))
        command = [*entrypoint, *_words(service.get("command"))]
        image = service.get("image")
        starts = starts_of_image(
            image.word(_interpolated(image.text or "")[0]) if image.text else None,
            command,
            environment,
            has_entrypoint=bool(entrypoint),
        )
        gpus = _gpus_of_service(service)
        found += [
            replace(s, name=f"the service {name}", gpu_count=s.gpu_count if gpus is None else gpus)
            for s in starts
        ]
    return with_visible_gpus(found)


def _words(at: _At) -> list[Word]:
    """A list of words, or a text that compose splits as a shell does; variables with a default are replaced."""
    if isinstance(at.value, list):
        found = [item.word(item.text or "") for item in at.items()]
    elif at.text:
        place = at.document.place(at.route)
        # `$$` and `${…}` are compose's own, and replaced below.
        text = at.text.replace("$", "\0")
        commands = read_commands(text.replace("\n", " "), place.path)
        found = [replace(w, place=place, text=w.text.replace("\0", "$")) for c in commands for w in c]
    else:
        return []
    return [_with_defaults(word) for word in found]


def _with_defaults(word: Word) -> Word:
    text, unknown = _interpolated(word.text)
    return replace(word, text=text, unknown=unknown)


def _interpolated(text: str) -> tuple[str, str | None]:
    """A text with its variables replaced by their defaults, and the first that has none."""
    unknown: list[str] = []

    def replaced(found: re.Match[str]) -> str:
        name, default = found[1] or found[2], found[3]
        if name is None:
            return "$"
        if default is None:
            unknown.append(found[0])
            return found[0]
        return default

    return _COMPOSE_VARIABLE.sub(replaced, text), unknown[0] if unknown else None


def _environment(at: _At) -> dict[str, str]:
    """Variables as a mapping, or as a list of `NAME=value`."""
    if isinstance(at.value, dict):
        return {str(name): at.get(name).text or "" for name in at.value}
    pairs = [(item.text or "").partition("=") for item in at.items()]
    return {name: value for name, _, value in pairs}


def _gpus_of_service(service: _At) -> int | None:
    gpus = service.get("gpus")
    if gpus.text is not None:
        return gpus_of_docker(gpus.text)
    reserved = service.get("deploy", "resources", "reservations", "devices")
    for device in (*reserved.items(), *gpus.items()):
        ids, count = device.get("device_ids").value, device.get("count").text
        if isinstance(ids, list):
            return len(ids)
        if count is not None:
            return gpus_of_docker(count)
    return None


def starts_in_workload(document: Document, route: Route, value: Mapping[str, Any]) -> list[PastedStart]:
    """The starts of vLLM in the pods of an object; none where its kind makes no pods.

    Args:
        document: the file that holds it.
        route: the keys that lead to the object.
        value: the object.
    """
    kind = str(value.get("kind"))
    if kind not in _TEMPLATES:
        return []
    whole = _At(document, route, value)
    pod, nodes = whole.get(*_TEMPLATES[kind]), None
    if kind == "LeaderWorkerSet":
        size = whole.get("spec", "leaderWorkerTemplate", "size").value
        nodes = size if isinstance(size, int) and 0 < size < 1000 else None
        if pod.value is None:
            pod = whole.get(*_WORKERS)
    spec = pod.get("spec")
    instance_type, gpu = _of_selector(spec.get("nodeSelector"))
    found = []
    for container in spec.get("containers").items():
        environment = _of_pod(container.get("env"))
        entrypoint = _substituted(container.get("command"), environment)
        arguments = _substituted(container.get("args"), environment)
        image = container.get("image")
        starts = starts_of_image(
            image.word(image.text) if image.text else None,
            [*entrypoint, *arguments],
            environment,
            has_entrypoint=bool(entrypoint),
        )
        count, slice_ = _gpus_of_container(container)
        found += [
            replace(
                start,
                name=f"{kind} {whole.get('metadata', 'name').text or ''}".strip(),
                gpu_count=start.gpu_count if count is None else count,
                node_count=nodes,
                instance_type=instance_type,
                gpu=f"{gpu} MIG {slice_}" if gpu and slice_ else gpu,
            )
            for start in starts
        ]
    return with_visible_gpus(found)


def _of_selector(at: _At) -> tuple[str | None, str | None]:
    """The instance type and the GPU that a pod asks for."""
    instance_type = next((text for name in INSTANCE_TYPE_LABELS if (text := at.get(name).text)), None)
    product = at.get(_PRODUCT).text
    return instance_type, product.replace("-", " ") if product else None


def _of_pod(at: _At) -> dict[str, str]:
    """The variables of a container that have a value; those of a Secret or a field have none here."""
    return {
        item.get("name").text or "": item.get("value").text or ""
        for item in at.items()
        if item.get("value").text is not None
    }


def _substituted(at: _At, environment: Mapping[str, str]) -> Sequence[Word]:
    """The words of a list, with `$(NAME)` replaced where the container sets it."""
    found = []
    for item in at.items():
        unknown: list[str] = []

        def value_of(match: re.Match[str], unknown: list[str] = unknown) -> str:
            if match[1] in environment:
                return environment[match[1]]
            unknown.append(match[0])
            return match[0]

        text = _KUBERNETES_VARIABLE.sub(value_of, item.text or "")
        found.append(replace(item.word(text), unknown=unknown[0] if unknown else None))
    return found


def _gpus_of_container(container: _At) -> tuple[int | None, str | None]:
    """The GPUs that a container asks for, and the profile where they are slices."""
    for kind in ("limits", "requests"):
        resources = container.get("resources", kind)
        for name in resources.value if isinstance(resources.value, dict) else ():
            count = resources.get(name).text or ""
            if not re.fullmatch(r"[1-9][0-9]{0,3}", count):
                continue
            if name in _GPU_RESOURCES:
                return int(count), None
            if str(name).startswith(_MIG):
                return int(count), str(name).removeprefix(_MIG)
    return None, None

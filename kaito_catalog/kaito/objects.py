"""KAITO's manifests in a file → what each Workspace and InferenceSet serves, with the place of every part of it.

`read_manifests` pairs them with the ConfigMaps and Secrets they name. Whatever is not KAITO's is named and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kaito_catalog.diagnostics import Diagnostic, Place, Route, Severity, sort_key
from kaito_catalog.documents.reading import Document, shorten
from kaito_catalog.documents.streams import parse_inside
from kaito_catalog.documents.validation import load
from kaito_catalog.kaito import crd
from kaito_catalog.kaito.crd import KAITO_KEYS, TOKEN_KEY
from kaito_catalog.kaito.release import Release
from kaito_catalog.kaito.workspaces import ReadWorkspace, read_workspace, text_at, value_at
from kaito_catalog.near_names import nearest

REFUSED = "IMP009"
LEFT_OUT = "IMP019"
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")
_SERVING = ("Workspace", "InferenceSet")
_RUNTIMES = ("vllm", "transformers")
_OF_SERVERS = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""What a cluster adds to the metadata of an object, and `kubectl get -o yaml` shows."""


@dataclass(frozen=True)
class KubernetesObject:
    """An object of a file."""

    document: Document
    base: Route
    """Of the object in its document: below `items` where that is a List."""
    value: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Its kind, empty where it has none."""
        return text_at(self.value, "kind") or ""

    @property
    def api_version(self) -> str:
        """Its apiVersion, empty where it has none."""
        return text_at(self.value, "apiVersion") or ""

    @property
    def name(self) -> str | None:
        """Of its metadata."""
        return text_at(self.value, "metadata", "name")

    def place(self, *route: str | int) -> Place:
        """The place of a key of the object, or of the nearest above it."""
        return self.document.place((*self.base, *route))

    @property
    def shown(self) -> str:
        """For a sentence: `Deployment llama`."""
        return f"{shorten(self.kind) or 'an object without kind'} {shorten(self.name or '')}".rstrip()


@dataclass(frozen=True)
class ManifestModel:
    """What one Workspace or InferenceSet serves; a ConfigMap that none names stands alone, without a model."""

    name: str
    """Of the object."""
    place: Place
    preset: str | None
    repo_id: str | None
    """What KAITO resolves the preset's name to."""
    runtime: str
    config: Mapping[str, Any]
    """The options of that runtime in the ConfigMap."""
    deployment: Mapping[str, Any]
    """By the keys of a proposal."""
    places: Mapping[Route, Place]
    """Route in a proposal to its place in the manifests."""
    problems: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class ManifestFile:
    """What files of manifests hold."""

    models: tuple[ManifestModel, ...]
    left_out: tuple[Diagnostic, ...]
    """Objects that are none of KAITO's, or serve nothing."""
    problems: tuple[Diagnostic, ...]
    """Documents that could not be read."""


def objects_of(documents: Sequence[Document]) -> tuple[KubernetesObject, ...]:
    """The objects of the documents that could be read; those of a List one by one."""
    found: list[KubernetesObject] = []
    for document in documents:
        if isinstance(document.value, dict) and not document.problems:
            items = document.value.get("items")
            if document.value.get("kind") == "List" and isinstance(items, list):
                found += [
                    KubernetesObject(document, ("items", n), item)
                    for n, item in enumerate(items)
                    if isinstance(item, dict)
                ]
            else:
                found.append(KubernetesObject(document, (), document.value))
    return tuple(found)


def read_manifests(files: Sequence[Sequence[Document]], kaito: Release) -> ManifestFile:
    """Read the documents of files that are applied together; a file's own ConfigMaps and Secrets come first."""
    problems = [problem for documents in files for document in documents for problem in _unreadable(document)]
    by_file = [objects_of(documents) for documents in files]
    every = _named(item for objects in by_file for item in objects)
    models: list[ManifestModel] = []
    left_out: list[Diagnostic] = []
    used: list[KubernetesObject] = []
    for objects in by_file:
        known = {**every, **_named(objects)}
        for item in objects:
            reason = _why_left_out(item)
            if reason is not None:
                message = f"{item.shown}: {reason}"
                left_out.append(Diagnostic(LEFT_OUT, Severity.NOTE, message, item.place("kind")))
            elif item.kind in _SERVING:
                model, config_map = _serving(item, known, kaito)
                models.append(model)
                used += [config_map] if config_map else []
    for objects in by_file:
        for item in objects:
            is_used = any(other is item for other in used)
            if item.kind == "ConfigMap" and crd.CONFIG_KEY in _data(item) and not is_used:
                models.append(_alone(item))
    return ManifestFile(tuple(models), tuple(left_out), tuple(sorted(problems, key=sort_key)))


def _unreadable(document: Document) -> tuple[Diagnostic, ...]:
    if document.problems or isinstance(document.value, dict):
        return document.problems
    message = "the document holds no keys and values, so it is no manifest"
    return (Diagnostic(LEFT_OUT, Severity.ERROR, message, document.place(())),)


def _named(objects: Iterable[KubernetesObject]) -> dict[tuple[str, str], KubernetesObject]:
    """The objects by kind and name."""
    return {(item.kind, item.name): item for item in objects if item.name}


def _data(item: KubernetesObject) -> Mapping[str, Any]:
    data = item.value.get("data")
    return data if isinstance(data, dict) else {}


def _why_left_out(item: KubernetesObject) -> str | None:
    """Why an object is not read; None where it is."""
    if item.kind == "Secret":
        return None
    if item.kind == "ConfigMap":
        return None if crd.CONFIG_KEY in _data(item) else f"it has no {crd.CONFIG_KEY}"
    if item.kind not in _SERVING or not item.api_version.startswith("kaito.sh/"):
        return "not one of KAITO's Workspace, InferenceSet and ConfigMap"
    if item.value.get("tuning") is not None and item.value.get("inference") is None:
        return "it tunes a model and serves none"
    body = value_at(item.value, "spec", "template") if item.kind == "InferenceSet" else item.value
    if value_at(body, "inference", "template") is not None and value_at(body, "inference", "preset") is None:
        return "it serves a pod of its own, which KAITO does not start"
    return None


# --- one object ------------------------------------------------------------------------------------------------


@dataclass
class _Model:
    """A model while it is read."""

    item: KubernetesObject
    places: dict[Route, Place] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)

    def refuse(self, message: str, place: Place, hint: str | None) -> None:
        """Note why KAITO would refuse it, unless something is wrong at that place already."""
        if not any(p.place == place and p.severity is Severity.ERROR for p in self.problems):
            self.problems.append(Diagnostic(REFUSED, Severity.ERROR, message, place, hint))

    def leave_out(self, message: str, place: Place, hint: str | None) -> None:
        """Note what is not read."""
        self.problems.append(Diagnostic(LEFT_OUT, Severity.WARNING, message, place, hint))


def _serving(
    item: KubernetesObject, known: Mapping[tuple[str, str], KubernetesObject], kaito: Release
) -> tuple[ManifestModel, KubernetesObject | None]:
    """A Workspace or InferenceSet, and the ConfigMap that it uses."""
    model = _Model(item, problems=list(_schema_problems(item)))
    read = read_workspace(item.value)
    for remark in read.remarks:
        note = model.refuse if remark.refused else model.leave_out
        note(remark.message, item.place(*remark.route), remark.hint)
    repo_id = _resolved(model, read, kaito)
    deployment = dict(read.deployment)
    for route, to in read.routes.items():
        model.places[route] = item.place(*to)
    model.places |= _places_of_preset(item, read)
    name = deployment.get("configMap")
    config: Mapping[str, Any] = {}
    config_map = known.get(("ConfigMap", name)) if name else None
    if config_map is not None:
        options, keys = _config_map(model, config_map, read.runtime)
        config, deployment = options, {**deployment, **keys}
    elif name is not None:
        where = model.places["deployment", "configMap"]
        model.leave_out(
            f"the ConfigMap '{shorten(name)}' is not among these files, so its options are unknown",
            where,
            "name its file too",
        )
    secret = deployment.get("modelAccessSecret")
    _check_secret(model, known.get(("Secret", secret)) if secret else None)
    return _model(model, read.preset, repo_id, read.runtime, config, deployment), config_map


def _model(
    model: _Model,
    preset: str | None,
    repo_id: str | None,
    runtime: str,
    config: Mapping[str, Any],
    deployment: Mapping[str, Any],
) -> ManifestModel:
    problems = tuple(sorted(dict.fromkeys(model.problems), key=sort_key))
    item = model.item
    name = item.name or repo_id or "unnamed"
    return ManifestModel(
        name, item.place("kind"), preset, repo_id, runtime, config, deployment, model.places, problems
    )


def _places_of_preset(item: KubernetesObject, read: ReadWorkspace) -> dict[Route, Place]:
    """Where a finding about the model stands, and one about what the manifest implies."""
    preset = item.place(*read.preset_route)
    where = {route[-1]: item.place(*to) for route, to in read.routes.items() if len(route) == 2}
    machine = where.get("partition") or where.get("instanceType") or preset
    return {
        (): preset,
        ("metadata", "name"): preset,
        ("requirements", "downloadSite"): preset,
        ("requirements", "gpuCount"): machine,
        ("requirements", "totalGPUMemory"): machine,
        ("requirements", "perGPUMemory"): machine,
        ("deployment",): machine,
        ("runtimes",): where.get("configMap") or preset,
    }


def _resolved(model: _Model, read: ReadWorkspace, kaito: Release) -> str | None:
    """The repository that KAITO takes the preset's name for."""
    if read.preset is None:
        return None
    repo_id = kaito.repository_of(read.preset)
    if repo_id is None:
        near = nearest(read.preset.lower(), kaito.legacy_presets)
        hint = f"did you mean {kaito.legacy_presets[near]}?" if near else "write org/model, as on the Hub"
        message = f"KAITO {kaito.name} has no preset '{shorten(read.preset)}'"
        model.refuse(message, model.item.place(*read.preset_route), hint)
    return repo_id


def _schema_problems(item: KubernetesObject) -> Iterator[Diagnostic]:
    """What KAITO's CRDs, of either version, say of the object."""
    metadata = item.value.get("metadata")
    value = {key: part for key, part in item.value.items() if key != "status"}
    if isinstance(metadata, dict):
        value["metadata"] = {key: part for key, part in metadata.items() if key not in _OF_SERVERS}
    if item.api_version == "kaito.sh/v1alpha1":  # still served; the fields that are read are the same
        value["apiVersion"] = crd.KAITO_API_VERSION
    length = len(item.base)
    spans = {route[length:]: s for route, s in item.document.spans.items() if route[:length] == item.base}
    raw = {route[length:]: s for route, s in item.document.raw.items() if route[:length] == item.base}
    document = replace(item.document, value=value, spans=spans, raw=raw)
    yield from load(document, crd.KINDS[item.kind])[1]


def _check_secret(model: _Model, secret: KubernetesObject | None) -> None:
    if secret is None:
        return
    parts = {key: secret.value.get(key) for key in ("data", "stringData")}
    if not any(isinstance(part, dict) and TOKEN_KEY in part for part in parts.values()):
        where = secret.place("data") if parts["data"] else secret.place("stringData")
        message = f"the Secret '{shorten(secret.name or '')}' has no key {TOKEN_KEY}"
        model.refuse(message, where, f"{TOKEN_KEY} is what KAITO reads")


# --- its ConfigMap ---------------------------------------------------------------------------------------------


def _alone(item: KubernetesObject) -> ManifestModel:
    """A ConfigMap that no object of the files names."""
    model = _Model(item, places={(): item.place("kind")})
    inner = _inner(model, item)
    runtime = next((name for name in _RUNTIMES if isinstance(value_at(inner.value, name), dict)), "vllm")
    options, keys = _config_map(model, item, runtime)
    return _model(model, None, None, runtime, options, keys)


def _inner(model: _Model, item: KubernetesObject) -> Document:
    text = _data(item).get(crd.CONFIG_KEY)
    route = (*item.base, "data", crd.CONFIG_KEY)
    return parse_inside(item.document, route, text if isinstance(text, str) else "")


def _config_map(
    model: _Model, item: KubernetesObject, runtime: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The options of the runtime, and KAITO's own keys by their fields of a deployment."""
    where = item.place("data", crd.CONFIG_KEY)
    if crd.CONFIG_KEY not in _data(item):
        model.refuse(f"the ConfigMap has no {crd.CONFIG_KEY}", item.place("data"), "put the options below it")
        return {}, {}
    inner = _inner(model, item)
    model.problems += inner.problems
    if inner.problems:
        return {}, {}
    if not isinstance(inner.value, dict):
        model.refuse(f"{crd.CONFIG_KEY} holds no keys and values", where, "start with vllm:")
        return {}, {}
    for message in crd.line_problems(str(_data(item)[crd.CONFIG_KEY])):
        at = next((route for route in inner.spans if route and route[-1] == "max-model-len"), ())
        model.refuse(message, inner.place(at), "KAITO reads the line by itself: max-model-len: 16384")
    keys: dict[str, Any] = {}
    for key, value in inner.value.items():
        place = inner.place((key,))
        if key in KAITO_KEYS and isinstance(value, int | float) and not isinstance(value, bool):
            keys[KAITO_KEYS[key]] = value
            model.places["deployment", KAITO_KEYS[key]] = place
        elif key in KAITO_KEYS:
            model.refuse(f"{key} is not a number", place, "write a number")
        elif key not in _RUNTIMES:
            model.leave_out(
                f"'{shorten(key)}' is not a key that KAITO reads", place, "options stand below vllm:"
            )
    options = inner.value.get(runtime)
    if options is not None and not isinstance(options, dict):
        model.refuse(
            f"{runtime} holds no keys and values", inner.place((runtime,)), "indent the options below it"
        )
    if not isinstance(options, dict):
        return {}, keys
    model.places |= _places_of_options(inner, runtime, options)
    for name in [name for name in options if not _OPTION.match(name)]:
        model.refuse(f"'{shorten(name)}' is not the name of an option", inner.place((runtime, name)), None)
    return {name: value for name, value in options.items() if _OPTION.match(name)}, keys


def _places_of_options(inner: Document, runtime: str, options: Mapping[str, Any]) -> dict[Route, Place]:
    block = inner.place((runtime,))
    found: dict[Route, Place] = {("runtimes", 0): block, ("runtimes", 0, "config"): block}
    for name in options:
        found["runtimes", 0, "config", name] = inner.place((runtime, name))
        if name.replace("_", "-") == "max-model-len":
            found["requirements", "contextLength"] = inner.place((runtime, name))
    return found

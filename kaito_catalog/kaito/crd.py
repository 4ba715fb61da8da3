"""What a cluster with KAITO v0.12 accepts: its Workspace and InferenceSet, and the objects they refer to.

Transcribed from the CustomResourceDefinitions of kaito-project/kaito at 056b828 (v1beta1, without
`status` and with `tuning` left opaque); unknown fields are refused, as `kubectl` does. A test holds
these models against the CRDs field by field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError

from kaito_catalog.formats.base import Items, Model, exactly

KAITO_API_VERSION = "kaito.sh/v1beta1"
RUNTIME_ANNOTATION = "kaito.sh/runtime"
CONFIG_KEY = "inference_config.yaml"
TOKEN_KEY = "HF_TOKEN"  # noqa: S105 - the key's name, not a token
KAITO_KEYS: Mapping[str, str] = {
    "kv_cache_cpu_memory_utilization": "kvCacheCPUMemoryUtilization",
    "max_probe_steps": "maxProbeSteps",
}
"""KAITO's own keys beside `vllm:` in inference_config.yaml, and their fields of a proposal's `deployment`."""

ObjectName = Annotated[str, Field(max_length=63, pattern=exactly("[a-z]([-a-z0-9]*[a-z0-9])?"))]
"""A DNS-1035 label: KAITO makes a Service of the object's name."""
_LabelValue = Annotated[
    str, Field(max_length=63, pattern=exactly("([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"))
]


class ObjectMeta(Model):
    """The part of Kubernetes' object metadata that people write."""

    name: ObjectName
    namespace: ObjectName | None = None
    labels: dict[str, _LabelValue] | None = None
    annotations: dict[str, str] | None = None


class MirrorMeta(Model):
    """Metadata of an object without a namespace whose name KAITO computes: it may start with a digit."""

    name: Annotated[str, Field(max_length=253, pattern=exactly("[a-z0-9]([-a-z0-9.]*[a-z0-9])?"))]
    labels: dict[str, _LabelValue] | None = None
    annotations: dict[str, str] | None = None


class LabelExpression(Model):
    """One condition of a label selector."""

    key: str
    operator: str
    values: Items[str] | None = None


class LabelSelector(Model):
    """Which nodes or pods."""

    match_labels: dict[str, _LabelValue] | None = None
    match_expressions: Items[LabelExpression] | None = None


class ResourcePartition(Model):
    """A slice of a GPU."""

    mode: Literal["mig", "accelerator"]
    profile: str | None = None
    count: Annotated[int, Field(ge=1)] | None = None


class Resource(Model):
    """What a Workspace runs on."""

    label_selector: LabelSelector
    instance_type: str | None = None
    count: int | None = None
    partition: ResourcePartition | None = None
    preferred_nodes: Items[str] | None = None


class PresetOptions(Model):
    """What a preset needs beside its name."""

    model_access_secret: str | None = None
    image: str | None = None
    image_pull_secrets: Items[str] | None = None


class Preset(Model):
    """Which model."""

    name: Annotated[str, Field(min_length=1)]
    access_mode: Literal["public", "private"] | None = None
    preset_options: PresetOptions | None = None


class AdapterSource(Model):
    """Where an adapter is."""

    name: str | None = None
    image: str | None = None
    image_pull_secrets: Items[str] | None = None
    urls: Items[str] | None = None
    volume_source: JsonValue = None


class InferenceAdapter(Model):
    """A LoRA adapter."""

    source: AdapterSource | None = None
    strength: str | None = None


class Inference(Model):
    """What is served: a preset, or a pod template."""

    preset: Preset | None = None
    config: str | None = None
    adapters: Items[InferenceAdapter] | None = None
    template: JsonValue = None


class Workspace(Model):
    """One model on its own nodes; `resource` and `inference` are top level, there is no `spec`."""

    api_version: Literal["kaito.sh/v1beta1"]
    kind: Literal["Workspace"]
    metadata: ObjectMeta
    resource: Resource
    inference: Inference | None = None
    tuning: JsonValue = None


class SetResource(Model):
    """What each replica runs on."""

    instance_type: str | None = None
    partition: ResourcePartition | None = None


class SetTemplate(Model):
    """The Workspace that each replica is made from."""

    inference: Inference
    resource: SetResource | None = None
    metadata: JsonValue = None


class MaintenanceWindow(Model):
    """When upgrades may happen."""

    schedule: str
    duration: str | None = None


class AutoUpgrade(Model):
    """Whether and how replicas follow a new version of KAITO."""

    enabled: bool | None = None
    strategy: Literal["InPlace", "Surge"] | None = None
    maintenance_window: MaintenanceWindow | None = None


class SetSpec(Model):
    """Replicas of a template."""

    label_selector: LabelSelector
    template: SetTemplate
    replicas: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    node_count_limit: int | None = None
    auto_upgrade: AutoUpgrade | None = None
    update_strategy: JsonValue = None


class InferenceSet(Model):
    """Several replicas of one model; unlike a Workspace it has a `spec`."""

    api_version: Literal["kaito.sh/v1beta1"]
    kind: Literal["InferenceSet"]
    metadata: ObjectMeta
    spec: SetSpec


class MirrorSource(Model):
    """Where the weights of a mirror come from; no field names a revision."""

    registry: Literal["huggingface"]
    model_id: Annotated[str, Field(alias="modelID", min_length=1)]
    access_secret: JsonValue = None


class MirrorStorage(Model):
    """The volume of a mirror."""

    size: str
    storage_class_name: str | None = None


class MirrorSpec(Model):
    """A mirror that KAITO fills (Managed), or weights that lie in storage already (Static)."""

    mode: Literal["Managed", "Static"] | None = None
    job_namespace: str | None = None
    service_account_name: str | None = None
    source: MirrorSource | None = None
    storage: MirrorStorage | None = None


class ModelMirror(Model):
    """A model's weights, kept in the cluster; of the whole cluster, without a namespace."""

    api_version: Literal["kaito.sh/v1alpha1"]
    kind: Literal["ModelMirror"]
    metadata: MirrorMeta
    spec: MirrorSpec | None = None


class RoleModel(Model):
    """The model that both roles serve."""

    name: Annotated[str, Field(min_length=1)]
    model_access_secret: str | None = None


class Role(Model):
    """The nodes of prefill or of decode."""

    type: Literal["prefill", "decode"]
    replicas: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    instance_type: str | None = None
    runtime_config: str | None = None


class MultiRoleSpec(Model):
    """Prefill and decode of one model."""

    label_selector: LabelSelector
    model: RoleModel
    epp_plugins_config: Annotated[str | None, Field(alias="eppPluginsConfig")] = None
    roles: Annotated[Items[Role], Field(min_length=2, max_length=2)]


class MultiRoleInference(Model):
    """Prefill and decode on nodes of their own."""

    api_version: Literal["kaito.sh/v1alpha1"]
    kind: Literal["MultiRoleInference"]
    metadata: ObjectMeta
    spec: MultiRoleSpec


class ConfigMap(Model):
    """The inference_config.yaml that a Workspace names in `inference.config`."""

    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: ObjectMeta
    data: dict[str, str]


class Secret(Model):
    """The Hugging Face token that a gated model asks for."""

    api_version: Literal["v1"]
    kind: Literal["Secret"]
    metadata: ObjectMeta
    type: str | None = None
    string_data: dict[str, str] | None = None
    data: dict[str, str] | None = None


KINDS: dict[str, type[Model]] = {
    "Workspace": Workspace,
    "InferenceSet": InferenceSet,
    "ModelMirror": ModelMirror,
    "MultiRoleInference": MultiRoleInference,
    "ConfigMap": ConfigMap,
    "Secret": Secret,
}


def problems(manifest: Any) -> tuple[str, ...]:
    """Why a cluster with KAITO v0.12 would refuse `manifest`; empty where it would not.

    This is what the CRDs say, and beyond them what KAITO's admission asks for: an `inference` or a
    `tuning`, a preset or a template in it, and an inference_config that its line parser can read.
    """
    if not isinstance(manifest, dict):
        return ("a manifest is a mapping with apiVersion, kind and metadata",)
    kind = manifest.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return (f"kind: '{kind}' is not one of {', '.join(KINDS)}",)
    try:
        parsed = model.model_validate(manifest)
    except ValidationError as error:
        return tuple(
            sorted(
                f"{'.'.join(str(part) for part in detail['loc'])}: {_message(detail['type'], detail['msg'])}"
                for detail in error.errors(include_url=False)
            )
        )
    match parsed:
        case Workspace():
            return _workspace(parsed)
        case InferenceSet():
            return _preset(parsed.spec.template.inference, "spec.template.inference")
        case ConfigMap():
            return _config_map(parsed)
        case ModelMirror():
            return _mirror(parsed.spec)
        case MultiRoleInference():
            return _roles(parsed.spec)
    return ()


def _message(kind: str, message: str) -> str:
    return {"extra_forbidden": "unknown field", "missing": "required field is missing"}.get(kind, message)


def _workspace(workspace: Workspace) -> tuple[str, ...]:
    if workspace.inference is None:
        return () if workspace.tuning is not None else ("neither inference nor tuning is given",)
    if workspace.tuning is not None:
        return ("inference and tuning exclude each other",)
    return _preset(workspace.inference, "inference")


def _preset(inference: Inference, route: str) -> tuple[str, ...]:
    if inference.preset is None and inference.template is None:
        return (f"{route}: neither a preset nor a template is given",)
    if inference.preset is not None and inference.template is not None:
        return (f"{route}: preset and template exclude each other",)
    return ()


def _mirror(spec: MirrorSpec | None) -> tuple[str, ...]:
    if spec is None:
        return ("spec: a Managed mirror needs source and storage",)
    if spec.mode == "Static":
        given = [name for name in ("source", "storage") if getattr(spec, name) is not None]
        return tuple(f"spec.{name}: a Static mirror has none" for name in given)
    if spec.source is None or spec.storage is None:
        return ("spec: a Managed mirror needs source and storage",)
    if not spec.storage.storage_class_name:
        return ("spec.storage.storageClassName: required field is missing",)
    return ()


def _roles(spec: MultiRoleSpec) -> tuple[str, ...]:
    found = []
    if not spec.label_selector.match_labels and not spec.label_selector.match_expressions:
        found.append("spec.labelSelector: it selects nothing in particular; name labels")
    if {role.type for role in spec.roles} != {"prefill", "decode"}:
        found.append("spec.roles: exactly one prefill and one decode are required")
    return tuple(found)


# KAITO looks for the line by itself and reads the rest of it as a whole number, comment included.
_MAX_MODEL_LEN = re.compile(r"^\s*max-model-len\s*:(.*)$", re.MULTILINE)


def line_problems(text: str) -> Iterator[str]:
    """What KAITO's line parser cannot read of an inference_config.yaml."""
    for match in _MAX_MODEL_LEN.finditer(text):
        if not re.fullmatch(r"\s*[0-9]+\s*", match[1]):
            yield f"max-model-len is '{match[1].strip()[:60]}', wanted a whole number and no comment"


def _config_map(config_map: ConfigMap) -> tuple[str, ...]:
    text = config_map.data.get(CONFIG_KEY)
    if text is None:
        return (f"data: no {CONFIG_KEY}",)
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return (f"data.{CONFIG_KEY}: not YAML",)
    options = config.get("vllm", {}) if isinstance(config, dict) else None
    if not isinstance(options, dict):
        return (f"data.{CONFIG_KEY}: no mapping vllm",)
    found = [f"data.{CONFIG_KEY}: {problem}" for problem in line_problems(text)]
    bare = sorted(str(key) for key, value in options.items() if value == "" or isinstance(value, bool))
    found += [
        f"data.{CONFIG_KEY}: {key} is {value}, which KAITO passes on as the text '{value}'; "
        f'write {key}: "" or no-{key}: ""'
        for key, value in options.items()
        if isinstance(value, bool)
    ]
    if len(bare) > 1:
        found.append(
            f"data.{CONFIG_KEY}: {', '.join(bare)}: KAITO's expansion leaves room for one bare option"
        )
    return tuple(found)

"""The Kubernetes objects that serve a model with KAITO: Workspace, InferenceSet, ConfigMap, Secret."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from kaito_catalog.documents import writing
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal, Runtime, known_count
from kaito_catalog.kaito import deployed
from kaito_catalog.kaito.crd import CONFIG_KEY, KAITO_API_VERSION, RUNTIME_ANNOTATION, TOKEN_KEY

DEFAULT_SECRET = "hf-token"  # noqa: S105
WORKSPACE, INFERENCE_SET = "workspace.yaml", "inferenceset.yaml"
CONFIG_MAP, SECRET = "inference-config.yaml", "secret.example.yaml"

_REVISION = re.compile(r"[0-9a-f]{40}\Z")
_MAX_OBJECT_NAME = 63
_CONFIG_SUFFIX = "-inference-config"


@dataclass(frozen=True)
class Manifests:
    """The files of one model (name to text), or the reason why there are none."""

    files: dict[str, str]
    left_out: str | None = None
    objects_left_out: tuple[tuple[str, str], ...] = ()
    """Single files that there are none of, each with its reason."""


class InexpressibleError(Exception):
    """An option that does not survive KAITO's expansion; the text says which and why, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def object_name(name: str, *, suffix: str = "") -> str:
    """`name` as a DNS-1035 label of at most 63 characters, `suffix` included.

    Dots and underscores become dashes, a leading digit gets `model-` in front; what is too long is
    cut and ends with a digest of the whole, so that two names stay two.
    """
    label = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", name.lower())).strip("-") or "model"
    if not label[0].isalpha():
        label = f"model-{label}"
    if len(label) + len(suffix) > _MAX_OBJECT_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        label = f"{label[: _MAX_OBJECT_NAME - len(suffix) - 9].rstrip('-')}-{digest}"
    return label + suffix


def serving_runtime(proposal: Proposal) -> Runtime | None:
    """The runtime the manifests are for: vLLM where it is proposed, else transformers, else none."""
    wanted = {runtime.name: runtime for runtime in reversed(proposal.runtimes or ())}
    return wanted.get("vllm") or wanted.get("transformers")


def access_secret(proposal: Proposal, facts: ModelFacts | None) -> str | None:
    """The name of the Secret with the Hub's token, where the model is gated or the proposal names one."""
    claimed = proposal.deployment.model_access_secret if proposal.deployment else None
    if not is_missing(claimed) and claimed is not None:
        return object_name(claimed)
    return DEFAULT_SECRET if facts and facts.gated in ("auto", "manual", "yes") else None


def vllm_options(
    proposal: Proposal,
    runtime: Runtime,
    *,
    max_num_seqs: int | None = None,
    asked: Mapping[str, JsonValue] | None = None,
) -> dict[str, str | int | float]:
    """The `vllm:` block of KAITO's inference_config.yaml.

    KAITO appends every pair as `--key`, `str(value)`. So a mapping is written as JSON, a switch as a
    bare option (`no-trust-remote-code: ""`), of which vLLM's parser bears one, and the revision of
    weights, code and tokenizer is pinned where the proposal names a commit. Remote code stays off
    unless the proposal lists it: KAITO itself passes --trust-remote-code to every model.

    `max_num_seqs` is what a hybrid model needs (`batching`), where the proposal sets none; `asked` wins over the
    proposal's options.

    Raises:
        InexpressibleError: an option that KAITO's expansion would garble.
    """
    options: dict[str, str | int | float] = {}
    for key, value in (runtime.config or {}).items():
        name, written = _option(key.replace("_", "-"), value)
        if options.get(name, written) != written:
            raise InexpressibleError(f"{name} is given twice", "keep one")
        options[name] = written
    for key, value in (asked or {}).items():
        name, written = _option(key.replace("_", "-"), value)
        options.pop(name.removeprefix("no-") if name.startswith("no-") else f"no-{name}", None)
        options[name] = written
    if "max-model-len" not in options:
        # Without a length KAITO sizes nodes for 2,048 tokens; the claims are about this many.
        claimed = known_count(proposal.requirements.context_length)
        if claimed:
            options["max-model-len"] = claimed
    if max_num_seqs is not None:
        options.setdefault("max-num-seqs", max_num_seqs)
    length = options.get("max-model-len")
    if length is not None and not (isinstance(length, int) and length > 0):
        raise InexpressibleError(
            f"max-model-len is '{length}', and KAITO reads a count of tokens only",
            "write a whole number from 1 on",
        )
    if _REVISION.match(proposal.requirements.version or ""):
        for name in ("revision", "code-revision", "tokenizer-revision"):
            options.setdefault(name, proposal.requirements.version or "")
    if runtime.trust_remote_code:
        options.pop("trust-remote-code", None)  # KAITO passes it already
    elif "trust-remote-code" in options:
        raise InexpressibleError(
            "trust-remote-code is an option here, and the runtime's trustRemoteCode is not true",
            "leave the option out; where code is needed: trustRemoteCode: true, and its files in the facts",
        )
    else:
        options["no-trust-remote-code"] = ""
    bare = sorted(name for name, value in options.items() if value == "")
    if len(bare) > 1:
        raise InexpressibleError(
            f"KAITO's expansion leaves room for one switch, and there are {', '.join(bare)}",
            "leave out all but one (no-trust-remote-code stands there unless trustRemoteCode is true)",
        )
    return options


def _option(key: str, value: JsonValue) -> tuple[str, str | int | float]:
    if isinstance(value, bool):
        if value:
            return key, ""
        return (key.removeprefix("no-") if key.startswith("no-") else f"no-{key}"), ""
    if isinstance(value, int | float):
        return key, int(value) if isinstance(
            value, float
        ) and value.is_integer() and key == "max-model-len" else value
    if isinstance(value, dict):
        return key, json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str | int | float) and not isinstance(value[0], bool):
            return _option(key, value[0])
        raise InexpressibleError(f"{key} is a list, and KAITO passes it on as one text", "give one value")
    if value is None:
        raise InexpressibleError(f"{key} has no value", 'give one; a switch has an empty text: ""')
    if value.startswith("-") or any(ord(c) < 32 for c in value):
        raise InexpressibleError(
            f"{key} has a value that would be read as another option", "write it without a dash in front"
        )
    if key == "max-model-len" and re.fullmatch(r"[0-9]{1,9}", value):
        return key, int(value)
    return key, value


def kaito_keys(proposal: Proposal, *, without_lmcache: bool = False) -> dict[str, int | float]:
    """KAITO's own keys beside `vllm:` in inference_config.yaml: the proposal's, and LMCache off where it has to be."""
    deployment = proposal.deployment
    share = deployment.kv_cache_cpu_memory_utilization if deployment else None
    steps = deployment.max_probe_steps if deployment else None
    if share is None and without_lmcache:
        share = 0
    keys = {"kv_cache_cpu_memory_utilization": share, "max_probe_steps": steps}
    return {
        name: int(value) if value == int(value) else value
        for name, value in keys.items()
        if value is not None
    }


def build(
    proposal: Proposal,
    facts: ModelFacts | None,
    *,
    max_num_seqs: int | None = None,
    without_lmcache: bool = False,
    asked: Mapping[str, JsonValue] | None = None,
    replicas: int = 1,
) -> Manifests:
    """The manifests of a model: file name to YAML.

    Args:
        proposal: what is deployed.
        facts: of the model; None leaves the repository's own spelling and its gate unknown.
        max_num_seqs: what a hybrid needs, where the proposal sets none.
        without_lmcache: whether the ConfigMap switches LMCache off, where the proposal says nothing of it.
        asked: options of vLLM that win over the proposal's, as a ConfigMap has them.
        replicas: of the InferenceSet.
    """
    repo_id = (facts.repo_id if facts else None) or proposal.repo_id
    if repo_id is None:
        return Manifests({}, "the download site is not a page of the Hub, so KAITO has no name for the model")
    runtime = serving_runtime(proposal)
    if runtime is None:
        if proposal.runtimes:
            names = ", ".join(sorted({r.name for r in proposal.runtimes}))
            return Manifests({}, f"KAITO has no runtime {names}")
        runtime = Runtime.model_validate({"name": "vllm"})  # KAITO's default, with its own options
    try:
        options = (
            vllm_options(proposal, runtime, max_num_seqs=max_num_seqs, asked=asked)
            if runtime.name == "vllm"
            else None
        )
    except InexpressibleError as error:
        return Manifests({}, str(error))

    for problem in deployed.adapter_problems(proposal.deployment, runtime.name):
        return Manifests({}, problem.message)
    secret = access_secret(proposal, facts)
    config_map = config_map_name(proposal) if options is not None else None
    preset: dict[str, Any] = {"name": repo_id}
    if secret:
        preset["presetOptions"] = {"modelAccessSecret": secret}
    inference: dict[str, Any] = {"preset": preset}
    if config_map:
        inference["config"] = config_map
    adapters = deployed.adapter_values(proposal.deployment)
    if adapters:
        inference["adapters"] = adapters
    files = _serving_objects(proposal, inference, _annotations(proposal, runtime), replicas)
    if options is not None and config_map:
        keys = kaito_keys(proposal, without_lmcache=without_lmcache)
        data = {CONFIG_KEY: _write({"vllm": options, **keys})}
        files[CONFIG_MAP] = _write(_object("ConfigMap", config_map, data=data))
    if secret:
        token = {TOKEN_KEY: "<your Hugging Face token>"}
        files[SECRET] = _write(_object("Secret", secret, type="Opaque", stringData=token))
    return Manifests(dict(sorted(files.items())))


def _object(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def _annotations(proposal: Proposal, runtime: Runtime) -> dict[str, str] | None:
    """What the objects say beside their fields."""
    found = {}
    mode = deployed.performance_mode(proposal.deployment)
    if mode != deployed.BALANCED and runtime.name == "vllm":
        found[deployed.PERFORMANCE_ANNOTATION] = mode
    if runtime.name == "transformers":
        found[RUNTIME_ANNOTATION] = "transformers"
    return found or None


def config_map_name(proposal: Proposal) -> str:
    """The name of the ConfigMap with the model's inference_config.yaml."""
    claimed = proposal.deployment.config_map if proposal.deployment else None
    if claimed is not None and not is_missing(claimed):
        return object_name(claimed)
    return object_name(proposal.metadata.name, suffix=_CONFIG_SUFFIX)


def _serving_objects(
    proposal: Proposal, inference: dict[str, Any], annotations: dict[str, str] | None, replicas: int
) -> dict[str, str]:
    """The Workspace and the InferenceSet, by file name."""
    name = object_name(proposal.metadata.name)
    instance_type = proposal.deployment.instance_type if proposal.deployment else None
    if is_missing(instance_type):
        instance_type = None
    selector = {"matchLabels": {"apps": name}}
    machine: dict[str, Any] = {"instanceType": instance_type} if instance_type else {}
    partition = deployed.partition_of(proposal.deployment)
    if partition is not None:
        # KAITO makes no nodes with slices, and where nodes are brought along it refuses an instance type.
        machine = {"partition": {"mode": partition.mode, "profile": partition.profile}}
    nodes = proposal.deployment.node_count if proposal.deployment else None
    count = {"count": nodes} if nodes is not None else {}
    workspace = {
        "apiVersion": KAITO_API_VERSION,
        "kind": "Workspace",
        "metadata": _metadata(name, annotations),
        "resource": {**count, **machine, "labelSelector": selector},
        "inference": inference,
    }
    inference_set = {
        "apiVersion": KAITO_API_VERSION,
        "kind": "InferenceSet",
        "metadata": _metadata(name, annotations),
        "spec": {
            "replicas": replicas,
            "labelSelector": selector,
            "template": {
                **({"metadata": {"annotations": annotations}} if annotations else {}),
                **({"resource": machine} if machine else {}),
                "inference": inference,
            },
        },
    }
    return {WORKSPACE: _write(workspace), INFERENCE_SET: _write(inference_set)}


def _metadata(name: str, annotations: dict[str, str] | None) -> dict[str, Any]:
    return {"name": name, **({"annotations": annotations} if annotations else {})}


def _write(value: Any) -> str:
    # Wide enough that no option is folded: KAITO reads inference_config.yaml line by line.
    return writing.write(value, kubernetes=True, width=10**6)

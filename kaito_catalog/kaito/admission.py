"""What KAITO's admission webhook asks of a model's manifests beyond the CRDs, and the command line they become.

Source: kaito-project/kaito at 056b828, api/v1beta1/{workspace,inference_config}_validation.go,
presets/workspace/models/vllm_model.go and presets/workspace/inference/vllm/inference_api.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from kaito_catalog.kaito import crd, deployed
from kaito_catalog.kaito.release import Release
from kaito_catalog.vllm_bridge.reference import VllmVersion


def refusals(
    objects: Sequence[Any],
    *,
    kaito: Release,
    model_token_limit: int | None = None,
    gated: bool = False,
    node_auto_provisioning: bool = False,
    vllm: VllmVersion | None = None,
) -> tuple[str, ...]:
    """Why KAITO would refuse the objects of one model, or vLLM would not start with them; empty where not.

    Args:
        objects: what is applied together; a Workspace finds its ConfigMap and Secret among them.
        kaito: the release that they are applied to.
        model_token_limit: of KAITO's catalog; None leaves the context unjudged.
        gated: whether the model's files ask for a token.
        node_auto_provisioning: whether KAITO makes the nodes, so that a Workspace has to name an instance type.
        vllm: what the options are held against; None leaves them unjudged.
    """
    found = [f"{_label(item)}: {problem}" for item in objects for problem in crd.problems(item)]
    if found:
        return tuple(found)  # what does not pass the CRD never reaches the webhook
    config_maps = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ConfigMap"}
    secrets = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Secret"}
    for item in objects:
        if item["kind"] not in ("Workspace", "InferenceSet"):
            continue
        spec = item if item["kind"] == "Workspace" else item["spec"]["template"]
        selector = (item["resource"] if item["kind"] == "Workspace" else item["spec"])["labelSelector"]
        problems = [*_selector(selector, kaito), *_partition(spec.get("resource") or {}, kaito)]
        if node_auto_provisioning and not (spec.get("resource") or {}).get("instanceType"):
            problems.append("resource.instanceType: required where KAITO makes the nodes")
        inference = spec.get("inference") or {}
        problems += _adapters(inference, item.get("metadata") or {})
        problems += _preset(inference.get("preset"), secrets, kaito, gated=gated)
        name = inference.get("config")
        if name and name not in config_maps:
            problems.append(f"inference.config: there is no ConfigMap '{name}'")
        found += [f"{_label(item)}: {problem}" for problem in problems]
    for item in config_maps.values():
        text = item["data"][crd.CONFIG_KEY]
        options = yaml.safe_load(text).get("vllm") or {}
        found += [f"{_label(item)}: {problem}" for problem in _options(options, model_token_limit, vllm)]
    return tuple(found)


def _label(item: Any) -> str:
    if not isinstance(item, dict):
        return "manifest"
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{item.get('kind')} {name}"


def _selector(selector: Mapping[str, Any], kaito: Release) -> list[str]:
    problems = []
    for expression in selector.get("matchExpressions") or ():
        # KAITO turns the selector into one map of labels, which only a single value can become.
        if expression.get("operator") != "In" or len(expression.get("values") or ()) != 1:
            problems.append(f"labelSelector: {expression.get('key')} is not a single value")
    labels = selector.get("matchLabels") or {}
    if labels and not set(labels) - kaito.reserved_labels:
        problems.append("labelSelector.matchLabels: all of them are KAITO's own, and are ignored")
    return problems


def _partition(resource: Mapping[str, Any], kaito: Release) -> list[str]:
    partition = resource.get("partition")
    if partition is None:
        return []
    problems = []
    if resource.get("instanceType"):
        problems.append(
            "resource.partition: KAITO makes no nodes with slices, so instanceType has to be left out"
        )
    if partition["mode"] == "mig" and partition.get("profile") not in kaito.mig_profiles:
        problems.append(
            f"resource.partition.profile: '{partition.get('profile')}' is not a profile that KAITO knows"
        )
    return problems


def _adapters(inference: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    adapters = inference.get("adapters") or []
    problems = []
    if len(adapters) > deployed.MOST_ADAPTERS:
        problems.append(f"inference.adapters: KAITO takes {deployed.MOST_ADAPTERS} at most")
    names = [(adapter.get("source") or {}).get("name") for adapter in adapters]
    problems += [
        f"inference.adapters: two are named '{n}'" for n in sorted(set(names), key=str) if names.count(n) > 1
    ]
    runtime = (metadata.get("annotations") or {}).get(crd.RUNTIME_ANNOTATION, "vllm")
    if runtime == "vllm" and any(adapter.get("strength") is not None for adapter in adapters):
        problems.append("inference.adapters: vLLM does not support adapter strength")
    return problems


def _preset(
    preset: Mapping[str, Any] | None,
    secrets: Mapping[str, Mapping[str, Any]],
    kaito: Release,
    *,
    gated: bool,
) -> list[str]:
    if preset is None:
        return []
    name = str(preset["name"])
    problems = []
    if kaito.repository_of(name) is None:
        problems.append(f"preset.name: '{name}' is neither org/model nor a name that KAITO still resolves")
    secret = (preset.get("presetOptions") or {}).get("modelAccessSecret")
    if gated and not secret:
        problems.append("preset.presetOptions.modelAccessSecret: the model's files ask for a token")
    elif isinstance(secret, str) and secret in secrets:
        held = {**(secrets[secret].get("data") or {}), **(secrets[secret].get("stringData") or {})}
        if crd.TOKEN_KEY not in held:
            problems.append(f"Secret {secret} has no key {crd.TOKEN_KEY}")
    return problems


def expand(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that KAITO appends to vLLM's command line for the `vllm:` block of inference_config.yaml."""
    return tuple(word for key, value in options.items() for word in (f"--{key}", str(value)))


def _options(
    options: Mapping[str, Any], model_token_limit: int | None, vllm: VllmVersion | None
) -> list[str]:
    problems = [
        f"{key} holds {'a list' if isinstance(value, list) else 'a mapping'}, and KAITO reads texts only"
        for key, value in options.items()
        if isinstance(value, list | dict)
    ]
    length = options.get("max-model-len")
    if model_token_limit is not None and isinstance(length, int) and length > model_token_limit:
        problems.append(f"max-model-len: {length:,} is more than the model's limit of {model_token_limit:,}")
    if vllm is not None:
        words = expand({key: value for key, value in options.items() if not isinstance(value, list | dict)})
        problems += _words(words, vllm)
    return problems


def _words(words: Sequence[str], vllm: VllmVersion) -> list[str]:
    """What vLLM's parser would not take of pairs of `--option` and value."""
    problems = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--")
        known = vllm.option(name.partition(".")[0])
        if known is None:
            near = vllm.nearest_option(name)
            problems.append(
                f"vLLM {vllm.version} has no option {name}" + (f"; {near} is the nearest" if near else "")
            )
        elif known.type == "boolean" and value != "":
            problems.append(f"{name} is a switch, and KAITO passes the word '{value}' after it")
        elif known.type != "boolean" and value == "":
            problems.append(f"{name} wants a value, and KAITO passes an empty one")
        elif known.type != "boolean" and "." not in name and (wanted := known.wants(value)):
            problems.append(f"{name} is {wanted}, found '{value}'")
    return problems

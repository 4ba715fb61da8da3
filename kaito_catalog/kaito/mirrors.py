"""KAITO's two other objects of a model: a ModelMirror of its weights, and prefill and decode on nodes of their own."""

from __future__ import annotations

import hashlib
from typing import Any

from kaito_catalog.documents import writing
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import deployed
from kaito_catalog.kaito.manifests import (
    CONFIG_MAP,
    access_secret,
    config_map_name,
    object_name,
    serving_runtime,
)
from kaito_catalog.quantity import GIB

MODEL_MIRROR, MULTI_ROLE = "modelmirror.example.yaml", "multiroleinference.yaml"
_API_VERSION = "kaito.sh/v1alpha1"
_STORAGE_CLASS = "your-storage-class"


def further_objects(
    proposal: Proposal, facts: ModelFacts | None, files: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The two objects beside the manifests that were made.

    Args:
        proposal: what is deployed.
        facts: of the model.
        files: its manifests; without any nothing is made here either.

    Returns:
        File name to YAML, and file name to the reason why it is left out.
    """
    if not files:
        return {}, {}
    made: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, (text, why) in (
        (MODEL_MIRROR, _model_mirror(proposal, facts)),
        (MULTI_ROLE, _multi_role(proposal, facts, has_config=CONFIG_MAP in files)),
    ):
        if text is not None:
            made[name] = text
        else:
            left_out[name] = why
    return made, left_out


def mirror_name(repo_id: str) -> str:
    """The name under which KAITO looks for a model's mirror (pkg/workspace/inference/modelstreaming at v0.12)."""
    return hashlib.sha256(repo_id.encode()).hexdigest()[:6]


def _model_mirror(proposal: Proposal, facts: ModelFacts | None) -> tuple[str | None, str]:
    size = facts.repository or (facts.weights.total if facts.weights else None) if facts else None
    if facts is None or size is None:
        return None, "how large its files are is not recorded, and the volume has to hold them"
    source: dict[str, Any] = {"registry": "huggingface", "modelID": facts.repo_id}
    secret = access_secret(proposal, facts)
    if secret:
        source["accessSecret"] = {"name": secret}
    value = {
        "apiVersion": _API_VERSION,
        "kind": "ModelMirror",
        "metadata": {"name": mirror_name(facts.repo_id)},
        "spec": {
            "mode": "Managed",
            "jobNamespace": "default",
            "source": source,
            # A tenth more than the files: what a file system needs for itself.
            "storage": {
                "size": f"{-(-size.high_bytes * 11 // (10 * GIB))}Gi",
                "storageClassName": _STORAGE_CLASS,
            },
        },
    }
    pinned = proposal.requirements.version or "a revision"
    note = (
        "# A ModelMirror has no field for a revision: KAITO downloads what main points to on that day,\n"
        f"# and not {pinned}.\n"
        "# What streams from it is not pinned by the catalog. Name a StorageClass of your cluster.\n"
    )
    return note + _write(value), ""


def _multi_role(proposal: Proposal, facts: ModelFacts | None, *, has_config: bool) -> tuple[str | None, str]:
    deployment = proposal.deployment
    runtime = serving_runtime(proposal)
    if runtime is not None and runtime.name != "vllm":
        return None, f"prefill and decode are roles of vLLM, and the runtime is {runtime.name}"
    if deployed.partition_of(deployment) is not None:
        return None, "a MultiRoleInference has no field for a slice of a GPU"
    if deployment and deployment.adapters:
        return None, "a MultiRoleInference has no field for adapters"
    if deployment and (deployment.node_count or 1) > 1:
        return None, "a MultiRoleInference has no field for several nodes a replica"
    repo_id = (facts.repo_id if facts else None) or proposal.repo_id
    instance_type = deployment.instance_type if deployment else None
    role: dict[str, Any] = {"replicas": 1}
    if instance_type and not is_missing(instance_type):
        role["instanceType"] = instance_type
    if has_config:
        role["runtimeConfig"] = config_map_name(proposal)
    name = object_name(proposal.metadata.name)
    secret = access_secret(proposal, facts)
    value = {
        "apiVersion": _API_VERSION,
        "kind": "MultiRoleInference",
        "metadata": {"name": name},
        "spec": {
            "labelSelector": {"matchLabels": {"apps": name}},
            "model": {"name": repo_id, **({"modelAccessSecret": secret} if secret else {})},
            "roles": [{"type": "prefill", **role}, {"type": "decode", **role}],
        },
    }
    return _write(value), ""


def _write(value: Any) -> str:
    return writing.write(value, kubernetes=True, width=10**6)

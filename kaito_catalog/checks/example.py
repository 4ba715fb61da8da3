"""A small invented model: the ground on which the documentation's examples stand, and are run as tests."""

from __future__ import annotations

from typing import Any

from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import Document, parse
from kaito_catalog.vllm_bridge.evidence import config_sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"

_PROPOSAL: dict[str, Any] = {
    "apiVersion": "catalog.kaito.sh/v1alpha1",
    "kind": "ModelProposal",
    "metadata": {
        "name": "example-7b-instruct",
        "heading": "Add Example-7B-Instruct to KAITO supported model list",
        "authors": ["@example"],
        "creationDate": "2026-01-05",
        "lastUpdated": "2026-01-05",
        "status": "provisional",
    },
    "summary": {"description": "An invented model for examples.", "license": {"id": "apache-2.0"}},
    "requirements": {
        "familyName": "Example",
        "type": "text-generation",
        "downloadSite": "https://huggingface.co/example-org/Example-7B-Instruct",
        "version": REVISION,
        "storageSize": "20GB",
        "gpuCount": 1,
        "totalGPUMemory": "80GB",
        "perGPUMemory": "80GB",
        "contextLength": 16384,
    },
    "runtimes": [{"name": "vllm", "distributedInference": False, "config": {"max-model-len": 16384}}],
    "deployment": {"instanceType": "Standard_NC24ads_A100_v4"},
    "history": [{"event": "Open proposal PR", "date": "2026-01-05", "done": True}],
}

_FACTS: dict[str, Any] = {
    "apiVersion": "catalog.kaito.sh/v1alpha1",
    "kind": "ModelFacts",
    "repoId": "example-org/Example-7B-Instruct",
    "revision": REVISION,
    "recordedAt": "2026-01-05",
    "source": {"kind": "hub"},
    "license": {"id": "apache-2.0"},
    "gated": "no",
    "pipelineTag": "text-generation",
    "repository": {"sizeBytes": 16070000000},
    "weights": {"format": "safetensors", "total": {"sizeBytes": 16060556288}},
    "files": [
        {"path": "config.json", "sizeBytes": 855},
        {"path": "model.safetensors", "sizeBytes": 16060556288, "sha256": f"{170:064x}"},
    ],
    "config": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
}

_EXACT: dict[str, Any] = {
    "apiVersion": "catalog.kaito.sh/v1alpha1",
    "kind": "ExactPlan",
    "model": "example-7b-instruct",
    "revision": REVISION,
    "configSha256": config_sha256(_FACTS["config"]),
    "versions": {"vllm": "0.25.1"},
    "gpu": {"name": "NVIDIA A100 80GB", "memoryBytes": 85000000000, "computeCapability": 8.0},
    "recordedAt": "2026-01-05",
    "worlds": [
        {
            "parallelism": {"tensorParallelSize": 1},
            "ranks": [
                {
                    "rank": 0,
                    "weightsBytes": 16060522496,
                    "bufferBytes": 0,
                    "weightsByDtype": {"bfloat16": 16060522496},
                }
            ],
            "kvCache": {"maxModelLen": 16384, "neededBytes": 2147483648},
        }
    ],
}


def evidence_documents(fragment: str) -> list[Document]:
    """The evidence of a fragment: each item of its `evidence` merged over the example's exact plan."""
    change = parse(fragment, path="example").value or {}
    return [
        parse(writing.write(_merge(_EXACT, item)), path=f"evidence/{number}.yaml")
        for number, item in enumerate(change.get("evidence") or ())
    ]


def documents(fragment: str) -> tuple[Document, Document | None]:
    """The example's proposal and facts with a fragment of YAML merged over them.

    The fragment's `facts` key changes the facts (null removes them), everything else the proposal; null
    deletes a key, as in a JSON merge patch.
    """
    change = parse(fragment, path="example").value or {}
    facts_change = change.pop("facts", {})
    change.pop("evidence", None)
    proposal = parse(writing.write(_merge(_PROPOSAL, change)), path="proposal.yaml")
    if facts_change is None:
        return proposal, None
    return proposal, parse(writing.write(_merge(_FACTS, facts_change)), path="facts.yaml")


def _merge(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(base.get(key), value)
    return result

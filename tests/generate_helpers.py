"""Two small entries and a catalog around them, for the tests of what is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Catalog, Entry, Evidence, Shared
from kaito_catalog.documents.reading import parse
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import Gpu, InstanceType
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal

GIB = 2**30
API = "catalog.kaito.sh/v1alpha1"
REVISION = "6f6073b423013f6a7d4d9f39144961bfbfbc386b"


def proposal(**changes: Any) -> dict[str, Any]:
    """Llama 3.3 70B; `changes` replace top-level keys."""
    return {
        "apiVersion": API,
        "kind": "ModelProposal",
        "metadata": {
            "name": "llama-3.3-70b-instruct",
            "heading": "Add Llama 3.3",
            "authors": ["@somebody"],
            "creationDate": "2025-05-29",
            "status": "implemented",
        },
        "summary": {
            "description": "A chat model. See [the card](https://example.org/card).",
            "license": {"id": "llama3.3", "url": "https://example.org/license"},
        },
        "requirements": {
            "familyName": "Llama 3",
            "type": "text-generation",
            "downloadSite": "https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct",
            "version": REVISION,
            "storageSize": "150GB",
            "gpuCount": 4,
            "totalGPUMemory": "320GB",
            "perGPUMemory": "80GB",
            "contextLength": 16384,
        },
        "runtimes": [
            {"name": "vllm", "distributedInference": True, "config": {"gpu-memory-utilization": 0.95}}
        ],
        "deployment": {"instanceType": "Standard_NC96ads_A100_v4", "modelAccessSecret": "hf-token"},
        "history": [{"event": "Open proposal PR", "date": "2025-05-29", "done": True}],
        **changes,
    }


def small_proposal(**changes: Any) -> dict[str, Any]:
    """Phi-4, without a vLLM configuration or a deployment."""
    return {
        "apiVersion": API,
        "kind": "ModelProposal",
        "metadata": {
            "name": "phi-4",
            "heading": "Add phi-4",
            "authors": ["@somebody"],
            "creationDate": "2025-01-03",
            "status": "provisional",
        },
        "requirements": {
            "familyName": "Phi",
            "type": "text-generation",
            "downloadSite": "https://huggingface.co/microsoft/phi-4",
        },
        "runtimes": [{"name": "vllm"}],
        **changes,
    }


def facts(**changes: Any) -> dict[str, Any]:
    """What the Hub says about Llama 3.3 70B."""
    return {
        "apiVersion": API,
        "kind": "ModelFacts",
        "repoId": "meta-llama/Llama-3.3-70B-Instruct",
        "revision": REVISION,
        "recordedAt": "2026-11-01",
        "source": {
            "kind": "transcribed",
            "references": [
                {"from": "KAITO's model catalog", "url": "https://example.org/x", "fields": ["weights"]}
            ],
        },
        "license": {"id": "llama3.3"},
        "gated": "manual",
        "pipelineTag": "text-generation",
        "baseModels": ["meta-llama/Llama-3.1-70B"],
        "weights": {"format": "safetensors", "total": {"sizeBytes": 141107412992}},
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 131072,
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 28672,
            "vocab_size": 128256,
            "torch_dtype": "bfloat16",
        },
        **changes,
    }


def small_facts(**changes: Any) -> dict[str, Any]:
    """What the Hub says about phi-4."""
    return {
        "apiVersion": API,
        "kind": "ModelFacts",
        "repoId": "microsoft/phi-4",
        "recordedAt": "2026-11-01",
        "source": {"kind": "hub"},
        "license": {"id": "mit"},
        "gated": "no",
        "pipelineTag": "text-generation",
        "weights": {"format": "safetensors", "total": {"sizeBytes": 29319017472}},
        "config": {
            "architectures": ["Phi3ForCausalLM"],
            "max_position_embeddings": 16384,
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 10,
            "intermediate_size": 17920,
            "vocab_size": 100352,
            "torch_dtype": "bfloat16",
        },
        **changes,
    }


def entry(
    claims: dict[str, Any], recorded: dict[str, Any] | None = None, evidence: tuple[Evidence, ...] = ()
) -> Entry:
    """An entry as reading its folder would give it."""
    name = claims["metadata"]["name"]
    return Entry(
        name=name,
        folder=Path("catalog/models") / name,
        proposal_document=parse("{}", path=f"catalog/models/{name}/proposal.yaml"),
        proposal=Proposal.model_validate(claims),
        facts_document=None,
        facts=ModelFacts.model_validate(recorded) if recorded else None,
        evidence=evidence,
        problems=(),
    )


def shared() -> Shared:
    """A policy, two GPUs and four instance types."""
    policy = Policy.model_validate(
        {
            "apiVersion": API,
            "kind": "Policy",
            "profile": "kaito-v0.12",
            "profiles": [
                {
                    "name": "kaito-v0.12",
                    "vllmVersion": "0.25.1",
                    "gpuMemoryUtilization": 0.84,
                    "diskOverheadBytes": 80 * GIB,
                    "source": "a test",
                }
            ],
            "licenses": {
                "publicImages": ["mit"],
                "spdx": {"mit": "MIT"},
                "known": ["llama3.3"],
                "aliases": {},
            },
            "types": {"aliases": {}},
            "tolerances": {"storageOver": 2.0, "planError": 0.03},
        }
    )
    gpus = tuple(
        Gpu.model_validate(
            {
                "name": name,
                "nominalMemory": nominal,
                "memoryBytes": memory,
                "computeCapability": capability,
                "source": "a test",
            }
        )
        for name, nominal, memory, capability in (
            ("NVIDIA A10", "24GB", 23_000_000_000, 8.6),
            ("NVIDIA A100 80GB", "80GB", 85_000_000_000, 8.0),
        )
    )
    types = tuple(
        InstanceType.model_validate(
            {"name": name, "cloud": "azure", "gpu": gpu, "gpuCount": count, "source": "a test"}
        )
        for name, gpu, count in (
            ("Standard_NV36ads_A10_v5", "NVIDIA A10", 1),
            ("Standard_NV72ads_A10_v5", "NVIDIA A10", 2),
            ("Standard_NC24ads_A100_v4", "NVIDIA A100 80GB", 1),
            ("Standard_NC96ads_A100_v4", "NVIDIA A100 80GB", 4),
        )
    )
    return Shared(policy, gpus, types)


def catalog(*entries: Entry) -> Catalog:
    """A catalog of `entries`, or of both models."""
    chosen = entries or (entry(proposal(), facts()), entry(small_proposal(), small_facts()))
    return Catalog(Path("catalog"), shared(), tuple(sorted(chosen, key=lambda e: e.name)))

"""Documents that follow a JSON Schema, and documents that nearly do."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

BASE: dict[str, Any] = {
    "apiVersion": "catalog.kaito.sh/v1alpha1",
    "kind": "ModelProposal",
    "metadata": {
        "name": "phi-4",
        "title": "Proposal for new model support",
        "heading": "Add phi-4",
        "authors": ["@someone"],
        "reviewers": None,
        "creationDate": "2026-01-05",
        "status": "provisional",
    },
    "glossary": {"KV": "key-value"},
    "summary": {
        "description": "text",
        "usage": {"statistics": "many", "asOf": "2026-01-05", "source": "https://example.org/x"},
        "license": {"id": "mit"},
    },
    "requirements": {
        "familyName": "Phi",
        "type": "text-generation",
        "downloadSite": "https://huggingface.co/microsoft/phi-4",
        "version": "main",
        "storageSize": "30GB",
        "gpuCount": 1,
        "totalGPUMemory": "80 GiB",
        "perGPUMemory": "N/A",
        "contextLength": 4096,
        "notes": {"gpuCount": "minimum"},
        "figures": [{"alt": "a", "src": "b.png"}],
    },
    "runtimes": [
        {
            "name": "vllm",
            "distributedInference": False,
            "config": {"max-model-len": 4096, "x": [1, {"y": None}]},
        }
    ],
    "deployment": {"instanceType": "Standard_NC24ads_A100_v4"},
    "history": [{"event": "Open", "date": "2026-01-05", "done": True}],
    "waivers": {"MEM003": "because"},
}

_STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**10),
    st.floats(-1e6, 1e6),
    st.sampled_from(
        [
            1.0,
            4.0,
            0,
            1,
            "",
            "TBD",
            "N/A",
            "30",
            "30GB",
            "30 GB",
            "30  GB",
            "30gb",
            "1.5TiB",
            "30GB\n",
            " 30GB",
        ]
    ),
    st.sampled_from(
        ["2026-01-05\n", "2026-1-5", "２０２６-01-05", "provisional", "vllm", "a" * 100, "a/b", "https://x y"]
    ),
    st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def _routes(value: Any, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [prefix] if prefix else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found.extend(_routes(part, (*prefix, key)))
    return found


@st.composite
def mutated(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with up to three values replaced, keys removed or keys added."""
    document = copy.deepcopy(base)
    for _ in range(draw(st.integers(0, 3))):
        routes = _routes(document)
        if not routes:
            break
        route = draw(st.sampled_from(routes))
        parent: Any = document
        for part in route[:-1]:
            parent = parent[part]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            parent[route[-1]] = draw(_STRANGE)
        elif action == "remove":
            del parent[route[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["extra", "gpu_count", "gpuCount", "url", "sha256", "note"]))] = draw(
                _STRANGE
            )
    return document

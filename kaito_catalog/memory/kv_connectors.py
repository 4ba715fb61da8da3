"""KV connectors (`kv-transfer-config`, `kv-offloading-size`): which of them take vLLM's hybrid KV cache manager away.

A connector is made after vLLM has sized the cache, so that what it keeps itself is in no account. Otherwise it matters
to the cache alone whether its class is a `SupportsHMA`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.changes import Version
from kaito_catalog.memory.values import Settings

ALWAYS: Version = (0, 23, 0)
"""From here on a connector may keep the manager; up to 0.20.2 each takes it away, and 0.21 and 0.22 were not read."""

WITH_MANAGER: Mapping[str, Version] = {
    "DecodeBenchConnector": ALWAYS,
    "ExampleHiddenStatesConnector": ALWAYS,
    "HiSparseConnector": (0, 30, 0),
    "MooncakeConnector": ALWAYS,
    "MooncakeStoreConnector": ALWAYS,
    "MoRIIOConnector": (0, 30, 0),
    "NixlConnector": ALWAYS,
    "NixlPullConnector": ALWAYS,
    "NixlPushConnector": ALWAYS,
    "OffloadingConnector": ALWAYS,
    "SimpleCPUOffloadConnector": ALWAYS,
}
"""Connectors whose class supports the manager (SupportsHMA), and since which version: read in the wheels of 0.20.2,
0.23.0, 0.25.1 to 0.32.0."""

WITHOUT_MANAGER = frozenset(
    {"ExampleConnector", "FlexKVConnectorV1", "HF3FSKVConnector", "LMCacheConnectorV1", "LMCacheMPConnector"}
)
"""vLLM's others."""

OF_OFFLOADING = {"native": "OffloadingConnector", "lmcache": "LMCacheMPConnector"}
"""What `kv-offloading-size` chooses, by `kv-offloading-backend` (VllmConfig._post_init_kv_transfer_config)."""


def keeps_hybrid_manager(settings: Settings, vllm_version: str) -> bool | str:
    """Whether the KV connector of the options, where there is one, leaves the hybrid KV cache manager on.

    A text where that is not known, with the reason.
    """
    config: dict[str, Any] = json.loads(settings.kv_transfer_config) if settings.kv_transfer_config else {}
    if settings.kv_offloading_size is not None:
        name = OF_OFFLOADING.get(settings.kv_offloading_backend)
        if name is None:
            return f"no plan for kv-offloading-backend '{settings.kv_offloading_backend[:40]}'"
        config = {**config, "kv_connector": name}
    keeps = True
    for connector in _connectors(config):
        name = connector.get("kv_connector")
        extra = connector.get("kv_connector_extra_config") or {}
        if not isinstance(name, str) or "kv_connector_module_path" in connector:
            return f"no plan for the KV connector {json.dumps(name)[:60]}"
        if isinstance(extra, dict) and extra.get("use_layerwise"):
            return f"no plan for {name[:40]} with use_layerwise, which changes what CUDA graphs are captured"
        if name in WITH_MANAGER:
            keeps = keeps and version_tuple(vllm_version) >= WITH_MANAGER[name]
        elif name in WITHOUT_MANAGER:
            keeps = False
        else:
            return f"no plan for the KV connector '{name[:40]}', which vLLM {vllm_version[:20]} was not read with"
    return keeps


def _connectors(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The connector, or those that a MultiConnector is made of: it supports the manager where all of them do."""
    if config.get("kv_connector") != "MultiConnector":
        if config:
            yield config
        return
    extra = config.get("kv_connector_extra_config")
    children = extra.get("connectors") if isinstance(extra, dict) else None
    if not isinstance(children, list) or not children:
        yield {}
        return
    for child in children:
        yield child if isinstance(child, dict) else {}

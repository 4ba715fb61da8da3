"""KV connectors: which of them keep vLLM's hybrid KV cache manager, by version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kaito_catalog.memory.kv_connectors import keeps_hybrid_manager
from kaito_catalog.memory.values import Settings

SETTINGS = Settings(8192, 0.9)


def keeps(connector: Any, version: str = "0.32.0", **options: Any) -> bool | str:
    config = None if connector is None else json.dumps(connector)
    return keeps_hybrid_manager(replace(SETTINGS, kv_transfer_config=config, **options), version)


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("LMCacheConnectorV1", "0.32.0", False),
        ("NixlConnector", "0.32.0", True),
        ("NixlConnector", "0.20.2", False),  # any connector switched it off
        ("OffloadingConnector", "0.25.1", True),
        ("MoRIIOConnector", "0.29.0", False),
        ("MoRIIOConnector", "0.30.0", True),
    ],
)
def test_a_connector_keeps_the_manager_where_its_class_supports_it(
    name: str, version: str, expected: bool
) -> None:
    assert keeps({"kv_connector": name, "kv_role": "kv_both"}, version) is expected


def test_several_connectors_keep_it_where_all_of_them_do() -> None:
    nixl, lmcache = {"kv_connector": "NixlConnector"}, {"kv_connector": "LMCacheConnectorV1"}

    def both(*children: Any) -> bool | str:
        extra = {"connectors": list(children)}
        return keeps({"kv_connector": "MultiConnector", "kv_connector_extra_config": extra})

    assert (both(nixl, nixl), both(nixl, lmcache)) == (True, False)
    assert isinstance(both(), str)
    assert isinstance(both("NixlConnector"), str)


def test_offloading_chooses_a_connector_by_its_back_end() -> None:
    assert keeps(None, kv_offloading_size=4.0) is True
    assert keeps(None, kv_offloading_size=4.0, kv_offloading_backend="lmcache") is False
    assert keeps(None) is True
    assert isinstance(keeps(None, kv_offloading_size=4.0, kv_offloading_backend="mine"), str)


@pytest.mark.parametrize(
    "connector",
    [
        {"kv_connector": "MineConnector"},
        {"kv_connector": 3},
        {"kv_connector": "NixlConnector", "kv_connector_module_path": "mine"},
        {"kv_connector": "LMCacheConnectorV1", "kv_connector_extra_config": {"use_layerwise": True}},
    ],
)
def test_a_connector_that_was_not_read_is_unknown_by_name(connector: Any) -> None:
    found = keeps(connector)
    assert isinstance(found, str)
    assert "no plan for" in found

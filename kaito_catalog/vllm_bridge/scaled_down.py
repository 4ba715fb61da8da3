"""A configuration of the same architecture that a small machine can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALED_LAYERS = 2
SCALED_EXPERTS = 8
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def scaled_down(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration of the same architecture that a small machine can run, and what was changed.

    Two layers of the real width, at most eight experts; everything else as it is.
    """
    result = dict(config)
    changed: dict[str, Any] = {}
    where = result
    if isinstance(config.get("text_config"), dict):
        where = result["text_config"] = dict(config["text_config"])

    def change(key: str, value: Any) -> None:
        if where.get(key) != value:
            where[key] = changed[key] = value

    layers = where.get("num_hidden_layers")
    if isinstance(layers, int) and layers > SCALED_LAYERS:
        change("num_hidden_layers", SCALED_LAYERS)
        kinds = where.get("layer_types")
        if isinstance(kinds, list):
            # One layer of each kind, so that every kind is run.
            kept = list(dict.fromkeys(kinds))[:SCALED_LAYERS]
            change("layer_types", (kept * SCALED_LAYERS)[:SCALED_LAYERS])
        if isinstance(where.get("first_k_dense_replace"), int) and where["first_k_dense_replace"] > 1:
            change("first_k_dense_replace", 1)
    for key in _EXPERTS:
        if isinstance(where.get(key), int) and where[key] > SCALED_EXPERTS:
            change(key, SCALED_EXPERTS)
            if isinstance(where.get("n_group"), int) and where["n_group"] > 1:
                change("n_group", 1)
                change("topk_group", 1)
            chosen = where.get("num_experts_per_tok")
            if isinstance(chosen, int) and chosen > SCALED_EXPERTS // 2:
                change("num_experts_per_tok", SCALED_EXPERTS // 2)
    return result, changed

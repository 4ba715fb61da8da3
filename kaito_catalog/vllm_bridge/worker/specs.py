"""The cache of layers as vLLM's planner describes it, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from kaito_catalog.vllm_bridge.worker.requests import JSON


def bytes_per_token(specs: Mapping[str, Any]) -> float:
    """Bytes that one more token of context costs: layers whose cache grows with it, without windows and states."""
    return float(sum(spec.page_size_bytes / spec.block_size for spec in specs.values() if grows(spec)))


def grows(spec: Any) -> bool:
    bounded = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None)
    return "Mamba" not in type(spec).__name__ and "Cross" not in type(spec).__name__ and not bounded


def describe_spec(spec: Any) -> JSON:
    described: JSON = {
        "kind": type(spec).__name__,
        "blockSize": spec.block_size,
        "pageBytes": spec.page_size_bytes,
    }
    dtype = getattr(spec, "dtype", None)
    if dtype is not None:
        described["dtype"] = str(dtype).removeprefix("torch.")
    for key, name in (
        ("slidingWindow", "sliding_window"),
        ("attentionChunkSize", "attention_chunk_size"),
        ("pageBytesPadded", "page_size_padded"),
        ("kvHeads", "num_kv_heads"),
        ("headSize", "head_size"),
    ):
        value = getattr(spec, name, None)
        if isinstance(value, int):
            described[key] = value
    if "Mamba" in described["kind"]:
        described["stateBytes"] = sum(
            math.prod(shape) * dtype.itemsize for shape, dtype in zip(spec.shapes, spec.dtypes, strict=True)
        )
    return described


def count_specs(specs: Any) -> list[JSON]:
    counted: dict[str, JSON] = {}
    for spec in specs:
        described = describe_spec(spec)
        entry = counted.setdefault(json.dumps(described, sort_keys=True), {"layers": 0, **described})
        entry["layers"] += 1
    return list(counted.values())


def describe_groups(kv_cache_config: Any) -> list[JSON]:
    return [
        {"layers": len(group.layer_names), **describe_spec(group.kv_cache_spec)}
        for group in kv_cache_config.kv_cache_groups
    ]

"""A run over two nodes, with anything changed."""

from __future__ import annotations

from typing import Any

from kaito_catalog.dry_runs import campaign
from kaito_catalog.memory.values import Parallelism


def a_run(**changes: Any) -> campaign.Run:
    values: dict[str, Any] = {
        "model": "big",
        "repo_id": "org/big",
        "revision": "a" * 40,
        "config": {},
        "config_sha256": "b" * 64,
        "changed": {},
        "device": "cuda",
        "vllm_version": "0.25.1",
        "instance_type": "Standard_ND96isr_H100_v5",
        "gpu": "NVIDIA H100 80GB",
        "gpus_per_node": 8,
        "nodes": 2,
        "parallelism": Parallelism(8, 2),
        "args": {
            "tensor_parallel_size": 8,
            "pipeline_parallel_size": 2,
            "distributed_executor_backend": "ray",
        },
        "weights": "dummy",
        "weights_bytes": 10**12,
        "secret": None,
        "time_limit_seconds": 900.0,
    }
    return campaign.Run(**{**values, **changes})

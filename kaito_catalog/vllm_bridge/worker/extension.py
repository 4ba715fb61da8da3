"""What vLLM's own worker processes import: the figures of their memory, read from the objects that hold them."""

from __future__ import annotations

from typing import Any

from kaito_catalog.vllm_bridge.worker.machine import ask_for_tile_registers
from kaito_catalog.vllm_bridge.worker.memory import as_int, bytes_by_dtype, sum_of_storages
from kaito_catalog.vllm_bridge.worker.releases import find, replace
from kaito_catalog.vllm_bridge.worker.requests import JSON
from kaito_catalog.vllm_bridge.worker.specs import count_specs

EXTENSION = f"{__name__}.MemoryReport"
"""What `worker_extension_cls` is given: vLLM imports it in each process that computes."""

# Parameters by dtype as they were loaded, of this process's rank.
_LOADED: dict[str, int] = {}


class MemoryReport:
    """Mixed into vLLM's worker (worker_extension_cls): reads the figures from the objects that hold them.

    vLLM makes a worker in each process that computes, so that this is also where such a process is prepared.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        ask_for_tile_registers()
        return super().__new__(cls)

    def kaito_catalog_memory(self: Any) -> JSON:
        runner = self.model_runner
        snapshot = getattr(self, "init_snapshot", None)
        parameters, buffers, _ = bytes_by_dtype(runner.get_model())
        return {
            "rank": getattr(self, "rank", 0),
            # Loaded: before vLLM repacks. Kept: what the model's parameters still hold; on CPU the linear layers'
            # weights leave them for the kernels' own memory.
            "loadedBytesByDtype": dict(_LOADED) or None,
            "keptBytesByDtype": parameters,
            "bufferBytesByDtype": buffers,
            "kvCacheBytes": sum_of_storages(getattr(runner, "kv_caches", ())),
            "modelMemoryBytes": as_int(getattr(runner, "model_memory_usage", None)),
            "requestedBytes": as_int(getattr(self, "requested_memory", None)),
            "totalBytes": as_int(getattr(snapshot, "total_memory", None)),
            "freeAtStartBytes": as_int(getattr(snapshot, "free_memory", None)),
            # Up to 0.26 and from 0.27 on: different quantities, so each has its own name.
            "nonTorchBytes": as_int(getattr(self, "non_torch_memory", None)),
            "totalConsumedBytes": as_int(getattr(self, "total_consumed", None)),
            "activationPeakBytes": as_int(getattr(self, "peak_activation_memory", None)),
            "cudaGraphBytes": as_int(getattr(self, "cudagraph_memory_estimate", None)),
            "kvCacheAvailableBytes": as_int(getattr(self, "available_kv_cache_memory_bytes", None)),
            "kvCacheLayers": count_specs(self.get_kv_cache_spec().values()),
        }


def record_loaded_weights() -> None:
    """Sum the parameters between loading and repacking, in engines that run in this process."""
    original = find("what follows loading")

    def process(model: Any, *args: Any, **kwargs: Any) -> Any:
        _LOADED.update(bytes_by_dtype(model)[0])
        return original(model, *args, **kwargs)

    replace("what follows loading", process)

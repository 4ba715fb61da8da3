"""What a rank holds otherwise than its model's parameters say: slots of adapters, and weights left in host memory."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from kaito_catalog.vllm_bridge.worker.arguments import Given
from kaito_catalog.vllm_bridge.worker.memory import bytes_by_dtype
from kaito_catalog.vllm_bridge.worker.releases import find, replace
from kaito_catalog.vllm_bridge.worker.requests import RequestError


def adapter_bytes(vllm_config: Any, model: Any) -> int | None:
    """Bytes of the slots that vLLM makes for LoRA adapters (`max_loras` of `max_lora_rank`); None without LoRA.

    vLLM's own manager puts its layers around those of the model, as the last step of loading.
    """
    import torch

    if vllm_config.lora_config is None:
        return None
    _, _, before = bytes_by_dtype(model)
    with torch.device("meta"):
        load = find("adapters of a model")
        wrapped = load(types.SimpleNamespace(), model, vllm_config, torch.device("meta"))
    _, _, after = bytes_by_dtype(wrapped)
    return sum(after.values()) - sum(before.values())


def leave_weights_in_host_memory(vllm_config: Any) -> None:
    """Have vLLM's own offloader choose the weights that `cpu-offload-gb` leaves in the host's memory.

    It marks their parameters, which have no content here that could be moved. Called before a model is built.
    """
    replace("whether a GPU reads host memory", lambda: True)
    replace("whether host memory is pinned", lambda: False)
    replace("a GPU's view of host memory", lambda tensor: tensor)
    find("use of an offloader")(find("offloader of weights")(vllm_config.offload_config))


UNBUILT: Mapping[str, str] = {
    "config": "its file lies where vLLM is served; give the options that are in it",
    "worker_cls": "an exact plan is of vLLM's own worker for GPUs",
    "headless": "it starts no API server, and waits for one on another node",
    "grpc": "it starts another server, with options of its own",
}
"""Arguments that an exact plan does not follow, and why."""

PREFETCHED = "the GPU's buffers for prefetched weights are not built in an exact plan"


def check_followed(vllm_config: Any, given: Given) -> None:
    """Refuse what a command line or the configuration asks for and an exact plan does not build.

    Raises:
        RequestError: with the option and the reason.
    """
    for name, value in {**given.engine, **given.server}.items():
        if name in UNBUILT and value not in (None, False, "auto"):
            raise RequestError("bad-option", f"--{name.replace('_', '-')}: {UNBUILT[name]}")
    offload = vllm_config.offload_config
    prefetches = offload.offload_backend in ("auto", "prefetch") and offload.prefetch.offload_group_size > 0
    if prefetches or offload.offload_backend == "prefetch":
        raise RequestError("bad-option", f"--offload-group-size: {PREFETCHED}")

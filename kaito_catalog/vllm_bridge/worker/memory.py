"""Bytes of tensors: a model's parameters and buffers by dtype, and what modules hold beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# module -> quantisation method -> kernel -> wrapped tensor -> storage -> data
HELD_DEPTH = 6


HELD_BY = ("vllm.model_executor", "vllm.v1", "vllm.third_party", "triton_kernels")


def bytes_by_dtype(model: Any) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Bytes of a model's parameters, registered buffers and other tensors its modules hold, each by dtype."""
    parameters: dict[str, int] = {}
    buffers: dict[str, int] = {}
    others: dict[str, int] = {}
    seen: set[int] = set()

    def add(tensor: Any, into: dict[str, int]) -> None:
        # Views and tied weights share a storage, which counts once.
        key = tensor.untyped_storage()._cdata
        if key not in seen:
            seen.add(key)
            dtype = str(tensor.dtype).removeprefix("torch.")
            into[dtype] = into.get(dtype, 0) + tensor.untyped_storage().nbytes()

    for _, parameter in model.named_parameters(remove_duplicate=False):
        if not is_in_host_memory(parameter):
            add(parameter, parameters)
    for _, buffer in model.named_buffers(remove_duplicate=False):
        add(buffer, buffers)
    for module in model.modules():
        for tensor in held_tensors(module):
            add(tensor, others)
    return dict(sorted(parameters.items())), dict(sorted(buffers.items())), dict(sorted(others.items()))


def is_in_host_memory(parameter: Any) -> bool:
    """Whether vLLM's offloader has left it there."""
    return bool(getattr(parameter, "_vllm_is_uva_offloaded", False))


def host_bytes(model: Any) -> int:
    """Bytes of the parameters that are left in the host's memory."""
    return sum_of_storages(parameter for parameter in model.parameters() if is_in_host_memory(parameter))


def held_tensors(module: Any) -> Iterator[Any]:
    """Tensors that a module keeps outside torch's registers: in plain attributes, or inside its kernels' objects.

    Repacked weights may live in the latter only (mxfp4: in the module's quantisation method, wrapped by
    triton_kernels). Other modules and vLLM's configuration, which knows every layer, are not followed.
    """
    import torch

    seen: set[int] = set()
    pending = [(value, 0) for value in vars(module).values()]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, torch.Tensor):
            yield value
            continue
        if id(value) in seen or depth > HELD_DEPTH or isinstance(value, (torch.nn.Module, type)):
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            pending += [(item, depth + 1) for item in value.values()]
        elif type(value).__module__.startswith(HELD_BY):
            pending += [(item, depth + 1) for item in getattr(value, "__dict__", {}).values()]


def sum_of_storages(tensors: Any) -> int:
    """Bytes of the distinct storages behind (lists of) tensors."""
    storages: dict[int, int] = {}
    pending = list(tensors)
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple)):
            pending += item
        elif hasattr(item, "untyped_storage"):
            storage = item.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def as_int(value: Any) -> int | None:
    return None if value is None else int(value)

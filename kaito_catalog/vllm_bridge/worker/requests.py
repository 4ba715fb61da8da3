"""What a request says: the operation, the GPU to simulate, the model; and the error that refuses one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

JSON = dict[str, Any]


Progress = Callable[[str], None]


class RequestError(Exception):
    """A request that could not be answered, with the class that callers act on."""

    def __init__(self, failure_class: str, message: str, exception: str = "") -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message
        self.exception = exception

    def as_json(self) -> JSON:
        return {"class": self.failure_class, "exception": self.exception, "message": self.message}


DEFAULT_GPU = {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memoryBytes": 80 * 1024**3}


class DescribedGpu(NamedTuple):
    """A GPU as the driver would describe it."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int

    @classmethod
    def read(cls, request: JSON) -> DescribedGpu:
        given = {**DEFAULT_GPU, **(request.get("gpu") or {})}
        major, _, minor = str(given["capability"]).partition(".")
        try:
            return cls(str(given["name"]), (int(major), int(minor or 0)), int(given["memoryBytes"]))
        except (TypeError, ValueError) as error:
            raise RequestError("bad-request", f"gpu {given!r}: {error}") from error

    def as_json(self) -> JSON:
        capability = ".".join(map(str, self.capability))
        return {"name": self.name, "capability": capability, "memoryBytes": self.memory_bytes}


FIELDS: Mapping[str, frozenset[str]] = {
    "exact-plan": frozenset(
        {"model", "args", "arguments", "gpu", "device", "vllmVersion", "kvCacheBytes", "afterLoading"}
    ),
    "arguments": frozenset({"model", "args", "commandLines", "gpu", "device", "vllmVersion"}),
    "registry": frozenset({"gpu", "device", "vllmVersion"}),
    "options": frozenset({"gpu", "device", "vllmVersion"}),
    "names": frozenset({"gpu", "device", "vllmVersion"}),
    "check-options": frozenset({"model", "options", "gpu", "device", "vllmVersion"}),
    "dry-run": frozenset(
        {"model", "args", "weights", "device", "promptTokenIds", "maxTokens", "env", "hostMemoryBytes"}
    ),
    "serve": frozenset(
        {
            "model",
            "options",
            "flags",
            "weights",
            "toolCallParser",
            "reasoningParser",
            "maxTokens",
            "env",
        }
    ),
}
"""What each operation reads of a request, beside OF_EVERY_REQUEST."""
OF_EVERY_REQUEST = frozenset({"id", "op", "timeLimitSeconds"})


def check_fields(request: JSON) -> None:
    """Refuse a request for what is not known, or with a field that its operation does not read."""
    op = request.get("op")
    if not isinstance(op, str) or op not in FIELDS:
        raise RequestError("bad-request", f"op {op!r} is none of {', '.join(FIELDS)}")
    unread = sorted(request.keys() - FIELDS[op] - OF_EVERY_REQUEST)
    if unread:
        raise RequestError("bad-request", f"{op} does not read {', '.join(unread)}")


def simulated(request: JSON) -> bool:
    return bool(request.get("device", "cuda") != "cpu")


def model_path(request: JSON) -> str:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError("bad-request", "the request names no model")
    if os.path.isdir(model):
        names = ("config.json", "params.json")
        if not any(os.path.exists(os.path.join(model, name)) for name in names):
            raise RequestError("bad-request", f"{model} holds neither config.json nor params.json")
        return os.path.abspath(model)
    if os.path.isabs(model) or model.startswith("."):
        raise RequestError("bad-request", f"{model} is not a directory")
    return model


def only_params(model: str) -> JSON:
    """vLLM recognises Mistral's own format by its weight files, which are not here."""
    if os.path.exists(os.path.join(model, "params.json")) and not os.path.exists(
        os.path.join(model, "config.json")
    ):
        return {"config_format": "mistral"}
    return {}

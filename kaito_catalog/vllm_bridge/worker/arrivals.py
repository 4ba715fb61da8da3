"""`arguments`: what command lines change in vLLM's configuration, many in one request, without building a model."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_catalog.vllm_bridge.worker.configuration import versions
from kaito_catalog.vllm_bridge.worker.exact_plan import configured
from kaito_catalog.vllm_bridge.worker.processes import in_child
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, RequestError

_DEEPEST = 4
"""Steps into configurations: that of a multimodal model is the third."""


def arrivals(request: JSON, progress: Progress) -> JSON:
    """For each of `commandLines`, as an exact plan takes it: what the engine and the server got, and what that changes.

    `changed` has the fields of vLLM's configuration that are others without the arguments, each with its value as text.
    A line that is refused has the reason instead.
    """
    lines = [[str(part) for part in line] for line in request.get("commandLines") or ()]
    # Here and not in a child, which all have its imports then, and what the registry learns of the model's class.
    config, _ = configured(request, progress)
    usual = dict(_fields(config, "", _DEEPEST))
    return {
        **versions(),
        "commandLines": [_arrival({**request, "arguments": line}, usual, progress) for line in lines],
    }


def _arrival(request: JSON, usual: Mapping[str, str], progress: Progress) -> JSON:
    def ask() -> JSON:
        config, given = configured(request, progress)
        return {
            "engine": {name: str(value) for name, value in given.engine.items()},
            "server": {name: str(value) for name, value in given.server.items()},
            "changed": {
                place: value
                for place, value in _fields(config, "", _DEEPEST)
                if place not in usual or usual[place] != value
            },
        }

    try:
        found: JSON = in_child(ask)
    except RequestError as error:
        return {"refused": error.as_json()}
    return found


def _fields(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every field of a configuration, those of the configurations and mappings in it included."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        held = {name: getattr(value, name, None) for name in names}
    elif isinstance(value, Mapping):
        held = {str(name): item for name, item in value.items()}
    else:
        return
    for name, item in held.items():
        place = f"{path}.{name}".lstrip(".")
        yield place, item.name if isinstance(item, enum.Enum) else str(item)
        if depth > 1:
            yield from _fields(item, place, depth - 1)

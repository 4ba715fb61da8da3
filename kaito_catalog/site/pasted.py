"""A pasted config.json → its tables: the calculator runs this module in the browser, and all that it imports.

`site/python_bundle` puts them into one file; so a pasted configuration is read by the same code as
`kaito-catalog plan DIR`, and there is no second one in JavaScript. Nothing here or below needs more than the
standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaito_catalog.architectures import read_shape
from kaito_catalog.memory.values import PlanGpu
from kaito_catalog.site.tables import device_class, model


@dataclass(frozen=True)
class WholeBytes:
    """The size of the stored weights, as somebody counted it: to the byte (formats.facts.StoredSize elsewhere)."""

    high_bytes: int
    precision_bytes: int = 0


def tables(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the page plans a pasted configuration with.

    Args:
        asked: `config` and perhaps `quantization` (the texts of config.json and of hf_quant_config.json),
            `weightsBytes` (of all weight files, or None), `gpuCount`, `vllmVersion`, and `deviceClasses`: one GPU
            of each kind (`name`, `memoryBytes`, `computeCapability`).

    Returns:
        As `tables.model`, for that number of GPUs alone; or `unknown`, why there are none.
    """
    found = []
    for name, text in (("config.json", asked["config"]), ("hf_quant_config.json", asked.get("quantization"))):
        try:
            value = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            return {"unknown": f"{name} is not JSON: {error}"}
        if value is not None and not isinstance(value, dict):
            return {"unknown": f"{name} does not hold a JSON object"}
        found.append(value)
    config, quantization = found
    if config is None:
        return {"unknown": "there is no config.json"}
    classes = {}
    for item in asked["deviceClasses"]:
        gpu = PlanGpu(item["name"], item["memoryBytes"], item["computeCapability"])
        classes[device_class(gpu, asked["vllmVersion"])] = gpu
    stored = WholeBytes(asked["weightsBytes"]) if asked.get("weightsBytes") else None
    shape = read_shape(config, quantization=quantization)
    return model(shape, stored, classes, asked["vllmVersion"], sizes=(asked["gpuCount"],))

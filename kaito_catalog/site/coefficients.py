"""What the calculator needs of each model, so that a page adds up what `plan` adds up: tables, no formulas.

Everything here is asked of the planner itself, once per tensor-parallel size and kind of device; the page only
looks up, multiplies blocks and compares. Sizes are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kaito_catalog.architectures import Unsupported
from kaito_catalog.catalog.entries import Catalog, Shared
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.memory.kv_cache.versions import batches_in_flight
from kaito_catalog.memory.values import PlanGpu
from kaito_catalog.memory.verdict import BEFORE_VLLM_BYTES
from kaito_catalog.plans.instance_types import facts_shape
from kaito_catalog.site.model_page import ModelPage
from kaito_catalog.site.tables import (
    CACHE_DTYPES,
    MOST_GPUS_OF_A_TABLE,
    SHORTEST_MODEL_LEN,
    DeviceClass,
    device_class,
    error_bytes,
    model,
)

COEFFICIENTS_VERSION = "v1"


AMPERE = 8.0
"""The least compute capability that KAITO takes, and that has bfloat16."""


def offered(shared: Shared) -> list[PlanGpu]:
    """The GPUs that the site plans for: KAITO and vLLM run on them, and their own memory is known."""
    return [
        PlanGpu(gpu.name, gpu.memory_bytes, gpu.compute_capability)
        for gpu in shared.gpus
        if gpu.memory_bytes is not None
        and gpu.vllm
        and not gpu.unified_memory
        and (gpu.compute_capability or 0) >= AMPERE
    ]


def device_classes(shared: Shared, vllm_version: str) -> dict[DeviceClass, PlanGpu]:
    """Each kind of device with one GPU of it."""
    found: dict[DeviceClass, PlanGpu] = {}
    for gpu in offered(shared):
        found.setdefault(device_class(gpu, vllm_version), gpu)
    return found


def data(models: Sequence[ModelPage], catalog: Catalog) -> dict[str, Any]:
    """The coefficients of all models, and what they share."""
    shared = catalog.shared
    profile = shared.policy.default_profile()
    gpus = offered(shared)
    classes = device_classes(shared, profile.vllm_version)
    index = {key: i for i, key in enumerate(classes)}
    batches = batches_in_flight(profile.vllm_version)
    return {
        "apiVersion": COEFFICIENTS_VERSION,
        "profile": profile.name,
        "vllmVersion": profile.vllm_version,
        "shortestModelLen": SHORTEST_MODEL_LEN,
        "mostGPUs": MOST_GPUS_OF_A_TABLE,
        "beforeVllmBytes": BEFORE_VLLM_BYTES,
        "cacheDtypes": list(CACHE_DTYPES),
        "deviceClasses": [
            {
                "gpu": gpu.name,
                "computeCapability": key[0],
                "maxNumSeqs": key[2],
                "maxNumBatchedTokens": key[1],
                "inFlightTokens": key[1] * batches,
            }
            for key, gpu in classes.items()
        ],
        "gpus": [_gpu(gpu, profile, index[device_class(gpu, profile.vllm_version)]) for gpu in gpus],
        "instanceTypes": [
            {"name": item.name, "cloud": item.cloud, "gpu": item.gpu, "gpuCount": item.gpu_count}
            for item in shared.instance_types
        ],
        "models": [
            {
                "name": page.entry.name,
                "repoId": page.repo_id,
                **model(
                    facts_shape(page.facts) if page.facts else Unsupported("there is no facts.yaml", None),
                    page.facts.weights.total if page.facts and page.facts.weights else None,
                    classes,
                    profile.vllm_version,
                ),
                "context": page.figures.max_model_len,
                "start": _start(page),
            }
            for page in sorted(models, key=lambda p: natural(p.repo_id))
        ],
    }


def _start(page: ModelPage) -> dict[str, Any] | None:
    """The GPUs of the smallest instance type that fits, with which the page begins."""
    chart = page.figures.chart
    if chart is None or page.figures.smallest is None or chart.gpu_count > MOST_GPUS_OF_A_TABLE:
        return None
    return {"gpu": chart.gpu, "gpuCount": chart.gpu_count}


def text(value: Mapping[str, Any]) -> str:
    """The data as JSON."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n"


def script(value: Mapping[str, Any]) -> str:
    """The data as a script, which a page can load from a disk too."""
    return f"globalThis.kaitoCatalogData = {text(value).rstrip()};\n"


def _gpu(gpu: PlanGpu, profile: Profile, device_class: int) -> dict[str, Any]:
    assert gpu.memory_bytes is not None
    return {
        "name": gpu.name,
        "memoryBytes": gpu.memory_bytes,
        "utilization": profile.utilization(gpu.name),
        "deviceClass": device_class,
        # Without and with a vision encoder; on one GPU and on several.
        "expectedErrorBytes": [
            [error_bytes(gpu, profile.vllm_version, size, encoder) for size in (1, 2)]
            for encoder in (False, True)
        ],
    }

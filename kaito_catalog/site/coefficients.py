"""What the calculator needs of each model, so that a page adds up what `plan` adds up: tables, no formulas.

Everything here is asked of the planner itself, once per tensor-parallel size and kind of device; the page only
looks up, multiplies blocks and compares. Sizes are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kaito_catalog.catalog import Catalog, Shared
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.kv_cache import (
    BLOCK_SIZE,
    CACHE_DTYPE_BYTES,
    Layout,
    Unplannable,
    batches_in_flight,
    plan_layout,
    states_per_sequence,
)
from kaito_catalog.overheads import dense_constants, expected_error, indexer_workspace, serve_defaults
from kaito_catalog.plan import (
    Parallelism,
    Plan,
    PlanGpu,
    Settings,
    facts_shape,
    illegal_tensor_parallel,
    make_plan,
)
from kaito_catalog.shape import Shape, Unsupported
from kaito_catalog.site.pages import ModelPage
from kaito_catalog.weights import VOCABULARY_PADDING, stages

VERSION = "v1"
SHORTEST_MODEL_LEN = 16
"""Contexts below one block change vLLM's batch; the page does not take them."""
MOST_GPUS = 16
CACHE_DTYPES = ("auto", *(name for name in CACHE_DTYPE_BYTES if name != "float32"))
DENSE_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    # As shape.py's families: the default head_dim, biases of the attention's projections, norms of heads.
    "LlamaForCausalLM": {"headDim": None, "qkvBias": None, "outputBias": None, "headNorms": 0},
    "MistralForCausalLM": {"headDim": None, "qkvBias": None, "outputBias": None, "headNorms": 0},
    "Qwen2ForCausalLM": {"headDim": None, "qkvBias": True, "outputBias": False, "headNorms": 0},
    "Qwen3ForCausalLM": {"headDim": 128, "qkvBias": None, "outputBias": None, "headNorms": 2},
    "Phi3ForCausalLM": {"headDim": None, "qkvBias": False, "outputBias": False, "headNorms": 0},
}
"""The architectures whose config.json the page reads by itself: dense, full attention, not quantised."""

DeviceClass = tuple[float | None, int, int]
"""Compute capability, max_num_batched_tokens and max_num_seqs: all that the account depends on."""


def _device_class(gpu: PlanGpu) -> DeviceClass:
    defaults = serve_defaults(gpu.name, gpu.memory_bytes or 0)
    return gpu.compute_capability, defaults.max_num_batched_tokens, defaults.max_num_seqs


def offered(shared: Shared) -> list[PlanGpu]:
    """The GPUs that plans can be made for: their memory is published, and vLLM runs on them."""
    return [
        PlanGpu(gpu.name, gpu.memory_bytes, gpu.compute_capability)
        for gpu in shared.gpus
        if gpu.memory_bytes is not None and gpu.vllm
    ]


def device_classes(shared: Shared) -> dict[DeviceClass, PlanGpu]:
    """Each kind of device with one GPU of it."""
    found: dict[DeviceClass, PlanGpu] = {}
    for gpu in offered(shared):
        found.setdefault(_device_class(gpu), gpu)
    return found


def data(models: Sequence[ModelPage], catalog: Catalog) -> dict[str, Any]:
    """The coefficients of all models, and what they share."""
    shared = catalog.shared
    profile = shared.policy.default_profile()
    gpus = offered(shared)
    classes = device_classes(shared)
    index = {key: i for i, key in enumerate(classes)}
    batches = batches_in_flight(profile.vllm_version)
    return {
        "apiVersion": VERSION,
        "profile": profile.name,
        "vllmVersion": profile.vllm_version,
        "shortestModelLen": SHORTEST_MODEL_LEN,
        "mostGPUs": MOST_GPUS,
        "cacheDtypes": list(CACHE_DTYPES),
        "deviceClasses": [
            {"maxNumSeqs": key[2], "maxNumBatchedTokens": key[1], "inFlightTokens": key[1] * batches}
            for key in classes
        ],
        "gpus": [_gpu(gpu, profile, index[_device_class(gpu)]) for gpu in gpus],
        "instanceTypes": [
            {"name": item.name, "cloud": item.cloud, "gpu": item.gpu, "gpuCount": item.gpu_count}
            for item in shared.instance_types
        ],
        "dense": _dense(profile.vllm_version),
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
    if chart is None or page.figures.smallest is None or chart.gpu_count > MOST_GPUS:
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
        # Without and with a vision tower; on one GPU and on several.
        "expectedErrorBytes": [
            [_error(gpu, profile.vllm_version, size, tower) for size in (1, 2)] for tower in (False, True)
        ],
    }


def _error(gpu: PlanGpu, vllm_version: str, tensor_parallel_size: int, has_tower: bool) -> int:
    assert gpu.memory_bytes is not None
    return expected_error(
        gpu_name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        vllm_version=vllm_version,
        tensor_parallel_size=tensor_parallel_size,
        has_tower=has_tower,
    )


def model(
    shape: Shape | Unsupported,
    stored: StoredSize | None,
    classes: Mapping[DeviceClass, PlanGpu],
    vllm_version: str,
) -> dict[str, Any]:
    """A model's tables: for each tensor-parallel size why vLLM refuses it, or its accounts and layouts.

    `tensorParallel[n]` is a reason, or `accounts` (one per kind of device) and `layouts` (one per cache
    dtype) as positions in the lists of that name, where equal ones stand once.
    """
    if isinstance(shape, Unsupported):
        return {"unknown": shape.reason}
    accounts: list[dict[str, Any]] = []
    layouts: list[dict[str, Any]] = []
    sizes: dict[str, Any] = {}
    # Of the newest generation: layouts do not depend on the device, but an older one may have no kernels at all.
    device = max(classes.values(), key=lambda gpu: gpu.compute_capability or 0, default=PlanGpu(None, None))
    for size in range(1, MOST_GPUS + 1):
        illegal = illegal_tensor_parallel(shape, size)
        if illegal is not None:
            sizes[str(size)] = illegal
            continue
        sizes[str(size)] = {
            "accounts": [
                _position(accounts, _account(shape, stored, gpu, size, vllm_version))
                for gpu in classes.values()
            ],
            "layouts": [
                _position(layouts, _layout(shape, stored, device, size, dtype, vllm_version))
                for dtype in CACHE_DTYPES
            ],
        }
    return {
        "maxModelLen": shape.max_model_len,
        "hasTower": shape.tower is not None,
        "tensorParallel": sizes,
        "accounts": accounts,
        "layouts": layouts,
    }


def _position(items: list[dict[str, Any]], item: dict[str, Any]) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


def _plan(
    shape: Shape, stored: StoredSize | None, gpu: PlanGpu, size: int, kv_cache_dtype: str, vllm_version: str
) -> Plan:
    return make_plan(
        shape,
        stored=stored,
        gpu=gpu,
        parallelism=Parallelism(size),
        settings=Settings(min(SHORTEST_MODEL_LEN, shape.max_model_len), 1.0, kv_cache_dtype),
        vllm_version=vllm_version,
    )


def _account(
    shape: Shape, stored: StoredSize | None, gpu: PlanGpu, size: int, vllm_version: str
) -> dict[str, Any]:
    """What lies beside the KV cache. The cache's dtype does not matter, so any that can be planned will do."""
    plan = _plan(shape, stored, gpu, size, "auto", vllm_version)
    for dtype in CACHE_DTYPES:
        if plan.per_gpu is not None or plan.limited_by in ("weights", "gpu"):
            break
        plan = _plan(shape, stored, gpu, size, dtype, vllm_version)
    if plan.per_gpu is None or plan.expected_error_bytes is None:
        return _refusal(plan)
    # A sparse indexer's workspace grows with the context, once it is the largest; all else does not.
    per_token = indexer_workspace(shape, 1)
    whole = make_plan(
        shape,
        stored=stored,
        gpu=gpu,
        parallelism=Parallelism(size),
        settings=replace(plan.settings, max_model_len=shape.max_model_len),
        vllm_version=vllm_version,
    )
    at_limit = whole.per_gpu or plan.per_gpu
    return {
        "weightsBytes": plan.per_gpu.weights_bytes,
        "nonTorchBytes": plan.per_gpu.non_torch_bytes,
        "activationPeakBytes": plan.per_gpu.activation_peak_bytes,
        "peakPerTokenBytes": per_token,
        "peakAtLimitBytes": at_limit.activation_peak_bytes
        if per_token
        else plan.per_gpu.activation_peak_bytes,
        "cudaGraphBytes": plan.per_gpu.cuda_graph_bytes,
        "weightsErrorBytes": plan.expected_error_bytes
        - _error(gpu, vllm_version, size, shape.tower is not None),
    }


def _refusal(plan: Plan) -> dict[str, Any]:
    return {"fits": plan.fits.value, "limitedBy": plan.limited_by, "reason": plan.reason}


def _layout(
    shape: Shape, stored: StoredSize | None, gpu: PlanGpu, size: int, kv_cache_dtype: str, vllm_version: str
) -> dict[str, Any]:
    states = states_per_sequence(shape, vllm_version)
    if isinstance(states, Unplannable):
        return _refusal(_plan(shape, stored, gpu, size, kv_cache_dtype, vllm_version))
    found = []
    for tensor_parallel_size in (size, 1):
        made = plan_layout(
            shape,
            tensor_parallel_size=tensor_parallel_size,
            stages=stages(len(shape.layers), 1),
            kv_cache_dtype=kv_cache_dtype,
            in_flight_tokens=1,
            states=states,
        )
        if isinstance(made, Unplannable):
            return _refusal(_plan(shape, stored, gpu, size, kv_cache_dtype, vllm_version))
        found.append(made[0])
    return _layout_value(found[0], whole=found[1])


def _layout_value(layout: Layout, *, whole: Layout) -> dict[str, Any]:
    return {
        "blockBytes": layout.block_bytes,
        "checkBytes": layout.check_bytes,
        "bytesPerToken": whole.bytes_per_token,
        "groups": [
            [group.kind.value, group.block_size, group.window, group.states, group.page_bytes]
            for group in layout.groups
        ],
        "layers": [
            [cache.kind.value, cache.block_size, cache.window, cache.states, cache.page_bytes, count]
            for cache, count in layout.layers
        ],
    }


def _dense(vllm_version: str) -> dict[str, Any]:
    """What the page needs to plan a dense model from its config.json."""
    return {
        "families": DENSE_FAMILIES,
        "cacheDtypeBytes": {name: CACHE_DTYPE_BYTES[name] for name in CACHE_DTYPES if name != "auto"},
        "vocabularyPadding": VOCABULARY_PADDING,
        "blockSize": BLOCK_SIZE,
        **dense_constants(vllm_version),
    }

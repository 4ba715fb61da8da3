"""A model's tables, as the calculator's page looks things up in them: asked of the planner, no formulas.

The page of a pasted configuration runs this very module in the browser (`site/pasted`), so that it and all it
imports need nothing but the standard library. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from kaito_catalog.architectures import BuiltShape, Shape, Unsupported
from kaito_catalog.architectures.as_built import as_built, no_class
from kaito_catalog.memory.kv_cache.kinds import LayerCache
from kaito_catalog.memory.kv_cache.layers import CACHE_DTYPE_BYTES
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import reserved_blocks, states_per_sequence
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.overheads.defaults import serve_defaults
from kaito_catalog.memory.overheads.encoder_profile import Frames, frames_profiled, video_contexts
from kaito_catalog.memory.overheads.layer_widths import indexer_workspace
from kaito_catalog.memory.overheads.links import link
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.total import expected_error
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.refusals import LACKS_SPARSE_FP8, lacks_sparse_fp8
from kaito_catalog.memory.values import Parallelism, Plan, PlanGpu, PlanRequest, Settings, Stored
from kaito_catalog.memory.weights.split import stages

SHORTEST_MODEL_LEN = 16
"""Contexts below one block change vLLM's batch; the page does not take them."""
MOST_GPUS_OF_A_TABLE = 16
CACHE_DTYPES = ("auto", *(name for name in CACHE_DTYPE_BYTES if name != "float32"))

Item = TypeVar("Item")

DeviceClass = tuple[float | None, int, int, str]
"""Compute capability, max_num_batched_tokens, max_num_seqs and how several are linked: what an account depends on."""


def device_class(gpu: PlanGpu, vllm_version: str) -> DeviceClass:
    """The kind of device that the GPU is."""
    defaults = serve_defaults(gpu.name, gpu.memory_bytes or 0, vllm_version)
    linked = link(gpu.name, gpu.compute_capability).value
    return gpu.compute_capability, defaults.max_num_batched_tokens, defaults.max_num_seqs, linked


def error_bytes(gpu: PlanGpu, vllm_version: str, tensor_parallel_size: int, has_encoder: bool) -> int:
    assert gpu.memory_bytes is not None
    return expected_error(
        gpu_name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        vllm_version=vllm_version,
        tensor_parallel_size=tensor_parallel_size,
        has_encoder=has_encoder,
    )


def model(
    shape: Shape | Unsupported,
    stored: Stored | None,
    classes: Mapping[DeviceClass, PlanGpu],
    vllm_version: str,
    sizes: Iterable[int] = range(1, MOST_GPUS_OF_A_TABLE + 1),
) -> dict[str, Any]:
    """A model's tables: for each tensor-parallel size why vLLM refuses it, or its accounts and layouts.

    `tensorParallel[n]` is a reason, or for each kind of device a position in `accounts` and one in
    `layoutsByDtype`, whose rows have a position in `layouts` for each cache dtype. Equal ones stand once.
    """
    if isinstance(shape, Unsupported):
        return {"unknown": shape.reason}
    newer = no_class(shape, vllm_version)
    if newer is not None:
        return {"unknown": newer}
    accounts: list[dict[str, Any]] = []
    layouts: list[dict[str, Any]] = []
    rows: list[list[int]] = []
    by_size: dict[str, Any] = {}
    for size in sizes:
        illegal = illegal_tensor_parallel(shape, size, vllm_version=vllm_version)
        if illegal is not None:
            by_size[str(size)] = illegal
            continue
        # Most kinds of devices have the same caches; those that do not are built otherwise, or refuse a dtype.
        row_of: dict[Any, int] = {}
        found = []
        for gpu in classes.values():
            built = as_built(shape, vllm_version, gpu.compute_capability)
            key = (built, lacks_sparse_fp8(built, gpu.compute_capability, "auto"))
            if key not in row_of:
                row = [
                    _position(layouts, _layout(shape, gpu, size, dtype, vllm_version))
                    for dtype in CACHE_DTYPES
                ]
                row_of[key] = _position(rows, row)
            found.append(row_of[key])
        by_size[str(size)] = {
            "accounts": [
                _position(accounts, _account(shape, stored, gpu, size, vllm_version))
                for gpu in classes.values()
            ],
            "layouts": found,
        }
    return {
        "maxModelLen": shape.max_model_len,
        "hasTower": shape.encoder is not None,
        "tensorParallel": by_size,
        "accounts": accounts,
        "layoutsByDtype": rows,
        "layouts": layouts,
    }


def _position(items: list[Item], item: Item) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


def _plan(
    shape: Shape, stored: Stored | None, gpu: PlanGpu, size: int, kv_cache_dtype: str, vllm_version: str
) -> Plan:
    return make_plan(
        PlanRequest(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=Parallelism(size),
            settings=Settings(min(SHORTEST_MODEL_LEN, shape.max_model_len), 0.5, kv_cache_dtype),
            vllm_version=vllm_version,
        )
    )


def _account(
    shape: Shape, stored: Stored | None, gpu: PlanGpu, size: int, vllm_version: str
) -> dict[str, Any]:
    """What lies beside the KV cache. The cache's dtype does not matter, so any that can be planned will do."""
    plan = _plan(shape, stored, gpu, size, "auto", vllm_version)
    for dtype in CACHE_DTYPES:
        if plan.per_gpu is not None or plan.limited_by in ("weights", "gpu"):
            break
        plan = _plan(shape, stored, gpu, size, dtype, vllm_version)
    if plan.per_gpu is None or plan.expected_error_bytes is None:
        return _refusal(plan)
    settings = plan.settings

    def peak(max_model_len: int, memory_bytes: int | None = gpu.memory_bytes) -> int:
        there = make_plan(
            PlanRequest(
                shape,
                stored=stored,
                gpu=replace(gpu, memory_bytes=memory_bytes),
                parallelism=Parallelism(size),
                settings=replace(settings, max_model_len=max_model_len),
                vllm_version=vllm_version,
            )
        )
        assert there.per_gpu is not None
        return there.per_gpu.activation_peak_bytes

    # A sparse indexer's workspace grows with the context, once it is the largest, and a video that is profiled has as
    # many images as the context holds; all else does not.
    built = as_built(shape, vllm_version, gpu.compute_capability)
    per_token = indexer_workspace(built, 1)
    least = plan.per_gpu.activation_peak_bytes
    frames = _frames(built, settings, vllm_version)
    if frames is not None:
        # From one frame at once to all of them: what the page adds for each frame that a GPU's memory allows.
        most = peak(settings.max_model_len, 10 * frames.reckoned_bytes * frames.count)
        least = peak(settings.max_model_len, 10 * frames.reckoned_bytes)
    return {
        "weightsBytes": plan.per_gpu.weights_bytes,
        "nonTorchBytes": plan.per_gpu.non_torch_bytes,
        "activationPeakBytes": least,
        "peakPerTokenBytes": per_token,
        "peakAtLimitBytes": peak(shape.max_model_len) if per_token else least,
        "peakFrom": [[tokens, peak(tokens)] for tokens in video_contexts(built, vllm_version)],
        "peakOfFrames": frames
        and {
            "count": frames.count,
            "reckonedBytes": frames.reckoned_bytes,
            "bytesPerFrame": frames.peak_bytes,
            "peakBytes": most,
        },
        "cudaGraphBytes": plan.per_gpu.cuda_graph_bytes,
        "weightsErrorBytes": plan.expected_error_bytes
        - error_bytes(gpu, vllm_version, size, shape.encoder is not None),
    }


def _frames(built: BuiltShape, settings: Settings, vllm_version: str) -> Frames | None:
    assert settings.max_num_batched_tokens is not None
    assert settings.max_num_seqs is not None
    return frames_profiled(
        ProfileRun(
            built,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            max_num_seqs=settings.max_num_seqs,
            max_model_len=settings.max_model_len,
            vllm_version=vllm_version,
        )
    )


def _refusal(plan: Plan) -> dict[str, Any]:
    return {"fits": plan.fits.value, "limitedBy": plan.limited_by, "reason": plan.reason}


def _layout(shape: Shape, gpu: PlanGpu, size: int, kv_cache_dtype: str, vllm_version: str) -> dict[str, Any]:
    built = as_built(shape, vllm_version, gpu.compute_capability)
    states = states_per_sequence(built, vllm_version)
    if lacks_sparse_fp8(built, gpu.compute_capability, kv_cache_dtype):
        return {"fits": "no", "limitedBy": "kvCacheDtype", "reason": LACKS_SPARSE_FP8}
    if isinstance(states, Unplannable):
        return {"fits": "unknown", "limitedBy": "kvCache", "reason": states.reason}
    found = []
    for tensor_parallel_size in (size, 1):
        made = plan_layout(
            built,
            tensor_parallel_size=tensor_parallel_size,
            stages=stages(len(built.layers), 1),
            kv_cache_dtype=kv_cache_dtype,
            in_flight_tokens=1,
            states=states,
            reserved=reserved_blocks(vllm_version),
        )
        if isinstance(made, Unplannable):
            fits = "unknown" if made.refused is None else "no"
            return {"fits": fits, "limitedBy": made.refused or "kvCache", "reason": made.reason}
        found.append(made[0])
    return _layout_value(found[0], whole=found[1])


def _layout_value(layout: Layout, *, whole: Layout) -> dict[str, Any]:
    return {
        "blockBytes": layout.block_bytes,
        "checkBytes": layout.check_bytes,
        "reservedBytes": layout.reserved_bytes,
        "bytesPerToken": whole.bytes_per_token,
        "groups": [[*_cache_values(group.cache), group.page_bytes] for group in layout.groups],
        "layers": [[*_cache_values(cache), cache.page_bytes, count] for cache, count in layout.layers],
    }


def _cache_values(cache: LayerCache) -> tuple[str, int, int | None, int]:
    return cache.kind, cache.block_size, cache.window, cache.states

"""vLLM's engine configuration from a request, and what it settled on, as JSON."""

from __future__ import annotations

import math
from typing import Any

from kaito_catalog.vllm_bridge.worker.arguments import NOTHING_GIVEN, Given
from kaito_catalog.vllm_bridge.worker.refusals import refusal
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, model_path, only_params
from kaito_catalog.vllm_bridge.worker.simulated_gpu import SimulatedHardware


def engine_config(request: JSON, progress: Progress, given: Given = NOTHING_GIVEN) -> Any:
    """vLLM's configuration as `vllm serve` would make it; refusals carry vLLM's own words.

    Args:
        request: names the model; its `args` are engine arguments by vLLM's names, and go before `given`.
        progress: is told.
        given: what arguments of the command line set.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    progress("reading the configuration")
    args = {**given.engine, **(request.get("args") or {})}
    world = math.prod(
        int(args.get(f"{kind}_parallel_size") or 1) for kind in ("tensor", "pipeline", "prefill_context")
    )
    SimulatedHardware.device_count = max(8, world * int(args.get("data_parallel_size") or 1))
    if world > 1:
        args.setdefault("distributed_executor_backend", "mp")
    model = model_path(request)
    args = {"load_format": "dummy", "skip_tokenizer_init": True, **only_params(model), **args, "model": model}
    try:
        return EngineArgs(**args).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except Exception as error:
        raise refusal(error, stage="configuration") from error


def longest_model_len_of(model_config: Any) -> int:
    """The longest max_model_len that vLLM takes for the model; of LongRoPE its default is a shorter one."""
    default = int(model_config.get_and_verify_max_len(None))
    positions = getattr(model_config.hf_text_config, "max_position_embeddings", None) or default
    try:
        return max(default, int(model_config.get_and_verify_max_len(int(positions))))
    except ValueError:
        return default


def describe_config(vllm_config: Any) -> JSON:
    model = vllm_config.model_config
    return {
        "architecture": model.architecture,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization,
        "kvCacheDtype": str(vllm_config.cache_config.cache_dtype),
    }


def describe_settings(vllm_config: Any) -> JSON:
    """What vLLM settled on, defaults of `vllm serve` included."""
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    return {
        "tensorParallelSize": parallel.tensor_parallel_size,
        "pipelineParallelSize": parallel.pipeline_parallel_size,
        "dataParallelSize": parallel.data_parallel_size,
        "enableExpertParallel": bool(parallel.enable_expert_parallel),
        "maxModelLen": vllm_config.model_config.max_model_len,
        "maxNumBatchedTokens": scheduler.max_num_batched_tokens,
        "maxNumSeqs": scheduler.max_num_seqs,
        "gpuMemoryUtilization": vllm_config.cache_config.gpu_memory_utilization,
        "blockSize": vllm_config.cache_config.block_size,
        "enforceEager": bool(vllm_config.model_config.enforce_eager),
        "asyncScheduling": bool(getattr(scheduler, "async_scheduling", False)),
        "maxConcurrentBatches": getattr(vllm_config, "max_concurrent_batches", None),
        "hybridKvCacheManager": not scheduler.disable_hybrid_kv_cache_manager,
    }


def versions() -> JSON:
    import torch
    import transformers
    import vllm

    return {
        "vllmVersion": vllm.__version__,
        "torchVersion": torch.__version__,
        "transformersVersion": transformers.__version__,
    }

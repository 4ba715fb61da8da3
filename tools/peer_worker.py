"""Runs inside .venv-bench: asks hf-mem and llm-d-planner about cases (JSON lines on stdin), and prints what they say.

A first line names the endpoint of a Hub; each further line is a case. An answer has, per GPU where that is meant:
`weightsBytes`, `kvCacheNeededBytes` of one request over all GPUs, `kvCacheAvailableBytes`, `milliseconds` (the second
time it is asked, so that downloads do not count for who keeps them), or `refused` with the tool's own words.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
HUB = "https://huggingface.co"
GIB = 2**30


def ask_hf_mem(case: Json, endpoint: str) -> Json:
    """Its estimate of the weights and of one request's cache; what GPUs have is not among its inputs."""
    httpx2: Any = importlib.import_module("httpx2")
    arun = importlib.import_module("hf_mem.run").arun

    class ToOurHub(httpx2.AsyncHTTPTransport):  # type: ignore[misc, name-defined, unused-ignore]
        # The tool names huggingface.co in its code and reads no HF_ENDPOINT.
        async def handle_async_request(self, request: Any) -> Any:
            request.url = httpx2.URL(str(request.url).replace(HUB, endpoint, 1))
            request.headers["host"] = request.url.netloc.decode()
            return await super().handle_async_request(request)

    original = httpx2.AsyncClient

    def client(**settings: Any) -> Any:
        settings.pop("http2", None)
        return original(transport=ToOurHub(), **settings)

    httpx2.AsyncClient = client
    try:
        dtypes = [case["kvCacheDtype"]]
        if dtypes == ["auto"]:
            # Where it cannot tell, its own message asks to name the dtype.
            dtypes.append("bfloat16")
        for dtype in dtypes:
            try:
                found = asyncio.run(
                    arun(
                        case["model"],
                        experimental=True,
                        max_model_len=case["maxModelLen"],
                        kv_cache_dtype=dtype,
                    )
                )
            except RuntimeError:
                if dtype == dtypes[-1]:
                    raise
            else:
                break
    finally:
        httpx2.AsyncClient = original
    gpus = case["tensorParallelSize"] * case["pipelineParallelSize"]
    answer: Json = {"weightsBytes": found.memory / gpus, "kvCacheNeededBytes": found.kv_cache}
    if found.kv_cache is None:
        answer["refused"] = "no KV cache for this architecture"
    return answer


def ask_llm_d(case: Json, endpoint: str) -> Json:
    """Its allocatable KV cache memory, with the driver's own total as the GPU's memory."""
    planner: Any = importlib.import_module("planner.capacity_planner")
    model, tp, pp = case["model"], case["tensorParallelSize"], case["pipelineParallelSize"]
    config = planner.get_model_config_from_hf(model)
    legal = planner.find_possible_tp(config)
    if tp not in legal:
        return {"refused": f"tensor parallel size {tp} is none of {legal}"}
    answer: Json = {
        "weightsBytes": planner.per_gpu_model_memory_required(model, config, tp, pp) * GIB,
        "kvCacheNeededBytes": planner.kv_cache_req(model, config, case["maxModelLen"]) * GIB,
    }
    if "gpuMemoryBytes" in case:
        free = planner.allocatable_kv_cache_memory(
            model,
            config,
            case["gpuMemoryBytes"] / GIB,
            case["gpuMemoryUtilization"],
            tp,
            pp,
            max_model_len=case["maxModelLen"],
        )
        answer["kvCacheAvailableBytes"] = free * GIB / (tp * pp)
    return answer


TOOLS: dict[str, Callable[[Json, str], Json]] = {"hf-mem": ask_hf_mem, "llm-d-planner": ask_llm_d}


def answer(tool: str, case: Json, endpoint: str) -> Json:
    """What a tool says, or its refusal; nothing that it raises ends the run."""
    try:
        TOOLS[tool](case, endpoint)
        started = time.perf_counter()
        found = TOOLS[tool](case, endpoint)
        found["milliseconds"] = (time.perf_counter() - started) * 1000
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return {"refused": f"{type(error).__name__}: {words}"[:200]}
    return found


def main() -> int:
    """Answer until stdin ends."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    endpoint = json.loads(sys.stdin.readline())["endpoint"]
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    for line in sys.stdin:
        case = json.loads(line)
        found = {tool: answer(tool, case, endpoint) for tool in TOOLS}
        print(json.dumps({"id": case["id"], "tools": found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

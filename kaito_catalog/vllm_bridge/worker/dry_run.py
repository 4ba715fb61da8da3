"""`dry-run`: a real engine that starts, generates a few tokens and says what it allocated."""

from __future__ import annotations

import contextlib
import importlib
import logging
import resource
import time
import traceback
from typing import Any

from kaito_catalog.vllm_bridge.worker.configuration import describe_config, describe_settings, versions
from kaito_catalog.vllm_bridge.worker.extension import EXTENSION, record_loaded_weights
from kaito_catalog.vllm_bridge.worker.kv_cache import admission_figures, record_admission
from kaito_catalog.vllm_bridge.worker.machine import (
    ask_for_tile_registers,
    claim_device,
    describe_hardware,
    limit_host_memory,
)
from kaito_catalog.vllm_bridge.worker.memory import as_int
from kaito_catalog.vllm_bridge.worker.refusals import failed, failure_class, own_words
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, model_path, only_params


def dry_run(request: JSON, progress: Progress) -> JSON:
    """Start an engine, generate a few tokens, read the workers' memory; the outcome says how far it came."""
    start = EngineStart(request, progress)
    try:
        served = start.serve()
        return start.report | served
    except Exception as error:
        traceback.print_exc()
        return start.report | start.failure(error)


class EngineStart:
    """One start of an engine: what it was given, how far it came, and how long each part took."""

    def __init__(self, request: JSON, progress: Progress) -> None:
        self._request, self._progress = request, progress
        self._clock = Stopwatch()
        self._stage = "configuration"
        self._admissions: list[JSON] = []
        progress("importing vLLM")
        device = claim_device(request)
        if device == "cpu":
            limit_host_memory(request.get("hostMemoryBytes"))
            ask_for_tile_registers()
        importlib.import_module("vllm")
        forward_log_as_progress(progress)
        record_loaded_weights()
        self._args = engine_arguments(request)
        self.report: JSON = {
            **versions(),
            "device": device,
            "weights": request.get("weights", "dummy"),
            "hardware": describe_hardware(device),
            "args": {key: value for key, value in self._args.items() if key != "worker_extension_cls"},
        }
        self._clock.lap("importSeconds")

    def serve(self) -> JSON:
        """Start the engine and ask it for a few tokens: what it allocated."""
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs

        self._progress("reading the configuration")
        EngineArgs(**self._args).create_engine_config()
        self._clock.lap("configurationSeconds")
        self._stage = "engine"
        self._progress("starting the engine")
        with record_admission() as self._admissions:
            llm = LLM(**self._args)
        self._clock.lap("startSeconds")
        config = llm.llm_engine.vllm_config
        self.report = {**self.report, **describe_config(config), "settings": describe_settings(config)}
        self._progress("generating")
        tokens = generate(llm, self._request)
        self._clock.lap("generateSeconds")
        cache = config.cache_config
        return {
            "outcome": "served",
            "tokensGenerated": tokens,
            "ranks": llm.collective_rpc("kaito_catalog_memory"),
            "kvCache": {
                "blocks": cache.num_gpu_blocks,
                "blockSize": cache.block_size,
                "tokens": as_int(getattr(cache, "kv_cache_size_tokens", None)),
                "maxConcurrency": getattr(cache, "kv_cache_max_concurrency", None),
                **(admission_figures(self._admissions) if self._admissions else {}),
            },
            "hostPeakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "seconds": self._clock.laps,
        }

    def failure(self, error: Exception) -> JSON:
        """What an error means: the planner's refusal with its figures, or a failure of a class."""
        refused = [check for check in self._admissions if check["neededBytes"] > check["availableBytes"]]
        self._clock.lap("configurationSeconds" if self._stage == "configuration" else "failedAfterSeconds")
        words, seconds = own_words(error), {"seconds": self._clock.laps}
        if refused:
            return {"outcome": "does-not-fit", **admission_figures(refused), "message": words, **seconds}
        name = failure_class(error, stage=self._stage)
        return failed(name, words, type(error).__name__) | {"stage": self._stage, **seconds}


def engine_arguments(request: JSON) -> JSON:
    """What the engine is made with: the request's arguments, and what a dry run adds."""
    return {
        "load_format": "dummy" if request.get("weights", "dummy") == "dummy" else "auto",
        **only_params(model_path(request)),
        "skip_tokenizer_init": True,
        **(request.get("args") or {}),
        "model": model_path(request),
        "worker_extension_cls": EXTENSION,
    }


def generate(llm: Any, request: JSON) -> list[int]:
    """The tokens that the engine answers the request's prompt with."""
    from vllm import SamplingParams

    prompt = [int(token) for token in request.get("promptTokenIds") or (1, 2, 3)]
    sampling = SamplingParams(max_tokens=int(request.get("maxTokens", 4)), detokenize=False, ignore_eos=True)
    generated = llm.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)
    return [int(token) for token in generated[0].outputs[0].token_ids]


class Stopwatch:
    """Named laps in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def forward_log_as_progress(progress: Progress) -> None:
    """vLLM's own log says what a start is doing; figures are never taken from it."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(Exception):
                progress(record.getMessage().splitlines()[0][:200])

    handler = Forward(level=logging.INFO)
    logging.getLogger("vllm").addHandler(handler)

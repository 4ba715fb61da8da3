"""Why a start failed: what a log's error means, with the figures of the log and of the plan; else "not recognised"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kaito_catalog.architectures import Shape
from kaito_catalog.diagnosis.trials import Shortage
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.kaito.estimator import startup_minutes
from kaito_catalog.memory.legal_splits import tensor_parallel_sizes
from kaito_catalog.memory.values import Fit, Plan, PlanRequest
from kaito_catalog.plans.serve_options import read_serve_options
from kaito_catalog.quantity import gib
from kaito_catalog.vllm_bridge.reference import known, versions
from kaito_catalog.vllm_bridge.versions import release

NOT_RECOGNISED = "not-recognised"
UNFINISHED = "unfinished"
OF_MEMORY = frozenset({"kv-cache", "weights", "out-of-memory", "overheads", "kv-connector"})
"""Causes that a change of the start's memory may mend."""


@dataclass(frozen=True)
class Cause:
    """Why a start failed."""

    code: str
    words: str
    advice: tuple[str, ...] = ()
    """What to do that no plan is needed for."""


_WITHOUT_LMCACHE = (
    "of KAITO: kvCacheCPUMemoryUtilization: 0 beside `vllm:` in the ConfigMap switches LMCache off"
)
_CONNECTOR = re.compile(
    # vLLM's KVConnectorFactory; then unify_hybrid_kv_cache_specs up to 0.25.1, where the manager is off (vllm#42911).
    r"Connector (?P<name>\w+) does not support HMA|failed to convert the KV cache specs"
    # LMCache's own refusal since 0.5 (ai-dynamo/dynamo#13300).
    r"|(?P<lmcache>LMCache) cannot serve this model's KV cache groups"
)
_MANAGER_WANTED = re.compile(r"Hybrid KV cache manager was explicitly enabled")
_HOST_MEMORY = re.compile(r"\AKilled\b|bad_alloc|(?:can't|Cannot) allocate memory|MemoryError")
"""What the operating system, C++ and Python say of the host's memory."""
_DERIVED = re.compile(
    r"max_model_len \((\d+)\) is (?:greater|larger) than the derived max_model_len \(.*?=?(\d+)"
)
_DIVIDES = re.compile(r"(?:attention heads|vocab|divisible by).*tensor.parallel.size|must be divisible by")
_UNRECOGNISED = re.compile(r"unrecognized arguments: (.*)")
_ARCHITECTURE = re.compile(r"\b([A-Z]\w*(?:For\w+|Model|LMHeadModel))\b")
_TOO_LITTLE = re.compile(r"Tried to allocate ([\d.]+) ([KMG]iB)(?:.*?of which ([\d.]+) ([KMG]iB) is free)?")
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def cause(
    run: ReportedRun, plan: Plan | None, request: PlanRequest | None, stored_bytes: int | None
) -> Cause | None:
    """Why a start failed; None where it served.

    Args:
        run: what the log says.
        plan: of the same start, where one could be made.
        request: what that plan was asked.
        stored_bytes: the size of the weight files, where it is known.
    """
    if run.outcome == "served":
        return None
    if run.outcome is None:
        return _unfinished(run)
    if run.refusal is not None and run.refusal.what == "free-memory":
        return _not_free(run)
    if run.outcome == "does-not-fit":
        return _does_not_fit(run, plan)
    message = run.message or ""
    if found := _CONNECTOR.search(message):
        return _connector(found["name"] or found["lmcache"])
    if _MANAGER_WANTED.search(message):
        words = "the hybrid KV cache manager is asked for beside an option that cannot have it, a KV connector mostly"
        return Cause("bad-option", words, ("drop --no-disable-hybrid-kv-cache-manager, or the connector",))
    match run.failure:
        case "out-of-memory":
            return _out_of_memory(run, message)
        case "unsupported-architecture":
            return _unsupported(run, message)
        case "missing-kernel":
            return Cause("missing-kernel", _kernel(plan, message))
        case "bad-option":
            return _bad_option(run, message, request)
        case "time-out":
            return _time_out(run, stored_bytes)
        case "illegal-instruction":
            words = "a program uses an instruction that this machine's CPU has not"
            return Cause(
                "illegal-instruction", words, ("take a newer CPU, or an image that is built for this one",)
            )
        case _:
            words = "what vLLM says is not among the errors that are read here"
            return Cause(NOT_RECOGNISED, words)


def of_plan(plan: Plan) -> Cause | None:
    """Why a start that is only planned will fail, or may; None where it fits."""
    if plan.fits is Fit.YES:
        return None
    words = plan.reason or "it does not fit"
    if plan.fits is Fit.UNKNOWN:
        return Cause("unknown", words)
    codes = {"kvCache": "kv-cache", "gpu": "missing-kernel", "disableHybridKvCacheManager": "kv-connector",
             "settings": "bad-option", "maxModelLen": "bad-option", "freeMemory": "free-memory"}  # fmt: skip
    return Cause(codes.get(plan.limited_by or "", plan.limited_by or "memory"), words)


def _does_not_fit(run: ReportedRun, plan: Plan | None) -> Cause:
    refusal = run.refusal
    available = refusal.available_bytes if refusal else None
    needed = refusal.needed_bytes if refusal else None
    if available is None:
        printed = [r.kv_cache_bytes for r in run.ranks or () if r.kv_cache_bytes is not None]
        available = min(printed, default=None)
    if needed is not None and available is not None and available > 0:
        length = f" of {refusal.max_model_len:,} tokens" if refusal and refusal.max_model_len else ""
        words = (
            f"the KV cache of one request{length} needs {gib(needed)}, and {gib(available)} are left on a GPU"
        )
        return Cause("kv-cache", words)
    if (available is not None and available <= 0) or "No available memory" in (run.message or ""):
        weights = max((r.weights_bytes or 0 for r in run.ranks or ()), default=0)
        weights = weights or (plan.per_gpu.weights_bytes if plan and plan.per_gpu else 0)
        size = f"the weights ({gib(weights)} on a GPU)" if weights else "the weights"
        return Cause("weights", f"{size} and what vLLM needs beside leave nothing for the KV cache")
    if run.kv_cache_tokens is not None and run.max_model_len is not None:
        words = f"the cache holds {run.kv_cache_tokens:,} tokens, and {run.max_model_len:,} are asked for"
        return Cause("kv-cache", words)
    return Cause("kv-cache", "the KV cache has no room for one request; the log has no figures")


def _not_free(run: ReportedRun) -> Cause:
    refusal, gpu = run.refusal, run.gpu
    assert refusal is not None
    free, wanted = refusal.available_bytes or 0, refusal.needed_bytes or 0
    words = f"{gib(free)} of the GPU are free, and vLLM was to use {gib(wanted)}: others hold the rest"
    advice = [
        "end what holds the memory (nvidia-smi lists it; a process of an earlier start may still be there)"
    ]
    if gpu and gpu.memory_bytes and free > 0:
        share = int(free / gpu.memory_bytes * 100) / 100
        advice.append(f"or ask for less: --gpu-memory-utilization {share:g} is what is free")
    return Cause("free-memory", words, tuple(advice))


def _unfinished(run: ReportedRun) -> Cause:
    advice = ["read on: kubectl logs --follow, or --previous"]
    if "LMCache" in str((run.arguments or {}).get("kv-transfer-config")):
        # LMCache/LMCache#792 and #949: it pins its share while it starts, and the process ends without a word.
        advice.append(
            "where kubectl describe pod says OOMKilled, LMCache asks for more of the machine's memory than there is; "
            + _WITHOUT_LMCACHE
        )
    return Cause(UNFINISHED, "the log ends before the start does", tuple(advice))


def _connector(name: str | None) -> Cause:
    which = (
        name
        or "a KV connector, or --disable-hybrid-kv-cache-manager, switches vLLM's hybrid manager off, and it"
    )
    words = f"{which} cannot keep this model's mixed kinds of cache"
    return Cause("kv-connector", words, ("start it without: drop --kv-transfer-config", _WITHOUT_LMCACHE))


def _out_of_memory(run: ReportedRun, message: str) -> Cause:
    if _HOST_MEMORY.search(message) and "CUDA" not in message:
        words = "the machine's own memory ran out, not the GPU's"
        help_ = "give the pod more memory; LMCache takes a share of it"
        return Cause("host-memory", words, (help_, _WITHOUT_LMCACHE))
    loaded = any(rank.weights_bytes is not None for rank in run.ranks or ())
    sized = any(rank.kv_cache_bytes is not None for rank in run.ranks or ())
    when = "while weights were loaded"
    if loaded:
        when = "while memory was profiled"
    if sized:
        when = "once the cache was there"
    asked = _TOO_LITTLE.search(message)
    size = f", where {asked[1]} {asked[2]} more were asked for" if asked else ""
    words = f"the GPU's memory ran out {when}{size}"
    return Cause("out-of-memory", words)


def shortage(run: ReportedRun) -> Shortage:
    """What was lacking, of a start that ran out of the GPU's memory; one MiB where the log does not say."""
    found = _TOO_LITTLE.search(run.message or "")
    sized = any(rank.kv_cache_bytes is not None for rank in run.ranks or ())
    if found is None:
        return Shortage(2**20, sized)
    asked = float(found[1]) * _UNITS[found[2]]
    free = float(found[3]) * _UNITS[found[4]] if found[3] else 0
    return Shortage(max(round(asked - free), 2**20), sized)


def _unsupported(run: ReportedRun, message: str) -> Cause:
    names = _ARCHITECTURE.findall(message)
    version = run.versions.vllm if run.versions else None
    having = {
        name: sorted((v for v in versions() if (r := known(v)) and r.built_as(name)), key=release)
        for name in names
    }
    found = [(name, has) for name, has in having.items() if has]
    named = f" {version}" if version else ""
    if found:
        name, has = found[0]
        newer = [v for v in has if version is None or release(v) > release(version)]
        if newer:
            return Cause(
                "unsupported-architecture", f"vLLM{named} has no {name}", (f"vLLM {newer[0]} has it",)
            )
    name = names[0] if names else "the model's architecture"
    removed = next(
        (
            r.removed_architectures[name]
            for v in versions()
            if (r := known(v)) and name in r.removed_architectures
        ),
        None,
    )
    advice: tuple[str, ...] = (f"vLLM {removed} was the last that had it",) if removed else ()
    told = "no version that has been read has it" if names and not removed else "it is not supported there"
    return Cause("unsupported-architecture", f"vLLM{named} cannot build {name}: {told}", advice)


def _kernel(plan: Plan | None, message: str) -> str:
    if plan is not None and plan.limited_by == "gpu" and plan.reason:
        return plan.reason
    if "no kernel image" in message:
        return "this image of vLLM was not built for this kind of GPU; no plan tells for which it was"
    return "vLLM has no kernel for this model on this kind of GPU; no plan knows of it"


def _bad_option(run: ReportedRun, message: str, request: PlanRequest | None) -> Cause:
    version = run.versions.vllm if run.versions else (request.vllm_version if request else None)
    if found := _DERIVED.search(message):
        words = f"{int(found[1]):,} tokens are asked for, and the model's own limit is {int(found[2]):,}"
        return Cause("bad-option", words, (f"--max-model-len {found[2]}, or leave it out",))
    if request is not None and isinstance(request.shape, Shape) and _DIVIDES.search(message):
        split = request.parallelism
        legal = tensor_parallel_sizes(
            request.shape,
            enable_expert_parallel=split.enable_expert_parallel,
            vllm_version=request.vllm_version,
        )
        sizes = ", ".join([str(size) for size, reason in legal.items() if reason is None][:8])
        now = split.tensor_parallel_size
        words = f"the model cannot be divided over {now} GPUs"
        return Cause("bad-option", words, (f"--tensor-parallel-size is one of {sizes}",))
    if (found := _UNRECOGNISED.search(message)) and version:
        try:
            read_serve_options(found[1].split()[:1], version)
        except CatalogError as error:
            return Cause("bad-option", error.message, (error.hint,) if error.hint else ())
    return Cause(
        "bad-option", "vLLM does not take an option or its value", ("vLLM's message above names it",)
    )


def _time_out(run: ReportedRun, stored_bytes: int | None) -> Cause:
    words = "vLLM's processes waited for each other for too long"
    if run.load_seconds:
        words += f"; loading took {run.load_seconds:,.0f} s"
    advice = ["VLLM_ENGINE_READY_TIMEOUT_S=1800 (seconds) waits longer, where the weights come slowly"]
    if stored_bytes:
        minutes = startup_minutes(stored_bytes)
        advice.append(f"KAITO itself waits {minutes} minutes for weights of {gib(stored_bytes)}")
    return Cause("time-out", words, tuple(advice))

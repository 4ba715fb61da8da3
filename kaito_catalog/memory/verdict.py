"""Whether a request fits: the account of the tightest GPU against what vLLM asks for before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kaito_catalog.memory.compilation import Compilation, compilation_of
from kaito_catalog.memory.kv_cache.kinds import StateCache
from kaito_catalog.memory.kv_cache.layout import Layout
from kaito_catalog.memory.values import Fit, KvCache, PerGpu, PlanGpu, Settings
from kaito_catalog.quantity import gib


@dataclass(frozen=True)
class Verdict:
    """The answer, the term that decides and the reason in words; both None where it fits with room to spare."""

    fits: Fit
    limited_by: str | None = None
    reason: str | None = None


BEFORE_VLLM_BYTES = 600 * 2**20
"""What CUDA takes before vLLM looks at the GPU is in no account; KAITO's inference_api.py sets this much aside."""


def verdict(
    per_gpu: PerGpu,
    cache: KvCache,
    layout: Layout,
    settings: Settings,
    *,
    error_bytes: int,
    gpu: PlanGpu,
) -> Verdict:
    """The verdict of a plan.

    Args:
        per_gpu: the account of the GPU with the least room for KV cache.
        cache: what one request asks for there, and the longest context that fits.
        layout: the cache of that GPU, in blocks.
        settings: with vLLM's defaults filled in.
        error_bytes: how far the account may be off.
        gpu: with its memory.
    """
    found = _of_account(per_gpu, cache, layout, settings, error_bytes, gpu)
    if found.fits is not Fit.YES:
        return found
    lacking = lacking_at_start(settings, gpu)
    if lacking > -BEFORE_VLLM_BYTES:
        words = f"CUDA takes up to {gib(BEFORE_VLLM_BYTES)} before vLLM looks at what is free"
        return Verdict(Fit.TIGHT, "freeMemory", f"{words_of_budget(settings, gpu)}, and {words}")
    return Verdict(Fit.TIGHT, "freeMemory", UNIFIED) if gpu.is_unified else found


UNIFIED = (
    "its memory is the machine's own: the operating system and the processes on the CPU take of it, vLLM's own among "
    "them, and no plan knows how much"
)


def given_cache_bytes(settings: Settings, layout: Layout) -> int | None:
    """The KV cache's size on a GPU where an option gives it; None where vLLM takes what is left.

    `num_gpu_blocks_override` counts whatever else is set or left (get_kv_cache_configs of v1/core/kv_cache_utils.py).
    """
    if settings.num_gpu_blocks_override is not None:
        return settings.num_gpu_blocks_override * layout.block_bytes
    return settings.kv_cache_memory_bytes or None


def _words_of_given(settings: Settings, given_bytes: int) -> str:
    if settings.num_gpu_blocks_override is None:
        return f"kv_cache_memory_bytes {gib(given_bytes)}"
    return f"num_gpu_blocks_override {settings.num_gpu_blocks_override:,} ({gib(given_bytes)})"


def lacking_at_start(settings: Settings, gpu: PlanGpu) -> int:
    """What is not free of the budget that vLLM asks for before it loads anything (`request_memory`); below 0: enough.

    It asks for the share of the whole, whatever others hold, and also where the cache's size is given. What they hold
    counts for nothing later: vLLM measures what is taken since it started (memory_profiling of vllm/utils/mem_utils.py,
    non_torch_increase up to 0.26 and total_consumed from 0.27 on).
    """
    assert gpu.memory_bytes is not None
    budget = math.ceil(gpu.memory_bytes * settings.gpu_memory_utilization)
    return budget + gpu.used_bytes - gpu.memory_bytes


def words_of_budget(settings: Settings, gpu: PlanGpu) -> str:
    """What vLLM asks for at the start, and what is free, in words."""
    assert gpu.memory_bytes is not None
    budget = math.ceil(gpu.memory_bytes * settings.gpu_memory_utilization)
    share = f"gpu_memory_utilization {settings.gpu_memory_utilization:g} is {gib(budget)}"
    held = f"others hold {gib(gpu.used_bytes)} of" if gpu.used_bytes else "there are"
    return f"{share}, {held} {gib(gpu.memory_bytes)}"


def _of_account(
    per_gpu: PerGpu, cache: KvCache, layout: Layout, settings: Settings, error_bytes: int, gpu: PlanGpu
) -> Verdict:
    """By the account alone, as if all of the budget were free."""
    if given_cache_bytes(settings, layout) is not None:
        return _of_given_cache(per_gpu, cache, layout, settings, error_bytes, gpu)
    spare = per_gpu.kv_cache_available_bytes - cache.pool_bytes
    if spare < 0:
        # What machines with unified memory are off by is what processes take beside the parameters.
        too_large = gpu.is_unified and per_gpu.weights_bytes > per_gpu.budget_bytes
        error = 0 if too_large else error_bytes
        return _does_not_fit(per_gpu, cache, settings, error, lacking=-spare)
    states = _too_many_states(per_gpu, layout, settings, error_bytes)
    if states is not None:
        return states
    if spare <= error_bytes:
        words = f"fits with {gib(spare)} to spare, and the plan may be off by {gib(error_bytes)}"
        return Verdict(Fit.TIGHT, "kvCache", words)
    return Verdict(Fit.YES)


def _of_given_cache(
    per_gpu: PerGpu, cache: KvCache, layout: Layout, settings: Settings, error_bytes: int, gpu: PlanGpu
) -> Verdict:
    """With a given cache: vLLM compares it with one request, and the GPU has to hold it beside the rest."""
    given = per_gpu.kv_cache_available_bytes
    if given < cache.pool_bytes:
        reason = (
            f"one request of {settings.max_model_len:,} tokens needs {gib(cache.pool_bytes)} of KV cache and "
            f"{_words_of_given(settings, given).replace(' ', ' is ', 1)}"
        )
        more = f"; {cache.longest_model_len:,} tokens would fit" if cache.longest_model_len else ""
        return Verdict(Fit.NO, "kvCache", reason + more)
    memory_bytes = (gpu.memory_bytes or 0) - gpu.used_bytes
    held = per_gpu.budget_bytes - given
    limits = ((per_gpu.weights_bytes, "weights"), (held, "overheads"), (per_gpu.budget_bytes, "kvCache"))
    term = next((term for size, term in limits if size > memory_bytes), "kvCache")
    words = (
        f"weights and what vLLM needs beside take {gib(held)} and {_words_of_given(settings, given)}, "
        + (
            f"of the GPU's {gib(memory_bytes)}"
            if not gpu.used_bytes
            else f"and others leave {gib(memory_bytes)} free"
        )
    )
    lacking = per_gpu.budget_bytes - memory_bytes
    if lacking > error_bytes:
        return Verdict(Fit.NO, term, words)
    states = _too_many_states(per_gpu, layout, settings, error_bytes=0)
    if states is not None:
        return states
    if lacking > -error_bytes - BEFORE_VLLM_BYTES:
        return Verdict(Fit.TIGHT, term, f"{words}; the plan may be off by {gib(error_bytes)}")
    return Verdict(Fit.YES)


def _does_not_fit(
    per_gpu: PerGpu, cache: KvCache, settings: Settings, error_bytes: int, *, lacking: int
) -> Verdict:
    held = (
        per_gpu.weights_bytes
        + per_gpu.non_torch_bytes
        + per_gpu.activation_peak_bytes
        + per_gpu.cuda_graph_bytes
    )
    if per_gpu.weights_bytes > per_gpu.budget_bytes:
        term, words = "weights", f"the weights take {gib(per_gpu.weights_bytes)}"
    elif held > per_gpu.budget_bytes:
        term, words = "overheads", f"weights and what vLLM needs beside take {gib(held)}"
    else:
        term = "kvCache"
        words = (
            f"one request of {settings.max_model_len:,} tokens needs {gib(cache.pool_bytes)} of KV cache and "
            f"{gib(per_gpu.kv_cache_available_bytes)} are left"
        )
    reason = f"{words} of a budget of {gib(per_gpu.budget_bytes)}"
    if cache.longest_model_len:
        reason += f"; {cache.longest_model_len:,} tokens would fit"
    if lacking <= error_bytes:
        return Verdict(Fit.TIGHT, term, f"{reason}; the plan may be off by {gib(error_bytes)}")
    return Verdict(Fit.NO, term, reason)


def _too_many_states(per_gpu: PerGpu, layout: Layout, settings: Settings, error_bytes: int) -> Verdict | None:
    """vLLM captures CUDA graphs for max_num_seqs requests, and each needs a block for its states."""
    has_states = any(isinstance(group.cache, StateCache) for group in layout.groups)
    compilation = compilation_of(settings)
    captures = isinstance(compilation, Compilation) and compilation.captures
    if not has_states or not layout.block_bytes or settings.max_num_seqs is None or not captures:
        return None
    blocks = per_gpu.kv_cache_available_bytes // layout.block_bytes
    off = error_bytes // layout.block_bytes
    if blocks >= settings.max_num_seqs:
        return None
    reason = (
        f"the cache has {blocks:,} blocks for states and max_num_seqs is {settings.max_num_seqs:,}; "
        f"vLLM stops with CUDA graphs on, so set max_num_seqs to {blocks:,} or less"
    )
    if blocks + off < settings.max_num_seqs:
        return Verdict(Fit.NO, "maxNumSeqs", reason)
    return Verdict(Fit.TIGHT, "maxNumSeqs", f"{reason}; the plan may be off by {off:,} blocks")

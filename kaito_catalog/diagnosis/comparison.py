"""What a log printed beside what a plan has: term by term, and which term explains the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.formats.evidence import ReportedRank, ReportedRun
from kaito_catalog.memory.values import Plan

ROUNDING_BYTES = round(0.01 * 2**30)
"""What the two decimals of GiB in a log leave open."""

NAMES = {
    "weights": "weights",
    "nonTorch": "non-torch (CUDA, NCCL)",
    "activationPeak": "activation peak",
    "cudaGraph": "CUDA graphs",
    "beside": "all beside weights and cache",
    "kvCacheAvailable": "left for KV cache",
    "kvCacheNeeded": "KV cache of one request",
    "kvCacheTokens": "tokens in the KV cache",
}
"""The terms, as people read them."""
_PARTS = ("weights", "nonTorch", "activationPeak", "cudaGraph", "beside", "kvCacheNeeded")
"""The terms that others are made of, so that one of them is the reason of a difference."""


@dataclass(frozen=True)
class Term:
    """One figure of a start, printed and planned."""

    name: str
    printed: int
    planned: int
    allowed: int
    """What they may differ by and still agree: what the plan expects to be off by, or the log's decimals."""

    @property
    def difference(self) -> int:
        """Printed less planned."""
        return self.printed - self.planned

    @property
    def agrees(self) -> bool:
        """Whether the difference is within what the plan may be off by."""
        return abs(self.difference) <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """As plain values; all but `kvCacheTokens` are bytes of one GPU."""
        return {
            "term": self.name,
            "printed": self.printed,
            "planned": self.planned,
            "difference": self.difference,
            "allowed": self.allowed,
            "agrees": self.agrees,
        }


def compare(run: ReportedRun, plan: Plan) -> tuple[Term, ...]:
    """The figures that both the log and the plan have, of the GPU with the least room for the cache."""
    figures, cache = plan.per_gpu, plan.kv_cache
    if figures is None:
        return ()
    off = plan.expected_error_bytes or 0
    rank = tightest_rank(run, plan)
    refusal = run.refusal if run.refusal is not None and run.refusal.what == "kv-cache" else None
    available = rank.kv_cache_bytes if rank and rank.kv_cache_bytes is not None else None
    if available is None and refusal is not None:
        available = refusal.available_bytes
    weights = rank.weights_bytes if rank else None
    parts = (
        rank.non_torch_bytes if rank else None,
        rank.activation_peak_bytes if rank else None,
        rank.cuda_graph_estimate_bytes if rank else None,
    )
    beside = None
    if weights is not None and available is not None and not all(p is not None for p in parts[:2]):
        beside = _budget(run, plan) - weights - available
    planned_beside = figures.non_torch_bytes + figures.activation_peak_bytes + figures.cuda_graph_bytes
    found = [
        # What loading takes is more than weights: buffers, weights that are repacked (gpt-oss on Hopper).
        _term("weights", weights, figures.weights_bytes, off),
        _term("nonTorch", parts[0], figures.non_torch_bytes, off),
        _term("activationPeak", parts[1], figures.activation_peak_bytes, off),
        # Before graphs are counted in the budget, a plan has none of them.
        _term("cudaGraph", parts[2], figures.cuda_graph_bytes, off) if figures.cuda_graph_bytes else None,
        _term("beside", beside, planned_beside, off),
        _term("kvCacheAvailable", available, figures.kv_cache_available_bytes, off),
        _term("kvCacheNeeded", refusal.needed_bytes if refusal else None, _of_a_request(plan), 0),
    ]
    if cache is not None and len(cache.groups) == 1 and cache.tokens and figures.kv_cache_available_bytes > 0:
        tokens = run.kv_cache_tokens if run.refusal is None else None
        allowed = round(cache.tokens * off / figures.kv_cache_available_bytes)
        found.append(_term("kvCacheTokens", tokens, cache.tokens, allowed))
    return tuple(term for term in found if term is not None)


def _term(name: str, printed: int | None, planned: int, allowed: int) -> Term | None:
    return None if printed is None else Term(name, printed, planned, max(allowed, ROUNDING_BYTES))


def _of_a_request(plan: Plan) -> int:
    """What vLLM's message calls needed: without the blocks that are free beside it."""
    assert plan.per_gpu is not None
    asked = plan.kv_cache.request_bytes if plan.kv_cache else 0
    return asked or plan.per_gpu.kv_cache_needed_bytes


def _budget(run: ReportedRun, plan: Plan) -> int:
    """What vLLM was allowed, by the log's own memory where it is printed."""
    assert plan.per_gpu is not None
    memory, share = run.gpu.memory_bytes if run.gpu else None, run.gpu_memory_utilization
    if memory is None or share is None or plan.settings.kv_cache_memory_bytes is not None:
        return plan.per_gpu.budget_bytes
    return round(memory * share)


def tightest_rank(run: ReportedRun, plan: Plan) -> ReportedRank | None:
    """The rank that a plan's account is of; None where the log has not printed it for certain."""
    ranks: Sequence[ReportedRank] = run.ranks or ()
    sizes = plan.parallelism
    if not ranks or (sizes.pipeline_parallel_size > 1 and len(ranks) < sizes.pipeline_parallel_size):
        return None
    cached = [rank for rank in ranks if rank.kv_cache_bytes is not None]
    if cached:
        return min(cached, key=lambda rank: rank.kv_cache_bytes or 0)
    return max(ranks, key=lambda rank: rank.weights_bytes or 0)


def culprit(terms: tuple[Term, ...]) -> Term | None:
    """The term that differs most, among those that others are made of; None where all agree."""
    if all(term.agrees for term in terms):
        return None
    parts = [term for term in terms if term.name in _PARTS]
    return max(parts or list(terms), key=lambda term: abs(term.difference))

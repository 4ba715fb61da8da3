"""What pages and charts show of a memory plan: plain values, and the one place that asks the planner."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.catalog import Entry, Shared
from kaito_catalog.plan import Fit

__all__ = ["ChartPoint", "Figures", "Fit", "InstanceRow", "MemoryChart", "chart_lengths", "plan_figures"]


@dataclass(frozen=True)
class InstanceRow:
    """How one instance type stands to a model, at the context of `Figures.max_model_len`."""

    name: str
    cloud: str
    gpu: str
    gpu_count: int
    fits: Fit
    limited_by: str | None = None
    reason: str | None = None
    parallelism: str | None = None
    """Such as `TP 4`."""
    needed_bytes: int | None = None
    """Per GPU, all terms."""
    budget_bytes: int | None = None
    """Per GPU, what vLLM may use."""
    longest_model_len: int | None = None


@dataclass(frozen=True)
class ChartPoint:
    """KV cache of one request on one GPU."""

    max_model_len: int
    kv_cache_bytes: int


@dataclass(frozen=True)
class MemoryChart:
    """Memory of one GPU against context length; all in bytes."""

    instance_type: str
    gpu: str
    gpu_count: int
    parallelism: str
    budget_bytes: int
    weights_bytes: int
    overheads_bytes: int
    longest_model_len: int
    points: tuple[ChartPoint, ...]


@dataclass(frozen=True)
class Figures:
    """Everything planned about a model; `unknown` says why there is no plan."""

    max_model_len: int | None = None
    rows: tuple[InstanceRow, ...] = ()
    chart: MemoryChart | None = None
    vllm_version: str | None = None
    profile: str | None = None
    unknown: str | None = None

    @property
    def smallest(self) -> InstanceRow | None:
        """The first instance type that fits: rows come smallest first."""
        return next((row for row in self.rows if row.fits is Fit.YES), None)


def plan_figures(entry: Entry, shared: Shared) -> Figures:
    """What the planner says about an entry, at the context its proposal is about."""
    if entry.facts is None:
        return Figures(unknown="nobody has recorded facts")
    return Figures(unknown="this version has no memory plan")


def chart_lengths(limit: int, *, steps: int = 16) -> tuple[int, ...]:
    """Context lengths from 0 to `limit` at equal distances, for a curve."""
    if limit <= 0:
        return (0,)
    return tuple(sorted({limit * i // steps for i in range(steps + 1)}))

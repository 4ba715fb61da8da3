"""What pages and charts show of a memory plan: plain values, and the one place that asks the planner."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaito_catalog.architectures import Shape
from kaito_catalog.catalog.entries import Entry, Price, Shared
from kaito_catalog.kaito.manifests import serving_runtime
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.refusals import why_unplanned
from kaito_catalog.memory.values import Fit, PerGpu, Plan
from kaito_catalog.plans.instance_types import InstanceTypePlan, facts_shape, instance_type_plans
from kaito_catalog.plans.recommend import Recommendations, by_cloud, recommend
from kaito_catalog.plans.start import Start, start_of

__all__ = ["ChartPoint", "Figures", "Fit", "InstanceRow", "MemoryChart", "chart_lengths", "plan_figures"]

DEFAULT_MODEL_LEN = 8192
"""The context of plans for a proposal that names none, at most the model's own limit."""


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
    note: str | None = None
    """Where not all GPUs of the node are used or needed."""
    nodes: int = 1
    """The nodes that are started."""
    weights_bytes: int | None = None
    kv_cache_needed_bytes: int | None = None
    """What vLLM asks to be free on each GPU for one request."""

    @property
    def is_certain(self) -> bool:
        """Whether one node of the type serves the context for certain."""
        return self.fits is Fit.YES and self.nodes == 1

    price: Price | None = None
    """Of one machine an hour, in the cheapest region that is recorded."""


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
    memory_holds: int | None = None
    """The longest context for the memory alone, where KAITO starts another node before that."""


@dataclass(frozen=True)
class Cell:
    """The verdict at one context, and the term that decides it."""

    fits: Fit
    limited_by: str | None = None


@dataclass(frozen=True)
class MatrixRow:
    """Instance types with the same GPUs, at the contexts of `Figures.contexts`."""

    names: tuple[str, ...]
    gpu: str
    gpu_count: int
    parallelism: str | None
    cells: tuple[Cell, ...]

    @property
    def ever_fits(self) -> bool:
        """Whether any context fits, even if only just."""
        return any(cell.fits in (Fit.YES, Fit.TIGHT) for cell in self.cells)


@dataclass(frozen=True)
class Figures:
    """Everything planned about a model; `unknown` says why there is no plan."""

    max_model_len: int | None = None
    is_claimed: bool = True
    """Whether `max_model_len` is the proposal's, or ours for want of one."""
    options: tuple[str, ...] = ()
    """The proposal's own options that the plan took: `gpu-memory-utilization 0.95`."""
    rows: tuple[InstanceRow, ...] = ()
    contexts: tuple[int, ...] = ()
    """The columns of `matrix`."""
    matrix: tuple[MatrixRow, ...] = ()
    chart: MemoryChart | None = None
    vllm_version: str | None = None
    profile: str | None = None
    unknown: str | None = None
    recommended: Recommendations | None = None
    recommended_by_cloud: Mapping[str, Recommendations] = field(default_factory=dict)
    clouds: tuple[str, ...] | None = None
    """Whose nodes the profile's KAITO makes; None where that is not told."""

    def makes_nodes_of(self, cloud: str) -> bool:
        """Whether KAITO makes the nodes of a cloud; those of others are brought along."""
        return self.clouds is None or cloud in self.clouds

    def row(self, instance_type: str | None) -> InstanceRow | None:
        """What is planned on the instance type of that name."""
        return next((row for row in self.rows if row.name == instance_type), None)

    @property
    def smallest(self) -> InstanceRow | None:
        """The first instance type that fits and whose nodes KAITO makes: rows come smallest first."""
        return next((row for row in self.rows if row.is_certain and self.makes_nodes_of(row.cloud)), None)

    @property
    def smallest_by_cloud(self) -> tuple[InstanceRow, ...]:
        """The first instance type of each cloud that fits, smallest first."""
        first: dict[str, InstanceRow] = {}
        for row in self.rows:
            if row.is_certain and self.makes_nodes_of(row.cloud):
                first.setdefault(row.cloud, row)
        return tuple(first.values())


def plan_figures(entry: Entry, shared: Shared) -> Figures:
    """What the planner says about an entry, at the context its proposal is about."""
    facts, profile = entry.facts, shared.policy.default_profile()
    if facts is None or entry.proposal is None:
        return Figures(unknown="no recorded facts")
    runtime = serving_runtime(entry.proposal)
    if runtime is not None and runtime.name != "vllm":
        return Figures(unknown=f"only vLLM is planned, and the proposal serves with {runtime.name}")
    shape = facts_shape(facts)
    claimed = entry.proposal.max_model_len
    start = start_of(entry.proposal, facts, shared, profile, max_model_len=claimed or DEFAULT_MODEL_LEN)
    unplanned = why_unplanned(shape, start.settings(None), start.vllm_version)
    if unplanned is not None:
        return Figures(unknown=unplanned[0])
    assert isinstance(shape, Shape)
    asked = claimed or min(shape.max_model_len, DEFAULT_MODEL_LEN)
    start = replace(start, max_model_len=asked)
    plans = instance_type_plans(shared, start.on)
    reasons = {item.plan.reason for item in plans}
    if all(item.plan.fits is Fit.UNKNOWN for item in plans):
        words = "; ".join(sorted(reason for reason in reasons if reason))
        return Figures(unknown=words or "no instance type is known")
    contexts, clouds = matrix_lengths(shape.max_model_len, asked), release_of(profile).clouds
    return Figures(
        max_model_len=asked,
        contexts=contexts,
        matrix=_matrix(start, plans, contexts),
        is_claimed=claimed is not None,
        rows=tuple(_row(item) for item in plans),
        options=start.options.words(),
        chart=_chart(shape, [row for row in plans if row.instance_type.cloud in clouds]),
        vllm_version=profile.vllm_version,
        profile=profile.name,
        recommended=recommend(
            [row for row in plans if row.instance_type.cloud in clouds], max_model_len=asked
        ),
        recommended_by_cloud=by_cloud(plans, max_model_len=asked),
        clouds=clouds,
    )


def matrix_lengths(limit: int, asked: int, *, most: int = 8) -> tuple[int, ...]:
    """The contexts of the fit matrix: powers of two from 4,096 on, the one asked for, the model's limit."""
    powers = [2**n for n in range(12, 31) if 2**n < limit]
    fixed = {asked, limit} if asked <= limit else {limit}
    spare = most - len(fixed)
    return tuple(sorted(fixed | set([p for p in powers if p not in fixed][-spare:])))


def _matrix(
    start: Start, plans: Sequence[InstanceTypePlan], contexts: Sequence[int]
) -> tuple[MatrixRow, ...]:
    """A row for each choice of GPUs, in the order of `plans`; instance types that differ otherwise share it."""
    names: dict[tuple[str, int], list[str]] = {}
    first: dict[tuple[str, int], InstanceTypePlan] = {}
    for item in plans:
        kind = item.instance_type
        key = (kind.gpu, kind.gpu_count)
        names.setdefault(key, []).append(kind.name)
        first.setdefault(key, item)
    return tuple(
        MatrixRow(
            names=tuple(names[key]),
            gpu=item.plan.gpu.name or key[0],
            gpu_count=key[1],
            parallelism=_parallelism(item.plan),
            cells=cells(functools.partial(_cell, start, item), contexts),
        )
        for key, item in first.items()
    )


def cells(verdict: Callable[[int], Cell], contexts: Sequence[int]) -> tuple[Cell, ...]:
    """The verdict at each of the rising `contexts`; it is not asked between two that are equal.

    More tokens never need less memory, so that what holds at two contexts holds at all between them.
    """
    found: dict[int, Cell] = {}

    def fill(low: int, high: int) -> None:
        for i in (low, high):
            if i not in found:
                found[i] = verdict(contexts[i])
        if found[low] == found[high]:
            found.update(dict.fromkeys(range(low, high), found[low]))
        elif high - low > 1:
            middle = (low + high) // 2
            fill(low, middle)
            fill(middle, high)

    fill(0, len(contexts) - 1)
    return tuple(found[i] for i in range(len(contexts)))


def _cell(start: Start, item: InstanceTypePlan, tokens: int) -> Cell:
    """The verdict of one node at that context; where KAITO starts further ones, one is not enough."""
    if item.plan.per_gpu is None:
        return Cell(item.plan.fits, item.plan.limited_by)
    started = replace(start, max_model_len=tokens).on(item.started.place)
    if started.nodes > 1:
        return Cell(Fit.NO, "nodes")
    at = started.plan
    return Cell(at.fits, at.limited_by)


def _row(item: InstanceTypePlan) -> InstanceRow:
    plan = item.plan
    return InstanceRow(
        name=item.instance_type.name,
        cloud=item.instance_type.cloud,
        gpu=plan.gpu.name or item.instance_type.gpu,
        gpu_count=item.instance_type.gpu_count,
        fits=plan.fits,
        limited_by=plan.limited_by,
        reason=plan.reason,
        parallelism=_parallelism(plan),
        needed_bytes=_base(plan.per_gpu) + plan.kv_cache.pool_bytes
        if plan.per_gpu and plan.kv_cache
        else None,
        nodes=item.nodes,
        weights_bytes=plan.per_gpu.weights_bytes if plan.per_gpu else None,
        kv_cache_needed_bytes=plan.per_gpu.kv_cache_needed_bytes if plan.per_gpu else None,
        budget_bytes=plan.per_gpu.budget_bytes if plan.per_gpu else None,
        longest_model_len=plan.kv_cache.longest_model_len if plan.kv_cache else None,
        note=item.note,
        price=item.price,
    )


def _parallelism(plan: Plan) -> str:
    tensor, pipeline = plan.parallelism.tensor_parallel_size, plan.parallelism.pipeline_parallel_size
    data = plan.parallelism.data_parallel_size
    words = [f"TP {tensor}"] if data == 1 or tensor > 1 else []
    words += [f"PP {pipeline}"] if pipeline > 1 else []
    return ", ".join([*words, f"DP {data}"] if data > 1 else words)


def _overheads(per_gpu: PerGpu) -> int:
    return per_gpu.non_torch_bytes + per_gpu.activation_peak_bytes + per_gpu.cuda_graph_bytes


def _base(per_gpu: PerGpu) -> int:
    return per_gpu.weights_bytes + _overheads(per_gpu)


def _chart(shape: Shape, plans: Sequence[InstanceTypePlan]) -> MemoryChart | None:
    """On the smallest instance type that fits, else on the one with most memory."""
    planned = [item for item in plans if item.plan.per_gpu and item.plan.kv_cache and item.nodes == 1]
    if not planned:
        return None
    chosen = planned[0] if planned[0].plan.fits in (Fit.YES, Fit.TIGHT) else planned[-1]
    plan = chosen.plan
    assert plan.per_gpu is not None
    assert plan.kv_cache is not None
    points = []
    for tokens in chart_lengths(shape.max_model_len):
        request = chosen.started.request
        settings = replace(request.settings, max_model_len=max(tokens, 1))
        at = make_plan(replace(request, settings=settings))
        if at.kv_cache is None:
            return None
        points.append(ChartPoint(tokens, at.kv_cache.pool_bytes))
    return MemoryChart(
        instance_type=chosen.instance_type.name,
        gpu=plan.gpu.name or chosen.instance_type.gpu,
        gpu_count=plan.parallelism.world_size,
        parallelism=_parallelism(plan),
        budget_bytes=plan.per_gpu.budget_bytes,
        weights_bytes=plan.per_gpu.weights_bytes,
        overheads_bytes=_overheads(plan.per_gpu),
        longest_model_len=plan.kv_cache.longest_model_len,
        points=tuple(points),
        memory_holds=chosen.started.memory_holds,
    )


def chart_lengths(limit: int, *, steps: int = 32) -> tuple[int, ...]:
    """Context lengths from 0 to `limit` at equal distances, for a curve."""
    if limit <= 0:
        return (0,)
    return tuple(sorted({limit * i // steps for i in range(steps + 1)}))

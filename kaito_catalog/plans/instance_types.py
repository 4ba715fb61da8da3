"""The plan of a catalog entry on every instance type: what fits, how many GPUs and nodes it takes, smallest first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.catalog.entries import Price, Shared
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.deployed import slice_node
from kaito_catalog.kaito.release import node_of, node_with
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.plan import smallest_gpu_count, smallest_node_count
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings, Stored
from kaito_catalog.plans.started import NodeGpus, Started, served
from kaito_catalog.quantity import GIB


@dataclass(frozen=True)
class InstanceTypePlan:
    """What one instance type makes of a model."""

    instance_type: InstanceType
    plan: Plan
    gpus_needed: int | None
    """The fewest of its GPUs that serve the context as surely as all do; None where not even all do."""
    nodes_needed: int | None
    """The fewest nodes that do, one pipeline stage each; None where MOST_NODES do not, or it is unknown."""
    note: str | None
    """In words, where not all GPUs of the node are used or needed."""
    started: Started
    """What the plan is of."""
    price: Price | None = None
    """Of one node an hour; None where none is recorded."""

    @property
    def nodes(self) -> int:
        """The nodes that the plan is of."""
        return self.started.nodes

    @property
    def price_an_hour(self) -> float | None:
        """What all nodes of the plan cost an hour; None where no price is recorded."""
        return None if self.price is None else self.nodes * self.price.an_hour

    @property
    def is_certain(self) -> bool:
        """Whether one node of the type serves the context for certain."""
        return self.plan.fits is Fit.YES and self.nodes == 1


_ORDER = {Fit.YES: 0, Fit.TIGHT: 1, Fit.NO: 2, Fit.UNKNOWN: 3}


def facts_shape(facts: ModelFacts) -> Shape | Unsupported:
    """The shape of a catalog entry, from the fields of config.json in its facts."""
    if facts.config is None:
        return Unsupported("its config.json is not recorded", "config")
    return read_shape(facts.config)


def request_for_facts(
    facts: ModelFacts, *, gpu: PlanGpu, parallelism: Parallelism, settings: Settings, vllm_version: str
) -> PlanRequest:
    """What is asked of a catalog entry: its configuration and, where that is not enough, its weight files' size."""
    return PlanRequest(
        facts_shape(facts),
        stored=facts.weights.total if facts.weights else None,
        gpu=gpu,
        parallelism=parallelism,
        settings=settings,
        vllm_version=vllm_version,
    )


_SLICE = " MIG "
"""Between a GPU and the profile of a slice, in the name that the driver gives the slice."""


def slice_name(gpu: str, profile: str) -> str:
    """What the driver calls a slice: `NVIDIA H100 80GB MIG 3g.40gb`."""
    return f"{gpu}{_SLICE}{profile}"


def slice_gpus(shared: Shared, profile: str, gpu: str | None) -> tuple[PlanGpu, ...]:
    """The slices of that profile on a GPU, or on any where none is named; without memory where it is not published."""
    gpus = shared.gpus if gpu is None else tuple(filter(None, (shared.gpu(gpu),)))
    return tuple(plan_gpu(shared, slice_name(found.name, profile)) for found in gpus if found.slice(profile))


def plan_gpu(shared: Shared, name: str) -> PlanGpu:
    """The GPU of that name in gpus.yaml, or a slice of it; just its name where it is not listed."""
    gpu, (whole, mig, profile) = shared.gpu(name), name.partition(_SLICE)
    if gpu is None and mig:
        gpu = shared.gpu(whole)
        found = gpu.slice(profile) if gpu else None
        if gpu is None or found is None:
            return PlanGpu(name, None)
        return PlanGpu(slice_name(gpu.name, profile), found.memory_bytes, gpu.compute_capability)
    if gpu is None:
        return PlanGpu(name, None)
    return PlanGpu(gpu.name, gpu.memory_bytes, gpu.compute_capability, is_unified=gpu.unified_memory)


def instance_gpu(shared: Shared, instance_type: InstanceType) -> PlanGpu:
    """A GPU of a machine of that type, with the memory that it has there."""
    found = plan_gpu(shared, instance_type.gpu)
    return replace(found, memory_bytes=instance_type.memory_bytes or found.memory_bytes)


def place_of(shared: Shared, instance_type: InstanceType) -> NodeGpus:
    """The GPUs of a node of that type."""
    listed = shared.gpu(instance_type.gpu)
    return NodeGpus(
        instance_gpu(shared, instance_type),
        instance_type.gpu_count,
        instance_type,
        node_of(instance_type, listed) if listed else None,
        runs_vllm=listed is None or listed.vllm,
    )


def place_with(shared: Shared, gpu: PlanGpu) -> NodeGpus:
    """One GPU that somebody names, a whole one or a slice."""
    whole, mig, profile = (gpu.name or "").partition(_SLICE)
    listed = shared.gpu(whole) if whole else None
    node = slice_node(profile) if mig else node_with(listed, 1) if listed else None
    return NodeGpus(gpu, 1, None, node, is_slice=bool(mig), runs_vllm=listed is None or listed.vllm)


def plain_start(
    place: NodeGpus,
    shape: Shape | Unsupported,
    stored: Stored | None,
    *,
    settings: Settings,
    vllm_version: str,
    model: str = "",
    options: Mapping[str, str] | None = None,
    parallelism: Parallelism | None = None,
) -> Started:
    """Plain `vllm serve` on one node: tensor parallelism over all its GPUs, or over as many as are legal for the model.

    Args:
        place: the node.
        shape: the model.
        stored: the size of its weight files, where known.
        settings: what vLLM is started with there.
        vllm_version: whose arithmetic.
        model: as the command line names it.
        options: the other words of the command line: name to value, an empty text for a switch.
        parallelism: the split, where it is not to be chosen.
    """
    chosen, note = parallelism, None
    if chosen is None:
        chosen, note = _legal_split(shape, place.gpu_count, vllm_version)
    sizes = {
        "tensor-parallel-size": chosen.tensor_parallel_size,
        "pipeline-parallel-size": chosen.pipeline_parallel_size,
        "data-parallel-size": chosen.data_parallel_size,
    }
    split = {name: str(size) for name, size in sizes.items() if size > 1}
    if chosen.enable_expert_parallel:
        split["enable-expert-parallel"] = ""
    request = PlanRequest(
        shape, stored, gpu=place.gpu, parallelism=chosen, settings=settings, vllm_version=vllm_version
    )
    return Started(
        "vllm",
        model,
        served({**(options or {}), **split}, model),
        dict(settings.environment),
        place,
        request,
        nodes=-(-chosen.world_size // place.gpu_count),
        host_memory_bytes=0,
        notes=(note,) if note else (),
    )


def _legal_split(
    shape: Shape | Unsupported, gpu_count: int, vllm_version: str
) -> tuple[Parallelism, str | None]:
    """Over all GPUs, or over as many as are legal, and why not over all."""
    size, note = gpu_count, None
    if isinstance(shape, Shape):
        illegal = illegal_tensor_parallel(shape, size, vllm_version=vllm_version)
        while illegal is not None and size > 1:
            note = note or f"{illegal}, so not all {gpu_count} GPUs are used"
            size -= 1
            illegal = illegal_tensor_parallel(shape, size, vllm_version=vllm_version)
    return Parallelism(size), note


def plan_instance_types(
    facts: ModelFacts, shared: Shared, profile: Profile, *, max_model_len: int
) -> tuple[InstanceTypePlan, ...]:
    """The plans of plain `vllm serve` with the profile's utilization, for a catalog entry."""
    return instance_type_plans(
        shared,
        lambda place: plain_start(
            place,
            facts_shape(facts),
            facts.weights.total if facts.weights else None,
            settings=Settings(max_model_len, profile.utilization(place.gpu.name)),
            vllm_version=profile.vllm_version,
        ),
    )


def instance_type_plans(
    shared: Shared, start: Callable[[NodeGpus], Started], *, region: str | None = None
) -> tuple[InstanceTypePlan, ...]:
    """A plan for every instance type. What fits comes first, least total memory first; the rest keeps its reason.

    Args:
        shared: the instance types and their GPUs.
        start: what is started on the nodes of an instance type.
        region: whose prices; None for the cheapest region of each instance type.
    """
    # Clouds offer the same GPUs with more or less beside them; one plan will do for all of these.
    planned: dict[tuple[PlanGpu, int], InstanceTypePlan] = {}
    found = []
    for instance_type in shared.instance_types:
        place = place_of(shared, instance_type)
        key = (place.gpu, place.gpu_count)
        if key not in planned:
            planned[key] = instance_type_plan(instance_type, start(place))
        same = planned[key]
        found.append(
            replace(
                same,
                instance_type=instance_type,
                started=replace(same.started, place=place),
                price=shared.price(instance_type.name, region),
            )
        )
    return smallest_first(found)


def smallest_first(rows: Sequence[InstanceTypePlan]) -> tuple[InstanceTypePlan, ...]:
    """By GPU memory of the machine within each verdict, then by the number of GPUs and the size in the name."""
    return tuple(sorted(rows, key=_smallest_first))


def cheapest_first(rows: Sequence[InstanceTypePlan]) -> tuple[InstanceTypePlan, ...]:
    """By price of all nodes an hour within each verdict; what has no price comes last of its verdict."""

    def key(row: InstanceTypePlan) -> tuple[int, float]:
        price = row.price_an_hour
        return _ORDER[row.plan.fits], math.inf if price is None else price

    return tuple(sorted(rows, key=key))


def instance_type_plan(instance_type: InstanceType, started: Started) -> InstanceTypePlan:
    """What the start makes of an instance type, and how many of its GPUs and nodes are needed."""
    plan, needed = started.plan, None
    note = started.notes[0] if started.notes else None
    if started.nodes == 1 and plan.fits in (Fit.YES, Fit.TIGHT):
        size = plan.parallelism.world_size
        needed = smallest_gpu_count(started.request, most=size, allow_tight=plan.fits is Fit.TIGHT)
        if note is None and needed is not None and needed < started.place.gpu_count:
            note = f"{needed} of its {started.place.gpu_count} GPUs would do"
    nodes = started.nodes if plan.fits in (Fit.YES, Fit.TIGHT) else None
    if (
        started.engine == "vllm"
        and plan.fits is Fit.NO
        and plan.limited_by in ("weights", "overheads", "kvCache")
    ):
        nodes = smallest_node_count(started.request)
    return InstanceTypePlan(instance_type, plan, needed, nodes, note, started)


MEMORY_STEP_BYTES = 8 * GIB
"""Nodes are ordered by GPU memory in such steps: 2 × 40GB and 1 × 80GB are the same amount to whoever rents them."""


def _smallest_first(item: InstanceTypePlan) -> tuple[int, bool, int, int, int, str]:
    """What fits first, then on one node, least GPU memory, fewest GPUs, and the size: g5.xlarge before g5.16xlarge."""
    memory = memory_of(item.instance_type, item.plan.gpu) * item.nodes
    name = item.instance_type.name
    size = size_in_name(name)
    step = round(memory / MEMORY_STEP_BYTES)
    return _ORDER[item.plan.fits], item.nodes > 1, step, item.instance_type.gpu_count, size, name


def memory_of(machine: InstanceType, gpu: PlanGpu) -> int:
    """The memory of all GPUs of one machine; 0 where it is not known."""
    return (gpu.memory_bytes or 0) * machine.gpu_count


def size_in_name(name: str) -> int:
    """How large a machine calls itself, in steps of four vCPUs: 2 for g5.2xlarge and g2-standard-8; else 0."""
    if found := re.search(r"\.([0-9]*)xlarge\Z", name):
        return int(found[1] or 1)
    found = re.search(r"-standard-([0-9]+)\Z", name)
    return int(found[1]) // 4 if found else 0

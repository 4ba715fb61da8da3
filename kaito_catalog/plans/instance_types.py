"""The plan of a catalog entry on every instance type: what fits, how many GPUs and nodes it takes, smallest first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.plan import make_plan, smallest_gpu_count, smallest_node_count, without_account
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings, Stored
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


def plan_instance_types(
    facts: ModelFacts, shared: Shared, profile: Profile, *, max_model_len: int
) -> tuple[InstanceTypePlan, ...]:
    """`instance_type_plans` of a catalog entry, as the profile starts vLLM."""
    return instance_type_plans(
        facts_shape(facts),
        facts.weights.total if facts.weights else None,
        shared,
        settings=lambda gpu: Settings(max_model_len, profile.utilization(gpu)),
        vllm_version=profile.vllm_version,
    )


def without_vllm(shared: Shared, name: str, request: PlanRequest) -> Plan | None:
    """The refusal of a GPU on which vLLM's CUDA build does not run; None for any other."""
    listed = shared.gpu(name)
    if listed is None or listed.vllm:
        return None
    reason = f"vLLM's CUDA build does not run on {listed.name}"
    return without_account(request, Refusal(Fit.NO, "gpu", reason))


def instance_type_plans(
    shape: Shape | Unsupported,
    stored: Stored | None,
    shared: Shared,
    *,
    settings: Callable[[str | None], Settings],
    vllm_version: str,
) -> tuple[InstanceTypePlan, ...]:
    """A plan for every instance type, one node each.

    Tensor parallelism over all GPUs of the node, or over as many as are legal for the model. What fits comes
    first, least total memory first; the rest keeps its reason.

    Args:
        shape: the model.
        stored: the size of its weight files, where known.
        shared: the instance types and their GPUs.
        settings: what vLLM is started with on a GPU of that name.
        vllm_version: whose arithmetic.
    """
    # Clouds offer the same GPUs with more or less beside them; one plan will do for all of these.
    planned: dict[tuple[str | None, int], _NodePlan] = {}
    found = []
    for instance_type in shared.instance_types:
        gpu = plan_gpu(shared, instance_type.gpu)
        request = PlanRequest(
            shape,
            stored,
            gpu=gpu,
            parallelism=Parallelism(instance_type.gpu_count),
            settings=settings(gpu.name),
            vllm_version=vllm_version,
        )
        refused = without_vllm(shared, instance_type.gpu, request)
        if refused is not None:
            found.append(InstanceTypePlan(instance_type, refused, None, None, None))
            continue
        key = (gpu.name, instance_type.gpu_count)
        if key not in planned:
            planned[key] = _node_plan(request)
        found.append(InstanceTypePlan(instance_type, *planned[key]))

    return tuple(sorted(found, key=_smallest_first))


_NodePlan = tuple[Plan, int | None, int | None, str | None]
"""The plan, the GPUs and the nodes that are needed, and a note: the rest of an InstanceTypePlan."""


def _node_plan(request: PlanRequest) -> _NodePlan:
    """The plan of one node, over all its GPUs or as many as are legal."""
    gpu_count, note = request.parallelism.tensor_parallel_size, None
    size = gpu_count
    if isinstance(request.shape, Shape):
        illegal = illegal_tensor_parallel(request.shape, size, vllm_version=request.vllm_version)
        while illegal is not None and size > 1:
            note = note or f"{illegal}, so not all {gpu_count} GPUs are used"
            size -= 1
            illegal = illegal_tensor_parallel(request.shape, size, vllm_version=request.vllm_version)
    request = replace(request, parallelism=Parallelism(size))
    plan = make_plan(request)
    needed = None
    if plan.fits in (Fit.YES, Fit.TIGHT):
        needed = smallest_gpu_count(request, most=size, allow_tight=plan.fits is Fit.TIGHT)
        if note is None and needed is not None and needed < gpu_count:
            note = f"{needed} of its {gpu_count} GPUs would do"
    nodes = 1 if needed is not None else None
    if plan.fits is Fit.NO and plan.limited_by in ("weights", "overheads", "kvCache"):
        nodes = smallest_node_count(request)
    return plan, needed, nodes, note


MEMORY_STEP_BYTES = 8 * GIB
"""Nodes are ordered by GPU memory in such steps: 2 × 40GB and 1 × 80GB are the same amount to whoever rents them."""


def _smallest_first(item: InstanceTypePlan) -> tuple[int, int, int, int, str]:
    """What fits first, then least GPU memory, fewest GPUs, and the size in the name: g5.xlarge before g5.16xlarge."""
    memory = (item.plan.gpu.memory_bytes or 0) * item.instance_type.gpu_count
    name = item.instance_type.name
    size = size_in_name(name)
    return _ORDER[item.plan.fits], round(memory / MEMORY_STEP_BYTES), item.instance_type.gpu_count, size, name


def size_in_name(name: str) -> int:
    """How large a machine calls itself, in steps of four vCPUs: 2 for g5.2xlarge and g2-standard-8; else 0."""
    if found := re.search(r"\.([0-9]*)xlarge\Z", name):
        return int(found[1] or 1)
    found = re.search(r"-standard-([0-9]+)\Z", name)
    return int(found[1]) // 4 if found else 0

"""What fits on given GPUs, at which longest context: the tables of the hardware page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, reserved_blocks, states_per_sequence
from kaito_catalog.memory.overheads.activations import activation_growth
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings
from kaito_catalog.memory.weights.split import stages
from kaito_catalog.plans.instance_types import facts_shape
from kaito_catalog.site.coefficients import offered
from kaito_catalog.site.model_page import ModelPage
from kaito_catalog.site.tables import SHORTEST_MODEL_LEN

GPU_COUNTS = (1, 2, 4, 8)
"""The numbers of GPUs of the tables: those that instance types have."""


@dataclass(frozen=True)
class Row:
    """A model on one GPU's page section."""

    slug: str
    repo_id: str
    lengths: tuple[int | None, ...]
    """For each of COUNTS: the longest context that surely fits; 0: none; None: not known."""


@dataclass(frozen=True)
class GpuTable:
    """What fits on one, two … of a GPU."""

    name: str
    anchor: str
    memory: int
    utilization: float
    types: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(models: Sequence[ModelPage], catalog: Catalog) -> tuple[GpuTable, ...]:
    """A table for each rented GPU that plans are made for, in the order of gpus.yaml."""
    shared = catalog.shared
    profile = shared.policy.default_profile()
    ordered = sorted(models, key=lambda p: natural(p.repo_id))
    shapes = [facts_shape(p.facts) if p.facts else Unsupported("no facts", None) for p in ordered]
    found = []
    rented = {shared.gpu_by_name[machine.gpu].name for machine in shared.instance_types}
    for gpu in offered(shared):
        if gpu.name not in rented:
            continue
        name, memory = gpu.name or "", gpu.memory_bytes or 0
        share = profile.utilization(name)
        rows = tuple(
            Row(
                page.entry.name,
                page.repo_id,
                tuple(
                    longest_certain(
                        shape,
                        page.facts.weights.total if page.facts and page.facts.weights else None,
                        gpu,
                        count,
                        utilization=share,
                        vllm_version=profile.vllm_version,
                    )
                    for count in GPU_COUNTS
                ),
            )
            for page, shape in zip(ordered, shapes, strict=True)
        )
        types = tuple(t.name for t in shared.instance_types if shared.gpu(t.gpu) is shared.gpu(name))
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        found.append(GpuTable(name, anchor, memory, share, types, rows))
    return tuple(found)


def longest_certain(
    shape: Shape | Unsupported,
    stored: StoredSize | None,
    gpu: PlanGpu,
    tensor_parallel_size: int,
    *,
    utilization: float,
    vllm_version: str,
    kv_cache_dtype: str = "auto",
) -> int | None:
    """The longest context that fits by more than the plan's expected error; 0: none; None: no plan."""
    if isinstance(shape, Unsupported):
        return None
    plan = make_plan(
        PlanRequest(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=Parallelism(tensor_parallel_size),
            settings=Settings(min(SHORTEST_MODEL_LEN, shape.max_model_len), utilization, kv_cache_dtype),
            vllm_version=vllm_version,
        )
    )
    if plan.fits is Fit.UNKNOWN:
        return None
    shape = as_built(shape, vllm_version, gpu.compute_capability)
    states = states_per_sequence(shape, vllm_version)
    if plan.fits is not Fit.YES or plan.per_gpu is None or isinstance(states, Unplannable):
        return 0
    tokens = plan.settings.max_num_batched_tokens or 0
    layouts = plan_layout(
        shape,
        tensor_parallel_size=tensor_parallel_size,
        stages=stages(len(shape.layers), 1),
        kv_cache_dtype=kv_cache_dtype,
        in_flight_tokens=tokens * batches_in_flight(vllm_version),
        states=states,
        reserved=reserved_blocks(vllm_version),
    )
    if isinstance(layouts, Unplannable):
        return None
    spare = plan.per_gpu.kv_cache_available_bytes - (plan.expected_error_bytes or 0) - 1
    run = ProfileRun(
        shape,
        max_num_batched_tokens=tokens,
        max_num_seqs=plan.settings.max_num_seqs or 0,
        max_model_len=plan.settings.max_model_len,
        vllm_version=vllm_version,
        tensor_parallel_size=tensor_parallel_size,
        expert_tensor_parallel_size=tensor_parallel_size,
        enforce_eager=plan.settings.enforce_eager,
    )
    return layouts[0].longest_model_len(spare, shape.max_model_len, grows=activation_growth(run))

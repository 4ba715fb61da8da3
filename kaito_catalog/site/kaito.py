"""What KAITO would do with a model by itself: options, and the split on every instance type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kaito_catalog.architectures import Shape
from kaito_catalog.catalog.entries import Entry, Shared
from kaito_catalog.kaito import launch, model_catalog, release
from kaito_catalog.kaito.estimator import Estimate
from kaito_catalog.kaito.launch import Launch
from kaito_catalog.kaito.manifests import serving_runtime
from kaito_catalog.kaito.release import Choice
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.plans.instance_types import facts_shape
from kaito_catalog.plans.start import generated_start


@dataclass(frozen=True)
class InstanceStart:
    """How KAITO would start the model on one instance type."""

    name: str
    cloud: str
    gpu_count: int
    estimate: Estimate
    illegal: str | None
    """Why vLLM would refuse that split."""


@dataclass(frozen=True)
class KaitoView:
    """Everything KAITO would decide; `unknown` says why nothing can be said."""

    release: str
    choices: tuple[Choice, ...] = ()
    declared: dict[str, str] | None = None
    """The options that the proposal sets; KAITO appends them, so they win."""
    starts: tuple[InstanceStart, ...] = ()
    max_model_len: int | None = None
    copies_cache: bool = False
    """Whether KAITO divides the cache by the GPUs, where vLLM keeps all of it on each."""
    launch: Launch | None = None
    """The start that it makes of the generated manifests; None where there is none to tell."""
    instance_type: str | None = None
    """Where."""
    unknown: str | None = None

    @property
    def illegal(self) -> tuple[InstanceStart, ...]:
        """The instance types on which vLLM would not start."""
        return tuple(start for start in self.starts if start.illegal)

    @property
    def groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The split in words, and the instance types that get it; those that start first."""
        found: dict[tuple[int, str], list[str]] = {}
        for start in self.starts:
            nodes = start.estimate.nodes
            found.setdefault((nodes or 2**31, split_words(start)), []).append(start.name)
        return tuple((words, tuple(names)) for (_, words), names in sorted(found.items()))


def split_words(start: InstanceStart) -> str:
    """The split without the instance type: `1 node, tensor 4`."""
    estimate = start.estimate
    if estimate.nodes is None:
        return "no room by KAITO's formula"
    nodes = f"{estimate.nodes} node" + ("" if estimate.nodes == 1 else "s")
    if estimate.data_parallel_size > 1:
        return f"{nodes}, a copy on each of {estimate.data_parallel_size} GPUs"
    pipeline = f", pipeline {estimate.pipeline_parallel_size}" if estimate.pipeline_parallel_size > 1 else ""
    return f"{nodes}, tensor {estimate.tensor_parallel_size}{pipeline}"


def view(entry: Entry, shared: Shared) -> KaitoView:
    """What the KAITO of the policy's profile would do with an entry, at the context of its proposal."""
    kaito = release.release_of(shared.profile())
    if entry.proposal is None or entry.facts is None:
        return KaitoView(kaito.name, unknown="no recorded facts")
    runtime = serving_runtime(entry.proposal)
    if runtime is not None and runtime.name != "vllm":
        return KaitoView(
            kaito.name, unknown=f"the proposal serves with {runtime.name}, and KAITO's choices are for vLLM"
        )
    row, missing = model_catalog.row(entry.facts, kaito)
    if row is None:
        return KaitoView(kaito.name, unknown=f"the facts lack {', '.join(missing)}")
    length, shape = entry.proposal.max_model_len, facts_shape(entry.facts)
    starts = []
    for machine in shared.instance_types:
        gpu = shared.gpu_by_name[machine.gpu]
        if not gpu.vllm:
            continue
        estimate = release.parallelism(row, release.node_of(machine, gpu), kaito, max_model_len=length)
        illegal = None
        if estimate.nodes is not None:
            illegal = release.illegal_split(row, estimate.tensor_parallel_size)
            if illegal is None and isinstance(shape, Shape):
                illegal = illegal_tensor_parallel(
                    shape,
                    estimate.tensor_parallel_size,
                    enable_expert_parallel=any(
                        choice.option == "enable-expert-parallel" for choice in release.choices(row, kaito)
                    ),
                )
        starts.append(InstanceStart(machine.name, machine.cloud, machine.gpu_count, estimate, illegal))
    return KaitoView(
        kaito.name,
        choices=release.choices(row, kaito),
        declared={name: value for name, (_, value) in release.declared(entry.proposal).items()},
        starts=tuple(starts),
        max_model_len=length,
        copies_cache=release.shards_what_vllm_replicates(shape, 2),
        launch=generated_start(entry.proposal, entry.facts, shared, shared.profile()),
        instance_type=entry.proposal.deployment.instance_type if entry.proposal.deployment else None,
    )


def to_json(found: KaitoView) -> dict[str, Any]:
    """As the API has it; null means unknown."""
    if found.unknown is not None:
        return {"release": found.release, "unknown": found.unknown}
    return {
        "release": found.release,
        "maxModelLen": found.max_model_len,
        "options": [
            {
                "option": choice.option,
                "value": choice.value,
                "because": choice.because,
                "declared": (found.declared or {}).get(choice.option),
            }
            for choice in found.choices
        ],
        "instanceTypes": [
            {
                "name": start.name,
                "cloud": start.cloud,
                "nodes": start.estimate.nodes,
                "tensorParallelSize": start.estimate.tensor_parallel_size,
                "pipelineParallelSize": start.estimate.pipeline_parallel_size,
                "dataParallelSize": start.estimate.data_parallel_size,
                "illegal": start.illegal,
            }
            for start in found.starts
        ],
        "cacheIsReplicated": found.copies_cache,
        "start": found.launch and launch.to_json(found.launch),
    }

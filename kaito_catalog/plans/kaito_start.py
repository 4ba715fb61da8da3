"""The start that KAITO makes of a proposal on its own instance type, and what LMCache does to it."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import deployed, manifests, model_catalog, release
from kaito_catalog.kaito.estimator import Estimate
from kaito_catalog.kaito.launch import Launch, LaunchConfig, LaunchManifest, LaunchPlace, launch
from kaito_catalog.kaito.manifests import InexpressibleError, serving_runtime, vllm_options
from kaito_catalog.kaito.release import Release, Row
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, states_per_sequence
from kaito_catalog.memory.weights.split import stages
from kaito_catalog.plans.instance_types import facts_shape, slice_gpus

_BATCH_TOKENS = 2048
"""max_num_batched_tokens of an A100, by which a window is longer than itself; larger cards take more."""


@dataclass(frozen=True)
class Sized:
    """A model on the machine or slice of a proposal, as KAITO counts it."""

    row: Row
    """The model as KAITO lists it."""
    estimate: Estimate
    """The nodes and the split that KAITO chooses."""
    gpu: str | None
    """As `plan_gpu` takes it; None where a slice may be of several GPUs."""
    machine: InstanceType | None
    """None for a slice whose machine nobody named."""
    is_slice: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether KAITO's formula finds no room: at all, or on the one slice that there is."""
        return self.estimate.nodes is None or (self.is_slice and self.estimate.nodes > 1)


def sized_by_kaito(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, kaito: Release
) -> Sized | None:
    """The model on the proposal's instance type or slice.

    None where the facts do not make an entry of KAITO's catalog, or the instance type is not known.
    """
    row = model_catalog.row(facts, kaito)[0] if facts else None
    name = proposal.deployment.instance_type if proposal.deployment else None
    machine = shared.instance_type(name) if name and not is_missing(name) else None
    partition = deployed.partition_of(proposal.deployment)
    if row is None or (machine is None and partition is None):
        return None
    if partition is not None:
        gpus = slice_gpus(shared, partition.profile, machine.gpu if machine else None)
        node = deployed.slice_node(partition.profile)
        gpu = gpus[0].name if len(gpus) == 1 else None
    elif machine is not None:
        node, gpu = release.node_of(machine, shared.gpu_by_name[machine.gpu]), machine.gpu
    if node is None:
        return None
    estimate = release.parallelism(row, node, kaito, max_model_len=proposal.max_model_len)
    return Sized(row, estimate, gpu, machine, partition is not None)


def kaito_start(
    proposal: Proposal,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    *,
    without_lmcache: bool = False,
    max_num_seqs: int | None = None,
) -> Launch | None:
    """The start that the profile's KAITO makes of a proposal; None where it cannot be told.

    Args:
        proposal: names the instance type, and what the ConfigMap holds.
        facts: of the model.
        shared: instance types and GPUs.
        profile: the release.
        without_lmcache: whether the ConfigMap switches LMCache off, where the proposal says nothing of it.
        max_num_seqs: what the ConfigMap sets for a hybrid, where the proposal says nothing of it.
    """
    kaito = release.release_of(profile)
    sized = sized_by_kaito(proposal, facts, shared, kaito)
    runtime = serving_runtime(proposal)
    if sized is None or (runtime is not None and runtime.name != "vllm"):
        return None
    if sized.is_refused:
        return None
    try:
        options = vllm_options(proposal, runtime, max_num_seqs=max_num_seqs) if runtime else {}
    except InexpressibleError:
        return None
    keys = manifests.kaito_keys(proposal, without_lmcache=without_lmcache)
    config = LaunchConfig(options, keys.get("kv_cache_cpu_memory_utilization"))
    place = LaunchPlace(sized.estimate, profile.utilization(sized.gpu), is_mig=sized.is_slice)
    adapters = (proposal.deployment.adapters if proposal.deployment else None) or ()
    manifest = LaunchManifest(
        adapters=tuple(adapter.name for adapter in adapters),
        performance_mode=deployed.performance_mode(proposal.deployment),
    )
    return launch(sized.row, kaito, place, manifest, config)


@dataclass(frozen=True)
class Windows:
    """A model whose windows are cached like full layers under LMCache."""

    with_lmcache: Layout
    without: Layout
    max_model_len: int
    """The model's own limit."""

    def bytes_with(self, tokens: int) -> int:
        """What vLLM asks to be free on each GPU for one request of that many tokens, with LMCache."""
        return self.with_lmcache.pool_bytes(tokens)

    def bytes_without(self, tokens: int) -> int:
        """The same with the hybrid KV cache manager."""
        return self.without.pool_bytes(tokens)


def harm_of_lmcache(facts: ModelFacts, start: Launch, vllm_version: str) -> Windows | Unplannable | None:
    """What LMCache does to a model: keeps it from starting, has its windows cached like full layers, or nothing.

    Its connector does not support vLLM's hybrid KV cache manager (SupportsHMA), and vLLM switches that off then
    (vllm/config/vllm.py).

    Args:
        facts: of the model.
        start: says how it is split.
        vllm_version: whose planner is followed.

    Returns:
        None where nothing changes; `Unplannable` with `refused` where vLLM does not start, without where it is unknown.
    """
    shape = facts_shape(facts)
    if isinstance(shape, Unsupported):
        return Unplannable(shape.reason)
    built = as_built(shape, vllm_version)
    states = states_per_sequence(built, vllm_version)
    if isinstance(states, Unplannable):
        return states

    tensor, pipeline = start.count("tensor-parallel-size"), start.count("pipeline-parallel-size")
    if tensor is None or pipeline is None or pipeline > len(built.layers):
        return Unplannable("the parallel sizes of the options are none that vLLM takes")

    def layout(*, hybrid_kv_cache_manager: bool) -> Layout | Unplannable:
        found = plan_layout(
            built,
            tensor_parallel_size=tensor,
            stages=stages(len(built.layers), pipeline),
            kv_cache_dtype=start.value("kv-cache-dtype") or "auto",
            in_flight_tokens=_BATCH_TOKENS * batches_in_flight(vllm_version),
            states=states,
            hybrid_kv_cache_manager=hybrid_kv_cache_manager,
        )
        return found if isinstance(found, Unplannable) else found[0]

    without, with_lmcache = layout(hybrid_kv_cache_manager=True), layout(hybrid_kv_cache_manager=False)
    if isinstance(without, Unplannable):
        return without
    if isinstance(with_lmcache, Unplannable):
        return with_lmcache
    return None if with_lmcache == without else Windows(with_lmcache, without, shape.max_model_len)


def needs_no_lmcache(proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile) -> bool:
    """Whether the ConfigMap has to switch LMCache off: it would be attached, and harm the model."""
    start = kaito_start(proposal, facts, shared, profile)
    if start is None or facts is None or not start.uses_lmcache:
        return False
    harm = harm_of_lmcache(facts, start, profile.vllm_version)
    return isinstance(harm, Windows) or (harm is not None and harm.refused is not None)

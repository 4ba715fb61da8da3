"""The GPUs and the context that a proposal asks for, and the memory plans of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.checks.base import MOST_GPUS_OF_A_CLAIM, NO_FACTS, Context, Skip, Subject
from kaito_catalog.formats.hardware import Gpu
from kaito_catalog.formats.proposal import Proposal, known_count, known_size
from kaito_catalog.kaito import deployed
from kaito_catalog.kaito.release import declared, release_of
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.plan import make_plan, smallest_gpu_count
from kaito_catalog.memory.values import Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.instance_types import place_with, slice_gpus
from kaito_catalog.plans.kaito_start import sized_by_kaito
from kaito_catalog.plans.start import DEFAULT_MAX_MODEL_LEN, Start, served_parallelism, start_of
from kaito_catalog.quantity import GIB, Quantity, gb

# The brochure's figure is met by 80GB as well as by 80GiB (7 % more): people write both for the same card.
SAME_CARD = 0.08


@dataclass(frozen=True)
class Asked:
    """The GPUs and the context that a proposal asks for, as far as a plan can be made of them."""

    shape: Shape
    request: PlanRequest
    """On the first of `gpus`."""
    count: int
    each: Quantity
    gpus: tuple[PlanGpu, ...]
    """The cards that the claim may mean, with what the driver reports."""
    measured: bool
    """False: that figure is not published, and the memory of `gpus` is what the card cannot exceed."""
    own_utilization: bool

    @property
    def settings(self) -> Settings:
        """What vLLM is started with."""
        return self.request.settings

    def plans(self, settings: Settings) -> list[Plan]:
        return [make_plan(replace(self.request, gpu=gpu, settings=settings)) for gpu in self.gpus]

    def at(self, utilization: float) -> Settings:
        return replace(self.settings, gpu_memory_utilization=utilization)

    def smallest(
        self, settings: Settings, most: int | None = None, *, allow_tight: bool = True
    ) -> int | None:
        """The GPUs that are enough on every card the claim may mean; None where not even `most` are (the claimed).

        With `allow_tight`, a plan that may not fit counts as one that fits.
        """
        most = min(most or self.count, MOST_GPUS_OF_A_CLAIM)
        counts = [
            smallest_gpu_count(
                replace(self.request, gpu=gpu, settings=settings), most=most, allow_tight=allow_tight
            )
            for gpu in self.gpus
        ]
        return None if None in counts else max(count for count in counts if count is not None)


def claimed_per_gpu(proposal: Proposal) -> Quantity | None:
    """The memory of each GPU that a proposal claims, divided out of the total where only that is given."""
    requirements = proposal.requirements
    each = known_size(requirements.per_gpu_memory)
    total = known_size(requirements.total_gpu_memory)
    count = known_count(requirements.gpu_count)
    if each is not None or total is None or count is None:
        return each
    return total if count == 1 else Quantity(gb(total.bytes // count), total.bytes // count)


def cards_of(claimed: Quantity, instance_type: str | None, shared: Shared) -> tuple[Gpu, ...]:
    """The GPUs that a claim such as 80GB speaks of: that of the instance type, else all rented ones of that memory."""
    machine = shared.instance_type(instance_type) if instance_type else None
    rented = {shared.gpu_by_name[other.gpu].name for other in shared.instance_types}
    gpus = [shared.gpu_by_name[machine.gpu]] if machine else [g for g in shared.gpus if g.name in rented]

    def distance(gpu: Gpu) -> float:
        return abs(gpu.nominal_memory.bytes - claimed.bytes) / max(claimed.bytes, 1)

    near = [gpu for gpu in gpus if gpu.vllm and distance(gpu) <= SAME_CARD]
    if not near:
        return () if machine is None else cards_of(claimed, None, shared)
    closest = min(distance(gpu) for gpu in near)
    return tuple(gpu for gpu in near if distance(gpu) == closest)


def _gpus(proposal: Proposal, each: Quantity, shared: Shared) -> tuple[Sequence[PlanGpu], Sequence[PlanGpu]]:
    """The cards, or slices of cards, that are meant: as the driver reports them, and with what they cannot exceed."""
    name = proposal.deployment.instance_type if proposal.deployment else None
    partition = deployed.partition_of(proposal.deployment)
    node = deployed.slice_node(partition.profile) if partition else None
    if partition is not None and node is not None:
        machine = shared.instance_type(name) if name else None
        slices = slice_gpus(shared, partition.profile, machine.gpu if machine else None)
        # A profile is named after more than it has: 3g.40gb has 39.5 GiB at most.
        at_most = [replace(found, memory_bytes=node.gpu_memory_bytes) for found in slices]
        return [found for found in slices if found.memory_bytes], at_most
    cards = cards_of(each, name, shared)
    machine = shared.instance_type(name) if name else None
    own = machine.memory_bytes if machine else None
    reported = [
        PlanGpu(card.name, own or card.memory_bytes, card.compute_capability)
        for card in cards
        if card.memory_bytes
    ]
    # A card sold as 16GB never has more than 16 GiB: good enough to say that something does not fit.
    return reported, [PlanGpu(card.name, card.nominal_memory.bytes * GIB // 10**9, None) for card in cards]


def _request(
    subject: Subject, context: Context, start: Start, gpu: PlanGpu, count: int
) -> PlanRequest | None:
    """What is asked of a plan: KAITO's start where it is on the claimed GPUs, else tensor parallelism over them.

    None where the sizes that the options give do not make that number.
    """
    sized = sized_by_kaito(subject.proposal, subject.facts, context.shared, release_of(context.profile))
    nodes, of_one = (sized.estimate.nodes, sized.node.gpu_count) if sized else (1, count)
    is_kaitos = nodes is not None and nodes * of_one == count and not (sized and sized.is_refused)
    place = replace(place_with(context.shared, gpu), gpu_count=of_one if is_kaitos else count)
    if sized is not None and is_kaitos:  # the machine counts, also where the claim is another
        place = replace(place, node=sized.node)
    started = start.on(place, nodes=nodes if is_kaitos else 1)
    own = served_parallelism(subject.proposal, count)
    if splits_by_options(subject.proposal) and own is None:
        return None
    if own is None or (is_kaitos and sized is not None and not splits_by_options(subject.proposal)):
        return started.request
    request = started.request
    if request.parallelism.world_size != own.world_size or request.parallelism.data_parallel_size > 1:
        request = start.request(request.shape, request.stored, gpu)
    experts = own.enable_expert_parallel or started.request.parallelism.enable_expert_parallel
    return replace(request, parallelism=replace(own, enable_expert_parallel=experts))


def claimed_split(subject: Subject, context: Context, count: int) -> Parallelism | None:
    """How the model is split over the GPUs that are claimed; None where the sizes of the options do not make them."""
    each = claimed_per_gpu(subject.proposal)
    if each is None or splits_by_options(subject.proposal):
        return served_parallelism(subject.proposal, count)
    length = subject.proposal.max_model_len or DEFAULT_MAX_MODEL_LEN
    start = start_of(subject.proposal, subject.facts, context.shared, context.profile, max_model_len=length)
    gpu = next(chain(*_gpus(subject.proposal, each, context.shared)), PlanGpu(None, each.bytes))
    request = _request(subject, context, start, gpu, count)
    return None if request is None else request.parallelism


def splits_by_options(proposal: Proposal) -> bool:
    """Whether the options of a proposal give a parallel size."""
    return any(f"{kind}-parallel-size" in declared(proposal) for kind in ("tensor", "pipeline", "data"))


def asked_of(subject: Subject, context: Context, *, max_model_len: int | None = None) -> Asked | Skip:
    """What the proposal asks for, at its own context or another."""
    proposal = subject.proposal
    if proposal.vllm is None:
        names = ", ".join(runtime.name for runtime in proposal.runtimes or ()) or "none"
        return Skip(f"the memory plan is vLLM's; the proposal's runtimes are: {names}")
    count = known_count(proposal.requirements.gpu_count)
    each = claimed_per_gpu(proposal)
    if count is None or each is None:
        return Skip("the proposal does not say how many GPUs of which size", "add gpuCount and perGPUMemory")
    max_model_len = max_model_len or proposal.max_model_len
    if max_model_len is None:
        return Skip("the proposal does not say for which context", "add requirements.contextLength")
    shape = subject.shape
    if subject.facts is None or shape is None:
        return NO_FACTS
    if isinstance(shape, Unsupported):
        return Skip(shape.reason)
    reported, at_most = _gpus(proposal, each, context.shared)
    gpus = tuple(reported or at_most) or (PlanGpu(None, each.bytes),)
    start = start_of(proposal, subject.facts, context.shared, context.profile, max_model_len=max_model_len)
    request = _request(subject, context, start, gpus[0], count)
    if request is None:
        return Skip(f"the parallel sizes of the options do not make {count} GPUs", "see RUN006")
    sizes = request.parallelism
    illegal = illegal_tensor_parallel(
        shape,
        sizes.tensor_parallel_size,
        enable_expert_parallel=sizes.enable_expert_parallel,
        vllm_version=context.profile.vllm_version,
    )
    if illegal:
        size = sizes.tensor_parallel_size
        return Skip(f"{size} is not a possible tensor_parallel_size for this model: {illegal}", "see RUN001")
    return Asked(
        shape=shape,
        request=request,
        count=count,
        each=each,
        gpus=gpus,
        measured=bool(reported) or not at_most,
        own_utilization=start.options.get("gpu_memory_utilization") is not None,
    )

"""The start that KAITO makes of a model on given machines, as a plan reads it, and what LMCache does to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kaito_catalog.architectures import Drafter, Shape, Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import deployed, estimator, manifests, model_catalog, release
from kaito_catalog.kaito.estimator import Estimate, Node
from kaito_catalog.kaito.launch import Launch, LaunchConfig, LaunchManifest, LaunchPlace, launch
from kaito_catalog.kaito.release import Release, Row
from kaito_catalog.memory.environment import pairs
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, states_per_sequence
from kaito_catalog.memory.plan import make_plan, resolved_settings
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings, Stored
from kaito_catalog.memory.weights.split import stages
from kaito_catalog.plans.given_options import GivenOptions, parallelism_in, read_config
from kaito_catalog.plans.instance_types import facts_shape, place_of, plan_gpu, slice_gpus
from kaito_catalog.plans.started import NodeGpus, Started
from kaito_catalog.quantity import GIB

NO_SIZES = "the parallel sizes of the options are none that vLLM takes"


@dataclass(frozen=True)
class KaitoModel:
    """A model as a KAITO release starts it: its entry of KAITO's catalog, and the ConfigMap on top."""

    kaito: Release
    row: Row
    config: LaunchConfig
    manifest: LaunchManifest = field(default_factory=LaunchManifest)
    switches_lmcache_off: bool = False
    """Whether the ConfigMap does so because LMCache would harm the model."""
    notes: tuple[str, ...] = ()
    """What of this is not as KAITO would have it, in sentences."""

    def estimate(self, node: Node, *, max_model_len: int, nodes: int | None = None) -> Estimate:
        """Nodes and split; `nodes` is a number that somebody else chose."""
        if nodes is not None:
            return estimator.with_nodes(node, release.need_of(self.row), nodes)
        return release.parallelism(self.row, node, self.kaito, max_model_len=max_model_len)


@dataclass(frozen=True)
class Described:
    """What is known of a model: by its facts, or by a folder with its configuration."""

    name: str
    """Of the repository, or of the folder."""
    config: Mapping[str, object]
    """config.json."""
    shape: Shape | Unsupported
    stored: Stored | None
    """The size of its weight files, where known."""
    size_bytes: int | None = None
    """The same without what a rounded figure leaves open."""
    is_mistral: bool = False
    """Whether the files are in Mistral's own format."""

    @classmethod
    def by(cls, facts: ModelFacts | None) -> Described:
        """By the facts of a catalog entry."""
        if facts is None:
            return cls("", {}, Unsupported("there is no facts.yaml", None), None)
        weights = facts.weights
        is_mistral = weights is not None and weights.format == "mistral"
        total = weights.total if weights else None
        size = total.size_bytes if total else None
        return cls(facts.repo_id, facts.config or {}, facts_shape(facts), total, size, is_mistral)


def kaito_model(
    model: Described, kaito: Release, config: LaunchConfig, vllm_version: str
) -> KaitoModel | Unplannable:
    """A model as a release starts it, or why nothing can be said.

    Where nobody recorded the size of the weight files, what vLLM makes of them is taken.
    """
    notes: tuple[str, ...] = ()
    size = model.size_bytes
    if size is None:
        size = _computed_size(model.shape, vllm_version)
        notes = (
            "the size of the weight files is not recorded: KAITO's split is that of the computed weights",
        )
    row, missing = model_catalog.launch_row(
        model.name, model.config, size, kaito, is_mistral=model.is_mistral
    )
    if row is None:
        return Unplannable(f"how KAITO sizes the model is not known: the facts lack {', '.join(missing)}")
    return KaitoModel(kaito, row, config, notes=notes)


def _computed_size(shape: Shape | Unsupported, vllm_version: str) -> int | None:
    if isinstance(shape, Unsupported):
        return None
    any_gpu = PlanGpu(None, 2**50)
    plan = make_plan(PlanRequest(shape, gpu=any_gpu, settings=Settings(1, 1.0), vllm_version=vllm_version))
    return plan.per_gpu.weights_bytes if plan.per_gpu else None


def start_on(
    model: KaitoModel,
    place: NodeGpus,
    profile: Profile,
    *,
    described: Described,
    max_model_len: int,
    vllm_version: str,
    nodes: int | None = None,
    draft: Drafter | Unsupported | None = None,
) -> Started:
    """What KAITO starts on nodes of that kind.

    Args:
        model: as KAITO knows it.
        place: one node.
        profile: the release's utilization.
        described: the model, of which the plan is made.
        max_model_len: the context, which the ConfigMap names.
        vllm_version: of the image.
        nodes: how many there are; None leaves it to KAITO.
        draft: what guesses tokens, where something is known of it.
    """
    config = replace(model.config, vllm={**model.config.vllm, "max-model-len": max_model_len})
    node = _node(place)
    estimate = model.estimate(node, max_model_len=max_model_len, nodes=nodes)
    share = profile.utilization(place.gpu.name)
    where = LaunchPlace(estimate, share, is_mig=place.is_slice)
    found = launch(model.row, model.kaito, where, model.manifest, config)
    options = {a.name: a.value for a in found.arguments if not a.name.startswith("kaito-")}
    given = read_config(options)
    parallelism = parallelism_in(options)
    request = PlanRequest(
        described.shape,
        described.stored,
        gpu=place.gpu,
        parallelism=parallelism or Parallelism(),
        settings=settings_of(
            given, max_model_len=max_model_len, utilization=share, draft=draft, environment=found.environment
        ),
        vllm_version=vllm_version,
    )
    problems = [
        *_no_room(model.kaito, estimate, place, max_model_len),
        *_of_options(given, request, found.nodes * place.gpu_count, parallelism is None),
    ]
    shape = described.shape
    limit = shape.max_model_len if isinstance(shape, Shape) else max_model_len
    return Started(
        f"kaito-{model.kaito.name}",
        str(model.row["name"]),
        found.vllm_arguments(),
        found.environment,
        place,
        request,
        nodes=found.nodes,
        host_memory_share=found.cpu_memory_utilization if found.uses_lmcache else 0.0,
        without_effect=given.without_effect_on(request),
        launch=found,
        problems=tuple(problems),
        notes=(*_notes(model, found, estimate, node, request), *model.notes),
        longest_on_these_nodes=None
        if nodes is not None or estimate.nodes is None
        else estimator.longest_on(
            node, release.need_of(model.row), model.kaito.sizing, estimate.nodes, limit=limit
        ),
    )


def _no_room(kaito: Release, estimate: Estimate, place: NodeGpus, max_model_len: int) -> list[Refusal]:
    """Why KAITO starts nothing."""
    if estimate.nodes is not None and not (place.is_slice and estimate.nodes > 1):
        return []
    words = f"KAITO {kaito.name}'s formula finds no room on {place.name} for the weights and {max_model_len:,} tokens"
    return [Refusal(Fit.NO, "nodes", f"{words}, and starts nothing")]


def settings_of(
    given: GivenOptions,
    *,
    max_model_len: int,
    utilization: float,
    draft: Drafter | Unsupported | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """What vLLM is started with, where the options say nothing of the utilization at the one given.

    `environment` is what the starter sets, beneath what is given.
    """
    variables = pairs({**(environment or {}), **dict(given.environment)})
    start = Settings(
        max_model_len, utilization, draft=draft, environment=variables, unplanned=given.unplanned
    )
    return replace(start, **{option.attribute: value for option, value in given.planned})  # type: ignore[arg-type]


def _node(place: NodeGpus) -> Node:
    if place.node is not None:
        return replace(
            place.node,
            gpu_memory_bytes=place.node.gpu_memory_bytes // place.node.gpu_count * place.gpu_count,
            gpu_count=place.gpu_count,
        )
    nominal = -(-(place.gpu.memory_bytes or 0) // GIB) * GIB
    return Node(nominal * place.gpu_count, place.gpu_count, place.gpu.name)


def _of_options(
    given: GivenOptions, request: PlanRequest, gpu_count: int, has_no_split: bool
) -> list[Refusal]:
    """Why vLLM would not start with the options, apart from memory."""
    found = [Refusal(Fit.NO, "settings", problem) for problem in given.problems]
    if has_no_split:
        found.append(Refusal(Fit.NO, "parallelism", NO_SIZES))
    return [*found, *too_few_gpus(request.parallelism, gpu_count)]


def too_few_gpus(sizes: Parallelism, gpu_count: int) -> list[Refusal]:
    """Why the parallel sizes cannot be had on that many GPUs."""
    if sizes.world_size <= gpu_count:
        return []
    words = " × ".join(
        f"{name}-parallel-size {size}"
        for name, size in (
            ("tensor", sizes.tensor_parallel_size),
            ("pipeline", sizes.pipeline_parallel_size),
            ("data", sizes.data_parallel_size),
        )
        if size > 1
    )
    ask = "asks" if " × " not in words else "ask"
    reason = f"{words} {ask} for {sizes.world_size} GPUs, and there {'is' if gpu_count == 1 else 'are'} {gpu_count}"
    return [Refusal(Fit.NO, "parallelism", reason)]


def _notes(
    model: KaitoModel, found: Launch, estimate: Estimate, node: Node, request: PlanRequest
) -> tuple[str, ...]:
    """What is not plain from the split: copies, nodes, LMCache."""
    kaito, notes = f"KAITO {model.kaito.name}", []
    if estimate.data_parallel_size > 1:
        notes.append(f"a copy on each of {estimate.data_parallel_size} GPUs")
    own = model.estimate(node, max_model_len=request.settings.max_model_len).nodes
    if own is not None and own != found.nodes:
        notes.append(f"by itself {kaito} starts {own} node{'s' if own > 1 else ''} for that context")
    elif found.nodes > 1:
        notes.append(f"{kaito} starts {found.nodes} nodes, one pipeline stage each")
    if found.uses_lmcache and isinstance(harm_of_lmcache(request), Windows):
        notes.append(
            "LMCache switches vLLM's hybrid KV cache manager off: windows are cached like full layers"
        )
    elif model.config.kv_cache_cpu_memory_utilization == 0 and model.switches_lmcache_off:
        notes.append("the ConfigMap switches LMCache off, which would harm this model (KTO010)")
    return tuple(notes)


def machine_of(proposal: Proposal, shared: Shared) -> InstanceType | None:
    """The instance type that a proposal names, where it is known."""
    name = proposal.deployment.instance_type if proposal.deployment else None
    return shared.instance_type(name) if name and not is_missing(name) else None


@dataclass(frozen=True)
class Sized:
    """A model on the machine or slice of a proposal, as KAITO counts it."""

    row: Row
    """The model as KAITO lists it."""
    estimate: Estimate
    """The nodes and the split that KAITO chooses."""
    node: Node
    """What it counts with."""
    gpu: str | None
    """As `plan_gpu` takes it; None where a slice may be of several GPUs."""
    machine: InstanceType | None
    """None for a slice whose machine nobody named."""
    is_slice: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether KAITO's formula finds no room: at all, or on the one slice that there is."""
        return self.estimate.nodes is None or (self.is_slice and self.estimate.nodes > 1)

    def place(self, shared: Shared) -> NodeGpus | None:
        """The GPUs of one node; None where it is not known of which GPU the slice is."""
        if self.gpu is None:
            return None
        if self.machine is not None and not self.is_slice:
            return place_of(shared, self.machine)
        gpu = plan_gpu(shared, self.gpu)
        return NodeGpus(gpu, 1, self.machine, self.node, is_slice=self.is_slice)


def sized_by_kaito(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, kaito: Release
) -> Sized | None:
    """The model on the proposal's instance type or slice.

    None where the facts do not make an entry of KAITO's catalog, or the instance type is not known.
    """
    row = model_catalog.row(facts, kaito)[0] if facts else None
    machine = machine_of(proposal, shared)
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
    return Sized(row, estimate, node, gpu, machine, partition is not None)


def manifest_of(proposal: Proposal) -> LaunchManifest:
    """What the manifest of a proposal says beside preset and ConfigMap."""
    adapters = (proposal.deployment.adapters if proposal.deployment else None) or ()
    return LaunchManifest(
        adapters=tuple(adapter.name for adapter in adapters),
        performance_mode=deployed.performance_mode(proposal.deployment),
    )


def config_of(
    proposal: Proposal,
    *,
    max_num_seqs: int | None = None,
    without_lmcache: bool = False,
) -> tuple[LaunchConfig, str | None]:
    """The ConfigMap of a proposal, and why KAITO could not be given it.

    Args:
        proposal: what is served.
        max_num_seqs: what a hybrid needs, where the proposal sets none.
        without_lmcache: whether LMCache is switched off, where the proposal says nothing of it.
    """
    runtime = manifests.serving_runtime(proposal)
    options: Mapping[str, object] = {}
    problem = None
    if runtime is not None and runtime.name == "vllm":
        try:
            options = manifests.vllm_options(proposal, runtime, max_num_seqs=max_num_seqs)
        except manifests.InexpressibleError as error:
            problem = f"KAITO's ConfigMap cannot carry the options: {error}"
            options = {name: value for name, (_, value) in release.declared(proposal).items()}
    keys = manifests.kaito_keys(proposal, without_lmcache=without_lmcache)
    return LaunchConfig(options, keys.get("kv_cache_cpu_memory_utilization")), problem


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


def harm_of_lmcache(request: PlanRequest) -> Windows | Unplannable | None:
    """What LMCache does to a model: keeps it from starting, has its windows cached like full layers, or nothing.

    Its connector does not support vLLM's hybrid KV cache manager (SupportsHMA), and vLLM switches that off then
    (vllm/config/vllm.py).

    Args:
        request: the start, whatever it says of LMCache.

    Returns:
        None where nothing changes; `Unplannable` with `refused` where vLLM does not start, without where it is unknown.
    """
    shape, version, sizes = request.shape, request.vllm_version, request.parallelism
    if isinstance(shape, Unsupported):
        return Unplannable(shape.reason)
    built = as_built(shape, version, request.gpu.compute_capability)
    states = states_per_sequence(built, version)
    if isinstance(states, Unplannable):
        return states
    if sizes.pipeline_parallel_size > len(built.layers):
        return Unplannable("the parallel sizes of the options are none that vLLM takes")
    batch = resolved_settings(request.settings, request.gpu, version).max_num_batched_tokens
    assert batch is not None

    def layout(*, hybrid_kv_cache_manager: bool) -> Layout | Unplannable:
        found = plan_layout(
            built,
            tensor_parallel_size=sizes.tensor_parallel_size,
            stages=stages(len(built.layers), sizes.pipeline_parallel_size),
            kv_cache_dtype=request.settings.kv_cache_dtype,
            in_flight_tokens=batch * batches_in_flight(version),
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


def is_harmed(shape: Shape | Unsupported, row: Row, kaito: Release, vllm_version: str) -> bool:
    """Whether LMCache would cost a model context, or keep it from starting, on a machine where KAITO attaches it."""
    one_gpu = LaunchPlace(Estimate(1, 1, 1, 1, 1), 1.0)
    if not launch(row, kaito, one_gpu, LaunchManifest(), LaunchConfig()).uses_lmcache:
        return False
    gpu = PlanGpu("NVIDIA A100 80GB", 80 * GIB, 8.0)
    harm = harm_of_lmcache(PlanRequest(shape, gpu=gpu, settings=Settings(1, 1.0), vllm_version=vllm_version))
    return isinstance(harm, Windows) or (harm is not None and harm.refused is not None)

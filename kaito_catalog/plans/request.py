"""What `plan` was asked on the command line: find the model, choose GPUs and context, make the plans."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_entry, shown
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.addresses import address_in, name_in_catalog, refuse_another
from kaito_catalog.memory.kv_cache.layers import CACHE_DTYPE_BYTES
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.option_kinds import number
from kaito_catalog.memory.plan import smallest_gpu_count
from kaito_catalog.memory.values import Parallelism, Plan, PlanGpu, Stored
from kaito_catalog.near_names import near_names, nearest
from kaito_catalog.plans.folders import configuration_of, described_in
from kaito_catalog.plans.given_options import GivenOptions, own_options, parallelism_in
from kaito_catalog.plans.instance_types import (
    InstanceTypePlan,
    instance_type_plans,
    place_of,
    place_with,
    plan_gpu,
)
from kaito_catalog.plans.kaito_start import Described, KaitoModel
from kaito_catalog.plans.serve_options import ServeOptions
from kaito_catalog.plans.speculation import draft_of
from kaito_catalog.plans.start import DEFAULT_MAX_MODEL_LEN, Engine, Start, manifest_options, start_of
from kaito_catalog.plans.started import Started
from kaito_catalog.quantity import gib
from kaito_catalog.vllm_bridge.reference import known, versions
from kaito_catalog.vllm_bridge.versions import newest, parsed


@dataclass(frozen=True)
class PlanArguments:
    """The arguments of `plan`; None is "not given"."""

    model: str
    instance_type: str | None = None
    gpu: str | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_used_bytes: int = 0
    compute_capability: float | None = None
    gpu_count: int | None = None
    node_count: int | None = None
    max_model_len: int | None = None
    options: GivenOptions = field(default_factory=GivenOptions)
    """vLLM's options, which win over the proposal's."""
    engine: Engine = "kaito"
    serve: ServeOptions | None = None
    """Options of a command line of `vllm serve`, which win over all others."""
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    weights_bytes: int | None = None
    draft_config: str | None = None
    """A folder with the configuration of the drafter that `speculative-config` names, or that file."""
    vllm_version: str | None = None
    is_whole: bool = False
    """Whether `serve` is all of a command line that somebody wrote, so that no proposal adds to it."""

    @property
    def names_a_gpu(self) -> bool:
        """Whether one plan is asked for, and not a comparison of instance types."""
        return bool(self.instance_type or self.gpu or self.gpu_memory_bytes)

    @property
    def names_a_split(self) -> bool:
        """Whether a parallel size is asked for."""
        return bool(
            self.tensor_parallel_size or self.pipeline_parallel_size > 1 or self.data_parallel_size > 1
        )

    def wanted(self, gpu_count: int | None) -> dict[str, str]:
        """What vLLM is asked for beside `options`, as a ConfigMap has it; over that many GPUs where they are known.

        Raises:
            CatalogError: the sizes contradict each other.
        """
        found = {}
        if self.names_a_split:
            others = self.pipeline_parallel_size * self.data_parallel_size
            tensor = self.tensor_parallel_size
            if tensor is None:
                if (gpu_count or others) % others:
                    raise CatalogError(
                        f"{gpu_count} GPUs cannot be split into {others} groups",
                        hint="pipeline × data parallel size has to divide the number of GPUs",
                    )
                tensor = (gpu_count or others) // others
            elif gpu_count is not None and tensor * others > gpu_count:
                raise CatalogError(f"{tensor * others} GPUs are asked for, there are {gpu_count}")
            found = {
                "tensor-parallel-size": str(tensor),
                "pipeline-parallel-size": str(self.pipeline_parallel_size),
                "data-parallel-size": str(self.data_parallel_size),
            }
        if self.enable_expert_parallel:
            found["enable-expert-parallel"] = ""
        return found | (dict(self.serve.as_config()) if self.serve else {})


@dataclass(frozen=True)
class PlanSubject:
    """The model of a plan."""

    name: str
    shape: Shape | Unsupported
    stored: Stored | None
    max_model_len_reason: str
    start: Start
    """How vLLM is started: as asked, else as the proposal's manifests do it."""
    options: GivenOptions = field(default_factory=GivenOptions)
    """What the manifests start vLLM with, where nothing else is asked for."""
    own_options: GivenOptions = field(default_factory=GivenOptions)
    """Those of them that the proposal itself sets."""
    is_of_catalog: bool = False
    """Whether it has a proposal, and manifests of it."""
    proposal: Proposal | None = None
    facts: ModelFacts | None = None

    @property
    def max_model_len(self) -> int:
        """The context, in tokens."""
        return self.start.max_model_len


def read_subject(
    request: PlanArguments,
    root: Path,
    *,
    shared: Shared,
    profile: Profile,
    written: Proposal | None = None,
    facts: ModelFacts | None = None,
) -> PlanSubject:
    """The model that was named: an entry of the catalog, its repository id, or a folder with a config.json.

    Args:
        request: names the model, and may name its weights and context.
        root: the catalog.
        shared: what the catalog knows of GPUs and instance types.
        profile: the release whose manifests are meant.
        written: what stands for the proposal of the catalog, with the ConfigMap as it is.
        facts: of that proposal, whose model need not be in the catalog.

    Raises:
        CatalogError: there is no such model, or its files cannot be read.
    """
    stored = (
        StoredSize.model_validate({"sizeBytes": request.weights_bytes}) if request.weights_bytes else None
    )
    if written is not None and facts is not None:
        name = written.metadata.name
        found = _by_facts(request, name, written, facts, stored, shared, profile, as_written=True)
        return replace(found, start=_with_draft(found.start, request, root))
    folder = Path(request.model)
    if folder.name in ("config.json", "params.json") and folder.is_file():
        folder = folder.parent
    if (folder / "config.json").is_file() or (folder / "params.json").is_file():
        described = described_in(folder, stored)
        found = _subject(
            request, described.name, described, written, None, shared, profile, written is not None
        )
        return replace(found, start=_with_draft(found.start, request, root))
    address = address_in(request.model)
    name = name_in_catalog(request.model)
    entry_folder = root / "models" / name
    if not name or not (entry_folder / "proposal.yaml").is_file():
        raise CatalogError(
            f"'{request.model[:80]}' is neither in the catalog nor a folder with a config.json or params.json",
            hint=_near_models(root, name)
            or f"the models are in {shown(root / 'models')}; for another one, put the config.json of its repository "
            "into a folder and name that",
        )
    entry = read_entry(entry_folder)
    if entry.proposal is None or entry.problems:
        first = entry.problems[0]
        raise CatalogError(f"{first.place}: {first.message}", hint=f"run 'kaito-catalog check {name}'")
    refuse_another(address, entry.proposal.repo_id, entry.proposal.requirements.version)
    proposal = written or (None if request.is_whole else entry.proposal)
    as_written = written is not None
    found = _by_facts(request, name, proposal, entry.facts, stored, shared, profile, as_written=as_written)
    return replace(found, start=_with_draft(found.start, request, root))


def _by_facts(
    request: PlanArguments,
    name: str,
    proposal: Proposal | None,
    facts: ModelFacts | None,
    stored: StoredSize | None,
    shared: Shared,
    profile: Profile,
    *,
    as_written: bool,
) -> PlanSubject:
    described = Described.by(facts)
    if stored is not None:
        described = replace(described, stored=stored, size_bytes=stored.size_bytes)
    return _subject(request, name, described, proposal, facts, shared, profile, as_written)


def _subject(
    request: PlanArguments,
    name: str,
    described: Described,
    proposal: Proposal | None,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    as_written: bool,
) -> PlanSubject:
    version = _version(request, profile)
    dtype = request.options.get("kv_cache_dtype")
    _check_cache_dtype(None if dtype is None else str(dtype), version)
    length, reason = _choose_context(request, described.shape, proposal)
    start = start_of(
        proposal,
        facts,
        shared,
        profile,
        max_model_len=length,
        asked=request.options,
        serve=request.wanted(_gpu_count(request, shared)),
        vllm_version=version,
        engine=request.engine,
        described=described,
        as_written=as_written,
        is_whole=request.is_whole,
    )
    return PlanSubject(
        name,
        described.shape,
        described.stored,
        reason,
        start,
        own_options=own_options(proposal),
        options=manifest_options(proposal, facts, shared, profile) if proposal else GivenOptions(),
        is_of_catalog=proposal is not None and not as_written,
        proposal=proposal,
        facts=facts,
    )


def _with_draft(start: Start, request: PlanArguments, root: Path) -> Start:
    text = start.options.get("speculative_config")
    given = None if request.draft_config is None else configuration_of(Path(request.draft_config))
    return replace(start, draft=draft_of(None if text is None else str(text), given, root))


def _choose_context(
    request: PlanArguments, shape: Shape | Unsupported, proposal: Proposal | None
) -> tuple[int, str]:
    own = number(request.serve.get("max-model-len")) if request.serve else None
    if own is not None:
        return int(own), "as asked"
    if request.is_whole and isinstance(shape, Shape) and request.max_model_len is None:
        if request.serve and request.serve.get("max-model-len"):
            return min(
                DEFAULT_MAX_MODEL_LEN, shape.max_model_len
            ), "auto: vLLM takes the longest that fits, below"
        return shape.max_model_len, "the model's own limit, as vLLM takes where nothing is said"
    if request.max_model_len:
        return request.max_model_len, "as asked"
    if proposal and proposal.max_model_len:
        return proposal.max_model_len, "the proposal's context"
    if isinstance(shape, Shape) and shape.max_model_len <= DEFAULT_MAX_MODEL_LEN:
        return shape.max_model_len, "the model's own limit"
    return DEFAULT_MAX_MODEL_LEN, "chosen here: nothing was asked for"


def _near_models(root: Path, name: str) -> str | None:
    names = sorted(folder.name for folder in (root / "models").glob("*") if folder.is_dir())
    near = nearest(name, names)
    return f"did you mean {near}?" if near else None


def _near_instance_types(asked: str, shared: Shared) -> str:
    near = shared.near_instance_types(asked)
    instead = "name the GPU instead: --gpu 'NVIDIA H100 80GB' --gpu-count 4"
    return f"did you mean {' or '.join(near)}? Or {instead}" if near else instead


def _gpu(request: PlanArguments, shared: Shared) -> tuple[PlanGpu, int | None]:
    """The GPU that was asked for, and how many the instance type has."""
    if request.instance_type:
        machine = shared.instance_type(request.instance_type)
        if machine is None:
            raise CatalogError(
                f"instance-types.yaml has no '{request.instance_type[:60]}'",
                hint=_near_instance_types(request.instance_type, shared),
            )
        gpu, count = place_of(shared, machine).gpu, machine.gpu_count
    elif request.gpu:
        gpu, count = plan_gpu(shared, request.gpu), None
        if gpu.memory_bytes is None and request.gpu_memory_bytes is None:
            known = [g.name for g in shared.gpus if g.memory_bytes]
            near = near_names(request.gpu, known)
            words = f"did you mean {' or '.join(near)}?" if near else f"name one of: {', '.join(known)}."
            raise CatalogError(
                f"how much memory '{request.gpu[:60]}' has is not known",
                hint=f"{words} Or give it with --gpu-memory GIB, as the driver reports it",
            )
    else:
        gpu, count = PlanGpu(None, request.gpu_memory_bytes), None
    if request.gpu_memory_bytes:
        gpu = replace(gpu, memory_bytes=request.gpu_memory_bytes)
    if request.compute_capability:
        gpu = replace(gpu, compute_capability=request.compute_capability)
    if gpu.memory_bytes is not None and request.gpu_memory_used_bytes > gpu.memory_bytes:
        raise CatalogError(
            f"others cannot hold {gib(request.gpu_memory_used_bytes)} of a GPU with {gib(gpu.memory_bytes)}",
            hint="--gpu-memory-used is a count of GiB on each GPU, as nvidia-smi shows it before vLLM starts",
        )
    return replace(gpu, used_bytes=request.gpu_memory_used_bytes), count


MOST_GPUS_TRIED_FOR = 64


def fewest_gpus(request: PlanArguments, subject: PlanSubject, shared: Shared) -> int | None:
    """The fewest of the GPUs that was asked for that are enough, split by tensor parallelism; None: none of 1 to 64."""
    gpu, _ = _gpu(request, shared)
    asked = subject.start.request(subject.shape, subject.stored, gpu)
    return smallest_gpu_count(asked, most=MOST_GPUS_TRIED_FOR)


def how_read(request: PlanArguments, subject: PlanSubject, shared: Shared) -> tuple[str, ...]:
    """What was taken for granted of the GPU that was asked for: which card a short name means, and how many."""
    if request.instance_type:
        return ()
    found = []
    meant = shared.gpus_called(request.gpu) if request.gpu else ()
    if len(meant) > 1:
        others = " and ".join(gpu.name for gpu in meant[1:])
        found.append(
            f"'{request.gpu}' is read as {meant[0].name}, which has the least memory of that name; "
            f"there is also {others}"
        )
    if request.names_a_gpu and request.gpu_count is None and request.tensor_parallel_size is None:
        groups = request.pipeline_parallel_size * request.data_parallel_size
        enough = fewest_gpus(request, subject, shared) if groups == 1 else None
        more = f"; {enough} would be enough" if enough is not None and enough > 1 else ""
        one = "one GPU" if groups == 1 else f"{groups} GPUs, one for each stage and copy"
        found.append(f"planned on {one}{more}: --gpu-count N plans others")
    return tuple(found)


def newest_vllm() -> str:
    """The newest vLLM that has been read: a later one is planned by its rules."""
    return newest(versions())


def _version(request: PlanArguments, profile: Profile) -> str:
    """The vLLM to plan for.

    Raises:
        CatalogError: what was asked for has not the form of a version.
    """
    asked = request.vllm_version and request.vllm_version.removeprefix("v")
    if asked and parsed(asked) is None:
        raise CatalogError(
            f"'{asked[:40]}' is not a version of vLLM",
            hint=f"such as {profile.vllm_version}, which {profile.name} runs, or {newest_vllm()}",
        )
    return asked or profile.vllm_version


def _check_cache_dtype(asked: str | None, vllm_version: str) -> None:
    """Nothing, where vLLM has the dtype: one that it has and that is not planned makes the plan unknown.

    Raises:
        CatalogError: vLLM has no such dtype.
    """
    if asked is None or asked in CACHE_DTYPE_BYTES:
        return
    read = known(vllm_version) or known(newest_vllm())
    wanted = read.options["kv-cache-dtype"].wants(asked) if read else None
    if wanted is not None:
        raise CatalogError(f"vLLM has no kv-cache-dtype '{asked[:40]}'", hint=wanted)


def _gpu_count(request: PlanArguments, shared: Shared) -> int | None:
    """The GPUs that there are in all; None where nothing says how many."""
    machine = shared.instance_type(request.instance_type) if request.instance_type else None
    of_one = request.gpu_count or (machine.gpu_count if machine else None)
    return None if of_one is None else of_one * (request.node_count or 1)


def start_one(request: PlanArguments, subject: PlanSubject, shared: Shared) -> Started:
    """What is started on the GPUs that were asked for.

    Without a count, the GPUs of the instance type are used, or else as many as the parallel sizes ask for: one where
    nothing is said.

    Raises:
        CatalogError: the GPU or the instance type is not known, or the sizes contradict each other.
    """
    gpu, of_the_machine = _gpu(request, shared)
    machine = shared.instance_type(request.instance_type) if request.instance_type else None
    sizes = parallelism_in(subject.start.config) or Parallelism()
    nodes = request.node_count or (None if machine else 1)
    count = request.gpu_count or of_the_machine or -(-sizes.world_size // (nodes or 1))
    place = replace(place_of(shared, machine), gpu=gpu) if machine else place_with(shared, gpu)
    place = replace(place, gpu_count=count)
    start = subject.start
    is_open = not start.is_whole and "tensor-parallel-size" not in start.config
    if not isinstance(start.kaito, KaitoModel) and is_open:
        # All GPUs, also where vLLM refuses that: `_with_legal_size` then says how many it takes.
        rest = max(count // (sizes.pipeline_parallel_size * sizes.data_parallel_size), 1)
        start = replace(start, config={**start.config, "tensor-parallel-size": str(rest)})
    return start.on(place, nodes=nodes)


def plan_one(request: PlanArguments, subject: PlanSubject, shared: Shared) -> Plan:
    """The plan on the GPUs that were asked for; see `start_one`."""
    return plan_of(start_one(request, subject, shared), request, subject)


def plan_of(started: Started, request: PlanArguments, subject: PlanSubject) -> Plan:
    """The plan of a start; where all GPUs of a node are refused, how many vLLM takes."""
    plan = started.plan
    return plan if request.tensor_parallel_size else _with_legal_size(plan, subject)


MOST_GPUS_TRIED = 128
"""More than any node has: from here down a legal size is sought when a node's own count is refused."""


def _with_legal_size(plan: Plan, subject: PlanSubject) -> Plan:
    """A refusal of all GPUs of a node also says how many of them vLLM would take."""
    sizes = plan.parallelism
    if (
        plan.limited_by != "parallelism"
        or plan.per_gpu is not None
        or not isinstance(subject.shape, Shape)
        or sizes.tensor_parallel_size < 2
    ):
        return plan
    for size in range(min(sizes.tensor_parallel_size - 1, MOST_GPUS_TRIED), 0, -1):
        illegal = illegal_tensor_parallel(
            subject.shape,
            size,
            enable_expert_parallel=sizes.enable_expert_parallel,
            vllm_version=plan.vllm_version,
        )
        if illegal is None:
            words = f"{plan.reason}; --tensor-parallel-size {size} uses {size} of the GPUs"
            return replace(plan, reason=words)
    return plan


def plan_all(
    subject: PlanSubject, shared: Shared, *, region: str | None = None
) -> tuple[InstanceTypePlan, ...]:
    """The plan on every instance type, those that fit first, smallest first; with the prices of a region."""
    return instance_type_plans(shared, subject.start.on, region=region)


def smallest(rows: tuple[InstanceTypePlan, ...]) -> InstanceTypePlan | None:
    """The first of which one node serves the context for certain."""
    return next((row for row in rows if row.is_certain), None)

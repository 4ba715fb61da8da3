"""How vLLM is started for a model: the one way from a proposal, its manifests and a command line to a `PlanRequest`.

Checks, plans, manifests, pages and dry runs ask `start_of`; `Start.on` gives the command line on a machine. By default
it is the one that the profile's KAITO makes of the generated manifests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kaito_catalog.architectures import Drafter, Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import release
from kaito_catalog.kaito.launch import Launch, LaunchConfig
from kaito_catalog.kaito.manifests import serving_runtime
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.option_kinds import number
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings, Stored
from kaito_catalog.plans.given_options import (
    GivenOptions,
    implied_options,
    own_options,
    parallelism_in,
    read_config,
)
from kaito_catalog.plans.instance_types import plain_start
from kaito_catalog.plans.kaito_start import (
    NO_SIZES,
    Described,
    KaitoModel,
    config_of,
    is_harmed,
    kaito_model,
    manifest_of,
    settings_of,
    sized_by_kaito,
    start_on,
    too_few_gpus,
)
from kaito_catalog.plans.started import NodeGpus, Started
from kaito_catalog.vllm_bridge.reference import known, versions
from kaito_catalog.vllm_bridge.versions import newest

Engine = Literal["kaito", "vllm"]
NOT_DESCRIBED = Described.by(None)


@dataclass(frozen=True)
class Start:
    """A start of vLLM, apart from the machine."""

    options: GivenOptions
    profile: Profile
    max_model_len: int
    vllm_version: str
    described: Described = NOT_DESCRIBED
    """The model."""
    config: Mapping[str, str] = field(default_factory=dict)
    """The options as plain vLLM is given them: name to value, an empty text for a switch."""
    kaito: KaitoModel | Unplannable | None = None
    """As KAITO starts it, or why that is not known; None is plain vLLM."""
    draft: Drafter | Unsupported | None = None
    """What the drafter of `speculative-config` is, where something is known of it."""
    is_whole: bool = False
    """Whether `config` is all of a command line: what it leaves open is vLLM's own default."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Those of `config` that win over the proposal's."""
    notes: tuple[str, ...] = ()

    def settings(self, gpu: str | None) -> Settings:
        """What vLLM is started with on a GPU of that name in gpus.yaml; None where it has none."""
        return settings_of(
            self.options,
            max_model_len=self.max_model_len,
            utilization=self._utilization(gpu),
            draft=self.draft,
        )

    def _utilization(self, gpu: str | None) -> float:
        if not self.is_whole:
            return self.profile.utilization(gpu)
        read = known(self.vllm_version) or known(newest(versions()))
        default = number(read.options["gpu-memory-utilization"].default) if read else None
        return float(default or 0.9)

    def request(
        self,
        shape: Shape | Unsupported,
        stored: Stored | None,
        gpu: PlanGpu,
        parallelism: Parallelism | None = None,
    ) -> PlanRequest:
        """What is asked of a plan on that GPU."""
        return PlanRequest(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=parallelism or Parallelism(),
            settings=self.settings(gpu.name),
            vllm_version=self.vllm_version,
        )

    def on(self, place: NodeGpus, *, nodes: int | None = None) -> Started:
        """The command line on nodes of that kind, and what a plan of it depends on.

        Args:
            place: one node.
            nodes: how many; None leaves it to KAITO, and is one for plain vLLM.
        """
        if isinstance(self.kaito, KaitoModel):
            found = start_on(
                self.kaito,
                place,
                self.profile,
                described=self.described,
                max_model_len=self.max_model_len,
                vllm_version=self.vllm_version,
                nodes=nodes,
                draft=self.draft,
            )
            return replace(found, notes=(*found.notes, *self.notes))
        return self._plain(place, nodes or 1)

    def _plain(self, place: NodeGpus, nodes: int) -> Started:
        """Plain vLLM; what KAITO cannot size is started so, and the notes say it."""
        settings = self.settings(place.gpu.name)
        config = {
            **self.config,
            "max-model-len": str(self.max_model_len),
            "gpu-memory-utilization": f"{settings.gpu_memory_utilization:g}",
        }
        given = parallelism_in(self.config)
        split = None
        if given is None or given != Parallelism() or nodes > 1 or self.is_whole:
            sizes = given or Parallelism()
            pipeline = (
                sizes.pipeline_parallel_size if self.is_whole else max(sizes.pipeline_parallel_size, nodes)
            )
            rest = max(place.gpu_count * nodes // (pipeline * sizes.data_parallel_size), 1)
            is_given = self.is_whole or "tensor-parallel-size" in self.config
            tensor = sizes.tensor_parallel_size if is_given else rest
            split = replace(sizes, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
        found = plain_start(
            place,
            self.described.shape,
            self.described.stored,
            settings=settings,
            vllm_version=self.vllm_version,
            model=self.described.name,
            options=config,
            parallelism=split,
        )
        problems = [Refusal(Fit.NO, "settings", words) for words in self.options.problems]
        if given is None:
            problems.append(Refusal(Fit.NO, "parallelism", NO_SIZES))
        if self.is_whole:
            problems += too_few_gpus(found.request.parallelism, place.gpu_count * nodes)
        unknown = (self.kaito.reason,) if isinstance(self.kaito, Unplannable) else ()
        return replace(
            found,
            without_effect=self.options.without_effect_on(found.request),
            problems=tuple(problems),
            notes=(*found.notes, *unknown, *self.notes),
        )


def start_of(
    proposal: Proposal | None,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    *,
    max_model_len: int,
    asked: GivenOptions | None = None,
    serve: Mapping[str, str] | None = None,
    vllm_version: str | None = None,
    engine: Engine = "kaito",
    described: Described | None = None,
    as_written: bool = False,
    is_whole: bool = False,
) -> Start:
    """How the generated manifests start vLLM, or somebody who asks for other options.

    Args:
        proposal: whose options are taken; None where there is none.
        facts: what is recorded of its repository.
        shared: the GPUs and instance types.
        profile: the release of KAITO, whose utilization and vLLM are meant where nothing else is asked for.
        max_model_len: the context, in tokens.
        asked: options that win over the proposal's.
        serve: further options, which win over all: name to value, an empty text for a switch.
        vllm_version: None is the profile's.
        engine: whether KAITO starts it, or plain `vllm serve`.
        described: the model, where it is not by the facts.
        as_written: with the ConfigMap that the proposal writes, without what the generated one adds.
        is_whole: whether `serve` is all of a command line of plain vLLM.
    """
    wanted = {**(asked.as_config() if asked else {}), **(serve or {})}
    count = max_num_seqs(proposal, facts, shared, profile) if proposal and not as_written else None
    config = {**(_declared(proposal, count) if proposal else {}), **wanted}
    start = Start(
        read_config(config),
        profile,
        max_model_len,
        vllm_version or profile.vllm_version,
        described or Described.by(facts),
        config,
        is_whole=is_whole,
        asked=wanted,
    )
    if asked is not None and asked.environment:
        start = replace(start, options=replace(start.options, environment=asked.environment))
    if engine == "vllm" or (described is None and facts is None):
        return start
    return _with_kaito(start, proposal, wanted, max_num_seqs=count, as_written=as_written)


def _with_kaito(
    start: Start,
    proposal: Proposal | None,
    wanted: Mapping[str, str],
    *,
    max_num_seqs: int | None = None,
    as_written: bool = False,
) -> Start:
    """The start as KAITO makes it of the generated manifests.

    Args:
        start: plain vLLM's.
        proposal: whose ConfigMap is taken; None where there is none.
        wanted: options that win over the ConfigMap's.
        max_num_seqs: what the ConfigMap sets for a hybrid, where the proposal says nothing of it.
        as_written: whether LMCache stays where it harms.
    """
    runtime = serving_runtime(proposal) if proposal else None
    if runtime is not None and runtime.name != "vllm":
        words = f"KAITO's choices are for vLLM, and the proposal serves with {runtime.name}"
        return replace(start, kaito=Unplannable(words))
    kaito, version = release_of(start.profile), start.vllm_version
    found = kaito_model(start.described, kaito, LaunchConfig(), version)
    if isinstance(found, Unplannable):
        return replace(start, kaito=found)
    harmed = not as_written and is_harmed(start.described.shape, found.row, kaito, version)
    if proposal is not None:
        config, problem = config_of(proposal, max_num_seqs=max_num_seqs, without_lmcache=harmed)
        found = replace(found, manifest=manifest_of(proposal))
    else:
        config, problem = LaunchConfig(kv_cache_cpu_memory_utilization=0 if harmed else None), None
    options = {**config.vllm, **wanted}
    return replace(
        start,
        kaito=replace(found, config=replace(config, vllm=options), switches_lmcache_off=harmed),
        notes=(*start.notes, *([problem] if problem else [])),
    )


def _declared(proposal: Proposal, count: int | None) -> dict[str, str]:
    """The options of the generated ConfigMap: the proposal's, and `max_num_seqs` if need be."""
    runtime = proposal.vllm
    found: dict[str, str] = {}
    if runtime is not None:
        found = implied_options(proposal)  # the ConfigMap comes last, and wins
    for name, value in ((runtime.config if runtime else None) or {}).items():
        written = name.replace("_", "-")
        if value is False:
            found[f"no-{written}"] = ""
        else:
            found[written] = "" if value is True else value if isinstance(value, str) else json.dumps(value)
    if count is not None:
        found.setdefault("max-num-seqs", str(count))
    return found


def needs_no_lmcache(proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile) -> bool:
    """Whether the ConfigMap has to switch LMCache off: it would be attached, and harm the model."""
    if facts is None:
        return False
    found = start_of(proposal, facts, shared, profile, max_model_len=1).kaito
    return isinstance(found, KaitoModel) and is_harmed(
        Described.by(facts).shape, found.row, found.kaito, profile.vllm_version
    )


def manifest_options(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> GivenOptions:
    """The options of the generated ConfigMap: the proposal's, and `max_num_seqs` if need be."""
    count = max_num_seqs(proposal, facts, shared, profile)
    return own_options(proposal).over(GivenOptions.of({"max_num_seqs": count}))


def on_its_machine(
    proposal: Proposal,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    *,
    as_written: bool = False,
) -> Started | None:
    """The start that KAITO makes of a proposal on its instance type or slice; None where it cannot be told.

    Args:
        proposal: what is served.
        facts: of the model.
        shared: the GPUs and instance types.
        profile: the release of KAITO.
        as_written: with the ConfigMap that the proposal writes, without what the generated one adds.
    """
    sized, length = sized_by_kaito(proposal, facts, shared, release_of(profile)), proposal.max_model_len
    place = sized.place(shared) if sized else None
    if place is None:
        return None
    length = length or DEFAULT_MAX_MODEL_LEN
    start = start_of(proposal, facts, shared, profile, max_model_len=length, as_written=as_written)
    if not isinstance(start.kaito, KaitoModel):
        return None
    return start.on(place)


DEFAULT_MAX_MODEL_LEN = 8192
"""The context of a plan where none is asked for, at most the model's own limit."""


def generated_start(
    proposal: Proposal,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    *,
    as_written: bool = False,
) -> Launch | None:
    """The same, each argument with who set it; None too where KAITO makes no start. See `on_its_machine`."""
    found = on_its_machine(proposal, facts, shared, profile, as_written=as_written)
    return None if found is None or any(p.limited_by == "nodes" for p in found.problems) else found.launch


def max_num_seqs(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> int | None:
    """The requests at once that a hybrid model can hold on the proposal's instance type, as KAITO splits it.

    vLLM stops where the states of a hybrid outnumber the blocks of the cache. The count is a power of two, as vLLM's
    CUDA graphs are made for. None where the default serves, where the proposal sets the option itself, or where no
    plan can be made.
    """
    sized, length = sized_by_kaito(proposal, facts, shared, release_of(profile)), proposal.max_model_len
    place = sized.place(shared) if sized and not sized.is_refused else None
    if facts is None or place is None or length is None or "max-num-seqs" in release.declared(proposal):
        return None
    config = _declared(proposal, None)
    plain = Start(read_config(config), profile, length, profile.vllm_version, Described.by(facts), config)
    start = _with_kaito(plain, proposal, {})
    if not isinstance(start.kaito, KaitoModel):
        return None
    request = start.on(place).request
    plan = make_plan(request)
    if plan.limited_by != "maxNumSeqs" or plan.settings.max_num_seqs is None:
        return None
    count = 1 << (plan.settings.max_num_seqs.bit_length() - 1)
    while count > 1:
        count //= 2
        found = make_plan(replace(request, settings=replace(request.settings, max_num_seqs=count)))
        if found.fits in (Fit.YES, Fit.TIGHT) and found.limited_by != "maxNumSeqs":
            return count
    return None


def engine_arguments(settings: Settings) -> dict[str, Any]:
    """vLLM's engine arguments for the settings, without parallelism; what they leave to vLLM is left to it here."""
    values = {option: getattr(settings, option.attribute) for option in PLANNED}
    given = {
        option.attribute: option.kind.for_engine(value)
        for option, value in values.items()
        if value != option.unset
    }
    return {"max_model_len": settings.max_model_len, **given}


def served_parallelism(proposal: Proposal, gpu_count: int) -> Parallelism | None:
    """How the proposal's vLLM runtime splits the model over `gpu_count` GPUs: tensor parallelism over all by default.

    None where the sizes that its options give do not make that number.
    """
    config = {
        name.replace("_", "-"): value
        for name, value in ((proposal.vllm and proposal.vllm.config) or {}).items()
    }
    sizes = {name: number(config.get(f"{name}-parallel-size")) for name in ("tensor", "pipeline", "data")}
    pipeline, data = int(sizes["pipeline"] or 1), int(sizes["data"] or 1)
    tensor = int(sizes["tensor"] or 0) or gpu_count // max(pipeline * data, 1)
    experts = config.get("enable-expert-parallel", "false")
    found = Parallelism(tensor, pipeline, data, str(experts).lower() != "false")
    return found if found.world_size == gpu_count and min(tensor, pipeline, data) > 0 else None

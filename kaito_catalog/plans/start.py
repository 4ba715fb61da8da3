"""How vLLM is started for a model: the one way from a proposal, its manifests and a command line to a `PlanRequest`.

Checks, plans, manifests, pages and dry runs ask `start_of`. What KAITO's own start (`kaito_start`) adds belongs there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from kaito_catalog.architectures import Drafter, Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal, Runtime
from kaito_catalog.kaito import deployed, release
from kaito_catalog.kaito.launch import Launch
from kaito_catalog.memory.option_kinds import OBJECT, Value, number
from kaito_catalog.memory.options import PLANNED, PlannedOption
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.unplanned_options import UnplannedOption, is_unplanned
from kaito_catalog.memory.values import (
    EngineOptions,
    Fit,
    Parallelism,
    PlanGpu,
    PlanRequest,
    Settings,
    Stored,
)
from kaito_catalog.plans.instance_types import plan_gpu, request_for_facts
from kaito_catalog.plans.kaito_start import kaito_start, needs_no_lmcache, sized_by_kaito
from kaito_catalog.vllm_bridge.reference import known, versions

_BY_NAME = {option.name: option for option in PLANNED}
_BY_NEGATION = {option.negation: option for option in PLANNED if option.negation is not None}


@dataclass(frozen=True)
class GivenOptions:
    """The options that somebody sets; the others are left to the release and to vLLM."""

    planned: tuple[tuple[PlannedOption, Value], ...] = ()
    """In the order of `PLANNED`."""
    unplanned: tuple[UnplannedOption, ...] = ()
    """Others that change what memory holds, and their values."""

    @classmethod
    def of(cls, values: EngineOptions | Mapping[str, object]) -> GivenOptions:
        """Keywords or parsed arguments, by the names of `Settings`; None is "not given"."""
        found = cast("Mapping[str, Value | None]", values)
        return cls(tuple((o, v) for o in PLANNED if (v := found.get(o.attribute)) is not None))

    def get(self, attribute: str) -> Value | None:
        """The value of the option with that name in `Settings`; None where it is not set."""
        return next((value for option, value in self.planned if option.attribute == attribute), None)

    def over(self, other: GivenOptions) -> GivenOptions:
        """These, and the other's where nothing is set here."""
        values = {option.attribute: value for option, value in (*other.planned, *self.planned)}
        return replace(GivenOptions.of(values), unplanned=self.unplanned or other.unplanned)

    def words(self) -> tuple[str, ...]:
        """Those that are set, as on the command line without dashes: `max-num-seqs 16`."""
        planned = tuple(f"{option.name} {value}" for option, value in self.planned)
        return planned + tuple(f"{name} {value}" for name, value in self.unplanned)

    def used_by(self, settings: Settings) -> GivenOptions:
        """Those that the settings took over."""
        planned = tuple((o, v) for o, v in self.planned if getattr(settings, o.attribute) == v)
        return GivenOptions(planned, self.unplanned if self.unplanned == settings.unplanned else ())


@dataclass(frozen=True)
class Start:
    """A start of vLLM, apart from the machine."""

    options: GivenOptions
    profile: Profile
    max_model_len: int
    vllm_version: str
    draft: Drafter | Unsupported | None = None
    """What the drafter of `speculative-config` is, where something is known of it."""

    def settings(self, gpu: str | None) -> Settings:
        """What vLLM is started with on a GPU of that name in gpus.yaml; None where it has none."""
        start = Settings(
            self.max_model_len,
            self.profile.utilization(gpu),
            draft=self.draft,
            unplanned=self.options.unplanned,
        )
        given = {option.attribute: value for option, value in self.options.planned}
        return replace(start, **given)  # type: ignore[arg-type]

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


def start_of(
    proposal: Proposal | None,
    facts: ModelFacts | None,
    shared: Shared,
    profile: Profile,
    *,
    max_model_len: int,
    asked: GivenOptions | None = None,
    vllm_version: str | None = None,
) -> Start:
    """How the generated manifests start vLLM, or somebody who asks for other options.

    Args:
        proposal: whose options are taken; None where there is none.
        facts: what is recorded of its repository.
        shared: the GPUs and instance types.
        profile: the release of KAITO, whose utilization and vLLM are meant where nothing else is asked for.
        max_model_len: the context, in tokens.
        asked: options that win over the proposal's.
        vllm_version: None is the profile's.
    """
    own = manifest_options(proposal, facts, shared, profile) if proposal else GivenOptions()
    return Start(
        (asked or GivenOptions()).over(own), profile, max_model_len, vllm_version or profile.vllm_version
    )


def manifest_options(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> GivenOptions:
    """The options of the generated ConfigMap: the proposal's, and `max_num_seqs` if need be."""
    count = max_num_seqs(proposal, facts, shared, profile)
    return own_options(proposal).over(GivenOptions.of({"max_num_seqs": count}))


def generated_start(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> Launch | None:
    """The start that KAITO makes of the generated manifests; None where it cannot be told."""
    return kaito_start(
        proposal,
        facts,
        shared,
        profile,
        without_lmcache=needs_no_lmcache(proposal, facts, shared, profile),
        max_num_seqs=max_num_seqs(proposal, facts, shared, profile),
    )


def own_options(proposal: Proposal | None) -> GivenOptions:
    """The options of a proposal's vLLM runtime, and those that its deployment stands for; none without a runtime."""
    runtime = proposal.vllm if proposal else None
    if proposal is None or runtime is None:
        return GivenOptions()
    implied: dict[str, str] = {}
    if proposal.deployment and proposal.deployment.adapters:
        implied["enable-lora"] = ""
    if deployed.performance_mode(proposal.deployment) != deployed.BALANCED:
        implied["performance-mode"] = deployed.performance_mode(proposal.deployment)
    if not implied:
        return read_options(runtime)
    # The ConfigMap comes last, and wins.
    return read_options(runtime.model_copy(update={"config": {**implied, **(runtime.config or {})}}))


def read_options(runtime: Runtime | None) -> GivenOptions:
    """The options of a runtime, whether written with dashes or underscores.

    A value of the wrong kind is as good as absent here: that it is wrong is what the check RUN002 says.
    """
    planned: dict[str, Value] = {}
    unplanned: list[UnplannedOption] = []
    for key, value in with_short_forms((runtime.config if runtime else None) or {}).items():
        name = key.replace("_", "-")
        if name in _BY_NAME:
            option = _BY_NAME[name]
            found = option.kind.read(value)
            if found is not None:
                planned[option.attribute] = found
        elif name in _BY_NEGATION:
            option = _BY_NEGATION[name]
            if option.kind.read(value) is not None:
                planned[option.attribute] = False
        elif is_unplanned(name) and not _is_default(name, value):
            unplanned.append((name, value if isinstance(value, str) else json.dumps(value)))
    return replace(GivenOptions.of(planned), unplanned=tuple(unplanned))


_SHORT_FORMS = {"spec_method": "method", "spec_model": "model", "spec_tokens": "num_speculative_tokens"}


def with_short_forms(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options with `spec-method`, `spec-model` and `spec-tokens` as the keys of `speculative-config` that they are."""
    found: dict[str, Any] = {}
    short: dict[str, Any] = {}
    for key, value in config.items():
        into = _SHORT_FORMS.get(key.replace("-", "_"))
        (found if into is None else short)[into or key] = value
    if not short:
        return found
    name = next((key for key in found if key.replace("_", "-") == "speculative-config"), "speculative-config")
    own = OBJECT.read(found.get(name))
    given = json.loads(own) if isinstance(own, str) else {}
    return {**found, name: {**short, **given}}


def max_num_seqs(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> int | None:
    """The requests at once that a hybrid model can hold on the proposal's instance type, as KAITO splits it.

    vLLM stops where the states of a hybrid outnumber the blocks of the cache. The count is a power of two, as vLLM's
    CUDA graphs are made for. None where the default serves, where the proposal sets the option itself, or where no
    plan can be made.
    """
    sized = sized_by_kaito(proposal, facts, shared, release.release_of(profile))
    length = proposal.max_model_len
    if facts is None or sized is None or length is None or "max-num-seqs" in release.declared(proposal):
        return None
    if sized.gpu is None or sized.is_refused:
        return None
    split = sized.estimate
    start = Start(own_options(proposal), profile, length, profile.vllm_version)
    request = request_for_facts(
        facts,
        gpu=plan_gpu(shared, sized.gpu),
        parallelism=Parallelism(
            split.tensor_parallel_size, split.pipeline_parallel_size, split.data_parallel_size
        ),
        settings=start.settings(sized.gpu),
        vllm_version=start.vllm_version,
    )
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


def _is_default(option: str, value: object) -> bool:
    """Whether every vLLM that has been read and has the option does that by itself."""
    read = [version.options.get(option) for version in map(known, versions()) if version is not None]
    defaults = [found.default for found in read if found is not None]
    return bool(defaults) and all(_same(default, value) for default in defaults)


def _same(default: object, value: object) -> bool:
    as_number = number(default)
    if as_number is not None:
        return number(value) == as_number
    return default is not None and str(default).lower() == str(value).lower()

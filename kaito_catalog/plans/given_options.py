"""Options of vLLM that somebody sets → what a plan reads of them, what makes it unknown, what changes nothing and why.

Every way in (a proposal, KAITO's start, the command line, a library's keywords) is read here, so that each option is
planned, shown to change nothing, or named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from kaito_catalog.architectures import Unsupported
from kaito_catalog.formats.proposal import Proposal, Runtime
from kaito_catalog.kaito import deployed
from kaito_catalog.memory.environment import pairs
from kaito_catalog.memory.harmless_options import why_harmless
from kaito_catalog.memory.no_effect import Situation
from kaito_catalog.memory.option_kinds import OBJECT, SWITCH, Value, number
from kaito_catalog.memory.options import PLANNED, PlannedOption
from kaito_catalog.memory.unplanned_options import UnplannedOption, is_unplanned, without_effect
from kaito_catalog.memory.values import EngineOptions, Parallelism, PlanRequest, Settings
from kaito_catalog.vllm_bridge.reference import known, versions

_BY_NAME = {option.name: option for option in PLANNED}
_BY_NEGATION = {option.negation: option for option in PLANNED if option.negation is not None}
_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
_EXPERTS = "enable-expert-parallel"
_CONTEXT = "max-model-len"
_MODEL = "model"
_AS_BY_DEFAULT = "it is what vLLM does by itself"


@dataclass(frozen=True)
class WithoutEffect:
    """An option that a plan leaves out."""

    name: str
    value: str
    reason: str
    """Why a GPU's memory does not depend on it; completes "it …"."""


@dataclass(frozen=True)
class GivenOptions:
    """The options that somebody sets; the others are left to the release and to vLLM."""

    planned: tuple[tuple[PlannedOption, Value], ...] = ()
    """In the order of `PLANNED`."""
    unplanned: tuple[UnplannedOption, ...] = ()
    """Others that change what memory holds, and their values."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of vLLM's environment."""
    without_effect: tuple[WithoutEffect, ...] = ()
    """Others that change nothing."""
    problems: tuple[str, ...] = ()
    """Why vLLM would not take the options, one sentence each."""

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
        mine = {name for name, _ in self.unplanned} | {found.name for found in self.without_effect}
        return replace(
            GivenOptions.of(values),
            unplanned=(*self.unplanned, *(o for o in other.unplanned if o[0] not in mine)),
            without_effect=(*self.without_effect, *(o for o in other.without_effect if o.name not in mine)),
            problems=(*self.problems, *other.problems),
            environment=pairs({**dict(other.environment), **dict(self.environment)}),
        )

    def without_effect_on(self, request: PlanRequest) -> tuple[WithoutEffect, ...]:
        """Those that change nothing, and those that change nothing for what is planned."""
        if isinstance(request.shape, Unsupported):
            return self.without_effect
        situation = Situation(
            request.shape,
            replace(request.settings, unplanned=self.unplanned),
            request.vllm_version,
            request.parallelism,
            request.gpu.compute_capability,
        )
        found = (WithoutEffect(*of_model) for of_model in without_effect(situation))
        return (*self.without_effect, *found)

    def as_config(self) -> dict[str, str]:
        """Those that plans read, as a ConfigMap of KAITO's has them: an empty text for a switch."""
        switches = {True: "", False: ""}
        return {
            (option.negation if value is False and option.negation else option.name): switches[value]
            if isinstance(value, bool)
            else str(value)
            for option, value in self.planned
        }

    def words(self) -> tuple[str, ...]:
        """Those that are set, as on the command line without dashes: `max-num-seqs 16`."""
        planned = tuple(f"{option.name} {value}" for option, value in self.planned)
        return planned + tuple(f"{name} {value}" for name, value in self.unplanned)

    def used_by(self, settings: Settings) -> GivenOptions:
        """Those that the settings took over."""
        planned = tuple((o, v) for o, v in self.planned if getattr(settings, o.attribute) == v)
        return GivenOptions(planned, self.unplanned if self.unplanned == settings.unplanned else ())


def own_options(proposal: Proposal | None) -> GivenOptions:
    """The options of a proposal's vLLM runtime, and those that its deployment stands for; none without a runtime."""
    runtime = proposal.vllm if proposal else None
    if proposal is None or runtime is None:
        return GivenOptions()
    # The ConfigMap comes last, and wins.
    return read_config({**implied_options(proposal), **(runtime.config or {})})


def implied_options(proposal: Proposal) -> dict[str, str]:
    """What adapters and performance mode of a deployment become on vLLM's command line."""
    implied: dict[str, str] = {}
    if proposal.deployment and proposal.deployment.adapters:
        implied["enable-lora"] = ""
    mode = deployed.performance_mode(proposal.deployment)
    if mode != deployed.BALANCED:
        implied["performance-mode"] = mode
    return implied


def read_options(runtime: Runtime | None) -> GivenOptions:
    """The options of a runtime, whether written with dashes or underscores."""
    return read_config((runtime.config if runtime else None) or {})


def read_config(config: Mapping[str, object]) -> GivenOptions:
    """The options of a `vllm:` block, or of a command line: name to value, an empty text for a switch.

    What vLLM does not take is as good as absent, and among the problems; in a proposal the checks of RUN say it.
    """
    planned: dict[str, Value] = {}
    unplanned: list[UnplannedOption] = []
    without: list[WithoutEffect] = []
    problems: list[str] = []
    for name, value in with_json(config).items():
        option = _BY_NAME.get(name)
        text = value if isinstance(value, str) else json.dumps(value)
        if option is not None:
            found = option.kind.read(value)
            if found is not None:
                planned[option.attribute] = found
            elif option.kind is SWITCH and text == "false":
                without.append(WithoutEffect(name, text, _AS_BY_DEFAULT))
            else:
                problems.append(f"vLLM does not take {name} {text[:40]}")
        elif name in _BY_NEGATION:
            off = _BY_NEGATION[name]
            if off.kind.read(value) is not None:
                planned[off.attribute] = False
        elif is_unplanned(name):
            if _is_default(name, value):
                without.append(WithoutEffect(name, text, _AS_BY_DEFAULT))
            else:
                unplanned.append((name, text))
        elif name not in (*_SIZES, _EXPERTS, _CONTEXT, _MODEL):
            positive = name.removeprefix("no-")
            reason = why_harmless(positive)
            if reason is not None:
                without.append(WithoutEffect(name, text, reason))
            elif _is_default(positive, "false"):
                without.append(WithoutEffect(name, text, _AS_BY_DEFAULT))
            elif is_unplanned(positive):
                unplanned.append((positive, "false"))
            else:
                problems.append(f"vLLM has no option {name[:60]}")
    return replace(
        GivenOptions.of(planned),
        unplanned=tuple(unplanned),
        without_effect=tuple(without),
        problems=tuple(problems),
    )


def parallelism_in(
    config: Mapping[str, object], *, tensor_parallel_size: int | None = None
) -> Parallelism | None:
    """The parallel sizes that options give.

    Args:
        config: as for `read_config`.
        tensor_parallel_size: where the options say nothing of it; None is vLLM's default of 1.

    Returns:
        None where one of them is no size.
    """
    plain = with_json(config)
    found: list[int] = []
    for name, default in zip(_SIZES, (tensor_parallel_size or 1, 1, 1), strict=True):
        size = number(plain[name]) if name in plain else default
        if size is None or size != int(size) or size < 1:
            return None
        found.append(int(size))
    experts = str(plain.get(_EXPERTS, "false")).lower() != "false" and f"no-{_EXPERTS}" not in plain
    tensor, pipeline, data = found
    return Parallelism(tensor, pipeline, data, experts)


def with_json(config: Mapping[str, object]) -> dict[str, object]:
    """Names with dashes, and the keys of a JSON option (`compilation-config.mode`) as one object.

    vLLM appends that object to the command line, so that it replaces what the option says in one piece.
    """
    plain: dict[str, object] = {}
    keys: dict[str, dict[str, Any]] = {}
    for written, value in with_short_forms(config).items():
        name, dot, path = written.partition(".")
        name = name.replace("_", "-")
        if not dot:
            plain[name] = value
            continue
        *outer, last = path.split(".")
        into = keys.setdefault(name, {})
        for key in outer:
            into = into.setdefault(key, {})
        into[last] = value
    return plain | {name: json.dumps(found) for name, found in keys.items()}


_SHORT_FORMS = {"spec_method": "method", "spec_model": "model", "spec_tokens": "num_speculative_tokens"}


def with_short_forms(config: Mapping[str, object]) -> dict[str, object]:
    """Options with `spec-method`, `spec-model` and `spec-tokens` as the keys of `speculative-config` that they are."""
    found: dict[str, object] = {}
    short: dict[str, object] = {}
    for key, value in config.items():
        into = _SHORT_FORMS.get(key.replace("-", "_"))
        (found if into is None else short)[into or key] = value
    if not short:
        return found
    name = next((key for key in found if key.replace("_", "-") == "speculative-config"), "speculative-config")
    own = OBJECT.read(found.get(name))
    given = json.loads(own) if isinstance(own, str) else {}
    return {**found, name: {**short, **given}}


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

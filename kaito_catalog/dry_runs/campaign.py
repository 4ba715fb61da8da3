"""Which dry runs a catalog lacks, on which instance types, in which order, and how many GPU-hours they may take.

A run is idempotent: the same revision, configuration, vLLM, GPU, parallelism and settings have the same `key` and
give one evidence file. What has current evidence is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Shape
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.checks.base import Context, Subject
from kaito_catalog.checks.evd import stale_because
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.addresses import address_in, name_in_catalog, refuse_another
from kaito_catalog.kaito.manifests import access_secret
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.refusals import why_unplanned
from kaito_catalog.memory.values import Fit, Parallelism, Settings
from kaito_catalog.plans.instance_types import (
    InstanceTypePlan,
    facts_shape,
    instance_type_plans,
    plain_start,
)
from kaito_catalog.plans.start import DEFAULT_MAX_MODEL_LEN, engine_arguments, start_of
from kaito_catalog.vllm_bridge import evidence as exact
from kaito_catalog.vllm_bridge.scaled_down import scaled_down


class State(Enum):
    """What the catalog's evidence says about a run."""

    MISSING = "missing"
    STALE = "stale"
    CURRENT = "current"


@dataclass(frozen=True)
class Options:
    """What a campaign is asked to do; None is "as the proposal and the profile say"."""

    device: str = "cuda"
    weights: str = "dummy"
    instance_types: tuple[str, ...] = ()
    """Names, or `all`; none: the smallest that fits each model."""
    cloud: str | None = None
    scale_down: bool = False
    max_model_len: int | None = None
    tensor_parallel_size: int | None = None
    gpu_memory_utilization: float | None = None
    time_limit_seconds: float = 900.0
    again: bool = False


@dataclass(frozen=True)
class Run:
    """One dry run: what is started where, and what its evidence has to say to count as this run's."""

    model: str
    repo_id: str | None
    revision: str | None
    config: Mapping[str, Any] = field(repr=False)
    """What vLLM is started with: the recorded configuration, or it scaled down."""
    config_sha256: str
    """Of the recorded configuration."""
    changed: Mapping[str, Any]
    """What was scaled down."""
    device: str
    vllm_version: str | None
    """None on a CPU, where any vLLM says what a CPU can say."""
    instance_type: str | None
    gpu: str | None
    """Its name in gpus.yaml."""
    gpus_per_node: int
    nodes: int
    parallelism: Parallelism
    args: Mapping[str, Any]
    weights: str
    weights_bytes: int
    secret: str | None
    """The Secret with the Hub's token, where something is downloaded that is gated."""
    time_limit_seconds: float
    state: State = State.MISSING
    reason: str = "there is no evidence"

    @property
    def gpus(self) -> int:
        """In all nodes."""
        return self.gpus_per_node * self.nodes

    @property
    def most_gpu_hours(self) -> float:
        """The time limit ends every run, so this is never exceeded."""
        return self.gpus * self.time_limit_seconds / 3600

    @property
    def key(self) -> str:
        """12 hex digits of everything that makes a run another one."""
        parts = [
            self.model,
            self.revision,
            self.config_sha256,
            dict(self.changed),
            self.vllm_version,
            self.device,
            self.gpu,
            dict(self.args),
            self.weights,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """For a person: `phi-4 on 2 × NVIDIA A10`."""
        if self.device == "cpu":
            return f"{self.model} on a CPU"
        return f"{self.model} on {self.gpus} × {self.gpu}"

    def task(self) -> dict[str, Any]:
        """What `task` is given."""
        args = dict(self.args)
        request: dict[str, Any] = {
            "op": "dry-run",
            "args": args,
            "weights": self.weights,
            "device": self.device,
            "timeLimitSeconds": self.time_limit_seconds,
        }
        config: Mapping[str, Any] | None = self.config
        if self.weights == "real":
            config = None
            request["model"] = self.repo_id
            if self.revision:
                request["args"] = {**args, "revision": self.revision}
        return {
            "key": self.key,
            "model": self.model,
            **({"revision": self.revision} if self.revision else {}),
            "configSha256": self.config_sha256,
            "args": args,
            "weights": self.weights,
            "changed": dict(self.changed),
            "nodes": self.nodes,
            **({"config": dict(config)} if config is not None else {}),
            "request": request,
        }


@dataclass(frozen=True)
class Campaign:
    """All runs that were asked for; `left_out` says of each model without one why."""

    runs: tuple[Run, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def wanted(self) -> tuple[Run, ...]:
        """Missing and stale ones, cheap ones first."""
        return tuple(sorted((run for run in self.runs if run.state is not State.CURRENT), key=_cheap_first))

    def within(self, gpu_hours: float | None) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """The wanted runs whose GPU-hours stay within a budget even if each needs its whole time; and the rest."""
        if gpu_hours is None:
            return self.wanted, ()
        inside: list[Run] = []
        spent = 0.0
        for run in self.wanted:
            if spent + run.most_gpu_hours > gpu_hours:
                break
            spent += run.most_gpu_hours
            inside.append(run)
        return tuple(inside), self.wanted[len(inside) :]


def _cheap_first(run: Run) -> tuple[float, int, str, str]:
    return run.most_gpu_hours, run.weights_bytes, run.model, run.gpu or ""


def make_campaign(catalog: Catalog, context: Context, names: Iterable[str], options: Options) -> Campaign:
    """The runs of the named models (all where none is named), each with what the evidence says about it.

    Raises:
        CatalogError: a model, an instance type or a cloud is not known.
    """
    entries = [_entry(catalog, name) for name in names] or list(catalog.entries)
    runs: list[Run] = []
    left_out: list[tuple[str, str]] = []
    _check_instance_types(context, options)
    for entry in entries:
        found = _runs(entry, context, options)
        if isinstance(found, str):
            left_out.append((entry.name, found))
        else:
            runs += found
    # Two instance types with the same GPUs are one run: the first, which is the smaller one.
    return Campaign(tuple({run.key: run for run in reversed(runs)}.values())[::-1], tuple(left_out))


def _entry(catalog: Catalog, name: str) -> Entry:
    entry = catalog.entry(name_in_catalog(name))
    if entry is None:
        raise CatalogError(f"'{name[:80]}' is not in the catalog")
    if entry.proposal is not None:
        refuse_another(address_in(name), entry.proposal.repo_id, entry.proposal.requirements.version)
    return entry


def _check_instance_types(context: Context, options: Options) -> None:
    for name in options.instance_types:
        if name != "all" and context.shared.instance_type(name) is None:
            raise CatalogError(
                f"instance-types.yaml has no '{name[:60]}'",
                hint="name one of them, or all: --instance-type all",
            )


def _runs(entry: Entry, context: Context, options: Options) -> list[Run] | str:
    """The runs of one model, or why there is none."""
    if not entry.is_readable or entry.proposal is None:
        return "its files are not valid: run 'kaito-catalog check'"
    facts, proposal = entry.facts, entry.proposal
    if facts is None or not facts.config:
        return "its configuration is not recorded: run 'kaito-catalog record'"
    if proposal.runtimes and proposal.vllm is None:
        return "it is not served with vLLM"
    length = options.max_model_len or proposal.max_model_len or DEFAULT_MAX_MODEL_LEN
    on_a_cpu = _on_a_cpu(entry, proposal, facts, length, options)
    if options.device == "cpu":
        return [_judged(on_a_cpu, entry, context, options)]
    rows = _rows(proposal, facts, length, context, options)
    if isinstance(rows, str):
        return rows
    chosen = _choose(rows, options)
    if not chosen:
        return "no instance type fits it, by its plan"
    runs = [_on_gpus(on_a_cpu, row, nodes, context, options) for row, nodes in chosen]
    return [_judged(run, entry, context, options) for run in runs]


def _on_a_cpu(entry: Entry, proposal: Proposal, facts: ModelFacts, length: int, options: Options) -> Run:
    stored = facts.weights.total if facts.weights else None
    config: Mapping[str, Any] = facts.config or {}
    changed: dict[str, Any] = {}
    # What a node's memory holds is not known here; on a CPU a run only shows that the model is built and answers.
    if options.weights == "dummy" and (options.scale_down or options.device == "cpu"):
        config, changed = scaled_down(config)
    return Run(
        model=entry.name,
        repo_id=proposal.repo_id,
        revision=facts.revision,
        config=config,
        config_sha256=exact.config_sha256(facts.config or {}),
        changed=changed,
        device=options.device,
        vllm_version=None,
        instance_type=None,
        gpu=None,
        gpus_per_node=0,
        nodes=1,
        parallelism=Parallelism(),
        args={"max_model_len": options.max_model_len or min(length, exact.CPU_MAX_MODEL_LEN)},
        weights=options.weights,
        weights_bytes=stored.size_bytes if stored else 0,
        secret=access_secret(proposal, facts) if options.weights == "real" and _gated(entry) else None,
        time_limit_seconds=options.time_limit_seconds,
    )


def _on_gpus(run: Run, row: InstanceTypePlan, nodes: int, context: Context, options: Options) -> Run:
    """The run on the GPUs of a planned instance type."""
    size = options.tensor_parallel_size or row.plan.parallelism.tensor_parallel_size
    gpu = context.shared.gpu(row.instance_type.gpu)
    return replace(
        run,
        vllm_version=context.profile.vllm_version,
        instance_type=row.instance_type.name,
        gpu=gpu.name if gpu else row.instance_type.gpu,
        gpus_per_node=size,
        nodes=nodes,
        parallelism=Parallelism(size, nodes),
        args=_args(row.plan.settings, size, nodes),
    )


def _rows(
    proposal: Proposal, facts: ModelFacts, length: int, context: Context, options: Options
) -> list[InstanceTypePlan] | str:
    """The plans of the instance types that were asked for, or why there is none."""
    shape = facts_shape(facts)
    start = start_of(proposal, facts, context.shared, context.profile, max_model_len=length)

    def settings(gpu: str | None) -> Settings:
        found = start.settings(gpu)
        share = options.gpu_memory_utilization
        return found if share is None else replace(found, gpu_memory_utilization=share)

    unplanned = why_unplanned(shape, settings(None), context.profile.vllm_version)
    if unplanned is not None:
        return f"there is no plan: {unplanned[0]}"
    assert isinstance(shape, Shape)
    return list(
        instance_type_plans(
            replace(context.shared, instance_types=_asked_for(context, options)),
            lambda place: plain_start(
                place,
                shape,
                facts.weights.total if facts.weights else None,
                settings=settings(place.gpu.name),
                vllm_version=context.profile.vllm_version,
            ),
        )
    )


def _gated(entry: Entry) -> bool:
    return entry.facts is not None and entry.facts.gated in ("auto", "manual", "yes")


def _asked_for(context: Context, options: Options) -> tuple[InstanceType, ...]:
    """The instance types that were named, else those of the cloud, else those that the profile's KAITO takes."""
    named = {name.lower() for name in options.instance_types} - {"all"}
    clouds = (options.cloud,) if options.cloud else release_of(context.profile).clouds
    return tuple(
        item
        for item in context.shared.instance_types
        if (item.name.lower() in named if named else item.cloud in clouds)
        and (options.cloud is None or item.cloud == options.cloud)
    )


def _choose(rows: Sequence[InstanceTypePlan], options: Options) -> list[tuple[InstanceTypePlan, int]]:
    """The instance types to run on, with the number of nodes."""
    named = bool(options.instance_types)
    usable = [
        (row, row.nodes_needed or 1)
        for row in rows
        if (row.nodes_needed is not None or row.plan.fits in (Fit.YES, Fit.TIGHT))
        and (options.tensor_parallel_size or 0) <= row.instance_type.gpu_count
    ]
    if named and "all" not in options.instance_types:
        return usable
    # Rows come those that fit first, smallest first; several nodes only where no single one does.
    single = [pair for pair in usable if pair[1] == 1]
    several = sorted(usable, key=lambda pair: pair[1] * pair[0].instance_type.gpu_count)
    return (single if named else single[:1]) or several[:1]


def _args(settings: Settings, tensor_parallel_size: int, nodes: int) -> dict[str, Any]:
    args: dict[str, Any] = engine_arguments(settings)
    if tensor_parallel_size > 1:
        args["tensor_parallel_size"] = tensor_parallel_size
    if nodes > 1:
        args["pipeline_parallel_size"] = nodes
        args["distributed_executor_backend"] = "ray"
    return args


def _judged(run: Run, entry: Entry, context: Context, options: Options) -> Run:
    """The run with what the entry's evidence says about it."""
    if options.again:
        return replace(run, state=State.STALE, reason="asked for again")
    subject = Subject.of(entry)
    reasons: list[str] = []
    for evidence in entry.evidence:
        record = evidence.record
        if not isinstance(record, DryRun) or not _same_place(run, record, context):
            continue
        why = stale_because(evidence, subject, context) or _other_settings(run, record)
        if why is None:
            return replace(run, state=State.CURRENT, reason=f"{record.outcome}, {record.recorded_at}")
        reasons.append(why)
    if reasons:
        return replace(run, state=State.STALE, reason=reasons[-1])
    return run


def _same_place(run: Run, record: DryRun, context: Context) -> bool:
    sizes = record.parallelism
    if record.device != run.device or (sizes.tensor_parallel_size, sizes.pipeline_parallel_size) != (
        run.parallelism.tensor_parallel_size,
        run.parallelism.pipeline_parallel_size,
    ):
        return False
    if run.device == "cpu":
        return True
    gpu = context.shared.gpu(record.gpu.name) if record.gpu else None
    return gpu is not None and gpu.name == run.gpu


def _other_settings(run: Run, record: DryRun) -> str | None:
    if list(record.command) != exact.command_of(run.args):
        return "it was started with other options"
    if record.weights != run.weights:
        return f"it was with {record.weights} weights"
    if dict(record.scaled_down or {}) != dict(run.changed):
        return "it was scaled down otherwise"
    return None


def write_result(run: Run, entry: Entry, result: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Write what came back as the entry's evidence, in one step; a second time writes the same file.

    Raises:
        CatalogError: it is another run's, or no evidence.
    """
    if result.get("key") != run.key:
        raise CatalogError(f"this is the result of another run than {run.title}")
    value = exact.accepted(entry, result)
    return exact.write_evidence(entry.folder, value), value

"""The answer of `diagnose`: why a start failed or will, what to change, and where its log and the plan disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.diagnosis import causes, trials
from kaito_catalog.diagnosis.comparison import Term, compare, culprit
from kaito_catalog.diagnosis.logged import Logged, is_of_kaito, logged
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.values import Fit, Plan
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.request import PlanArguments, PlanSubject
from kaito_catalog.plans.serve_options import ServeOptions
from kaito_catalog.plans.started import Started
from kaito_catalog.plans.values import plan_value

FAILED_CODE, OK_CODE, UNKNOWN_CODE = 1, 0, 3
_Read = Callable[[PlanArguments], PlanSubject]
"""Makes the model of a request."""


@dataclass(frozen=True)
class Diagnosis:
    """What is said of one start."""

    model: str | None
    run: ReportedRun | None
    """What the log says; None for a start that is only planned."""
    cause: causes.Cause | None
    """None where nothing failed, or will."""
    plan: Plan | None
    no_plan: str | None
    """Why there is none."""
    by: str | None
    """Whose start is planned, in words."""
    terms: tuple[Term, ...] = ()
    changes: tuple[trials.StartChange, ...] = ()
    not_enough: tuple[trials.StartChange, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    of_kaito: bool = False
    """Whether options are set in a ConfigMap of KAITO's."""
    subject: PlanSubject | None = None
    started: Started | None = None

    @property
    def culprit(self) -> Term | None:
        """The term that makes the log and the plan differ; None where they agree."""
        return culprit(self.terms)

    @property
    def exit_code(self) -> int:
        """0: nothing failed; 1: it is told what; 3: that is not known."""
        if self.cause is None:
            return OK_CODE
        unknown = (causes.NOT_RECOGNISED, causes.UNFINISHED, "unknown")
        return UNKNOWN_CODE if self.cause.code in unknown else FAILED_CODE

    def to_json(self) -> dict[str, Any]:
        """As plain values: one of `starts` of `diagnose --format json`."""
        run, worst = self.run, self.culprit
        return {
            "model": self.model,
            "vllmVersion": run.versions.vllm
            if run and run.versions
            else self.plan and self.plan.vllm_version,
            "outcome": run.outcome if run else None,
            "message": run.message if run else None,
            "cause": self.cause
            and {"code": self.cause.code, "words": self.cause.words, "advice": list(self.cause.advice)},
            "plannedBy": self.by,
            "plan": plan_value(self.subject, self.plan, self.started) if self.subject and self.plan else None,
            "noPlan": self.no_plan,
            "comparison": [term.to_json() for term in self.terms],
            "disagreesIn": worst.name if worst else None,
            "changes": [change.to_json() for change in self.changes],
            "notEnough": [change.to_json() for change in self.not_enough],
            "notes": list(self.notes),
            "notRead": list(self.left_out),
        }


@dataclass(frozen=True)
class _Planned:
    """A plan, with all that it was made of."""

    subject: PlanSubject
    started: Started
    plan: Plan


def diagnose_run(
    run: ReportedRun, given: PlanArguments, root: Path, *, shared: Shared, profile: Profile
) -> Diagnosis:
    """What a log's start says, against the plan of it.

    Args:
        run: the start.
        given: what the command line says of the model and the GPU.
        root: the catalog.
        shared: its GPUs and instance types.
        profile: the release of KAITO.
    """
    asked = logged(run, given, shared, profile)
    planned = asked if isinstance(asked, str) else _planned(asked.request, root, shared, profile)
    answer = _of_log(run, given.model, asked, planned)
    if answer.cause is None or answer.cause.code not in (*causes.OF_MEMORY, "missing-kernel"):
        return answer
    estimate = run.refusal.estimated_max_model_len if run.refusal else None
    estimated = (trials.as_estimated(estimate),) if estimate else ()
    if not isinstance(planned, _Planned) or not isinstance(asked, Logged):
        return replace(answer, changes=estimated)
    read = partial(planning.read_subject, root=root, shared=shared, profile=profile)
    machine = _machine(asked.request, planned, read, shared, profile)
    if answer.cause.code == "missing-kernel" and planned.plan.limited_by != "gpu":
        return answer  # no plan tells which GPU has the kernel
    if answer.cause.code == "out-of-memory":
        return _with_more_room(answer, planned, causes.shortage(run), machine, shared)
    printed = next((term.difference for term in answer.terms if term.name == "kvCacheAvailable"), 0)
    answer = _with_changes(answer, planned, printed, machine, shared)
    if any(change.kind == "context" for change in answer.changes):
        return answer
    return replace(answer, changes=(*estimated, *answer.changes))


def _of_log(run: ReportedRun, model: str, asked: Logged | str, planned: _Planned | str) -> Diagnosis:
    """The cause and the comparison, before any change is tried."""
    if isinstance(planned, str) or isinstance(asked, str):
        why = planned if isinstance(planned, str) else str(asked)
        cause = causes.cause(run, None, None, None)
        return Diagnosis(model or run.model, run, cause, None, why, None, of_kaito=is_of_kaito(run))
    stored = planned.subject.stored
    request = planned.started.request
    return Diagnosis(
        planned.subject.name,
        run,
        causes.cause(run, planned.plan, request, stored.high_bytes if stored else None),
        planned.plan,
        None,
        asked.by,
        compare(run, planned.plan),
        notes=asked.notes,
        left_out=asked.left_out,
        of_kaito=is_of_kaito(run),
        subject=planned.subject,
        started=planned.started,
    )


def diagnose_plan(
    request: PlanArguments,
    *,
    shared: Shared,
    profile: Profile,
    read: _Read,
    of_kaito: bool,
) -> Diagnosis:
    """What a start that is only written down will come to; see `diagnose_run`.

    Args:
        request: what is planned, with its GPU.
        shared: its GPUs and instance types.
        profile: the release of KAITO.
        read: makes the model of it.
        of_kaito: whether KAITO starts it.
    """
    subject = read(request)
    started = planning.start_one(request, subject, shared)
    plan = planning.plan_of(started, request, subject)
    by = f"as KAITO {profile.kaito_release} starts it" if of_kaito else "with its own arguments"
    answer = Diagnosis(
        subject.name,
        None,
        causes.of_plan(plan),
        plan,
        None,
        by,
        notes=(*planning.how_read(request, subject, shared), *started.notes),
        of_kaito=of_kaito,
        subject=subject,
        started=started,
    )
    if plan.fits is Fit.YES or answer.cause is None:
        return answer
    planned = _Planned(subject, started, plan)
    machine = _machine(request, planned, read, shared, profile)
    return _with_changes(answer, planned, 0, machine, shared)


def _planned(request: PlanArguments, root: Path, shared: Shared, profile: Profile) -> _Planned | str:
    try:
        subject = planning.read_subject(request, root, shared=shared, profile=profile)
        started = planning.start_one(request, subject, shared)
        return _Planned(subject, started, planning.plan_of(started, request, subject))
    except CatalogError as error:
        return error.message + (f" ({error.hint})" if error.hint else "")


def _with_changes(
    answer: Diagnosis,
    planned: _Planned,
    printed: int,
    machine: trials.StartChange | None,
    shared: Shared,
) -> Diagnosis:
    trial = trials.Trial(planned.started.request, printed)
    found = [*trials.changes(trial, shared), *([machine] if machine else [])]
    return replace(
        answer,
        changes=tuple(change for change in found if change.is_enough),
        not_enough=tuple(change for change in found if not change.is_enough),
    )


def _with_more_room(
    answer: Diagnosis,
    planned: _Planned,
    shortage: trials.Shortage,
    machine: trials.StartChange | None,
    shared: Shared,
) -> Diagnosis:
    """For a start that ran out of memory: what leaves as much as was lacking, and still fits."""
    found = [*trials.with_more_room(trials.Trial(planned.started.request), shortage, shared)]
    found += [machine] if machine and trials.has_room(machine.plan, planned.plan, 1) else []
    enough = [
        change
        for change in found
        if change.is_enough
        and (change.kind == "utilization" or trials.has_room(change.plan, planned.plan, shortage.bytes))
    ]
    return replace(
        answer,
        changes=tuple(enough),
        not_enough=tuple(change for change in found if change not in enough),
    )


_OF_THE_PLACE = frozenset(
    {"gpu-memory-utilization", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size",
     "kv-cache-memory-bytes", "num-gpu-blocks-override", "max-model-len"}
)  # fmt: skip


def _for_machines(request: PlanArguments, planned: _Planned) -> PlanArguments:
    """The same start, on whichever machine KAITO would make it: without what is said of the one it failed on."""
    serve = request.serve
    kept = tuple(o for o in serve.options if o.name not in _OF_THE_PLACE) if serve else ()
    return PlanArguments(
        request.model,
        max_model_len=planned.plan.settings.max_model_len,
        serve=ServeOptions(None, kept) if kept else None,
        weights_bytes=request.weights_bytes,
    )


def _machine(
    request: PlanArguments, planned: _Planned, read: _Read, shared: Shared, profile: Profile
) -> trials.StartChange | None:
    """The smallest machine but those that have no more of the same GPU."""
    try:
        subject = read(_for_machines(request, planned))
    except CatalogError:
        return None
    clouds, gpus = release_of(profile).clouds, planned.plan.parallelism.world_size
    rows = [
        row
        for row in planning.plan_all(subject, shared)
        if row.instance_type.cloud in clouds
        and (row.instance_type.gpu != planned.plan.gpu.name or row.instance_type.gpu_count > gpus)
    ]
    return trials.machine(
        planning.smallest(tuple(rows)), kaito=profile.kaito_release, length=subject.max_model_len
    )

"""EVD: what running vLLM showed, against the plan and the claims; stale when anything it depends on changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kaito_catalog.architectures import Unsupported
from kaito_catalog.catalog.entries import Evidence
from kaito_catalog.checks.base import WARNING, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ExactWorld, ReportedRun
from kaito_catalog.formats.proposal import known_count
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.quantity import gib
from kaito_catalog.vllm_bridge.evidence import config_sha256
from kaito_catalog.vllm_bridge.versions import is_same

_NONE = Skip("there is no evidence", "kaito-catalog plan NAME --exact --record, or dry-run NAME")


def stale_because(evidence: Evidence, subject: Subject, context: Context) -> str | None:
    """Why evidence says nothing about the model as it is now; None where it does."""
    record = evidence.record
    facts = subject.facts
    version = subject.proposal.requirements.version
    if record.revision is not None and version is not None and record.revision != version:
        return f"it is of revision {record.revision[:12]}…, the proposal pins {version[:12]}…"
    if isinstance(record, ReportedRun):
        return None  # history, of the vLLM that it names
    if facts is not None and facts.config and record.config_sha256 != config_sha256(facts.config):
        return "the configuration in facts.yaml is another"
    exact = isinstance(record, ExactPlan)
    if (exact or (isinstance(record, DryRun) and record.device == "cuda")) and (
        not is_same(record.versions.vllm, context.profile.vllm_version)
    ):
        return f"it is of vLLM {record.versions.vllm}, {context.profile.name} runs {context.profile.vllm_version}"
    return None


def is_of_another_release(evidence: Evidence, subject: Subject, context: Context) -> bool:
    """Whether evidence that says nothing under this profile is good under another one of the policy."""
    return any(
        stale_because(evidence, subject, replace(context, profile=profile)) is None
        for profile in context.shared.policy.profiles
        if profile.name != context.profile.name
    )


def current(subject: Subject, context: Context) -> list[Evidence]:
    """The evidence that is not stale."""
    return [e for e in subject.evidence if stale_because(e, subject, context) is None]


def measured(subject: Subject) -> list[Evidence]:
    """The evidence that was made with this catalog's own tools; what somebody reports is not."""
    return [e for e in subject.evidence if not isinstance(e.record, ReportedRun)]


@check("EVD001", severity=WARNING)
def evidence_is_current(subject: Subject, context: Context) -> Iterator[Outcome]:
    """Evidence is stale.

    Evidence is about one revision, one configuration and one vLLM. When one of them changes it proves nothing
    any more, and has to be made again; what is of another release in policy.yaml is good for that one. (A dry run
    on a CPU may be of another vLLM: it shows that the model is built and answers, not how much GPU memory it
    takes.)

    Fails::

        evidence: [{versions: {vllm: 0.19.0}}]

    Passes::

        evidence: [{versions: {vllm: 0.25.1}}]
    """
    if not measured(subject):
        yield _NONE
    elif not current(subject, context) and any(
        is_of_another_release(e, subject, context) for e in subject.evidence
    ):
        yield Skip(f"its evidence is of other releases than {context.profile.name}", _NONE.hint)
    for evidence in subject.evidence:
        why = stale_because(evidence, subject, context)
        if why and not is_of_another_release(evidence, subject, context):
            yield Finding(
                f"this evidence is stale: {why}",
                ("kind",),
                "make it again, or remove it",
                document=evidence.document,
            )


def _plan_of(world: ExactWorld, record: ExactPlan, subject: Subject) -> Plan | Skip:
    shape = subject.shape
    assert subject.facts is not None
    assert shape is not None
    assert world.kv_cache is not None
    if isinstance(shape, Unsupported):
        return Skip(shape.reason)
    sizes = world.parallelism
    return make_plan(
        PlanRequest(
            shape,
            stored=subject.facts.weights.total if subject.facts.weights else None,
            gpu=PlanGpu(record.gpu.name, record.gpu.memory_bytes, record.gpu.compute_capability),
            parallelism=Parallelism(
                sizes.tensor_parallel_size,
                sizes.pipeline_parallel_size,
                sizes.data_parallel_size,
                sizes.enable_expert_parallel,
            ),
            settings=Settings(
                world.kv_cache.max_model_len,
                0.9,
                kv_cache_dtype=world.kv_cache_dtype or "auto",
                max_num_seqs=world.max_num_seqs,
                max_num_batched_tokens=world.max_num_batched_tokens,
            ),
            vllm_version=record.versions.vllm,
        )
    )


@check("EVD002")
def plan_equals_exact_plan(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The plan differs from vLLM's own code.

    An exact plan is what vLLM's model classes and its KV cache planner allocate. The closed form has to give
    the same: a difference beyond `tolerances.planError` of the GPU's memory (policy.yaml) means that one of
    them is wrong, and no claim should lean on it.

    Fails::

        evidence:
          - worlds:
              - parallelism: {tensorParallelSize: 1}
                ranks: [{rank: 0, weightsBytes: 30000000000, bufferBytes: 0, weightsByDtype: {bfloat16: 30000000000}}]
                kvCache: {maxModelLen: 16384, neededBytes: 2147483648}

    Passes::

        evidence:
          - worlds:
              - parallelism: {tensorParallelSize: 1}
                ranks: [{rank: 0, weightsBytes: 16060522496, bufferBytes: 0, weightsByDtype: {bfloat16: 16060522496}}]
                kvCache: {maxModelLen: 16384, neededBytes: 2147483648}
    """
    found = [e for e in current(subject, context) if isinstance(e.record, ExactPlan)]
    if not found or subject.facts is None:
        yield Skip("there is no exact plan of this configuration", _NONE.hint)
        return
    for evidence in found:
        record = evidence.record
        assert isinstance(record, ExactPlan)
        for number, world in enumerate(record.worlds):
            if not world.ranks or world.kv_cache is None:
                continue
            plan = _plan_of(world, record, subject)
            if isinstance(plan, Skip) or plan.per_gpu is None:
                yield plan if isinstance(plan, Skip) else Skip(plan.reason or "the plan is unknown")
                return
            weights = max(rank.weights_bytes for rank in world.ranks)
            size = world.parallelism.tensor_parallel_size
            allowed = context.shared.policy.tolerances.plan_error * (plan.gpu.memory_bytes or 0)
            for what, ours, theirs in (
                ("weights", plan.per_gpu.weights_bytes, weights),
                ("the KV cache of one request", _needed(plan), world.kv_cache.needed_bytes),
            ):
                if abs(ours - theirs) > allowed:
                    yield Finding(
                        f"at tensor_parallel_size {size} the plan has {gib(ours)} for {what}, vLLM {gib(theirs)}",
                        ("worlds", number),
                        "report it: the arithmetic of this architecture is wrong, or the configuration is",
                        document=evidence.document,
                    )


def _needed(plan: Plan) -> int:
    assert plan.per_gpu is not None
    asked = plan.kv_cache.request_bytes if plan.kv_cache else 0
    return asked or plan.per_gpu.kv_cache_needed_bytes


@check("EVD003")
def dry_run_served(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A dry run on the claimed GPUs did not serve.

    What vLLM measured on the very GPUs outweighs any plan.

    Fails::

        evidence:
          - kind: DryRun
            device: cuda
            gpu: {name: NVIDIA A100 80GB, count: 1}
            command: [--max-model-len=16384]
            weights: dummy
            outcome: does-not-fit
            message: needed 2.00 GiB, available 1.10 GiB
            worlds: null

    Passes::

        evidence:
          - kind: DryRun
            device: cuda
            gpu: {name: NVIDIA A100 80GB, count: 1}
            command: [--max-model-len=16384]
            weights: dummy
            outcome: served
            worlds: null
    """
    runs = [
        (evidence, evidence.record)
        for evidence in current(subject, context)
        if isinstance(evidence.record, DryRun)
        and evidence.record.device == "cuda"
        and not evidence.record.scaled_down
    ]
    if not runs:
        yield Skip("no dry run on a GPU", "kaito-catalog dry-run NAME, on a machine that has one")
        return
    count = subject.proposal.requirements.gpu_count
    for evidence, record in runs:
        if record.outcome != "served" and record.gpu is not None and record.gpu.count == count:
            words = f": {record.message[:200]}" if record.message else ""
            yield Finding(
                f"{count} × {record.gpu.name} did not serve it ({record.outcome}){words}",
                ("outcome",),
                "claim more memory or a shorter context",
                document=evidence.document,
            )


@check("EVD004", severity=WARNING)
def reported_start_served(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A reported start on the claimed GPUs did not fit.

    Somebody's log shows vLLM refusing this model, or running out of memory, on as many of the claimed GPUs and with no
    more context than is claimed. A report is not a measurement: read its lines, ask who reported it, and make a dry
    run where you can.

    Fails::

        evidence:
          - kind: ReportedRun
            gpu: {name: NVIDIA A100 80GB, count: 1}
            outcome: does-not-fit
            maxModelLen: 16384
            message: 2.00 GiB KV cache is needed
            reportedBy: "@someone"
            lines: []
            configSha256: null
            worlds: null

    Passes::

        evidence:
          - kind: ReportedRun
            gpu: {name: NVIDIA A100 80GB, count: 1}
            outcome: served
            maxModelLen: 16384
            reportedBy: "@someone"
            lines: []
            configSha256: null
            worlds: null
    """
    for evidence, record, gpu in _on_the_claimed_gpus(subject, context):
        if record.outcome == "failed" and record.failure != "out-of-memory":
            continue
        if record.outcome not in ("does-not-fit", "failed"):
            continue
        if record.refusal is not None and record.refusal.what == "free-memory":
            continue  # others held the memory
        context_length = known_count(subject.proposal.requirements.context_length)
        if context_length is None or (record.max_model_len or 0) > context_length:
            continue
        words = f": {record.message[:200]}" if record.message else ""
        count = subject.proposal.requirements.gpu_count
        yield Finding(
            f"{record.reported_by or 'somebody'} reports that {count} × {gpu} did not serve it{words}",
            ("outcome",),
            "read the report's lines; claim more memory or a shorter context, or show a start that serves",
            document=evidence.document,
        )


def shows_the_claimed_start(subject: Subject, context: Context) -> Iterator[ReportedRun]:
    """Reported starts that served on the claimed GPUs with the claimed context or more."""
    wanted = known_count(subject.proposal.requirements.context_length)
    for _, record, _ in _on_the_claimed_gpus(subject, context):
        if record.outcome == "served" and wanted is not None and (record.max_model_len or 0) >= wanted:
            yield record


def _on_the_claimed_gpus(subject: Subject, context: Context) -> Iterator[tuple[Evidence, ReportedRun, str]]:
    """Reported starts on as many GPUs of the same kind as the proposal claims, with the GPU's name."""
    deployment = subject.proposal.deployment
    machine = context.shared.instance_type(deployment.instance_type or "") if deployment else None
    gpu = context.shared.gpu(machine.gpu) if machine else None
    for evidence in current(subject, context):
        record = evidence.record
        if (
            not isinstance(record, ReportedRun)
            or record.gpu is None
            or record.gpu.name is None
            or gpu is None
        ):
            continue
        named = context.shared.gpu(record.gpu.name)
        if named and named.name == gpu.name and record.gpu.count == subject.proposal.requirements.gpu_count:
            yield evidence, record, gpu.name

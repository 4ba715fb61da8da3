"""MEM: does the model fit on the GPUs that the proposal asks for, and does it need them."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.architectures import Unsupported
from kaito_catalog.checks.asked import SAME_CARD, Asked, asked_of, claimed_per_gpu, splits_by_options
from kaito_catalog.checks.base import NO_FACTS, WARNING, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.diagnostics import Route
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.proposal import known_count, known_size
from kaito_catalog.kaito.deployed import partition_of
from kaito_catalog.memory.values import Fit, Plan
from kaito_catalog.quantity import Quantity, gib

_COUNT = ("requirements", "gpuCount")
_TOTAL = ("requirements", "totalGPUMemory")
_CONTEXT = ("requirements", "contextLength")
_A_NODE = 8
"""GPUs of the largest instance types."""


def _needs(plan: Plan) -> str:
    figures = plan.per_gpu
    if figures is None:
        return plan.reason or "does not fit"
    needed = (
        figures.weights_bytes
        + figures.non_torch_bytes
        + figures.activation_peak_bytes
        + figures.cuda_graph_bytes
        + figures.kv_cache_needed_bytes
    )
    return (
        f"needs {gib(needed)} per GPU at {plan.settings.max_model_len:,} tokens "
        f"(weights {gib(figures.weights_bytes)}, KV cache {gib(figures.kv_cache_needed_bytes)}); "
        f"{plan.gpu.name or 'the GPU'} offers {gib(figures.budget_bytes)} "
        f"at a gpu_memory_utilization of {plan.settings.gpu_memory_utilization:g}"
    )


def _unknown(asked: Asked, plans: list[Plan]) -> Skip | None:
    unknown = next((plan for plan in plans if plan.fits is Fit.UNKNOWN), None)
    if unknown is not None:
        return Skip(unknown.reason or "the plan is unknown")
    if not asked.measured and any(plan.fits is not Fit.NO for plan in plans):
        return Skip(f"no published figure of what the driver reports for {asked.gpus[0].name}")
    return None


@check(
    "MEM001",
    proves=(
        "requirements.gpuCount",
        "requirements.totalGPUMemory",
        "requirements.perGPUMemory",
        "requirements.contextLength",
    ),
)
def fits(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The model does not fit on the GPUs at that context.

    The memory plan adds up what vLLM occupies on each GPU: weights, what CUDA and NCCL take, the peak of the
    activations, CUDA graphs, and the KV cache of one request of the context's length. The sum has to stay
    within gpu_memory_utilization of what the driver reports. The proposal's own utilization counts where it
    sets one. A plan that holds by less than its own expected error is a warning.

    Fails::

        requirements: {gpuCount: 1, totalGPUMemory: 16GB, perGPUMemory: 16GB}
        deployment: {instanceType: null}

    Passes::

        requirements: {gpuCount: 1, totalGPUMemory: 80GB, perGPUMemory: 80GB}
    """
    asked = asked_of(subject, context)
    if isinstance(asked, Skip):
        yield asked
        return
    plans = asked.plans(asked.settings)
    skip = _unknown(asked, plans)
    if skip:
        yield skip
        return
    bad = [plan for plan in plans if plan.fits is Fit.NO]
    tight = [plan for plan in plans if plan.fits is Fit.TIGHT]
    if bad and (bad[0].per_gpu is None or bad[0].limited_by == "maxNumSeqs"):
        yield _refusal(subject, asked, bad[0])
    elif bad:
        route = (
            _CONTEXT if bad[0].limited_by == "kvCache" and subject.document.spans.get(_CONTEXT) else _COUNT
        )
        longest = bad[0].kv_cache.longest_model_len if bad[0].kv_cache else 0
        enough = asked.smallest(asked.settings, most=_A_NODE)
        hint = f"{enough} × {asked.each} would be enough" if enough else "use more or larger GPUs"
        if longest:
            hint = f"the longest context that fits is {longest:,} tokens; {hint}"
        yield Finding(f"{asked.count} × {asked.each} {_needs(bad[0])}", route, hint)
    elif tight:
        error = tight[0].expected_error_bytes or 0
        words = tight[0].reason if tight[0].limited_by == "maxNumSeqs" else _needs(tight[0])
        yield Finding(
            f"{asked.count} × {asked.each} may not be enough: {words}",
            _COUNT,
            f"the plan is sure to {gib(error)}; a dry run on that GPU would tell",
            severity=WARNING,
        )
        yield Skip(
            f"the plan holds by less than its expected error of {gib(error)}", "add a dry run's evidence"
        )


def _refusal(subject: Subject, asked: Asked, plan: Plan) -> Finding:
    """vLLM would not even look at the memory."""
    reason = plan.reason or "vLLM refuses the configuration"
    if plan.limited_by == "maxNumSeqs":
        return Finding(
            reason, _option(subject, "max-num-seqs") or _COUNT, "leave max-num-seqs out, or lower it"
        )
    if plan.limited_by != "maxModelLen":
        return Finding(reason, _COUNT)
    limit = asked.shape.max_model_len
    route = _option(subject, "max-model-len")
    if route:
        return Finding(reason, route, f"max-model-len: {limit}")
    return Finding(reason, _CONTEXT, f"contextLength: {limit}")


def _option(subject: Subject, name: str) -> Route | None:
    """Where the vLLM runtime sets an option; None where it does not."""
    for index, runtime in enumerate(subject.proposal.runtimes or ()):
        if runtime is subject.proposal.vllm:
            for written in runtime.config or {}:
                if written.replace("_", "-") == name:
                    return ("runtimes", index, "config", written)
    return None


@check("MEM002", severity=WARNING)
def fits_at_kaitos_utilization(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The model only fits because the proposal raises gpu_memory_utilization.

    KAITO starts vLLM with the utilization of its release (policy.yaml). A user who does not copy the
    proposal's ConfigMap gets that, and the model would not start.

    Fails::

        requirements: {gpuCount: 1, totalGPUMemory: 24GB, perGPUMemory: 24GB, contextLength: 36864}
        deployment: {instanceType: Standard_NV36ads_A10_v5}
        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 36864, gpu-memory-utilization: 0.98}

    Passes::

        requirements: {gpuCount: 1, totalGPUMemory: 80GB, perGPUMemory: 80GB}
    """
    asked = asked_of(subject, context)
    if isinstance(asked, Skip):
        yield asked
        return
    if not asked.own_utilization:
        return
    own = asked.plans(asked.settings)
    skip = _unknown(asked, own)
    if skip:
        yield skip
        return
    usual = context.profile.utilization(asked.gpus[0].name)
    theirs = asked.plans(asked.at(usual))
    if all(plan.fits in (Fit.YES, Fit.TIGHT) for plan in own) and any(plan.fits is Fit.NO for plan in theirs):
        worst = next(plan for plan in theirs if plan.fits is Fit.NO)
        yield Finding(
            f"fits at gpu-memory-utilization {asked.settings.gpu_memory_utilization:g}, not at {usual:g}, which "
            f"{context.profile.name} uses: it {_needs(worst)}",
            _COUNT,
            "claim what KAITO's own setting needs, or say in a note that the ConfigMap is required",
        )


@check("MEM003", severity=WARNING)
def no_more_gpus_than_needed(subject: Subject, context: Context) -> Iterator[Outcome]:
    """Fewer GPUs of that kind are enough.

    The template asks for the *minimum* number of GPUs. The smallest tensor-parallel size that vLLM allows and
    that fits is compared with the claim, at the proposal's own utilization and at KAITO's. A plan that may not fit
    ("tight") is no reason to take fewer.

    Fails::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB, perGPUMemory: 80GB}
        runtimes: [{name: vllm, distributedInference: true, config: {max-model-len: 16384}}]

    Passes::

        requirements: {gpuCount: 1, totalGPUMemory: 80GB, perGPUMemory: 80GB}
    """
    asked = asked_of(subject, context)
    if isinstance(asked, Skip):
        yield asked
        return
    if asked.count == 1:
        return
    if splits_by_options(subject.proposal) and asked.request.parallelism.tensor_parallel_size != asked.count:
        yield Skip("the options split the model otherwise than by tensor parallelism alone")
        return
    skip = _unknown(asked, asked.plans(asked.settings))
    if skip:
        yield skip
        return
    own = asked.smallest(asked.settings, allow_tight=False)
    if own is None or own >= asked.count:
        return
    usual = context.profile.utilization(asked.gpus[0].name)
    at_usual = asked.smallest(asked.at(usual), allow_tight=False)
    utilization = asked.settings.gpu_memory_utilization
    message = (
        f"{asked.count} × {asked.each} is more than {asked.settings.max_model_len:,} tokens need: "
        f"{own} × {asked.each} {'is' if own == 1 else 'are'} enough at "
        + (
            "the proposal's own gpu-memory-utilization of "
            if asked.own_utilization
            else "gpu-memory-utilization "
        )
        + f"{utilization:g}"
    )
    if asked.own_utilization and usual != utilization:
        if at_usual is None:
            message += f"; at the {usual:g} of {context.profile.name} not even {asked.count} are"
        elif at_usual == asked.count:
            message += f"; at the {usual:g} of {context.profile.name} it does need {asked.count}"
        else:
            message += f"; at the {usual:g} of {context.profile.name} it needs {at_usual}"
    hint = f"gpuCount: {own}"
    if at_usual is not None and at_usual != own:
        hint = f"gpuCount: {own}, or leave out gpu-memory-utilization and keep gpuCount: {at_usual}"
    yield Finding(message, _COUNT, hint)


@check("MEM004")
def total_is_count_times_each(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The total GPU memory is not the count times the memory of each.

    Three figures that contradict each other cannot all be true, and which one was meant is not known.

    Fails::

        requirements: {gpuCount: 2, perGPUMemory: 80GB, totalGPUMemory: 80GB}

    Passes::

        requirements: {gpuCount: 1, perGPUMemory: 80GB, totalGPUMemory: 80GB}
    """
    requirements = subject.proposal.requirements
    count = known_count(requirements.gpu_count)
    each = known_size(requirements.per_gpu_memory)
    total = known_size(requirements.total_gpu_memory)
    if count is not None and each is not None and total is not None and count * each.bytes != total.bytes:
        yield Finding(
            f"{count} × {each} is {_times(each, count)}, totalGPUMemory is {total}",
            _TOTAL,
            f"totalGPUMemory: {_times(each, count)}",
        )


def _times(each: Quantity, count: int) -> str:
    digits = each.text.rstrip("TGMiB ")
    return f"{float(digits) * count:g}{each.text[len(digits) :].strip()}"


@check("MEM007")
def gpu_of_the_instance_type(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The GPUs of the instance type have less memory than the proposal claims.

    The memory of each GPU is compared with the card of deployment.instanceType (instance-types.yaml). KAITO starts
    what the instance type says: a claim about a larger card says nothing about it. A larger card than claimed is fine.

    Fails::

        requirements: {gpuCount: 1, totalGPUMemory: 80GB, perGPUMemory: 80GB}
        deployment: {instanceType: Standard_NV36ads_A10_v5}

    Passes::

        requirements: {gpuCount: 1, totalGPUMemory: 80GB, perGPUMemory: 80GB}
        deployment: {instanceType: Standard_NC24ads_A100_v4}
    """
    name = subject.proposal.deployment.instance_type if subject.proposal.deployment else None
    machine = context.shared.instance_type(name) if name and not is_missing(name) else None
    claimed = claimed_per_gpu(subject.proposal)
    if machine is None or claimed is None or partition_of(subject.proposal.deployment) is not None:
        return  # KTO008, DOC008 and KTO012
    gpu = context.shared.gpu_by_name[machine.gpu]
    if gpu.nominal_memory.bytes < (1 - SAME_CARD) * claimed.bytes:
        fitting = [
            other.name
            for other in context.shared.instance_types
            if abs(context.shared.gpu_by_name[other.gpu].nominal_memory.bytes - claimed.bytes)
            <= SAME_CARD * claimed.bytes
            and other.cloud == machine.cloud
        ]
        yield Finding(
            f"{machine.name} has {gpu.name} with {gpu.nominal_memory} each, the proposal claims {claimed}",
            ("deployment", "instanceType"),
            f"{claimed}: {', '.join(fitting[:3])}" if fitting else "correct one of them",
        )


@check("MEM005")
def context_within_the_limit(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The context is longer than the model's own limit.

    vLLM refuses a max_model_len beyond what the configuration supports (max_position_embeddings, scaled by
    the rope settings).

    Fails::

        requirements: {contextLength: 1000000}

    Passes::

        requirements: {contextLength: 16384}
    """
    claimed = known_count(subject.proposal.requirements.context_length)
    if claimed is None:
        yield Skip("the proposal does not say for which context", "add requirements.contextLength")
        return
    shape = subject.shape
    if subject.facts is None or subject.facts.config is None or shape is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    if isinstance(shape, Unsupported):
        yield Skip(shape.reason)
    elif claimed > shape.max_model_len:
        yield Finding(
            f"{claimed:,} tokens are more than the model's limit of {shape.max_model_len:,}",
            _CONTEXT,
            f"contextLength: {shape.max_model_len}",
        )


@check("MEM006", severity=WARNING)
def context_is_what_is_served(subject: Subject, context: Context) -> Iterator[Outcome]:
    """contextLength and max-model-len differ.

    `contextLength` says which context the GPU claims are about, `max-model-len` which one is served. When they
    differ, the claims are about something that is never started.

    Fails::

        requirements: {contextLength: 8192}
        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]

    Passes::

        requirements: {contextLength: 16384}
        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    claimed = known_count(subject.proposal.requirements.context_length)
    served = subject.proposal.served_max_model_len
    if claimed is not None and served is not None and served != claimed:
        yield Finding(
            f"contextLength is {claimed:,}, max-model-len is {served:,}", _CONTEXT, f"contextLength: {served}"
        )

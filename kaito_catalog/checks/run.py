"""RUN: will vLLM take the options."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.checks.base import NO_FACTS, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.formats.proposal import known_count
from kaito_catalog.plan import facts_shape, illegal_tensor_parallel
from kaito_catalog.shape import Unsupported


@check("RUN001")
def legal_tensor_parallel_size(subject: Subject, context: Context) -> Iterator[Outcome]:
    """vLLM cannot split the model over that many GPUs.

    Tensor parallelism gives every GPU the same number of attention heads, so the number of GPUs has to divide
    the heads; key-value heads are divided or, when there are fewer than GPUs, repeated a whole number of times.

    Fails::

        requirements: {gpuCount: 3, totalGPUMemory: 240GB, perGPUMemory: 80GB}

    Passes::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB, perGPUMemory: 80GB}
    """
    count = known_count(subject.proposal.requirements.gpu_count)
    if count is None:
        yield Skip("the proposal claims no number of GPUs", "add requirements.gpuCount")
        return
    if count == 1:
        return
    if subject.facts is None or subject.facts.config is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    shape = facts_shape(subject.facts)
    if isinstance(shape, Unsupported):
        yield Skip(shape.reason)
        return
    reason = illegal_tensor_parallel(shape, count)
    if reason:
        yield Finding(f"tensor_parallel_size {count} is not possible: {reason}", ("requirements", "gpuCount"))

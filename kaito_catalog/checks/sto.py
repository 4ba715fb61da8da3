"""STO: is the claimed disk size enough for the files, and not far too much."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.architectures import Unsupported
from kaito_catalog.checks.base import NO_FACTS, WARNING, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.formats.proposal import known_size
from kaito_catalog.memory.held_weights import lack_of_bytes
from kaito_catalog.plans.instance_types import facts_shape
from kaito_catalog.quantity import Quantity, at_least_gb, gb, gib

_STORAGE = ("requirements", "storageSize")
_NO_CLAIM = Skip("the proposal claims no storage size", "add requirements.storageSize, such as 150GB")


def _against(claim: Quantity, total: StoredSize, what: str, hint: str) -> Iterator[Outcome]:
    if claim.bytes < total.low_bytes:
        yield Finding(
            f"{claim} is less than {gb(total.size_bytes)} ({gib(total.size_bytes)}) of {what}", _STORAGE, hint
        )
    elif claim.bytes < total.high_bytes:
        yield Skip(
            f"{claim} lies within the rounding of the published {gib(total.size_bytes)} of {what}",
            "record the exact size of the files",
        )


def _claim_for(size_bytes: int) -> str:
    """What to claim for so many bytes: rounded up to 5 GB, where that is not far more."""
    fives = -(-size_bytes // (5 * 10**9)) * 5
    return f"{fives}GB" if fives * 10**9 <= 1.2 * size_bytes else at_least_gb(size_bytes)


def _lack(facts: ModelFacts, context: Context) -> str | None:
    total = facts.weights.total if facts.weights else None
    return lack_of_bytes(facts_shape(facts), total, context.profile.vllm_version)


@check("STO001", proves=("requirements.storageSize",))
def room_for_the_weights(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The storage is less than the weights that vLLM downloads.

    vLLM chooses one format and leaves copies such as `original/` alone; these bytes are the least a disk must
    hold. GB are 10⁹ bytes and GiB 2³⁰: 131.4 GiB of weights do not fit on 140GB.

    Fails::

        requirements: {storageSize: 14GB}

    Passes::

        requirements: {storageSize: 20GB}
    """
    claim = known_size(subject.proposal.requirements.storage_size)
    if claim is None:
        yield _NO_CLAIM
        return
    if subject.facts is None:
        yield NO_FACTS
        return
    total = subject.facts.weights.total if subject.facts.weights else None
    if total is None:
        yield Skip("the size of the weights is not recorded")
        return
    if _lack(subject.facts, context):
        yield Skip("the recorded weights are not all that the configuration asks for (STO004)")
        return
    yield from _against(claim, total, "weights", f"storageSize: {_claim_for(total.high_bytes)} or more")


@check("STO002", severity=WARNING)
def room_for_all_files(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The storage is less than all files of the repository.

    KAITO's template asks for "the required disk size to contain all model files"; that includes tokenizers,
    and second copies where the repository has them.

    Fails::

        requirements: {storageSize: 16GB}
        facts: {repository: {sizeBytes: 17000000000}}

    Passes::

        requirements: {storageSize: 20GB}
        facts: {repository: {sizeBytes: 17000000000}}
    """
    claim = known_size(subject.proposal.requirements.storage_size)
    if claim is None:
        yield _NO_CLAIM
        return
    if subject.facts is None or subject.facts.repository is None:
        yield (
            NO_FACTS if subject.facts is None else Skip("the size of the whole repository is not recorded")
        )
        return
    total = subject.facts.repository
    yield from _against(
        claim, total, "files in the repository", f"storageSize: {_claim_for(total.high_bytes)} or more"
    )


@check("STO003", severity=WARNING)
def not_far_too_much(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The storage is far more than the files need.

    Disk is paid for on every node. The claim is compared with all files of the repository where their size is
    known, else with the weights; the factor is `tolerances.storageOver` in policy.yaml. KAITO sizes its own
    disk: the weights and what the profile adds to them.

    Fails::

        requirements: {storageSize: 200GB}

    Passes::

        requirements: {storageSize: 20GB}
    """
    claim = known_size(subject.proposal.requirements.storage_size)
    if claim is None or subject.facts is None:
        yield _NO_CLAIM if claim is None else NO_FACTS
        return
    weights = subject.facts.weights.total if subject.facts.weights else None
    total = subject.facts.repository or weights
    if total is None:
        yield Skip("the size of the files is not recorded")
        return
    factor = context.shared.policy.tolerances.storage_over
    if claim.bytes > factor * total.high_bytes:
        times = f"{claim.bytes / total.size_bytes:.1f} times" if total.size_bytes else "more than"
        disk = (weights or total).size_bytes + context.profile.disk_overhead_bytes
        yield Finding(
            f"{claim} is {times} the {gb(total.size_bytes)} of files",
            _STORAGE,
            f"storageSize: {_claim_for(total.high_bytes)}; KAITO itself asks for a disk of {gib(disk)}",
        )


@check("STO004")
def weights_are_complete(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The recorded weights are less than the configuration asks for.

    A shard that is missing, a clone without its LFS files or a download that was broken off make a model look
    small. The bytes of the weight files are compared with what vLLM's classes allocate for the configuration.

    Fails::

        facts: {weights: {format: safetensors, total: {sizeBytes: 8000000000}}}

    Passes::

        requirements: {storageSize: 20GB}
    """
    if subject.facts is None:
        yield NO_FACTS
        return
    if subject.facts.weights is None or subject.facts.weights.total is None:
        yield Skip("the size of the weights is not recorded")
        return
    if isinstance(shape := facts_shape(subject.facts), Unsupported):
        yield Skip(f"what the configuration asks for is not known: {shape.reason}")
        return
    lack = _lack(subject.facts, context)
    if lack is not None:
        yield Finding(
            f"the weight files lack {lack}",
            ("requirements", "version"),
            "name a revision that has all its files, and record it",
        )

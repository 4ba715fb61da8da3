"""ARC: is the model of the kind that the proposal says."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.checks.base import NO_FACTS, WARNING, Context, Finding, Outcome, Skip, Subject, check

_TYPE = ("requirements", "type")


@check("ARC001", proves=("requirements.type",))
def type_of_the_hub(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The type is not the Hub's pipeline tag.

    The type decides which API serves the model. KAITO's template takes the Hub's classification; the older
    words "conversational" and "text generation" are understood, with a warning.

    Fails::

        requirements: {type: text-to-image}

    Passes::

        requirements: {type: text-generation}
    """
    claimed = subject.proposal.requirements.type
    if subject.facts is None or subject.facts.pipeline_tag is None:
        yield NO_FACTS if subject.facts is None else Skip("the Hub's pipeline tag is not recorded")
        return
    tag = subject.facts.pipeline_tag
    known = context.shared.policy.types.aliases.get(claimed.lower(), claimed)
    if known != tag:
        yield Finding(
            f"the type is {tag} on the Hub, the proposal says '{claimed[:60]}'", _TYPE, f"type: {tag}"
        )
    elif claimed != tag:
        yield Finding(f"'{claimed}' is an older word for {tag}", _TYPE, f"type: {tag}", severity=WARNING)

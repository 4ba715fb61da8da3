"""ARC: is the model of the kind that the proposal says, and of one that vLLM serves."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.checks.base import NO_FACTS, WARNING, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.vllm_bridge.reference import known

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
        yield Finding(f"'{claimed}' is an older name for {tag}", _TYPE, f"type: {tag}", severity=WARNING)


@check("ARC002")
def architecture_that_vllm_has(subject: Subject, context: Context) -> Iterator[Outcome]:
    """This vLLM has no such architecture.

    The class named in config.json has to be in the registry of the vLLM that the KAITO profile runs. For one that
    was dropped, or comes with a newer version, the message says which. A class with another ending is built from one
    of the registry, as vLLM does: LlamaForSequenceClassification from LlamaForCausalLM. (vLLM can also run some
    classes through Transformers; KAITO v0.12 lists those it takes by name, so that does not count.)

    Fails::

        facts: {config: {architectures: [AquilaForCausalLM]}}

    Passes::

        facts: {config: {architectures: [LlamaForSequenceClassification]}}
    """
    if subject.proposal.vllm is None:
        yield Skip("the proposal does not serve with vLLM")
        return
    if subject.facts is None or subject.facts.config is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    named = subject.facts.config.get("architectures")
    vllm = known(context.profile.vllm_version)
    if vllm is None or not isinstance(named, list) or not named:
        yield Skip(
            "the configuration names no architecture" if vllm else "what this vLLM knows is not recorded"
        )
        return
    if any(isinstance(name, str) and vllm.built_as(name) for name in named):
        return
    name = str(named[0])
    last, newer = vllm.removed_architectures.get(name), vllm.only_in("architectures", name)
    why = f": the last version was {last}" if last else f": it comes with {newer}" if newer else ""
    yield Finding(f"vLLM {vllm.version} has no {name[:80]}{why}", ("requirements", "downloadSite"))

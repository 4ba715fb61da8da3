"""ARC: is the model of the kind that the proposal says, and of one that vLLM serves."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.architectures import Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.checks.base import NO_FACTS, WARNING, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.memory.refusals import unloadable
from kaito_catalog.memory.values import Fit
from kaito_catalog.plans.given_options import own_options
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


@check("ARC003")
def weights_that_vllm_loads(subject: Subject, context: Context) -> Iterator[Outcome]:
    """This vLLM does not load weights that are stored so.

    How the weights are quantised stands in config.json, and vLLM looks it up before anything is downloaded. It has not
    every method that publishers use (EXL2, AQLM, HQQ, BitNet, Quanto), gives some up (bitsandbytes is gone in 0.32.0),
    refuses those that it has marked deprecated without allow-deprecated-quantization, and takes MLX's files, whose
    configuration names no method, for unquantised ones. Another repository of the same model helps.

    Fails::

        facts: {config: {quantization_config: {quant_method: exl2, bits: 4.0}}}

    Passes::

        facts: {config: {quantization_config: {quant_method: awq, bits: 4, group_size: 128}}}
    """
    if subject.proposal.vllm is None:
        yield Skip("the proposal does not serve with vLLM")
        return
    if subject.facts is None or subject.facts.config is None or subject.shape is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    if isinstance(subject.shape, Unsupported):
        yield Skip(subject.shape.reason)
        return
    version = context.profile.vllm_version
    allows = own_options(subject.proposal).get("allow_deprecated_quantization") is True
    found = unloadable(as_built(subject.shape, version), version, allow_deprecated=allows)
    if found is not None and found.fits is Fit.UNKNOWN:
        yield Skip(found.reason)
    elif found is not None:
        yield Finding(
            found.reason,
            ("requirements", "downloadSite"),
            "name a repository whose weights are stored otherwise",
        )

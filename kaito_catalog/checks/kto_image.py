"""KTO: what the image that KAITO serves from cannot start."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.architectures import Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.checks.base import (
    ERROR,
    NO_FACTS,
    WARNING,
    Context,
    Finding,
    Outcome,
    Skip,
    Subject,
    check,
)
from kaito_catalog.diagnostics import Route
from kaito_catalog.kaito.image import compiled_kernels, is_mounted, missing_template
from kaito_catalog.kaito.release import declared, release_of
from kaito_catalog.near_names import nearest
from kaito_catalog.plans.start import on_its_machine
from kaito_catalog.vllm_bridge.model_types import first_that_reads, model_types

_SITE: Route = ("requirements", "downloadSite")


@check("KTO016")
def chat_template_of_the_image(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO's image does not hold the chat template.

    vLLM takes the value for a file, or for the template itself where it has a brace in it, and stops where there is no
    such file, after the weights have been downloaded. The image has some under /workspace/chat_templates, and vLLM a
    few that it finds by their name; without the option the model's own is taken.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, chat-template: hermes.jinja}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, chat-template: /workspace/chat_templates/tool-chat-hermes.jinja}
    """
    if subject.proposal.vllm is None:
        return
    own = declared(subject.proposal).get("chat-template")
    if own is None:
        return
    kaito = release_of(context.profile)
    route, value = own
    path = missing_template(value, kaito)
    if path is not None:
        near = nearest(path.rpartition("/")[2], kaito.chat_templates)
        yield Finding(
            f"the image of KAITO {kaito.name} has no {path[:100]}",
            route,
            f"did you mean {kaito.template_directory}/{near}?"
            if near
            else f"it has {', '.join(sorted(kaito.chat_templates))} in {kaito.template_directory}",
        )
    elif is_mounted(value):
        yield Skip(f"whether the cluster brings {value[:100]} is not known")


@check("KTO017")
def configuration_that_transformers_reads(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The transformers of KAITO's image are older than the model.

    vLLM reads config.json with transformers, or with a class of its own for some model types. Where neither knows the
    `model_type`, the server stops at once, even if vLLM has a class for the architecture; a repository with code of
    its own (`auto_map`) brings the class along, which KAITO lets it do.

    Fails::

        facts: {config: {model_type: example_next}}

    Passes::

        facts: {config: {model_type: llama}}
    """
    if subject.proposal.vllm is None:
        yield Skip("the proposal does not serve with vLLM")
        return
    if subject.facts is None or subject.facts.config is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    config = subject.facts.config
    name, code = config.get("model_type"), config.get("auto_map")
    known = model_types(context.profile.vllm_version)
    if known is None:
        yield Skip(f"which model types vLLM {context.profile.vllm_version} reads is not recorded")
    elif not isinstance(name, str):
        yield Skip("the configuration names no model_type")
    elif name not in known and not (isinstance(code, dict) and "AutoConfig" in code):
        first = first_that_reads(name)
        since = (
            f": vLLM {first.vllm_version} does, with transformers {first.transformers_version}"
            if first is not None
            else ""
        )
        yield Finding(
            f"vLLM {known.vllm_version} and transformers {known.transformers_version} cannot read a configuration of "
            f"model_type '{name[:60]}'{since}",
            _SITE,
        )


@check("KTO018", severity=WARNING)
def kernels_of_the_image(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO's image would have to compile a kernel, and has no compiler for it.

    FlashInfer and DeepGEMM compile their kernels with nvcc when the server starts. The image has none, and KAITO adds
    the CUDA toolkit for some models only. An option that asks for such a back end is an error; where vLLM would choose
    one by itself for the model and the GPU it is a warning, since that follows from vLLM's code and not from a start:
    name another back end in the ConfigMap (`moe-backend: triton`, `attention-backend: FLASH_ATTN`).

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, attention-backend: FLASHINFER}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, attention-backend: FLASH_ATTN}
    """
    if subject.proposal.vllm is None:
        yield Skip("the proposal does not serve with vLLM")
        return
    if subject.facts is None or subject.shape is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    if isinstance(subject.shape, Unsupported):
        yield Skip(subject.shape.reason)
        return
    started = on_its_machine(
        subject.proposal, subject.facts, context.shared, context.profile, as_written=True
    )
    if started is None or started.launch is None:
        yield Skip("which start KAITO would make is not known", "add deployment.instanceType")
        return
    if "CUDA_HOME" in started.environment:
        return
    gpu, own = started.request.gpu, declared(subject.proposal)
    options = {argument.name: argument.value for argument in started.launch.arguments}
    built = as_built(subject.shape, context.profile.vllm_version, gpu.compute_capability)
    for found in compiled_kernels(built, gpu.compute_capability, started.request.parallelism, options):
        asked = own.get(found.option) if found.option else None
        yield Finding(
            f"{found.words}: compiled with nvcc when the server starts, which the image of KAITO "
            f"{started.launch.release} has not" + ("" if found.option else f" ({gpu.name or 'this GPU'})"),
            asked[0] if asked else ("deployment", "instanceType"),
            "leave it out, or name a back end that is compiled already"
            if found.option
            else "moe-backend: triton or attention-backend: FLASH_ATTN in the options, or another GPU",
            severity=ERROR if found.option else None,
        )

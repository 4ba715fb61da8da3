"""RUN: will vLLM take the options, as KAITO hands them over."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

from pydantic import JsonValue

from kaito_catalog.checks.base import (
    MOST_GPUS,
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
from kaito_catalog.formats.proposal import known_count
from kaito_catalog.plan import illegal_tensor_parallel
from kaito_catalog.shape import Unsupported
from kaito_catalog.vllm_known import Option, VllmVersion, known


def _no_data(context: Context) -> Skip:
    version = context.profile.vllm_version
    return Skip(
        f"what vLLM {version} knows is not recorded", "maintainers: python -m tools.refresh_vllm_data"
    )


def _options(subject: Subject) -> Iterator[tuple[Route, str, JsonValue]]:
    """The vLLM options of the proposal: route, name as written, value."""
    for number, runtime in enumerate(subject.proposal.runtimes or ()):
        if runtime.name == "vllm":
            for name, value in (runtime.config or {}).items():
                yield ("runtimes", number, "config", name), name, value


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
    shape = subject.shape
    if subject.facts is None or subject.facts.config is None or shape is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    if isinstance(shape, Unsupported):
        yield Skip(shape.reason)
        return
    version = context.profile.vllm_version
    reason = illegal_tensor_parallel(shape, count, vllm_version=version)
    if reason:
        possible = [
            size
            for size in range(1, min(max(count, 8), MOST_GPUS) + 1)
            if not illegal_tensor_parallel(shape, size, vllm_version=version)
        ]
        yield Finding(
            f"tensor_parallel_size {count} is not possible: {reason}",
            ("requirements", "gpuCount"),
            f"a gpuCount of {' or '.join(map(str, possible))} is possible" if possible else None,
        )


@check("RUN002")
def known_options(subject: Subject, context: Context) -> Iterator[Outcome]:
    """An option that this vLLM does not have.

    vLLM refuses an option it does not know, and the server does not start. The options are those of the vLLM
    that the KAITO profile runs (policy.yaml). For an option that is gone the message says since when.

    Fails::

        runtimes: [{name: vllm, distributedInference: false, config: {swap-space: 4, max-model-len: 16384}}]

    Passes::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    vllm = known(context.profile.vllm_version)
    if vllm is None:
        yield _no_data(context)
        return
    for route, name, _ in _options(subject):
        if vllm.option(name) is None:
            yield _unknown_option(vllm, route, name)


def _unknown_option(vllm: VllmVersion, route: Route, name: str) -> Finding:
    removed = vllm.removed_options.get(name.replace("_", "-"))
    if removed:
        return Finding(
            f"vLLM {vllm.version} has no option {name}: it is gone since {removed['goneBy']} "
            f"(last in {removed['lastVersion']})",
            route,
            removed["advice"],
        )
    newer = vllm.only_in("options", name.replace("_", "-"))
    if newer:
        return Finding(
            f"{name} is an option of vLLM {newer}, not yet of {vllm.version}", route, "leave it out"
        )
    near = vllm.nearest_option(name)
    return Finding(
        f"vLLM {vllm.version} has no option {name}",
        route,
        f"did you mean '{near}'?" if near else "leave it out",
    )


@check("RUN003")
def legal_values(subject: Subject, context: Context) -> Iterator[Outcome]:
    """An option has a value that vLLM does not take.

    Types and choices are those of vLLM's own parser, limits of numbers those of its configuration, in the version of
    the KAITO profile. The parser stops the server at once; a limit stops it a little later, on the node.

    Fails::

        runtimes: [{name: vllm, distributedInference: false, config: {dtype: fp32x, max-model-len: 16384}}]

    Passes::

        runtimes: [{name: vllm, distributedInference: false, config: {dtype: bfloat16, max-model-len: 16384}}]
    """
    vllm = known(context.profile.vllm_version)
    if vllm is None:
        yield _no_data(context)
        return
    for route, name, value in _options(subject):
        option = vllm.option(name)
        if option is None or option.type == "boolean":
            continue  # RUN002 and RUN004
        wanted = option.wants(value)
        if wanted:
            yield Finding(
                f"{name} is {wanted}, found {_shown(value)}", route, _legal_value(option, value, context)
            )


def _legal_value(option: Option, value: JsonValue, context: Context) -> str:
    """A hint: the choice that was meant, or what holds without the option."""
    longer = [choice for choice in option.choices if choice.startswith(str(value).lower())]
    near = longer or difflib.get_close_matches(str(value), option.choices, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    if option.name == "gpu-memory-utilization":
        return f"a share, not a percentage; without it KAITO takes {context.profile.utilization(None):g}"
    default = "decides by itself" if option.default is None else f"takes {_shown(option.default)}"
    return f"without it vLLM {default}"


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


@check("RUN004")
def switches_survive_kaito(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A switch means something else after KAITO has expanded it.

    KAITO appends every pair of the ConfigMap as `--key` and `str(value)`. A switch takes no value: `--key
    False` switches it *on*, and the word that is left over breaks the parser where a second one follows. What
    survives is the bare switch, an empty text: `enable-prefix-caching: ""`, `no-trust-remote-code: ""`. The
    generated manifests write it that way.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {trust-remote-code: false, max-model-len: 16384}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {no-trust-remote-code: "", max-model-len: 16384}
    """
    vllm = known(context.profile.vllm_version)
    if vllm is None:
        yield _no_data(context)
        return
    for route, name, value in _options(subject):
        option = vllm.option(name)
        if option is None or option.type != "boolean" or value in ("", None):
            continue
        if value is False or str(value).lower() == "false":
            off = option.negation or f"no-{option.name}"
            yield Finding(
                f"KAITO makes '--{name} {value}' of it, which switches {name} on", route, f'write {off}: ""'
            )
        elif value is True or str(value).lower() == "true":
            yield Finding(
                f"KAITO makes '--{name} {value}' of it, and the word {value} is left over",
                route,
                f'write {name}: ""',
                severity=WARNING,
            )
        else:
            yield Finding(
                f"{name} is a switch, found {_shown(value)}", route, f'write {name}: "" to switch it on'
            )


@check("RUN005")
def known_parsers(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A tool-call or reasoning parser that this vLLM does not have.

    The names are registered by vLLM, and new ones come with new versions; a name that is not registered stops
    the server, after the weights have been downloaded.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, enable-auto-tool-choice: "", tool-call-parser: hermez}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, enable-auto-tool-choice: "", tool-call-parser: hermes}
    """
    vllm = known(context.profile.vllm_version)
    if vllm is None:
        yield _no_data(context)
        return
    kinds = {
        "tool-call-parser": ("toolParsers", vllm.tool_parsers),
        "reasoning-parser": ("reasoningParsers", vllm.reasoning_parsers),
    }
    for route, name, value in _options(subject):
        kind, names = kinds.get(name.replace("_", "-"), ("", ()))
        if not kind or not isinstance(value, str) or value in names or value == "":
            continue
        newer = vllm.only_in(kind, value)
        longer = [known_name for known_name in names if known_name.startswith(value.lower())]
        near = longer or difflib.get_close_matches(value, names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(names)}"
        if newer:
            hint = f"it comes with vLLM {newer}"
        yield Finding(f"vLLM {vllm.version} has no {name} '{value[:60]}'", route, hint)

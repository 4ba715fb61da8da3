"""RUN: will vLLM take the options, as KAITO hands them over."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import JsonValue

from kaito_catalog.architectures import Unsupported
from kaito_catalog.checks.asked import claimed_split
from kaito_catalog.checks.base import (
    MOST_GPUS_OF_A_CLAIM,
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
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.near_names import nearest
from kaito_catalog.plans.start import served_parallelism
from kaito_catalog.vllm_bridge.reference import Option, VllmVersion, known


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
    A model that takes less than half of a GPU is not split where KAITO starts a copy on each.

    Fails::

        requirements: {gpuCount: 3, totalGPUMemory: 240GB, perGPUMemory: 80GB}

    Passes::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB, perGPUMemory: 80GB}
    """
    count = known_count(subject.proposal.requirements.gpu_count)
    if count is None:
        yield Skip("the proposal claims no number of GPUs", "add requirements.gpuCount")
        return
    split = claimed_split(subject, context, count)
    size = split.tensor_parallel_size if split else count
    if size == 1:
        return
    shape = subject.shape
    if subject.facts is None or subject.facts.config is None or shape is None:
        yield NO_FACTS if subject.facts is None else Skip("the configuration is not recorded")
        return
    if isinstance(shape, Unsupported):
        yield Skip(shape.reason)
        return
    version = context.profile.vllm_version
    reason = illegal_tensor_parallel(shape, size, vllm_version=version)
    if reason:
        possible = [
            other
            for other in range(1, min(max(size, 8), MOST_GPUS_OF_A_CLAIM) + 1)
            if not illegal_tensor_parallel(shape, other, vllm_version=version)
        ]
        yield Finding(
            f"tensor_parallel_size {size} is not possible: {reason}",
            ("requirements", "gpuCount"),
            f"a {'gpuCount' if size == count else 'size'} of {' or '.join(map(str, possible))} is possible"
            if possible
            else None,
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
    if near := nearest(str(value), option.choices):
        return f"did you mean '{near}'?"
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
    trusts_code = subject.proposal.vllm is not None and subject.proposal.vllm.trust_remote_code
    for route, name, value in _options(subject):
        option = vllm.option(name)
        if option is None or option.type != "boolean" or value in ("", None):
            continue
        alone = trusts_code or option.name == "trust-remote-code"
        if value is False or str(value).lower() == "false":
            off = option.negation or f"no-{option.name}"
            yield Finding(
                f"KAITO makes '--{name} {value}' of it, which switches {name} on",
                route,
                f'write {off}: ""' if alone else _NO_ROOM,
            )
        elif value is True or str(value).lower() == "true":
            yield Finding(
                f"KAITO makes '--{name} {value}' of it, and the word {value} is left over",
                route,
                f'write {name}: ""' if alone else _NO_ROOM,
                severity=WARNING,
            )
        else:
            yield Finding(
                f"{name} is a switch, found {_shown(value)}",
                route,
                f'write {name}: "" to switch it on' if alone else _NO_ROOM,
            )


_NO_ROOM = "leave it out: KAITO's form has room for one switch, and no-trust-remote-code takes it"


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
        near = nearest(value, names)
        hint = f"did you mean '{near}'?" if near else f"one of {', '.join(names)}"
        if newer:
            hint = f"it comes with vLLM {newer}"
        yield Finding(f"vLLM {vllm.version} has no {name} '{value[:60]}'", route, hint)


@check("RUN006")
def parallel_sizes_make_the_gpus(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The parallel sizes of the options are another number of GPUs than the proposal claims.

    tensor-parallel-size × pipeline-parallel-size × data-parallel-size is the number of GPUs that vLLM takes, and it
    comes after KAITO's own sizes, so it counts. Without tensor-parallel-size the rest is split by it.

    Fails::

        requirements: {gpuCount: 1}
        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, tensor-parallel-size: 4}

    Passes::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB}
        runtimes:
          - name: vllm
            distributedInference: true
            config: {max-model-len: 16384, tensor-parallel-size: 2, pipeline-parallel-size: 2}
    """
    count = known_count(subject.proposal.requirements.gpu_count)
    sizes = [
        (route, name, value)
        for route, name, value in _options(subject)
        if name.replace("_", "-") in ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
    ]
    if not sizes:
        return
    if count is None:
        yield Skip("the proposal claims no number of GPUs", "add requirements.gpuCount")
    elif served_parallelism(subject.proposal, count) is None:
        shown = " × ".join(f"{name} {_shown(value)}" for _, name, value in sizes)
        yield Finding(
            f"{shown} cannot make {count} GPU{'' if count == 1 else 's'} (gpuCount)",
            sizes[0][0],
            "correct gpuCount, or leave the sizes out: KAITO splits over the GPUs of the instance type",
        )


@check("RUN007")
def runtime_that_kaito_has(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A runtime that KAITO cannot start, or one that is there twice.

    KAITO serves with vllm or transformers. Its template lists ONNX as well, and nothing starts it: a proposal with
    no other runtime gets no manifests. Of two entries of one runtime only the first would count.

    Fails::

        runtimes: [{name: onnx, distributedInference: false}]

    Passes::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    names = [runtime.name for runtime in subject.proposal.runtimes or ()]
    for number, name in enumerate(names):
        route: Route = ("runtimes", number, "name")
        if name in names[:number]:
            yield Finding(f"{name} is there twice", route, "make one entry of them")
        elif name == "onnx":
            yield Finding(
                "KAITO has no runtime onnx",
                route,
                "serve with vllm or transformers",
                severity=WARNING if set(names) - {"onnx"} else None,
            )


KAITO_PORT = 5000
"""Where KAITO's Service and probes look for the server: PortInferenceServer of pkg/utils/consts/consts.go."""
_ELSEWHERE = ("uds", "ssl-certfile", "ssl-keyfile", "headless")


@check("RUN008")
def server_where_kaito_looks(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The server would listen where KAITO does not look.

    KAITO's Service and its probes speak plain HTTP to port 5000. A server that listens elsewhere is taken for dead
    and is started again and again.

    Fails::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384, port: 8080}}]

    Passes::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    for route, name, value in _options(subject):
        option = name.replace("_", "-")
        if option in _ELSEWHERE or (option == "port" and str(value) != str(KAITO_PORT)):
            yield Finding(
                f"{name} {_shown(value)}: KAITO looks for the server at port {KAITO_PORT}, in plain HTTP",
                route,
                "leave it out",
            )


@check("RUN009")
def adapters_that_vllm_loads(subject: Subject, context: Context) -> Iterator[Outcome]:
    """vLLM loads no adapters into a model of this architecture.

    KAITO passes --enable-lora to every model that has adapters. vLLM stops where the architecture's class does not
    support LoRA.

    Fails::

        facts: {config: {architectures: [FalconForCausalLM]}}
        deployment: {adapters: [{name: sql, image: "registry.example.org/sql-lora:1"}]}

    Passes::

        deployment: {adapters: [{name: sql, image: "registry.example.org/sql-lora:1"}]}
    """
    deployment = subject.proposal.deployment
    lora = [
        route
        for route, name, _ in _options(subject)
        if name.replace("_", "-") in ("enable-lora", "lora-modules")
    ]
    route: Route | None = ("deployment", "adapters") if deployment and deployment.adapters else None
    route = route or (lora[0] if lora else None)
    if route is None or (subject.proposal.runtimes and subject.proposal.vllm is None):
        return
    if subject.facts is None:
        yield NO_FACTS
        return
    named = (subject.facts.config or {}).get("architectures")
    vllm = known(context.profile.vllm_version)
    if vllm is None or vllm.lora_architectures is None:
        yield _no_data(context)
        return
    # vLLM builds the first that it knows; one that it has not is ARC002's.
    architecture = (
        next((n for n in named if n in vllm.architectures), None) if isinstance(named, list) else None
    )
    if architecture is None:
        yield Skip("the configuration names no architecture that this vLLM has")
    elif architecture not in vllm.lora_architectures:
        yield Finding(
            f"vLLM {vllm.version} loads no LoRA adapters into {architecture}",
            route,
            "merge the adapter into the weights, and serve those",
        )

"""KTO: what would KAITO make of the model, left to itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kaito_catalog.architectures import Shape
from kaito_catalog.checks.base import (
    ERROR,
    NO_FACTS,
    NOTE,
    WARNING,
    Context,
    Finding,
    Outcome,
    Skip,
    Subject,
    check,
)
from kaito_catalog.diagnostics import Route
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.proposal import Runtime, known_count
from kaito_catalog.kaito import manifests, model_catalog, release
from kaito_catalog.kaito.deployed import partition_of
from kaito_catalog.kaito.estimator import LONGEST_STARTUP_MINUTES, Estimate, startup_minutes_counted
from kaito_catalog.kaito.release import Release, Row, release_of
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.plans.kaito_start import harm_of_lmcache, sized_by_kaito
from kaito_catalog.plans.start import on_its_machine
from kaito_catalog.quantity import GIB, gib

_INSTANCE_TYPE: Route = ("deployment", "instanceType")
_COUNT: Route = ("requirements", "gpuCount")
_LMCACHE: Route = ("deployment", "kvCacheCPUMemoryUtilization")


def _row(subject: Subject, kaito: Release) -> Row | Skip:
    if subject.proposal.runtimes and subject.proposal.vllm is None:
        return Skip("KAITO decides these things for vLLM only, and the proposal serves with something else")
    if subject.facts is None:
        return NO_FACTS
    row, missing = model_catalog.row(subject.facts, kaito)
    return row if row is not None else Skip(f"the facts lack {', '.join(missing)}")


def _start(subject: Subject, context: Context) -> tuple[Row, InstanceType, Estimate] | Skip:
    """The model, the proposal's instance type, and what KAITO would start there."""
    kaito = release_of(context.profile)
    row = _row(subject, kaito)
    if isinstance(row, Skip):
        return row
    name = subject.proposal.deployment.instance_type if subject.proposal.deployment else None
    if name is None or is_missing(name):
        return Skip("the proposal names no instance type", "add deployment.instanceType")
    machine = context.shared.instance_type(name)
    if machine is None:
        return Skip(f"instance-types.yaml has no '{name[:60]}'")
    sized = sized_by_kaito(subject.proposal, subject.facts, context.shared, kaito)
    if sized is None:
        return Skip("the slice is none that KAITO counts with")
    return row, machine, sized.estimate


@check("KTO001", severity=WARNING)
def kaito_splits_legally(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO would split the model over a number of GPUs that vLLM refuses.

    KAITO v0.12 sets tensor-parallel-size to all GPUs of the node and does not look at the model's heads. vLLM
    stops where it cannot divide the attention heads by them, nor divide or repeat the key-value heads. Another
    instance type helps, or tensor-parallel-size in the ConfigMap, which comes last and therefore wins.

    Fails::

        facts:
          weights: {format: safetensors, total: {sizeBytes: 29319017472}}
          config: {num_attention_heads: 40, num_key_value_heads: 10, hidden_size: 5120}
        deployment: {instanceType: Standard_ND96asr_A100_v4}

    Passes::

        deployment: {instanceType: Standard_NC24ads_A100_v4}
    """
    found = _start(subject, context)
    if isinstance(found, Skip):
        yield found
        return
    row, machine, estimate = found
    size = estimate.tensor_parallel_size
    config = (subject.proposal.vllm.config if subject.proposal.vllm else None) or {}
    own = config.get("tensor-parallel-size", config.get("tensor_parallel_size"))
    if own is not None:
        return
    if estimate.nodes is None:
        yield Skip(
            f"KAITO's formula finds no room for the weights on {machine.name}, so there is no split to look at"
        )
        return
    reason = release.illegal_split(row, size)
    shape = subject.shape
    if reason is None and isinstance(shape, Shape):
        expert_parallel = any(
            c.option == "enable-expert-parallel" for c in release.choices(row, release_of(context.profile))
        )
        version = context.profile.vllm_version
        reason = illegal_tensor_parallel(
            shape, size, enable_expert_parallel=expert_parallel, vllm_version=version
        )
    if reason:
        yield Finding(
            f"KAITO would start {machine.name} with tensor-parallel-size {size}: {reason}",
            _INSTANCE_TYPE,
            "name another instance type, or set tensor-parallel-size in the configuration",
        )


@check("KTO002", severity=NOTE)
def kaito_starts_what_is_claimed(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO would use another number of GPUs than the proposal claims.

    KAITO's own formula counts nodes from the size of the files, an even share of the cache and a fixed overhead
    (docs/kaito.md), and takes whole nodes. More nodes than the claim needs are an error, since the user pays for them,
    and so is an instance type on which it finds no room at all. Where a small model gets a copy on every GPU of its
    node, that is more throughput and not a need.

    Fails::

        deployment: {instanceType: Standard_NC96ads_A100_v4}

    Passes::

        deployment: {instanceType: Standard_NC24ads_A100_v4}
    """
    if partition_of(subject.proposal.deployment) is not None:
        return  # KTO012
    found = _start(subject, context)
    if isinstance(found, Skip):
        yield found
        return
    _, machine, estimate = found
    claimed = known_count(subject.proposal.requirements.gpu_count)
    if estimate.nodes is None:
        yield Finding(
            f"KAITO's formula finds no room for the weights on {machine.name} at that context",
            _INSTANCE_TYPE,
            "a larger instance type, or a shorter max-model-len",
            severity=ERROR,
        )
    elif claimed is not None and estimate.nodes * machine.gpu_count != claimed:
        needed = -(-claimed // machine.gpu_count)
        yield Finding(
            f"KAITO would start {release.words(estimate, machine)}; the proposal claims {claimed}",
            _COUNT,
            severity=ERROR if estimate.nodes > needed else None,
        )


@check("KTO003", severity=NOTE)
def name_and_architecture_agree(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO chooses a parser by the name, and the architecture would have another.

    The beginning of a model's name comes first. A model distilled from another family keeps that family's name and
    has its base model's tokens, so look at its chat template before you trust the parser.

    Fails::

        facts: {repoId: example-org/DeepSeek-R1-Distill-Example-7B}

    Passes::

        facts: {repoId: example-org/Example-7B-Instruct}
    """
    kaito = release_of(context.profile)
    row = _row(subject, kaito)
    if isinstance(row, Skip):
        yield row
        return
    name = release.short_name(str(row["name"]))
    own = release.declared(subject.proposal)
    for option, parsers in (
        ("tool-call-parser", kaito.tool_call_parser),
        ("reasoning-parser", kaito.reasoning_parser),
    ):
        named, built = parsers.by_name(name), parsers.by_architecture(list(row["architectures"]))
        if option not in own and name not in parsers.never and named and built and named[1] != built[1]:
            yield Finding(
                f"KAITO would pass {option} {named[1]} by the name '{named[0]}'; for {built[0]} it has {built[1]}",
                ("metadata", "name"),
                f"set {option} in the configuration to be sure",
            )


@check("KTO004", severity=NOTE)
def declared_as_kaito_chooses(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The proposal sets an option otherwise than KAITO does.

    KAITO appends the ConfigMap to its own options, and the last one counts. A user who does not copy the
    ConfigMap gets KAITO's choice.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, tool-call-parser: hermes}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, tool-call-parser: llama3_json}
    """
    kaito = release_of(context.profile)
    row = _row(subject, kaito)
    if isinstance(row, Skip):
        yield row
        return
    own = release.declared(subject.proposal)
    for choice in release.choices(row, kaito):
        if choice.option in own and choice.option != "max-model-len":
            route, value = own[choice.option]
            if value != choice.value:
                yield Finding(
                    f"{choice.option} is {value} here, and KAITO would pass {choice.value or 'the bare switch'} "
                    f"({choice.because})",
                    route,
                )


@check("KTO005")
def context_that_admission_takes(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO's admission webhook refuses the context.

    It compares max-model-len with modelTokenLimit of KAITO's catalog, which is max_position_embeddings of the
    configuration whatever the rope settings say, and refuses the Workspace when it is more.

    Fails::

        requirements: {contextLength: 200000}
        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 200000}}]

    Passes::

        requirements: {contextLength: 16384}
        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    kaito = release_of(context.profile)
    row = _row(subject, kaito)
    if isinstance(row, Skip):
        yield row
        return
    own = release.declared(subject.proposal).get("max-model-len")
    served, limit = subject.proposal.max_model_len, int(row["modelTokenLimit"])
    if served is not None and served > limit:
        route: Route = own[0] if own else ("requirements", "contextLength")
        yield Finding(
            f"KAITO takes max-model-len up to {limit:,} for this model, found {served:,}",
            route,
            f"max-model-len: {limit}",
        )


@check("KTO006", severity=NOTE)
def tool_template_has_a_parser(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO chooses a chat template for tools, and no parser for the calls.

    The template makes the model write tool calls; without tool-call-parser vLLM hands them to the client as
    plain text.

    Fails::

        facts: {repoId: example-org/Phi-4-mini-Example, config: {architectures: [Phi3ForCausalLM], model_type: phi3}}

    Passes::

        facts: {repoId: example-org/Example-7B-Instruct}
    """
    kaito = release_of(context.profile)
    row = _row(subject, kaito)
    if isinstance(row, Skip):
        yield row
        return
    options = {choice.option: choice for choice in release.choices(row, kaito)}
    own = release.declared(subject.proposal)
    template = options.get("chat-template")
    if template and "chat-template" not in own and not {"tool-call-parser"} & (options.keys() | own.keys()):
        yield Finding(
            f"KAITO would pass {template.shown} ({template.because}) and no tool-call-parser",
            ("runtimes",),
            "set tool-call-parser in the configuration",
        )


@check("KTO007")
def manifests_can_say_it(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO's manifests cannot carry what the proposal asks for.

    KAITO hands the options over as pairs of texts, which leaves no room for a list, for two switches, or for an
    option in two spellings, and it reads max-model-len as a count of tokens only (`auto` and -1 are refused). Names of
    a Secret and a ConfigMap have to be names that Kubernetes takes. `generate` leaves such manifests out.

    Fails::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: auto}}]

    Passes::

        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]
    """
    proposal = subject.proposal
    runtime = manifests.serving_runtime(proposal)
    if runtime is not None and runtime.name == "vllm":
        try:
            manifests.vllm_options(proposal, runtime)
        except manifests.InexpressibleError as error:
            route: Route = ("runtimes", (proposal.runtimes or ()).index(runtime), "config")
            yield Finding(str(error), _named_in(runtime, str(error), route), error.hint)
    for key in ("modelAccessSecret", "configMap"):
        deployment = proposal.deployment
        name = (
            {"modelAccessSecret": deployment.model_access_secret, "configMap": deployment.config_map}[key]
            if deployment
            else None
        )
        if name is not None and not is_missing(name) and not _OBJECT_NAME.match(name):
            yield Finding(
                f"'{name[:60]}' is not a name that Kubernetes accepts",
                ("deployment", key),
                f"{key}: {manifests.object_name(name)}",
            )


_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")


def _named_in(runtime: Runtime, message: str, route: Route) -> Route:
    """The route of the option that a message begins with, else of all options."""
    first = message.partition(" ")[0]
    return next(((*route, name) for name in runtime.config or {} if name.replace("_", "-") == first), route)


_WITHOUT_GPU = re.compile(r"standard_[a-mo-z]|[acdfhimrtuxz][0-9][a-z0-9-]*[.]", re.IGNORECASE)
"""Families without GPUs: Azure's but N, such as Standard_D4s_v5, and AWS's but G, P and those of its own accelerators,
such as m5.large."""


@check("KTO008")
def instance_type_that_kaito_knows(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The catalog does not know the instance type.

    KAITO's admission refuses an instance type that its table lacks, except on Azure those whose names begin with
    Standard_N or Standard_D. The GPUs of one that instance-types.yaml does not list are unknown here as well. Azure
    rents GPUs under Standard_N alone: on a Standard_D that admission takes, no server of a model starts.

    Fails::

        deployment: {instanceType: Standard_NC24_A100_v4}

    Passes::

        deployment: {instanceType: Standard_NC24ads_A100_v4}
    """
    name = subject.proposal.deployment.instance_type if subject.proposal.deployment else None
    if name is None or is_missing(name) or context.shared.instance_type(name) is not None:
        return
    near = context.shared.near_instance_types(name)
    without_gpu = _WITHOUT_GPU.match(name) is not None
    custom = name.lower().startswith("standard_n") and not near
    yield Finding(
        f"{name[:60]} has no GPU"
        if without_gpu
        else f"there is no instance type '{name[:60]}' in instance-types.yaml",
        _INSTANCE_TYPE,
        f"did you mean {' or '.join(repr(other) for other in near)}?"
        if near
        else "choose one of instance-types.yaml"
        if without_gpu
        else "choose one of that file, or add it there with its source",
        severity=WARNING if custom else None,
    )


@check("KTO009", severity=NOTE)
def starts_before_kaito_gives_up(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO's start-up limit is shorter than the time that it counts for the files itself.

    KAITO's start-up probe counts 15 minutes and 18 seconds for each GiB of weights, which covers a slow download, and
    restarts a server that is not ready by then. The limit never goes beyond 180 minutes, so larger models need a
    faster source: weights that lie on the node or are streamed (a ModelMirror).

    Fails::

        facts: {weights: {format: safetensors, total: {sizeBytes: 700000000000}}}

    Passes::

        facts: {weights: {format: safetensors, total: {sizeBytes: 500000000000}}}
    """
    row = _row(subject, release_of(context.profile))
    if isinstance(row, Skip):
        yield row
        return
    size = release.model_file_bytes(row)
    counted = startup_minutes_counted(size)
    if counted > LONGEST_STARTUP_MINUTES:
        yield Finding(
            f"KAITO gives up after {LONGEST_STARTUP_MINUTES} minutes; at the 18 s a GiB that it counts with, "
            f"{size / GIB:.0f} GiB of weights take {counted:.0f}",
            ("requirements", "storageSize"),
            "serve the weights from the node or from a ModelMirror",
        )


@check("KTO010", severity=WARNING)
def lmcache_leaves_the_model_its_cache(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO attaches LMCache, which costs the model context or keeps it from starting.

    Unless an architecture is on its list, KAITO starts vLLM with LMCache's connector. vLLM then switches its hybrid
    KV cache manager off: layers with a sliding window are cached like those without, and a model that mixes
    attention with states (Mamba, gated delta nets, short convolutions) does not start, which is an error. A ConfigMap
    with `kv_cache_cpu_memory_utilization: 0` starts it without LMCache. The generated manifests have that line where
    it is needed; a proposal should say it too, since others copy from it.

    Fails::

        facts:
          weights: {format: safetensors, total: {sizeBytes: 29319017472}}
          config:
            {architectures: [Gemma3ForCausalLM], model_type: gemma3_text, hidden_size: 2560, head_dim: 256,
            num_hidden_layers: 34, num_attention_heads: 8, num_key_value_heads: 4, intermediate_size: 10240,
            vocab_size: 262144, sliding_window: 1024, sliding_window_pattern: 6, max_position_embeddings: 131072,
            torch_dtype: bfloat16}
        deployment: {instanceType: Standard_NC24ads_A100_v4}

    Passes::

        deployment: {instanceType: Standard_NC24ads_A100_v4, kvCacheCPUMemoryUtilization: 0}
    """
    found = _start(subject, context)
    if isinstance(found, Skip):
        yield found
        return
    started = on_its_machine(
        subject.proposal, subject.facts, context.shared, context.profile, as_written=True
    )
    if started is None or started.launch is None:
        yield Skip("which start KAITO would make is not known")
        return
    if not started.launch.uses_lmcache:
        return
    harm = harm_of_lmcache(started.request)
    attaches = (
        f"KAITO {started.launch.release} attaches LMCache, which switches vLLM's hybrid KV cache manager off"
    )
    hint = "deployment.kvCacheCPUMemoryUtilization: 0, which the ConfigMap then has beside vllm:"
    if isinstance(harm, Unplannable) and harm.refused is None:
        yield Skip(harm.reason)
    elif isinstance(harm, Unplannable):
        yield Finding(f"{attaches}: {harm.reason}", _LMCACHE, hint, severity=ERROR)
    elif harm is not None:
        tokens = subject.proposal.max_model_len or harm.max_model_len
        yield Finding(
            f"{attaches}: one request of {tokens:,} tokens takes {gib(harm.bytes_with(tokens))} of KV cache on each "
            f"GPU instead of {gib(harm.bytes_without(tokens))}",
            _LMCACHE,
            hint,
        )

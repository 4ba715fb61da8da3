"""KTO: adapters, slices of GPUs and the number of nodes, as KAITO takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kaito_catalog.checks.asked import asked_of
from kaito_catalog.checks.base import ERROR, NO_FACTS, NOTE, Context, Finding, Outcome, Skip, Subject, check
from kaito_catalog.diagnostics import Route
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.hardware import Gpu, InstanceType
from kaito_catalog.formats.proposal import Partition, known_count
from kaito_catalog.kaito import deployed
from kaito_catalog.kaito.manifests import serving_runtime
from kaito_catalog.kaito.release import declared, model_file_bytes, need_of, release_of
from kaito_catalog.memory.values import Fit
from kaito_catalog.near_names import nearest
from kaito_catalog.plans.kaito_start import sized_by_kaito
from kaito_catalog.plans.start import generated_start
from kaito_catalog.quantity import gib

_ADAPTERS: Route = ("deployment", "adapters")
_PROFILE: Route = ("deployment", "partition", "profile")
_NODES: Route = ("deployment", "nodeCount")
_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


@check("KTO011")
def adapters_that_kaito_takes(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO does not take the adapters as they are named.

    KAITO copies adapters out of container images before it starts the server, one folder for each name, and vLLM
    loads them with --lora-modules. It has no source on the Hub, refuses a strength with vLLM, and takes ten adapters
    with different names at most. What an adapter's rank is, a proposal does not know: vLLM reserves memory by
    max-loras and max-lora-rank, and refuses an adapter of a higher rank.

    Fails::

        deployment: {adapters: [{name: sql, repoId: example-org/sql-lora}]}

    Passes::

        deployment: {adapters: [{name: sql, image: "registry.example.org/sql-lora:1"}]}
    """
    runtime = serving_runtime(subject.proposal)
    name = runtime.name if runtime else "vllm"
    for problem in deployed.adapter_problems(subject.proposal.deployment, name):
        route: Route = (*_ADAPTERS, problem.position)
        yield Finding(problem.message, (*route, problem.key) if problem.key else route, problem.hint)


@check("KTO012")
def slice_that_serves_the_model(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The slice of a GPU is none that KAITO can serve the model on.

    A MIG slice is one device: one GPU, without tensor parallelism. KAITO refuses profiles that it has not in its list,
    and a model whose files × 1.02, with 2.3 GiB, the cache of the context and 5 % for what grows with the weights, take
    more than 0.84 of the gigabytes in the profile's name. The slices that a GPU can be cut into are in gpus.yaml.
    KAITO serves on slices only with the feature gate enableMIG and on nodes that are brought along.

    Fails::

        deployment: {partition: {mode: mig, profile: 1g.20gb}}
        requirements: {gpuCount: 2}

    Passes::

        deployment: {partition: {mode: mig, profile: 3g.40gb}}
        requirements: {gpuCount: 1, totalGPUMemory: 40GB, perGPUMemory: 40GB}
    """
    partition = deployed.partition_of(subject.proposal.deployment)
    if partition is None:
        return
    found = [*_unknown_profile(partition, _machine(subject, context), context), *_more_than_one(subject)]
    yield from found
    if not any(isinstance(outcome, Finding) and outcome.route == _PROFILE for outcome in found):
        yield from _fit_of_slice(subject, context, partition)


def _machine(subject: Subject, context: Context) -> InstanceType | None:
    name = subject.proposal.deployment.instance_type if subject.proposal.deployment else None
    return context.shared.instance_type(name) if name and not is_missing(name) else None


def _unknown_profile(
    partition: Partition, machine: InstanceType | None, context: Context
) -> Iterator[Outcome]:
    kaito = release_of(context.profile)
    if partition.profile not in kaito.mig_profiles:
        near = nearest(partition.profile, kaito.mig_profiles)
        hint = f"did you mean {near}?" if near else f"it knows {', '.join(kaito.mig_profiles)}"
        yield Finding(f"KAITO {kaito.name} knows no MIG profile {partition.profile}", _PROFILE, hint)
        return
    if machine is None:
        return
    gpu = context.shared.gpu_by_name[machine.gpu]
    if not gpu.mig_profiles and may_be_cut(gpu):
        yield Skip(f"which slices {gpu.name} can be cut into is not recorded")
    elif not gpu.mig_profiles:
        hint = "A100, H100, H200, B200 and others of compute capability 8.0 or from 9.0 on can be"
        yield Finding(f"{machine.name} has {gpu.name}, which cannot be cut into slices", _PROFILE, hint)
    elif gpu.slice(partition.profile) is None:
        profiles = ", ".join(found.profile for found in gpu.mig_profiles)
        yield Finding(f"{gpu.name} has no MIG profile {partition.profile}", _PROFILE, f"it has {profiles}")


_CUT_LIKE_A100 = 8.0
_CUT_FROM = 9.0


def may_be_cut(gpu: Gpu) -> bool:
    """Whether its generation has GPUs that NVIDIA's MIG guide lists.

    Of Ampere those of compute capability 8.0 alone (A100, A30), of Ada none, and from Hopper on some.
    """
    capability = gpu.compute_capability
    return capability is not None and (capability == _CUT_LIKE_A100 or capability >= _CUT_FROM)


def _more_than_one(subject: Subject) -> Iterator[Finding]:
    count = known_count(subject.proposal.requirements.gpu_count)
    if count is not None and count > 1:
        message = f"a MIG slice is one GPU, and the proposal claims {count}"
        yield Finding(message, ("requirements", "gpuCount"), "gpuCount: 1")
    own = declared(subject.proposal)
    for name in _SIZES:
        route, value = own.get(name, ((), "1"))
        if value != "1":
            yield Finding(f"{name} is {value}, and a MIG slice is one GPU", route, "leave it out")


def _fit_of_slice(subject: Subject, context: Context, partition: Partition) -> Iterator[Outcome]:
    kaito = release_of(context.profile)
    sized = sized_by_kaito(subject.proposal, subject.facts, context.shared, kaito)
    if sized is None:
        yield NO_FACTS if subject.facts is None else Skip("the facts do not make an entry of KAITO's catalog")
        return
    node = deployed.slice_node(partition.profile)
    if not sized.is_refused or node is None:
        return
    sizing = kaito.sizing
    tokens = subject.proposal.max_model_len or sizing.default_model_len
    weights = model_file_bytes(sized.row) * sizing.weights_factor
    cache = tokens * need_of(sized.row).kv_cache_bytes_per_token
    need = weights * sizing.headroom + sizing.overhead_on(None) + cache
    offered = node.gpu_memory_bytes * sizing.utilization_on(None)
    yield Finding(
        f"KAITO counts {gib(int(need))} (weights {gib(int(weights))}, KV cache of {tokens:,} tokens {gib(cache)}) "
        f"and {gib(int(offered))} of a slice {partition.profile}, so it refuses the model",
        _PROFILE,
        "a larger slice, or a shorter max-model-len",
    )


@check("KTO013", severity=NOTE)
def nodes_are_counted_by_kaito(subject: Subject, context: Context) -> Iterator[Outcome]:
    """KAITO would start another number of nodes than is named.

    KAITO v0.12 counts the nodes from the size of the files (docs/kaito.md) and does not read resource.count, which is
    deprecated: what is named is what a reader expects, and pays for. More nodes than are named are an error.

    Fails::

        deployment: {nodeCount: 6}

    Passes::

        deployment: {nodeCount: 1}
    """
    named = subject.proposal.deployment.node_count if subject.proposal.deployment else None
    if named is None:
        return
    sized = sized_by_kaito(subject.proposal, subject.facts, context.shared, release_of(context.profile))
    if sized is None:
        yield Skip("how many nodes KAITO would start is not known", "add facts, and deployment.instanceType")
        return
    nodes = sized.estimate.nodes
    if nodes is not None and nodes != named:
        yield Finding(
            f"KAITO would start {nodes} node{'' if nodes == 1 else 's'}, {named} {'is' if named == 1 else 'are'} named",
            _NODES,
            f"nodeCount: {nodes}",
            severity=ERROR if nodes > named else None,
        )


@check("KTO014", severity=NOTE)
def context_that_vllm_chooses(subject: Subject, context: Context) -> Iterator[Outcome]:
    """No context is named, so vLLM takes the longest that fits.

    KAITO passes --max-model-len auto where the ConfigMap has none: vLLM takes the model's own limit, or what the KV
    cache holds where that is less, and the same manifest serves another context on another machine. KAITO itself
    counts nodes for 2,048 tokens then. Where not even these fit it is an error.

    Fails::

        requirements: {contextLength: null}
        runtimes: [{name: vllm, distributedInference: false, config: {}}]

    Passes::

        requirements: {contextLength: 16384}
    """
    if subject.proposal.max_model_len is not None or subject.proposal.vllm is None:
        return
    kaito = release_of(context.profile)
    tokens = kaito.sizing.default_model_len
    asked = asked_of(subject, context, max_model_len=tokens)
    if isinstance(asked, Skip):
        yield asked
        return
    start = generated_start(subject.proposal, subject.facts, context.shared, context.profile, as_written=True)
    settings = asked.settings
    if start is not None and start.uses_lmcache:  # KTO010
        settings = replace(settings, disable_hybrid_kv_cache_manager=True)
    plans = asked.plans(settings)
    bad = next((plan for plan in plans if plan.fits is Fit.NO), None)
    unknown = next((plan for plan in plans if plan.kv_cache is None or plan.fits is Fit.UNKNOWN), None)
    route: Route = ("requirements", "contextLength")
    if bad is not None:
        message = f"not even the {tokens:,} tokens fit that KAITO counts with: {bad.reason}"
        yield Finding(message, route, "a larger instance type", severity=ERROR)
    elif unknown is not None or not asked.measured:
        yield Skip((unknown.reason if unknown else None) or "the memory of the GPU is not published")
    else:
        longest = min(plan.kv_cache.longest_model_len for plan in plans if plan.kv_cache)
        limit = asked.shape.max_model_len
        all_of = "all" if longest == limit else f"about {longest:,}"
        yield Finding(
            f"KAITO passes --max-model-len auto: vLLM takes {all_of} of the model's {limit:,} tokens "
            f"on {asked.count} × {asked.each}",
            route,
            "name max-model-len to have the same context everywhere",
        )

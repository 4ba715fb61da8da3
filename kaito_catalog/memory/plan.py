"""The memory plan of a model on given GPUs: closed form, milliseconds, no vLLM; it says what is unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from kaito_catalog.architectures import BuiltShape, Unsupported
from kaito_catalog.architectures.as_built import HOPPER
from kaito_catalog.memory.asked_model import asked_model
from kaito_catalog.memory.asked_overrides import with_overrides
from kaito_catalog.memory.compilation import Compilation, compilation_of
from kaito_catalog.memory.environment import Environment, environment_of
from kaito_catalog.memory.kv_cache.choices import CacheChoices
from kaito_catalog.memory.kv_cache.layout import Layout, Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import (
    asks_for_all_stages,
    batches_in_flight,
    reserved_blocks,
    states_per_sequence,
)
from kaito_catalog.memory.kv_connectors import keeps_hybrid_manager
from kaito_catalog.memory.overheads.activations import activation_growth, sampler_uncertainty
from kaito_catalog.memory.overheads.compiled_copy import pinned_bytes
from kaito_catalog.memory.overheads.defaults import serve_defaults
from kaito_catalog.memory.overheads.links import link
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.total import (
    Overheads,
    expected_error,
    pinned_encoder,
    repacked_bytes,
    stage_overheads,
)
from kaito_catalog.memory.plan_details import groups_of, sources_of
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.speculating import (
    asked_drafting,
    is_asynchronous,
    layer_partition,
    layers_of_stages,
    switches_off_hybrid_manager,
    weights_with_drafter,
)
from kaito_catalog.memory.speculation.drafting import Drafting, kept_bytes, with_drafter
from kaito_catalog.memory.stored_weights import StageWeights
from kaito_catalog.memory.values import (
    Fit,
    KvCache,
    Parallelism,
    PerGpu,
    Plan,
    PlanGpu,
    PlanRequest,
    Settings,
)
from kaito_catalog.memory.verdict import given_cache_bytes, verdict
from kaito_catalog.memory.weights.ranks import absorbed_bytes, mxfp4_bytes
from kaito_catalog.memory.weights.split import Split, split_over, stages


def resolved_settings(settings: Settings, gpu: PlanGpu, vllm_version: str | None = None) -> Settings:
    """`settings` with what `vllm serve` takes by default on that GPU."""
    defaults = serve_defaults(gpu.name, gpu.memory_bytes or 0, vllm_version, is_unified=gpu.is_unified)
    times = 2 if settings.performance_mode == "throughput" else 1
    sequences = settings.max_num_seqs or defaults.max_num_seqs * times
    tokens = settings.max_num_batched_tokens
    if tokens is None:
        tokens = defaults.max_num_batched_tokens * times
        if settings.enable_chunked_prefill is False:
            tokens = max(tokens, settings.max_model_len)
        tokens = min(tokens, sequences * settings.max_model_len)
    if settings.max_num_seqs is None:
        sequences = min(sequences, tokens)
    return replace(settings, max_num_seqs=sequences, max_num_batched_tokens=tokens)


def make_plan(request: PlanRequest) -> Plan:
    """What vLLM of that version would find on each GPU, and whether one request of max_model_len fits."""
    found = with_overrides(request)
    return without_account(request, found) if isinstance(found, Refusal) else _make_plan(found)


# By value, so that it cannot be stale; small, since the checks of one model ask for the same plans one after another.
@lru_cache(maxsize=64)
def _make_plan(request: PlanRequest) -> Plan:
    settings = resolved_settings(request.settings, request.gpu, request.vllm_version)
    request = replace(request, settings=settings)
    model = asked_model(request)
    if isinstance(model, Refusal):
        return without_account(request, model)
    built = model.built
    split = split_over(
        tensor_parallel_size=request.parallelism.tensor_parallel_size,
        data_parallel_size=request.parallelism.data_parallel_size,
        enable_expert_parallel=request.parallelism.enable_expert_parallel,
        compute_capability=request.gpu.compute_capability,
    )
    drafting = asked_drafting(request, built)
    if isinstance(drafting, Refusal):
        return without_account(request, drafting)
    weights = weights_with_drafter(request, built, drafting, split, as_stored=model.as_stored)
    if isinstance(weights, Refusal):
        return without_account(request, weights)
    layouts = _layouts(request, built, drafting)
    if isinstance(layouts, Unplannable):
        fits = Fit.UNKNOWN if layouts.refused is None else Fit.NO
        return without_account(request, Refusal(fits, layouts.refused or "kvCache", layouts.reason))
    accounts = _stages(request, built, drafting, split, weights, layouts)
    tightest = min(accounts, key=lambda stage: stage.spare_bytes)
    per_gpu = tightest.per_gpu()
    cache = _cache(request, built, drafting, accounts, tightest)
    error = weights.error_bytes + _error_beside_weights(request, built, drafting)
    error += sampler_uncertainty(tightest.run) + pinned_encoder(tightest.run, tightest.weights_bytes)
    found = verdict(
        per_gpu,
        cache,
        tightest.layout,
        settings,
        error_bytes=error,
        gpu=request.gpu,
    )
    return Plan(
        found.fits,
        found.limited_by,
        found.reason,
        per_gpu,
        cache,
        error,
        request.parallelism,
        request.gpu,
        request.vllm_version,
        settings,
        sources_of(weights.source, is_cache_given=given_cache_bytes(settings, tightest.layout) is not None),
    )


def without_account(request: PlanRequest, refusal: Refusal) -> Plan:
    return Plan(
        refusal.fits,
        refusal.limited_by,
        refusal.reason,
        None,
        None,
        None,
        request.parallelism,
        request.gpu,
        request.vllm_version,
        request.settings,
    )


@dataclass(frozen=True)
class _Stage:
    """One GPU of a pipeline stage."""

    run: ProfileRun
    budget_bytes: int
    weights_bytes: int
    beside: Overheads
    layout: Layout
    asked: Layout
    """The cache that vLLM compares with what is available: of all stages in some versions."""
    wanted_bytes: int
    """What vLLM asks to be free for the cache before it starts."""
    room_bytes: int | None
    """What the GPU has beside all this, where the cache's size is given; None where the budget leaves it."""

    @property
    def spare_bytes(self) -> int:
        """What is left when one request of the context has its cache; below 0 where it does not fit."""
        spare = self.available_bytes - self.wanted_bytes
        return spare if self.room_bytes is None else min(spare, self.room_bytes)

    def longest_model_len(self, limit: int) -> int:
        """The longest context that fits, at most `limit`."""
        available, room, grows = self.available_bytes, self.room_bytes, activation_growth(self.run)
        if room is None:
            return self.asked.longest_model_len(available, limit, grows=grows)

        def too_much(tokens: int) -> int:
            """More than is available, where the peak leaves no room for a cache of that size."""
            return available + 1 if (grows(tokens) if grows else 0) > room else 0

        return self.asked.longest_model_len(available, limit, grows=too_much)

    @property
    def available_bytes(self) -> int:
        """What is left for the cache."""
        beside = self.beside
        return (
            self.budget_bytes
            - self.weights_bytes
            - beside.non_torch_bytes
            - beside.activation_peak_bytes
            - beside.cuda_graph_bytes
        )

    def per_gpu(self) -> PerGpu:
        """The stage as a plan shows it."""
        return PerGpu(
            budget_bytes=self.budget_bytes,
            weights_bytes=self.weights_bytes,
            non_torch_bytes=self.beside.non_torch_bytes,
            activation_peak_bytes=self.beside.activation_peak_bytes,
            cuda_graph_bytes=self.beside.cuda_graph_bytes,
            kv_cache_available_bytes=self.available_bytes,
            kv_cache_needed_bytes=self.wanted_bytes,
        )


def _layouts(
    request: PlanRequest, built: BuiltShape, drafting: Drafting | None, *, whole: bool = False
) -> Sequence[Layout] | Unplannable:
    """The KV cache of each stage; or, where the `whole` is asked for, of all of them."""
    states = states_per_sequence(
        built,
        request.vllm_version,
        enable_prefix_caching=request.settings.enable_prefix_caching,
        mamba_cache_mode=request.settings.mamba_cache_mode,
    )
    if isinstance(states, Unplannable):
        return states
    cached = with_drafter(built, drafting)
    return plan_layout(
        cached,
        tensor_parallel_size=request.parallelism.tensor_parallel_size,
        stages=layers_of_stages(
            cached,
            1 if whole else request.parallelism.pipeline_parallel_size,
            None if whole else layer_partition(request.settings),
        ),
        kv_cache_dtype=request.settings.kv_cache_dtype,
        in_flight_tokens=_in_flight_tokens(request, drafting),
        states=states,
        reserved=reserved_blocks(request.vllm_version),
        hybrid_kv_cache_manager=_has_hybrid_manager(request, built, drafting),
        choices=_cache_choices(request.settings),
    )


def _asked_layout(request: PlanRequest, built: BuiltShape, drafting: Drafting | None) -> Layout | None:
    """The cache of all stages where vLLM asks the smallest for that; None where it asks each for its own."""
    if request.parallelism.pipeline_parallel_size == 1 or not asks_for_all_stages(request.vllm_version):
        return None
    found = _layouts(request, built, drafting, whole=True)
    return None if isinstance(found, Unplannable) else found[0]


def _has_hybrid_manager(request: PlanRequest, built: BuiltShape, drafting: Drafting | None) -> bool:
    settings = request.settings
    if switches_off_hybrid_manager(built, drafting):
        return False
    keeps = keeps_hybrid_manager(settings, request.vllm_version)
    return keeps is True and not settings.disable_hybrid_kv_cache_manager


def _cache_choices(settings: Settings) -> CacheChoices:
    return CacheChoices(
        block_size=settings.block_size,
        mamba_cache_dtype=settings.mamba_cache_dtype,
        mamba_ssm_cache_dtype=settings.mamba_ssm_cache_dtype,
        decode_context_parallel_size=settings.decode_context_parallel_size,
    )


def _compilation(settings: Settings) -> Compilation:
    found = compilation_of(settings)
    assert isinstance(found, Compilation)
    return found


def _environment(settings: Settings) -> Environment:
    found = environment_of(settings.environment)
    assert isinstance(found, Environment)
    return found


def _in_flight_tokens(request: PlanRequest, drafting: Drafting | None) -> int:
    tokens = request.settings.max_num_batched_tokens
    assert tokens is not None
    pipeline = request.parallelism.pipeline_parallel_size
    return tokens * batches_in_flight(
        request.vllm_version,
        pipeline_parallel_size=pipeline,
        async_scheduling=is_asynchronous(request, drafting),
    )


def _stages(
    request: PlanRequest,
    built: BuiltShape,
    drafting: Drafting | None,
    split: Split,
    weights: StageWeights,
    layouts: Sequence[Layout],
) -> list[_Stage]:
    """The account of a GPU of each stage."""
    gpu, settings = request.gpu, request.settings
    pipeline = request.parallelism.pipeline_parallel_size
    assert gpu.memory_bytes is not None
    kept = absorbed_bytes(built, split) // pipeline
    is_hopper = gpu.compute_capability is not None and int(gpu.compute_capability) == HOPPER
    if is_hopper and built.architecture == "GptOssForCausalLM":
        kept += repacked_bytes(mxfp4_bytes(built, split)) // pipeline
    found = []
    asked = _asked_layout(request, built, drafting)
    for number, layers in enumerate(stages(len(built.layers), pipeline, layer_partition(settings))):
        is_last = number == pipeline - 1
        run = _profile_run(request, built, drafting, split, is_first=number == 0, is_last=is_last)
        more = kept_bytes(drafting, split) if drafting is not None and is_last else 0
        beside = stage_overheads(
            run, stage_layers=len(layers), kept_bytes=kept + more, weights_bytes=weights.stages[number]
        )
        layout = layouts[number]
        memory_bytes = gpu.memory_of_stages[number] if gpu.memory_of_stages else gpu.memory_bytes
        budget, room = math.ceil(memory_bytes * settings.gpu_memory_utilization), None
        given = given_cache_bytes(settings, layout)
        if given is not None:
            # vLLM takes it for what is available, and looks at nothing else (determine_available_memory of
            # v1/worker/gpu_worker.py, 0.25.1 and 0.32.0; 0 is as good as absent): the GPU has to have room for it.
            held = weights.stages[number] + beside.non_torch_bytes + beside.activation_peak_bytes
            budget = held + beside.cuda_graph_bytes + given
            room = memory_bytes - gpu.used_bytes - budget
        found.append(
            _Stage(
                run=run,
                budget_bytes=budget,
                weights_bytes=weights.stages[number],
                beside=beside,
                layout=layout,
                asked=asked or layout,
                wanted_bytes=(asked or layout).pool_bytes(settings.max_model_len) + layout.reserved_bytes,
                room_bytes=room,
            )
        )
    return found


def _cache(
    request: PlanRequest,
    built: BuiltShape,
    drafting: Drafting | None,
    accounts: Sequence[_Stage],
    tightest: _Stage,
) -> KvCache:
    """What the available memory holds: requests at once, and the longest context."""
    settings = request.settings
    concurrency = min(
        stage.layout.max_concurrency(stage.available_bytes, settings.max_model_len) for stage in accounts
    )
    longest = min(stage.longest_model_len(built.max_model_len) for stage in accounts)
    cached = with_drafter(built, drafting)
    undivided = plan_layout(
        cached,
        tensor_parallel_size=1,
        stages=layers_of_stages(cached, 1),
        kv_cache_dtype=settings.kv_cache_dtype,
        in_flight_tokens=_in_flight_tokens(request, drafting),
        hybrid_kv_cache_manager=_has_hybrid_manager(request, built, drafting),
        choices=replace(_cache_choices(settings), decode_context_parallel_size=1),
    )
    assert not isinstance(undivided, Unplannable)
    return KvCache(
        bytes_per_token=undivided[0].bytes_per_token,
        tokens=int(concurrency * settings.max_model_len),
        max_concurrency=concurrency,
        longest_model_len=longest,
        groups=groups_of(tightest.layout),
        pool_bytes=tightest.wanted_bytes,
        reserved_bytes=tightest.layout.reserved_bytes,
    )


def _profile_run(
    request: PlanRequest,
    built: BuiltShape,
    drafting: Drafting | None,
    split: Split,
    *,
    is_first: bool,
    is_last: bool,
) -> ProfileRun:
    """The run in which vLLM measures a stage."""
    settings = request.settings
    assert settings.max_num_batched_tokens is not None
    assert settings.max_num_seqs is not None
    return ProfileRun(
        built,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        max_model_len=settings.max_model_len,
        vllm_version=request.vllm_version,
        tensor_parallel_size=split.tensor_parallel_size,
        expert_tensor_parallel_size=split.expert_tensor_parallel_size,
        is_first_stage=is_first,
        is_last_stage=is_last,
        enforce_eager=settings.enforce_eager,
        compilation=_compilation(settings),
        environment=_environment(settings),
        memory_bytes=request.gpu.memory_bytes,
        compute_capability=request.gpu.compute_capability,
        is_unified=request.gpu.is_unified,
        link=link(request.gpu.name, request.gpu.compute_capability),
        pipeline_parallel_size=request.parallelism.pipeline_parallel_size,
        data_parallel_size=request.parallelism.data_parallel_size,
        drafting=drafting,
    )


def _error_beside_weights(request: PlanRequest, built: BuiltShape, drafting: Drafting | None) -> int:
    """How far the account may be off, apart from the weights."""
    tensor = request.parallelism.tensor_parallel_size
    assert request.gpu.memory_bytes is not None
    error = expected_error(
        gpu_name=request.gpu.name,
        memory_bytes=request.gpu.memory_bytes,
        vllm_version=request.vllm_version,
        tensor_parallel_size=tensor,
        has_encoder=built.encoder is not None,
        guesses=drafting is not None,
        is_unified=request.gpu.is_unified,
    )
    return (
        error + pinned_bytes(built, tensor, request.vllm_version)
        if _compilation(request.settings).compiles
        else error
    )


def smallest_gpu_count(request: PlanRequest, *, most: int = 16, allow_tight: bool = True) -> int | None:
    """The smallest tensor-parallel size, on one node, that is legal and fits; None: none up to `most`."""
    if isinstance(request.shape, Unsupported):
        return None
    alone = replace(request.parallelism, pipeline_parallel_size=1, data_parallel_size=1)
    for size in range(1, most + 1):
        plan = make_plan(replace(request, parallelism=replace(alone, tensor_parallel_size=size)))
        if plan.fits is Fit.YES or (allow_tight and plan.fits is Fit.TIGHT):
            return size
        if plan.fits is Fit.UNKNOWN:
            return None
    return None


MOST_NODES = 8


def smallest_node_count(request: PlanRequest) -> int | None:
    """The fewest nodes, one pipeline stage each (as KAITO starts several), that fit; tight counts.

    Each node has as many GPUs as the request's tensor-parallel size.
    """
    size = request.parallelism.tensor_parallel_size
    for nodes in range(1, MOST_NODES + 1):
        plan = make_plan(replace(request, parallelism=Parallelism(size, nodes)))
        if plan.fits in (Fit.YES, Fit.TIGHT):
            return nodes
        if plan.fits is Fit.UNKNOWN:
            return None
    return None

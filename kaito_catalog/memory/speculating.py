"""What guesses tokens for a request of a plan, or why vLLM refuses it; and how it changes the plan of the cache."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures import Attention, BuiltShape
from kaito_catalog.memory.environment import Environment, environment_of
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.speculation.config import SpeculationError, read_speculation
from kaito_catalog.memory.speculation.drafting import (
    Drafting,
    NoDrafting,
    drafter_bytes,
    drafting_of,
    slots_for_drafting,
)
from kaito_catalog.memory.stored_weights import StageWeights, weights_of_stages
from kaito_catalog.memory.values import Fit, PlanRequest, Settings
from kaito_catalog.memory.weights.split import Split, Uncomputable, stages

LIMIT = "speculation"
"""What limits a plan whose drafter is refused, or unknown."""


def asked_drafting(request: PlanRequest, built: BuiltShape) -> Drafting | Refusal | None:
    """What guesses tokens; None where nothing does.

    Args:
        request: with its settings resolved.
        built: the model, as the vLLM version builds it on that GPU.
    """
    settings = request.settings
    if not settings.speculative_config:
        return None
    try:
        speculation = read_speculation(settings.speculative_config)
    except SpeculationError as error:
        return Refusal(Fit.NO if error.is_refused else Fit.UNKNOWN, LIMIT, str(error))
    found = drafting_of(
        speculation,
        settings.draft,
        built,
        request.parallelism,
        request.vllm_version,
        request.gpu.compute_capability,
    )
    if isinstance(found, NoDrafting):
        return Refusal(Fit.NO if found.is_refused else Fit.UNKNOWN, LIMIT, found.reason)
    assert settings.max_num_batched_tokens is not None
    assert settings.max_num_seqs is not None
    slots = slots_for_drafting(found, settings.max_num_seqs, request.vllm_version)
    if slots >= settings.max_num_batched_tokens:
        words = (
            f"{slots:,} of the {settings.max_num_batched_tokens:,} tokens of a batch are kept for guesses, so that no "
            "request is scheduled; set max_num_seqs lower or max_num_batched_tokens higher"
        )
        return Refusal(Fit.NO, "maxNumSeqs", words)
    return found


def weights_with_drafter(
    request: PlanRequest,
    built: BuiltShape,
    drafting: Drafting | None,
    split: Split,
    *,
    as_stored: BuiltShape,
) -> StageWeights | Refusal:
    """The weights of each stage, the drafter's on the last; `as_stored` is the model as the files have it."""
    weights = weights_of_stages(
        built,
        request.stored,
        split,
        request.parallelism,
        layer_partition(request.settings),
        as_stored=as_stored,
    )
    if isinstance(weights, Uncomputable):
        limited_by, fits = ("parallelism", Fit.NO) if weights.illegal else ("weights", Fit.UNKNOWN)
        return Refusal(fits, limited_by, weights.reason)
    if drafting is None:
        return weights
    added = drafter_bytes(drafting, split)
    if isinstance(added, Uncomputable):
        return Refusal(Fit.NO if added.illegal else Fit.UNKNOWN, LIMIT, f"the drafter: {added.reason}")
    return replace(weights, stages=(*weights.stages[:-1], weights.stages[-1] + added))


def layers_of_stages(
    built: BuiltShape, pipeline_parallel_size: int, partition: tuple[int, ...] | None = None
) -> tuple[range, ...]:
    """The layers of each stage, those that guess tokens on the last."""
    *others, last = stages(len(built.layers) - built.guessing_layers, pipeline_parallel_size, partition)
    return (*others, range(last.start, len(built.layers)))


def layer_partition(settings: Settings) -> tuple[int, ...] | None:
    """VLLM_PP_LAYER_PARTITION; None where it is not set."""
    environment = environment_of(settings.environment)
    return environment.layer_partition if isinstance(environment, Environment) else None


def switches_off_hybrid_manager(built: BuiltShape, drafting: Drafting | None) -> bool:
    """Whether chunked layers meet a drafter that reads hidden states (vllm/config/vllm.py of 0.25.1 and 0.32.0)."""
    if drafting is None or not drafting.speculation.method.reads_hidden_states:
        return False
    mixers = [mixer for layer in built.layers for mixer in layer.mixers]
    return any(isinstance(mixer, Attention) and mixer.chunk is not None for mixer in mixers)


def is_asynchronous(request: PlanRequest, drafting: Drafting | None) -> bool:
    """Whether the next batch is scheduled while one is computed."""
    by_drafter = drafting is None or drafting.speculation.is_asynchronous
    return by_drafter and request.settings.async_scheduling is not False

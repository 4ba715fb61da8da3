"""Torch's peak in the run in which vLLM measures a model, and how it grows with the context."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.architectures import CompressedAttention
from kaito_catalog.architectures.as_built import HOPPER, version_tuple
from kaito_catalog.memory.overheads.compiled_copy import compiled_copy
from kaito_catalog.memory.overheads.compressed_attention import (
    compressed_attention,
    compressed_buffers,
    compressed_forward,
)
from kaito_catalog.memory.overheads.constants import constants
from kaito_catalog.memory.overheads.encoder_profile import encoder_profile, video_contexts
from kaito_catalog.memory.overheads.layer_widths import (
    INDEXER_LOGITS_BYTES,
    indexer_workspace,
    moe_workspace,
    prefill_context,
    widest_forward,
    widest_layer,
)
from kaito_catalog.memory.overheads.model_runner import profiles_everything, runs_second_runner
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.versions import (
    EXPERTS_AT_ONCE,
    FLASHINFER_WHERE_INSTALLED,
    NEW_SAMPLER,
    WORKSPACE_KEPT,
    fitted,
)

FP32_BYTES = 4


def activation_peak(run: ProfileRun) -> int:
    """Torch's peak in the profile run: the larger of a layer's forward and the sampler over the logits.

    vLLM runs max_num_batched_tokens through the model, then samples min(tokens, max_num_seqs) rows
    of the whole vocabulary, which every rank holds, whatever the tensor parallelism. A vision encoder runs
    before, on its own, and torch.compile has its own peak when it compiles for the first time.
    """
    shape, known = run.shape, constants()["activation"]
    peak = _forward_peak(run)
    if run.is_last_stage and not shape.pools:
        peak = max(peak, _sampler_peak(run), _drafter_peak(run))
    if run.is_first_stage and run.compiles:
        peak = max(peak, compiled_copy(shape, run.tensor_parallel_size, run.vllm_version))
    if shape.encoder is not None and profiles_everything(shape, run.vllm_version, run.drafting):
        encoder = encoder_profile(run)
        if encoder is None:
            peak += known["encoder"]
        else:
            peak = max(peak + encoder.kept_bytes, encoder.peak_bytes)
    peak += compressed_buffers(run)
    fixed = fitted(known["fixed"], version_tuple(run.vllm_version))
    return int(fixed - spared_workspace(run.compute_capability) + peak)


def _forward_peak(run: ProfileRun) -> float:
    """The hidden states, and the largest of what a layer, a sparse indexer or dense MLA holds beside them."""
    shape = run.shape
    compressed = compressed_attention(shape)
    if compressed is not None:
        return _compressed_peak(run, compressed)
    tokens_bytes = run.max_num_batched_tokens * shape.dtype_bytes
    at_once = min(1.0, _experts_at_once(run.vllm_version) / run.max_num_batched_tokens)
    known = constants()["activation"]
    layer = tokens_bytes * widest_forward(
        shape,
        run.tensor_parallel_size,
        run.expert_tensor_parallel_size,
        at_once=at_once,
        feed_forward_states=known["feedForwardHiddenStates"],
        mixer_states=known["mixerHiddenStates"],
    )
    index = indexer_workspace(shape, run.max_model_len)
    logits = INDEXER_LOGITS_BYTES if index else 0
    context = prefill_context(shape, run.tensor_parallel_size)
    states: float = known["forwardHiddenStates"] * tokens_bytes * shape.hidden_size
    return max(layer, states + max(index + logits, context))


def _compressed_peak(run: ProfileRun, mixer: CompressedAttention) -> float:
    """DeepSeek V4's: several hidden states of each token, heads padded to what kernels take, an indexer's workspace."""
    shape, tokens_bytes = run.shape, run.max_num_batched_tokens * run.shape.dtype_bytes
    ranks, experts = run.tensor_parallel_size, run.expert_tensor_parallel_size
    attention = compressed_forward(mixer, run)
    # Of the streams there are those before and those behind a layer while they are mixed.
    states = tokens_bytes * shape.hidden_size * (mixer.streams + 2)
    mixing = tokens_bytes * shape.hidden_size * mixer.streams
    layer = tokens_bytes * widest_layer(shape, ranks, experts)
    return states + max(attention, mixing, layer) + indexer_workspace(shape, run.max_model_len)


def _experts_at_once(vllm_version: str) -> float:
    version = version_tuple(vllm_version)
    return next((float(tokens) for before, tokens in EXPERTS_AT_ONCE if version < before), math.inf)


def _drafter_peak(run: ProfileRun) -> float:
    """The drafter's forward over the same tokens, while the hidden states that it is fed with are there.

    The second runner also chooses a token for each request, of logits in fp32.
    """
    drafting = run.drafting
    if drafting is None or drafting.shape is None or drafting.drafter is None or not drafting.shape.layers:
        return 0.0
    shape, drafter = drafting.shape, drafting.drafter
    tokens_bytes = run.max_num_batched_tokens * shape.dtype_bytes
    # Beside those of the last layer, and the embedding beside them as one input.
    states = run.shape.hidden_size * (1 + (drafter.hidden_states if drafter.hidden_states > 1 else 0))
    fed = 0 if drafter.is_whole else 2 * shape.hidden_size
    forward = _forward_peak(replace(run, shape=shape, drafting=None)) + tokens_bytes * fed
    choosing = 0
    if runs_second_runner(run.shape, run.vllm_version, drafting):
        rows = min(run.max_num_batched_tokens, run.max_num_seqs)
        choosing = rows * (drafter.head_rows or shape.vocab_size) * (shape.dtype_bytes + FP32_BYTES)
    return tokens_bytes * states + max(forward, choosing)


def _sampler_peak(run: ProfileRun) -> float:
    """The logits with what the sampler makes of them, and the workspace that outlives the forward."""
    shape, known = run.shape, constants()["activation"]
    version = version_tuple(run.vllm_version)
    tokens_bytes = run.max_num_batched_tokens * shape.dtype_bytes
    rows = min(run.max_num_batched_tokens, run.max_num_seqs)
    if runs_second_runner(shape, run.vllm_version, run.drafting):
        beside = fitted(known["secondRunnerBytesPerLogit"], version)
    elif samples_with_flashinfer(run.vllm_version, run.environment.flashinfer_sampler):
        beside = known["flashinferBytesPerLogit"]
    else:
        beside = fitted(known["samplerBytesPerLogit"], version)
    per_logit = shape.dtype_bytes + beside
    if run.drafting is not None and not runs_second_runner(shape, run.vllm_version, run.drafting):
        # The rejection sampler is profiled with a guess for each request: two rows, and a copy of one.
        per_logit += 2 * shape.dtype_bytes
        if run.drafting.speculation.samples_probabilities:
            per_logit += 2 * FP32_BYTES
    kept = 0.0
    if version >= WORKSPACE_KEPT:
        # One workspace serves the experts and the indexer.
        experts = tokens_bytes * moe_workspace(shape, run.expert_tensor_parallel_size)
        kept = max(experts, indexer_workspace(shape, run.max_model_len))
    states: float = known["hiddenStates"] * tokens_bytes * shape.hidden_size
    return states + kept + rows * shape.vocab_size * per_logit


def samples_with_flashinfer(vllm_version: str, asked: bool | None) -> bool:
    """Whether the first runner's sampler is an early FlashInfer, which takes less than vLLM's own.

    `asked` is VLLM_USE_FLASHINFER_SAMPLER. Where nothing is asked for it depends on what is installed: what vLLM's own
    images hold is planned, and the expected error is wider by the difference.
    """
    version = version_tuple(vllm_version)
    if version >= NEW_SAMPLER:
        return False
    return bool(asked) if version >= FLASHINFER_WHERE_INSTALLED else asked is not False


def sampler_uncertainty(run: ProfileRun) -> int:
    """By how many bytes the peak is larger where FlashInfer is not installed, though it is planned for."""
    is_told = run.environment.flashinfer_sampler is not None
    if is_told or not samples_with_flashinfer(run.vllm_version, None):
        return 0
    without = replace(run.environment, flashinfer_sampler=False)
    return max(0, activation_peak(replace(run, environment=without)) - activation_peak(run))


def spared_workspace(compute_capability: float | None) -> int:
    """By how much torch's workspaces for cuBLAS are smaller than on Hopper, where everything was fitted; in bytes."""
    if compute_capability is None or int(compute_capability) >= HOPPER:
        return 0
    return int(constants()["beforeHopper"]["workspaceBytes"])


def activation_growth(run: ProfileRun) -> Callable[[int], int] | None:
    """Bytes by which the peak at another context exceeds that at `max_model_len`.

    None where the context makes no difference: a sparse indexer's workspace grows with it, and a video that an
    encoder is profiled with.
    """
    if not indexer_workspace(run.shape, 1) and not video_contexts(run.shape, run.vllm_version):
        return None
    here = activation_peak(run)
    return lambda tokens: activation_peak(replace(run, max_model_len=tokens)) - here

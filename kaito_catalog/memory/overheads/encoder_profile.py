"""What an encoder takes while vLLM profiles it with as many of the largest items as its budget of tokens holds."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import BuiltShape
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.shape import Medium
from kaito_catalog.memory.overheads.constants import constants
from kaito_catalog.memory.overheads.model_runner import profiles_everything
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.versions import ENCODER_PIECES, NATIVE_NORMS


@dataclass(frozen=True)
class EncoderProfile:
    """What the profile run of an encoder takes, in bytes."""

    peak_bytes: int
    """While it runs."""
    kept_bytes: int
    """While the decoder is profiled after it: the items themselves, and what became of them."""
    input_elements: int
    """Numbers that the items are given as."""


def encoder_profile(run: ProfileRun) -> EncoderProfile | None:
    """vLLM's profile run of an encoder over as many of the largest items as its budget of tokens holds.

    The budget is the larger of a batch and one item (vLLM's MultiModalBudget), whatever the context. A layer holds
    four hidden states of each patch and its feed-forward block, beside the patches themselves: so do the
    allocations of vLLM's own classes, counted on the meta device. None: it is not known what is profiled.
    """
    encoder = run.shape.encoder
    medium = encoder.medium if encoder is not None else None
    if encoder is None or medium is None:
        return None
    shape = run.shape
    items = _items(medium, run)
    patches = at_once = items * medium.patches
    frames = frames_profiled(run)
    if frames is not None and run.memory_bytes is not None:
        at_once = medium.piece * frames.at_once(run.memory_bytes)
    wide = medium.wide / (run.tensor_parallel_size if encoder.divided else 1)
    in_place = medium.fuses_norms and version_tuple(run.vllm_version) < NATIVE_NORMS
    states = constants()["activation"]["forwardHiddenStates"] - (2 if in_place else 0)
    of_a_layer = states * medium.hidden_size + wide
    output = items * medium.tokens * shape.hidden_size
    # Where pieces follow each other, the results of those before wait for the last.
    done = (patches - at_once) * medium.hidden_size
    inputs = patches * medium.pixels
    peak = inputs + at_once * of_a_layer + done + (medium.outputs - 1) * output
    return EncoderProfile(
        int(peak * shape.dtype_bytes), (inputs + medium.outputs * output) * shape.dtype_bytes, inputs
    )


def video_contexts(shape: BuiltShape, vllm_version: str) -> tuple[int, ...]:
    """The contexts, in tokens, from which on the encoder is profiled with a longer video; none where it is not."""
    medium = shape.encoder.medium if shape.encoder is not None else None
    if medium is None or not profiles_everything(shape, vllm_version):
        return ()
    lengths = (medium.tokens * images for images in range(2, medium.most_images + 1))
    return tuple(length for length in lengths if length <= shape.max_model_len)


@dataclass(frozen=True)
class Frames:
    """What an encoder that takes a video in pieces is profiled with."""

    count: int
    """All that a batch holds."""
    reckoned_bytes: int
    """What vLLM reckons a frame to take, of a tenth of the GPU."""
    peak_bytes: int
    """What one frame more at once adds to the peak."""

    def at_once(self, memory_bytes: int) -> int:
        """How many vLLM takes at once on a GPU with so much memory."""
        return min(self.count, max(1, memory_bytes // 10 // self.reckoned_bytes))


def frames_profiled(run: ProfileRun) -> Frames | None:
    """The frames of the profile run; None where there are none, or where all are taken at once."""
    shape = run.shape
    medium = shape.encoder.medium if shape.encoder is not None else None
    in_pieces = version_tuple(run.vllm_version) >= ENCODER_PIECES
    if medium is None or not medium.piece or not in_pieces:
        return None
    if not profiles_everything(shape, run.vllm_version):
        return None
    # The result of a frame waits for the last, whether it was taken with that or before.
    states = constants()["activation"]["forwardHiddenStates"] - 1
    each = int(medium.piece * (states * medium.hidden_size + medium.wide) * shape.dtype_bytes)
    return Frames(_items(medium, run) * medium.patches // medium.piece, medium.piece_bytes, each)


def _items(medium: Medium, run: ProfileRun) -> int:
    """Images that are profiled: of as many items as fit the batch, at least one."""
    of_one = max(1, medium.tokens)
    images = max(1, min(medium.most_images, run.max_model_len // of_one))
    tokens = of_one * images
    requests = max(1, run.max_num_seqs * max(1, run.max_model_len // tokens))
    return images * min(max(1, run.max_num_batched_tokens // tokens), requests)

"""What DeepSeek V4's attention holds while it is profiled, and the buffers that its model keeps beside parameters.

Read in vLLM 0.26.0, models/deepseek_v4: attention.py, nvidia/model.py, nvidia/flashmla.py, nvidia/flashinfer_sparse.py.
"""

from __future__ import annotations

from kaito_catalog.architectures import BuiltShape, CompressedAttention
from kaito_catalog.memory.overheads.layer_widths import INDEXER_LOGITS_BYTES
from kaito_catalog.memory.overheads.profile_run import ProfileRun

WORKSTATION = 12
"""The major compute capability whose kernels are FlashInfer's."""
FLASHINFER_WORKSPACE_BYTES = 128 * 2**20
_KERNEL_HEADS = (64, 128)
_WORKSTATION_HEADS = (16, 32, 64, 128)
INDEX_BYTES = 4


def compressed_attention(shape: BuiltShape) -> CompressedAttention | None:
    """A layer of DeepSeek V4's attention, one with an indexer if there is one; None for any other model."""
    found = [x.mixer for x in shape.layers if isinstance(x.mixer, CompressedAttention)]
    return next((m for m in found if m.indexer is not None), found[0] if found else None)


def padded_heads(heads: int, compute_capability: float | None) -> int:
    """The heads that the kernels take (get_padded_num_q_heads)."""
    is_workstation = compute_capability is not None and int(compute_capability) == WORKSTATION
    sizes = _WORKSTATION_HEADS if is_workstation else _KERNEL_HEADS
    return next((size for size in sizes if heads <= size), heads)


def compressed_forward(mixer: CompressedAttention, run: ProfileRun) -> int:
    """Bytes of queries, padded queries or an indexer's logits, and results, with padded heads."""
    heads = mixer.num_attention_heads // run.tensor_parallel_size
    padded = padded_heads(heads, run.compute_capability)
    each = run.max_num_batched_tokens * mixer.head_dim * run.shape.dtype_bytes
    logits = INDEXER_LOGITS_BYTES if mixer.indexer is not None else 0
    return each * (heads + padded) + max(logits, each * padded if padded > heads else 0)


def compressed_buffers(run: ProfileRun) -> int:
    """Bytes that are kept: what the indexer picked, the streams for guessing, FlashInfer's workspace."""
    mixer = compressed_attention(run.shape)
    if mixer is None:
        return 0
    size = run.max_num_batched_tokens * mixer.index_topk * INDEX_BYTES
    if run.is_last_stage:
        size += run.max_num_batched_tokens * mixer.streams * run.shape.hidden_size * run.shape.dtype_bytes
    if run.compute_capability is not None and int(run.compute_capability) == WORKSTATION:
        size += FLASHINFER_WORKSPACE_BYTES
    return size

"""Over how many GPUs vLLM takes a model: the tensor-parallel sizes that it would refuse, each with its reason."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures import Attention, BuiltShape, LatentAttention, Shape, Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.remembered import remembered
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over


@remembered(maxsize=4096)
def illegal_tensor_parallel(
    shape: Shape, size: int, *, enable_expert_parallel: bool = False, vllm_version: str | None = None
) -> str | None:
    """Why vLLM would refuse `tensor_parallel_size`, in words; None where it would not.

    Without a version, 0.25.1 is asked, or the one that the shape is built by.
    """
    if vllm_version is not None or not isinstance(shape, BuiltShape):
        shape = as_built(shape, vllm_version or "0.25.1")
    if size < 1:
        return f"a tensor-parallel size of {size} is not one"
    for layer in shape.layers:
        mixer = layer.mixer
        if isinstance(mixer, Attention | LatentAttention) and mixer.num_attention_heads % size:
            return f"{mixer.num_attention_heads} attention heads cannot be divided by {size}"
        if isinstance(mixer, Attention):
            heads = mixer.num_key_value_heads
            if not mixer.repeats_kv_heads and heads < size:
                return f"vLLM does not repeat the {heads} KV heads of this architecture on {size} GPUs"
            if (heads >= size and heads % size) or (heads < size and size % heads):
                return f"{heads} KV heads can neither be divided by {size} nor repeated evenly on {size} GPUs"
    split = split_over(tensor_parallel_size=size, enable_expert_parallel=enable_expert_parallel)
    for variant in (replace(shape, quantization=None), shape):
        found = weights_per_rank(variant, split)
        if isinstance(found, Uncomputable) and found.illegal:
            return found.reason
    return None


def illegal_context_parallel(shape: Shape, tensor_parallel_size: int, size: int) -> str | None:
    """Why vLLM would refuse `decode_context_parallel_size`, in words; None where it would not."""
    if size == 1:
        return None
    if tensor_parallel_size % size:
        return (
            f"the tensor-parallel size {tensor_parallel_size} cannot be divided by a decode-context-parallel "
            f"size of {size}"
        )
    for layer in shape.layers:
        mixer = layer.mixer
        if not isinstance(mixer, Attention) or mixer.bidirectional:
            continue
        heads = mixer.num_key_value_heads
        if tensor_parallel_size <= heads or size > tensor_parallel_size // heads:
            return (
                f"{heads} KV heads on {tensor_parallel_size} GPUs leave none that hold the same, and a "
                f"decode-context-parallel size of {size} needs as many"
            )
        if mixer.num_attention_heads // heads % size:
            return (
                f"{mixer.num_attention_heads // heads} query heads for each KV head cannot be divided by a "
                f"decode-context-parallel size of {size}"
            )
    return None


MOST_TENSOR_PARALLEL = 16
"""Two nodes of eight GPUs: the largest tensor-parallel size that is looked at without being asked for."""


def tensor_parallel_sizes(
    shape: Shape | Unsupported, *, enable_expert_parallel: bool = False, vllm_version: str | None = None
) -> dict[int, str | None]:
    """Each tensor-parallel size up to MOST_TENSOR_PARALLEL: why vLLM would refuse it, None where it would not."""
    if isinstance(shape, Unsupported):
        return {}
    return {
        size: illegal_tensor_parallel(
            shape, size, enable_expert_parallel=enable_expert_parallel, vllm_version=vllm_version
        )
        for size in range(1, MOST_TENSOR_PARALLEL + 1)
    }

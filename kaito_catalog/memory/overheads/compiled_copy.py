"""The second embedding that torch.compile holds while it tries kernels, and where it counts twice."""

from __future__ import annotations

from kaito_catalog.architectures import BuiltShape, Experts, Scheme
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.memory.overheads.layer_widths import widest_layer
from kaito_catalog.memory.overheads.versions import COMPILED_COPY, COPY_PINNED, COPY_RELEASED

_REPACKED = (Scheme.AWQ, Scheme.GPTQ, Scheme.GROUPED_INT)


def compiled_copy(shape: BuiltShape, tensor_parallel_size: int, vllm_version: str) -> int:
    """The embedding that torch.compile tries fused kernels on, in bytes; a start that finds compiled graphs saves it.

    Inductor's benchmark_combo_kernel makes up each input of the kernels that it compares, and where a model
    looks its tokens up inside the compiled graph (not where an encoder brings embeddings) the table is one of them.
    """
    if shape.encoder is not None or version_tuple(vllm_version) < COMPILED_COPY:
        return 0
    return int(shape.vocab_size * shape.hidden_size * shape.dtype_bytes) // tensor_parallel_size


def pinned_bytes(shape: BuiltShape, tensor_parallel_size: int, vllm_version: str) -> int:
    """How much of that copy may count a second time: freed, but in a block that the allocator cannot give back.

    Where `is_copy_pinned` it is planned, for all it is in the plan's expected error.
    """
    if not COPY_PINNED <= version_tuple(vllm_version) < COPY_RELEASED:
        return 0
    return compiled_copy(shape, tensor_parallel_size, vllm_version)


def is_copy_pinned(shape: BuiltShape, tensor_parallel_size: int, max_num_batched_tokens: int) -> bool:
    """Whether to plan for a copy that counts twice: for dense models, repacked or with large batches.

    Repacked are weights that Marlin has in an order of its own. A batch is large where what a layer holds of it
    takes half as much as the copy: the allocator takes the smallest free block that is large enough, and then
    cuts up the copy's. (Both are how published starts differ; see COPY_PINNED.)
    """
    if any(isinstance(layer.feed_forward, Experts) for layer in shape.layers):
        return False
    quantization = shape.quantization
    if quantization is not None and quantization.scheme in _REPACKED:
        return True
    widest = max_num_batched_tokens * widest_layer(shape, tensor_parallel_size, tensor_parallel_size)
    copy = shape.vocab_size * shape.hidden_size / tensor_parallel_size
    return 2 * widest >= copy

"""Bytes of the encoder of images or sound on one rank."""

from __future__ import annotations

from kaito_catalog.architectures import Encoder, Quantization
from kaito_catalog.architectures.shape import Matrix
from kaito_catalog.memory.weights.matrices import Linear, unquantized_bytes
from kaito_catalog.memory.weights.split import UncomputableError, divide
from kaito_catalog.memory.weights.stored_linear import linear_bytes
from kaito_catalog.memory.weights.unquantized import encoder_scheme


def encoder_bytes(
    encoder: Encoder | None, dtype_bytes: int, tensor_parallel_size: int, quantization: Quantization | None
) -> int:
    """Bytes of an encoder and its projector; 0 without one.

    Raises:
        UncomputableError: its size cannot be told from the configuration.
        IllegalSplitError: vLLM would refuse to divide it over so many ranks.
    """
    if encoder is None:
        return 0
    if encoder.matrices is None:
        raise UncomputableError(
            f"no plan for the weights of its {encoder.kind} encoder without the size of the files"
        )
    if encoder.divided and not any(m.split.startswith("heads") for m in encoder.matrices):
        divide(encoder.num_heads, tensor_parallel_size, "the number of heads of the vision encoder")
    scheme = encoder_scheme(quantization) if encoder.quantized else None
    size = encoder.plain_elements * dtype_bytes
    for matrix in encoder.matrices:
        linear = _on_a_rank(matrix, encoder, tensor_parallel_size)
        is_quantized = matrix.split != "none" if matrix.quantized is None else matrix.quantized
        if scheme is None or quantization is None or not is_quantized:
            size += matrix.count * unquantized_bytes(linear, dtype_bytes)
        else:
            size += matrix.count * linear_bytes(linear, scheme, quantization, dtype_bytes)
    return size


def _on_a_rank(matrix: Matrix, encoder: Encoder, tensor_parallel_size: int) -> Linear:
    inputs, outputs = matrix.inputs, matrix.outputs
    divides_heads = encoder.num_heads % tensor_parallel_size == 0
    if divides_heads or not matrix.split.startswith("heads"):
        if matrix.split.endswith("column"):
            outputs = divide(outputs, tensor_parallel_size, "a width of the vision encoder")
        elif matrix.split.endswith("row"):
            inputs = divide(inputs, tensor_parallel_size, "a width of the vision encoder")
    return Linear(f"the {encoder.kind} encoder", inputs, (outputs,), matrix.bias)

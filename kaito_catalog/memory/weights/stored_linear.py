"""Bytes of a quantised matrix on one rank: what vLLM's linear method for each scheme allocates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.architectures import Quantization, Scheme
from kaito_catalog.memory.rounding import ceil_div, round_up
from kaito_catalog.memory.weights.matrices import Linear
from kaito_catalog.memory.weights.split import MXFP_BLOCK, IllegalSplitError, UncomputableError

_COLUMN_PARALLEL = (
    "qkv_proj",
    "gate_up_proj",
    "up_proj",
    "q_b_proj",
    "kv_b_proj",
    "q_proj",
    "in_proj_qkvz",
    "in_proj_ba",
)
"""Modules whose outputs tensor parallelism divides."""

_ROW_PARALLEL = ("o_proj", "down_proj", "out_proj")
"""Modules whose inputs tensor parallelism divides."""

NVFP4_GROUP = 16
"""Inputs that share one scale, where the configuration does not say."""

MARLIN_OUTPUTS = 64
"""What Marlin pads the outputs of a matrix to."""

CUTLASS_MULTIPLE = 16
"""What CUTLASS pads inputs and outputs of an fp8 matrix to."""

NF4_BLOCK = 64
"""Weights that share one number of bitsandbytes' 4 bits (the default of its quantize_4bit)."""


def linear_bytes(
    linear: Linear,
    scheme: Scheme,
    quantization: Quantization,
    dtype_bytes: int,
    tensor_parallel_size: int = 1,
) -> int:
    """Bytes of a matrix as vLLM 0.25.1's linear method for that scheme allocates it, with its bias.

    Raises:
        IllegalSplitError: blocks or groups of the scheme do not divide what a rank has.
    """
    size = _BY_SCHEME[scheme](linear, quantization, dtype_bytes, tensor_parallel_size)
    return size + dtype_bytes * linear.bias_elements


def _unquantized(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    return dtype_bytes * linear.elements


def _fp8_block(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    assert quantization.weight_block is not None
    rows, columns = quantization.weight_block
    # vLLM lets the last part of a matrix that is not divided end in an incomplete block.
    is_divided = ranks > 1 and linear.name.endswith(_COLUMN_PARALLEL)
    checked = linear.outputs if is_divided else linear.outputs[:-1]
    if not linear.name.endswith("in_proj_ba") and any(width % rows for width in checked):
        raise IllegalSplitError(f"fp8 blocks of {rows} do not divide {linear.name} on each rank")
    scales = ceil_div(sum(linear.outputs), rows) * ceil_div(linear.inputs, columns)
    return linear.elements + quantization.scale_bytes * scales


def _fp8_tensor(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    scales = len(linear.outputs) * (2 if quantization.static_activations else 1)
    return linear.elements + 4 * scales


def _eight_bit_channel(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    return linear.elements + 4 * sum(linear.outputs)


def _fp8_matrix(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    inputs, outputs = (round_up(n, CUTLASS_MULTIPLE) for n in (linear.inputs, sum(linear.outputs)))
    return inputs * outputs + 4


def _fp8_block_padded(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    assert quantization.weight_block is not None
    rows, columns = quantization.weight_block
    if len(linear.outputs) > 1 and sum(linear.outputs) % rows:
        raise UncomputableError(f"no plan for blocks of {rows} that do not divide {linear.name} on each rank")
    outputs = round_up(sum(linear.outputs), rows)
    return linear.inputs * outputs + 4 * (outputs // rows) * ceil_div(linear.inputs, columns)


def _nf4(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    # The loader undoes the second quantisation of the blocks' numbers (_dequantize_dq); each part has its own.
    return linear.elements // 2 + nf4_numbers_bytes(linear.inputs, linear.outputs)


def nf4_numbers_bytes(inputs: int, outputs: tuple[int, ...]) -> int:
    """Bytes of the numbers of bitsandbytes' blocks, which vLLM keeps beside the parameter."""
    return 4 * sum(ceil_div(inputs * width, NF4_BLOCK) for width in outputs)


def _nvfp4(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    # One scale for the weights of a part, and one for its inputs where those are quantised too.
    return _nvfp4_with(linear, quantization, 8 if quantization.static_activations else 4)


def _nvfp4_weights(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    scale_bytes = 8 if quantization.static_activations else 4
    return _nvfp4_with(
        linear, quantization, scale_bytes + (dtype_bytes - 4 if quantization.short_scales else 0)
    )


def _nvfp4_with(linear: Linear, quantization: Quantization, scale_bytes: int) -> int:
    group = quantization.group_size or NVFP4_GROUP
    if linear.inputs % group:
        raise IllegalSplitError(f"nvfp4 groups of {group} do not divide {linear.name} on each rank")
    return linear.elements // 2 + linear.elements // group + scale_bytes * len(linear.outputs)


def _mxfp4(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    return linear.elements // 2 + _mxfp_scales(linear)


def _mxfp8(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    return linear.elements + _mxfp_scales(linear)


def _mxfp8_padded(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    padded = replace(linear, outputs=(round_up(sum(linear.outputs), MARLIN_OUTPUTS),))
    return _mxfp8(padded, quantization, dtype_bytes, ranks)


def _mxfp_scales(linear: Linear) -> int:
    if linear.inputs % MXFP_BLOCK:
        raise IllegalSplitError(f"blocks of {MXFP_BLOCK} do not divide {linear.name} on each rank")
    return linear.elements // MXFP_BLOCK


def _groups_on_a_rank(linear: Linear, quantization: Quantization, ranks: int) -> int:
    """Groups of inputs that have scales on this rank; with an order of inputs, those of all ranks."""
    group = quantization.group_size or linear.inputs
    if linear.inputs % group:
        raise IllegalSplitError(f"groups of {group} do not divide {linear.name} on each rank")
    is_divided = quantization.act_order and linear.name.endswith(_ROW_PARALLEL)
    return linear.inputs // group * (ranks if is_divided else 1)


def _grouped_int(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    groups, outputs = _groups_on_a_rank(linear, quantization, ranks), sum(linear.outputs)
    packed = linear.elements * quantization.bits // 8
    zeros = groups * ceil_div(outputs * quantization.bits, 32) * 4 if quantization.zero_points else 0
    order = 4 * linear.inputs if quantization.act_order else 0
    shape = 2 * 8  # as int64
    return packed + groups * outputs * dtype_bytes + zeros + order + shape


def _awq(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    scales = _groups_on_a_rank(linear, quantization, ranks) * sum(linear.outputs)
    packed = linear.elements * quantization.bits // 8
    return packed + scales * dtype_bytes + scales * quantization.bits // 8


def _gptq(linear: Linear, quantization: Quantization, dtype_bytes: int, ranks: int) -> int:
    order = 4 * linear.inputs if quantization.registers_order else 0
    return _awq(linear, quantization, dtype_bytes, ranks) + order


_BY_SCHEME: Mapping[Scheme, Callable[[Linear, Quantization, int, int], int]] = {
    Scheme.FP8_BLOCK: _fp8_block,
    Scheme.FP8_TENSOR: _fp8_tensor,
    Scheme.EIGHT_BIT_CHANNEL: _eight_bit_channel,
    Scheme.MXFP4_EXPERTS: _unquantized,
    Scheme.MXFP4: _mxfp4,
    Scheme.NVFP4: _nvfp4,
    Scheme.NVFP4_WEIGHTS: _nvfp4_weights,
    Scheme.MXFP8: _mxfp8,
    Scheme.GROUPED_INT: _grouped_int,
    Scheme.AWQ: _awq,
    Scheme.GPTQ: _gptq,
    Scheme.FP8_MATRIX: _fp8_matrix,
    Scheme.FP8_BLOCK_PADDED: _fp8_block_padded,
    Scheme.MXFP8_PADDED: _mxfp8_padded,
    Scheme.INT8_EXPERTS: _unquantized,
    Scheme.NF4: _nf4,
}

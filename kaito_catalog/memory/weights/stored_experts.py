"""Bytes of a layer's quantised experts on one rank: what vLLM's fused-experts method for each scheme allocates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import gcd

from kaito_catalog.architectures import Quantization, Scheme
from kaito_catalog.memory.rounding import ceil_div, round_up
from kaito_catalog.memory.weights.matrices import ExpertMatrices
from kaito_catalog.memory.weights.split import MXFP_BLOCK, IllegalSplitError, Split, UncomputableError
from kaito_catalog.memory.weights.stored_linear import NVFP4_GROUP, nf4_numbers_bytes

SMALLEST_BLOCK = 32
"""Of those that vLLM makes of fp8 blocks, or of groups of integers, which do not divide the experts of a rank."""


def expert_bytes(
    experts: ExpertMatrices, scheme: Scheme, quantization: Quantization, dtype_bytes: int, split: Split
) -> int:
    """Bytes of a layer's experts as vLLM 0.25.1's fused-experts method for that scheme allocates them.

    Raises:
        IllegalSplitError: blocks or groups of the scheme do not divide what a rank has.
        UncomputableError: the scheme is known, and not what it stores for these experts.
    """
    if scheme is Scheme.MXFP4_EXPERTS:
        hidden_multiple, intermediate_multiple = split.mxfp4_alignment
        experts = replace(
            experts,
            hidden_size=round_up(experts.hidden_size, hidden_multiple),
            intermediate_size=round_up(experts.intermediate_size, intermediate_multiple),
        )
    size = _BY_SCHEME[scheme](experts, quantization, dtype_bytes, split)
    return size + dtype_bytes * experts.bias_elements


def _mxfp4_experts(
    experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split
) -> int:
    return experts.elements // 2 + experts.elements // MXFP_BLOCK


def _fp8_block(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    assert quantization.weight_block is not None
    width, hidden = experts.intermediate_size, experts.hidden_size
    rows, columns = quantization.weight_block
    is_cut = width % rows or (split.expert_tensor_parallel_size > 1 and width % columns)
    if quantization.refines_blocks and is_cut:
        # refine_fp8_moe_block_shape: the widest block that divides everything, of 32 at least.
        finer = gcd(rows, columns, width, hidden)
        rows, columns = (finer, finer) if finer >= SMALLEST_BLOCK else (rows, columns)
    if width % rows:
        words = f"fp8 blocks of {rows} do not divide the experts' width of {width:,} on each rank"
        raise IllegalSplitError(words)
    first = experts.first_parts * ceil_div(width, rows) * ceil_div(hidden, columns)
    second = ceil_div(hidden, rows) * ceil_div(width, columns)
    return experts.elements + 4 * experts.count * (first + second)


def _fp8_tensor(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    scales = experts.first_parts + 1 + (2 if quantization.static_activations else 0)
    return experts.elements + 4 * experts.count * scales


def _fp8_matrix(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    return experts.elements + 4 * 2 * experts.count


def _fp8_block_padded(
    experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split
) -> int:
    assert quantization.weight_block is not None
    rows, columns = quantization.weight_block
    if experts.intermediate_size % rows or experts.hidden_size % columns:
        raise UncomputableError(f"no plan for blocks of {rows} that do not divide the experts on each rank")
    first = ceil_div(experts.first_outputs, rows) * ceil_div(experts.hidden_size, columns)
    second = ceil_div(experts.hidden_size, rows) * ceil_div(experts.intermediate_size, columns)
    return experts.elements + 4 * experts.count * (first + second)


def _nf4(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    parts = (experts.intermediate_size,) * experts.first_parts
    first = nf4_numbers_bytes(experts.hidden_size, parts)
    second = nf4_numbers_bytes(experts.intermediate_size, (experts.hidden_size,))
    return experts.elements // 2 + experts.count * (first + second)


def _eight_bit_channel(
    experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split
) -> int:
    return experts.elements + 4 * experts.outputs


def _nvfp4(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    group = quantization.group_size or NVFP4_GROUP
    scales = _scales(experts, experts.hidden_size // group, experts.intermediate_size // group)
    return experts.elements // 2 + scales + 4 * 2 * experts.count * (experts.first_parts + 1)


def _mxfp4(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    return experts.elements // 2 + _mxfp_scales(experts)


def _mxfp8(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    return experts.elements + _mxfp_scales(experts)


def _mxfp_scales(experts: ExpertMatrices) -> int:
    width = experts.intermediate_size
    if experts.hidden_size % MXFP_BLOCK or width % MXFP_BLOCK:
        raise IllegalSplitError(f"blocks of {MXFP_BLOCK} do not divide the experts' width of {width:,}")
    return experts.elements // MXFP_BLOCK


def _scales(experts: ExpertMatrices, first_groups: int, second_groups: int) -> int:
    """Scales of all experts: one for each output and group of inputs of both matrices."""
    each = first_groups * experts.first_outputs + second_groups * experts.hidden_size
    return experts.count * each


def _grouped_scales(experts: ExpertMatrices, group: int, quantization: Quantization, split: Split) -> int:
    """Scales of experts in groups of integers; with an order of inputs, a rank has those of all ranks."""
    if not quantization.group_size:
        return _scales(experts, 1, 1)
    ranks = split.expert_tensor_parallel_size if quantization.act_order else 1
    return _scales(experts, experts.hidden_size // group, experts.intermediate_size * ranks // group)


def _grouped_int(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    if quantization.zero_points:
        raise UncomputableError("no plan for experts whose zero points are stored")
    width, hidden = experts.intermediate_size, experts.hidden_size
    group = quantization.group_size or width
    if quantization.group_size and (width % group or hidden % group):
        raise IllegalSplitError(f"groups of {group} do not divide the experts' width of {width:,}")
    packed = experts.elements * quantization.bits // 8
    scales = _grouped_scales(experts, group, quantization, split) * dtype_bytes
    has_order = quantization.registers_order or quantization.act_order
    order = 2 * 4 * (hidden + width) if has_order else 0
    shapes = 2 * 2 * dtype_bytes  # in the model's dtype
    return packed + scales + experts.count * (shapes + order)


def _awq(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    packed = experts.elements * quantization.bits // 8
    if not _has_marlin(experts, quantization):
        scales = _scales_of_finer_groups(experts, quantization)
    else:
        group = quantization.group_size or experts.intermediate_size
        scales = _grouped_scales(experts, group, quantization, split)
    return packed + scales * dtype_bytes + scales * quantization.bits // 8


def _gptq(experts: ExpertMatrices, quantization: Quantization, dtype_bytes: int, split: Split) -> int:
    packed = experts.elements * quantization.bits // 8
    if not _has_marlin(experts, quantization):
        return packed + _scales_of_finer_groups(experts, quantization) * dtype_bytes
    group = quantization.group_size or experts.intermediate_size
    scales = _grouped_scales(experts, group, quantization, split)
    size = packed + scales * dtype_bytes
    if quantization.registers_order:
        # So long it also allocates the packed zeros in the model's dtype.
        zeros = scales * quantization.bits // 32 * dtype_bytes
        return size + zeros + experts.count * 2 * 4 * (experts.hidden_size + experts.intermediate_size)
    size += scales * quantization.bits // 8
    # Since then it has biases, until it has seen that the files hold none.
    return size if experts.bias else size + experts.outputs * dtype_bytes


def _has_marlin(experts: ExpertMatrices, quantization: Quantization) -> bool:
    """Whether Marlin has a kernel for a rank's experts (vLLM's check_moe_marlin_supports_layer)."""
    group = quantization.group_size
    least = max(64, group or 0) if quantization.act_order else (group or 1)
    is_divided = experts.hidden_size % 128 == 0 and experts.intermediate_size % least == 0
    return is_divided and group in (None, 32, 64, 128)


def _scales_of_finer_groups(experts: ExpertMatrices, quantization: Quantization) -> int:
    """Scales for kernels that Triton makes: finer groups, whose scales are repeated, and no order of inputs."""
    width, hidden = experts.intermediate_size, experts.hidden_size
    group = quantization.group_size or width
    while quantization.group_size and group >= SMALLEST_BLOCK and (width % group or hidden % group):
        group //= 2
    if not quantization.group_size or group < SMALLEST_BLOCK:
        words = (
            f"groups of {quantization.group_size} cannot be made to divide the experts' width of {width:,}"
        )
        raise IllegalSplitError(words)
    return _scales(experts, hidden // group, width // group)


_BY_SCHEME: Mapping[Scheme, Callable[[ExpertMatrices, Quantization, int, Split], int]] = {
    Scheme.FP8_BLOCK: _fp8_block,
    Scheme.FP8_TENSOR: _fp8_tensor,
    Scheme.EIGHT_BIT_CHANNEL: _eight_bit_channel,
    Scheme.MXFP4_EXPERTS: _mxfp4_experts,
    Scheme.MXFP4: _mxfp4,
    Scheme.NVFP4: _nvfp4,
    Scheme.NVFP4_WEIGHTS: _nvfp4,
    Scheme.MXFP8: _mxfp8,
    Scheme.GROUPED_INT: _grouped_int,
    Scheme.AWQ: _awq,
    Scheme.GPTQ: _gptq,
    Scheme.FP8_MATRIX: _fp8_matrix,
    Scheme.FP8_BLOCK_PADDED: _fp8_block_padded,
    Scheme.MXFP8_PADDED: _mxfp8,
    Scheme.INT8_EXPERTS: _eight_bit_channel,
    Scheme.NF4: _nf4,
}

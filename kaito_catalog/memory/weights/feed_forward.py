"""The parameters on one rank of a layer's feed-forward block: dense, or a mixture of experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from kaito_catalog.architectures import Experts, FeedForward, Mlp
from kaito_catalog.memory.rounding import ceil_div
from kaito_catalog.memory.weights.matrices import ExpertMatrices, Linear, Parameters, Part
from kaito_catalog.memory.weights.split import Split, divide


def feed_forward_parts(block: FeedForward, hidden_size: int, split: Split) -> Iterator[Part]:
    """The parameters of a block on a rank.

    Raises:
        IllegalSplitError: while they are listed; vLLM would refuse to divide it over so many ranks.
    """
    match block:
        case Mlp():
            return mlp_parts("mlp", block, hidden_size, split.tensor_parallel_size)
        case Experts():
            return _experts(block, hidden_size, split)
        case _:
            assert_never(block)


def mlp_parts(name: str, mlp: Mlp, hidden_size: int, tensor_parallel_size: int) -> Iterator[Part]:
    """The two matrices of a dense block, under the name of its module."""
    width = (
        mlp.intermediate_size
        if mlp.replicated
        else divide(mlp.intermediate_size, tensor_parallel_size, "the intermediate size")
    )
    outputs = mlp.intermediate_size if mlp.input_replicated else width
    first = (outputs, outputs) if mlp.gated else (outputs,)
    yield Linear(f"{name}.gate_up_proj" if mlp.gated else f"{name}.up_proj", hidden_size, first, mlp.bias)
    yield Linear(f"{name}.down_proj", width, (hidden_size,), mlp.bias)


def _experts(block: Experts, hidden_size: int, split: Split) -> Iterator[Part]:
    yield expert_matrices(block, hidden_size, split)
    if block.latent_size:
        yield Linear("mlp.fc1_latent_proj", hidden_size, (block.latent_size,))
        yield Linear("mlp.fc2_latent_proj", block.latent_size, (hidden_size,))
    if block.router_quantized:
        yield Linear("mlp.gate", hidden_size, (block.num_experts,))
    else:
        router = block.num_experts * (hidden_size + (1 if block.router_bias else 0))
        yield Parameters(router, block.router_bytes)
    yield Parameters(block.table_elements, 4)
    if block.correction_bias:
        yield Parameters(block.num_experts, 4)
    if block.shared is not None:
        yield from mlp_parts("mlp.shared_expert", block.shared, hidden_size, split.tensor_parallel_size)
    if block.shared_gate:
        yield Parameters(hidden_size)
    if block.dense is not None:
        yield from mlp_parts("mlp", block.dense, hidden_size, split.tensor_parallel_size)
    yield Parameters(block.extra_elements)


def expert_matrices(block: Experts, hidden_size: int, split: Split) -> ExpertMatrices:
    """The experts of a block that a rank holds, or its share of each.

    Raises:
        IllegalSplitError: their width cannot be divided by the ranks.
    """
    ranks = split.expert_tensor_parallel_size if block.expert_parallel else split.tensor_parallel_size
    width = divide(block.intermediate_size, ranks, "the experts' intermediate size")
    if split.expert_tensor_parallel_size > 1:
        width = max(width, block.least_width)
    return ExpertMatrices(
        "moe.experts" if block.dense is not None else "mlp.experts",
        ceil_div(block.num_experts, split.expert_parallel_size if block.expert_parallel else 1),
        block.latent_size or hidden_size,
        width,
        block.gated,
        block.bias,
        block.scheme,
    )

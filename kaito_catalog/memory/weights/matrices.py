"""What a layer's parameters are on one rank: matrices, experts and the parameters that are never quantised."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import Scheme


@dataclass(frozen=True)
class Linear:
    """A matrix on one rank; `outputs` are the widths of its fused parts."""

    name: str
    inputs: int
    outputs: tuple[int, ...]
    bias: bool = False
    quantized: bool = True
    """False for modules that vLLM builds without a quantisation, whatever the configuration says."""
    replicated_by: tuple[str, ...] = ()
    """Methods of quantisation under which every rank has the whole matrix."""

    @property
    def elements(self) -> int:
        """Weights, without the bias."""
        return self.inputs * sum(self.outputs)

    @property
    def bias_elements(self) -> int:
        """One for each output, where there is a bias."""
        return sum(self.outputs) if self.bias else 0


@dataclass(frozen=True)
class ExpertMatrices:
    """The experts of one layer on one rank, two stacked matrices each: vLLM's `w13` and `w2`."""

    name: str
    count: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    bias: bool
    scheme: Scheme | None = None
    """Where it differs from the rest of the model."""

    @property
    def first_parts(self) -> int:
        """Parts of an expert's first matrix: the gate's and the up-projection's, or the latter alone."""
        return 2 if self.gated else 1

    @property
    def first_outputs(self) -> int:
        """Outputs of an expert's first matrix, all parts."""
        return self.first_parts * self.intermediate_size

    @property
    def elements(self) -> int:
        """Weights of all experts, without biases."""
        return self.count * self.hidden_size * (self.first_outputs + self.intermediate_size)

    @property
    def outputs(self) -> int:
        """Outputs of both matrices of all experts: as many as there would be biases or scales per output."""
        return self.count * (self.first_outputs + self.hidden_size)

    @property
    def bias_elements(self) -> int:
        """One for each output, where there are biases."""
        return self.outputs if self.bias else 0


@dataclass(frozen=True)
class Parameters:
    """Parameters that no quantisation touches: norms, scales, convolutions."""

    elements: int
    element_bytes: int = 0
    """0 stands for the model's dtype."""


Part = Linear | ExpertMatrices | Parameters


def unquantized_bytes(matrix: Linear | ExpertMatrices, dtype_bytes: int) -> int:
    """Bytes of a matrix, or of a layer's experts, in the model's dtype."""
    return dtype_bytes * (matrix.elements + matrix.bias_elements)

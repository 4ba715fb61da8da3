"""Fit the constants of kaito_catalog/data/overheads.yaml on published start-up logs, and print them.

    python -m tools.fit_overheads [--starts FILE]

The formulas are physics (what the profile run allocates); only their constants are fitted. Each family of
architectures is left out once, the rest is fitted, and the error on what was left out is printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.version import Version

from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.overheads.constants import constants
from kaito_catalog.memory.overheads.defaults import serve_defaults
from kaito_catalog.memory.overheads.layer_widths import moe_workspace
from kaito_catalog.quantity import GIB
from kaito_catalog.vllm_bridge.versions import release
from tools.bench_memory import score
from tools.observed import HELD_OUT, STARTS, Observed, observations

NEW_SAMPLER = Version("0.17.0")
NEW_SNAPSHOT = Version("0.18.0")


def solve(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Least squares by the normal equations (few unknowns, well apart)."""
    size = len(rows[0])
    matrix = [
        [sum(r[i] * r[j] for r in rows) for j in range(size)]
        + [sum(r[i] * v for r, v in zip(rows, values, strict=True))]
        for i in range(size)
    ]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for k in range(size):
            if k != i:
                factor = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def features(row: Observed) -> tuple[float, float, float]:
    """Constant, bytes that are not fitted (hidden states, the experts' workspace), the sampler's logits."""
    defaults = serve_defaults(row.gpu, row.gpu_memory_bytes)
    tokens = row.max_num_batched_tokens or defaults.max_num_batched_tokens
    rows = min(tokens, row.max_num_seqs or defaults.max_num_seqs)
    per_token = float(row.shape.hidden_size)
    if is_new(row):
        per_token += moe_workspace(as_built(row.shape, row.vllm_version), row.tensor_parallel_size)
    return 1.0, tokens * per_token * row.shape.dtype_bytes, float(rows * row.shape.vocab_size)


Model = tuple[float, float]
"""The constant, and bytes per logit; one copy of the hidden states is alive beside the logits."""


def fit(rows: Sequence[Observed]) -> Model:
    """Fit the activation peak of one stage whose sampler decides."""
    unknowns, values = [], []
    for row in rows:
        one, hidden, logits = features(row)
        assert row.activation_peak_bytes is not None
        unknowns.append((one, logits))
        values.append(row.activation_peak_bytes - hidden)
    fixed, per_logit = solve(unknowns, values)
    return fixed, per_logit


def predict(model: Model, row: Observed) -> float:
    """The activation peak in bytes."""
    one, hidden, logits = features(row)
    return model[0] * one + hidden + model[1] * logits


def is_new(row: Observed) -> bool:
    """Whether its vLLM has the sampler that came with 0.17."""
    return release(row.vllm_version) >= NEW_SAMPLER


def median_of(rows: Sequence[Observed], value: Callable[[Observed], int | None]) -> str:
    """The median and the spread of a figure, in bytes and GiB."""
    found = sorted(v for v in map(value, rows) if v is not None)
    if not found:
        return "nothing printed"
    middle = statistics.median(found)
    spread = f"{found[0] / GIB:.2f} to {found[-1] / GIB:.2f}"
    return f"{middle:,.0f} ({middle / GIB:.2f} GiB; {spread}, {len(found)} starts)"


def show_activations(h100: Sequence[Observed]) -> None:
    """The fit of the activation peaks, and how far it is off for a family that it was not made from."""
    measured = [row for row in h100 if row.activation_peak_bytes is not None]
    text_only = [row for row in measured if row.shape.encoder is None]
    for name, chosen in (
        ("vLLM before 0.17", [row for row in text_only if not is_new(row)]),
        ("vLLM from 0.17 on", [row for row in text_only if is_new(row)]),
    ):
        if len({row.shape.vocab_size for row in chosen}) < 2:
            print(f"{name}: too few starts to fit")
            continue
        model = fit(chosen)
        residuals = [
            (predict(model, row) - (row.activation_peak_bytes or 0)) / row.gpu_memory_bytes for row in chosen
        ]
        print(f"{name}: {len(chosen)} starts of {len({row.model for row in chosen})} models")
        print(f"  activation.fixed              {model[0]:,.0f}")
        print(f"  samplerBytesPerLogit          {model[1] - 2:.2f} beside the two of the logits themselves")
        print(f"  worst residual                {max(map(abs, residuals)):.2%} of the GPU's memory")
        for family in sorted({row.shape.architecture for row in chosen}):
            rest = [row for row in chosen if row.shape.architecture != family]
            left_out = [row for row in chosen if row.shape.architecture == family]
            if len({row.shape.vocab_size for row in rest}) < 2:
                continue
            other = fit(rest)
            errors = [
                (predict(other, row) - (row.activation_peak_bytes or 0)) / row.gpu_memory_bytes
                for row in left_out
            ]
            print(f"  without {family:24s} off by {max(errors, key=abs):+.2%} on it ({len(left_out)} starts)")
        for row in (r for r in measured if r.shape.encoder is not None and is_new(r) == is_new(chosen[0])):
            extra = (row.activation_peak_bytes or 0) - predict(model, row)
            print(f"  encoder of {row.model}: {extra:,.0f} more")


def show_flashinfer() -> None:
    """What FlashInfer's sampler takes, from what was left for the cache: those logs print no peak."""
    rows = [row for path in (STARTS, HELD_OUT) for row in observations(path)[0] if row.flashinfer]
    planned = constants()["activation"]["flashinferBytesPerLogit"]
    found = {}
    for row in rows:
        defaults = serve_defaults(row.gpu, row.gpu_memory_bytes)
        logits = (row.max_num_seqs or defaults.max_num_seqs) * row.shape.vocab_size
        found[row.id] = planned + score(row).ours * row.gpu_memory_bytes / logits
    print(
        f"flashinferBytesPerLogit: {statistics.median(found.values()):.1f} beside the two of the logits themselves "
        f"({min(found.values()):.1f} to {max(found.values()):.1f}, {len(found)} starts)"
    )
    for name in sorted({row.model for row in rows}):
        rest = statistics.median(found[row.id] for row in rows if row.model != name)
        print(f"  without {name}: {rest:.1f}")


def show_non_torch(h100: Sequence[Observed]) -> None:
    """What CUDA and NCCL take, by parallelism and version."""
    for is_parallel in (False, True):
        for is_later in (False, True):
            chosen = [
                row
                for row in h100
                if (row.tensor_parallel_size > 1) is is_parallel
                and (release(row.vllm_version) >= NEW_SNAPSHOT) is is_later
            ]
            words = f"TP {'> 1' if is_parallel else '1'}, {'from 0.18 on' if is_later else 'before 0.18'}"
            print(f"nonTorch, {words}: {median_of(chosen, lambda r: r.non_torch_bytes)}")


def show_graphs(h100: Sequence[Observed]) -> None:
    """The fit of vLLM's own estimate for CUDA graphs."""
    graphs = [row for row in h100 if row.cuda_graph_estimate_bytes is not None]
    if len({len(row.shape.layers) for row in graphs}) > 1:
        fixed, per_layer = solve(
            [(1.0, float(len(row.shape.layers))) for row in graphs],
            [float(row.cuda_graph_estimate_bytes or 0) for row in graphs],
        )
        errors = [
            (fixed + per_layer * len(row.shape.layers) - (row.cuda_graph_estimate_bytes or 0))
            / row.gpu_memory_bytes
            for row in graphs
        ]
        print(
            f"cudaGraphs: fixed {fixed:,.0f}, perLayer {per_layer:,.0f}, "
            f"worst residual {max(map(abs, errors)):.2%}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the fit; exit 2 where there are no logs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--starts", type=Path, default=STARTS, help="the start-up logs (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        rows, _ = observations(options.starts)
    except FileNotFoundError:
        print(f"there are no logs at {options.starts}; name them with --starts", file=sys.stderr)
        return 2
    h100 = [row for row in rows if "H100" in row.gpu and row.pipeline_parallel_size == 1]
    show_activations(h100)
    show_flashinfer()
    show_non_torch(h100)
    show_graphs(h100)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Score the plan and KAITO v0.12's formula on published start-up logs, in one run, as a Markdown table.

    python -m tools.bench_memory [--shared DIR] [--rows]

The error is the KV memory per GPU, predicted less printed, as a share of the GPU's memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kaito_catalog.kaito.estimator import predicted_kv_cache_bytes
from kaito_catalog.plan import Fit, Parallelism, Plan, PlanGpu, Settings, make_plan
from kaito_catalog.quantity import GIB
from kaito_catalog.weights import Uncomputable, split, weights_per_rank
from tools.observed import SHARED, Observed, observations

# What KAITO v0.12's catalog says where it is not the size of the weights (it counts gpt-oss's second copy).
KAITO_FILE_BYTES = {"openai/gpt-oss-20b": 25.63 * GIB, "openai/gpt-oss-120b": 121.54 * GIB}


@dataclass(frozen=True)
class Score:
    """One row: errors as shares of the GPU's memory (positive: memory promised that was not there)."""

    observed: Observed
    plan: Plan
    ours: float
    kaito: float | None
    milliseconds: float


def plan_of(row: Observed) -> Plan:
    """The plan for what was started."""
    capability = 9.0 if "H100" in row.gpu or "H200" in row.gpu else 8.0
    return make_plan(
        row.shape,
        gpu=PlanGpu(row.gpu, row.gpu_memory_bytes, capability),
        parallelism=Parallelism(row.tensor_parallel_size, row.pipeline_parallel_size),
        settings=Settings(
            max_model_len=min(row.max_model_len, row.shape.max_model_len),
            gpu_memory_utilization=row.gpu_memory_utilization,
            kv_cache_dtype=row.kv_cache_dtype,
            max_num_seqs=row.max_num_seqs,
            max_num_batched_tokens=row.max_num_batched_tokens,
            enforce_eager=row.enforce_eager,
        ),
        vllm_version=row.vllm_version,
    )


def score(row: Observed) -> Score | None:
    """The errors of a row; None where the plan is unknown."""
    started = time.perf_counter()
    plan = plan_of(row)
    milliseconds = (time.perf_counter() - started) * 1000
    if plan.per_gpu is None:
        return None
    printed = row.kv_cache_bytes
    if row.pipeline_parallel_size > 1 and row.kv_cache_tokens and plan.kv_cache is not None:
        # The log prints the first stage's memory; the pool's size in tokens is that of the smallest stage.
        group = plan.kv_cache.groups[0]
        printed = row.kv_cache_tokens // group["blockSize"] * group["pageBytes"]
    ours = (plan.per_gpu.kv_cache_available_bytes - printed) / row.gpu_memory_bytes
    size = KAITO_FILE_BYTES.get(row.model)
    if size is None:
        whole = weights_per_rank(row.shape, split(tensor_parallel_size=1))
        size = None if isinstance(whole, Uncomputable) else float(sum(whole))
    kaito = None
    if size is not None:
        predicted = predicted_kv_cache_bytes(
            gpu_memory_bytes=row.gpu_memory_bytes,
            gpu_memory_utilization=row.gpu_memory_utilization,
            model_file_bytes=size,
            gpus=row.tensor_parallel_size * row.pipeline_parallel_size,
        )
        kaito = (predicted - printed) / row.gpu_memory_bytes
    return Score(row, plan, ours, kaito, milliseconds)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def line(name: str, errors: Sequence[float]) -> str:
    """A row of the table."""
    sizes = [abs(e) for e in errors]
    promised = max(0.0, *errors)
    return (
        f"| {name} | {len(errors)} | {statistics.median(sizes):.2%} | {quantile(sizes, 0.9):.2%} | "
        f"{max(sizes):.2%} | {promised:.2%} |"
    )


def is_calibrated(row: Observed) -> bool:
    """Whether the row is of the GPU and the versions that the constants were measured on."""
    return "H100" in row.gpu and row.vllm_version.startswith(("0.17", "0.18", "0.19"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit 2 where there are no logs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/truth")
    parser.add_argument("--rows", action="store_true", help="every row as well")
    options = parser.parse_args(arguments)
    try:
        rows = list(observations(options.shared))
    except FileNotFoundError:
        print(
            f"there are no logs at {options.shared}/data/truth; name the folder with --shared",
            file=sys.stderr,
        )
        return 2
    scores = []
    left_out = Counter(row.split(": ", 1)[1] for row in rows if isinstance(row, str))
    for row in rows:
        if isinstance(row, Observed):
            found = score(row)
            if found is None:
                left_out["the plan is unknown"] += 1
            else:
                scores.append(found)
    if options.rows:
        print("| log | model | GPU | vLLM | TP×PP | ours | KAITO v0.12 | fits |")
        print("|---|---|---|---|---|---|---|---|")
        for s in scores:
            o = s.observed
            kaito = "" if s.kaito is None else f"{s.kaito:+.2%}"
            cut = f"{o.tensor_parallel_size}×{o.pipeline_parallel_size}"
            verdict = s.plan.fits.value
            what = f"| {o.id} | {o.model} | {o.gpu} | {o.vllm_version} | {cut} |"
            print(f"{what} {s.ours:+.2%} | {kaito} | {verdict} |")
        print()
    models = len({s.observed.model for s in scores})
    print(f"KV memory per GPU, predicted less printed, as a share of the GPU's memory: {len(scores)} starts")
    calibrated = sum(is_calibrated(s.observed) for s in scores)
    print(f"of {models} models ({calibrated} on H100 80GB with vLLM 0.17 to 0.19).")
    print()
    print("| formula | starts | median | 90 % within | worst | most promised but absent |")
    print("|---|---|---|---|---|---|")
    for name, chosen in (
        ("all", scores),
        ("H100, vLLM 0.17–0.19", [s for s in scores if is_calibrated(s.observed)]),
        ("elsewhere", [s for s in scores if not is_calibrated(s.observed)]),
    ):
        if chosen:
            print(line(f"ours, {name}", [s.ours for s in chosen]))
            print(line(f"KAITO v0.12, {name}", [s.kaito for s in chosen if s.kaito is not None]))
    wrong = [
        s.observed.id
        for s in scores
        if (s.plan.fits is Fit.NO and s.observed.served)
        or (s.plan.fits is Fit.YES and s.observed.kv_cache_bytes < 0)
    ]
    within = sum(
        abs(s.ours) * s.observed.gpu_memory_bytes <= (s.plan.expected_error_bytes or 0) for s in scores
    )
    print()
    print(f"Wrong fit verdicts: {len(wrong)}{' (' + ', '.join(wrong) + ')' if wrong else ''}.")
    print(f"Within the expected error that the plan states: {within} of {len(scores)}.")
    print(f"Time of a plan: median {statistics.median(s.milliseconds for s in scores):.2f} ms.")
    print()
    print("Left out: " + "; ".join(f"{count} × {reason}" for reason, count in left_out.most_common()) + ".")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Score the plan and other tools on published start-up logs and on vLLM's own exact plans, as Markdown tables.

    python -m tools.bench_memory [--peers] [--starts FILE] [--rows] [--short]

`--peers` asks the other tools in the same run (tools/peers.py; `make bench` does); without it, their answers are those
that tests/data/peers.json keeps of the last run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.kaito import estimator
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over
from kaito_catalog.quantity import GIB
from kaito_catalog.vllm_bridge.versions import release
from tools import exact_models, peers
from tools.observed import HELD_OUT, STARTS, Observed, environment, observations

# What KAITO v0.12's catalog says where it is not the size of the weights (it counts gpt-oss's second copy).
KAITO_FILE_BYTES = {"openai/gpt-oss-20b": 25.63 * GIB, "openai/gpt-oss-120b": 121.54 * GIB}


@dataclass(frozen=True)
class Prediction:
    """What a tool says of a start; both None where it gives no answer, for `refused`."""

    kv_cache_bytes: float | None
    """Per GPU."""
    fits: bool | None
    """Whether it starts; None too where the tool says that it is too near to tell."""
    milliseconds: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Score:
    """One start: what it printed, and what each tool had predicted."""

    observed: Observed
    plan: Plan
    printed: int | None
    predictions: Mapping[str, Prediction]

    def error(self, tool: str) -> float | None:
        """As a share of the GPU's memory; positive: memory promised that was not there."""
        said = self.predictions[tool].kv_cache_bytes
        if said is None or self.printed is None:
            return None
        # A tool that stops at nothing has said as much as it can of a GPU that is too small.
        printed = max(0, self.printed) if said == 0 else self.printed
        return (said - printed) / self.observed.gpu_memory_bytes

    @property
    def ours(self) -> float:
        """The plan's own error."""
        error = self.error(OURS)
        assert error is not None
        return error

    @property
    def started(self) -> bool | None:
        """Whether vLLM found room for one request; None where it ended later, for another reason."""
        if self.printed is None or self.printed < 0:
            return False
        return None if self.observed.served is False else True

    def wrong(self, tool: str) -> bool:
        """A verdict that the start refuted."""
        said = self.predictions[tool].fits
        return said is not None and self.started is not None and said is not self.started


OURS = "kaito-catalog"
KAITO = "KAITO v0.12"
HF_MEM = "hf-mem"
LLM_D = "llm-d-planner"

CLAIMS = {
    OURS: ("weights, KV cache, what vLLM takes beside, the verdict", "nothing that the logs name"),
    KAITO: (
        "how many GPUs; solved for the KV memory, with the utilization of the start",
        "vLLM's version, the cache's dtype, batch sizes",
    ),
    HF_MEM: (
        "weights and the cache of one request; the KV memory is what they leave of the budget",
        "GPUs, parallelism, overheads, vLLM's version",
    ),
    LLM_D: (
        "the KV memory; its constants were fitted on these same logs of vLLM 0.19",
        "vLLM's version, the cache's dtype, batch sizes",
    ),
}
"""What each tool says, and what it has no input for."""


CAPABILITIES = {
    "H100": 9.0,
    "H200": 9.0,
    "B200": 10.0,
    "RTX 5090": 12.0,
    "Blackwell": 12.0,
    "RTX 4090": 8.9,
    "L40S": 8.9,
    "RTX 3090": 8.6,
    "A40": 8.6,
    "A10G": 8.6,
    "A100": 8.0,
}
"""Part of a GPU's name to its compute capability (developer.nvidia.com/cuda-gpus)."""


def plan_of(row: Observed) -> Plan:
    """The plan for what was started."""
    capability = next((number for name, number in CAPABILITIES.items() if name in row.gpu), None)
    return make_plan(
        PlanRequest(
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
                language_model_only=row.language_model_only,
                environment=environment(row),
            ),
            vllm_version=row.vllm_version,
        )
    )


def stored_bytes(model: str, shape: Shape) -> float | None:
    """The size of the weight files, as KAITO takes it."""
    known = KAITO_FILE_BYTES.get(model)
    if known is not None:
        return known
    whole = weights_per_rank(as_built(shape, peers.VERSION), split_over(tensor_parallel_size=1))
    return None if isinstance(whole, Uncomputable) else float(sum(whole))


def kaitos(row: Observed) -> Prediction:
    """The formula of KAITO v0.12 with the utilization of the start (its own is 0.84)."""
    started = time.perf_counter()
    size = stored_bytes(row.model, row.shape)
    if size is None:
        return Prediction(None, None, refused="the size of the weights is not known")
    gpus = row.tensor_parallel_size * row.pipeline_parallel_size
    available = estimator.predicted_kv_cache_bytes(
        recorded_release("v0.12").sizing,
        gpu_memory_bytes=row.gpu_memory_bytes,
        gpu_memory_utilization=row.gpu_memory_utilization,
        model_file_bytes=size,
        gpus=gpus,
    )
    needed = row.max_model_len * estimator.kv_cache_bytes_per_token(row.shape) / gpus
    return Prediction(available, available >= needed, (time.perf_counter() - started) * 1000)


def peer_prediction(row: Observed, said: Mapping[str, Any] | None) -> Prediction:
    """What another tool's answer means for a start."""
    if said is None or "refused" in said:
        return Prediction(None, None, refused=str(said["refused"]) if said else "was not asked")
    gpus = row.tensor_parallel_size * row.pipeline_parallel_size
    available = said.get("kvCacheAvailableBytes")
    if available is None:
        available = row.gpu_memory_bytes * row.gpu_memory_utilization - said["weightsBytes"]
    fits = available > 0 and available * gpus >= said["kvCacheNeededBytes"]
    return Prediction(available, fits, said.get("milliseconds"))


def score(row: Observed, others: Mapping[str, Prediction] | None = None) -> Score:
    """What each tool predicts for a start, against what vLLM printed."""
    started = time.perf_counter()
    plan = plan_of(row)
    milliseconds = (time.perf_counter() - started) * 1000
    printed = row.kv_cache_bytes
    if row.pipeline_parallel_size > 1 and row.kv_cache_tokens and plan.kv_cache is not None:
        # The log prints the first stage's memory; the pool's size in tokens is that of the smallest stage.
        printed = pool_of_tokens(plan, row.kv_cache_tokens)
    if plan.per_gpu is None:
        ours = Prediction(None, None, refused=plan.reason)
    else:
        said = {Fit.YES: True, Fit.NO: False}.get(plan.fits)
        ours = Prediction(float(plan.per_gpu.kv_cache_available_bytes), said, milliseconds)
    return Score(row, plan, printed, {OURS: ours, KAITO: kaitos(row), **(others or {})})


def pool_of_tokens(plan: Plan, tokens: int) -> int:
    """Bytes of a pool of so many tokens whose layers all keep the same of each."""
    assert plan.kv_cache is not None
    group = plan.kv_cache.groups[0]
    return int(tokens // group["blockSize"] * group["pageBytes"] * group["layers"])


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def line(name: str, scores: Sequence[Score], tool: str) -> str:
    """A row of the table."""
    errors = [e for s in scores if (e := s.error(tool)) is not None]
    verdicts = [s for s in scores if s.predictions[tool].fits is not None and s.started is not None]
    wrong = sum(s.wrong(tool) for s in scores)
    sizes = [abs(e) for e in errors]
    promised = max(0.0, *errors)
    return (
        f"| {name} | {len(errors)} | {statistics.median(sizes):.2%} | {quantile(sizes, 0.9):.2%} | "
        f"{max(sizes):.2%} | {promised:.2%} | {wrong} of {len(verdicts)} |"
    )


CALIBRATED_ON = SpecifierSet(">=0.17,<0.20")


def is_calibrated(row: Observed) -> bool:
    """Whether the row is of the GPU and the versions that the constants were measured on."""
    return "H100" in row.gpu and release(row.vllm_version) in CALIBRATED_ON


def print_rows(scores: Sequence[Score]) -> None:
    """Each start with the error of each tool."""
    tools = list(scores[0].predictions)
    print(f"| log | model | GPU | vLLM | TP×PP | {' | '.join(tools)} | plan |")
    print("|---" * (6 + len(tools)) + "|")
    for s in scores:
        o = s.observed
        errors = " | ".join("–" if (e := s.error(tool)) is None else f"{e:+.2%}" for tool in tools)
        cut = f"{o.tensor_parallel_size}×{o.pipeline_parallel_size}"
        print(f"| {o.id} | {o.model} | {o.gpu} | {o.vllm_version} | {cut} | {errors} | {s.plan.fits.value} |")
    print()


def print_starts(scores: Sequence[Score], *, short: bool = False) -> None:
    """The errors on the published logs."""
    models = len({s.observed.model for s in scores})
    calibrated = [s for s in scores if is_calibrated(s.observed)]
    elsewhere = [s for s in scores if not is_calibrated(s.observed)]
    print(f"KV memory per GPU, predicted less printed, as a share of the GPU's memory: {len(scores)} starts")
    print(f"of {models} models ({len(calibrated)} on H100 80GB with vLLM 0.17 to 0.19).")
    print()
    print("| tool | starts | median | 90 % within | worst | most promised but absent | wrong verdicts |")
    print("|---|---|---|---|---|---|---|")
    classes = [("all", scores), ("H100, vLLM 0.17–0.19", calibrated), ("elsewhere", elsewhere)]
    for name, chosen in classes[:1] if short else classes:
        for tool in scores[0].predictions:
            if any(s.error(tool) is not None for s in chosen):
                print(line(f"{tool}, {name}", chosen, tool))
    within = [
        abs(s.ours) * s.observed.gpu_memory_bytes <= (s.plan.expected_error_bytes or 0)
        for s in scores
        if s.error(OURS) is not None
    ]
    near = sum(s.plan.fits in (Fit.TIGHT, Fit.UNKNOWN) for s in scores)
    late = sum(s.started is None for s in scores)
    print()
    print(f'Plans that say "may not fit" or "unknown": {near} of {len(scores)}.')
    print(f"Within the expected error that the plan states: {sum(within)} of {len(within)}.")
    print(f"No verdict is scored on {late} starts that ran out of memory after the cache had its share.")


def print_held_out(scores: Sequence[Score], *, short: bool = False) -> None:
    """The errors on starts that no constant was fitted on, by what was not measured before."""
    models = len({s.observed.model for s in scores})
    print(
        f"Held out, no constant was fitted on them: {len(scores)} starts of {models} models, on GPUs other than H100"
    )
    print(
        "or with vLLM 0.20 and later. They showed terms that were missing (docs/memory.md says which). Two things"
    )
    print("are known from them alone: the CUDA graphs of sparse attention, and where a freed block counts.")
    print()
    print("| held out | starts | median | 90 % within | worst | most promised but absent | wrong verdicts |")
    print("|---|---|---|---|---|---|---|")
    classes: dict[str, list[Score]] = {f"{tool}, all": list(scores) for tool in (OURS, KAITO)}
    for s in () if short else scores:
        version = release(s.observed.vllm_version)
        span = next(name for least, name in SPANS if version >= least)
        classes.setdefault(f"{OURS}, vLLM {span}", []).append(s)
    for s in () if short else scores:
        memory = round(s.observed.gpu_memory_bytes / GIB)
        size = next(name for least, name in SIZES if memory >= least)
        classes.setdefault(f"{OURS}, GPUs of {size}", []).append(s)
    for name, chosen in classes.items():
        print(line(name, chosen, KAITO if name.startswith(KAITO) else OURS))
    within = sum(
        abs(s.ours) * s.observed.gpu_memory_bytes <= (s.plan.expected_error_bytes or 0) for s in scores
    )
    print()
    print(f"Within the expected error that the plan states: {within} of {len(scores)}.")


SPANS = (
    (Version("0.27.0"), "0.27 and later"),
    (Version("0.20.0"), "0.20 to 0.26"),
    (Version("0"), "before 0.20"),
)
SIZES = ((70, "80 GiB and more"), (36, "about 48 GiB"), (0, "16 to 32 GiB"))


@dataclass(frozen=True)
class Exact:
    """One model on one GPU: what vLLM's own classes and planner say, and what a tool says."""

    model: str
    weights_bytes: int
    needed_bytes: int
    said: Mapping[str, tuple[float | None, float | None]]
    """Weights (None where they are the tool's input) and the cache of one request; None where refused."""


def exact_scores(answers: Mapping[str, Any]) -> list[Exact]:
    """Every recorded model whose size the other tools could be told."""
    known = peers.recorded_models()
    found = []
    for model in exact_models.read():
        first = model.plans.get(peers.VERSION, {}).get("tp1", {})
        if model.name not in known or "needed" not in first:
            continue
        said: dict[str, tuple[float | None, float | None]] = {OURS: (None, None), KAITO: (None, None)}
        shape = read_shape(known[model.name]["config"], quantization=model.quantization)
        if isinstance(shape, Shape):
            world = exact_models.world_of(model, "tp1")
            ours = exact_models.planned(shape, world, peers.VERSION, first["maxModelLen"])
            if isinstance(ours, exact_models.Figures):
                weights = None if ours.weights is None else float(sum(ours.weights))
                said[OURS] = (weights, float(ours.needed))
            said[KAITO] = (None, float(estimator.kv_cache_bytes_per_token(shape) * first["maxModelLen"]))
        for tool in (HF_MEM, LLM_D):
            answer = answers.get(f"exact {model.name}", {}).get(tool, {"refused": "was not asked"})
            weights = None if tool == HF_MEM else answer.get("weightsBytes")
            said[tool] = (weights, None if "refused" in answer else answer["kvCacheNeededBytes"])
        found.append(Exact(model.name, sum(first["weights"]), first["needed"], said))
    return found


def print_equal(*, short: bool = False) -> None:
    """How many configurations the plan meets to the byte."""
    print("Weights on every rank and KV cache, the plan against vLLM's own classes and planner:")
    print()
    models = exact_models.read()
    for version in exact_models.VERSIONS:
        print(f"- {exact_models.summary(models, version, short=short)}")
    small = exact_models.read(exact_models.SMALL_PLANS)
    print("- made-up configurations, one of each further architecture and way to quantise:")
    for version in exact_models.VERSIONS:
        print(f"  - {exact_models.summary(small, version, short=short)}")


def print_exact(scores: Sequence[Exact]) -> None:
    """The errors against vLLM's own arithmetic."""
    print(f"The tools against vLLM {peers.VERSION}'s: {len(scores)} configurations on one GPU, one")
    print("request of 32,768 tokens or the model's limit; errors as a share of what vLLM says.")
    cached = [s for s in scores if s.needed_bytes]
    print(f"Encoders keep no cache, so that {len(scores) - len(cached)} of them is left out of its columns.")
    print()
    print("| tool | KV cache: answers | equal | median | 90 % within | worst | weights: equal | worst |")
    print("|---|---|---|---|---|---|---|---|")
    for tool in scores[0].said:
        cache = [
            abs(said - s.needed_bytes) / s.needed_bytes
            for s in cached
            if (said := s.said[tool][1]) is not None
        ]
        weights = [
            abs(said - s.weights_bytes) / s.weights_bytes
            for s in scores
            if (said := s.said[tool][0]) is not None
        ]
        equal, worst = "its input", ""
        if weights:
            # A tool that counts in GiB may be a byte off for that alone.
            equal = f"{sum(w < ROUNDING for w in weights)} of {len(weights)}"
            worst = f"{max(weights):.2%}"
        print(
            f"| {tool} | {len(cache)} of {len(cached)} | {sum(c < ROUNDING for c in cache)} | "
            f"{statistics.median(cache):.2%} | {quantile(cache, 0.9):.1%} | {max(cache):.1%} | {equal} | {worst} |"
        )


ROUNDING = 1e-9


def print_tools(scores: Sequence[Score], versions: Mapping[str, str]) -> None:
    """What each tool claims, and on which starts it gave no answer."""
    print("| tool | what it says | what it has no input for | starts without an answer |")
    print("|---|---|---|---|")
    for tool, (claim, lacks) in CLAIMS.items():
        refused = Counter(s.predictions[tool].refused for s in scores if s.predictions[tool].refused)
        words = "; ".join(f"{n} × {str(reason)[:80]}" for reason, n in refused.most_common()) or "none"
        print(f"| {' '.join([tool, versions.get(tool, '')]).strip()} | {claim} | {lacks} | {words} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; exit 2 where there are no logs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--starts", type=Path, default=STARTS, help="the start-up logs (default: %(default)s)"
    )
    parser.add_argument("--rows", action="store_true", help="every start as well")
    parser.add_argument("--short", action="store_true", help="only the rows over all starts")
    parser.add_argument("--peers", action="store_true", help="ask the other tools now")
    options = parser.parse_args(arguments)
    try:
        rows, left_out = observations(options.starts)
    except FileNotFoundError:
        print(f"there are no logs at {options.starts}; name them with --starts", file=sys.stderr)
        return 2
    kept = json.loads(peers.PEERS.read_text(encoding="utf-8"))
    answers: dict[str, Any] = kept["answers"]
    if options.peers:
        try:
            answers = peers.run()
        except peers.PeersError as error:
            print(f"bench: {error}; their answers are those of the last run", file=sys.stderr)
    scores = [
        score(row, {t: peer_prediction(row, answers.get(row.id, {}).get(t)) for t in (HF_MEM, LLM_D)})
        for row in rows
    ]
    if options.rows:
        print_rows(scores)
    print_starts(scores, short=options.short)
    print()
    if options.starts == STARTS:
        held_out = [score(row) for row in observations(HELD_OUT)[0]]
        if options.rows:
            print_rows(held_out)
        print_held_out(held_out, short=options.short)
        print()
    print_equal(short=options.short)
    if options.short:
        return 0
    print()
    print_exact(exact_scores(answers))
    print()
    print_tools(scores, kept["versions"])
    print()
    print("Left out: " + "; ".join(f"{count} × {reason}" for reason, count in left_out.items()) + ".")
    print()
    for tool in scores[0].predictions:
        times = [t for s in scores if (t := s.predictions[tool].milliseconds) is not None]
        if times:
            print(f"Time of {tool}: median {statistics.median(times):.2f} ms.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

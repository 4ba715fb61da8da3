"""Plan public starts of vLLM with their whole command line, and print how near each plan comes, one line a start.

    python -m tools.field [ID …] [--option NAME] [--gpu WORD] [--model WORD] [--short]

Without a filter, tables by GPU, by option and by tool follow the lines. The starts are tests/data/field.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Drafter, Shape, Unsupported, read_shape
from kaito_catalog.architectures.drafts import read_draft
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.kaito import estimator
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.memory.environment import pairs
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.given_options import read_options
from kaito_catalog.quantity import GIB
from tools.bench_memory import KAITO, OURS, Prediction, pool_of_tokens, quantile, stored_bytes
from tools.configurations import unfolded

FIELD = Path(__file__).resolve().parents[1] / "tests" / "data" / "field.json"

SPLITS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "enable-expert-parallel")


@dataclass(frozen=True)
class FieldStart:
    """A start as somebody ran it, and what vLLM printed; None is "not printed", or "not stated"."""

    id: str
    source: str
    quality: str
    """A: all that memory depends on is stated; B: some is inferred or rounded; C: more than that, or a fork."""
    model: str
    shape: Shape | Unsupported
    vllm_version: str
    gpu: str | None
    compute_capability: float | None
    gpu_memory_bytes: int
    gpu_memory_used_bytes: int
    """By other processes."""
    is_unified: bool
    """Whether it is the machine's own memory."""
    memory_of_stages: tuple[int, ...]
    """Where the cards are unequal."""
    options: Mapping[str, Any]
    """As on the command line, without the dashes in front."""
    environment: Mapping[str, str]
    draft: Drafter | Unsupported | None
    """What the drafter of `speculative-config` is, where its configuration is known."""
    stored_bytes: int | None
    kv_cache_bytes: int | None
    kv_cache_tokens: int | None
    rounding_bytes: int
    """How far a rounded figure may be from what was printed."""
    fits: bool | None
    """Whether vLLM found room; None where it is not told."""
    inferred: tuple[str, ...]
    """Settings that the report does not state."""
    note: str | None

    @property
    def parallelism(self) -> Parallelism:
        """How the options split the model."""
        tensor, pipeline, data = (int(self.options.get(name, 1)) for name in SPLITS[:3])
        return Parallelism(tensor, pipeline, data, bool(self.options.get(SPLITS[3], False)))


@lru_cache(maxsize=1)
def field_starts() -> tuple[FieldStart, ...]:
    """The starts of tests/data/field.json."""
    value = json.loads(FIELD.read_text(encoding="utf-8"))
    return tuple(
        _start(row, value["models"][row["model"]], value["gpus"], value["drafts"]) for row in value["starts"]
    )


def _start(
    row: Mapping[str, Any], model: Mapping[str, Any], gpus: Mapping[str, Any], drafts: Mapping[str, Any]
) -> FieldStart:
    printed, gpu = row["printed"], row.get("gpu")

    def size(value: float | None) -> int | None:
        return None if value is None else int(value * GIB)

    return FieldStart(
        id=row["id"],
        source=row["source"],
        quality=row["quality"],
        model=row["model"],
        shape=read_shape(unfolded(model["config"]), quantization=model.get("quantization")),
        vllm_version=row["vllmVersion"],
        gpu=gpu,
        compute_capability=gpus[gpu]["computeCapability"] if gpu else None,
        gpu_memory_bytes=int(row["gpuMemoryGib"] * GIB),
        gpu_memory_used_bytes=int(row.get("gpuMemoryUsedGib", 0) * GIB),
        is_unified=bool(gpu and gpus[gpu].get("unified")),
        memory_of_stages=tuple(int(each * GIB) for each in row.get("gpuMemoryGibOfStages", ())),
        options=row["options"],
        environment=row.get("environment", {}),
        draft=read_draft(drafts[row["draft"]]["config"], row["options"]["speculative-config"]["method"])
        if "draft" in row
        else None,
        stored_bytes=size(row.get("storedGib")),
        kv_cache_bytes=size(printed.get("kvCacheGib")),
        kv_cache_tokens=printed.get("kvCacheTokens"),
        rounding_bytes=int(printed.get("kvCacheRounding", 0) * GIB),
        fits=row["fits"],
        inferred=tuple(row.get("inferred", ())),
        note=row.get("note"),
    )


def request_of(start: FieldStart) -> PlanRequest:
    """What is asked of a plan, with every option of the command line."""
    own = {name: value for name, value in start.options.items() if name not in (*SPLITS, "max-model-len")}
    given = read_options(Runtime.model_validate({"name": "vllm", "config": own}))
    limit = start.shape.max_model_len if isinstance(start.shape, Shape) else 1
    settings = Settings(
        start.options.get("max-model-len", limit),
        own["gpu-memory-utilization"],
        environment=pairs(start.environment),
        draft=start.draft,
        unplanned=given.unplanned,
    )
    size = start.stored_bytes
    return PlanRequest(
        start.shape,
        stored=None if size is None else StoredSize(sizeBytes=size, precisionBytes=GIB // 200),
        gpu=PlanGpu(
            start.gpu,
            start.gpu_memory_bytes,
            start.compute_capability,
            used_bytes=start.gpu_memory_used_bytes,
            is_unified=start.is_unified,
            memory_of_stages=start.memory_of_stages,
        ),
        parallelism=start.parallelism,
        settings=replace(settings, **{option.attribute: value for option, value in given.planned}),  # type: ignore[arg-type]
        vllm_version=start.vllm_version,
    )


@dataclass(frozen=True)
class FieldScore:
    """A start, and what each tool had predicted."""

    start: FieldStart
    plan: Plan | None
    predictions: Mapping[str, Prediction]

    @property
    def ours(self) -> Prediction:
        """The plan's."""
        return self.predictions[OURS]

    @property
    def printed_bytes(self) -> int | None:
        """What vLLM printed; of several stages, of the one with the smallest pool, which the tokens are of."""
        start, plan = self.start, self.plan
        if start.parallelism.pipeline_parallel_size > 1 and start.kv_cache_tokens and plan and plan.kv_cache:
            return pool_of_tokens(plan, start.kv_cache_tokens)
        return start.kv_cache_bytes

    def error_bytes(self, tool: str = OURS) -> float | None:
        """KV memory predicted less printed; positive: memory promised that was not there."""
        said, printed = self.predictions[tool].kv_cache_bytes, self.printed_bytes
        if said is None or printed is None:
            return None
        # A tool that stops at nothing has said as much as it can of a GPU that is too small.
        off = said - (max(0, printed) if said == 0 else printed)
        beyond = max(0.0, abs(off) - self.start.rounding_bytes)
        return beyond if off > 0 else -beyond

    def error(self, tool: str = OURS) -> float | None:
        """The same as a share of the GPU's memory."""
        off = self.error_bytes(tool)
        return None if off is None else off / self.start.gpu_memory_bytes

    def is_wrong(self, tool: str = OURS) -> bool:
        """A verdict that the start refuted."""
        said = self.predictions[tool].fits
        return said is not None and self.start.fits is not None and said is not self.start.fits

    @property
    def is_within(self) -> bool | None:
        """Whether the error is within what the plan states; None where there is no error."""
        off = self.error_bytes()
        if off is None or self.plan is None:
            return None
        return abs(off) <= (self.plan.expected_error_bytes or 0)


def score(start: FieldStart, others: Mapping[str, Prediction] | None = None) -> FieldScore:
    """What the tools predict for a start."""
    plan = make_plan(request_of(start))
    said = {Fit.YES: True, Fit.NO: False}.get(plan.fits)
    if plan.fits is Fit.UNKNOWN:
        ours = Prediction(None, None, refused=plan.reason)
    else:
        account = plan.per_gpu
        available = None if account is None else float(account.kv_cache_available_bytes)
        ours = Prediction(available, said)
    return FieldScore(start, plan, {OURS: ours, KAITO: _kaitos(start), **(others or {})})


def _kaitos(start: FieldStart) -> Prediction:
    """The formula of KAITO v0.12 with the utilization of the start."""
    if isinstance(start.shape, Unsupported):
        return Prediction(None, None, refused=start.shape.reason)
    size = start.stored_bytes or stored_bytes(start.model, start.shape)
    if size is None:
        return Prediction(None, None, refused="the size of the weights is not known")
    gpus = start.parallelism.tensor_parallel_size * start.parallelism.pipeline_parallel_size
    available = estimator.predicted_kv_cache_bytes(
        recorded_release("v0.12").sizing,
        gpu_memory_bytes=start.gpu_memory_bytes,
        gpu_memory_utilization=start.options["gpu-memory-utilization"],
        model_file_bytes=size,
        gpus=gpus,
    )
    length = start.options.get("max-model-len", start.shape.max_model_len)
    needed = length * estimator.kv_cache_bytes_per_token(start.shape) / gpus
    return Prediction(available, available >= needed)


# --- one line a start -------------------------------------------------------------------------------------------


def line(found: FieldScore) -> str:
    """The start, what was said of it and what was printed."""
    start, plan = found.start, found.plan
    split = start.parallelism
    count = split.world_size
    where = f"{count} × {start.gpu or 'a GPU'} ({start.gpu_memory_bytes / GIB:.1f} GiB)"
    head = f"{start.id:7s} {start.quality} {start.model}, vLLM {start.vllm_version}, {where}"
    if found.ours.refused is not None or plan is None:
        return f"{head}: UNKNOWN, {found.ours.refused}{_inferred(start)}"
    started = {True: "started", False: "did not start", None: "not told whether it started"}[start.fits]
    verdict = f"{plan.fits.value}, {started}{': WRONG' if found.is_wrong() else ''}"
    if plan.per_gpu is None:
        return f"{head}: {verdict}; {plan.reason}{_inferred(start)}"
    said = f"KV {plan.per_gpu.kv_cache_available_bytes / GIB:.2f} GiB planned"
    off, printed = found.error_bytes(), found.printed_bytes
    if off is None or printed is None:
        return f"{head}: {verdict}; {said}, none printed{_inferred(start)}"
    stated = (plan.expected_error_bytes or 0) / GIB
    within = f"within ±{stated:.2f}" if found.is_within else f"OUTSIDE ±{stated:.2f}"
    return (
        f"{head}: {verdict}; {said}, {printed / GIB:.2f} printed, {off / GIB:+.2f} GiB "
        f"({off / start.gpu_memory_bytes:+.2%}), {within}{_inferred(start)}"
    )


def _inferred(start: FieldStart) -> str:
    return f" [inferred: {', '.join(start.inferred)}]" if start.inferred else ""


# --- tables -----------------------------------------------------------------------------------------------------

HEAD = "| {} | starts | answered | wrong verdicts | KV memory: starts | median | 90 % within | worst | within stated |"


def row(name: str, scores: Sequence[FieldScore], tool: str = OURS) -> str:
    """A row of a table."""
    answered = [s for s in scores if s.predictions[tool].refused is None]
    errors = [abs(e) for s in scores if (e := s.error(tool)) is not None]
    sizes = "– | – | –"
    if errors:
        sizes = f"{statistics.median(errors):.2%} | {quantile(errors, 0.9):.2%} | {max(errors):.2%}"
    stated = [w for s in scores if (w := s.is_within) is not None] if tool == OURS else []
    within = f"{sum(stated)} of {len(stated)}" if stated else "–"
    wrong = sum(s.is_wrong(tool) for s in scores)
    return f"| {name} | {len(scores)} | {len(answered)} | {wrong} | {len(errors)} | {sizes} | {within} |"


def table(title: str, classes: Mapping[str, Sequence[FieldScore]], tool: str = OURS) -> list[str]:
    """A table with a row for each class of starts, as lines of Markdown."""
    rows = [row(name, chosen, tool) for name, chosen in classes.items()]
    return [HEAD.format(title), "|---" * 9 + "|", *rows, ""]


def by(
    scores: Sequence[FieldScore], keys: Callable[[FieldStart], Sequence[str]]
) -> dict[str, list[FieldScore]]:
    """Classes of starts, the largest first; a start may be in several."""
    found: dict[str, list[FieldScore]] = {}
    for one in scores:
        for key in keys(one.start):
            found.setdefault(key, []).append(one)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


PLAIN = frozenset({*SPLITS, "max-model-len", "gpu-memory-utilization", "trust-remote-code"})


def options_of(start: FieldStart) -> tuple[str, ...]:
    """What is set beside the sizes that every start has."""
    names = (*(name for name in start.options if name not in PLAIN), *start.environment)
    return names or ("none of these",)


def tables(scores: Sequence[FieldScore], *, short: bool) -> list[str]:
    """By tool; unless `short`, by GPU, option and quality of the report as well, and what was not answered."""
    lines = [HEAD.format("in the field"), "|---" * 9 + "|"]
    lines += [row(tool, scores, tool) for tool in scores[0].predictions]
    lines.append("")
    if short:
        return lines
    lines += table("quality", dict(sorted(by(scores, lambda s: (s.quality,)).items())))
    lines += table("GPU", by(scores, lambda s: (_gpu_class(s),)))
    lines += table("option", by(scores, options_of))
    reasons = Counter(s.ours.refused.removeprefix("unknown: ") for s in scores if s.ours.refused)
    lines.append(
        "Not answered: " + "; ".join(f"{count} × {why}" for why, count in reasons.most_common()) + "."
    )
    return lines


@lru_cache(maxsize=1)
def scores_of_all() -> tuple[FieldScore, ...]:
    """Every start, scored."""
    return tuple(score(start) for start in field_starts())


def _gpu_class(start: FieldStart) -> str:
    name = (start.gpu or "not named").removeprefix("NVIDIA ")
    return name if start.parallelism.world_size == 1 else f"{name}, several"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the lines and, where nothing is filtered, the tables; exit 2 where no start is meant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these starts, such as rep014")
    parser.add_argument("--option", help="only starts with this option, such as speculative-config")
    parser.add_argument("--gpu", help="only starts on GPUs with this word in their name")
    parser.add_argument("--model", help="only models with this word in their name")
    parser.add_argument("--short", action="store_true", help="no lines, and only the table by tool")
    chosen = parser.parse_args(arguments)
    starts = [
        s
        for s in field_starts()
        if (not chosen.ids or s.id in chosen.ids)
        and (chosen.option is None or chosen.option in options_of(s))
        and (chosen.gpu is None or chosen.gpu.lower() in (s.gpu or "").lower())
        and (chosen.model is None or chosen.model.lower() in s.model.lower())
    ]
    if not starts:
        print("field: no such start", file=sys.stderr)
        return 2
    scores = [score(start) for start in starts]
    if not chosen.short:
        for found in scores:
            print(line(found))
        print()
    if len(starts) > 1:
        print("\n".join(tables(scores, short=chosen.short or len(starts) < len(field_starts()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

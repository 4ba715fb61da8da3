"""A memory plan for a person: the account of one GPU with bars, or one line an instance type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kaito_catalog.memory.compilation import Compilation, compilation_of
from kaito_catalog.memory.legal_splits import tensor_parallel_sizes
from kaito_catalog.memory.plan import resolved_settings
from kaito_catalog.memory.values import Fit, Plan, Settings
from kaito_catalog.plans import recommend
from kaito_catalog.plans.instance_types import InstanceTypePlan
from kaito_catalog.plans.request import PlanSubject, smallest
from kaito_catalog.plans.speculation import cost_of_speculation
from kaito_catalog.plans.started import Started
from kaito_catalog.quantity import gib
from kaito_catalog.reports.style import BOLD, DIM, GREEN, RED, YELLOW, fitted, paint, printable
from kaito_catalog.reports.summary import plural
from kaito_catalog.vllm_bridge.reference import planned_as

VERDICTS = {
    Fit.YES: ("fits", GREEN),
    Fit.TIGHT: ("may not fit", YELLOW),
    Fit.NO: ("does not fit", RED),
    Fit.UNKNOWN: ("unknown", YELLOW),
}
TERMS = {
    "weights": "weights",
    "kvCache": "KV cache",
    "overheads": "overheads (CUDA, NCCL, activations, graphs)",
    "maxModelLen": "the model's own context limit",
    "parallelism": "how the model can be split",
    "speculation": "what guesses tokens ahead",
    "maxNumSeqs": "max_num_seqs against the Mamba blocks",
    "disableHybridKvCacheManager": "the hybrid KV cache manager is off",
    "freeMemory": "what is free of the GPU's memory when vLLM starts",
    "nodes": "KAITO's formula for the number of nodes",
    "settings": "options that vLLM does not take, or that are not planned",
    "gpu": "the kind of GPU: vLLM cannot run the model on it",
    "quantization": "how the weights are stored",
}
_ORIGINS = {
    "facts": "from the recorded size of the weight files",
    "configuration": "computed from the configuration, as vLLM's own code does",
    "exact": "from vLLM's own code",
    "measured": "calibrated on published starts of vLLM",
}
_FIGURES = {
    "budgetBytes": "budget",
    "weightsBytes": "weights",
    "kvCacheNeededBytes": "KV cache of a request",
    "nonTorchBytes": "non-torch",
    "activationPeakBytes": "activation peak",
    "cudaGraphBytes": "CUDA graphs",
    "kvCacheAvailableBytes": "what is left for KV cache",
}
"""The figures of the account, as it names them."""
_BAR = 40
_BEFORE_BAR = 41
_HEAD = (
    "INSTANCE TYPE",
    "GPUS",
    "VERDICT",
    "USED",
    "ENOUGH",
    "NEEDS/GPU",
    "BUDGET/GPU",
    "LONGEST CONTEXT",
    "PRICE/H",
)
_LEFT = 3
"""Columns of words; the others hold numbers."""


def _verdict(fit: Fit, *, color: bool) -> str:
    words, code = VERDICTS[fit]
    return paint(words, code, BOLD, color=color)


def _planned_as(vllm_version: str) -> tuple[str, ...]:
    stand_in = planned_as(vllm_version)
    return (f"  {printable(stand_in.words)}",) if stand_in else ()


def plan_text(
    subject: PlanSubject, plan: Plan, started: Started, *, color: bool = False, width: int | None = None
) -> str:
    """One plan in detail, in the columns of a terminal where there is one."""
    gpu = plan.gpu.name or (f"GPU of {gib(plan.gpu.memory_bytes)}" if plan.gpu.memory_bytes else "GPU")
    count = plan.parallelism.world_size
    lines = [
        f"{paint(subject.name, BOLD, color=color)} on {count} × {gpu}: {_verdict(plan.fits, color=color)}",
        f"  {for_whom(subject, started)}",
        f"  {plan.settings.max_model_len:,} tokens ({subject.max_model_len_reason}), {_parallelism(plan)}",
        f"  gpu_memory_utilization {plan.settings.gpu_memory_utilization:g}, vLLM {plan.vllm_version}"
        + _batching(plan),
        *_options(subject, plan.settings),
        *_planned_as(plan.vllm_version),
        *_host_memory(started),
        *(f"  {printable(note)}" for note in started.notes),
    ]
    if plan.reason:
        lines.append(f"  {printable(plan.reason)}")
    if plan.limited_by:
        lines.append(f"  limited by: {TERMS.get(plan.limited_by, plan.limited_by)}")
    lines.extend(_legal_sizes(subject, plan))
    lines.extend(_account(plan, width))
    if plan.kv_cache is not None and plan.fits is not Fit.UNKNOWN:
        cache = plan.kv_cache
        lines += [
            "",
            f"  longest context that fits   {cache.longest_model_len:>12,} tokens",
            *_beyond(started),
        ]
        if cache.groups:
            lines.append(f"  requests of that length at once {cache.max_concurrency:>8.1f}")
        else:
            lines.append("  it keeps no KV cache, so that only max_num_seqs limits the requests at once")
    lines += _cost_of_speculation(subject, plan)
    if plan.expected_error_bytes is not None:
        lines.append(f"  expected error              {'± ' + gib(plan.expected_error_bytes):>12}")
    if plan.sources:
        lines.append("")
        lines.extend(paint(f"  {line}", DIM, color=color) for line in _sources(plan.sources))
    lines.extend(
        paint(f"  {printable(line)}", DIM, color=color) for line in _without_effect(subject, started)
    )
    return fitted("\n".join(lines) + "\n", width)


def _cost_of_speculation(subject: PlanSubject, plan: Plan) -> list[str]:
    """What guessing tokens takes, beside a plan without it."""
    cost = cost_of_speculation(subject.shape, subject.stored, plan)
    if cost is None:
        return []
    return [
        f"  guessing tokens ahead takes {gib(cost.weights_bytes)} of weights, {gib(cost.cache_bytes)} more cache a "
        f"request, and leaves {gib(cost.available_bytes)} less for KV cache; without it {cost.longest_without:,} "
        "tokens would fit"
    ]


def _account(plan: Plan, width: int | None) -> list[str]:
    """What the tightest GPU holds, term by term."""
    figures = plan.per_gpu
    if figures is None:
        return []
    top = max(figures.budget_bytes, 1)
    lines = ["", f"  per GPU, of {gib(plan.gpu.memory_bytes or 0)} that the driver reports"]
    for label, size in (
        ("weights", figures.weights_bytes),
        ("non-torch (CUDA, NCCL)", figures.non_torch_bytes),
        ("activation peak", figures.activation_peak_bytes),
        ("CUDA graphs", figures.cuda_graph_bytes),
        ("KV cache, one request", figures.kv_cache_needed_bytes),
    ):
        beside = _bar(size, top, width)
        if label == "CUDA graphs" and not size:
            beside = _no_graphs(plan)
        lines.append(f"    {label:<24}{gib(size):>11}  {beside}".rstrip())
    used = (
        figures.weights_bytes
        + figures.non_torch_bytes
        + figures.activation_peak_bytes
        + figures.cuda_graph_bytes
        + figures.kv_cache_needed_bytes
    )
    lines.append(f"    {'needed':<24}{gib(used):>11}")
    lines.append(
        f"    {'budget':<24}{gib(figures.budget_bytes):>11}  {_bar(figures.budget_bytes, top, width)}"
    )
    lines.append(f"    {'left for KV cache':<24}{gib(max(figures.kv_cache_available_bytes, 0)):>11}")
    return lines


def for_whom(subject: PlanSubject, started: Started) -> str:
    """Whose start is planned."""
    if subject.start.is_whole:
        return "as the command line starts it; what it leaves open is vLLM's own default"
    if started.launch is None:
        return "as plain vllm serve"
    config = "the generated manifests" if subject.is_of_catalog else "a ConfigMap of what is asked for"
    return f"as KAITO {started.launch.release} starts it, with {config} (--command shows the line)"


def _beyond(started: Started) -> list[str]:
    """What happens beyond the longest context, where it is not the memory that ends."""
    holds = started.memory_holds
    if holds is None or started.launch is None:
        return []
    return [
        f"    beyond, KAITO {started.launch.release} starts another node; the memory would hold {holds:,}"
    ]


def _host_memory(started: Started) -> list[str]:
    """What LMCache takes of the node's own memory."""
    if not started.host_memory_share:
        return []
    share = f"{started.host_memory_share:.0%}"
    if started.host_memory_bytes is None:
        return [f"  LMCache takes {share} of the node's free memory: how much it has is not known"]
    node = round(started.host_memory_bytes / started.host_memory_share)
    return [
        f"  LMCache takes up to {gib(started.host_memory_bytes)} of the node's memory, {share} of {gib(node)}"
    ]


def _without_effect(subject: PlanSubject, started: Started) -> list[str]:
    """The options that somebody set and on which memory does not depend, by the reason."""
    reasons: dict[str, list[str]] = {}
    for found in started.without_effect:
        if found.name in subject.start.config:  # KAITO and its manifests set the others
            reasons.setdefault(found.reason, []).append(found.name)
    lines = [f"  {', '.join(names)}: {reason}" for reason, names in sorted(reasons.items())]
    return ["no effect on memory:", *lines] if lines else []


def _no_graphs(plan: Plan) -> str:
    """Why nothing is set aside for CUDA graphs."""
    if plan.settings.enforce_eager:
        return "none, with enforce_eager"
    compilation = compilation_of(plan.settings)
    if isinstance(compilation, Compilation) and not compilation.captures:
        return "none, as the options say"
    return "captured later, from what is left"


def _sources(sources: Mapping[str, str]) -> list[str]:
    """Where the figures come from, a line for each origin."""
    return [
        f"{words}: {', '.join(figures)}"
        for origin, words in _ORIGINS.items()
        if (figures := [name for key, name in _FIGURES.items() if sources.get(key) == origin])
    ]


def _parallelism(plan: Plan) -> str:
    sizes = plan.parallelism
    words = [f"tensor_parallel_size {sizes.tensor_parallel_size}"]
    if sizes.pipeline_parallel_size > 1:
        words.append(f"pipeline_parallel_size {sizes.pipeline_parallel_size}")
    if sizes.data_parallel_size > 1:
        words.append(f"data_parallel_size {sizes.data_parallel_size}")
    if sizes.enable_expert_parallel:
        words.append("expert parallel")
    return ", ".join(words)


_USUAL_SIZES = (2, 4, 8, 16)
_FOR_ONE_SIZE = re.compile(r" (by [0-9]+|on [0-9]+ GPUs)(?![0-9])")


def _legal_sizes(subject: PlanSubject, plan: Plan) -> list[str]:
    """Over how many GPUs vLLM divides the model, and why not over the usual ones that are missing."""
    sizes = tensor_parallel_sizes(
        subject.shape,
        enable_expert_parallel=plan.parallelism.enable_expert_parallel,
        vllm_version=plan.vllm_version,
    )
    legal = [str(size) for size, reason in sizes.items() if reason is None]
    if not legal:
        return []
    refused: dict[str, list[str]] = {}
    for size in _USUAL_SIZES:
        if (reason := sizes[size]) is not None:
            general = _FOR_ONE_SIZE.sub("", reason)
            refused.setdefault(general, []).append(str(size))
    lines = [f"  legal tensor_parallel_size: {', '.join(legal)}"]
    return lines + [f"    not {', '.join(several)}: {printable(why)}" for why, several in refused.items()]


def _options(subject: PlanSubject, used: Settings) -> list[str]:
    """The options that the plan takes from the proposal and its manifests; one that was asked for is neither."""
    taken = subject.options.used_by(used)
    own = [word for word in taken.words() if word in subject.own_options.words()]
    added = [word for word in taken.words() if word not in own]
    return [
        *([f"  the proposal's options: {', '.join(own)}"] if own else []),
        *([f"  set by the manifests, as the states of a hybrid need: {', '.join(added)}"] if added else []),
    ]


def _batching(plan: Plan) -> str:
    if plan.gpu.memory_bytes is None:
        return ""
    settings = resolved_settings(plan.settings, plan.gpu, plan.vllm_version)
    text_only = ", language_model_only" if settings.language_model_only else ""
    return (
        f", max_num_batched_tokens {settings.max_num_batched_tokens:,}, "
        f"max_num_seqs {settings.max_num_seqs:,}{text_only}"
    )


_EIGHTHS = " ▏▎▍▌▋▊▉"


def _bar(size: int, top: int, width: int | None) -> str:
    full = _BAR if width is None else max(min(width - _BEFORE_BAR, 100), 10)
    eighths = round(full * 8 * size / top)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


_WHATEVER_GPU = frozenset({"architecture", "settings", "quantization"})
"""What makes a plan unknown, or a start impossible, on one GPU as on another: its reason is said in full."""


def instance_types_text(
    subject: PlanSubject,
    rows: Sequence[InstanceTypePlan],
    *,
    among: str = "",
    color: bool = False,
    width: int | None = None,
) -> str:
    """The instance types, those that fit first; the ones that do not are counted by their reason.

    `among` says which instance types these are.
    """
    lines = [
        f"{paint(subject.name, BOLD, color=color)} at {subject.max_model_len:,} tokens"
        f" ({subject.max_model_len_reason}), vLLM {rows[0].plan.vllm_version if rows else '?'}",
        *([f"  {for_whom(subject, rows[0].started)}"] if rows else []),
        *(_options(subject, rows[0].plan.settings) if rows else ()),
        *(_planned_as(rows[0].plan.vllm_version) if rows else ()),
        *([f"  {among}"] if among else []),
        "",
    ]
    best = smallest(tuple(rows))
    serving = [row for row in rows if row.plan.fits in (Fit.YES, Fit.TIGHT)]
    fitting = [row for row in serving if row.nodes == 1]
    if fitting:
        chosen = best.instance_type.name if best else None
        cells = [_row(row) for row in fitting]
        drawn = (
            _unbroken_table(cells, chosen, color=color)
            if width is None
            else _table_of_terminal(cells, chosen, color=color, width=width)
        )
        lines += [
            *drawn,
            "",
            "USED: GPUs over which the model can be split; ENOUGH: the fewest that serve this context",
            *price_lines(fitting),
        ]
        if any(row.plan.fits is Fit.TIGHT for row in fitting):
            lines.append("maybe: it fits, or does not, by less than the plan may be off")
    elif any(row.plan.fits is Fit.UNKNOWN and row.plan.limited_by in _WHATEVER_GPU for row in rows):
        lines.append("unknown whether any instance type fits it")
    else:
        lines.append("no known instance type fits it on one node")
    lines += _on_several_nodes(rows)
    lines += _not_fitting([row for row in rows if row not in serving])
    advice = recommend.text(recommend.recommend(rows, max_model_len=subject.max_model_len))
    if advice:
        lines += ["", advice.rstrip("\n")]
    text = fitted("\n".join(lines) + "\n", width)
    if best is not None:  # not broken, so that it can be copied
        text += f"\nnext: kaito-catalog plan {subject.name} --instance-type {best.instance_type.name}\n"
    return text


def _not_fitting(rows: Sequence[InstanceTypePlan]) -> list[str]:
    """The instance types that do not fit, counted by their reason."""
    groups: dict[tuple[Fit, str], list[str]] = {}
    for row in rows:
        reason = row.plan.reason or TERMS.get(row.plan.limited_by or "", row.plan.limited_by or "")
        limit = row.plan.limited_by
        if row.plan.fits is Fit.NO and limit and limit not in _WHATEVER_GPU:
            reason = TERMS.get(limit, limit)
        groups.setdefault((row.plan.fits, reason), []).append(row.instance_type.name)
    lines = [""] if groups else []
    for (fit, reason), names in sorted(groups.items(), key=lambda item: (item[0][0].value, item[0][1])):
        words = VERDICTS[fit][0]
        which = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"{words} ({printable(reason)}): {plural(len(names), 'instance type')}: {which}")
    return lines


def price_lines(rows: Sequence[InstanceTypePlan]) -> list[str]:
    """What the column of prices holds."""
    prices = [row.price for row in rows if row.price is not None]
    if not prices:
        return ["PRICE/H: no price is recorded for any of these; catalog/prices.yaml has them"]
    currency = "/".join(sorted({price.currency for price in prices}))
    where = sorted({price.region for price in prices if price.region})
    own = [row.instance_type.name for row in rows if row.price is not None and row.price.region is None]
    words = []
    if where:
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        since = min(price.date for price in prices if price.date)
        words.append(f"on demand in {shown}, listed on {since} or later")
    if own:
        words.append(f"your own for {', '.join(own)}")
    return [f"PRICE/H: {currency} {'; '.join(words)}; -: no recorded price"]


def _on_several_nodes(rows: Sequence[InstanceTypePlan]) -> list[str]:
    """What serves the model on more than one node, least GPU memory first."""
    several = [
        (row.nodes_needed, row) for row in rows if row.nodes_needed is not None and row.nodes_needed > 1
    ]
    several.sort(
        key=lambda pair: pair[0] * (pair[1].plan.gpu.memory_bytes or 0) * pair[1].instance_type.gpu_count
    )
    if not several:
        return []
    shown = ", ".join(f"{nodes} × {row.instance_type.name}" for nodes, row in several[:4])
    more = f" and {len(several) - 4} more" if len(several) > 4 else ""
    return ["", f"on several nodes (Ray, one pipeline stage each): {shown}{more}"]


def _unbroken_table(cells: Sequence[tuple[str, ...]], chosen: str | None, *, color: bool) -> list[str]:
    """For a file or a pipe: as wide as it gets."""
    table = [_HEAD, *cells]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD))]
    lines = []
    for number, row in enumerate(table):
        text = "  ".join(
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        style = [DIM] if number == 0 else [GREEN] if row[0] == chosen else []
        lines.append(paint(text, *style, color=color))
    return lines


def _table_of_terminal(
    cells: Sequence[tuple[str, ...]], chosen: str | None, *, color: bool, width: int
) -> list[str]:
    """Where the terminal is too narrow, headings stand on two lines; then the GPUs go below the instance type."""
    from kaito_catalog.reports.terminal import Column, TableLayout, table

    def columns(headings: Sequence[str], left: int) -> list[Column]:
        return [Column(head, "left" if number < left else "right") for number, head in enumerate(headings)]

    stacked = [heading.replace("/", "\n/").replace("LONGEST ", "LONGEST\n") for heading in _HEAD]
    layouts = (
        TableLayout(columns(_HEAD, _LEFT), cells, gap=2),
        TableLayout(columns(stacked, _LEFT), cells, gap=1),
        TableLayout(
            columns((f"{_HEAD[0]}\n  {_HEAD[1]}", *stacked[2:-2], "CONTEXT\nPRICE/H"), _LEFT - 1),
            [
                (f"{name}\n  {gpus}", *others, f"{longest}\n{price}")
                for name, gpus, *others, longest, price in cells
            ],
            gap=1,
        ),
    )
    styles = ["green" if row[0] == chosen else "" for row in cells]
    return table(layouts, styles, width=width, color=color)


def _row(row: InstanceTypePlan) -> tuple[str, ...]:
    figures, cache = row.plan.per_gpu, row.plan.kv_cache
    assert figures is not None
    assert cache is not None
    needed = figures.budget_bytes - figures.kv_cache_available_bytes + figures.kv_cache_needed_bytes
    return (
        row.instance_type.name,
        f"{row.instance_type.gpu_count} × {row.plan.gpu.name}",
        "maybe" if row.plan.fits is Fit.TIGHT else VERDICTS[row.plan.fits][0],
        str(row.plan.parallelism.world_size),
        str(row.gpus_needed or ""),
        gib(needed),
        gib(figures.budget_bytes),
        f"{cache.longest_model_len:,}",
        "-" if row.price_an_hour is None else f"{row.price_an_hour:.2f}",
    )

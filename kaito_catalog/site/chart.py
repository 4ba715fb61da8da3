"""The memory chart of a model page: stacked weights, overheads and KV cache against context length."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from kaito_catalog.quantity import GIB, gib
from kaito_catalog.site.figures import ChartPoint, MemoryChart
from kaito_catalog.site.text import escape

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 32, 44


def svg(chart: MemoryChart) -> Markup:
    """The chart as one inline `<svg>`; colours come from the page's style sheet."""
    base = chart.weights_bytes + chart.overheads_bytes
    limit = max((p.max_model_len for p in chart.points), default=0) or 1
    top = _nice_ceiling(max(chart.budget_bytes, *(base + p.kv_cache_bytes for p in chart.points)) * 1.04)

    def x(tokens: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * tokens / limit

    def y(size: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * size / top

    def band(lower: Iterable[tuple[float, float]], upper: Iterable[tuple[float, float]], kind: str) -> str:
        corners = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in (*upper, *reversed(tuple(lower))))
        return f'<polygon class="kc-{kind}" points="{corners}"/>'

    ends = (0, limit)
    totals = [(p.max_model_len, base + p.kv_cache_bytes) for p in chart.points]
    parts = [
        band([(t, 0) for t in ends], [(t, chart.weights_bytes) for t in ends], "weights"),
        band([(t, chart.weights_bytes) for t in ends], [(t, base) for t in ends], "overheads"),
        band([(t, base) for t, _ in totals], totals, "kv"),
    ]
    step = top / 4
    for i in range(5):
        at = y(i * step)
        parts.append(
            f'<line class="kc-grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{i * step / GIB:.4g}</text>'
        )
    for tokens in _ticks(limit):
        anchor = "end" if tokens == limit else "middle"
        at = x(tokens)
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">{short(tokens)}</text>'
        )
    parts.append('<text x="0" y="16">GiB per GPU</text>')
    parts.append(
        f'<text class="kc-axis" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">context length in tokens</text>'
    )
    line = y(chart.budget_bytes)
    parts.append(
        f'<line class="kc-budget" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{line:.1f}" y2="{line:.1f}"/>'
        f'<text class="kc-strong" x="{_LEFT + 6}" y="{line - 6:.1f}">'
        f"vLLM may use {gib(chart.budget_bytes)}</text>"
    )
    if 0 < chart.longest_model_len < limit:
        at = x(chart.longest_model_len)
        parts.append(
            f'<line class="kc-longest" x1="{at:.1f}" x2="{at:.1f}" y1="24" y2="{HEIGHT - _BOTTOM}"/>'
            f'<text class="kc-strong" x="{min(max(at, 330), WIDTH - 160):.1f}" y="16" text-anchor="middle">'
            f"{_up_to(chart)}</text>"
        )
    title = f"Memory of each GPU against context length, {chart.instance_type}"
    return Markup(  # noqa: S704 - numbers and our own words; what is not ours is escaped
        f'<svg class="memory-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="memory-chart-title memory-chart-text">'
        f'<title id="memory-chart-title">{escape(title)}</title>'
        f'<desc id="memory-chart-text">{escape(description(chart))}</desc>{"".join(parts)}</svg>'
    )


def _up_to(chart: MemoryChart) -> str:
    if chart.memory_holds is None:
        return f"fits up to {chart.longest_model_len:,} tokens"
    return f"one node up to {chart.longest_model_len:,} tokens"


def description(chart: MemoryChart) -> str:
    """The chart in a sentence."""
    last = max(chart.points, key=lambda p: p.max_model_len, default=ChartPoint(0, 0))
    longest = f"so the longest context that fits is {chart.longest_model_len:,} tokens."
    if chart.memory_holds is not None:
        longest = (
            f"which would hold {chart.memory_holds:,} tokens; beyond {chart.longest_model_len:,} KAITO starts another "
            "node."
        )
    return (
        f"On each of {chart.gpu_count} GPUs ({chart.gpu}, {chart.parallelism}) the weights take "
        f"{gib(chart.weights_bytes)} and the overheads {gib(chart.overheads_bytes)}; the KV cache of one "
        f"request grows to {gib(last.kv_cache_bytes)} at {last.max_model_len:,} tokens. vLLM may use "
        f"{gib(chart.budget_bytes)}, {longest}"
    )


def table(chart: MemoryChart) -> tuple[tuple[int, int, int, bool], ...]:
    """The chart as rows: context length, KV cache and total in bytes per GPU, whether the total fits."""
    base = chart.weights_bytes + chart.overheads_bytes
    chosen = chart.points[:: max(1, len(chart.points) // 8)]
    if chart.points and chosen[-1] != chart.points[-1]:
        chosen = (*chosen, chart.points[-1])
    return tuple(
        (
            p.max_model_len,
            p.kv_cache_bytes,
            base + p.kv_cache_bytes,
            base + p.kv_cache_bytes <= chart.budget_bytes,
        )
        for p in chosen
        if p.max_model_len
    )


def short(tokens: int) -> str:
    """`131072` as `128k`; other figures in full."""
    return f"{tokens // 1024:,}k" if tokens and tokens % 1024 == 0 else f"{tokens:,}"


def _ticks(limit: int) -> tuple[int, ...]:
    if limit % 4096 == 0:
        return tuple(limit * i // 4 for i in range(5))
    return (0, limit)


def _nice_ceiling(size: float) -> float:
    """The next round number of GiB whose quarter is round as well."""
    value = size / GIB
    scale = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    factor = next(
        (f for f in (1, 1.2, 1.4, 1.6, 2, 2.4, 2.8, 3.2, 4, 4.8, 6, 8, 10) if f * scale >= value), 10
    )
    return factor * scale * GIB

"""The plan of a campaign: what would be run, for a person and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kaito_catalog.dry_runs.campaign import Campaign, Run, State


def to_json(campaign: Campaign, budget: float | None) -> dict[str, Any]:
    """A campaign as plain values: the contract of `dry-run --plan --format json`."""
    inside, outside = campaign.within(budget)
    return {
        "version": 1,
        "runs": [_value(run) for run in inside],
        "beyondBudget": [_value(run) for run in outside],
        "current": [_value(run) for run in campaign.runs if run.state is State.CURRENT],
        "leftOut": [{"model": model, "reason": reason} for model, reason in campaign.left_out],
        "mostGPUHours": round(sum(run.most_gpu_hours for run in inside), 3),
        "instanceTypes": needed_nodes(inside),
    }


def _value(run: Run) -> dict[str, Any]:
    return {
        "key": run.key,
        "model": run.model,
        "state": run.state.value,
        "reason": run.reason,
        "device": run.device,
        "instanceType": run.instance_type,
        "gpu": run.gpu,
        "gpusPerNode": run.gpus_per_node,
        "nodes": run.nodes,
        "tensorParallelSize": run.parallelism.tensor_parallel_size,
        "pipelineParallelSize": run.parallelism.pipeline_parallel_size,
        "mostGPUHours": round(run.most_gpu_hours, 3),
    }


def needed_nodes(runs: Iterable[Run]) -> dict[str, int]:
    """By instance type, the most nodes of it that one of the runs needs."""
    needed: dict[str, int] = {}
    for run in runs:
        if run.instance_type:
            needed[run.instance_type] = max(needed.get(run.instance_type, 0), run.nodes)
    return dict(sorted(needed.items()))


def plan_text(campaign: Campaign, budget: float | None) -> str:
    """What would be run, for a person; cheap ones first."""
    inside, outside = campaign.within(budget)
    current = [run for run in campaign.runs if run.state is State.CURRENT]
    rows = [
        (
            run.model,
            run.state.value,
            run.instance_type or run.device.upper(),
            f"{run.nodes} × {run.gpus_per_node}" if run.gpu else "",
            f"{run.most_gpu_hours:.2f}" if run.gpu else "",
            run.reason if run.state is State.STALE else "",
        )
        for run in inside
    ]
    head = ("model", "evidence", "instance type", "nodes × GPUs", "GPU-hours", "")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    hours = sum(run.most_gpu_hours for run in inside)
    summary = f"{len(inside)} to run, at most {hours:.2f} GPU-hours; {len(current)} have current evidence"
    if outside:
        beyond = sum(run.most_gpu_hours for run in outside)
        summary += f"; {len(outside)} beyond the budget ({beyond:.2f} GPU-hours)"
    for name, nodes in needed_nodes(inside).items():
        count = sum(run.instance_type == name for run in inside)
        several = f", {nodes} nodes at once" if nodes > 1 else ""
        summary += f"\n  {name}: {count} run{'s' if count != 1 else ''}{several}"
    for model, reason in campaign.left_out:
        summary += f"\n  left out: {model}: {reason}"
    return ("\n".join(lines) + "\n\n" if rows else "") + summary + "\n"

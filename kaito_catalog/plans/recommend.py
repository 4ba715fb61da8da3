"""Which instance type to take for a model and a context: the smallest that fits, and the smallest with headroom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.catalog.entries import Price
from kaito_catalog.memory.plan import resolved_settings
from kaito_catalog.memory.values import Fit, Plan
from kaito_catalog.plans.instance_types import InstanceTypePlan, cheapest_first, smallest_first
from kaito_catalog.quantity import gib

SPARE_ERRORS = 2
"""Headroom: how many times its expected error a plan may be wrong. One is what separates "fits" from "tight"."""
SPARE_REQUESTS = 1
"""Headroom: requests of the whole context that fit beside the first, so that one user does not wait for another."""


@dataclass(frozen=True)
class Recommendation:
    """An instance type, and why this one."""

    name: str
    cloud: str
    gpu: str
    gpu_count: int
    tensor_parallel_size: int
    spare_bytes: int
    """Per GPU, left after one request of the context."""
    max_concurrency: float
    longest_model_len: int
    reason: str
    price: Price | None = None
    """Of one node an hour; None where none is recorded."""


@dataclass(frozen=True)
class Recommendations:
    """For one model and context; None where no instance type qualifies."""

    max_model_len: int
    smallest: Recommendation | None
    with_headroom: Recommendation | None
    cheapest: Recommendation | None = None
    """The least price an hour of those that fit and have one."""


def spare_bytes(plan: Plan) -> int | None:
    """What is left on the tightest GPU after one request of the context; None without a plan."""
    if plan.per_gpu is None or plan.kv_cache is None:
        return None
    return plan.per_gpu.kv_cache_available_bytes - plan.kv_cache.pool_bytes


def headroom_bytes(plan: Plan) -> int | None:
    """What headroom asks to be spare: twice the expected error, and the cache of one more request."""
    if plan.per_gpu is None or plan.expected_error_bytes is None:
        return None
    return SPARE_ERRORS * plan.expected_error_bytes + SPARE_REQUESTS * plan.per_gpu.kv_cache_needed_bytes


def has_headroom(plan: Plan) -> bool:
    """Whether the plan fits with room for its own error, twice, and for a second request."""
    spare, wanted = spare_bytes(plan), headroom_bytes(plan)
    return plan.fits is Fit.YES and spare is not None and wanted is not None and spare >= wanted


def recommend(
    rows: Sequence[InstanceTypePlan], *, max_model_len: int, cloud: str | None = None
) -> Recommendations:
    """Choose from the plans of all instance types.

    Args:
        rows: of `instance_type_plans`, in any order.
        max_model_len: the context that they are about.
        cloud: only that cloud's; None for all.
    """
    chosen = [row for row in rows if cloud is None or row.instance_type.cloud == cloud]
    fitting = [row for row in smallest_first(chosen) if row.is_certain]
    roomy = [row for row in fitting if has_headroom(row.plan)]
    priced = [row for row in cheapest_first(fitting) if row.price is not None]
    return Recommendations(
        max_model_len,
        _recommendation(fitting[0], _why_smallest(fitting[0])) if fitting else None,
        _recommendation(roomy[0], _why_roomy(roomy[0])) if roomy else None,
        _recommendation(priced[0], _why_cheapest(priced[0])) if priced else None,
    )


def by_cloud(rows: Sequence[InstanceTypePlan], *, max_model_len: int) -> dict[str, Recommendations]:
    """`recommend` for each cloud that has an instance type, by name."""
    clouds = sorted({row.instance_type.cloud for row in rows})
    return {cloud: recommend(rows, max_model_len=max_model_len, cloud=cloud) for cloud in clouds}


def _recommendation(row: InstanceTypePlan, reason: str) -> Recommendation:
    spare, cache = spare_bytes(row.plan), row.plan.kv_cache
    assert spare is not None
    assert cache is not None
    return Recommendation(
        row.instance_type.name,
        row.instance_type.cloud,
        row.plan.gpu.name or row.instance_type.gpu,
        row.instance_type.gpu_count,
        row.plan.parallelism.tensor_parallel_size,
        spare,
        cache.max_concurrency,
        cache.longest_model_len,
        f"{reason}; {row.note}" if row.note else reason,
        row.price,
    )


def _why_smallest(row: InstanceTypePlan) -> str:
    spare = spare_bytes(row.plan)
    return (
        f"least GPU memory of all that fit: {gib(spare or 0)} to spare on each GPU after one request, "
        f"and the plan may be off by {gib(row.plan.expected_error_bytes or 0)}"
    )


def _why_roomy(row: InstanceTypePlan) -> str:
    spare = spare_bytes(row.plan)
    return (
        f"least GPU memory of all with headroom: {gib(spare or 0)} to spare on each GPU, "
        f"{gib(headroom_bytes(row.plan) or 0)} wanted (a second request of that context, and twice the "
        "expected error of the plan)"
    )


def _why_cheapest(row: InstanceTypePlan) -> str:
    price = row.price
    assert price is not None
    at_once = requests_at_once(row.plan)
    each = f", {price.an_hour / at_once:.2f} for each of {at_once} requests at once" if at_once > 1 else ""
    return f"least price of all that fit: {money(price)} an hour {price.where}{each}"


def requests_at_once(plan: Plan) -> int:
    """The requests of the context that one start serves at once: what the cache holds, at most max_num_seqs, each copy.

    0 where the plan is not known, or not one fits.
    """
    if plan.kv_cache is None or plan.fits not in (Fit.YES, Fit.TIGHT):
        return 0
    settings = resolved_settings(plan.settings, plan.gpu, plan.vllm_version)
    most = settings.max_num_seqs or 0
    held = math.floor(plan.kv_cache.max_concurrency) if plan.kv_cache.groups else most
    return min(held, most) * plan.parallelism.data_parallel_size


def money(price: Price) -> str:
    """A price with its currency: `3.67 USD`."""
    return f"{price.an_hour:,.2f} {price.currency}"


def price_to_json(price: Price | None) -> dict[str, Any] | None:
    """A price as plain values; null where none is recorded."""
    return (
        price
        if price is None
        else {
            "anHour": price.an_hour,
            "currency": price.currency,
            "region": price.region,
            "date": price.date,
            "source": price.source,
        }
    )


def to_json(found: Recommendations) -> dict[str, Any]:
    """As plain values; sizes are bytes, null where no instance type qualifies."""
    return {
        "maxModelLen": found.max_model_len,
        "smallest": found.smallest and _value(found.smallest),
        "withHeadroom": found.with_headroom and _value(found.with_headroom),
        "cheapest": found.cheapest and _value(found.cheapest),
    }


def clouds_to_json(found: Mapping[str, Recommendations]) -> dict[str, Any]:
    """`by_cloud` as plain values."""
    return {cloud: to_json(recommendations) for cloud, recommendations in found.items()}


def text(found: Recommendations) -> str:
    """A line for each, for a person; one less where two are the same, nothing where none fits."""
    lines = []
    same = (
        found.smallest is not None
        and found.with_headroom is not None
        and found.smallest.name == found.with_headroom.name
    )
    if found.smallest is not None and not same:
        lines.append(f"smallest that fits: {found.smallest.name} ({found.smallest.reason})")
    if found.with_headroom is not None:
        label = "smallest that fits, with headroom" if same else "smallest with headroom"
        lines.append(f"{label}: {found.with_headroom.name} ({found.with_headroom.reason})")
    elif found.smallest is not None:
        lines.append("with headroom: none of the known instance types")
    if found.cheapest is not None:
        lines.append(f"cheapest that fits: {found.cheapest.name} ({found.cheapest.reason})")
    return "".join(f"{line}\n" for line in lines)


def _value(found: Recommendation) -> dict[str, Any]:
    return {
        "name": found.name,
        "cloud": found.cloud,
        "gpu": found.gpu,
        "gpuCount": found.gpu_count,
        "tensorParallelSize": found.tensor_parallel_size,
        "spareBytesPerGPU": found.spare_bytes,
        "maxConcurrency": round(found.max_concurrency, 4),
        "longestModelLen": found.longest_model_len,
        "reason": found.reason,
        "price": price_to_json(found.price),
    }

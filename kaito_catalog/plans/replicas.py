"""How many replicas of a machine serve a number of users at once, and what they cost an hour and a month."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kaito_catalog.memory.values import Fit
from kaito_catalog.plans.instance_types import InstanceTypePlan, memory_of
from kaito_catalog.plans.recommend import requests_at_once

HOURS_A_MONTH = 730
"""A twelfth of 365 days."""


@dataclass(frozen=True)
class Replicas:
    """Copies of one start, each on machines of its own."""

    row: InstanceTypePlan
    users: int
    """Each with one request of the whole context."""
    requests_at_once: int
    """Of one replica."""

    @property
    def count(self) -> int:
        """The fewest replicas whose memory holds a request of every user."""
        return -(-self.users // self.requests_at_once)

    @property
    def machines(self) -> int:
        """Of all replicas."""
        return self.count * self.row.nodes

    @property
    def price_an_hour(self) -> float | None:
        """Of all replicas; None where no price is recorded."""
        each = self.row.price_an_hour
        return None if each is None else each * self.count

    @property
    def price_a_month(self) -> float | None:
        """Of all replicas, in use day and night."""
        return None if self.price_an_hour is None else self.price_an_hour * HOURS_A_MONTH

    def to_json(self) -> dict[str, Any]:
        """As plain values; null where no price is recorded."""
        hour, month = self.price_an_hour, self.price_a_month
        return {
            "name": self.row.instance_type.name,
            "cloud": self.row.instance_type.cloud,
            "requestsAtOnce": self.requests_at_once,
            "replicas": self.count,
            "machines": self.machines,
            "currency": self.row.price.currency if self.row.price else None,
            "anHour": None if hour is None else round(hour, 4),
            "aMonth": None if month is None else round(month, 2),
        }


def replicas_on(row: InstanceTypePlan, users: int) -> Replicas | None:
    """The replicas on one instance type; None where it does not surely serve a request."""
    at_once = requests_at_once(row.plan)
    if row.plan.fits is not Fit.YES or not at_once:
        return None
    return Replicas(row, users, at_once)


def for_users(
    rows: Sequence[InstanceTypePlan], users: int, *, sort: Literal["size", "price"] = "price"
) -> tuple[Replicas, ...]:
    """The replicas on each instance type that serves the context for certain, the best first.

    One node each; on several nodes each only where no instance type does with one.

    Args:
        rows: the plans.
        users: how many at once.
        sort: by the price of all replicas, what has none last; or by their GPU memory.
    """
    serving = [found for row in rows if (found := replicas_on(row, users)) is not None]
    alone = [found for found in serving if found.row.nodes == 1]

    def memory(found: Replicas) -> tuple[int, int]:
        return found.machines * memory_of(found.row.instance_type, found.row.plan.gpu), found.machines

    def price(found: Replicas) -> tuple[float, int, int]:
        cost = found.price_an_hour
        return (math.inf if cost is None else cost, *memory(found))

    return tuple(sorted(alone or serving, key=memory if sort == "size" else price))

"""What serves a number of users at once, for a person: replicas of each instance type, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from kaito_catalog.catalog.entries import Price
from kaito_catalog.plans.instance_types import InstanceTypePlan
from kaito_catalog.plans.recommend import money, requests_at_once
from kaito_catalog.plans.replicas import HOURS_A_MONTH, Replicas
from kaito_catalog.plans.request import PlanSubject
from kaito_catalog.reports.plan import for_whom, price_lines
from kaito_catalog.reports.style import BOLD, DIM, GREEN, fitted, paint
from kaito_catalog.reports.summary import plural

_HEAD = ("INSTANCE TYPE", "GPUS", "AT ONCE", "REPLICAS", "PRICE/H", "ALL/H", "ALL/MONTH")
_LEFT = 2
_SHOWN = 12
"""Instance types of the table; the others cost more, or are larger."""
_NO_SPEED = "Counted is what memory holds; how fast the replies come is not planned."


def users_text(
    subject: PlanSubject,
    found: Sequence[Replicas],
    users: int,
    *,
    among: str,
    sort: str,
    color: bool = False,
    width: int | None = None,
) -> str:
    """The instance types that serve that many users, the best first."""
    lines = [
        f"{paint(subject.name, BOLD, color=color)} for {_users(users)}, each with up to "
        f"{subject.max_model_len:,} tokens ({subject.max_model_len_reason})",
        *([f"  {for_whom(subject, found[0].row.started)}"] if found else []),
        f"  {among}",
        "",
    ]
    if not found:
        return fitted("\n".join([*lines, "no known instance type surely serves one request"]) + "\n", width)
    lines += _table([_cells(each) for each in found[:_SHOWN]], color=color, width=width)
    if len(found) > _SHOWN:
        lines.append(f"and {len(found) - _SHOWN} more")
    best = found[0]
    word = "cheapest" if sort == "price" and best.price_an_hour is not None else "least GPU memory"
    lines += [
        "",
        f"AT ONCE: requests of that length that one replica serves; a month is {HOURS_A_MONTH} hours",
        *price_lines([each.row for each in found[:_SHOWN]]),
        "",
        f"{word} for {_users(users)}: {cost_words(best)}",
        _NO_SPEED,
    ]
    text = fitted("\n".join(lines) + "\n", width)
    name = best.row.instance_type.name
    return text + (  # not broken, so that it can be copied
        f"\nnext: kaito-catalog plan {subject.name} --users {users} --instance-type {name} --manifest\n"
    )


def one_machine_text(
    row: InstanceTypePlan, found: Replicas | None, users: int | None, *, width: int | None = None
) -> str:
    """What one machine costs and serves, below its plan."""
    lines = ["", f"  {price_words(row.price, row)}"]
    if users is not None:
        words = "it does not surely serve one request" if found is None else cost_words(found)
        lines += [f"  {_users(users)} at up to {row.plan.settings.max_model_len:,} tokens: {words}"]
        lines += [f"    {_NO_SPEED}"] if found else []
    return fitted("\n".join(lines) + "\n", width)


def price_words(price: Price | None, row: InstanceTypePlan) -> str:
    """What the machines of one start cost an hour, and each request that it serves at once."""
    if price is None:
        return "price: none is recorded for it (--price TYPE=USD gives one)"
    nodes = f"{row.nodes} × " if row.nodes > 1 else ""
    at_once = requests_at_once(row.plan)
    whole = row.price_an_hour or 0
    each = f"; {whole / at_once:,.2f} for each of {at_once} requests at once" if at_once > 1 else ""
    source = "" if price.region is None else f" ({price.source})"
    return f"price: {nodes}{money(price)} an hour {price.where}{each}{source}"


def cost_words(found: Replicas) -> str:
    """The replicas and what they cost."""
    each, name = found.row.nodes, found.row.instance_type.name
    nodes = f" of {each} nodes" if each > 1 else ""
    at_once = plural(found.requests_at_once, "request")
    words = f"{plural(found.count, 'replica')}{nodes} on {name}, {at_once} at once each"
    hour, month, price = found.price_an_hour, found.price_a_month, found.row.price
    if hour is None or month is None or price is None:
        return f"{words}; no price is recorded for it"
    return (
        f"{words}: {hour:,.2f} {price.currency} an hour, {month:,.0f} {price.currency} a month, {price.where}"
    )


def _users(users: int) -> str:
    return "1 user" if users == 1 else f"{users:,} users at once"


def _cells(found: Replicas) -> tuple[str, ...]:
    row, hour, month = found.row, found.price_an_hour, found.price_a_month
    nodes = f"{row.nodes} × " if row.nodes > 1 else ""
    return (
        row.instance_type.name,
        f"{nodes}{row.instance_type.gpu_count} × {row.plan.gpu.name}",
        f"{found.requests_at_once:,}",
        f"{found.count:,}",
        "-" if row.price_an_hour is None else f"{row.price_an_hour:,.2f}",
        "-" if hour is None else f"{hour:,.2f}",
        "-" if month is None else f"{month:,.0f}",
    )


def _table(cells: Sequence[tuple[str, ...]], *, color: bool, width: int | None) -> list[str]:
    """The best in green; where the terminal is too narrow, the GPUs stand below the instance type."""
    if width is None:
        widths = [max(len(line[i]) for line in (_HEAD, *cells)) for i in range(len(_HEAD))]
        lines = []
        for number, line in enumerate((_HEAD, *cells)):
            parts = zip(line, widths, range(len(_HEAD)), strict=True)
            text = "  ".join(c.ljust(w) if i < _LEFT else c.rjust(w) for c, w, i in parts).rstrip()
            lines.append(
                paint(text, *([DIM] if number == 0 else [GREEN] if number == 1 else []), color=color)
            )
        return lines
    from kaito_catalog.reports.terminal import Column, TableLayout, table

    right = [Column(heading, "right") for heading in _HEAD[_LEFT:]]
    layouts = (
        TableLayout([Column(_HEAD[0]), Column(_HEAD[1]), *right], cells, gap=2),
        TableLayout(
            [Column(f"{_HEAD[0]}\n  {_HEAD[1]}"), *right],
            [(f"{name}\n  {gpus}", *rest) for name, gpus, *rest in cells],
            gap=1,
        ),
    )
    styles = ["green", *([""] * (len(cells) - 1))]
    return table(layouts, styles, width=width, color=color)

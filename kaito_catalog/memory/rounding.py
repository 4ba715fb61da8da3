"""Division that rounds up, as vLLM's `cdiv` and `round_up` do it."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def round_up(number: int, multiple: int) -> int:
    """The next multiple that is not below the number."""
    return -(-number // multiple) * multiple

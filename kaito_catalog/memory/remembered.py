"""`lru_cache` that keeps the types of arguments, so that a shape which is not built is not planned."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., object])


def remembered(maxsize: int) -> Callable[[F], F]:
    """Remembers the last results of a function of plain values; a type checker sees the function itself."""
    return cast("Callable[[F], F]", lru_cache(maxsize=maxsize))

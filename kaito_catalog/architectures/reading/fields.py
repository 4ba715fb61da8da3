"""A configuration while it is read: typed access to its fields; every number is checked at the door."""

from __future__ import annotations

import math
import sys
from typing import cast

from kaito_catalog.architectures.shape import LARGEST_DIMENSION, Config, Json


class UnreadableError(Exception):
    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class Fields:
    """Typed access to one mapping of the configuration; every number is checked when it is read."""

    def __init__(self, values: Config, where: str = "") -> None:
        self.values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def path(self, name: str) -> str:
        return f"{self.where}{name}"

    def count(
        self, *names: str, default: int | None = None, most: int = LARGEST_DIMENSION, least: int = 1
    ) -> int:
        """The first of `names` that is present: a whole number between `least` and `most`."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, float) and math.isfinite(value) and value == int(value):
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int):
                raise UnreadableError(f"{self.path(name)} is not a whole number", self.path(name))
            if not least <= value <= most:
                said = f"{value:,}" if abs(value) < 10**18 else "of absurd size"
                raise UnreadableError(
                    f"{self.path(name)} is {said}; a number between {least:,} and {most:,} can be planned",
                    self.path(name),
                )
            return value
        if default is None:
            raise UnreadableError(f"the configuration has no {self.path(names[0])}", self.path(names[0]))
        return default

    def optional(self, *names: str, most: int = LARGEST_DIMENSION) -> int | None:
        return self.count(*names, most=most, least=0) or None if any(n in self for n in names) else None

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None:
            return None
        # A comparison, as math.isfinite cannot take an integer beyond the largest float.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= sys.float_info.max
        ):
            raise UnreadableError(f"{self.path(name)} is not a number", self.path(name))
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise UnreadableError(f"{self.path(name)} is neither true nor false", self.path(name))
        return value

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise UnreadableError(f"{self.path(name)} is not a string", self.path(name))
        return value

    def texts(self, name: str) -> list[str] | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise UnreadableError(f"{self.path(name)} is not a list of strings", self.path(name))
        return cast(list[str], value)

    def section(self, name: str) -> Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise UnreadableError(f"{self.path(name)} is not a mapping", self.path(name))
        return Fields(value, f"{self.path(name)}.")


def with_defaults(fields: Fields, **defaults: Json) -> Fields:
    missing = {k: v for k, v in defaults.items() if k not in fields}
    return Fields({**fields.values, **missing}, fields.where) if missing else fields

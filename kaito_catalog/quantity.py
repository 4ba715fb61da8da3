"""Sizes with a unit: 140GB is 140·10⁹ bytes, 140GiB is 140·2³⁰, and a bare number is neither."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

GIB = 2**30

_SCALE = {
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
PATTERN = rf"[0-9]{{1,12}}(\.[0-9]{{1,6}})? ?({'|'.join(_SCALE)})"
_QUANTITY = re.compile(PATTERN)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


@dataclass(frozen=True)
class Quantity:
    """A size as somebody wrote it, and the bytes it stands for (rounded down to a whole byte)."""

    text: str
    bytes: int

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Quantity:
    """Read ``140GB``, ``131.42Gi`` or ``30 GB``.

    Raises:
        ValueError: no unit, or one that is not a size; the message says which units there are.
    """
    if not _QUANTITY.fullmatch(text):
        raise ValueError(problem(text))
    number = _NUMBER.match(text)
    assert number is not None
    unit = text[number.end() :].strip()
    return Quantity(text, int(Fraction(number[0]) * _SCALE[unit]))


def problem(text: str) -> str:
    """Say why `text` is not a size, with the nearest spelling that is."""
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        return f"'{stripped}' has no unit; write {stripped}GB (10⁹ bytes) or {stripped}GiB (2³⁰ bytes)"
    number = _NUMBER.match(stripped)
    if number:
        unit = stripped[number.end() :].strip()
        for known in _SCALE:
            if known.lower() == unit.lower():
                return f"'{unit}' is not a unit; write {number[0]}{known}"
    return f"'{stripped[:60]}' is not a size; write a number and a unit, such as 140GB or 130.4GiB"


def gib(size_bytes: int) -> str:
    """`size_bytes` as text in GiB: one decimal from 10 GiB on, two below."""
    value = size_bytes / GIB
    return f"{value:,.1f} GiB" if abs(value) >= 10 else f"{value:.2f} GiB"


def gb(size_bytes: int) -> str:
    """`size_bytes` as text in GB (10⁹ bytes), the unit that disks and proposals use."""
    value = size_bytes / 10**9
    return f"{value:,.1f} GB" if abs(value) >= 10 else f"{value:.2f} GB"


def at_least_gb(size_bytes: int) -> str:
    """A size to claim for so many bytes: whole GB, or two digits where that would be far more: `30GB`, `0.45GB`."""
    whole = -(-size_bytes // 10**9)
    if whole * 10**9 <= 1.2 * size_bytes or size_bytes <= 0:
        return f"{whole}GB"
    step = max(10 ** (len(str(size_bytes)) - 2), 1000)
    return f"{-(-size_bytes // step) * step / 10**9:.6f}".rstrip("0").rstrip(".") + "GB"

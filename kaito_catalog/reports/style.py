"""Colours for a terminal, and none elsewhere."""

from __future__ import annotations

import os
import re
from typing import TextIO

RED, YELLOW, BLUE, GREEN, BOLD, DIM = "31", "33", "36", "32", "1", "2"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def wants_color(stream: TextIO) -> bool:
    """Whether `stream` shows colours: a terminal, unless NO_COLOR is set or TERM is dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, *codes: str, color: bool) -> str:
    """`text` in the given styles when `color` is on."""
    return f"\033[{';'.join(codes)}m{text}\033[0m" if color and codes else text


def printable(text: str) -> str:
    """`text` without control characters: a proposal cannot move the cursor of whoever checks it."""
    return _CONTROL.sub("�", text)

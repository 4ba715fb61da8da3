"""Colours for a terminal, and none elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from typing import TextIO

RED, YELLOW, BLUE, GREEN, BOLD, DIM = "31", "33", "36", "32", "1", "2"
_STYLE = re.compile(r"\033\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def wants_color(stream: TextIO) -> bool:
    """Whether `stream` shows colours: a terminal, unless NO_COLOR is set or TERM is dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal that `stream` is; None where it is none, so that text is not broken there."""
    return max(shutil.get_terminal_size((80, 24)).columns, 20) if stream.isatty() else None


def fitted(text: str, width: int | None) -> str:
    """`text` with its long lines broken between words, the rest of each a little further in than its beginning."""
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        inside = " " * (len(line) - len(line.lstrip()) + 2)
        is_long = len(_STYLE.sub("", line)) > width
        lines += (
            textwrap.wrap(
                line, width, subsequent_indent=inside, break_long_words=False, break_on_hyphens=False
            )
            if is_long
            else [line]
        )
    return "\n".join(lines)


def paint(text: str, *codes: str, color: bool) -> str:
    """`text` in the given styles when `color` is on."""
    return f"\033[{';'.join(codes)}m{text}\033[0m" if color and codes else text


def printable(text: str) -> str:
    """`text` without control characters: a proposal cannot move the cursor of whoever checks it."""
    return _CONTROL.sub("�", text)

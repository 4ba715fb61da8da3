"""How far long work is, drawn on stderr where that is a terminal; results on stdout are not touched."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from kaito_catalog.errors import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Drawn

WAIT_SECONDS = 0.5
"""Work that is done sooner draws nothing, and does not load rich."""


class Progress:
    """Says what is being done: a bar where the number of steps is known, else the time that has passed.

    Off a terminal nothing is written.
    """

    def __init__(self, total: Callable[[], int] | None = None, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """`total` counts the steps, and is asked only where something is drawn."""
        self._total = total
        self._is_wanted = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._begin_at = time.monotonic() + wait_seconds
        self._done = -1
        self._drawn: Drawn | None = None

    def __enter__(self) -> Progress:
        return self

    def step(self, what: str) -> None:
        """The step before is done, and `what` begins."""
        self._done += 1
        if not self._is_wanted:
            return
        if self._drawn is None:
            if time.monotonic() < self._begin_at:
                return
            self._drawn = _begin(self._total() if self._total else None, self._done, visible(what))
        else:
            self._drawn.update(self._drawn.task_ids[0], completed=self._done, description=visible(what))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            self._drawn.stop()


def _begin(total: int | None, done: int, what: str) -> Drawn:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Drawn

    columns: list[ProgressColumn] = [SpinnerColumn()]
    if total is not None:
        columns += [BarColumn(bar_width=24), MofNCompleteColumn()]
    # Names come from strangers: brackets in them are no markup.
    columns += [TimeElapsedColumn(), TextColumn("{task.description}", markup=False)]
    drawn = Drawn(
        *columns,
        console=Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True),
        transient=True,
        # What is printed meanwhile goes above the bar, unless a program reads it.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=True,
        refresh_per_second=8,
    )
    drawn.add_task(what, total=total, completed=done)
    drawn.start()
    return drawn

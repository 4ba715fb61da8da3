"""A table for a terminal, drawn by rich: import it only where one is drawn, since loading rich takes a while."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kaito_catalog.reports.style import printable


@dataclass(frozen=True)
class Column:
    """A column; its heading may have several lines."""

    heading: str
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class TableLayout:
    """One way to lay out the same rows; a cell may have several lines."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    gap: int

    @property
    def width(self) -> int:
        """How wide it is where nothing is broken."""
        lines = ([column.heading for column in self.columns], *self.rows)
        widest = (
            max(cell_len(part) for line in lines for part in line[number].split("\n"))
            for number in range(len(self.columns))
        )
        return sum(widest) + self.gap * (len(self.columns) - 1)


def table(layouts: Sequence[TableLayout], styles: Sequence[str], *, width: int, color: bool) -> list[str]:
    """The lines of the first layout that fits into `width` columns; the last is broken to fit, if it has to be.

    Args:
        layouts: the widest first.
        styles: of each row, as rich has them, or empty.
        width: of the terminal.
        color: whether to use the styles.
    """
    layout = next((layout for layout in layouts if layout.width <= width), layouts[-1])
    drawn = Table(box=None, pad_edge=False, padding=(0, layout.gap, 0, 0), header_style="dim")
    for column in layout.columns:
        drawn.add_column(Text(column.heading), justify=column.align, overflow="fold")
    for row, style in zip(layout.rows, styles, strict=True):
        # As Text, so that brackets in a name are no markup.
        drawn.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row), style=style)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(drawn)
    return [line.rstrip() for line in captured.get().splitlines()]

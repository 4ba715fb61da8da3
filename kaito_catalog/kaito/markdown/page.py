"""A Markdown proposal while it is read: its sections by name, and what has been remarked so far."""

from __future__ import annotations

from kaito_catalog.diagnostics import Severity
from kaito_catalog.kaito.markdown import blocks
from kaito_catalog.kaito.markdown.blocks import Block, Remarks, Section, TextSpan, shorten
from kaito_catalog.kaito.markdown.template import SECTIONS

LEFT_OUT = "move what matters into the description"


class Page:
    """A Markdown proposal while it is read: its sections by name, and what has been remarked so far."""

    def __init__(self, text: str, path: str) -> None:
        self.remarks = Remarks(path)
        self.markdown = blocks.parse(text)
        self.sections: dict[str, Section] = {}
        for section in self.markdown.sections:
            if section.name in SECTIONS and section.name not in self.sections:
                self.sections[section.name] = section

    def blocks(self, name: str) -> tuple[Block, ...]:
        """The blocks of a section; none where it is missing."""
        return self.sections[name].blocks if name in self.sections else ()

    def start(self, name: str) -> TextSpan:
        """Where to point when something is missing in a section."""
        return self.sections[name].start if name in self.sections else TextSpan("", 1)

    def left_out(self, block: Block) -> None:
        """Remark a text that has no place in a proposal."""
        self.remarks.say("IMP017", f"left out: '{shorten(block.text)}'", block.span, LEFT_OUT, Severity.NOTE)

    def surplus(self, row: tuple[TextSpan, ...], width: int) -> None:
        """Remark a row with more cells than the table has columns."""
        if len(row) > max(width, 2):
            self.remarks.say(
                "IMP018",
                f"the row '{shorten(row[0].text)}' has more cells than the table has columns",
                row[max(width, 2)],
                "write \\| for a bar inside a cell",
            )

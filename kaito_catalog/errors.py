"""Errors a person can act on; the command line prints them and exits 2, never a traceback."""


class CatalogError(Exception):
    """Something the user asked for cannot be done: what was found, and how to go on."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def visible(text: str) -> str:
    """`text` with what cannot be seen written out (``\\u202e``): a stranger's name cannot move the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)

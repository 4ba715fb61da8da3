"""Errors a person can act on; the command line prints them and exits 2, never a traceback."""


class CatalogError(Exception):
    """Something the user asked for cannot be done: what was found, and how to go on."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

"""What a check says: a diagnostic with its place, or a skip with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

Route: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value: ``("requirements", "storageSize")``."""


class Severity(Enum):
    """How bad it is: an error fails `check`, a warning does not, a note only informs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        return ("error", "warning", "note").index(self.value)


@dataclass(frozen=True, order=True)
class Place:
    """A file with a 1-based line and column."""

    path: str
    line: int = 1
    column: int = 1
    end_column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One finding, at its place."""

    code: str
    severity: Severity
    message: str
    place: Place
    hint: str | None = None
    waived: str | None = None
    """The reason from `waivers`, where the proposal accepts this finding."""

    def accept(self, reason: str) -> Diagnostic:
        """This finding, waived with `reason`."""
        return replace(self, waived=reason)

    @property
    def fails(self) -> bool:
        """Whether `check` ends with exit code 1 because of this."""
        return self.severity is Severity.ERROR and self.waived is None


@dataclass(frozen=True)
class Skipped:
    """A check that was not run on a model, and why: never a pass."""

    code: str
    model: str
    reason: str
    place: Place
    hint: str | None = None


def sort_key(diagnostic: Diagnostic) -> tuple[str, int, int, int, str, str]:
    """Order of reports: by file, then by place, the worst first."""
    place = diagnostic.place
    return (
        place.path,
        place.line,
        place.column,
        diagnostic.severity.rank,
        diagnostic.code,
        diagnostic.message,
    )

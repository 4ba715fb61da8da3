"""What can go wrong with a request to the Hub, and whether asking again may help."""

from __future__ import annotations

from enum import Enum

from kaito_catalog.errors import CatalogError


class Trouble(Enum):
    """What went wrong with a request."""

    GONE = "gone"
    GONE_OR_PRIVATE = "gone or private"
    """401 without a token: the Hub does not tell."""
    REVISION_GONE = "revision gone"
    FILE_GONE = "file gone"
    GATED = "gated"
    FORBIDDEN = "forbidden"
    BAD_TOKEN = "bad token"  # noqa: S105
    DISABLED = "disabled"
    RATE_LIMITED = "rate limited"
    CONFLICT = "conflict"
    SERVER = "server error"
    TIMEOUT = "time-out"
    CONNECTION = "connection"
    CORRUPT = "corrupt"
    INCOMPLETE = "incomplete"
    """The repository itself, or a copy of it: asking again gives no more."""
    TOO_LARGE = "too large"
    REDIRECTED = "redirected"
    USAGE = "usage"
    STOPPED = "stopped"


_TRANSIENT = {
    Trouble.RATE_LIMITED,
    Trouble.CONFLICT,
    Trouble.SERVER,
    Trouble.TIMEOUT,
    Trouble.CONNECTION,
    Trouble.CORRUPT,
}


class HubError(CatalogError):
    """A request that failed for good; the message is one line and names the model."""

    def __init__(
        self, trouble: Trouble, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.trouble = trouble
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later: nothing is known about the model."""
        return self.trouble in _TRANSIENT

"""Which known names somebody may have meant: for the "did you mean" of a hint."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

LIKENESS = 0.6
"""How much of two names has to agree, from 0 to 1 as difflib counts it, to take one for a misspelling of the other."""
_MOST = 4
_SHORTEST_PART = 3
"""Fewer letters stand in too many names to mean one of them."""


def near_names(wrong: str, names: Iterable[str], *, likeness: float = LIKENESS) -> tuple[str, ...]:
    """The names that may have been meant, the likeliest first; none where nothing is near.

    A name that begins with what was written is nearer than one that is spelt alike: `Standard_NC24` means
    `Standard_NC24ads_A100_v4`, not `Standard_NC4_A2`. Where no name is spelt alike, those that contain it are meant:
    `a100` stands in `NVIDIA A100 80GB`. Capitals, and dashes or underscores, make no difference.
    """
    written = _folded(wrong)
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(_folded(name), name)
    parts = known if len(written) >= _SHORTEST_PART else {}
    near = [name for name in parts if name.startswith(written)]
    if not near:
        near = get_close_matches(written, known, n=_MOST, cutoff=likeness)
        near = sorted(near, key=lambda name: -_likeness(written, name))[:1]
    if not near:
        near = [name for name in parts if written in name]
    return tuple(known[name] for name in sorted(near, key=lambda name: -_likeness(written, name))[:_MOST])


def nearest(wrong: str, names: Iterable[str], *, likeness: float = LIKENESS) -> str | None:
    """The name that was most likely meant; None where nothing is near."""
    return next(iter(near_names(wrong, names, likeness=likeness)), None)


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", "-")


def _likeness(written: str, name: str) -> float:
    """How much agrees; a beginning in common counts further, since people err more often at the end of a name."""
    agrees = SequenceMatcher(None, name, written).ratio()
    common = next(
        (i for i, (a, b) in enumerate(zip(written, name, strict=False)) if a != b),
        min(len(written), len(name)),
    )
    return agrees + (1 - agrees) * common / max(len(written), 1)

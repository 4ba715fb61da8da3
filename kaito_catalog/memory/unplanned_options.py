"""Options that no plan reads: which make it unknown, and which change nothing for a model all the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kaito_catalog.architectures.shape import Encoder
from kaito_catalog.memory.no_effect import Situation, no_effect
from kaito_catalog.memory.options import UNPLANNED

UnplannedOption = tuple[str, str]
"""An option and its value, as on the command line: ("block-size", "128")."""

_EFFECT = {name: effect for effect, names in UNPLANNED.items() for name in names}

LIMIT_PER_PROMPT = "limit-mm-per-prompt"
"""Images and sounds that a prompt may hold: fewer than by default take less than is planned, none is no encoder."""

_MEDIA: Mapping[str, frozenset[str]] = {
    "vision": frozenset({"image", "video"}),
    "audio": frozenset({"audio"}),
}


def is_unplanned(name: str) -> bool:
    """Whether the option, written with dashes, is one of those."""
    return name in _EFFECT or name == LIMIT_PER_PROMPT


def why_unknown(situation: Situation) -> str | None:
    """Why no plan can be made with the options that no plan reads; None where they change nothing there."""
    for name, value in situation.settings.unplanned:
        if name in _EFFECT and no_effect(name, value, situation) is None:
            return f"no plan reads {f'{name} {value[:40]}'.rstrip()}: {_EFFECT[name]}"
    return None


def without_effect(situation: Situation) -> tuple[tuple[str, str, str], ...]:
    """The options that no plan reads and that change nothing there: name, value, and why."""
    found = ((name, value, no_effect(name, value, situation)) for name, value in situation.settings.unplanned)
    return tuple((name, value, reason) for name, value, reason in found if reason is not None)


def leaves_out_encoder(options: Iterable[UnplannedOption], encoder: Encoder | None) -> bool:
    """Whether no prompt may hold what the encoder is for, so that vLLM builds none (_mark_tower_model)."""
    limits = next((value for name, value in options if name == LIMIT_PER_PROMPT), None)
    if encoder is None or limits is None:
        return False
    media = _MEDIA.get(encoder.kind, frozenset({"image", "video", "audio"}))
    return media <= {medium for medium, limit in _limits(limits).items() if limit == 0}


def _limits(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        medium: limit.get("count") if isinstance(limit, dict) else limit for medium, limit in found.items()
    }

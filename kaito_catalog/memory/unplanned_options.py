"""Options that no plan reads: which make it unknown, and which change nothing for a model all the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kaito_catalog.architectures.mixers import Attention, CompressedAttention, LatentAttention
from kaito_catalog.architectures.shape import Encoder, Shape
from kaito_catalog.memory import compilation
from kaito_catalog.memory.options import AS_BY_DEFAULT, UNPLANNED

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


def why_unknown(options: Iterable[UnplannedOption], shape: Shape) -> str | None:
    """Why no plan can be made with the options; None where they change nothing for this model."""
    for name, value in options:
        if name in compilation.NAMES:
            key = compilation.unread(name, value)
            if key is not None:
                return f"no plan reads {key[:40]} of {name}: {_EFFECT[name]}"
        elif name in _EFFECT and not _changes_nothing(name, value, shape):
            return f"no plan reads {name} {value[:40]}: {_EFFECT[name]}"
    return None


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


def _changes_nothing(name: str, value: str, shape: Shape) -> bool:
    if name == "quantization":
        method = shape.quantization.method if shape.quantization else None
        return method is not None and value.removesuffix("_marlin") == method.removesuffix("_marlin")
    if name in ("enable-prefix-caching", "no-enable-prefix-caching"):
        kinds = (Attention, LatentAttention, CompressedAttention)
        return all(isinstance(mixer, kinds) for layer in shape.layers for mixer in layer.mixers)
    return value in AS_BY_DEFAULT.get(name, ())

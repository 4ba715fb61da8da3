"""`hf-overrides`: a model's configuration with what the option sets, read again as vLLM would find it.

Read in `ModelConfig.__post_init__` (vllm/config/model.py) and `get_config` (transformers_utils/config.py) of vLLM
0.25.1 and 0.32.0: what is no mapping is set on the configuration, a mapping is merged into a section that is a
configuration of its own, and otherwise set. Both happen when the configuration's class has derived its other values (a
head's size, the kinds of layers), so that only keys are planned from which none is derived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, PlanRequest

SECTIONS = ("text_config", "llm_config")
"""Keys below which the language model's own configuration lies."""

_OF_THE_WHOLE = frozenset({"architectures"})
_OF_THE_TEXT = frozenset(
    {"index_topk_freq", "index_topk_pattern", "max_position_embeddings", "num_experts_per_tok"}
)
_ROPE = frozenset({"rope_parameters"})
_PLANNED = (
    "architectures, max_position_embeddings, num_experts_per_tok, index_topk_pattern and rope_parameters"
)


def with_overrides(request: PlanRequest) -> PlanRequest | Refusal:
    """The request for the model that its `hf_overrides` make of the configuration; itself where there are none."""
    text, shape = request.settings.hf_overrides, request.shape
    if not text or not isinstance(shape, Shape):
        return request
    overrides = json.loads(text)
    if not overrides:
        return request
    if shape.source is None:
        return _unknown("the configuration that it changes is not at hand")
    config, quantization = shape.source
    section = next((name for name in SECTIONS if isinstance(config.get(name), Mapping)), None)
    unread = _unread(overrides, section)
    if unread is not None:
        return _unknown(f"no plan reads {unread[:60]} there, only {_PLANNED}")
    changed: dict[str, Any] = {**config}
    for key, value in overrides.items():
        inner = config.get(key)
        changed[key] = {**inner, **value} if key == section and isinstance(inner, Mapping) else value
    return replace(request, shape=read_shape(changed, quantization=quantization))


def _unread(overrides: Mapping[str, Any], section: str | None) -> str | None:
    """A key that no plan reads; None where all are read."""
    for key, value in overrides.items():
        if key == section and isinstance(value, dict):
            inner = next((name for name in value if name not in _OF_THE_TEXT), None)
            if inner is not None:
                return f"{key}.{inner}"
        elif key in _OF_THE_WHOLE:
            continue
        # Beside a section of the language model's own, vLLM looks at nothing of this on top.
        elif section is not None or not _is_read(key, value):
            return key
    return None


def _is_read(key: str, value: object) -> bool:
    return isinstance(value, dict) if key in _ROPE else key in _OF_THE_TEXT and not isinstance(value, dict)


def _unknown(why: str) -> Refusal:
    return Refusal(Fit.UNKNOWN, "settings", f"no plan with these hf-overrides: {why}")

"""What was fitted to measurements: data/overheads.yaml as plain values, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml


@lru_cache(maxsize=1)
def constants() -> Mapping[str, Any]:
    """The fitted constants of data/overheads.yaml, with their sources."""
    text = files("kaito_catalog").joinpath("data/overheads.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded

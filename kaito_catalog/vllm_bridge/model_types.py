"""Which `model_type`s a vLLM and the transformers beside it can read, from the committed `data/model-types.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from kaito_catalog.vllm_bridge.versions import newest, parsed


@dataclass(frozen=True)
class ModelTypes:
    """What one vLLM and its transformers can read."""

    vllm_version: str
    transformers_version: str
    of_transformers: frozenset[str]
    of_vllm: frozenset[str]

    def __contains__(self, name: object) -> bool:
        """Whether a configuration of that `model_type` can be read without code of its repository."""
        return name in self.of_transformers or name in self.of_vllm


@lru_cache(maxsize=1)
def _recorded() -> dict[str, ModelTypes]:
    text = (resources.files("kaito_catalog") / "data" / "model-types.json").read_text(encoding="utf-8")
    return {
        version: ModelTypes(
            version,
            found["transformers"],
            frozenset(found["transformersTypes"]),
            frozenset(found["vllmTypes"]),
        )
        for version, found in json.loads(text)["vllm"].items()
    }


def model_types(vllm_version: str) -> ModelTypes | None:
    """Those of that version; None where they are not recorded."""
    wanted = parsed(vllm_version)
    return _recorded().get(wanted.public) if wanted else None


def first_that_reads(name: str) -> ModelTypes | None:
    """The earliest of the recorded versions that can read the `model_type`."""
    having = {version: found for version, found in _recorded().items() if name in found}
    while len(having) > 1:
        having.pop(newest(list(having)))
    return next(iter(having.values()), None)

"""The drafter that `speculative-config` names, by its configuration or by an entry; and what guessing tokens costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Drafter, Shape, Unsupported
from kaito_catalog.architectures.drafts import read_draft
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.speculation.config import SpeculationError, read_speculation
from kaito_catalog.memory.values import Plan, PlanRequest, Stored

Config = Mapping[str, Any]


def draft_of(
    speculative_config: str | None, configuration: tuple[Config, Config | None] | None, root: Path | None
) -> Drafter | Unsupported | None:
    """What is known of the drafter; None where nothing is, or the model itself brings it.

    Args:
        speculative_config: the option, as JSON.
        configuration: the drafter's config.json, and the quantisation beside it, where somebody gives them.
        root: the catalog, where the drafter may have an entry.
    """
    if not speculative_config:
        return None
    try:
        speculation = read_speculation(speculative_config)
    except SpeculationError:
        return None
    if configuration is not None:
        return read_draft(configuration[0], speculation.method.value, quantization=configuration[1])
    if root is None or speculation.model is None:
        return None
    folder = root / "models" / speculation.model.rpartition("/")[2].lower()
    if folder.name in ("", ".", "..") or not (folder / "proposal.yaml").is_file():
        return None
    entry = read_entry(folder)
    if entry.facts is None or entry.facts.config is None or entry.proposal is None:
        return None
    if (entry.proposal.repo_id or "").lower() != speculation.model.lower():
        return None
    return read_draft(entry.facts.config, speculation.method.value)


@dataclass(frozen=True)
class Cost:
    """What guessing tokens takes of a GPU and of the context."""

    weights_bytes: int
    cache_bytes: int
    """More of the KV cache of one request."""
    available_bytes: int
    """Less for all KV caches."""
    longest_model_len: int
    longest_without: int

    def to_json(self) -> dict[str, int]:
        """As in the JSON of a plan."""
        return {
            "weightsBytes": self.weights_bytes,
            "kvCacheNeededBytes": self.cache_bytes,
            "kvCacheAvailableBytes": -self.available_bytes,
            "longestModelLen": self.longest_model_len,
            "longestModelLenWithout": self.longest_without,
        }


def cost_of_speculation(shape: Shape | Unsupported, stored: Stored | None, plan: Plan) -> Cost | None:
    """The plan beside the one without `speculative-config`; None where there is none of either."""
    if not plan.settings.speculative_config or plan.per_gpu is None or plan.kv_cache is None:
        return None
    without = make_plan(
        PlanRequest(
            shape,
            stored=stored,
            gpu=plan.gpu,
            parallelism=plan.parallelism,
            settings=replace(plan.settings, speculative_config=None, draft=None),
            vllm_version=plan.vllm_version,
        )
    )
    if without.per_gpu is None or without.kv_cache is None:
        return None
    return Cost(
        plan.per_gpu.weights_bytes - without.per_gpu.weights_bytes,
        plan.per_gpu.kv_cache_needed_bytes - without.per_gpu.kv_cache_needed_bytes,
        without.per_gpu.kv_cache_available_bytes - plan.per_gpu.kv_cache_available_bytes,
        plan.kv_cache.longest_model_len,
        without.kv_cache.longest_model_len,
    )

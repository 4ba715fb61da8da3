"""`speculative-config` as a value: the method, how many tokens it guesses, and which of its keys no plan reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any


class Method(Enum):
    """How tokens are guessed (vLLM's SpeculativeConfig.method)."""

    MTP = "mtp"
    """Layers that the model's own checkpoint brings, or one that was made for it."""
    EAGLE = "eagle"
    EAGLE3 = "eagle3"
    DRAFT_MODEL = "draft_model"
    DFLASH = "dflash"
    DSPARK = "dspark"
    MEDUSA = "medusa"
    MLP_SPECULATOR = "mlp_speculator"
    NGRAM = "ngram"
    NGRAM_GPU = "ngram_gpu"
    SUFFIX = "suffix"

    @property
    def has_model(self) -> bool:
        """Whether something is loaded for it."""
        return self not in (Method.NGRAM, Method.NGRAM_GPU, Method.SUFFIX)

    @property
    def reads_hidden_states(self) -> bool:
        """Whether it is fed with the model's hidden states, and keeps a cache (SpeculativeConfig.use_eagle)."""
        return self in (Method.MTP, Method.EAGLE, Method.EAGLE3, Method.DFLASH, Method.DSPARK)


_OLDER_NAMES = ("_mtp",)
"""Ends of names that older versions have for MTP: deepseek_mtp, qwen3_next_mtp, ernie_mtp …"""
_BY_NAME = (
    ("eagle-", Method.EAGLE),
    ("eagle3", Method.EAGLE3),
    ("dflash", Method.DFLASH),
    ("dspark", Method.DSPARK),
)
"""What vLLM takes a drafter for by the name of its repository, in this order, where no method says it."""
_WITHOUT_MEMORY = frozenset(
    {
        "code_revision",
        "disable_by_batch_size",
        "disable_eagle_block_drop",
        "disable_logprobs",
        "disable_log_stats",
        "enforce_eager",
        "index_share_for_mtp_iteration",
        "prompt_lookup_max",
        "prompt_lookup_min",
        "revision",
        "synthetic_acceptance_length",
        "synthetic_acceptance_rates",
        "suffix_decoding_max_cached_requests",
        "suffix_decoding_max_spec_factor",
        "suffix_decoding_min_token_prob",
        "use_local_argmax_reduction",
    }
)
"""Keys that say how it guesses, or what the host keeps, and nothing that a GPU holds for long."""
_READ = frozenset(
    {
        "disable_padded_drafter_batch",
        "draft_sample_method",
        "draft_tensor_parallel_size",
        "max_model_len",
        "method",
        "model",
        "num_speculative_tokens",
        "parallel_drafting",
        "rejection_sample_method",
        "suffix_decoding_max_tree_depth",
        "use_heterogeneous_vocab",
    }
)
SUFFIX_DEPTH = 24
"""suffix_decoding_max_tree_depth, which is how many tokens are guessed where nothing says it."""


@dataclass(frozen=True)
class Speculation:
    """What `speculative-config` asks for."""

    method: Method
    num_speculative_tokens: int | None = None
    """None: as many as the drafter's configuration says."""
    model: str | None = None
    """The drafter's repository or folder; None where the model itself brings it, or nothing is loaded."""
    draft_tensor_parallel_size: int | None = None
    parallel_drafting: bool = False
    """All tokens in one step, where the method does not do that by itself."""
    pads_batches: bool = True
    samples_probabilities: bool = False
    """Whether the probabilities of what was guessed are kept."""
    heterogeneous_vocab: bool = False
    unread: tuple[str, ...] = ()
    """Keys that no plan reads."""

    @property
    def drafts_in_parallel(self) -> bool:
        """Whether all tokens are guessed in one step."""
        return self.parallel_drafting or self.method in (Method.DFLASH, Method.DSPARK)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the next batch is scheduled before this one has ended (VllmConfig's async_scheduling)."""
        method = self.method
        # A draft model only in 0.32; in 0.25.1, where it is not, the cache does not depend on it.
        others = method in (Method.NGRAM_GPU, Method.DRAFT_MODEL)
        return self.pads_batches and (method.reads_hidden_states or others)


class SpeculationError(Exception):
    """What vLLM would refuse in `speculative-config`, in words."""

    def __init__(self, words: str, *, is_refused: bool = True) -> None:
        super().__init__(words)
        self.is_refused = is_refused
        """False where vLLM takes it and no plan does."""


_UNPLANNED = ("extract_hidden_states", "custom_class")


@lru_cache(maxsize=64)
def read_speculation(text: str) -> Speculation:
    """The value of `speculative-config`, as JSON.

    Raises:
        SpeculationError: it is none, or vLLM would refuse it.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise SpeculationError(f"speculative-config is not JSON: {text[:60]}") from None
    if not isinstance(value, dict):
        raise SpeculationError("speculative-config is not a JSON object")
    value = {key.replace("-", "_"): part for key, part in value.items() if part is not None}
    if "tensor_parallel_size" in value:
        raise SpeculationError(
            "speculative-config takes draft_tensor_parallel_size, not tensor_parallel_size"
        )
    method = _method(value)
    tokens = _count(value, "num_speculative_tokens")
    if tokens is None and method is Method.SUFFIX:
        tokens = _count(value, "suffix_decoding_max_tree_depth") or SUFFIX_DEPTH
    model = value.get("model")
    return Speculation(
        method,
        tokens,
        model if isinstance(model, str) and method.has_model else None,
        _count(value, "draft_tensor_parallel_size"),
        value.get("parallel_drafting") is True,
        value.get("disable_padded_drafter_batch") is not True,
        value.get("draft_sample_method") == "probabilistic",
        value.get("use_heterogeneous_vocab") is True,
        tuple(sorted(set(value) - _READ - _WITHOUT_MEMORY)),
    )


def _count(value: Mapping[str, Any], key: str) -> int | None:
    found = value.get(key)
    if isinstance(found, str) and found.isdecimal():
        found = int(found)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < 2**31:
        raise SpeculationError(f"{key} of speculative-config is not a whole number from 1 on")
    return found


def _method(value: Mapping[str, Any]) -> Method:
    """SpeculativeConfig.__post_init__ of 0.25.1 and 0.32.0."""
    stated, model = value.get("method"), value.get("model")
    name = stated.strip("[]") if isinstance(stated, str) else None
    if name is not None and name.endswith(_OLDER_NAMES):
        return Method.MTP
    if name not in (None, "draft_model"):
        try:
            return Method(name)
        except ValueError:
            words = f"no plan for the method '{name[:40]}' of speculative-config"
            raise SpeculationError(words, is_refused=name not in _UNPLANNED) from None
    if not isinstance(model, str):
        raise SpeculationError("speculative-config has neither a method nor a model")
    if model.strip("[]") == "ngram":
        return Method.NGRAM
    lowered = model.lower()
    return next((method for part, method in _BY_NAME if part in lowered), Method.DRAFT_MODEL)

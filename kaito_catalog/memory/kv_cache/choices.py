"""What options of vLLM say of the KV cache beside the dtype of its attention: one frozen value, `CacheChoices`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheChoices:
    """Options of the cache; by default all is left to vLLM."""

    block_size: int | None = None
    """Tokens of a block of attention, which a hybrid makes longer where a state needs it."""
    mamba_cache_dtype: str = "auto"
    """Of the states of a hybrid."""
    mamba_ssm_cache_dtype: str = "auto"
    """Of their recurrent part."""
    decode_context_parallel_size: int = 1
    """Ranks of a tensor-parallel group that share the tokens of a request among themselves."""


VLLMS_CHOICE = CacheChoices()

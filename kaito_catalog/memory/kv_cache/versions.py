"""What vLLM's planner of the KV cache does otherwise from one version to another: the thresholds, all of them.

| from | what changes | function |
|---|---|---|
| 0.26 | a window holds the tokens of all batches in flight | `batches_in_flight` |
| 0.27 | hybrids cache prefixes, with two states a sequence | `states_per_sequence` |
| 0.29 | Mamba keeps two states as well; before, one per block | `states_per_sequence` |
| 0.29 | the null block is held back from the pool | `reserved_blocks` |
| 0.32 | one state more where prompts are computed with checkpoints | `states_per_sequence` |

What changes in the layers themselves (block sizes, packed blocks) is in `architectures/as_built`.
"""

from __future__ import annotations

from kaito_catalog.architectures import BuiltShape, KimiDelta, Mamba1, Mamba2, Recurrent
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.memory.kv_cache.layout import Unplannable

FIRST_CONCURRENT = (0, 26, 0)
"""SlidingWindowSpec.max_memory_usage_bytes counts VllmConfig.max_concurrent_batches, and one batch before."""
FIRST_PREFIX_CACHING = (0, 27, 0)
"""Qwen3.8-27B-FP8 keeps one state a sequence with 0.26.0 (its refusal names 8.18 GiB for 131,072 tokens), Qwen3.6-27B
two with 0.27.1 (71.42 requests of 4,096 tokens in 41.03 GiB)."""
ALWAYS_ALIGNED = (0, 29, 0)
"""Mamba's mamba_cache_mode is `align` by default, as that of other states; in 0.27 and 0.28 it is `all`."""
FIRST_NULL_BLOCK = (0, 29, 0)
"""The check that one request fits leaves out the block that the pool holds back (check_enough_kv_cache_memory)."""
PREFILL_CHECKPOINTS = (0, 32, 0)
"""MambaSpec.num_prefill_checkpoint_blocks (mamba_mixer2.py, kda_checkpoint.py)."""


def batches_in_flight(vllm_version: str, *, pipeline_parallel_size: int = 1) -> int:
    """Batches whose tokens a sliding window must hold at once, by vLLM version.

    One before FIRST_CONCURRENT; from it on VllmConfig.max_concurrent_batches: with async scheduling (the
    default) and the second model runner a batch per stage and one more. 0.26 to 0.28 take that runner for
    some architectures only, and else one batch less on several stages: there this is an upper bound.
    """
    if version_tuple(vllm_version) < FIRST_CONCURRENT:
        return 1
    return pipeline_parallel_size + 1


def reserved_blocks(vllm_version: str) -> int:
    """Blocks that vLLM leaves out when it checks that a request fits: the null block, from 0.29 on."""
    return int(version_tuple(vllm_version) >= FIRST_NULL_BLOCK)


def states_per_sequence(shape: BuiltShape, vllm_version: str) -> int | Unplannable:
    """Blocks that vLLM keeps for the state of one sequence in a layer.

    One up to 0.26. From 0.27 on hybrids cache prefixes by default, and two are kept (mamba_cache_mode
    `align`); Mamba kept one per block of tokens (`all`) in 0.27 and 0.28, which is not planned here.
    """
    version = version_tuple(vllm_version)
    # Of hybrids that pool no prefixes are cached.
    if version < FIRST_PREFIX_CACHING or shape.pools:
        return 1
    mixers = [mixer for layer in shape.layers for mixer in layer.mixers]
    if version >= ALWAYS_ALIGNED and all(isinstance(m, Recurrent) for m in mixers):
        # Nor of models without attention (is_prefix_caching_supported).
        return 1
    checkpoints = any(isinstance(m, Mamba2) or (isinstance(m, KimiDelta) and m.checkpoints) for m in mixers)
    if version < ALWAYS_ALIGNED and any(isinstance(m, Mamba1 | Mamba2) for m in mixers):
        return Unplannable(f"no plan for Mamba layers with vLLM {vllm_version[:20]}")
    # One more is set aside for the state at the last block's boundary.
    return 3 if checkpoints and version >= PREFILL_CHECKPOINTS else 2

"""What vLLM's planner of the KV cache does otherwise from one version to another: the thresholds, all of them.

| from | what changes | function |
|---|---|---|
| 0.14 to 0.16 | the smallest stage is asked for the cache of all stages | `asks_for_all_stages` |
| 0.26 | a window holds the tokens of all batches in flight | `batches_in_flight` |
| 0.28 | hybrids cache prefixes by default, with two states a sequence | `states_per_sequence` |
| 0.28 | Mamba keeps two states as well; before, one per block | `states_per_sequence` |
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
FIRST_PREFIX_CACHING = (0, 28, 0)
"""Hybrids cache prefixes unless told otherwise; 0.27.1 says that it keeps that opt-in
(EngineArgs._set_default_chunked_prefill_and_prefix_caching_args), and so it was before."""
ALWAYS_ALIGNED = (0, 28, 0)
"""mamba_cache_mode is `align` for Mamba too where prefixes are cached; before, it is `all`
(MambaModelConfig.verify_and_update_config)."""
LAST_ALL = (0, 32, 0)
"""From then on there is no mamba_cache_mode `all`."""
FIRST_NULL_BLOCK = (0, 29, 0)
"""The check that one request fits leaves out the block that the pool holds back (check_enough_kv_cache_memory)."""
PREFILL_CHECKPOINTS = (0, 32, 0)
"""MambaSpec.num_prefill_checkpoint_blocks (mamba_mixer2.py, kda_checkpoint.py)."""


def asks_for_all_stages(vllm_version: str) -> bool:
    """Whether what the smallest stage has is compared with what a request takes on all of them.

    get_kv_cache_configs of 0.14.0 to 0.16.0; each stage is asked for its own in 0.13.0 and again from 0.17.0 on.
    """
    return (0, 14, 0) <= version_tuple(vllm_version) < (0, 17, 0)


def batches_in_flight(
    vllm_version: str, *, pipeline_parallel_size: int = 1, async_scheduling: bool = True
) -> int:
    """Batches whose tokens a sliding window must hold at once, by vLLM version.

    One before FIRST_CONCURRENT; from it on VllmConfig.max_concurrent_batches: with async scheduling (the
    default) and the second model runner a batch per stage and one more. 0.26 to 0.28 take that runner for
    some architectures only, and else one batch less on several stages: there this is an upper bound.
    Without async scheduling it is a batch per stage.
    """
    if version_tuple(vllm_version) < FIRST_CONCURRENT:
        return 1
    return pipeline_parallel_size + (1 if async_scheduling else 0)


def reserved_blocks(vllm_version: str) -> int:
    """Blocks that vLLM leaves out when it checks that a request fits: the null block, from 0.29 on."""
    return int(version_tuple(vllm_version) >= FIRST_NULL_BLOCK)


def states_per_sequence(
    shape: BuiltShape,
    vllm_version: str,
    *,
    enable_prefix_caching: bool | None = None,
    mamba_cache_mode: str = "none",
) -> int | Unplannable:
    """Blocks that vLLM keeps for the state of one sequence in a layer.

    One where prefixes are not cached, else two (mamba_cache_mode `align`). One for each block of tokens (`all`), as
    before 0.28 by default for Mamba, is not planned here.

    Args:
        shape: the model.
        vllm_version: whose defaults hold.
        enable_prefix_caching: the option; None leaves it to vLLM.
        mamba_cache_mode: the option; `none` leaves it to vLLM.
    """
    version = version_tuple(vllm_version)
    mixers = [mixer for layer in shape.layers for mixer in layer.mixers]
    if enable_prefix_caching is None:
        # By default neither hybrids that pool nor models without attention do (is_prefix_caching_supported).
        has_attention = not all(isinstance(m, Recurrent) for m in mixers)
        enable_prefix_caching = version >= FIRST_PREFIX_CACHING and has_attention and not shape.pools
    if not enable_prefix_caching or not any(isinstance(m, Recurrent) for m in mixers):
        return 1
    keeps_all = mamba_cache_mode == "all" or (mamba_cache_mode == "none" and version < ALWAYS_ALIGNED)
    if keeps_all and version < LAST_ALL and any(isinstance(m, Mamba1 | Mamba2) for m in mixers):
        return Unplannable(
            f"no plan for Mamba layers that keep a state for each block (mamba_cache_mode all of vLLM "
            f"{vllm_version[:20]})"
        )
    checkpoints = any(isinstance(m, Mamba2) or (isinstance(m, KimiDelta) and m.checkpoints) for m in mixers)
    # One more is set aside for the state at the last block's boundary.
    return 3 if checkpoints and version >= PREFILL_CHECKPOINTS else 2

"""What vLLM takes otherwise beside weights and cache from one version to another: the thresholds, all of them.

| from | what changes |
|---|---|
| 0.12 | FlashInfer no longer samples where it happens to be installed |
| 0.13 | the experts take at most 16,384 tokens at once, before 65,536 |
| 0.17 | the experts' workspace outlives the forward, of all tokens at once; the all-reduce is fused with the norm |
| 0.20 | CUDA graphs are reserved; torch.compile's copy of the embedding |
| 0.21 | the all-reduce is fused with data parallelism and pipeline stages too, but for stages in 0.23 |
| 0.23 | the second model runner, for some; frames of a video in pieces |
| 0.25 | the second model runner for dense models; encoders' norms are not fused; multicast for the fused all-reduce |
| 0.27 | the snapshot of memory is taken after NCCL has started; a freed copy of the embedding may still count |
| 0.27 | the workspace of the fused all-reduce is not rounded up |
| 0.28 | the second model runner profiles graphs and encoders; larger batches by default on huge devices |
| 0.30 | the second model runner for all |
| 0.32 | the freed copy no longer counts |

What was fitted for versions before and after one has a row for each in data/overheads.yaml (`before`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kaito_catalog.architectures.as_built import version_tuple

Version = tuple[int, int, int]

FLASHINFER_WHERE_INSTALLED = (0, 11, 1)
"""Before, FlashInfer samples where it happens to be installed, as it is in vLLM's own images (topk_topp_sampler.py of
0.10.1.1 to 0.11.0); later only where VLLM_USE_FLASHINFER_SAMPLER says so, and from 0.21 on by default: by then it takes
as much as the sampler that came with NEW_SAMPLER."""
NEW_SAMPLER = (0, 17, 0)
WORKSPACE_KEPT = (0, 17, 0)
"""The experts' buffers: seen with Qwen1.5-MoE and Kimi-VL on 0.19.0, not on 0.10.2."""
FUSED_ALL_REDUCE = (0, 17, 0)
"""fuse_allreduce_rms in OPTIMIZATION_LEVEL_02 of vllm/config/vllm.py: False in 0.16.0, by GPU in 0.17.0."""
FUSED_IN_GROUPS, NOT_IN_STAGES = (0, 21, 0), (0, 23)
"""Neither with data parallelism nor with pipeline stages in 0.17.0 to 0.20.0, with both in 0.22.1 and from 0.24.0 on,
without stages again in 0.23.0."""
MULTICAST_FIRST = (0, 25, 0)
"""From when FlashInfer's kernel for multicast is tried before TensorRT-LLM's, whose workspace stays for quantised
patterns (_resolve_fi_ar_backend: 0.23.0 does not, 0.25.1 does)."""
WORKSPACE_NOT_ROUNDED = (0, 27, 0)
"""FlashInfer up to 0.6.14 (vLLM 0.26.0) rounds each buffer up to what multicast wants, used or not (mnnvl.py,
_get_allocation_prop); 0.6.16 (0.27.1) only where it is used."""
EXPERTS_AT_ONCE: tuple[tuple[Version, int], ...] = (((0, 13, 0), 65536), ((0, 17, 0), 16384))
"""Tokens that the fused experts take at once before a version (VLLM_FUSED_MOE_CHUNK_SIZE in vllm/envs.py: 64 × 1024 in
0.10.2 and 0.11.0, 16 × 1024 in 0.13.0 and 0.16.0, gone in 0.19.0)."""
GRAPHS_RESERVED = (0, 20, 0)
"""VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS is on: vLLM says from 0.21 on, and its logs of 0.20.0
and 0.20.2 already do it."""
GRAPHS_ESTIMATED = (0, 19, 0)
"""From when vLLM makes the estimate at all; read in 0.19.0, where the variable is off by default."""
COMPILED_COPY = (0, 20, 0)
"""While torch.compile benchmarks its kernels it holds a second embedding (benchmark_combo_kernel): Qwen3-8B on an RTX
4090, vLLM 0.27.1, had a peak of 1.18 GiB at its first start and 0.19 GiB once its graphs were cached; the table has
1.16."""
COPY_PINNED, COPY_RELEASED = (0, 27, 0), (0, 32, 0)
"""Where vLLM measures what is gone rather than what torch asked for, the freed copy may still count, until it keeps the
allocator from splitting large blocks (gpu_worker.py of 0.32.0 says why).

It counted for both dense models that Marlin repacks after loading (Qwen3-14B-AWQ with 0.28.0, a 3B AWQ model with
0.29.0) and for Qwen3-32B with batches of 8192 tokens (0.27.1), so that it is planned for such. It did not for Qwen3-8B
(0.27.1) and Llama-3.1-8B (0.31.0) with batches of 2048 tokens, nor for Qwen3-30B-A3B-GPTQ (0.28.0): there it is in the
expected error alone. With Qwen2.5-0.5B and 8192 tokens (0.27.1) it did not count and is planned, 1.1 % of the GPU."""
ENCODER_PIECES = (0, 23, 0)
"""Gemma 4's frames all at once with 0.20.2 (26B on an RTX 5090), a tenth of the GPU at a time with 0.23.0 (31B)."""
NATIVE_NORMS = (0, 25, 0)
"""From when an encoder's norms are not fused: read in 0.25.1's platforms/cuda.py; Qwen2.5-VL with 0.23.0 (A100) had
36 kB of bfloat16 a patch, 40 kB by 0.25.1's classes, 35 kB with norms that add in place."""
SECOND_RUNNER_FOR_SOME = (0, 23, 0)
"""vLLM's second model runner (VllmConfig.use_v2_model_runner), for SOME_ARCHITECTURES where nothing is quantised; read
in vllm/config/vllm.py of 0.25.1 and 0.32.0, and in logs of 0.23.0 to 0.31.0, as the next three."""
SECOND_RUNNER_FOR_DENSE = (0, 25, 0)
"""For every model without experts and states, and for EXPERT_ARCHITECTURES."""
SECOND_RUNNER_PROFILES = (0, 28, 0)
"""At first it set nothing aside for CUDA graphs and did not run an encoder while it measured (vllm-project/vllm#49224,
mended by #53306)."""
SECOND_RUNNER_FOR_ALL = (0, 30, 0)
SNAPSHOT_MOVED = (0, 27, 0)
"""What NCCL allocates first is in the snapshot that the rest is measured against."""
HUGE_DEVICES = (0, 28, 0)
"""EngineArgs.get_batch_defaults; 0.27.1 does not have them."""
FITTED, FITTED_BEFORE = (0, 17, 0), (0, 20, 0)
"""The versions whose starts the constants were fitted on."""

SOME_ARCHITECTURES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"})
EXPERT_ARCHITECTURES = frozenset({"DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM"})


def fitted(rows: Sequence[Mapping[str, Any]], version: Version, **match: object) -> float:
    """The value of the first row of data/overheads.yaml that is for that version and matches."""
    for row in rows:
        if any(row.get(key) != value for key, value in match.items()):
            continue
        if "before" not in row or version < version_tuple(row["before"]):
            return float(row["value"])
    raise AssertionError("overheads.yaml ends each list with a row for all later versions")

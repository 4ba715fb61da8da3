"""What the GPUs of a model keep to talk to each other: NCCL's buffers, and the workspace of the fused all-reduce."""

from __future__ import annotations

from collections.abc import Mapping

from kaito_catalog.architectures.as_built import HOPPER, version_tuple
from kaito_catalog.memory.overheads.constants import constants
from kaito_catalog.memory.overheads.links import BLACKWELL, Link
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.memory.overheads.versions import (
    FUSED_ALL_REDUCE,
    FUSED_IN_GROUPS,
    MULTICAST_FIRST,
    NOT_IN_STAGES,
    SNAPSHOT_MOVED,
    WORKSPACE_NOT_ROUNDED,
)
from kaito_catalog.memory.rounding import round_up

MIB = 2**20


def communication_bytes(run: ProfileRun) -> int:
    """What NCCL and vLLM's own all-reduce keep on a GPU beside the fusion's workspace; 0 on one GPU."""
    if run.tensor_parallel_size == 1:
        return 0
    by_link: Mapping[str, Mapping[int, int]] = constants()["communication"]
    of_sizes = by_link[run.link.value]
    size = of_sizes[max(ranks for ranks in of_sizes if ranks <= run.tensor_parallel_size)]
    if version_tuple(run.vllm_version) >= SNAPSHOT_MOVED and run.link is Link.SWITCH:
        size = int(size * constants()["communicationAfterSnapshot"])
    return size


# What is fused at most, in MiB of one tensor, by compute capability and tensor-parallel size
# (FI_ALLREDUCE_FUSION_MAX_SIZE_MB; the same in 0.17.0 to 0.33.0 but for 10.3's 8 ranks).
_MOST_FUSED: Mapping[int, Mapping[int, float]] = {
    90: {2: 64, 4: 2, 8: 0.5},
    100: {2: 64, 4: 32, 8: 1},
    103: {2: 64, 4: 64, 8: 2},
}
_GRANULARITY = {HOPPER: 512 * MIB, BLACKWELL: 2 * MIB}
"""Of memory for multicast (CU_MULTICAST_GRANULARITY_RECOMMENDED): on H100 the workspace is 1.5 GiB however little is
asked for (2.07 GiB beside torch at TP 2 and 2.13 at TP 4, vLLM 0.19.0, where 0.11.0 without it had 0.55); on GB200 it
is what is asked for (0.95 GiB with 0.26.0)."""


def fuses_all_reduce(run: ProfileRun) -> bool:
    """Whether vLLM fuses the all-reduce with the norm after it (enable_allreduce_rms_fusion), and has what it takes."""
    version, capability = version_tuple(run.vllm_version), run.compute_capability or float(HOPPER)
    if run.tensor_parallel_size not in _MOST_FUSED.get(round(10 * capability), {}):
        return False
    if run.link is not Link.SWITCH and version < WORKSPACE_NOT_ROUNDED:
        return False  # FlashInfer asks for multicast, and vLLM goes on without
    asked = run.compilation.fuse_allreduce_rms
    if asked is not None or run.enforce_eager:
        return bool(asked) and not run.enforce_eager
    if version < FUSED_ALL_REDUCE:
        return False
    if run.pipeline_parallel_size > 1 and (version < FUSED_IN_GROUPS or version[:2] == NOT_IN_STAGES):
        return False
    return run.data_parallel_size == 1 or version >= FUSED_IN_GROUPS


def fusion_workspace(run: ProfileRun) -> int:
    """FlashInfer's workspaces for the fused all-reduce, in bytes.

    Three buffers of TensorRT-LLM's kernel, of which one holds three times as much (trtllm_ar.py), and where multicast
    is to be had first, one of its kernel for that (trtllm_mnnvl_ar.py).
    """
    if not fuses_all_reduce(run):
        return 0
    version, capability = version_tuple(run.vllm_version), run.compute_capability or float(HOPPER)
    ranks = run.tensor_parallel_size
    token = run.shape.hidden_size * run.shape.dtype_bytes
    most = int(_MOST_FUSED[round(10 * capability)][ranks] * MIB)
    tensor = min(most // token, run.max_num_batched_tokens) * token
    granularity = _GRANULARITY[int(capability)]
    plain = granularity if version < WORKSPACE_NOT_ROUNDED else 2 * MIB
    total = sum(round_up(size, plain) for size in (ranks * tensor, 1, 3 * ranks * tensor))
    if version >= MULTICAST_FIRST and run.link is Link.SWITCH:
        total += round_up(3 * 2 * tensor, granularity)
    return total

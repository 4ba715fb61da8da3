"""The batch and the number of sequences that `vllm serve` takes by default on a device."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.memory.overheads.versions import HUGE_DEVICES
from kaito_catalog.quantity import GIB


@dataclass(frozen=True)
class Defaults:
    """What `vllm serve` takes by default on a device."""

    max_num_batched_tokens: int
    max_num_seqs: int


LARGE_DEVICE_BYTES = 70 * GIB
HUGE_DEVICE_BYTES = 160 * GIB


def serve_defaults(
    gpu_name: str | None,
    memory_bytes: int,
    vllm_version: str | None = None,
    *,
    is_unified: bool = False,
) -> Defaults:
    """vLLM's EngineArgs.get_batch_defaults for the OpenAI server.

    A device with at least 70 GiB that is not an A100 takes 8192 tokens and 1024 sequences, others 2048
    and 256; newer versions take 16384 tokens from 160 GiB on. NVML does not tell the memory of GB10, so that it is
    small by default ("Chunked prefill is enabled with max_num_batched_tokens=2048" with 0.13.0); 0.33.0 says so too.
    """
    version = version_tuple(vllm_version) if vllm_version is not None else None
    is_later = version is not None and version >= HUGE_DEVICES
    if is_later and memory_bytes >= HUGE_DEVICE_BYTES:
        return Defaults(16384, 1024)
    if memory_bytes >= LARGE_DEVICE_BYTES and "a100" not in (gpu_name or "").lower() and not is_unified:
        return Defaults(8192, 1024)
    return Defaults(2048, 256)

"""`evidence/*.yaml`: what running vLLM showed: an exact plan of its own code, or a dry run of an engine."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue

from kaito_catalog.formats.base import (
    API_VERSION,
    Bytes,
    Count,
    IsoDate,
    Items,
    Model,
    Number,
    Revision,
    Sha256,
    Text,
)

Amount = Annotated[float, Field(ge=0)]


class Versions(Model):
    """What ran."""

    vllm: Text
    torch: str | None = None
    transformers: str | None = None
    cuda: str | None = None
    driver: str | None = None


class GpuUsed(Model):
    """The device, real or simulated."""

    name: Text
    count: Count = 1
    memory_bytes: Bytes | None = None
    compute_capability: Number | None = None


class Parallelism(Model):
    """How the model is split."""

    tensor_parallel_size: Count = 1
    pipeline_parallel_size: Count = 1
    data_parallel_size: Count = 1
    enable_expert_parallel: bool = False


class ExactRank(Model):
    """What vLLM's own code allocates on one rank."""

    rank: Annotated[int, Field(ge=0)]
    weights_bytes: Bytes
    """Parameters; buffers are apart."""
    buffer_bytes: Bytes
    weights_by_dtype: dict[str, Bytes]
    after_loading_bytes: Bytes | None = None
    """Where vLLM repacks weights after loading."""


class ExactKvCache(Model):
    """What vLLM's planner says about the KV cache."""

    max_model_len: Count
    needed_bytes: Bytes
    """What vLLM asks for one request of `maxModelLen` tokens, groups padded."""
    needed_by_layers_bytes: Bytes | None = None
    """The same without the padding of groups."""
    groups: Items[dict[str, JsonValue]] | None = None
    """Each group's layers, kind, block size, bytes of a page."""


class ExactWorld(Model):
    """One parallelism of an exact plan."""

    parallelism: Parallelism
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    kv_cache_dtype: str | None = None
    """What was asked for; absent: vLLM's default."""
    ranks: Items[ExactRank] | None = None
    kv_cache: ExactKvCache | None = None
    refused: str | None = None
    """vLLM's own reason where it refuses."""


class ExactPlan(Model):
    """What vLLM's own model classes allocate; no GPU is involved."""

    api_version: API_VERSION
    kind: Literal["ExactPlan"]
    model: Text
    revision: Revision | None = None
    config_sha256: Sha256
    """Of the configuration the plan was made from (canonical JSON)."""
    versions: Versions
    gpu: GpuUsed
    """What was simulated."""
    recorded_at: IsoDate
    worlds: Annotated[Items[ExactWorld], Field(min_length=1)]


Outcome: TypeAlias = Literal["served", "does-not-fit", "failed"]
FailureClass: TypeAlias = Literal[
    "out-of-memory", "unsupported-architecture", "bad-option", "missing-kernel", "time-out", "other"
]


class MeasuredRank(Model):
    """What one rank measured."""

    rank: Annotated[int, Field(ge=0)]
    weights_bytes: Bytes | None = None
    non_torch_bytes: Bytes | None = None
    activation_peak_bytes: Bytes | None = None
    cuda_graph_bytes: Bytes | None = None
    kv_cache_bytes: Bytes | None = None


class DryRun(Model):
    """One start of a real engine."""

    api_version: API_VERSION
    kind: Literal["DryRun"]
    model: Text
    revision: Revision | None = None
    config_sha256: Sha256
    versions: Versions
    device: Literal["cuda", "cpu"]
    gpu: GpuUsed | None = None
    host: str | None = None
    parallelism: Parallelism = Parallelism.model_construct()
    command: Items[str]
    weights: Literal["dummy", "real"]
    scaled_down: dict[str, JsonValue] | None = None
    """Fields of the configuration that were made smaller; absent when the model ran as it is."""
    outcome: Outcome
    failure: FailureClass | None = None
    message: str | None = None
    """vLLM's own words."""
    ranks: Items[MeasuredRank] | None = None
    kv_cache_tokens: Bytes | None = None
    max_concurrency: Amount | None = None
    load_seconds: Amount | None = None
    startup_seconds: Amount | None = None
    generated_tokens: Bytes | None = None
    recorded_at: IsoDate
    log: Items[str] | None = None
    """The lines the figures were read from."""

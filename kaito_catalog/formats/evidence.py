"""`evidence/*.yaml`: what running vLLM showed: an exact plan of its own code, a dry run, a start that is reported."""

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
    """The release, such as `0.25.1`."""
    torch: str | None = None
    """With its build, such as `2.11.0+cpu`."""
    transformers: str | None = None
    """The release."""
    cuda: str | None = None
    """That torch was built for."""
    driver: str | None = None
    """Of the GPU."""


class GpuUsed(Model):
    """The device, real or simulated."""

    name: Text
    """As the driver calls it."""
    count: Count = 1
    """How many took part."""
    memory_bytes: Bytes | None = None
    """Of each, as the driver reports it."""
    compute_capability: Number | None = None
    """Such as 9.0."""


class Parallelism(Model):
    """How the model is split."""

    tensor_parallel_size: Count = 1
    """GPUs over which each layer is divided."""
    pipeline_parallel_size: Count = 1
    """Stages of whole layers."""
    data_parallel_size: Count = 1
    """Copies that take requests of their own."""
    enable_expert_parallel: bool = False
    """Whether experts are dealt out whole."""


class ExactRank(Model):
    """What vLLM's own code allocates on one rank."""

    rank: Annotated[int, Field(ge=0)]
    """Its number, from 0."""
    weights_bytes: Bytes
    """Parameters; buffers are apart."""
    buffer_bytes: Bytes
    """Tensors that are no parameters, such as rotary tables."""
    weights_by_dtype: dict[str, Bytes]
    """The parameters, in bytes by dtype."""
    after_loading_bytes: Bytes | None = None
    """Where vLLM repacks weights after loading."""


class ExactKvCache(Model):
    """What vLLM's planner says about the KV cache."""

    max_model_len: Count
    """The context that was asked for, in tokens."""
    needed_bytes: Bytes
    """What vLLM asks for one request of `maxModelLen` tokens, groups padded."""
    needed_by_layers_bytes: Bytes | None = None
    """The same without the padding of groups."""
    groups: Items[dict[str, JsonValue]] | None = None
    """Each group's layers, kind, block size, bytes of a page."""


class ExactWorld(Model):
    """One parallelism of an exact plan."""

    parallelism: Parallelism
    """How the model was split."""
    max_num_batched_tokens: Count | None = None
    """Tokens of a step, as vLLM chose or was told."""
    max_num_seqs: Count | None = None
    """Requests at once, as vLLM chose or was told."""
    kv_cache_dtype: str | None = None
    """What was asked for; absent: vLLM's default."""
    ranks: Items[ExactRank] | None = None
    """What each rank holds."""
    kv_cache: ExactKvCache | None = None
    """Absent where the model keeps none."""
    refused: str | None = None
    """vLLM's own reason where it refuses."""


class ExactPlan(Model):
    """What vLLM's own model classes allocate; no GPU is involved."""

    api_version: API_VERSION
    kind: Literal["ExactPlan"]
    model: Text
    """The entry's name."""
    revision: Revision | None = None
    """The commit of the configuration."""
    config_sha256: Sha256
    """Of the configuration the plan was made from (canonical JSON)."""
    versions: Versions
    """What computed it."""
    gpu: GpuUsed
    """What was simulated."""
    recorded_at: IsoDate
    """The day of the run."""
    worlds: Annotated[Items[ExactWorld], Field(min_length=1)]
    """One for each parallelism that was asked for."""


Outcome: TypeAlias = Literal["served", "does-not-fit", "failed"]
FailureClass: TypeAlias = Literal[
    "out-of-memory",
    "unsupported-architecture",
    "bad-option",
    "missing-kernel",
    "illegal-instruction",
    "time-out",
    "other",
]


class MeasuredRank(Model):
    """What one rank measured."""

    rank: Annotated[int, Field(ge=0)]
    """Its number, from 0."""
    weights_bytes: Bytes | None = None
    """What loading took."""
    non_torch_bytes: Bytes | None = None
    """What CUDA, NCCL and others took beside torch."""
    activation_peak_bytes: Bytes | None = None
    """The most that the profile run held at once."""
    cuda_graph_bytes: Bytes | None = None
    """What vLLM estimated for CUDA graphs."""
    kv_cache_bytes: Bytes | None = None
    """What was left, and is the cache."""


class DryRun(Model):
    """One start of a real engine."""

    api_version: API_VERSION
    kind: Literal["DryRun"]
    model: Text
    """The entry's name."""
    revision: Revision | None = None
    """The commit that was loaded."""
    config_sha256: Sha256
    """Of the configuration that ran (canonical JSON)."""
    versions: Versions
    """What ran."""
    device: Literal["cuda", "cpu"]
    """What it ran on; a `cpu` run proves that the engine starts, not its memory."""
    gpu: GpuUsed | None = None
    """Absent on a CPU."""
    host: str | None = None
    """What the machine is, in words."""
    parallelism: Parallelism = Parallelism.model_construct()
    """How the model was split."""
    command: Items[str]
    """The command line of the same start."""
    weights: Literal["dummy", "real"]
    """`dummy` weights have the shapes of the real ones and random values."""
    scaled_down: dict[str, JsonValue] | None = None
    """Fields of the configuration that were made smaller; absent when the model ran as it is."""
    outcome: Outcome
    """How it ended."""
    failure: FailureClass | None = None
    """Its kind, where it failed."""
    message: str | None = None
    """vLLM's own words."""
    ranks: Items[MeasuredRank] | None = None
    """What each rank measured."""
    kv_cache_tokens: Bytes | None = None
    """Tokens that the cache holds."""
    max_concurrency: Amount | None = None
    """Requests of the whole context that it holds at once."""
    load_seconds: Amount | None = None
    """Of loading alone, where it was measured."""
    startup_seconds: Amount | None = None
    """Of the whole run: reading the configuration, starting, answering."""
    generated_tokens: Bytes | None = None
    """What it answered with before it was stopped."""
    recorded_at: IsoDate
    """The day of the run."""
    log: Items[str] | None = None
    """The lines the figures were read from."""


SignedBytes = Annotated[int, Field(ge=-(10**18), le=10**18)]
"""A size that vLLM prints with its sign: the cache's memory is negative where the model alone needs more."""


class ReportedVersions(Model):
    """What ran, as far as the log says."""

    vllm: Text
    """As it was printed, with local parts."""


class ReportedGpu(Model):
    """The device, as far as the log, or who reports it, says."""

    name: Text | None = None
    """As gpus.yaml calls it, or as the log does."""
    count: Count | None = None
    """How many took part."""
    memory_bytes: Bytes | None = None
    """Of each, as the driver reported it to vLLM."""
    free_bytes: Bytes | None = None
    """Of that, what was free when vLLM started."""
    compute_capability: Number | None = None
    """Such as 9.0."""


class ReportedParallelism(Model):
    """How the model was split; what the log does not say is absent, not one."""

    tensor_parallel_size: Count | None = None
    """GPUs over which each layer is divided."""
    pipeline_parallel_size: Count | None = None
    """Stages of whole layers."""
    data_parallel_size: Count | None = None
    """Copies that take requests of their own."""
    enable_expert_parallel: bool | None = None
    """Whether experts are dealt out whole."""


class ReportedRank(Model):
    """What one rank printed, in the decimals it was printed with."""

    rank: Annotated[int, Field(ge=0)] | None = None
    """Its number within a data-parallel copy; absent where the lines do not name it."""
    data_parallel_rank: Annotated[int, Field(ge=0)] | None = None
    """The copy, where several printed."""
    weights_bytes: Bytes | None = None
    """What loading took."""
    non_torch_bytes: Bytes | None = None
    """What CUDA, NCCL and others took beside torch."""
    activation_peak_bytes: Bytes | None = None
    """The most that the profile run held at once."""
    cuda_graph_bytes: Bytes | None = None
    """What CUDA graphs took when they were captured."""
    cuda_graph_estimate_bytes: Bytes | None = None
    """What vLLM set aside for them before."""
    kv_cache_bytes: SignedBytes | None = None
    """What was left for the cache."""


class ReportedRefusal(Model):
    """Why vLLM did not go on: the figures of its own message."""

    what: Literal["kv-cache", "free-memory"]
    """`kv-cache`: the cache of one request; `free-memory`: others hold what vLLM was told to use."""
    needed_bytes: Bytes | None = None
    """Of each GPU."""
    available_bytes: SignedBytes | None = None
    """Of each GPU."""
    max_model_len: Count | None = None
    """The context that was asked for, in tokens."""
    estimated_max_model_len: Count | None = None
    """What vLLM says would fit, in tokens."""


class ReportedPerformance(Model):
    """What KAITO's own benchmark measured after the start, from the status of a Workspace or InferenceSet."""

    peak_tokens_per_minute: Amount | None = None
    """Of one Workspace."""
    aggregated_peak_tokens_per_minute: Amount | None = None
    """The sum over the Workspaces of an InferenceSet."""
    replicas: Count | None = None
    """Workspaces that were added up, where the status says that all were."""
    description: Text | None = None
    """The kind of load, such as `stress/high-concurrency`."""
    config: dict[str, str] | None = None
    """How it was measured, in KAITO's keys: `engine`, `engineVersion`, `inputTokens`, …"""


class ReportedRun(Model):
    """One start of vLLM that somebody else's log shows; nobody of this catalog has measured it."""

    api_version: API_VERSION
    kind: Literal["ReportedRun"]
    model: str | None = None
    """The entry's name; outside a catalog the repository that the log names."""
    revision: Revision | None = None
    """The commit, where the log names one."""
    versions: ReportedVersions | None = None
    """What ran."""
    device: str | None = None
    """The kind that vLLM names, such as `cuda`."""
    gpu: ReportedGpu | None = None
    """What is known of the GPU."""
    parallelism: ReportedParallelism | None = None
    """How the model was split."""
    command: Items[str] | None = None
    """The command line, where the log shows it."""
    arguments: dict[str, JsonValue] | None = None
    """What was set beside vLLM's defaults, by its options' names; no secrets, no addresses."""
    engine: dict[str, JsonValue] | None = None
    """What vLLM settled on, of what memory depends on."""
    max_model_len: Count | None = None
    """The context that it started with, in tokens."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share that it was to use."""
    outcome: Outcome | None = None
    """How it ended; absent where the log ends before."""
    failure: FailureClass | None = None
    """Its kind, where it failed."""
    message: str | None = None
    """vLLM's own words."""
    refusal: ReportedRefusal | None = None
    """Where vLLM refused for want of memory."""
    ranks: Items[ReportedRank] | None = None
    """What each rank printed."""
    kv_cache_tokens: Bytes | None = None
    """Tokens that the cache holds; the fewest where several printed."""
    max_concurrency: Amount | None = None
    """Requests of the whole context that it holds at once; the fewest where several printed."""
    load_seconds: Amount | None = None
    """Of loading alone; the longest where several printed."""
    instance_type: Text | None = None
    """The machine that a Workspace's nodes are, or that it asks for."""
    node_count: Count | None = None
    """The nodes of a Workspace, by its status."""
    performance: ReportedPerformance | None = None
    """Tokens per minute, where KAITO measured them."""
    reported_by: str | None = None
    """Who reports it."""
    source: str | None = None
    """Where the log can be read."""
    log_sha256: Sha256 | None = None
    """Of the log as it was given, so that whoever has it can read it again."""
    recorded_at: IsoDate
    """The day on which it was read."""
    lines: Items[str]
    """The lines that it was read from, without secrets, folders and hosts."""

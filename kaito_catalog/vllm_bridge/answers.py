"""What the worker answers: its JSON as types, sizes in bytes and durations in seconds."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]


class GpuToSimulate(TypedDict):
    """A GPU to simulate; `capability` is `major.minor`, `memoryBytes` the total that the driver reports."""

    name: str
    capability: str
    memoryBytes: int


class VersionsAnswer(TypedDict):
    vllmVersion: str
    torchVersion: str
    transformersVersion: str


class CacheLayers(TypedDict):
    """Layers of one kind, or a group of them, as vLLM's planner has them."""

    layers: int
    kind: str
    blockSize: int
    pageBytes: int
    dtype: NotRequired[str]
    slidingWindow: NotRequired[int]
    attentionChunkSize: NotRequired[int]
    pageBytesPadded: NotRequired[int]
    kvHeads: NotRequired[int]
    headSize: NotRequired[int]
    stateBytes: NotRequired[int]


class Budget(TypedDict):
    bytes: int
    source: Literal["given", "weights-only"]


class KvCachePlan(TypedDict):
    """`neededBytes` is what vLLM's admission check asks for one request of `maxModelLen`, groups padded.

    `reservedBytes` is what has to be free beside it, from 0.29 on.
    """

    layers: list[CacheLayers]
    groups: list[CacheLayers]
    layersSharingAnothersCache: int
    bytesPerTokenPerGPU: float
    budget: Budget
    neededBytes: int
    reservedBytes: int
    neededByLayersBytes: NotRequired[int]
    neededBlocks: int
    blockBytes: NotRequired[int]
    fits: bool
    refusal: NotRequired[str]
    blocks: int | None
    tokens: int | None
    maxConcurrency: float | None
    longestModelLen: int | None


class AfterLoading(TypedDict):
    """Sums after vLLM's repacking; `known` false has only `reason`."""

    known: bool
    reason: NotRequired[str]
    weightsBytes: NotRequired[int]
    weightsBytesByDtype: NotRequired[dict[str, int]]
    bufferBytes: NotRequired[int]
    otherBytes: NotRequired[int]


class PerGpuAnswer(TypedDict):
    """`kvCacheNeededBytes` is what has to be free for the cache before vLLM starts, as a plan's figure of that name."""

    weightsBytes: int
    weightsBytesByDtype: dict[str, int]
    bufferBytes: int
    afterLoading: AfterLoading
    kvCacheNeededBytes: int


class RankPlan(TypedDict):
    dataParallelRank: int
    pipelineRank: int
    tensorRank: int
    standsForRanks: int
    weightsBytes: int
    weightsBytesByDtype: dict[str, int]
    bufferBytes: int
    bufferBytesByDtype: dict[str, int]
    afterLoading: AfterLoading
    kvCacheLayers: int
    kvCacheBytesPerToken: float


class SettingsAnswer(TypedDict):
    """What vLLM settled on, the defaults of `vllm serve` for this GPU included."""

    tensorParallelSize: int
    pipelineParallelSize: int
    dataParallelSize: int
    enableExpertParallel: bool
    maxModelLen: int
    maxNumBatchedTokens: int
    maxNumSeqs: int
    gpuMemoryUtilization: float
    blockSize: int
    enforceEager: bool
    asyncScheduling: bool
    maxConcurrentBatches: int | None
    hybridKvCacheManager: bool
    attentionBackends: NotRequired[list[str]]


class Arguments(TypedDict):
    """Arguments of a command line: what the engine was made with, what only the server reads, what `args` overrode."""

    engine: list[str]
    server: list[str]
    overridden: list[str]


class ExactPlanAnswer(VersionsAnswer):
    """What vLLM's own classes allocate; `perGPU` is the rank with least room for KV cache."""

    architecture: str
    modelClass: str
    dtype: str
    quantization: str | None
    kvCacheDtype: str
    gpu: GpuToSimulate | None
    device: Literal["cuda", "cpu"]
    settings: SettingsAnswer
    perGPU: PerGpuAnswer
    arguments: NotRequired[Arguments]
    ranks: list[RankPlan]
    kvCache: KvCachePlan
    seconds: float


class Registry(VersionsAnswer):
    architectures: list[str]
    architectureEndings: list[str]
    removedArchitectures: dict[str, str]
    toolParsers: list[str]
    reasoningParsers: list[str]


class OptionAnswer(TypedDict):
    name: str
    type: str
    default: Any
    choices: NotRequired[list[str]]
    aliases: NotRequired[list[str]]
    negation: NotRequired[str]
    nargs: NotRequired[str]
    minimum: NotRequired[float]
    exclusiveMinimum: NotRequired[float]
    maximum: NotRequired[float]
    exclusiveMaximum: NotRequired[float]


class OptionsAnswer(VersionsAnswer):
    options: dict[str, OptionAnswer]


class OptionFinding(TypedDict):
    """`option` is None where vLLM's message does not single one out."""

    option: str | None
    kind: Literal[
        "unknown-option",
        "invalid-value",
        "switched-on",
        "stray-value",
        "refused-together",
        "configuration",
        "unsupported-architecture",
    ]
    message: str
    nearest: NotRequired[str]
    parsed: NotRequired[bool]


class OptionReport(VersionsAnswer):
    accepted: bool
    findings: list[OptionFinding]
    expansion: list[str]
    unrecognized: list[str]
    resolved: Json | None


# `class` is a keyword, so it cannot be written as a field below.
_FailureClass = TypedDict("_FailureClass", {"class": str}, total=False)


class RunOutcome(_FailureClass, TypedDict):
    """A dry run or a served request: `class` and `message` where it failed, byte figures where it does not fit.

    What else a dry run reports (`ranks`, `kvCache`, `settings`, `hardware`, `tokensGenerated`) is in docs/vllm.md.
    """

    outcome: Literal["served", "does-not-fit", "failed"]
    message: NotRequired[Any]
    exception: NotRequired[str]
    log: NotRequired[list[str]]
    seconds: NotRequired[dict[str, float]]
    neededBytes: NotRequired[int]
    availableBytes: NotRequired[int]
    longestModelLen: NotRequired[int]

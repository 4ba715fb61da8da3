"""A log → `kind: ReportedRun`, one for each start: what it says and no more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kaito_catalog.vllm_bridge.start_logs.lines import Process
from kaito_catalog.vllm_bridge.start_logs.private import is_private_option, kept
from kaito_catalog.vllm_bridge.start_logs.starts import LoggedStart, known, read_starts

API_VERSION = "catalog.kaito.sh/v1alpha1"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?(?::[\w.-]+)?")
_IN_A_CACHE = re.compile(r"\bmodels--([\w.-]+?)--([\w.-]+)(?:/snapshots/([0-9a-f]{40}))?(?:/|\Z)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SIZES = {"tensor_parallel_size": "tensorParallelSize", "pipeline_parallel_size": "pipelineParallelSize",
          "data_parallel_size": "dataParallelSize"}  # fmt: skip
_SETTLED = ("dtype", "quantization", "kv_cache_dtype", "enforce_eager", "load_format", "enable_prefix_caching",
            "enable_chunked_prefill", "chunked_prefill_enabled", "trust_remote_code", "speculative_config",
            "decode_context_parallel_size")  # fmt: skip
_FIELDS = {
    "weights_bytes": "weightsBytes",
    "non_torch_bytes": "nonTorchBytes",
    "activation_peak_bytes": "activationPeakBytes",
    "cuda_graph_bytes": "cudaGraphBytes",
    "cuda_graph_estimate_bytes": "cudaGraphEstimateBytes",
    "kv_cache_bytes": "kvCacheBytes",
}
MOST_LINES = 60


class Digest:
    """The lines of a log, and the SHA-256 of what was read once all are."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._sha256.update(line.encode("utf-8", "surrogatepass"))
            yield line

    @property
    def hex(self) -> str:
        """Of the lines so far, in UTF-8."""
        return self._sha256.hexdigest()


def reported_runs(
    text: Iterable[str],
    *,
    today: str,
    model: str | None = None,
    gpu: str | None = None,
    reported_by: str | None = None,
    source: str | None = None,
) -> list[dict[str, Any]]:
    """`kind: ReportedRun` of each start that a log shows, in order.

    Args:
        text: the log's lines.
        today: the day it is read.
        model: what was started, where the log does not name it.
        gpu: the GPU's name, where the log does not name it.
        reported_by: who reports it.
        source: where it can be read.
    """
    lines = Digest(text)
    starts = read_starts(lines)
    given = {"reportedBy": reported_by, "source": source, "logSha256": lines.hex, "recordedAt": today}
    return [_run(start, model=model, gpu=gpu) | known(given) | {"lines": _lines(start)} for start in starts]


def _lines(start: LoggedStart) -> list[str]:
    reason = [] if start.served else [shown for _, found, shown in start.failures if found is _reason(start)]
    for line in reason[:1]:
        start.keep(line)
    return start.lines[:MOST_LINES]


def _run(start: LoggedStart, *, model: str | None, gpu: str | None) -> dict[str, Any]:
    name, revision = _model(start)
    arguments, engine = start.arguments or {}, start.engine or {}
    device = engine.get("device_config") or _first(start, "platform")
    utilization = arguments.get("gpu_memory_utilization")
    if not isinstance(utilization, float | int):
        utilization = _first(start, "utilization")
    return {
        "apiVersion": API_VERSION,
        "kind": "ReportedRun",
        **known(
            {
                "model": model or name,
                "revision": revision,
                "versions": {"vllm": start.versions[-1]} if start.versions else None,
                "device": device if isinstance(device, str) and re.fullmatch(r"\w{1,20}", device) else None,
                "gpu": _gpu(start, gpu) or None,
                "parallelism": _parallelism(start) or None,
                "command": start.command or None,
                "arguments": _arguments(arguments) or None,
                "engine": _settled(engine) or None,
                "maxModelLen": _max_model_len(start),
                "gpuMemoryUtilization": utilization
                if utilization is not None and 0 < utilization <= 1
                else None,
                **_ending(start),
                "ranks": _ranks(start) or None,
                "kvCacheTokens": _fewest(start, "kv_cache_tokens", "storable_tokens"),
                "maxConcurrency": _fewest(start, "max_concurrency"),
                "loadSeconds": max(start.said.get("load_seconds", []), default=None),
            }
        ),
    }


def _first(start: LoggedStart, name: str) -> Any:
    return next(iter(start.said.get(name, ())), None)


def _fewest(start: LoggedStart, *names: str) -> Any:
    """Ranks and copies print their own: what the engine goes by is the fewest."""
    return min((value for name in names for value in start.said.get(name, ())), default=None)


def _model(start: LoggedStart) -> tuple[str | None, str | None]:
    """The repository and the commit, where the log names them; a folder is no name of a model."""
    arguments, engine = start.arguments or {}, start.engine or {}
    revision = next(
        (
            str(r)
            for r in (engine.get("revision"), arguments.get("revision"))
            if r and _COMMIT.fullmatch(str(r))
        ),
        None,
    )
    for named in (engine.get("model"), arguments.get("model"), arguments.get("model_tag"), *start.models):
        if not isinstance(named, str):
            continue
        if found := _IN_A_CACHE.search(named):
            return f"{found[1]}/{found[2]}", revision or found[3]
        if _REPOSITORY.fullmatch(named):
            return named, revision
    return None, revision


def _gpu(start: LoggedStart, given: str | None) -> dict[str, Any]:
    printed = (*start.said.get("gpu_memory_gib", ()), *start.said.get("gpu_memory_size", ()))
    sizes = _parallelism(start)
    world = start.said.get("world_size")
    if world:
        count: Any = max(world)
    elif {"tensorParallelSize", "pipelineParallelSize"} <= sizes.keys():
        count = sizes["tensorParallelSize"] * sizes["pipelineParallelSize"] * sizes.get("dataParallelSize", 1)
    else:
        count = None
    return known(
        {
            "name": given or _first(start, "gpu_name"),
            "count": count,
            "memoryBytes": min(printed, default=None),
            "freeBytes": min(start.said.get("gpu_free_gib", ()), default=None),
            "computeCapability": _first(start, "capability"),
        }
    )


def _parallelism(start: LoggedStart) -> dict[str, Any]:
    told = [start.engine or {}, start.arguments or {}]
    found = {}
    for name, key in _SIZES.items():
        size = next((values[name] for values in told if isinstance(values.get(name), int)), None)
        if size is not None and not isinstance(size, bool) and size >= 1:  # type: ignore[operator]
            found[key] = size
    experts = (start.arguments or {}).get("enable_expert_parallel") is True
    experts = experts or any(process.number("EP") is not None for process in start.processes.values())
    return {**found, **({"enableExpertParallel": True} if experts else {})}


def _arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if value is None or option == "model-tag" or is_private_option(option) or len(str(value)) > 2000:
            continue
        found[option] = _public(value)
    return found


def _public(value: Any) -> Any:
    if isinstance(value, str):
        return kept(value)
    if isinstance(value, list):
        return [_public(one) for one in value]
    if isinstance(value, dict):
        return {
            name: _public(one) for name, one in value.items() if not is_private_option(name.replace("_", "-"))
        }
    return value


def _settled(engine: Mapping[str, Any]) -> dict[str, Any]:
    names = {"chunked_prefill_enabled": "enable_chunked_prefill"}
    return {
        names.get(name, name).replace("_", "-"): _public(engine[name])
        for name in _SETTLED
        if engine.get(name) is not None and len(str(engine[name])) < 2000
    }


def _max_model_len(start: LoggedStart) -> int | None:
    arguments, engine = start.arguments or {}, start.engine or {}
    told = (_first(start, "auto_max_model_len"), _first(start, "concurrency_of"), engine.get("max_seq_len"))
    refused = [
        found.refusal["maxModelLen"]
        for _, found, _ in start.failures
        if found.refusal and "maxModelLen" in found.refusal
    ]
    for length in (*told, *refused, arguments.get("max_model_len")):
        if isinstance(length, int) and not isinstance(length, bool) and length >= 1:
            return length
    return None


def _reason(start: LoggedStart) -> Any:
    """The error that tells most, the first of several that tell as much."""
    return max((found for _, found, _ in start.failures), key=lambda found: found.weight, default=None)


def _ending(start: LoggedStart) -> dict[str, Any]:
    if start.served:
        return {"outcome": "served"}
    found = _reason(start)
    if found is None:
        return {}
    return {
        "outcome": found.outcome,
        "failure": found.failure_class,
        "message": kept(found.words),
        "refusal": found.refusal,
    }


def _ranks(start: LoggedStart) -> list[dict[str, Any]]:
    sizes = _parallelism(start)
    ranks = []
    for who, fields in start.figures.items():
        number, copy = _number(start, who, start.processes[who], sizes)
        if sizes.get("dataParallelSize", 1) == 1:
            copy = None  # 0.11 to 0.17 print it of the only copy too
        sized = {_FIELDS[name]: size for name, (size, _) in fields.items()}
        ranks.append(
            {
                **known({"rank": number, "dataParallelRank": copy}),
                **{k: sized[k] for k in _FIELDS.values() if k in sized},
            }
        )
    return sorted(ranks, key=lambda rank: (rank.get("dataParallelRank", 0), rank.get("rank", 10**6)))


def _number(
    start: LoggedStart, who: tuple[str, Any], process: Process, sizes: Mapping[str, Any]
) -> tuple[int | None, int | None]:
    """A rank's number in its copy of the model, and the copy: vLLM's tags leave out what there is one of."""
    copy = process.number("DP")
    if (rank := process.number("rank")) is not None:
        return rank, copy
    tensor, stage = process.number("TP"), process.number("PP")
    if tensor is not None or stage is not None:
        if stage and tensor is not None:
            split = sizes.get("tensorParallelSize")
            return (stage * split + tensor if split else None), copy
        return (stage or 0) + (tensor or 0), copy
    is_one_of_one = sizes.get("tensorParallelSize", 1) * sizes.get("pipelineParallelSize", 1) == 1
    if who[0] == "ranks":  # only the copy is named
        return (0 if is_one_of_one else None), copy
    # Without a tag: the only rank there is, or the one that drives the others in the engine before V1.
    return (0 if who == ("one", None) and (is_one_of_one or start.is_v0) else None), copy

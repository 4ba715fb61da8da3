"""What vLLM prints while it starts: each message as a pattern, and what it says.

A figure counts only where its unit or full stop was printed too. vLLM divides by 2**30 wherever it prints GiB, and did
where it printed GB (0.8.2 and before).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

_NUMBER = r"((?<![\d.])-?\d{1,7}(?:\.\d{1,12})?)"
_THOUSANDS = r"(\d{1,3}(?:,\d{3}){1,4}|\d{1,15})"
_SIZES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "GB": 2**30, "TiB": 2**40}


def _pattern(words: str) -> re.Pattern[str]:
    """A blank of `words` stands for any number of them, none where a terminal has broken the line."""
    return re.compile(words.replace(" ", r"\s*"))


@dataclass(frozen=True)
class RankFigure:
    """A figure of one rank."""

    name: str
    """The field of `ReportedRank`."""
    bytes: int
    priority: int
    """Of two messages with the same figure the one with the higher number counts: it has more decimals, or is later."""


@dataclass(frozen=True)
class StartFact:
    """A fact about the whole start."""

    name: str
    value: str | int | float


Reading = RankFigure | StartFact

# Each: the fields of the groups, in order, with their priority; the pattern.
_OF_A_RANK: tuple[tuple[tuple[tuple[str, int], ...], re.Pattern[str]], ...] = (
    ((("weights_bytes", 3),), _pattern(rf"Loading model weights took {_NUMBER} (?:GiB|GB)")),
    ((("weights_bytes", 3),), _pattern(rf"Model loading took {_NUMBER} (?:GiB|GB)")),
    (
        (("weights_bytes", 2), ("non_torch_bytes", 2), ("activation_peak_bytes", 2), ("kv_cache_bytes", 2)),
        _pattern(
            rf"model weights take {_NUMBER}GiB; non_torch_memory takes {_NUMBER}GiB; PyTorch activation"
            rf" peak memory takes "
            rf"{_NUMBER}GiB; the rest of the memory reserved for KV Cache is {_NUMBER}GiB"
        ),
    ),
    ((("activation_peak_bytes", 3),), _pattern(rf"torch peak memory increase: {_NUMBER}GiB")),
    ((("non_torch_bytes", 3),), _pattern(rf"non-torch forward increase memory: {_NUMBER}GiB")),
    ((("weights_bytes", 1),), _pattern(rf"weights memory: {_NUMBER}GiB")),
    ((("kv_cache_bytes", 3),), _pattern(rf"Available KV cache memory: {_NUMBER} GiB")),
    ((("kv_cache_bytes", 4),), _pattern(rf"reserved {_NUMBER} GiB memory for KV Cache as specified by")),
    ((("kv_cache_bytes", 5),), _pattern(rf"KV cache memory reduced to {_NUMBER} GiB")),
    ((("weights_bytes", 1),), _pattern(rf"Actual usage is {_NUMBER} GiB for weight,")),
    ((("activation_peak_bytes", 1),), _pattern(rf"{_NUMBER} GiB for peak activation")),
    ((("non_torch_bytes", 1),), _pattern(rf"{_NUMBER} GiB for non-torch memory")),
    ((("cuda_graph_bytes", 1),), _pattern(rf"{_NUMBER} GiB for CUDAGraph memory")),
    ((("kv_cache_bytes", 1),), _pattern(r"Current kv cache memory in use is (\d{1,18}) bytes")),
    ((("kv_cache_bytes", 1),), _pattern(rf"Current kv cache memory in use is {_NUMBER} GiB")),
    ((("cuda_graph_bytes", 2),), _pattern(rf"Graph capturing finished in \d+ secs, took {_NUMBER} GiB")),
    (
        (("cuda_graph_bytes", 3), ("cuda_graph_estimate_bytes", 3)),
        _pattern(rf"CUDA graph pool memory: {_NUMBER} GiB \(actual\), {_NUMBER} GiB \(estimated\)"),
    ),
    ((("cuda_graph_estimate_bytes", 2),), _pattern(rf"Estimated CUDA graph memory: {_NUMBER} GiB total")),
)

# Each: the names of the groups, the pattern; how a group is read follows from its name.
_OF_A_START: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (
        ("load_seconds",),
        _pattern(rf"Model loading took {_NUMBER} (?:GiB|GB)(?: memory)? and {_NUMBER} seconds"),
    ),
    (("kv_cache_tokens",), _pattern(rf"\b[A-Z]{{2,10}}(?: \+ host)? KV cache size: {_THOUSANDS} tokens")),
    (
        ("concurrency_of", "max_concurrency"),
        _pattern(rf"Maximum concurrency for {_THOUSANDS} tokens per request: (\d+(?:\.\d+)?)x"),
    ),
    (
        ("storable_tokens",),
        _pattern(r"larger than the maximum number of tokens that can be stored in KV cache \((\d+)\)"),
    ),
    (
        ("gpu_memory_gib", "utilization"),
        _pattern(rf"total_gpu_memory \({_NUMBER}GiB\) x gpu_memory_utilization \({_NUMBER}\)"),
    ),
    (
        ("gpu_free_gib", "gpu_memory_gib"),
        _pattern(rf"[Ff]ree memory on device(?: \w+(?::\d+)?)? \({_NUMBER}/{_NUMBER} GiB\)"),
    ),
    (("gpu_memory_size",), _pattern(r"GPU \d+ has a total capacity of (\d+(?:\.\d+)? [KMGT]iB)")),
    (("utilization",), _pattern(r"[Dd]esired GPU memory utilization (?:is )?\((\d(?:\.\d+)?),")),
    (("utilization",), _pattern(r"The current --gpu-memory-utilization=(\d\.\d+) is equivalent to")),
    (("utilization",), _pattern(r"increasing --gpu-memory-utilization from (\d\.\d+) to \d\.\d+")),
    (("utilization",), _pattern(r"Set default gpu_memory_utilization to (\d\.\d+)\s*\Z")),
    (
        ("gpu_name", "capability"),
        re.compile(r"Your (\S[\w .-]{2,60}?) GPU has compute capability (\d+\.\d)\b"),
    ),
    (("gpu_name",), re.compile(r"device_name=([A-Za-z][\w.+-]{2,60}?)(?:\.json|,)")),
    (
        ("gpu_name",),
        re.compile(r"\A\|\s+\d+\s+((?:NVIDIA|Tesla|Quadro|GRID|AMD) ?[\w .-]{1,40}?)\s+(?:On|Off|N/A)\s*\|"),
    ),
    (("auto_max_model_len",), _pattern(r"Auto-fit max_model_len: reduced from \d+ to (\d+) to fit")),
    (("auto_max_model_len",), _pattern(r"Auto-fit max_model_len: full model context length (\d+) fits")),
    (("world_size",), re.compile(r"\bworld[_ ]size[= ](\d{1,5})[ ,]")),
    (("platform",), re.compile(r"Automatically detected platform (\w+)\.")),
)

ANCHOR = re.compile(
    r"KV [cC]ache|weights|Model loading|memory|utilization|Graph capturing|device_name=|compute"
    r" capability|capacity of|"
    r"Maximum concurrency|max_model_len|world[_ ]size|detected platform|\|\s+\d+\s+(?:NVIDIA|Tesla|Quadro|GRID|AMD)"
)
"""What every message above has a word of, so that the others need not be looked at closely."""

MOST = 20_000
"""Characters of a message that are looked at."""


def readings(text: str) -> Iterator[Reading]:
    """What a message says, in the order of the tables."""
    text = text[:MOST]
    for fields, pattern in _OF_A_RANK:
        if found := pattern.search(text):
            for (name, priority), printed in zip(fields, found.groups(), strict=True):
                size = int(printed) if "bytes" in pattern.pattern else gib(printed)
                if size >= 0 or name == "kv_cache_bytes":
                    yield RankFigure(name, size, priority)
    for names, pattern in _OF_A_START:
        if found := pattern.search(text):
            groups = found.groups()
            for name, printed in zip(names, groups[len(groups) - len(names) :], strict=True):
                yield StartFact(name, _value(name, printed))


def _value(name: str, printed: str) -> str | int | float:
    match name:
        case "gpu_memory_gib" | "gpu_free_gib":
            return gib(printed)
        case "gpu_memory_size":
            number, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", printed).groups()  # type: ignore[union-attr]
            return round(Decimal(number) * _SIZES[unit])
        case "gpu_name":
            return " ".join(printed.replace("_", " ").split())
        case "platform":
            return printed
        case "max_concurrency" | "load_seconds" | "utilization" | "capability":
            return float(printed)
        case _:
            return int(printed.replace(",", ""))


def gib(printed: str) -> int:
    """Bytes of a figure in GiB, to the byte nearest to what was printed."""
    return round(Decimal(printed) * 2**30)


_REFUSED = _pattern(
    r"max seq len \(?(\d{1,15})\)?,? \(?(\d{1,7}(?:\.\d{1,12})?) GiB KV cache is needed,? which is larger"
    r" than the available KV cache memory "
    r"\(?(-?\d{1,7}(?:\.\d{1,12})?) GiB\)?"
)
_ESTIMATE = _pattern(r"estimated maximum model length is (\d{1,15}) ?\.")
_NOT_FREE = _pattern(
    rf"[Ff]ree memory on device(?: \w+(?::\d+)?)? \({_NUMBER}/{_NUMBER} GiB\) on startup is less than"
    rf" desired GPU memory "
    rf"utilization \((\d(?:\.\d+)?), {_NUMBER} GiB\)"
)


def refusal(text: str) -> dict[str, str | int] | None:
    """The figures of a refusal, as `ReportedRefusal` has them; `text` is the message with what continues it."""
    if found := _REFUSED.search(text):
        value: dict[str, str | int] = {
            "what": "kv-cache",
            "neededBytes": gib(found[2]),
            "availableBytes": gib(found[3]),
            "maxModelLen": int(found[1]),
        }
        if estimate := _ESTIMATE.search(text, found.end(), found.end() + 200):
            value["estimatedMaxModelLen"] = int(estimate[1])
        return value
    if found := _NOT_FREE.search(text):
        return {"what": "free-memory", "neededBytes": gib(found[4]), "availableBytes": gib(found[1])}
    return None

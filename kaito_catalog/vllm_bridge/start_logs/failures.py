"""Why a start failed, in vLLM's own words, and the class that the words belong to.

The worker has its own table for what it raised itself (`worker/refusals.py`); a log is read with less at hand: no types
of exceptions, and several processes that each report the end of another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kaito_catalog.formats.evidence import FailureClass, Outcome
from kaito_catalog.vllm_bridge.start_logs.figures import refusal
from kaito_catalog.vllm_bridge.start_logs.lines import LogLine

_NAMED = re.compile(
    r"\A(?:Exception in thread \S+ )?(?P<name>(?:[A-Za-z_]\w{0,80}\.){0,8}[A-Z]\w{0,80}(?:Error|Exception"
    r"|Exit|Refused|NotFound|Interrupt))"
    r"(?:: (?P<words>.*))?\Z"
)
_INLINE = re.compile(
    r"(?P<words>To serve at least one request with the models?'s max seq len.*|(?:The model's )?max seq"
    r" len \(\d+\) is larger than "
    r"the maximum number of tokens.*|No available memory for the cache blocks.*|Timed out waiting for"
    r" (?:new )?engine.*|"
    r"CUDA out of memory\. Tried to allocate.*|(?:vllm(?: serve)?|\w+\.py): error: .*|"
    r"Cannot auto-fit max_model_len: .*|Fatal Python error: .*|Model architectures \[.*)"
)
_KILLED = re.compile(
    r"\A(?:Killed|Segmentation fault(?: \(core dumped\))?|Illegal instruction(?: \(core dumped\))?|Bus error.*)\Z"
)
_ABOUT_ANOTHER = re.compile(
    r"See (?:root cause|stack trace) above|Failed core proc|Engine ?[Cc]ore .*(?:died|failed to start)"
    r"|EngineDeadError|"
    r"WorkerProc initialization failed|Worker failed with error|[Ee]ngine process (?:failed to start|died)|cancelled"
    r"|Worker proc .* died|[Bb]roken pipe|ChildProcessError|leaked (?:semaphore|shared_memory)|Rank \d+"
    r" .*(?:died|exited)"
)
"""What a process says when the one that knows the reason has ended."""
_TOLD = frozenset({"ERROR", "CRITICAL", None})
_WITHOUT_NAME = frozenset(
    {"ValueError", "RuntimeError", "OutOfMemoryError", "TimeoutError", "AssertionError", "Exception"}
)

_DOES_NOT_FIT = (
    r"To serve at least one request with|No available memory for the cache blocks|maximum number of"
    r" tokens that can be stored"
    r"|Cannot auto-fit max_model_len"
)
_CLASSES: tuple[tuple[FailureClass, str], ...] = (
    ("illegal-instruction", r"Illegal instruction|exit code: -4\b|\}?: -4\b|SIGILL"),
    (
        "out-of-memory",
        r"out of memory|OutOfMemory|can't allocate memory|Cannot allocate memory|[Ff]ree memory on"
        r" device.* is less than"
        r"|std::bad_alloc|not enough memory|\AKilled\Z|MemoryError|[Ii]nsufficient (?:CPU )?memory",
    ),
    ("time-out", r"[Tt]imed out|TimeoutError|did not (?:start|respond) (?:in|within)"),
    (
        "unsupported-architecture",
        r"[Mm]odel architectures? .*(?:not supported|failed to be inspected)|does not recognize this architecture"
        r"|has no vLLM implementation|No model architectures are specified|is not supported in vLLM"
        r"|Cannot find model module"
        r"|was supported in vLLM until",
    ),
    (
        "missing-kernel",
        r"no kernel image is available|[Ff]ailed to find a kernel|No valid attention backend|not"
        r" supported for the current GPU"
        r"|Minimum capability|only supported on GPUs with compute capability|No \w+ (?:MoE|moe) backend"
        r"|No available .*(?:backend|kernel)"
        r"|not supported (?:on|for) (?:the )?(?:current |this )?(?:platform|device|GPU)|requires? compute capability"
        r"|not compiled for|[Uu]nsupported (?:MoE|FP8|fp8|mxfp4|MXFP4|NVFP4)|Cannot use FlashAttention",
    ),
    (
        "bad-option",
        r"error: (?:unrecognized arguments|argument |the following arguments|ambiguous option)|validation errors? for"
        r"|is larger than the derived max_model_len|greater than the derived max_model_len|must be"
        r" divisible by|Unknown quantization"
        r"|Invalid repository ID|[Uu]nrecognized .*(?:argument|option)|Extra inputs are not permitted"
        r"|Total number of attention heads"
        r"|invalid (?:tool call|reasoning) parser",
    ),
)


@dataclass(frozen=True)
class Failure:
    """An error that a log shows."""

    words: str
    """The message, without the exception's name where that says nothing."""
    about_another: bool
    """Whether it only tells that another process has failed."""
    refusal: dict[str, str | int] | None

    @property
    def does_not_fit(self) -> bool:
        """Whether the cache has no room."""
        return (
            bool(self.refusal and self.refusal["what"] == "kv-cache")
            or re.search(_DOES_NOT_FIT, self.words) is not None
        )

    @property
    def outcome(self) -> Outcome:
        """How the start ended."""
        return "does-not-fit" if self.does_not_fit else "failed"

    @property
    def failure_class(self) -> FailureClass | None:
        """The class; None where the model does not fit, which is an outcome of its own."""
        if self.does_not_fit:
            return None
        return next((name for name, pattern in _CLASSES if re.search(pattern, self.words)), "other")

    @property
    def weight(self) -> int:
        """How much it tells: a refusal's figures before other words, the cause before who noticed."""
        return 3 if self.refusal else 2 if self.does_not_fit else 0 if self.about_another else 1


def failure(line: LogLine, rest: Sequence[str]) -> Failure | None:
    """The error that a line names; `rest` are the words that continue it."""
    text = line.text[:4000]
    if line.level not in _TOLD:
        return None
    if _KILLED.match(text):
        return Failure(text, False, None)
    name = ""
    if found := _NAMED.match(text):
        name, words = found["name"], found["words"] or ""
    elif found := _INLINE.search(text):
        words = found["words"]
    elif line.level in ("ERROR", "CRITICAL") and (_ABOUT_ANOTHER.search(text) or "failed to start" in text):
        return Failure(text[:2000], True, None)
    else:
        return None
    short = name.rpartition(".")[2]
    if short in ("KeyboardInterrupt", "SystemExit", "CancelledError"):
        return None
    if short == "ValidationError":
        words = " ".join([words, *(part.partition(" [type=")[0] for part in rest[:2])])
    refused = next((r for joint in (" ", "") if (r := refusal(joint.join([text, *rest])))), None)
    if refused and len(text) < 1000 and rest:
        words = _sentence(words, rest)
    if short and short not in _WITHOUT_NAME:
        words = f"{short}: {words}" if words else short
    return Failure(words.strip()[:2000] or short, _ABOUT_ANOTHER.search(text) is not None, refused)


def _sentence(words: str, rest: Sequence[str]) -> str:
    """A refusal that is broken over several lines, up to the advice that follows its figures."""
    for count in range(len(rest) + 1):
        whole, advice, _ = "".join([words, *rest[:count]]).partition("Try increasing")
        if advice and refusal(whole):
            return whole.strip()
    return words

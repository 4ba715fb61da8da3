"""Failures by class: vLLM's, torch's and the kernel's words become what a caller can act on."""

from __future__ import annotations

import contextlib
import re
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError

# What is said of a process that SIGILL ended by those who started it: vLLM's executor, its server, Python itself.
ILLEGAL_INSTRUCTION = (
    r"died unexpectedly \(exit code: -4\)|proc\(s\): \{[^}]*: -4\b|Fatal Python error: Illegal instruction"
)


# In order: the first pattern that matches names the class. Each was seen in vLLM's or torch's own messages.
FAILURE_PATTERNS = (
    ("illegal-instruction", ILLEGAL_INSTRUCTION),
    (
        "out-of-memory",
        r"out of memory|can't allocate memory|Free memory on device .* is less than|Cannot allocate memory"
        r"|not enough memory|std::bad_alloc|Insufficient (CPU )?memory|exceeds (the )?(available|free) memory",
    ),
    (
        "unsupported-architecture",
        r"Model architectures? .*(not supported|failed to be inspected)|does not recognize this architecture"
        r"|was supported in vLLM until|has no vLLM implementation|No model architectures are specified"
        r"|Cannot find model module",
    ),
    (
        "missing-kernel",
        r"no kernel image is available|Failed to find a kernel|No valid attention backend"
        r"|not supported (on|for) (the )?(current |this )?(platform|device|CPU|cpu)|is currently not supported in cpu"
        r"|_OpNamespace' '\w+' object has no attribute|No available .*(backend|kernel)"
        r"|no .*(backend|kernel)s? (is |are )?(available|supports?)"
        r"|Minimum capability|not supported for the current GPU"
        # An operator that this build declares without arguments: a placeholder.
        r"|Declaration: \w+::\w+\(\) -> \(\)"
        r"|(kernel|op(erator)?) .*(not|isn't) (implemented|available)"
        r"|Could not run '|does not support .* on (cpu|CPU)|Unsupported (moe|MoE|FP8|fp8|mxfp4|MXFP4)|No \w+ (MoE|moe)",
    ),
)


LACKING = r"not supported (on|for|in)\b|not supported .* (platform|device)|Minimum capability"


def failure_class(error: BaseException, *, stage: str) -> str:
    """The class of a failure; `stage` is where it happened: configuration, model, kv-cache, engine."""
    text = "\n".join(str(link) for link in chain(error))
    names = {type(link).__name__ for link in chain(error)}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return "out-of-memory"
    for name, pattern in FAILURE_PATTERNS:
        # A configuration names kernels and back ends freely; only a lacking one is not the option's fault.
        if name == "missing-kernel" and stage == "configuration" and not re.search(LACKING, text):
            continue
        if re.search(pattern, text):
            return name
    if "NotImplementedError" in names:
        return "missing-kernel"
    if stage == "configuration" or (stage == "model" and names & {"ValueError", "AssertionError"}):
        return "bad-option"
    return "other"


def refusal(error: BaseException, *, stage: str) -> RequestError:
    if isinstance(error, RequestError):
        return error
    traceback.print_exception(error)
    return RequestError(failure_class(error, stage=stage), own_words(error), type(error).__name__)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, and so on."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def own_words(error: BaseException) -> str:
    """What vLLM said, without pydantic's frame around it."""
    details = getattr(error, "errors", None)
    if callable(details):
        with contextlib.suppress(Exception):
            return "; ".join(pydantic_message(detail) for detail in details())
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return str(text).strip() or source_line(error) or type(error).__name__


def source_line(error: BaseException) -> str | None:
    """The line that raised: all that a bare `assert` has to say."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].line if frames else None


def pydantic_message(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").strip()
    place = ".".join(str(part) for part in detail.get("loc", ()))
    return f"{place}: {message}" if place else message


def failed(name: str, message: str, exception: str = "") -> JSON:
    return {"outcome": "failed", "class": name, "message": message, "exception": exception}


def exit_class(code: int) -> str:
    """The class of the failure of a process that ended with `code` and gave no answer."""
    return "illegal-instruction" if code == -signal.SIGILL else "other"


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} and gave no answer"
    with contextlib.suppress(ValueError):
        return f"the process was ended by {signal.Signals(-code).name} and gave no answer"
    return f"the process was ended by signal {-code} and gave no answer"


def classify_log(lines: Sequence[str], exit_code: int | None) -> JSON:
    """A server tells why it failed only in its log: the last line that names an error."""
    pattern = re.compile(r"\b((?:[\w.]+\.)?\w*(?:Error|Exception))\b: (.*)|(?:error: )(.*)")
    named = [found for line in lines if (found := pattern.search(line))]
    if not named:
        return failed(exit_class(exit_code or 0), describe_exit(exit_code or 0))
    texts = "\n".join(lines)
    message = (named[-1].group(2) or named[-1].group(3)).strip()
    if not_enough := re.search(r"To serve at least one request .*", texts):
        return {"outcome": "does-not-fit", "message": not_enough.group(0)}
    if any(found.group(3) for found in named):
        return failed("bad-option", message)
    return failed(failure_class(RuntimeError(texts), stage="engine"), message, named[-1].group(1) or "")

"""Processes and the lines between them: forks that answer, children that end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.refusals import describe_exit, exit_class, own_words
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, RequestError

TICK_SECONDS = 0.5


LOG_LINES_KEPT = 60


ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when `parent` ends."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def in_child(function: Callable[[], Any]) -> Any:
    """Run `function` in a fork and give what it returned or raise what it raised."""
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        os.close(reader)
        try:
            outcome: tuple[bool, Any] = (True, function())
        except RequestError as failure:
            outcome = (False, (failure.failure_class, failure.message, failure.exception))
        except BaseException as error:
            traceback.print_exc()
            outcome = (False, ("other", own_words(error), type(error).__name__))
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if not content:
        code = os.waitstatus_to_exitcode(status)
        raise RequestError(exit_class(code), describe_exit(code))
    succeeded, value = pickle.loads(content)  # noqa: S301  (written by our own fork)
    if not succeeded:
        raise RequestError(*value)
    return value


def write_line(descriptor: int, message: JSON) -> None:
    data = (json.dumps(message, allow_nan=False) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def reply(descriptor: int, function: Callable[[JSON, Progress], JSON], request: JSON) -> None:
    """Carry out one request and write its progress and its answer, whatever happens."""
    name = request.get("id")

    def progress(text: str) -> None:
        write_line(descriptor, {"id": name, "progress": text})

    try:
        answer: JSON = {"id": name, "ok": True, "result": function(request, progress)}
    except RequestError as failure:
        answer = {"id": name, "ok": False, "error": failure.as_json()}
    except BaseException as error:
        traceback.print_exc()
        message = own_words(error)
        details = {"class": "other", "exception": type(error).__name__, "message": message}
        answer = {"id": name, "ok": False, "error": details}
    write_line(descriptor, answer)


class Child(NamedTuple):
    """A process that answers on `answers`; `pid` leads a process group of its own."""

    pid: int
    answers: int
    requests: int

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for descriptor in (self.answers, self.requests):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class LineReader:
    """Whole lines from a descriptor, for use with select."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def fileno(self) -> int:
        return self._descriptor

    def lines(self) -> list[str]:
        chunk = os.read(self._descriptor, 1 << 16)
        if not chunk:
            self.ended = True
            chunk = b"\n" if self._rest else b""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in whole if line]


def drain(reader: LineReader, kept: list[str]) -> None:
    """Read what is there already: the answer overtakes the last lines of the log."""
    while not reader.ended and select.select([reader], [], [], TICK_SECONDS)[0]:
        for line in reader.lines():
            sys.stderr.write(line + "\n")
            kept.append(line)
            del kept[:-LOG_LINES_KEPT]

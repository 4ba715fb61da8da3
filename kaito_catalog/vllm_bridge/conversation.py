"""One end of the worker's protocol: start the worker, send it requests, read its progress and answers.

It needs only the standard library and travels in the worker's archive, so that a task on another machine talks to the
worker as the command line does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

Json = dict[str, Any]

GRACE_SECONDS = 20.0
"""The worker ends a request that is over its time itself; this is how long it may take to say so."""


class WorkerError(Exception):
    """vLLM could not be asked, or refused: `failure_class` is what to act on, `words` what vLLM said.

    Classes: `no-python`, `no-vllm`, `no-version`, `no-device`, `bad-request`, `bad-option`, `unsupported-architecture`,
    `missing-kernel`, `illegal-instruction`, `out-of-memory`, `time-out`, `worker-died`, `worker-garbage`, `other`.
    """

    def __init__(self, failure_class: str, words: str, *, log: str = "") -> None:
        super().__init__(f"{words}\n{log}" if log else words)
        self.failure_class = failure_class
        self.words = words
        self.log = log


class Conversation:
    """A worker that was started, in a process group of its own; requests are answered one at a time."""

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        stderr: int | IO[bytes],
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._received = b""
        self._requests = 0
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [os.fspath(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # vLLM and what it imports read their own files in the locale's encoding.
                env={**(os.environ if environment is None else environment), "PYTHONUTF8": "1"},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            words = f"{os.fspath(command[0])} could not be started: {error.strerror}"
            raise WorkerError("no-python", words) from error

    def ask(self, request: Mapping[str, Any], progress: Callable[[str], None]) -> Json:
        """Send a request and give its answer: `ok` with a `result` or an `error`; progress is passed on.

        `timeLimitSeconds` of the request is kept by the worker; a worker that does not keep it is an error here.

        Raises:
            WorkerError: the worker ended, answered something else, or not in time; it cannot be asked again.
        """
        self._requests += 1
        limit = request.get("timeLimitSeconds")
        deadline = None if limit is None else time.monotonic() + float(limit) + GRACE_SECONDS
        self._send({"id": self._requests, **request})
        while True:
            answer = self._receive(deadline)
            if answer.get("id") != self._requests:
                raise WorkerError("worker-garbage", f"the worker answered something else: {answer!r:.200}")
            if "progress" not in answer:
                return answer
            progress(str(answer["progress"]))

    def finish(self, seconds: float) -> None:
        """Ask for no more, and wait for the worker to end; kill what has not ended then."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End the worker's whole process group now. Engines notice that it is gone and end as well."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _send(self, message: Json) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise WorkerError("worker-died", f"the worker has ended{self._exit_text()}") from error

    def _receive(self, deadline: float | None) -> Json:
        line = self._read_line(deadline)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = line.decode(errors="replace")
            words = f"the worker printed something that is not an answer: {text!r:.200}"
            raise WorkerError("worker-garbage", words)
        return answer

    def _read_line(self, deadline: float | None) -> bytes:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._received:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], wait)[0]:
                raise WorkerError("time-out", "the worker did not answer in time and was ended")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                words = f"the worker ended without an answer{self._exit_text()}"
                raise WorkerError("worker-died", words)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _exit_text(self) -> str:
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ""
        if code < 0:
            with contextlib.suppress(ValueError):
                return f" (ended by {signal.Signals(-code).name})"
        return f" (exit code {code})"


def result_of(answer: Json) -> Json:
    """The result in an answer, or the WorkerError it stands for."""
    result, error = answer.get("result"), answer.get("error")
    if answer.get("ok") is True and isinstance(result, dict):
        return result
    if answer.get("ok") is False and isinstance(error, dict):
        raise WorkerError(str(error.get("class", "other")), str(error.get("message", "no reason was given")))
    raise WorkerError(
        "worker-garbage", f"the worker's answer has neither a result nor an error: {answer!r:.200}"
    )

"""Talks to vLLM without importing it: starts `vllm_worker.py` with the Python of an environment that has vLLM."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NotRequired, Self, TypedDict, cast

from kaito_catalog.system import processes

WORKER_SCRIPT = Path(__file__).with_name("vllm_worker.py")
PYTHON_VARIABLE = "KAITO_CATALOG_VLLM_PYTHON"
DEFAULT_PYTHON = Path(".venv-vllm", "bin", "python")

# The worker ends a request that is over its time itself; this is how long it may take to say so.
GRACE_SECONDS = 20.0
CLOSE_SECONDS = 5.0
QUOTED_LOG_LINES = 15

Json = dict[str, Any]


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


# --- what comes back ------------------------------------------------------------------------------------------------


class Gpu(TypedDict):
    """A GPU to simulate; `capability` is `major.minor`, `memoryBytes` the total that the driver reports."""

    name: str
    capability: str
    memoryBytes: int


class Versions(TypedDict):
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
    """`neededBytes` is what vLLM's admission check asks for one request of `maxModelLen`, groups padded."""

    layers: list[CacheLayers]
    groups: list[CacheLayers]
    layersSharingAnothersCache: int
    bytesPerTokenPerGPU: float
    budget: Budget
    neededBytes: int
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


class PerGpu(TypedDict):
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


class Settings(TypedDict):
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


class ExactPlan(Versions):
    """What vLLM's own classes allocate; `perGPU` is the rank with least room for KV cache."""

    architecture: str
    modelClass: str
    dtype: str
    quantization: str | None
    kvCacheDtype: str
    gpu: Gpu | None
    device: Literal["cuda", "cpu"]
    settings: Settings
    perGPU: PerGpu
    ranks: list[RankPlan]
    kvCache: KvCachePlan
    seconds: float


class Registry(Versions):
    architectures: list[str]
    removedArchitectures: dict[str, str]
    toolParsers: list[str]
    reasoningParsers: list[str]


class Option(TypedDict):
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


class Options(Versions):
    options: dict[str, Option]


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


class OptionReport(Versions):
    accepted: bool
    findings: list[OptionFinding]
    expansion: list[str]
    unrecognized: list[str]
    resolved: Json | None


# `class` is a keyword, so it cannot be written as a field below.
_FailureClass = TypedDict("_FailureClass", {"class": str}, total=False)


class Outcome(_FailureClass, TypedDict):
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


# --- finding vLLM ---------------------------------------------------------------------------------------------------


def find_python(
    argument: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    root: Path | None = None,
) -> Path:
    """The Python that has vLLM: the `--vllm-python` argument, the variable, or `.venv-vllm` under `root`.

    Raises WorkerError of class `no-python` that says what to do.
    """
    environment = os.environ if environment is None else environment
    for source, given in (("--vllm-python", argument), (PYTHON_VARIABLE, environment.get(PYTHON_VARIABLE))):
        if not given:
            continue
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise WorkerError("no-python", f"{source}: {given} is not an executable Python")
        # Not resolved: the link in an environment's bin/ is what makes it that environment's Python.
        return Path(os.path.abspath(given))
    python = (root or Path.cwd()) / DEFAULT_PYTHON
    if os.access(python, os.X_OK):
        return python.absolute()
    raise WorkerError(
        "no-python",
        f"no Python with vLLM: give --vllm-python, set {PYTHON_VARIABLE}, or make {DEFAULT_PYTHON} with `make vllm`",
    )


# --- the worker -----------------------------------------------------------------------------------------------------


class Worker:
    """A running worker; use it as a context manager, so that nothing of it outlives an error or Ctrl-C.

    Requests are answered one at a time. The worker imports vLLM once per version and GPU capability, so that several
    plans through one Worker cost about a second each. Tokens of the environment are kept from it; with `hub_token` it
    gets the Hub's, to fetch what is gated.
    """

    def __init__(
        self,
        python: Path | str,
        *,
        progress: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        script: Path = WORKER_SCRIPT,
        hub_token: bool = False,
    ) -> None:
        self._progress = progress or (lambda text: None)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._received = b""
        self._next_id = 0
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [os.fspath(python), os.fspath(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=processes.environment(hub_token=hub_token, extra=environment),
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise WorkerError("no-python", f"{python} could not be started: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the worker can be asked again."""
        return not self._log.closed

    def close(self) -> None:
        """End the worker after the request it is at; kill what has not ended after a few seconds."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the worker's whole process group now. Engines notice that it is gone and end as well."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    # --- operations -------------------------------------------------------------------------------------------------

    def exact_plan(
        self,
        model: Path | str,
        *,
        args: Mapping[str, Any] | None = None,
        gpu: Gpu | None = None,
        vllm_version: str | None = None,
        kv_cache_bytes: int | None = None,
        after_loading: bool = True,
        device: Literal["cuda", "cpu"] = "cuda",
        time_limit_seconds: float | None = None,
    ) -> ExactPlan:
        """What vLLM allocates for the configuration in `model`; `args` are engine arguments by vLLM's names."""
        fields: Json = {
            "model": os.fspath(model),
            "args": dict(args or {}),
            "afterLoading": after_loading,
            "device": device,
        }
        fields |= given(gpu=gpu, vllmVersion=vllm_version, kvCacheBytes=kv_cache_bytes)
        return cast(ExactPlan, self.request("exact-plan", fields, time_limit_seconds=time_limit_seconds))

    def registry(self, *, vllm_version: str | None = None) -> Registry:
        return cast(Registry, self.request("registry", given(vllmVersion=vllm_version)))

    def options(self, *, vllm_version: str | None = None) -> Options:
        return cast(Options, self.request("options", given(vllmVersion=vllm_version)))

    def check_options(
        self,
        model: Path | str,
        options: Mapping[str, Any],
        *,
        gpu: Gpu | None = None,
        vllm_version: str | None = None,
        time_limit_seconds: float | None = None,
    ) -> OptionReport:
        """Judge the `vllm:` block of KAITO's inference_config with vLLM's parser and engine configuration."""
        fields: Json = {"model": os.fspath(model), "options": dict(options)}
        fields |= given(gpu=gpu, vllmVersion=vllm_version)
        return cast(
            OptionReport, self.request("check-options", fields, time_limit_seconds=time_limit_seconds)
        )

    def dry_run(
        self,
        model: Path | str,
        *,
        args: Mapping[str, Any] | None = None,
        weights: Literal["dummy", "real"] = "dummy",
        device: Literal["auto", "cuda", "cpu"] = "auto",
        max_tokens: int = 4,
        host_memory_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        time_limit_seconds: float | None = None,
    ) -> Outcome:
        """Start a real engine and generate; a failure of the engine is an outcome, not an error."""
        fields: Json = {
            "model": os.fspath(model),
            "args": dict(args or {}),
            "weights": weights,
            "device": device,
            "maxTokens": max_tokens,
            "env": dict(environment or {}),
        }
        fields |= given(hostMemoryBytes=host_memory_bytes)
        return cast(Outcome, self.request("dry-run", fields, time_limit_seconds=time_limit_seconds))

    def serve(
        self,
        model: Path | str,
        *,
        options: Mapping[str, Any] | None = None,
        weights: Literal["dummy", "real"] = "dummy",
        tool_call_parser: str | None = None,
        reasoning_parser: str | None = None,
        max_tokens: int = 8,
        environment: Mapping[str, str] | None = None,
        time_limit_seconds: float | None = None,
    ) -> Outcome:
        """Start the OpenAI server with `options` as KAITO passes them, wait for its health and send a chat request."""
        fields: Json = {
            "model": os.fspath(model),
            "options": dict(options or {}),
            "weights": weights,
            "maxTokens": max_tokens,
            "env": dict(environment or {}),
        }
        fields |= given(toolCallParser=tool_call_parser, reasoningParser=reasoning_parser)
        return cast(Outcome, self.request("serve", fields, time_limit_seconds=time_limit_seconds))

    # --- the protocol -----------------------------------------------------------------------------------------------

    def request(self, op: str, fields: Mapping[str, Any], *, time_limit_seconds: float | None = None) -> Json:
        """Send one request, pass its progress on, and give its result.

        Raises WorkerError. Where vLLM refused, the worker can be asked again; where the worker itself failed (`alive`
        tells), it is gone.
        """
        self._next_id += 1
        message: Json = {"id": self._next_id, "op": op, **fields}
        deadline = None
        if time_limit_seconds is not None:
            message["timeLimitSeconds"] = time_limit_seconds
            deadline = time.monotonic() + time_limit_seconds + GRACE_SECONDS
        try:
            self._send(message)
            while True:
                answer = self._receive(deadline)
                if answer.get("id") != self._next_id:
                    raise self._failure(
                        "worker-garbage", f"the worker answered something else: {answer!r:.200}"
                    )
                if "progress" not in answer:
                    break
                self._progress(str(answer["progress"]))
        except BaseException:
            # Whatever it was, Ctrl-C included: an answer that comes now would be taken for the next request's.
            self.kill()
            raise
        return result_of(answer)

    def _send(self, message: Json) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._failure("worker-died", f"the worker has ended{self._exit_text()}") from error

    def _receive(self, deadline: float | None) -> Json:
        line = self._read_line(deadline)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = line.decode(errors="replace")
            raise self._failure(
                "worker-garbage", f"the worker printed something that is no answer: {text!r:.200}"
            )
        return answer

    def _read_line(self, deadline: float | None) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._received:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], wait)[0]:
                raise self._failure("time-out", "the worker did not answer in time and was ended")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise self._failure("worker-died", f"the worker ended without an answer{self._exit_text()}")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _exit_text(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ""
        if code < 0:
            with contextlib.suppress(ValueError):
                return f" (ended by {signal.Signals(-code).name})"
        return f" (exit code {code})"

    def _failure(self, failure_class: str, words: str) -> WorkerError:
        return WorkerError(failure_class, words, log=self.log_tail())

    def log_tail(self, lines: int = QUOTED_LOG_LINES) -> str:
        """The end of what vLLM and the worker printed to standard error."""
        if not self.alive:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - (1 << 16)))
        text = self._log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


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

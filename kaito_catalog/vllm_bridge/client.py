"""Talks to vLLM without importing it: starts the worker with the Python of an environment that has vLLM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

from kaito_catalog.system import processes
from kaito_catalog.vllm_bridge.answers import (
    ExactPlanAnswer,
    GpuToSimulate,
    Json,
    OptionReport,
    OptionsAnswer,
    Registry,
    RunOutcome,
)
from kaito_catalog.vllm_bridge.archive import worker_archive
from kaito_catalog.vllm_bridge.conversation import Conversation, WorkerError, result_of

PYTHON_VARIABLE = "KAITO_CATALOG_VLLM_PYTHON"
DEFAULT_PYTHON = Path(".venv-vllm", "bin", "python")

CLOSE_SECONDS = 5.0
QUOTED_LOG_LINES = 15


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


@contextmanager
def archive_in_memory() -> Iterator[int]:
    """The worker's archive as a file that has no name: nothing of it is left, whoever is killed."""
    descriptor = os.memfd_create("vllm_worker.pyz")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(worker_archive())
        yield descriptor
    finally:
        os.close(descriptor)


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
        hub_token: bool = False,
    ) -> None:
        self._progress = progress or (lambda text: None)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `kill`)
        try:
            with archive_in_memory() as archive:
                self._conversation = Conversation(
                    [python, f"/proc/self/fd/{archive}"],
                    stderr=self._log,
                    environment=processes.environment(hub_token=hub_token, extra=environment),
                    pass_fds=(archive,),
                )
        except WorkerError:
            self._log.close()
            raise

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
        return self._conversation.process.pid

    @property
    def alive(self) -> bool:
        """Whether the worker can be asked again."""
        return not self._log.closed

    def close(self) -> None:
        """End the worker after the request it is at; kill what has not ended after a few seconds."""
        if self.alive:
            self._conversation.finish(CLOSE_SECONDS)
            self._log.close()

    def kill(self) -> None:
        """End the worker's whole process group now."""
        if self.alive:
            self._conversation.kill()
            self._log.close()

    # --- operations -------------------------------------------------------------------------------------------------

    def exact_plan(
        self,
        model: Path | str,
        *,
        args: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        gpu: GpuToSimulate | None = None,
        vllm_version: str | None = None,
        kv_cache_bytes: int | None = None,
        after_loading: bool = True,
        device: Literal["cuda", "cpu"] = "cuda",
        time_limit_seconds: float | None = None,
    ) -> ExactPlanAnswer:
        """What vLLM allocates for the configuration in `model`.

        `args` are engine arguments by vLLM's names. `arguments` are those of a `vllm serve` command line, which vLLM's
        own parser reads; one that it has not, or refuses, is an error that names it. `args` go before them.
        """
        fields: Json = {
            "model": os.fspath(model),
            "args": dict(args or {}),
            "afterLoading": after_loading,
            "device": device,
        }
        fields |= given(gpu=gpu, vllmVersion=vllm_version, kvCacheBytes=kv_cache_bytes)
        fields |= {"arguments": list(arguments)} if arguments else {}
        return cast(
            ExactPlanAnswer, self.request("exact-plan", fields, time_limit_seconds=time_limit_seconds)
        )

    def registry(self, *, vllm_version: str | None = None) -> Registry:
        return cast(Registry, self.request("registry", given(vllmVersion=vllm_version)))

    def options(self, *, vllm_version: str | None = None) -> OptionsAnswer:
        return cast(OptionsAnswer, self.request("options", given(vllmVersion=vllm_version)))

    def check_options(
        self,
        model: Path | str,
        options: Mapping[str, Any],
        *,
        gpu: GpuToSimulate | None = None,
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
    ) -> RunOutcome:
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
        return cast(RunOutcome, self.request("dry-run", fields, time_limit_seconds=time_limit_seconds))

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
    ) -> RunOutcome:
        """Start the OpenAI server with `options` as KAITO passes them, wait for its health and send a chat request."""
        fields: Json = {
            "model": os.fspath(model),
            "options": dict(options or {}),
            "weights": weights,
            "maxTokens": max_tokens,
            "env": dict(environment or {}),
        }
        fields |= given(toolCallParser=tool_call_parser, reasoningParser=reasoning_parser)
        return cast(RunOutcome, self.request("serve", fields, time_limit_seconds=time_limit_seconds))

    # --- the protocol -----------------------------------------------------------------------------------------------

    def request(self, op: str, fields: Mapping[str, Any], *, time_limit_seconds: float | None = None) -> Json:
        """Send one request, pass its progress on, and give its result.

        Raises WorkerError. Where vLLM refused, the worker can be asked again; where the worker itself failed (`alive`
        tells), it is gone.
        """
        message = {"op": op, **fields, **given(timeLimitSeconds=time_limit_seconds)}
        try:
            answer = self._conversation.ask(message, self._progress)
        except WorkerError as error:
            log = self.log_tail()
            self.kill()
            raise WorkerError(error.failure_class, error.words, log=log) from error
        except BaseException:
            # Whatever it was, Ctrl-C included: an answer that comes now would be taken for the next request's.
            self.kill()
            raise
        return result_of(answer)

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

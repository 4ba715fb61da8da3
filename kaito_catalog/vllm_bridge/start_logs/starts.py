"""A log → the starts of vLLM that it shows, each with what was printed about it.

A text may hold several starts, of several pods, the end of one and the beginning of the next, and lines of several
processes in any order. A start begins where vLLM tells its version, its arguments or its configuration anew.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_catalog.vllm_bridge.start_logs import figures, values
from kaito_catalog.vllm_bridge.start_logs.failures import Failure, failure
from kaito_catalog.vllm_bridge.start_logs.figures import RankFigure, StartFact, refusal
from kaito_catalog.vllm_bridge.start_logs.lines import LogLine, Process, Window, clean, continued
from kaito_catalog.vllm_bridge.start_logs.private import is_private_option, kept

AHEAD = 40
"""Lines that one message may be broken over."""
MOST_STARTS = 200
_VERSION = r"v?(\d+\.\d+[\w.+-]*)"
_API = re.compile(
    rf"vLLM (?:API server|server|batch processing API) version {_VERSION}(?:, serving model (\S+))?"
)
_BANNER = re.compile(rf"[█▀▄].*\b(?:version +{_VERSION}|model +(\S+))\Z")
_ARGUMENTS = re.compile(r"(non-default args: \{|\bargs: Namespace\()(.*)", re.DOTALL)
_ENGINE = re.compile(
    rf"Initializing an? (?:V[01] )?LLM engine(?: \({_VERSION}\))? with config: (.*)", re.DOTALL
)
_ENGINE_KIND = re.compile(r"Initializing a V0 |Initializing an LLM")
_SERVED = re.compile(
    r"Application startup complete\.|Uvicorn running on |\"POST /(?:v1/)?(?:chat/)?(?:completions"
    r"|generate|embeddings)\S* HTTP/[\d.]+\" 200"
)
_SHUT_DOWN = re.compile(
    r"Shutting down|Shutdown (?:complete|initiated)|[Rr]eceived signal|Finished server process"
)
_COMMAND = re.compile(
    r"\A(?:[^\s@]+@\S+[#$] ?|[$#>+] ?|(?:exec|CMD|Running|command):? )*(?:[A-Z_][A-Z0-9_]*=\S+ )*"
    r"((?:\S*/)?(?:vllm serve|python3?(?:\.\d+)? (?:-m vllm\.entrypoints\.openai\.api_server"
    r"|\S*inference_api\.py)) .*)"
)
_WORTH_A_LOOK = re.compile(
    rf"{figures.ANCHOR.pattern}|version |█|▀|args: |Initializing an? |startup complete|Uvicorn running"
    rf"|HTTP/1|Shut|[Ss]ignal"
    r"|Error|Exception|error: |Killed|Segmentation|Illegal instruction|Bus error|Timed out|max seq len"
    r"|vllm serve|api_server |inference_api"
)
_OF_VLLM = frozenset(
    {
        "EngineCore",
        "Worker",
        "VllmWorker",
        "VllmWorkerProcess",
        "APIServer",
        "RayWorkerWrapper",
        "RayWorkerProc",
    }
)
_NEEDED = ("model", "revision", "dtype", "max_seq_len", "load_format", "tensor_parallel_size", "pipeline_parallel_size",
           "data_parallel_size", "decode_context_parallel_size", "quantization", "enforce_eager", "kv_cache_dtype",
           "device_config", "enable_prefix_caching", "chunked_prefill_enabled", "enable_chunked_prefill",
           "trust_remote_code", "speculative_config")  # fmt: skip
"""The fields of the engine's configuration that a plan asks for."""
HEAD, SET, CONFIGURED, LOADED, PROFILED, SIZED = range(1, 7)
"""How far a start has come: its version, its arguments, its engine, its weights, its cache, the cache's tokens."""


@dataclass
class LoggedStart:
    """What is gathered of one start, line by line."""

    versions: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    arguments: dict[str, values.Value] | None = None
    engine: dict[str, values.Value] | None = None
    is_v0: bool = False
    figures: dict[tuple[str, Any], dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By who printed it: the fields of a rank, each with its priority."""
    processes: dict[tuple[str, Any], Process] = field(default_factory=dict)
    said: dict[str, list[str | int | float]] = field(default_factory=dict)
    failures: list[tuple[Process, Failure, str]] = field(default_factory=list)
    served: bool = False
    shut_down: bool = False
    reached: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether what comes now is not of its beginning any more."""
        return self.served or bool(self.failures)

    @property
    def shows_something(self) -> bool:
        """Whether it is a start at all."""
        return self.reached > 0 or bool(self.failures)

    def keep(self, shown: str) -> None:
        """Keep a line as what something was read from."""
        line = kept(shown)[:600]
        if line and line not in self.lines:
            self.lines.append(line)


def read_starts(text: Iterable[str]) -> list[LoggedStart]:
    """The starts of a log in the order in which they begin."""
    found: list[LoggedStart] = []
    of_source: dict[str, _Reader] = {}
    window = Window(text, ahead=AHEAD)
    for raw, whole in window:
        if not _WORTH_A_LOOK.search(raw):
            continue
        for line in clean(raw, is_whole=whole):
            reader = of_source.setdefault(line.source, _Reader(found))
            reader.feed(line, window)
    return [start for start in found if start.shows_something][:MOST_STARTS]


class _Reader:
    """The starts of one source, one after the other."""

    def __init__(self, found: list[LoggedStart]) -> None:
        self._found = found
        self._start: LoggedStart | None = None

    def feed(self, line: LogLine, window: Window) -> None:
        """Take a line into the start that it belongs to."""
        if self._heads(line, window):
            return
        start = self._start
        if start is not None and start.reached:
            if _SERVED.search(line.text):
                start.served, start.failures = True, []
                start.keep(line.shown)
                return
            if _SHUT_DOWN.search(line.text):
                start.shut_down = True
        if not self._figures(line, window):
            self._failure(line, window)

    def _current(self) -> LoggedStart:
        if self._start is None:
            self._new()
        assert self._start is not None
        return self._start

    def _new(self) -> None:
        self._start = LoggedStart()
        self._found.append(self._start)

    def _heads(self, line: LogLine, window: Window) -> bool:
        """Whether the line is one of those that a start begins with."""
        text = line.text
        if found := _API.search(text) or _BANNER.search(text):
            if line.is_whole or found.end() < len(text):
                self._version(found[1], found[2])
                self._current().keep(line.shown)
            return True
        if found := _ARGUMENTS.search(text):
            opens = "{" if found[1].endswith("{") else "("
            whole = _closed(found[2], opens, continued(line, window.following()))
            self._arguments(whole, opens, line.shown)
            return True
        if found := _ENGINE.search(text):
            rest = list(continued(line, window.following()))
            self._engine(line, found[1], "".join([found[2], *rest]))
            return True
        if (found := _COMMAND.search(text)) and ": error:" not in text:
            self._command(found[1], line.shown)
            return True
        return False

    def _version(self, version: str | None, model: str | None) -> None:
        start = self._start
        if start is not None and version is not None:
            is_first = not start.versions and start.reached <= CONFIGURED
            is_again = start.versions[-1:] == [version] and start.reached < SET
            if start.is_over or (start.reached and not is_first and not is_again):
                self._new()
        start = self._current()
        start.reached = max(start.reached, HEAD)
        if version and version not in start.versions:
            start.versions.append(version)
        if model:
            start.models.append(model)

    def _arguments(self, text: str, opens: str, shown: str) -> None:
        read = dict(values.readable(text, closes="}" if opens == "{" else ")"))
        if opens == "(":  # every argument, set or not
            read = {name: value for name, value in read.items() if value not in (None, False, "", [], {})}
        start = self._start
        if start is not None and (
            start.is_over or start.reached >= LOADED or start.arguments not in (None, read)
        ):
            self._new()
        start = self._current()
        start.arguments, start.reached = read, max(start.reached, SET)
        names = {name: value for name, value in read.items() if not is_private_option(name.replace("_", "-"))}
        head = shown[: shown.find("args: ") + len("args: ")]
        start.keep(head + kept(", ".join(f"{name}={value!r}"[:200] for name, value in names.items()))[:500])

    def _engine(self, line: LogLine, version: str | None, text: str) -> None:
        read = {n: v for n, v in values.readable(text, closes=None) if n in _NEEDED}
        start = self._start
        if start is not None and start.engine is not None:
            if line.process.number("DP"):
                return  # another copy of the same start
            if start.is_over or start.reached >= LOADED or start.engine != read:
                self._new()
        elif start is not None and start.is_over:
            self._new()
        start = self._current()
        start.engine, start.reached = read, max(start.reached, CONFIGURED)
        start.is_v0 = _ENGINE_KIND.search(line.text) is not None
        if version and version not in start.versions:
            start.versions.append(version)
        shown = ", ".join(f"{name}={value!r}"[:200] for name, value in read.items() if value is not None)
        start.keep(line.shown[: line.shown.find("with config: ") + len("with config: ")] + shown)

    def _command(self, text: str, shown: str) -> None:
        try:
            words = public_words(shlex.split(text))
        except ValueError:
            return
        if self._start is not None and self._start.reached:
            self._new()
        start = self._current()
        start.command, start.reached = words, HEAD

    def _figures(self, line: LogLine, window: Window) -> bool:
        """Whether the line has a figure."""
        if not figures.ANCHOR.search(line.text):
            return False
        read, shown = list(figures.readings(line.text)), line.shown
        if not read and not line.is_bare and len(line.text) < 400:
            rest = list(continued(line, window.following()))[:3]
            for count in range(1, len(rest) + 1):
                for joint in ("", " "):
                    if not read:
                        read = list(figures.readings(joint.join([line.text, *rest[:count]])))
                        shown = joint.join([line.shown, *rest[:count]])
        for reading in read:
            if isinstance(reading, RankFigure):
                self._figure(line.process, reading)
            else:
                self._said(reading)
        if read:
            self._current().keep(shown)
        # A refusal has its figures too: it is an error above all.
        return (
            bool(read)
            and "is less than desired" not in line.text
            and "capacity of" not in line.text
            and "stored in" not in line.text
        )

    def _figure(self, process: Process, figure: RankFigure) -> None:
        start = self._current()
        who = _who(process)
        again = (
            figure.name in start.figures.get(who, {})
            and start.figures[who][figure.name][1] == figure.priority
        )
        if again and figure.name == "weights_bytes" and figure.priority == 3:
            if start.reached >= PROFILED:
                self._new()
                start = self._current()
            elif start.figures[who][figure.name][0] != figure.bytes:
                who = (*who[:1], (who[1], len(start.figures)))  # two ranks that do not say which they are
        fields = start.figures.setdefault(who, {})
        start.processes[who] = process
        if figure.priority >= fields.get(figure.name, (0, 0))[1]:
            fields[figure.name] = (figure.bytes, figure.priority)
        start.failures = [(p, f, s) for p, f, s in start.failures if p != process]
        reached = {"weights_bytes": LOADED, "kv_cache_bytes": PROFILED, "cuda_graph_bytes": SIZED}
        start.reached = max(start.reached, reached.get(figure.name, start.reached), LOADED)

    def _said(self, said: StartFact) -> None:
        start = self._current()
        start.said.setdefault(said.name, []).append(said.value)
        if said.name in ("kv_cache_tokens", "max_concurrency"):
            start.reached = SIZED

    def _failure(self, line: LogLine, window: Window) -> None:
        start = self._start
        if start is not None and (start.served or start.shut_down):
            return
        found = failure(line, [])
        if found is None:
            return
        rest = list(continued(line, window.following()))[:12]
        found = failure(line, rest) or found
        if not (line.is_whole or found.refusal or found.does_not_fit):
            return  # what is cut may have said something else
        told = found.refusal is not None and refusal(line.text) is None
        shown = "".join([line.shown, *rest[:6]]) if told else line.shown
        is_vllms = found.refusal or found.does_not_fit or line.process.name in _OF_VLLM
        if (start is None or not start.reached) and not is_vllms and "vllm serve: error" not in line.text:
            return
        self._current().failures.append((line.process, found, shown))


def _closed(text: str, opens: str, rest: Iterable[str]) -> str:
    """What stands in a bracket, with the lines that it is broken over."""
    if values.is_closed(text, opens):
        return text
    whole = text
    for part in rest:
        whole += part
        if values.is_closed(whole, opens):
            return whole
    return text


def _who(process: Process) -> tuple[str, Any]:
    """What tells two ranks apart: the numbers in the tag, else the process."""
    numbers = tuple((kind, number) for kind, number in process.ranks if kind != "EP")
    if numbers:
        return "ranks", numbers
    if process.name in ("VllmWorkerProcess", "RayWorkerWrapper", "RayWorkerProc", "Worker"):
        return "process", process.pid
    return "one", None


def public_words(words: list[str]) -> list[str]:
    """A command line without what says a secret, or where something lies."""
    public: list[str] = []
    skip = False
    for word in words:
        name = word.lstrip("-").partition("=")[0].replace("_", "-")
        if word.startswith("--"):
            skip = is_private_option(name)
            if skip:
                skip = "=" not in word
                continue
        elif skip:
            continue
        public.append(kept(word))
    return public


def known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}

"""The first process: it passes requests on and answers back, and imports nothing of vLLM."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import shutil
import sys
import time
from typing import Any

from kaito_catalog.vllm_bridge.worker.engine import start_engine
from kaito_catalog.vllm_bridge.worker.machine import kernel_out_of_memory_kills
from kaito_catalog.vllm_bridge.worker.processes import (
    LOG_LINES_KEPT,
    TICK_SECONDS,
    Child,
    LineReader,
    drain,
    write_line,
)
from kaito_catalog.vllm_bridge.worker.refusals import (
    ILLEGAL_INSTRUCTION,
    classify_log,
    describe_exit,
    exit_class,
    failed,
)
from kaito_catalog.vllm_bridge.worker.requests import (
    JSON,
    DescribedGpu,
    RequestError,
    check_fields,
    simulated,
)
from kaito_catalog.vllm_bridge.worker.warm import PLANNING, start_warm_process


class Router:
    """Passes requests on and answers back; keeps the warm processes."""

    # A warm process holds about 0.8 GB: the profile's version and another, for two kinds of GPU.
    WARM_PROCESSES = 4

    def __init__(self, output: int) -> None:
        self._output = output
        self._parent = os.getppid()
        self._warm: dict[str, Child] = {}
        self._engine: Child | None = None

    def close(self) -> None:
        for child in (*self._warm.values(), *((self._engine,) if self._engine else ())):
            child.end()
        self._warm.clear()
        self._engine = None

    def answer(self, line: str) -> None:
        request: Any = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise RequestError("bad-request", "a request is a JSON object")
            answer = self._dispatch(request)
        except ValueError as error:
            answer = {"ok": False, "error": {"class": "bad-request", "exception": "", "message": str(error)}}
        except RequestError as failure:
            answer = {"ok": False, "error": failure.as_json()}
        name = request.get("id") if isinstance(request, dict) else None
        write_line(self._output, {"id": name, **{key: value for key, value in answer.items() if key != "id"}})

    def _dispatch(self, request: JSON) -> JSON:
        check_fields(request)
        return self._plan(request) if request["op"] in PLANNING else self._run_engine(request)

    def _plan(self, request: JSON) -> JSON:
        capability = DescribedGpu.read(request).capability if simulated(request) else None
        key = json.dumps([request.get("vllmVersion"), capability])
        starting = key not in self._warm
        if starting:
            while len(self._warm) >= self.WARM_PROCESSES:
                self._warm.pop(next(iter(self._warm))).end()
            self._progress(request, "importing vLLM")
            self._warm[key] = start_warm_process(request)
        child = self._warm[key]
        with contextlib.suppress(BrokenPipeError):
            write_line(child.requests, request)
        answer = self._relay(request, child, None, [], last="importing vLLM" if starting else "starting")
        if "timeOut" in answer or "exit" in answer:
            self._warm.pop(key).end()
            limit = request.get("timeLimitSeconds")
            if "timeOut" in answer:
                raise RequestError("time-out", f"no answer within {limit} s; last: {answer['timeOut']}")
            raise RequestError(
                "other", "the process that imports vLLM ended; its words are on standard error"
            )
        return answer

    def _run_engine(self, request: JSON) -> JSON:
        killed_before = kernel_out_of_memory_kills()
        child, log, scratch = start_engine(request)
        self._engine = child
        lines: list[str] = []
        try:
            answer = self._relay(request, child, log, lines)
        finally:
            child.end()
            self._engine = None
            os.close(log)
            shutil.rmtree(scratch, ignore_errors=True)
        if "timeOut" in answer:
            limit = request.get("timeLimitSeconds")
            over = failed("time-out", f"not done within {limit} s; last: {answer['timeOut']}")
            return {"ok": True, "result": {**over, "log": lines}}
        if "exit" in answer:
            starved = kernel_out_of_memory_kills() > killed_before
            name = "out-of-memory" if starved else exit_class(answer["exit"])
            ended = failed(name, describe_exit(answer["exit"]))
            return {"ok": True, "result": {**ended, "log": lines}}
        result = answer.get("result")
        if isinstance(result, dict) and result.get("outcome") != "served":
            result["log"] = lines
            if "class" not in result and result["outcome"] == "failed":
                result |= classify_log(lines, result.get("exitCode"))
            elif result.get("class") == "other" and re.search(ILLEGAL_INSTRUCTION, "\n".join(lines)):
                result["class"] = "illegal-instruction"
        return answer

    def _relay(
        self, request: JSON, child: Child, log: int | None, kept: list[str], *, last: str = "starting"
    ) -> JSON:
        """Pass progress on until the answer: the answer, {"timeOut": the last progress} or {"exit": code}."""
        limit = request.get("timeLimitSeconds")
        deadline = time.monotonic() + float(limit) if limit else math.inf
        answers, said = LineReader(child.answers), LineReader(log) if log is not None else None
        sources = [reader for reader in (answers, said) if reader]
        while True:
            if os.getppid() != self._parent:
                raise SystemExit(1)
            if time.monotonic() > deadline:
                return {"timeOut": last}
            wait = min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
            readable, _, _ = select.select(sources, [], [], wait)
            if said in readable and said is not None:
                for line in said.lines():
                    sys.stderr.write(line + "\n")
                    kept.append(line)
                    del kept[:-LOG_LINES_KEPT]
                sys.stderr.flush()
                if said.ended:
                    sources.remove(said)
            if answers not in readable:
                continue
            for line in answers.lines():
                message = json.loads(line)
                if "progress" in message:
                    last = message["progress"]
                    self._progress(request, last)
                else:
                    if said is not None and not said.ended:
                        drain(said, kept)
                    return dict(message)
            if answers.ended:
                return {"exit": 1}

    def _progress(self, request: JSON, text: str) -> None:
        write_line(self._output, {"id": request.get("id"), "progress": text})

"""Engines and servers: a fresh interpreter in a process group of its own, under a guard that ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from typing import NoReturn

from kaito_catalog.vllm_bridge.worker.dry_run import dry_run
from kaito_catalog.vllm_bridge.worker.processes import TICK_SECONDS, Child, die_with_parent, reply, write_line
from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError
from kaito_catalog.vllm_bridge.worker.serve import serve

ENGINES = {"dry-run": dry_run, "serve": serve}

ARCHIVE = "vllm_worker.pyz"
ENGINE = "engine"
"""The first argument of an interpreter that is started for an engine."""


def start_engine(request: JSON) -> tuple[Child, int, str]:
    """Start a fresh interpreter for an engine, under a guard that outlives neither it nor us.

    The guard leads the group in which the engine and whatever vLLM starts run. It holds a pipe that only this process
    keeps open: when we end, however that happens, the pipe closes and the guard ends the whole group.
    """
    archive = getattr(__spec__.loader, "archive", None)
    if archive is None:
        raise RequestError("bad-request", "an engine is started by the worker's archive, not by its source")
    scratch = tempfile.mkdtemp(prefix="kaito-catalog-")
    shutil.copyfile(archive, os.path.join(scratch, ARCHIVE))
    answers_reader, answers_writer = os.pipe()
    log_reader, log_writer = os.pipe()
    alive_reader, alive_writer = os.pipe()
    guard = os.fork()
    if guard:
        for descriptor in (answers_writer, log_writer, alive_reader):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.setpgid(guard, guard)
        return Child(guard, answers_reader, alive_writer), log_reader, scratch
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (answers_reader, log_reader, alive_writer):
            os.close(descriptor)
        guard_engine(request, answers_writer, log_writer, alive_reader, scratch)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


LONGEST_SCRATCH = 64
"""Characters: vLLM makes sockets in the temporary folder, whose names the kernel limits to 107."""


def kept_apart(scratch: str) -> dict[str, str]:
    """Variables that make an engine leave its files where they are removed; what torch compiled may serve again."""
    compiled = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")
    return {"TMPDIR": scratch, "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", compiled)}


def guard_engine(request: JSON, answers: int, log: int, alive: int, scratch: str) -> NoReturn:
    archive = os.path.join(scratch, ARCHIVE)
    path = os.pathsep.join(filter(None, (archive, os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        **({} if len(scratch) > LONGEST_SCRATCH else kept_apart(scratch)),
        # For the processes that vLLM starts: they import the extension, and nothing of the folder they are started in.
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        **{str(k): str(v) for k, v in (request.get("env") or {}).items()},
    }
    if request.get("op") == "serve":
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    engine = subprocess.Popen(  # noqa: S603
        [sys.executable, archive, ENGINE, str(answers), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(answers,),
    )
    os.close(log)
    assert engine.stdin is not None
    engine.stdin.write(json.dumps(request).encode())
    engine.stdin.close()
    while engine.poll() is None:
        readable, _, _ = select.select([alive], [], [], TICK_SECONDS / 5)
        if readable:
            break
    else:
        write_line(answers, {"exit": engine.returncode})
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def run_engine(answers: int, parent: int) -> None:
    """The engine's interpreter: one request on standard input, answers on the descriptor."""
    die_with_parent(parent)
    os.set_inheritable(answers, False)
    request = json.loads(sys.stdin.buffer.read())
    reply(answers, ENGINES[request["op"]], request)
    sys.stderr.flush()
    os._exit(0)

"""One dry run where vLLM is, as a Ray task or in a pod: it needs the standard library and the worker's archive alone.

A task is a JSON object: `request` is what the vLLM worker is asked, `config` the model's configuration (absent: the
request names a repository), and the rest (`model`, `revision`, `configSha256`, `args`, `weights`, `changed`, `key`)
comes back beside the worker's answer, so that a result says what it is about:

    {"apiVersion": …, "kind": "DryRunResult", "key": …, "model": …, …, "result": {"outcome": "served", …}}

`error` stands in the place of `result` where vLLM could not be asked. In a pod that object is one line, and the only
one that starts with a brace: everything the worker and vLLM print has a bar in front.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from kaito_catalog.vllm_bridge.conversation import Conversation, WorkerError, result_of

Json = dict[str, Any]
Say = Callable[[str], None]

RESULT_API_VERSION = "catalog.kaito.sh/v1alpha1"
PYTHON_VARIABLE = "KAITO_CATALOG_VLLM_PYTHON"
# `processes.HUB_TOKENS` once more: that module is not in a pod.
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ARCHIVE = "vllm_worker.pyz"
TIME_LIMIT_SECONDS = 900.0
GRACE_SECONDS = 30.0
RAY_PORT = 6379
GATHER_SECONDS = 1800.0
PRINT_SECONDS = 10.0
ECHOED = ("key", "model", "revision", "configSha256", "args", "weights", "changed")


def run(task: Mapping[str, Any], archive: bytes, *, say: Say = lambda line: None) -> Json:
    """The dry run of `task`; never raises for what vLLM does. Nothing of it is left when this returns.

    Args:
        task: what is asked, as above.
        archive: the worker.
        say: gets the worker's progress and vLLM's log, line by line.
    """
    echoed = {name: task[name] for name in ECHOED if name in task}
    scratch = tempfile.mkdtemp(prefix="kaito-catalog-")
    try:
        answer = _ask(task, archive, Path(scratch), say)
    except OSError as error:
        answer = {"error": {"class": "other", "message": f"{error.filename or ''}: {error.strerror}"}}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"apiVersion": RESULT_API_VERSION, "kind": "DryRunResult", **echoed, **answer}


def _ask(task: Mapping[str, Any], archive: bytes, scratch: Path, say: Say) -> Json:
    program = scratch / ARCHIVE
    program.write_bytes(archive)
    request: Json = {"timeLimitSeconds": TIME_LIMIT_SECONDS, **task["request"]}
    if task.get("config") is not None:
        model = scratch / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(task["config"]), encoding="utf-8")
        request["model"] = str(model)
    if int(task.get("nodes") or 1) > 1:
        request["env"] = {**request.get("env", {}), **_for_the_other_nodes(program)}
    python = task.get("python") or find_python()
    tail: list[str] = []
    try:
        conversation = Conversation([str(python), program], stderr=subprocess.PIPE)
    except WorkerError as error:
        return _error(error, tail)
    log = conversation.process.stderr
    assert log is not None
    reader = threading.Thread(target=_forward, args=(log, say, tail), daemon=True)
    reader.start()
    try:
        return {"result": result_of(conversation.ask(request, say))}
    except WorkerError as error:
        failure = error
    finally:
        # The worker's guard ends the engine when the worker is gone, however this ends: cancelled, timed out, done.
        conversation.kill()
        reader.join(GRACE_SECONDS)
        log.close()
    return _error(failure, tail)


def _for_the_other_nodes(program: Path) -> dict[str, str]:
    """vLLM's workers on other nodes import the worker's extension by name; Ray brings it there with their job."""
    with zipfile.ZipFile(program) as archive:
        archive.extractall(program.parent)
    job = {"runtime_env": {"py_modules": [str(program.parent / "kaito_catalog")]}}
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}


def _error(error: WorkerError, tail: list[str]) -> Json:
    details: Json = {"class": error.failure_class, "message": error.words}
    return {"error": details | ({"log": tail[-15:]} if tail else {})}


def _forward(stream: IO[bytes], say: Say, tail: list[str]) -> None:
    for line in stream:
        text = line.decode(errors="replace").rstrip("\r\n")
        if text:
            tail.append(text[:500])
            del tail[:-60]
            say(text)


def find_python() -> str:
    """The Python that has vLLM on this machine: the variable, else this one, else `python3` on the path."""
    given = os.environ.get(PYTHON_VARIABLE)
    if given:
        return given
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    return shutil.which("python3") or sys.executable


def printer() -> Say:
    """Print what is said, a line every ten seconds at most: Ray brings it to the terminal of who asked."""
    last = -math.inf

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last > PRINT_SECONDS:
            last = time.monotonic()
            print(line[:200], flush=True)

    return say


# --- in a pod --------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """In a pod: `run FOLDER [leader|worker]` of the archive, with `run.json` and the archive itself in FOLDER."""
    folder, role = Path(arguments[0]), arguments[1] if len(arguments) > 1 else None
    lock = threading.Lock()
    secrets = [value for name in SECRETS if (value := os.environ.get(name))]

    def say(line: str) -> None:
        for secret in secrets:
            line = line.replace(secret, "***")
        with lock:
            for part in line.splitlines() or [""]:
                sys.stdout.write(f"| {part}\n")
            sys.stdout.flush()

    task = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if role == "worker":
        return join(os.environ.get("LWS_LEADER_ADDRESS", ""), say)
    kept = Path(os.environ.get("HOME", "/tmp")) / "result.json"  # noqa: S108
    if role == "leader" and kept.is_file():
        line = kept.read_text(encoding="utf-8")
    else:
        if role == "leader":
            gather(int(task["nodes"]), say)
        found = run(task, (folder / ARCHIVE).read_bytes(), say=say)
        line = json.dumps(found)
        for secret in secrets:
            line = line.replace(secret, "***")
    if role == "leader":
        # A leader that ends is started again: it says then what it found before, and runs nothing twice.
        written = kept.with_suffix(".new")
        written.write_text(line, encoding="utf-8")
        written.replace(kept)
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if role == "leader":
        wait_for_the_end()
    return 0 if "result" in json.loads(line) else 1


def gather(nodes: int, say: Say) -> None:
    """Start Ray's head here and wait for the group, as vLLM's multi-node-serving.sh does."""
    subprocess.run(  # noqa: S603
        ["ray", "start", "--head", f"--port={RAY_PORT}", "--disable-usage-stats"],  # noqa: S607
        check=True,
        stdout=sys.stderr,
    )
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{RAY_PORT}"
    count = "import ray; ray.init(logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))"
    deadline = time.monotonic() + GATHER_SECONDS
    while time.monotonic() < deadline:
        found = subprocess.run(  # noqa: S603
            [sys.executable, "-c", count], capture_output=True, text=True, check=False
        )
        alive = int((found.stdout.split() or ["0"])[-1]) if found.returncode == 0 else 0
        say(f"{alive} of {nodes} nodes have joined")
        if alive >= nodes:
            return
        time.sleep(5)
    say("not all nodes joined in time; vLLM will say what it misses")


def join(leader: str, say: Say) -> int:
    """Join the leader's Ray, and stay until it ends."""
    address = f"{leader}:{RAY_PORT}"
    deadline = time.monotonic() + GATHER_SECONDS
    while time.monotonic() < deadline:
        say(f"joining {address}")
        done = subprocess.run(  # noqa: S603
            ["ray", "start", f"--address={address}", "--block", "--disable-usage-stats"],  # noqa: S607
            check=False,
            stdout=sys.stderr,
        )
        if done.returncode == 0:
            return 0
        time.sleep(5)
    return 1


def wait_for_the_end() -> None:
    """What a leader printed stays readable until somebody deletes its group."""

    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        signal.pause()

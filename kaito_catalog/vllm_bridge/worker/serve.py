"""`serve`: the OpenAI server, started with the options that KAITO passes, and asked once."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from typing import Any

from kaito_catalog.vllm_bridge.worker.check_options import kaito_expansion
from kaito_catalog.vllm_bridge.worker.dry_run import Stopwatch
from kaito_catalog.vllm_bridge.worker.extension import EXTENSION
from kaito_catalog.vllm_bridge.worker.processes import TICK_SECONDS
from kaito_catalog.vllm_bridge.worker.refusals import failed
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, model_path

# A tool whose call every parser can express: no arguments that a model would have to invent.
EXAMPLE_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The current time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def serve(request: JSON, progress: Progress) -> JSON:
    """Start the OpenAI server, wait for its health, send a chat request, read the cache's size from its metrics."""
    import socket

    clock = Stopwatch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path(request)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
    command += ["--worker-extension-cls", EXTENSION]
    if request.get("weights", "dummy") == "dummy":
        command += ["--load-format", "dummy"]
    if request.get("toolCallParser"):
        command += ["--enable-auto-tool-choice", "--tool-call-parser", str(request["toolCallParser"])]
    if request.get("reasoningParser"):
        command += ["--reasoning-parser", str(request["reasoningParser"])]
    for key, value in (request.get("options") or {}).items():
        command += kaito_expansion(key, value)
    command += [str(flag) for flag in request.get("flags") or ()]
    report: JSON = {"command": command[1:], "weights": request.get("weights", "dummy")}
    progress("starting the server")
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        while server.poll() is None and http_status(port, "/health") != 200:
            time.sleep(TICK_SECONDS)
        clock.lap("healthySeconds")
        if server.poll() is not None:
            return report | {"outcome": "failed", "exitCode": server.returncode, "seconds": clock.laps}
        progress("sending a chat request")
        chat = chat_request(request)
        status, body = http(port, "/v1/chat/completions", chat)
        clock.lap("chatSeconds")
        _, metrics = http(port, "/metrics")
        report |= {
            "status": status,
            "kvCache": cache_info(metrics),
            "seconds": clock.laps,
            "version": json_or_none(http(port, "/version")[1]),
        }
        answer = json_or_none(body)
        if status != 200 or not isinstance(answer, dict):
            return report | failed("other", f"the chat request was answered with {status}: {body[:500]}")
        choice = answer["choices"][0]
        return report | {
            "outcome": "served",
            "finishReason": choice.get("finish_reason"),
            "message": choice.get("message"),
            "usage": answer.get("usage"),
        }
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)


def chat_request(request: JSON) -> JSON:
    chat: JSON = {
        "model": "model",
        "messages": [{"role": "user", "content": "What time is it?"}],
        "max_tokens": int(request.get("maxTokens", 8)),
        "temperature": 0,
    }
    if request.get("toolCallParser"):
        chat |= {"tools": [EXAMPLE_TOOL], "tool_choice": "auto"}
    return chat


def http(port: int, path: str, body: JSON | None = None) -> tuple[int, str]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def http_status(port: int, path: str) -> int | None:
    try:
        return http(port, path)[0]
    except OSError:
        return None


def cache_info(metrics: str) -> JSON | None:
    """The labels of vllm:cache_config_info that describe the cache's size."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\} ", metrics, re.MULTILINE)
    if not found:
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1)))
    wanted = (
        "block_size",
        "num_gpu_blocks",
        "kv_cache_size_tokens",
        "kv_cache_max_concurrency",
        "cache_dtype",
    )
    return {name: labels[name] for name in wanted if name in labels}


def json_or_none(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return None

"""A Kubernetes API server's double over real HTTP: objects in memory, watches that stream, and faults on demand.

The Job controller and the kubelet are `tick` functions of the tests: they look at what was created and say what became
of it. Nothing here is more than the collector needs: create, read, list, watch, delete, logs.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from kaito_catalog.system import cluster

Json = dict[str, Any]
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v1(?:alpha1|beta1)?)(?:/namespaces/(?P<ns>[^/]+))?/(?P<kind>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<log>/log)?\Z"
)


class ApiServer:
    """Objects by kind and name, the requests that came, and what to do wrong."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {
            "jobs": {}, "configmaps": {}, "pods": {}, "leaderworkersets": {}
        }  # fmt: skip
        self.logs: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.created: list[Json] = []
        self.faults: list[Callable[[str, str], tuple[int, Json] | str | None]] = []
        """Each is asked with method and path: a status to answer, `"break"` to hang up, or None."""
        self.watch_faults: list[str] = []
        """Used up one a watch: `gone` (410 as an event), `break` (half a line, then nothing)."""
        self.on_create: Callable[[ApiServer, str, Json], None] = lambda server, kind, item: None
        """Asked when a workload can start: when it and the ConfigMap that its pods mount are there."""
        self._waiting: dict[str, tuple[str, Json]] = {}
        self._version = 1
        self._watchers: list[queue.SimpleQueue[Json]] = []
        self._lock = threading.RLock()

    def put(self, kind: str, item: Json, event: str = "MODIFIED") -> None:
        """Store an object, and tell those who watch."""
        with self._lock:
            self._version += 1
            item["metadata"]["resourceVersion"] = str(self._version)
            known = self.objects[kind].get(item["metadata"]["name"])
            self.objects[kind][item["metadata"]["name"]] = item
            if kind == "pods":
                for watcher in self._watchers:
                    watcher.put({"type": event if known else "ADDED", "object": item})

    def remove(self, kind: str, name: str) -> None:
        with self._lock:
            self._version += 1
            item = self.objects[kind].pop(name, None)
            if item is not None and kind == "pods":
                for watcher in self._watchers:
                    watcher.put({"type": "DELETED", "object": item})

    def pod(self, workload: Json, number: int, phase: str, *, log: str = "", **status: Any) -> Json:
        """A pod of a Job, or the leader of a LeaderWorkerSet, in a phase."""
        spec = workload["spec"]
        template = spec.get("template") or spec["leaderWorkerTemplate"]["leaderTemplate"]
        name = f"{workload['metadata']['name']}-{number}"
        item = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": template["metadata"]["labels"], "namespace": "default"},
            "spec": {**template["spec"], "nodeName": "node-1"},
            "status": {"phase": phase, **status},
        }
        if log:
            self.logs[name] = log
        self.put("pods", item)
        return item

    def finish_job(self, name: str, condition: str, **fields: Any) -> None:
        job = self.objects["jobs"][name]
        job["status"] = {"conditions": [{"type": condition, "status": "True", **fields}]}
        self.put("jobs", job)

    # --- answers ---

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: Json | None
    ) -> tuple[int, Any]:
        match = PATH.match(path)
        if match is None:
            return 404, status(404, "NotFound", path)
        kind, name = match["kind"], match["name"]
        with self._lock:
            if kind not in self.objects:
                return 404, status(404, "NotFound", "the server could not find the requested resource")
            found = self.objects[kind]
            if method == "POST":
                assert body is not None
                name = body["metadata"]["name"]
                if name in found:
                    return 409, status(409, "AlreadyExists", f"{kind} {name!r} already exists")
                self.created.append(json.loads(json.dumps(body)))
                body.setdefault("status", {})
                body["metadata"]["uid"] = f"uid-{len(self.created)}"
                self.put(kind, body)
                if kind == "configmaps":
                    starting = self._waiting.pop(name, None)
                    if starting is not None:
                        self.on_create(self, *starting)
                elif name in self.objects["configmaps"]:
                    self.on_create(self, kind, body)
                else:
                    self._waiting[name] = (kind, body)
                return 201, body
            if match["log"]:
                if query.get("previous") == ["true"]:
                    name = f"{name} --previous"
                return (
                    (200, self.logs[name])
                    if name in self.logs
                    else (400, status(400, "BadRequest", "waiting"))
                )
            if name and name not in found:
                return 404, status(404, "NotFound", f"{kind} {name!r} not found")
            if method == "DELETE":
                self.remove(kind, name)
                for pod in [p for p in self.objects["pods"] if p.startswith(f"{name}-")]:
                    self.remove("pods", pod)
                owned = self.objects["configmaps"].get(name, {}).get("metadata", {}).get("ownerReferences")
                if owned:
                    self.remove("configmaps", name)
                return 200, status(200, "Success", "")
            if name:
                return 200, found[name]
            selector = [part for part in (query.get("labelSelector") or [""])[0].split(",") if part]
            wanted = dict(part.split("=") for part in selector if "=" in part)
            present = {part for part in selector if "=" not in part}
            items = [
                item
                for item in found.values()
                if wanted.items() <= (item["metadata"].get("labels") or {}).items()
                and present <= (item["metadata"].get("labels") or {}).keys()
                and match["ns"] in (None, item["metadata"].get("namespace", "default"))
            ]
            listing = {
                "kind": "List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self._version)},
            }
            return 200, {**listing, "items": items}

    @contextmanager
    def watching(self, version: int) -> Iterator[queue.SimpleQueue[Json]]:
        mine: queue.SimpleQueue[Json] = queue.SimpleQueue()
        with self._lock:
            for item in self.objects["pods"].values():
                if int(item["metadata"]["resourceVersion"]) > version:
                    mine.put({"type": "MODIFIED", "object": item})
            self._watchers.append(mine)
        try:
            yield mine
        finally:
            self._watchers.remove(mine)


def status(code: int, reason: str, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _do(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        self.api.requests.append((self.command, self.path))
        for fault in self.api.faults:
            found = fault(self.command, url.path)
            if found == "break":
                self.close_connection = True
                self.connection.close()
                return
            if found is not None:
                assert not isinstance(found, str)
                self._send(*found)
                return
        if query.get("watch"):
            self._watch(int(query["resourceVersion"][0]))
            return
        self._send(*self.api.answer(self.command, url.path, query, json.loads(text) if text else None))

    do_GET = do_POST = do_DELETE = _do  # noqa: N815

    def _send(self, code: int, value: Any) -> None:
        text = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _watch(self, version: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        fault = self.api.watch_faults.pop(0) if self.api.watch_faults else None
        if fault == "gone":
            self._chunk({"type": "ERROR", "object": status(410, "Expired", "too old resource version")})
        elif fault == "break":
            self.wfile.write(b'40\r\n{"type": "MODI')
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        else:
            with self.api.watching(version) as events:
                try:
                    self._chunk(events.get(timeout=0.5))
                except queue.Empty:
                    pass
                except OSError:
                    return
        try:
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            return

    def _chunk(self, event: Json) -> None:
        text = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.wfile.flush()


@contextmanager
def served(server: ApiServer) -> Iterator[str]:
    """The server's address while the block runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": server}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def reached(server: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server, with a kubeconfig in `folder` that leads to it, past every proxy."""
    monkeypatch.setattr(cluster, "PAUSE_SECONDS", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with served(server) as address:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield

"""Our own Hub over real HTTP: for tests, and for trying every command without a network.

It answers what `huggingface_hub` asks of the Hub for models: information with file metadata, refs, the tree in
pages, files with ranges, redirects of moved repositories, gates, rate limits. Weights are served from a header of
declared size; the tensors behind it are zeros that are not stored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kaito_catalog.hub.fake.files import FakeFile
from kaito_catalog.hub.fake.repositories import FakeRepository


@dataclass(frozen=True)
class ClientRequest:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def is_api(self) -> bool:
        """Whether it counts against the limit of API calls (files have their own)."""
        return self.path.startswith("/api/")


@dataclass
class Fault:
    """Something that goes wrong for requests whose path matches.

    Attributes:
        pattern: a regular expression, searched in the path.
        status: answer with this status and `headers`.
        action: instead: `hang` (no answer), `cut` (half of the body), `truncate` (half of a JSON body, its length
            right), `corrupt` (no JSON), `short-length` (Content-Length too small), `no-range` (the whole file).
        times: how often; None is always.
    """

    pattern: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    action: Literal["hang", "cut", "truncate", "corrupt", "short-length", "no-range"] | None = None
    times: int | None = None


class FakeHub:
    """A Hub on this machine: ``with FakeHub([repository(…)]) as hub: … hub.endpoint``.

    Args:
        repositories: what it serves; `repositories` (by id) may be changed while it runs.
        port: 0 takes a free one.
        limit: API calls per window, as the Hub's 500 per 300 seconds; None does not count.
        tokens: access token to the gated repositories it opens; `*` opens all.
        cdn: where LFS files are redirected to; None serves them itself.
    """

    def __init__(
        self,
        repositories: Iterable[FakeRepository] = (),
        *,
        port: int = 0,
        limit: int | None = None,
        window_seconds: int = 300,
        tokens: Mapping[str, tuple[str, ...]] | None = None,
        cdn: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.repositories = {found.repo_id: found for found in repositories}
        self.tokens = dict(tokens or {"hf_reader": ("*",), "hf_stranger": ()})
        self.cdn = cdn
        self.limit = limit
        self.window_seconds = window_seconds
        self.requests: list[ClientRequest] = []
        self.faults: list[Fault] = []
        self.page_size = 1000
        self._clock = clock
        self._window_start = clock()
        self._window_calls = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def api_calls(self) -> int:
        """Requests that count against the limit of API calls."""
        return sum(request.is_api for request in self.requests)

    def start(self) -> FakeHub:
        """Serve in the background."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self) -> None:
        """Serve until interrupted."""
        self.start()
        while self._thread.is_alive():
            self._thread.join(0.5)

    def __enter__(self) -> FakeHub:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def put(self, found: FakeRepository) -> None:
        """Add or replace a repository."""
        self.repositories[found.repo_id] = found

    def remove(self, repo_id: str) -> None:
        """Delete a repository."""
        del self.repositories[repo_id]

    def note(self, request: ClientRequest) -> tuple[Fault | None, dict[str, str], bool]:
        """Count a request: the fault that befalls it, the rate-limit headers, whether it is over the limit."""
        with self._lock:
            self.requests.append(request)
            fault = next(
                (f for f in self.faults if f.times != 0 and re.search(f.pattern, request.path)), None
            )
            if fault is not None and fault.times is not None:
                fault.times -= 1
            if self.limit is None or not request.is_api:
                return fault, {}, False
            now = self._clock()
            if now - self._window_start >= self.window_seconds:
                self._window_start, self._window_calls = now, 0
            self._window_calls += 1
            left = max(0, self.limit - self._window_calls)
            reset = max(0, math.ceil(self._window_start + self.window_seconds - now))
            headers = {
                "RateLimit": f'"api";r={left};t={reset}',
                "RateLimit-Policy": f'"fixed window";"api";q={self.limit};w={self.window_seconds}',
            }
            return fault, headers, self._window_calls > self.limit

    def wait(self, seconds: float) -> None:
        """Sleep, unless the server stops."""
        self._stop.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is not news."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    file: FakeFile | None = None


def _problem(status: int, code: str, message: str) -> _Answer:
    headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
    return _Answer(status, json.dumps({"error": message}).encode(), headers)


def _json(value: Any, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


_API = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|refs|commits)(?:/(?P<rest>.*))?)?\Z"
)
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rest>.+)\Z")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: else each answer waits for the client's delayed acknowledgement.
    wbufsize = 2**16
    disable_nagle_algorithm = True
    server_hub: FakeHub

    def log_message(self, *args: Any) -> None:
        """Keep stderr for the person."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        hub = self.server_hub
        request = ClientRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        fault, limits, over = hub.note(request)
        if fault is not None and fault.status is not None:
            found = _Answer(
                fault.status, b'{"error":"fault"}', {"Content-Type": "application/json", **fault.headers}
            )
        elif fault is not None and fault.action == "hang":
            hub.wait(30)
            self.close_connection = True
            return
        elif over:
            found = _problem(429, "", "You have reached your rate limit")
        else:
            found = self._find(request)
        self._send(found, limits, fault.action if fault and fault.status is None else None, body=body)

    def _send(self, found: _Answer, limits: Mapping[str, str], action: str | None, *, body: bool) -> None:
        file, status, headers = found.file, found.status, {**found.headers, **limits}
        data: bytes | None = found.body
        start, end = 0, len(found.body)
        if file is not None:
            data, start, end = None, 0, file.size_bytes
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and action != "no-range":
                start = int(wanted[1])
                end = min(int(wanted[2]) + 1 if wanted[2] else file.size_bytes, file.size_bytes)
                if start >= file.size_bytes:
                    self._send(
                        _Answer(416, b"", {"Content-Range": f"bytes */{file.size_bytes}"}),
                        limits,
                        None,
                        body=body,
                    )
                    return
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
        length = end - start
        if action == "truncate" and data is not None:
            data = data[: len(data) // 2]
            length = len(data)
        elif action == "corrupt" and data is not None:
            data = b"<html>a proxy's own page</html>"
            length = len(data)
        if action == "short-length":
            length //= 2
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        if action in ("cut", "short-length"):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not body:
            return
        if action == "cut":
            end = start + (end - start) // 2
        self._write(data, file, start, end)

    def _write(self, data: bytes | None, file: FakeFile | None, start: int, end: int) -> None:
        try:
            if file is None:
                self.wfile.write((data or b"")[: end - start] if data is not None else b"")
                return
            while start < end:
                block = file.read(start, min(end, start + 2**20))
                if not block:
                    return
                self.wfile.write(block)
                start += len(block)
        except OSError:
            self.close_connection = True

    # What the Hub knows.

    def _find(self, request: ClientRequest) -> _Answer:
        parts = urlsplit(request.path)
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip() or None
        if token is not None and token not in self.server_hub.tokens:
            return _problem(401, "", "Invalid credentials in Authorization header")
        if parts.path == "/api/whoami-v2":
            return _json({"type": "user", "name": "reader"}) if token else _problem(401, "", "no token")
        match = _API.match(parts.path) or _FILE.match(parts.path)
        if match is None:
            return _problem(404, "", "there is nothing here")
        repo_id = unquote(match["repo"])
        found = self.server_hub.repositories.get(repo_id)
        if found is None or (found.private and token is None):
            # The Hub does not say whether a repository exists to somebody it does not know.
            if token is None:
                return _problem(401, "RepoNotFound", "Invalid username or password.")
            return _problem(404, "RepoNotFound", "Repository not found")
        if found.moved_to is not None:
            location = request.path.replace(match["repo"], quote(found.moved_to, safe="/"), 1)
            return _Answer(
                307, f"Temporary Redirect. Redirecting to {location}".encode(), {"Location": location}
            )
        if found.disabled:
            return _problem(403, "", "Access to this resource is disabled.")
        query = parse_qs(parts.query)
        if match.re is _FILE:
            return self._file(found, match["rest"], token, request)
        return self._api(found, match["what"], match["rest"], query)

    def _api(
        self, found: FakeRepository, what: str | None, rest: str | None, query: Mapping[str, list[str]]
    ) -> _Answer:
        if what == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in found.refs.items()
            ]
            return _json({"branches": branches, "tags": [], "converts": []})
        revision, _, folder = (rest or "").partition("/")
        name = unquote(revision) if what else "main"
        commit = found.commit(name)
        if commit is None:
            return _problem(404, "RevisionNotFound", f"Invalid rev id: {name}")
        match what:
            case "tree":
                return self._tree(found, commit, unquote(folder), query)
            case "commits":
                listing = [
                    {"id": c, "title": "a commit", "message": "", "authors": [], "date": _DAY}
                    for c in found.commits
                ]
                return _json(listing)
            case _:
                return self._info(found, commit, query)

    def _info(self, found: FakeRepository, commit: str, query: Mapping[str, list[str]]) -> _Answer:
        files = found.commits[commit]
        blobs = any(value.lower() == "true" for value in query.get("blobs", []))
        if query.get("expand") and (blobs or query.get("securityStatus")):
            return _problem(400, "", "expand cannot be combined with blobs or securityStatus")
        siblings: list[dict[str, Any]] = []
        for path in files:
            sibling: dict[str, Any] = {"rfilename": path}
            if blobs:
                sibling |= _blob(files[path])
            siblings.append(sibling)
        card: dict[str, Any] = {
            "license": found.license,
            "license_name": found.license_name,
            "license_link": found.license_link,
            "base_model": list(found.base_models) or None,
        }
        parameters = found.parameters(commit) if found.parameters_known else None
        value: dict[str, Any] = {
            "_id": hashlib.md5(found.repo_id.encode(), usedforsecurity=False).hexdigest()[:24],
            "id": found.repo_id,
            "modelId": found.repo_id,
            "author": found.repo_id.partition("/")[0],
            "sha": commit,
            "lastModified": _DAY,
            "createdAt": _DAY,
            "private": found.private,
            "disabled": found.disabled,
            "gated": found.gated,
            "downloads": found.downloads,
            "likes": 0,
            "library_name": "transformers",
            "pipeline_tag": found.pipeline_tag,
            "tags": [tag for tag in (found.pipeline_tag, f"license:{found.license}") if tag],
            "cardData": {key: text for key, text in card.items() if text is not None},
            "siblings": siblings,
            "usedStorage": sum(file.size_bytes for file in files.values()),
        }
        if parameters:
            value["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
        if query.get("securityStatus"):
            issues = [{"path": path, "level": "unsafe"} for path in found.unsafe_files]
            value["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": issues}
        expand = query.get("expand")
        if expand:
            value = {key: value[key] for key in ("_id", "id", *expand) if key in value}
        return _json(value)

    def _tree(
        self, found: FakeRepository, commit: str, folder: str, query: Mapping[str, list[str]]
    ) -> _Answer:
        files = found.commits[commit]
        prefix = f"{folder.rstrip('/')}/" if folder else ""
        recursive = any(value.lower() == "true" for value in query.get("recursive", []))
        listing: dict[str, dict[str, Any]] = {}
        for path in sorted(files):
            if not path.startswith(prefix):
                continue
            below = path[len(prefix) :]
            if "/" in below:
                directory = prefix + below.partition("/")[0]
                listing.setdefault(
                    directory, {"type": "directory", "oid": commit, "size": 0, "path": directory}
                )
                if not recursive:
                    continue
            blob = _blob(files[path])
            entry: dict[str, Any] = {
                "type": "file",
                "oid": blob["blobId"],
                "size": blob["size"],
                "path": path,
            }
            if "lfs" in blob:
                lfs = blob["lfs"]
                entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
            listing[path] = entry
        if folder and not listing:
            return _problem(404, "EntryNotFound", f"{folder} does not exist")
        page = int(query.get("limit", [str(self.server_hub.page_size)])[0])
        page = min(page, self.server_hub.page_size)
        first = int(query.get("cursor", ["0"])[0])
        entries = list(listing.values())
        headers: dict[str, str] = {}
        if first + page < len(entries):
            path = urlsplit(self.path).path
            flag = "&recursive=true" if recursive else ""
            headers["Link"] = f'<{self.server_hub.endpoint}{path}?cursor={first + page}{flag}>; rel="next"'
        return _json(entries[first : first + page], headers)

    def _file(self, found: FakeRepository, rest: str, token: str | None, request: ClientRequest) -> _Answer:
        revision, _, path = rest.partition("/")
        commit = found.commit(unquote(revision))
        if commit is None:
            return _problem(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
        if found.gated:
            opened = self.server_hub.tokens.get(token or "", ())
            if "*" not in opened and found.repo_id not in opened:
                return _problem(
                    403 if token else 401, "GatedRepo", f"Access to model {found.repo_id} is restricted."
                )
        file = found.commits[commit].get(unquote(path))
        headers = {"X-Repo-Commit": commit}
        if file is None:
            answer = _problem(404, "EntryNotFound", "Entry not found")
            return replace(answer, headers={**answer.headers, **headers})
        headers["Accept-Ranges"] = "bytes"
        if not file.lfs:
            return _Answer(200, headers={**headers, "ETag": f'"{file.blob_id}"'}, file=file)
        headers |= {"X-Linked-Size": str(file.size_bytes), "X-Linked-Etag": f'"{file.sha256}"'}
        if self.server_hub.cdn is not None:
            location = f"{self.server_hub.cdn}{request.path}"
            return _Answer(302, b"", {**headers, "ETag": f'"{file.sha256}"', "Location": location})
        return _Answer(200, headers={**headers, "ETag": f'"{file.sha256}"'}, file=file)


_DAY = "2026-01-05T00:00:00.000Z"


def _blob(file: FakeFile) -> dict[str, Any]:
    value: dict[str, Any] = {"blobId": file.blob_id, "size": file.size_bytes}
    if file.lfs:
        value["lfs"] = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": len(file.pointer)}
    return value

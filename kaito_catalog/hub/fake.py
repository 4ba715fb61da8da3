"""Our own Hub over real HTTP: for tests, and for trying every command without a network.

It answers what `huggingface_hub` asks of the Hub for models: information with file metadata, refs, the tree in
pages, files with ranges, redirects of moved repositories, gates, rate limits. Weights are served from a header of
declared size; the tensors behind it are zeros that nobody stores.
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
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.repository import is_safe

DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2}
"""Bytes of one element per safetensors dtype; every other dtype has one."""
SETTINGS = ".fake-hub.json"
"""Beside the files of a repository in a directory: what files cannot say (gate, downloads, moves)."""
_LFS_FROM_BYTES = 10 * 2**20
_LFS_NAMES = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|onnx|msgpack|h5|model)\Z")
_SHARD_BYTES = 5 * 10**9
_HEADER_ROOM = 65536


# --- files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeFile:
    """A file of a repository: its first bytes, and zeros up to `size_bytes`; or a file on disk."""

    head: bytes
    size_bytes: int
    lfs: bool
    declared_sha256: str | None = None
    on_disk: Path | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the content; files that nobody stores have an invented one that changes with head and size."""
        if self.declared_sha256:
            return self.declared_sha256
        digest = hashlib.sha256()
        if self.on_disk is not None:
            with self.on_disk.open("rb") as stream:
                for block in iter(lambda: stream.read(2**20), b""):
                    digest.update(block)
        elif self.size_bytes <= 2**26:
            digest.update(self.read(0, self.size_bytes))
        else:
            digest.update(self.head + str(self.size_bytes).encode())
        return digest.hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's id of the blob: of the content, or of the LFS pointer."""
        content = self.pointer if self.lfs else self.read(0, self.size_bytes)
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What Git holds in place of a file in LFS."""
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size_bytes}\n"
        )
        return text.encode()

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        end = min(end, self.size_bytes)
        if self.on_disk is not None:
            with self.on_disk.open("rb") as stream:
                stream.seek(start)
                return stream.read(max(0, end - start))
        part = self.head[start:end]
        return part + bytes(max(0, end - start - len(part)))


def text_file(content: str | bytes) -> FakeFile:
    """A small file, kept in Git."""
    data = content.encode() if isinstance(content, str) else content
    return FakeFile(data, len(data), lfs=False)


def json_file(value: Any) -> FakeFile:
    """A small JSON file."""
    return text_file(json.dumps(value, indent=2) + "\n")


def lfs_file(content: bytes, *, size_bytes: int | None = None, sha256: str | None = None) -> FakeFile:
    """A file in LFS that starts with `content`."""
    return FakeFile(content, size_bytes if size_bytes is not None else len(content), True, sha256)


def dtype_bytes(dtype: str) -> float:
    """Bytes of one element; half a byte where two share one."""
    return 0.5 if dtype in ("F4", "F4_E2M1") else DTYPE_BYTES.get(dtype, 1)


def safetensors_file(
    parameters: Mapping[str, int],
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    prefix: str = "model",
) -> FakeFile:
    """A safetensors file with one tensor per dtype; its header is padded so that the whole has `size_bytes`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for dtype, count in parameters.items():
        end = offset + math.ceil(count * dtype_bytes(dtype))
        header[f"{prefix}.{dtype.lower()}.weight"] = {
            "dtype": dtype,
            "shape": [count],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    if size_bytes is not None:
        room = size_bytes - 8 - offset
        if room < len(text):
            raise CatalogError(f"{size_bytes} bytes cannot hold {offset} bytes of tensors and their header")
        text = text.ljust(room)
    return lfs_file(len(text).to_bytes(8, "little") + text, size_bytes=8 + len(text) + offset, sha256=sha256)


def header_parameters(file: FakeFile) -> dict[str, int] | None:
    """Parameters by dtype that a safetensors file declares; None where it is none."""
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= 2**25:
        return None
    try:
        header = json.loads(file.read(8, 8 + length))
    except ValueError:
        return None
    found: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            found[tensor["dtype"]] = found.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return found


# --- repositories ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeRepository:
    """A model repository: its commits, branches, and what the Hub says about it."""

    repo_id: str
    commits: Mapping[str, Mapping[str, FakeFile]]
    """40-hex commit to files by path."""
    refs: Mapping[str, str]
    """Branch or tag to commit."""
    gated: Literal[False, "auto", "manual"] = False
    private: bool = False
    disabled: bool = False
    moved_to: str | None = None
    license: str | None = "apache-2.0"
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str | None = "text-generation"
    base_models: tuple[str, ...] = ()
    downloads: int = 1000
    parameters_known: bool = True
    """Whether the Hub has parsed the safetensors headers itself."""
    unsafe_files: tuple[str, ...] = ()
    """Files its scan calls unsafe."""

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, tag, or commit."""
        return revision if revision in self.commits else self.refs.get(revision)

    def parameters(self, commit: str) -> dict[str, int] | None:
        """What the Hub says about safetensors: the sum over `model*.safetensors` at the top."""
        total: dict[str, int] = {}
        for path, file in self.commits[commit].items():
            if re.fullmatch(r"model[^/]*\.safetensors", path):
                for dtype, count in (header_parameters(file) or {}).items():
                    total[dtype] = total.get(dtype, 0) + count
        return total or None

    def with_commit(self, files: Mapping[str, FakeFile], *, commit: str | None = None) -> FakeRepository:
        """This repository after a push to main."""
        name = commit or commit_of(self.repo_id, files)
        return replace(self, commits={**self.commits, name: files}, refs={**self.refs, "main": name})


def commit_of(repo_id: str, files: Mapping[str, FakeFile]) -> str:
    """A commit that depends on the files and nothing else."""
    listing = "\n".join(f"{path} {files[path].blob_id}" for path in sorted(files))
    return hashlib.sha1(f"{repo_id}\n{listing}".encode(), usedforsecurity=False).hexdigest()


def repository(
    repo_id: str, files: Mapping[str, FakeFile], *, commit: str | None = None, **settings: Any
) -> FakeRepository:
    """A repository with one commit on main."""
    name = commit or commit_of(repo_id, files)
    return FakeRepository(repo_id, {name: dict(files)}, {"main": name}, **settings)


def repository_from_directory(repo_id: str, folder: Path) -> FakeRepository:
    """The files of a folder as the main branch; `.fake-hub.json` in it may set gate, licence, downloads, sizes.

    Keys of that file are fields of `FakeRepository`, `commit`, and `safetensors`: path to `{sizeBytes, parameters}`
    for weights that are served without being stored.
    """
    settings: dict[str, Any] = {}
    files: dict[str, FakeFile] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith((".git/", ".cache/")):
            continue
        if name == SETTINGS:
            settings = _read_settings(path)
            continue
        size = path.stat().st_size
        lfs = size >= _LFS_FROM_BYTES or bool(_LFS_NAMES.match(name))
        files[name] = FakeFile(b"", size, lfs, on_disk=path)
    for name, declared in settings.pop("safetensors", {}).items():
        files[name] = _declared(
            declared.get("parameters") or {}, declared["sizeBytes"], declared.get("sha256")
        )
    if "base_models" in settings:
        settings["base_models"] = tuple(settings["base_models"])
    try:
        return repository(repo_id, files, **{"license": _front_matter_license(files), **settings})
    except TypeError as error:
        raise CatalogError(f"{folder / SETTINGS}: {error}") from error


def _front_matter_license(files: Mapping[str, FakeFile]) -> str | None:
    readme = files.get("README.md")
    text = readme.read(0, 65536).decode("utf-8", "replace") if readme else ""
    match = re.match(r"---\n(?:.*\n)*?license: *([\w.-]+) *\n", text)
    return match[1] if match else None


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CatalogError(f"{path} has to hold keys and values")
    return value


def _declared(parameters: Mapping[str, int], size_bytes: int, sha256: str | None = None) -> FakeFile:
    """Weights of exactly that size; without known parameters, as many BF16 as fit."""
    room = min(_HEADER_ROOM, size_bytes // 2)
    counts = dict(parameters) or {"BF16": (size_bytes - room) // 2}
    return safetensors_file(counts, size_bytes=size_bytes, sha256=sha256)


def repository_from_facts(facts: ModelFacts, *, downloads: int = 1000) -> FakeRepository:
    """A repository as facts describe it: its configuration, and weights of the recorded size behind real headers.

    Recorded files have their recorded sizes and, in LFS, hashes; what they contain is made up.
    """
    license_id = facts.license.id if facts.license else "other"
    files: dict[str, FakeFile] = {
        "config.json": json_file({**(facts.config or {}), **_auto_map(facts)}),
        "README.md": text_file(f"---\nlicense: {license_id}\n---\n"),
        "LICENSE": text_file(f"The licence of {facts.repo_id}.\n"),
    }
    for python in facts.remote_code.files if facts.remote_code else ():
        files[python.path] = text_file("# code of the repository\n")
    weights = facts.weights
    counts = dict(facts.safetensors.parameters_by_dtype) if facts.safetensors else {}
    if facts.files is None and weights is not None and weights.total is not None:
        if weights.format in ("safetensors", "mistral"):
            stem = "consolidated" if weights.format == "mistral" else "model"
            files |= _shards(weights.total.size_bytes, weights.files, counts, stem=stem)
        rest = (
            facts.repository.size_bytes - sum(f.size_bytes for f in files.values()) if facts.repository else 0
        )
        if rest > 0:
            files["tokenizer.json"] = lfs_file(b"{}", size_bytes=rest)
    elif facts.files is not None:
        files = _listed(facts, files, counts)
    return repository(
        facts.repo_id,
        files,
        commit=facts.revision,
        gated={"no": False, "auto": "auto"}.get(facts.gated or "no", "manual"),
        license=facts.license.id if facts.license else None,
        license_name=facts.license.name if facts.license else None,
        license_link=facts.license.link if facts.license else None,
        pipeline_tag=facts.pipeline_tag,
        base_models=facts.base_models or (),
        downloads=downloads,
    )


def _auto_map(facts: ModelFacts) -> dict[str, Any]:
    found = facts.remote_code.auto_map if facts.remote_code else None
    return {"auto_map": found} if found else {}


def _listed(facts: ModelFacts, made: Mapping[str, FakeFile], counts: dict[str, int]) -> dict[str, FakeFile]:
    """Each recorded file with the recorded size and hash."""
    sizes = {file.path: file.size_bytes or 0 for file in facts.files or () if is_safe(file.path)}
    shards = [path for path in sizes if path.endswith(".safetensors") and "/" not in path]
    weights = _filled({path: sizes[path] for path in shards}, counts)
    code = {file.path: file.sha256 for file in facts.remote_code.files} if facts.remote_code else {}
    found: dict[str, FakeFile] = {}
    for file in facts.files or ():
        if file.path not in sizes:
            continue
        size = sizes[file.path]
        # What was hashed by content, though kept in Git, is served as if it were in LFS: its content is not known.
        # JSON is made up so that it can be read, and then its hash is its own.
        is_json = file.path.endswith(".json")
        digest = None if is_json else file.sha256 or code.get(file.path)
        if file.path == "LICENSE" and facts.license:
            digest = digest or facts.license.sha256
        if file.path in weights:
            found[file.path] = replace(weights[file.path], declared_sha256=digest)
        elif file.path == "model.safetensors.index.json":
            index = {"metadata": {}, "weight_map": {path: path for path in shards}}
            found[file.path] = _padded(json_file(index).head, size)
        elif digest:
            found[file.path] = lfs_file(b"", size_bytes=size, sha256=digest)
        else:
            found[file.path] = _padded(
                made[file.path].head if file.path in made else b"{}" if is_json else b"", size
            )
    return found


def _padded(head: bytes, size: int) -> FakeFile:
    """A text of that size: longer than recorded only where it would not fit."""
    text = head.ljust(size)
    return FakeFile(text, len(text), lfs=False)


def _filled(sizes: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, FakeFile]:
    """Weight files of those sizes that hold those parameters together, where they fit."""
    left = dict(counts)
    files: dict[str, FakeFile] = {}
    for path, size in sizes.items():
        held: dict[str, int] = {}
        room = size - 4096
        for dtype in list(left):
            taken = max(0, min(left[dtype], int(room / dtype_bytes(dtype))))
            if taken:
                held[dtype] = taken
                left[dtype] -= taken
                room -= math.ceil(taken * dtype_bytes(dtype))
        files[path] = safetensors_file(held, size_bytes=size) if _fits(held, size) else _declared({}, size)
    return files


def _shards(
    total_bytes: int, count: int | None, parameters: dict[str, int], *, stem: str
) -> dict[str, FakeFile]:
    number = count or max(1, math.ceil(total_bytes / _SHARD_BYTES))
    sizes = [total_bytes // number] * number
    sizes[-1] += total_bytes - sum(sizes)
    names = (
        [f"{stem}.safetensors"]
        if number == 1
        else [f"{stem}-{index:05d}-of-{number:05d}.safetensors" for index in range(1, number + 1)]
    )
    files = _filled(dict(zip(names, sizes, strict=True)), parameters)
    if number > 1:
        weight_map = {f"{stem}.{path}": path for path in files}
        files[f"{stem}.safetensors.index.json"] = json_file(
            {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        )
    return files


def _fits(held: Mapping[str, int], size: int) -> bool:
    # A header of a few tensors stays far below what a client reads at once only if little padding is left.
    data = sum(math.ceil(n * dtype_bytes(d)) for d, n in held.items())
    return 4096 <= size - data <= 2**24


# --- the server ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
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
        self.requests: list[Request] = []
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

    def note(self, request: Request) -> tuple[Fault | None, dict[str, str], bool]:
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
        """A client that hangs up is no news."""


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
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
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

    def _find(self, request: Request) -> _Answer:
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

    def _file(self, found: FakeRepository, rest: str, token: str | None, request: Request) -> _Answer:
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


def repositories_in(folder: Path) -> list[FakeRepository]:
    """The repositories of a directory: ``DIR/ORG/NAME/`` each, or of a catalog: its recorded facts.

    Raises:
        CatalogError: there is none.
    """
    found = [
        repository_from_directory(f"{path.parent.name}/{path.name}", path)
        for path in sorted(folder.glob("*/*"))
        if path.is_dir() and not path.name.startswith(".") and not path.parent.name.startswith(".")
    ]
    if not found:
        raise CatalogError(f"no repository in {folder}", hint="lay out the files as DIR/ORG/NAME/config.json")
    return found

"""The client's side of the Hub: asks, waits as it is told to, and returns plain values; it does not judge.

`huggingface_hub` makes the requests, against `HF_ENDPOINT` with `HF_TOKEN`. Nothing read here is executed, and every
answer is limited in size and time.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import huggingface_hub
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import get_token, httpx, parse_ratelimit_headers

from kaito_catalog import __version__
from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.answers import USERINFO, Asker, Question, diagnose, host, repository_of
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.repository import Header, RepoFile, Repository, printable
from kaito_catalog.hub.safetensors import header_length, parse_header
from kaito_catalog.quantity import gb

T = TypeVar("T")

ANSWER_LIMIT_BYTES = 64 * 2**20
RETRY_SECONDS = 1.0
"""The first wait where the server does not say how long; it doubles each time."""
_FIRST_READ_BYTES = 100_000
"""97 % of safetensors headers are shorter (huggingface_hub's own measurement): one request does."""

_TOKEN = re.compile(r"[!-~]+")


class _Limited(httpx.SyncByteStream):
    """A response body that ends in an error when it is too large or takes too long."""

    def __init__(self, stream: Any, *, deadline: float, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._deadline = deadline
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for block in self._stream:
            count += len(block)
            if count > ANSWER_LIMIT_BYTES:
                raise HubError(Trouble.TOO_LARGE, f"the answer is larger than {gb(ANSWER_LIMIT_BYTES)}")
            if self._clock() > self._deadline:
                raise HubError(Trouble.TIMEOUT, "the answer did not arrive in time")
            yield block

    def close(self) -> None:
        self._stream.close()


class Hub:
    """A connection to the Hub: ``with Hub() as hub: hub.snapshot("org/model", revision=…)``.

    Args:
        endpoint: default `HF_ENDPOINT`, else the Hub itself.
        token: default `HF_TOKEN` or the saved one; False asks without one.
        timeout_seconds: for an answer to begin or to go on; a whole answer has ten times as much.
        attempts: how often a request is made before its failure counts.
        longest_wait_seconds: a rate limit that lasts longer is an error (the Hub's windows are 300 s).
        sleep, clock: replaced in tests.
        say: told what is being waited for.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        timeout_seconds: float = 30.0,
        attempts: int = 5,
        longest_wait_seconds: float = 330.0,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        if urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise CatalogError(
                f"HF_ENDPOINT is '{USERINFO.sub('//', self.endpoint)[:80]}', which is not a web address",
                hint="such as https://huggingface.co, or http://127.0.0.1:8000 for 'kaito-catalog fake-hub'",
            )
        if constants.HF_HUB_OFFLINE:
            raise CatalogError(
                "HF_HUB_OFFLINE is set, and this asks the Hub", hint="unset it, or use --from-local"
            )
        used = get_token() if token is None or token is True else token or None
        if used is not None and not _TOKEN.fullmatch(used):
            # A header cannot hold it, and the error of who tries would show it.
            raise CatalogError(
                "the token for the Hub holds a character that no token has",
                hint="copy it into HF_TOKEN again",
            )
        self.has_token = used is not None
        self._asker = Asker(self.endpoint, used, timeout_seconds)
        self._api = HfApi(
            endpoint=self.endpoint, token=token, library_name="kaito-catalog", library_version=__version__
        )
        self._timeout = timeout_seconds
        self._attempts = attempts
        self._longest_wait = longest_wait_seconds
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._clock = clock
        self._say = say
        self._lock = threading.Lock()
        self._not_before = clock()
        self.calls = 0
        """Requests to the Hub so far, files included; what a CDN answers is not among them."""

    def __enter__(self) -> Hub:
        huggingface_hub.set_client_factory(self._client)
        # Made before any thread asks for it: older clients would each make their own.
        huggingface_hub.get_session()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closes this client; a later `Hub` sets its own.
        huggingface_hub.close_session()

    def stop(self) -> None:
        """End the waiting of every thread: what has not been asked will not be."""
        self._stopped.set()
        huggingface_hub.close_session()

    def _client(self) -> httpx.Client:
        return httpx.Client(
            event_hooks={"request": [self._before], "response": [self._after]},
            follow_redirects=True,
            max_redirects=5,
            timeout=httpx.Timeout(self._timeout),
            # Compressed answers could grow without limit after the limit was checked.
            headers={"Accept-Encoding": "identity"},
        )

    def _is_own(self, url: object) -> bool:
        return _origin(str(url)) == _origin(self.endpoint)

    def _before(self, request: httpx.Request) -> None:
        if self._is_own(request.url):
            with self._lock:
                self.calls += 1

    def _after(self, response: httpx.Response) -> None:
        request = response.request
        if response.has_redirect_location:
            target = urljoin(str(request.url), response.headers["Location"])
            is_file = "/resolve/" in request.url.path
            if not self._is_own(target) and (not is_file or _is_downgrade(str(request.url), target)):
                raise HubError(
                    Trouble.REDIRECTED,
                    f"the Hub redirects to another host, {printable(host(target))}; it was not asked",
                )
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise HubError(Trouble.CORRUPT, "the answer is compressed, which was not asked for")
        declared = response.headers.get("Content-Length", "")
        if response.status_code >= 400 and declared.isdigit() and int(declared) > ANSWER_LIMIT_BYTES:
            raise HubError(Trouble.TOO_LARGE, f"the answer is larger than {gb(ANSWER_LIMIT_BYTES)}")
        response.stream = _Limited(
            response.stream, deadline=self._clock() + 10 * self._timeout, clock=self._clock
        )
        limits = parse_ratelimit_headers(response.headers)
        if limits is not None and limits.remaining == 0 and response.status_code < 400:
            self._hold(min(limits.reset_in_seconds + 1, self._longest_wait), "the rate limit is used up")

    def _hold(self, seconds: float, why: str) -> None:
        """Make every thread wait."""
        with self._lock:
            until = self._clock() + seconds
            if until <= self._not_before + 1:
                return
            self._not_before = until
        if seconds >= 2:
            self._say(f"waiting {seconds:.0f} s: {why}")

    def _wait_for_turn(self) -> None:
        while True:
            if self._stopped.is_set():
                raise HubError(Trouble.STOPPED, "interrupted")
            with self._lock:
                wait = self._not_before - self._clock()
            if wait <= 0:
                return
            self._sleep(wait)

    def _call(self, asked: Question, function: Callable[[], T]) -> T:
        """Make a request, again where that may help."""
        for attempt in range(1, self._attempts + 1):
            self._wait_for_turn()
            try:
                return function()
            except HubError as error:
                found = HubError(
                    error.trouble, f"{asked}: {error.message}", hint=error.hint, retry_after=error.retry_after
                )
                cause: Exception = error
            except HFValidationError as error:
                found, cause = (
                    HubError(Trouble.USAGE, f"'{asked.repo_id[:120]}' is not a repository id"),
                    error,
                )
            except (HfHubHTTPError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                found, cause = diagnose(asked, error, self._asker), error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                found = HubError(
                    Trouble.CORRUPT,
                    f"{asked}: the answer is not what the Hub sends",
                    hint="a proxy may have answered in its place; try again later",
                )
                cause = error
            wait = (
                found.retry_after
                if found.retry_after is not None
                else min(RETRY_SECONDS * 2 ** (attempt - 1), 20.0)
            )
            if isinstance(cause, httpx.ConnectError) and attempt == self._attempts:
                # Where there is no answer, the other models need not wait as long to learn it.
                self._attempts = 1
            if not found.is_transient or attempt >= self._attempts or wait > self._longest_wait:
                raise found from cause
            why = "rate limited" if found.trouble is Trouble.RATE_LIMITED else found.message
            self._hold(wait, why)
        raise AssertionError("the last attempt returns or raises")

    # What can be asked.

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """What the Hub says about a repository at a revision (default: main); one call.

        Raises:
            HubError: it cannot be had, and why.
        """
        what = f"at {printable(revision)}" if revision else "at main"

        def ask() -> Repository:
            info = self._api.model_info(
                repo_id, revision=revision, files_metadata=True, timeout=self._timeout
            )
            return repository_of(info)

        return self._call(Question(repo_id, what), ask)

    def snapshot(self, repo_id: str, revision: str | None = None) -> HubSnapshot:
        """The repository at a revision, with files to read."""
        return HubSnapshot(self, self.repository(repo_id, revision))

    def read(self, repository: Repository, path: str, *, limit_bytes: int) -> bytes:
        """A file at the repository's commit, checked against the hash that the Hub lists for it; one call."""
        asked = Question(repository.repo_id, path)
        file = repository.file(path)
        if file is None:
            raise HubError(Trouble.FILE_GONE, f"{asked}: there is no such file")
        if file.size_bytes is not None and file.size_bytes > limit_bytes:
            raise HubError(Trouble.TOO_LARGE, f"{asked}: {gb(file.size_bytes)} is too large to read")

        def ask() -> bytes:
            data, _ = self._bytes(repository, path, None, limit_bytes + 1)
            _verify(file, data)
            return data

        return self._call(asked, ask)

    def safetensors_header(self, repository: Repository, path: str) -> Header:
        """What the header of one weight file declares, read by range requests; one call, two if it is long."""
        asked = Question(repository.repo_id, path)
        file = repository.file(path)
        size = file.size_bytes if file else None

        def start() -> tuple[int, bytes]:
            data, total = self._bytes(repository, path, (0, _FIRST_READ_BYTES), _FIRST_READ_BYTES)
            if total is not None and size is not None and total != size:
                raise HubError(Trouble.TOO_LARGE, f"the Hub lists {size:,} bytes and serves {total:,}")
            return _header_length(data), data[8:]

        length, data = self._call(asked, start)
        if len(data) < length:
            if size is not None and length + 8 > size:
                raise HubError(Trouble.TOO_LARGE, f"{asked}: its header is longer than the file")
            if length > ANSWER_LIMIT_BYTES:
                raise HubError(Trouble.TOO_LARGE, f"{asked}: its header of {gb(length)} is too large to read")
            have = data

            def rest() -> bytes:
                more, _ = self._bytes(repository, path, (8 + len(have), 8 + length), length - len(have))
                return more

            data = have + self._call(asked, rest)
        if len(data) < length:
            raise HubError(Trouble.CORRUPT, f"{asked}: the file ends within its header")
        try:
            return parse_header(data[:length], size_bytes=size)
        except ValueError as error:
            raise HubError(Trouble.CORRUPT, f"{asked}: {error}") from error

    def _bytes(
        self, repository: Repository, path: str, span: tuple[int, int] | None, limit_bytes: int
    ) -> tuple[bytes, int | None]:
        """At most `limit_bytes` of a file, and its whole size where the server says it."""
        url = huggingface_hub.hf_hub_url(
            repository.repo_id, path, revision=repository.revision, endpoint=self.endpoint
        )
        headers = huggingface_hub.utils.build_hf_headers(
            token=self._api.token, library_name="kaito-catalog", library_version=__version__
        )
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        client = huggingface_hub.get_session()
        with client.stream("GET", url, headers=headers, timeout=self._timeout) as response:
            if response.status_code >= 400:
                response.read()
            huggingface_hub.utils.hf_raise_for_status(response)
            if response.status_code not in (200, 206):
                raise HubError(Trouble.REDIRECTED, f"the Hub answers {response.status_code}")
            if span is not None and span[0] and response.status_code != 206:
                raise HubError(Trouble.TOO_LARGE, "the server does not serve ranges")
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            data = bytearray()
            for block in response.iter_raw():
                data += block
                if len(data) >= limit_bytes:
                    break
            return bytes(data[:limit_bytes]), int(total) if total.isdigit() else None


class HubSnapshot:
    """A repository at a commit on the Hub."""

    def __init__(self, hub: Hub, repository: Repository) -> None:
        self._hub = hub
        self._repository = repository

    @property
    def repository(self) -> Repository:
        """What the Hub says about it."""
        return self._repository

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A small file, whole."""
        return self._hub.read(self._repository, path, limit_bytes=limit_bytes)

    def safetensors_header(self, path: str) -> Header:
        """What the header of a weight file declares."""
        return self._hub.safetensors_header(self._repository, path)

    def sha256(self, path: str) -> str:
        """Of a file: the Hub's word for files in LFS, of the content that was read for others."""
        file = self._repository.file(path)
        if file is not None and file.sha256 is not None:
            return file.sha256
        return hashlib.sha256(self.read(path, limit_bytes=10 * 2**20)).hexdigest()

    def how_to_complete(self) -> str:
        """What to do where files are missing."""
        return "name a revision that has all its files"


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"https": 443}.get(parts.scheme, 80)


def _is_downgrade(url: str, target: str) -> bool:
    return urlsplit(target).scheme not in ("http", "https") or (
        urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https"
    )


def _header_length(data: bytes) -> int:
    try:
        return header_length(data)
    except ValueError as error:
        raise HubError(Trouble.CORRUPT, str(error)) from error


def _verify(file: RepoFile, data: bytes) -> None:
    """That what was served is what the Hub lists."""
    if file.size_bytes is not None and len(data) != file.size_bytes:
        raise HubError(Trouble.CORRUPT, f"{len(data):,} bytes were served, the Hub lists {file.size_bytes:,}")
    if file.is_lfs:
        if file.sha256 is not None and hashlib.sha256(data).hexdigest() != file.sha256:
            raise HubError(Trouble.CORRUPT, "what was served does not have the hash that the Hub lists")
    elif file.blob_id is not None:
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if found != file.blob_id:
            raise HubError(Trouble.CORRUPT, "what was served does not have the hash that the Hub lists")

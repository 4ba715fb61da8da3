"""The Hub's answers as plain values, and what a failed request means for who asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import httpx, parse_ratelimit_headers

from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.repository import MAX_FILES, Gate, RepoFile, Repository, is_safe, printable

USERINFO = re.compile(r"//[^/?#]*@")
"""The name and password that an address may hold: for the server, not for messages."""


def host(url: str) -> str:
    """Host and port of an address, for messages."""
    return urlsplit(url).netloc.rpartition("@")[2]


@dataclass(frozen=True)
class Question:
    """What a request is about, for messages."""

    repo_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.repo_id}: {self.what}"


@dataclass(frozen=True)
class Asker:
    """Who asks, where, and for how long: what the messages about a failed request depend on."""

    endpoint: str
    token: str | None = field(repr=False)
    timeout_seconds: float

    @property
    def host(self) -> str:
        """The Hub's host, for messages."""
        return host(self.endpoint)


def diagnose(asked: Question, error: Exception, asker: Asker) -> HubError:
    """What a failed request means."""
    response = getattr(error, "response", None)
    if isinstance(error, HfHubHTTPError) and response is not None:
        return _diagnose_status(asked, response, asker)
    if isinstance(error, httpx.TimeoutException):
        return HubError(
            Trouble.TIMEOUT, f"{asked}: no answer within {asker.timeout_seconds:.0f} s", hint=_LATER
        )
    if isinstance(error, httpx.TooManyRedirects):
        return HubError(Trouble.REDIRECTED, f"{asked}: the Hub redirects in a circle")
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.DecodingError):
        return HubError(Trouble.CONNECTION, f"{asked}: the connection was cut", hint=_LATER)
    said = str(error).replace(asker.token, "…") if asker.token else str(error)
    reason = printable(USERINFO.sub("//", said.splitlines()[0])[:120]) if said else type(error).__name__
    return HubError(
        Trouble.CONNECTION,
        f"{asked}: {asker.host} cannot be reached ({reason})",
        hint="check the network, HF_ENDPOINT and the proxy; or use --from-local",
    )


def _diagnose_status(asked: Question, response: httpx.Response, asker: Asker) -> HubError:
    match response.status_code, response.headers.get("X-Error-Code", ""):
        case _, "GatedRepo":
            page = f"{USERINFO.sub('//', asker.endpoint)}/{asked.repo_id}"
            access = "the token's account has no access" if asker.token else "HF_TOKEN is not set"
            return HubError(
                Trouble.GATED,
                f"{asked}: the files are gated, and {access}",
                hint=f"agree to the terms on {page}" + ("" if asker.token else " and set HF_TOKEN"),
            )
        case _, "RevisionNotFound":
            return HubError(Trouble.REVISION_GONE, f"{asked}: the revision does not exist")
        case _, "EntryNotFound":
            return HubError(Trouble.FILE_GONE, f"{asked}: the file does not exist")
        case ((401 | 403 | 404), _):
            return _diagnose_refusal(asked, response, asker)
        case 409, _:
            return HubError(Trouble.CONFLICT, f"{asked}: the repository is being changed (409)", hint=_LATER)
        case 429, _:
            return HubError(
                Trouble.RATE_LIMITED,
                f"{asked}: too many requests (429)",
                hint=_LATER if asker.token else "wait five minutes, or set HF_TOKEN for a higher limit",
                retry_after=_retry_after(response),
            )
        case status, _ if status >= 500 or status == 408:
            return HubError(
                Trouble.SERVER,
                f"{asked}: the Hub has a problem ({status})",
                hint=_LATER,
                retry_after=_retry_after(response),
            )
        case status, _:
            return HubError(Trouble.USAGE, f"{asked}: the Hub refuses the request ({status})")


def _diagnose_refusal(asked: Question, response: httpx.Response, asker: Asker) -> HubError:
    """Of 401, 403 and 404, which say little: some come for a repository that does not exist, or from a proxy."""
    said = printable(response.headers.get("X-Error-Message", ""))
    match response.status_code, response.headers.get("X-Error-Code", ""):
        case 401, _ if said.startswith("Invalid credentials"):
            return HubError(
                Trouble.BAD_TOKEN, f"{asked}: the Hub does not know the token", hint="renew or unset HF_TOKEN"
            )
        case 401, _ if not asker.token:
            return HubError(
                Trouble.GONE_OR_PRIVATE,
                f"{asked}: the repository does not exist or is private (401 without a token)",
                hint="check its name; with HF_TOKEN set the Hub tells which",
            )
        case (404, ""):
            return HubError(
                Trouble.USAGE,
                f"{asked}: {asker.host} answers 404, and not as the Hub does",
                hint="check HF_ENDPOINT",
            )
        case ((401 | 404) as status, _):
            return HubError(Trouble.GONE, f"{asked}: the repository does not exist ({status})")
        case _ if "disabled" in said:
            return HubError(Trouble.DISABLED, f"{asked}: the Hub has disabled access to the repository")
        case _:
            return HubError(
                Trouble.FORBIDDEN,
                f"{asked}: access is forbidden (403)",
                hint="the token's permissions do not include this repository",
            )


_LATER = "try again later"


def _retry_after(response: httpx.Response) -> float | None:
    limits = parse_ratelimit_headers(response.headers)
    if limits is not None and limits.remaining == 0:
        return limits.reset_in_seconds + 1.0
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if text.isdigit() and len(text) < 7 else None


def repository_of(info: ModelInfo) -> Repository:
    """The Hub's answer as plain values; what is not of its type is not taken.

    Raises:
        ValueError: there is no commit or no list of files in it.
    """
    if not isinstance(info.id, str) or not _hex(info.sha, 40) or not isinstance(info.siblings, list):
        raise ValueError("no commit or no files")
    if len(info.siblings) > MAX_FILES:
        raise HubError(Trouble.TOO_LARGE, f"the repository has more than {MAX_FILES:,} files")
    files: list[RepoFile] = []
    unsafe: list[str] = []
    for sibling in info.siblings:
        path = sibling.rfilename
        if not isinstance(path, str) or not is_safe(path):
            unsafe.append(printable(str(path)))
            continue
        lfs = sibling.lfs
        sha256 = lfs.sha256 if lfs is not None else None
        files.append(
            RepoFile(
                path,
                _size(sibling.size),
                sha256 if _hex(sha256, 64) else None,
                is_lfs=lfs is not None,
                blob_id=sibling.blob_id if _hex(sibling.blob_id, 40) else None,
            )
        )
    card: dict[str, Any] = dict(vars(info.card_data)) if info.card_data is not None else {}
    counts = info.safetensors.parameters if info.safetensors is not None else None
    return Repository(
        repo_id=info.id,
        revision=info.sha,
        files=tuple(sorted(files, key=lambda file: file.path)),
        gated=_gate(info.gated),
        license_id=", ".join(words(card.get("license"))) or None,
        license_name=_word(card.get("license_name")),
        license_link=_word(card.get("license_link")),
        pipeline_tag=_word(info.pipeline_tag),
        base_models=words(card.get("base_model")),
        downloads=_size(info.downloads),
        parameters_by_dtype=_counts(counts),
        unsafe_names=tuple(unsafe),
    )


def _hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and all(c in "0123456789abcdef" for c in value)


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**18 else None


def _word(value: object) -> str | None:
    """One line of the card; a list is not one."""
    if not isinstance(value, str) or not value.strip() or len(value) > 2000:
        return None
    return printable(" ".join(value.split()))


def words(value: object) -> tuple[str, ...]:
    """A line of the card or a list of lines, such as several licences: at most twenty."""
    items = value if isinstance(value, list) else [value]
    return tuple(word for item in items[:20] if (word := _word(item)))


def _gate(value: object) -> Gate | None:
    match value:
        case False:
            return "no"
        case "auto":
            return "auto"
        case "manual" | True:
            return "manual"
        case _:
            return None


def _counts(value: object) -> dict[str, int] | None:
    if not isinstance(value, dict) or not value:
        return None
    if not all(isinstance(k, str) and _size(v) is not None for k, v in value.items()):
        return None
    return dict(sorted(value.items()))

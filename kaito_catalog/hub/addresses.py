"""Which model repository somebody means: `org/model`, an address of the Hub's pages, `hf://`, a clone's address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.repository import printable

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO_ID = re.compile(f"{_NAME}/{_NAME}")
_REPO_AT = re.compile(rf"{_NAME}/{_NAME}(?:@[^\s@]{{1,200}})?/?")
_HOST = re.compile(
    r"(?:hf://|(?:https?|ssh)://(?:[^/@]*@)?(?P<host>[^/]+)/|git@(?P<git>[^:/]+):)(?P<rest>.*)", re.S
)
_BARE_HOST = re.compile(r"(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<rest>.*)", re.S | re.I)
_PAGES_WITH_REVISION = ("tree", "blob", "resolve", "commit", "raw", "blame", "commits")
_OTHERS = {"spaces": "a Space", "datasets": "a data set", "collections": "a collection", "papers": "a paper"}


@dataclass(frozen=True)
class Address:
    """A model repository, and the revision where the address names one."""

    repo_id: str
    revision: str | None = None


def read_address(text: str) -> Address:
    """The repository that `text` names.

    Raises:
        CatalogError: it names none, or something else than a model.
    """
    said = text.strip()
    match = _HOST.fullmatch(said) or _BARE_HOST.fullmatch(said)
    path = re.split(r"[?#]", match["rest"], maxsplit=1)[0] if match else said
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[:2] == ["api", "models"] or parts[:1] == ["models"]:
        parts = parts[parts.index("models") + 1 :]
    if parts[0] in _OTHERS and (match or len(parts) > 2):
        raise CatalogError(
            f"'{printable(said[:120])}' is {_OTHERS[parts[0]]}, not a model",
            hint="name the repository of the model itself: ORG/MODEL",
        )
    if len(parts) < 2:
        raise _no_repository(said)
    revision = None
    name, at, pinned = parts[1].partition("@")
    if at:
        revision = "/".join([pinned, *parts[2:]]) or None
    elif match:
        name = name.removesuffix(".git")
        revision = _revision(parts[2:])
    elif len(parts) > 2:
        raise _no_repository(said)
    repo_id = f"{parts[0]}/{name}"
    if not _REPO_ID.fullmatch(repo_id):
        raise _no_repository(said)
    return Address(repo_id, revision)


def address_in(text: str) -> Address | None:
    """The repository that an argument names which may also be a catalog's own name or a path; None where it is none.

    Raises:
        CatalogError: it is an address of the Hub, and not of a model.
    """
    said = text.strip()
    if _HOST.fullmatch(said) or _BARE_HOST.fullmatch(said):
        return read_address(said)
    return read_address(said) if _REPO_AT.fullmatch(said) and not said.startswith("models/") else None


def name_in_catalog(text: str) -> str:
    """The catalog's name for what an argument names: an address, `org/model`, or that name itself."""
    address = address_in(text)
    return (address.repo_id if address else text).rpartition("/")[2].lower()


def refuse_another(address: Address | None, repo_id: str | None, version: str | None) -> None:
    """Refuse the catalog's entry where an address names another repository or commit.

    Args:
        address: what was named; None where the catalog's own name was.
        repo_id: the entry's repository, as far as it is known.
        version: the revision that the entry pins.

    Raises:
        CatalogError: they differ.
    """
    if address is None:
        return
    if repo_id is not None and address.repo_id.lower() != repo_id.lower():
        raise CatalogError(f"the catalog has {repo_id}, not {address.repo_id}")
    asked = (address.revision or "").lower()
    if re.fullmatch("[0-9a-f]{7,40}", asked) and version is not None and not version.startswith(asked):
        raise CatalogError(
            f"the catalog has {address.repo_id} at {printable(version[:12])}, not at {asked[:12]}",
            hint="leave the revision out",
        )


def _revision(parts: list[str]) -> str | None:
    """The revision of a page's path: `tree/main/folder`, `commit/0123…`, `tree/refs/pr/1`."""
    if len(parts) < 2 or parts[0] not in _PAGES_WITH_REVISION:
        return None
    if parts[1:3] == ["refs", "pr"] and len(parts) > 3:
        return "/".join(parts[1:4])
    return parts[1] or None


def _no_repository(said: str) -> CatalogError:
    return CatalogError(
        f"'{printable(said[:120])}' is not a repository id", hint="write ORG/MODEL, such as microsoft/phi-4"
    )


def one_revision(address: Address, asked: str | None) -> str | None:
    """The revision of the address or of `--revision`.

    Raises:
        CatalogError: both are given and differ.
    """
    if asked and address.revision and asked != address.revision:
        raise CatalogError(
            f"the address names the revision {printable(address.revision)}, --revision {printable(asked)}",
            hint="leave one of them out",
        )
    return asked or address.revision

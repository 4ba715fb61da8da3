"""Facts of the Hub that were asked for once and are kept beside the working tree: what a commit holds never changes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import date
from pathlib import Path

from kaito_catalog.documents import reading
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.system import files, git

TYPE_CHECKING = False
if TYPE_CHECKING:  # the client is a third of the start-up time
    from kaito_catalog.hub.client import Hub

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def kept_in(here: Path) -> Path:
    """Where facts are kept for the folder: in the clone's `.git`, else in the user's folder of caches."""
    own = git.own_folder(here)
    if own is not None:
        return own / "kaito-catalog" / "facts"
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "kaito-catalog" / "facts"


def kept_facts(folder: Path, repo_id: str, revision: str) -> ModelFacts | None:
    """The facts that are kept of a repository at a commit; None where there are none that can be read."""
    path = _file(folder, repo_id, revision)
    if not path.is_file():
        return None
    found, problems = load(reading.read(path), ModelFacts)
    if problems or found is None or found.repo_id.lower() != repo_id.lower() or found.revision != revision:
        return None
    return found


def asked_facts(hub: Hub, folder: Path, repo_id: str, revision: str | None, today: date) -> ModelFacts:
    """What the Hub says of a repository at a commit, or at main; from then on it is kept.

    Raises:
        HubError: the repository or the commit cannot be had.
    """
    snapshot = hub.snapshot(repo_id, revision)
    at = snapshot.repository.revision
    if at is not None and (known := kept_facts(folder, repo_id, at)) is not None:
        return known
    found = facts_of(snapshot, kind="hub", recorded_at=today)
    if not found.missing and found.facts.revision is not None:
        with suppress(CatalogError):  # a cache that cannot be written is none
            files.write_text(_file(folder, found.facts.repo_id, found.facts.revision), found.text)
    return found.facts


def _file(folder: Path, repo_id: str, revision: str) -> Path:
    if not _COMMIT.match(revision):
        raise CatalogError(f"'{revision[:60]}' is not a commit")
    name = _UNSAFE.sub("_", repo_id.lower().replace("/", "--"))[:200]
    return folder / f"{name}@{revision}.yaml"

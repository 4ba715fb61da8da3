"""What an export needs of a model's facts, and how one says that it cannot be made."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.formats.facts import File, LicenseFacts, ModelFacts
from kaito_catalog.formats.policy import LicensePolicy


class CannotBeMadeError(Exception):
    """Facts are missing; the text says which, and how to have them."""


@dataclass(frozen=True)
class Pinned:
    """A model whose repository, commit and licence are known."""

    facts: ModelFacts
    revision: str
    license: LicenseFacts

    @property
    def organisation(self) -> str:
        """The first part of the repository's name."""
        return self.facts.repo_id.partition("/")[0]

    @property
    def name(self) -> str:
        """The second part."""
        return self.facts.repo_id.partition("/")[2]

    @property
    def page(self) -> str:
        """The repository at the commit."""
        return f"https://huggingface.co/{self.facts.repo_id}/tree/{self.revision}"


def pinned(facts: ModelFacts | None) -> Pinned:
    """The model, once its commit and licence are known.

    Raises:
        CannotBeMadeError: they are not.
    """
    if facts is None:
        raise CannotBeMadeError("there is no facts.yaml")
    if facts.revision is None:
        raise CannotBeMadeError("the revision is not recorded")
    if facts.license is None or "unknown" in facts.license.ids:
        raise CannotBeMadeError("the licence is not recorded")
    return Pinned(facts, facts.revision, facts.license)


def license_names(found: LicenseFacts, policy: LicensePolicy) -> tuple[tuple[str, bool], ...]:
    """Each licence that the card names, and whether that is its id in SPDX's list."""
    return tuple(
        (policy.spdx[id_], True)
        if id_ in policy.spdx
        else (found.name if id_ == "other" and found.name else id_, False)
        for id_ in found.ids
    )


def text_field(facts: ModelFacts, key: str) -> str | None:
    """A text of the configuration, where it is one short word."""
    value = (facts.config or {}).get(key)
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:/-]{1,100}", value) else None


def architecture(facts: ModelFacts) -> str | None:
    """The first class that the configuration names."""
    named = (facts.config or {}).get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) and re.fullmatch(r"\w{1,100}", first) else None


def without_digest(files: Sequence[File]) -> list[str]:
    """The files whose size or sha256 is not recorded."""
    return [file.path for file in files if file.sha256 is None or file.size_bytes is None]


def written(value: Any) -> str:
    """JSON as these files have it: sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

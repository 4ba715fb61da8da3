"""REV: is the revision a full commit, and are the facts about that commit of that repository."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kaito_catalog.checks.base import (
    ERROR,
    NO_FACTS,
    WARNING,
    Context,
    Finding,
    Outcome,
    Skip,
    Subject,
    check,
)
from kaito_catalog.formats.base import is_missing

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_DIGITS = 40
_HEX = re.compile(r"[0-9a-fA-F]{20,}\Z")
_SHORT = re.compile(r"[0-9a-f]{7,39}\Z")
_VERSION = ("requirements", "version")


@check("REV001")
def full_commit(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The version is not a full commit.

    A branch means different files tomorrow, and a short hash can become ambiguous; only 40 hex digits say what
    was checked. A branch is a warning while the proposal is provisional, and an error when it is implemented.

    Fails::

        metadata: {status: implemented}
        requirements: {version: main}

    Passes::

        metadata: {status: implemented}
        requirements: {version: 0123456789abcdef0123456789abcdef01234567}
    """
    version = subject.proposal.requirements.version
    if is_missing(version) or version is None or _COMMIT.match(version):
        return  # a missing version is DOC008's
    recorded = subject.facts.revision if subject.facts else None
    if _SHORT.match(version):
        longer = recorded if recorded and recorded.startswith(version) else None
        yield Finding(
            f"{version} is an abbreviated commit",
            _VERSION,
            f"version: {longer}" if longer else "write all 40 digits",
        )
        return
    if _HEX.match(version):
        wanted = "lower-case" if len(version) == _DIGITS else f"{_DIGITS}, not {len(version)},"
        yield Finding(
            f"a commit has {wanted} hex digits, found {version[:60]}",
            _VERSION,
            f"version: {recorded}" if recorded else "copy it from the page of the commit",
        )
        return
    kind = "an address, not a commit" if "://" in version else "a branch or tag: it can change"
    yield Finding(
        f"'{version[:60]}' is {kind}",
        _VERSION,
        f"version: {recorded}, the commit of the facts" if recorded else "pin the commit it points to now",
        severity=ERROR if subject.is_implemented else WARNING,
    )


@check("REV002", proves=("requirements.version",))
def facts_at_the_revision(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The facts are about another revision than the proposal.

    Facts prove claims about the commit they were read at and no other.

    Fails::

        requirements: {version: ffffffffffffffffffffffffffffffffffffffff}

    Passes::

        requirements: {version: 0123456789abcdef0123456789abcdef01234567}
    """
    version = subject.proposal.requirements.version
    if is_missing(version) or version is None:
        yield Skip("the proposal has no revision", "add requirements.version")
    elif subject.facts is None:
        yield NO_FACTS
    elif subject.facts.revision is None:
        yield Skip("the facts were published without a revision")
    elif not _COMMIT.match(version):
        yield Skip("the version is not a full commit", "see REV001")
    elif subject.facts.revision != version:
        yield Finding(
            f"the proposal pins {version[:12]}…, the facts are those of {subject.facts.revision[:12]}…",
            _VERSION,
            f"'kaito-catalog record {subject.name}' reads those of the pinned one; or pin the one that was read",
        )


@check("REV003")
def facts_of_the_repository(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The facts are about another repository than the download site.

    Fails::

        facts: {repoId: example-org/Another-Model}

    Passes::

        facts: {repoId: example-org/Example-7B-Instruct}
    """
    repo_id = subject.proposal.repo_id
    if subject.facts and repo_id and subject.facts.repo_id != repo_id:
        # The Hub redirects names that differ only in case, but KAITO compares them as they are.
        same = subject.facts.repo_id.lower() == repo_id.lower()
        yield Finding(
            f"the facts are about {subject.facts.repo_id}, the download site is {repo_id}",
            ("requirements", "downloadSite"),
            f"the Hub spells it {subject.facts.repo_id}" if same else "record the facts of this repository",
        )

"""HUB: the recorded facts against the Hub now; pure judgement over what `drift` asked (`check --online`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from kaito_catalog.checks.base import ERROR, NOTE, WARNING, Finding, Rule, Skip, Subject, read_rule
from kaito_catalog.diagnostics import Route, Severity
from kaito_catalog.hub.differences import FactDifference, HubChange, differences
from kaito_catalog.hub.facts import license_path, listed_facts
from kaito_catalog.hub.repository import Repository, printable

GONE = read_rule(
    "HUB001",
    ERROR,
    """The repository is gone.

The Hub answers 404 with a token; without one it answers 401, and does not tell whether the repository is private.
The model can no longer be downloaded. A gated repository is not gone: it is still listed.

Fails::

    since: {gone: true}

Passes::

    since: {gated: manual}
""",
)
MOVED = read_rule(
    "HUB002",
    WARNING,
    """The repository has moved.

The Hub redirects the old name, until somebody else takes it: whoever registers it then decides what is downloaded.

Fails::

    since: {movedTo: example-org/Example-7B-Instruct-v2}

Passes::

    since: {}
""",
)
REVISION_GONE = read_rule(
    "HUB003",
    ERROR,
    """The pinned revision is gone.

The repository exists and the commit does not: its history was rewritten. What was checked can no longer be had.

Fails::

    since: {revisionGone: true}

Passes::

    since: {pushed: [README.md]}
""",
)
GATED = read_rule(
    "HUB004",
    ERROR,
    """The gate has changed.

A model that became gated is only served to who has agreed to its terms: deployments without a token fail. (That a
gate was opened is a note.)

Fails::

    since: {gated: manual}

Passes::

    since: {}
""",
)
RELICENSED = read_rule(
    "HUB005",
    WARNING,
    """The licence has changed.

At main the licence or its text is another one than at the pinned revision. The pinned files keep theirs, an update
would not. (At the pinned revision itself a changed licence is an error.)

Fails::

    since: {license: cc-by-nc-4.0}

Passes::

    since: {}
""",
)
REUPLOADED = read_rule(
    "HUB006",
    ERROR,
    """Files were re-uploaded under the same revision.

A commit is meant to be what it was. Where sizes or hashes at the pinned revision differ from the recorded ones,
what nodes download is not what was checked. No hash is accepted by itself: look at the difference, then
`kaito-catalog record --accept`.

Fails::

    since: {reuploaded: [model.safetensors]}

Passes::

    since: {pushed: [model.safetensors]}
""",
)
NEWER_WEIGHTS = read_rule(
    "HUB007",
    WARNING,
    """There is a newer revision with other weights, configuration or code.

The pinned revision still works; the model's authors have replaced something that loading depends on.

Fails::

    since: {pushed: [model.safetensors]}

Passes::

    since: {pushed: [README.md]}
""",
)
NEWER_TEXTS = read_rule(
    "HUB008",
    NOTE,
    """There is a newer revision, with only texts changed.

README, licence texts and pictures: what is loaded is the same, so there is no hurry to pin anew.

Fails::

    since: {pushed: [README.md]}

Passes::

    since: {}
""",
)
DOWNLOADS = read_rule(
    "HUB009",
    NOTE,
    """The downloads have collapsed.

The model has less than a tenth of the downloads that the proposal gives as its reason.

Fails::

    proposal: {summary: {usage: {statistics: "700,643 downloads in the last 30 days"}}}
    since: {downloads: 4000}

Passes::

    proposal: {summary: {usage: {statistics: "700,643 downloads in the last 30 days"}}}
    since: {downloads: 500000}
""",
)
RETAGGED = read_rule(
    "HUB010",
    WARNING,
    """The Hub classifies the model differently.

The pipeline tag or the base models on the model's page are others than the recorded ones.

Fails::

    since: {pipelineTag: image-text-to-text}

Passes::

    since: {}
""",
)

HUB_RULES: tuple[Rule, ...] = (
    GONE,
    MOVED,
    REVISION_GONE,
    GATED,
    RELICENSED,
    REUPLOADED,
    NEWER_WEIGHTS,
    NEWER_TEXTS,
    DOWNLOADS,
    RETAGGED,
)
_BY_CODE = {rule.code: rule for rule in HUB_RULES}
COLLAPSED = 0.1

_SITE: Route = ("requirements", "downloadSite")
_VERSION: Route = ("requirements", "version")
_TEXTS = re.compile(
    r"(?i)(?:.*/)?(?:readme|license|licence|notice|use_policy|copyright)[^/]*|.*\.(?:md|rst|pdf|png|jpe?g|gif|svg|webp|mp4)"
    r"|\.gitattributes|\.gitignore|(?:.*/)?\.eval_results/.*"
)
_DOWNLOADS = re.compile(r"([0-9][0-9,]*(?:\.[0-9]+)?)\s*([kKmM])?\+?\s+(?:\w+\s+){0,2}?downloads")


@dataclass(frozen=True)
class Online:
    """What the Hub says now. A part that could not be asked for is None, and `skip` says why."""

    main: Repository | None = None
    pinned: Repository | None = None
    change: HubChange | None = None
    """That the repository or the revision is gone; `message` has the Hub's word for it."""
    message: str = ""
    hint: str | None = None
    skip: str | None = None


@dataclass(frozen=True)
class Drift:
    """A finding with its code."""

    rule: Rule
    finding: Finding

    @property
    def severity(self) -> Severity:
        """Its own severity, or that of its code."""
        return self.finding.severity or self.rule.severity


def judge(subject: Subject, now: Online) -> Iterator[Drift | Skip]:
    """What has changed since the facts were recorded."""
    if now.skip:
        yield Skip(now.skip, now.hint)
        return
    if now.change is not None:
        route = _VERSION if now.change is HubChange.REVISION_GONE else _SITE
        yield Drift(_BY_CODE[now.change.code], Finding(now.message, route, now.hint))
    main, facts = now.main, subject.facts
    if main is None:
        return
    asked = subject.proposal.repo_id
    if asked is not None and main.repo_id != asked:
        spelling = main.repo_id.lower() == asked.lower()
        yield Drift(
            MOVED,
            Finding(
                f"the Hub {'spells' if spelling else 'redirects'} {asked} {'' if spelling else 'to '}{main.repo_id}",
                _SITE,
                f"downloadSite: https://huggingface.co/{main.repo_id}",
            ),
        )
    yield from _downloads(subject, main)
    if facts is None:
        yield Skip("there are no recorded facts to compare with", f"kaito-catalog record {subject.name}")
        return
    if now.pinned is not None:
        found = listed_facts(now.pinned, recorded_at=date.min)
        for difference in differences(facts, found):
            if difference.change is not HubChange.MOVED:
                yield _of(difference)
        yield from _license_at_main(subject, now.pinned, main)
        yield from _newer(now.pinned, main)


def _of(difference: FactDifference) -> Drift:
    rule = _BY_CODE[difference.change.code]
    key = difference.field.partition(":")[0]
    route: Route = tuple(key.split("."))
    severity = None
    message = (
        f"{difference.change.value}: {difference.field} was {difference.recorded}, is {difference.found}"
    )
    hint: str | None = "look at the difference, then 'kaito-catalog record --accept'"
    match difference.change:
        case HubChange.RELICENSED:
            severity = ERROR
            message += " at the pinned revision"
        case HubChange.GATED if difference.found == "no":
            severity = NOTE
        case HubChange.GATED:
            message = (
                f"the model became gated: {difference.field} was {difference.recorded}, is {difference.found}"
            )
            hint = "agree to its terms, name the secret in deployment.modelAccessSecret, and record it anew"
        case _:
            pass
    return Drift(rule, Finding(message, route, hint, severity=severity, in_facts=True))


def _license_at_main(subject: Subject, pinned: Repository, main: Repository) -> Iterator[Drift]:
    recorded = subject.facts.license if subject.facts else None
    if pinned.revision == main.revision or recorded is None:
        return
    now = main.license_name or main.license_id
    if main.license_id and main.license_id != recorded.id:
        yield Drift(
            RELICENSED,
            Finding(f"the licence was {recorded.id}, at main it is {now}", ("license", "id"), in_facts=True),
        )
        return
    before, after = _license_blob(pinned), _license_blob(main)
    if before and before != after:
        yield Drift(
            RELICENSED,
            Finding(
                "the licence's text is another one at main"
                if after
                else "the licence's text is gone at main",
                ("license",),
                "read it before a newer revision is pinned",
                in_facts=True,
            ),
        )


def _license_blob(repository: Repository) -> str | None:
    path = license_path(file.path for file in repository.files)
    file = repository.file(path) if path else None
    return file.blob_id or file.sha256 if file else None


def _newer(pinned: Repository, main: Repository) -> Iterator[Drift]:
    if pinned.revision == main.revision:
        return
    before = {file.path: (file.sha256 or file.blob_id, file.size_bytes) for file in pinned.files}
    after = {file.path: (file.sha256 or file.blob_id, file.size_bytes) for file in main.files}
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    loaded = [path for path in changed if not _TEXTS.fullmatch(path)]
    shown = loaded or changed
    names = ", ".join(printable(path) for path in shown[:3]) + (
        f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    )
    revision = (main.revision or "")[:12]
    if loaded:
        yield Drift(
            NEWER_WEIGHTS,
            Finding(f"main is at {revision}…, which changes {names}", _VERSION, f"version: {main.revision}"),
        )
    else:
        what = f"only texts ({names})" if changed else "nothing"
        yield Drift(NEWER_TEXTS, Finding(f"main is at {revision}…, which changes {what}", _VERSION))


def _downloads(subject: Subject, main: Repository) -> Iterator[Drift]:
    usage = subject.proposal.summary.usage if subject.proposal.summary else None
    match = _DOWNLOADS.search(usage.statistics) if usage and usage.statistics else None
    if match is None or main.downloads is None:
        return
    claimed = float(match[1].replace(",", "")) * {"k": 1e3, "m": 1e6}.get((match[2] or "").lower(), 1)
    if main.downloads < COLLAPSED * claimed:
        yield Drift(
            DOWNLOADS,
            Finding(
                f"{main.downloads:,} downloads in the last 30 days, the proposal says {match[0]}",
                ("summary", "usage", "statistics"),
            ),
        )

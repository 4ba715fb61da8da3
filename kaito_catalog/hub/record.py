"""When found facts may replace recorded ones, and `record` over many models: several at once, each written whole."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kaito_catalog.architectures import Unsupported, read_shape
from kaito_catalog.catalog.entries import FACTS, Entry
from kaito_catalog.catalog.reading import shown
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.differences import FactDifference, HubChange, differences, short
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.facts import Recorded, facts_of
from kaito_catalog.hub.repository import Snapshot
from kaito_catalog.memory.held_weights import lack_of_bytes
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.reference import versions
from kaito_catalog.vllm_bridge.versions import newest

if TYPE_CHECKING:
    # Offline commands import this module and have no use for an HTTP client.
    from kaito_catalog.hub.client import Hub

_WORKERS = 4


# --- whether to write ------------------------------------------------------------------------------------------


class RecordOutcome(Enum):
    """What `record` did with a model."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """The facts contradict what was recorded, and that was not accepted."""
    FAILED = "failed"


@dataclass(frozen=True)
class Decision:
    """Whether found facts may replace recorded ones."""

    outcome: RecordOutcome
    differences: tuple[FactDifference, ...] = ()
    notes: tuple[str, ...] = ()


def decide(recorded: ModelFacts | None, found: ModelFacts, *, asked: str, accept: bool = False) -> Decision:
    """Whether `found` may replace `recorded`.

    Transcribed facts are replaced by what the Hub says where they agree; any contradiction at the same revision
    needs a person's `--accept`, and so does a repository that answers under another name than was asked for.
    At another revision other facts are expected: they replace the old ones.
    """
    moved = (
        [] if asked == found.repo_id else [FactDifference(HubChange.MOVED, "repoId", asked, found.repo_id)]
    )
    if recorded is None:
        refused = bool(moved) and not accept
        return Decision(RecordOutcome.REFUSED if refused else RecordOutcome.WRITTEN, tuple(moved))
    same_revision = recorded.revision is None or found.revision is None or recorded.revision == found.revision
    contradictions = [d for d in differences(recorded, found) if d.change is not HubChange.MOVED]
    if recorded.repo_id != found.repo_id and not moved:
        moved = [FactDifference(HubChange.MOVED, "repoId", recorded.repo_id, found.repo_id)]
    if not same_revision:
        notes = [
            f"the revision was {short(recorded.revision or '')}, is {short(found.revision or '')}",
            *(f"{d.field} was {d.recorded}, is {d.found}" for d in contradictions),
        ]
        refused = bool(moved) and not accept
        return Decision(
            RecordOutcome.REFUSED if refused else RecordOutcome.WRITTEN, tuple(moved), tuple(notes)
        )
    found_differences = tuple(moved + contradictions)
    if found_differences and not accept:
        return Decision(RecordOutcome.REFUSED, found_differences)
    notes = []
    if recorded.source.kind == "transcribed":
        notes.append(
            f"replaces transcribed facts that {'do not all agree' if found_differences else 'agree'}"
        )
    elif not found_differences and _same(recorded, found):
        return Decision(RecordOutcome.UNCHANGED)
    return Decision(RecordOutcome.WRITTEN, found_differences, tuple(notes))


def _same(recorded: ModelFacts, found: ModelFacts) -> bool:
    exclude = {"recorded_at"}
    return recorded.model_dump(exclude=exclude) == found.model_dump(exclude=exclude)


# --- many models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordTarget:
    """A model to record."""

    name: str
    folder: Path
    repo_id: str
    revision: str | None
    recorded: ModelFacts | None

    @classmethod
    def of(cls, entry: Entry) -> RecordTarget:
        """The target of an entry.

        Raises:
            CatalogError: its proposal names no repository, or cannot be read.
        """
        proposal = entry.proposal
        if proposal is None:
            raise CatalogError(
                f"{shown(entry.folder)}: the proposal cannot be read", hint="see 'kaito-catalog check'"
            )
        if proposal.repo_id is None:
            raise CatalogError(
                f"{entry.name}: the download site is not a page of the Hub",
                hint="see 'kaito-catalog explain DOC003'",
            )
        version = proposal.requirements.version
        recorded = (
            entry.facts
            if entry.facts_document and entry.facts_document.path == shown(entry.folder / FACTS)
            else None
        )
        if recorded is None and (entry.folder / FACTS).is_file():
            raise CatalogError(
                f"{shown(entry.folder / FACTS)} cannot be read", hint="see 'kaito-catalog check'"
            )
        return cls(
            entry.name, entry.folder, proposal.repo_id, None if is_missing(version) else version, recorded
        )


@dataclass(frozen=True)
class Result:
    """What came of one target."""

    target: RecordTarget
    outcome: RecordOutcome
    decision: Decision | None = None
    error: CatalogError | None = None

    @property
    def failed(self) -> bool:
        """Whether the command ends with exit code 1."""
        return self.outcome in (RecordOutcome.REFUSED, RecordOutcome.FAILED)


def change_of(error: CatalogError) -> HubChange | None:
    """The name of what a failed request means for a recorded model; None where it means nothing."""
    if not isinstance(error, HubError):
        return None
    match error.trouble:
        case Trouble.GONE | Trouble.DISABLED:
            return HubChange.GONE
        case Trouble.REVISION_GONE:
            return HubChange.REVISION_GONE
        case _:
            return None


def need_all_weights(facts: ModelFacts, *, hint: str) -> None:
    """Nothing, where the weight files hold what the configuration asks for, or where that cannot be told.

    Raises:
        HubError: they hold less.
    """
    total = facts.weights.total if facts.weights else None
    shape = read_shape(facts.config) if facts.config else Unsupported("no configuration", None)
    lack = lack_of_bytes(shape, total, newest(versions()))
    if lack is not None:
        raise HubError(Trouble.INCOMPLETE, f"{facts.repo_id}: the weights lack {lack}", hint=hint)


def record_from(
    target: RecordTarget,
    snapshot: Snapshot,
    *,
    kind: Literal["hub", "local"],
    recorded_at: date,
    accept: bool,
    all_headers: bool,
    all_hashes: bool = False,
) -> tuple[Recorded, Decision]:
    """Read a target's repository and decide whether its facts may be written.

    Raises:
        CatalogError: something could not be read.
    """
    recorded = facts_of(
        snapshot,
        kind=kind,
        recorded_at=recorded_at,
        all_headers=all_headers,
        all_hashes=all_hashes or _has_all_hashes(target.recorded),
    )
    if recorded.missing:
        raise recorded.missing[0]
    if not accept:
        need_all_weights(recorded.facts, hint=f"{snapshot.how_to_complete()}; --accept writes what is there")
    decision = decide(target.recorded, recorded.facts, asked=target.repo_id, accept=accept)
    return recorded, replace(decision, notes=(*decision.notes, *recorded.notes))


def _has_all_hashes(facts: ModelFacts | None) -> bool:
    """Whether every file was hashed last time, so that it is again and no hash gets lost."""
    files = facts.files if facts else None
    return bool(files) and all(file.sha256 is not None for file in files or ())


def record_all(
    targets: Sequence[RecordTarget],
    hub: Hub,
    *,
    recorded_at: date,
    accept: bool = False,
    all_headers: bool = False,
    all_hashes: bool = False,
    workers: int = _WORKERS,
) -> Generator[Result, None, None]:
    """Record models from the Hub, several at once; each is written whole as soon as it is known, in order.

    A model that fails keeps what was recorded of it, and the others go on.
    """

    def one(target: RecordTarget) -> tuple[Recorded, Decision]:
        snapshot = hub.snapshot(target.repo_id, target.revision)
        return record_from(
            target,
            snapshot,
            kind="hub",
            recorded_at=recorded_at,
            accept=accept,
            all_headers=all_headers,
            all_hashes=all_hashes,
        )

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="record") as pool:
        waiting: list[tuple[RecordTarget, Future[tuple[Recorded, Decision]]]] = [
            (target, pool.submit(one, target)) for target in targets
        ]
        try:
            for target, future in waiting:
                try:
                    recorded, decision = future.result()
                    yield write(target, recorded, decision)
                except CatalogError as error:
                    yield Result(target, RecordOutcome.FAILED, error=error)
        except BaseException:
            # Also when the reader of these results stops: there is no use in waiting for a rate limit then.
            for _, future in waiting:
                future.cancel()
            hub.stop()
            raise


def write(target: RecordTarget, recorded: Recorded, decision: Decision) -> Result:
    """Write facts.yaml where the decision says so.

    Raises:
        CatalogError: the disk refuses.
    """
    if decision.outcome is RecordOutcome.WRITTEN:
        files.write_text(target.folder / FACTS, recorded.text)
    return Result(target, decision.outcome, decision)

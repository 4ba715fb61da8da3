"""The catalog on disk, found and read: every model's folder, and the files that they share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kaito_catalog.catalog.entries import (
    EVIDENCE,
    FACTS,
    PROPOSAL,
    Catalog,
    Entry,
    Evidence,
    Price,
    Shared,
)
from kaito_catalog.diagnostics import Diagnostic, Place, Severity
from kaito_catalog.documents import reading
from kaito_catalog.documents.reading import Document
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.base import Model
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ReportedRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import Gpus, InstanceTypes, Prices, PriceSource
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.system.files import NAME

M = TypeVar("M", bound=Model)


def find_root(start: Path) -> Path:
    """The catalog folder at or above `start`: the one with policy.yaml.

    Raises:
        CatalogError: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        for candidate in (folder, folder / "catalog"):
            if (candidate / "policy.yaml").is_file() and (candidate / "gpus.yaml").is_file():
                return candidate
    raise CatalogError(
        f"no catalog at or above {start}",
        hint="run inside a clone of kaito-catalog, or name its catalog folder with --catalog DIR",
    )


def shipped_root() -> Path | None:
    """The catalog that came with this installation: in the wheel, or beside the package in a clone."""
    package = Path(__file__).parents[1]
    found = (package / "data" / "catalog", package.parent / "catalog")
    return next((root for root in found if (root / "policy.yaml").is_file()), None)


def found_or_shipped(start: Path) -> Path:
    """The catalog folder at or above `start`, else the one that came with this installation: for those who only read.

    Raises:
        CatalogError: there is neither.
    """
    try:
        return find_root(start)
    except CatalogError:
        shipped = shipped_root()
        if shipped is None:
            raise
        return shipped


def shown(path: Path) -> str:
    """`path` as messages show it: relative to the current folder when it lies below."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else Path(relative).as_posix()


def read_shared(root: Path) -> Shared:
    """Read policy.yaml, gpus.yaml, instance-types.yaml and, where there is one, prices.yaml.

    Raises:
        CatalogError: one of the first three is missing, or one of them is not valid: nothing can be checked without.
    """
    gpus = _require(root / "gpus.yaml", Gpus)
    instance_types = _require(root / "instance-types.yaml", InstanceTypes)
    prices, sources = _prices(root / "prices.yaml", instance_types)
    policy = _require(root / "policy.yaml", Policy)
    shared = Shared(policy, gpus.gpus, instance_types.instance_types, prices, sources)
    for instance_type in shared.instance_types:
        if instance_type.gpu not in shared.gpu_by_name:
            raise CatalogError(
                f"{shown(root / 'instance-types.yaml')}: {instance_type.name} has the GPU "
                f"'{instance_type.gpu}', which gpus.yaml does not list"
            )
    return shared


def _prices(
    path: Path, instance_types: InstanceTypes
) -> tuple[dict[str, tuple[Price, ...]], tuple[PriceSource, ...]]:
    if not path.is_file():
        return {}, ()
    read = _require(path, Prices)
    source: dict[str, PriceSource] = {found.cloud: found for found in read.sources}
    cloud = {machine.name: machine.cloud for machine in instance_types.instance_types}
    prices: dict[str, tuple[Price, ...]] = {}
    for listed in read.prices:
        name = listed.instance_type
        if name not in cloud:
            raise CatalogError(f"{shown(path)}: {name} is not in instance-types.yaml")
        told = source.get(cloud[name])
        if told is None:
            raise CatalogError(f"{shown(path)}: no source is named for {cloud[name]}, which has {name}")
        if name in prices:
            raise CatalogError(f"{shown(path)}: {name} stands here twice")
        by_region = sorted(listed.regions.items(), key=lambda item: (item[1], item[0]))
        prices[name] = tuple(
            Price(an_hour, region, told.currency, told.date, told.source) for region, an_hour in by_region
        )
    return prices, read.sources


def _require(path: Path, model: type[M]) -> M:
    document = reading.read(path, shown_as=shown(path))
    loaded, problems = load(document, model)
    if loaded is None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CatalogError(f"{first.place}: {first.code}: {first.message}{more}", hint=first.hint)
    return loaded


def read_entry(folder: Path) -> Entry:
    """Read a model's folder; what is wrong with its files is in `problems`."""
    problems: list[Diagnostic] = []
    if not NAME.match(folder.name):
        problems.append(
            Diagnostic(
                "DOC002",
                Severity.ERROR,
                f"'{folder.name[:60]}' cannot be a model's folder",
                Place(shown(folder / PROPOSAL)),
                "use the repository's name in lower case",
            )
        )
    document, proposal, found = _read_proposal(folder)
    problems += (*found, *_not_read(folder))
    facts_document, facts, found = _read_facts(folder)
    problems += found
    evidence, found = _read_evidence(folder)
    problems += found
    return Entry(folder.name, folder, document, proposal, facts_document, facts, evidence, tuple(problems))


def _read_proposal(folder: Path) -> tuple[Document, Proposal | None, tuple[Diagnostic, ...]]:
    path = folder / PROPOSAL
    if path.is_file() and not _escapes(path, folder):
        document = reading.read(path, shown_as=shown(path))
        return document, *load(document, Proposal)
    # Empty, so that a report quotes no line of a file that is not there.
    document = replace(reading.parse("{}", path=shown(path)), text="")
    if os.path.lexists(path):
        return document, None, (_leads_outside(path),)
    hint = _instead_of_proposal(folder)
    missing = Diagnostic("YML012", Severity.ERROR, "there is no proposal.yaml", Place(shown(path)), hint)
    return document, None, (missing,)


def _read_facts(folder: Path) -> tuple[Document | None, ModelFacts | None, tuple[Diagnostic, ...]]:
    path = folder / FACTS
    if not os.path.lexists(path):
        return None, None, ()  # none recorded yet
    if _escapes(path, folder) or not path.is_file():
        return None, None, (_leads_outside(path),)
    document = reading.read(path, shown_as=shown(path))
    return document, *load(document, ModelFacts)


def _read_evidence(folder: Path) -> tuple[tuple[Evidence, ...], tuple[Diagnostic, ...]]:
    evidence: list[Evidence] = []
    problems: list[Diagnostic] = []
    for path in sorted((folder / EVIDENCE).glob("*.yaml")):
        if _escapes(path, folder) or not path.is_file():
            problems.append(_leads_outside(path))
            continue
        document = reading.read(path, shown_as=shown(path))
        kind = document.value.get("kind") if isinstance(document.value, dict) else None
        record: ExactPlan | DryRun | ReportedRun | None
        if kind == "ExactPlan":
            record, found = load(document, ExactPlan)
        elif kind == "ReportedRun":
            record, found = load(document, ReportedRun)
        else:
            record, found = load(document, DryRun)
        problems.extend(found)
        if record is not None:
            evidence.append(Evidence(document, record))
    return tuple(evidence), tuple(problems)


def _instead_of_proposal(folder: Path) -> str:
    """What to do in a folder without a proposal.yaml."""
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    for name in names:
        if name.lower() in ("proposal.yml", "proposal.yaml"):
            return f"rename {name} to {PROPOSAL}"
    for name in names:
        if name.endswith(".md") and name.lower() != "readme.md":
            # A stranger's file name is not put into a command that others may paste.
            return "'kaito-catalog import FILE.md' reads KAITO's Markdown proposals"
    return "'kaito-catalog new ORG/MODEL' writes one"


def _not_read(folder: Path) -> list[Diagnostic]:
    """Files that look like data and lie where they are never read: nothing may pass because it was overlooked."""
    found = []
    for path in sorted((*folder.glob("*.y*ml"), *(folder / EVIDENCE).glob("*.yml"))):
        if path.name in (PROPOSAL, FACTS) or not path.is_file():
            continue
        wanted = path.with_suffix(".yaml").name
        known = path.parent.name == EVIDENCE or wanted in (PROPOSAL, FACTS)
        if wanted == PROPOSAL and not path.with_name(PROPOSAL).exists():
            continue  # the hint of what is missing names it
        if known and path.with_name(wanted).exists():
            hint = f"there is a {wanted} too: remove one of them"
        elif known:
            hint = f"rename it to {wanted}"
        else:
            hint = f"a model's folder holds {PROPOSAL}, {FACTS} and {EVIDENCE}/*.yaml"
        words = f"{path.name[:60]} is not read"
        found.append(Diagnostic("YML012", Severity.ERROR, words, Place(shown(path)), hint))
    return found


def _beside_the_folders(path: Path) -> Entry:
    """What stands for a file that lies among the models' folders instead of in one."""
    problem = Diagnostic(
        "YML012",
        Severity.ERROR,
        f"{path.name[:60]} is not read: each model has a folder of its own",
        Place(shown(path)),
        "'kaito-catalog import FILE.md' reads KAITO's Markdown proposals"
        if path.suffix == ".md"
        else f"move it to models/NAME/{PROPOSAL}",
    )
    document = replace(reading.parse("{}", path=shown(path)), text="")
    return Entry(path.name, path, document, None, None, None, (), (problem,))


def _escapes(path: Path, folder: Path) -> bool:
    """Whether a link leads from the model's folder, or with that folder, to another place than its own."""
    folder = Path(os.path.abspath(folder))
    return not _resolved(path).is_relative_to(_resolved(folder.parent) / folder.name)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle, up to Python 3.12
        return Path("/")


def _leads_outside(path: Path) -> Diagnostic:
    return Diagnostic(
        "YML012",
        Severity.ERROR,
        f"{path.name[:60]} is not a file of this folder: it is a link that leads elsewhere, or not a file at all",
        Place(shown(path)),
        "put the file itself there",
    )


def read_catalog(root: Path, folders: Sequence[Path] | None = None) -> Catalog:
    """Read the shared files and the entries (all of `models/`, or just `folders`).

    Raises:
        CatalogError: a shared file is missing or not valid, or a folder cannot be read.
    """
    return Catalog(root, read_shared(root), tuple(read_entries(root, folders)))


def read_entries(root: Path, folders: Sequence[Path] | None = None) -> Iterator[Entry]:
    """The entries (all of `models/`, or just `folders`), sorted by name; each is read when it is asked for.

    Raises:
        CatalogError: a folder cannot be read.
    """
    if folders is None:
        models = root / "models"
        found = sorted(models.iterdir()) if models.is_dir() else []
        folders = [f for f in found if f.is_dir() and not f.name.startswith(".")]
        for path in found:
            if path.suffix in (".yaml", ".yml", ".md") and path.is_file() and path.stem.lower() != "readme":
                yield _beside_the_folders(path)
    for folder in sorted(folders, key=lambda f: f.name):
        yield with_facts_of_the_catalog(read_entry(folder), root)


def with_facts_of_the_catalog(entry: Entry, root: Path) -> Entry:
    """A proposal that lies elsewhere without facts of its own is compared with the catalog's of that repository."""
    repo_id = entry.proposal.repo_id if entry.proposal else None
    if entry.facts_document is not None or repo_id is None:
        return entry
    path = root / "models" / repo_id.partition("/")[2].lower() / FACTS
    if not path.is_file():
        return entry
    document = reading.read(path, shown_as=shown(path))
    facts, problems = load(document, ModelFacts)
    if problems or facts is None or facts.repo_id.lower() != repo_id.lower():
        return entry
    return replace(entry, facts_document=document, facts=facts)

"""KAITO's manifests as arguments of `check` and `import`: which paths they are, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import FACTS, PROPOSAL, Shared
from kaito_catalog.catalog.reading import shown
from kaito_catalog.checks.base import Check, Context
from kaito_catalog.checks.engine import EntryReport, check_entry
from kaito_catalog.checks.registry import OF_MANIFESTS, REFUSED_BY_CRD
from kaito_catalog.cli.common import say
from kaito_catalog.diagnostics import Diagnostic, Place, Severity
from kaito_catalog.documents import streams
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.crd_files import CustomResources
from kaito_catalog.kaito.objects import LEFT_OUT, KubernetesObject, ManifestFile, objects_of, read_manifests
from kaito_catalog.kaito.release import Release, release_of
from kaito_catalog.proposals.of_manifests import entry_of, imported_value

_OWN = "catalog.kaito.sh/"


def is_manifest(text: str) -> bool:
    """Whether an argument names a YAML file that is none of the catalog's own names."""
    path = Path(text)
    return path.suffix in (".yaml", ".yml") and path.name not in (PROPOSAL, FACTS) and path.is_file()


@dataclass(frozen=True)
class GivenManifests:
    """What the files hold, and the files for quoting."""

    found: ManifestFile
    sources: dict[str, Document]
    objects: tuple[KubernetesObject, ...] = ()


def read_given(paths: Sequence[str], kaito: Release) -> GivenManifests:
    """Read the files that were named.

    Raises:
        CatalogError: a file cannot be opened, or is one of the catalog's own kinds under another name.
    """
    files = [streams.read_all(Path(path), shown_as=shown(Path(path))) for path in dict.fromkeys(paths)]
    sources: dict[str, Document] = {}
    for documents in files:
        for document in documents:
            sources.setdefault(document.path, document.quotable())
            value = document.value if isinstance(document.value, dict) else {}
            if str(value.get("apiVersion", "")).startswith(_OWN):
                raise CatalogError(
                    f"{document.place(('kind',))}: a {str(value.get('kind'))[:40]} stands in a folder of its own",
                    hint=f"put a proposal into FOLDER/{PROPOSAL}, and name the folder",
                )
    found = read_manifests(files, kaito)
    for path, documents in zip(dict.fromkeys(paths), files, strict=True):
        if not documents:
            say(f"{shown(Path(path))}: skipped: it holds no object")
    objects = tuple(item for documents in files for item in objects_of(documents))
    return GivenManifests(found, sources, objects)


def check_given(
    paths: Sequence[str],
    root: Path,
    context: Context,
    checks: Sequence[Check],
    *,
    require_all: bool,
    crds: CustomResources | None = None,
) -> tuple[list[EntryReport], dict[str, Document]]:
    """The reports of the manifests in the files, one a model, and the files for quoting."""
    kaito = release_of(context.profile)
    given = read_given(paths, kaito)
    judged, refused = _against_crds(given, crds) if crds else (frozenset(), [])
    for left_out in given.found.left_out:
        if left_out.place not in judged:
            say(f"{left_out.place}: skipped: {left_out.message}")
    chosen = [check for check in checks if check in OF_MANIFESTS]
    reports = []
    for model in given.found.models:
        entry = entry_of(model, root, context.shared, kaito)
        report = check_entry(entry, chosen, context, require_all=require_all)
        reports.append(replace(report, claims={}))
    return [*_of_problems([*given.found.problems, *refused]), *reports], given.sources


def _against_crds(given: GivenManifests, crds: CustomResources) -> tuple[frozenset[Place], list[Diagnostic]]:
    """Where the objects stand that a CRD is about, and why a cluster with these CRDs would refuse some of them."""
    judged: set[Place] = set()
    refused: list[Diagnostic] = []
    for item in given.objects:
        problems = crds.problems(item.value)
        if problems is not None:
            judged.add(item.place("kind"))
        for route, message in problems or ():
            refused.append(
                Diagnostic(REFUSED_BY_CRD.code, REFUSED_BY_CRD.severity, message, item.place(*route))
            )
    say(f"{len(judged)} of {len(given.objects)} objects held against the CRDs of {shown(crds.folder)}")
    return frozenset(judged), refused


def _of_problems(problems: Sequence[Diagnostic]) -> list[EntryReport]:
    """Documents that cannot be read, by file."""
    by_path: dict[str, list[Diagnostic]] = {}
    for problem in problems:
        by_path.setdefault(problem.place.path, []).append(problem)
    return [
        EntryReport(Path(path).name, path, False, tuple(found), (), {}, None)
        for path, found in by_path.items()
    ]


def import_given(
    paths: Sequence[str], root: Path, shared: Shared, today: date
) -> tuple[list[tuple[str, dict[str, Any]]], list[Diagnostic], dict[str, Document]]:
    """The proposals of the manifests in the files by name, what was noticed, and the files for quoting."""
    kaito = release_of(shared.profile())
    given = read_given(paths, kaito)
    proposals: list[tuple[str, dict[str, Any]]] = []
    diagnostics = [*given.found.problems, *given.found.left_out]
    for model in given.found.models:
        entry = entry_of(model, root, shared, kaito)
        diagnostics += entry.problems
        if model.repo_id is not None and entry.proposal is not None:
            value = imported_value(model, entry, shared, kaito, today)
            proposals.append((value["metadata"]["name"], value))
        elif model.preset is None:
            message = f"{model.name}: a ConfigMap that no Workspace here names is of no model, so nothing is written"
            diagnostics.append(Diagnostic(LEFT_OUT, Severity.WARNING, message, model.place))
    return _one_of_each(proposals), diagnostics, given.sources


def _one_of_each(proposals: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Each name once: several manifests of one model become `name`, `name-2` and so on."""
    taken: set[str] = set()
    found = []
    for name, value in proposals:
        own, number = name, 2
        while own in taken:
            own, number = f"{name[:80]}-{number}", number + 1
        taken.add(own)
        value["metadata"]["name"] = own
        found.append((own, value))
    return found

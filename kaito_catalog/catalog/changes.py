"""Which models a change concerns: those whose folder it touches, or all when it touches what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kaito_catalog.catalog.entries import FACTS, PROPOSAL
from kaito_catalog.system import git


def only_changed(root: Path, revision: str, folders: Sequence[Path] | None) -> list[Path] | None:
    """The model folders among `folders` (all, when None) that changed since `revision`; None is every model.

    Everything is concerned when a file that all models share changed: the catalog's own YAML files and the
    package that checks them.

    Raises:
        CatalogError: no clone, or no such revision.
    """
    models = root.resolve() / "models"
    package = git.top(root).resolve() / "kaito_catalog"
    found: set[Path] = set()
    for path in git.changed_since(root, revision):
        place = path.parent.resolve() / path.name
        if place.is_relative_to(models) and place.parent != models:
            found.add(models / place.relative_to(models).parts[0])
        elif place.is_relative_to(package) or place.parent == models.parent:
            return None if folders is None else list(folders)
    wanted = {folder.resolve() for folder in folders} if folders is not None else None
    return sorted(f for f in found if (f / PROPOSAL).exists() and (wanted is None or f in wanted))


def only_changed_files(paths: Sequence[Path], revision: str) -> list[Path]:
    """The files among `paths` that changed since `revision`, each in the clone that it lies in.

    Raises:
        CatalogError: no clone, or no such revision.
    """
    by_clone: dict[Path, set[Path]] = {}
    found = []
    for path in paths:
        top = git.top(path.resolve().parent).resolve()
        if top not in by_clone:
            by_clone[top] = {p.parent.resolve() / p.name for p in git.changed_since(top, revision)}
        if path.parent.resolve() / path.name in by_clone[top]:
            found.append(path)
    return found


@dataclass(frozen=True)
class Brought:
    """What a change brings along, by the folders' names."""

    touched: frozenset[str]
    """Models with a changed file."""
    facts: frozenset[str]
    """Models whose facts.yaml it writes."""
    removed: tuple[str, ...]
    """Models that it takes away."""


NOTHING = Brought(frozenset(), frozenset(), ())


def brought_since(root: Path, revision: str) -> Brought:
    """What the change since `revision` brings along.

    Raises:
        CatalogError: no clone, or no such revision.
    """
    models = root.resolve() / "models"
    touched, facts, removed = set(), set(), set()
    for path in git.changed_since(root, revision):
        place = path.parent.resolve() / path.name
        if not place.is_relative_to(models) or place.parent == models:
            continue
        name = place.relative_to(models).parts[0]
        touched.add(name)
        if place == models / name / FACTS:
            facts.add(name)
        if place == models / name / PROPOSAL and not place.exists():
            removed.add(name)
    return Brought(frozenset(touched), frozenset(facts), tuple(sorted(removed)))

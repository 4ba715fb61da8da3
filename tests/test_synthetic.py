"""Catalogs made for measuring: as valid as the real one, and no two models alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaito_catalog.architectures import Shape
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_catalog
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.errors import CatalogError
from kaito_catalog.plans.instance_types import facts_shape
from tools import synthetic

COUNT = 130
"""More than twice the models of the catalog, so that most are there twice."""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("synthetic") / "catalog"
    synthetic.write_catalog(into, COUNT)
    return into


@pytest.fixture(scope="module")
def large(folder: Path) -> Catalog:
    return read_catalog(folder)


def test_every_model_is_readable_and_no_check_fails(large: Catalog, context: Context) -> None:
    report = check_catalog(large, CHECKS, context)
    assert [d for entry in report.entries for d in entry.diagnostics if d.fails] == []
    assert all(entry.readable for entry in report.entries)


def test_it_has_as_many_models_as_asked_for(large: Catalog) -> None:
    assert len(large.entries) == COUNT


def test_no_two_models_have_the_same_repository(large: Catalog) -> None:
    assert len({entry.proposal.repo_id for entry in large.entries if entry.proposal}) == COUNT


def test_no_two_copies_of_a_model_have_the_same_shape(large: Catalog) -> None:
    copies: dict[str, list[Shape]] = {}
    for entry in large.entries:
        shape = facts_shape(entry.facts) if entry.facts else None
        if isinstance(shape, Shape):
            copies.setdefault(entry.name.rpartition("-")[0], []).append(shape)
    assert any(len(shapes) > 2 for shapes in copies.values())
    assert [name for name, shapes in copies.items() if len(set(shapes)) < len(shapes)] == []


def test_the_same_count_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    synthetic.write_catalog(tmp_path / "again", COUNT)
    assert contents(tmp_path / "again") == contents(folder)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="exists"):
        synthetic.write_catalog(tmp_path, 1)

"""KAITO's examples of Workspaces and InferenceSets: each is read as KAITO's admission and its controller read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.kaito_tree import KaitoTree
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_entry
from kaito_catalog.checks.registry import OF_MANIFESTS
from kaito_catalog.documents import streams
from kaito_catalog.kaito.objects import ManifestFile, read_manifests
from kaito_catalog.kaito.release import Release, release_of
from kaito_catalog.proposals.of_manifests import entry_of

PROFILES = "pkg/utils/mig/mig.go"
OUTSIDE = {"kaito_multiroleinference_deepseek-v3.yaml", "kaito_multiroleinference_phi4_4.yaml"}
"""Examples of a kind that is not read."""


@pytest.fixture(scope="session")
def examples(tree: KaitoTree) -> tuple[Path, ...]:
    found = tuple(sorted((tree.root / "examples/inference").rglob("*.yaml")))
    if not found:
        pytest.skip("KAITO's examples are in a checkout of its repository only")
    return found


def read(path: Path, kaito: Release) -> ManifestFile:
    return read_manifests([streams.read_all(path, shown_as=path.name)], kaito)


def test_every_example_is_read_and_names_a_preset_that_kaito_has(
    examples: tuple[Path, ...], catalog: Catalog
) -> None:
    kaito = release_of(catalog.shared.profile())
    for path in examples:
        found = read(path, kaito)
        assert found.problems == (), path.name
        assert bool(found.models) is (path.name not in OUTSIDE), path.name
        for model in found.models:
            assert model.repo_id is not None, path.name
            assert not [p for p in model.problems if p.code.startswith(("SCH", "IMP009"))], path.name


def test_every_example_is_checked_at_its_own_lines(examples: tuple[Path, ...], catalog: Catalog) -> None:
    kaito = release_of(catalog.shared.profile())
    context = Context(catalog.shared, catalog.shared.profile())
    for path in examples:
        lines = path.read_text(encoding="utf-8").count("\n") + 1
        for model in read(path, kaito).models:
            report = check_entry(entry_of(model, catalog.root, catalog.shared, kaito), OF_MANIFESTS, context)
            assert report.readable, path.name
            assert all(d.place.path == path.name for d in report.diagnostics)
            assert all(1 <= d.place.line <= lines for d in report.diagnostics)


def test_the_examples_have_the_mistakes_that_are_known(examples: tuple[Path, ...], catalog: Catalog) -> None:
    kaito = release_of(catalog.shared.profile())
    context = Context(catalog.shared, catalog.shared.profile())
    found: dict[str, set[str]] = {}
    for path in examples:
        for model in read(path, kaito).models:
            report = check_entry(entry_of(model, catalog.root, catalog.shared, kaito), OF_MANIFESTS, context)
            for diagnostic in report.diagnostics:
                if diagnostic.fails:
                    found.setdefault(diagnostic.code, set()).add(path.name)
    # vLLM has dropped swap-space, and KAITO refuses a strength of an adapter with vLLM.
    assert "kaito_workspace_custom_config.yaml" in found["RUN002"]
    assert found["KTO011"] == {"kaito_workspace_phi_3_with_adapters.yaml"}
    assert found.keys() <= {"RUN002", "RUN006", "KTO008", "KTO011"}


def test_the_profiles_of_slices_are_those_of_its_admission(tree: KaitoTree, catalog: Catalog) -> None:
    path = tree.root / PROFILES
    if not path.is_file():
        pytest.skip("KAITO's sources are in a checkout of its repository only")
    theirs = set(re.findall(r'"(\dg\.\d+gb)":\s*true', path.read_text(encoding="utf-8")))
    assert theirs == set(release_of(catalog.shared.profile("kaito-v0.12")).mig_profiles)

"""Fixtures of the conformance run: KAITO's tree and published configurations, where the environment names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.kaito_tree import KaitoTree, Published
from kaito_catalog.catalog.entries import Catalog


@pytest.fixture(scope="session")
def tree() -> KaitoTree:
    """KAITO's own files."""
    folder = os.environ.get("KAITO")
    if not folder:
        pytest.fail("KAITO names no folder: run 'make conformance KAITO=DIR'")
    return KaitoTree(Path(folder))


@pytest.fixture(scope="session")
def published() -> Published:
    """Configurations as published; without CONFIGS a test that asks for them is skipped."""
    folder = os.environ.get("CONFIGS")
    if not folder:
        pytest.skip("published configurations are compared only where CONFIGS=DIR names them")
    found = Published(Path(folder))
    assert found.files, f"{folder} holds no ORG__NAME.json"
    return found


@pytest.fixture(scope="session")
def recorded(catalog: Catalog) -> dict[str, dict[str, object]]:
    """The configurations in our facts, by repository."""
    return {e.facts.repo_id: dict(e.facts.config or {}) for e in catalog.entries if e.facts}

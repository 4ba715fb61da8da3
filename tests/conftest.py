"""Fixtures: the real catalog, and the facts of other people that only some machines have."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from kaito_catalog.catalog.reading import Catalog, Shared, read_catalog, read_shared
from kaito_catalog.checks.base import Context

# Machines are noisy: an example that takes long once is no failure.
settings.register_profile("kaito-catalog", deadline=None)
settings.load_profile("kaito-catalog")
# A shell starts what goes into the background with SIGINT ignored, and tests press Ctrl-C, also in programs they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The catalog of this repository."""
    return read_catalog(ROOT / "catalog")


@pytest.fixture(scope="session")
def shared_files() -> Shared:
    """Policy, GPUs and instance types of this repository."""
    return read_shared(ROOT / "catalog")


@pytest.fixture(scope="session")
def context(shared_files: Shared) -> Context:
    """What checks are run with."""
    return Context(shared_files, shared_files.policy.default_profile())


@pytest.fixture(scope="session")
def kaito_data() -> Path:
    """KAITO's own files, where this machine has them."""
    folder = SHARED / "data" / "kaito"
    if not folder.is_dir():
        pytest.skip("KAITO's own files (../shared/data/kaito) are not on this machine")
    return folder

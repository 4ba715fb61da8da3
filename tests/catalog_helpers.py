"""Small catalogs made of this one's models, and the type of what runs a command in a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

CATALOG = Path(__file__).resolve().parents[1] / "catalog"

Run = Callable[..., tuple[int, str, str]]
"""Runs a command in this process: its exit code, what it printed, and its messages."""


def copy_catalog(target: Path, *names: str, evidence: bool = True) -> Path:
    """A catalog of these models of ours in the folder `target`."""
    (target / "models").mkdir(parents=True)
    for path in CATALOG.glob("*.yaml"):
        shutil.copy(path, target)
    ignored = None if evidence else shutil.ignore_patterns("evidence")
    for name in names:
        shutil.copytree(CATALOG / "models" / name, target / "models" / name, ignore=ignored)
    return target


def break_proposal(here: Path, old: str, new: str) -> None:
    """Replace a text of the proposal of phi-4."""
    path = here / "catalog/models/phi-4/proposal.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

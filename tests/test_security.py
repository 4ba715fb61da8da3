"""SECURITY.md says no more than the tests hold; constraints pin everything; the audit looks at all of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import update_constraints

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/\w+\.py)::(\w+)`", TEXT)


def test_every_row_of_the_threat_model_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`tests/\w+\.py::\w+` \|$", row)] == []


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)), ids=lambda part: part)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_a_command_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(
        r"`make ([a-z-]+)`", TEXT + (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_constraint_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)


def test_the_audit_looks_at_the_constraints_with_a_pinned_tool() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text(encoding="utf-8"))
    runs = [step["run"] for step in workflow["jobs"]["audit"]["steps"] if "run" in step]
    assert any(re.search(r"pip install pip-audit==[\d.]+$", run) for run in runs)
    assert any("pip-audit" in run and "--requirement constraints.txt" in run for run in runs)


def test_new_constraints_are_what_pip_would_install_sorted_and_without_ourselves() -> None:
    report = {
        "install": [
            {"metadata": {"name": "Zeta_b", "version": "2"}},
            {"metadata": {"name": "alpha", "version": "1.0"}},
            {"metadata": {"name": "kaito-catalog", "version": "0.1"}},
        ]
    }
    assert update_constraints.constraints(report) == "alpha==1.0\nZeta_b==2\n"


def test_no_gap_is_left_in_the_page() -> None:
    assert re.findall(r"\b(?:FIGURE|TODO|TBD|XXX)\b", TEXT) == []

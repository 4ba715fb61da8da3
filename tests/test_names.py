"""One name for one thing: a public class has a name that no other module of the package gives to another."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path


def defined_classes(package: Path) -> dict[str, list[str]]:
    """The public classes by name, each with the modules that define one so called."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path.relative_to(package).as_posix())
    return found


PUBLISHED = {"Parallelism": ["formats/evidence.py", "memory/values.py"]}
"""How a model is split, as evidence records it and as a plan has it: schemas and the page of formats show the first."""


def test_no_public_class_name_is_defined_twice(root: Path) -> None:
    found = defined_classes(root / "kaito_catalog")
    assert len(found) > 100
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == PUBLISHED


def test_a_name_that_is_defined_twice_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class Gpu:\n    class Inner: ...\n\n\nclass _Own: ...\n")
    (tmp_path / "other.py").write_text("class Gpu: ...\n\n\nclass _Own: ...\n")
    assert defined_classes(tmp_path) == {"Gpu": ["one.py", "other.py"]}

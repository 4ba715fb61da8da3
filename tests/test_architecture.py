"""Data flows one way: a module imports only from modules before it."""

from __future__ import annotations

import ast
from pathlib import Path

ORDER = (
    "errors",
    "quantity",
    "diagnostics",
    "files",
    "processes",
    "git",
    "source",
    "yaml_writer",
    "formats",
    "loading",
    "licenses",
    "catalog",
    "vllm_known",
    "vllm",
    "shape",
    "weights",
    "kv_cache",
    "measured",
    "overheads",
    "capability",
    "unread",
    "plan",
    "serving",
    "exact",
    "recommend",
    "kaito",
    "planning",
    "repository",
    "hub",
    "local",
    "record",
    "new",
    "fake_hub",
    "checks",
    "engines",
    "drift",
    "reports",
    "changes",
    "fix",
    "diff",
    "site",
    "generate",
    "library",
    "cli_common",
    "cli_hub",
    "cli_campaign",
    "cli_vllm",
    "cli_plan",
    "cli_generate",
    "cli_check",
    "cli_completion",
    "cli",
    "__main__",
)
"""The modules of the package, earliest first; ARCHITECTURE.md says what each does."""


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            parts = node.module.split(".")
            if parts[0] == "kaito_catalog":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("kaito_catalog.")}
    return found - {"__version__"}


def _modules(root: Path) -> dict[str, list[Path]]:
    package = root / "kaito_catalog"
    found: dict[str, list[Path]] = {}
    for path in package.rglob("*.py"):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name not in ("__init__", "vllm_worker"):
            found.setdefault(name, []).append(path)
    return found


def test_every_module_has_its_place_in_the_order(root: Path) -> None:
    assert set(_modules(root)) == set(ORDER)


def test_a_module_imports_only_from_earlier_ones(root: Path) -> None:
    wrong = [
        f"{path.relative_to(root)} imports {imported}"
        for name, paths in _modules(root).items()
        for path in paths
        for imported in _imports(path)
        if imported != name and ORDER.index(imported) > ORDER.index(name)
    ]
    assert wrong == []


def test_the_package_never_imports_vllm(root: Path) -> None:
    for paths in _modules(root).values():
        for path in paths:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
            assert not any(name.split(".")[0] in ("vllm", "torch") for name in names), path


def test_the_architecture_page_names_every_module(root: Path) -> None:
    text = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [name for name in ORDER if f"`{name}" not in text] == []

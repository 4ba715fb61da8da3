"""Data flows one way: a module imports only from modules before it, in the order that ARCHITECTURE.md gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

Route = tuple[str, ...]
"""A module by its names: `("memory", "plan")`; a package's own file ends with `__init__`."""


@pytest.fixture(scope="module")
def order(root: Path) -> dict[Route, tuple[int, ...]]:
    """Where each module stands, as ARCHITECTURE.md says: an earlier one is the smaller."""
    return read_order((root / "ARCHITECTURE.md").read_text(encoding="utf-8"))


def read_order(page: str) -> dict[Route, tuple[int, ...]]:
    """The table of rooms as the place of each: a row names a room, and in its last cell what is inside, in order."""
    inside: dict[Route, list[str]] = {(): []}
    for row in re.findall(
        r"^\| `([a-z_]+(?:/[a-z_]+)*/?)` \|.*\|([^|]*)\|$", page.split("\n## ")[0], re.MULTILINE
    ):
        route = tuple(row[0].strip("/").split("/"))
        if len(route) == 1:
            inside[()].append(route[0])
        inside[route] = [name.strip("/") for name in re.findall(r"`([a-z_]+/?)`", row[1])]
    return dict(_places((), (), inside))


def _places(
    route: Route, place: tuple[int, ...], inside: dict[Route, list[str]]
) -> Iterator[tuple[Route, tuple[int, ...]]]:
    for index, name in enumerate(inside.get(route, [])):
        yield (*route, name), (*place, index)
        yield from _places((*route, name), (*place, index), inside)


def _modules(root: Path) -> dict[Route, Path]:
    package = root / "kaito_catalog"
    return {path.relative_to(package).with_suffix("").parts: path for path in package.rglob("*.py")}


def _imports(path: Path, modules: dict[Route, Path]) -> set[Route]:
    """The modules of the package that a file imports, at whichever place of it."""
    found: set[Route] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = tuple(name.split("."))
            if parts[0] == "kaito_catalog":
                candidates = ((*parts[1:], "__init__"), parts[1:], (*parts[1:-1], "__init__"), parts[1:-1])
                found.add(next(route for route in candidates if route in modules))
    return found


def _place(route: Route, order: dict[Route, tuple[int, ...]]) -> tuple[int, ...]:
    """An `__init__` that is not listed holds a docstring alone, and stands before what is in its package."""
    return order[route] if route in order else order[route[:-1]] + (-1,)


def test_the_page_names_every_module_and_no_other(root: Path, order: dict[Route, tuple[int, ...]]) -> None:
    modules = {route for route in _modules(root) if route != ("__init__",)}
    packages = {route[:-1] for route in modules if len(route) > 1}
    assert modules - order.keys() <= {(*package, "__init__") for package in packages}
    assert order.keys() - packages <= modules


def test_an_init_that_is_not_listed_imports_nothing(root: Path, order: dict[Route, tuple[int, ...]]) -> None:
    modules = _modules(root)
    unlisted = [
        route for route in modules if route[-1] == "__init__" and route not in order and len(route) > 1
    ]
    assert [route for route in unlisted if _imports(modules[route], modules)] == []


def test_a_module_imports_only_from_earlier_ones(root: Path, order: dict[Route, tuple[int, ...]]) -> None:
    modules = _modules(root)
    wrong = [
        f"{'/'.join(route)} imports {'/'.join(imported)}"
        for route, path in modules.items()
        if route != ("__init__",)  # its exports are lazy
        for imported in _imports(path, modules)
        if imported != route and _place(imported, order) > _place(route, order)
    ]
    assert wrong == []


def test_a_module_that_imports_a_later_one_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("def f() -> None:\n    from kaito_catalog.late import g\n    g()\n")
    (tmp_path / "late.py").write_text("")
    modules: dict[Route, Path] = {("early",): tmp_path / "early.py", ("late",): tmp_path / "late.py"}
    page = "| `early` | first | |\n| `late` | second | |\n"
    assert _imports(modules["early",], modules) == {("late",)}
    assert read_order(page) == {("early",): (0,), ("late",): (1,)}


WORKER: Route = ("vllm_bridge", "worker")


def test_vllm_is_imported_by_the_worker_alone(root: Path) -> None:
    for route, path in _modules(root).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        asks = any(name.split(".")[0] in ("vllm", "torch", "transformers") for name in names)
        assert not asks or route[:2] == WORKER, path


def test_the_worker_and_the_rest_of_the_package_do_not_import_each_other(root: Path) -> None:
    modules = _modules(root)
    for route, path in modules.items():
        for imported in _imports(path, modules):
            assert (route[:2] == WORKER) == (imported[:2] == WORKER), path


MOST_LINES_OF_A_MODULE = 500
MOST_LINES_OF_A_FUNCTION = 60
"""Its docstring not counted."""
LONG_MODULES: set[str] = set()
"""Modules that are still to be split. Nothing is added here: a module that has to be long says why."""
LONG_FUNCTIONS: set[str] = set()
"""Functions that are still to be split, each after its room. Nothing is added here."""


def gives_a_reason(documentation: str | None) -> bool:
    """Whether the first sentence of a module's docstring says why it is long: it has the word "because"."""
    return "because" in (documentation or "").split(". ")[0].split("\n\n")[0].split()


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its decorators and its docstring."""
    first = function.body[0]
    is_documented = isinstance(first, ast.Expr) and ast.get_docstring(function) is not None
    documentation = _lines(first) if is_documented else 0
    return _lines(function) - documentation


def _lines(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_no_module_is_too_long_without_a_reason(root: Path) -> None:
    package = root / "kaito_catalog"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if len((text := path.read_text(encoding="utf-8")).splitlines()) > MOST_LINES_OF_A_MODULE
        and not gives_a_reason(ast.get_docstring(ast.parse(text)))
    }
    assert sorted(found - LONG_MODULES) == [], "split them, or say in the first sentence why not: because …"
    assert sorted(LONG_MODULES - found) == [], "no longer too long: take them off LONG_MODULES"


def test_no_function_is_too_long(root: Path) -> None:
    package = root / "kaito_catalog"
    found = {
        f"{path.relative_to(package).with_suffix('').parts[0]} {node.name}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_of(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert sorted(found - LONG_FUNCTIONS) == [], "break them into steps with names"
    assert sorted(LONG_FUNCTIONS - found) == [], "no longer too long: take them off LONG_FUNCTIONS"


def test_a_docstring_does_not_make_a_function_long() -> None:
    body = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    return (\n        1\n    )\n').body
    assert [lines_of(node) for node in body if isinstance(node, ast.FunctionDef)] == [4]


@pytest.mark.parametrize(
    ("documentation", "expected"),
    [
        ("All of it, in one file because the browser loads it so. More.", True),
        ("The server. It is long because nobody split it.", False),
        ("The server.\n\nIt is long because nobody split it.", False),
        (None, False),
    ],
)
def test_the_first_sentence_gives_the_reason_why_a_module_is_long(
    documentation: str | None, expected: bool
) -> None:
    assert gives_a_reason(documentation) is expected

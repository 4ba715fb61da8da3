"""Python for the calculator's page: our modules that read a configuration, and Brython, which runs them.

The page loads both when somebody pastes a config.json, and not before. Ours go into `site-src` with the other
scripts; Brython is a package of the extra `site` and is added when the site is built.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from kaito_catalog.errors import CatalogError
from kaito_catalog.memory.overheads.constants import constants

PACKAGE = Path(__file__).resolve().parents[1]

ENTRY = "kaito_catalog.site.pasted"
"""What the page asks; this and all that it imports of this package is shipped."""

STDLIB = (
    "__future__", "_ast", "_collections", "_collections_abc", "_functools", "_json", "_operator", "_py_abc", "_thread",
    "_typing", "_weakref", "_weakrefset", "abc", "annotationlib", "ast", "browser", "builtins", "collections", "copy",
    "copyreg", "dataclasses", "enum", "fnmatch", "fractions", "functools", "genericpath", "itertools", "json",
    "json.encoder", "keyword", "math", "numbers", "operator", "os", "posix", "posixpath", "python_re", "re", "reprlib",
    "stat", "sys", "types", "typing", "weakref",
)  # fmt: skip
"""What those import of Brython's standard library, and what that imports in turn: a seventh of it."""

START = """
import itertools
import json

from browser import self as worker

if not hasattr(itertools, "pairwise"):  # Brython 3.15 has none.

    def pairwise(values):
        values = tuple(values)
        return zip(values, values[1:])

    itertools.pairwise = pairwise

from kaito_catalog.site.pasted import tables


def answer(asked):
    try:
        return json.dumps(tables(json.loads(asked)))
    except Exception as error:  # Whatever it is: the page says that it cannot read this, and why.
        return json.dumps({"failed": f"{type(error).__name__}: {error}"})


worker.kaitoCatalogTables = answer
"""
"""What the worker runs first: from then on its `kaitoCatalogTables` takes and returns JSON text."""

NOTICES = "python-notices.txt"
SCRIPT, RUNTIME = "plan-python.js", "brython.js"
"""The files in `assets`: our modules, and what runs them."""


def script() -> str:
    """Our modules as a script: `kaitoCatalogPython` holds what makes them importable in Brython."""
    value = {"modules": modules(), "start": START}
    return f"globalThis.kaitoCatalogPython = {json.dumps(value, ensure_ascii=True)};\n"


def modules() -> dict[str, list[Any]]:
    """`ENTRY` and what it imports of this package, and that in turn, by name."""
    found: dict[str, list[Any]] = {
        PACKAGE.name: [".py", "", [], 1],
        # The constants without YAML, which is not there.
        "kaito_catalog.memory.overheads.constants": [
            ".py",
            f"VALUES = {dict(constants())!r}\n\n\ndef constants():\n    return VALUES\n",
            [],
        ],
    }
    waiting = [ENTRY]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _module(name)
            waiting += [name.rpartition(".")[0], *filter(_is_ours, found[name][2])]
    return dict(sorted(found.items()))


def is_installed() -> bool:
    """Whether Brython is there; it belongs to the optional dependencies `site`."""
    return importlib.util.find_spec("brython") is not None


def runtime() -> str:
    """Brython and the part of its standard library that is needed, as a script.

    `kaitoCatalogBrython` is its text, and not its effect: it runs in a worker, which is made of that text, since
    pages that are read from a disk can load scripts but no workers.

    Raises:
        CatalogError: Brython is not installed, or is another one than this was made for.
    """
    if not is_installed():
        raise CatalogError(
            "brython is not installed, with which the calculator reads pasted configurations",
            hint="pip install 'kaito-catalog[site]'",
        )
    folder = resources.files("brython") / "data"
    library = (folder / "brython_stdlib.js").read_text(encoding="utf-8")
    match = re.search(r"var scripts = (\{.*\})\n", library)
    known: Mapping[str, Any] = json.loads(match[1]) if match else {}
    missing = [name for name in STDLIB if name not in known]
    if missing:
        raise CatalogError(
            f"this brython has no {', '.join(missing[:5])} where it is looked for",
            hint="install the version in constraints.txt",
        )
    value = {
        "program": (folder / "brython.js").read_text(encoding="utf-8"),
        "modules": {name: known[name] for name in STDLIB},
    }
    head = f"// Brython and parts of Python's standard library; whose they are: {NOTICES}\n"
    return f"{head}globalThis.kaitoCatalogBrython = {json.dumps(value, ensure_ascii=True)};\n"


def _module(name: str) -> list[Any]:
    """As Brython has modules: the suffix, the source, what it imports, and 1 where it is a package."""
    path = _path(name)
    text = path.read_text(encoding="utf-8")
    return [".py", text, _imports(text), *([1] if path.name == "__init__.py" else [])]


def _path(name: str) -> Path:
    folder = PACKAGE.joinpath(*name.split(".")[1:])
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _imports(text: str) -> list[str]:
    """The modules that it imports when it is run; what stands under `if TYPE_CHECKING` is not."""
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{item.name}" for item in node.names]
            found |= {node.module, *(name for name in names if _is_ours(name) and _path(name).is_file())}
    return sorted(found)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE.name

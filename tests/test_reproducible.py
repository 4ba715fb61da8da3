"""The same catalog gives the same bytes: in another folder, locale, time zone, hash seed and order of directories."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kaito_catalog.site.build import is_installed

MODELS = ("phi-4", "llama-3.3-70b-instruct", "gpt-oss-20b", "deepseek-v3.2")
WORLDS: tuple[dict[str, str], ...] = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"},
)
"""PYTHONUTF8=0 keeps the first world's ASCII: without it Python would take UTF-8 in the locale C as well."""

Bytes = dict[str, bytes]


def copy_of_the_tree(root: Path, into: Path, seed: int) -> None:
    """What `generate` reads, its files created in an order of their own."""
    wanted = [root / "mkdocs.yml", *(root / "catalog").glob("*.yaml"), *(root / "docs").rglob("*")]
    wanted += [path for name in MODELS for path in (root / "catalog" / "models" / name).rglob("*")]
    wanted = sorted(path for path in wanted if path.is_file())
    random.Random(seed).shuffle(wanted)
    for path in wanted:
        target = into / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def run(root: Path, tree: Path, world: Mapping[str, str], *arguments: str) -> bytes:
    """What the command prints on stdout."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV")}
    path = os.pathsep.join([str(root / "tests" / "shuffled"), str(root)])
    done = subprocess.run(
        [sys.executable, "-m", "kaito_catalog", *arguments],
        cwd=tree,
        env={**kept, "PYTHONPATH": path, "SHUFFLE_SEED": world["PYTHONHASHSEED"], **world},
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.stdout


def contents(folder: Path) -> Bytes:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trees(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A copy of the tree for each world, with everything generated there."""
    made = []
    for number, world in enumerate(WORLDS):
        tree = tmp_path_factory.mktemp(f"world-{number}") / ("clone" * (number + 1))
        copy_of_the_tree(root, tree, number)
        run(root, tree, world, "generate")
        made.append(tree)
    return made


def differing(one: Bytes, other: Bytes) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.mark.parametrize("part", ["kaito", "presets", "site-src"])
def test_what_is_generated_is_the_same_everywhere(part: str, trees: list[Path]) -> None:
    one, other = (contents(tree / "build" / part) for tree in trees)
    assert len(one) >= len(MODELS)
    assert differing(one, other) == []


@pytest.mark.skipif(not is_installed(), reason="mkdocs-material is not installed")
def test_the_built_site_is_the_same_everywhere(trees: list[Path]) -> None:
    one, other = (contents(tree / "build" / "site") for tree in trees)
    assert {"index.html", "sitemap.xml", "sitemap.xml.gz", "search/search_index.json"} <= one.keys()
    assert differing(one, other) == []


@pytest.mark.parametrize("format_", ["text", "json", "sarif", "markdown", "github"])
def test_a_report_is_the_same_everywhere(format_: str, root: Path, trees: list[Path]) -> None:
    said = [
        run(root, tree, world, "check", "--format", format_)
        for tree, world in zip(trees, WORLDS, strict=True)
    ]
    assert len(said[0]) > 100
    assert said[0] == said[1]


def test_the_shuffle_of_this_test_reaches_the_program(root: Path, trees: list[Path]) -> None:
    """Otherwise the tests above would pass whatever the program did with the order."""
    program = "import os; print(os.listdir('docs'), [e.name for e in os.scandir('docs')])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "tests" / "shuffled")}
    seen = {
        subprocess.check_output(
            [sys.executable, "-c", program], cwd=trees[0], env={**environment, "SHUFFLE_SEED": str(seed)}
        )
        for seed in range(3)
    }
    assert len(seen) == 3

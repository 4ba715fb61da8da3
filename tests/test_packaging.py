"""What a user installs: the wheel and the source distribution, alone, outside the tree."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kaito_catalog import __version__


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run without anything of this tree in the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "_ARG"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root, cwd=folder)
    return folder


def needed_by(texts: Iterable[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that fulfil these requirements, and theirs, with the extras that are asked for."""
    found: set[str] = set()
    waiting = [(text, extras) for text in texts]
    while waiting:
        text, chosen = waiting.pop()
        requirement = Requirement(text)
        marker, name = requirement.marker, requirement.name.lower()
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *chosen))
        if wanted and name not in found:
            found.add(name)
            more = importlib.metadata.requires(name) or ()
            waiting.extend((more_text, frozenset(requirement.extras)) for more_text in more)
    return found


@pytest.fixture(scope="module")
def alone(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what its metadata asks for, and nothing else; its bin folder.

    No registry is asked: the dependencies are links to the installed ones, those that are declared and no others.
    """
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=False, symlinks=True)
    (wheel,) = dist.glob("*.whl")
    python = folder / "bin" / "python"
    install = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    )
    run(*install, wheel, cwd=folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (installed,) = importlib.metadata.distributions(path=[str(site)])
    for name in sorted(needed_by(installed.requires or ())):
        for path in importlib.metadata.files(name) or ():
            top = path.parts[0]
            source = Path(str(importlib.metadata.distribution(name).locate_file(top)))
            target = site / top
            if top not in ("..", "__pycache__") and not target.exists():
                target.symlink_to(source)
    return folder / "bin"


@pytest.fixture
def small(root: Path, tmp_path: Path) -> Path:
    """A folder outside the tree with a catalog of two models."""
    models = tmp_path / "catalog" / "models"
    models.mkdir(parents=True)
    for path in (root / "catalog").glob("*.yaml"):
        shutil.copy(path, tmp_path / "catalog")
    for name in ("phi-4", "llama-3.3-70b-instruct"):
        shutil.copytree(root / "catalog" / "models" / name, models / name)
    return tmp_path


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_is_the_same_with_and_without_the_source_distribution(
    dist: Path, root: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, root, cwd=tmp_path)
    (from_source_distribution,), (direct,) = dist.glob("*.whl"), tmp_path.glob("*.whl")
    assert contents(from_source_distribution) == contents(direct)


def test_the_wheel_holds_every_file_of_the_package_and_the_catalog(dist: Path, root: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(contents(wheel))
    package = [path for path in (root / "kaito_catalog").rglob("*") if path.is_file()]
    wanted = {p.relative_to(root).as_posix() for p in package if "__pycache__" not in p.parts}
    catalog = [path.relative_to(root) for path in (root / "catalog").rglob("*.yaml")]
    wanted |= {f"kaito_catalog/data/{path.as_posix()}" for path in catalog}
    assert wanted - names == set()
    assert all(
        name.startswith(("kaito_catalog/", f"kaito_catalog-{__version__}.dist-info/")) for name in names
    )


def test_the_source_distribution_can_be_tested(dist: Path) -> None:
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "tests/conftest.py",
        "schema/proposal.schema.json",
    } <= names
    assert not any(name.startswith((".venv", "build/", ".git/")) for name in names)


def test_what_is_installed_is_not_this_tree(alone: Path, small: Path, root: Path) -> None:
    shown = run(
        alone / "python", "-c", "import kaito_catalog; print(kaito_catalog.__file__)", cwd=small
    ).stdout
    assert Path(shown.strip()).is_relative_to(alone.parent)
    assert not Path(shown.strip()).is_relative_to(root)


def test_the_installed_command_and_the_module_are_the_same_program(alone: Path, small: Path) -> None:
    command = run(alone / "kaito-catalog", "--version", cwd=small).stdout
    assert command == run(alone / "python", "-m", "kaito_catalog", "--version", cwd=small).stdout
    assert command == f"kaito-catalog {__version__}\n"


def test_the_installed_program_checks_a_catalog(alone: Path, small: Path) -> None:
    assert "ok: 2 models: 0 errors" in run(alone / "kaito-catalog", "check", cwd=small).stdout


def test_the_installed_program_plans(alone: Path, small: Path) -> None:
    shown = run(alone / "kaito-catalog", "plan", "phi-4", "--gpu", "NVIDIA H100 80GB", cwd=small).stdout
    assert shown.startswith("phi-4 on 1 × NVIDIA H100 80GB: fits\n")


def test_the_installed_program_generates(alone: Path, small: Path) -> None:
    run(alone / "kaito-catalog", "generate", "--no-site", cwd=small)
    assert (small / "build/kaito/model_catalog.yaml").is_file()
    assert (small / "build/site-src/assets").is_dir()


def test_the_installed_program_writes_the_schemas_of_this_tree(alone: Path, small: Path, root: Path) -> None:
    run(alone / "kaito-catalog", "schema", "--output", "schema", cwd=small)
    ours = {path.name: path.read_text() for path in (root / "schema").glob("*.json")}
    assert {path.name: path.read_text() for path in (small / "schema").glob("*.json")} == ours


def test_without_a_catalog_a_plan_uses_the_one_that_was_installed(alone: Path, tmp_path: Path) -> None:
    done = run(alone / "kaito-catalog", "plan", "phi-4", "--gpu", "NVIDIA A10", cwd=tmp_path)
    assert done.stdout.startswith("phi-4 on ")
    assert "using the one that came with kaito-catalog" in done.stderr


def test_a_proposal_anywhere_is_checked_with_the_installed_catalog(
    alone: Path, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "phi-4"
    shutil.copytree(small / "catalog/models/phi-4", elsewhere)
    assert "ok: 1 model" in run(alone / "kaito-catalog", "check", ".", cwd=elsewhere).stdout


@pytest.mark.parametrize("command", [("check",), ("generate",), ("record",), ("check", "phi-4", "--fix")])
def test_what_writes_or_checks_everything_never_takes_the_installed_catalog(
    command: tuple[str, ...], alone: Path, tmp_path: Path
) -> None:
    done = run(alone / "kaito-catalog", *command, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no catalog at or above ")


def test_every_module_can_be_imported_with_the_declared_dependencies(alone: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, kaito_catalog as k\n"
        "names = [m.name for m in pkgutil.walk_packages(k.__path__, 'kaito_catalog.') if '__main__' not in m.name]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names))"
    )
    assert int(run(alone / "python", "-W", "error", "-c", code, cwd=tmp_path).stdout) > 100


def test_the_python_versions_that_are_declared_are_those_that_are_tested(dist: Path, root: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    (metadata,) = (text for name, text in contents(wheel).items() if name.endswith("/METADATA"))
    stated = re.findall(
        r"^Classifier: Programming Language :: Python :: (3\.\d+)$", metadata.decode(), re.MULTILINE
    )
    workflow = (root / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert stated == re.findall(r"'(3\.\d+)'", workflow)

"""The public interface for other programs: what the page shows is what happens."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import kaito_catalog
from kaito_catalog import CatalogError, check_models, cli, compare_instance_types, load_catalog, plan_model
from kaito_catalog.catalog.entries import Catalog


def test_the_examples_of_the_page_are_what_really_happens(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    found = doctest.testfile(str(root / "docs" / "library.md"), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 15


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; import kaito_catalog; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in names if name.startswith("kaito_catalog")} == {"kaito_catalog"}
    assert "pydantic" not in names


@pytest.mark.parametrize("name", kaito_catalog.__all__)
def test_every_public_name_is_there_and_documented(name: str, root: Path) -> None:
    value = getattr(kaito_catalog, name)
    assert name in dir(kaito_catalog)
    assert name == "__version__" or inspect.getdoc(value)


@pytest.mark.parametrize("function", [load_catalog, plan_model, compare_instance_types, check_models])
def test_the_docstring_of_a_function_names_every_argument_and_its_errors(function: object) -> None:
    text = inspect.getdoc(function) or ""
    assert callable(function)
    assert [name for name in inspect.signature(function).parameters if f"    {name}: " not in text] == []
    assert "Raises:\n    CatalogError: " in text


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'planner'"):
        _ = kaito_catalog.planner  # type: ignore[attr-defined]


def test_without_a_folder_the_catalog_above_is_meant_and_else_the_one_that_came_along(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "docs")
    assert load_catalog().root == root / "catalog"
    monkeypatch.chdir(tmp_path)
    assert load_catalog().entry("phi-4") is not None


def test_a_folder_that_is_no_catalog_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"cannot read .*gpus\.yaml"):
        load_catalog(tmp_path)


def test_a_plan_without_a_gpu_is_an_error_that_says_what_to_give(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="a plan needs a GPU") as error:
        plan_model("phi-4", catalog=catalog)
    assert "compare_instance_types" in str(error.value.hint)


def test_a_plan_of_the_library_is_that_of_the_command(
    catalog: Catalog, capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    cli.main(["plan", "phi-4", "--instance-type", "Standard_NC24ads_A100_v4", "--format", "json"])
    shown = json.loads(capsys.readouterr().out)
    plan = plan_model("phi-4", catalog=catalog, instance_type="Standard_NC24ads_A100_v4")
    assert plan.per_gpu is not None
    assert shown["perGPU"]["kvCacheAvailableBytes"] == plan.per_gpu.kv_cache_available_bytes
    assert shown["fits"] == plan.fits.value


def test_a_folder_with_a_configuration_is_planned_too(catalog: Catalog, root: Path, tmp_path: Path) -> None:
    entry = catalog.entry("phi-4")
    assert entry is not None
    assert entry.facts is not None
    (tmp_path / "config.json").write_text(json.dumps(dict(entry.facts.config or {})), encoding="utf-8")
    plan = plan_model(tmp_path, catalog=catalog, gpu="NVIDIA H200", max_model_len=4096)
    assert plan.fits.value == "yes"


@pytest.mark.parametrize(
    ("select", "message"), [(["XYZ"], "there is no check 'XYZ'"), (["HUB"], "no check is left")]
)
def test_a_selection_that_checks_nothing_is_an_error(
    select: list[str], message: str, catalog: Catalog
) -> None:
    with pytest.raises(CatalogError, match=message):
        check_models(catalog, select=select)


def test_an_unknown_profile_is_an_error_that_lists_the_known_ones(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="there is no profile 'kaito-v9'") as error:
        check_models(catalog, profile="kaito-v9")
    assert "kaito-v0.12" in str(error.value.hint)


def test_what_cannot_be_checked_is_an_error_where_everything_is_required(catalog: Catalog) -> None:
    assert not check_models(catalog, select=["EVD003"]).failed
    assert check_models(catalog, select=["EVD003"], require_all=True).failed

"""`make conformance` without the files that it compares with says what to fetch, and is no pass."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conformance import kaito_tree

from tools import conformance


@pytest.mark.parametrize(
    ("kaito", "configs", "said"),
    [
        ("", "", "make conformance compares with files that are not in this repository"),
        ("absent", "", "KAITO=absent is not a folder."),
        (".", "", "KAITO=. has no presets/workspace/models/model_catalog.yaml."),
        (".", "absent", "CONFIGS=absent is not a folder."),
    ],
)
def test_without_its_folders_it_says_what_to_fetch(
    kaito: str,
    configs: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert conformance.main(["--kaito", kaito, "--configs", configs]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert f"checkout {conformance.COMMIT}" in shown
    assert "https://huggingface.co/ORG/NAME/raw/main/config.json" in shown


def test_the_target_passes_its_folders_on(root: Path) -> None:
    command = ["make", "--dry-run", "conformance", "KAITO=../kaito tree", "CONFIGS=../configs"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "-m tools.conformance --kaito '../kaito tree' --configs '../configs'" in done.stdout


def test_the_other_tests_do_not_collect_it(root: Path) -> None:
    assert (
        "conformance"
        in (root / "pyproject.toml").read_text(encoding="utf-8").partition("norecursedirs = ")[2]
    )


def test_nothing_but_ci_looks_beside_the_clone(root: Path) -> None:
    folders = ("kaito_catalog", "tests", "tools", "docs", "schema", ".github")
    suffixes = {".py", ".md", ".yml", ".yaml", ".json", ".sh", ".js", ".toml"}
    found = [p for name in folders for p in sorted((root / name).rglob("*")) if p.suffix in suffixes]
    found = [p for p in found if "node_modules" not in p.parts] + [root / "Makefile", *root.glob("*.md")]
    outside = re.compile(r"\.\./shared|parents?(?:\[\d\])?(?:\.parent)* / [\"']shared")
    assert len(found) > 300
    assert [p for p in found if p != Path(__file__) and outside.search(p.read_text(encoding="utf-8"))] == []


def test_both_layouts_of_kaitos_files_are_read(tmp_path: Path) -> None:
    flat, checkout = tmp_path / "flat", tmp_path / "checkout"
    models = checkout / "presets" / "workspace" / "models"
    models.mkdir(parents=True)
    flat.mkdir()
    for folder in (flat, models):
        (folder / "model_catalog.yaml").write_text("models:\n- name: a/b\n", encoding="utf-8")
    for tree in (flat, checkout):
        assert kaito_tree.KaitoTree(tree).rows == [{"name": "a/b"}]
    with pytest.raises(FileNotFoundError, match="is it KAITO's tree"):
        kaito_tree.KaitoTree(flat).text("presets.md")


def test_instance_types_and_maps_are_read_from_go(tmp_path: Path) -> None:
    for path, text in {
        "pkg/sku/azure_sku_handler.go": (
            '\t\t{SKU: "A2", GPUCount: 2, GPUMem: resource.MustParse("48Gi"), GPUModel: "NVIDIA A10", '
            "NVMeDiskEnabled: true, CUDAComputeCapability: 8.6},\n"
            '\t\t// {SKU: "A1", GPUCount: 1.0 / 4.0, GPUMem: 8, GPUModel: "V620"},\n'
        ),
        "pkg/sku/aws_sku_handler.go": "",
        "pkg/sku/arc_sku_handker.go": "",
        "presets/workspace/generator/generator.go": (
            '\tmodes = map[string]string{\n\t\t// why\n\t\t"deepseek-r1":  "v32",\n\t\t"x": "y",\n\t}\n'
            "\tnone = map[string]string{}\n"
        ),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    tree = kaito_tree.KaitoTree(tmp_path)
    assert tree.skus == [kaito_tree.Sku("A2", "azure", 2, "NVIDIA A10", 48, True, 8.6)]
    assert tree.maps == {"modes": {"deepseek-r1": "v32", "x": "y"}, "none": {}}

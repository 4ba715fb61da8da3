"""One call, all files; twice the same; nothing half written."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from generate_helpers import catalog, entry, facts, proposal, small_facts, small_proposal

from kaito_catalog import generate
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.diagnostics import Diagnostic, Place, Severity
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito import crd
from kaito_catalog.kaito.model_catalog import LeftOut

ROOT = Path(__file__).resolve().parents[1]


def test_two_calls_give_the_same_bytes_in_the_same_order() -> None:
    assert list(generate.build_files(catalog()).items()) == list(generate.build_files(catalog()).items())


def test_the_order_of_entries_does_not_matter() -> None:
    forth = catalog()
    back = replace(forth, entries=forth.entries[::-1])
    assert generate.build_files(forth) == generate.build_files(back)


def test_every_file_ends_with_one_line_feed_and_has_no_other_line_end() -> None:
    for name, text in generate.build_files(catalog()).items():
        assert text.endswith("\n"), name
        assert "\r" not in text, name
        assert not text.endswith("\n\n"), name


def test_the_layout_is_the_one_of_the_design() -> None:
    assert {
        "kaito/model_catalog.yaml",
        "kaito/presets.md",
        "presets/phi-4/workspace.yaml",
        "presets/phi-4/inferenceset.yaml",
        "presets/phi-4/inference-config.yaml",
        "presets/llama-3.3-70b-instruct/secret.example.yaml",
        "site-src/index.md",
        "site-src/checks.md",
        "site-src/models/phi-4.md",
        "site-src/api/v1/index.json",
        "site-src/api/v1/models/phi-4.json",
        "site-src/assets/catalog.css",
    } <= generate.build_files(catalog()).keys()


def test_every_proposal_is_written_as_markdown_under_its_dated_name() -> None:
    written = [name for name in generate.build_files(catalog()) if name.startswith("kaito/proposals/")]
    assert written == [
        "kaito/proposals/20250103-phi-4.md",
        "kaito/proposals/20250529-llama-3.3-70b-instruct.md",
    ]


def test_every_manifest_is_one_that_a_cluster_takes() -> None:
    for name, text in generate.build_files(catalog()).items():
        if name.startswith("presets/"):
            assert crd.problems(yaml.safe_load(text)) == (), name


def test_what_could_not_be_generated_is_told() -> None:
    built = generate.build(catalog(entry(small_proposal(runtimes=[{"name": "onnx"}]))))
    assert built.left_out == (
        LeftOut("phi-4", "bom.cdx.json", "there is no facts.yaml"),
        LeftOut("phi-4", "manifests", "KAITO has no runtime onnx"),
        LeftOut("phi-4", "model_catalog.yaml", "there is no facts.yaml"),
        LeftOut("phi-4", "modelpack.manifest.json", "there is no facts.yaml"),
    )


def test_an_entry_with_errors_is_left_out_of_everything() -> None:
    problem = Diagnostic("SCH001", Severity.ERROR, "no", Place("x"))
    broken = replace(entry(small_proposal(), small_facts()), problems=(problem,))
    built = generate.build(catalog(broken, entry(proposal(), facts())))
    assert not [name for name in built.files if "phi-4" in name]
    assert {gap.what for gap in built.left_out if gap.name == "phi-4"} == {
        "everything else",
        "model_catalog.yaml",
    }


def test_hand_written_pages_are_taken_over_as_they_are() -> None:
    built = generate.build(catalog(), hand_written={"guide.md": "# Guide\n"})
    assert built.files["site-src/guide.md"] == "# Guide\n"


def test_a_hand_written_page_cannot_replace_a_generated_one() -> None:
    with pytest.raises(CatalogError, match=r"site-src/index\.md would be written twice"):
        generate.build(catalog(), hand_written={"index.md": "# Mine\n"})


def test_hand_written_pages_are_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.md").write_text("x\n")
    (tmp_path / "picture.png").write_bytes(b"\x89")
    assert generate.read_pages(tmp_path) == {"deep/page.md": "x\n"}


def test_a_page_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_bytes(b"\xff")
    with pytest.raises(CatalogError, match="cannot read"):
        generate.read_pages(tmp_path)


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    files = generate.build_files(catalog())
    generate.write(tmp_path, files)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    generate.write(tmp_path, files)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert generate.differences(tmp_path, files) == []


def test_a_model_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    generate.write(tmp_path, generate.build_files(catalog()))
    generate.write(tmp_path, generate.build_files(catalog(entry(proposal(), facts()))))
    assert not [p for p in tmp_path.rglob("*") if "phi-4" in p.name]


def test_what_others_keep_in_the_output_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("built by mkdocs")
    generate.write(tmp_path, generate.build_files(catalog()))
    assert (tmp_path / "site" / "index.html").is_file()


def test_differences_name_the_files_and_how_they_differ(tmp_path: Path) -> None:
    files = generate.build_files(catalog())
    generate.write(tmp_path, files)
    (tmp_path / "kaito" / "presets.md").write_text("changed")
    (tmp_path / "presets" / "phi-4" / "workspace.yaml").unlink()
    (tmp_path / "presets" / "old.yaml").write_text("x")
    assert generate.differences(tmp_path, files) == [
        ("kaito/presets.md", "changed"),
        ("presets/old.yaml", "orphan"),
        ("presets/phi-4/workspace.yaml", "missing"),
    ]


def test_manifests_that_kaito_would_refuse_are_left_out_with_the_reason() -> None:
    runtime = {"name": "vllm", "distributedInference": True, "config": {"gpu-memory-utilization": 90}}
    built = generate.build(catalog(entry(proposal(runtimes=[runtime]))))
    assert not [name for name in built.files if name.startswith("presets/")]
    (gap,) = [gap for gap in built.left_out if gap.what == "manifests"]
    assert gap.reason.startswith("KAITO would refuse them: ConfigMap llama-3-3-70b-instruct-inference-config")
    assert gap.reason.endswith("gpu-memory-utilization is above 0 and at most 1, found '90'")


def test_a_page_has_the_manifests_of_the_smallest_machine_beside_the_proposals_own() -> None:
    read = read_catalog(ROOT / "catalog", [ROOT / "catalog/models/phi-4"])
    made = dict(generate.build(read).files)
    page = html.unescape(made["site-src/models/phi-4.md"])
    own, _, other = page.partition("## What to paste")[2].partition(
        "The smallest instance type that fits is another"
    )
    assert "They are for <code>Standard_NC24ads_A100_v4</code>, which the proposal names: fits" in own
    assert "instanceType: Standard_NC24ads_A100_v4" in own
    smallest = json.loads(made["site-src/api/v1/models/phi-4.json"])["plan"]["recommended"]["smallest"][
        "name"
    ]
    assert smallest != "Standard_NC24ads_A100_v4"
    assert f"instanceType: {smallest}" in other.partition("## ")[0]

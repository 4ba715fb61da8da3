"""The built site: strict, the same bytes each time, nothing loaded from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from generate_helpers import catalog
from site_helpers import FIGURES, ROOT, Structure

from kaito_catalog import generate
from kaito_catalog.errors import CatalogError
from kaito_catalog.site import build, figures

DOCS = generate.read_pages(ROOT / "docs")
needs_mkdocs = pytest.mark.skipif(not build.is_installed(), reason="mkdocs-material is not installed")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@needs_mkdocs
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "plan_figures", lambda *_: FIGURES)
    output = tmp_path / "build"
    built = generate.build(catalog(), hand_written=DOCS, checks=[("STO001", "Storage", "x")])
    generate.write(output, built.files)
    build.build_site(ROOT / "mkdocs.yml", output)
    site = tmp_path / "build" / "site"
    shown = Structure((site / "models" / "llama-3.3-70b-instruct" / "index.html").read_text())
    assert [svg for svg in shown.all("svg") if svg.get("class") == "memory-chart"]
    assert json.loads((site / "api" / "v1" / "index.json").read_text())["models"]
    missing = (site / "404.html").read_text()
    assert "<h1>There is no such page</h1>" in missing
    assert '<a href="/index.html">catalog</a>' in missing
    for path in site.rglob("*.html"):
        found = Structure(path.read_text())
        loaded = [link.get("href") for link in found.all("link")] + [
            element.get("src") for tag in ("script", "img", "iframe") for element in found.all(tag)
        ]
        assert not [address for address in loaded if address and "//" in address], path
        assert_links_lead_somewhere(path, found, site)


@needs_mkdocs
def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    generate.write(tmp_path, generate.build(catalog(), hand_written=DOCS).files)
    build.build_site(ROOT / "mkdocs.yml", tmp_path)
    first = tree(tmp_path / "site")
    build.build_site(ROOT / "mkdocs.yml", tmp_path)
    assert tree(tmp_path / "site") == first


@needs_mkdocs
def test_a_page_that_mkdocs_refuses_leaves_the_old_site_whole(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("old")
    broken = {**DOCS, "lost.md": "# Lost\n\n[nowhere](missing.md)\n"}
    generate.write(tmp_path, generate.build(catalog(), hand_written=broken).files)
    with pytest.raises(CatalogError, match=r"missing\.md"):
        build.build_site(ROOT / "mkdocs.yml", tmp_path)
    assert tree(tmp_path / "site") == {"index.html": b"old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exports", "kaito", "presets", "site", "site-src"]


@needs_mkdocs
def test_a_page_that_no_menu_names_is_refused_by_name(tmp_path: Path) -> None:
    generate.write(tmp_path, generate.build(catalog(), hand_written={**DOCS, "lost.md": "# x\n"}).files)
    with pytest.raises(CatalogError, match=r"not included in the \"nav\".*lost\.md"):
        build.build_site(ROOT / "mkdocs.yml", tmp_path)


def test_a_site_without_pages_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"site-src|not installed"):
        build.build_site(ROOT / "mkdocs.yml", tmp_path)


def assert_links_lead_somewhere(path: Path, found: Structure, site: Path) -> None:
    for attributes in found.all("a"):
        target = (attributes.get("href") or "").partition("#")[0]
        if not target or "://" in target or path.name == "404.html":
            continue
        resolved = (path.parent / target).resolve()
        assert resolved.is_relative_to(site.resolve())
        assert resolved.is_file() or (resolved / "index.html").is_file(), f"{path}: {target}"

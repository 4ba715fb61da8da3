"""README.md shows what really happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from generate_helpers import catalog as small_catalog

from kaito_catalog import generate
from tools import picture
from tools.readme import PAGES, with_output


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_shows_is_what_the_commands_print(name: str, root: Path) -> None:
    page = (root / name).read_text(encoding="utf-8")
    assert with_output(page) == page


def test_the_picture_is_the_chart_that_the_site_draws(root: Path) -> None:
    drawn = picture.picture()
    assert (root / "docs" / "images" / "memory-chart.svg").read_text(encoding="utf-8") == drawn
    longest = re.search(r"one node up to ([0-9,]+) tokens", drawn)
    assert longest
    assert f"KAITO starts another node beyond {longest[1]} tokens](" in (root / "README.md").read_text(
        encoding="utf-8"
    )


def test_every_make_target_that_documents_name_exists(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        named = re.findall(r"(?:`|^    |    )make ([a-z-]+)", (root / name).read_text(), re.MULTILINE)
        assert set(named) <= targets, name


def test_every_file_that_documents_link_to_exists(root: Path) -> None:
    made = generate.build_files(small_catalog())
    for path in (
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "ARCHITECTURE.md",
        *(root / "docs").glob("*.md"),
    ):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
            is_made = path.parent.name == "docs" and f"site-src/{target}" in made
            assert is_made or (path.parent / target).exists(), f"{path.name}: {target}"

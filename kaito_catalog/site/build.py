"""From Markdown to HTML: mkdocs builds the site beside the old one, which stays whole until the new one is done."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from kaito_catalog.errors import CatalogError
from kaito_catalog.site import python_bundle
from kaito_catalog.system.files import fill_tree
from kaito_catalog.system.processes import environment

SOURCE, SITE = "site-src", "site"


def is_installed() -> bool:
    """Whether mkdocs-material is there; it belongs to the optional dependencies `site`."""
    return importlib.util.find_spec("material") is not None


def build_site(config: Path, output: Path) -> None:
    """Build `output`/site from `output`/site-src with the settings of `config` (mkdocs.yml), strictly.

    Raises:
        CatalogError: mkdocs is not there, or refuses the pages; the old site is untouched.
    """
    if not is_installed():
        raise CatalogError(
            "mkdocs-material is not installed, so the pages are not built",
            hint="pip install 'kaito-catalog[site]', or read the Markdown in site-src",
        )
    source = Path(os.path.abspath(output)) / SOURCE
    if not source.is_dir():
        raise CatalogError(f"there is no {source}", hint="run 'kaito-catalog generate' first")
    runtime = python_bundle.runtime()

    def fill(staging: Path) -> None:
        _run(Path(os.path.abspath(config)), source, staging)
        assets = staging / "assets"
        assets.mkdir(parents=True, exist_ok=True)
        (assets / python_bundle.RUNTIME).write_text(runtime, encoding="utf-8")

    fill_tree(output / SITE, fill)


THEME = Path(__file__).parent / "theme"
"""Pages of the theme that are ours: the one that answers for pages that are not there."""


def _run(config: Path, source: Path, site: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        own = Path(folder) / "mkdocs.yml"
        own.write_text(
            yaml.safe_dump(
                {
                    "INHERIT": str(config),
                    "docs_dir": str(source),
                    "site_dir": str(site),
                    "theme": {"custom_dir": str(THEME)},
                }
            ),
            encoding="utf-8",
        )
        # Not --quiet: with it mkdocs no longer counts the warnings that --strict is about.
        done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--config-file", str(own)],
            capture_output=True,
            text=True,
            check=False,
            # The same pages give the same bytes: without the first, mkdocs writes today's date.
            env={"SOURCE_DATE_EPOCH": "0", **environment(extra={"NO_MKDOCS_2_WARNING": "1"})},
        )
    if done.returncode:
        said = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
        wrong = [line for line in said if not line.startswith("INFO")]
        raise CatalogError(
            f"mkdocs refuses the pages: {' '.join(wrong)[:1000] or f'exit {done.returncode}'}",
            hint="a page of docs/ needs its place under nav in mkdocs.yml",
        )

"""A page of the site to look at: what it is made of, and its HTML as elements and texts."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from generate_helpers import GIB, entry, facts, proposal

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.kaito import manifests
from kaito_catalog.memory.values import Fit
from kaito_catalog.site.figures import ChartPoint, Figures, InstanceRow, MemoryChart, chart_lengths
from kaito_catalog.site.model_page import ModelPage

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 131072

CHART = MemoryChart(
    instance_type="Standard_NC96ads_A100_v4",
    gpu="NVIDIA A100 80GB",
    gpu_count=4,
    parallelism="TP 4",
    budget_bytes=50 * GIB,
    weights_bytes=33 * GIB,
    overheads_bytes=4 * GIB,
    longest_model_len=98304,
    points=tuple(ChartPoint(n, n * 163840) for n in chart_lengths(LIMIT)),
)
FIGURES = Figures(
    max_model_len=16384,
    rows=(
        InstanceRow(
            "Standard_NC96ads_A100_v4", "azure", "NVIDIA A100 80GB", 4, Fit.YES, "kvCache", None, "TP 4",
            39 * GIB, 50 * GIB, 98304,
        ),
        InstanceRow("Standard_Tight", "aws", "NVIDIA L4", 8, Fit.TIGHT, "weights", "within 0.2 GiB", "TP 8"),
        InstanceRow("Standard_NV36ads_A10_v5", "azure", "NVIDIA A10", 1, Fit.NO, "weights", "too small"),
        InstanceRow("Standard_Strange", "gcp", "NVIDIA X", 1, Fit.UNKNOWN, None, "no published memory"),
    ),
    chart=CHART,
    vllm_version="0.25.1",
    profile="kaito-v0.12",
)  # fmt: skip


def page(made: Entry | None = None, figures: Figures = FIGURES, **changes: Any) -> ModelPage:
    made = made or entry(proposal(), facts())
    assert made.proposal is not None
    built = ModelPage(made, made.proposal, figures, manifests.build(made.proposal, made.facts), None)
    return replace(built, **changes)


class Structure(HTMLParser):
    """The elements of a page with their attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", {}))

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def html(markdown_text: str) -> Structure:
    """A page as mkdocs would make HTML of it, with the extensions of mkdocs.yml."""
    markdown = pytest.importorskip("markdown", reason="mkdocs is not installed")
    pytest.importorskip("pymdownx", reason="mkdocs-material is not installed")
    names: list[str] = []
    settings: dict[str, Any] = {}
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    for item in config["markdown_extensions"]:
        name = item if isinstance(item, str) else next(iter(item))
        names.append(name)
        settings[name] = {} if isinstance(item, str) else item[name]
    _, _, body = markdown_text.removeprefix("---\n").partition("\n---\n")
    return Structure(markdown.markdown(body, extensions=names, extension_configs=settings))

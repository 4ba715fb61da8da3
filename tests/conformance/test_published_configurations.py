"""Configurations as published, beside what is kept of them here: the same model, the same plan, the same page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from browser import CHROMIUM, NODE, Page
from test_calculator import Pasted, disagreements, form, shipped

from conformance.kaito_tree import Published
from kaito_catalog.architectures import read_shape
from kaito_catalog.catalog.entries import Catalog
from tools import exact_models
from tools.configurations import smallest
from tools.exact_models import Model, compare
from tools.observed import STARTS

LONGEST = 100_000
"""Characters above which a configuration is not reduced again field by field: minutes, for the same comparison."""

__all__ = ["form", "shipped"]


def whole(model: Model, published: Published) -> Model:
    """The model with its configuration as published."""
    quantization = published.quantization(model.name)
    return replace(model, config=published.config(model.name), quantization=quantization)


def test_a_kept_configuration_compares_with_vllm_as_the_published_one(published: Published) -> None:
    both = [model for model in exact_models.read() if model.name in published.files]
    assert both
    for model in both:
        for version in exact_models.VERSIONS:
            kept, said = list(compare(model, version)), list(compare(whole(model, published), version))
            assert kept == said, (model.name, version)


def test_a_reduced_configuration_has_the_shape_of_the_published_one(published: Published) -> None:
    started: Mapping[str, Any] = json.loads(STARTS.read_text(encoding="utf-8"))["models"]
    for name in published.files:
        config = published.config(name)
        if len(json.dumps(config)) > LONGEST:
            continue
        assert read_shape(smallest(config)) == read_shape(config), name
        if name in started:
            assert read_shape(started[name]["config"]) == read_shape(config), name


@pytest.mark.skipif(NODE is None and CHROMIUM is None, reason="neither node nor chromium is on this machine")
def test_published_configurations_can_be_pasted_and_give_the_planners_bytes(
    published: Published, form: Page, catalog: Catalog, shipped: dict[str, Any]
) -> None:
    configurations = {name: Pasted(published.config(name)) for name in published.files}
    wrong, planned_at_all = disagreements(form, configurations, catalog, shipped)
    assert wrong == []
    assert planned_at_all > len(configurations) // 2
    assert form.errors == []

"""Only instance types that the profile's KAITO takes are named, unless another cloud is asked for."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from catalog_helpers import Run

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.kaito.release import release_of

ONE_OF_EACH = ("phi-4", "gpt-oss-120b", "gemma-3-27b-it", "deepseek-v3.2", "qwen3.5-2b", "kimi-k2.6")


@pytest.fixture(scope="module")
def accepted(catalog: Catalog) -> frozenset[str]:
    clouds = release_of(catalog.shared.profile()).clouds
    return frozenset(machine.name for machine in catalog.shared.instance_types if machine.cloud in clouds)


def test_some_instance_types_are_not_kaitos(catalog: Catalog, accepted: frozenset[str]) -> None:
    assert {machine.cloud for machine in catalog.shared.instance_types if machine.name not in accepted} == {
        "gcp"
    }


def test_every_model_is_recommended_what_kaito_takes(
    catalog: Catalog, accepted: frozenset[str], root: Path, run: Run
) -> None:
    for entry in catalog.entries:
        code, out, _ = run("plan", entry.name, "--format", "json", "--catalog", str(root / "catalog"))
        assert code == 0
        found = json.loads(out)
        assert {row["name"] for row in found["instanceTypes"]} <= accepted
        named = [*found["recommended"].values(), *_of_clouds(found["recommended"]["byCloud"])]
        assert {one["name"] for one in named if isinstance(one, dict) and "name" in one} <= accepted


def _of_clouds(found: dict[str, dict[str, object]]) -> list[object]:
    return [one for by_name in found.values() for one in by_name.values()]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_next_command_names_one_of_them(
    name: str, accepted: frozenset[str], root: Path, run: Run
) -> None:
    _, out, _ = run("plan", name, "--catalog", str(root / "catalog"))
    assert set(re.findall(r"--instance-type (\S+)", out)) <= accepted


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_another_cloud_says_that_nodes_have_to_be_brought(name: str, root: Path, run: Run) -> None:
    _, out, _ = run("plan", name, "--cloud", "gcp", "--catalog", str(root / "catalog"))
    assert "bring the nodes along" in out


def test_pages_and_manifests_name_what_kaito_takes(catalog: Catalog, accepted: frozenset[str]) -> None:
    """A model's page has a row for each machine; what it names as the smallest or the cheapest is KAITO's."""
    others = {machine.name for machine in catalog.shared.instance_types} - accepted
    advised = 0
    for path, text in generate.build_files(catalog).items():
        if path.startswith(("presets/", "kaito/")):
            assert not [machine for machine in others if re.search(rf"\b{machine}\b", text)], path
        elif "models/" in path and path.endswith(".md"):
            found = re.findall(r"(?:[Ss]mallest|[Cc]heapest)[^\n]*?<code>([^<]+)</code>", text)
            assert {html.unescape(name) for name in found} <= accepted, path
            advised += len(found)
    assert advised > len(catalog.entries)

"""The API's files against their schemas, the formats page, and the guide's commands as a newcomer runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml
from catalog_helpers import copy_catalog
from generate_helpers import catalog as small_catalog
from generate_helpers import entry, small_proposal

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_catalog
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.formats import schema
from kaito_catalog.kaito import crd
from kaito_catalog.site import api_schema, formats_page
from kaito_catalog.site.model_page import Finding

API = "site-src/api/v1/"


@pytest.fixture(scope="module")
def generated(catalog: Catalog) -> Mapping[str, str]:
    """What is generated from the real catalog, with its findings."""
    profile = catalog.shared.policy.default_profile()
    report = check_catalog(catalog, CHECKS, Context(catalog.shared, profile))
    findings: dict[str, tuple[Finding, ...]] = {
        found.name: (*found.diagnostics, *found.skips) for found in report.entries
    }
    return generate.build(catalog, findings=findings).files


def schema_name(path: str) -> str:
    """The schema of a file of the API."""
    return {"index.json": "api-index", "plan-data.json": "api-plan-data"}.get(
        path.removeprefix(API), "api-model"
    )


def data_files(files: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in files.items()
        if name.startswith(API) and name.endswith(".json") and not name.endswith(".schema.json")
    }


@pytest.mark.parametrize("name", api_schema.SCHEMAS)
def test_every_schema_of_the_api_is_valid_draft_07(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(api_schema.json_schema(name))


def problems(files: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for name, text in data_files(files).items()
        for error in jsonschema.Draft7Validator(api_schema.json_schema(schema_name(name))).iter_errors(
            json.loads(text)
        )
    ]


def test_every_file_of_the_api_is_what_its_schema_says(generated: Mapping[str, str]) -> None:
    assert len(data_files(generated)) > 20
    assert problems(generated) == []


def test_a_model_of_which_little_is_known_is_valid_too() -> None:
    for made in (entry(small_proposal()), entry(small_proposal(runtimes=[{"name": "onnx"}]))):
        assert problems(generate.build(small_catalog(made)).files) == []


def test_the_schemas_lie_beside_the_files(generated: Mapping[str, str]) -> None:
    for name, text in api_schema.files().items():
        assert generated[f"{API}{name}"] == text


def test_every_manifest_of_the_catalog_is_one_that_a_cluster_takes(generated: Mapping[str, str]) -> None:
    manifests = {name: text for name, text in generated.items() if name.startswith("presets/")}
    assert len(manifests) >= 75
    for name, text in manifests.items():
        assert crd.problems(yaml.safe_load(text)) == (), name


def test_the_page_of_the_api_names_every_schema(root: Path) -> None:
    text = (root / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in api_schema.SCHEMAS if f"api/v1/{name}.schema.json" not in text] == []


def test_the_formats_page_has_every_kind_and_field() -> None:
    text = formats_page.page()
    for name, model in schema.FILE_KINDS.items():
        assert f"`{formats_page.PLACES[name]}`" in text
        for field in schema.json_schema(model)["properties"]:
            assert f'<th scope="row"><code>{field}</code></th>' in text


def test_every_link_inside_the_formats_page_leads_somewhere() -> None:
    text = formats_page.page()
    anchors = set(re.findall(r"\{ #([a-z0-9-]+) \}", text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors


# The guide


def commands(root: Path) -> list[str]:
    text = (root / "docs" / "contributing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_contributor_guide_does_what_it_says(root: Path, tmp_path: Path) -> None:
    copy_catalog(tmp_path / "catalog", "phi-4", "gpt-oss-20b")
    for name in ("docs", "schema"):
        shutil.copytree(root / name, tmp_path / name)
    shutil.copy(root / "mkdocs.yml", tmp_path)
    (tmp_path / "drafts").mkdir()
    own = f"{shlex.quote(sys.executable)} -m kaito_catalog"
    for line in commands(root):
        done = subprocess.run(
            ["bash", "-c", line.replace(".venv/bin/kaito-catalog", own)],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-800:]}\n{done.stderr[-800:]}"
    assert (tmp_path / "drafts" / "phi-4" / "proposal.yaml").is_file()


def test_every_make_target_of_the_guide_exists(root: Path) -> None:
    text = (root / "docs" / "contributing.md").read_text(encoding="utf-8")
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)\b", text))
    assert {"setup", "test", "lint", "catalog"} <= named
    assert [target for target in named if f"\n{target}:" not in makefile] == []

"""The file kinds: the JSON Schema and the models accept the same documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from kaito_catalog.checks import example
from kaito_catalog.diagnostics import Diagnostic
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.formats import schema
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal, known_count, known_size
from kaito_catalog.quantity import parse as parse_quantity
from kaito_catalog.site import api_schema, formats_page
from kaito_catalog.system.files import differences

_VALIDATORS = {
    name: jsonschema.Draft7Validator(schema.json_schema(model)) for name, model in schema.FILE_KINDS.items()
}
_FACTS: dict[str, Any] = {**example._FACTS, "files": [{"path": "a", "sizeBytes": 1, "sha256": "0" * 64}]}


def accepted(model: Any, document: dict[str, Any]) -> bool:
    try:
        model.model_validate(document)
    except ValidationError:
        return False
    return True


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.mutated(strategies.BASE))
def test_schema_and_model_accept_the_same_proposals(document: dict[str, Any]) -> None:
    assert _VALIDATORS["proposal"].is_valid(document) == accepted(Proposal, document)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.mutated(_FACTS))
def test_schema_and_model_accept_the_same_facts(document: dict[str, Any]) -> None:
    assert _VALIDATORS["facts"].is_valid(document) == accepted(ModelFacts, document)


@pytest.mark.parametrize("name", schema.FILE_KINDS)
def test_every_bound_of_a_number_is_one_that_json_schema_knows(name: str) -> None:
    text = json.dumps(schema.json_schema(schema.FILE_KINDS[name]))
    assert [word for word in ("ge", "gt", "le", "lt", "multiple_of") if f'"{word}":' in text] == []


@pytest.mark.parametrize("size", [-1, 10**18 + 1])
def test_a_size_out_of_bounds_is_refused_by_schema_and_model(size: int) -> None:
    document = {**_FACTS, "repository": {"sizeBytes": size}}
    assert not _VALIDATORS["facts"].is_valid(document)
    assert not accepted(ModelFacts, document)


@pytest.mark.parametrize("name", schema.FILE_KINDS)
def test_every_schema_is_valid_draft_07(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(schema.json_schema(schema.FILE_KINDS[name]))


def test_the_committed_schemas_are_valid_where_patterns_are_ecmascripts(root: Path) -> None:
    """Editors and check-jsonschema read them with the `u` flag, which refuses escapes that Python allows."""
    paths = [str(path) for path in sorted((root / "schema").glob("*.json"))]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--check-metaschema", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_committed_schemas_are_those_of_the_models(root: Path) -> None:
    assert differences(root / "schema", {**schema.files(), **api_schema.files()}) == []


def problems(text: str) -> list[Diagnostic]:
    return list(load(parse(text, path="p.yaml"), Proposal)[1])


_PROPOSAL = """\
apiVersion: catalog.kaito.sh/v1alpha1
kind: ModelProposal
metadata:
  name: phi-4
  heading: Add phi-4
  authors: ["@someone"]
  creationDate: 2026-01-05
  status: provisional
requirements:
  familyName: Phi
  type: text-generation
  downloadSite: https://huggingface.co/microsoft/phi-4
"""


def test_the_shortest_proposal_is_accepted() -> None:
    proposal, found = load(parse(_PROPOSAL, path="p.yaml"), Proposal)
    assert found == ()
    assert proposal is not None
    assert proposal.repo_id == "microsoft/phi-4"


def test_all_schema_problems_are_reported_each_at_its_key() -> None:
    text = _PROPOSAL + "  storageSize: 140\n  gpuCuont: 4\n  gpuCount: '4'\nhistroy: []\n"
    found = [(d.code, d.place.line, d.place.column) for d in problems(text)]
    assert found == [("SCH004", 13, 3), ("SCH001", 14, 3), ("SCH003", 15, 3), ("SCH001", 16, 1)]


def test_a_misspelt_key_gets_the_nearest_known_one_as_its_hint() -> None:
    (problem,) = problems(_PROPOSAL + "  gpuCuont: 4\n")
    assert problem.hint == "did you mean 'gpuCount'?"


def test_a_snake_case_key_is_not_taken_for_the_real_one() -> None:
    (problem,) = problems(_PROPOSAL + "  gpu_count: 4\n")
    assert problem.code == "SCH001"


def test_an_all_digit_revision_asks_for_quotes_and_keeps_its_digits() -> None:
    digits = "0123456789012345678901234567890123456789"
    (problem,) = problems(_PROPOSAL + f"  version: {digits}\n")
    assert problem.code == "SCH005"
    assert problem.hint == f'an all-digit revision must be quoted: version: "{digits}"'


def test_a_missing_key_is_placed_at_its_parent() -> None:
    (problem,) = problems(_PROPOSAL.replace("  type: text-generation\n", ""))
    assert (problem.code, problem.place.line, problem.message) == (
        "SCH002",
        9,
        "'type' is missing in requirements",
    )


def test_a_size_without_unit_asks_for_one() -> None:
    (problem,) = problems(_PROPOSAL + "  storageSize: 140\n")
    assert problem.hint == "write 140GB (10⁹ bytes) or 140GiB (2³⁰ bytes)"


def test_a_file_that_is_a_list_is_refused() -> None:
    assert [d.code for d in problems("- a\n- b\n")] == ["SCH003"]


def test_syntax_and_schema_problems_of_one_file_are_reported_together() -> None:
    text = _PROPOSAL + "  version: &x main\n  storageSize: 140\n"
    assert [d.code for d in problems(text)] == ["YML003", "SCH004"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("140GB", 140 * 10**9),
        ("140GiB", 140 * 2**30),
        ("131.42Gi", 141111150510),
        ("30 GB", 30 * 10**9),
        ("1.5TiB", 1649267441664),
    ],
)
def test_a_quantity_keeps_its_unit(text: str, size_bytes: int) -> None:
    assert parse_quantity(text).bytes == size_bytes


def test_missing_figures_are_accepted_and_known_as_missing() -> None:
    text = _PROPOSAL + "  storageSize: TBD\n  gpuCount: N/A\n  perGPUMemory:\n"
    proposal, found = load(parse(text, path="p.yaml"), Proposal)
    assert found == ()
    assert proposal is not None
    assert known_size(proposal.requirements.storage_size) is None
    assert known_count(proposal.requirements.gpu_count) is None


def test_every_field_of_every_file_says_what_it_means() -> None:
    assert re.findall(r'<code>(\w+)</code></th>.*<td class="kc-long"></td>', formats_page.page()) == []

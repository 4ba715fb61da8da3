"""`generate --compare`: ours beside KAITO's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from generate_helpers import facts, small_facts

from kaito_catalog import cli
from kaito_catalog.cli.arguments import USAGE
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.kaito import comparison, model_catalog
from kaito_catalog.kaito.model_catalog import LeftOut
from kaito_catalog.kaito.release import recorded_release

V0_12 = recorded_release("v0.12")
HEAD = "| Model | Runtime | Overall |\n|---|---|---|\n"


def row(recorded: dict[str, Any]) -> dict[str, Any]:
    found, _ = model_catalog.row(ModelFacts.model_validate(recorded), V0_12)
    assert found is not None
    return found


LLAMA, PHI = row(facts()), row(small_facts())


def theirs(folder: Path, *rows: dict[str, Any], scores: str | None = None) -> Path:
    path = folder / "model_catalog.yaml"
    path.write_text(model_catalog.write_catalog(rows))
    if scores is not None:
        (folder / comparison.SCORES).write_text(scores)
    return path


def test_equal_files_have_no_difference_and_may_take_each_others_place(tmp_path: Path) -> None:
    found = comparison.compare(theirs(tmp_path, LLAMA, PHI), [LLAMA, PHI], (), V0_12)
    assert (found.differences, found.can_replace, comparison.to_do(found)) == ((), True, ())


def test_a_difference_without_a_reason_is_for_a_maintainer_to_decide(tmp_path: Path) -> None:
    found = comparison.compare(theirs(tmp_path, {**PHI, "hiddenSize": 1}), [PHI], (), V0_12)
    assert not found.can_replace
    assert comparison.to_do(found) == ("decide on microsoft/phi-4, hiddenSize: ours 5120, KAITO's 1",)


def test_gpt_oss_may_differ_in_size_because_of_its_second_copy(tmp_path: Path) -> None:
    mine = {**PHI, "name": "openai/gpt-oss-20b"}
    found = comparison.compare(theirs(tmp_path, {**mine, "modelFileSize": "25.63Gi"}), [mine], (), V0_12)
    assert "second copy" in (found.differences[0].reason or "")
    assert found.can_replace
    other = comparison.compare(theirs(tmp_path, {**mine, "hiddenSize": 1}), [mine], (), V0_12)
    assert not other.can_replace


def test_a_model_that_would_be_lost_is_named_with_the_reason(tmp_path: Path) -> None:
    gap = LeftOut("phi-4", "model_catalog.yaml", "the facts lack license")
    found = comparison.compare(theirs(tmp_path, LLAMA, PHI), [LLAMA], [gap], V0_12)
    assert found.only_theirs == (("microsoft/phi-4", "the facts lack license"),)
    assert not found.can_replace


def test_a_new_model_wants_a_score_in_the_table_beside_the_file(tmp_path: Path) -> None:
    path = theirs(tmp_path, LLAMA, scores=HEAD + "| META-LLAMA/llama-3.3-70b-instruct | vllm | 7.3 |\n")
    found = comparison.compare(path, [LLAMA, PHI], (), V0_12)
    assert found.unscored == ("microsoft/phi-4",)
    (task,) = comparison.to_do(found)
    assert task.startswith("run MT-bench and add a row to presets/workspace/models/")
    assert "| microsoft/phi-4 | vllm | <overall>" in task


def test_without_the_table_of_scores_it_says_so(tmp_path: Path) -> None:
    found = comparison.compare(theirs(tmp_path, LLAMA), [LLAMA, PHI], (), V0_12)
    assert found.unscored is None
    assert "is not beside the file" in comparison.to_do(found)[0]


def test_the_table_of_presets_is_compared_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "presets.md"
    text = model_catalog.write_presets([LLAMA, PHI])
    path.write_text(text.replace("| MIT |", "| Apache-2.0 |") + "\nOther words | with a bar\n")
    found = comparison.compare(path, [LLAMA, PHI], (), V0_12)
    assert [(d.name, d.field, d.ours, d.theirs) for d in found.differences] == [
        ("microsoft/phi-4", "license", "MIT", "Apache-2.0")
    ]


@pytest.mark.parametrize(("name", "text"), [("a.md", "no table\n"), ("a.yaml", "[]"), ("a.yaml", "a: [")])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError):
        comparison.compare(tmp_path / name, [PHI], (), V0_12)


def test_the_command_says_it_in_json_and_by_its_exit_code(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--catalog", str(root / "catalog"), "--format", "json", "--compare"]
    assert cli.main([*arguments, str(theirs(tmp_path, {**PHI, "name": "a/none-such"}))]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["onlyTheirs"] == [{"model": "a/none-such", "reason": "the catalog has no such model"}]
    assert value["canReplace"] is False
    assert cli.main([*arguments, str(tmp_path / "absent.yaml")]) == USAGE

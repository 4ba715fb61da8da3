"""KAITO's own Markdown proposals: an import reads what a person read, and reports what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from markdown_helpers import assert_same
from test_llama_verbatim import NAME, check_folder

from conformance.kaito_tree import KaitoTree
from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.markdown import check_markdown
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.documents import writing
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown.reader import read_proposals
from kaito_catalog.proposals.of_markdown import read_markdown, with_facts
from tools.readme import PROPOSAL

AS_READ = Path(__file__).with_name("proposals_as_read.json")
LLAMA = "20250529-llama-3.3-70b-instruct.md"
_NAMED = {"vllm": "vllm", "transformers": "transformer", "onnx": "onnx"}


def imported(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return [dict(found.value) for found in read_proposals(text, path=path.name).proposals]


def shape(value: Any) -> Any:
    """The keys of a value in their order, and the types of its leaves."""
    if isinstance(value, dict):
        return [(key, shape(part)) for key, part in value.items()]
    return [shape(part) for part in value] if isinstance(value, list) else type(value).__name__


def test_the_import_of_kaitos_proposals_is_what_a_person_read(tree: KaitoTree) -> None:
    rows = json.loads(AS_READ.read_text(encoding="utf-8"))["rows"]
    assert {Path(row["file"]).name for row in rows} == {path.name for path in tree.proposals}
    for path in tree.proposals:
        wanted = [row for row in rows if row["file"].endswith("/" + path.name)]
        found = imported(path)
        assert len(found) == len(wanted), path.name
        for value in found:
            name = value["metadata"]["name"]
            (row,) = [r for r in wanted if len(wanted) == 1 or r["model"].lower().endswith("/" + name)]
            assert_as_read(value, row)


def assert_as_read(value: dict[str, Any], row: dict[str, Any]) -> None:
    """`value` says what the human reader wrote into `row`."""
    metadata, requirements, where = value["metadata"], value["requirements"], row["file"]
    for key in ("creationDate", "lastUpdated", "status", "title"):
        assert metadata[key] == row[key], (where, key)
    for key in ("familyName", "type", "downloadSite", "version"):
        assert requirements[key] == row[key], (where, key)
    notes = requirements.get("notes", {})
    for key in ("storageSize", "gpuCount", "totalGPUMemory", "perGPUMemory"):
        claimed, note = requirements.get(key), notes.get(key, "")
        if row[key] is None:
            assert (claimed, note) == (None, ""), (where, key)
        else:
            pieces = [str(claimed), *(part for part in note.split("; ") if part != f"{claimed}+")]
            rest = row[key].replace("01 ", "1 ").replace("+", "")
            for piece in pieces:
                assert piece in rest, (where, key)
                rest = rest.replace(piece, "", 1)
            assert rest.strip(" ()") == "", (where, key)
    for runtime in value["runtimes"]:
        assert _NAMED[runtime["name"]] in row["runtime"].lower(), where
        assert runtime["distributedInference"] is (row["distributedInference"] == "True"), where
    if "." not in row["runtime"]:
        assert len(value["runtimes"]) == len(re.split("[,&/]", row["runtime"])), where
    assert ("license" in value["summary"]) is (row["license"] is not None), where
    if row["license"]:
        assert value["summary"]["license"]["id"][:4] in row["license"].lower().replace(" ", ""), where
    assert len(value["history"]) == len(row["history"]), where
    for event, line in zip(value["history"], row["history"], strict=True):
        assert event["done"] is line.startswith("[x]")
        assert re.sub(r"\[(#[0-9]+)\].*", r"\1", event["event"]) in line


def test_every_proposal_of_kaito_survives_markdown(tree: KaitoTree) -> None:
    for path in tree.proposals:
        for value in imported(path):
            assert_same(Proposal.model_validate(value))


def test_what_is_wrong_with_kaitos_proposals_is_reported(tree: KaitoTree) -> None:
    wanted = {
        "20240205-mistral.md": {"IMP013"},
        "20240205-mistral-instruct.md": {"IMP008", "IMP013"},
        "20240206-phi-2.md": {"IMP007"},
        "20240527-phi3-instruct.md": {"IMP008"},
        "20241212-phi4-instruct.md": {"IMP010", "IMP012"},
        "20250103-qwen2.5-coder.md": {"IMP012"},
        LLAMA: {"IMP017"},
        "20250808-gpt-oss-20b.md": {"IMP004", "IMP009", "IMP011", "IMP014"},
        "20251001-gemma-3-27b-instruct.md": {"IMP004", "IMP009", "IMP011"},
        "20251205-mistral-3.md": {"IMP003", "IMP005", "IMP011", "IMP015", "IMP021"},
    }
    for name, expected in wanted.items():
        text = (tree.path("proposals") / name).read_text(encoding="utf-8")
        assert {d.code for d in read_proposals(text, path=name).diagnostics} == expected, name


def test_kaitos_template_itself_makes_no_entry(tree: KaitoTree) -> None:
    path = tree.path("proposals") / "YYYYMMDD-model-template.md"
    found = read_proposals(path.read_text(encoding="utf-8"), path=path.name)
    assert found.proposals == ()
    assert [d.code for d in found.diagnostics] == ["IMP023"]


def test_the_proposal_of_our_readme_says_what_kaitos_own_says(tree: KaitoTree) -> None:
    (theirs,), (ours,) = imported(tree.path("proposals") / LLAMA), imported(PROPOSAL)
    # A picture that we have not, and words that are ours.
    del theirs["requirements"]["figures"]
    assert shape(ours) == shape(theirs)
    for value in (ours, theirs):
        del value["metadata"]["heading"], value["summary"]["description"], value["summary"]["license"]["note"]
        del value["requirements"]["notes"], value["runtimes"][0]["customConfigurations"]
    assert ours == theirs


def test_the_findings_about_kaitos_own_file_are_those_that_our_readme_shows(
    tree: KaitoTree, tmp_path: Path, root: Path, context: Context
) -> None:
    found = []
    for number, path in enumerate((PROPOSAL, tree.path("proposals") / LLAMA)):
        folder = tmp_path / str(number) / NAME
        folder.mkdir(parents=True)
        (value,) = imported(path)
        (folder / "proposal.yaml").write_text(writing.write(value), encoding="utf-8")
        report = check_folder(folder, root, context)
        found.append({d.code: d.message for d in report.diagnostics})
    assert found[0] == found[1]
    assert {"STO001", "MEM003", "DOC005", "DOC009", "ARC001", "RUN002"} <= found[0].keys()


def test_the_findings_of_a_proposal_of_kaito_stand_in_its_markdown(tree: KaitoTree, root: Path) -> None:
    shared = read_shared(root / "catalog")
    context = Context(shared, shared.profile())
    for path in tree.proposals:
        text = path.read_text(encoding="utf-8")
        file = read_markdown(text, path.name)
        assert file.skipped is None, path.name
        assert file.models, path.name
        facts = [with_facts(model.entry, root / "catalog") for model in file.models]
        for report in check_markdown(file, CHECKS, context, facts):
            assert report.readable, path.name
            for found in report.diagnostics:
                assert found.place.path == path.name
                assert 1 <= found.place.line <= len(text.split("\n"))


def test_what_is_wrong_with_llama_is_told_at_the_cell_and_the_key(tree: KaitoTree, root: Path) -> None:
    shared = read_shared(root / "catalog")
    path = next(path for path in tree.proposals if path.name == LLAMA)
    text = path.read_text(encoding="utf-8")
    file = read_markdown(text, path.name)
    facts = [with_facts(model.entry, root / "catalog") for model in file.models]
    (report,) = check_markdown(file, CHECKS, Context(shared, shared.profile()), facts)
    lines = text.split("\n")
    errors = {d.code: lines[d.place.line - 1][d.place.column - 1 :] for d in report.diagnostics if d.fails}
    assert errors["STO001"].startswith("140GB")
    assert errors["RUN002"].startswith("swap-space")
    assert set(errors) == {"STO001", "RUN002"}

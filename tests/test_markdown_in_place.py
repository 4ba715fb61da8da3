"""`check` and `plan` of KAITO's Markdown proposals, where they lie: places, facts, corrections."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_helpers import COMMIT, MANY, SAMPLE, line_of, read

from kaito_catalog import cli
from kaito_catalog.hub.fake.files import json_file, safetensors_file
from kaito_catalog.hub.fake.repositories import FakeRepository, repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.kaito.markdown.reader import read_proposals

PHI = "187ef0342fff0eb3333be9f00389385e95ef0b61"
OF_PHI = (
    SAMPLE.replace("acme/Acme-7B", "microsoft/phi-4")
    .replace("Acme ", "Phi  ")
    .replace("Apache 2.0", "MIT")
    .replace(COMMIT, PHI)
    .replace("[0123456]", f"[{PHI[:9]}]")
    .replace("06/05/2025", "2025-06-05")
)


@pytest.fixture
def here(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone beside the catalog's shared files and the facts of one model."""
    catalog = tmp_path / "catalog"
    (catalog / "models").mkdir(parents=True)
    for path in (root / "catalog").glob("*.yaml"):
        shutil.copy(path, catalog)
    shutil.copytree(root / "catalog/models/phi-4", catalog / "models/phi-4")
    tree = tmp_path / "kaito"
    tree.mkdir()
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    monkeypatch.chdir(tree)
    return tree


def check(*arguments: str) -> int:
    return cli.main(["check", "--catalog", "../catalog", *arguments])


def places(shown: str) -> set[tuple[str, int, int]]:
    found = json.loads(shown)
    return {(f["code"], f["line"], f["column"]) for model in found["models"] for f in model["findings"]}


@pytest.mark.parametrize(
    ("route", "written"),
    [
        (("metadata", "heading"), "Add [acme/Acme-7B](https://huggingface.co/acme/Acme-7B) to the list"),
        (("metadata", "creationDate"), "2025-05-29"),
        (("metadata", "status"), "provisional"),
        (("requirements", "type"), "`text-generation`"),
        (("requirements", "storageSize"), "~16GB"),
        (("requirements", "perGPUMemory"), "80 GB"),
        (("requirements", "version"), f"[0123456](https://huggingface.co/acme/Acme-7B/commit/{COMMIT})"),
        (("runtimes", 0), "vLLM"),
        (("runtimes", 0, "config", "max-model-len"), "max-model-len: 8192"),
        (("deployment", "instanceType"), "instanceType: Standard_NC24ads_A100_v4"),
        (("history", 1, "date"), "06/05/2025"),
    ],
)
def test_a_key_of_an_imported_proposal_stands_where_the_markdown_says_it(
    route: tuple[str | int, ...], written: str
) -> None:
    (proposal,) = read(SAMPLE).proposals
    place = proposal.places[route]
    assert SAMPLE.split("\n")[place.line - 1][place.column - 1 :].startswith(written)


def test_each_model_of_a_table_stands_in_its_own_column() -> None:
    small, large = read(MANY).proposals
    row = MANY.split("\n")[line_of(MANY, "| GPU count") - 1]
    columns = [p.places["requirements", "gpuCount"].column for p in (small, large)]
    assert [row[column - 1 :][:2] for column in columns] == ["1 ", "8+"]


def test_findings_stand_at_the_cell_and_at_the_key_of_the_yaml_block(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = OF_PHI.replace("max-model-len: 8192", "max-model-len: 8192\n      swap-space: 4")
    (here / "p.md").write_text(text)
    assert check("p.md", "--format", "json") == 1
    found = places(capsys.readouterr().out)
    size = text.split("\n")[line_of(text, "| Storage size") - 1]
    assert ("STO001", line_of(text, "| Storage size"), size.index("~16GB") + 1) in found
    assert ("RUN002", line_of(text, "swap-space"), 7) in found
    assert sorted(path.name for path in here.iterdir()) == [".git", "p.md"]


@pytest.mark.parametrize(
    ("format_", "wanted"),
    [
        ("text", "p.md:{line}:22: error[STO001]"),
        ("github", "::error file=p.md,line={line},col=22,title=STO001::"),
        ("sarif", '"startLine": {line},\n                  "startColumn": 22'),
        ("markdown", "STO001"),
        ("json", '"line": {line},\n          "column": 22'),
    ],
)
def test_every_format_has_the_place_in_the_markdown(
    format_: str, wanted: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "p.md").write_text(OF_PHI)
    assert check("p.md", "--format", format_) == 1
    shown = capsys.readouterr().out
    wanted = wanted.format(line=line_of(OF_PHI, "| Storage size"))
    assert "".join(wanted.split()) in "".join(shown.split())


def test_a_finding_speaks_of_the_rows_of_the_template(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.md").write_text(OF_PHI)
    check("p.md", "--select", "STO001")
    assert "hint: Storage size: 30GB or more" in capsys.readouterr().out


def test_a_missing_row_is_told_once_at_the_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(line for line in OF_PHI.split("\n") if "GPU count" not in line)
    (here / "p.md").write_text(text)
    check("p.md", "--format", "json")
    rows = [f for m in json.loads(capsys.readouterr().out)["models"] for f in m["findings"]]
    about = [(f["code"], f["line"], f["message"]) for f in rows if "GPU count" in f["message"]]
    assert about == [("DOC008", line_of(text, "| Field"), "there is no row 'GPU count'")]


def test_several_models_are_several_results_and_share_what_is_wrong_with_the_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "two.md").write_text(MANY)
    check("two.md", "--format", "json")
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == ["acme-7b-instruct", "acme-70b-instruct"]
    lines = [(f["code"], f["line"], f["column"]) for model in models for f in model["findings"]]
    without_rows = [found for found in lines if found[0] != "DOC008"]
    assert len(set(without_rows)) == len(without_rows)
    sites = [f["column"] for model in models for f in model["findings"] if f["code"] == "DOC003"]
    assert len(set(sites)) == 2


@pytest.mark.parametrize("text", ["# Hello\n", "---\ntitle: Design\n---\n# A design\n\nText.\n", ""])
def test_what_is_no_proposal_is_named_and_skipped(
    text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "design.md").write_text(text)
    assert check("design.md") == 0
    assert "design.md: skipped: " in capsys.readouterr().err


def test_facts_of_another_commit_are_no_facts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.md").write_text(OF_PHI.replace(PHI, COMMIT).replace(PHI[:9], COMMIT[:9]))
    assert check("p.md", "--select", "STO") == 0
    shown = capsys.readouterr().out
    assert (
        "skipped[STO001] the catalog has facts of microsoft/phi-4 at 187ef0342fff, not at 0123456789ab"
        in shown
    )


def test_a_sample_without_a_revision_is_compared_and_proves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(line for line in OF_PHI.split("\n") if not line.startswith("| Version"))
    (here / "p.md").write_text(text)
    check("p.md", "--format", "json")
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert any(found["code"] == "STO001" for found in model["findings"])
    assert not {"proven", "transcribed"} & set(model["claims"].values())


# --- the Hub ---------------------------------------------------------------------------------------------------


def acme() -> FakeRepository:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
        "max_position_embeddings": 16384, "torch_dtype": "bfloat16",
    }  # fmt: skip
    files = {
        "config.json": json_file(config),
        "model.safetensors": safetensors_file({"BF16": 200_000}),
    }
    return repository("acme/Acme-7B", files, license="mit", pipeline_tag="text-generation")


def test_facts_of_the_hub_are_asked_for_once_and_kept_beside_the_tree(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeHub([acme()]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        sha = acme().refs["main"]
        text = SAMPLE.replace(COMMIT, sha).replace("[0123456]", f"[{sha[:9]}]")
        (here / "p.md").write_text(text)
        assert check("p.md", "--select", "LIC") == 0
        assert "the catalog has no facts of acme/Acme-7B" in capsys.readouterr().out
        assert check("p.md", "--select", "LIC", "--online") == 1
        assert f"p.md:{line_of(text, 'Model license')}" in capsys.readouterr().out
    kept = list((here / ".git/kaito-catalog/facts").iterdir())
    assert [path.name for path in kept] == [f"acme--acme-7b@{sha}.yaml"]
    assert check("p.md", "--select", "LIC") == 1, "what was kept answers without the Hub"


def test_a_hub_that_does_not_have_it_is_a_skip(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "p.md").write_text(SAMPLE)
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        check("p.md", "--select", "STO", "--online")
    assert "skipped[STO001]" in capsys.readouterr().out


# --- --fix -----------------------------------------------------------------------------------------------------

BROKEN = (
    OF_PHI.replace("`text-generation`", "`conversational` ")
    .replace("~16GB", "30gb ")
    .replace("160GB (for 8k)", "TBD")
    .replace("2+ ", "2  ")
)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_fix_changes_what_it_mends_and_no_other_byte(
    ends: str, mark: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def encoded(text: str) -> bytes:
        return (mark + text.replace("\n", ends)).encode()

    (here / "p.md").write_bytes(encoded(BROKEN))
    check("p.md", "--fix")
    wanted = (
        BROKEN.replace("`conversational`", "`text-generation`")
        .replace("30gb", "30GB")
        .replace("TBD", "160GB")
        .replace(f"[{PHI[:9]}]", f"[{PHI}]")
    )
    assert (here / "p.md").read_bytes() == encoded(wanted)
    assert f"fixed: p.md:{line_of(BROKEN, '| Storage size')}:22: " in capsys.readouterr().err
    check("p.md", "--fix")
    assert "fixed:" not in capsys.readouterr().err


def test_fix_leaves_a_document_alone_that_needs_nothing(here: Path) -> None:
    (here / "design.md").write_bytes(b"# Hello  \r\n\tmixed\rends\n")
    check("design.md", "--fix")
    assert (here / "design.md").read_bytes() == b"# Hello  \r\n\tmixed\rends\n"


# --- plan ------------------------------------------------------------------------------------------------------


def plan(*arguments: str) -> int:
    return cli.main(["plan", "--catalog", "../catalog", *arguments])


def test_a_proposal_is_planned_where_it_lies(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.md").write_text(OF_PHI)
    assert plan("p.md", "--gpu", "NVIDIA A100 80GB", "--format", "json") == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["model"] == "phi-4"
    assert '"maxModelLen": 8192' in shown


def test_of_several_models_one_has_to_be_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two.md").write_text(MANY)
    assert plan("two.md") == 2
    shown = capsys.readouterr().err
    assert "two.md proposes 2 models: acme-7b-instruct (line " in shown
    assert "kaito-catalog plan acme-7b-instruct --from two.md" in shown


def test_a_model_without_facts_is_not_planned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.md").write_text(SAMPLE)
    assert plan("p.md") == 2
    shown = capsys.readouterr().err
    assert f"p.md:{line_of(SAMPLE, 'Download site')}:22: the catalog has no facts of acme/Acme-7B" in shown
    assert "'kaito-catalog check p.md --online'" in shown


def test_only_changed_proposals_are_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "old.md").write_text(OF_PHI)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (here / "new.md").write_text(OF_PHI)
    check("old.md", "new.md", "--changed-since", "HEAD", "--format", "json")
    assert [model["path"] for model in json.loads(capsys.readouterr().out)["models"]] == ["new.md"]


def test_reading_again_what_was_mended_changes_nothing_else(here: Path) -> None:
    (here / "p.md").write_text(BROKEN)
    check("p.md", "--fix")
    (before,), (after,) = (
        read_proposals(text, path="p.md").proposals for text in (BROKEN, (here / "p.md").read_text())
    )
    changed = {
        k
        for k in after.value["requirements"]
        if after.value["requirements"][k] != before.value["requirements"].get(k)
    }
    assert changed == {"type", "storageSize", "totalGPUMemory"}
    assert {k: v for k, v in before.value.items() if k != "requirements"} == {
        k: v for k, v in after.value.items() if k != "requirements"
    }

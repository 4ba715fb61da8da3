"""The command line as a person meets it: results on stdout, messages on stderr, exit codes, never a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from catalog_helpers import break_proposal

from kaito_catalog import cli

COMMANDS = ("check", "diff", "import", "plan", "generate", "schema", "explain")

pytestmark = pytest.mark.models("phi-4", "llama-3.3-70b-instruct")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"examples:\n  kaito-catalog {command}" in shown


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_a_clean_catalog_is_exit_code_0(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check"]) == 0
    shown = capsys.readouterr()
    assert "ok: 2 models: 0 errors" in shown.out
    assert shown.err == ""


def test_an_error_is_exit_code_1_and_points_at_its_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_proposal(here, "storageSize: ", "storageSize: 1GB # ")
    assert cli.main(["check", "phi-4"]) == 1
    shown = capsys.readouterr().out
    assert "catalog/models/phi-4/proposal.yaml:" in shown
    assert "error[STO001] 1GB is less than" in shown


def test_bad_syntax_is_reported_and_the_rest_of_the_catalog_is_still_checked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_proposal(here, "kind: ModelProposal", "kind: ModelProposal\nkind: ModelProposal")
    assert cli.main(["check"]) == 1
    shown = capsys.readouterr().out
    assert "error[YML002]" in shown
    assert "2 models: 1 error" in shown


@pytest.mark.parametrize(
    "path", ["phi-4", "microsoft/phi-4", "catalog/models/phi-4", "catalog/models/phi-4/proposal.yaml"]
)
def test_a_model_is_found_by_name_repository_folder_or_file(
    path: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", path]) == 0
    assert "ok: 1 model:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["check", "phi-5"], "'phi-5' is neither a model", "did you mean phi-4?"),
        (["check", "--select", "XYZ"], "there is no check 'XYZ'", "lists the codes"),
        (["check", "--profile", "kaito-v9"], "there is no profile 'kaito-v9'", "kaito-v0.12"),
        (["check", "--catalog", "/nowhere"], "/nowhere is not a folder", None),
        (["plan", "phi-5"], "'phi-5' is neither in the catalog nor a folder with a config.json", "did you mean phi-4?"),
        (["plan", "phi-4", "--instance-type", "Standard_NC24ads_A100"], "has no 'Standard_NC24ads_A100'",
         "did you mean Standard_NC24ads_A100_v4?"),
        (["plan", "phi-4", "--instance-type", "Standard_NC24"], "has no 'Standard_NC24'",
         "did you mean Standard_NC24ads_A100_v4?"),
        (["plan", "phi-4", "--gpu", "Abacus"], "how much memory 'Abacus' has is not known", "--gpu-memory"),
        (["plan", "phi-4", "--instance-type", "T"], "has no 'T'", "name the GPU instead"),
        (["plan", "phi-4", "--gpu", "A10", "--gpu-count", "3", "--data-parallel-size", "2"],
         "3 GPUs cannot be split", None),
        (["explain", "ABC999"], "there is no check 'ABC999'", "lists them all"),
        (["import", "nothing.md"], "cannot read nothing.md", None),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_exit_code_2_with_a_hint(
    arguments: list[str], message: str, hint: str | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"error: {message}" in shown.err or message in shown.err
    assert hint is None or hint in shown.err


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("gpuCount: 1", 'gpuCount: "1"', "hint: gpuCount: 1\n"),
        ("contextLength: 16384", "contextLength: 16,384", "hint: contextLength: 16384\n"),
        ("contextLength: 16384", "contextLength: 16k", "hint: write digits only, such as 16384\n"),
        ("trustRemoteCode: false", "trustRemoteCode: no", "hint: write false\n"),
        ("trustRemoteCode: false", 'trustRemoteCode: "false"', "hint: write it without quotes\n"),
        ("trustRemoteCode: false", "trustRemoteCode: maybe", "hint: write true or false\n"),
        ("  license:\n    id: mit\n", "  license: mit\n  x:\n    id: mit\n", "lines (id, url, note), indented"),
        ("downloadSite: https://huggingface.co/microsoft/phi-4", "downloadSite: microsoft/phi-4",
         "hint: write https://huggingface.co/microsoft/phi-4\n"),
    ],
)  # fmt: skip
def test_a_plausible_mistake_is_answered_with_what_to_write(
    old: str, new: str, hint: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_proposal(here, old, new)
    assert cli.main(["check", "phi-4"]) == 1
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        ("proposal.yml", "rename proposal.yml to proposal.yaml"),
        ("20250101-phi.md", "'kaito-catalog import FILE.md' reads KAITO's Markdown proposals"),
        ("README.md", "'kaito-catalog new ORG/MODEL' writes one"),
    ],
)
def test_a_folder_without_a_proposal_says_what_to_do_with_what_is_there(
    present: str, hint: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "catalog" / "models" / "phi-4"
    (folder / "proposal.yaml").rename(folder / present)
    assert cli.main(["check", "phi-4"]) == 1
    shown = capsys.readouterr().out
    assert f"hint: {hint}\n" in shown
    assert "{}" not in shown


def test_a_markdown_file_that_proposes_no_model_is_named_and_skipped(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "phi.md").write_text("# phi\n")
    assert cli.main(["check", "phi.md"]) == 0
    assert "phi.md: skipped: this is no proposal" in capsys.readouterr().err


def test_a_folder_with_capitals_is_found_by_its_name_and_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = here / "catalog" / "models"
    (models / "phi-4").rename(models / "Phi-4")
    assert cli.main(["check", "Phi-4"]) == 1
    assert "error[DOC002] 'Phi-4' cannot be a model's folder" in capsys.readouterr().out


def test_check_as_json_is_parseable(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in value["models"]] == ["llama-3.3-70b-instruct", "phi-4"]
    assert value["models"][0]["imageHosting"] == "user-built"
    assert value["models"][1]["imageHosting"] == "public-mcr"


def test_require_all_fails_where_something_could_not_be_checked(here: Path) -> None:
    assert cli.main(["check", "phi-4", "--require-all"]) == 1


MARKDOWN = """\
---
title: Proposal for new model support
authors: ["@someone"]
creation-date: 2025-05-29
status: provisional
---
# Title
Add https://huggingface.co/acme/Acme-7B
## Requirements
| Field | Notes |
|---|---|
| Family name | Acme |
| Type | text-generation |
| Download site | https://huggingface.co/acme/Acme-7B |
## Runtimes
| Options | Notes |
|---|---|
| Runtime | vLLM |
"""


def test_import_writes_a_folder_and_reports_what_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "20250529-acme.md").write_text(MARKDOWN)
    assert cli.main(["import", "20250529-acme.md", "--into", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "20250529-acme.md:10:1: warning[IMP003] no revision is named" in shown
    assert "wrote mine/acme-7b/proposal.yaml" in shown
    assert cli.main(["check", "mine"]) == 0


def test_import_does_not_replace_what_somebody_edited(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.md").write_text(MARKDOWN)
    cli.main(["import", "a.md", "--into", "mine"])
    path = here / "mine/acme-7b/proposal.yaml"
    path.write_text(path.read_text() + "# edited\n")
    assert cli.main(["import", "a.md", "--into", "mine"]) == 1
    assert path.read_text().endswith("# edited\n")
    assert "exists and differs" in capsys.readouterr().err
    assert cli.main(["import", "a.md", "--into", "mine", "--force"]) == 0
    assert "edited" not in path.read_text()


def test_importing_twice_changes_nothing(here: Path) -> None:
    (here / "a.md").write_text(MARKDOWN)
    assert cli.main(["import", "a.md", "--into", "mine"]) == 0
    assert cli.main(["import", "a.md", "--into", "mine"]) == 0


def test_an_imported_proposal_completes_in_an_editor(here: Path) -> None:
    (here / "a.md").write_text(MARKDOWN)
    cli.main(["import", "a.md"])
    text = (here / "catalog/models/acme-7b/proposal.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=../../../schema/proposal.schema.json\n")


def test_a_file_that_is_no_proposal_is_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.md").write_text("# Hello\n")
    assert cli.main(["import", "a.md", "--into", "mine"]) == 1
    assert "error[IMP023]" in capsys.readouterr().out
    assert not (here / "mine").exists()


def test_generate_writes_and_check_finds_what_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--no-site"]) == 0
    assert cli.main(["generate", "--check"]) == 0
    (here / "build/kaito/presets.md").write_text("changed")
    (here / "build/presets/orphan").mkdir()
    (here / "build/presets/orphan/x.yaml").write_text("a: 1")
    capsys.readouterr()
    assert cli.main(["generate", "--check"]) == 1
    shown = capsys.readouterr().out
    assert shown == "build/kaito/presets.md: changed\nbuild/presets/orphan/x.yaml: orphan\n"
    assert cli.main(["generate", "--no-site"]) == 0
    assert not (here / "build/presets/orphan").exists()


def test_generate_leaves_out_a_broken_entry_and_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_proposal(here, "kind: ModelProposal", "kind: Nonsense")
    assert cli.main(["generate", "--no-site"]) == 1
    assert "the files of phi-4 have errors" in capsys.readouterr().err
    assert (here / "build/presets/llama-3.3-70b-instruct/workspace.yaml").is_file()


def test_schema_check_finds_a_schema_that_is_not_up_to_date(here: Path) -> None:
    assert cli.main(["schema"]) == 0
    assert cli.main(["schema", "--check"]) == 0
    (here / "schema/facts.schema.json").write_text("{}")
    assert cli.main(["schema", "--check"]) == 1


def test_a_pipe_that_is_closed_early_is_no_error(here: Path) -> None:
    command = f"{sys.executable} -m kaito_catalog explain | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-model-len", "abc"], "'abc' is not a whole number"),
        (["--max-model-len", "0"], "must be at least 1"),
        (["--max-model-len", "9" * 30], "is too large"),
        (["--gpu-memory-utilization", "most"], "'most' is not a number"),
        (["--gpu-memory", "nan"], "must be a number of GiB above 0"),
    ],
    ids=str,
)
def test_a_number_that_is_none_is_refused_in_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["plan", "phi-4", *arguments])
    assert words in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["explain", "SEC001"], ["--version"], ["plan", "phi-4"]])
def test_a_result_that_cannot_be_written_is_one_line_and_no_traceback(
    arguments: list[str], root: Path
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kaito_catalog", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
        )
    assert "Traceback" not in done.stderr
    assert (done.returncode, "No space left" in done.stderr) in [(2, True), (0, False)]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_traceback(closed: str, root: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m kaito_catalog check phi-4 {closed}', sys.executable],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_evidence_from_a_closed_standard_input_is_no_traceback(root: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m kaito_catalog evidence add - <&-', sys.executable],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_a_folder_that_is_no_catalog_is_named_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--catalog", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "is not a catalog folder: it has none of policy.yaml, gpus.yaml, instance-types.yaml" in shown
    assert "hint: a folder of proposals alone is checked by its path" in shown


@pytest.mark.parametrize("command", ["check", "schema", "generate"])
def test_a_catalog_that_is_not_there_is_named_and_nothing_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--catalog", str(tmp_path / "absent")]) == 2
    assert "absent is not a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_files_that_nobody_reads_are_named(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("policy.yaml", "gpus.yaml", "instance-types.yaml"):
        shutil.copy(root / "catalog" / name, tmp_path)
    models = tmp_path / "models"
    shutil.copytree(root / "catalog" / "models" / "phi-4", models / "phi-4")
    (models / "README.md").touch()
    assert cli.main(["check", "--catalog", str(tmp_path)]) == 0
    (models / "phi-4" / "facts.yaml").rename(models / "phi-4" / "facts.yml")
    (models / "phi-4" / "evidence" / "mine.yml").touch()
    shutil.copy(root / "catalog" / "models" / "phi-4" / "proposal.yaml", models / "other.yaml")
    (models / "20250101-other.md").touch()
    capsys.readouterr()
    assert cli.main(["check", "--catalog", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert shown.count("error[YML012]") == 4
    for words in (
        "facts.yml is not read",
        "rename it to facts.yaml",
        "rename it to mine.yaml",
        "other.yaml is not read: each model has a folder of its own",
        "'kaito-catalog import FILE.md'",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["plna"], "there is no command 'plna'", "did you mean plan? Otherwise see kaito-catalog --help"),
        (
            ["plan", "phi-4", "--max-model-length=3"],
            "there is no argument '--max-model-length=3' here",
            "did you mean --max-model-len? Otherwise see kaito-catalog plan --help",
        ),
        (["new"], "the following arguments are required: REPO_ID", "see kaito-catalog new --help"),
        (["plan", "phi-4", "more"], "there is no argument 'more' here", "see kaito-catalog plan --help"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_an_error_and_a_hint_in_two_lines(
    arguments: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\nhint: {hint}\n"


def test_explain_lists_a_family_of_checks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "sto"]) == 0
    codes = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert codes == ["STO", "STO001", "STO002", "STO003", "STO004"]

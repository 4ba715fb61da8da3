"""What GitHub reads of this repository: issue forms, the owners of paths, the changelog, the form of commits."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_catalog import __version__
from tools import commit_messages

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
GOOD = "Read the release from the profile\n\nv0.12 was named in the code, so no other release could be asked for.\n"


def check_form(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def questions(path: Path) -> list[dict[str, Any]]:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [part for part in form["body"] if part["type"] != "markdown"]


# Issue forms


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_one_that_github_takes(path: Path) -> None:
    done = check_form(path, "github-issue-config" if path.name == "config.yml" else "github-issue-forms")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_form_that_github_would_refuse_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("name: A bug\ndescription: It fails\nbody:\n- type: question\n", encoding="utf-8")
    assert check_form(broken, "github-issue-forms").returncode == 1


def test_there_is_a_form_for_a_wrong_figure_a_model_and_a_bug() -> None:
    names = [yaml.safe_load(path.read_text(encoding="utf-8")).get("name") for path in FORMS]
    assert names == ["A bug", None, "A model", "A wrong figure"]


@pytest.mark.parametrize(
    "path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name
)
def test_the_questions_of_a_form_have_names_of_their_own(path: Path) -> None:
    asked = questions(path)
    ids = [part["id"] for part in asked]
    labels = [part["attributes"]["label"] for part in asked]
    assert len(set(ids)) == len(ids)
    assert len(set(labels)) == len(labels)
    assert any(part.get("validations", {}).get("required") for part in asked)


# Owners


def owned() -> list[tuple[str, list[str]]]:
    lines = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return [(row[0], row[1:]) for row in rows]


def test_every_path_of_codeowners_is_there() -> None:
    missing = [path for path, _ in owned() if not (ROOT / path.strip("/")).exists()]
    assert len(owned()) > 10
    assert missing == []


def test_a_folder_of_codeowners_ends_with_a_slash() -> None:
    assert [path for path, _ in owned() if (ROOT / path.strip("/")).is_dir() != path.endswith("/")] == []


def test_an_owner_has_a_form_that_github_knows() -> None:
    names = [name for _, owners in owned() for name in owners]
    assert [name for name in names if not re.fullmatch(r"@[\w-]+(/[\w-]+)?", name)] == []


# Releases


def test_the_newest_version_of_the_changelog_is_the_programs() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (.+)$", text, re.MULTILINE)
    released = [heading for heading in found if heading != "Unreleased"]
    assert found[: len(found) - len(released)] in ([], ["Unreleased"])
    version, _, day = released[0].partition(" - ")
    assert version == __version__
    assert datetime.date.fromisoformat(day).isoformat() == day


def test_the_install_page_names_the_wheel_of_this_version() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"kaito_catalog-([\w.]+)-py3", page)) == {__version__}


# Guides


@pytest.mark.parametrize(
    "page", ["docs/adding.md", "docs/contributing.md", "CONTRIBUTING.md", "ARCHITECTURE.md"]
)
def test_what_a_guide_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    modules = {name.replace(".", "/") + ".py" for name in re.findall(r"python3? -m (tools\.\w+)", text)}
    paths = set(
        re.findall(
            r"`((?:kaito_catalog|tools|tests|catalog|\.github)/[\w./-]+\.(?:py|ya?ml|json|txt))`", text
        )
    )
    later = {"kaito_catalog/data/kaito-v0.13.yaml"}  # what a command of the guide writes
    assert modules | paths
    assert [path for path in sorted(modules | paths - later) if not (ROOT / path).exists()] == []


# Commits


def test_a_subject_and_a_body_with_the_reason_are_enough() -> None:
    assert commit_messages.problems(GOOD) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "the message is empty"),
        ("x" * 73 + "\n\nwhy\n", "the subject has 73 characters, 72 are allowed"),
        ("wip2\n\nwhy\n", "the subject says that the work is unfinished: squash it into its commit"),
        ("fixup! Add a\n\nwhy\n", "the subject says that the work is unfinished: squash it into its commit"),
        ("Add a check.\n\nwhy\n", "the subject ends with a full stop"),
        ("Add a check\nwhy\n", "the second line is not empty"),
        ("Add a check\n", "there is no body: say why the change is made"),
        ("Add a check\n\nSigned-off-by: A <a@b.c>\n", "there is no body: say why the change is made"),
    ],
)
def test_a_message_without_its_form_is_told_what_is_wrong(message: str, problem: str) -> None:
    assert commit_messages.problems(message) == [problem]


def test_what_git_words_itself_is_left_alone() -> None:
    assert commit_messages.problems("Merge branch 'main' into a-branch-of-mine\n") == []
    assert commit_messages.problems(f'Revert "{"x" * 70}"\n\nThis reverts commit abc.\n') == []


def test_the_hook_does_not_count_what_git_cuts_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "COMMIT_EDITMSG"
    below = (
        "# Please enter the message\n# ------------------------ >8 ------------------------\ndiff --git a b\n"
    )
    written.write_text(GOOD + below, encoding="utf-8")
    assert commit_messages.main(["--file", str(written)]) == 0
    written.write_text("Add a check\n\n" + below, encoding="utf-8")
    assert commit_messages.main(["--file", str(written)]) == 1
    assert "this message: there is no body" in capsys.readouterr().err


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A repository: an old commit, one in form, one without a body on `main`, and a merge of both sides."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    for message in ("an old one without a body", GOOD, "Too short"):
        git("commit", "--allow-empty", "--message", message)
    git("checkout", "-b", "side", "HEAD~1")
    git("commit", "--allow-empty", "--message", GOOD)
    git("merge", "--no-ff", "main", "--message", "a merge that somebody worded")
    return tmp_path


def test_every_commit_of_a_range_is_checked_but_merges_are_not(
    history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(history)
    assert commit_messages.main(["main~2..HEAD"]) == 1
    assert capsys.readouterr().err.count("there is no body") == 1
    assert commit_messages.main(["main~2..main~1"]) == 0


@pytest.mark.parametrize(("base", "code"), [("main", 0), ("main~2", 1), ("0" * 40, 1)])
def test_a_pull_request_is_checked_from_its_base_on(history: Path, base: str, code: int) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["messages"]
    script = job["steps"][-1]["run"].replace("python3", sys.executable)
    environment = {**os.environ, "BASE": base, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=history, env=environment, capture_output=True, check=False
    )
    assert job["if"] == "github.event_name == 'pull_request'"
    assert done.returncode == code

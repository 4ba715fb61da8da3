"""The workflows, the action and the hooks: their steps are run here, as far as they are ours to run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.cli.arguments import build_parser
from tools import lint_workflows

ROOT = Path(__file__).resolve().parents[1]
FILES = (*sorted((ROOT / ".github/workflows").glob("*.yml")), *lint_workflows.actions())
_END = re.compile(r"[|;&<>]+|\d?>")


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return value


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workflow[True]  # YAML 1.1 reads the key `on` as a truth
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    """All steps of a workflow or of the action."""
    value = read(path)
    jobs = value["jobs"].values() if "jobs" in value else [value["runs"]]
    return [step for job in jobs for step in job["steps"]]


def step(path: str, name: str) -> dict[str, Any]:
    (found,) = (found for found in steps(ROOT / path) if found.get("name") == name)
    return found


def command_lines(text: str) -> list[list[str]]:
    """The arguments of our command wherever a script calls it by name, up to a pipe or a redirection."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.replace("$(", " ; ").replace(")", " ; "), comments=True)
        for index, word in enumerate(words):
            if word.rpartition("/")[2].strip('"') == "kaito-catalog":
                arguments = words[index + 1 :]
                end = next((i for i, word in enumerate(arguments) if _END.match(word)), len(arguments))
                if end:
                    found.append(arguments[:end])
    return found


CALLS = [
    pytest.param(arguments, id=f"{path.name}: {' '.join(arguments)}")
    for path in FILES
    for found in steps(path)
    for arguments in command_lines(found.get("run", ""))
    if not any("[@]" in word for word in arguments)
]
HOOKS = [
    pytest.param(shlex.split(hook["entry"])[1:], id=hook["id"])
    for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
]


def test_calls_are_found_in_the_workflows() -> None:
    assert len(CALLS) >= 5
    assert len(HOOKS) == 2


@pytest.mark.parametrize("arguments", [*CALLS, *HOOKS])
def test_every_command_line_is_one_that_the_program_takes(arguments: list[str]) -> None:
    words = ["NAME" if word.startswith("$") else word for word in arguments]
    if words[:1] == ["dry-run"]:
        words.append("NAME")  # the script adds it
    try:
        build_parser().parse_args(words)
    except SystemExit as stop:
        assert (words, stop.code) == (["--version"], 0)  # noqa: PT017 - argparse exits


@pytest.mark.parametrize("arguments", [["chekc"], ["check", "--formt", "json"], ["new"]])
def test_a_command_line_that_the_program_does_not_take_would_be_found(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(arguments)
    assert stop.value.code == 2


def git(*arguments: str, cwd: Path) -> str:
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env={**os.environ, **who}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a catalog of two models, one of which a second commit changed; HEAD~1 is before it."""
    folder = tmp_path / "clone"
    models = folder / "catalog" / "models"
    models.mkdir(parents=True)
    for path in (ROOT / "catalog").glob("*.yaml"):
        shutil.copy(path, folder / "catalog")
    for name in ("phi-4", "llama-3.3-70b-instruct"):
        shutil.copytree(ROOT / "catalog" / "models" / name, models / name)
    git("init", "-q", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "A", cwd=folder)
    proposal = models / "phi-4" / "proposal.yaml"
    proposal.write_text(proposal.read_text().replace("storageSize: 30GB", "storageSize: 20GB"))
    git("commit", "-qam", "B", cwd=folder)
    return folder


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def outside_ci() -> dict[str, str]:
    """The environment without what `.ci/run` sets, and what tells a make that it runs within another."""
    inner = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "KAITO_CATALOG_REQUIRE_VLLM",
        "KAITO_CATALOG_REQUIRE_BROWSER",
    )
    return {name: value for name, value in os.environ.items() if name not in inner}


def bash(script: str, *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script as GitHub's runner starts it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=cwd, env={**outside_ci(), **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def action(tmp_path: Path, clone: Path) -> Any:
    """The Check step of the action, in the clone."""
    ours = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m kaito_catalog "$@"'
    program(tmp_path / "runner" / "kaito-catalog" / "bin" / "kaito-catalog", ours)

    def run(**inputs: str) -> subprocess.CompletedProcess[str]:
        given = {"PATHS": "", "CATALOG": "", "SINCE": "", "REPORT": "", "ONLINE": "", **inputs}
        summary = tmp_path / "summary"
        where = {"RUNNER_TEMP": str(tmp_path / "runner"), "GITHUB_STEP_SUMMARY": str(summary)}
        return bash(step("action.yml", "Check")["run"], cwd=clone, **given, **where)

    return run


def test_the_action_fails_with_annotations_where_a_claim_is_wrong(action: Any) -> None:
    done = action()
    assert done.returncode == 1
    assert "::error file=catalog/models/phi-4/proposal.yaml,line=" in done.stdout
    assert done.stderr == ""


def test_the_action_checks_only_what_changed_and_writes_its_reports(action: Any, clone: Path) -> None:
    done = action(SINCE="HEAD~1", REPORT="report")
    assert done.returncode == 1
    found = json.loads((clone / "report/report.json").read_text())
    assert [model["name"] for model in found["models"]] == ["phi-4"]
    assert (clone / "report/comment.md").read_text().startswith("<!-- kaito-catalog check -->\n")
    assert json.loads((clone / "report/catalog.sarif").read_text())["version"] == "2.1.0"


def test_the_action_takes_paths_a_line_each_and_a_catalog(action: Any, clone: Path) -> None:
    (clone / "catalog").rename(clone / "models of ours")
    folder = "models of ours/models/llama-3.3-70b-instruct"
    done = action(PATHS=f"{folder}\n", CATALOG="models of ours")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_action_stops_where_the_program_cannot_be_used(action: Any) -> None:
    done = action(SINCE="no-such-revision", REPORT="report")
    assert done.returncode != 0
    assert "error: 'no-such-revision' is not a commit of this clone" in done.stderr


COMMENT = ".github/actions/comment/action.yml"
FAKE_GH = """\
import json, os, sys
asked = next(word for word in sys.argv if word.startswith("repos/"))
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps([sys.argv[1:], sys.stdin.read() if "--input" in sys.argv else None]) + "\\n")
if "/artifacts?" in asked:
    print(json.dumps({"artifacts": [{"id": 9, "name": "report", "expired": False, "size_in_bytes": 900}]}))
elif asked.endswith("/zip"):
    sys.stdout.buffer.write(open(os.environ["ARCHIVE"], "rb").read())
elif "/files?" in asked:
    print(json.dumps(["kaito_catalog/api.py", None]))
elif "/pulls?" in asked:
    base = {"repo": {"full_name": "kaito-project/catalog"}}
    head = {"sha": "a" * 40, "ref": "x", "repo": {"full_name": "stranger/catalog"}}
    print(json.dumps([{"number": 5, "state": "open", "head": head, "base": base}]))
"""


def test_the_comments_step_writes_what_the_first_run_left_to_the_pull_request_of_the_event(
    action: Any, clone: Path, tmp_path: Path
) -> None:
    action(SINCE="HEAD~1", REPORT="report")
    shutil.make_archive(str(tmp_path / "report"), "zip", clone / "report")
    run = {
        "id": 7,
        "event": "pull_request",
        "conclusion": "failure",
        "head_repository": {"full_name": "stranger/catalog"},
        "head_branch": "x",
        "head_sha": "a" * 40,
    }
    event = {"workflow_run": run, "repository": {"full_name": "kaito-project/catalog"}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    (tmp_path / "gh.py").write_text(FAKE_GH)
    program(tmp_path / "bin" / "gh", f'exec "{sys.executable}" "{tmp_path}/gh.py" "$@"')
    program(tmp_path / "second" / "kaito-catalog" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    done = bash(
        step(COMMENT, "Write or update the one comment")["run"],
        cwd=tmp_path,
        ACTION=f"{ROOT}/.github/actions/comment/../../..",
        DATA="catalog/models/\n",
        GH_TOKEN="t",
        GITHUB_EVENT_PATH=str(tmp_path / "event.json"),
        RUNNER_TEMP=str(tmp_path / "second"),
        LOG=str(tmp_path / "log"),
        ARCHIVE=str(tmp_path / "report.zip"),
        PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
    )
    assert (done.stdout, done.stderr) == ("wrote the comment on pull request 5\n", "")
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (given,) = (text for _, text in calls if text is not None)
    body = json.loads(given)["body"]
    assert "is made of**: kaito_catalog/api.py." in body
    own = (clone / "report/comment.md").read_text()
    assert own.partition("\n")[2].strip() in body, "what the first run wrote itself, made anew"


def test_the_second_workflow_runs_nothing_of_the_pull_request() -> None:
    first, second = (read(ROOT / f".github/workflows/{name}.yml") for name in ("proposal", "comment"))
    assert triggers(second) == {"workflow_run": {"workflows": [first["name"]], "types": ["completed"]}}
    assert list(triggers(first)) == ["pull_request"]
    (job,) = second["jobs"].values()
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    checkout, ours = job["steps"]
    # Without a ref it is the default branch, which is what a workflow_run is about.
    assert checkout["with"] == {"persist-credentials": False}
    assert ours == {"uses": "./.github/actions/comment"}
    for found in steps(ROOT / COMMENT):
        assert "${{" not in found.get("run", ""), "an expression in a script may bring in code"


def test_the_first_workflow_may_only_read() -> None:
    (job,) = read(ROOT / ".github/workflows/proposal.yml")["jobs"].values()
    assert job["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("outcome", "code"), [("exit 0", 0), ("exit 1", 1)])
def test_the_gpu_workflow_runs_every_changed_model_twice_and_no_program_of_the_pull_request(
    outcome: str, code: int, clone: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    work = tmp_path / "work"
    program(work / ".venv" / "bin" / "kaito-catalog", f'echo "$@" >> "{log}"; {outcome}')
    program(clone / ".venv-vllm" / "bin" / "python", "exit 99")
    clone.rename(work / "proposal")
    base = git("rev-parse", "HEAD~1", cwd=work / "proposal")
    done = bash(
        step(".github/workflows/gpu.yml", "Dry run of every model that changed")["run"], cwd=work, BASE=base
    )
    assert done.returncode == code
    calls = [shlex.split(line) for line in log.read_text().splitlines()]
    options = [build_parser().parse_args(words) for words in calls]
    assert [(o.name, o.serve) for o in options] == [("phi-4", False), ("phi-4", True)]
    assert {(o.vllm_python, o.catalog, o.no_write) for o in options} == {
        (".venv-vllm/bin/python", "proposal/catalog", False)
    }


def test_the_gpu_workflow_fails_where_it_cannot_tell_what_changed(clone: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    program(work / ".venv" / "bin" / "kaito-catalog", "exit 0")
    clone.rename(work / "proposal")
    script = step(".github/workflows/gpu.yml", "Dry run of every model that changed")["run"]
    assert bash(script, cwd=work, BASE="0" * 40).returncode != 0


def test_the_gpu_workflow_installs_the_vllm_of_kaitos_release(shared_files: Shared) -> None:
    version = shared_files.profile().vllm_version
    script = step(".github/workflows/gpu.yml", "vLLM of KAITO's release, for the GPU")["run"]
    assert f"vllm=={version}" in script
    assert f'vllm = ["vllm=={version}"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_release_is_what_its_tag_says(tmp_path: Path) -> None:
    script = step(
        ".github/workflows/release.yml", "Install the wheel alone, and compare its version with the tag"
    )
    ours = script["run"].partition("cd alone || exit 1\n")[2]
    program(
        tmp_path / "bin" / "kaito-catalog",
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m kaito_catalog "$@"',
    )
    from kaito_catalog import __version__

    assert bash(ours, cwd=tmp_path, GITHUB_REF_NAME=f"v{__version__}").returncode == 0
    assert bash(ours, cwd=tmp_path, GITHUB_REF_NAME="v9.9.9").returncode == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_starts_without_permissions(path: Path) -> None:
    assert path.name == "action.yml" or read(path)["permissions"] == {}  # an action has none of its own


# What CI runs

RECORDING_MAKE = """\
.PHONY: lint test conformance
lint test:
\t@echo "$@ in $$(ls -A ..) vllm=$(KAITO_CATALOG_REQUIRE_VLLM)"
conformance:
\t@echo "$@ $(notdir $(KAITO)) $(notdir $(CONFIGS))"
"""


@pytest.fixture
def ci(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs .ci/run in a repository whose make only says what it was asked for; beside it lies a folder `other`."""
    folder = tmp_path / "work" / "clone"
    (folder / ".ci").mkdir(parents=True)
    (tmp_path / "work" / "other").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    makefile = folder / "Makefile"
    makefile.write_text(RECORDING_MAKE, encoding="utf-8")
    program(tmp_path / "bin" / "chromium", "exit 0")
    (tmp_path / "tmp").mkdir()

    def run(*, make: str = RECORDING_MAKE) -> subprocess.CompletedProcess[str]:
        makefile.write_text(make, encoding="utf-8")
        git("init", "-q", cwd=folder)
        git("add", "-A", cwd=folder)
        git("commit", "-qm", "A", cwd=folder)
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return bash(".ci/run", cwd=folder, PATH=path, TMPDIR=str(tmp_path / "tmp"))

    return run


def test_ci_runs_lint_and_tests_in_a_clone_with_nothing_beside_it(ci: Any, tmp_path: Path) -> None:
    done = ci()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["lint in kaito-catalog vllm=", "test in kaito-catalog vllm=1"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_ci_compares_with_kaitos_own_files_where_they_lie_beside_the_original(
    ci: Any, tmp_path: Path
) -> None:
    (tmp_path / "work" / "shared" / "data" / "kaito").mkdir(parents=True)
    assert ci().stdout.splitlines()[2:] == ["conformance kaito hub"]


@pytest.mark.parametrize("target", ["lint", "test", "conformance"])
def test_ci_fails_where_any_of_them_does(target: str, ci: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "shared" / "data" / "kaito").mkdir(parents=True)
    failing = re.sub(r"(?m)^\t@echo", f"\t@test $@ != {target} && echo", RECORDING_MAKE)
    assert ci(make=failing).returncode != 0
    assert list((tmp_path / "tmp").iterdir()) == []

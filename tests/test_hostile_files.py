"""Strangers' files: each is refused in a few words at its place, in bounded memory and work, and leads nowhere else."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_helpers import copy_catalog

from kaito_catalog import cli
from kaito_catalog.documents.reading import MAX_PROBLEMS, MAX_YAML_BYTES, parse, parse_bytes
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.proposal import Proposal

MIB = 2**20


def full(unit: str, start: str = "") -> str:
    """`unit` again and again, up to what is read of a file."""
    return start + unit * ((MIB - len(start)) // len(unit))


BOMBS: dict[str, Callable[[], str]] = {
    "aliases of aliases": lambda: (
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64))
    ),
    "aliases": lambda: full("- *a\n", "- &a x\n"),
    "anchors": lambda: "".join(f"- &a{n} x\n" for n in range(70_000)),
    "flow lists in flow lists": lambda: full("[", "a: "),
    "flow maps in flow maps": lambda: full("{a: "),
    "lists in lists": lambda: full("- "),
    "keys of keys": lambda: full("? "),
    "keys that are lists": lambda: full("? [a]\n: b\n"),
    "the same key": lambda: full("a: 1\n"),
    "the same key after many": lambda: full("k0: 1\n", "".join(f"k{n}: 1\n" for n in range(40_000))),
    "merge keys after many": lambda: full("<<: {a: 1}\n", "".join(f"k{n}: 1\n" for n in range(40_000))),
    "tag directives": lambda: "".join(f"%TAG !a{n}! b\n" for n in range(60_000)) + "--- a\n",
    "tags that build objects": lambda: full("- !!python/object/apply:os.system [x]\n"),
    "documents": lambda: full("---\n"),
    "tabs": lambda: full("a:\tb\n"),
    "invisible characters": lambda: "\u200b\n" * 200_000,
    "a text without an end": lambda: full("x\n", 'a: "'),
    "unknown keys": lambda: "".join(f"key{n}: 1\n" for n in range(70_000)),
    "unknown keys in a list": lambda: full("- {nmae: vllm}\n", "runtimes:\n"),
    "numbers where texts belong": lambda: full("- 1\n", "metadata:\n  authors:\n"),
    "digits": lambda: full("9", "a: "),
    "a long text": lambda: full("x", "kind: "),
    "line breaks": lambda: full("\\n", 'kind: "') + '"',
    "a long key": lambda: "x" * 900 + ": 1\n",
    "comments": lambda: full("#\n"),
    "carriage returns": lambda: full("\r", "a: b"),
}

_CHECK_THEM = """
import sys
sys.path.insert(0, {tests!r})
from test_hostile_files import BOMBS, findings
for name, make in BOMBS.items():
    found = findings(make()[: 2**20])
    assert 1 <= len(found) <= {most}, (name, len(found))
    assert all(place.line >= 1 and place.column >= 1 for place in found), name
print(len(BOMBS))
"""


def findings(text: str) -> list[object]:
    """The places of what `check` has to say about a proposal of this text."""
    return [problem.place for problem in load(parse(text, path="f.yaml"), Proposal)[1]]


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    # Ten times what all of them take; the ones that were quadratic took minutes each.
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))


def test_files_made_to_cost_time_or_memory_cost_little(root: Path) -> None:
    script = _CHECK_THEM.format(tests=str(root / "tests"), most=2 * MAX_PROBLEMS)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_limits,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(len(BOMBS))), done.stderr[-2000:]


def test_a_file_beyond_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert [p.code for p in parse_bytes(b"a: " + b"x" * (10 * MIB), path="f").problems] == ["YML008"]
    assert MAX_YAML_BYTES == MIB


def test_a_spoilt_character_that_no_file_can_hold_is_refused_at_its_place() -> None:
    (problem,) = parse("a: 1\nb: x\ud800\n", path="f.yaml").problems
    assert (problem.code, problem.place.line, problem.place.column) == ("YML009", 2, 5)


def test_a_tag_directive_is_refused_at_its_line() -> None:
    (problem,) = parse("%TAG ! tag:yaml.org,2002:\n---\na: 1\n", path="f.yaml").problems
    assert (problem.code, problem.place.line) == ("YML007", 1)


def test_a_refused_key_does_not_hide_the_place_of_others() -> None:
    document = parse("a: 1\nb: 2\na: {c: 3}\nd: 4\n", path="f.yaml")
    assert document.place(("d",)).line == 4
    assert document.place(("a",)).line == 1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a catalog of one model; beside it, what nobody may see."""
    home = tmp_path / "home"
    copy_catalog(home / "catalog", "phi-4")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.yaml").write_text("top: secret-of-the-runner\n")
    monkeypatch.chdir(home)
    return home


@pytest.mark.parametrize("name", ["proposal.yaml", "facts.yaml", "evidence/run.yaml"])
@pytest.mark.parametrize("kind", ["file", "device", "nowhere", "itself"])
def test_a_link_in_a_models_folder_is_refused_and_not_followed(
    here: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link = here / "catalog" / "models" / "phi-4" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    targets = {
        "file": here.parent / "outside" / "secret.yaml",
        "device": Path("/dev/zero"),
        "nowhere": Path("/nowhere"),
        "itself": link,
    }
    link.symlink_to(targets[kind])
    assert cli.main(["check", "--format", "json"]) == 1
    shown = capsys.readouterr()
    assert "YML012" in shown.out
    assert "secret-of-the-runner" not in shown.out + shown.err


def test_a_link_in_place_of_a_models_folder_is_refused_and_not_followed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "catalog" / "models" / "phi-4", here.parent / "outside" / "phi-4")
    shutil.rmtree(here / "catalog" / "models" / "phi-4")
    (here / "catalog" / "models" / "phi-4").symlink_to(here.parent / "outside" / "phi-4")
    assert cli.main(["check"]) == 1
    assert "YML012" in capsys.readouterr().out


def test_a_link_in_place_of_the_evidence_is_refused_and_not_followed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = here / "catalog" / "models" / "phi-4" / "evidence"
    shutil.rmtree(evidence, ignore_errors=True)
    evidence.symlink_to(here.parent / "outside")
    assert cli.main(["check"]) == 1
    shown = capsys.readouterr().out
    assert "YML012" in shown
    assert "secret-of-the-runner" not in shown


def test_a_pipe_in_place_of_a_file_does_not_hang(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("proposal.yaml", "facts.yaml", "evidence/run.yaml"):
        path = here / "catalog" / "models" / "phi-4" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().out.count("error[YML012]") == 3


@pytest.mark.parametrize(
    "name", ["Phi-5", "phi-4 ", "рhi-4", "phi‐4", "-x", "_x", "a..b", "x" * 97, "a\nb", "a:b", "::error::x"]
)
def test_a_folder_whose_name_only_looks_like_another_is_refused(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models = here / "catalog" / "models"
    shutil.copytree(models / "phi-4", models / name)
    assert cli.main(["check", "--format", "github"]) == 1
    shown = capsys.readouterr().out
    assert "DOC002" in shown
    assert not [line for line in shown.splitlines() if line.startswith("::error::")]


def test_an_option_nested_a_hundred_thousand_deep_is_a_finding(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = here / "catalog" / "models" / "phi-4" / "proposal.yaml"
    nested = "[" * 100_000
    text = proposal.read_text()
    changed = text.replace("  config:\n", f"  config:\n    limit-mm-per-prompt: '{nested}'\n")
    assert changed != text
    proposal.write_text(changed)
    assert cli.main(["check"]) == 1
    shown = capsys.readouterr().out
    assert "error[RUN003] limit-mm-per-prompt is a JSON object" in shown
    assert nested not in shown


def test_a_name_in_a_log_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    result = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "DryRunResult",
        "key": "x",
        "model": "\x1b[31mphi\u202e",
        "result": {},
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(result) + "\n"))
    assert cli.main(["evidence", "add", "-", "--catalog", str(root / "catalog")]) == 2
    assert "'\\u001b[31mphi\\u202e' cannot be the name" in capsys.readouterr().err

"""A Tab in the shell: commands, models, codes, GPUs, and never a message in the middle of a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kaito_catalog import cli
from kaito_catalog.checks.registry import rule
from kaito_catalog.cli.arguments import FORMATS


def completed(line: str, folder: Path, shell: str = "fish") -> list[str]:
    """What the program answers, as argcomplete's scripts ask it, for the cursor at the end of `line`."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": shell,
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
        "COMP_TYPE": "9",
    }
    command = [sys.executable, "-m", "kaito_catalog"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    return answer.read_text(encoding="utf-8").split("\n") if answer.exists() else []


pytestmark = pytest.mark.models("phi-4", "phi-4-mini-instruct")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kaito-catalog ch", ["check "]),
        ("kaito-catalog check ph", ["phi-4", "phi-4-mini-instruct"]),
        ("kaito-catalog plan cat", ["catalog/"]),
        ("kaito-catalog check --format ", list(FORMATS)),
        ("kaito-catalog check --select MEM,STO00", ["MEM,STO001", "MEM,STO002", "MEM,STO003", "MEM,STO004"]),
        ("kaito-catalog plan phi-4 --gpu 'NVIDIA H1", ["NVIDIA H100 80GB", "NVIDIA H100 NVL"]),
        ("kaito-catalog completion z", ["zsh"]),
    ],
)
def test_a_tab_gives_what_can_stand_there(line: str, words: list[str], here: Path) -> None:
    found = completed(line, here)
    assert [word.rstrip() for word in found] == [word.rstrip() for word in words]


def test_zsh_is_told_what_a_word_means(here: Path) -> None:
    found = completed("kaito-catalog explain STO", here, "zsh")
    assert found[0] == f"STO001:{getattr(rule('STO001'), 'title', None)}"


def test_where_there_is_no_catalog_the_models_are_those_that_came_with_the_program(tmp_path: Path) -> None:
    assert "phi-4" in [word.rstrip() for word in completed("kaito-catalog plan phi-4", tmp_path)]


def test_a_catalog_that_cannot_be_read_completes_to_nothing(tmp_path: Path) -> None:
    assert completed("kaito-catalog plan phi-4 --catalog /nowhere --gpu NV", tmp_path) in ([], [""])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_one_that_the_shell_takes(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "kaito-catalog" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    path = tmp_path / "script"
    path.write_text(script, encoding="utf-8")
    subprocess.run([shell, "-n", str(path)], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on this machine")
def test_bash_itself_completes_with_the_script(
    here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out, encoding="utf-8")
    program = tmp_path / "bin" / "kaito-catalog"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kaito_catalog "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    ask = (
        "source ./script; COMP_LINE='kaito-catalog record phi-4-'; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; "
        '_python_argcomplete kaito-catalog 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = ["bash", "--norc", "-c", ask]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["phi-4-mini-instruct"]

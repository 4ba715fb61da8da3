"""Kills, full disks, closed folders and two runs at once: what was there stays whole, and the message is clear."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kaito_catalog.errors import CatalogError
from kaito_catalog.system import files
from tools import faults

RUN = [sys.executable, "-m", "kaito_catalog"]


@pytest.mark.parametrize("command", faults.CASES)
def test_a_killed_command_leaves_every_file_old_or_new(command: str) -> None:
    result = faults.run(command, 8, random.Random(command))
    assert result.wrong == []
    assert result.kills == 8


def test_the_harness_sees_a_file_that_is_neither_old_nor_new() -> None:
    assert faults._wrong("fix", {"a": b"1"}, {"a": b"2"}, {"a": b""}) == [
        "a is neither the old nor the new file"
    ]
    mixture = {"kaito/a": b"1", "kaito/b": b"2"}
    assert faults._wrong(
        "generate", {"kaito/a": b"1", "kaito/b": b"1"}, {"kaito/a": b"2", "kaito/b": b"2"}, mixture
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    faults.a_catalog(tmp_path)
    return tmp_path


def _run(folder: Path, *arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    limit = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file},) * 2); "
        if largest_file
        else ""
    )
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code = f"{ignore}{limit}import sys; from kaito_catalog.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(faults.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_leaves_the_old_tree_and_says_so(here: Path) -> None:
    assert _run(here, "generate", "--no-site").returncode == 0
    old = faults.generated_files(here)
    shutil.rmtree(here / "catalog" / "models" / faults.MODELS[0])
    done = _run(here, "generate", "--no-site", largest_file=2000)
    assert done.returncode == 2
    assert "\nerror: cannot write " in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert faults.generated_files(here) == old
    assert sorted(path.name for path in (here / "build").iterdir()) == sorted(faults.TREES)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text("old\n")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); from pathlib import Path; "
        "from kaito_catalog.system.files import write_text; write_text(Path(sys.argv[1]), 'x' * 10_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, cwd=faults.ROOT
    )
    assert "CatalogError: cannot write" in done.stderr
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["facts.yaml"]


def test_an_output_that_cannot_be_written_is_refused_in_words(here: Path) -> None:
    (here / "out").write_text("a file where the folder should be")
    done = _run(here, "generate", "--no-site", "--output", "out")
    assert done.returncode == 2
    assert "\nerror: cannot write " in f"\n{done.stderr}"
    assert (here / "out").read_text() == "a file where the folder should be"


@pytest.mark.skipif(os.geteuid() == 0, reason="the permissions of a folder do not bind root")
def test_a_folder_without_permission_is_refused_in_words(here: Path) -> None:
    (here / "build").mkdir()
    (here / "build").chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = _run(here, "generate", "--no-site")
    assert (done.returncode, done.stderr.startswith("error: cannot write ")) == (2, True)


def test_two_runs_at_once_both_end_and_leave_one_whole_result(here: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(faults.ROOT)}
    started = [
        subprocess.Popen(
            [*RUN, "generate", "--no-site"],
            cwd=here,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    ends = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ends
    assert _run(here, "generate", "--check", "--no-site").returncode == 0
    assert sorted(path.name for path in (here / "build").iterdir()) == sorted(faults.TREES)


def test_what_a_killed_writer_left_is_swept_by_the_next_write_of_that_file(tmp_path: Path) -> None:
    left = tmp_path / ".facts.yaml.abc123.unfinished"
    other = tmp_path / ".proposal.yaml.abc123.unfinished"
    left.write_text("half")
    other.write_text("half")
    files.write_text(tmp_path / "facts.yaml", "whole\n")
    assert sorted(os.listdir(tmp_path)) == [other.name, "facts.yaml"]


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_a_tree_never_reaches_outside_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="outside the output folder"):
        files.replace_tree(tmp_path / "tree", {name: "x"})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["1999-12-31", "2038-01-20"])
def test_a_clock_that_jumped_changes_no_generated_byte(when: str, here: Path) -> None:
    faketime = shutil.which("faketime")
    if faketime is None:
        script = (
            "import sys, time, datetime as d; seconds = d.datetime.fromisoformat(sys.argv.pop(1)).timestamp(); "
            "time.time = lambda: seconds; from kaito_catalog.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", script, when]
    else:
        command = [faketime, when, *RUN]
    environment = {**os.environ, "PYTHONPATH": str(faults.ROOT)}
    assert _run(here, "generate", "--no-site").returncode == 0
    old = faults.generated_files(here)
    done = subprocess.run(
        [*command, "generate", "--no-site"], cwd=here, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert faults.generated_files(here) == old

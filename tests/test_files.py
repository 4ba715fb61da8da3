"""Writing: one step, nothing outside the folder, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kaito_catalog.errors import CatalogError
from kaito_catalog.system import files


def tree(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.yaml"
    files.write_text(target, "old\n")
    files.write_text(target, "new\n")
    assert tree(tmp_path) == {"a/b.yaml": "new\n"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b.yaml"
    files.write_text(target, "old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CatalogError, match="No space left on device"):
        files.write_text(target, "new\n")
    assert tree(tmp_path) == {"b.yaml": "old\n"}


def test_a_tree_holds_exactly_the_files_it_was_given(tmp_path: Path) -> None:
    root = tmp_path / "build"
    files.replace_tree(root, {"a.txt": "1", "d/b.txt": "2"})
    files.replace_tree(root, {"a.txt": "3", "e/c.txt": "4"})
    assert tree(tmp_path) == {"build/a.txt": "3", "build/e/c.txt": "4"}


def test_writing_the_same_tree_twice_touches_nothing(tmp_path: Path) -> None:
    root = tmp_path / "build"
    files.replace_tree(root, {"a.txt": "1"})
    before = (root / "a.txt").stat().st_mtime_ns
    files.replace_tree(root, {"a.txt": "1"})
    assert (root / "a.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x", ""])
def test_a_name_that_leaves_the_tree_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="outside the output folder"):
        files.replace_tree(tmp_path / "build", {"a.txt": "1", name: "2"})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "a..b", "-a", "a" * 200, "a\n", ".hidden"])
def test_a_name_that_is_no_folder_of_the_catalog_is_refused(name: str) -> None:
    with pytest.raises(CatalogError, match="cannot be the name"):
        files.safe_name(name)


def test_differences_name_what_is_missing_changed_and_left_over(tmp_path: Path) -> None:
    files.replace_tree(tmp_path / "b", {"same": "1", "changed": "1", "orphan": "1"})
    wanted = {"same": "1", "changed": "2", "missing": "1"}
    expected = [("changed", "changed"), ("missing", "missing"), ("orphan", "orphan")]
    assert files.differences(tmp_path / "b", wanted) == expected


def test_a_killed_writer_leaves_the_old_tree_or_the_new_one(tmp_path: Path) -> None:
    root = tmp_path / "build"
    old = {f"{i}.txt": "old" * 500 for i in range(40)}
    new = {f"{i}.txt": "new" * 500 for i in range(60)}
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from kaito_catalog.system import files
        trees = [{f"{i}.txt": "old" * 500 for i in range(40)}, {f"{i}.txt": "new" * 500 for i in range(60)}]
        print("ready", flush=True)
        for turn in range(10**6):
            files.replace_tree(Path(sys.argv[1]), trees[turn % 2])
    """)
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        files.recover_tree(root)
        if root.exists():
            assert tree(root) in (old, new)
    files.replace_tree(root, new)
    assert tree(root) == new
    assert [p.name for p in tmp_path.iterdir()] == ["build"]

"""The worker's archive: the same bytes everywhere, and all that another machine needs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kaito_catalog.dry_runs import task
from kaito_catalog.vllm_bridge.archive import worker_archive
from kaito_catalog.vllm_bridge.worker.extension import EXTENSION


def test_it_is_the_same_bytes_whoever_makes_it(root: Path) -> None:
    script = "import sys; from kaito_catalog.vllm_bridge.archive import worker_archive as made\n"
    script += "import os; os.umask(0o077); sys.stdout.buffer.write(made())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LC_ALL": "C"},
        cwd=root,
        capture_output=True,
        check=True,
    )
    assert done.stdout == worker_archive()


def test_it_holds_what_runs_beside_vllm_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(worker_archive())) as archive:
        names = {name.rpartition("/")[0] for name in archive.namelist()}
        assert archive.testzip() is None
    assert names == {
        "",
        "kaito_catalog",
        "kaito_catalog/dry_runs",
        "kaito_catalog/vllm_bridge",
        "kaito_catalog/vllm_bridge/worker",
    }


@pytest.mark.parametrize("module", ["vllm_bridge.worker.__main__", "dry_runs.task"])
def test_it_needs_the_standard_library_alone(module: str, tmp_path: Path) -> None:
    path = tmp_path / "vllm_worker.pyz"
    path.write_bytes(worker_archive())
    script = f"import sys; sys.path.insert(0, {str(path)!r}); import kaito_catalog.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path, check=True)


def test_its_first_process_answers_without_importing_anything_of_vllm(tmp_path: Path) -> None:
    path = tmp_path / "vllm_worker.pyz"
    path.write_bytes(worker_archive())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), '{"id": 1, "op": "nonsense"}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["error"]["class"] == "bad-request"


def test_a_newer_kaito_catalog_in_the_environment_is_not_taken_for_it(tmp_path: Path) -> None:
    other = tmp_path / "site" / "kaito_catalog"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('not this one')\n")
    path = tmp_path / "vllm_worker.pyz"
    path.write_bytes(worker_archive())
    done = subprocess.run(
        [sys.executable, str(path), '{"id": 1, "op": "nonsense"}'],
        env={**os.environ, "PYTHONPATH": str(other.parent)},
        cwd=other.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["id"] == 1


def test_the_other_nodes_of_a_run_can_import_what_vllms_workers_are_extended_by(tmp_path: Path) -> None:
    program = tmp_path / "vllm_worker.pyz"
    program.write_bytes(worker_archive())
    variables = task._for_the_other_nodes(program)
    (folder,) = json.loads(variables["RAY_JOB_CONFIG_JSON_ENV_VAR"])["runtime_env"]["py_modules"]
    script = (
        f"import sys; sys.path.insert(0, {str(Path(folder).parent)!r}); import {EXTENSION.rpartition('.')[0]}"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path, check=True)

"""The worker as one file that any Python with vLLM can run: in .venv-vllm, as a Ray task, in a pod, on a GPU host.

It is an archive in the format of `zipapp`, which itself would stamp the files with the times and modes they have here;
written so, the same sources give the same bytes. It holds what is listed below under the names it has here, and nothing
else of the package.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

SHIPPED = ("vllm_bridge/__init__.py", "vllm_bridge/conversation.py", "vllm_bridge/worker/*.py")
"""What the worker consists of."""
TASK = ("dry_runs/__init__.py", "dry_runs/task.py")
"""What runs it on another machine."""

MAIN = '''\
"""The vLLM worker of kaito-catalog; `run FOLDER` is the task of a pod."""

import sys

if sys.argv[1:2] == ["run"]:
    from kaito_catalog.dry_runs.task import main

    sys.exit(main(sys.argv[2:]))

from kaito_catalog.vllm_bridge.worker.__main__ import main

sys.exit(main(sys.argv[1:]))
'''
# It stands before any other kaito_catalog that the environment has.
PACKAGE = '"""The part of kaito-catalog that runs beside vLLM."""\n'

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@lru_cache(maxsize=1)
def worker_archive() -> bytes:
    """The archive's bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in _files():
            entry = zipfile.ZipInfo(name, _FIRST_DAY)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return content.getvalue()


def _files() -> Iterator[tuple[str, str]]:
    yield "__main__.py", MAIN
    yield "kaito_catalog/__init__.py", PACKAGE
    package = Path(__file__).resolve().parents[1]
    for pattern in (*SHIPPED, *TASK):
        for path in sorted(package.glob(pattern)):
            name = path.relative_to(package.parent).as_posix()
            yield name, path.read_text(encoding="utf-8")

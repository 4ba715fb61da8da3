"""Fixtures: the real catalog, catalogs of few models, commands, and the Python that has vLLM."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run, copy_catalog
from hypothesis import settings

from kaito_catalog.catalog.entries import Catalog, Shared
from kaito_catalog.catalog.reading import read_catalog, read_shared
from kaito_catalog.checks.base import Context
from kaito_catalog.cli import main
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError

# Machines are noisy: an example that takes long once is not a failure.
settings.register_profile("kaito-catalog", deadline=None)
settings.load_profile("kaito-catalog")
# A shell starts what goes into the background with SIGINT ignored, and tests press Ctrl-C, also in programs they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


LONGEST_FIRST = (
    "test_vllm_worker.py", "test_calculator.py", "test_browser.py", "test_faults.py", "test_damaged_configurations.py",
    "test_api.py", "test_exact_models.py", "test_tokens.py", "test_on_ray.py",
)  # fmt: skip
"""Files that take longest: where several processes share the files, none may wait for the last of these."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs vLLM, so that `make test` can run everything else first; put the longest files in front."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        if "vllm_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.vllm)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, one line a reason."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(r.longrepr[2]).removeprefix("Skipped: ") for r in reports)
    if reasons:
        terminalreporter.section("skipped, and why")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} × {' '.join(reason.split())}")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The catalog of this repository."""
    return read_catalog(ROOT / "catalog")


@pytest.fixture(scope="session")
def shared_files() -> Shared:
    """Policy, GPUs and instance types of this repository."""
    return read_shared(ROOT / "catalog")


@pytest.fixture(scope="session")
def context(shared_files: Shared) -> Context:
    """What checks are run with."""
    return Context(shared_files, shared_files.policy.default_profile())


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of an environment that has vLLM; without one a test that asks for it is skipped."""
    try:
        return find_python(root=ROOT)
    except WorkerError as error:
        if os.environ.get("KAITO_CATALOG_REQUIRE_VLLM") == "1":
            pytest.fail(f"KAITO_CATALOG_REQUIRE_VLLM=1, but {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def worker(vllm_python: Path) -> Iterator[Worker]:
    """A worker that asks a real vLLM; the tests of a process share it, and what it has imported."""
    with Worker(vllm_python) as worker:
        yield worker


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a model directory from one of `tests/configs`, with fields changed."""

    def make(name: str, **changes: Any) -> Path:
        directory = tmp_path_factory.mktemp(name)
        config = json.loads((ROOT / "tests" / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        (directory / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        return directory

    return make


@pytest.fixture
def here(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a catalog of the models that the mark `models` names."""
    mark = request.node.get_closest_marker("models")
    copy_catalog(tmp_path / "catalog", *mark.args, **mark.kwargs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command with the arguments it is given."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call

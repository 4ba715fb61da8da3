"""Ask other tools about the same models: .venv-bench from pinned versions, our own Hub over HTTP, answers as JSON.

    python -m tools.peers       writes tests/data/peers.json (a minute; needs a package index)

Each model is served with a config.json of its dimensions and one safetensors file whose header has as many parameters
of each dtype as vLLM 0.25.1 allocates (tests/data/exact_plans.json), so that every tool starts from the right size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaito_catalog.hub.fake.files import json_file, safetensors_file
from kaito_catalog.hub.fake.repositories import FakeRepository, repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.system import files
from tools.exact_models import read
from tools.observed import Observed, observations

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "tests" / "data" / "peers.json"
PINS = Path(__file__).with_name("peers.txt")
ENVIRONMENT = ROOT / ".venv-bench"
VERSION = "0.25.1"
SECONDS = 600

_DTYPES = {
    "bfloat16": ("BF16", 2),
    "float16": ("F16", 2),
    "float32": ("F32", 4),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e8m0fnu": ("F8_E8M0", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "int32": ("I32", 4),
    "int64": ("I64", 8),
}
"""vLLM's dtypes as safetensors names them, and bytes of an element."""


class PeersError(Exception):
    """The other tools cannot be asked; the text says why."""


def pins() -> list[str]:
    """The requirements of .venv-bench."""
    lines = (line.split("#")[0].strip() for line in PINS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def environment_python(directory: Path = ENVIRONMENT) -> Path:
    """The Python of .venv-bench, which is made where it is missing or of other versions.

    Raises:
        PeersError: a package cannot be installed.
    """
    python, stamp = directory / "bin" / "python", directory / "peers.txt"
    wanted = "\n".join(pins()) + "\n"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"setting up {directory.name} (a minute, once)", file=sys.stderr)
    venv.create(directory, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeersError(f"pip could not install {', '.join(pins())}: {' '.join(said)[-300:]}")
    stamp.write_text(wanted, encoding="utf-8")
    return python


def recorded_models() -> dict[str, dict[str, Any]]:
    """Models whose stored size is known: name to configuration and parameters by dtype."""
    found: dict[str, dict[str, Any]] = {}
    for model in read():
        first = model.plans.get(VERSION, {}).get("tp1", {})
        if "byDtype" not in first:
            continue
        parameters = {_DTYPES[d][0]: size // _DTYPES[d][1] for d, size in first["byDtype"].items()}
        found[model.name] = {
            "config": model.config,
            "parameters": parameters,
            "maxModelLen": first["maxModelLen"],
        }
    return found


def repo_id(name: str) -> str:
    """A name that the Hub's URLs can carry."""
    return name.replace(" (fp8 while loading)", "-fp8-while-loading")


def repositories(models: Mapping[str, Mapping[str, Any]]) -> list[FakeRepository]:
    """A repository for each model."""
    return [
        repository(
            repo_id(name),
            {
                "config.json": json_file(model["config"]),
                "model.safetensors": safetensors_file(model["parameters"]),
            },
        )
        for name, model in models.items()
    ]


def case_of(row: Observed) -> dict[str, Any]:
    """A start as the tools are asked about it."""
    return {
        "id": row.id,
        "model": repo_id(row.model),
        "maxModelLen": row.max_model_len,
        "kvCacheDtype": row.kv_cache_dtype,
        "tensorParallelSize": row.tensor_parallel_size,
        "pipelineParallelSize": row.pipeline_parallel_size,
        "gpuMemoryBytes": row.gpu_memory_bytes,
        "gpuMemoryUtilization": row.gpu_memory_utilization,
    }


def cases(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The starts, and each model on one GPU without saying which."""
    rows, _ = observations()
    single = [
        {
            "id": f"exact {name}",
            "model": repo_id(name),
            "maxModelLen": model["maxModelLen"],
            "kvCacheDtype": "auto",
            "tensorParallelSize": 1,
            "pipelineParallelSize": 1,
        }
        for name, model in models.items()
    ]
    return [*(case_of(row) for row in rows if row.model in models), *single]


def ask(python: Path, endpoint: str, asked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answers by case.

    Raises:
        PeersError: the worker failed as a whole.
    """
    lines = [json.dumps({"endpoint": endpoint}), *(json.dumps(case) for case in asked)]
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        try:
            done = subprocess.run(
                [str(python), str(Path(__file__).with_name("peer_worker.py"))],
                input="\n".join(lines) + "\n",
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
                env={**os.environ, "HF_HOME": folder, "HF_TOKEN": ""},
            )
        except subprocess.TimeoutExpired as error:
            raise PeersError(f"no answer within {SECONDS} seconds") from error
    if done.returncode:
        raise PeersError(f"the worker failed: {done.stderr.strip()[-300:]}")
    answers = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return {answer["id"]: answer["tools"] for answer in answers}


def text(answers: Mapping[str, Mapping[str, Any]]) -> str:
    """The file, one line a case; times are left out, for no two runs share them."""

    def kept(found: Mapping[str, Any]) -> dict[str, Any]:
        rounded = {k: round(v) if isinstance(v, float) else v for k, v in found.items()}
        return {k: v for k, v in rounded.items() if k != "milliseconds"}

    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps({tool: kept(found) for tool, found in tools.items()})}"
        for name, tools in answers.items()
    )
    about = "What other tools say, asked by tools/peers.py: bytes per GPU; the cache needed is of all GPUs."
    versions = {pin.split("==")[0].split("[")[0]: pin.split("==")[1] for pin in pins()}
    return (
        f'{{\n "about": {json.dumps(about)},\n "versions": {json.dumps(versions)},\n'
        f' "answers": {{\n{lines}\n }}\n}}\n'
    )


def run() -> dict[str, Any]:
    """Ask every tool about every case and write the file; the answers with their times.

    Raises:
        PeersError: the tools cannot be asked.
    """
    python = environment_python()
    models = recorded_models()
    with FakeHub(repositories(models)) as hub:
        answers = ask(python, hub.endpoint, cases(models))
    files.write_text(PEERS, text(answers))
    return answers


def main() -> int:
    """Write the file; exit 2 where the tools cannot be asked."""
    try:
        answers = run()
    except PeersError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    print(f"{PEERS.name}: {len(answers)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())

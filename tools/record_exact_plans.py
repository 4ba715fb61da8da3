#!/usr/bin/env python3
"""Write vLLM's exact plan of configuration directories as JSON, at every tensor-parallel size that is legal.

    tools/record_exact_plans.py --output DIR CONFIG_DIR…

One file a directory, named after it. A size that vLLM refuses is recorded with vLLM's reason. Nothing in a file
depends on the machine or the time, so that recording twice gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kaito_catalog.vllm import Gpu, Worker, WorkerError, find_python  # noqa: E402

DEFAULT_VERSION = "0.25.1"
DEFAULT_SIZES = (1, 2, 4, 8)
DEFAULT_GPU: Gpu = {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memoryBytes": 80 * 1024**3}

# What a plan depends on besides the arguments.
CONFIGURATION_FILES = ("config.json", "params.json", "hf_quant_config.json")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directories", nargs="+", type=Path, metavar="CONFIG_DIR")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vllm-version", default=DEFAULT_VERSION)
    parser.add_argument("--vllm-python")
    parser.add_argument("--tensor-parallel-sizes", type=int, nargs="+", default=list(DEFAULT_SIZES))
    parser.add_argument("--max-model-len", type=int, help="tokens (default: the model's own limit)")
    parser.add_argument("--kv-cache-dtype")
    parser.add_argument(
        "--gpu", type=json.loads, default=DEFAULT_GPU, help="JSON: name, capability, memoryBytes"
    )
    parser.add_argument(
        "--time-limit", type=float, default=300.0, help="seconds for one plan (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        python = find_python(options.vllm_python, root=ROOT)
    except WorkerError as error:
        print(f"record_exact_plans: {error}", file=sys.stderr)
        return 1
    worker = Worker(python)
    refused = 0
    try:
        for directory in options.directories:
            plans = []
            for size in options.tensor_parallel_sizes:
                if not worker.alive:
                    worker = Worker(python)
                entry = plan_once(worker, directory, size, options)
                plans.append(entry)
                refused += "refused" in entry
                print(summary(directory, entry), file=sys.stderr, flush=True)
            write(options.output / f"{directory.name}.json", document(directory, plans, options))
        worker.close()
    except BaseException:
        worker.kill()
        raise
    print(f"{len(options.directories)} configurations recorded, {refused} plans refused", file=sys.stderr)
    return 0


def plan_once(worker: Worker, directory: Path, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The plan or vLLM's refusal."""
    args: dict[str, Any] = {"tensor_parallel_size": size}
    if options.max_model_len is not None:
        args["max_model_len"] = options.max_model_len
    if options.kv_cache_dtype is not None:
        args["kv_cache_dtype"] = options.kv_cache_dtype
    try:
        plan = worker.exact_plan(
            directory,
            args=args,
            gpu=options.gpu,
            vllm_version=options.vllm_version,
            time_limit_seconds=options.time_limit,
        )
    except WorkerError as error:
        refusal = {"class": error.failure_class, "words": error.words}
        return {"tensorParallelSize": size, "refused": refusal}
    timeless = {key: value for key, value in plan.items() if key != "seconds"}
    return {"tensorParallelSize": size, "plan": timeless}


def document(directory: Path, plans: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "kind": "ExactPlans",
        "model": directory.name,
        "configuration": digests(directory),
        "vllmVersion": options.vllm_version,
        "gpu": options.gpu,
        "plans": plans,
    }


def digests(directory: Path) -> dict[str, str]:
    """sha256 of the files a plan depends on."""
    present = [directory / name for name in CONFIGURATION_FILES if (directory / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in present}


def summary(directory: Path, entry: dict[str, Any]) -> str:
    start = f"{directory.name} TP{entry['tensorParallelSize']}:"
    if "refused" in entry:
        return f"{start} {entry['refused']['class']}: {entry['refused']['words'][:150]}"
    weights, needed = entry["plan"]["perGPU"]["weightsBytes"], entry["plan"]["kvCache"]["neededBytes"]
    return f"{start} weights {weights:,} B, KV for one request {needed:,} B"


def write(path: Path, value: dict[str, Any]) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    sys.exit(main())

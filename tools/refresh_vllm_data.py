#!/usr/bin/env python3
"""Write `kaito_catalog/data/vllm-<version>.json`: the options, architectures and parsers of each vLLM version in use.

Asks every version's own parser and registries through the worker (`make vllm` first), so that `check` needs no vLLM.
The only figures written by hand are the removed options below.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kaito_catalog.vllm_bridge.client import Worker, find_python  # noqa: E402
from kaito_catalog.vllm_bridge.conversation import WorkerError  # noqa: E402
from tools.setup_vllm import OVERLAYS  # noqa: E402

VERSIONS = tuple(OVERLAYS)
DATA = ROOT / "kaito_catalog" / "data"
KINDS = ("options", "architectures", "toolParsers", "reasoningParsers")


class Removed(NamedTuple):
    """An option that is gone: the last release seen with it, the first seen without it, and what to do instead."""

    last_version: str
    gone_by: str
    advice: str
    replacement: str | None = None


# Read off the option strings in `vllm/engine/arg_utils.py` and `vllm/entrypoints/openai/cli_args.py` of the wheels of
# 0.8.5, 0.10.2, 0.12.0, 0.14.0, 0.15.0, 0.16.0, 0.17.0, 0.17.1, 0.18.0, 0.20.2 and 0.22.1: an option may have gone
# in any release after `last_version` and up to `gone_by`. Only swap-space's two are neighbours.
REMOVED_OPTIONS = {
    "cuda-graph-sizes": Removed(
        "0.12.0", "0.14.0", "list the sizes in cudagraph-capture-sizes", "cudagraph-capture-sizes"
    ),
    "device": Removed("0.8.5", "0.10.2", "leave it out: the device follows from the build"),
    "disable-async-output-proc": Removed("0.10.2", "0.12.0", "leave it out: the V1 engine has no such step"),
    "disable-log-requests": Removed(
        "0.16.0", "0.17.0", "leave it out: requests are only logged when asked", "enable-log-requests"
    ),
    "disable-mm-preprocessor-cache": Removed(
        "0.12.0", "0.14.0", "set mm-processor-cache-gb to 0", "mm-processor-cache-gb"
    ),
    "enable-lora-bias": Removed("0.10.2", "0.12.0", "leave it out: LoRA biases are no longer loaded"),
    "enable-multimodal-encoder-data-parallel": Removed(
        "0.12.0", "0.14.0", "set mm-encoder-tp-mode to data", "mm-encoder-tp-mode"
    ),
    "enable-prompt-adapter": Removed("0.8.5", "0.10.2", "leave it out: prompt adapters are gone"),
    "enable-reasoning": Removed(
        "0.8.5", "0.10.2", "leave it out: reasoning-parser alone switches it on", "reasoning-parser"
    ),
    "guided-decoding-backend": Removed(
        "0.10.2", "0.12.0", "name the backend in structured-outputs-config", "structured-outputs-config"
    ),
    "long-lora-scaling-factors": Removed("0.8.5", "0.10.2", "leave it out: long LoRA is gone"),
    "lora-extra-vocab-size": Removed(
        "0.10.2", "0.12.0", "leave it out: adapters cannot extend the vocabulary"
    ),
    "max-seq-len-to-capture": Removed(
        "0.10.2", "0.12.0", "limit the batch with max-cudagraph-capture-size", "max-cudagraph-capture-size"
    ),
    "multi-step-stream-outputs": Removed("0.8.5", "0.10.2", "leave it out: multi-step scheduling is gone"),
    "num-lookahead-slots": Removed("0.10.2", "0.12.0", "leave it out: speculation sets its own slots"),
    "num-scheduler-steps": Removed("0.8.5", "0.10.2", "leave it out: multi-step scheduling is gone"),
    "override-pooler-config": Removed("0.10.2", "0.12.0", "use pooler-config", "pooler-config"),
    "preemption-mode": Removed("0.10.2", "0.12.0", "leave it out: preempted requests are recomputed"),
    "rope-scaling": Removed("0.10.2", "0.12.0", "override the model's field in hf-overrides", "hf-overrides"),
    "rope-theta": Removed("0.10.2", "0.12.0", "override the model's field in hf-overrides", "hf-overrides"),
    "scheduler-delay-factor": Removed("0.10.2", "0.12.0", "leave it out: the V1 scheduler has no delay"),
    "swap-space": Removed(
        "0.17.1", "0.18.0", "leave it out: the V1 engine recomputes preempted requests and never swapped them"
    ),
    "task": Removed("0.12.0", "0.14.0", "use runner, and convert where it is needed", "runner"),
    "use-v2-block-manager": Removed("0.8.5", "0.10.2", "leave it out: there is one block manager"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vllm-python", help="the Python that has vLLM (default: .venv-vllm)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a file would change"
    )
    arguments = parser.parse_args(argv)
    try:
        python = find_python(arguments.vllm_python, root=ROOT)
        with Worker(python, progress=lambda text: print(f"  {text}", file=sys.stderr)) as worker:
            surfaces = {version: read_surface(worker, version) for version in VERSIONS}
    except WorkerError as error:
        print(f"refresh_vllm_data: {error}", file=sys.stderr)
        return 1
    changed = [version for version in VERSIONS if update(version, surfaces, write=not arguments.check)]
    for version in changed:
        print(f"{'would change' if arguments.check else 'wrote'} {data_file(version).relative_to(ROOT)}")
    return 1 if arguments.check and changed else 0


def read_surface(worker: Worker, version: str) -> dict[str, Any]:
    """What one version knows, without the versions of the libraries around it."""
    print(f"vLLM {version}", file=sys.stderr)
    registry = dict(worker.registry(vllm_version=version))
    surface = registry | dict(worker.options(vllm_version=version))
    return {name: value for name, value in surface.items() if not name.endswith("Version")}


def content(version: str, surfaces: dict[str, dict[str, Any]]) -> str:
    surface = surfaces[version]
    options = {name: without_name(option) for name, option in sorted(surface["options"].items())}
    document = {
        "vllmVersion": version,
        "source": f"vLLM {version}'s own parser and registries, read by tools/refresh_vllm_data.py",
        "options": options,
        "removedOptions": removed_options(surfaces, version),
        "architectures": surface["architectures"],
        "loraArchitectures": surface["loraArchitectures"],
        "architectureEndings": surface["architectureEndings"],
        "removedArchitectures": surface["removedArchitectures"],
        "toolParsers": surface["toolParsers"],
        "reasoningParsers": surface["reasoningParsers"],
        # So that something unknown here can be said to be known elsewhere.
        "onlyIn": {
            other: {kind: sorted(set(surfaces[other][kind]) - set(surface[kind])) for kind in KINDS}
            for other in VERSIONS
            if other != version
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def without_name(option: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in option.items() if key != "name"}


def removed_options(surfaces: dict[str, dict[str, Any]], version: str) -> dict[str, dict[str, str]]:
    """The removed options that `version` indeed does not know; with those that went between the versions read here."""
    known = surfaces[version]["options"]
    removed: dict[str, dict[str, str]] = {}
    for name, option in REMOVED_OPTIONS.items():
        if name in known:
            raise SystemExit(f"{name} is listed as removed, but vLLM {version} has it")
        if option.replacement is not None and option.replacement not in known:
            raise SystemExit(
                f"the advice on {name} names {option.replacement}, which vLLM {version} does not have"
            )
        removed[name] = {
            "lastVersion": option.last_version,
            "goneBy": option.gone_by,
            "advice": option.advice,
            **({"replacement": option.replacement} if option.replacement else {}),
        }
    for earlier in VERSIONS[: VERSIONS.index(version)]:
        for name in set(surfaces[earlier]["options"]) - set(known):
            removed[name] = {"lastVersion": earlier, "goneBy": version, "advice": "leave it out"}
    return dict(sorted(removed.items()))


def data_file(version: str) -> Path:
    return DATA / f"vllm-{version}.json"


def update(version: str, surfaces: dict[str, dict[str, Any]], *, write: bool) -> bool:
    """Bring the file up to date; whether it was not."""
    path, text = data_file(version), content(version, surfaces)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    return True


if __name__ == "__main__":
    sys.exit(main())

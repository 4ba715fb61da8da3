"""What encoders hold while vLLM profiles them: vLLM's own classes on the meta device against the plan.

python -m tools.encoder_peaks            the recorded figures beside the plan's
python -m tools.encoder_peaks --record   ask vLLM 0.25.1 again (`make vllm` first)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.overheads.encoder_profile import EncoderProfile, encoder_profile
from kaito_catalog.memory.overheads.profile_run import ProfileRun
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.client import find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from tools.exact_models import EXACT_PLANS, SMALL_PLANS, read

PEAKS = EXACT_PLANS.with_name("encoder_peaks.json")
VERSION = "0.25.1"
QWEN_IMAGE = {"kind": "grid", "count": 1, "height": 256, "width": 256}

CASES: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen3.5-2B": QWEN_IMAGE | {"pixels": 1536},
    "Qwen/Qwen3.5-9B": QWEN_IMAGE | {"pixels": 1536},
    "Qwen/Qwen3-VL-4B-Instruct": QWEN_IMAGE | {"pixels": 1536},
    "Qwen/Qwen3-VL-32B-Instruct": QWEN_IMAGE | {"pixels": 1536},
    "Qwen/Qwen2.5-VL-7B-Instruct": QWEN_IMAGE | {"pixels": 1176},
    "Qwen2VLForConditionalGeneration": QWEN_IMAGE | {"pixels": 1176},
    "LlavaForConditionalGeneration": {"kind": "images", "count": 14, "height": 336, "width": 336},
    "LlavaForConditionalGeneration-2": {"kind": "images", "count": 14, "height": 336, "width": 336},
}
"""The item that vLLM profiles each with, where a batch holds 8192 tokens and a context as many."""
BATCH = 8192


def planned(config: Mapping[str, Any]) -> EncoderProfile:
    """What the plan reckons for such a batch on one GPU."""
    shape = read_shape(config)
    assert isinstance(shape, Shape)
    run = ProfileRun(
        as_built(shape, VERSION),
        max_num_batched_tokens=BATCH,
        max_num_seqs=256,
        max_model_len=BATCH,
        vllm_version=VERSION,
    )
    found = encoder_profile(run)
    assert found is not None
    return found


def configurations() -> dict[str, Mapping[str, Any]]:
    """The configurations of CASES, by name."""
    return {m.name: m.config for m in (*read(EXACT_PLANS), *read(SMALL_PLANS)) if m.name in CASES}


def ask(python: Path, name: str, config: Mapping[str, Any]) -> dict[str, int]:
    """What vLLM's encoder holds.

    Raises:
        RuntimeError: it did not run, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        request = {"model": folder, "version": VERSION, **CASES[name]}
        done = subprocess.run(
            [python, Path(__file__).with_name("encoder_worker.py")],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return answer


def record() -> None:
    """Ask for every configuration."""
    python = find_python(root=Path(__file__).resolve().parents[1])
    known = {}
    for name, config in configurations().items():
        print(f"asking vLLM {VERSION} about {name}", file=sys.stderr)
        known[name] = ask(python, name, config)
    content = {"vllmVersion": VERSION, "encoders": dict(sorted(known.items()))}
    files.write_text(PEAKS, json.dumps(content, indent=2) + "\n")


def recorded() -> dict[str, dict[str, int]]:
    """Name to peakBytes, inputBytes, outputBytes."""
    found: dict[str, dict[str, int]] = json.loads(PEAKS.read_text(encoding="utf-8"))["encoders"]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit 2 where vLLM cannot be asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="ask vLLM's own classes again")
    options = parser.parse_args(arguments)
    if options.record:
        try:
            record()
        except (WorkerError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    print(f"| encoder of | vLLM {VERSION}, MB | plan, MB | difference | kept beside the decoder, plan |")
    print("|---|---|---|---|---|")
    found = configurations()
    for name, said in recorded().items():
        plan = planned(found[name])
        kept = (plan.kept_bytes - said["inputBytes"] - said["outputBytes"]) / said["peakBytes"]
        print(
            f"| {name} | {said['peakBytes'] / 1e6:,.0f} | {plan.peak_bytes / 1e6:,.0f} "
            f"| {plan.peak_bytes / said['peakBytes'] - 1:+.1%} | {kept:+.1%} of the peak |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

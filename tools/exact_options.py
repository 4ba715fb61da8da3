"""Record what vLLM's own planner makes of options that change the KV cache or the weights, and compare plans with it.

    python -m tools.exact_options --record [--version V] [--only WORD]     needs an environment with vLLM
    python -m tools.exact_options

`CASES` has the command lines; tests/data/exact_options.json the answers of each version. A case that a version refuses
is recorded with the refusal's first words.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.given_options import read_options
from kaito_catalog.plans.serve_options import read_serve_options
from kaito_catalog.system.files import write_text
from kaito_catalog.vllm_bridge.answers import GpuToSimulate
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.evidence import model_directory

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "data" / "exact_options.json"
VERSIONS = ("0.25.1", "0.32.0")
GPUS: Mapping[str, GpuToSimulate] = {
    "T4": {"name": "Tesla T4", "capability": "7.5", "memoryBytes": 15_633_680_957},
    "A100": {"name": "NVIDIA A100 80GB", "capability": "8.0", "memoryBytes": 85_045_870_592},
    "H100": {"name": "NVIDIA H100 80GB", "capability": "9.0", "memoryBytes": 85_045_870_592},
    "B200": {"name": "NVIDIA B200", "capability": "10.0", "memoryBytes": 191_000_000_000},
}
WORDS_OF_A_REFUSAL = 160
NOT_HERE = ("tilelang is required", "WorkspaceManager not initialized")
"""How refusals begin that are not vLLM's: what the environment lacks that plays a GPU."""


class Case(NamedTuple):
    """A command line of `vllm serve`."""

    model: str
    """An entry of the catalog, or a configuration of tests/configs."""
    arguments: str
    gpu: str = "H100"

    @property
    def key(self) -> str:
        """Its name in the recorded answers."""
        return f"{self.model} {self.arguments} on {self.gpu}"


_HYBRID = "--tensor-parallel-size 4 --max-model-len 32768"
_MOE_HYBRID = "--tensor-parallel-size 2 --max-model-len 32768"
_ONE = "--max-model-len 32768"
_YARN = (
    '{"rope_parameters":{"rope_type":"yarn","rope_theta":1000000,"factor":4.0,'
    '"original_max_position_embeddings":32768}}'
)
_SHORT = "--max-model-len 8192"
_GEMMA = "--max-model-len 131072"
_SPLIT = "--tensor-parallel-size 8 --max-model-len 32768"

CASES: tuple[Case, ...] = (
    *(
        Case("qwen3-next-80b", f"{_HYBRID} {options}".strip())
        for options in (
            "",
            "--enable-prefix-caching",
            "--no-enable-prefix-caching",
            "--mamba-cache-mode align",
            "--block-size 64",
            "--block-size 512",
            "--block-size 128 --enable-prefix-caching",
            "--mamba-cache-dtype float32",
            "--mamba-ssm-cache-dtype float32",
        )
    ),
    *(
        Case("qwen3.6-35b-a3b", f"{_MOE_HYBRID} {options}".strip())
        for options in (
            "",
            "--enable-prefix-caching",
            "--mamba-ssm-cache-dtype float16",
            "--mamba-cache-dtype float16",
            "--mamba-cache-dtype float32",
        )
    ),
    *(
        Case("nvidia-nemotron-3-nano-4b-bf16", f"{_ONE} {options}".strip())
        for options in (
            "",
            "--no-enable-prefix-caching",
            "--enable-prefix-caching --mamba-cache-mode align",
            "--mamba-ssm-cache-dtype float16",
            "--mamba-cache-dtype float32",
        )
    ),
    *(
        Case("gemma-3-27b-text", f"{_GEMMA} {options}".strip())
        for options in ("", "--block-size 32", "--block-size 128")
    ),
    *(
        Case("gemma-3-27b-text", f"{_GEMMA} {options}")
        for options in (
            "--no-async-scheduling",
            "--no-enable-chunked-prefill",
            "--performance-mode throughput",
            '--kv-transfer-config {"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}',
            '--kv-transfer-config {"kv_connector":"OffloadingConnector","kv_role":"kv_both"}',
            "--kv-offloading-size 4",
        )
    ),
    Case("gpt-oss-20b", f"{_GEMMA} --block-size 64"),
    Case("llama-3.1-8b-instruct", "--max-model-len 8192 --block-size 16"),
    Case("llama-3.1-8b-instruct", "--max-model-len 8192 --block-size 128"),
    Case("llama-3.1-8b-instruct", "--max-model-len 8192 --block-size 128", "B200"),
    Case("deepseek-v3", f"{_SPLIT} --block-size 64"),
    Case("deepseek-v3", f"{_SPLIT} --decode-context-parallel-size 4"),
    Case("llama-70b", "--tensor-parallel-size 16 --max-model-len 8191 --decode-context-parallel-size 2"),
    Case("glm-5.2-fp8", f"{_SPLIT} --kv-cache-dtype bfloat16 --decode-context-parallel-size 4", "B200"),
    Case(
        "deepseek-v4-flash-0731",
        "--tensor-parallel-size 4 --max-model-len 32768 --kv-cache-dtype fp8 --block-size 256",
    ),
    Case("qwen3.6-27b", f"{_SHORT} --tensor-parallel-size 2 --mm-encoder-tp-mode data"),
    Case("gemma-3-27b", f"{_SHORT} --tensor-parallel-size 2 --mm-encoder-tp-mode data"),
    Case("llama-3.1-8b-instruct", f"{_SHORT} --dtype float16"),
    Case("llama-3.1-8b-instruct", f"{_SHORT} --dtype float32"),
    Case("llama-3.1-8b-instruct", f"{_SHORT} --dtype float32 --tensor-parallel-size 2", "A100"),
    Case("llama-3.1-8b-instruct", _SHORT, "T4"),
    Case("llama-3.1-8b-instruct", f"{_SHORT} --dtype half", "T4"),
    Case("gemma-3-27b-text", f"{_SHORT} --dtype float16"),
    Case("gemma-3-27b-text", f"{_SHORT} --dtype float"),
    Case("gemma-3-27b-text", _SHORT, "T4"),
    Case("qwen3.6-27b", f"{_SHORT} --dtype half"),
    Case("gpt-oss-20b", f"{_SHORT} --dtype float16"),
    Case("qwen3-32b", f"--tensor-parallel-size 2 --max-model-len 131072 --hf-overrides {_YARN}"),
    Case(
        "llama-3.1-8b-instruct",
        '--max-model-len 262144 --hf-overrides {"max_position_embeddings":262144}',
    ),
    Case(
        "gemma-3-27b",
        '--max-model-len 262144 --hf-overrides {"text_config":{"max_position_embeddings":262144}}',
    ),
    Case("gemma-3-27b", '--max-model-len 262144 --hf-overrides {"max_position_embeddings":262144}'),
)


@lru_cache(maxsize=32)
def config_of(model: str) -> Mapping[str, Any]:
    """The configuration of an entry of the catalog, or of tests/configs."""
    path = ROOT / "tests" / "configs" / f"{model}.json"
    if path.is_file():
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    facts = read_entry(ROOT / "catalog" / "models" / model).facts
    assert facts is not None
    assert facts.config is not None
    return facts.config


def plan_of(case: Case, version: str) -> Plan:
    """What the plan says of the command line."""
    shape = read_shape(config_of(case.model))
    assert isinstance(shape, Shape)
    given = read_serve_options(case.arguments.split(), version)
    config = dict(given.as_config())
    sizes = {
        name: int(config.pop(f"{name.replace('_', '-')}", 1))
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    }
    experts = config.pop("enable-expert-parallel", None) is not None
    settings = Settings(int(config.pop("max-model-len")), 0.92)
    found = read_options(Runtime.model_validate({"name": "vllm", "config": config}))
    options: dict[str, Any] = {option.attribute: value for option, value in found.planned}
    gpu = GPUS[case.gpu]
    return make_plan(
        PlanRequest(
            shape,
            gpu=PlanGpu(gpu["name"], gpu["memoryBytes"], float(gpu["capability"])),
            parallelism=Parallelism(**sizes, enable_expert_parallel=experts),
            settings=replace(settings, unplanned=found.unplanned, **options),
            vllm_version=version,
        )
    )


def recorded() -> dict[str, dict[str, dict[str, Any]]]:
    """Case → version → what vLLM says."""
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def ask(worker: Worker, case: Case, version: str) -> dict[str, Any]:
    """What that version of vLLM says of the command line."""
    with model_directory(config_of(case.model)) as folder:
        try:
            answer = worker.exact_plan(
                folder,
                arguments=case.arguments.split(),
                gpu=GPUS[case.gpu],
                vllm_version=version,
                after_loading=False,
            )
        except WorkerError as error:
            if not worker.alive:
                raise
            return {"refused": " ".join(error.words.split())[:WORDS_OF_A_REFUSAL]}
    cache = answer["kvCache"]
    return {
        "weightsBytes": answer["perGPU"]["weightsBytes"],
        "poolBytes": cache["neededBytes"],
        "blockBytes": cache.get("blockBytes"),
    }


def differences(plan: Plan, answer: Mapping[str, Any]) -> list[str]:
    """Where the plan differs from vLLM's answer; none where vLLM refuses, or the plan is unknown."""
    if "refused" in answer or plan.per_gpu is None or plan.kv_cache is None:
        return []
    figures = {
        "weightsBytes": plan.per_gpu.weights_bytes,
        "poolBytes": plan.kv_cache.request_bytes,
    }
    return [
        f"{name}: planned {value:,}, vLLM {answer[name]:,}"
        for name, value in figures.items()
        if answer[name] is not None and value != answer[name]
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Record the cases, or print how each plan compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="ask vLLM, and write what it says")
    parser.add_argument("--version", choices=VERSIONS, help="default: all")
    parser.add_argument("--only", default="", metavar="WORD", help="cases that have it in their key")
    parser.add_argument("--vllm-python", metavar="PATH")
    arguments = parser.parse_args(argv)
    versions = [arguments.version] if arguments.version else list(VERSIONS)
    cases = [case for case in CASES if arguments.only in case.key]
    if arguments.record:
        record(cases, versions, find_python(arguments.vllm_python, root=ROOT))
    wrong = 0
    answers = recorded()
    for case in cases:
        for version in versions:
            answer, plan = answers.get(case.key, {}).get(version), plan_of(case, version)
            found = ["not recorded"] if answer is None else differences(plan, answer)
            said = "; ".join(found) or (answer or {}).get("refused") or plan.reason or "equal"
            print(f"{version} {case.key}: {plan.fits.value}, {said}")
            wrong += bool(found)
    return 1 if wrong else 0


def record(cases: Sequence[Case], versions: Sequence[str], python: Path) -> None:
    """Ask vLLM for the cases that are not recorded, and write its answers."""
    answers = recorded() if RECORDED.is_file() else {}
    answers = {case.key: answers.get(case.key, {}) for case in CASES}
    for version in versions:
        missing = [case for case in cases if version not in answers[case.key]]
        if not missing:
            continue
        with Worker(python) as worker:
            for case in missing:
                print(version, case.key, file=sys.stderr, flush=True)
                answers[case.key][version] = ask(worker, case, version)
                _write({key: value for key, value in answers.items() if value})


def _write(answers: Mapping[str, Any]) -> None:
    lines = [
        f" {json.dumps(key)}: {{\n"
        + ",\n".join(f"  {json.dumps(v)}: {json.dumps(answer)}" for v, answer in sorted(by.items()))
        + "\n }"
        for key, by in answers.items()
    ]
    write_text(RECORDED, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())

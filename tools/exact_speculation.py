"""Compare plans with speculative decoding with vLLM's own loaders and planner: equal to the byte, or refused by both.

    python -m tools.exact_speculation                     the table, from tests/data/speculation.json
    python -m tools.exact_speculation --record [NAME …]   ask vLLM again (needs .venv-vllm)

A case is a model, `speculative-config`, and the configuration of the drafter where that is a model of its own. vLLM's
figures are exact plans on a simulated H100 80GB, as in tools/exact_models.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Drafter, Unsupported, read_shape
from kaito_catalog.architectures.drafts import read_draft
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.speculation.config import read_speculation
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.exact_plans import H100
from tools.configurations import unfolded
from tools.exact_models import VERSIONS, files_beside, own_class

CASES = Path(__file__).resolve().parents[1] / "tests" / "data" / "speculation.json"
SPLITS = ("tensor_parallel_size", "pipeline_parallel_size", "enable_expert_parallel")


@dataclass(frozen=True)
class Case:
    """A model and how tokens are guessed for it."""

    name: str
    value: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration."""
        found: dict[str, Any] = unfolded(self.value["config"])
        return found

    @property
    def quantization(self) -> dict[str, Any] | None:
        """hf_quant_config.json, where that lies beside it."""
        found: dict[str, Any] | None = unfolded(self.value.get("quantization"))
        return found

    @property
    def draft(self) -> dict[str, Any] | None:
        """The drafter's configuration, where it is a model of its own."""
        found: dict[str, Any] | None = self.value.get("draft")
        return found

    @property
    def folder(self) -> str:
        """What the drafter's folder is called: vLLM looks for the method in that."""
        return str(self.value.get("folder", "draft"))

    @property
    def speculation(self) -> dict[str, Any]:
        """`speculative-config`."""
        beside = {"model": self.folder} if self.draft is not None else {}
        return {**self.value["speculation"], **beside}


def cases() -> list[Case]:
    """The recorded cases."""
    return [
        Case(name, value) for name, value in json.loads(CASES.read_text(encoding="utf-8"))["cases"].items()
    ]


def plan_of(case: Case, world: Mapping[str, Any], vllm_version: str) -> Plan:
    """What the plan says of a case in one split."""
    options = {name: value for name, value in world.items() if name not in SPLITS}
    method = read_speculation(json.dumps(case.speculation)).method
    draft: Drafter | Unsupported | None = None
    if case.draft is not None:
        draft = read_draft(case.draft, method.value)
    return make_plan(
        PlanRequest(
            read_shape(case.config, quantization=case.quantization),
            gpu=PlanGpu("NVIDIA H100 80GB", int(H100["memoryBytes"]), float(H100["capability"])),
            parallelism=Parallelism(
                world.get("tensor_parallel_size", 1),
                world.get("pipeline_parallel_size", 1),
                enable_expert_parallel=world.get("enable_expert_parallel", False),
            ),
            settings=Settings(
                case.value["maxModelLen"],
                0.92,
                speculative_config=json.dumps(case.speculation, sort_keys=True),
                draft=draft,
                **options,
            ),
            vllm_version=vllm_version,
        )
    )


@dataclass(frozen=True)
class Comparison:
    """One split of one case with one version."""

    case: str
    world: str
    version: str
    difference: str | None
    """None where both say the same."""


def compare(case: Case, version: str) -> Iterator[Comparison]:
    """Every recorded split of a case."""
    for name, said in case.value["plans"].get(version, {}).items():
        plan = plan_of(case, case.value["worlds"][name], version)
        yield Comparison(case.name, name, version, _difference(plan, said))


def _difference(plan: Plan, said: Mapping[str, Any]) -> str | None:
    if "refused" in said:
        refuses = plan.fits is Fit.NO and plan.per_gpu is None
        return None if refuses else f"vLLM refuses: {said['refused']}"
    if plan.per_gpu is None or plan.kv_cache is None:
        return plan.reason
    parts = []
    if plan.per_gpu.weights_bytes not in said["weights"]:
        parts.append(f"weights {plan.per_gpu.weights_bytes:,}, vLLM {said['weights']}")
    if plan.kv_cache.request_bytes != said["needed"]:
        parts.append(f"KV cache {plan.kv_cache.request_bytes:,}, vLLM {said['needed']:,}")
    return "; ".join(parts) or None


def record(case: Case, version: str) -> dict[str, Any]:
    """What vLLM says of a case in every split."""
    found: dict[str, Any] = {}
    code = own_class(case.config)
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as parent, Worker(find_python()) as worker:
        folder, drafter = Path(parent, "model"), Path(parent, case.folder)
        beside = {"config.json": case.config, "hf_quant_config.json": case.quantization}
        _write(folder, {**beside, **files_beside(case.value.get("small", ""))})
        if code is not None:
            (folder / "configuration.py").write_text(code, encoding="utf-8")
        speculation = case.speculation
        if case.draft is not None:
            _write(drafter, {"config.json": case.draft})
            speculation["model"] = str(drafter)
        for name, world in case.value["worlds"].items():
            arguments = {
                **world,
                "max_model_len": case.value["maxModelLen"],
                "speculative_config": speculation,
                **({"trust_remote_code": True} if code is not None else {}),
            }
            try:
                plan = worker.exact_plan(
                    folder, args=arguments, gpu=H100, vllm_version=version, after_loading=False
                )
            except WorkerError as error:
                if error.failure_class in ("no-python", "no-vllm", "no-version"):
                    raise
                found[name] = {"refused": " ".join(error.words.split())[:160]}
                continue
            ranks = {rank["pipelineRank"]: rank for rank in plan["ranks"] if rank["tensorRank"] == 0}
            found[name] = {
                "weights": [ranks[i]["weightsBytes"] for i in sorted(ranks)],
                "needed": plan["kvCache"]["neededBytes"],
            }
    return found


def _write(folder: Path, contents: Mapping[str, Any]) -> None:
    folder.mkdir()
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


def text(found: Mapping[str, Any]) -> str:
    """The file, one line a case."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    about = (
        "What vLLM's own loaders and planner say of models with a drafter, recorded by tools/exact_speculation.py: "
        "bytes per rank of each pipeline stage, and the KV cache that vLLM wants free for one request. "
        "Configurations hold dimensions only."
    )
    return f'{{\n "about": {json.dumps(about)},\n "cases": {{\n{lines}\n }}\n}}\n'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--record", action="store_true", help="ask vLLM again")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if not arguments.names or case.name in arguments.names]
    if arguments.record:
        for case in chosen:
            plans = {version: record(case, version) for version in VERSIONS}
            whole = {c.name: c.value for c in cases()} | {case.name: {**case.value, "plans": plans}}
            files.write_text(CASES, text(whole))
            print(f"{case.name}: recorded", file=sys.stderr, flush=True)
        return 0
    compared = [c for case in chosen for version in VERSIONS for c in compare(case, version)]
    for c in compared:
        print(f"{c.version} {c.case} {c.world}: {c.difference or 'equal'}")
    return int(any(c.difference for c in compared))


if __name__ == "__main__":
    sys.exit(main())

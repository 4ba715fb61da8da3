"""Compare the plan with vLLM's own classes, model by model: equal to the byte, bounded, or refused by vLLM.

    python -m tools.exact_models                      the table, from tests/data/exact_plans.json
    python -m tools.exact_models --record [NAME …] [--configs DIR]
                                                      ask vLLM again (needs .venv-vllm), about ORG__NAME.json of DIR
    python -m tools.exact_models --small [--record]   the same of made-up configurations, small ones

vLLM's figures are exact plans: its model classes on torch's meta device on a simulated H100 80GB, and its own KV cache
planner, with the defaults of `vllm serve` there (8192 batched tokens, 1024 sequences) and one request of 32,768
tokens or the model's limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, states_per_sequence
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over, stages
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.exact_plans import H100
from tools.configurations import folded, smallest, smallest_quantization, unfolded
from tools.observed import STARTS
from tools.setup_vllm import OVERLAYS

EXACT_PLANS = Path(__file__).resolve().parents[1] / "tests" / "data" / "exact_plans.json"
VERSIONS = tuple(OVERLAYS)
"""Of which .venv-vllm has the classes."""
SMALL_PLANS = EXACT_PLANS.with_name("exact_small.json")
"""Made-up configurations, as small as may be: one of each architecture of which there is no real one here, and ways to
quantise weights. Those in GPTQ list their modules, since vLLM else looks into the weight files for them."""
MOST_TOKENS = 32_768
LONGEST_CONFIG = 4_000
"""Characters of a configuration that is committed, once its lists of modules are folded."""

INCOMPLETE = frozenset({"Qwen/Qwen3.6-27B-FP8"})
"""Started models of which no publication names the modules that stay unquantised."""


@dataclass(frozen=True)
class World:
    """How a model is split."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    enable_expert_parallel: bool = False
    kv_cache_dtype: str = "auto"
    attention_backend: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """vLLM's arguments for it."""
        found: dict[str, Any] = {
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
        }
        if self.enable_expert_parallel:
            found["enable_expert_parallel"] = True
        if self.kv_cache_dtype != "auto":
            found["kv_cache_dtype"] = self.kv_cache_dtype
        if self.attention_backend is not None:
            found["attention_backend"] = self.attention_backend
        return found


WORLDS = {
    "tp1": World(),
    "tp2": World(2),
    "tp4": World(4),
    "tp8": World(8),
    "tp8ep": World(8, enable_expert_parallel=True),
    "pp2": World(1, 2),
    "tp2pp3": World(2, 3),
    "fp8": World(kv_cache_dtype="fp8"),
}


@dataclass(frozen=True)
class Model:
    """A configuration, its quantisation where that lies beside it, and what vLLM said of it."""

    name: str
    config: Mapping[str, Any]
    quantization: Mapping[str, Any] | None
    plans: Mapping[str, Mapping[str, Any]]


def whole_configuration(
    name: str, published: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """config.json and hf_quant_config.json as published, where they lie in that folder, else as committed here."""
    path = published / f"{name.replace('/', '__')}.json" if published else None
    if path is not None and path.exists():
        beside = path.with_name(f"{path.stem}.hf_quant_config.json")
        quantization = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else None
        return json.loads(path.read_text(encoding="utf-8")), quantization
    if name in INCOMPLETE:
        return None
    for recorded in (EXACT_PLANS, SMALL_PLANS, STARTS):
        value = json.loads(recorded.read_text(encoding="utf-8"))["models"].get(name)
        if value is not None:
            return unfolded(value["config"]), unfolded(value.get("quantization"))
    return None


def read(path: Path = EXACT_PLANS) -> list[Model]:
    """The recorded models."""
    return [
        Model(name, unfolded(value["config"]), unfolded(value.get("quantization")), value["plans"])
        for name, value in json.loads(path.read_text(encoding="utf-8"))["models"].items()
    ]


# --- the plan's side --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """Bytes on a rank of each pipeline stage, and the KV cache that one request needs."""

    weights: tuple[int, ...] | None
    """None: of an encoder that is not planned here."""
    needed: int


def planned(
    shape: Shape, world: World, version: str, max_model_len: int, *, max_num_batched_tokens: int = 8192
) -> Figures | str:
    """What the plan says, or why it says nothing."""
    split = split_over(
        tensor_parallel_size=world.tensor_parallel_size,
        enable_expert_parallel=world.enable_expert_parallel,
        compute_capability=float(H100["capability"]),
    )
    shape = as_built(shape, version, float(H100["capability"]))
    weights: tuple[int, ...] | Uncomputable | None = None
    if shape.encoder is None or shape.encoder.matrices is not None:
        weights = weights_per_rank(shape, split, world.pipeline_parallel_size)
    if isinstance(weights, Uncomputable):
        return weights.reason
    states = states_per_sequence(shape, version)
    if isinstance(states, Unplannable):
        return states.reason
    batches = batches_in_flight(version, pipeline_parallel_size=world.pipeline_parallel_size)
    layouts = plan_layout(
        shape,
        tensor_parallel_size=world.tensor_parallel_size,
        stages=stages(len(shape.layers), world.pipeline_parallel_size),
        kv_cache_dtype=world.kv_cache_dtype,
        in_flight_tokens=max_num_batched_tokens * batches,
        states=states,
    )
    if isinstance(layouts, Unplannable):
        return layouts.reason
    return Figures(weights, max(layout.pool_bytes(max_model_len) for layout in layouts))


def world_of(model: Model, name: str) -> World:
    """The world, with the cache dtype or the back end without which vLLM does not take the model."""
    world = WORLDS[name]
    architectures = model.config.get("architectures")
    if architectures == ["DeepseekV4ForCausalLM"]:
        return replace(world, kv_cache_dtype="fp8")
    if architectures in (["Rnj1ForCausalLM"], ["Step1ForCausalLM"]):
        # Their attention asks for what FlashAttention, the default on that GPU, does not know.
        return replace(world, attention_backend="TRITON_ATTN")
    return world


@dataclass(frozen=True)
class Comparison:
    """One world of one model with one version."""

    world: str
    vllm: Figures | str
    ours: Figures | str

    @property
    def is_refused(self) -> bool:
        """vLLM gives no plan."""
        return isinstance(self.vllm, str)

    @property
    def is_equal(self) -> bool:
        """Both give the same bytes, as far as the plan says any."""
        if isinstance(self.vllm, str) or isinstance(self.ours, str):
            return False
        same = self.ours.weights is None or self.ours.weights == self.vllm.weights
        return same and self.ours.needed == self.vllm.needed

    @property
    def is_cache_alone(self) -> bool:
        """The plan needs the size of the files for the weights."""
        return isinstance(self.ours, Figures) and self.ours.weights is None

    @property
    def difference(self) -> str:
        """What differs, in words."""
        if isinstance(self.vllm, str) or isinstance(self.ours, str):
            return str(self.ours)
        parts = []
        assert self.vllm.weights is not None
        if self.ours.weights is not None and self.vllm.weights != self.ours.weights:
            off = (sum(self.ours.weights) - sum(self.vllm.weights)) / sum(self.vllm.weights)
            parts.append(f"weights {off:+.3%}")
        if self.vllm.needed != self.ours.needed:
            parts.append(f"KV cache {(self.ours.needed - self.vllm.needed) / max(1, self.vllm.needed):+.3%}")
        return ", ".join(parts)


def compare(model: Model, version: str) -> Iterator[Comparison]:
    """Every recorded world of a model with one version."""
    shape = read_shape(model.config, quantization=model.quantization)
    for name, said in model.plans.get(version, {}).items():
        vllm = said["refused"] if "refused" in said else Figures(tuple(said["weights"]), said["needed"])
        if isinstance(shape, Unsupported):
            yield Comparison(name, vllm, shape.reason)
        elif isinstance(vllm, str):
            yield Comparison(name, vllm, "")
        else:
            ours = planned(shape, world_of(model, name), version, said["maxModelLen"])
            yield Comparison(name, vllm, ours)


# --- vLLM's side ------------------------------------------------------------------------------------------------


def own_limit(config: Mapping[str, Any], quantization: Mapping[str, Any] | None) -> int:
    """Tokens that the model allows."""
    shape = read_shape(config, quantization=quantization)
    if isinstance(shape, Shape):
        return shape.max_model_len
    text = config.get("text_config", config)
    names = ("max_position_embeddings", "max_target_positions", "n_positions")
    return min((int(text[n]) for n in names if text.get(n)), default=MOST_TOKENS)


_OWN_CLASS = """from transformers import CONFIG_MAPPING, PretrainedConfig


class {name}(PretrainedConfig):
    model_type = "{model_type}"

    def __init__(self, **fields):
        for key, value in fields.items():
            if key == "quantization_config" or not isinstance(value, dict):
                continue
            if key.endswith("_config") or "model_type" in value:
                known = value.get("model_type") in CONFIG_MAPPING
                fields[key] = (CONFIG_MAPPING[value["model_type"]] if known else PretrainedConfig)(**value)
        super().__init__(**fields)
"""
"""For models whose repository brings the configuration's class: one that keeps what it is given."""


def own_class(config: Mapping[str, Any]) -> str | None:
    """The class that a made-up configuration names as its own, as code; None where transformers has one."""
    module, _, name = str(config.get("auto_map", {}).get("AutoConfig", "")).partition(".")
    if module != "configuration" or not name.isidentifier():
        return None
    return _OWN_CLASS.format(name=name, model_type=config["model_type"])


def files_beside(name: str) -> dict[str, Any]:
    """What a made-up configuration brings besides, by file name: a tokenizer or a processor that vLLM's class reads."""
    small = json.loads(SMALL_PLANS.read_text(encoding="utf-8"))["models"]
    found: dict[str, Any] = small.get(name, {}).get("files", {})
    return found


def record(model: Model, worker: Worker, version: str) -> dict[str, Any]:
    """What vLLM says of a model in every world."""
    config, quantization = model.config, model.quantization
    max_model_len = min(MOST_TOKENS, own_limit(config, quantization))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        code = own_class(config)
        if code is not None:
            (Path(folder) / "configuration.py").write_text(code, encoding="utf-8")
        if quantization is not None:
            (Path(folder) / "hf_quant_config.json").write_text(json.dumps(quantization), encoding="utf-8")
        beside = files_beside(model.name)
        for file_name, content in beside.items():
            (Path(folder) / file_name).write_text(json.dumps(content), encoding="utf-8")
        for world_name in WORLDS:
            world = world_of(model, world_name)
            try:
                plan = worker.exact_plan(
                    folder,
                    args={
                        **world.arguments,
                        "max_model_len": max_model_len,
                        **({"trust_remote_code": True} if code is not None else {}),
                        **({"skip_tokenizer_init": False} if "tokenizer.json" in beside else {}),
                    },
                    gpu=H100,
                    vllm_version=version,
                    after_loading=False,
                    time_limit_seconds=240,
                )
            except WorkerError as error:
                if error.failure_class in ("no-python", "no-vllm", "no-version"):
                    raise
                found[world_name] = {"refused": " ".join(error.words.split())[:160]}
                if world_name == "tp1" and error.failure_class != "other":
                    break
                continue
            ranks = {rank["pipelineRank"]: rank for rank in plan["ranks"] if rank["tensorRank"] == 0}
            found[world_name] = {
                "maxModelLen": max_model_len,
                "weights": [ranks[i]["weightsBytes"] for i in sorted(ranks)],
                "needed": plan["kvCache"]["neededBytes"],
            }
            if world_name == "tp1":
                found[world_name]["byDtype"] = dict(sorted(plan["perGPU"]["weightsBytesByDtype"].items()))
    return found


def text(models: Mapping[str, Any]) -> str:
    """The file, one line a model."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models))
    about = (
        "What vLLM's own classes and planner say, recorded by tools/exact_models.py: bytes per rank of each pipeline "
        "stage, and the KV cache that vLLM wants free for one request. Configurations hold dimensions only, and lists "
        "of modules folded as layers.{0..60}."
    )
    return f'{{\n "about": {json.dumps(about)},\n "models": {{\n{lines}\n }}\n}}\n'


def committed(config: Mapping[str, Any], quantization: Mapping[str, Any] | None) -> dict[str, Any]:
    """The configuration as it is kept: what its shape depends on, with its lists of modules folded."""
    kept = smallest(config, quantization)
    beside = smallest_quantization(kept, quantization) if quantization is not None else {}
    return {"config": folded(kept)} | ({"quantization": folded(beside)} if beside else {})


def write(
    names: Sequence[str], versions: Sequence[str], path: Path = EXACT_PLANS, published: Path | None = None
) -> None:
    """Ask vLLM and write the file; models that are not named keep what was recorded.

    Raises:
        WorkerError: vLLM cannot be asked at all.
    """
    models: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}
    for version in versions:
        worker = Worker(find_python())
        for name in names:
            whole = whole_configuration(name, published)
            if whole is None:
                print(f"{name}: no configuration", file=sys.stderr)
                continue
            if not worker.alive:
                worker = Worker(find_python())
            said = record(Model(name, *whole, {}), worker, version)
            models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}
            kept = models.get(name, {"plans": {}})["plans"]
            kept_config = {"config": whole[0]} if path == SMALL_PLANS else committed(*whole)
            if beside := models.get(name, {}).get("files"):
                kept_config["files"] = beside
            value = models[name] = kept_config | {"plans": kept | {version: said}}
            files.write_text(path, text(models))
            first = value["plans"][version]["tp1"]
            print(
                f"{version} {name}: {first.get('refused', first.get('weights'))}", file=sys.stderr, flush=True
            )
        worker.close()


# --- the table --------------------------------------------------------------------------------------------------


def verdict(comparisons: Sequence[Comparison]) -> str:
    """A model's column of the table."""
    asked = [c for c in comparisons if not c.is_refused]
    if not comparisons:
        return "not recorded"
    if not asked:
        return f"vLLM refuses: {comparisons[0].vllm}"
    equal = [c for c in asked if c.is_equal]
    if len(equal) == len(asked):
        return f"{'KV cache ' if asked[0].is_cache_alone else ''}equal ({len(equal)})"
    rest: dict[str, list[str]] = {}
    for c in asked:
        if not c.is_equal:
            rest.setdefault(c.difference, []).append(c.world)
    words = "; ".join(f"{', '.join(worlds)}: {what}" for what, worlds in rest.items())
    return f"equal ({len(equal)}); {words}" if equal else words


def summary(models: Sequence[Model], version: str, *, short: bool = False) -> str:
    """How many models and splits are equal with one version, and why the others are not."""
    found = {model.name: list(compare(model, version)) for model in models}
    asked = {name: [c for c in all_ if not c.is_refused] for name, all_ in found.items() if all_}
    unread = {name: worlds for name, worlds in asked.items() if worlds and worlds[0].is_cache_alone}
    planned_by_vllm = {name: worlds for name, worlds in asked.items() if worlds and name not in unread}
    equal = [name for name, worlds in planned_by_vllm.items() if all(c.is_equal for c in worlds)]
    splits = sum(len(worlds) for worlds in planned_by_vllm.values())
    met = sum(c.is_equal for worlds in planned_by_vllm.values() for c in worlds)
    text = (
        f"vLLM {version}: {len(equal)} of {len(planned_by_vllm)} configurations equal to the byte in every split "
        f"({met} of {splits} splits: TP 1 to 8, expert parallel, pipeline stages, fp8 cache)"
    )
    if unread:
        same = sum(all(c.is_equal for c in worlds) for worlds in unread.values())
        text += f"; the KV cache of {same} of {len(unread)} more, whose weights need the size of the files"
    if short:
        return text + "."
    reasons: dict[str, int] = {}
    for name, worlds in planned_by_vllm.items():
        if name not in equal:
            reason = next(c.difference for c in worlds if not c.is_equal)
            reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        text += "; not: " + ", ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items()))
    refused = len(asked) - len(planned_by_vllm) - len(unread)
    if refused:
        text += f"; vLLM itself gives no plan of {refused}"
    return text + "."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or record; exit 2 where vLLM cannot be asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", nargs="*", metavar="NAME", help="ask vLLM (of all models, or of these)")
    parser.add_argument("--small", action="store_true", help="the made-up configurations in exact_small.json")
    parser.add_argument("--version", action="append", choices=VERSIONS, help="only this version of vLLM")
    parser.add_argument(
        "--configs", type=Path, metavar="DIR", help="with --record: published configurations, ORG__NAME.json"
    )
    options = parser.parse_args(arguments)
    versions = tuple(options.version or VERSIONS)
    path = SMALL_PLANS if options.small else EXACT_PLANS
    if options.record is not None:
        known = {model.name for model in read(path)}
        if not options.small:
            here = sorted(options.configs.glob("*.json")) if options.configs else []
            known |= {p.stem.replace("__", "/") for p in here if not p.stem.endswith(".hf_quant_config")}
            known |= json.loads(STARTS.read_text(encoding="utf-8"))["models"].keys()
        try:
            write(options.record or sorted(known), versions, path, options.configs)
        except WorkerError as error:
            print(str(error), file=sys.stderr)
            return 2
        return 0
    print("| model | " + " | ".join(f"vLLM {v}" for v in versions) + " |")
    print("|---" * (1 + len(versions)) + "|")
    for model in read(path):
        cells = [verdict(list(compare(model, version))) for version in versions]
        print(f"| {model.name} | {' | '.join(cells)} |")
    print()
    for version in versions:
        print(summary(read(path), version))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line that a KAITO release starts vLLM with: for a model, on a machine, with a ConfigMap on top.

It comes about in four steps, each of which may replace what an earlier one set: the preset (the generator's maps), the
controller (utilization, parallelism, LMCache), the ConfigMap (`inference_config.yaml`) and the launcher in the image.
Source: kaito-project/kaito, pkg/model/interface.go (buildVLLMInferenceCommand, configureParallelism),
presets/workspace/models/vllm_model.go, pkg/workspace/inference/preset_inferences.go (buildMainContainerEnv) and
presets/workspace/inference/vllm/inference_api.py. What differs between releases stands in their data files.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kaito_catalog.kaito.estimator import Estimate, startup_minutes
from kaito_catalog.kaito.release import Release, Row, choices, model_file_bytes, short_name

CPU_UTILIZATION = "kaito-kv-cache-cpu-memory-utilization"
"""The launcher's own option: the share of the host's free memory that LMCache takes; 0 starts vLLM without it."""
LMCACHE = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
_KV_TRANSFER = "kv-transfer-config"


class Step(Enum):
    """Who sets an argument."""

    PRESET = "preset"
    CONTROLLER = "controller"
    CONFIG_MAP = "ConfigMap"
    LAUNCHER = "launcher"


@dataclass(frozen=True)
class Argument:
    """One argument of the command line."""

    name: str
    """vLLM's, with dashes."""
    value: str
    """Empty for a switch."""
    step: Step
    because: str
    """What made it so, in words."""

    several: tuple[str, ...] = ()
    """The values, where the option takes more than one word; `value` has them all then."""

    def __str__(self) -> str:
        return f"--{self.name}={self.value}" if self.value else f"--{self.name}"

    @property
    def words(self) -> tuple[str, ...]:
        """As vLLM's parser sees it."""
        return (f"--{self.name}", *self.several) if self.several else (str(self),)


@dataclass(frozen=True)
class LaunchConfig:
    """What `inference_config.yaml` may hold."""

    vllm: Mapping[str, object] = field(default_factory=dict)
    """vLLM's options; each is appended as `--key`, `str(value)`."""
    kv_cache_cpu_memory_utilization: float | None = None
    max_probe_steps: int | None = None


@dataclass(frozen=True)
class LaunchPlace:
    """Where KAITO starts the model."""

    estimate: Estimate
    """Nodes, and the split over their GPUs."""
    gpu_memory_utilization: float
    is_mig: bool = False
    """A slice of a GPU, which LMCache is not given."""
    host_memory_bytes: int | None = None
    """Of one node; None where it is not known."""


@dataclass(frozen=True)
class LaunchManifest:
    """What the manifest says beside the preset."""

    name: str | None = None
    """Of the InferenceSet, which the model is then served as; None serves it under the preset's name."""
    revision: str | None = None
    adapters: tuple[str, ...] = ()
    """Names of the LoRA adapters that are loaded."""
    performance_mode: str = "balanced"


@dataclass(frozen=True)
class Launch:
    """A start of vLLM as a release of KAITO makes it."""

    release: str
    arguments: tuple[Argument, ...]
    """Without those that a later step replaced, sorted by name."""
    replaced: tuple[Argument, ...]
    """What an earlier step had set."""
    environment: Mapping[str, str]
    nodes: int
    cpu_memory_utilization: float
    """The share of the host's free memory that LMCache takes; 0 is without LMCache."""
    start_up_minutes: int
    """Until KAITO gives the start up."""
    host_memory_bytes: int | None = None

    def value(self, name: str) -> str | None:
        """The value of an argument; None where the start has none of that name."""
        return next((a.value for a in self.arguments if a.name == name), None)

    def count(self, name: str) -> int | None:
        """The value of a size, 1 where the start has none of that name; None where it is not a whole number."""
        text = self.value(name)
        if text is None:
            return 1
        return int(text) if re.fullmatch(r"[1-9][0-9]{0,5}", text) else None

    @property
    def uses_lmcache(self) -> bool:
        """Whether vLLM gets LMCache's connector, which switches its hybrid KV cache manager off."""
        return LMCACHE["kv_connector"] in (self.value(_KV_TRANSFER) or "")

    @property
    def most_offload_bytes(self) -> int | None:
        """Host memory that LMCache may take on one node, at most: of what is free there; None where not known."""
        if not self.uses_lmcache or self.host_memory_bytes is None:
            return None
        return int(self.host_memory_bytes * self.cpu_memory_utilization)

    def vllm_arguments(self) -> tuple[str, ...]:
        """What vLLM's own parser sees, in order: without the launcher's options."""
        return tuple(word for a in self.arguments if not a.name.startswith("kaito-") for word in a.words)

    def command_line(self) -> str:
        """The start as plain `vllm serve`, ready to paste into a shell, with its environment in front."""
        model = self.value("model") or ""
        own = [
            shlex.join(a.words)
            for a in self.arguments
            if not a.name.startswith("kaito-") and a.name != "model"
        ]
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " \\\n  ".join([" ".join([*variables, "vllm serve", shlex.quote(model)]), *own])


def launch(
    row: Row, kaito: Release, place: LaunchPlace, workspace: LaunchManifest, config: LaunchConfig
) -> Launch:
    """The start that the release makes.

    Args:
        row: the model's entry in `model_catalog.yaml`.
        kaito: the release.
        place: nodes, split and memory.
        workspace: what the manifest says beside the preset.
        config: the ConfigMap on top.
    """
    preset = [Argument(c.option, c.value, Step.PRESET, c.because) for c in choices(row, kaito)]
    controller = list(_controller(row, kaito, place, workspace))
    own = list(_config_map(config))
    merged, replaced = _merged([*preset, *controller, *own])
    share = _cpu_utilization(merged, kaito, config)
    merged, further = _merged([*merged, *_launcher(merged, share, workspace.adapters)])
    nodes = place.estimate.nodes or 1
    return Launch(
        release=kaito.name,
        arguments=tuple(sorted(merged, key=lambda a: a.name)),
        replaced=(*replaced, *further),
        environment=_environment(row, kaito),
        nodes=nodes,
        cpu_memory_utilization=share,
        start_up_minutes=startup_minutes(model_file_bytes(row)),
        host_memory_bytes=place.host_memory_bytes,
    )


def _controller(
    row: Row, kaito: Release, place: LaunchPlace, workspace: LaunchManifest
) -> Iterable[Argument]:
    """What buildVLLMInferenceCommand adds, in its order."""

    def argument(name: str, value: object, because: str) -> Argument:
        return Argument(name, str(value), Step.CONTROLLER, because)

    repo_id = str(row["name"])
    yield argument("model", repo_id, "downloaded at run time")
    yield argument("download-dir", kaito.launch.download_directory, "always")
    yield argument(
        "served-model-name", workspace.name or short_name(repo_id), "the InferenceSet's or the preset's name"
    )
    yield argument("gpu-memory-utilization", place.gpu_memory_utilization, "by the GPU")
    yield argument("kv-events-config", '{"enable_kv_cache_events":true}', "always")
    if workspace.adapters:
        yield argument("enable-lora", "", "the workspace has adapters")
    if workspace.revision:
        yield argument("code-revision", workspace.revision, "the preset's version")
    yield argument("kaito-config-file", kaito.launch.config_file, "the ConfigMap")
    if workspace.performance_mode != "balanced":
        yield argument("performance-mode", workspace.performance_mode, "the workspace asks for it")
    reason = without_lmcache(row, kaito, place)
    if reason is not None:
        yield argument(CPU_UTILIZATION, 0, reason)
    split = place.estimate
    yield argument("tensor-parallel-size", split.tensor_parallel_size, _tier(split))
    if split.data_parallel_size > 1:
        yield argument("data-parallel-size", split.data_parallel_size, _tier(split))
    if split.pipeline_parallel_size > 1:
        yield argument("pipeline-parallel-size", split.pipeline_parallel_size, _tier(split))
        yield argument("distributed-executor-backend", "ray", "several nodes")


def without_lmcache(row: Row, kaito: Release, place: LaunchPlace) -> str | None:
    """Why the controller switches LMCache off; None where it leaves the launcher's default."""
    for architecture in row.get("architectures") or ():
        if architecture in kaito.launch.without_lmcache:
            return kaito.launch.without_lmcache[architecture]
    if place.is_mig:
        return "a MIG slice: the launcher counts the memory of the whole host"
    if place.estimate.data_parallel_size > 1:
        return "data parallelism"
    if place.estimate.pipeline_parallel_size > 1:
        return "several nodes"
    return None


def _tier(split: Estimate) -> str:
    if split.data_parallel_size > 1:
        return "the model takes less than half of one GPU: a copy on each"
    if split.pipeline_parallel_size > 1:
        return "several nodes: one pipeline stage each, and all GPUs of a node"
    return "all GPUs of the node"


def _config_map(config: LaunchConfig) -> Iterable[Argument]:
    for key, value in config.vllm.items():
        yield Argument(key.replace("_", "-"), str(value), Step.CONFIG_MAP, "the ConfigMap")


def _cpu_utilization(arguments: Iterable[Argument], kaito: Release, config: LaunchConfig) -> float:
    """The controller's flag wins over the ConfigMap's key, and that over the launcher's default."""
    flag = next((a.value for a in arguments if a.name == CPU_UTILIZATION), None)
    if flag is not None:
        return float(flag)
    own = config.kv_cache_cpu_memory_utilization
    return kaito.launch.cpu_memory_utilization if own is None else own


_ADAPTERS = "/mnt/adapter"
"""Where the image of each adapter is unpacked, in a folder of its name; the launcher loads every folder there."""


def _launcher(
    arguments: Iterable[Argument], cpu_utilization: float, adapters: Sequence[str]
) -> Iterable[Argument]:
    """What inference_api.py sets where no earlier step did."""
    given = {a.name for a in arguments}
    defaults = {"port": "5000", "cpu-offload-gb": "0"}
    for name, value in defaults.items():
        if name not in given:
            yield Argument(name, value, Step.LAUNCHER, "the launcher's default")
    if adapters and "lora-modules" not in given:
        modules = tuple(f"{name}={_ADAPTERS}/{name}" for name in adapters)
        yield Argument(
            "lora-modules", " ".join(modules), Step.LAUNCHER, "the workspace has adapters", modules
        )
    if cpu_utilization > 0 and _KV_TRANSFER not in given:
        words = f"kv_cache_cpu_memory_utilization is {cpu_utilization:g}"
        yield Argument(_KV_TRANSFER, json.dumps(LMCACHE), Step.LAUNCHER, words)


def _merged(arguments: Iterable[Argument]) -> tuple[list[Argument], list[Argument]]:
    """Later arguments of a name win, as in vLLM's parser: those, and the ones they replaced."""
    found: dict[str, Argument] = {}
    replaced = []
    for argument in arguments:
        name = _positive(argument.name)
        if name in found and str(found[name]) != str(argument):
            replaced.append(found[name])
        found[name] = argument
    return list(found.values()), replaced


def _positive(name: str) -> str:
    """`no-trust-remote-code` and `trust-remote-code` are one option."""
    return name.removeprefix("no-")


def _environment(row: Row, kaito: Release) -> dict[str, str]:
    name, architectures = short_name(str(row["name"])), set(row.get("architectures") or ())
    needs_deep_gemm = bool(architectures & kaito.launch.deep_gemm)
    found = {**kaito.launch.environment, "VLLM_USE_DEEP_GEMM": "1" if needs_deep_gemm else "0"}
    if needs_deep_gemm or name in kaito.launch.cuda_toolkit:
        found["CUDA_HOME"] = kaito.launch.cuda_home
    return found


def to_json(found: Launch) -> dict[str, Any]:
    """The start as plain values: `command` and `environment` of `plan --format json`."""
    return {
        "engine": f"kaito-{found.release}",
        "command": list(found.vllm_arguments()),
        "environment": dict(found.environment),
        "startUpMinutes": found.start_up_minutes,
    }

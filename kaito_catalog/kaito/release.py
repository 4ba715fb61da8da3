"""What a KAITO release decides by itself when it starts a model: parsers, template, fixed options, split over GPUs.

Each release is a file `data/kaito-NAME.yaml`; a profile of policy.yaml names the one that counts (`kaitoRelease`).
`python -m tools.add_kaito` writes such a file from a checkout of KAITO.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from kaito_catalog.architectures import LatentAttention, Shape, Unsupported
from kaito_catalog.diagnostics import Route
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.hardware import Gpu, InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.estimator import Estimate, Need, Node, Sizing, estimate
from kaito_catalog.quantity import GIB

Row = Mapping[str, Any]

MAMBA_STATES = "mambaStateBytesPerSeq"
"""The key of a model's entry; releases before pull request #2302 have none."""

BY_NAME, BY_ARCHITECTURE, ALWAYS = "by name", "by architecture", "always"


@dataclass(frozen=True)
class Choice:
    """An option that KAITO passes to vLLM, and what made it do so."""

    option: str
    value: str
    """Empty for a switch."""
    because: str
    """`always`, or `by name 'phi-4-mini'`, or `by architecture LlamaForCausalLM`."""

    @property
    def shown(self) -> str:
        """As on a command line, without the dashes."""
        return f"{self.option} {self.value}".strip()


@dataclass(frozen=True)
class ParserMap:
    """A parser by prefix of the name, else by architecture."""

    prefixes: Mapping[str, str]
    architectures: Mapping[str, str]
    never: frozenset[str] = frozenset()

    def by_name(self, name: str) -> tuple[str, str] | None:
        """The longest prefix of `name` and its parser; KAITO goes through them in reverse order."""
        found = [prefix for prefix in self.prefixes if name.startswith(prefix)]
        return (max(found), self.prefixes[max(found)]) if found else None

    def by_architecture(self, architectures: list[str]) -> tuple[str, str] | None:
        """The first known architecture and its parser."""
        return next(((a, self.architectures[a]) for a in architectures if a in self.architectures), None)


@dataclass(frozen=True)
class Explained:
    """Where our catalog differs from KAITO's on purpose."""

    model: str
    """A pattern of repository ids."""
    fields: tuple[str, ...]
    reason: str

    def covers(self, name: str, field: str) -> bool:
        """Whether this is the reason for that difference."""
        return field in self.fields and fnmatch.fnmatchcase(name, self.model)


@dataclass(frozen=True)
class LaunchRules:
    """What a release adds to the preset when it starts a model."""

    config_file: str
    download_directory: str
    cpu_memory_utilization: float
    """The launcher's default share of the host's free memory for LMCache."""
    without_lmcache: Mapping[str, str]
    """Architectures that are started without it, and KAITO's reason."""
    deep_gemm: frozenset[str]
    """Architectures that are started with DeepGEMM."""
    cuda_toolkit: frozenset[str]
    """Other models, by short name, that compile kernels when they start."""
    cuda_home: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """A KAITO release as its data file records it."""

    name: str
    """As a profile names it: `v0.12`, or a branch and its commit."""
    base_image: str
    """The image that every model is served from."""
    vllm_version: str
    """Of that image."""
    tool_call_parser: ParserMap
    reasoning_parser: ParserMap
    by_prefix: Mapping[str, Mapping[str, str]]
    fixed_options: Mapping[str, str]
    legacy_presets: Mapping[str, str]
    reserved_labels: frozenset[str]
    differences: tuple[Explained, ...]
    sizing: Sizing
    launch: LaunchRules
    mig_profiles: tuple[str, ...]
    """Slices of a GPU that its admission takes."""
    template_directory: str
    """Where the image has chat templates."""
    chat_templates: frozenset[str]
    """Their files."""
    vllm_templates: frozenset[str]
    """Those that its vLLM finds by their name alone."""
    clouds: tuple[str, ...]
    """Whose instance types it takes where it makes the nodes itself."""
    lists_mamba_states: bool
    """Whether its model_catalog.yaml has `mambaStateBytesPerSeq`."""

    def repository_of(self, preset: str) -> str | None:
        """What it takes the name of a preset for; None where it knows none of that name."""
        return preset if _REPOSITORY.match(preset) else self.legacy_presets.get(preset.lower())

    def reason_for(self, name: str, field: str) -> str | None:
        """Why `field` of `name` differs from KAITO's catalog; None where no reason is recorded."""
        return next((d.reason for d in self.differences if d.covers(name, field)), None)


def release_of(profile: Profile) -> Release:
    """The KAITO release that a profile of policy.yaml stands for.

    Raises:
        CatalogError: it is not recorded.
    """
    return recorded_release(profile.kaito_release)


@lru_cache(maxsize=8)
def recorded_release(name: str) -> Release:
    """The release of that name.

    Raises:
        CatalogError: it is not recorded.
    """
    if name not in known_releases():
        raise CatalogError(
            f"KAITO release '{name[:80]}' is not recorded",
            hint=f"kaitoRelease of a profile in policy.yaml is one of {', '.join(known_releases())}",
        )
    return _built(_read(name))


def known_releases() -> tuple[str, ...]:
    """The releases that are recorded, by name."""
    names = (path.name for path in _data().iterdir())
    return tuple(sorted(n[len(_PREFIX) : -len(_SUFFIX)] for n in names if _is_release(n)))


_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z", re.ASCII)
"""A name that KAITO takes for a repository on the Hub."""
_PREFIX, _SUFFIX = "kaito-", ".yaml"


def _is_release(file_name: str) -> bool:
    return file_name.startswith(_PREFIX) and file_name.endswith(_SUFFIX)


def _data() -> Traversable:
    return resources.files("kaito_catalog") / "data"


def _read(name: str) -> dict[str, Any]:
    """The file of a release; what it leaves out stands in the one that it is `basedOn`, key by key."""
    text = (_data() / f"{_PREFIX}{name}{_SUFFIX}").read_text(encoding="utf-8")
    value: dict[str, Any] = yaml.safe_load(text)
    base = value.pop("basedOn", None)
    return value if base is None else {**_read(base), **value}


def _built(value: dict[str, Any]) -> Release:
    def parsers(part: dict[str, Any]) -> ParserMap:
        return ParserMap(part["prefixes"], part["architectures"], frozenset(part.get("never", ())))

    return Release(
        name=value["release"],
        base_image=value["baseImage"],
        vllm_version=value["vllmVersion"],
        tool_call_parser=parsers(value["toolCallParser"]),
        reasoning_parser=parsers(value["reasoningParser"]),
        by_prefix=value["byPrefix"],
        fixed_options=value["fixedOptions"],
        legacy_presets=value["legacyPresets"],
        reserved_labels=frozenset(value["reservedLabels"]),
        differences=tuple(
            Explained(d["model"], tuple(d["fields"]), d["reason"]) for d in value["differences"]
        ),
        sizing=_sizing(value["estimator"]),
        launch=_launch(value["launch"]),
        mig_profiles=tuple(value["migProfiles"]),
        template_directory=value["image"]["templateDirectory"],
        chat_templates=frozenset(value["image"]["chatTemplates"]),
        vllm_templates=frozenset(value["image"]["vllmTemplates"]),
        clouds=tuple(value["clouds"]),
        lists_mamba_states=value["estimator"]["mambaSequences"] > 0,
    )


def _sizing(value: dict[str, Any]) -> Sizing:
    return Sizing(
        weights_factor=value["weightsFactor"],
        headroom=1 + value["overheadWeightFactor"],
        utilization=value["gpuMemoryUtilization"],
        utilization_by_gpu=value["gpuMemoryUtilizationByGPU"],
        overhead_bytes=value["overheadGiB"] * GIB,
        overhead_bytes_by_gpu={gpu: size * GIB for gpu, size in value["overheadGiBByGPU"].items()},
        default_model_len=value["defaultModelLen"],
        mamba_sequences=value["mambaSequences"],
    )


def _launch(value: dict[str, Any]) -> LaunchRules:
    return LaunchRules(
        config_file=value["configFile"],
        download_directory=value["downloadDirectory"],
        cpu_memory_utilization=value["kvCacheCPUMemoryUtilization"],
        without_lmcache=value["withoutLMCache"],
        deep_gemm=frozenset(value["deepGEMM"]),
        cuda_toolkit=frozenset(value["cudaToolkit"]),
        cuda_home=value["cudaHome"],
        environment=value["environment"],
    )


def short_name(repo_id: str) -> str:
    """The name that KAITO's prefixes are compared with."""
    return repo_id.rpartition("/")[2].lower()


def choices(row: Row, kaito: Release) -> tuple[Choice, ...]:
    """The options KAITO passes for a model of its catalog, sorted by option.

    Args:
        row: the model's entry in `model_catalog.yaml`.
        kaito: the release that starts it.
    """
    name = short_name(str(row["name"]))
    architectures = list(row.get("architectures") or ())
    found: dict[str, Choice] = {
        option: Choice(option, value, ALWAYS) for option, value in kaito.fixed_options.items()
    }
    if row.get("quantMethod"):
        found["dtype"] = Choice("dtype", "auto", "because it is quantised")
    for option, field in (
        ("load-format", "loadFormat"),
        ("config-format", "configFormat"),
        ("tokenizer-mode", "tokenizerMode"),
    ):
        value = row.get(field) or row.get("loadFormat") or "auto"
        found[option] = Choice(option, str(value), "by its files" if value != "auto" else ALWAYS)
    for option, prefixes in kaito.by_prefix.items():
        matching = [prefix for prefix in prefixes if name.startswith(prefix)]
        if matching:
            prefix = max(matching)
            value = prefixes[prefix]
            if option == "chat-template":
                value = f"{kaito.template_directory}/{value}"
            found[option] = Choice(option, value, f"{BY_NAME} '{prefix}'")
    for option, parsers in (
        ("tool-call-parser", kaito.tool_call_parser),
        ("reasoning-parser", kaito.reasoning_parser),
    ):
        parser = _parser(parsers, name, architectures)
        if parser is not None:
            found[option] = Choice(option, *parser)
            if option == "tool-call-parser":
                found["enable-auto-tool-choice"] = Choice("enable-auto-tool-choice", "", parser[1])
    return tuple(sorted(found.values(), key=lambda choice: choice.option))


def _parser(parsers: ParserMap, name: str, architectures: list[str]) -> tuple[str, str] | None:
    if name in parsers.never:
        return None
    named = parsers.by_name(name)
    if named:
        return named[1], f"{BY_NAME} '{named[0]}'"
    built = parsers.by_architecture(architectures)
    return (built[1], f"{BY_ARCHITECTURE} {built[0]}") if built else None


def model_file_bytes(row: Row) -> float:
    """`modelFileSize` as KAITO reads it."""
    return float(str(row["modelFileSize"]).removesuffix("Gi")) * GIB


def kv_cache_bytes_per_token(row: Row) -> int:
    """KAITO's bytesPerToken from the figures of its catalog: 16-bit, every layer alike, no window.

    The source is calculateKVCacheTokenSize of its generator: MLA keeps one latent, others keys and values.
    """
    layers, heads = int(row["numHiddenLayers"]), int(row["numAttentionHeads"])
    if "kvLoraRank" in row:
        return 2 * layers * (int(row["kvLoraRank"]) + int(row.get("qkRopeHeadDim", 0)))
    head_dim = int(row.get("headDim") or int(row["hiddenSize"]) // heads)
    return 2 * layers * 2 * int(row["numKeyValueHeads"] or heads) * head_dim


def node_of(instance_type: InstanceType, gpu: Gpu) -> Node:
    """The instance type as KAITO's table has it: the brochure's figure is a count of GiB."""
    return node_with(gpu, instance_type.gpu_count)


def node_with(gpu: Gpu, count: int) -> Node:
    """A node with that many GPUs as KAITO sees it."""
    gigabytes = round(float(re.sub(r"[^0-9.]", "", gpu.nominal_memory.text) or 0))
    return Node(gigabytes * GIB * count, count, gpu.name)


def need_of(row: Row) -> Need:
    """What KAITO counts for a model of its catalog."""
    return Need(model_file_bytes(row), kv_cache_bytes_per_token(row), int(row.get(MAMBA_STATES, 0)))


def parallelism(row: Row, node: Node, kaito: Release, *, max_model_len: int | None = None) -> Estimate:
    """Nodes and split that KAITO would start a model with.

    Args:
        row: the model's entry in `model_catalog.yaml`.
        node: the instance type.
        kaito: the release that starts it.
        max_model_len: of the ConfigMap; None where there is none.
    """
    return estimate(node, need_of(row), kaito.sizing, max_model_len=max_model_len)


def illegal_split(row: Row, size: int) -> str | None:
    """Why vLLM refuses a tensor-parallel size, as far as KAITO's own figures tell; None where they do not."""
    heads, kv_heads = int(row["numAttentionHeads"]), int(row["numKeyValueHeads"])
    if heads % size:
        return f"{heads} attention heads cannot be divided by {size}"
    if "kvLoraRank" in row:
        return None  # one latent, replicated on every GPU
    if (kv_heads >= size and kv_heads % size) or (kv_heads < size and size % kv_heads):
        return f"{kv_heads} KV heads can neither be divided by {size} nor repeated evenly on {size} GPUs"
    return None


def shards_what_vllm_replicates(shape: Shape | Unsupported, size: int) -> bool:
    """Whether KAITO divides a latent cache by the GPUs, of which vLLM keeps a copy on each."""
    return (
        isinstance(shape, Shape)
        and size > 1
        and any(isinstance(layer.mixer, LatentAttention) for layer in shape.layers)
    )


def declared(proposal: Proposal) -> dict[str, tuple[Route, str]]:
    """The vLLM options that a proposal sets: name with dashes to its route and its value as KAITO writes it."""
    found: dict[str, tuple[Route, str]] = {}
    for number, runtime in enumerate(proposal.runtimes or ()):
        if runtime.name == "vllm":
            for name, value in (runtime.config or {}).items():
                found[name.replace("_", "-")] = (("runtimes", number, "config", name), str(value))
    return found


def words(estimate: Estimate, instance_type: InstanceType) -> str:
    """What KAITO would start, for a sentence: `2 × Standard_… (8 GPUs): tensor 4, pipeline 2`."""
    if estimate.nodes is None:
        return f"nothing on {instance_type.name}: its formula finds no room for the weights"
    gpus = estimate.nodes * instance_type.gpu_count
    split = [f"tensor {estimate.tensor_parallel_size}"]
    if estimate.pipeline_parallel_size > 1:
        split.append(f"pipeline {estimate.pipeline_parallel_size}")
    if estimate.data_parallel_size > 1:
        split = [f"a copy on each GPU (data parallel {estimate.data_parallel_size})"]
    many = f"{gpus} GPU" + ("" if gpus == 1 else "s")
    return f"{estimate.nodes} × {instance_type.name} ({many}): {', '.join(split)}"

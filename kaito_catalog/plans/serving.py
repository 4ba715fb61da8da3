"""The vLLM options of a proposal that memory depends on, read once for checks, plans, manifests and pages."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal, Runtime
from kaito_catalog.memory.options import Option, is_unread
from kaito_catalog.memory.values import Parallelism, Settings
from kaito_catalog.vllm_bridge.reference import known, versions

Value = str | int | float | bool | tuple[Option, ...]
_COUNTS = ("max_num_seqs", "max_num_batched_tokens")
_FLAGS = ("enforce_eager", "language_model_only")


@dataclass(frozen=True)
class ServedOptions:
    """The options that a proposal sets; None: it leaves them to the release and to vLLM.

    A value of the wrong kind is as good as absent here: that it is wrong is what the check RUN002 says.
    """

    gpu_memory_utilization: float | None = None
    """The share of the GPU's memory, in (0, 1]."""
    kv_cache_dtype: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool | None = None
    language_model_only: bool | None = None
    unread: tuple[Option, ...] | None = None
    """Others that change what memory holds, and their values."""

    def given(self) -> dict[str, Value]:
        """Those that are set, under the names of `Settings`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def words(self) -> tuple[str, ...]:
        """Those that are set, as on the command line without dashes: `max-num-seqs 16`."""
        read = {name: value for name, value in self.given().items() if name != "unread"}
        own = tuple(f"{name.replace('_', '-')} {value}" for name, value in read.items())
        return own + tuple(f"{name} {value}" for name, value in self.unread or ())

    def settings(self, profile: Profile, gpu: str | None, *, max_model_len: int) -> Settings:
        """What the manifests start vLLM with on `gpu`: the proposal's options, else the profile's.

        Args:
            profile: the release of KAITO.
            gpu: the GPU's name in gpus.yaml; None where it has none.
            max_model_len: the context, in tokens.
        """
        start = Settings(max_model_len=max_model_len, gpu_memory_utilization=profile.utilization(gpu))
        return replace(start, **self.given())  # type: ignore[arg-type]


def served_options(proposal: Proposal | None) -> ServedOptions:
    """The options of a proposal's vLLM runtime; none where it has no such runtime."""
    return read_options(proposal.vllm if proposal else None)


def read_options(runtime: Runtime | None) -> ServedOptions:
    """The options of a runtime, whether written with dashes or underscores."""
    found: dict[str, Value] = {}
    unread: list[Option] = []
    for key, value in ((runtime.config if runtime else None) or {}).items():
        name = key.replace("-", "_")
        number = _number(value)
        if name == "gpu_memory_utilization" and number is not None and 0 < number <= 1:
            found[name] = float(number)
        elif name in _COUNTS and number is not None and number == int(number) > 0:
            found[name] = int(number)
        elif name == "kv_cache_dtype" and isinstance(value, str):
            found[name] = value
        elif name in _FLAGS and str(value).lower() == "true":
            found[name] = True
        elif is_unread(name.replace("_", "-")) and not _is_default(name.replace("_", "-"), value):
            unread.append((name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)))
    if unread:
        found["unread"] = tuple(unread)
    return ServedOptions(**found)  # type: ignore[arg-type]


def engine_arguments(settings: Settings) -> dict[str, int | float | str | bool]:
    """vLLM's engine arguments for the settings, without parallelism; what they leave to vLLM is left to it here."""
    args: dict[str, int | float | str | bool] = {
        "max_model_len": settings.max_model_len,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
    }
    if settings.kv_cache_dtype != "auto":
        args["kv_cache_dtype"] = settings.kv_cache_dtype
    if settings.max_num_seqs is not None:
        args["max_num_seqs"] = settings.max_num_seqs
    if settings.max_num_batched_tokens is not None:
        args["max_num_batched_tokens"] = settings.max_num_batched_tokens
    for name in _FLAGS:
        if getattr(settings, name):
            args[name] = True
    return args


def served_parallelism(proposal: Proposal, gpu_count: int) -> Parallelism | None:
    """How the proposal's vLLM runtime splits the model over `gpu_count` GPUs: tensor parallelism over all by default.

    None where the sizes that its options give do not make that number.
    """
    config = {
        name.replace("_", "-"): value
        for name, value in ((proposal.vllm and proposal.vllm.config) or {}).items()
    }
    sizes = {name: _number(config.get(f"{name}-parallel-size")) for name in ("tensor", "pipeline", "data")}
    pipeline, data = int(sizes["pipeline"] or 1), int(sizes["data"] or 1)
    tensor = int(sizes["tensor"] or 0) or gpu_count // max(pipeline * data, 1)
    experts = config.get("enable-expert-parallel", "false")
    found = Parallelism(tensor, pipeline, data, str(experts).lower() != "false")
    return found if found.world_size == gpu_count and min(tensor, pipeline, data) > 0 else None


def _is_default(option: str, value: object) -> bool:
    """Whether every vLLM that has been read and has the option does that by itself."""
    read = [version.options.get(option) for version in map(known, versions()) if version is not None]
    defaults = [found.default for found in read if found is not None]
    return bool(defaults) and all(_same(default, value) for default in defaults)


def _same(default: object, value: object) -> bool:
    number = _number(default)
    if number is not None:
        return _number(value) == number
    return default is not None and str(default).lower() == str(value).lower()


def _number(value: object) -> int | float | None:
    if isinstance(value, str):  # KAITO passes texts only, so "0.9" is as good as 0.9
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None

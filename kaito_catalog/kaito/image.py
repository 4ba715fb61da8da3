"""What the image of a KAITO release can and cannot do: the chat templates it holds, the kernels it cannot compile.

The image has no nvcc (docker/presets/models/tfs/Dockerfile): DeepGEMM, and FlashInfer, of which it has the package and
the cubins and no compiled modules, build their kernels with it when the server starts. KAITO adds a CUDA toolkit for
some models (`cuda_toolkit` and `deep_gemm` of a release). What vLLM chooses was read in 0.25.1:
vllm/platforms/cuda.py (_get_backend_priorities), vllm/model_executor/layers/fused_moe/oracle (_get_priority_backends)
and experts/flashinfer_cutlass_moe.py, of which 0.32.0 has the same order for fp8.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kaito_catalog.architectures import Attention, BuiltShape, Experts, LatentAttention, Scheme
from kaito_catalog.kaito.release import Release
from kaito_catalog.memory.values import Parallelism

HOPPER, BLACKWELL = 9, 10

_WORKING_DIRECTORY = "/workspace"
_TEMPLATE_CHARACTERS = "{}\n"
"""Where one of these is in it, vLLM takes the value for the template itself (entrypoints/chat_utils.py)."""
MOUNTED = ("/mnt/", "/workspace/weights/")
"""Folders that a cluster fills: what lies there is not the image's."""


def missing_template(value: str, kaito: Release) -> str | None:
    """The path of a chat template that is not in the image; None where it is, or where the cluster may bring it."""
    if any(character in value for character in _TEMPLATE_CHARACTERS) or value in kaito.vllm_templates:
        return None
    path = posixpath.normpath(posixpath.join(_WORKING_DIRECTORY, value))
    folder, name = posixpath.split(path)
    if folder == kaito.template_directory and name in kaito.chat_templates:
        return None
    return None if path.startswith(MOUNTED) else path


def is_mounted(value: str) -> bool:
    """Whether the value is a path into a folder that a cluster fills."""
    return posixpath.normpath(posixpath.join(_WORKING_DIRECTORY, value)).startswith(MOUNTED)


@dataclass(frozen=True)
class Compiled:
    """A kernel that vLLM would have to compile, and why it takes that one."""

    words: str
    option: str | None
    """The option that asks for it; None where vLLM chooses it by itself."""


_COMPILED_BACKENDS = ("flashinfer", "deep_gemm", "batched_deep_gemm")
_CHOOSING = ("attention-backend", "moe-backend", "linear-backend")


def compiled_kernels(
    built: BuiltShape,
    compute_capability: float | None,
    parallelism: Parallelism,
    options: Mapping[str, str],
) -> Iterator[Compiled]:
    """The kernels of a start that are compiled with nvcc.

    Args:
        built: the model, as the vLLM version builds it.
        compute_capability: of the GPU; None: what vLLM chooses is not known.
        parallelism: how it is split.
        options: of the command line, by name.
    """
    for name in _CHOOSING:
        value = options.get(name, "")
        if value.lower().startswith(_COMPILED_BACKENDS):
            yield Compiled(f"{name} {value}", name)
    if compute_capability is None:
        return
    major = int(compute_capability)
    if "attention-backend" not in options and "attention-config" not in options:
        yield from _attention(built, major)
    if "moe-backend" not in options and "kernel-config" not in options:
        reason = _experts(built, major, parallelism)
        if reason is not None:
            yield Compiled(reason, None)


_FLASHINFER_HEADS = (64, 128, 256, 512)
"""Sizes that FlashInferBackend supports."""


def _attention(built: BuiltShape, major: int) -> Iterator[Compiled]:
    mixers = [mixer for layer in built.layers for mixer in layer.mixers]
    heads = any(isinstance(m, Attention) and m.head_dim in _FLASHINFER_HEADS for m in mixers)
    dense = any(isinstance(m, LatentAttention) and not m.sparse for m in mixers)
    if major == BLACKWELL and (heads or dense):
        yield Compiled("FlashInfer's attention, which vLLM takes first on this GPU", None)


def _experts(built: BuiltShape, major: int, parallelism: Parallelism) -> str | None:
    """Why vLLM takes FlashInfer's kernels for the experts; None where it takes others, or where there are none."""
    experts = next((x.feed_forward for x in built.layers if isinstance(x.feed_forward, Experts)), None)
    if experts is None or major < HOPPER:
        return None
    how = built.quantization
    scheme = experts.scheme or (how.scheme if how else None)
    ranks = parallelism.tensor_parallel_size * parallelism.data_parallel_size
    dealt_out = parallelism.enable_expert_parallel and experts.expert_parallel and ranks > 1
    if scheme is Scheme.FP8_TENSOR and how is not None and how.static_activations:
        return "FlashInfer's experts, which vLLM takes first for fp8 with one scale a tensor"
    if scheme is Scheme.FP8_BLOCK and major == HOPPER and dealt_out:
        return "FlashInfer's experts, which vLLM takes first for fp8 in blocks with expert parallelism"
    if how is None and major >= BLACKWELL and parallelism.data_parallel_size == 1:
        return "FlashInfer's experts, which vLLM takes first on this GPU"
    return None

"""Which GPUs have the kernels that a model needs: vLLM refuses the others, whatever their memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kaito_catalog.architectures import CompressedAttention, LatentAttention, Shape
from kaito_catalog.memory.quantization_methods import least_capability


@dataclass(frozen=True)
class Requirement:
    """The least CUDA compute capability for a model, and why."""

    compute_capability: float
    reason: str


@lru_cache(maxsize=4096)
def requirement(shape: Shape, vllm_version: str) -> Requirement | None:
    """What vLLM asks of the GPU's generation for its attention, and for how its weights are stored.

    Source: `supports_compute_capability` of the sparse MLA back ends (`v1/attention/backends/mla` and
    `models/deepseek_v4`: FlashMLA 9 and 10, FlashInfer 10 and 12), the same in vLLM 0.25.1 and 0.32.0.
    """
    if any(_is_sparse(layer.mixer) for layer in shape.layers):
        return Requirement(
            9.0, "vLLM's kernels for its sparse attention need compute capability 9.0 (Hopper) or more"
        )
    how = shape.quantization
    least = least_capability(how, vllm_version) if how is not None else None
    if how is None or least is None:
        return None
    return Requirement(
        least,
        f"vLLM {vllm_version[:20]} runs weights quantised with {how.method[:40]} from capability {least:.1f} on",
    )


def _is_sparse(mixer: object) -> bool:
    return isinstance(mixer, CompressedAttention) or (isinstance(mixer, LatentAttention) and mixer.sparse)


def refusal(shape: Shape, compute_capability: float | None, vllm_version: str) -> str | None:
    """Why vLLM refuses the model on such a GPU; None where it does not, or where the capability is not known."""
    needed = requirement(shape, vllm_version)
    if needed is None or compute_capability is None or compute_capability >= needed.compute_capability:
        return None
    return f"{needed.reason}, and this GPU has {compute_capability:.1f}"

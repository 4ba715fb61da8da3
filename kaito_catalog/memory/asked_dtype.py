"""`dtype`: what vLLM computes a model in and stores what is not quantised in, where the option or the GPU says so.

Read in `_get_and_verify_dtype` (vllm/config/model.py), `check_if_supports_dtype` (vllm/platforms/cuda.py) and each
quantisation's `get_supported_act_dtypes` of vLLM 0.25.1 and 0.32.0.
"""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures import Attention, Quantization, Shape
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit

AMPERE = 8.0
"""The compute capability from which on GPUs have bfloat16."""

_NAMES = {
    "half": "float16",
    "float16": "float16",
    "float": "float32",
    "float32": "float32",
    "bfloat16": "bfloat16",
}

_NEVER_HALF = frozenset(
    {
        "Gemma2ForCausalLM",
        "Gemma2Model",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Gemma3TextModel",
        "Glm4ForCausalLM",
    }
)
"""Architectures of the model types that vLLM refuses in float16 (_FLOAT16_NOT_SUPPORTED_MODELS)."""
_NEVER_HALF_BEFORE_0_32 = frozenset({"Plamo2ForCausalLM"})

_ALSO_IN_FLOAT32 = frozenset({"torchao", "compressed-tensors", "bitsandbytes"})
"""Quantisations beside which everything else may be float32."""
_ONLY_BFLOAT16 = frozenset({"mxfp4", "gpt_oss_mxfp4", "fp_quant"})


def with_dtype(
    shape: Shape, asked: str | None, vllm_version: str, compute_capability: float | None
) -> Shape | Refusal:
    """The shape in the dtype that vLLM takes.

    Args:
        shape: the model, with its weights stored as vLLM stores them.
        asked: the option; None is `auto`, the configuration's own where the GPU has it.
        vllm_version: such as 0.25.1.
        compute_capability: of the GPU; None is an H100's.

    Returns:
        A refusal where vLLM does not take it, or where no plan knows what it makes of it.
    """
    name = (asked or "auto").lower()
    has_bfloat16 = compute_capability is None or compute_capability >= AMPERE
    takes_half = not _refuses_half(shape, vllm_version)
    if name == "auto":
        dtype = shape.dtype if has_bfloat16 or shape.dtype != "bfloat16" else "float16"
        if dtype == "float16" and not takes_half:
            dtype = "bfloat16" if has_bfloat16 else "float32"
    elif name in _NAMES:
        dtype = _NAMES[name]
    else:
        return _no(f"vLLM knows no dtype '{name[:40]}'")
    if dtype == "float16" and not takes_half:
        return _no(f"vLLM refuses {shape.architecture[:60]} in float16, whose range is too small for it")
    if dtype == "bfloat16" and not has_bfloat16:
        return _no(
            f"bfloat16 needs compute capability 8.0 or more, and this GPU has {compute_capability:.1f}; "
            "vLLM says to set dtype half"
        )
    if shape.quantization is not None and not _takes(shape.quantization, dtype):
        if name == "auto":
            words = f"the quantization {shape.quantization.method[:40]} needs bfloat16, which this GPU does not have"
            return Refusal(Fit.NO, "gpu", words)
        return _no(f"vLLM takes no {dtype} with the quantization {shape.quantization.method[:40]}")
    if dtype == "float32" and not _is_plain(shape):
        return Refusal(
            Fit.UNKNOWN, "settings", f"no plan in float32 for the layers of {shape.architecture[:60]}"
        )
    return shape if dtype == shape.dtype else replace(shape, dtype=dtype)


def _refuses_half(shape: Shape, vllm_version: str) -> bool:
    is_earlier = version_tuple(vllm_version) < V0_32_0
    return shape.architecture in _NEVER_HALF or (is_earlier and shape.architecture in _NEVER_HALF_BEFORE_0_32)


def _takes(quantization: Quantization, dtype: str) -> bool:
    method = quantization.method.lower().replace("compressed_tensors", "compressed-tensors")
    if dtype == "float32":
        return method in _ALSO_IN_FLOAT32
    return dtype == "bfloat16" or method not in _ONLY_BFLOAT16


def _is_plain(shape: Shape) -> bool:
    """Whether it is nothing but layers that attend to keys and values, each kept in the model's dtype."""
    return (
        not shape.pools
        and shape.encoder is None
        and all(isinstance(mixer, Attention) for layer in shape.layers for mixer in layer.mixers)
    )


def _no(reason: str) -> Refusal:
    return Refusal(Fit.NO, "settings", reason)

"""Ways of storing weights that a vLLM version takes: it refuses the others, and some GPUs for those that it takes.

Source: `QUANTIZATION_METHODS`, `DEPRECATED_QUANTIZATION_METHODS` and `override_quantization_method` in
vllm/model_executor/layers/quantization, `_verify_quantization` in vllm/config/model.py, `get_min_capability` of each
class, which vllm/config/vllm.py compares with the GPU's; read in 0.25.1 and 0.32.0. A test compares them with vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping

from kaito_catalog.architectures import Quantization, Scheme
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.changes import V0_32_0, Version
from kaito_catalog.architectures.shape import UNNAMED

METHODS: Mapping[str, float] = {
    "auto_awq": 7.5,
    "auto_gptq": 6.0,
    "awq": 7.5,
    "awq_marlin": 7.5,
    "bitsandbytes": 7.0,
    "compressed-tensors": 7.0,
    "deepseek_v4_fp8": 7.5,
    "experts_int8": 8.0,
    "fbgemm_fp8": 8.0,
    "fp8": 7.5,
    "fp8_per_block": 7.5,
    "fp8_per_channel": 7.5,
    "fp8_per_tensor": 7.5,
    "fp_quant": 10.0,
    "gpt_oss_mxfp4": 8.0,
    "gptq": 6.0,
    "gptq_marlin": 6.0,
    "humming": 7.5,
    "inc": 6.0,
    "int8_per_channel_weight_only": 7.5,
    "modelopt": 8.9,
    "modelopt_fp4": 7.5,
    "modelopt_mixed": 7.5,
    "modelopt_mxfp8": 8.0,
    "moe_wna16": 7.0,
    "mxfp4": 8.0,
    "mxfp8": 8.0,
    "online": 7.5,
    "quark": 7.0,
    "torchao": 7.5,
}
"""Of 0.25.1, by the name in `quant_method`, with the least CUDA compute capability."""

CHANGES: tuple[tuple[Version, Mapping[str, float | None]], ...] = (
    (V0_32_0, {"bitsandbytes": None, "modelopt": 8.0, "nvfp4_per_token": 7.5}),
)
"""What is otherwise from a version on; None: the version has it no longer."""

DEPRECATED = frozenset({"fbgemm_fp8", "fp_quant"})
"""Refused without `allow-deprecated-quantization`."""

_ALSO_CALLED: Mapping[str, str] = {"auto-round": "inc"}
"""Names of configurations that a class of another name takes over."""


def methods_of(vllm_version: str) -> Mapping[str, float]:
    """The methods that the version has, with the least compute capability of each."""
    found: dict[str, float | None] = dict(METHODS)
    for since, changed in CHANGES:
        if version_tuple(vllm_version) >= since:
            found |= changed
    return {name: least for name, least in found.items() if least is not None}


def refused_method(how: Quantization, vllm_version: str, *, allow_deprecated: bool = False) -> str | None:
    """Why that version does not load weights that are stored so; None where it does, as far as the method says.

    Args:
        how: of the configuration.
        vllm_version: whose methods count.
        allow_deprecated: whether `allow-deprecated-quantization` is given.
    """
    if how.method == UNNAMED:
        return None
    name = vllm_name(how.method)
    version = f"vLLM {vllm_version[:20]}"
    if name not in methods_of(vllm_version):
        if name in METHODS:
            return f"{version} has the quantisation method {name} no longer"
        return f"{version} has no quantisation method {name[:40]}"
    if name in DEPRECATED and not allow_deprecated:
        return f"{version} refuses the deprecated quantisation method {name} without allow-deprecated-quantization"
    return None


_MODELOPT: Mapping[Scheme, str] = {
    Scheme.NVFP4: "modelopt_fp4",
    Scheme.NVFP4_WEIGHTS: "modelopt_fp4",
    Scheme.MXFP8: "modelopt_mxfp8",
}


def least_capability(how: Quantization, vllm_version: str) -> float | None:
    """The least compute capability that the version asks for weights that are stored so; None where it has no such."""
    name = vllm_name(how.method)
    if name == "modelopt" and how.scheme is not Scheme.FP8_TENSOR:
        name = "modelopt_mixed" if how.scheme is None else _MODELOPT[how.scheme]
    return methods_of(vllm_version).get(name)


def vllm_name(method: str) -> str:
    """What vLLM makes of the name in `quant_method`."""
    name = method.lower().replace("compressed_tensors", "compressed-tensors")
    return _ALSO_CALLED.get(name, name)

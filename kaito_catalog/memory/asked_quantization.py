"""`quantization`: what vLLM makes of the weights where the option is set, beside what their configuration says.

Read in `ModelConfig._verify_quantization` (vllm/config/model.py), each method's `override_quantization_method` and
`get_quant_config` (model_executor/model_loader/weight_utils.py) of vLLM 0.25.1 and 0.32.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kaito_catalog.architectures import Drafter, Experts, Quantization, Scheme, Shape
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit

_SPELLINGS: Mapping[str, frozenset[str]] = {
    "awq": frozenset({"awq", "awq_marlin", "auto_awq", "marlin"}),
    "gptq": frozenset({"gptq", "gptq_marlin", "auto_gptq", "marlin"}),
    "auto-round": frozenset({"auto-round", "inc"}),
    "intel/auto-round": frozenset({"intel/auto-round", "auto-round", "inc"}),
    "inc": frozenset({"inc"}),
}
"""The names that mean a configuration's method: they choose among the kernels for the same weights."""

_DECIDE = frozenset({"modelopt", "auto-round"})
"""Methods of a configuration that hold whatever the option says."""

_OTHER_KERNELS = frozenset({"moe_wna16", "humming"})
"""Names that have a kernel of their own store the weights in their own way."""

_WHILE_LOADING: Mapping[str, Quantization] = {
    "fp8": Quantization("fp8", Scheme.FP8_MATRIX),
    "fp8_per_tensor": Quantization("fp8", Scheme.FP8_MATRIX),
    "fp8_per_block": Quantization("fp8", Scheme.FP8_BLOCK_PADDED, weight_block=(128, 128)),
    "fp8_per_channel": Quantization("fp8", Scheme.EIGHT_BIT_CHANNEL),
    "mxfp8": Quantization("mxfp8", Scheme.MXFP8_PADDED),
    "experts_int8": Quantization("experts_int8", Scheme.INT8_EXPERTS),
    "int8_per_channel_weight_only": Quantization("int8_per_channel_weight_only", Scheme.INT8_EXPERTS),
    "bitsandbytes": Quantization("bitsandbytes", Scheme.NF4),
}
"""What vLLM makes of unquantised weights by each name."""

_IN_OTHER_PARTS = frozenset(
    """
    ArcticForCausalLM Ernie4_5_VLMoeForConditionalGeneration FlexOlmoForCausalLM FuyuForCausalLM Gemma3nForCausalLM
    Gemma3nForConditionalGeneration Granite4VisionForConditionalGeneration GraniteMoeHybridForCausalLM
    KimiK3ForConditionalGeneration
    Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LongcatFlashForCausalLM
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration MolmoForCausalLM Moondream3ForCausalLM
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronParseForConditionalGeneration Olmo3ForCausalLM Ovis
    Rnj1ForCausalLM Step1ForCausalLM Step3p7ForConditionalGeneration StepVLForConditionalGeneration
    VaultGemmaForCausalLM Zamba2ForCausalLM
    """.split()  # noqa: SIM905
)
"""Architectures of which vLLM quantises other parts while it loads them than plans do, or that were not compared.

139 of the small models of `tests/data/exact_small.json` are equal to the byte with fp8 and 0.25.1, 142 with 0.32.0.
"""

_LEAST_CAPABILITY = {"fp8_per_channel": 8.9, "experts_int8": 8.0}
"""Compute capability below which a name is refused; 7.5 for the others."""


def with_quantization(
    shape: Shape, asked: str | None, vllm_version: str, compute_capability: float | None
) -> Shape | Refusal:
    """The shape with its weights stored as vLLM stores them where the option is set.

    Args:
        shape: the model, as its configuration says.
        asked: the option; None where it is not set.
        vllm_version: such as 0.25.1.
        compute_capability: of the GPU; None is an H100's.

    Returns:
        A refusal where vLLM does not take the option for this model, or where no plan reads it.
    """
    name = asked.lower() if asked else None
    if name == "bitsandbytes" and version_tuple(vllm_version) >= V0_32_0:
        return _refused(f"vLLM {vllm_version[:20]} has no quantization bitsandbytes")
    stored = shape.quantization
    if stored is not None:
        return shape if name is None else _of_quantized(shape, stored, name)
    if name is None:
        return shape
    made = _WHILE_LOADING.get(name)
    if made is None:
        return _unknown(name, "its configuration does not say how its weights are quantised with that")
    if shape.pools or shape.architecture in _IN_OTHER_PARTS:
        return _unknown(name, f"unknown which parts of {shape.architecture[:60]} vLLM quantises")
    least = _LEAST_CAPABILITY.get(name, 7.5)
    if compute_capability is not None and compute_capability < least:
        return _refused(
            f"quantization {name} needs compute capability {least:.1f} or more, and this GPU has "
            f"{compute_capability:.1f}"
        )
    made = replace(made, while_loading=True)
    # The layers that guess tokens are given the option too (SpeculativeConfig.__post_init__).
    mtp = shape.mtp
    if isinstance(mtp, Drafter):
        mtp = replace(mtp, shape=replace(mtp.shape, quantization=made))
    return replace(shape, quantization=made, mtp=mtp)


def _of_quantized(shape: Shape, stored: Quantization, name: str) -> Shape | Refusal:
    method = stored.method.replace("compressed_tensors", "compressed-tensors")
    if name == method or name in _SPELLINGS.get(method, ()):
        return shape
    if name == "humming" or (name in _OTHER_KERNELS and method in ("awq", "gptq")):
        has_experts = any(isinstance(layer.feed_forward, Experts) for layer in shape.layers)
        if name == "moe_wna16" and not has_experts:
            return shape
        return _unknown(name, "it stores the weights in its own way")
    if _holds(method, shape):
        if name in _WHILE_LOADING and name != "bitsandbytes":
            return _unknown(name, f"it adds to the {method} that its configuration has")
        return shape
    return _refused(
        f"the quantization of its configuration ({method[:40]}) does not match the option's ({name[:40]}), "
        "and vLLM refuses it"
    )


def _holds(method: str, shape: Shape) -> bool:
    """Whether vLLM takes the configuration's method whatever is asked for."""
    if method in _DECIDE:
        return True
    if method == "mxfp4":
        return shape.architecture == "GptOssForCausalLM"
    return method == "fp8" and shape.architecture.startswith("DeepseekV4")


def _refused(reason: str) -> Refusal:
    return Refusal(Fit.NO, "settings", reason)


def _unknown(name: str, why: str) -> Refusal:
    return Refusal(Fit.UNKNOWN, "settings", f"no plan reads quantization {name[:40]}: {why}")

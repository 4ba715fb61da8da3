"""Models whose plan is not equal to what vLLM's own classes say, each with the reason; add one only with its reason."""

from __future__ import annotations

BOUNDS = {
    "Qwen/Qwen3-32B-FP8-Static-PerTensor": "names no quant_method, and vLLM takes it as not quantised",
    "nvidia/MiniMax-M3-NVFP4": "on stages vLLM mixes blocks of two sizes",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8": "the file we have does not list what stays unquantised",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4": "the file we have does not list what stays unquantised",
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": "the file we have does not list what stays unquantised",
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4": "the file we have does not list what stays unquantised",
}
"""Models of tests/data/exact_plans.json, with every version."""

BOUNDS_OF_A_VERSION = {
    (
        "openai/whisper-large-v3",
        "0.32.0",
    ): "the plan counts what an encoder hands on for each batch in flight, vLLM for one",
}
"""Of the same, with one version."""

SMALL_BOUNDS = {
    (
        "NemotronParseForConditionalGeneration",
        "0.32.0",
    ): "the plan counts what an encoder hands on for each batch in flight, vLLM for one",
    (
        "PhiForCausalLM",
        "0.32.0",
    ): "it registers the head's bias when it reads the weights, which an exact plan does not",
}
"""Of tests/data/exact_small.json, with one version."""


def why(name: str, version: str) -> str | None:
    """Why the plan of a model differs with a version; None where it has to be equal."""
    key = (name, version)
    return BOUNDS.get(name) or BOUNDS_OF_A_VERSION.get(key) or SMALL_BOUNDS.get(key)

"""`mm-encoder-tp-mode`: whether the ranks of tensor parallelism divide the encoder of images, or each has all of it.

Read in `supports_encoder_tp_data` of vLLM's classes, which without it divide the encoder whatever is asked for
(vllm/config/model.py). Compared with the weights of a small model of each architecture, over two ranks.
"""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures import BuiltShape, Encoder
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit

_DATA = "data"

KEEP_ALL = frozenset(
    """
    ColQwen3 ColQwen3_5 Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration
    GlmOcrForConditionalGeneration JinaVLForRanking KimiK25ForConditionalGeneration MiniCPMV4_6ForConditionalGeneration
    MiniCPMV4_7ForConditionalGeneration OpsColQwen3Model Qwen2VLForConditionalGeneration
    Qwen2_5_VLForConditionalGeneration Qwen3VLNemotronEmbedModel Qwen3_5MoeForConditionalGeneration
    Qwen3_5ForConditionalGeneration Step3VLForConditionalGeneration
    """.split()  # noqa: SIM905
)
"""Architectures of which each rank has the whole encoder with `data`."""

AS_WITHOUT = frozenset(
    """
    AriaForConditionalGeneration Cohere2VisionForConditionalGeneration ColPaliForRetrieval
    Ernie4_5_VLMoeForConditionalGeneration FuyuForCausalLM Gemma3ForConditionalGeneration
    Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration
    Idefics3ForConditionalGeneration InternVLForConditionalGeneration LlavaForConditionalGeneration
    LlavaNextForConditionalGeneration LlavaOnevisionForConditionalGeneration Moondream3ForCausalLM
    PaliGemmaForConditionalGeneration Qwen2AudioForConditionalGeneration Qwen2_5OmniModel
    Qwen3OmniMoeForConditionalGeneration SmolVLMForConditionalGeneration
    """.split()  # noqa: SIM905
)
"""Architectures for which the option changes nothing: vLLM divides it all the same, or never does."""


def with_encoder_mode(built: BuiltShape, mode: str, tensor_parallel_size: int) -> BuiltShape | Refusal:
    """The model with its encoder on each rank as the option asks for it.

    Args:
        built: the model, as the vLLM version builds it.
        mode: the option: `weights`, vLLM's default, or `data`.
        tensor_parallel_size: ranks that may divide it.
    """
    encoder = built.encoder
    if mode.lower() not in (_DATA, "weights"):
        return Refusal(Fit.NO, "settings", f"vLLM knows no mm-encoder-tp-mode '{mode[:40]}'")
    if (
        mode.lower() != _DATA
        or encoder is None
        or tensor_parallel_size == 1
        or built.architecture in AS_WITHOUT
    ):
        return built
    if built.architecture not in KEEP_ALL or encoder.matrices is None:
        words = f"no plan with mm-encoder-tp-mode data for the encoder of {built.architecture[:60]}"
        return Refusal(Fit.UNKNOWN, "settings", words)
    return replace(built, encoder=_undivided(encoder))


def _undivided(encoder: Encoder) -> Encoder:
    """The encoder with every matrix whole; what was not divided before is still not quantised."""
    assert encoder.matrices is not None
    matrices = tuple(
        replace(
            matrix,
            split="none",
            quantized=matrix.split != "none" if matrix.quantized is None else matrix.quantized,
        )
        for matrix in encoder.matrices
    )
    return replace(encoder, divided=False, matrices=matrices)

"""A model's shape: config.json (or params.json) read once into typed layers, or why it cannot be."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.families import (
    arcee,
    bert,
    clip,
    cohere,
    dbrx,
    deepseek,
    ernie,
    exaone,
    falcon,
    gemma,
    glm,
    gpt_neox,
    granite,
    hunyuan,
    hyperclovax,
    internlm,
    jina,
    kimi,
    lfm,
    ling,
    llama,
    llava,
    mamba,
    mimo,
    minicpm,
    minimax,
    mistral,
    nemotron,
    olmo,
    openai,
    other_decoders,
    other_multimodal,
    ovis,
    pangu,
    persimmon,
    phi,
    plamo,
    qwen,
    smollm,
    starcoder,
    step,
    telechat,
)
from kaito_catalog.architectures.mixers import (
    Attention,
    CompressedAttention,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    Recurrent,
    ShortConv,
)
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.mistral_params import from_params
from kaito_catalog.architectures.reading.pooling import pooling
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    BuiltShape,
    Config,
    Drafter,
    Encoder,
    Experts,
    FeedForward,
    Json,
    Layer,
    Matrix,
    Mlp,
    Quantization,
    Scheme,
    Shape,
    StagePart,
    Unsupported,
)

__all__ = [
    "ARCHITECTURES",
    "BY_MODEL_TYPE",
    "Architecture",
    "Attention",
    "BuiltShape",
    "CompressedAttention",
    "Config",
    "Drafter",
    "Encoder",
    "Experts",
    "FeedForward",
    "GatedDeltaNet",
    "Indexer",
    "Json",
    "KimiDelta",
    "LatentAttention",
    "Layer",
    "LightningAttention",
    "Mamba1",
    "Mamba2",
    "Matrix",
    "Mixer",
    "Mlp",
    "Quantization",
    "Recurrent",
    "Scheme",
    "Shape",
    "ShortConv",
    "StagePart",
    "Unsupported",
    "read_shape",
    "record_of",
]

_STATED: dict[str, Architecture] = {
    **arcee.ARCHITECTURES,
    **bert.ARCHITECTURES,
    **clip.ARCHITECTURES,
    **cohere.ARCHITECTURES,
    **dbrx.ARCHITECTURES,
    **deepseek.ARCHITECTURES,
    **ernie.ARCHITECTURES,
    **exaone.ARCHITECTURES,
    **falcon.ARCHITECTURES,
    **gemma.ARCHITECTURES,
    **glm.ARCHITECTURES,
    **gpt_neox.ARCHITECTURES,
    **granite.ARCHITECTURES,
    **hunyuan.ARCHITECTURES,
    **hyperclovax.ARCHITECTURES,
    **internlm.ARCHITECTURES,
    **jina.ARCHITECTURES,
    **kimi.ARCHITECTURES,
    **lfm.ARCHITECTURES,
    **ling.ARCHITECTURES,
    **llama.ARCHITECTURES,
    **llava.ARCHITECTURES,
    **mamba.ARCHITECTURES,
    **mimo.ARCHITECTURES,
    **minicpm.ARCHITECTURES,
    **minimax.ARCHITECTURES,
    **mistral.ARCHITECTURES,
    **nemotron.ARCHITECTURES,
    **olmo.ARCHITECTURES,
    **openai.ARCHITECTURES,
    **other_decoders.ARCHITECTURES,
    **other_multimodal.ARCHITECTURES,
    **ovis.ARCHITECTURES,
    **pangu.ARCHITECTURES,
    **persimmon.ARCHITECTURES,
    **phi.ARCHITECTURES,
    **plamo.ARCHITECTURES,
    **qwen.ARCHITECTURES,
    **smollm.ARCHITECTURES,
    **starcoder.ARCHITECTURES,
    **step.ARCHITECTURES,
    **telechat.ARCHITECTURES,
}

_SCORED = {
    f"{name.removesuffix('ForCausalLM')}ForSequenceClassification": Architecture(
        pooling(record.reader, scored=True),
        is_decoder=False,
        since=record.since,
        changes=record.changes,
    )
    for name, record in _STATED.items()
    if record.is_decoder and name.endswith("ForCausalLM")
}
"""Classifiers that are decoders with another end."""

ARCHITECTURES = _SCORED | _STATED
"""Every architecture that a plan knows, by its name in config.json."""


def record_of(shape: Shape) -> Architecture:
    """What is known of the shape's architecture."""
    return ARCHITECTURES[shape.architecture]


_DRAFT_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")

BY_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""What vLLM takes where config.json names no architecture (transformers' table of causal models)."""


def read_shape(config: Config, *, quantization: Config | None = None) -> Shape | Unsupported:
    """Read a configuration.

    Args:
        config: config.json, or Mistral's params.json.
        quantization: hf_quant_config.json, where the quantisation lies beside the configuration.

    Returns:
        The shape, or why there is none: an architecture that is not planned, or a field that is missing
        or impossible, by name. Numbers are never guessed; what a class of transformers documents as
        its default is taken.
    """
    try:
        found = _read_shape(config, quantization)
    except UnreadableError as error:
        return Unsupported(error.reason, error.field, _architecture(config))
    return replace(found, source=(config, quantization)) if isinstance(found, Shape) else found


def _architecture(config: Config) -> str | None:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return None


def _read_shape(config: Config, quantization: Config | None) -> Shape | Unsupported:
    if "architectures" not in config and "n_layers" in config and "dim" in config:
        config = from_params(Fields(config))
    architecture = _architecture(config)
    if architecture is None:
        model_type = config.get("model_type")
        architecture = BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        return Unsupported("the configuration names no architecture", "architectures")
    record = ARCHITECTURES.get(architecture)
    if record is None or not record.is_named:
        return Unsupported(f"no plan for the architecture {architecture[:80]}", "architectures", architecture)
    root = Fields(config)
    text = root.section("text_config") or root.section("llm_config") or root
    source = Source(architecture, root, text, quantization, ARCHITECTURES)
    shape = record.reader(source)
    how = shape.quantization
    lacks_encoder = shape.encoder is None and architecture.endswith("ForConditionalGeneration")
    if lacks_encoder or (how is not None and how.is_partial):
        drafts = text.optional(*_DRAFT_LAYERS, most=MOST_LAYERS) or 0
        shape = replace(shape, is_partial=True, draft_layers=drafts)
    every = record.on_every_stage
    if shape.decoder is not None:
        every |= ARCHITECTURES[shape.decoder].on_every_stage
    return replace(shape, on_every_stage=every, mtp=_mtp(record, source))


def _mtp(record: Architecture, source: Source) -> Drafter | Unsupported | None:
    if record.mtp is None:
        return None
    try:
        return record.mtp(source, record.reader)
    except UnreadableError as error:
        return Unsupported(f"its MTP layers: {error.reason}", error.field, source.architecture)

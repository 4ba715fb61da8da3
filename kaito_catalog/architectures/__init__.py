"""A model's shape: config.json (or params.json) read once into typed layers, or why it cannot be."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.families import (
    decoders,
    dense,
    encoders,
    hybrids,
    mixtures,
    multimodal,
    newer,
    omni,
    rankers,
    retrievers,
    wrappers,
)
from kaito_catalog.architectures.reading.fields import NEVER_TIED, Fields, Source, UnreadableError
from kaito_catalog.architectures.reading.mistral_params import from_params
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    Attention,
    AttentionKind,
    CompressedAttention,
    Config,
    Encoder,
    Experts,
    FeedForward,
    GatedDeltaNet,
    Indexer,
    Json,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Matrix,
    Mixer,
    Mlp,
    Place,
    Quantization,
    Recurrent,
    Scheme,
    Shape,
    ShortConv,
    Unsupported,
)

__all__ = [
    "BY_MODEL_TYPE",
    "NEVER_TIED",
    "ON_EVERY_STAGE",
    "READERS",
    "Attention",
    "AttentionKind",
    "CompressedAttention",
    "Config",
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
    "Place",
    "Quantization",
    "Recurrent",
    "Scheme",
    "Shape",
    "ShortConv",
    "Unsupported",
    "read_shape",
]

_DECODERS = (
    decoders.READERS | dense.READERS | mixtures.READERS | hybrids.READERS | newer.READERS | omni.IN_ONE
)
_HELD = (
    _DECODERS
    | encoders.ENCODERS
    | rankers.READERS
    | multimodal.multimodal(lambda: _DECODERS)
    | omni.omni(lambda: _DECODERS)
)
READERS = (
    _DECODERS
    | rankers.READERS
    | encoders.over_decoders(_DECODERS)
    | _HELD
    | wrappers.wrappers(lambda: _HELD)
    | retrievers.retrievers(lambda: _HELD)
)
"""Every architecture that a plan knows, by its name in config.json, and what reads it."""

ON_EVERY_STAGE = (
    decoders.ON_EVERY_STAGE
    | dense.ON_EVERY_STAGE
    | mixtures.ON_EVERY_STAGE
    | hybrids.ON_EVERY_STAGE
    | newer.ON_EVERY_STAGE
    | rankers.ON_EVERY_STAGE
    | omni.IN_ONE_ON_EVERY_STAGE
    | wrappers.IN_ONE_ON_EVERY_STAGE
)
"""Parts that vLLM builds on every pipeline stage, by architecture."""

_BESIDE_A_DECODER = (
    multimodal.ON_EVERY_STAGE | omni.ON_EVERY_STAGE | wrappers.ON_EVERY_STAGE | retrievers.ON_EVERY_STAGE
)

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
        The shape, or why there is none: an architecture nobody here knows, or a field that is missing
        or impossible, by name. Numbers are never guessed; what a class of transformers documents as
        its default is taken.
    """
    try:
        return _read_shape(config, quantization)
    except UnreadableError as error:
        return Unsupported(error.reason, error.field, _architecture(config))


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
    reader = READERS.get(architecture)
    if reader is None:
        return Unsupported(f"no plan for the architecture {architecture[:80]}", "architectures", architecture)
    root = Fields(config)
    text = root.section("text_config") or root.section("llm_config") or root
    shape = reader(Source(architecture, root, text, quantization))
    how = shape.quantization
    lacks_encoder = shape.encoder is None and architecture.endswith("ForConditionalGeneration")
    if lacks_encoder or (how is not None and how.is_partial):
        drafts = text.optional(*_DRAFT_LAYERS, most=MOST_LAYERS) or 0
        shape = replace(shape, is_partial=True, draft_layers=drafts)
    # A decoder within another model builds what it builds alone, and the other its own.
    every = ON_EVERY_STAGE.get(shape.decoder or architecture, frozenset())
    if shape.decoder is not None:
        every |= _BESIDE_A_DECODER.get(architecture, frozenset())
    return replace(shape, on_every_stage=every)

"""Models that hold another one: a decoder of any family, with what lies around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.architectures.changes import Change, Version
from kaito_catalog.architectures.reading.fields import UnreadableError, with_defaults
from kaito_catalog.architectures.reading.pooling import EMBEDDING_WIDTHS
from kaito_catalog.architectures.reading.record import ENCODER, Architecture, Reader, Source
from kaito_catalog.architectures.reading.vision import siglip, vision_section
from kaito_catalog.architectures.shape import Encoder, Matrix, Shape, StagePart

DECODER_BY_MODEL_TYPE = {
    "cohere2": "Cohere2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granite": "GraniteForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "opt": "OPTForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "step3p5": "Step3p5ForCausalLM",
}
"""The decoder where the part about it names none."""


# LlamaConfig's and MistralConfig's own defaults (transformers), which LLaVA's files leave out.
_LLAMA_DEFAULTS = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 2048,
}  # fmt: skip


_MISTRAL_DEFAULTS = _LLAMA_DEFAULTS | {
    "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
}  # fmt: skip


def decoder_of(source: Source, of: str | None = None) -> Shape:
    """The language model, read by its own family: the one that vLLM's class names, or that the configuration does."""
    text = source.text
    names = text.texts("architectures")
    model_type = text.text("model_type") or "llama"
    name = of or (names[0] if names else DECODER_BY_MODEL_TYPE.get(model_type))
    held = source.known.get(name) if name else None
    if held is None or name is None or not held.is_decoder:
        words = f"no plan for the decoder {(name or model_type)[:60]} of {source.architecture[:60]}"
        raise UnreadableError(words, text.path("architectures"))
    if name in ("LlamaForCausalLM", "MistralForCausalLM"):
        defaults = _MISTRAL_DEFAULTS if model_type == "mistral" else _LLAMA_DEFAULTS
        text = with_defaults(text, **defaults)
    return replace(held.reader(replace(source, architecture=name, text=text)), decoder=name)


def over_siglip(projector: Callable[[Source, int, int], tuple[list[Matrix], int]]) -> Reader:
    """A decoder that the configuration names, SigLIP, and what `projector` has between them."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source)
        vision = vision_section(source)
        if vision is None:
            raise UnreadableError("the configuration has no vision_config", "vision_config")
        matrices, plain = siglip(vision)
        more, beside = projector(source, vision.count("hidden_size", default=768), shape.hidden_size)
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        encoder = Encoder("vision", heads, (*matrices, *more), plain + beside, quantized=True)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def unread_encoder(of: str | None = None) -> Reader:
    """A model whose encoder is not computed: its cache is the decoder's, its weights need the size of the files."""

    def read(source: Source) -> Shape:
        shape = decoder_of(source, of)
        encoder = Encoder("vision or audio", 1, None, divided=False)
        return replace(shape, architecture=source.architecture, encoder=encoder)

    return read


def holding(
    reader: Reader,
    *,
    on_every_stage: frozenset[StagePart] = ENCODER,
    has_unread_encoder: bool = False,
    always_with_encoder: bool = False,
    since: Version | None = None,
    changes: tuple[Change, ...] = (),
) -> Architecture:
    """The record of a model that holds a decoder and has an encoder on every stage."""
    return Architecture(
        reader,
        on_every_stage,
        is_decoder=False,
        has_unread_encoder=has_unread_encoder,
        always_with_encoder=always_with_encoder,
        since=since,
        changes=changes,
    )


def unread(
    of: str | None = None,
    *,
    on_every_stage: frozenset[StagePart] = ENCODER,
    always_with_encoder: bool = False,
) -> Architecture:
    """The record of a model whose encoder has not been read, over the decoder that vLLM's class or the file names."""
    return holding(
        unread_encoder(of),
        on_every_stage=on_every_stage,
        has_unread_encoder=True,
        always_with_encoder=always_with_encoder,
    )


def as_of(source: Source, of: str) -> Shape:
    """The shape that another architecture's reader gives, with what that builds on every stage."""
    shape = source.known[of].reader(replace(source, architecture=of))
    return replace(shape, architecture=source.architecture, decoder=shape.decoder or of)


def late(
    of: str,
    widths: tuple[str, ...] = EMBEDDING_WIDTHS,
    *,
    default: int | None = None,
    biased: bool = False,
    has_head: bool = True,
) -> Reader:
    """An embedding for each token: a matrix in fp32 behind the decoder, where the configuration says its width."""

    def read(source: Source) -> Shape:
        shape = as_of(source, of)
        width = source.root.optional(*widths) or default or 0
        projected = (shape.hidden_size + (1 if biased else 0)) * width
        plain = shape.plain_elements + 2 * projected
        return replace(shape, pools=True, plain_elements=plain, has_head=shape.has_head and has_head)

    return read

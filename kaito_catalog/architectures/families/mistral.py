"""Mistral: dense and with experts, Pixtral and Voxtral."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.families.deepseek import read_deepseek
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, mixture, read_experts
from kaito_catalog.architectures.reading.pooling import bidirectional, pooling
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import as_of, holding, unread
from kaito_catalog.architectures.shape import MOST_LAYERS, Encoder, Experts, Matrix, Medium, Shape


def _pixtral_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's pixtral.py and mistral3.py: Hugging Face's Pixtral encoder, patch merger, projector."""
    vision = vision_section(source)
    if vision is None:
        return _unknown_encoder(source)
    width = vision.count("hidden_size", default=1024)
    wide = vision.count("intermediate_size", default=4096)
    depth = vision.count("num_hidden_layers", default=24, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=16)
    patches = (vision.count("image_size", default=1540) // patch) ** 2
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    merge = source.root.count("spatial_merge_size", default=2) ** 2
    bias = source.root.flag("multimodal_projector_bias")
    return Encoder(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", bias=False, count=depth),
            Matrix(width, width, "row", bias=False, count=depth),
            Matrix(width, 2 * wide, "column", bias=False, count=depth),
            Matrix(wide, width, "row", bias=False, count=depth),
            Matrix(width, hidden, "column", bias=bias),
            Matrix(hidden, hidden, "row", bias=bias),
            Matrix(merge * width, width, "none", bias=False),
        ),
        channels * patch * patch * width + width + depth * 2 * width + width,
        medium=Medium(patches // merge, patches, width, 3 * wide, channels * patch * patch),
        quantized=True,
    )


def _unknown_encoder(source: Source) -> Encoder | None:
    for name in ("vision_config", "vision_encoder", "audio_config"):
        section = source.root.section(name)
        if section is not None:
            heads = section.count("num_attention_heads", "num_heads", "vt_num_attention_heads", default=1)
            return Encoder(name.removesuffix("_config"), heads, None)
    return None


def _mixtral_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_local_experts",), ("intermediate_size",))


def _pixtral(source: Source) -> Shape:
    """Mistral's own format with images: a decoder of its, and its encoder (vLLM 0.25.1, pixtral.py)."""
    inner = source.text.texts("architectures")
    vision = vision_section(source)
    if vision is None or not inner:
        return dense(DecoderDefaults(), _pixtral_encoder)(source)
    held = source.known.get(inner[0])
    if held is None or not held.is_decoder or inner[0] == source.architecture:
        words = f"no plan for the decoder {inner[0][:60]} of {source.architecture}"
        raise UnreadableError(words, source.text.path("architectures"))
    decoder = held.reader(source)
    width = vision.count("hidden_size")
    wide = vision.count("intermediate_size")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    hidden = source.text.count("hidden_size")
    bias = vision.flag("adapter_bias", True)
    matrices = [
        Matrix(width, 3 * width, "column", bias=False, count=depth),
        Matrix(width, width, "row", bias=False, count=depth),
        Matrix(width, 2 * wide, "column", bias=False, count=depth),
        Matrix(wide, width, "row", bias=False, count=depth),
        Matrix(width, hidden, "none", bias=bias),
        Matrix(hidden, hidden, "none", bias=bias),
    ]
    plain = vision.count("num_channels", default=3) * vision.count("patch_size") ** 2 * width
    plain += width + depth * 2 * width
    if vision.flag("add_pre_mm_projector_layer_norm"):
        plain += width
    if vision.text("mm_projector_id") == "patch_merge":
        merged = width * vision.count("spatial_merge_size", default=1) ** 2
        matrices.append(Matrix(merged, width, "none", bias=False))
    encoder = Encoder("vision", vision.count("num_attention_heads"), tuple(matrices), plain)
    return replace(decoder, architecture=source.architecture, encoder=encoder)


def _mistral3(source: Source) -> Shape:
    """Mistral Small 3 and its kin, dense; Mistral Small 4 has DeepSeek's latents and experts."""
    if "kv_lora_rank" not in source.text:
        return dense(DecoderDefaults(), _pixtral_encoder)(source)
    shape = read_deepseek(source)
    encoder = (
        _pixtral_encoder(source) if vision_section(source) else Encoder("vision", 1, None, divided=False)
    )
    return replace(shape, encoder=encoder)


def _gritlm(source: Source) -> Shape:
    """GritLM: Mistral, which vLLM serves for embeddings unless asked for texts, and then it looks both ways."""
    of = "MistralForCausalLM"
    return replace(bidirectional(as_of(source, of)), pools=True)


ARCHITECTURES: dict[str, Architecture] = {
    "MistralForCausalLM": Architecture(dense(DecoderDefaults())),
    "MixtralForCausalLM": Architecture(mixture(DecoderDefaults(), _mixtral_experts), on_every_stage=ENDS),
    "Ministral3ForCausalLM": Architecture(dense(DecoderDefaults())),
    "MistralLarge3ForCausalLM": Architecture(read_deepseek, never_tied=True),
    "Mistral3ForConditionalGeneration": Architecture(_mistral3, on_every_stage=ENCODER),
    "PixtralForConditionalGeneration": Architecture(_pixtral, on_every_stage=ENCODER),
    "VoxtralForConditionalGeneration": unread("LlamaForCausalLM"),
    "LightOnOCRForConditionalGeneration": unread(),
    "MistralModel": Architecture(pooling(dense(DecoderDefaults())), is_decoder=False),
    "GritLM": holding(_gritlm),
}
"""By their name in config.json."""

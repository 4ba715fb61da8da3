"""Meta's Llama, Chameleon and CWM, and Llama that looks both ways."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
)
from kaito_catalog.architectures.reading.pooling import bidirectional, pooling
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Reader, Source
from kaito_catalog.architectures.reading.vision import vision_section
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _llama4_encoder(source: Source) -> Encoder | None:
    """vLLM 0.25.1's mllama4.py with Llama4VisionConfig's defaults (transformers)."""
    if not source.architecture.endswith("ForConditionalGeneration"):
        return None
    vision = vision_section(source) or Fields({}, "vision_config.")
    width = vision.count("hidden_size", default=768)
    depth = vision.count("num_hidden_layers", default=34, most=MOST_LAYERS)
    wide = vision.count("intermediate_size", default=5632)
    patch = vision.count("patch_size", default=14)
    patches = (vision.count("image_size", default=448) // patch) ** 2
    middle = vision.count("projector_input_dim", default=4096)
    out = vision.count("projector_output_dim", default=4096)
    return Encoder(
        "vision",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(3 * patch * patch, width, "column", bias=False),
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth),
            Matrix(wide, width, "row", count=depth),
            Matrix(wide, middle, "column", bias=False),
            Matrix(middle, out, "row", bias=False),
            Matrix(
                vision.count("vision_output_dim", default=7680),
                source.text.count("hidden_size"),
                "column",
                bias=False,
            ),
        ),
        width + (patches + 1) * width + 4 * width + depth * 4 * width,
    )


def _llama4(source: Source) -> Shape:
    """Llama 4: three layers of chunked attention, then one that sees all; experts, or in turn with dense."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    chunk = text.optional("attention_chunk_size", most=LONGEST_CONTEXT)
    attention = read_attention(text, DecoderDefaults())
    width = text.count("intermediate_size")
    step = text.count("interleave_moe_layer_step", default=1, least=0)
    experts = replace(read_experts(text, ("num_local_experts",), ("intermediate_size",)), shared=Mlp(width))
    dense = Mlp(text.count("intermediate_size_mlp", default=width))
    rope = text.values.get("no_rope_layers")
    # Llama4TextConfig: every fourth layer has no rope, and those see the whole context.
    interval = text.count("no_rope_layer_interval", default=4)
    layers = []
    for i in range(count):
        is_global = (i + 1) % interval == 0
        if isinstance(rope, list) and len(rope) == count:
            is_global = rope[i] == 0
        mixer = replace(attention, chunk=None if is_global else chunk)
        is_moe = step > 0 and (i + 1) % step == 0
        layers.append(Layer(mixer, experts if is_moe else dense, 2 * hidden))
    return make_shape(
        source, layers, tied=False, rope_dim=attention.head_dim, encoder=_llama4_encoder(source)
    )


def _both_ways(read: Reader) -> Reader:
    def reading(source: Source) -> Shape:
        return replace(bidirectional(read(source)), has_head=False)

    return reading


ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(dense(DecoderDefaults())),
    "LLaMAForCausalLM": Architecture(dense(DecoderDefaults())),
    "CwmForCausalLM": Architecture(dense(DecoderDefaults())),
    "Fairseq2LlamaForCausalLM": Architecture(dense(DecoderDefaults())),
    "Llama4ForCausalLM": Architecture(_llama4),
    "Llama4ForConditionalGeneration": Architecture(_llama4, on_every_stage=ENCODER),
    "LlamaModel": Architecture(pooling(dense(DecoderDefaults())), is_decoder=False),
    "LlamaBidirectionalModel": Architecture(_both_ways(pooling(dense(DecoderDefaults()))), is_decoder=False),
    "LlamaBidirectionalForSequenceClassification": Architecture(
        _both_ways(pooling(dense(DecoderDefaults()), scored=True)), is_decoder=False
    ),
    "ChameleonForConditionalGeneration": unread("LlamaForCausalLM", on_every_stage=ENDS | ENCODER),
}
"""By their name in config.json."""

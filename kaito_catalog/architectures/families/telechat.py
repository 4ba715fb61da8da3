"""TeleChat and TeleFLM."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.parts import GPT_NAMES, DecoderDefaults, dense
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.shape import Shape


def _telechat2(source: Source) -> Shape:
    """TeleChat 2: biases where attention and the block end, and nowhere else."""
    names = (
        *GPT_NAMES[:3],
        ("intermediate_size", "ffn_hidden_size"),
        ("max_position_embeddings", "seq_length"),
    )
    read = dense(DecoderDefaults(qkv_bias=False, output_bias=True, names=names))
    shape = read(source)
    # The second matrix of the block alone has a bias.
    layers = tuple(replace(x, norm_elements=x.norm_elements + shape.hidden_size) for x in shape.layers)
    return replace(shape, layers=layers)


ARCHITECTURES: dict[str, Architecture] = {
    "TeleChatForCausalLM": Architecture(_telechat2),
    "TeleChat2ForCausalLM": Architecture(_telechat2),
    "TeleChat3ForCausalLM": Architecture(dense(DecoderDefaults())),
    "TeleFLMForCausalLM": Architecture(dense(DecoderDefaults())),
}
"""By their name in config.json."""

"""GPT-J, GPT-NeoX and StableLM."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, built_once, since
from kaito_catalog.architectures.reading.parts import GPT_NAMES, DecoderDefaults, dense, widened
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.shape import Shape


def _gpt_j(source: Source) -> Shape:
    """GPT-J: attention without and feed-forward with biases side by side, a part of each head turned."""
    family = DecoderDefaults(
        qkv_bias=False,
        output_bias=False,
        norms=1,
        norm_parts=2,
        gated=False,
        mlp_bias=True,
        lm_head_bias=True,
    )
    source = DecoderDefaults(names=GPT_NAMES).of(source)
    shape = widened(dense(family))(source)
    text = source.text
    rotary = text.count("rotary_dim", default=64)
    return replace(shape, rope_elements=text.count("max_position_embeddings") * rotary)


_NEOX = DecoderDefaults(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)


def _stablelm(source: Source) -> Shape:
    return dense(DecoderDefaults(qkv_bias=source.text.flag("use_qkv_bias"), output_bias=False, norm_parts=2))(
        source
    )


ARCHITECTURES: dict[str, Architecture] = {
    "GPTJForCausalLM": Architecture(_gpt_j, on_every_stage=ENDS),
    "GPTNeoXForCausalLM": Architecture(dense(_NEOX), on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "StableLmForCausalLM": Architecture(_stablelm, on_every_stage=ENDS),
    "StableLMEpochForCausalLM": Architecture(_stablelm, on_every_stage=ENDS),
}
"""By their name in config.json."""

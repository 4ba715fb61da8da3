"""PLaMo."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.mixers import Mamba2
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
    unweighed,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.shape import MOST_LAYERS, Json, Layer, Mlp, Shape


def _plamo3(source: Source) -> Shape:
    """PLaMo 3: four norms; windows by pattern."""
    text = source.text
    if text.count("vocab_size") % 16:
        # vLLM adds rows up to the next multiple to the output embedding alone.
        raise UnreadableError(
            "no plan for a vocabulary that is not a multiple of 16", text.path("vocab_size")
        )
    count = num_layers(text)
    each = text.values.get("interleaved_sliding_window")
    if isinstance(each, list):
        if len(each) != count or not all(w is None or (type(w) is int and w > 0) for w in each):
            field = text.path("interleaved_sliding_window")
            raise UnreadableError(f"{field} is not a window or null for each layer", field)
        stated = {"sliding_attention" if w else "full_attention" for w in each}
        if len({w for w in each if w}) > 1 or not stated:
            field = text.path("interleaved_sliding_window")
            raise UnreadableError("no plan for windows of several lengths", field)
        types: list[Json] = ["sliding_attention" if w else "full_attention" for w in each]
        window = next((w for w in each if w), None)
        text = Fields({**text.values, "layer_types": types, "sliding_window": window}, text.where)
    return dense(DecoderDefaults(head_dim=128, head_norms=2, norms=4, qkv_bias=False, output_bias=False))(
        replace(source, text=text)
    )


def _plamo2(source: Source) -> Shape:
    """PLaMo 2: Mamba of its own kind and attention in turn, four norms a layer."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    head_dim = text.count("hidden_size_per_head", most=2**16)
    family = DecoderDefaults(head_dim=head_dim, qkv_bias=False, output_bias=False, flat_norms=True)
    attention = read_attention(text, family, cache_scales=False)
    mamba = Mamba2(
        text.count("mamba_num_heads", most=2**16),
        head_dim,
        0,
        text.count("mamba_d_state"),
        text.count("mamba_d_conv"),
        state_bytes=2,
        bias=False,
        conv_bias=False,
        time_step_rank=max(64, hidden // 16),
    )
    step = text.count("mamba_step", least=2, most=MOST_LAYERS)
    mlp = Mlp(text.count("intermediate_size"))

    def attends(index: int) -> bool:
        return index == count - 1 if count <= step // 2 else index % step == step // 2

    layers = [Layer(attention if attends(i) else mamba, mlp, 4 * hidden) for i in range(count)]
    return unweighed(make_shape(source, layers, tied=False, rope_dim=head_dim))


ARCHITECTURES: dict[str, Architecture] = {
    "Plamo2ForCausalLM": Architecture(_plamo2, on_every_stage=ENDS),
    "Plamo3ForCausalLM": Architecture(_plamo3, on_every_stage=ENDS),
}
"""By their name in config.json."""

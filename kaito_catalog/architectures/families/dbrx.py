"""Databricks' MPT and DBRX."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, mixture, read_experts
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.shape import Json, Shape


def _mpt(source: Source) -> Shape:
    """MPT: no positions but in the attention's bias; mostly without any other."""
    text = source.text
    attention = text.section("attn_config") or Fields({})
    hidden = text.count("d_model")
    width = text.number("expansion_ratio") or 4.0
    if not 0 < width <= 64:
        raise UnreadableError(f"expansion_ratio is {width}", text.path("expansion_ratio"))
    names = (
        ("hidden_size", "d_model"),
        ("num_attention_heads", "n_heads"),
        ("num_hidden_layers", "n_layers"),
    )
    defaults: tuple[tuple[str, Json], ...] = (
        ("num_key_value_heads", attention.values.get("kv_n_heads")),
        ("intermediate_size", int(width * hidden)),
        ("max_seq_len", 2048),
    )
    biased = not text.flag("no_bias")
    family = DecoderDefaults(
        tied=True, qkv_bias=biased, output_bias=biased, norm_parts=2 if biased else 1, gated=False,
        mlp_bias=biased, names=names, defaults=defaults,
    )  # fmt: skip
    shape = dense(family)(source)
    if attention.flag("qk_ln"):
        more = 2 * family.norm_parts * hidden
        layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
        shape = replace(shape, layers=layers)
    return replace(shape, rope_elements=0)


def _dbrx(source: Source) -> Shape:
    text = source.text
    ffn, attention = text.section("ffn_config"), text.section("attn_config")
    if ffn is None or attention is None:
        raise UnreadableError("the configuration has no ffn_config or no attn_config", "ffn_config")
    names = (
        ("hidden_size", "d_model"),
        ("num_attention_heads", "n_heads"),
        ("num_hidden_layers", "n_layers"),
        ("max_position_embeddings", "max_seq_len"),
    )
    defaults: tuple[tuple[str, Json], ...] = (
        ("num_key_value_heads", attention.values.get("kv_n_heads")),
        ("num_experts", ffn.values.get("moe_num_experts")),
        ("num_experts_per_tok", ffn.values.get("moe_top_k")),
        ("intermediate_size", ffn.values.get("ffn_hidden_size")),
    )
    family = DecoderDefaults(qkv_bias=False, output_bias=False, names=names, defaults=defaults)
    read = mixture(family, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))
    return read(source)


ARCHITECTURES: dict[str, Architecture] = {
    "MPTForCausalLM": Architecture(_mpt, on_every_stage=ENDS),
    "MptForCausalLM": Architecture(_mpt, on_every_stage=ENDS),
    "DbrxForCausalLM": Architecture(_dbrx, on_every_stage=ENDS),
}
"""By their name in config.json."""

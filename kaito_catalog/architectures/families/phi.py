"""Microsoft's Phi."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, built_once, since
from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense, mixture, read_experts
from kaito_catalog.architectures.reading.pooling import pooling
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import Shape

_PHI3 = DecoderDefaults(qkv_bias=False, output_bias=False)


_PHI = DecoderDefaults(
    qkv_bias=True, output_bias=True, norms=1, norm_parts=2, gated=False, mlp_bias=True, lm_head_bias=True
)


def _phi(source: Source) -> Shape:
    """Phi 1 to 2: vLLM goes by n_inner, or four times the hidden size, whatever intermediate_size says."""
    text = source.text
    width = text.optional("n_inner") or 4 * text.count("hidden_size")
    text = Fields({**text.values, "intermediate_size": width}, text.where)
    return dense(_PHI)(replace(source, text=text))


_PHIMOE = DecoderDefaults(qkv_bias=True, output_bias=True, norm_parts=2, lm_head_bias=True)


ARCHITECTURES: dict[str, Architecture] = {
    "PhiForCausalLM": Architecture(_phi, on_every_stage=ENDS, changes=since(V0_32_0, built_once)),
    "Phi3ForCausalLM": Architecture(dense(_PHI3)),
    "PhiMoEForCausalLM": Architecture(
        mixture(_PHIMOE, lambda t: read_experts(t, ("num_local_experts",), ("intermediate_size",))),
        on_every_stage=ENDS,
    ),
    "Phi3Model": Architecture(pooling(dense(_PHI3)), is_decoder=False),
    "Phi3VForCausalLM": unread("Phi3ForCausalLM"),
    "Phi4ForCausalLMV": unread("Phi3ForCausalLM"),
    "Phi4MMForCausalLM": unread("Phi3ForCausalLM"),
}
"""By their name in config.json."""

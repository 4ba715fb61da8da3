"""Tencent's Hunyuan."""

from __future__ import annotations

from kaito_catalog.architectures.changes import V0_32_0, in_experts, since
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    dense_before,
    mixture,
    read_experts,
    shared_experts,
)
from kaito_catalog.architectures.reading.record import ENDS, Architecture, Source
from kaito_catalog.architectures.reading.wrapping import unread
from kaito_catalog.architectures.shape import Experts, Mlp, Shape


def _hy_v3(source: Source) -> Shape:
    """Hunyuan 3."""
    text = source.text

    def experts(text: Fields) -> Experts:
        shared = shared_experts(text, text.count("expert_hidden_dim"))
        # The bias that balances the routing is in the model's dtype, unlike others'.
        count = text.count("num_experts", most=2**16)
        return read_experts(
            text,
            ("num_experts",),
            ("expert_hidden_dim",),
            shared=shared,
            router_bytes=4,
            extra_elements=count,
        )

    family = DecoderDefaults(qkv_bias=False, output_bias=False, head_norms=2 if text.flag("qk_norm") else 0)
    return mixture(family, experts, is_sparse=dense_before("first_k_dense_replace"))(source)


def _hunyuan(source: Source) -> Shape:
    text = source.text
    names = (("head_dim", "attention_head_dim"),)
    norms = 2 if text.flag("use_qk_norm") else 0
    family = DecoderDefaults(head_norms=norms, names=names, tied=True)
    if source.architecture.startswith("HunYuanDense"):
        return dense(family)(source)

    def experts(text: Fields) -> Experts:
        width = text.values.get("moe_intermediate_size")
        active = text.values.get("moe_topk")
        if isinstance(width, list):
            if len(set(map(str, width))) != 1:
                raise UnreadableError("no plan for experts of several widths", "moe_intermediate_size")
            width = width[0]
        if isinstance(active, list):
            active = max((a for a in active if isinstance(a, int)), default=None)
        shared = text.values.get("num_shared_expert") if text.flag("use_mixed_mlp_moe") else None
        if isinstance(shared, list):
            shared = next(iter(shared), None)
        changes = {"num_experts_per_tok": active, "moe_intermediate_size": width}
        filled = Fields({**text.values, **{k: v for k, v in changes.items() if v is not None}}, text.where)
        extra = None
        if isinstance(shared, int) and shared > 0:
            extra = Mlp(text.count("intermediate_size") * shared)
        return read_experts(
            filled, ("num_experts",), ("moe_intermediate_size", "intermediate_size"), shared=extra
        )

    return mixture(family, experts)(source)


ARCHITECTURES: dict[str, Architecture] = {
    "HunYuanDenseV1ForCausalLM": Architecture(_hunyuan),
    "HunYuanMoEV1ForCausalLM": Architecture(_hunyuan),
    "HunYuanVLForConditionalGeneration": unread("HunYuanDenseV1ForCausalLM"),
    "HYV3ForCausalLM": Architecture(
        _hy_v3,
        on_every_stage=ENDS,
        changes=since(V0_32_0, in_experts(correction_bias=True, extra_elements=0)),
    ),
}
"""By their name in config.json."""

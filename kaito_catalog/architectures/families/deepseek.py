"""DeepSeek: latents and experts, and the models over them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.changes import V0_32_0, expanded, in_experts, since
from kaito_catalog.architectures.mixers import CompressedAttention, Indexer
from kaito_catalog.architectures.reading.drafting import mtp
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense_before,
    make_shape,
    mixture,
    num_layers,
    read_experts,
    read_latent,
    shared_experts,
)
from kaito_catalog.architectures.reading.pooling import bidirectional
from kaito_catalog.architectures.reading.quantization import experts_scheme
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.wrapping import as_of, holding, unread_encoder
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Layer, Mlp, Scheme, Shape


def read_deepseek(source: Source) -> Shape:
    """DeepSeek V2, V3, V3.2, Kimi K2 and GLM-5: MLA, dense layers first, then experts."""
    text = source.text
    hidden = text.count("hidden_size")
    attention = read_latent(text)
    count = num_layers(text)
    shared_count = text.optional("n_shared_experts", most=2**10)
    width = text.count("moe_intermediate_size")
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared_count) if shared_count else None,
        correction_bias=text.text("topk_method") == "noaux_tc",
        router_bytes=4
        if text.text("moe_router_dtype") == "float32"
        or source.root.text("model_type") in ("glm_moe_dsa", "glm4_moe_lite")
        else 0,
    )
    first = text.count("first_k_dense_replace", default=0, least=0)
    step = text.count("moe_layer_freq", default=1)
    dense = Mlp(text.count("intermediate_size")) if first or step > 1 else None
    norms = 2 * hidden
    sparse = "index_topk" in text
    layers = []
    for i in range(count):
        mixer = attention
        if sparse:
            has_indexer = not _skips_indexer(text, i)
            indexer = (
                Indexer(text.count("index_n_heads"), text.count("index_head_dim")) if has_indexer else None
            )
            mixer = replace(attention, indexer=indexer, sparse=True)
        is_moe = i >= first and i % step == 0
        layers.append(Layer(mixer, experts if is_moe else dense, norms))
    return make_shape(source, layers, tied=False, rope_dim=attention.qk_rope_head_dim)


def _compress_ratios(text: Fields, count: int) -> list[int]:
    """Tokens that each of so many layers makes one latent of."""
    ratios = text.values.get("compress_ratios")
    if (
        not isinstance(ratios, list)
        or len(ratios) < count
        or any(r not in (0, 4, 128) for r in ratios[:count])
    ):
        raise UnreadableError("compress_ratios is not a ratio of 0, 4 or 128 per layer", "compress_ratios")
    return cast(list[int], ratios)


def _deepseek_v4(source: Source) -> Shape:
    """DeepSeek V4 (vLLM 0.25.1, vllm/models/deepseek_v4): compressed attention and hyper-connections."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    ratios = _compress_ratios(text, count)
    streams = text.count("hc_mult", most=64)
    mixes = streams * (streams + 2)
    hyper = 2 * (mixes * streams * hidden + mixes + 3)
    heads = text.count("num_attention_heads", most=2**16)
    indexer = Indexer(text.count("index_n_heads"), text.count("index_head_dim"))
    width = text.count("moe_intermediate_size")
    shared = text.count("n_shared_experts", default=1, most=2**10)
    scheme = Scheme.MXFP4_EXPERTS if text.text("expert_dtype") == "fp4" else None
    section = source.root.section("quantization_config")
    experts = read_experts(
        text,
        ("n_routed_experts",),
        shared=Mlp(width * shared),
        correction_bias=True,
        scheme=(experts_scheme(section) if section else None) or scheme,
    )
    table = text.count("vocab_size") * experts.num_experts_per_tok
    hashed = replace(experts, correction_bias=False, table_elements=table)
    hash_layers = text.count("num_hash_layers", default=0, least=0, most=MOST_LAYERS)
    layers = []
    for i, ratio in enumerate(ratios[:count]):
        mixer = CompressedAttention(
            heads,
            text.count("head_dim"),
            text.count("q_lora_rank"),
            text.count("o_lora_rank"),
            text.count("o_groups"),
            text.count("sliding_window", most=LONGEST_CONTEXT),
            ratio,
            indexer if ratio == 4 else None,
            hyper,
            streams,
            text.count("index_topk", default=512, most=2**20),
        )
        if heads * mixer.head_dim % mixer.o_groups:
            raise UnreadableError(f"o_groups {mixer.o_groups} does not divide the heads", "o_groups")
        layers.append(Layer(mixer, hashed if i < hash_layers else experts, 2 * hidden))
    shape = make_shape(
        source,
        layers,
        tied=False,
        rope_dim=text.count("qk_rope_head_dim"),
        # The mix of the last hidden states is in fp32: twice the elements of a two-byte type.
        plain_elements=2 * (streams * streams * hidden + streams + 1),
    )
    how = shape.quantization
    if how is not None and how.scheme is Scheme.FP8_BLOCK:
        shape = replace(shape, quantization=replace(how, scale_bytes=1))
    tables = len({ratio == 0 for ratio in ratios[:count]})
    return replace(shape, rope_elements=2 * tables * shape.rope_elements)  # fp32


def _skips_indexer(text: Fields, index: int) -> bool:
    """Whether the layer takes an earlier layer's choice of tokens (vLLM 0.25.1, deepseek_v2.py)."""
    pattern = text.values.get("index_topk_pattern")
    if isinstance(pattern, str | list):
        return index < len(pattern) and pattern[index] == "S"
    frequency = text.count("index_topk_freq", default=1)
    offset = text.count("index_skip_topk_offset", default=2, least=0)
    return max(index - offset + 1, 0) % frequency != 0


def _deepseek(source: Source) -> Shape:
    """The first DeepSeek with experts, before latents."""
    text = source.text
    shared = shared_experts(text, text.count("moe_intermediate_size"), count="n_shared_experts")
    step = text.count("moe_layer_freq", default=1)
    first = dense_before("first_k_dense_replace")
    return mixture(
        DecoderDefaults(qkv_bias=False, output_bias=False),
        lambda t: read_experts(t, ("n_routed_experts",), shared=shared),
        is_sparse=lambda t, i: first(t, i) and i % step == 0,
    )(source)


def _deepseek_vl2(source: Source) -> Shape:
    """DeepSeek-VL2 and DeepSeek-OCR: the decoder is DeepSeek's first where its latents have no width."""
    text = source.root.section("language_config")
    if text is None:
        raise UnreadableError("the configuration has no language_config", "language_config")
    source = replace(source, text=text)
    no_latents = all(text.values.get(n) == 0 for n in ("qk_nope_head_dim", "qk_rope_head_dim"))
    return unread_encoder("DeepseekForCausalLM" if no_latents else None)(source)


def _deepseek_both_ways(source: Source) -> Shape:
    """DeepSeek V3 as an embedding model: its latents are expanded where it looks both ways."""
    of = "DeepseekV3ForCausalLM"
    shape = replace(as_of(source, of), pools=True)
    if source.text.flag("is_causal", True):
        return shape
    return bidirectional(replace(shape, layers=tuple(expanded(x) for x in shape.layers)))


ARCHITECTURES: dict[str, Architecture] = {
    "DeepseekForCausalLM": Architecture(_deepseek),
    "DeepseekV2ForCausalLM": Architecture(
        read_deepseek, never_tied=True, changes=since(V0_32_0, in_experts(router_bytes=0))
    ),
    "DeepseekV3ForCausalLM": Architecture(
        read_deepseek, never_tied=True, changes=since(V0_32_0, in_experts(router_bytes=0)), mtp=mtp()
    ),
    "DeepseekV32ForCausalLM": Architecture(
        read_deepseek, never_tied=True, changes=since(V0_32_0, in_experts(router_bytes=0)), mtp=mtp()
    ),
    "DeepseekV4ForCausalLM": Architecture(_deepseek_v4, never_tied=True),
    "DeepseekV3BidirectionalModel": holding(
        _deepseek_both_ways, since=V0_32_0, changes=since(V0_32_0, in_experts(router_bytes=0))
    ),
    "DeepseekVLV2ForCausalLM": holding(_deepseek_vl2, has_unread_encoder=True),
    "DeepseekOCRForCausalLM": holding(_deepseek_vl2, has_unread_encoder=True),
    "DeepseekOCR2ForCausalLM": holding(_deepseek_vl2, has_unread_encoder=True),
    "UnlimitedOCRForCausalLM": holding(_deepseek_vl2, has_unread_encoder=True),
}
"""By their name in config.json."""

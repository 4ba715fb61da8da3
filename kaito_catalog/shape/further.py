"""Decoders beyond KAITO's catalog, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.shape.decoders import read_deepseek
from kaito_catalog.shape.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.shape.model import (
    MOST_LAYERS,
    Attention,
    Experts,
    Json,
    Layer,
    Mamba2,
    Mixer,
    Mlp,
    Place,
    Shape,
)
from kaito_catalog.shape.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    mixture,
    num_layers,
    read_attention,
    read_experts,
)

_GPT_NAMES = (
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("intermediate_size", "n_inner"),
    ("max_position_embeddings", "n_positions"),
)
_NO_BIAS = Family(qkv_bias=False, output_bias=False)


def _widened(read: Callable[[Source], Shape], factor: int = 4) -> Callable[[Source], Shape]:
    """Where no width of the feed-forward block is stated it is a multiple of the hidden one."""

    def widened(source: Source) -> Shape:
        text = source.text
        hidden = text.count("hidden_size", "n_embd", "d_model")
        names = ("intermediate_size", "n_inner", "ffn_hidden_size")
        if not any(n in text for n in names):
            source = replace(source, text=with_defaults(text, intermediate_size=factor * hidden))
        return read(source)

    return widened


def _with_types(text: Fields, names: tuple[str, ...], default: int) -> Fields:
    """`layer_types` of a pattern in which each n-th layer sees everything, where they are not listed."""
    count = num_layers(text)
    if layer_types(text, count) is not None:
        return text
    step = text.count(*names, default=default)
    types = ["full_attention" if (i + 1) % step == 0 else "sliding_attention" for i in range(count)]
    return with_defaults(text, layer_types=cast(Json, types))


def _cohere(source: Source) -> Shape:
    """Command R and Command A: attention and feed-forward side by side after one norm."""
    text = source.text
    head_dim = text.count("hidden_size") // text.count("num_attention_heads", most=2**16)
    text = Fields({**text.values, "head_dim": head_dim}, text.where)
    if source.architecture != "CohereForCausalLM":
        text = _with_types(with_defaults(text, sliding_window=4096), ("sliding_window_pattern",), 4)
    family = Family(
        tied=True, qkv_bias=False, output_bias=False, norms=1, flat_norms=text.flag("use_qk_norm")
    )
    shape = dense(family)(replace(source, text=text))
    return replace(shape, tie_word_embeddings=True)


def _exaone4(source: Source) -> Shape:
    text = source.text
    pattern = text.values.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern and layer_types(text, num_layers(text)) is None:
        types = [
            "sliding_attention" if pattern[i % len(pattern)] == "L" else "full_attention"
            for i in range(num_layers(text))
        ]
        types[-1] = "full_attention"
        text = with_defaults(text, layer_types=cast(Json, types))
    elif isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        text = _with_types(text, ("sliding_window_pattern",), 4)
    return dense(Family(head_norms=2))(replace(source, text=text))


def _olmo(source: Source) -> Shape:
    """OLMo: norms without parameters."""
    shape = dense(Family(norms=0))(source)
    return replace(shape, final_norm_elements=0)


def _olmo2(source: Source) -> Shape:
    """OLMo 2 and 3: queries and keys are normalised over all heads, and every rank has the whole norm."""
    text = source.text
    if source.architecture == "Olmo3ForCausalLM" and "sliding_window" in text:
        text = _with_types(text, ("sliding_window_pattern",), 4)
    shape = dense(_NO_BIAS)(replace(source, text=text))
    attention = read_attention(text, _NO_BIAS)
    more = text.count("hidden_size") + attention.num_key_value_heads * attention.head_dim
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _olmoe(source: Source) -> Shape:
    text = source.text
    attention = read_attention(text, _NO_BIAS)
    more = (attention.num_attention_heads + attention.num_key_value_heads) * attention.head_dim
    shape = mixture(_NO_BIAS, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))(source)
    layers = tuple(replace(x, norm_elements=x.norm_elements + more) for x in shape.layers)
    return replace(shape, layers=layers)


def _gpt2(source: Source) -> Shape:
    """GPT-2: positions are learnt."""
    source = Family(names=_GPT_NAMES).of(source)
    text = source.text
    family = Family(tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = _widened(dense(family))(source)
    positions = text.count("max_position_embeddings") * text.count("hidden_size")
    return replace(shape, plain_elements=shape.plain_elements + positions, rope_elements=0)


def _falcon(source: Source) -> Shape:
    """Falcon: one or two norms before attention and feed-forward, which mostly run side by side."""
    text = with_defaults(source.text, bias=False)
    hidden = text.count("hidden_size")
    heads = text.count("num_attention_heads", "n_head", most=2**16)
    is_new = text.flag("new_decoder_architecture")
    kv_heads = heads
    if is_new:
        kv_heads = text.count("num_kv_heads", "n_head_kv", default=heads, most=2**16)
    elif text.flag("multi_query", True):
        kv_heads = 1
    norms = 2
    if text.flag("parallel_attn", True):
        norms = text.count("num_ln_in_parallel_attn", default=2 if is_new else 1)
    biased = text.flag("bias")
    text = with_defaults(
        text,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=text.count("ffn_hidden_size", default=4 * hidden),
        max_position_embeddings=2048,
    )
    family = Family(
        tied=True,
        qkv_bias=biased,
        output_bias=biased,
        norms=norms,
        norm_parts=2,
        gated=False,
        mlp_bias=biased,
    )
    shape = dense(family)(replace(source, text=text))
    # falcon.py tells its attention nothing of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    shape = replace(shape, layers=layers)
    return replace(shape, rope_elements=0) if text.flag("alibi") else shape


def _deci(source: Source) -> Shape:
    """Nemotron's searched decoders (DeciLM): each layer has its own width, some no attention or feed-forward."""
    text = source.text
    hidden = text.count("hidden_size")
    blocks = text.values.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != num_layers(text):
        raise UnreadableError("block_configs is not one mapping for each layer", text.path("block_configs"))
    heads = text.count("num_attention_heads", most=2**16)
    layers = []
    for i, block in enumerate(blocks):
        where = f"{text.path('block_configs')}.{i}."
        fields = Fields(block if isinstance(block, dict) else {}, where)
        attention, ffn = fields.section("attention"), fields.section("ffn")
        if attention is None or ffn is None:
            raise UnreadableError(f"{where}attention or ffn is missing", f"{where}attention")
        if attention.flag("replace_with_linear") or ffn.flag("replace_with_linear"):
            raise UnreadableError("no plan for layers that a linear one replaces", f"{where}attention")
        mixer: Mixer | None = None
        if not attention.flag("no_op"):
            group = attention.count("n_heads_in_group", most=2**16)
            if heads % group:
                raise UnreadableError(
                    f"groups of {group} do not divide {heads} heads", f"{where}attention.n_heads_in_group"
                )
            filled = Fields({**text.values, "num_key_value_heads": heads // group}, text.where)
            mixer = read_attention(filled, Family())
        mlp = None
        if not ffn.flag("no_op"):
            width = ffn.optional("intermediate_size")
            if width is None:
                multiple = ffn.number("ffn_mult")
                if multiple is None or not 0 < multiple < 100:
                    raise UnreadableError(f"{where}ffn.ffn_mult is missing", f"{where}ffn.ffn_mult")
                # vLLM's _ffn_mult_to_intermediate_size: two thirds of it, to the next multiple of 256.
                width = -(-int(2 * multiple * hidden / 3) // 256) * 256
            mlp = Mlp(width, bias=text.flag("mlp_bias"))
        layers.append(Layer(mixer, mlp, hidden * ((mixer is not None) + (mlp is not None))))
    head_dim = text.count("head_dim", default=hidden // heads)
    return make_shape(source, layers, tied=False, rope_dim=head_dim)


def _shared(text: Fields) -> Mlp | None:
    width = text.optional("shared_intermediate_size")
    return Mlp(width) if width else None


def _granite_experts(text: Fields) -> Experts:
    return read_experts(text, ("num_local_experts",), ("intermediate_size",), shared=_shared(text))


def _granite_hybrid(source: Source) -> Shape:
    """Granite 4 H: Mamba 2 and attention in turn, each before experts, a dense block, or both."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None:
        raise UnreadableError(
            f"the configuration has no {text.path('layer_types')}", text.path("layer_types")
        )
    shared = _shared(text)
    block = _granite_experts(text) if text.optional("num_local_experts") else shared
    attention = read_attention(text, Family(qkv_bias=text.flag("attention_bias"), output_bias=None))
    mixers: dict[str, Mixer] = {"attention": attention, "full_attention": attention}
    if "mamba" in types:
        mixers["mamba"] = Mamba2(
            text.count("mamba_n_heads"),
            text.count("mamba_d_head"),
            text.count("mamba_n_groups", default=1),
            text.count("mamba_d_state"),
            text.count("mamba_d_conv"),
            state_bytes=2,
            bias=text.flag("mamba_proj_bias"),
            conv_bias=text.flag("mamba_conv_bias", True),
        )
    unknown = next((t for t in types if t not in mixers), None)
    if unknown is not None:
        raise UnreadableError(f"{text.path('layer_types')} has '{unknown[:40]}'", text.path("layer_types"))
    layers = [Layer(mixers[t], block, 2 * hidden) for t in types]
    rope = attention.head_dim if text.text("position_embedding_type") == "rope" else 0
    return make_shape(source, layers, tied=False, rope_dim=rope)


def _mamba2(source: Source) -> Shape:
    """Mamba 2 alone: a state per sequence and nothing that grows."""
    text = with_defaults(source.text, max_position_embeddings=2**20)
    hidden = text.count("hidden_size")
    mamba = Mamba2(
        text.count("num_heads"),
        text.count("head_dim"),
        text.count("n_groups"),
        text.count("state_size"),
        text.count("conv_kernel"),
        state_bytes=2,
        bias=text.flag("use_bias"),
        conv_bias=text.flag("use_conv_bias", True),
    )
    layers = [Layer(mamba, None, hidden)] * num_layers(text)
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=0)


def _ernie_experts(text: Fields) -> Experts:
    width = text.count("moe_intermediate_size")
    shared = text.optional("moe_num_shared_experts", most=2**10)
    filled = with_defaults(text, num_experts_per_tok=text.values.get("moe_k"))
    return read_experts(
        filled,
        ("moe_num_experts",),
        shared=Mlp(width * shared) if shared else None,
        correction_bias=True,
        router_bytes=4,
    )


def _ernie_sparse(text: Fields, index: int) -> bool:
    first = text.count("moe_layer_start_index", default=0, least=0, most=MOST_LAYERS)
    last = text.optional("moe_layer_end_index", most=MOST_LAYERS)
    last = num_layers(text) - 1 if last is None else last
    return first <= index <= last and (index + 1) % text.count("moe_layer_interval", default=1) == 0


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
    family = Family(qkv_bias=False, output_bias=False, names=names, defaults=defaults)
    read = mixture(family, lambda t: read_experts(t, ("num_experts",), ("intermediate_size",)))
    return read(source)


def _hunyuan(source: Source) -> Shape:
    text = source.text
    names = (("head_dim", "attention_head_dim"),)
    norms = 2 if text.flag("use_qk_norm") else 0
    family = Family(head_norms=norms, names=names, tied=True)
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


_PHI = Family(
    qkv_bias=True, output_bias=True, norms=1, norm_parts=2, gated=False, mlp_bias=True, lm_head_bias=True
)
_NEOX = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
_PHIMOE = Family(qkv_bias=True, output_bias=True, norm_parts=2, lm_head_bias=True)


def _phi(source: Source) -> Shape:
    """Phi 1 to 2: vLLM goes by n_inner, or four times the hidden size, whatever intermediate_size says."""
    text = source.text
    width = text.optional("n_inner") or 4 * text.count("hidden_size")
    text = Fields({**text.values, "intermediate_size": width}, text.where)
    return dense(_PHI)(replace(source, text=text))


def _stablelm(source: Source) -> Shape:
    return dense(Family(qkv_bias=source.text.flag("use_qkv_bias"), output_bias=False, norm_parts=2))(source)


def _ernie(source: Source) -> Shape:
    biased = source.text.flag("use_bias")
    return dense(Family(head_dim=128, tied=True, qkv_bias=biased, output_bias=biased, mlp_bias=biased))(
        source
    )


_LLAMA = dense(Family())

READERS: dict[str, Callable[[Source], Shape]] = {
    "ApertusForCausalLM": dense(Family(gated=False, head_norms=2)),
    "ArceeForCausalLM": dense(Family(gated=False)),
    "CohereForCausalLM": _cohere,
    "Cohere2ForCausalLM": _cohere,
    "CwmForCausalLM": _LLAMA,
    "DbrxForCausalLM": _dbrx,
    "DeciLMForCausalLM": _deci,
    "Ernie4_5ForCausalLM": _ernie,
    "Ernie4_5_MoeForCausalLM": mixture(Family(output_bias=False), _ernie_experts, is_sparse=_ernie_sparse),
    "ExaoneForCausalLM": _LLAMA,
    "Exaone4ForCausalLM": _exaone4,
    "FalconForCausalLM": _falcon,
    "RWForCausalLM": _falcon,
    "GlmForCausalLM": dense(Family(head_dim=128, output_bias=False)),
    "Glm4ForCausalLM": dense(Family(head_dim=128, output_bias=False, norms=4)),
    "Glm4MoeLiteForCausalLM": read_deepseek,
    "GPT2LMHeadModel": _gpt2,
    "GPTNeoXForCausalLM": dense(_NEOX),
    "GraniteMoeForCausalLM": mixture(_NO_BIAS, _granite_experts),
    "GraniteMoeSharedForCausalLM": mixture(_NO_BIAS, _granite_experts),
    "GraniteMoeHybridForCausalLM": _granite_hybrid,
    "HunYuanDenseV1ForCausalLM": _hunyuan,
    "HunYuanMoEV1ForCausalLM": _hunyuan,
    "InternLM2ForCausalLM": dense(_NO_BIAS),
    "IQuestCoderForCausalLM": _LLAMA,
    "LLaMAForCausalLM": _LLAMA,
    "Mamba2ForCausalLM": _mamba2,
    "MiniCPMForCausalLM": dense(_NO_BIAS),
    "NemotronForCausalLM": dense(Family(norm_parts=2, gated=False)),
    "OlmoForCausalLM": _olmo,
    "Olmo2ForCausalLM": _olmo2,
    "Olmo3ForCausalLM": _olmo2,
    "OlmoeForCausalLM": _olmoe,
    "OrionForCausalLM": dense(Family(qkv_bias=False, output_bias=False, norm_parts=2)),
    "PhiForCausalLM": _phi,
    "PhiMoEForCausalLM": mixture(
        _PHIMOE, lambda t: read_experts(t, ("num_local_experts",), ("intermediate_size",))
    ),
    "SmolLM3ForCausalLM": dense(Family(tied=True)),
    "SolarForCausalLM": _LLAMA,
    "StableLmForCausalLM": _stablelm,
    "StableLMEpochForCausalLM": _stablelm,
    "Starcoder2ForCausalLM": dense(
        Family(tied=True, qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    ),
    "TeleChat3ForCausalLM": _LLAMA,
}
"""More architectures, by their name in config.json."""

_ALL = frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM})
_NO_HEAD = frozenset({Place.EMBEDDING, Place.NORM})

ON_EVERY_STAGE = {
    "CohereForCausalLM": _NO_HEAD,
    "Cohere2ForCausalLM": _NO_HEAD,
    "DbrxForCausalLM": _ALL,
    "FalconForCausalLM": _ALL,
    "RWForCausalLM": _ALL,
    "GPT2LMHeadModel": _ALL,
    "GPTNeoXForCausalLM": _ALL,
    "GraniteMoeForCausalLM": _ALL,
    "GraniteMoeSharedForCausalLM": _ALL,
    "GraniteMoeHybridForCausalLM": _ALL,
    "InternLM2ForCausalLM": _ALL,
    "Mamba2ForCausalLM": _ALL,
    "MiniCPMForCausalLM": _ALL,
    "OlmoForCausalLM": _ALL,
    "Olmo2ForCausalLM": _ALL,
    "Olmo3ForCausalLM": _ALL,
    "OlmoeForCausalLM": _ALL,
    "OrionForCausalLM": _ALL,
    "PhiForCausalLM": _ALL,
    "PhiMoEForCausalLM": _ALL,
    "StableLmForCausalLM": _ALL,
    "StableLMEpochForCausalLM": _ALL,
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

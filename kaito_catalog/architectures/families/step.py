"""StepFun's Step."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.mixers import Attention, Gate, LowRankQueries
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
)
from kaito_catalog.architectures.reading.record import ENCODER, Architecture, Source
from kaito_catalog.architectures.reading.vision import encoder_layers, vision_section
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _step1(source: Source) -> Shape:
    """Step 1: Llama's layers without positions but in the attention's bias."""
    names = (("num_key_value_heads", "num_attention_groups"),)
    text = with_defaults(source.text, num_attention_groups=1)
    shape = dense(DecoderDefaults(names=names, tied=True))(replace(source, text=text))
    return replace(shape, rope_elements=0)


def _step3p5(source: Source) -> Shape:
    """Step 3.5: layers with a window have heads of their own number; one gate a head."""
    text = source.text
    count = num_layers(text)
    # The checkpoint lists the layers for speculation too.
    kinds = text.texts("layer_types")
    if not kinds:
        kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    if len(kinds) < count:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} has {len(kinds)} entries for {count} layers", field)
    names = (("num_key_value_heads", "num_attention_groups"), ("num_experts_per_tok", "moe_top_k"))
    source = DecoderDefaults(names=names).of(source)
    text = source.text
    family = DecoderDefaults(qkv_bias=False, output_bias=False, head_norms=2)
    gate = Gate.HEAD if text.flag("use_head_wise_attn_gate") else None
    usual = read_attention(text, family, gate=gate)
    other, kind = usual, None
    settings = text.section("attention_other_setting")
    if settings is not None:
        kind = settings.text("attention_type")
        changed = {
            "num_attention_heads": settings.count("num_attention_heads", most=2**16),
            "num_key_value_heads": settings.count("num_attention_groups", most=2**16),
            "head_dim": settings.count("head_dim", most=2**16),
        }
        filled = Fields({**text.values, **changed}, text.where)
        other = read_attention(filled, family, gate=gate)
    window = text.optional("sliding_window", most=LONGEST_CONTEXT)
    routed = read_experts(
        text,
        ("moe_num_experts",),
        shared=Mlp(text.count("share_expert_dim")),
        correction_bias=True,
        router_bytes=4,
    )
    dense, sparse = Mlp(text.count("intermediate_size")), _listed_layers(text, "moe_layers_enum", count)
    hidden = text.count("hidden_size")
    layers = [
        Layer(
            replace(
                other if kinds[i] == kind else usual,
                sliding_window=window if kinds[i] == "sliding_attention" else None,
            ),
            routed if i in sparse else dense,
            2 * hidden,
        )
        for i in range(count)
    ]
    text = Fields({k: v for k, v in text.values.items() if k != "layer_types"}, text.where)
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=usual.head_dim)


def _listed_layers(text: Fields, name: str, count: int) -> set[int]:
    """Layers that are named in one text, with commas; without it all but the first."""
    value = text.text(name)
    if value is None:
        return set(range(1, count))
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > MOST_LAYERS or not all(part.isascii() and part.isdigit() for part in parts):
        raise UnreadableError(f"{text.path(name)} is not a list of layers", text.path(name))
    return {int(part) for part in parts}


def _step_vl(source: Source) -> Shape:
    """Step3-VL 10B and Step 3.7: Perception Encoder, two convolutions that make fewer patches, a matrix."""
    shape = decoder_of(source)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    width = vision.count("width", most=2**20)
    depth = vision.count("layers", most=MOST_LAYERS)
    ratio = vision.number("mlp_ratio") or 4.0
    if not 0 < ratio <= 64:
        raise UnreadableError(f"{vision.path('mlp_ratio')} is {ratio}", vision.path("mlp_ratio"))
    side = vision.count("patch_size", most=2**16)
    whole = 1 if vision.flag("use_cls_token") else 0
    plain = 3 * side**2 * width + whole * width
    plain += 2 * width * (vision.flag("use_ln_pre", True) + vision.flag("use_ln_post"))
    if vision.flag("use_abs_posemb", True):
        plain += ((vision.count("image_size", most=2**16) // side) ** 2 + whole) * width
    plain += depth * (6 if vision.number("ls_init_value") is not None else 4) * width
    plain += (9 * width + 1) * 2 * width + (9 * 2 * width + 1) * 4 * width
    bias = source.root.flag("projector_bias", True)
    matrices = (
        *encoder_layers(width, int(width * ratio), depth),
        Matrix(4 * width, shape.hidden_size, "column", bias=bias),
    )
    heads = vision.count("heads", most=2**16)
    return replace(shape, architecture=source.architecture, encoder=Encoder("vision", heads, matrices, plain))


def _step3(source: Source) -> Shape:
    """Step 3: queries from a narrow vector, one head of keys and values, which every rank has."""
    text = source.text
    # Step3TextConfig's defaults (vLLM).
    text = with_defaults(text, head_dim=256, max_seq_len=65_536)
    if text.count("num_attention_groups", default=1) != 1:
        field = text.path("num_attention_groups")
        raise UnreadableError(f"{field} is not 1, which vLLM's class wants", field)
    count = num_layers(text)
    head_dim = text.count("head_dim", most=2**16)
    heads = text.count("num_attention_heads", most=2**16)
    rank = text.count("share_q_dim", default=2048, least=0) or head_dim
    attention = Attention(heads, 1, head_dim, head_dim, projections=LowRankQueries(rank), cache_scales=False)
    routed = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_top_k")),
        ("moe_num_experts",),
        shared=Mlp(text.count("share_expert_dim")),
    )
    dense_block, sparse = Mlp(text.count("intermediate_size")), _listed_layers(text, "moe_layers_enum", count)
    hidden = text.count("hidden_size")
    layers = [Layer(attention, routed if i in sparse else dense_block, 2 * hidden) for i in range(count)]
    encoder = _step3_encoder(source, hidden) if source.architecture.startswith("Step3VL") else None
    return make_shape(replace(source, text=text), layers, tied=False, rope_dim=head_dim, encoder=encoder)


def _step3_encoder(source: Source, hidden: int) -> Encoder:
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Step3VisionEncoderConfig's defaults (vLLM).
    width = vision.count("hidden_size", default=1792)
    wide = vision.count("intermediate_size", default=3072)
    out = vision.count("output_hidden_size", default=4096)
    depth = vision.count("num_hidden_layers", default=63, most=MOST_LAYERS)
    side = vision.count("patch_size", default=14, most=2**16)
    patches = (vision.count("image_size", default=728, most=2**16) // side) ** 2
    plain = width + (vision.count("num_channels", default=3) * side**2 + 1) * width + (patches + 1) * width
    plain += depth * 4 * width
    # Two convolutions that make fewer patches of many.
    plain += (4 * width + 1) * out + (9 * out + 1) * 2 * out
    matrices = (
        Matrix(width, 3 * width, "column", count=depth),
        Matrix(width, width, "row", count=depth),
        Matrix(width, wide, "column", count=depth),
        Matrix(wide, width, "row", count=depth),
        Matrix(2 * out, hidden, "none", bias=source.root.flag("projector_bias", True)),
    )
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    return Encoder("vision", heads, matrices, plain)


ARCHITECTURES: dict[str, Architecture] = {
    "Step1ForCausalLM": Architecture(_step1),
    "Step3TextForCausalLM": Architecture(_step3),
    "Step3VLForConditionalGeneration": Architecture(_step3, on_every_stage=ENCODER),
    "Step3p5ForCausalLM": Architecture(_step3p5),
    "Step3p7ForConditionalGeneration": holding(_step_vl),
    "StepVLForConditionalGeneration": holding(_step_vl),
}
"""By their name in config.json."""

"""Models of images and sound of no larger family."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, Architecture, Source
from kaito_catalog.architectures.reading.vision import encoder_layers, vision_section
from kaito_catalog.architectures.reading.wrapping import holding, unread, unread_encoder
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _moss_audio(source: Source) -> Shape:
    """MOSS-Audio: what hears has not been read."""
    text = source.root.section("language_config")
    if text is None:
        raise UnreadableError("the configuration has no language_config", "language_config")
    return unread_encoder("Qwen3ForCausalLM")(replace(source, text=text))


def _aria(source: Source) -> Shape:
    """Aria: Llama's attention, experts with a shared block, and an encoder whose patches answer queries."""
    # AriaTextConfig's defaults (transformers).
    text = with_defaults(source.text, moe_num_experts=8, moe_topk=2, moe_num_shared_experts=2)
    biased = text.flag("mlp_bias")
    shared = text.count("moe_num_shared_experts", least=0, most=2**10)
    width = text.count("intermediate_size")
    experts = read_experts(
        with_defaults(text, num_experts_per_tok=text.values.get("moe_topk")),
        ("moe_num_experts",),
        ("intermediate_size",),
        shared=Mlp(width * shared, bias=biased) if shared else None,
    )
    attention = read_attention(text, DecoderDefaults())
    hidden = text.count("hidden_size")
    layers = [Layer(attention, experts, 2 * hidden)] * num_layers(text)
    vision = vision_section(source)
    if vision is None:
        raise UnreadableError("the configuration has no vision_config", "vision_config")
    # Idefics3VisionConfig's defaults (transformers).
    wide = vision.count("intermediate_size", default=3072)
    inner = vision.count("hidden_size", default=1152)
    depth = vision.count("num_hidden_layers", default=12, most=MOST_LAYERS)
    side = vision.count("patch_size", default=32, most=2**16)
    patches = (vision.count("image_size", default=224, most=2**16) // side) ** 2
    table = source.root.section("projector_patch_to_query_dict")
    # AriaConfig's default gives 256 queries at most.
    queries = max((table.count(name) for name in table.values), default=256) if table is not None else 256
    plain = (vision.count("num_channels", default=3) * side**2 + 1 + patches) * inner + depth * 4 * inner
    # The queries and their attention: every rank has it whole.
    plain += queries * inner + 8 * inner**2 + 11 * inner
    matrices = (
        Matrix(inner, 3 * inner, "column", count=depth),
        Matrix(inner, inner, "row", count=depth),
        Matrix(inner, wide, "column", count=depth),
        Matrix(wide, inner, "row", count=depth),
        Matrix(inner, hidden, "column", bias=False, quantized=False),
        Matrix(hidden, hidden, "row", bias=False, quantized=False),
    )
    heads = vision.count("num_attention_heads", default=16, most=2**16)
    encoder = Encoder("vision", heads, matrices, plain, quantized=True)
    filled = replace(source, text=text)
    return make_shape(filled, layers, tied=False, rope_dim=attention.head_dim, encoder=encoder)


def _moondream3(source: Source) -> Shape:
    """Moondream 3: heads that weigh positions, experts after the first layers, and an encoder like SigLIP."""
    nothing = Fields({}, "config.")
    outer = source.root.section("config") or nothing
    told, seen = outer.section("text") or nothing, outer.section("vision") or nothing
    moe = told.section("moe") or nothing
    # Moondream3TextConfig's defaults (vLLM), which the published model leaves to it.
    hidden = told.count("dim", default=2048)
    heads = told.count("n_heads", default=32, most=2**16)
    text = Fields(
        {
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": told.count("n_kv_heads", default=32, most=2**16),
            "vocab_size": told.count("vocab_size", default=51_200),
            "max_position_embeddings": told.count("max_context", default=4096, most=LONGEST_CONTEXT),
            "num_experts": moe.count("n_experts", default=64),
            "num_experts_per_tok": moe.count("n_experts_per_tok", default=8),
            "moe_intermediate_size": moe.count("expert_inner_dim", default=1024),
            "partial_rotary_factor": 0.5,
        },
        "config.text.",
    )
    # One number for each head, and two vectors as wide as queries, keys and values of a usual attention.
    attention = read_attention(
        text, DecoderDefaults(qkv_bias=True, output_bias=True), head_elements=1 + 6 * hidden
    )
    experts = read_experts(text, ("num_experts",), router_bias=True)
    block = Mlp(told.count("ff_dim", default=8192), gated=False, bias=True)
    first = moe.count("start_layer", default=4, least=0, most=MOST_LAYERS)
    depth = told.count("n_layers", default=24, most=MOST_LAYERS)
    layers = [Layer(attention, block if i < first else experts, 2 * hidden) for i in range(depth)]
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=2 * hidden,
        encoder=_moondream3_encoder(seen, hidden),
    )
    return unweighed(replace(shape, lm_head_bias=True, tie_word_embeddings=False))


def _moondream3_encoder(seen: Fields, hidden: int) -> Encoder:
    # Moondream3VisionConfig's defaults (vLLM).
    width = seen.count("enc_dim", default=1152)
    depth = seen.count("enc_n_layers", default=27, most=MOST_LAYERS)
    side = seen.count("enc_patch_size", default=14, most=2**16)
    patches = (seen.count("crop_size", default=378, most=2**16) // side) ** 2
    middle = seen.count("proj_inner_dim", default=8192)
    matrices = (
        *encoder_layers(width, seen.count("enc_ff_dim", default=4304), depth),
        Matrix(2 * width, middle, "column"),
        Matrix(middle, hidden, "row"),
    )
    plain = (3 * side**2 + 1 + patches + 4 * depth + 2) * width
    return Encoder("vision", seen.count("enc_n_heads", default=16, most=2**16), matrices, plain)


ARCHITECTURES: dict[str, Architecture] = {
    "AriaForConditionalGeneration": Architecture(_aria),
    "Blip2ForConditionalGeneration": unread(),
    "DotsOCRForCausalLM": unread("Qwen2ForCausalLM"),
    "FireRedASR2ForConditionalGeneration": unread("Qwen2ForCausalLM"),
    "FunAudioChatForConditionalGeneration": unread("Qwen3ForCausalLM"),
    "FunASRForConditionalGeneration": unread("Qwen3ForCausalLM"),
    "IsaacForConditionalGeneration": unread("Qwen3ForCausalLM"),
    "KananaVForConditionalGeneration": unread("LlamaForCausalLM"),
    "KeyeForConditionalGeneration": unread("Qwen3ForCausalLM"),
    "KeyeVL1_5ForConditionalGeneration": unread("Qwen3ForCausalLM", always_with_encoder=True),
    "MossAudioModel": holding(_moss_audio, has_unread_encoder=True),
    "MossTranscribeDiarizeForConditionalGeneration": unread("Qwen3ForCausalLM"),
    "OpenCUAForConditionalGeneration": unread("Qwen2ForCausalLM"),
    "UltravoxModel": unread(),
    "HfMoondream": Architecture(_moondream3, on_every_stage=ENDS | ENCODER, is_decoder=False),
    "Moondream3ForCausalLM": Architecture(_moondream3, on_every_stage=ENDS | ENCODER, is_decoder=False),
}
"""By their name in config.json."""

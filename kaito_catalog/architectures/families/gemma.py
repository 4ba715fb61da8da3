"""Google's Gemma, PaliGemma and VaultGemma, and what is built of Gemma's layers."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.changes import V0_32_0, in_attention, since
from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    unweighed,
    with_types,
)
from kaito_catalog.architectures.reading.pooling import EMBEDDING_WIDTHS, pooling
from kaito_catalog.architectures.reading.record import ENCODER, ENDS, NO_HEAD, Architecture, Source
from kaito_catalog.architectures.reading.vision import SIGLIP_TILE, vision_section
from kaito_catalog.architectures.reading.wrapping import holding, late, over_siglip
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    BuiltShape,
    Encoder,
    Experts,
    FeedForward,
    Json,
    Layer,
    Matrix,
    Medium,
    Mlp,
    Shape,
)


def _gemma3_encoder(source: Source) -> Encoder:
    # SiglipVisionConfig's defaults (transformers); vLLM: siglip.py, gemma3_mm.py.
    vision = source.root.section("vision_config")
    assert vision is not None
    width = vision.count("hidden_size", default=1152)
    wide = vision.count("intermediate_size", default=4304)
    depth = vision.count("num_hidden_layers", default=27, most=MOST_LAYERS)
    patch = vision.count("patch_size", default=14)
    image = vision.count("image_size", default=896)
    channels = vision.count("num_channels", default=3)
    hidden = source.text.count("hidden_size")
    positions = (image // patch) ** 2
    plain = channels * patch * patch * width + width + positions * width
    plain += depth * 4 * width + 2 * width  # two norms with bias a layer, one after the last
    plain += width * hidden + width  # projector and its norm
    is_tiled = width % SIGLIP_TILE == wide % SIGLIP_TILE == 0
    return Encoder(
        "siglip",
        vision.count("num_attention_heads", default=16),
        (
            Matrix(width, 3 * width, "column", count=depth),
            Matrix(width, width, "row", count=depth),
            Matrix(width, wide, "column", count=depth, quantized=is_tiled),
            Matrix(wide, width, "row", count=depth, quantized=is_tiled),
        ),
        plain,
        medium=Medium(
            source.root.count("mm_tokens_per_image", default=256),
            positions,
            width,
            2 * wide,
            channels * patch * patch,
        ),
        quantized=True,
    )


GEMMA4_FRAMES = 32


GEMMA4_FRAME_TOKENS = 70
"""vLLM profiles with a video (gemma4_mm.py): so many frames, each with eight tokens around them."""


def _gemma4_encoder(source: Source) -> Encoder | None:
    """transformers' Gemma 4 encoders, which vLLM 0.25.1 (gemma4_mm.py) uses as they are: never divided."""
    vision, audio = vision_section(source), source.root.section("audio_config")
    if vision is None and audio is None:
        return None
    hidden = source.text.count("hidden_size")
    plain = 0
    matrices: list[Matrix] = []
    medium = None
    if vision is not None and "mm_embed_dim" in vision:  # Gemma 4 12B: no encoder, patches are embedded
        width = vision.count("mm_embed_dim")
        patch = 3 * vision.count("model_patch_size") ** 2
        plain += vision.count("mm_posemb_size") * 2 * width + 2 * patch + 4 * width
        matrices.append(Matrix(patch, width, "column"))
        matrices.append(_undivided(vision.count("output_proj_dims", default=width), hidden))
    elif vision is not None:
        seen, beside, medium = _gemma4_vision(vision, hidden)
        matrices, plain = matrices + seen, plain + beside
    if audio is not None and "audio_embed_dim" in audio:
        matrices.append(_undivided(audio.count("audio_embed_dim"), hidden))
    elif audio is not None:
        heard, beside = _gemma4_audio(audio, hidden)
        matrices, plain = matrices + heard, plain + beside
    return Encoder("vision", 1, tuple(matrices), plain, divided=False, medium=medium)


def _undivided(inputs: int, outputs: int, count: int = 1, bias: bool = False) -> Matrix:
    return Matrix(inputs, outputs, "none", bias, count)


def _gemma4_vision(vision: Fields, hidden: int) -> tuple[list[Matrix], int, Medium]:
    width = vision.count("hidden_size")
    depth = vision.count("num_hidden_layers", most=MOST_LAYERS)
    heads = vision.count("num_attention_heads")
    head_dim = vision.count("head_dim", default=width // heads)
    wide = vision.count("intermediate_size")
    kv_width = vision.count("num_key_value_heads", default=heads) * head_dim
    plain = 2 * vision.count("position_embedding_size", default=10240) * width
    plain += depth * (2 * head_dim + 4 * width)
    pixels = 3 * vision.count("patch_size", default=16) ** 2
    matrices = [
        _undivided(pixels, width),
        _undivided(width, heads * head_dim, depth),
        _undivided(width, kv_width, 2 * depth),
        _undivided(heads * head_dim, width, depth),
        _undivided(width, wide, 2 * depth),
        _undivided(wide, width, depth),
        _undivided(width, hidden),
    ]
    frame = GEMMA4_FRAME_TOKENS * vision.count("pooling_kernel_size", default=3) ** 2
    medium = Medium(
        GEMMA4_FRAMES * (GEMMA4_FRAME_TOKENS + 8),
        GEMMA4_FRAMES * frame,
        width,
        3 * wide,
        pixels=pixels,
        piece=frame,
        # _encoder_chunk of gemma4_mm.py: positions as one-hot vectors of int64, twice, and their product.
        piece_bytes=frame * 4 * vision.count("position_embedding_size", default=10240) * 8,
    )
    return matrices, plain, medium


def _gemma4_audio(audio: Fields, hidden: int) -> tuple[list[Matrix], int]:
    width = audio.count("hidden_size")
    depth = audio.count("num_hidden_layers", most=MOST_LAYERS)
    heads = audio.count("num_attention_heads")
    channels = audio.values.get("subsampling_conv_channels")
    if not (isinstance(channels, list) and len(channels) == 2 and all(isinstance(c, int) for c in channels)):
        raise UnreadableError(
            "audio_config.subsampling_conv_channels is not two counts", "subsampling_conv_channels"
        )
    first, second = cast(list[int], channels)
    kernel = audio.count("conv_kernel_size", default=5)
    out = audio.count("output_proj_dims", default=1536)
    plain = 9 * first + first + 9 * first * second + second
    # Norms of two feed-forward blocks, of the convolution and around attention; scales of one head.
    plain += depth * (4 * width + 2 * width + 3 * width + width // heads + kernel * width)
    matrices = [
        _undivided(first // 4 * second, width),
        _undivided(width, 4 * width, 2 * depth),
        _undivided(4 * width, width, 2 * depth),
        _undivided(width, width, 5 * depth),
        _undivided(width, 2 * width, depth),
        _undivided(width, width, depth),
        _undivided(width, out, bias=True),
        _undivided(out, hidden),
    ]
    return matrices, plain


_GEMMA = DecoderDefaults(head_dim=256, tied=True)


_GEMMA2 = DecoderDefaults(head_dim=256, tied=True, norms=4)


_GEMMA3 = DecoderDefaults(head_dim=256, tied=True, norms=4, head_norms=2)


def _gemma3(source: Source) -> Shape:
    # Gemma3TextConfig's defaults (transformers): what google/gemma-3-4b-it leaves out.
    text = with_defaults(
        source.text,
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=262_208, sliding_window=4096,
        max_position_embeddings=131_072,
    )  # fmt: skip
    count = num_layers(text)
    if layer_types(text, count) is None:
        pattern = text.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    encoder = _gemma3_encoder if source.root.section("vision_config") else None
    shape = dense(_GEMMA3, encoder)(replace(source, text=text))
    if "rope_local_base_freq" in text or "rope_parameters" not in text:
        # Sliding layers have a table of their own, which is not scaled.
        local = text.count("max_position_embeddings", most=LONGEST_CONTEXT) * text.count("head_dim")
        shape = replace(shape, rope_elements=shape.rope_elements + local)
    return shape


def _gemma2(source: Source) -> Shape:
    text = source.text
    count = num_layers(text)
    if layer_types(text, count) is None:
        # Gemma2Config: every second layer slides, the first included.
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    return dense(_GEMMA2)(replace(source, text=with_defaults(text, sliding_window=4096)))


def _gemma4(source: Source) -> Shape:
    """Gemma 4: sliding layers with small heads, global ones with large; some read another layer's cache."""
    text = source.text
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None or set(types) - {"sliding_attention", "full_attention"}:
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is missing or names an unknown kind", field)
    sliding, full = _gemma4_attentions(text)
    shared = text.count("num_kv_shared_layers", default=0, least=0, most=MOST_LAYERS)
    first_shared = count - shared if shared else count
    per_layer = text.optional("hidden_size_per_layer_input") or 0
    norms = 4 * hidden
    experts = _gemma4_experts(text) if text.flag("enable_moe_block") else None
    if experts is not None:
        norms += 3 * hidden
    if per_layer:
        norms += 2 * hidden * per_layer + hidden  # gate, projection and norm of the per-layer embedding
    width = text.count("intermediate_size")
    layers = []
    for i, kind in enumerate(types):
        is_shared = i >= first_shared > 0
        mixer = replace(sliding if kind == "sliding_attention" else full, shares_cache=is_shared)
        mlp = Mlp(width * (2 if is_shared and text.flag("use_double_wide_mlp") else 1))
        block: FeedForward = replace(experts, dense=mlp) if experts else mlp
        layers.append(Layer(mixer, block, norms))
    embedding = plain = 0
    if per_layer:
        vocabulary = -(-text.count("vocab_size_per_layer_input") // 64) * 64
        # One embedding for all layers and its projection, divided; one norm, not.
        embedding = (vocabulary + hidden) * per_layer * count
        plain = per_layer
    shape = make_shape(
        source,
        layers,
        tied=True,
        rope_dim=full.head_dim,
        encoder=_gemma4_encoder(source),
        embedding_elements=embedding,
        plain_elements=plain,
    )
    # A table for each width of heads, all of it, although only a part is turned.
    length = text.count("max_position_embeddings", most=LONGEST_CONTEXT)
    return replace(shape, rope_elements=length * (sliding.head_dim + full.head_dim))


def _gemma4_attentions(text: Fields) -> tuple[Attention, Attention]:
    """That of layers with a window, and that of those which see everything."""
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    family = DecoderDefaults(head_dim=256, head_norms=2, tied=True)
    sliding = read_attention(text, family, sliding_window=window)
    head_dim = text.count("global_head_dim", default=sliding.head_dim)
    kv_heads = sliding.num_key_value_heads
    if text.flag("attention_k_eq_v"):
        kv_heads = text.count("num_global_key_value_heads", default=kv_heads, most=2**16)
    if sliding.num_attention_heads % kv_heads:
        field = text.path("num_global_key_value_heads")
        raise UnreadableError(f"attention heads are not a multiple of {kv_heads} KV heads", field)
    full = replace(
        sliding, sliding_window=None, head_dim=head_dim, v_head_dim=head_dim, num_key_value_heads=kv_heads
    )
    return sliding, full


def _gemma4_experts(text: Fields) -> Experts:
    experts = Experts(
        text.count("num_experts", most=2**16),
        text.count("top_k_experts", most=2**16),
        text.count("moe_intermediate_size", "expert_intermediate_size"),
    )
    # The router's scale, and one scale per expert.
    return replace(experts, extra_elements=text.count("hidden_size") + text.count("num_experts"))


def _gemma3n(source: Source) -> Shape:
    """Gemma 3n: several streams of hidden states, embeddings for each layer, a narrow block beside each."""
    text = with_defaults(
        source.text,
        # Gemma3nTextConfig's defaults (transformers).
        num_attention_heads=8, num_key_value_heads=2, head_dim=256, sliding_window=512, vocab_size=262_400,
        vocab_size_per_layer_input=262_144, hidden_size_per_layer_input=256, num_kv_shared_layers=15,
        laurel_rank=64, altup_num_inputs=4, max_position_embeddings=32_768,
    )  # fmt: skip
    hidden = text.count("hidden_size")
    count = num_layers(text)
    types = layer_types(with_types(text, ("sliding_window_pattern",), 5), count) or []
    widths = text.values.get("intermediate_size")
    listed = widths if isinstance(widths, list) else [widths] * count
    if len(listed) != count:
        raise UnreadableError(
            f"intermediate_size has {len(listed)} entries for {count} layers", text.path("intermediate_size")
        )
    streams = text.count("altup_num_inputs", most=64)
    per_layer = text.count("hidden_size_per_layer_input")
    attention = read_attention(text, DecoderDefaults(head_dim=256, head_norms=2))
    window = text.count("sliding_window")
    first_shared = count - text.count("num_kv_shared_layers", least=0, most=MOST_LAYERS)
    # Norms, and the scale of the corrected stream, which is in fp32.
    norms = 7 * hidden + 2 * hidden
    norms += streams**2 + streams**3 + streams * hidden + 2 * hidden * per_layer
    layers = []
    for i, kind in enumerate(types):
        mixer = replace(
            attention,
            sliding_window=window if kind == "sliding_attention" else None,
            shares_cache=i >= first_shared,
        )
        width = Fields({"intermediate_size": listed[i]}, text.where).count("intermediate_size")
        layers.append(Layer(mixer, Mlp(width), norms, beside=Mlp(text.count("laurel_rank"), gated=False)))
    vocabulary = -(-text.count("vocab_size_per_layer_input") // 64) * 64
    # One embedding for all layers and its projection, and what makes several streams of one and one of several.
    divided = (vocabulary + hidden) * per_layer * count + 2 * (streams - 1) * hidden**2
    encoder = None
    if source.architecture.endswith("ConditionalGeneration"):
        encoder = Encoder("vision", 1, None, divided=False)
    shape = make_shape(
        replace(source, text=text), layers, tied=True, rope_dim=attention.head_dim, encoder=encoder,
        embedding_elements=divided, plain_elements=per_layer,
    )  # fmt: skip
    # Sliding layers have a table of their own.
    return replace(shape, rope_elements=2 * shape.rope_elements)


def _rnj1(source: Source) -> Shape:
    """Rnj-1: Gemma 3's layers, all of which see everything."""
    # Gemma3TextConfig's defaults (transformers).
    text = with_defaults(source.text, head_dim=256, sliding_window=4096)
    count = num_layers(text)
    types = layer_types(text, count)
    if types is None or set(types) != {"full_attention"}:
        # vLLM's class knows chunks, which the configuration's class has no rope for.
        field = text.path("layer_types")
        raise UnreadableError(f"{field} is not full_attention for each layer", field)
    # Where all layers are of one kind 0.25.1 gives them the window; later versions do not.
    window = text.count("sliding_window", most=LONGEST_CONTEXT)
    attention = read_attention(text, DecoderDefaults(head_dim=256, head_norms=2), sliding_window=window)
    layer = Layer(attention, Mlp(text.count("intermediate_size")), 4 * text.count("hidden_size"))
    return make_shape(replace(source, text=text), [layer] * count, tied=True, rope_dim=attention.head_dim)


def _without_window(shape: BuiltShape) -> BuiltShape:
    """Layers that all see everything have no window, whatever the configuration says beside it."""
    mixers = [layer.mixer for layer in shape.layers]
    if not all(isinstance(m, Attention) and m.sliding_window is not None for m in mixers):
        return shape
    return in_attention(sliding_window=None)(shape)


def _vault_gemma(source: Source) -> Shape:
    """VaultGemma: Gemma 2 without the norms after attention and feed-forward."""
    # VaultGemmaConfig's defaults (transformers).
    text = with_defaults(source.text, num_key_value_heads=4, head_dim=256, sliding_window=4096)
    count = num_layers(text)
    if layer_types(text, count) is None:
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
        text = with_defaults(text, layer_types=cast(Json, types))
    return dense(DecoderDefaults(head_dim=256, tied=True))(replace(source, text=text))


def _paligemma(source: Source, width: int, _hidden: int) -> tuple[list[Matrix], int]:
    vision = vision_section(source) or source.root
    return [Matrix(width, vision.count("projection_dim", default=2048), "none")], 0


_EMBEDDED_AT_ONCE = 8192
"""Tokens that vLLM takes of EmbeddingGemma 2's context at most."""


def _embedding_gemma2(source: Source) -> Shape:
    """EmbeddingGemma 2: Gemma 4's layers and encoders, all of which see everything at once."""
    # EmbeddingGemma2TextConfig's defaults (transformers).
    text = with_defaults(
        source.text, vocab_size=262_144, hidden_size=512, intermediate_size=2048, num_hidden_layers=24,
        num_attention_heads=4, num_key_value_heads=2, head_dim=256, max_position_embeddings=262_144,
        hidden_size_per_layer_input=512, embedding_dim=768,
    )  # fmt: skip
    hidden, count = text.count("hidden_size"), num_layers(text)
    narrow = read_attention(text, DecoderDefaults(head_norms=2), bidirectional=True)
    special = text.section("per_layer_config")
    each = text.count("hidden_size_per_layer_input")
    block = Mlp(text.count("intermediate_size"))
    layers = [
        Layer(_own_heads(text, special, narrow, i, count), block, 5 * hidden + 2 * hidden * each)
        for i in range(count)
    ]
    shape = make_shape(
        replace(source, text=text),
        layers,
        tied=True,
        rope_dim=narrow.head_dim,
        encoder=_gemma4_encoder(replace(source, text=text)),
        plain_elements=each + hidden * text.count("embedding_dim"),
    )
    shape = replace(
        shape,
        pools=True,
        has_head=False,
        divided_elements=hidden * count * each,
        max_model_len=min(shape.max_model_len, _EMBEDDED_AT_ONCE),
    )
    return unweighed(shape)


def _own_heads(text: Fields, special: Fields | None, narrow: Attention, index: int, count: int) -> Attention:
    """The attention of one layer: those that see everything have heads of their own width and number."""
    if special is not None:
        own = special.section(str(index)) or Fields({}, special.where)
        width = own.count("head_dim", default=narrow.head_dim, most=2**16)
        heads = own.count("num_key_value_heads", default=narrow.num_key_value_heads, most=2**16)
    else:
        types = layer_types(text, count)
        step = text.count("sliding_window_pattern", default=6)
        is_wide = types[index] == "full_attention" if types else (index + 1) % step == 0
        if not (is_wide or index == count - 1):
            return narrow
        width = text.count("global_head_dim", default=512, most=2**16)
        heads = text.count("num_global_key_value_heads", default=1, most=2**16)
    if narrow.num_attention_heads % heads:
        field = text.path("num_global_key_value_heads")
        raise UnreadableError(f"attention heads are not a multiple of {heads} KV heads", field)
    return replace(narrow, head_dim=width, v_head_dim=width, num_key_value_heads=heads)


ARCHITECTURES: dict[str, Architecture] = {
    "GemmaForCausalLM": Architecture(dense(_GEMMA), on_every_stage=NO_HEAD),
    "Gemma2ForCausalLM": Architecture(_gemma2, on_every_stage=NO_HEAD),
    "Gemma3ForCausalLM": Architecture(_gemma3, on_every_stage=ENDS),
    "Gemma3ForConditionalGeneration": Architecture(_gemma3, on_every_stage=ENDS | ENCODER),
    "Gemma3nForCausalLM": Architecture(_gemma3n),
    "Gemma3nForConditionalGeneration": Architecture(_gemma3n, has_unread_encoder=True),
    "Gemma4ForCausalLM": Architecture(_gemma4, on_every_stage=NO_HEAD),
    "Gemma4ForConditionalGeneration": Architecture(_gemma4, on_every_stage=NO_HEAD | ENCODER),
    "Gemma4UnifiedForConditionalGeneration": Architecture(_gemma4, on_every_stage=NO_HEAD | ENCODER),
    "VaultGemmaForCausalLM": Architecture(_vault_gemma),
    "Rnj1ForCausalLM": Architecture(_rnj1, on_every_stage=ENDS, changes=since(V0_32_0, _without_window)),
    "PaliGemmaForConditionalGeneration": holding(over_siglip(_paligemma)),
    "ColPaliForRetrieval": holding(
        late(
            "PaliGemmaForConditionalGeneration",
            ("embedding_dim", *EMBEDDING_WIDTHS[:1], *EMBEDDING_WIDTHS[2:]),
        )
    ),
    "EmbeddingGemma2Model": Architecture(_embedding_gemma2, is_decoder=False, since=V0_32_0),
    "Gemma2Model": Architecture(pooling(_gemma2), is_decoder=False),
    "Gemma3TextModel": Architecture(pooling(_gemma3), is_decoder=False),
}
"""By their name in config.json."""

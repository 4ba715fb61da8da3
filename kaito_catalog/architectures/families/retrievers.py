"""Models of images and texts that give embeddings or scores: decoders and encoders with another end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kaito_catalog.architectures.as_built import expanded
from kaito_catalog.architectures.encoders import gemma4_encoder
from kaito_catalog.architectures.families.encoders import labels, looking_both_ways, padded
from kaito_catalog.architectures.families.multimodal import Reader, clip, decoder_of
from kaito_catalog.architectures.families.omni import siglip
from kaito_catalog.architectures.families.wrappers import Readers, as_of, seen_part
from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    Family,
    dense,
    layer_types,
    make_shape,
    num_layers,
    read_attention,
    unweighed,
)
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    Attention,
    Encoder,
    Json,
    Layer,
    Matrix,
    Mlp,
    Place,
    Shape,
)

_COLBERT = ("colbert_dim", "dim", "projection_dim")
_WIDTHS = ("embed_dim", "dims", "dim", "projection_dim", "colbert_dim")
"""What configurations call the width of a token's embedding, in vLLM's order."""


JINA_LABELS = 2


def _late(
    readers: Readers,
    of: str,
    widths: tuple[str, ...] = _WIDTHS,
    *,
    default: int | None = None,
    biased: bool = False,
    has_head: bool = True,
) -> Reader:
    """An embedding for each token: a matrix in fp32 behind the decoder, where the configuration says its width."""

    def read(source: Source) -> Shape:
        shape = as_of(readers()[of], source, of)
        width = source.root.optional(*widths) or default or 0
        projected = (shape.hidden_size + (1 if biased else 0)) * width
        plain = shape.plain_elements + 2 * projected
        return replace(shape, pools=True, plain_elements=plain, has_head=shape.has_head and has_head)

    return read


def _colbert_lfm2(readers: Readers) -> Reader:
    """ColBERT over LFM2, whose quantised weights no class of vLLM names."""
    read = _late(readers, "Lfm2ForCausalLM", _COLBERT, has_head=False)
    return lambda source: unweighed(read(source))


def _jina_vl(readers: Readers) -> Reader:
    """Jina's reranker of images: Qwen2-VL, and two matrices in fp32 that the ranks divide."""

    def read(source: Source) -> Shape:
        of = "Qwen2VLForConditionalGeneration"
        shape = as_of(readers()[of], source, of)
        hidden = shape.hidden_size
        # The decoder's part of the configuration has the default number of labels, until 0.32.0 says one.
        divided = hidden * (hidden + 1) + JINA_LABELS * hidden
        plain = shape.plain_elements + 2 * JINA_LABELS
        return replace(shape, pools=True, divided_elements=2 * divided, plain_elements=plain)

    return read


def _jina_v5(readers: Readers) -> Reader:
    """Jina's embeddings 5: Qwen3, or Llama that looks both ways, which only later versions have."""

    def read(source: Source) -> Shape:
        if source.text.flag("is_decoder", True):
            return replace(as_of(readers()["Qwen3ForCausalLM"], source, "Qwen3ForCausalLM"), pools=True)
        shape = looking_both_ways(readers()["LlamaForCausalLM"](source))
        return replace(shape, architecture="JinaEmbeddingsV5EncoderModel", pools=True, has_head=False)

    return read


def _llama_nemotron(readers: Readers, *, scored: bool = False) -> Reader:
    """Nemotron's embeddings of pages, and its reranker: SigLIP, two matrices, and Llama that looks both ways."""

    def read(source: Source) -> Shape:
        shape = looking_both_ways(decoder_of(source, readers(), "LlamaForCausalLM"))
        vision = seen_part(source)
        layered, plain = siglip(vision)
        ratio = source.root.number("downsample_ratio") or 0.5
        if not 0 < ratio <= 1:
            raise UnreadableError(f"downsample_ratio is {ratio}", "downsample_ratio")
        merged = vision.count("hidden_size", default=768) * int(1 / ratio) ** 2
        hidden = shape.hidden_size
        matrices = (*layered, Matrix(merged, hidden, "none"), Matrix(hidden, hidden, "none"))
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        encoder = Encoder("vision", heads, matrices, plain + 2 * merged)
        # The decoder has a head of its own beside, which is not used.
        scores = 2 * 2 * hidden * labels(source.text) if scored else 0
        return replace(
            shape,
            architecture=source.architecture,
            encoder=encoder,
            pools=True,
            has_head=False,
            plain_elements=shape.plain_elements + scores,
        )

    return read


def _jina_roberta(source: Source) -> Shape:
    """Jina's ColBERT 2: RoBERTa whose positions turn."""
    text = source.text
    if text.text("position_embedding_type") not in ("rope", "rotary"):
        field = text.path("position_embedding_type")
        raise UnreadableError(f"{field} is not rotary, which vLLM's class wants", field)
    gated = text.text("hidden_act") in ("silu", "geglu")
    biased = text.flag("bias", True)
    family = Family(qkv_bias=biased, output_bias=biased, norm_parts=2, gated=gated, mlp_bias=biased)
    shape = looking_both_ways(dense(family)(source))
    hidden = shape.hidden_size
    width = text.optional(*_COLBERT) or 0
    shape = replace(
        shape,
        pools=True,
        has_head=False,
        embedding_elements=padded(text.count("type_vocab_size", least=0)) * hidden,
        plain_elements=2 * width * hidden,
    )
    return unweighed(shape)


def _col_modern_vbert(readers: Readers) -> Reader:
    """ColModernVBERT: SigLIP, one matrix, and ModernBERT."""

    def read(source: Source) -> Shape:
        # ColModernVBertConfig's defaults (vLLM), which takes these fields alone.
        text = with_defaults(
            source.text, vocab_size=50_408, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
            num_attention_heads=12, max_position_embeddings=8192,
        )  # fmt: skip
        shape = as_of(readers()["ModernBertModel"], replace(source, text=text), "ModernBertModel")
        vision = with_defaults(seen_part(source), image_size=512, patch_size=16)
        layered, plain = siglip(vision)
        merged = vision.count("hidden_size", default=768)
        merged *= source.root.count("pixel_shuffle_factor", default=4, most=64) ** 2
        heads = vision.count("num_attention_heads", default=12, most=2**16)
        matrices = (*layered, Matrix(merged, shape.hidden_size, "none", bias=False))
        projected = (shape.hidden_size + 1) * source.root.count("embedding_dim", default=128)
        encoder = Encoder("vision", heads, matrices, plain)
        return replace(shape, encoder=encoder, plain_elements=shape.plain_elements + 2 * projected)

    return read


def _deepseek_both_ways(readers: Readers) -> Reader:
    """DeepSeek V3 as an embedding model: its latents are expanded where it looks both ways."""

    def read(source: Source) -> Shape:
        of = "DeepseekV3ForCausalLM"
        shape = replace(as_of(readers()[of], source, of), pools=True)
        if source.text.flag("is_causal", True):
            return shape
        return looking_both_ways(replace(shape, layers=tuple(expanded(x) for x in shape.layers)))

    return read


def _gritlm(readers: Readers) -> Reader:
    """GritLM: Mistral, which vLLM serves for embeddings where nobody asks for texts, and then it looks both ways."""

    def read(source: Source) -> Shape:
        of = "MistralForCausalLM"
        return replace(looking_both_ways(as_of(readers()[of], source, of)), pools=True)

    return read


def _privacy_filter(readers: Readers) -> Reader:
    """OpenAI's privacy filter: GPT-OSS that looks both ways, and a head over the kinds of words."""

    def read(source: Source) -> Shape:
        of = "GptOssForCausalLM"
        shape = looking_both_ways(as_of(readers()[of], source, of))
        scores = 2 * (shape.hidden_size + 1) * labels(source.text)
        plain = shape.plain_elements + scores
        return replace(shape, pools=True, has_head=False, plain_elements=plain)

    return read


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
    narrow = read_attention(text, Family(head_norms=2), bidirectional=True)
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
        encoder=gemma4_encoder(replace(source, text=text)),
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


_CLIP_TEXT: dict[str, Json] = {
    "vocab_size": 49_408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77,
}  # fmt: skip
_SIGLIP_TEXT: dict[str, Json] = {
    "vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 64,
}  # fmt: skip
"""CLIPTextConfig's and SiglipTextConfig's defaults (transformers)."""


def _texts(source: Source, defaults: Mapping[str, Json]) -> Shape:
    """The half of CLIP and SigLIP that reads: an encoder with learnt positions."""
    text = with_defaults(source.text, **defaults)
    family = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = dense(family)(replace(source, text=text))
    positions = padded(text.count("max_position_embeddings", most=LONGEST_CONTEXT))
    return replace(
        unweighed(shape),
        pools=True,
        has_head=False,
        rope_elements=0,
        embedding_elements=positions * shape.hidden_size,
    )


def _clip_model(source: Source) -> Shape:
    """CLIP as an embedding model: texts, which see what came before, and images."""
    shape, vision = _texts(source, _CLIP_TEXT), seen_part(source)
    width, out = vision.count("hidden_size", default=768), source.root.count("projection_dim", default=512)
    matrices, plain, medium = clip(vision, 0)
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    # Its attention is not told of the cache's dtype.
    layers = tuple(
        replace(x, mixer=replace(x.mixer, cache_in_dtype=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    # A norm after the last layer, and a matrix for each half.
    encoder = Encoder("vision", heads, tuple(matrices), plain + 2 * width + width * out, medium=medium)
    return replace(shape, layers=layers, encoder=encoder, plain_elements=shape.hidden_size * out)


def _siglip_model(source: Source) -> Shape:
    """SigLIP as an embedding model: texts at once, and images, which one question sums up."""
    shape, vision = looking_both_ways(_texts(source, _SIGLIP_TEXT)), seen_part(source)
    width, wide = vision.count("hidden_size", default=768), vision.count("intermediate_size", default=3072)
    layered, plain = siglip(vision)
    matrices = tuple(layered)
    if vision.flag("vision_use_head", True):
        matrices += (Matrix(width, wide, "column"), Matrix(wide, width, "row"))
        plain += width + 4 * (width + 1) * width + 2 * width
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    hidden = shape.hidden_size
    out = source.text.count("projection_size", default=hidden)
    encoder = Encoder("vision", heads, matrices, plain)
    return replace(shape, encoder=encoder, plain_elements=(hidden + 1) * out)


def retrievers(readers: Readers) -> dict[str, Reader]:
    """These architectures by name; `readers` gives those that they are made of."""
    qwen3_vl = "Qwen3VLForConditionalGeneration"
    return {
        "CLIPModel": _clip_model,
        "ColBERTJinaRobertaModel": _jina_roberta,
        "ColBERTLfm2Model": _colbert_lfm2(readers),
        "ColModernVBertForRetrieval": _col_modern_vbert(readers),
        "ColPaliForRetrieval": _late(
            readers, "PaliGemmaForConditionalGeneration", ("embedding_dim", *_WIDTHS[:1], *_WIDTHS[2:])
        ),
        "ColQwen3": _late(readers, qwen3_vl),
        "ColQwen3_5": _late(readers, "Qwen3_5ForConditionalGeneration", default=128, biased=True),
        "DeepseekV3BidirectionalModel": _deepseek_both_ways(readers),
        "EmbeddingGemma2Model": _embedding_gemma2,
        "GritLM": _gritlm(readers),
        "HF_ColBERT": _late(readers, "BertModel", ()),
        "JinaEmbeddingsV5Model": _jina_v5(readers),
        "JinaVLForRanking": _jina_vl(readers),
        "LlamaNemotronVLForSequenceClassification": _llama_nemotron(readers, scored=True),
        "LlamaNemotronVLModel": _llama_nemotron(readers),
        "OpenAIPrivacyFilterForTokenClassification": _privacy_filter(readers),
        "OpsColQwen3Model": _late(readers, qwen3_vl),
        "SiglipModel": _siglip_model,
        "Qwen3VLNemotronEmbedModel": _late(readers, qwen3_vl),
    }


ON_EVERY_STAGE: dict[str, frozenset[Place]] = dict.fromkeys(retrievers(dict), frozenset({Place.ENCODER}))
"""Beside what the decoder builds on every stage."""

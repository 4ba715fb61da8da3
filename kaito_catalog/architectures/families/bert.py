"""BERT and its kin (RoBERTa, ModernBERT, GTE, Nomic), which see all tokens at once."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.changes import V0_32_0, in_mlps, since
from kaito_catalog.architectures.reading.fields import UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import (
    DecoderDefaults,
    dense,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.reading.pooling import bidirectional, labels, padded
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.vision import siglip, stated_vision
from kaito_catalog.architectures.reading.wrapping import as_of, holding, late
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, MOST_LAYERS, Encoder, Layer, Matrix, Mlp, Shape


def _bert(source: Source) -> Shape:
    """BERT and RoBERTa: layers that see everything at once and keep nothing; norms with biases."""
    text = source.text
    hidden = text.count("hidden_size")
    family = DecoderDefaults(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = dense(family)(source)
    shape = bidirectional(shape)
    positions = text.count("max_position_embeddings", most=LONGEST_CONTEXT)
    kinds = text.count("type_vocab_size", default=2, least=0)
    offset = 0
    if source.architecture.startswith(("Roberta", "XLMRoberta", "BgeM3")):
        # The first positions stand for padding.
        offset = text.count("pad_token_id", default=1, least=0, most=positions - 2) + 1
    plain = 0
    if source.architecture.endswith("ForSequenceClassification"):
        # The pooler and the classes' head are in fp32, so that an element counts twice.
        plain = 2 * (hidden + 1) * (hidden + labels(text))
    elif source.architecture.endswith("ForTokenClassification"):
        plain = 2 * (hidden + 1) * labels(text)
    return replace(
        shape,
        pools=True,
        has_head=False,
        max_model_len=positions - offset,
        rope_elements=0,
        embedding_elements=(padded(positions) + padded(kinds)) * hidden,
        plain_elements=plain,
        # One norm, after the embeddings; the last layer has its own.
        final_norm_elements=2 * hidden,
    )


def _modern_bert(source: Source) -> Shape:
    """ModernBERT: some layers see everything, some a window; a part of the feed-forward block is on every rank."""
    text = source.text
    hidden = text.count("hidden_size")
    parts = 2 if text.flag("norm_bias") else 1
    biased = text.flag("attention_bias")
    family = DecoderDefaults(qkv_bias=biased, output_bias=biased)
    attention = read_attention(text, family, bidirectional=True)
    block = Mlp(text.count("intermediate_size"), bias=text.flag("mlp_bias"), input_replicated=True)
    # The first layer's norm is the one after the embedding.
    layers = [Layer(attention, block, (2 if i else 1) * parts * hidden) for i in range(num_layers(text))]
    ends = hidden**2 + (hidden if text.flag("classifier_bias") else 0) + parts * hidden
    classes = (hidden + 1) * labels(text)
    plain = 0
    if source.architecture.endswith("ForSequenceClassification"):
        plain = 2 * (ends + classes)  # all in fp32
    elif source.architecture.endswith("ForTokenClassification"):
        plain = ends + 2 * classes
    shape = make_shape(
        source,
        layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=2 * parts * hidden,
        plain_elements=plain,
    )
    return unweighed(replace(shape, pools=True, has_head=False))


_DIVIDES_INPUT = since(V0_32_0, in_mlps(input_replicated=False))
"""ModernBERT's ranks divide all of the feed-forward block."""


def _gte(source: Source) -> Shape:
    """GTE and Snowflake's Arctic Embed 2: BERT with positions that turn and a gated block."""
    text = source.text
    if text.text("hidden_act") != "gelu" or text.text("position_embedding_type") not in ("rope", "rotary"):
        field = text.path("position_embedding_type")
        raise UnreadableError(f"hidden_act is not gelu or {field} not rope, which vLLM's class wants", field)
    hidden = text.count("hidden_size")
    biased = text.flag("bias", True)
    attention = read_attention(text, DecoderDefaults(qkv_bias=biased, output_bias=biased), bidirectional=True)
    # Of the feed-forward block only the second matrix has a bias.
    norms = 4 * hidden + (hidden if biased else 0)
    layers = [Layer(attention, Mlp(text.count("intermediate_size")), norms)] * num_layers(text)
    plain = 0
    if source.architecture.endswith("ForSequenceClassification"):
        # The pooler and the classes' head are in fp32.
        plain = 2 * (hidden + 1) * (hidden + labels(text))
    shape = make_shape(
        source,
        layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=2 * hidden,
        embedding_elements=padded(text.count("type_vocab_size", least=0)) * hidden,
        plain_elements=plain,
    )
    return unweighed(replace(shape, pools=True, has_head=False))


def _nomic_bert(source: Source) -> Shape:
    """Nomic's BERT: positions that turn, and experts in the newer one."""
    names = (
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("intermediate_size", "n_inner"),
        ("num_experts_per_tok", "moe_top_k"),
    )
    source = DecoderDefaults(names=names).of(source)
    text = source.text
    activation = text.text("activation_function")
    if activation not in ("swiglu", "gelu"):
        field = text.path("activation_function")
        raise UnreadableError(f"{field} is neither swiglu nor gelu", field)
    biased = text.flag("qkv_proj_bias", True)
    hidden = text.count("hidden_size")
    attention = read_attention(text, DecoderDefaults(qkv_bias=biased, output_bias=biased), bidirectional=True)
    block = Mlp(text.count("intermediate_size"), gated=activation == "swiglu", bias=biased)
    step = text.count("moe_every_n_layers", default=0, least=0, most=MOST_LAYERS)
    experts = None
    if step:
        experts = read_experts(
            text,
            ("num_experts",),
            ("intermediate_size",),
            gated=False,
            expert_parallel=False,
            extra_elements=hidden,  # what is added to the experts' sum
        )
    layers = [
        Layer(attention, experts if step and i % step == 1 else block, 4 * hidden)
        for i in range(num_layers(text))
    ]
    kinds = text.count("type_vocab_size", default=2, least=0)
    shape = make_shape(
        source,
        layers,
        tied=False,
        rope_dim=attention.head_dim,
        final_norm_elements=2 * hidden,
        embedding_elements=padded(kinds) * hidden,
    )
    return unweighed(replace(shape, pools=True, has_head=False))


def _bge_m3(source: Source) -> Shape:
    """BGE M3: RoBERTa, one matrix for sparse vectors and one for many, in fp32."""
    shape = _bert(source)
    hidden = shape.hidden_size
    return replace(shape, plain_elements=2 * (hidden + 1) * (hidden + 1))


def _splade(source: Source) -> Shape:
    """SPLADE and BERT with its own head: as wide as the vocabulary, whole on every rank."""
    shape = _bert(source)
    hidden = shape.hidden_size
    plain = hidden * (hidden + 1) + 2 * hidden + (hidden + 1) * shape.vocab_size
    return replace(shape, plain_elements=plain)


def _colbert(source: Source) -> Shape:
    """ColBERT over ModernBERT: a matrix in fp32, where the configuration says its width."""
    shape = _modern_bert(source)
    width = source.text.optional("colbert_dim", "dim", "projection_dim")
    return replace(shape, plain_elements=2 * shape.hidden_size * (width or 0))


def _col_modern_vbert(source: Source) -> Shape:
    """ColModernVBERT: SigLIP, one matrix, and ModernBERT."""
    # ColModernVBertConfig's defaults (vLLM), which takes these fields alone.
    text = with_defaults(
        source.text, vocab_size=50_408, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
        num_attention_heads=12, max_position_embeddings=8192,
    )  # fmt: skip
    shape = as_of(replace(source, text=text), "ModernBertModel")
    vision = with_defaults(stated_vision(source), image_size=512, patch_size=16)
    layered, plain = siglip(vision)
    merged = vision.count("hidden_size", default=768)
    merged *= source.root.count("pixel_shuffle_factor", default=4, most=64) ** 2
    heads = vision.count("num_attention_heads", default=12, most=2**16)
    matrices = (*layered, Matrix(merged, shape.hidden_size, "none", bias=False))
    projected = (shape.hidden_size + 1) * source.root.count("embedding_dim", default=128)
    encoder = Encoder("vision", heads, matrices, plain)
    return replace(shape, encoder=encoder, plain_elements=shape.plain_elements + 2 * projected)


ARCHITECTURES: dict[str, Architecture] = {
    "BertModel": Architecture(_bert, is_decoder=False),
    "BertForSequenceClassification": Architecture(_bert, is_decoder=False),
    "BertForTokenClassification": Architecture(_bert, is_decoder=False),
    "BertForMaskedLM": Architecture(_splade, is_decoder=False),
    "BertSpladeSparseEmbeddingModel": Architecture(_splade, is_decoder=False),
    "RobertaModel": Architecture(_bert, is_decoder=False),
    "RobertaForMaskedLM": Architecture(_bert, is_decoder=False),
    "RobertaForSequenceClassification": Architecture(_bert, is_decoder=False),
    "RobertaForTokenClassification": Architecture(_bert, is_decoder=False),
    "XLMRobertaModel": Architecture(_bert, is_decoder=False),
    "XLMRobertaForSequenceClassification": Architecture(_bert, is_decoder=False),
    "XLMRobertaForTokenClassification": Architecture(_bert, is_decoder=False),
    "BgeM3EmbeddingModel": Architecture(_bge_m3, is_decoder=False),
    "HF_ColBERT": holding(late("BertModel", ())),
    "ModernBertModel": Architecture(_modern_bert, is_decoder=False, changes=_DIVIDES_INPUT),
    "ModernBertForSequenceClassification": Architecture(
        _modern_bert, is_decoder=False, changes=_DIVIDES_INPUT
    ),
    "ModernBertForTokenClassification": Architecture(_modern_bert, is_decoder=False, changes=_DIVIDES_INPUT),
    "ColBERTModernBertModel": Architecture(_colbert, is_decoder=False, changes=_DIVIDES_INPUT),
    "ColModernVBertForRetrieval": holding(_col_modern_vbert, changes=_DIVIDES_INPUT),
    "GteModel": Architecture(_gte, is_decoder=False),
    "GteNewModel": Architecture(_gte, is_decoder=False),
    "GteNewForSequenceClassification": Architecture(_gte, is_decoder=False),
    "NomicBertModel": Architecture(_nomic_bert, is_decoder=False),
}
"""By their name in config.json."""

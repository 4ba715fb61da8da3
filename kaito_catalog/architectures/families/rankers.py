"""Models that give embeddings, scores or classes, beyond BERT and the decoders' own, as vLLM 0.25.1 builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaito_catalog.architectures.families.decoders import READERS as DECODERS
from kaito_catalog.architectures.families.dense import READERS as DENSE
from kaito_catalog.architectures.families.encoders import ENCODERS, labels, looking_both_ways, padded, pooling
from kaito_catalog.architectures.reading.fields import Source, UnreadableError
from kaito_catalog.architectures.reading.parts import (
    Family,
    make_shape,
    num_layers,
    read_attention,
    read_experts,
    unweighed,
)
from kaito_catalog.architectures.shape import MOST_LAYERS, Layer, Mlp, Place, Shape


def _modern_bert(source: Source) -> Shape:
    """ModernBERT: some layers see everything, some a window; a part of the feed-forward block is on every rank."""
    text = source.text
    hidden = text.count("hidden_size")
    parts = 2 if text.flag("norm_bias") else 1
    biased = text.flag("attention_bias")
    family = Family(qkv_bias=biased, output_bias=biased)
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


def _gte(source: Source) -> Shape:
    """GTE and Snowflake's Arctic Embed 2: BERT with positions that turn and a gated block."""
    text = source.text
    if text.text("hidden_act") != "gelu" or text.text("position_embedding_type") not in ("rope", "rotary"):
        field = text.path("position_embedding_type")
        raise UnreadableError(f"hidden_act is not gelu or {field} not rope, which vLLM's class wants", field)
    hidden = text.count("hidden_size")
    biased = text.flag("bias", True)
    attention = read_attention(text, Family(qkv_bias=biased, output_bias=biased), bidirectional=True)
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
    source = Family(names=names).of(source)
    text = source.text
    activation = text.text("activation_function")
    if activation not in ("swiglu", "gelu"):
        field = text.path("activation_function")
        raise UnreadableError(f"{field} is neither swiglu nor gelu", field)
    biased = text.flag("qkv_proj_bias", True)
    hidden = text.count("hidden_size")
    attention = read_attention(text, Family(qkv_bias=biased, output_bias=biased), bidirectional=True)
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


def _jina_ranking(source: Source) -> Shape:
    """Jina's reranker 3: Qwen3 and two matrices."""
    shape = replace(pooling(_QWEN3)(source), has_head=False)
    middle = shape.hidden_size // 2
    out = source.text.count("embedding_size", default=512)
    return unweighed(replace(shape, plain_elements=middle * (shape.hidden_size + out)))


def _voyage(source: Source) -> Shape:
    """Voyage's embeddings: Qwen3 that looks both ways, and a matrix to the embedding's width."""
    shape = looking_both_ways(replace(pooling(_QWEN3)(source), has_head=False))
    return unweighed(replace(shape, plain_elements=shape.hidden_size * labels(source.text)))


def _bge_m3(source: Source) -> Shape:
    """BGE M3: RoBERTa, one matrix for sparse vectors and one for many, in fp32."""
    shape = ENCODERS["XLMRobertaModel"](source)
    hidden = shape.hidden_size
    return replace(shape, plain_elements=2 * (hidden + 1) * (hidden + 1))


def _splade(source: Source) -> Shape:
    """SPLADE and BERT with its own head: as wide as the vocabulary, whole on every rank."""
    shape = ENCODERS["BertModel"](source)
    hidden = shape.hidden_size
    plain = hidden * (hidden + 1) + 2 * hidden + (hidden + 1) * shape.vocab_size
    return replace(shape, plain_elements=plain)


def _colbert(source: Source) -> Shape:
    """ColBERT over ModernBERT: a matrix in fp32, where the configuration says its width."""
    shape = _modern_bert(source)
    width = source.text.optional("colbert_dim", "dim", "projection_dim")
    return replace(shape, plain_elements=2 * shape.hidden_size * (width or 0))


def _rewarding(read: Callable[[Source], Shape], outputs: int | None) -> Callable[[Source], Shape]:
    """A decoder whose head, in fp32, says what a text is worth: a matrix, or two with so many outputs."""

    def rewarding(source: Source) -> Shape:
        shape = unweighed(replace(pooling(read)(source), has_head=False))
        hidden = shape.hidden_size
        if outputs is None:
            return replace(shape, divided_elements=2 * hidden)
        divided = hidden * (hidden + 1) + outputs * hidden
        return replace(shape, divided_elements=2 * divided, plain_elements=shape.plain_elements + 2 * outputs)

    return rewarding


def _both_ways(read: Callable[[Source], Shape]) -> Callable[[Source], Shape]:
    def reading(source: Source) -> Shape:
        return replace(looking_both_ways(read(source)), has_head=False)

    return reading


_LLAMA = DENSE["LLaMAForCausalLM"]
_QWEN2 = DECODERS["Qwen2ForCausalLM"]
_QWEN3 = DECODERS["Qwen3ForCausalLM"]

READERS: dict[str, Callable[[Source], Shape]] = {
    "BertForMaskedLM": _splade,
    "BertSpladeSparseEmbeddingModel": _splade,
    "BgeM3EmbeddingModel": _bge_m3,
    "ColBERTModernBertModel": _colbert,
    "JinaForRanking": _jina_ranking,
    "VoyageQwen3BidirectionalEmbedModel": _voyage,
    "GPT2ForSequenceClassification": pooling(DENSE["GPT2LMHeadModel"], scored=True),
    "GteModel": _gte,
    "GteNewForSequenceClassification": _gte,
    "GteNewModel": _gte,
    "InternLM2ForRewardModel": _rewarding(DENSE["InternLM2ForCausalLM"], None),
    "LlamaBidirectionalForSequenceClassification": _both_ways(pooling(_LLAMA, scored=True)),
    "ModernBertForSequenceClassification": _modern_bert,
    "ModernBertForTokenClassification": _modern_bert,
    "ModernBertModel": _modern_bert,
    "NomicBertModel": _nomic_bert,
    "LlamaBidirectionalModel": _both_ways(pooling(_LLAMA)),
    "Qwen2ForProcessRewardModel": _rewarding(_QWEN2, 2),
    "Qwen2ForRewardModel": _rewarding(_QWEN2, 1),
}
"""Models that give scores or embeddings, by their name in config.json."""

ON_EVERY_STAGE: dict[str, frozenset[Place]] = {
    "InternLM2ForRewardModel": frozenset({Place.EMBEDDING, Place.HEAD, Place.NORM}),
}
"""Parts that vLLM 0.25.1 builds on every pipeline stage."""

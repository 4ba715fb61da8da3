"""Models that are not only decoders: text encoders (BERT), pooling heads over decoders, Whisper; vLLM 0.25.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.architectures.reading.fields import Fields, Source, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import Family, dense, make_shape
from kaito_catalog.architectures.shape import (
    LONGEST_CONTEXT,
    MOST_LAYERS,
    Attention,
    Encoder,
    Layer,
    Matrix,
    Medium,
    Mlp,
    Shape,
)

_PADDING = 64
"""vLLM's tables of positions and kinds of tokens are padded like a vocabulary's."""


def padded(rows: int) -> int:
    """Rows of a table as vLLM allocates them."""
    return -(-rows // _PADDING) * _PADDING


def _bert(source: Source) -> Shape:
    """BERT and RoBERTa: layers that see everything at once and keep nothing; norms with biases."""
    text = source.text
    hidden = text.count("hidden_size")
    family = Family(qkv_bias=True, output_bias=True, norm_parts=2, gated=False, mlp_bias=True)
    shape = dense(family)(source)
    shape = looking_both_ways(shape)
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


def labels(text: Fields) -> int:
    """Classes that a head tells apart."""
    names = text.values.get("id2label")
    if isinstance(names, dict) and names:
        return len(names)
    return text.count("num_labels", default=2, most=10**6)


def looking_both_ways(shape: Shape) -> Shape:
    """The same layers, all of which see every token at once and keep nothing."""
    layers = tuple(
        replace(x, mixer=replace(x.mixer, bidirectional=True)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def pooling(read: Callable[[Source], Shape], *, scored: bool = False) -> Callable[[Source], Shape]:
    """A decoder that gives embeddings; with `scored`, a head over the labels is in its output embedding's place."""

    def pooled(source: Source) -> Shape:
        shape = read(source)
        # vLLM keeps the scores' head in fp32.
        plain = 2 * shape.hidden_size * labels(source.text) if scored else 0
        return replace(shape, pools=True, has_head=not scored, plain_elements=shape.plain_elements + plain)

    return pooled


def _whisper(source: Source) -> Shape:
    """Whisper: a decoder that also looks at what its encoder said, which it keeps for each request."""
    text = source.text
    hidden = text.count("d_model")
    heads = text.count("decoder_attention_heads", most=2**16)
    if hidden % heads:
        raise UnreadableError(f"d_model {hidden} is not a multiple of {heads} heads", "d_model")
    depth = text.count("decoder_layers", most=MOST_LAYERS)
    layers = looking_layers(hidden, heads, text.count("decoder_ffn_dim"), depth)
    longest = text.count("max_target_positions", most=LONGEST_CONTEXT)
    filled = with_defaults(text, hidden_size=hidden, max_position_embeddings=longest)
    made = make_shape(
        replace(source, text=filled),
        layers,
        tied=True,
        rope_dim=1,
        final_norm_elements=2 * hidden,
        encoder=_whisper_encoder(text, hidden),
        plain_elements=longest * hidden,
    )
    return replace(
        made, rope_elements=0, max_model_len=longest, tie_word_embeddings=True, embedding_replicated=True
    )


def looking_layers(hidden: int, heads: int, wide: int, depth: int) -> list[Layer]:
    """A decoder's layers that also look at what an encoder said; stages do not matter, vLLM cuts none."""
    if hidden % heads:
        raise UnreadableError(f"a width of {hidden} is not a multiple of {heads} heads")
    itself = Attention(heads, heads, hidden // heads, hidden // heads, qkv_bias=True, output_bias=True)
    looking = replace(itself, looks_at_encoder=True)
    mlp = Mlp(wide, gated=False, bias=True)
    # Two attentions and one feed-forward block make a layer.
    return [Layer(itself, None, 2 * hidden), Layer(looking, mlp, 4 * hidden)] * depth


def _whisper_encoder(text: Fields, hidden: int) -> Encoder:
    depth = text.count("encoder_layers", most=MOST_LAYERS)
    wide = text.count("encoder_ffn_dim")
    bins = text.count("num_mel_bins", default=80)
    positions = text.count("max_source_positions", default=1500, most=LONGEST_CONTEXT)
    plain = 3 * bins * hidden + hidden + 3 * hidden * hidden + hidden + positions * hidden
    plain += depth * 4 * hidden + 2 * hidden
    return Encoder(
        "audio",
        text.count("encoder_attention_heads", most=2**16),
        (
            Matrix(hidden, 3 * hidden, "column", count=depth),
            Matrix(hidden, hidden, "row", count=depth),
            Matrix(hidden, wide, "column", count=depth),
            Matrix(wide, hidden, "row", count=depth),
        ),
        plain,
        medium=Medium(positions, positions, hidden, 2 * wide, 2 * bins),
    )


def over_decoders(readers: Mapping[str, Callable[[Source], Shape]]) -> dict[str, Callable[[Source], Shape]]:
    """Embedding models and classifiers that are decoders of a known family with another end."""
    found = {name: pooling(readers[of]) for name, of in _EMBEDDING_OF.items()}
    for name, read in readers.items():
        stem = name.removesuffix("ForCausalLM")
        if stem != name:
            found[f"{stem}ForSequenceClassification"] = pooling(read, scored=True)
    return found


_EMBEDDING_OF = {
    "Gemma2Model": "Gemma2ForCausalLM",
    "Gemma3TextModel": "Gemma3ForCausalLM",
    "LlamaModel": "LlamaForCausalLM",
    "MistralModel": "MistralForCausalLM",
    "Phi3Model": "Phi3ForCausalLM",
    "Qwen2Model": "Qwen2ForCausalLM",
    "Qwen3Model": "Qwen3ForCausalLM",
}
"""Embedding models that are a decoder under another name."""

ENCODERS: dict[str, Callable[[Source], Shape]] = {
    "BertModel": _bert,
    "BertForSequenceClassification": _bert,
    "BertForTokenClassification": _bert,
    "RobertaModel": _bert,
    "RobertaForMaskedLM": _bert,
    "RobertaForSequenceClassification": _bert,
    "RobertaForTokenClassification": _bert,
    "XLMRobertaModel": _bert,
    "XLMRobertaForSequenceClassification": _bert,
    "XLMRobertaForTokenClassification": _bert,
    "WhisperForConditionalGeneration": _whisper,
}
"""Architectures that are no decoders alone."""

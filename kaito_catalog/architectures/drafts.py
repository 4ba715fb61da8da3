"""The configuration of a drafter that is a model of its own: EAGLE, EAGLE-3, DFlash, Medusa, or any other model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kaito_catalog.architectures import ARCHITECTURES, read_shape
from kaito_catalog.architectures.mixers import Attention
from kaito_catalog.architectures.reading.fields import Fields, UnreadableError, with_defaults
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense
from kaito_catalog.architectures.reading.record import Source
from kaito_catalog.architectures.shape import Config, Drafter, Layer, Matrix, Shape, Unsupported

AUXILIARY_STATES = 3
"""Layers of the model that EAGLE-3 reads where nothing says it: early, middle, late."""

_LLAMA, _QWEN3 = DecoderDefaults(), DecoderDefaults(head_dim=128, head_norms=2)

_EAGLE3 = {
    "LlamaForCausalLM": _LLAMA,
    "LlamaForCausalLMEagle3": _LLAMA,
    "Eagle3LlamaForCausalLM": _LLAMA,
    "Eagle3MiniMaxM2ForCausalLM": _LLAMA,
    "Eagle3Qwen2_5vlForCausalLM": _LLAMA,
    "Eagle3Qwen3vlForCausalLM": _LLAMA,
    "PEagleDraftModel": _LLAMA,
    "PeagleLlamaForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _QWEN3,
    "Eagle3Qwen3ForCausalLM": _QWEN3,
    "PeagleQwen3ForCausalLM": _QWEN3,
}
"""What vLLM builds them as, by their names (EAGLEConfig and the registry of 0.25.1)."""
_DFLASH = frozenset({"DFlashDraftModel", "Qwen3DSparkModel"})


def read_draft(config: Config, method: str, *, quantization: Config | None = None) -> Drafter | Unsupported:
    """Read the configuration of a drafter.

    Args:
        config: config.json of its repository; that of the speculators library is taken too.
        method: as in `speculative-config`: eagle, eagle3, dflash, dspark, medusa, mtp or draft_model.
        quantization: hf_quant_config.json, where that lies beside it.
    """
    config = _flat(config)
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    try:
        if method == "draft_model":
            return _whole(config, quantization)
        if method == "mtp":
            return _of_model(config, quantization)
        reader = _READERS.get(method)
        if reader is None:
            return Unsupported(f"no plan for drafters of the method {method[:40]}", None, name)
        text = Fields(config)
        return reader(Source("LlamaForCausalLM", text, text, quantization, ARCHITECTURES), name or "")
    except UnreadableError as error:
        return Unsupported(f"the drafter's configuration: {error.reason}", error.field, name)


def _flat(config: Config) -> Config:
    """The speculators library keeps the layers' dimensions in a section of their own."""
    inner = config.get("transformer_layer_config")
    if not isinstance(inner, dict) or "speculators_model_type" not in config:
        return config
    architectures = {"llama": "Eagle3LlamaForCausalLM", "qwen3": "Eagle3Qwen3ForCausalLM"}
    kind = str(inner.get("model_type", "llama"))
    names: Mapping[str, str] = (
        {kind: "DFlashDraftModel"} if config["speculators_model_type"] == "dflash" else architectures
    )
    flat: dict[str, object] = {**inner, "architectures": [names.get(kind, kind)]}
    for key in ("draft_vocab_size", "target_hidden_size", "norm_before_fc", "fc_norm", "torch_dtype"):
        if config.get(key) is not None:
            flat[key] = config[key]
    layers = config.get("eagle_aux_hidden_state_layer_ids") or config.get("aux_hidden_state_layer_ids")
    if isinstance(layers, list):
        flat["eagle_config"] = {"eagle_aux_hidden_state_layer_ids": layers}
        flat["dflash_config"] = {"target_layer_ids": layers}
    return flat  # type: ignore[return-value]


def _whole(config: Config, quantization: Config | None) -> Drafter | Unsupported:
    shape = read_shape(config, quantization=quantization)
    if isinstance(shape, Unsupported):
        return shape
    return Drafter(shape, is_whole=True)


def _of_model(config: Config, quantization: Config | None) -> Drafter | Unsupported:
    """MTP layers that another checkpoint of the same model brings."""
    shape = read_shape(config, quantization=quantization)
    if isinstance(shape, Unsupported):
        return shape
    if shape.mtp is None:
        reason = f"no plan for the MTP layers of {shape.architecture[:60]}"
        return Unsupported(reason, "architectures", shape.architecture)
    return shape.mtp


def _bare(shape: Shape, layers: list[Layer], plain_elements: int) -> Shape:
    return replace(
        shape, layers=tuple(layers), tie_word_embeddings=False, rope_elements=0, plain_elements=plain_elements
    )


def _eagle3(source: Source, name: str) -> Drafter | Unsupported:
    """EAGLE-3: the first layer sees the embedding beside the hidden states of several layers of the model."""
    defaults = _EAGLE3.get(name)
    if defaults is None:
        return Unsupported(f"no plan for the drafter {name[:60]}", "architectures", name)
    text = source.text
    shape = dense(defaults)(source)
    hidden = shape.hidden_size
    section = text.section("eagle_config") or Fields({})
    states, target = _states(text, section), text.optional("target_hidden_size") or hidden
    layers = [
        replace(layer, mixer=_fed_twice(layer) if i == 0 else layer.mixer, norm_elements=3 * hidden)
        for i, layer in enumerate(shape.layers)
    ]
    norms = 0
    if section.flag("norm_before_fc", text.flag("norm_before_fc")):
        norms += states * target
    if text.flag("fc_norm"):
        norms += states * target
    fusion: tuple[Matrix, ...] = (Matrix(states * target, hidden, "none", False, quantized=True),)
    if not section.flag("use_aux_hidden_state", True):
        fusion, states = (), 1
    return Drafter(
        _bare(shape, layers, norms),
        fusion,
        heads=1,
        head_rows=text.optional("draft_vocab_size") or shape.vocab_size,
        maps_tokens=True,
        hidden_states=states,
    )


def _states(text: Fields, section: Fields) -> int:
    listed = section.values.get("eagle_aux_hidden_state_layer_ids")
    number = len(listed) if isinstance(listed, list) and listed else AUXILIARY_STATES
    return text.count("num_aux_hidden_states", default=number, most=100)


def _fed_twice(layer: Layer) -> Attention:
    assert isinstance(layer.mixer, Attention)
    return replace(layer.mixer, fed_twice=True)


def _eagle(source: Source, name: str) -> Drafter | Unsupported:
    """EAGLE: the first layer has no norm of its input; vLLM builds no output embedding."""
    if name.removeprefix("Eagle") != "LlamaForCausalLM":
        return Unsupported(f"no plan for the drafter {name[:60]}", "architectures", name)
    shape = dense(_LLAMA)(source)
    hidden = shape.hidden_size
    first, *others = shape.layers
    layers = [replace(first, norm_elements=hidden), *others]
    matrix = Matrix(2 * hidden, hidden, "none", False, quantized=True)
    bare = replace(_bare(shape, layers, 0), final_norm_elements=0)
    return Drafter(bare, (matrix,))


def _dflash(source: Source, name: str) -> Drafter | Unsupported:
    """DFlash: all tokens in one step, from the hidden states of as many layers as the configuration lists."""
    if name not in _DFLASH:
        return Unsupported(f"no plan for the drafter {name[:60]}", "architectures", name)
    text = source.text
    section = text.section("dflash_config") or Fields({})
    types = text.texts("layer_types") or []
    if section.flag("use_swa") or "sliding_attention" in types or "markov_rank" in text:
        return Unsupported(
            f"no plan for the windows or the Markov head of {name[:60]}", "dflash_config", name
        )
    full = with_defaults(text, use_sliding_window=False)
    shape = dense(_QWEN3)(replace(source, text=full, root=full))
    hidden = shape.hidden_size
    listed = section.values.get("target_layer_ids")
    states = len(listed) if isinstance(listed, list) and listed else len(shape.layers)
    target = text.optional("target_hidden_size") or hidden
    rows = text.optional("draft_vocab_size") or shape.vocab_size
    has_own = rows != shape.vocab_size
    return Drafter(
        # A norm of what it is fed with, and the embedding of a mask.
        _bare(shape, list(shape.layers), 2 * hidden),
        (Matrix(states * target, hidden, "none", False, quantized=True),),
        heads=int(has_own),
        head_rows=rows,
        maps_tokens=has_own,
        hidden_states=states,
    )


def _medusa(source: Source, _name: str) -> Drafter | Unsupported:
    """Medusa: a few matrices and an output embedding for each token that is guessed; nothing is cached."""
    text = source.text
    hidden = text.count("hidden_size")
    heads = text.count("num_heads", "medusa_num_heads", default=5, most=100)
    deep = text.count("num_hidden_layers", "medusa_num_layers", default=1, least=0, most=100)
    if text.flag("original_lm_head"):
        return Unsupported("no plan for Medusa with the model's own output embedding", "original_lm_head")
    rows = text.count("vocab_size", default=0, least=0)
    shape = Shape(
        "LlamaForCausalLM", hidden, rows or 1, (), False, "bfloat16", None, None, 1, 0, 0, has_head=False
    )
    bias = text.flag("medusa_fc_bias")
    return Drafter(
        shape,
        (Matrix(hidden, hidden, "none", bias, heads * deep, False),) if deep else (),
        has_embedding=False,
        heads=heads,
        head_rows=rows or None,
    )


_READERS: Mapping[str, Callable[[Source, str], Drafter | Unsupported]] = {
    "eagle": _eagle,
    "eagle3": _eagle3,
    "dflash": _dflash,
    "dspark": _dflash,
    "medusa": _medusa,
}

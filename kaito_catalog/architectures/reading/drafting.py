"""Layers that guess tokens ahead (multi-token prediction), as the model's own configuration describes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.reading.parts import num_layers
from kaito_catalog.architectures.reading.quantization import (
    quantized_modules,
    read_quantization,
    with_quantization,
)
from kaito_catalog.architectures.reading.record import DrafterReader, Reader, Source
from kaito_catalog.architectures.shape import (
    MOST_LAYERS,
    Config,
    Drafter,
    Json,
    Layer,
    Matrix,
    Quantization,
    Shape,
)

NEXTN = "num_nextn_predict_layers"


def mtp(
    *,
    count: str = NEXTN,
    default: int = 0,
    norms: int = 3,
    divided: bool = False,
    named: str | None = None,
    longer: Callable[[Fields, int, int], dict[str, Json]] = lambda text, layers, more: {},
    change: Callable[[Source, Layer], Layer] = lambda source, layer: layer,
) -> DrafterReader:
    """Layers like those that would follow the model's last, each fed through a matrix of twice the width.

    Args:
        count: the field that says how many there are.
        default: how many, where it is absent.
        norms: of the hidden size, for each: of the token, of the hidden state, and of what comes out.
        divided: whether ranks of tensor parallelism share the matrix, and a quantisation reaches it.
        named: what vLLM calls the layers where they do not follow the model's in its names: `mtp.layers`.
        longer: other fields of the configuration with so many layers and so many more.
        change: what is otherwise than in a layer of the model.
    """

    def read(source: Source, model: Reader) -> Drafter | None:
        text = source.text
        more = text.count(count, default=default, least=0, most=MOST_LAYERS)
        if not more:
            return None
        layers = num_layers(text)
        shape = model(_longer(source, layers, more, longer(text, layers, more)))
        found = [change(source, layer) for layer in shape.layers[layers:]]
        how = shape.quantization
        if how is not None and named is not None:
            found, how = _named_apart(source, found, named)
        hidden = shape.hidden_size
        matrix = Matrix(2 * hidden, hidden, "column" if divided else "none", False, more, divided)
        return Drafter(_of_layers(shape, found, how, more * norms * hidden), (matrix,), steps=more)

    return read


def read_layers(source: Source, model: Reader, *, named: str, steps: int) -> Drafter:
    """What guesses tokens where the configuration describes its layers alone."""
    shape = model(source)
    found, how = list(shape.layers), shape.quantization
    if how is not None:
        found, how = _named_apart(source, found, named)
    hidden = shape.hidden_size
    matrix = Matrix(2 * hidden, hidden, "column", False, 1, True)
    return Drafter(_of_layers(shape, found, how, 3 * hidden), (matrix,), steps=steps)


def _longer(source: Source, layers: int, more: int, fields: dict[str, Json]) -> Source:
    """The configuration of a model with that many layers more."""
    text = source.text
    name = next(n for n in ("num_hidden_layers", "num_layers", "n_layer") if n in text)
    values: Config = {**text.values, name: layers + more, **fields}
    types = text.values.get("layer_types")
    if isinstance(types, list) and "layer_types" not in fields:
        values = {**values, "layer_types": [*types, *cast("list[Json]", ["full_attention"] * more)]}
    changed = Fields(values, text.where)
    return replace(source, text=changed, root=changed if source.root is text else source.root)


def _of_layers(shape: Shape, layers: list[Layer], how: Quantization | None, plain_elements: int) -> Shape:
    return replace(
        shape,
        layers=tuple(layers),
        quantization=how,
        encoder=None,
        plain_elements=plain_elements,
        divided_elements=0,
        embedding_elements=0,
        position_elements=0,
        final_norm_elements=0,
        rope_elements=0,
        on_every_stage=frozenset(),
    )


def _named_apart(source: Source, layers: list[Layer], named: str) -> tuple[list[Layer], Quantization | None]:
    """The layers with their own names in the configuration's lists: `mtp.layers.0.mlp`, or all of them as `mtp*`."""
    how = read_quantization(source)
    assert how is not None
    ignored = tuple(name for entry in how.ignored for name in _own_names(entry, named, len(layers)))
    modules = {
        name: scheme
        for entry, scheme in quantized_modules(source).items()
        for name in _own_names(entry, named, len(layers))
    }
    found = with_quantization(layers, replace(how, ignored=ignored), modules)
    kept = tuple(entry for entry in how.ignored if entry.startswith("re:"))
    return found, replace(how, ignored=(*kept, *(name for name in ignored if name == "fc")))


_MODULES = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "gate", "experts")),
    *(f"mlp.shared_expert.{name}" for name in ("gate_proj", "up_proj", "down_proj", "gate_up_proj")),
    "mlp.shared_expert_gate",
)
"""Of a layer, for regular expressions to be tried on."""


def _own_names(entry: str, named: str, count: int) -> list[str]:
    """The modules that an entry names among those layers, as in a model that has them alone; and what feeds them."""
    stem = named.partition(".")[0]
    word = entry.removeprefix("re:").removeprefix("model.").removeprefix("language_model.")
    if word.rstrip("*.$") in (stem, named):
        return [*(f"layers.{i}.*" for i in range(count)), "fc"]
    if entry.startswith("re:"):
        return [
            name.removeprefix(f"{stem}.")
            for i in range(count)
            for name in (*(f"{named}.{i}.{module}" for module in _MODULES), f"{stem}.fc")
            if _matches(word, name)
        ]
    match = re.match(rf"{re.escape(named)}\.(\d+)(?:\.(.*))?", word)
    if match is not None:
        return [f"layers.{match[1]}.{match[2] or '*'}"]
    return ["fc"] if word.rstrip("*") == f"{stem}.fc" else []


def _matches(expression: str, name: str) -> bool:
    try:
        return len(expression) < 200 and re.match(expression, name) is not None
    except re.error:
        return False

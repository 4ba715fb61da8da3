"""Configurations with a field that is missing or nonsense: a plan, or an honest refusal, never a traceback."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings, to_json
from kaito_catalog.quantity import GIB
from tools.exact_models import LONGEST_CONFIG, SMALL_PLANS, Model, read

MODELS = [*read(SMALL_PLANS), *(m for m in read() if len(json.dumps(m.config)) <= LONGEST_CONFIG)]
NONSENSE: tuple[object, ...] = (None, -1, 0, 1, "x", [], {}, [1, "a"], 1e30, True, 10**9)
_GPU = PlanGpu("NVIDIA H100 80GB", 80 * GIB, 9.0)
_MISSING = object()


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and every entry of a short list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*above, key)
        yield from places(below, (*above, key))


def damaged(config: Any, place: tuple[Any, ...], value: object) -> Any:
    """The configuration with one field changed; what is not on the way to it is shared, not copied."""
    first, *further = place
    changed = copy.copy(config)
    if further:
        changed[first] = damaged(config[first], tuple(further), value)
    elif value is _MISSING:
        del changed[first]
    else:
        changed[first] = value
    return changed


def damages(model: Model) -> tuple[tuple[object, ...], ...]:
    """What is put into one place after another: of long models every third value, since each layer costs time."""
    every = (*NONSENSE, _MISSING)
    shape = read_shape(model.config, quantization=model.quantization)
    is_long = isinstance(shape, Shape) and len(shape.layers) > 12
    return (every[::3], every[1::3], every[2::3]) if is_long else (every,)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: str(m.name))
def test_a_damaged_field_gives_a_plan_or_a_reason(model: Model) -> None:
    assert model.config is not None
    for place, values in zip(places(model.config), itertools.cycle(damages(model)), strict=False):
        for value in values:
            found = read_shape(damaged(model.config, place, value), quantization=model.quantization)
            if isinstance(found, Unsupported):
                assert found.reason
                continue
            plan = make_plan(
                PlanRequest(
                    found,
                    gpu=_GPU,
                    parallelism=Parallelism(2),
                    settings=Settings(min(1024, found.max_model_len), 0.9),
                    vllm_version="0.25.1",
                )
            )
            assert json.dumps(to_json(plan))
            assert plan.fits is Fit.YES or plan.reason


def test_the_configurations_are_whole_before_they_are_damaged() -> None:
    assert len(MODELS) >= 150
    assert all(
        isinstance(read_shape(m.config, quantization=m.quantization), Shape) for m in MODELS if m.config
    )

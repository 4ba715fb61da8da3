"""Configurations as they are kept: fewer fields, lists of modules folded, and still the same model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import LLAMA_8B

from kaito_catalog.architectures import read_shape
from tools.configurations import folded, smallest, smallest_quantization, unfolded

NAMES = st.lists(st.from_regex(r"\A[a-z*]{1,3}(\.[a-z0-9_*]{1,3}){0,4}\Z"), unique=True)


@pytest.mark.parametrize(
    ("kept", "meant"),
    [
        (["lm_head"], ["lm_head"]),
        (["layers.{0..2}.gate"], ["layers.0.gate", "layers.1.gate", "layers.2.gate"]),
        (["layers.{0,4..5}*"], ["layers.0*", "layers.4*", "layers.5*"]),
        (["layers.{0,1}{.gate,.norm}"], ["layers.0.gate", "layers.0.norm", "layers.1.gate", "layers.1.norm"]),
        ([1, {"names": ["a{b,}"]}], [1, {"names": ["ab", "a"]}]),
        ({"layers.{0..1}": {"algo": "FP8"}}, {"layers.0": {"algo": "FP8"}, "layers.1": {"algo": "FP8"}}),
    ],
)
def test_braces_are_written_out(kept: Any, meant: Any) -> None:
    assert unfolded(kept) == meant


@given(NAMES)
def test_folding_loses_no_name_and_adds_none(names: list[str]) -> None:
    assert sorted(unfolded(folded(names))) == sorted(names)


def test_names_of_many_layers_fold_into_one_line() -> None:
    names = [f"model.layers.{n}.{part}" for n in range(60) for part in ("mlp.gate", "input_layernorm")]
    assert folded(["lm_head", *names]) == ["lm_head", "model.layers.{0..59}{.mlp.gate,.input_layernorm}"]


def test_an_object_with_a_key_for_each_module_folds_by_what_is_said_of_them() -> None:
    modules = {f"layers.{n}.mlp": {"algo": "FP8" if n % 2 else "NVFP4"} for n in range(120)}
    kept = folded(modules)
    assert len(kept) == 2
    assert unfolded(kept) == modules


def test_a_list_that_is_no_list_of_names_stays_as_it_is() -> None:
    for value in ([0, 4, 128], ["a", "a"], ["a{1,2}"], []):
        assert folded(value) == value


def test_only_what_the_shape_depends_on_is_kept() -> None:
    config = LLAMA_8B | {"bos_token_id": 1, "rope_theta": 500000.0, "nested": {"a": 1}}
    assert smallest(config) == LLAMA_8B
    assert read_shape(smallest(config)) == read_shape(config)


def test_of_many_keys_the_one_that_counts_is_found() -> None:
    modules: dict[str, Any] = {f"layers.{n}.mlp.experts.{e}": {} for n in range(40) for e in range(20)}
    modules["lm_head"] = {"quant_algo": "FP8"}
    quantization = {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": modules}}
    kept = smallest_quantization(LLAMA_8B, quantization)
    assert kept["quantization"]["quantized_layers"] == {"lm_head": {"quant_algo": "FP8"}}

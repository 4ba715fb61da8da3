"""Reading config.json: what is taken, what is refused, and by which name."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import DEEPSEEK_V3, GEMMA3_27B, GPT_OSS_20B, LLAMA_8B, QWEN3_NEXT_80B, built, configs, shape

from kaito_catalog.architectures import (
    ARCHITECTURES,
    BY_MODEL_TYPE,
    Attention,
    BuiltShape,
    Experts,
    Shape,
    Unsupported,
    families,
    read_shape,
)
from kaito_catalog.memory.kv_cache.layers import layer_caches


def refused(config: dict[str, Any]) -> Unsupported:
    found = read_shape(config)
    assert isinstance(found, Unsupported)
    return found


def test_an_unknown_architecture_is_refused_by_name() -> None:
    found = refused({"architectures": ["NobodyForCausalLM"]})
    assert found.architecture == "NobodyForCausalLM"
    assert "NobodyForCausalLM" in found.reason


def test_every_model_type_without_architecture_stands_for_one_that_is_read() -> None:
    assert set(BY_MODEL_TYPE.values()) <= set(ARCHITECTURES)


def test_an_architecture_lies_in_one_family() -> None:
    modules = [import_module(f"{families.__name__}.{m.name}") for m in iter_modules(families.__path__)]
    names = [name for module in modules for name in module.ARCHITECTURES]
    assert sorted(names) == sorted(set(names))
    assert set(names) <= set(ARCHITECTURES)


def test_a_configuration_without_architecture_is_refused() -> None:
    assert refused({"hidden_size": 4096}).field == "architectures"


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"])
def test_a_missing_dimension_is_named(field: str) -> None:
    config = {k: v for k, v in LLAMA_8B.items() if k != field}
    assert refused(config).field == field


@pytest.mark.parametrize("value", [0, -1, 2**40, 1.5, True, "4096", [4096], float("nan"), float("inf")])
def test_an_absurd_dimension_is_named(value: object) -> None:
    assert refused(LLAMA_8B | {"hidden_size": value}).field == "hidden_size"


def test_ten_thousand_layers_are_refused() -> None:
    assert refused(LLAMA_8B | {"num_hidden_layers": 10_000}).field == "num_hidden_layers"


def test_heads_that_are_no_multiple_of_kv_heads_are_refused() -> None:
    assert refused(LLAMA_8B | {"num_key_value_heads": 5}).field == "num_key_value_heads"


def test_more_experts_per_token_than_experts_are_refused() -> None:
    assert refused(GPT_OSS_20B | {"num_experts_per_tok": 33}).field == "num_experts_per_tok"


def test_a_dtype_nobody_serves_is_refused() -> None:
    assert refused(LLAMA_8B | {"torch_dtype": "int3"}).field == "torch_dtype"


def test_float32_is_served_in_two_bytes() -> None:
    assert shape(LLAMA_8B | {"torch_dtype": "float32"}).dtype_bytes == 2


def test_layer_types_of_the_wrong_length_are_refused() -> None:
    found = refused(LLAMA_8B | {"sliding_window": 128, "layer_types": ["sliding_attention"]})
    assert found.field == "layer_types"


def caches(found: BuiltShape) -> dict[str, int]:
    whole = (range(len(found.layers)),)
    (kept,) = layer_caches(found, whole, tensor_parallel_size=1, element_bytes=2, states=1)
    return Counter(cache.kind for cache in kept)


def test_gemma_3_slides_five_layers_of_six() -> None:
    assert caches(built(GEMMA3_27B)) == {"sliding": 52, "full": 10}


def test_gpt_oss_slides_every_second_layer_first_one_included() -> None:
    layers = shape(GPT_OSS_20B).layers
    windows = [x.mixer.sliding_window for x in layers[:3] if isinstance(x.mixer, Attention)]
    assert windows == [128, None, 128]


def test_qwen3_next_has_one_full_attention_layer_in_four() -> None:
    assert caches(built(QWEN3_NEXT_80B)) == {"linear-state": 36, "full": 12}


def test_an_interval_that_transformers_would_ignore_is_refused() -> None:
    assert refused(QWEN3_NEXT_80B | {"full_attention_interval": 3}).field == "full_attention_interval"


def test_classes_that_never_tie_their_embeddings_do_not() -> None:
    assert not shape(QWEN3_NEXT_80B | {"tie_word_embeddings": True}).tie_word_embeddings


def test_deepseek_v3_begins_with_three_dense_layers() -> None:
    blocks = [layer.feed_forward for layer in shape(DEEPSEEK_V3).layers]
    assert [isinstance(b, Experts) for b in blocks[:4]] == [False, False, False, True]


def test_yarn_stretches_the_original_length() -> None:
    assert shape(DEEPSEEK_V3).max_model_len == 4096 * 40


def test_llama3_scaling_does_not_stretch_a_length_that_is_stretched_already() -> None:
    scaled = LLAMA_8B | {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
        }
    }
    assert shape(scaled).max_model_len == 131072


def test_linear_scaling_stretches_the_length() -> None:
    scaled = LLAMA_8B | {
        "max_position_embeddings": 4096,
        "rope_scaling": {"type": "linear", "factor": 4},
    }
    assert shape(scaled).max_model_len == 16384


def test_gemma_3_states_a_length_that_is_scaled_already() -> None:
    assert shape(GEMMA3_27B).max_model_len == 131072


def test_a_params_json_is_read_like_the_config_json_of_the_same_model() -> None:
    params = {
        "dim": 4096,
        "n_layers": 32,
        "head_dim": 128,
        "hidden_dim": 14336,
        "n_heads": 32,
        "n_kv_heads": 8,
        "vocab_size": 32768,
        "norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
    }
    same = LLAMA_8B | {
        "architectures": ["MistralForCausalLM"],
        "vocab_size": 32768,
        "max_position_embeddings": 32768,
    }
    assert read_shape(params) == read_shape(same)


def test_a_wish_for_an_fp8_cache_is_read_from_modelopts_configuration() -> None:
    quantized = LLAMA_8B | {
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": "FP8"}
    }
    found = shape(quantized).quantization
    assert found is not None
    assert found.kv_cache_dtype == "fp8"


@given(configs())
def test_a_sound_configuration_is_read(config: dict[str, Any]) -> None:
    found = read_shape(config)
    assert isinstance(found, Shape), found
    assert len(found.layers) == config["num_hidden_layers"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from([LLAMA_8B, GEMMA3_27B, DEEPSEEK_V3, GPT_OSS_20B, QWEN3_NEXT_80B]),
    st.data(),
)
def test_nonsense_in_any_field_gives_a_shape_or_a_reason_but_never_a_traceback(
    config: dict[str, Any], data: st.DataObject
) -> None:
    extra = [
        "layer_types",
        "rope_scaling",
        "rope_parameters",
        "text_config",
        "quantization_config",
        "head_dim",
    ]
    field = data.draw(st.sampled_from([*config, *extra]))
    found = read_shape(config | {field: data.draw(JSON)})
    assert isinstance(found, Shape | Unsupported)

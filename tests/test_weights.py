"""Bytes of the parameters per rank, against what vLLM's own classes allocate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import (
    DEEPSEEK_V3,
    DEEPSEEK_V4_FLASH,
    GEMMA3_27B,
    GPT_OSS_20B,
    LLAMA_8B,
    LLAMA_70B,
    MINIMAX_M3,
    QWEN2_5_VL,
    QWEN3_5_122B,
    QWEN3_8B,
    QWEN3_30B,
    QWEN3_32B,
    QWEN3_NEXT_80B,
    built,
    configs,
)

from kaito_catalog.architectures import BuiltShape
from kaito_catalog.memory.weights.ranks import absorbed_bytes, weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over, stages


def weights(
    found: BuiltShape, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1
) -> tuple[int, ...]:
    result = weights_per_rank(
        found, split_over(tensor_parallel_size=tensor_parallel_size), pipeline_parallel_size
    )
    assert not isinstance(result, Uncomputable), result
    return result


# What vLLM 0.25.1's own classes allocate (its planner on torch's meta device, simulated ranks).
KNOWN = [
    pytest.param(LLAMA_70B, 1, 141_107_412_992, id="Llama 70B TP1"),
    pytest.param(LLAMA_70B, 2, 70_555_025_408, id="Llama 70B TP2"),
    pytest.param(LLAMA_70B, 4, 35_278_831_616, id="Llama 70B TP4"),
    pytest.param(LLAMA_70B, 8, 17_640_734_720, id="Llama 70B TP8"),
    pytest.param(QWEN3_32B, 1, 65_524_246_528, id="Qwen3 32B"),
    pytest.param(GEMMA3_27B, 1, 54_018_692_608, id="Gemma 3 27B text"),
    pytest.param(GPT_OSS_20B, 1, 10_152_345_600 + 3_608_919_168, id="gpt-oss 20B mxfp4"),
    pytest.param(DEEPSEEK_V4_FLASH, 1, 156_006_389_980, id="DeepSeek V4 Flash"),
    pytest.param(QWEN3_NEXT_80B, 4, 39_925_738_176, id="Qwen3-Next 80B TP4"),
    pytest.param(MINIMAX_M3, 1, 854_169_948_160, id="MiniMax M3"),
    pytest.param(MINIMAX_M3, 2, 427_222_007_808, id="MiniMax M3 TP2"),
]


@pytest.mark.parametrize(("config", "tensor_parallel_size", "expected"), KNOWN)
def test_weights_equal_vllms_own_to_the_byte(
    config: dict[str, Any], tensor_parallel_size: int, expected: int
) -> None:
    assert weights(built(config), tensor_parallel_size) == (expected,)


def test_deepseek_v3_fp8_at_tp_8_is_its_fp8_and_bf16_and_scales() -> None:
    (found,) = weights(built(DEEPSEEK_V3), 8)
    scales = found - 84_441_235_456 - 678_213_632
    assert scales == pytest.approx(20.7e6, rel=0.01)


def test_absorbed_matrices_of_deepseek_v3_at_tp_8() -> None:
    assert absorbed_bytes(built(DEEPSEEK_V3), split_over(tensor_parallel_size=8)) == 255_852_544


def test_pipeline_stages_carry_the_embeddings_at_their_ends() -> None:
    first, last = weights(built(LLAMA_8B), 1, 2)
    whole = weights(built(LLAMA_8B))[0]
    assert first + last == whole
    assert last - first == 4096 * 2  # the final norm


def test_four_stages_of_llama_8b_are_as_the_log_says() -> None:
    # vLLM 0.19.0 on H100: "Model loading took 4.26 GiB" at PP 4, rotary tables (32 MiB) included.
    assert max(weights(built(LLAMA_8B), 1, 4)) / 2**30 == pytest.approx(4.26 - 0.03, abs=0.01)


def test_tied_embeddings_count_once() -> None:
    tied = built(LLAMA_8B | {"tie_word_embeddings": True})
    assert weights(built(LLAMA_8B))[0] - weights(tied)[0] == 128256 * 4096 * 2


def test_layers_that_remain_go_to_the_middle_stages() -> None:
    assert [len(s) for s in stages(62, 4)] == [15, 16, 16, 15]


def test_experts_are_distributed_with_expert_parallelism() -> None:
    found = built(DEEPSEEK_V3)
    distributed = weights_per_rank(found, split_over(tensor_parallel_size=8, enable_expert_parallel=True))
    cut = weights_per_rank(found, split_over(tensor_parallel_size=8))
    assert distributed == cut  # 256 experts are a multiple of 8, and so is their width


def test_heads_that_cannot_be_divided_are_illegal() -> None:
    found = weights_per_rank(built(LLAMA_8B), split_over(tensor_parallel_size=3))
    assert isinstance(found, Uncomputable)
    assert found.illegal


def test_a_quantisation_nobody_knows_is_named_and_not_guessed() -> None:
    quantized = built(LLAMA_8B | {"quantization_config": {"quant_method": "secret"}})
    found = weights_per_rank(quantized, split_over(tensor_parallel_size=1))
    assert isinstance(found, Uncomputable)
    assert "secret" in found.reason
    assert not found.illegal


def test_a_kv_head_is_repeated_where_there_are_more_ranks_than_heads() -> None:
    multi_query = built(LLAMA_8B | {"num_key_value_heads": 1})
    (alone,), (eight,) = weights(multi_query), weights(multi_query, 8)
    replicated = 32 * 2 * 4096 * 128 * 2 + 65 * 4096 * 2  # K and V of each layer, and the norms
    assert (alone - replicated) // 8 + replicated == eight


def compressed(weights: dict[str, Any], format_: str, **activations: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "ignore": ["lm_head", "re:.*mlp.gate$"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": activations or None,
            }
        },
    }


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
FP8_CHANNEL = {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False}
FP8_TENSOR = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
FP8_BLOCK = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}

# Qwen3-8B and Llama 3.1 8B quantised in each way: what vLLM 0.25.1's classes allocate, at TP 1 and TP 2.
QUANTIZED = [
    pytest.param(QWEN3_8B, AWQ, 6_098_479_104, 3_049_547_776, id="awq"),
    pytest.param(QWEN3_8B, GPTQ, 6_102_018_048, 3_051_907_072, id="gptq"),
    pytest.param(
        QWEN3_8B, GPTQ | {"desc_act": True}, 6_102_018_048, 3_075_500_032, id="gptq with an order of inputs"
    ),
    pytest.param(QWEN3_8B, GPTQ | {"group_size": -1}, 5_969_860_608, 2_986_196_992, id="gptq with one group"),
    pytest.param(
        QWEN3_8B, GPTQ | {"bits": 8, "group_size": 64}, 9_764_825_088, 4_883_310_592, id="gptq in 8 bits"
    ),
    pytest.param(
        QWEN3_8B, compressed(INT4, "pack-quantized"), 6_071_350_152, 3_035_984_776, id="packed int4"
    ),
    pytest.param(
        QWEN3_8B,
        compressed(FP8_CHANNEL, "float-quantized", dynamic=True),
        9_441_307_272,
        4_721_552_008,
        id="fp8 per channel",
    ),
    pytest.param(
        QWEN3_8B,
        compressed(FP8_TENSOR, "float-quantized", dynamic=False),
        9_435_705_960,
        4_718_162_536,
        id="fp8 per tensor",
    ),
    pytest.param(
        QWEN3_8B,
        compressed(FP8_BLOCK, "float-quantized", dynamic=True),
        9_437_399_688,
        4_719_008_392,
        id="fp8 per block",
    ),
    pytest.param(
        QWEN3_8B,
        compressed(FP8_CHANNEL | {"type": "int"}, "int-quantized", dynamic=True),
        9_441_307_272,
        4_721_552_008,
        id="int8 per channel",
    ),
    pytest.param(
        QWEN3_8B,
        compressed(NVFP4, "nvfp4-pack-quantized", dynamic="local"),
        6_396_932_712,
        3_198_775_912,
        id="nvfp4",
    ),
    pytest.param(
        LLAMA_8B,
        {"quant_method": "fp8", "activation_scheme": "static"},
        9_081_202_688,
        4_540_868_608,
        id="fp8 with static activations",
    ),
    pytest.param(
        LLAMA_8B,
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        9_081_201_792,
        4_540_867_712,
        id="fp8 with dynamic activations",
    ),
]


# Rules as Qwen's GPTQ repositories have them; Qwen3-30B-A3B and Qwen3.5-122B-A10B under vLLM 0.25.1's classes.
RULES: dict[str, Any] = {
    "lm_head": {},
    "-:.*attn.*": {},
    "-:.*shared_expert.*": {},
    "-:.*mtp.*": {},
    "-:.*visual.*": {},
}
QUANTIZED += [
    pytest.param(QWEN3_30B, GPTQ, 16_885_641_216, 8_506_142_720, id="gptq experts"),
    pytest.param(
        QWEN3_30B, GPTQ | {"desc_act": True}, 16_885_641_216, 8_595_009_536, id="gptq experts with an order"
    ),
    pytest.param(
        QWEN3_30B, GPTQ | {"dynamic": RULES}, 18_225_721_344, 9_175_986_176, id="gptq of experts alone"
    ),
    pytest.param(
        QWEN3_5_122B, GPTQ | {"dynamic": RULES}, 73_620_549_600, 37_018_247_280, id="gptq of a hybrid"
    ),
]


@pytest.mark.parametrize(("config", "quantization", "one", "two"), QUANTIZED)
def test_quantised_weights_equal_vllms_own_to_the_byte(
    config: dict[str, Any], quantization: dict[str, Any], one: int, two: int
) -> None:
    found = built(config | {"quantization_config": quantization})
    assert (weights(found, 1), weights(found, 2)) == ((one,), (two,))


@pytest.mark.parametrize(
    "rules", [{"-:.*layers\\.1\\..*": {}}, {"+:.*mlp.*": {"bits": 8}}, {".*down_proj": {"group_size": 32}}]
)
def test_gptq_rules_that_set_layers_or_modules_apart_are_not_guessed(rules: dict[str, Any]) -> None:
    found = built(QWEN3_8B | {"quantization_config": GPTQ | {"dynamic": rules}})
    assert isinstance(weights_per_rank(found, split_over(tensor_parallel_size=1)), Uncomputable)


def test_modules_that_are_left_alone_keep_the_models_dtype() -> None:
    alone = AWQ | {"modules_to_not_convert": ["model.layers.0.self_attn.q_proj"]}
    all_of_them = built(QWEN3_8B | {"quantization_config": AWQ})
    but_one = built(QWEN3_8B | {"quantization_config": alone})
    fused = 4096 * (32 + 2 * 8) * 128  # Q, K and V are one matrix, and one scheme
    packed = fused // 2 + fused // 128 * 2 + fused // 128 // 2
    assert weights(but_one)[0] - weights(all_of_them)[0] == 2 * fused - packed


def test_an_expression_that_could_run_for_ever_is_not_run() -> None:
    evil = AWQ | {"modules_to_not_convert": ["re:(a*)*b", "re:((((x+)+)+)+)+y", "re:["]}
    found = built(QWEN3_8B | {"quantization_config": evil})
    assert weights(found) == weights(built(QWEN3_8B | {"quantization_config": AWQ}))


def test_gpt_oss_has_its_embeddings_on_every_stage() -> None:
    # vLLM 0.25.1's classes: 8,038,902,144 bytes on both of two stages.
    assert weights(built(GPT_OSS_20B), 1, 2) == (8_038_902_144, 8_038_902_144)


def test_minimax_m3_has_its_encoder_on_every_stage() -> None:
    assert weights(built(MINIMAX_M3), 1, 2) == (406_700_354_560, 449_200_728_064)


def test_mxfp4_is_padded_for_the_kernel_of_the_gpu() -> None:
    # 11.07 GB of experts on an RTX A6000 (8.6) where an H100 (9.0) needs 10.15.
    found = built(GPT_OSS_20B)
    sizes = [
        weights_per_rank(found, split_over(tensor_parallel_size=1, compute_capability=c)) for c in (9.0, 8.6)
    ]
    assert not any(isinstance(s, Uncomputable) for s in sizes)
    hopper, ampere = (sum(s) for s in sizes if not isinstance(s, Uncomputable))
    assert hopper == 13_761_264_768
    assert (ampere - hopper) / 1e9 == pytest.approx(0.92, abs=0.01)


@given(configs(), st.sampled_from([1, 2, 4]))
def test_more_ranks_never_mean_more_weights_on_one(config: dict[str, Any], size: int) -> None:
    found = built(config)
    one = weights_per_rank(found, split_over(tensor_parallel_size=size))
    two = weights_per_rank(found, split_over(tensor_parallel_size=2 * size))
    if isinstance(one, Uncomputable) or isinstance(two, Uncomputable):
        return
    assert two[0] <= one[0]


@given(configs(), st.integers(1, 8))
def test_stages_of_a_llama_hold_the_whole_model_and_at_most_one_embedding_more(
    config: dict[str, Any], pipeline: int
) -> None:
    found = built(config | {"architectures": ["LlamaForCausalLM"]})
    if pipeline > len(found.layers):
        return
    embedding = -(-found.vocab_size // 64) * 64 * found.hidden_size * found.dtype_bytes
    twice = embedding if found.tie_word_embeddings and pipeline > 1 else 0
    assert sum(weights(found, 1, pipeline)) == weights(found)[0] + twice


EIGHT_BITS: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False},
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
        }
    },
}


@pytest.mark.parametrize(
    "ignored",
    [
        ["lm_head", "re:.*visual.*"],
        ["lm_head", "visual.blocks.0.attn.qkv"],
        ["model.vision_tower.encoder"],
        [],
    ],
)
def test_an_encoder_is_quantised_unless_the_configuration_names_a_part_of_it(ignored: list[str]) -> None:
    def weights(leaves_out: list[str]) -> int:
        config = {**QWEN2_5_VL, "quantization_config": {**EIGHT_BITS, "ignore": leaves_out}}
        found = weights_per_rank(built(config), split_over(tensor_parallel_size=1))
        assert not isinstance(found, Uncomputable)
        return found[0]

    plain = built(QWEN2_5_VL)
    assert plain.encoder is not None
    matrices = plain.encoder.matrices or ()
    saved = sum(m.count * (m.inputs * m.outputs - 4 * m.outputs) for m in matrices)
    assert weights(ignored) - weights(["lm_head"]) == saved

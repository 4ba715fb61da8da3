"""Options that change which weights are built, or how they are stored, against what vLLM's own classes make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapes import DEEPSEEK_V3, GPT_OSS_20B, LLAMA_8B, QWEN2_5_VL, QWEN3_30B

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.memory.asked_encoder import AS_WITHOUT, KEEP_ALL, with_encoder_mode
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings, Stored
from kaito_catalog.vllm_bridge.answers import ExactPlanAnswer, GpuToSimulate
from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.evidence import model_directory

VERSIONS = ("0.25.1", "0.32.0")

SMALL: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 5001,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
DENSE: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SMALL}
EXPERTS: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    **SMALL,
    "moe_intermediate_size": 1024,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


@pytest.fixture(scope="module")
def worker(vllm_python: Path) -> Iterator[Worker]:
    with Worker(vllm_python) as worker:
        yield worker


def vllm_plan(
    worker: Worker, config: dict[str, Any], version: str, *, capability: str = "9.0", **arguments: Any
) -> ExactPlanAnswer:
    """What vLLM's classes allocate."""
    gpu: GpuToSimulate = {"name": "GPU", "capability": capability, "memoryBytes": 80 * 2**30}
    with model_directory(config) as folder:
        return worker.exact_plan(
            folder,
            args={"max_model_len": 512, **arguments},
            gpu=gpu,
            vllm_version=version,
            time_limit_seconds=120,
        )


def plan(
    config: dict[str, Any],
    *,
    version: str = "0.25.1",
    capability: float = 9.0,
    tensor_parallel_size: int = 1,
    stored: Stored | None = None,
    max_model_len: int = 512,
    **options: Any,
) -> Plan:
    return make_plan(
        PlanRequest(
            read_shape(config),
            stored=stored,
            gpu=PlanGpu("GPU", 80 * 2**30, capability),
            parallelism=Parallelism(tensor_parallel_size),
            settings=Settings(max_model_len, 0.9, **options),
            vllm_version=version,
        )
    )


def shape_of(config: dict[str, Any]) -> Shape:
    found = read_shape(config)
    assert isinstance(found, Shape)
    return found


def weights(config: dict[str, Any], **asked: Any) -> int:
    found = plan(config, **asked)
    assert found.per_gpu is not None, found.reason
    return found.per_gpu.weights_bytes


# --- quantization: what vLLM makes of unquantised weights --------------------------------------------------------

# What vLLM holds after loading on an H100 (exact plans with 0.25.1 and 0.32.0, which agree), in one piece.
MADE = [
    (DENSE, "fp8", 74_213_472),
    (DENSE, "fp8_per_tensor", 74_213_472),
    (DENSE, "fp8_per_channel", 74_397_696),
    (DENSE, "mxfp8", 75_884_544),
    (DENSE, "experts_int8", 127_690_752),
    (EXPERTS, "fp8", 338_555_208),
    (EXPERTS, "fp8_per_channel", 339_795_840),
    (EXPERTS, "mxfp8", 348_790_272),
    (EXPERTS, "experts_int8", 355_560_960),
    (EXPERTS, "int8_per_channel_weight_only", 355_560_960),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("config", "quantization", "expected"), MADE)
def test_weights_that_vllm_quantises_while_it_loads_them_equal_its_own(
    config: dict[str, Any], quantization: str, expected: int, version: str
) -> None:
    assert weights(config, quantization=quantization, version=version) == expected


# DeepGEMM is not there to be asked on an H100; before Hopper vLLM does without it.
@pytest.mark.parametrize(("config", "expected"), [(DENSE, 74_226_432), (EXPERTS, 339_320_256)])
def test_blocks_of_fp8_that_vllm_makes_may_be_incomplete(config: dict[str, Any], expected: int) -> None:
    assert weights(config, quantization="fp8_per_block", capability=8.9) == expected


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("config", "quantization"), [(DENSE, "fp8"), (EXPERTS, "fp8_per_channel")])
@pytest.mark.parametrize("tensor", [2])
def test_vllm_is_asked_what_it_makes_of_weights_while_it_loads_them(
    worker: Worker, config: dict[str, Any], quantization: str, tensor: int, version: str
) -> None:
    found = vllm_plan(worker, config, version, quantization=quantization, tensor_parallel_size=tensor)
    loaded = found["perGPU"]["afterLoading"]
    assert loaded["known"], loaded
    ours = weights(config, quantization=quantization, version=version, tensor_parallel_size=tensor)
    assert ours == loaded["weightsBytes"]


MIMO: dict[str, Any] = {
    **DENSE,
    "architectures": ["MiMoForCausalLM"],
    "model_type": "qwen2",
    "num_nextn_predict_layers": 1,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_that_guess_tokens_are_quantised_with_the_model(worker: Worker, version: str) -> None:
    speculation = {"method": "mtp", "num_speculative_tokens": 1}
    found = vllm_plan(worker, MIMO, version, quantization="fp8", speculative_config=speculation)
    ours = weights(MIMO, quantization="fp8", version=version, speculative_config=json.dumps(speculation))
    assert ours == found["perGPU"]["afterLoading"]["weightsBytes"]
    assert ours > weights(MIMO, quantization="fp8", version=version)


def test_bitsandbytes_takes_four_bits_and_a_number_for_each_64_weights() -> None:
    linear = 6 * 1024 * (1536 + 1024 + 3 * 2048)
    rest = weights(DENSE) - 2 * linear
    assert weights(DENSE, quantization="bitsandbytes") == rest + linear // 2 + linear // 64 * 4


def test_bitsandbytes_is_gone_with_0_32() -> None:
    found = plan(DENSE, quantization="bitsandbytes", version="0.32.0")
    assert (found.fits, found.reason) == (Fit.NO, "vLLM 0.32.0 has no quantization bitsandbytes")


def test_a_gpu_without_the_kernels_refuses_a_scale_per_channel() -> None:
    found = plan(DENSE, quantization="fp8_per_channel", capability=8.0)
    assert found.fits is Fit.NO
    assert "needs compute capability 8.9" in (found.reason or "")


def test_files_that_hold_an_encoder_beside_the_decoder_keep_it() -> None:
    config = {**DENSE, "architectures": ["LlavaNextVideoForConditionalGeneration"]}
    config = {"architectures": config.pop("architectures"), "text_config": config, "vision_config": {}}
    encoder = 40_000_000
    decoder = weights(DENSE)
    files = StoredSize.model_validate({"sizeBytes": decoder + encoder})
    found = plan(config, quantization="fp8", stored=files)
    assert found.per_gpu is not None, found.reason
    assert found.per_gpu.weights_bytes == weights(DENSE, quantization="fp8") + encoder
    assert (found.expected_error_bytes or 0) >= encoder // 2


def test_files_that_hold_less_than_unquantised_weights_say_nothing_of_an_option() -> None:
    files = StoredSize.model_validate({"sizeBytes": weights(DENSE) // 3})
    found = plan(DENSE, quantization="fp8", stored=files)
    assert found.fits is Fit.UNKNOWN
    assert "hold less than unquantised weights" in (found.reason or "")


# --- quantization: another name for what the configuration says -------------------------------------------------------


def quantized(method: str, **fields: Any) -> dict[str, Any]:
    return {
        **LLAMA_8B,
        "quantization_config": {"quant_method": method, "bits": 4, "group_size": 128, **fields},
    }


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (quantized("awq"), "awq_marlin"),
        (quantized("awq"), "AWQ"),
        (quantized("awq"), "moe_wna16"),  # of a model without experts
        (quantized("gptq"), "gptq_marlin"),
        (quantized("gptq"), "auto_gptq"),
        (quantized("modelopt", quant_algo="NVFP4", exclude_modules=[]), "modelopt"),
        (quantized("modelopt", quant_algo="NVFP4", exclude_modules=[]), "modelopt_fp4"),
        (quantized("modelopt", quant_algo="NVFP4", exclude_modules=[]), "awq"),  # vLLM does not look at it
        (quantized("fp8", activation_scheme="dynamic"), "fp8"),
        (GPT_OSS_20B, "mxfp4"),
        (GPT_OSS_20B, "fp8x"),
        (DEEPSEEK_V3, "fp8"),
    ],
)
def test_another_name_for_the_configurations_own_changes_nothing(config: dict[str, Any], name: str) -> None:
    given = plan(config, quantization=name, tensor_parallel_size=8)
    assert given.per_gpu is not None or given.reason == plan(config, tensor_parallel_size=8).reason
    assert given.per_gpu == plan(config, tensor_parallel_size=8).per_gpu


@pytest.mark.parametrize(
    ("config", "name"),
    [(quantized("gptq"), "awq"), (quantized("fp8"), "fp8_per_tensor"), (quantized("awq"), "bitsandbytes")],
)
def test_another_method_than_the_configurations_is_refused(config: dict[str, Any], name: str) -> None:
    found = plan(config, quantization=name)
    assert (found.fits, found.limited_by) == (Fit.NO, "settings")
    assert f"does not match the option's ({name})" in (found.reason or "")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LLAMA_8B, "gptq"),
        (LLAMA_8B, "torchao"),
        (quantized("awq"), "humming"),
        (
            {**QWEN3_30B, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
            "moe_wna16",
        ),
        (quantized("modelopt", quant_algo="NVFP4", exclude_modules=[]), "fp8_per_tensor"),
    ],
)
def test_what_stores_the_weights_in_its_own_way_is_unknown_by_name(config: dict[str, Any], name: str) -> None:
    found = plan(config, quantization=name)
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "settings")
    assert f"no plan reads quantization {name}: " in (found.reason or "")
    assert json.dumps(found.reason)


# --- dtype ------------------------------------------------------------------------------------------------------------


def test_bfloat16_is_refused_where_the_gpu_has_none() -> None:
    found = plan(DENSE, dtype="bfloat16", capability=7.5)
    assert (found.fits, found.limited_by) == (Fit.NO, "settings")
    assert found.reason == (
        "bfloat16 needs compute capability 8.0 or more, and this GPU has 7.5; vLLM says to set dtype half"
    )


@pytest.mark.parametrize("dtype", ["auto", "half", "float16"])
def test_a_gpu_without_bfloat16_computes_in_as_many_bytes(dtype: str) -> None:
    assert weights(DENSE, dtype=dtype, capability=7.5) == weights(DENSE)


@pytest.mark.parametrize("dtype", ["float", "float32", "FLOAT32"])
def test_four_bytes_take_twice_as_much_of_weights_and_cache(dtype: str) -> None:
    assert weights(DENSE, dtype=dtype) == 2 * weights(DENSE)
    wide, narrow = plan(DENSE, dtype=dtype).kv_cache, plan(DENSE).kv_cache
    assert wide is not None
    assert narrow is not None
    assert wide.bytes_per_token == 2 * narrow.bytes_per_token


GEMMA: dict[str, Any] = {**SMALL, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}


def test_a_model_that_is_never_in_half_is_in_float32_where_there_is_no_bfloat16() -> None:
    assert weights(GEMMA, capability=7.5) == weights(GEMMA, dtype="float32")
    assert "refuses Gemma3ForCausalLM in float16" in (plan(GEMMA, dtype="half").reason or "")


def test_a_quantisation_says_which_dtypes_stand_beside_it() -> None:
    assert plan(GPT_OSS_20B, dtype="half").reason == "vLLM takes no float16 with the quantization mxfp4"
    assert plan(quantized("awq"), dtype="float32").reason == "vLLM takes no float32 with the quantization awq"
    assert plan(quantized("awq"), dtype="half").per_gpu == plan(quantized("awq")).per_gpu


def test_states_in_float32_are_not_planned() -> None:
    found = plan(DEEPSEEK_V3 | {"quantization_config": None}, dtype="float32", tensor_parallel_size=8)
    assert (found.fits, found.reason) == (
        Fit.UNKNOWN,
        "no plan in float32 for the layers of DeepseekV3ForCausalLM",
    )


def test_vllm_knows_no_other_dtype() -> None:
    assert plan(DENSE, dtype="fp16").reason == "vLLM knows no dtype 'fp16'"


# --- hf-overrides -----------------------------------------------------------------------------------------------------


def overridden(config: dict[str, Any], overrides: dict[str, Any], **options: Any) -> Plan:
    return plan(config, hf_overrides=json.dumps(overrides), **options)


def test_a_longer_context_may_be_set_in_the_configuration() -> None:
    assert plan(DENSE, max_model_len=10_000).limited_by == "maxModelLen"
    found = overridden(DENSE, {"max_position_embeddings": 16_384}, max_model_len=10_000)
    assert found.per_gpu == plan({**DENSE, "max_position_embeddings": 16_384}, max_model_len=10_000).per_gpu
    assert found.fits is Fit.YES


YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 8192}


def test_yarn_multiplies_the_length_until_0_32() -> None:
    earlier, later = (
        overridden(DENSE, {"rope_parameters": YARN}, max_model_len=32_768, version=version)
        for version in VERSIONS
    )
    assert earlier.fits is Fit.YES
    assert (later.fits, later.limited_by) == (Fit.NO, "maxModelLen")


def test_a_section_is_merged_and_what_stands_on_top_is_not_the_language_models() -> None:
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": GEMMA, "vision_config": {}}
    longer = {"max_position_embeddings": 16_384}
    found = overridden(config, {"text_config": longer}, max_model_len=10_000)
    assert found.limited_by != "maxModelLen"
    assert overridden(config, longer, max_model_len=10_000).fits is Fit.UNKNOWN


@pytest.mark.parametrize(
    "overrides", [{"num_attention_heads": 8}, {"rope_scaling": YARN}, {"model_type": "qwen2"}]
)
def test_keys_from_which_vllm_derives_others_are_unknown_by_name(overrides: dict[str, Any]) -> None:
    found = overridden(DENSE, overrides)
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "settings")
    assert f"no plan reads {next(iter(overrides))} there" in (found.reason or "")


def test_no_overrides_change_nothing() -> None:
    assert overridden(DENSE, {}).per_gpu == plan(DENSE).per_gpu


# --- num-gpu-blocks-override ------------------------------------------------------------------------------------------

# What vLLM's planner says of Llama 3.1 8B with so many blocks (exact plans): the longest context.
BLOCKS = [
    ("0.25.1", 500, 8000),
    ("0.25.1", 513, 8208),
    ("0.25.1", 600, 9600),
    ("0.32.0", 500, 7984),
    ("0.32.0", 513, 8192),
    ("0.32.0", 600, 9584),
]


@pytest.mark.parametrize(("version", "blocks", "longest"), BLOCKS)
def test_blocks_of_the_cache_may_be_given(version: str, blocks: int, longest: int) -> None:
    found = plan(LLAMA_8B, num_gpu_blocks_override=blocks, max_model_len=8192, version=version)
    assert found.kv_cache is not None
    assert found.kv_cache.longest_model_len == longest
    assert found.fits is (Fit.YES if longest >= 8192 else Fit.NO)


def test_too_few_blocks_are_told_as_they_were_given() -> None:
    assert plan(LLAMA_8B, num_gpu_blocks_override=500, max_model_len=8192).reason == (
        "one request of 8,192 tokens needs 1.00 GiB of KV cache and num_gpu_blocks_override is 500 (0.98 GiB); "
        "8,000 tokens would fit"
    )


def test_more_blocks_than_the_gpu_has_room_for_do_not_fit() -> None:
    found = plan(LLAMA_8B, num_gpu_blocks_override=50_000, kv_cache_memory_bytes=2**30)
    assert (found.fits, found.limited_by) == (Fit.NO, "kvCache")
    assert "num_gpu_blocks_override 50,000 (97.7 GiB), of the GPU's 80.0 GiB" in (found.reason or "")


# --- mm-encoder-tp-mode -----------------------------------------------------------------------------------------------


def test_data_has_each_rank_keep_the_whole_encoder() -> None:
    alone, without = weights(QWEN2_5_VL), weights(QWEN2_5_VL, language_model_only=True)
    divided = weights(QWEN2_5_VL, tensor_parallel_size=2)
    each = weights(QWEN2_5_VL, tensor_parallel_size=2, mm_encoder_tp_mode="data")
    assert each - weights(QWEN2_5_VL, tensor_parallel_size=2, language_model_only=True) == alone - without
    assert each > divided


@pytest.mark.parametrize("mode", ["weights", "data", "DATA"])
def test_one_rank_has_the_whole_encoder_either_way(mode: str) -> None:
    assert weights(QWEN2_5_VL, mm_encoder_tp_mode=mode) == weights(QWEN2_5_VL)


def test_an_encoder_that_was_not_compared_is_unknown_with_data() -> None:
    config = QWEN2_5_VL | {"architectures": ["Llama4ForConditionalGeneration"]}
    assert not {*KEEP_ALL} & {*AS_WITHOUT}
    assert config["architectures"][0] not in KEEP_ALL | AS_WITHOUT
    built = as_built(replace(shape_of(QWEN2_5_VL), architecture=config["architectures"][0]), "0.25.1")
    found = with_encoder_mode(built, "data", 2)
    assert isinstance(found, Refusal)
    assert found.fits is Fit.UNKNOWN


def test_vllm_knows_no_other_mode() -> None:
    found = plan(QWEN2_5_VL, mm_encoder_tp_mode="tensor")
    assert found.reason == "vLLM knows no mm-encoder-tp-mode 'tensor'"

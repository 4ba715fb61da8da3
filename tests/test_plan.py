"""The plan: verdicts, what limits them, what is unknown, and how near it comes to published logs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import (
    DEEPSEEK_V3,
    GPT_OSS_20B,
    LLAMA_8B,
    LLAMA_70B,
    QWEN2_5_VL,
    QWEN2_7B,
    QWEN2_72B,
    QWEN2_MOE,
    QWEN3_32B,
    QWEN3_NEXT_80B,
    configs,
    shape,
)

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.catalog.entries import Catalog, Shared
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.formats.hardware import Gpu, InstanceType
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.memory.option_kinds import BYTES
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.plan import make_plan, smallest_gpu_count
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings, to_json
from kaito_catalog.plans.given_options import read_options
from kaito_catalog.plans.instance_types import (
    facts_shape,
    plan_instance_types,
    request_for_facts,
    size_in_name,
)
from kaito_catalog.plans.start import engine_arguments
from kaito_catalog.quantity import GIB
from kaito_catalog.quantity import parse as parse_quantity

ROOT = Path(__file__).resolve().parents[1]
H100 = PlanGpu("NVIDIA H100 80GB", int(79.19 * GIB), 9.0)


def plan(
    config: dict[str, Any] = LLAMA_8B,
    *,
    gpu: PlanGpu = H100,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    max_model_len: int = 8192,
    gpu_memory_utilization: float = 0.9,
    vllm_version: str = "0.25.1",
    **more: Any,
) -> Plan:
    return make_plan(
        PlanRequest(
            read_shape(config),
            gpu=gpu,
            parallelism=Parallelism(tensor_parallel_size, pipeline_parallel_size),
            settings=Settings(max_model_len, gpu_memory_utilization, **more),
            vllm_version=vllm_version,
        )
    )


def test_llama_70b_does_not_fit_one_h100_for_its_weights() -> None:
    found = plan(LLAMA_70B)
    assert (found.fits, found.limited_by) == (Fit.NO, "weights")


def test_llama_70b_with_16k_fits_four_h100_at_kaitos_utilization() -> None:
    found = plan(LLAMA_70B, tensor_parallel_size=4, max_model_len=16384, gpu_memory_utilization=0.84)
    assert found.fits is Fit.YES


def test_llama_70b_with_16k_does_not_fit_two_h100_at_kaitos_utilization() -> None:
    found = plan(LLAMA_70B, tensor_parallel_size=2, max_model_len=16384, gpu_memory_utilization=0.84)
    assert (found.fits, found.limited_by) == (Fit.NO, "overheads")


def test_a_context_that_the_cache_cannot_hold_is_limited_by_the_cache() -> None:
    found = plan(LLAMA_8B, gpu=PlanGpu("NVIDIA A10", int(22 * GIB), 8.6), max_model_len=131072)
    assert (found.fits, found.limited_by) == (Fit.NO, "kvCache")
    assert found.reason is not None
    assert "tokens would fit" in found.reason


def test_a_margin_within_the_expected_error_is_tight() -> None:
    roomy = plan(max_model_len=131072)
    assert roomy.kv_cache is not None
    assert roomy.expected_error_bytes is not None
    longest = plan(LLAMA_8B | {"max_position_embeddings": 10**6}, max_model_len=8192).kv_cache
    assert longest is not None
    edge = plan(LLAMA_8B | {"max_position_embeddings": 10**6}, max_model_len=longest.longest_model_len - 64)
    assert edge.fits is Fit.TIGHT


def test_tensor_parallelism_that_does_not_divide_the_heads_does_not_fit() -> None:
    found = plan(LLAMA_8B, tensor_parallel_size=3)
    assert (found.fits, found.limited_by) == (Fit.NO, "parallelism")
    assert found.reason == "32 attention heads cannot be divided by 3"


def test_kv_heads_may_be_divided_or_repeated_but_not_both() -> None:
    config = LLAMA_8B | {
        "num_attention_heads": 48,
        "num_key_value_heads": 6,
        "head_dim": 128,
        "intermediate_size": 24576,
    }
    assert illegal_tensor_parallel(shape(config), 4) is not None
    assert illegal_tensor_parallel(shape(config), 2) is None
    assert illegal_tensor_parallel(shape(config), 12) is None


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-2, 1)])
def test_a_parallel_size_below_one_does_not_fit(sizes: tuple[int, int]) -> None:
    found = plan(tensor_parallel_size=sizes[0], pipeline_parallel_size=sizes[1])
    assert (found.fits, found.limited_by) == (Fit.NO, "parallelism")


def sparse_with_fp8_cache() -> dict[str, Any]:
    quantization = {
        "quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"], "kv_cache_quant_algo": "FP8",
    }  # fmt: skip
    return DEEPSEEK_V3 | {
        "architectures": ["DeepseekV32ForCausalLM"],
        "index_topk": 2048,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "quantization_config": quantization,
    }


def test_sparse_attention_over_the_fp8_cache_of_a_checkpoint_is_refused_before_blackwell() -> None:
    # vLLM 0.25.1 on a simulated H100: no valid attention backend for GLM-5.2-NVFP4; on a B200 there is one.
    found = plan(sparse_with_fp8_cache(), tensor_parallel_size=8, max_model_len=4096)
    assert (found.fits, found.limited_by) == (Fit.NO, "kvCacheDtype")
    for other in (
        plan(sparse_with_fp8_cache(), tensor_parallel_size=8, max_model_len=4096, kv_cache_dtype="bfloat16"),
        plan(
            sparse_with_fp8_cache(),
            tensor_parallel_size=8,
            max_model_len=4096,
            gpu=PlanGpu("NVIDIA B200", int(178 * GIB), 10.0),
        ),
    ):
        assert other.limited_by != "kvCacheDtype"


def test_gpt_oss_cannot_have_fewer_kv_heads_than_gpus() -> None:
    # vLLM 0.25.1 and 0.32.0: "integer modulo by zero".
    assert illegal_tensor_parallel(shape(GPT_OSS_20B), 8) is None
    assert illegal_tensor_parallel(shape(GPT_OSS_20B), 16) is not None


def test_more_stages_than_layers_do_not_fit() -> None:
    assert plan(pipeline_parallel_size=33).limited_by == "parallelism"


def test_a_utilization_above_one_does_not_fit() -> None:
    assert plan(gpu_memory_utilization=1.5).limited_by == "settings"


def test_more_context_than_the_model_allows_is_refused_as_vllm_does() -> None:
    found = plan(max_model_len=131073)
    assert (found.fits, found.limited_by) == (Fit.NO, "maxModelLen")


def test_an_unknown_architecture_gives_an_unknown_plan_by_name() -> None:
    found = plan({"architectures": ["NobodyForCausalLM"]})
    assert found.fits is Fit.UNKNOWN
    assert found.reason == "no plan for the architecture NobodyForCausalLM"


def test_a_gpu_whose_memory_nobody_published_gives_an_unknown_plan() -> None:
    found = plan(gpu=PlanGpu("NVIDIA Mystery", None))
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "gpu")


def test_a_gpu_nobody_has_seen_widens_the_expected_error() -> None:
    known, unseen = plan(), plan(gpu=PlanGpu("NVIDIA Mystery", H100.memory_bytes, 9.0))
    assert known.expected_error_bytes is not None
    assert unseen.expected_error_bytes is not None
    assert unseen.expected_error_bytes > known.expected_error_bytes


def test_a_vllm_version_nobody_has_seen_widens_the_expected_error() -> None:
    known, unseen = plan(vllm_version="0.19.0"), plan(vllm_version="0.99.0")
    assert known.expected_error_bytes is not None
    assert unseen.expected_error_bytes is not None
    assert unseen.expected_error_bytes > known.expected_error_bytes


def test_a_name_that_is_not_needed_is_not_asked_for() -> None:
    assert plan(gpu=PlanGpu(None, H100.memory_bytes)).fits is Fit.YES


def test_an_a100_gets_smaller_batches_than_an_h100() -> None:
    a100 = plan(gpu=PlanGpu("NVIDIA A100 80GB", int(79.15 * GIB), 8.0)).settings
    assert (a100.max_num_batched_tokens, a100.max_num_seqs) == (2048, 256)
    assert (plan().settings.max_num_batched_tokens, plan().settings.max_num_seqs) == (8192, 1024)


def test_graphs_are_reserved_from_0_20_on_and_not_with_enforce_eager() -> None:
    reserved = [
        p.per_gpu.cuda_graph_bytes > 0
        for p in (
            plan(vllm_version=v, enforce_eager=e)
            for v, e in (("0.19.0", False), ("0.20.0", False), ("0.20.0", True))
        )
        if p.per_gpu
    ]
    assert reserved == [False, True, False]


def test_language_model_only_leaves_out_the_encoder_and_its_profile() -> None:
    # 16,584,333,312 and 15,231,233,024 bytes are what vLLM 0.25.1's own classes hold with and without it.
    several, text = (
        plan(QWEN2_5_VL, vllm_version="0.28.0", language_model_only=only).per_gpu for only in (False, True)
    )
    assert several is not None
    assert text is not None
    assert several.weights_bytes - text.weights_bytes == 16_584_333_312 - 15_231_233_024
    assert several.activation_peak_bytes > text.activation_peak_bytes + GIB


def test_an_encoder_that_vllm_never_leaves_out_is_planned_all_the_same() -> None:
    of = replace(shape(QWEN2_5_VL), architecture="Idefics3ForConditionalGeneration")
    with_it = make_plan(
        PlanRequest(
            of, gpu=H100, parallelism=Parallelism(), settings=Settings(8192, 0.9), vllm_version="0.25.1"
        )
    )
    asked = make_plan(
        PlanRequest(
            of,
            gpu=H100,
            parallelism=Parallelism(),
            settings=Settings(8192, 0.9, language_model_only=True),
            vllm_version="0.25.1",
        )
    )
    assert with_it.per_gpu == asked.per_gpu


def test_a_hybrid_needs_a_state_block_for_each_sequence() -> None:
    found = plan(QWEN3_NEXT_80B, tensor_parallel_size=4, max_num_seqs=8192)
    assert found.limited_by == "maxNumSeqs"
    assert found.fits is Fit.NO


def test_state_blocks_that_are_too_few_by_less_than_the_expected_error_are_tight() -> None:
    found = [
        plan(QWEN3_NEXT_80B, tensor_parallel_size=4, max_num_seqs=count) for count in range(64, 8192, 64)
    ]
    verdicts = [p.fits for p in found]
    order = [Fit.YES, Fit.TIGHT, Fit.NO]
    assert verdicts == sorted(verdicts, key=order.index)
    assert set(verdicts) == set(order)
    assert {p.limited_by for p in found if p.fits is not Fit.YES} == {"maxNumSeqs"}


def test_stored_bytes_stand_in_where_the_quantisation_is_not_known() -> None:
    secret = read_shape(LLAMA_8B | {"quantization_config": {"quant_method": "torchao"}})
    arguments: dict[str, Any] = {
        "gpu": H100,
        "parallelism": Parallelism(1),
        "settings": Settings(8192, 0.9),
        "vllm_version": "0.25.1",
    }
    without = make_plan(PlanRequest(secret, **arguments))
    assert (without.fits, without.limited_by) == (Fit.UNKNOWN, "weights")
    stored = StoredSize.model_validate({"sizeBytes": 5 * 10**9, "precisionBytes": 10**7})
    found = make_plan(PlanRequest(secret, stored=stored, **arguments))
    assert found.fits is Fit.YES
    assert found.sources["weightsBytes"] == "facts"
    sure = plan().expected_error_bytes
    assert found.expected_error_bytes is not None
    assert sure is not None
    assert found.expected_error_bytes > sure


def _weights_of(quantization: dict[str, Any], stored_bytes: int) -> tuple[int, str]:
    found = make_plan(
        PlanRequest(
            read_shape(LLAMA_8B | {"quantization_config": quantization}),
            stored=StoredSize.model_validate({"sizeBytes": stored_bytes}),
            gpu=H100,
            parallelism=Parallelism(1),
            settings=Settings(8192, 0.9),
            vllm_version="0.25.1",
        )
    )
    assert found.per_gpu is not None
    return found.per_gpu.weights_bytes, found.sources["weightsBytes"]


def test_files_larger_than_a_partial_configuration_says_are_believed() -> None:
    whole = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    partial = {"quant_method": "gptq", "bits": 4}
    computed, _ = _weights_of(whole, 6 * 10**9)
    assert _weights_of(partial, computed) == (computed, "configuration")
    assert _weights_of(partial, 2 * computed) == (2 * computed, "facts")
    assert _weights_of(whole, 2 * computed) == (computed, "configuration")


def test_files_much_smaller_than_the_configuration_says_are_believed() -> None:
    stored = StoredSize.model_validate({"sizeBytes": 8 * 10**9})
    found = make_plan(
        PlanRequest(
            read_shape(LLAMA_8B),
            stored=stored,
            gpu=H100,
            parallelism=Parallelism(1),
            settings=Settings(8192, 0.9),
            vllm_version="0.25.1",
        )
    )
    assert found.per_gpu is not None
    assert found.per_gpu.weights_bytes == 8 * 10**9


def test_a_version_that_takes_no_order_of_inputs_refuses_such_weights() -> None:
    ordered = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}
    found = [
        make_plan(
            PlanRequest(
                read_shape(LLAMA_8B | {"quantization_config": ordered}),
                gpu=H100,
                parallelism=Parallelism(1),
                settings=Settings(8192, 0.9),
                vllm_version=version,
            )
        ).fits
        for version in ("0.25.1", "0.32.0")
    ]
    assert found == [Fit.YES, Fit.NO]


def test_which_sizes_are_legal_depends_on_the_version() -> None:
    block = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    experts = shape(QWEN2_MOE | {"moe_intermediate_size": 768, "quantization_config": block})
    legal = [illegal_tensor_parallel(experts, 4, vllm_version=v) is None for v in ("0.25.1", "0.32.0")]
    assert legal == [False, True]


def test_a_latent_cache_is_not_divided_by_tensor_parallelism() -> None:
    eight = plan(DEEPSEEK_V3, gpu=PlanGpu("NVIDIA H200", int(139.72 * GIB), 9.0), tensor_parallel_size=8)
    assert eight.per_gpu is not None
    assert eight.per_gpu.kv_cache_needed_bytes == 8192 * 61 * 1152


def test_the_smallest_gpu_count_is_the_first_size_that_fits() -> None:
    found = smallest_gpu_count(
        PlanRequest(shape(LLAMA_70B), gpu=H100, settings=Settings(16384, 0.84), vllm_version="0.25.1")
    )
    assert found == 4


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    found = to_json(plan())
    assert set(found) == {
        "perGPU", "kvCache", "fits", "limitedBy", "reason", "expectedErrorBytes", "parallelism", "gpu",
        "vllmVersion", "settings", "sources",
    }  # fmt: skip
    assert set(found["perGPU"]) == {
        "budgetBytes", "weightsBytes", "nonTorchBytes", "activationPeakBytes", "cudaGraphBytes",
        "kvCacheAvailableBytes", "kvCacheNeededBytes",
    }  # fmt: skip
    assert set(found["kvCache"]) == {
        "bytesPerToken", "tokens", "maxConcurrency", "longestModelLen", "groups",
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_json_of_an_unknown_plan_says_null_and_why() -> None:
    found = to_json(plan({"architectures": ["NobodyForCausalLM"]}))
    assert (found["perGPU"], found["kvCache"], found["fits"]) == (None, None, "unknown")
    assert found["reason"]


def test_the_account_adds_up() -> None:
    found = plan(LLAMA_70B, tensor_parallel_size=4).per_gpu
    assert found is not None
    parts = (
        found.weights_bytes
        + found.non_torch_bytes
        + found.activation_peak_bytes
        + found.cuda_graph_bytes
        + found.kv_cache_available_bytes
    )
    assert parts == found.budget_bytes


def facts(config: dict[str, Any] | None) -> ModelFacts:
    document = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelFacts",
        "repoId": "org/model",
        "recordedAt": "2026-01-01",
        "source": {"kind": "local"},
    }
    return ModelFacts.model_validate(document | ({"config": config} if config else {}))


def test_facts_without_a_configuration_give_an_unknown_plan() -> None:
    found = make_plan(
        request_for_facts(
            facts(None),
            gpu=H100,
            parallelism=Parallelism(),
            settings=Settings(8192, 0.9),
            vllm_version="0.25.1",
        )
    )
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "architecture")


def shared() -> Shared:
    gpus = (
        Gpu.model_construct(
            name="NVIDIA H100 80GB", aliases=None, nominal_memory=parse_quantity("80GB"),
            memory_bytes=H100.memory_bytes, compute_capability=9.0, source="a test",
        ),
        Gpu.model_construct(
            name="NVIDIA Mystery", aliases=None, nominal_memory=parse_quantity("80GB"), memory_bytes=None,
            compute_capability=9.0, source="a test",
        ),
    )  # fmt: skip
    types = tuple(
        InstanceType.model_construct(name=name, cloud="azure", gpu=gpu, gpu_count=count, source="a test")
        for name, gpu, count in (
            ("eight", "NVIDIA H100 80GB", 8),
            ("four", "NVIDIA H100 80GB", 4),
            ("one", "NVIDIA H100 80GB", 1),
            ("mystery", "NVIDIA Mystery", 4),
            ("three", "NVIDIA H100 80GB", 3),
        )
    )
    policy: Any = None  # plans of instance types read the profile they are given
    return Shared(policy, gpus, types)


class Profile:
    """As much of a profile as plans read."""

    vllm_version = "0.25.1"

    def utilization(self, gpu: str | None) -> float:
        return 0.84


def test_instance_types_that_fit_come_first_smallest_first_and_reasons_are_kept() -> None:
    profile: Any = Profile()
    found = plan_instance_types(facts(LLAMA_70B), shared(), profile, max_model_len=16384)
    assert [item.instance_type.name for item in found[:2]] == ["four", "eight"]
    by_name = {item.instance_type.name: item for item in found}
    assert by_name["eight"].gpus_needed == 4
    assert by_name["eight"].note == "4 of its 8 GPUs would do"
    assert by_name["one"].plan.limited_by == "weights"
    assert by_name["one"].nodes_needed == 3
    assert by_name["four"].nodes_needed == 1
    assert by_name["mystery"].plan.fits is Fit.UNKNOWN
    assert by_name["three"].plan.parallelism.tensor_parallel_size == 2
    assert by_name["three"].note is not None


def test_of_machines_with_one_gpu_the_one_with_fewest_processors_comes_first() -> None:
    names = [
        "g2-standard-12",
        "g5.16xlarge",
        "g2-standard-4",
        "g5.2xlarge",
        "g5.xlarge",
        "Standard_NV36ads_A10_v5",
    ]
    sizes = [size_in_name(name) for name in names]
    assert sizes == [3, 16, 1, 2, 1, 0]


LEGAL = st.sampled_from([1, 2, 4])


@settings(max_examples=60)
@given(configs(), LEGAL, st.integers(1, 2048), st.floats(0.3, 0.95))
def test_a_plan_that_fits_stays_in_its_budget_and_reaches_its_longest_context(
    config: dict[str, Any], size: int, tokens: int, utilization: float
) -> None:
    found = plan(config, tensor_parallel_size=size, max_model_len=tokens, gpu_memory_utilization=utilization)
    if found.per_gpu is None or found.kv_cache is None:
        assert found.fits in (Fit.NO, Fit.UNKNOWN)
        assert found.reason
        return
    assert found.per_gpu.kv_cache_needed_bytes >= 0
    if found.fits is Fit.YES:
        assert found.per_gpu.kv_cache_needed_bytes <= found.per_gpu.kv_cache_available_bytes
        assert found.kv_cache.longest_model_len >= tokens
        assert found.kv_cache.max_concurrency >= 1


@settings(max_examples=60)
@given(configs(), LEGAL, st.floats(0.2, 0.5), st.floats(0.01, 0.4))
def test_less_utilization_leaves_less_for_the_cache(
    config: dict[str, Any], size: int, low: float, more: float
) -> None:
    less = plan(config, tensor_parallel_size=size, max_model_len=1024, gpu_memory_utilization=low).per_gpu
    most = plan(
        config, tensor_parallel_size=size, max_model_len=1024, gpu_memory_utilization=low + more
    ).per_gpu
    if less is None or most is None:
        return
    assert less.kv_cache_available_bytes < most.kv_cache_available_bytes


# One start each: TP and the KV memory printed in GiB (vLLM 0.19.0 on H100 80GB at 0.95,
# llm-d-incubation/llm-d-planner PR #205).
LOGGED = [
    pytest.param(LLAMA_8B, 1, 58.11, id="Llama 3.1 8B"),
    pytest.param(LLAMA_8B, 2, 63.76, id="Llama 3.1 8B TP2"),
    pytest.param(LLAMA_8B, 4, 67.44, id="Llama 3.1 8B TP4"),
    pytest.param(GPT_OSS_20B, 1, 58.47, id="gpt-oss 20B"),
    pytest.param(GPT_OSS_20B, 2, 63.28, id="gpt-oss 20B TP2"),
    pytest.param(QWEN2_7B, 1, 58.53, id="Qwen2.5 7B"),
    pytest.param(QWEN2_7B, 4, 67.34, id="Qwen2.5 7B TP4"),
    pytest.param(QWEN2_72B, 2, 3.02, id="Kimi-Dev 72B TP2"),
    pytest.param(QWEN2_MOE, 1, 45.83, id="Qwen1.5 MoE"),
]


def test_before_0_17_the_sampler_took_more() -> None:
    # Qwen3-14B on H100 80GB at 0.95: 41.94 GiB for the cache with 0.16.0, 45.34 with 0.17.0.
    qwen3_14b = QWEN3_32B | {
        "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40,
    }  # fmt: skip
    found = [
        plan(qwen3_14b, gpu_memory_utilization=0.95, vllm_version=version).per_gpu
        for version in ("0.16.0", "0.17.0")
    ]
    printed = [p.kv_cache_available_bytes / GIB for p in found if p]
    assert printed == pytest.approx([41.94, 45.34], abs=0.1)


@pytest.mark.parametrize(("config", "size", "printed"), LOGGED)
def test_available_memory_is_what_vllm_printed(config: dict[str, Any], size: int, printed: float) -> None:
    found = plan(
        config, tensor_parallel_size=size, gpu_memory_utilization=0.95, vllm_version="0.19.0"
    ).per_gpu
    assert found is not None
    assert found.kv_cache_available_bytes / GIB == pytest.approx(printed, abs=0.15)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("phi-4", 4),
        ("phi-4", 8),
        ("phi-3-medium-4k-instruct", 4),
        ("phi-3-medium-128k-instruct", 8),
        ("qwen2.5-coder-7b-instruct", 8),
    ],
)
def test_every_illegal_size_that_kaito_would_pick_is_refused(catalog: Catalog, name: str, size: int) -> None:
    entry = catalog.entry(name)
    assert entry is not None
    assert entry.facts is not None
    found = facts_shape(entry.facts)
    assert isinstance(found, Shape)
    assert illegal_tensor_parallel(found, size) is not None


def test_the_longest_context_counts_what_an_indexer_gathers_at_that_context(root: Path) -> None:
    entry = read_entry(root / "catalog" / "models" / "glm-5.2-fp8")
    assert entry.facts is not None
    shape = facts_shape(entry.facts)
    assert isinstance(shape, Shape)

    def at(tokens: int) -> Plan:
        return make_plan(
            PlanRequest(
                shape,
                gpu=PlanGpu("NVIDIA H200", 150_754_820_096, 9.0),
                parallelism=Parallelism(8),
                settings=Settings(tokens, 0.84),
                vllm_version="0.25.1",
            )
        )

    short = at(4096)
    assert short.kv_cache is not None
    longest = short.kv_cache.longest_model_len
    assert 4096 < longest < shape.max_model_len
    assert at(longest).kv_cache is not None
    assert at(longest).kv_cache.longest_model_len == longest  # type: ignore[union-attr]
    for tokens, fits in ((longest, True), (longest + 1, False)):
        made = at(tokens)
        assert made.per_gpu is not None
        assert made.kv_cache is not None
        assert (made.kv_cache.pool_bytes <= made.per_gpu.kv_cache_available_bytes) is fits


@pytest.mark.parametrize("vllm_version", ["0.18.0", "0.25.1", "0.28.0"])
def test_an_architecture_is_unknown_to_versions_that_have_no_class_for_it(vllm_version: str) -> None:
    found = plan(GRANITE_SWA, vllm_version=vllm_version)
    assert (found.fits, found.limited_by) == (Fit.UNKNOWN, "architecture")
    assert found.reason == (
        "vLLM has no class for the architecture GraniteSWAForCausalLM before 0.32.0, as far as was read; "
        f"{vllm_version} was asked for"
    )


def test_a_version_that_knows_a_later_architecture_plans_it() -> None:
    assert plan(GRANITE_SWA, vllm_version="0.32.0").fits is Fit.YES


GRANITE_SWA = LLAMA_8B | {
    "architectures": ["GraniteSWAForCausalLM"],
    "model_type": "granite_swa",
    "sliding_window": 512,
}


GIVEN = 4 * 2**30
"""Bytes of a cache that is asked for by kv-cache-memory-bytes: 32,768 tokens of Llama 3.1 8B."""


def test_a_given_cache_is_what_vllm_has_available_whatever_the_utilization() -> None:
    found = plan(kv_cache_memory_bytes=GIVEN, gpu_memory_utilization=0.3)
    assert found.per_gpu is not None
    assert found.kv_cache is not None
    assert (found.fits, found.per_gpu.kv_cache_available_bytes) == (Fit.YES, GIVEN)
    assert (found.kv_cache.max_concurrency, found.kv_cache.longest_model_len) == (4.0, 32768)


def test_a_given_cache_of_less_than_one_request_does_not_fit_for_certain() -> None:
    found = plan(kv_cache_memory_bytes=GIVEN, max_model_len=32784)
    assert (found.fits, found.limited_by) == (Fit.NO, "kvCache")
    assert found.reason is not None
    assert found.reason.endswith("kv_cache_memory_bytes is 4.00 GiB; 32,768 tokens would fit")


@pytest.mark.parametrize(("given", "fits"), [(60, Fit.YES), (62, Fit.TIGHT), (90, Fit.NO)])
def test_a_given_cache_has_to_lie_on_the_gpu_beside_the_weights(given: int, fits: Fit) -> None:
    found = plan(kv_cache_memory_bytes=given * 2**30)
    assert found.fits is fits
    assert (found.limited_by is None) == (fits is Fit.YES)


def test_a_negative_cache_is_refused_and_none_at_all_is_as_good_as_not_given() -> None:
    assert plan(kv_cache_memory_bytes=-1).fits is Fit.NO
    assert plan(kv_cache_memory_bytes=0).per_gpu == plan().per_gpu


@pytest.mark.parametrize("written", [GIVEN, str(GIVEN), "4G", "4194304K", " 4096M "])
def test_a_proposal_a_command_line_and_json_say_the_same_cache(written: int | str) -> None:
    option = next(option for option in PLANNED if option.name == "kv-cache-memory-bytes")
    runtime = Runtime.model_validate({"name": "vllm", "config": {option.name: written}})
    found = read_options(runtime)
    assert (found.get(option.attribute), found.unplanned) == (GIVEN, ())
    assert option.kind.parse(str(written)) == GIVEN
    assert to_json(plan(kv_cache_memory_bytes=GIVEN))["settings"][option.json_key] == GIVEN
    assert engine_arguments(plan(kv_cache_memory_bytes=GIVEN).settings)[option.attribute] == GIVEN


@pytest.mark.parametrize(("text", "size"), [("4g", 4 * 10**9), ("1.5k", 1500), ("2T", 2**41)])
def test_sizes_are_read_as_vllm_reads_them(text: str, size: int) -> None:
    assert BYTES.parse(text) == size


@pytest.mark.parametrize("text", ["4.5G", "4Gi", "", "G", ".5g", "5.g", "lots", "1e9"])
def test_what_vllm_does_not_read_as_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        BYTES.parse(text)
    assert BYTES.read(text) is None


# vLLM 0.25.1's own planner, one request of 131,072 tokens of Gemma 3 27B on one GPU.
@pytest.mark.parametrize(("is_off", "pool_bytes"), [(False, 12_255_232_000), (True, 66_571_993_088)])
def test_without_the_hybrid_manager_windows_are_cached_whole(is_off: bool, pool_bytes: int) -> None:
    facts = read_entry(ROOT / "catalog/models/gemma-3-27b-it").facts
    assert facts is not None
    found = make_plan(
        request_for_facts(
            facts,
            gpu=PlanGpu("NVIDIA A100 80GB", int(79.15 * GIB), 8.0),
            parallelism=Parallelism(),
            settings=Settings(131_072, 0.84, disable_hybrid_kv_cache_manager=is_off),
            vllm_version="0.25.1",
        )
    )
    assert found.kv_cache is not None
    assert found.kv_cache.pool_bytes == pool_bytes
    assert found.fits is (Fit.NO if is_off else Fit.YES)


def test_a_model_with_states_does_not_start_without_the_hybrid_manager() -> None:
    found = plan(QWEN3_NEXT_80B, tensor_parallel_size=4, disable_hybrid_kv_cache_manager=True)
    assert (found.fits, found.limited_by) == (Fit.NO, "disableHybridKvCacheManager")


@pytest.mark.parametrize("written", ["", True, "true", "True"])
def test_a_switch_is_on_however_a_config_map_writes_it(written: object) -> None:
    runtime = Runtime.model_validate(
        {"name": "vllm", "config": {"disable-hybrid-kv-cache-manager": written, "enforce_eager": written}}
    )
    found = read_options(runtime)
    assert (found.get("disable_hybrid_kv_cache_manager"), found.get("enforce_eager")) == (True, True)

"""Options that no plan reads: with one of them nothing that is unknown looks like a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from shapes import LLAMA_8B, QWEN2_5_VL, QWEN3_30B

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.formats.proposal import Runtime
from kaito_catalog.memory.harmless_options import HARMLESS
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.unplanned_options import is_unplanned
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.given_options import read_options
from kaito_catalog.vllm_bridge.reference import known, versions

HARMLESS_NAMES = [name for names in HARMLESS.values() for name in names]
FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
READ_BY_PLANS = {
    *(option.name for option in PLANNED),
    "data-parallel-size",
    "enable-expert-parallel",
    "max-model-len",
    "pipeline-parallel-size",
    "spec-method",
    "spec-model",
    "spec-tokens",
    "tensor-parallel-size",
}


def planned(config: dict[str, Any], **options: str) -> Plan:
    shape = read_shape(config)
    assert isinstance(shape, Shape)
    written = {name.replace("_", "-"): value for name, value in options.items()}
    found = read_options(Runtime.model_validate({"name": "vllm", "config": written}))
    given: dict[str, Any] = {option.attribute: value for option, value in found.planned}
    return make_plan(
        PlanRequest(
            shape,
            gpu=PlanGpu("NVIDIA H100 80GB", 85_045_870_592, 9.0),
            parallelism=Parallelism(2),
            settings=replace(Settings(8192, 0.9), unplanned=found.unplanned, **given),
            vllm_version="0.25.1",
        )
    )


@pytest.mark.parametrize("version", sorted(versions()))
def test_somebody_has_said_of_every_option_of_vllm_whether_memory_depends_on_it(version: str) -> None:
    read = known(version)
    assert read is not None
    nobody = [
        n for n in read.options if not is_unplanned(n) and n not in READ_BY_PLANS and n not in HARMLESS_NAMES
    ]
    assert nobody == []
    assert [name for name in HARMLESS_NAMES if is_unplanned(name) or name in READ_BY_PLANS] == []
    assert len(HARMLESS_NAMES) == len(set(HARMLESS_NAMES))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cpu_offload_gb", "20"),
        ("kv-sharing-fast-prefill", "true"),
        ("enable-lora", "False"),  # KAITO passes the word, and the option alone switches it on
        ("attention-backend", "FLASHINFER"),  # on an H100 it is not vLLM's choice, and keeps a workspace
        ("attention-config", '{"backend": "FLASH_ATTN", "flash_attn_version": 2}'),
        ("attention-config", "[" * 100_000),
        ("scheduler-cls", "mine.Scheduler"),
    ],
)
def test_an_option_that_changes_memory_makes_the_plan_unknown_and_is_named(option: str, value: str) -> None:
    found = planned(LLAMA_8B, **{option: value})
    assert (found.fits, found.limited_by, found.per_gpu) == (Fit.UNKNOWN, "settings", None)
    assert found.reason is not None
    assert f"no plan reads {option.replace('_', '-')} {value[:40]}: it " in found.reason


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", "half"),
        ("dtype", "auto"),
        ("cpu-offload-gb", "0"),
        ("load-format", "safetensors"),
        ("load-format", "dummy"),  # nothing is read, and as much is built
        ("performance-mode", "balanced"),
        ("enable-prefix-caching", "true"),
        ("tool-call-parser", "hermes"),
        ("attention-backend", "FLASH_ATTN"),
        ("attention-backend", "auto"),
        ("linear-backend", "cutlass"),  # nothing is quantised
        ("kernel-config", '{"moe_backend": "auto"}'),
        ("attention-config", '{"backend": "FLASH_ATTN"}'),
        ("moe-backend", "marlin"),  # there are no experts
        ("mm-encoder-tp-mode", "data"),  # nor an encoder
        ("mm-processor-kwargs", '{"max_pixels": 1000}'),
        ("disable-sliding-window", "true"),
        ("scheduler-cls", "vllm.v1.core.sched.scheduler.Scheduler"),
        ("no-disable-hybrid-kv-cache-manager", ""),
        ("limit-mm-per-prompt", '{"image": 4}'),
        ("limit-mm-per-prompt", "no JSON"),
        ("limit-mm-per-prompt", "[" * 100_000),
    ],
)
def test_an_option_that_changes_nothing_leaves_the_plan_as_it_was(option: str, value: str) -> None:
    assert planned(LLAMA_8B, **{option: value}).per_gpu == planned(LLAMA_8B).per_gpu


def test_kernels_matter_to_a_model_that_has_what_they_compute() -> None:
    fp8 = QWEN3_30B | {"quantization_config": FP8_BLOCKS}
    assert planned(fp8, moe_backend="triton").per_gpu == planned(fp8).per_gpu
    assert planned(fp8, moe_backend="marlin").fits is Fit.UNKNOWN
    assert planned(QWEN3_30B, moe_backend="triton").per_gpu == planned(QWEN3_30B).per_gpu
    assert planned(QWEN3_30B, moe_backend="flashinfer_cutlass").fits is Fit.UNKNOWN
    assert planned(QWEN2_5_VL, mm_encoder_tp_mode="weights").per_gpu == planned(QWEN2_5_VL).per_gpu


@pytest.mark.parametrize(
    "none", ['{"image": 0, "video": 0}', '{"image": {"count": 0}, "video": 0, "audio": 0}']
)
def test_a_prompt_without_images_and_videos_leaves_out_the_encoder(none: str) -> None:
    with_it, without = planned(QWEN2_5_VL).per_gpu, planned(QWEN2_5_VL, limit_mm_per_prompt=none).per_gpu
    assert with_it is not None
    assert without is not None
    assert without.weights_bytes < with_it.weights_bytes


def test_a_prompt_that_may_still_hold_a_video_keeps_the_encoder() -> None:
    found = planned(QWEN2_5_VL, limit_mm_per_prompt='{"image": 0, "video": 1}')
    assert found.per_gpu == planned(QWEN2_5_VL).per_gpu

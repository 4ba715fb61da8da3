"""What KAITO's image cannot start: missing chat templates, configurations it cannot read, kernels it cannot compile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapes
from test_checks import report, with_options

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.kaito.image import compiled_kernels, missing_template
from kaito_catalog.kaito.release import Release, choices, release_of
from kaito_catalog.memory.values import Parallelism
from kaito_catalog.vllm_bridge.model_types import first_that_reads, model_types
from tools import refresh_model_types

MOE: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
STATIC = {"quant_method": "fp8", "activation_scheme": "static"}


@pytest.fixture(scope="module")
def kaito(catalog: Catalog) -> Release:
    return release_of(catalog.shared.profile())


def kernels(
    config: dict[str, Any],
    capability: float,
    *,
    split: Parallelism | None = None,
    **options: str,
) -> list[str]:
    shape = read_shape(config)
    assert isinstance(shape, Shape), shape
    built = as_built(shape, "0.25.1", capability)
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return [found.words for found in compiled_kernels(built, capability, split or Parallelism(), named)]


def test_ampere_and_hopper_compile_nothing_for_most_models() -> None:
    for capability in (8.0, 8.6, 8.9, 9.0):
        assert kernels(shapes.LLAMA_8B, capability) == []
        assert kernels(MOE, capability) == []
        assert kernels(MOE | {"quantization_config": BLOCK}, capability) == []


def test_hopper_takes_flashinfer_for_fp8_experts_with_one_scale_a_tensor() -> None:
    """KAITO adds the toolkit for Mistral Small 4, whose experts are stored so."""
    (found,) = kernels(MOE | {"quantization_config": STATIC}, 9.0)
    assert found == "FlashInfer's experts, which vLLM takes first for fp8 with one scale a tensor"
    assert kernels(MOE | {"quantization_config": STATIC}, 8.0) == []
    assert kernels(MOE | {"quantization_config": STATIC}, 9.0, moe_backend="triton") == []


def test_expert_parallelism_changes_the_kernels_of_blocks_on_hopper() -> None:
    dealt_out = Parallelism(4, enable_expert_parallel=True)
    assert kernels(MOE | {"quantization_config": BLOCK}, 9.0, split=Parallelism(4)) == []
    (found,) = kernels(MOE | {"quantization_config": BLOCK}, 9.0, split=dealt_out)
    assert found == "FlashInfer's experts, which vLLM takes first for fp8 in blocks with expert parallelism"


def test_blackwell_takes_flashinfer_first() -> None:
    assert kernels(shapes.LLAMA_8B, 10.0) == ["FlashInfer's attention, which vLLM takes first on this GPU"]
    assert len(kernels(MOE, 10.0)) == 2
    assert kernels(MOE, 10.0, attention_backend="FLASH_ATTN", moe_backend="triton") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention-backend", "FLASHINFER"),
        ("moe-backend", "flashinfer_cutlass"),
        ("moe-backend", "deep_gemm"),
        ("linear-backend", "flashinfer_cutlass"),
    ],
)
def test_an_option_that_names_such_a_back_end_is_an_error(context: Context, name: str, value: str) -> None:
    found = report(context, with_options(f"{name}: {value}")).diagnostics
    assert [d.message for d in found if d.code == "KTO018"] == [
        f"{name} {value}: compiled with nvcc when the server starts, which the image of KAITO v0.12 has not"
    ]


def test_a_model_that_gets_the_toolkit_may_compile(catalog: Catalog, context: Context) -> None:
    toolkit = replace(context, shared=catalog.shared)
    fragment = """
facts: {repoId: mistralai/Mistral-Small-4-119B-2603}
runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384, attention-backend: FLASHINFER}}]
"""
    assert not [d for d in report(toolkit, fragment).diagnostics if d.code == "KTO018"]


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        ("/workspace/chat_templates/tool-chat-hermes.jinja", None),
        ("chat_templates/phi-4.jinja", None),
        ("template_chatml.jinja", None),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", None),
        ("/mnt/config/mine.jinja", None),
        (
            "/workspace/chat_templates/tool-chat-hermez.jinja",
            "/workspace/chat_templates/tool-chat-hermez.jinja",
        ),
        ("tool-chat-hermes.jinja", "/workspace/tool-chat-hermes.jinja"),
        ("examples/tool_chat_template_hermes.jinja", "/workspace/examples/tool_chat_template_hermes.jinja"),
        ("/workspace/chat_templates/../../etc/passwd", "/etc/passwd"),
    ],
)
def test_a_template_is_sought_where_vllm_seeks_it(kaito: Release, value: str, missing: str | None) -> None:
    assert missing_template(value, kaito) == missing


def test_the_image_has_every_template_that_kaito_itself_passes(kaito: Release) -> None:
    for prefix in kaito.by_prefix["chat-template"]:
        row = {"name": f"example/{prefix}-example", "architectures": ["LlamaForCausalLM"]}
        (template,) = [c.value for c in choices(row, kaito) if c.option == "chat-template"]
        assert missing_template(template, kaito) is None


def test_a_template_that_the_cluster_may_bring_is_unknown(context: Context) -> None:
    found = report(context, with_options("chat-template: /mnt/config/mine.jinja"))
    assert [s.reason for s in found.skips if s.code == "KTO016"] == [
        "whether the cluster brings /mnt/config/mine.jinja is not known"
    ]


def test_a_newer_model_type_is_named_with_the_version_that_reads_it(context: Context) -> None:
    older, newer = model_types("0.25.1"), model_types("0.32.0")
    assert older is not None
    assert newer is not None
    name = min(newer.of_transformers - older.of_transformers - older.of_vllm)
    found = report(context, f"facts: {{config: {{model_type: {name}}}}}").diagnostics
    assert [d.message for d in found if d.code == "KTO017"] == [
        f"vLLM 0.25.1 and transformers 5.14.1 cannot read a configuration of model_type '{name}': "
        "vLLM 0.32.0 does, with transformers 5.19.0"
    ]
    assert first_that_reads("llama") == older


def test_code_of_the_repository_brings_its_own_configuration(context: Context) -> None:
    config = "{model_type: example_next, auto_map: {AutoConfig: configuration_example.ExampleConfig}}"
    found = report(context, f"facts: {{config: {config}}}")
    assert not [d for d in found.diagnostics if d.code == "KTO017"]


def test_profiles_have_the_transformers_whose_types_are_recorded(catalog: Catalog) -> None:
    for profile in catalog.shared.policy.profiles:
        known = model_types(profile.vllm_version)
        assert known is not None
        assert known.transformers_version == profile.transformers_version


def test_the_recorded_types_are_those_of_the_sources(vllm_python: Path) -> None:
    assert refresh_model_types.DATA.read_text(encoding="utf-8") == refresh_model_types.content()

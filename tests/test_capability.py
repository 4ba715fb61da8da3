"""Which GPUs have the kernels that a model needs."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.memory.kernels import refusal, requirement
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings

V = "0.25.1"

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
DEEPSEEK: dict[str, Any] = LLAMA | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "q_lora_rank": 256,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 256,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
SPARSE: dict[str, Any] = DEEPSEEK | {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "index_topk": 64,
    "index_n_heads": 4,
    "index_head_dim": 128,
}
A100 = PlanGpu("NVIDIA A100 80GB", 85_095_874_560, 8.0)
H100 = PlanGpu("NVIDIA H100 80GB", 85_028_765_696, 9.0)


def _shape(config: dict[str, Any]) -> Shape:
    found = read_shape(config)
    assert isinstance(found, Shape), found
    return found


@pytest.mark.parametrize("config", [LLAMA, DEEPSEEK], ids=["Llama", "dense latent attention"])
def test_most_models_run_on_every_generation(config: dict[str, Any]) -> None:
    assert requirement(_shape(config), V) is None


def test_sparse_attention_needs_hopper() -> None:
    assert "9.0 (Hopper)" in (refusal(_shape(SPARSE), 8.0, V) or "")
    assert refusal(_shape(SPARSE), 9.0, V) is None
    assert refusal(_shape(SPARSE), 10.0, V) is None


def test_modelopts_fp8_needs_ada() -> None:
    quantized = LLAMA | {
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
    }
    assert "from capability 8.9 on" in (refusal(_shape(quantized), 8.6, V) or "")
    assert refusal(_shape(quantized), 8.9, V) is None


def test_an_unknown_generation_is_not_refused() -> None:
    assert refusal(_shape(SPARSE), None, V) is None


def test_a_model_that_would_have_room_does_not_fit_where_vllm_has_no_kernels_for_it() -> None:
    def plan(gpu: PlanGpu) -> tuple[Fit, str | None]:
        made = make_plan(
            PlanRequest(
                _shape(SPARSE),
                gpu=gpu,
                parallelism=Parallelism(1),
                settings=Settings(4096, 0.9),
                vllm_version="0.25.1",
            )
        )
        return made.fits, made.limited_by

    assert plan(A100) == (Fit.NO, "gpu")
    assert plan(H100) == (Fit.YES, None)

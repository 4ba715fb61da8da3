"""Published start-up logs of vLLM as rows that a plan can be scored on; the others with the reason.

The logs are ../shared/data/truth/observations.jsonl; configurations are ../shared/data/hub/configs, or
written here where a model has none there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.kv_cache import version_tuple
from kaito_catalog.quantity import GIB
from kaito_catalog.shape import Shape, Unsupported, read_shape

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

_CHANNEL = {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False}


def _compressed(weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


_FP8_BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}

# Another file with the same dimensions, and what differs from the model's own config.json.
SAME_AS: dict[str, tuple[str, dict[str, Any]]] = {
    "RedHatAI/Llama-3.3-70B-Instruct-fp8-dynamic": (
        "configs/meta-llama__Llama-3.3-70B-Instruct",
        {"quantization_config": _compressed(_CHANNEL)},
    ),
    "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic": (
        "configs/meta-llama__Llama-3.3-70B-Instruct",
        {"quantization_config": _compressed(_CHANNEL)},
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8": (
        "configs/meta-llama__Llama-3.1-8B-Instruct",
        {"quantization_config": _compressed(_CHANNEL | {"type": "int"})},
    ),
    "moonshotai/Kimi-Dev-72B": ("configs_sibling/Qwen__Qwen2.5-72B", {}),
    "Qwen/Qwen2-7B-Instruct": ("configs/Qwen__Qwen2.5-7B-Instruct", {}),
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4": (
        "configs/Qwen__Qwen2.5-7B-Instruct",
        {"quantization_config": _GPTQ},
    ),
    "Qwen/Qwen2.5-Coder-14B-Instruct": ("configs_sibling/Qwen__Qwen2.5-14B", {}),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": (
        "configs_sibling/Qwen__Qwen2.5-14B",
        {"max_position_embeddings": 131072},
    ),
    "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct": ("configs_sibling/deepseek-ai__DeepSeek-V2-Lite", {}),
    "typhoon-ai/typhoon-s-thaillm-8b-instruct-research-preview": ("configs/Qwen__Qwen3-8B", {}),
    "Qwen/Qwen3.6-27B-FP8": (
        "configs/nvidia__Qwen3.6-27B-NVFP4",
        {"quantization_config": _FP8_BLOCK},
    ),
    "ibm-granite/granite-3.1-8b-instruct": (
        "configs/ibm-granite__granite-3.3-8b-instruct",
        {"vocab_size": 49155},
    ),
    "Qwen/Qwen3-VL-Embedding-2B": ("configs/Qwen__Qwen3-VL-2B-Instruct", {}),
}

_MISTRAL_SMALL: dict[str, Any] = {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "spatial_merge_size": 2,
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131072,
        "max_position_embeddings": 131072,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
}

WRITTEN: dict[str, dict[str, Any]] = {
    "google/gemma-7b": {
        "architectures": ["GemmaForCausalLM"],
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16",
    },
    "Qwen/Qwen1.5-MoE-A2.7B": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "vocab_size": 151936,
        "max_position_embeddings": 8192,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
    },
    "moonshotai/Kimi-VL-A3B-Instruct": {
        "architectures": ["KimiVLForConditionalGeneration"],
        "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "topk_method": "noaux_tc",
            "vocab_size": 163840,
            "max_position_embeddings": 131072,
        },
        "vision_config": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 14,
            "init_pos_emb_height": 64,
            "init_pos_emb_width": 64,
            "merge_kernel_size": [2, 2],
        },
    },
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": _MISTRAL_SMALL,
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": _MISTRAL_SMALL,
}

# What drivers report, in GiB, as rows of the same logs print it for that GPU.
TOTAL_GIB = {
    "H100 NVL": 93.1,
    "H100": 79.19,
    "A100 80GB": 79.14,
    "A100-SXM4-80GB": 79.15,
    "A100 40GB": 39.38,
    "H200": 139.72,
    "A10G": 21.99,
    "RTX 3090": 23.58,
    "Tesla T4": 14.74,
    "L40S": 44.39,
    "L4": 21.96,
}


@dataclass(frozen=True)
class Observed:
    """One start of vLLM that a plan can be scored on; sizes in bytes per GPU."""

    id: str
    model: str
    shape: Shape
    config: dict[str, Any]
    vllm_version: str
    gpu: str
    gpu_memory_bytes: int
    gpu_memory_utilization: float
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_model_len: int
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    enforce_eager: bool
    kv_cache_dtype: str
    dtype: str | None
    weights_bytes: int | None
    non_torch_bytes: int | None
    activation_peak_bytes: int | None
    cuda_graph_estimate_bytes: int | None
    kv_cache_bytes: int
    kv_cache_tokens: int | None
    served: bool | None


def _config(model: str, shared: Path) -> dict[str, Any] | None:
    hub = shared / "data" / "hub"
    changes: dict[str, Any] = {}
    if model in WRITTEN:
        return WRITTEN[model]
    if model in SAME_AS:
        name, changes = SAME_AS[model]
        path = hub / f"{name}.json"
    else:
        path = hub / "configs" / f"{model.replace('/', '__')}.json"
    if not path.exists():
        return None
    config: dict[str, Any] = json.loads(path.read_text())
    return config | changes


def _gib(value: float | None) -> int | None:
    return None if value is None else int(value * GIB)


def observations(shared: Path = SHARED) -> Iterator[Observed | str]:
    """The rows that can be scored, and for the others why not.

    Raises:
        FileNotFoundError: there are no logs under `shared`.
    """
    for line in (shared / "data" / "truth" / "observations.jsonl").read_text().splitlines():
        row = json.loads(line)
        found = _observed(row, shared)
        yield f"{row['id']} {row['model']}: {found}" if isinstance(found, str) else found


def _observed(row: dict[str, Any], shared: Path) -> Observed | str:
    if row["complex"]:
        return "speculation, LoRA or a shared GPU"
    if row["kv_cache_gib"] is None:
        return "no KV memory printed"
    version = row["vllm_version"]
    if version is None or version.startswith("0.1.dev"):
        return "no version"
    gpu = row["gpu"] or ""
    if not gpu or "AMD" in gpu or "GB10" in gpu:
        return "no GPU named, or one that is not NVIDIA's with memory of its own"
    total = row["gpu_total_gib"] or next((v for k, v in TOTAL_GIB.items() if k in gpu), None)
    if total is None:
        return "the GPU's memory is not known"
    utilization = row["gpu_memory_utilization"]
    if utilization is None:
        if not row["gpu_memory_utilization_note"].startswith("default"):
            return "utilization is not known"
        # vLLM's CacheConfig: 0.9, and 0.92 from 0.21 on.
        utilization = 0.92 if version_tuple(version) >= (0, 21, 0) else 0.9
    used = (row["weights_gib"] or 0) + row["kv_cache_gib"]
    if row["kv_cache_gib"] > 0 and used > total * utilization:
        return "weights and cache are more than the budget: the GPU's memory is another"
    if "Embedding" in row["model"]:
        return "a pooling model: it samples nothing"
    if version_tuple(version) < (0, 10, 0):
        return "an engine older than 0.10"
    config = _config(row["model"], shared)
    if config is None:
        return "no configuration"
    if row["dtype"] == "float32":
        return "float32"
    if row["quantization"] == "fp8" and "quantization_config" not in config:
        # Quantised while loading: every matrix fp8 with one scale.
        config = config | {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
    shape = read_shape(config)
    if isinstance(shape, Unsupported):
        return shape.reason
    return Observed(
        id=row["id"],
        model=row["model"],
        shape=shape,
        config=config,
        vllm_version=version,
        gpu=gpu,
        gpu_memory_bytes=int(total * GIB),
        gpu_memory_utilization=utilization,
        tensor_parallel_size=row["tensor_parallel_size"] or 1,
        pipeline_parallel_size=row["pipeline_parallel_size"] or 1,
        max_model_len=row["max_model_len"] or shape.max_model_len,
        max_num_seqs=row["max_num_seqs"],
        max_num_batched_tokens=row["max_num_batched_tokens"],
        enforce_eager=bool(row["enforce_eager"]),
        kv_cache_dtype=row["kv_cache_dtype"] or "auto",
        dtype=row["dtype"],
        weights_bytes=_gib(row["weights_gib"]),
        non_torch_bytes=_gib(row["non_torch_gib"]),
        activation_peak_bytes=_gib(row["activation_peak_gib"]),
        cuda_graph_estimate_bytes=_gib(row["cudagraph_estimated_gib"]),
        kv_cache_bytes=int(row["kv_cache_gib"] * GIB),
        kv_cache_tokens=row["kv_cache_tokens"],
        served=row["fits"],
    )

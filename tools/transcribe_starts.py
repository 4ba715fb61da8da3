"""Transcribe published start-up logs into tests/data/starts.json: the figures we use, with their sources.

    python -m tools.transcribe_starts DIR

Logs are DIR/truth/observations.jsonl, configurations DIR/hub/configs/ORG__NAME.json, where those were read
DIR/hub/SOURCES.json. Of a configuration only the fields that change the model's shape are kept, and those that other
tools ask for (`configurations.NAMED`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

from kaito_catalog.architectures import Unsupported, read_shape
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.versions import release
from tools.configurations import smallest
from tools.observed import STARTS

_CHANNEL = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}


def _compressed(weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": {**weights, "strategy": "token", "dynamic": True},
            }
        },
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
    "model_type": "mistral3",
    "tie_word_embeddings": False,
    "architectures": ["Mistral3ForConditionalGeneration"],
    "spatial_merge_size": 2,
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "mistral",
        "sliding_window": None,
        "tie_word_embeddings": False,
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
        "model_type": "gemma",
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
        "model_type": "qwen2_moe",
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
        "model_type": "kimi_vl",
        "architectures": ["KimiVLForConditionalGeneration"],
        "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
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


# Trials of an optimiser that drew max_num_seqs, max_num_batched_tokens and enforce_eager and does not say which: only
# whether vLLM started says something.
UNKNOWN_SETTINGS = frozenset({"obs243"})
# The repository's docs/ARCHITECTURE.md starts it so ("Translation server baseline", the other options are those of the
# log), and 27.67 GiB were loaded where the same model with its encoder loads 28.5.
LANGUAGE_MODEL_ONLY = frozenset({"obs133"})

# "Using FlashInfer for top-p & top-k sampling" or "FlashInfer is not available" in the log; of those at e50305af the
# printed activation peak says it (4.76 to 7.38 GiB where 1.9 to 2.6 would be FlashInfer's).
FLASHINFER = {
    **dict.fromkeys(("obs106", "obs107", "obs109", "obs110"), True),
    **dict.fromkeys(("obs108", "obs126", "obs127", "obs228", "obs230", "obs231", "obs236", "obs237"), False),
}

_ABOUT = (
    "Starts of vLLM as published, transcribed by tools/transcribe_starts.py: figures in GiB as printed, per GPU. "
    "flashinfer: whether it samples, by the log or by its activation peak (vLLM before 0.12). "
    "Configurations hold dimensions only."
)


def _config(model: str, folder: Path, sources: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """A configuration, and where its dimensions were read."""
    if model in WRITTEN:
        return WRITTEN[model], "dimensions as published in the model's config.json"
    name, changes = SAME_AS.get(model, (f"configs/{model.replace('/', '__')}", {}))
    path = folder / "hub" / f"{name}.json"
    if not path.exists():
        return None
    config: dict[str, Any] = json.loads(path.read_text())
    found = sources.get(f"{name}.json", {})
    if isinstance(found.get("source"), dict):
        found = found["source"]
    where = "config.json of the model"
    if {"repo", "commit", "path"} <= found.keys():
        where = f"{found['repo']}@{str(found['commit'])[:12]}:{found['path']}"
    if model in SAME_AS:
        where += " (same dimensions)"
    return config | changes, where


def start(row: Mapping[str, Any], folder: Path, sources: Mapping[str, Any]) -> dict[str, Any] | str:
    """A start in our form, or why it cannot be scored; `config` and `configFrom` are of its model."""
    if row["id"] in UNKNOWN_SETTINGS:
        row = {**row, "kv_cache_gib": None}
    unusable = _unusable(row)
    if unusable:
        return unusable
    found = _config(row["model"], folder, sources)
    if found is None:
        return "no configuration"
    if row["dtype"] == "float32":
        return "float32"
    config, where = found
    if row["quantization"] == "fp8" and "quantization_config" not in config:
        # Quantised while loading: every matrix fp8 with one scale.
        config = config | {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
        row = {**row, "model": f"{row['model']} (fp8 while loading)"}
    shape = read_shape(config)
    if isinstance(shape, Unsupported):
        return shape.reason
    return _in_our_form(row) | {"config": config, "configFrom": where}


def _unusable(row: Mapping[str, Any]) -> str | None:
    """Why a start cannot be scored, whatever its model is."""
    if row["complex"]:
        return "speculation, LoRA or a shared GPU"
    refused = row["fits"] is False and (row["error_text"] or "").startswith(("CUDA OOM during load", "No "))
    if row["kv_cache_gib"] is None and not refused:
        return "no KV memory printed"
    version = row["vllm_version"]
    if version is None or version.startswith("0.1.dev"):
        return "no version"
    gpu = row["gpu"] or ""
    if not gpu or "AMD" in gpu or "GB10" in gpu:
        return "no GPU named, or one that is not NVIDIA's with memory of its own"
    total = _total_gib(row)
    if total is None:
        return "the GPU's memory is not known"
    utilization = _utilization(row)
    if utilization is None:
        return "utilization is not known"
    used = (row["weights_gib"] or 0) + (row["kv_cache_gib"] or 0)
    if used > total * utilization and (row["kv_cache_gib"] or 0) > 0:
        return "weights and cache are more than the budget: the GPU's memory is another"
    if "Embedding" in row["model"]:
        return "a pooling model: it samples nothing"
    if release(version) < Version("0.10.0"):
        return "an engine older than 0.10"
    return None


def _total_gib(row: Mapping[str, Any]) -> float | None:
    found: float | None = row["gpu_total_gib"] or next(
        (v for k, v in TOTAL_GIB.items() if k in row["gpu"]), None
    )
    return found


def _utilization(row: Mapping[str, Any]) -> float | None:
    given: float | None = row["gpu_memory_utilization"]
    if given is not None or not row["gpu_memory_utilization_note"].startswith("default"):
        return given
    # vLLM's CacheConfig: 0.9, and 0.92 from 0.21 on.
    return 0.92 if release(row["vllm_version"]) >= Version("0.21.0") else 0.9


def _in_our_form(row: Mapping[str, Any]) -> dict[str, Any]:
    value = {
        "id": row["id"],
        "source": re.sub(r" \(blob \w+\)", "", row["source"]),
        "model": row["model"],
        "vllmVersion": row["vllm_version"],
        "gpu": row["gpu"],
        "gpuMemoryGib": _total_gib(row),
        "gpuMemoryUtilization": _utilization(row),
        "tensorParallelSize": row["tensor_parallel_size"] or 1,
        "pipelineParallelSize": row["pipeline_parallel_size"] or 1,
        "flashinfer": FLASHINFER.get(row["id"]),
        "maxModelLen": row["max_model_len"],
        "maxNumSeqs": row["max_num_seqs"],
        "maxNumBatchedTokens": row["max_num_batched_tokens"],
        "enforceEager": True if row["enforce_eager"] else None,
        "languageModelOnly": True if row["id"] in LANGUAGE_MODEL_ONLY else None,
        "kvCacheDtype": row["kv_cache_dtype"] if row["kv_cache_dtype"] not in (None, "auto") else None,
        "weightsGib": row["weights_gib"],
        "nonTorchGib": row["non_torch_gib"],
        "activationPeakGib": row["activation_peak_gib"],
        "cudaGraphEstimateGib": row["cudagraph_estimated_gib"],
        "kvCacheGib": row["kv_cache_gib"],
        "kvCacheTokens": row["kv_cache_tokens"],
        "served": row["fits"],
    }
    return {k: v for k, v in value.items() if v is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; exit 2 where there are no logs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="holds truth/observations.jsonl, hub/SOURCES.json and hub/configs",
    )
    options = parser.parse_args(arguments)
    try:
        lines = (options.folder / "truth" / "observations.jsonl").read_text(encoding="utf-8").splitlines()
        sources = json.loads((options.folder / "hub" / "SOURCES.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        print(f"there are no logs to transcribe: {error.filename} is missing", file=sys.stderr)
        return 2
    starts: list[dict[str, Any]] = []
    models: dict[str, Any] = {}
    left_out: Counter[str] = Counter()
    for row in map(json.loads, lines):
        found = start(row, options.folder, sources)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        config, where = found.pop("config"), found.pop("configFrom")
        models.setdefault(found["model"], {"from": where, "config": smallest(config)})
        starts.append(found)
    files.write_text(STARTS, text(starts, models, left_out))
    print(f"{STARTS.name}: {len(starts)} starts of {len(models)} models; left out {sum(left_out.values())}")
    return 0


def text(starts: list[dict[str, Any]], models: Mapping[str, Any], left_out: Counter[str]) -> str:
    """The file: one line a model and a start, so that a diff shows which changed."""

    def lines(parts: list[str]) -> str:
        return ",\n".join(f"  {part}" for part in parts)

    of_models = [f"{json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models)]
    return (
        f'{{\n "about": {json.dumps(_ABOUT)},\n "leftOut": {json.dumps(dict(left_out.most_common()))},\n'
        f' "models": {{\n{lines(of_models)}\n }},\n "starts": [\n{lines([json.dumps(s) for s in starts])}\n ]\n}}\n'
    )


if __name__ == "__main__":
    sys.exit(main())

"""vLLM's options that change what a GPU's memory holds and that no plan reads: with one of them a plan is unknown.

Read in vLLM 0.25.1's and 0.32.0's arguments (vllm/engine/arg_utils.py) and in what their configurations do with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kaito_catalog.architectures.mixers import Attention, CompressedAttention, LatentAttention
from kaito_catalog.architectures.shape import Encoder, Shape

Option = tuple[str, str]
"""An option and its value, as on the command line: ("block-size", "128")."""

_EFFECTS: Mapping[str, tuple[str, ...]] = {
    "it adds a draft model or its guesses": (
        "speculative-config",
        "spec-method",
        "spec-model",
        "spec-tokens",
    ),
    "it adds the weights of adapters": ("enable-lora", "lora-modules", "default-mm-loras"),
    "it changes which weights are built, or how they are stored": (
        "quantization",
        "quantization-config",
        "hf-overrides",
        "hf-config-path",
        "model-class-overrides",
        "model-impl",
        "dtype",
        "load-format",
        "runner",
        "convert",
        "mm-encoder-only",
        "mm-encoder-tp-mode",
        "engram-config",
    ),
    "it keeps weights in the host's memory": (
        "cpu-offload-gb",
        "cpu-offload-params",
        "offload-backend",
        "offload-group-size",
        "offload-num-in-group",
        "offload-params",
        "offload-prefetch-step",
    ),
    "it chooses kernels, which order the weights and keep buffers in their own way": (
        "all2all-backend",
        "attention-backend",
        "attention-config",
        "gdn-prefill-backend",
        "kda-decode-backend",
        "kda-prefill-backend",
        "kernel-config",
        "linear-backend",
        "mamba-backend",
        "mamba-ssu-algorithm",
        "mm-encoder-attn-backend",
        "mm-encoder-attn-dtype",
        "moe-backend",
        "sparse-indexer-topk-backend",
        "override-attention-dtype",
    ),
    "it keeps memory of its own on the GPU": (
        "additional-config",
        "aux-output-config",
        "diffusion-config",
        "ec-manager-config",
        "ec-transfer-config",
        "enable-cumem-allocator",
        "enable-return-routed-experts",
        "enable-sleep-mode",
        "logits-processors",
        "mm-ipc-gpu-memory-gb",
        "mm-processor-device",
        "mm-tensor-ipc",
        "scheduler-cls",
        "weight-transfer-config",
        "worker-cls",
        "worker-extension-cls",
    ),
    "it takes further options from a file that is not here": ("config",),
    "it adds copies of experts": ("enable-eplb", "eplb-config", "enable-elastic-ep"),
    "it changes the KV cache": (
        "block-size",
        "calculate-kv-scales",
        "decode-context-parallel-size",
        "disable-hybrid-kv-cache-manager",
        "no-disable-hybrid-kv-cache-manager",
        "disable-sliding-window",
        "enable-mamba-shared-prefix-checkpoint",
        "enable-prefix-caching",
        "kv-cache-dtype-skip-layers",
        "kv-cache-memory-bytes",
        "kv-offloading-size",
        "kv-sharing-fast-prefill",
        "kv-transfer-config",
        "mamba-block-size",
        "mamba-cache-dtype",
        "mamba-cache-mode",
        "mamba-ssm-cache-dtype",
        "no-enable-prefix-caching",
        "num-gpu-blocks-override",
        "prefill-context-parallel-size",
        "prefix-match-unit",
        "replayssm-buffer-len",
        "swa-bounded-replay",
        "use-replayssm",
    ),
    "it changes what one step holds": (
        "enable-dbo",
        "enable-batch-sharded-sampling",
        "enable-hc-sp",
        "enable-prompt-embeds",
        "max-num-scheduled-tokens",
        "media-io-kwargs",
        "mm-processor-kwargs",
        "no-enable-chunked-prefill",
        "performance-mode",
        "skip-mm-profiling",
        "ubatch-size",
        "use-fp64-gumbel",
        "video-pruning-rate",
    ),
    "it changes what is compiled and captured": (
        "compilation-config",
        "cudagraph-capture-sizes",
        "max-cudagraph-capture-size",
        "optimization-level",
    ),
}

_EFFECT = {name: effect for effect, names in _EFFECTS.items() for name in names}

_PLANNED_VALUES: Mapping[str, frozenset[str]] = {
    "convert": frozenset({"none"}),
    "dtype": frozenset({"bfloat16", "float16", "half"}),
    "load-format": frozenset({"safetensors", "hf", "mistral", "runai_streamer", "fastsafetensors"}),
    "model-impl": frozenset({"vllm"}),
}
"""What takes the same bytes as vLLM's default."""

LIMIT_PER_PROMPT = "limit-mm-per-prompt"
"""Images and sounds that a prompt may hold: fewer than by default take less than is planned, none is no encoder."""

_MEDIA: Mapping[str, frozenset[str]] = {
    "vision": frozenset({"image", "video"}),
    "audio": frozenset({"audio"}),
}


def is_unread(name: str) -> bool:
    """Whether the option, written with dashes, is one of those."""
    return name in _EFFECT or name == LIMIT_PER_PROMPT


def why_unknown(options: Iterable[Option], shape: Shape) -> str | None:
    """Why no plan can be made with the options; None where they change nothing for this model."""
    for name, value in options:
        if name in _EFFECT and not _is_planned(name, value, shape):
            return f"no plan reads {name} {value[:40]}: {_EFFECT[name]}"
    return None


def leaves_out_encoder(options: Iterable[Option], encoder: Encoder | None) -> bool:
    """Whether no prompt may hold what the encoder is for, so that vLLM builds none (_mark_tower_model)."""
    limits = next((value for name, value in options if name == LIMIT_PER_PROMPT), None)
    if encoder is None or limits is None:
        return False
    media = _MEDIA.get(encoder.kind, frozenset({"image", "video", "audio"}))
    return media <= {medium for medium, limit in _limits(limits).items() if limit == 0}


def _limits(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        medium: limit.get("count") if isinstance(limit, dict) else limit for medium, limit in found.items()
    }


def _is_planned(name: str, value: str, shape: Shape) -> bool:
    if name == "quantization":
        method = shape.quantization.method if shape.quantization else None
        return method is not None and value.removesuffix("_marlin") == method.removesuffix("_marlin")
    if name in ("enable-prefix-caching", "no-enable-prefix-caching"):
        kinds = (Attention, LatentAttention, CompressedAttention)
        return all(isinstance(mixer, kinds) for layer in shape.layers for mixer in layer.mixers)
    return value in _PLANNED_VALUES.get(name, ())

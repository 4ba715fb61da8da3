"""Options that change nothing of a GPU's memory for a model, a GPU and a version: each rule with its reason.

Read in vLLM 0.25.1 and 0.32.0. `options.UNPLANNED` has what an option does otherwise; where no rule holds, the plan is
unknown. To add one, write it into `RULES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType

from kaito_catalog.architectures import Attention, Experts, LatentAttention, Recurrent, Scheme, Shape
from kaito_catalog.architectures.as_built import HOPPER, version_tuple
from kaito_catalog.architectures.changes import V0_32_0
from kaito_catalog.memory.kv_cache.versions import ALWAYS_ALIGNED
from kaito_catalog.memory.options import AS_BY_DEFAULT
from kaito_catalog.memory.values import Parallelism, Settings

BLACKWELL = 10


@dataclass(frozen=True)
class Situation:
    """What an option is given beside."""

    shape: Shape
    settings: Settings
    vllm_version: str
    parallelism: Parallelism = field(default=Parallelism())
    compute_capability: float | None = None
    """None: an H100's."""

    @property
    def major(self) -> int:
        """The major compute capability."""
        return HOPPER if self.compute_capability is None else int(self.compute_capability)

    @property
    def has_encoder(self) -> bool:
        """Whether vLLM builds the encoder of images or sound."""
        return self.shape.encoder is not None and not self.settings.language_model_only

    def has(self, *kinds: type | UnionType) -> bool:
        """Whether a layer mixes tokens in one of these ways."""
        return any(isinstance(mixer, kinds) for layer in self.shape.layers for mixer in layer.mixers)

    @property
    def has_experts(self) -> bool:
        """Whether a layer has experts."""
        return any(isinstance(layer.feed_forward, Experts) for layer in self.shape.layers)


@dataclass(frozen=True)
class NoEffect:
    """When some options change nothing, and why."""

    names: tuple[str, ...]
    reason: str
    """Completes "changes nothing: "."""
    applies: Callable[[str, Situation], bool]
    """Whether it holds for the option's value."""


def no_effect(name: str, value: str, situation: Situation) -> str | None:
    """Why the option changes nothing; None where that has not been shown."""
    if value in AS_BY_DEFAULT.get(name, ()):
        return "it takes as many bytes as what vLLM takes by default"
    return next((r.reason for r in RULES if name in r.names and r.applies(value, situation)), None)


def _always(value: str, situation: Situation) -> bool:
    return True


def _auto(value: str, situation: Situation) -> bool:
    return value == "auto"


def _without_encoder(value: str, situation: Situation) -> bool:
    return not situation.has_encoder


AMPERE, WIDEST_HEAD = 8, 256


def _chosen_attention(value: str, situation: Situation) -> bool:
    """Whether vLLM would choose that back end by itself (_get_backend_priorities of vllm/platforms/cuda.py).

    FlashInfer on Blackwell of data centres, and FlashAttention elsewhere from Ampere on, where it takes the heads. On
    Hopper 0.32.0 may choose another for models whose images are seen whole.
    """
    heads = [m.head_dim for layer in situation.shape.layers for m in layer.mixers if isinstance(m, Attention)]
    if not heads or max(heads) > WIDEST_HEAD or situation.has(LatentAttention):
        return False
    if situation.settings.kv_cache_dtype != "auto" or situation.has_encoder:
        return False
    if situation.major == BLACKWELL:
        return value.lower() == "flashinfer"
    return situation.major >= AMPERE and value.lower() == "flash_attn"


def _triton_attention(value: str, situation: Situation) -> bool:
    """Triton's kernel keeps keys and values in the same blocks; its buffers come after the measurement.

    TritonAttentionMetadataBuilder of 0.22.1 to 0.32.0. On Blackwell of data centres FlashInfer's blocks are others.
    """
    if value.lower() != "triton_attn" or not situation.has(Attention) or situation.has(LatentAttention):
        return False
    settings = situation.settings
    return (
        situation.major not in (BLACKWELL,)
        and settings.kv_cache_dtype == "auto"
        and settings.block_size is None
    )


def _chosen_latent_attention(value: str, situation: Situation) -> bool:
    """The same for dense latents on Hopper, and on Blackwell of workstations."""
    if not situation.has(LatentAttention) or situation.has(Attention) or situation.has(Recurrent):
        return False
    sparse = any(
        isinstance(m, LatentAttention) and m.sparse for x in situation.shape.layers for m in x.mixers
    )
    if sparse or situation.settings.kv_cache_dtype != "auto":
        return False
    return {HOPPER: "flash_attn_mla", 12: "triton_mla"}.get(situation.major) == value.lower()


_EXPERTS_AS_THEY_ARE = ("triton", "cutlass", "hpc")
"""Back ends for which vLLM does not put fp8 experts into another order (convert_to_fp8_moe_kernel_format)."""


def _keeps_experts(value: str, situation: Situation) -> bool:
    """Whether experts in fp8 stay as they are loaded."""
    how = situation.shape.quantization
    fp8 = (Scheme.FP8_BLOCK, Scheme.FP8_TENSOR)
    schemes = [
        x.feed_forward.scheme or (how.scheme if how is not None else None)
        for x in situation.shape.layers
        if isinstance(x.feed_forward, Experts)
    ]
    return value.lower() in _EXPERTS_AS_THEY_ARE and all(scheme in fp8 for scheme in schemes)


def _chosen_experts(value: str, situation: Situation) -> bool:
    """Whether vLLM would choose that kernel for experts in bfloat16 by itself (select_unquantized_moe_backend).

    On Hopper it puts Triton before FlashInfer's, which before Hopper there is none of.
    """
    unquantized = situation.shape.quantization is None and situation.settings.quantization is None
    return value.lower() == "triton" and unquantized and AMPERE <= situation.major <= HOPPER


def _has_plain_matrices(value: str, situation: Situation) -> bool:
    """Until 0.32 the option chooses among kernels for quantised matrices alone."""
    unquantized = situation.shape.quantization is None and situation.settings.quantization is None
    return unquantized and version_tuple(situation.vllm_version) < V0_32_0


def _mamba_block(value: str, situation: Situation) -> bool:
    """mamba_block_size is overwritten where states are aligned, and refused where prefixes are not cached."""
    aligned = version_tuple(situation.vllm_version) >= ALWAYS_ALIGNED or not situation.has(Recurrent)
    return situation.settings.enable_prefix_caching is True and aligned


def _keys(inner: Mapping[str, Callable[[str, Situation], bool]]) -> Callable[[str, Situation], bool]:
    """Whether a JSON object has those keys alone, each with a value for which its own rule holds."""

    def applies(value: str, situation: Situation) -> bool:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return False
        if not isinstance(found, dict):
            return False
        return all(
            item is None or (key in inner and inner[key](str(item), situation)) for key, item in found.items()
        )

    return applies


def _either(*rules: Callable[[str, Situation], bool]) -> Callable[[str, Situation], bool]:
    return lambda value, situation: any(rule(value, situation) for rule in rules)


_attention = _either(_chosen_attention, _chosen_latent_attention)

RULES: tuple[NoEffect, ...] = (
    NoEffect(
        (
            "media-io-kwargs",
            "mm-encoder-attn-backend",
            "mm-encoder-attn-dtype",
            "mm-ipc-gpu-memory-gb",
            "mm-processor-device",
            "mm-processor-kwargs",
            "mm-tensor-ipc",
            "skip-mm-profiling",
            "video-pruning-rate",
        ),
        "there is no encoder of images or sound",
        _without_encoder,
    ),
    NoEffect(
        ("attention-backend",),
        "vLLM chooses that back end by itself",
        _attention,
    ),
    NoEffect(("attention-backend",), "it keeps keys and values in the same blocks", _triton_attention),
    NoEffect(
        ("attention-config",),
        "vLLM chooses that back end by itself",
        _keys({"backend": _attention}),
    ),
    NoEffect(("moe-backend",), "there are no experts", lambda value, situation: not situation.has_experts),
    NoEffect(("moe-backend",), "experts in fp8 stay as they are loaded", _keeps_experts),
    NoEffect(("moe-backend",), "vLLM chooses that back end by itself", _chosen_experts),
    NoEffect(("linear-backend",), "no matrix is quantised", _has_plain_matrices),
    NoEffect(
        ("kernel-config",),
        "vLLM chooses those back ends by itself",
        _keys({"moe_backend": _auto, "linear_backend": _auto}),
    ),
    NoEffect(
        ("all2all-backend",),
        "experts are not dealt out to ranks",
        lambda value, situation: not situation.parallelism.enable_expert_parallel,
    ),
    NoEffect(
        (
            "gdn-prefill-backend",
            "kda-decode-backend",
            "kda-prefill-backend",
            "mamba-backend",
            "mamba-ssu-algorithm",
        ),
        "states are the same for each kernel, and the profile does not run it",
        _always,
    ),
    NoEffect(
        ("kernel-config",),
        "kernels are tuned once the memory is measured",
        _keys({"enable_flashinfer_autotune": _always}),
    ),
    NoEffect(
        ("scheduler-cls",),
        "vLLM's own schedulers run beside the GPU",
        lambda value, situation: value.startswith("vllm.v1.core.sched."),
    ),
    NoEffect(
        ("additional-config",), "there is nothing in it", lambda value, situation: value.strip() in ("", "{}")
    ),
    NoEffect(
        ("disable-sliding-window",),
        "no layer has a sliding window",
        lambda value, situation: (
            not any(
                isinstance(m, Attention) and m.sliding_window is not None
                for layer in situation.shape.layers
                for m in layer.mixers
            )
        ),
    ),
    NoEffect(
        ("mamba-block-size",),
        "a block of states is as long as one of attention where prefixes are cached",
        _mamba_block,
    ),
    NoEffect(
        ("replayssm-buffer-len",),
        "use-replayssm is not given",
        lambda value, situation: "use-replayssm" not in dict(situation.settings.unplanned),
    ),
    NoEffect(
        ("enable-mamba-shared-prefix-checkpoint", "use-replayssm"),
        "no layer keeps a state",
        lambda value, situation: not situation.has(Recurrent),
    ),
    NoEffect(
        ("no-disable-hybrid-kv-cache-manager",),
        "the hybrid KV cache manager is on where there is no KV connector",
        lambda value, situation: (
            situation.settings.kv_transfer_config is None and situation.settings.kv_offloading_size is None
        ),
    ),
)
"""The first that applies is said."""

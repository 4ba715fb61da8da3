"""vLLM's options that memory depends on, each told once: `PLANNED` are read by plans, `UNPLANNED` make them unknown.

The command line's arguments, the library's keywords, the options of a proposal, the JSON of a plan and vLLM's engine
arguments follow from these tables. Nothing large is imported here, so that `kaito-catalog --help` stays fast.
"""

from __future__ import annotations

from kaito_catalog.memory.option_kinds import (
    BYTES,
    COUNT,
    LEVEL,
    OBJECT,
    SHARE,
    SIZE,
    SIZES,
    SWITCH,
    TOGGLE,
    TOKENS,
    WHOLE,
    WORD,
    Kind,
    Value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # collections.abc is not loaded for --help
    from collections.abc import Mapping


class PlannedOption:
    """An option of `vllm serve` that plans read."""

    __slots__ = ("default", "kind", "meaning", "name", "unset")

    def __init__(
        self, name: str, kind: Kind, meaning: str, *, default: str, unset: Value | None = None
    ) -> None:
        self.name = name
        """As vLLM spells it on its command line, without the dashes in front."""
        self.kind = kind
        self.meaning = meaning
        """In a sentence."""
        self.default = default
        """What holds where it is not set, in words."""
        self.unset = unset
        """What leaves it to vLLM: it is not among the engine's arguments then."""

    @property
    def attribute(self) -> str:
        """Its name in `Settings`, and among vLLM's engine arguments."""
        return self.name.replace("-", "_")

    @property
    def negation(self) -> str | None:
        """What switches it off, where vLLM may have it on; None where there is no such option."""
        return f"no-{self.name}" if self.kind is TOGGLE else None

    @property
    def json_key(self) -> str:
        """Its name in the JSON of a plan."""
        first, *others = self.name.split("-")
        return first + "".join(word.capitalize() for word in others)

    @property
    def help(self) -> str:
        """What `--help` says of it."""
        return f"{self.meaning} (default: {self.default})"


PLANNED: tuple[PlannedOption, ...] = (
    PlannedOption(
        "gpu-memory-utilization",
        SHARE,
        "the share of a GPU's memory that vLLM may use",
        default="the profile's",
    ),
    PlannedOption(
        "kv-cache-memory-bytes",
        BYTES,
        "the KV cache's size on each GPU, such as 4G, whatever the utilization would leave for it",
        default="what is left",
    ),
    PlannedOption(
        "num-gpu-blocks-override",
        COUNT,
        "blocks of the KV cache on each GPU, whatever the utilization would leave for them",
        default="what is left",
    ),
    PlannedOption(
        "kv-cache-dtype",
        WORD,
        "how the KV cache is stored, such as fp8",
        default="auto, as the model has it",
        unset="auto",
    ),
    PlannedOption(
        "disable-hybrid-kv-cache-manager",
        SWITCH,
        "every layer keeps all tokens, as with a KV connector that does not support the manager (LMCache)",
        default="layers keep what they need",
        unset=False,
    ),
    PlannedOption(
        "block-size", COUNT, "tokens of a block of the KV cache", default="what the kernels ask for"
    ),
    PlannedOption(
        "enable-prefix-caching",
        TOGGLE,
        "keep what requests have in common, for which a hybrid model keeps more states of each",
        default="on; for hybrid models from 0.28 on",
    ),
    PlannedOption(
        "mamba-cache-mode",
        WORD,
        "which states of a sequence a hybrid model keeps where it caches prefixes: align or, before 0.32, all",
        default="vLLM's for the model",
        unset="none",
    ),
    PlannedOption(
        "mamba-cache-dtype",
        WORD,
        "how the states of a hybrid model are stored, such as float32",
        default="auto, as the model has it",
        unset="auto",
    ),
    PlannedOption(
        "mamba-ssm-cache-dtype",
        WORD,
        "how the recurrent part of those states is stored",
        default="auto, as the model has it",
        unset="auto",
    ),
    PlannedOption(
        "kv-transfer-config",
        OBJECT,
        "the KV connector; one that does not support the hybrid KV cache manager switches that off",
        default="none",
    ),
    PlannedOption(
        "kv-offloading-size",
        SIZE,
        "GiB of the host's memory for the KV cache, for which vLLM chooses a connector",
        default="none",
    ),
    PlannedOption(
        "kv-offloading-backend",
        WORD,
        "which connector that is: native or lmcache",
        default="native",
        unset="native",
    ),
    PlannedOption(
        "decode-context-parallel-size",
        COUNT,
        "ranks of a tensor-parallel group among which the tokens of a request are divided",
        default="1",
        unset=1,
    ),
    PlannedOption("max-num-seqs", COUNT, "requests in one batch", default="vLLM's for the GPU"),
    PlannedOption("max-num-batched-tokens", TOKENS, "tokens in one batch", default="vLLM's for the GPU"),
    PlannedOption(
        "enable-chunked-prefill",
        TOGGLE,
        "prompts longer than a batch are computed in pieces; without, a batch holds the longest",
        default="on",
    ),
    PlannedOption(
        "async-scheduling",
        TOGGLE,
        "the next batch is made while one is computed, so that windows hold the tokens of both",
        default="on",
    ),
    PlannedOption(
        "performance-mode",
        WORD,
        "throughput doubles the batch by default, interactivity captures more CUDA graphs of few requests",
        default="balanced",
        unset="balanced",
    ),
    PlannedOption(
        "max-cudagraph-capture-size", WHOLE, "tokens of the largest CUDA graph", default="of the batch"
    ),
    PlannedOption(
        "cudagraph-capture-sizes", SIZES, "tokens of each CUDA graph", default="vLLM's list up to the largest"
    ),
    PlannedOption(
        "compilation-config",
        OBJECT,
        "what is compiled and captured; read of it are the mode and the CUDA graphs",
        default="vLLM's",
    ),
    PlannedOption(
        "optimization-level",
        LEVEL,
        "how much is compiled and captured, from 0 to 3",
        default="2",
    ),
    PlannedOption("enforce-eager", SWITCH, "no CUDA graphs", default="with graphs", unset=False),
    PlannedOption(
        "language-model-only",
        SWITCH,
        "no images and no sound: vLLM does without their encoder",
        default="with it",
        unset=False,
    ),
    PlannedOption(
        "allow-deprecated-quantization",
        SWITCH,
        "weights quantised in a way that vLLM gives up soon (fbgemm_fp8, fp_quant) are loaded",
        default="refused",
        unset=False,
    ),
    PlannedOption(
        "speculative-config",
        OBJECT,
        'what guesses tokens ahead, such as \'{"method": "mtp", "num_speculative_tokens": 1}\'',
        default="nothing",
    ),
    PlannedOption(
        "mm-encoder-tp-mode",
        WORD,
        "data has every rank keep the whole encoder of images, where vLLM can; weights divides it",
        default="weights",
        unset="weights",
    ),
    PlannedOption(
        "quantization",
        WORD,
        "how vLLM stores the weights, such as fp8: unquantised ones become it while they are loaded",
        default="as their configuration says",
    ),
    PlannedOption(
        "hf-overrides",
        OBJECT,
        "keys of the model's configuration that are set otherwise, such as max_position_embeddings",
        default="none",
    ),
    PlannedOption(
        "dtype",
        WORD,
        "what the model computes in, and what is not quantised is stored in, such as float16",
        default="auto, as the model has it; float16 where the GPU has no bfloat16",
        unset="auto",
    ),
)
"""In the order in which they are shown. `memory.values.Settings` has a field for each, of its type."""

UNPLANNED: Mapping[str, tuple[str, ...]] = {
    "it adds the weights of adapters": ("enable-lora", "lora-modules", "default-mm-loras"),
    "it changes which weights are built, or how they are stored": (
        "quantization-config",
        "hf-config-path",
        "model-class-overrides",
        "model-impl",
        "load-format",
        "runner",
        "convert",
        "mm-encoder-only",
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
        "calculate-kv-scales",
        "no-disable-hybrid-kv-cache-manager",
        "disable-sliding-window",
        "enable-mamba-shared-prefix-checkpoint",
        "kv-cache-dtype-skip-layers",
        "kv-sharing-fast-prefill",
        "mamba-block-size",
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
        "skip-mm-profiling",
        "ubatch-size",
        "use-fp64-gumbel",
        "video-pruning-rate",
    ),
}
"""What changes a GPU's memory and no plan reads, by its effect: with one of these a plan is unknown.

Read in vLLM 0.25.1's and 0.32.0's arguments (vllm/engine/arg_utils.py) and in what their configurations do with them.
"""

AS_BY_DEFAULT: Mapping[str, frozenset[str]] = {
    "attention-backend": frozenset({"auto"}),
    "convert": frozenset({"none"}),
    "load-format": frozenset({"safetensors", "hf", "dummy", "mistral", "runai_streamer", "fastsafetensors"}),
    "linear-backend": frozenset({"auto"}),
    "model-impl": frozenset({"vllm"}),
    "moe-backend": frozenset({"auto"}),
}
"""Values of unplanned options that take the same bytes as vLLM's default."""

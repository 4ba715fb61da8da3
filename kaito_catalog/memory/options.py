"""vLLM's options that memory depends on, each told once: `PLANNED` are read by plans, `UNPLANNED` make them unknown.

The command line's arguments, the library's keywords, the options of a proposal, the JSON of a plan and vLLM's engine
arguments follow from these tables. Nothing is imported here, so that `kaito-catalog --help` stays fast.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and collections.abc are not loaded for --help
    from collections.abc import Callable, Mapping

Value = str | int | float | bool
"""Of an option."""


class Kind:
    """What an option takes: how it is read from a proposal or JSON, and from a word of the command line."""

    __slots__ = ("metavar", "parse", "read")

    def __init__(
        self, metavar: str | None, read: Callable[[object], Value | None], parse: Callable[[str], Value]
    ) -> None:
        self.metavar = metavar
        """As `--help` shows the value; None for a switch, which takes none."""
        self.read = read
        """A plain value of YAML or JSON; None where it is of the wrong kind, which the check RUN002 says."""
        self.parse = parse
        """A word of the command line; ValueError says in words what is wrong with it."""


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
    def json_key(self) -> str:
        """Its name in the JSON of a plan."""
        first, *others = self.name.split("-")
        return first + "".join(word.capitalize() for word in others)

    @property
    def help(self) -> str:
        """What `--help` says of it."""
        return f"{self.meaning} (default: {self.default})"


def number(value: object) -> int | float | None:
    """A finite number, also where it is written as a text: KAITO passes texts only, so "0.9" is as good as 0.9."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < float("inf") else None


def _read_share(value: object) -> float | None:
    found = number(value)
    return float(found) if found is not None and 0 < found <= 1 else None


def _parse_share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a number") from None
    if not 0 < found <= 1:
        raise ValueError("must be above 0 and at most 1")
    return found


def _read_count(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) > 0 else None


def _parse_count(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a whole number") from None
    if not 0 < found < 2**63:
        raise ValueError("must be at least 1" if found < 1 else "is too large")
    return found


_MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _read_bytes(value: object) -> int | None:
    try:
        return _parse_bytes(value) if isinstance(value, str) else value if type(value) is int else None
    except ValueError:
        return None


def _parse_bytes(text: str) -> int:
    """As human_readable_int of vLLM 0.25.1 and 0.32.0: 4g is 4 × 10⁹, 4G is 4 × 2³⁰, 4.5g is read and 4.5G is not."""
    text = text.strip()
    count, suffix = text[:-1], text[-1:]
    whole, point, rest = count.partition(".")
    try:
        if suffix not in _MULTIPLES:
            return int(text)
        if whole.isdecimal() and point and rest.isdecimal() and suffix.islower():
            return int(float(count) * _MULTIPLES[suffix])
        return int(count if count.isdecimal() else "none") * _MULTIPLES[suffix]
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a number of bytes such as 4294967296, 4G or 4.2g") from None


SHARE = Kind("X", _read_share, _parse_share)
"""Above 0 and at most 1."""
COUNT = Kind("N", _read_count, _parse_count)
"""A whole number from 1 on."""
BYTES = Kind("BYTES", _read_bytes, _parse_bytes)
"""A whole number; 0 is as good as absent for vLLM."""
WORD = Kind("T", lambda value: value if isinstance(value, str) else None, str)
"""A name that vLLM knows."""
SWITCH = Kind(None, lambda value: True if str(value).lower() in ("true", "") else None, lambda text: True)
"""On where it is given; a ConfigMap of KAITO's gives it as an empty text."""

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
    PlannedOption("max-num-seqs", COUNT, "requests in one batch", default="vLLM's for the GPU"),
    PlannedOption("max-num-batched-tokens", COUNT, "tokens in one batch", default="vLLM's for the GPU"),
    PlannedOption("enforce-eager", SWITCH, "no CUDA graphs", default="with graphs", unset=False),
    PlannedOption(
        "language-model-only",
        SWITCH,
        "no images and no sound: vLLM does without their encoder",
        default="with it",
        unset=False,
    ),
)
"""In the order in which they are shown. `memory.values.Settings` has a field for each, of its type."""

UNPLANNED: Mapping[str, tuple[str, ...]] = {
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
        "no-disable-hybrid-kv-cache-manager",
        "disable-sliding-window",
        "enable-mamba-shared-prefix-checkpoint",
        "enable-prefix-caching",
        "kv-cache-dtype-skip-layers",
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
"""What changes a GPU's memory and no plan reads, by its effect: with one of these a plan is unknown.

Read in vLLM 0.25.1's and 0.32.0's arguments (vllm/engine/arg_utils.py) and in what their configurations do with them.
"""

AS_BY_DEFAULT: Mapping[str, frozenset[str]] = {
    "convert": frozenset({"none"}),
    "dtype": frozenset({"bfloat16", "float16", "half"}),
    "load-format": frozenset({"safetensors", "hf", "mistral", "runai_streamer", "fastsafetensors"}),
    "model-impl": frozenset({"vllm"}),
}
"""Values of unplanned options that take the same bytes as vLLM's default."""

"""The state that a layer keeps for each sequence (Mamba, linear attention, short convolutions), in bytes."""

from __future__ import annotations

from kaito_catalog.architectures import (
    BuiltShape,
    GatedDeltaNet,
    KimiDelta,
    LightningAttention,
    Mamba1,
    Mamba2,
    Recurrent,
    ShortConv,
)
from kaito_catalog.memory.kv_cache.choices import VLLMS_CHOICE, CacheChoices

STATE_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""vLLM's MambaDType, beside `auto`."""


def state_bytes(
    mixer: Recurrent, tensor_parallel_size: int, dtype_bytes: int, choices: CacheChoices = VLLMS_CHOICE
) -> int:
    """The state of one sequence in one layer on one rank: the convolution's and, where there is one, the recurrent."""
    tp = tensor_parallel_size
    stored = STATE_DTYPE_BYTES.get(choices.mamba_cache_dtype, dtype_bytes)
    recurrent_bytes = _recurrent_bytes(mixer, stored, dtype_bytes, choices)
    match mixer:
        case GatedDeltaNet():
            width = (
                2 * mixer.key_head_dim * mixer.num_key_heads + mixer.value_head_dim * mixer.num_value_heads
            )
            elements = mixer.num_value_heads // tp * mixer.value_head_dim * mixer.key_head_dim
        case Mamba2():
            groups = mixer.num_groups if mixer.num_groups % tp == 0 else tp
            width = mixer.num_heads * mixer.head_dim + 2 * groups * mixer.state_size
            elements = mixer.num_heads // tp * mixer.head_dim * mixer.state_size
        case Mamba1():
            width = mixer.intermediate_size
            elements = width // tp * mixer.state_size
        case KimiDelta():
            width = 3 * mixer.num_heads * mixer.head_dim
            elements = mixer.num_heads // tp * mixer.head_dim**2
        case LightningAttention():
            return mixer.num_heads // tp * mixer.head_dim**2 * stored
        case ShortConv():
            width, elements = mixer.width, 0
    return width // tp * (mixer.conv_kernel - 1) * stored + elements * recurrent_bytes


def _recurrent_bytes(mixer: Recurrent, stored: int, dtype_bytes: int, choices: CacheChoices) -> int:
    """Of an element of the recurrent part: asked for, else as the model has it, else as the rest of the state."""
    asked = STATE_DTYPE_BYTES.get(choices.mamba_ssm_cache_dtype)
    if asked is not None:
        return asked
    if isinstance(mixer, GatedDeltaNet | Mamba2) and mixer.state_bytes != dtype_bytes:
        return mixer.state_bytes
    return 4 if isinstance(mixer, KimiDelta) else stored


NAMES_A_DTYPE = ("Qwen3_5", "NemotronH")
"""How architectures begin whose configuration may name the dtype of the recurrent part, which then stays as it is."""


def why_unknown_states(shape: BuiltShape, choices: CacheChoices) -> str | None:
    """Why the states cannot be told with those dtypes; None where they can."""
    mixers = [mixer for layer in set(shape.layers) for mixer in layer.mixers]
    asked, recurrent = choices.mamba_cache_dtype, choices.mamba_ssm_cache_dtype
    for name, value in (("mamba-cache-dtype", asked), ("mamba-ssm-cache-dtype", recurrent)):
        if value not in ("auto", *STATE_DTYPE_BYTES):
            return f"no plan for {name} '{value[:40]}'"
    if recurrent != "auto" and any(isinstance(m, KimiDelta) for m in mixers):
        return f"no plan for mamba-ssm-cache-dtype {recurrent} with Kimi's delta attention"
    changed = STATE_DTYPE_BYTES.get(asked, shape.dtype_bytes) != shape.dtype_bytes
    if changed and recurrent == "auto" and shape.architecture.startswith(NAMES_A_DTYPE):
        stated = [m.state_bytes for m in mixers if isinstance(m, GatedDeltaNet | Mamba2)]
        if shape.dtype_bytes in stated:
            return f"no plan for mamba-cache-dtype {asked} without mamba-ssm-cache-dtype"
    return None

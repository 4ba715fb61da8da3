"""Which modules of a layer a quantisation leaves out, and how the others are stored, by their names."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from kaito_catalog.architectures import Layer, Quantization, Scheme

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""vLLM's fused modules, and the checkpoint's names of their parts."""

_UNSAFE_EXPRESSION = re.compile(r"[)\]][*+{]")
_LONGEST_EXPRESSION = 200

_ENCODER = re.compile(
    r"vision|visual|vit|image|audio|speech|encoder|tower|projector|merger|resampler|connector|aligner|adapter"
)
"""What modules of encoders are called by the repositories that leave them unquantised."""
_DECODERS_ALONE = frozenset({"awq", "gptq"})
"""Methods that vLLM's classes with an encoder keep from it (_maybe_ignore_quant_config)."""


def module_scheme(name: str, layer: Layer, quantization: Quantization | None) -> Scheme | None:
    """How a module of a layer is quantised; None: it keeps the model's dtype."""
    if quantization is None:
        return None
    if quantization.mixed:
        names = _names(name)
        return next((scheme for listed, scheme in layer.schemes if listed in names), None)
    if layer.unquantized:
        names = _names(name)
        if any(fnmatchcase(n, pattern) for n in names for pattern in layer.unquantized):
            return None
    only = quantization.only
    if quantization.method == "gptq" and not only and name == "mlp.gate":
        # vLLM looks into the files for what is quantised; who makes them leaves routers alone.
        return None
    if only and not any(entry in f"model.layers.0.{n}" for n in _names(name) for entry in only):
        # The list is of linear modules: experts are quantised whatever it says.
        return quantization.scheme if name.endswith("experts") else None
    return None if _is_ignored(name, quantization.ignored) else quantization.scheme


def encoder_scheme(quantization: Quantization | None) -> Scheme | None:
    """How vLLM quantises an encoder: like the decoder, where the configuration leaves out others and none of its parts.

    A configuration that names nothing at all may have lost its list: then the encoder counts as unquantised, which
    is more.
    """
    if quantization is not None and quantization.while_loading:
        return quantization.scheme
    if (
        quantization is None
        or not quantization.ignored
        or quantization.only
        or quantization.scheme is Scheme.MXFP4_EXPERTS
        or quantization.method in _DECODERS_ALONE
        or any(_ENCODER.search(entry) for entry in quantization.ignored)
    ):
        return None
    return quantization.scheme


def _names(name: str) -> list[str]:
    """A module's own name, and those that the checkpoint has for its parts."""
    stem, _, last = name.rpartition(".")
    return [name, *(f"{stem}.{part}" for part in _FUSED.get(last, ()))]


@lru_cache(maxsize=512)
def _is_ignored(name: str, ignored: tuple[str, ...]) -> bool:
    """Whether a regular expression of the configuration leaves out a module of any layer."""
    for entry in ignored:
        expression = entry.removeprefix("re:")
        is_plain = expression == entry
        if is_plain or len(expression) > _LONGEST_EXPRESSION or _UNSAFE_EXPRESSION.search(expression):
            continue
        try:
            pattern = re.compile(expression)
        except re.error:
            continue
        # vLLM matches the whole name from its beginning, the parts of a fused module one by one.
        if any(pattern.match(f"model.layers.0.{n}") for n in _names(_checkpoint_name(name))):
            return True
    return False


def _checkpoint_name(name: str) -> str:
    return name.replace("mlp.shared_expert.", "mlp.shared_experts.")

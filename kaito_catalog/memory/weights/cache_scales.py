"""Scales of the KV cache, which some quantisations register as parameters until vLLM has read them."""

from __future__ import annotations

from kaito_catalog.architectures import Attention, LatentAttention, Layer, Quantization


def cache_scale_bytes(layer: Layer, dtype_bytes: int, quantization: Quantization | None) -> int:
    """Bytes of the scales of each attention of a layer."""
    if quantization is None or quantization.while_loading:
        return 0
    attentions = [m for m in layer.mixers if isinstance(m, Attention | LatentAttention)]
    return sum(_of_attention(m, dtype_bytes, quantization) for m in attentions)


def _of_attention(
    attention: Attention | LatentAttention, dtype_bytes: int, quantization: Quantization
) -> int:
    is_latent = isinstance(attention, LatentAttention)
    if isinstance(attention, Attention) and not attention.cache_scales:
        return 0
    match quantization.method:
        case "fp8" | "quark":
            return 0 if is_latent else 4 * dtype_bytes
        case "modelopt":
            return 4 * dtype_bytes if quantization.kv_cache_dtype or not quantization.mixed else 0
        case "compressed-tensors":
            return 0 if is_latent else 3 * 4 + 3 * dtype_bytes
        case _:
            return 0

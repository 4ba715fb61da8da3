"""What vLLM builds of a model by its version: readers describe 0.25.1, this changes what later ones do otherwise.

Read in the code of 0.25.1 and 0.32.0. For versions between them it is as in 0.25.1, which takes no less memory.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from kaito_catalog.architectures.shape import (
    Attention,
    Experts,
    KimiDelta,
    LatentAttention,
    Layer,
    Mlp,
    Shape,
)

CHANGED = (0, 32, 0)
HOPPER = 9

_BUILT_ONCE = frozenset(
    {
        "FlexOlmoForCausalLM",
        "GPTNeoXForCausalLM",
        "MellumForCausalLM",
        "OlmoForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
        "PersimmonForCausalLM",
        "PhiForCausalLM",
    }
)
"""Architectures of which 0.32.0 builds no part on more than one stage: most go through its Transformers back end."""

FLASH_ATTENTION_4_HEAD = 512
FLASH_ATTENTION_4_BLOCK = 64
"""FlashAttention 4 reads fp8 caches of heads this wide in blocks of that many tokens on Hopper."""


_PLAIN_ROUTER = frozenset(
    {
        "DeepseekV2ForCausalLM",
        "DeepseekV3BidirectionalModel",
        "DeepseekV3ForCausalLM",
        "DeepseekV32ForCausalLM",
        "GlmMoeDsaForCausalLM",
        "SarvamMLAForCausalLM",
    }
)
"""Architectures whose router 0.32.0 keeps in the model's dtype, and computes in fp32 where it is asked for."""

FLASH_KDA = frozenset({9, 10, 12})
"""Major compute capabilities that FlashKDA has kernels for (is_flashkda_supported)."""

LATENT_HYBRID_BLOCK = 128
"""Tokens that blocks of hybrids with latents are a multiple of with 0.32.0 on Hopper."""

_LATENT_HYBRIDS = frozenset(
    {
        "BailingMoeV2_5ForCausalLM",
        "Glm5NextForCausalLM",
        "KimiK3ForConditionalGeneration",
        "KimiLinearForCausalLM",
    }
)


_FROM_0_32 = frozenset(
    {
        "DeepseekV3BidirectionalModel",
        "EmbeddingGemma2Model",
        "Glm5NextForCausalLM",
        "GraniteMoeSWAForCausalLM",
        "GraniteSWAForCausalLM",
        "JinaEmbeddingsV5EncoderModel",
        "KimiK3ForConditionalGeneration",
        "MiniCPMV4_7ForConditionalGeneration",
        "NemotronH_Omni_Reasoning_V3",
    }
)
"""Architectures for which 0.32.0 has a class and 0.25.1 has none."""


def no_class(shape: Shape, vllm_version: str) -> str | None:
    """Why nobody knows what that version makes of the architecture; None where it has a class for it."""
    if shape.architecture in _FROM_0_32 and version_tuple(vllm_version) < CHANGED:
        words = f"has no class for the architecture {shape.architecture} before 0.32.0, as far as was read"
        return f"vLLM {words}; {vllm_version[:20]} was asked for"
    return None


_RELEASE = re.compile(r"v?(?:[0-9]{1,9}!)?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?", re.IGNORECASE)
"""As wheels have it, without what follows (PEP 440); the browser has no `packaging`."""


@lru_cache(maxsize=64)
def version_tuple(version: str) -> tuple[int, int, int]:
    """`0.25.1` as (0, 25, 1), and `0.15.2rc1.dev93+g1234567` as (0, 15, 2); missing parts are 0."""
    found = _RELEASE.match(version)
    major, minor, micro = (int(digits or 0) for digits in found.groups()) if found else (0, 0, 0)
    return major, minor, micro


@lru_cache(maxsize=1024)
def as_built(shape: Shape, vllm_version: str, compute_capability: float | None = None) -> Shape:
    """The shape as vLLM of that version builds it; without a compute capability, on an H100."""
    if version_tuple(vllm_version) < CHANGED:
        return _before(shape)
    how = shape.quantization
    if how is not None:
        refused = (
            f"vLLM {vllm_version[:20]} takes no weights whose inputs are in another order"
            if how.act_order
            else None
        )
        how = replace(how, registers_order=False, refines_blocks=True, short_scales=True, refused=refused)
    is_hopper = compute_capability is None or int(compute_capability) == HOPPER
    wide = any(
        isinstance(x.mixer, Attention) and x.mixer.head_dim == FLASH_ATTENTION_4_HEAD for x in shape.layers
    )
    if shape.architecture == "Rnj1ForCausalLM":
        shape = _without_window(shape)
    if shape.architecture == "JinaEmbeddingsV5Model":
        shape = replace(shape, has_head=False)
    if shape.architecture == "JinaVLForRanking":
        # It has one label, where 0.25.1 takes two.
        one = 2 * shape.hidden_size
        shape = replace(
            shape, divided_elements=shape.divided_elements - one, plain_elements=shape.plain_elements - 2
        )
    layers = tuple(_layer(layer, shape.architecture) for layer in shape.layers)
    if compute_capability is not None and int(compute_capability) not in FLASH_KDA:
        layers = tuple(_without_flash_kda(layer) for layer in layers)
    return replace(
        shape,
        layers=layers,
        quantization=how,
        on_every_stage=frozenset() if shape.architecture in _BUILT_ONCE else shape.on_every_stage,
        packs_blocks=True,
        aligns_by_stage=True,
        hybrid_block_size=LATENT_HYBRID_BLOCK if shape.architecture in _LATENT_HYBRIDS else None,
        fp8_block_size=FLASH_ATTENTION_4_BLOCK if is_hopper and wide else None,
    )


def _without_flash_kda(layer: Layer) -> Layer:
    """A layer on a GPU that FlashKDA has no kernels for."""
    mixer = layer.mixer
    return replace(layer, mixer=replace(mixer, checkpoints=False)) if isinstance(mixer, KimiDelta) else layer


def _before(shape: Shape) -> Shape:
    """Readers describe 0.25.1, but for what only later versions read in a configuration."""
    if shape.architecture == "AXK1ForCausalLM":
        return replace(shape, layers=tuple(_expanded(x, "later") for x in shape.layers))
    if shape.architecture != "KimiLinearForCausalLM":
        return shape
    layers = tuple(
        replace(x, feed_forward=replace(x.feed_forward, least_width=0))
        if isinstance(x.feed_forward, Experts)
        else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _expanded(layer: Layer, known: str) -> Layer:
    """A layer whose latents are known to other versions only: it keeps keys and values of every head."""
    latent = layer.mixer
    if not isinstance(latent, LatentAttention) or latent.known != known:
        return layer
    return expanded(layer)


def expanded(layer: Layer) -> Layer:
    """A layer of latents that works with keys and values of every head."""
    latent = layer.mixer
    if not isinstance(latent, LatentAttention):
        return layer
    width = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    heads = latent.num_attention_heads
    return replace(layer, mixer=Attention(heads, heads, width, width, latent=latent))


def _without_window(shape: Shape) -> Shape:
    """Layers that all see everything have no window, whatever the configuration says beside it."""
    mixers = [layer.mixer for layer in shape.layers]
    if not all(isinstance(m, Attention) and m.sliding_window is not None for m in mixers):
        return shape
    layers = tuple(
        replace(x, mixer=replace(x.mixer, sliding_window=None)) if isinstance(x.mixer, Attention) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


def _layer(layer: Layer, architecture: str) -> Layer:
    """A layer as 0.32.0 builds it."""
    mixer, block = layer.mixer, layer.feed_forward
    if isinstance(mixer, Attention) and mixer.shares_cache:
        # Layers that read another's cache have no projections for keys and values any more (Gemma 4).
        return replace(layer, mixer=replace(mixer, queries_only=True, head_norms=min(mixer.head_norms, 1)))
    if architecture == "AXK1ForCausalLM":
        return _expanded(layer, "earlier")
    if architecture == "Param2MoEForCausalLM" and isinstance(block, Experts):
        return replace(layer, feed_forward=replace(block, router_bytes=4))
    if architecture == "PanguProMoEV2ForCausalLM" and isinstance(mixer, Attention):
        return replace(layer, mixer=replace(mixer, unscaled=False))
    if architecture == "GPTBigCodeForCausalLM" and isinstance(mixer, Attention):
        # The Transformers back end recognises its attention, and divides that.
        return replace(layer, mixer=replace(mixer, replicated=False))
    if architecture == "PersimmonForCausalLM" and isinstance(mixer, Attention) and isinstance(block, Mlp):
        # The Transformers back end recognises nothing of it, and every rank has its layers whole.
        return replace(
            layer, mixer=replace(mixer, replicated=True), feed_forward=replace(block, replicated=True)
        )
    if ("ModernBert" in architecture or "ModernVBert" in architecture) and isinstance(block, Mlp):
        return replace(layer, feed_forward=replace(block, input_replicated=False))
    if architecture.startswith("MiMoV2") and isinstance(mixer, Attention):
        # The attention is told of the cache's dtype.
        return replace(layer, mixer=replace(mixer, cache_in_dtype=False))
    if architecture in _PLAIN_ROUTER and isinstance(block, Experts):
        return replace(layer, feed_forward=replace(block, router_bytes=0))
    if architecture in ("HYV3ForCausalLM", "KimiLinearForCausalLM") and isinstance(block, Experts):
        # What balances the routing is fp32 there too.
        return replace(layer, feed_forward=replace(block, correction_bias=True, extra_elements=0))
    return layer

"""What vLLM builds of a model by its version: readers describe 0.25.1, this changes what later ones do otherwise.

Read in the code of 0.25.1 and 0.32.0. For versions between them it is as in 0.25.1, which takes no less memory.
What one architecture's classes do otherwise is in its record; `FOR_ALL` has what is changed for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from kaito_catalog.architectures import record_of
from kaito_catalog.architectures.changes import V0_32_0, Version
from kaito_catalog.architectures.mixers import Attention, KimiDelta
from kaito_catalog.architectures.shape import BuiltShape, Layer, Shape

HOPPER = 9

FLASH_ATTENTION_4_HEAD = 512
FLASH_ATTENTION_4_BLOCK = 64
"""FlashAttention 4 reads fp8 caches of heads this wide in blocks of that many tokens on Hopper."""

FLASH_KDA = frozenset({9, 10, 12})
"""Major compute capabilities that FlashKDA has kernels for (is_flashkda_supported)."""


def no_class(shape: Shape, vllm_version: str) -> str | None:
    """Why that version cannot be planned for the architecture; None where it has a class for it."""
    since = record_of(shape).since
    if since is None or version_tuple(vllm_version) >= since:
        return None
    first = ".".join(str(part) for part in since)
    words = f"has no class for the architecture {shape.architecture} before {first}, as far as was read"
    return f"vLLM {words}; {vllm_version[:20]} was asked for"


_RELEASE = re.compile(r"v?(?:[0-9]{1,9}!)?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?", re.IGNORECASE)
"""As wheels have it, without what follows (PEP 440); the browser has no `packaging`."""


@lru_cache(maxsize=64)
def version_tuple(version: str) -> Version:
    """`0.25.1` as (0, 25, 1), and `0.15.2rc1.dev93+g1234567` as (0, 15, 2); missing parts are 0."""
    found = _RELEASE.match(version)
    major, minor, micro = (int(digits or 0) for digits in found.groups()) if found else (0, 0, 0)
    return major, minor, micro


@dataclass(frozen=True)
class Target:
    """What a shape is built by and for."""

    vllm_version: str
    compute_capability: float | None
    """None: an H100's."""

    @property
    def major(self) -> int:
        """The major compute capability."""
        return HOPPER if self.compute_capability is None else int(self.compute_capability)


@lru_cache(maxsize=1024)
def as_built(shape: Shape, vllm_version: str, compute_capability: float | None = None) -> BuiltShape:
    """The shape as vLLM of that version builds it; without a compute capability, on an H100."""
    version = version_tuple(vllm_version)
    target = Target(vllm_version, compute_capability)
    built = BuiltShape(**{field.name: getattr(shape, field.name) for field in fields(Shape)})
    for since, change_for_all in FOR_ALL:
        if version >= since:
            built = change_for_all(built, target)
    for change in record_of(shape).changes:
        if change.applies(version):
            built = change.make(built)
    return built


def _quantizes(shape: BuiltShape, target: Target) -> BuiltShape:
    """Inputs in another order are not taken any more, and some scales are stored otherwise."""
    how = shape.quantization
    if how is None:
        return shape
    refused = (
        f"vLLM {target.vllm_version[:20]} takes no weights whose inputs are in another order"
        if how.act_order
        else how.refused
    )
    how = replace(how, registers_order=False, refines_blocks=True, short_scales=True, refused=refused)
    return replace(shape, quantization=how)


def _takes_stated_length(shape: BuiltShape, target: Target) -> BuiltShape:
    """The length of a model with YaRN is not multiplied again (_get_and_verify_max_len)."""
    return replace(shape, max_model_len=shape.max_model_len_as_stated or shape.max_model_len)


def _makes_blocks(shape: BuiltShape, target: Target) -> BuiltShape:
    """How the cache's blocks are made."""
    wide = any(
        isinstance(x.mixer, Attention) and x.mixer.head_dim == FLASH_ATTENTION_4_HEAD for x in shape.layers
    )
    return replace(
        shape,
        packs_blocks=True,
        aligns_by_stage=True,
        fp8_block_size=FLASH_ATTENTION_4_BLOCK if wide and target.major == HOPPER else None,
    )


def _in_layers(change: Callable[[Layer], Layer]) -> Callable[[BuiltShape, Target], BuiltShape]:
    return lambda shape, _: replace(shape, layers=tuple(change(layer) for layer in shape.layers))


def _shares_caches(layer: Layer) -> Layer:
    """Layers that read another's cache have no projections for keys and values any more (Gemma 4)."""
    mixer = layer.mixer
    if not isinstance(mixer, Attention) or not mixer.shares_cache:
        return layer
    return replace(layer, mixer=replace(mixer, queries_only=True, head_norms=min(mixer.head_norms, 1)))


def _computes_delta(shape: BuiltShape, target: Target) -> BuiltShape:
    """A GPU that FlashKDA has no kernels for sets no state aside for it."""
    if target.major in FLASH_KDA:
        return shape
    layers = tuple(
        replace(x, mixer=replace(x.mixer, checkpoints=False)) if isinstance(x.mixer, KimiDelta) else x
        for x in shape.layers
    )
    return replace(shape, layers=layers)


FOR_ALL: tuple[tuple[Version, Callable[[BuiltShape, Target], BuiltShape]], ...] = (
    (V0_32_0, _quantizes),
    (V0_32_0, _makes_blocks),
    (V0_32_0, _in_layers(_shares_caches)),
    (V0_32_0, _computes_delta),
    (V0_32_0, _takes_stated_length),
)
"""What is otherwise for every architecture from a version on, in this order."""

"""How the GPUs of one node reach each other's memory, by their name."""

from __future__ import annotations

import re
from enum import Enum

from kaito_catalog.architectures.as_built import HOPPER

BLACKWELL = 10


class Link(Enum):
    """How GPUs of one node reach each other's memory."""

    SWITCH = "switch"
    """NVSwitch, with multicast from Hopper on."""
    PEER = "peer"
    """NVLink bridges between pairs, or PCIe."""
    HOST = "host"
    """Not at all: NCCL's buffers are in the host's memory."""


_PAIRS = re.compile(r"\b(?:NVL|PCIe)\b|^NVIDIA H100 NVL", re.IGNORECASE)
_GEFORCE = re.compile(r"\bGeForce\b|\bTITAN\b|^(?:NVIDIA )?RTX [2-5]0[5-9]0\b", re.IGNORECASE)


def link(gpu_name: str | None, compute_capability: float | None) -> Link:
    """How such GPUs are linked where one node has several; one whose name is not known is taken for an SXM module."""
    name = gpu_name or ""
    if _GEFORCE.search(name):
        return Link.HOST
    has_switch = compute_capability is None or int(compute_capability) in (HOPPER, BLACKWELL)
    return Link.SWITCH if has_switch and not _PAIRS.search(name) else Link.PEER

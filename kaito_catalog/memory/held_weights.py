"""Whether weight files hold what the configuration asks for: a part that is missing must not pass for a small model."""

from __future__ import annotations

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.values import Stored
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import Uncomputable, split_over
from kaito_catalog.quantity import gib

LEAST_SHARE = 0.95
"""Files of less than this share of the configured bytes lack a part. Complete ones hold 0.996 and more of them, the
least where vLLM makes tensors that no file has (60 models, vLLM 0.25.1)."""


def lack_of_bytes(shape: Shape | Unsupported, stored: Stored | None, vllm_version: str) -> str | None:
    """In words by how much the files are too small; None where they are not, or where it cannot be told.

    Args:
        shape: of the configuration that lies with the files, as it stands there.
        stored: the size of the files.
        vllm_version: whose classes the configuration is built with.
    """
    if isinstance(shape, Unsupported) or stored is None:
        return None
    built = as_built(shape, vllm_version)
    if isinstance(built, Unsupported):
        return None
    whole = weights_per_rank(built, split_over(tensor_parallel_size=1))
    if isinstance(whole, Uncomputable) or stored.high_bytes >= LEAST_SHARE * sum(whole):
        return None
    return f"{gib(sum(whole) - stored.high_bytes)} of the {gib(sum(whole))} that the configuration asks for"

"""The header of a safetensors file: its length, the tensors that it names, the parameters by dtype, their bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from kaito_catalog.hub.repository import Header, printable

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""

_MOST_DIMENSIONS = 64
"""PyTorch's own limit. The product of a million dimensions would be a number of millions of digits."""


def header_length(start: bytes) -> int:
    """The length of the header that follows the first eight bytes of a safetensors file.

    Raises:
        ValueError: they are no such length.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
        raise ValueError("it does not start with the length of a safetensors header")
    return length


def parse_header(text: bytes, *, size_bytes: int | None) -> Header:
    """What a safetensors header (without its eight bytes of length) declares.

    Args:
        text: the JSON.
        size_bytes: of the whole file, which the offsets have to agree with.

    Raises:
        ValueError: it is not a header, or one of another file.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header holds no tensors")
    found: dict[str, int] = {}
    names: list[str] = []
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        match tensor:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(_), int(last)]} if (
                len(shape) <= _MOST_DIMENSIONS
                and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10**12 for n in shape)
            ) and re.fullmatch(r"[A-Z0-9_]{1,24}", dtype):
                found[dtype] = found.get(dtype, 0) + math.prod(shape)
                end = max(end, last)
                names.append(name)
            case _:
                raise ValueError(f"its header describes the tensor '{printable(name[:60])}' in no known way")
    if size_bytes is not None and 8 + len(text) + end != size_bytes:
        raise ValueError(f"its header speaks of {8 + len(text) + end:,} bytes, the file has {size_bytes:,}")
    return Header(dict(sorted(found.items())), tuple(names))


_DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def tensor_bytes(parameters_by_dtype: Mapping[str, int]) -> int | None:
    """Bytes of the tensors, without headers; None where a dtype is not known."""
    if any(dtype not in _DTYPE_BITS for dtype in parameters_by_dtype):
        return None
    return sum(count * _DTYPE_BITS[dtype] // 8 for dtype, count in parameters_by_dtype.items())

"""A model repository at one commit, from the Hub or a directory: files, headers, and which of them vLLM takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from typing import Literal, Protocol, TypeAlias

from kaito_catalog.errors import CatalogError

Gate: TypeAlias = Literal["no", "auto", "manual"]
WeightFormat: TypeAlias = Literal["safetensors", "mistral", "pickle", "gguf"]

SAFETENSORS_INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""
MAX_FILES = 20_000

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository."""

    path: str
    size_bytes: int | None
    sha256: str | None = None
    """Of the content; the Hub knows it for files in LFS."""
    is_lfs: bool = False
    blob_id: str | None = None
    """Git's id of the blob (of the pointer, for files in LFS)."""


@dataclass(frozen=True)
class Repository:
    """What the Hub, or a directory, says about a repository at a commit. None: not known."""

    repo_id: str
    """As the Hub spells it now; another name than was asked for is a moved repository."""
    revision: str | None
    files: tuple[RepoFile, ...]
    gated: Gate | None = None
    license_id: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str | None = None
    base_models: tuple[str, ...] = ()
    downloads: int | None = None
    parameters_by_dtype: Mapping[str, int] | None = None
    """The Hub's own count over the safetensors headers."""
    unsafe_names: tuple[str, ...] = ()
    """Names of files that lead elsewhere or cannot be shown, made printable; these files are not in `files`."""

    def file(self, path: str) -> RepoFile | None:
        """The file of that path."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def size_bytes(self) -> int | None:
        """All files together; None where the size of one is not known."""
        sizes = [file.size_bytes for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)


class Snapshot(Protocol):
    """A repository whose files can be read."""

    @property
    def repository(self) -> Repository:
        """What is known without reading a file."""

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A small file, whole.

        Raises:
            CatalogError: it cannot be read, or is larger than the limit.
        """

    def safetensors_header(self, path: str) -> dict[str, int]:
        """Parameters by dtype that the header of a weight file declares.

        Raises:
            CatalogError: it cannot be read, or is no safetensors header.
        """

    def sha256(self, path: str) -> str:
        """Of a file's content.

        Raises:
            CatalogError: it cannot be read.
        """


# --- what can go wrong -----------------------------------------------------------------------------------------


class Trouble(Enum):
    """What went wrong with a request."""

    GONE = "gone"
    GONE_OR_PRIVATE = "gone or private"
    """401 without a token: the Hub does not tell."""
    REVISION_GONE = "revision gone"
    FILE_GONE = "file gone"
    GATED = "gated"
    FORBIDDEN = "forbidden"
    BAD_TOKEN = "bad token"  # noqa: S105
    DISABLED = "disabled"
    RATE_LIMITED = "rate limited"
    CONFLICT = "conflict"
    SERVER = "server error"
    TIMEOUT = "time-out"
    CONNECTION = "connection"
    CORRUPT = "corrupt"
    TOO_LARGE = "too large"
    REDIRECTED = "redirected"
    USAGE = "usage"
    STOPPED = "stopped"


_TRANSIENT = {
    Trouble.RATE_LIMITED,
    Trouble.CONFLICT,
    Trouble.SERVER,
    Trouble.TIMEOUT,
    Trouble.CONNECTION,
    Trouble.CORRUPT,
}


class HubError(CatalogError):
    """A request that failed for good; the message is one line and names the model."""

    def __init__(
        self, trouble: Trouble, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.trouble = trouble
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later: nothing is known about the model."""
        return self.trouble in _TRANSIENT


# --- names -----------------------------------------------------------------------------------------------------


def is_safe(path: str) -> bool:
    """Whether a name from a repository is a plain relative path that stays inside and can be shown."""
    parts = path.split("/")
    return (
        0 < len(path) <= 500
        and not _INVISIBLE.search(path)
        and "\\" not in path
        and not re.match(r"[A-Za-z]:", path)
        and all(part not in ("", ".", "..") for part in parts)
    )


def printable(name: str) -> str:
    """A name with what cannot be shown written as ``\\u202e``, shortened."""
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m[0]):04x}", name[:200]) or "(empty)"


# --- safetensors -----------------------------------------------------------------------------------------------


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


def parse_header(text: bytes, *, size_bytes: int | None) -> dict[str, int]:
    """Parameters by dtype of a safetensors header (without its eight bytes of length), sorted by dtype.

    Args:
        text: the JSON.
        size_bytes: of the whole file, which the offsets have to agree with.

    Raises:
        ValueError: it is no header, or one of another file.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header holds no tensors")
    found: dict[str, int] = {}
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
            case _:
                raise ValueError(f"its header describes the tensor '{printable(name[:60])}' in no known way")
    if size_bytes is not None and 8 + len(text) + end != size_bytes:
        raise ValueError(f"its header speaks of {8 + len(text) + end:,} bytes, the file has {size_bytes:,}")
    return dict(sorted(found.items()))


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


# --- vLLM's choice of weight files -----------------------------------------------------------------------------

IGNORED = "original/**/*"
"""vLLM's default `ignore_patterns`. With fnmatch it spares `original/a/b`, not `original/b`; the index does that."""
_NOT_FOR_INFERENCE = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class WeightChoice:
    """The weight files of a repository that vLLM takes with `load_format` auto."""

    format: WeightFormat
    downloaded: tuple[str, ...]
    """What it fetches: the disk has to hold these."""
    loaded: tuple[str, ...]
    """What it opens of them."""


def index_to_read(paths: Sequence[str]) -> str | None:
    """The index file that decides which weights vLLM takes; None where there is none, or it cannot matter.

    It cannot matter where the tree holds one complete set of shards and no other safetensors file.
    """
    weights = [path for path in paths if path.endswith(".safetensors")]
    if any(fnmatch(path.rpartition("/")[2], "consolidated*.safetensors") for path in weights):
        index = MISTRAL_INDEX
        weights = [path for path in weights if fnmatch(path, "consolidated*.safetensors")]
    else:
        index = SAFETENSORS_INDEX
    if index not in paths:
        return None
    shards = [_SHARD.fullmatch(path) for path in weights]
    first = shards[0] if shards else None
    if first is None or "/" in first["stem"]:
        return index
    complete = len(weights) == int(first["count"]) and all(
        shard is not None and (shard["stem"], shard["count"]) == (first["stem"], first["count"])
        for shard in shards
    )
    return None if complete else index


def choose_weights(paths: Sequence[str], indexed: Sequence[str] | None = None) -> WeightChoice | None:
    """Which weight files vLLM downloads and loads; None where it finds none.

    The rules of `default_loader._prepare_weights` and `weight_utils.download_weights_from_hf` (vLLM 0.25 to 0.33)
    for a model on the Hub, load format auto: a file called `consolidated*.safetensors` anywhere makes it the
    Mistral format; else the files that `model.safetensors.index.json` names; else the first of `*.safetensors`,
    `*.bin`, `*.pt` that the top folder has. Patterns are matched against whole paths, `*` crosses folders.

    Args:
        paths: all files of the repository.
        indexed: the files that the index of `index_to_read` names, when it was read.
    """
    if any(fnmatch(path.rpartition("/")[2], "consolidated*.safetensors") for path in paths):
        downloaded = _matching(paths, "consolidated*.safetensors")
        loaded = [path for path in downloaded if "/" not in path]
        return _choice("mistral", downloaded, _in_index(loaded, indexed)) if downloaded else None
    top = [path for path in paths if "/" not in path]
    if SAFETENSORS_INDEX in top and indexed:
        named = sorted(set(indexed) & set(paths))
        downloaded = [path for path in named if not fnmatch(path, IGNORED)]
        return _choice("safetensors", downloaded, downloaded) if downloaded else None
    for pattern, format_ in (("*.safetensors", "safetensors"), ("*.bin", "pickle"), ("*.pt", "pickle")):
        if any(fnmatch(path, pattern) for path in top):
            downloaded = _matching(paths, pattern)
            loaded = [path for path in downloaded if "/" not in path]
            if format_ == "pickle":
                loaded = [path for path in loaded if not path.endswith(_NOT_FOR_INFERENCE)]
            return _choice("safetensors" if format_ == "safetensors" else "pickle", downloaded, loaded)
    gguf = [path for path in top if path.endswith(".gguf")]
    return _choice("gguf", gguf, gguf) if gguf else None


def _matching(paths: Sequence[str], pattern: str) -> list[str]:
    return sorted(path for path in paths if fnmatch(path, pattern) and not fnmatch(path, IGNORED))


def _in_index(paths: list[str], indexed: Sequence[str] | None) -> list[str]:
    return [path for path in paths if path in indexed] if indexed else paths


def _choice(format_: WeightFormat, downloaded: Sequence[str], loaded: Sequence[str]) -> WeightChoice:
    return WeightChoice(format_, tuple(downloaded), tuple(loaded))


def indexed_files(index: object) -> tuple[str, ...] | None:
    """The files that an index (its parsed JSON) names; None where it is no index."""
    match index:
        case {"weight_map": dict(weight_map)} if all(isinstance(name, str) for name in weight_map.values()):
            return tuple(sorted(set(weight_map.values())))
        case _:
            return None

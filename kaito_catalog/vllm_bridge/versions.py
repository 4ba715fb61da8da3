"""Versions of vLLM as its wheels have them, such as `0.15.2rc1.dev93+g1234567`; compare them here, never as text.

What the browser runs is standard library only and has its own reader, `architectures.as_built.version_tuple`.
"""

from __future__ import annotations

from functools import lru_cache

from packaging.version import InvalidVersion, Version

_LONGEST = 64


@lru_cache(maxsize=64)
def parsed(text: str) -> Version | None:
    """The version that `text` is, with at least major and minor number; None where it has not that form."""
    if len(text) > _LONGEST or text != text.strip():
        return None
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    return version if 2 <= len(version.release) <= 4 else None


def release(text: str) -> Version:
    """The release that a version belongs to: a candidate or a build of 0.25.1 is run by the rules of 0.25.1.

    Raises:
        ValueError: it is not a version.
    """
    version = parsed(text)
    if version is None:
        raise ValueError(f"'{text[:_LONGEST]}' is not a version of vLLM")
    return Version(version.base_version)


def is_same(one: str, other: str) -> bool:
    """Whether both are one version, whichever way it is written and built: `0.25.1+cu129` is 0.25.1.

    What follows the plus sign names a build that is fully compatible with the version before it, says
    https://packaging.python.org/en/latest/specifications/version-specifiers/#local-version-identifiers.
    """
    first, second = parsed(one), parsed(other)
    if first is None or second is None:
        return False
    return Version(first.public) == Version(second.public)


def newest(versions: list[str]) -> str:
    """The newest of several versions."""
    return max(versions, key=Version)

"""What an option of vLLM takes: how its value is read from a proposal or JSON, and from a word of the command line.

Nothing is imported here, so that `kaito-catalog --help` stays fast.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and collections.abc are not loaded for --help
    from collections.abc import Callable

Value = str | int | float | bool
"""Of an option."""


class Kind:
    """What an option takes: how it is read from a proposal or JSON, and from a word of the command line."""

    __slots__ = ("for_engine", "metavar", "parse", "read")

    def __init__(
        self,
        metavar: str | None,
        read: Callable[[object], Value | None],
        parse: Callable[[str], Value],
        *,
        for_engine: Callable[[Value], object] = lambda value: value,
    ) -> None:
        self.metavar = metavar
        """As `--help` shows the value; None for a switch, which takes none."""
        self.read = read
        """A plain value of YAML or JSON; None where it is of the wrong kind, which the check RUN002 says."""
        self.parse = parse
        """A word of the command line; ValueError says in words what is wrong with it."""
        self.for_engine = for_engine
        """The value as vLLM's EngineArgs take it in Python."""


def number(value: object) -> int | float | None:
    """A finite number, also where it is written as a text: KAITO passes texts only, so "0.9" is as good as 0.9."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < float("inf") else None


def _read_share(value: object) -> float | None:
    found = number(value)
    return float(found) if found is not None and 0 < found <= 1 else None


def _parse_share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a number") from None
    if not 0 < found <= 1:
        raise ValueError("must be above 0 and at most 1")
    return found


def _read_size(value: object) -> float | None:
    found = number(value)
    return float(found) if found is not None and found > 0 else None


def _parse_size(text: str) -> float:
    found = _read_size(text)
    if found is None:
        raise ValueError(f"'{text[:40]}' is not a number above 0")
    return found


def _read_count(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) > 0 else None


def _parse_count(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a whole number") from None
    if not 0 < found < 2**63:
        raise ValueError("must be at least 1" if found < 1 else "is too large")
    return found


def _read_whole(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) >= 0 else None


def _parse_whole(text: str) -> int:
    return 0 if text.strip() == "0" else _parse_count(text)


_MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _read_bytes(value: object) -> int | None:
    try:
        return _parse_bytes(value) if isinstance(value, str) else value if type(value) is int else None
    except ValueError:
        return None


def _parse_bytes(text: str) -> int:
    """As human_readable_int of vLLM 0.25.1 and 0.32.0: 4g is 4 × 10⁹, 4G is 4 × 2³⁰, 4.5g is read and 4.5G is not."""
    text = text.strip()
    count, suffix = text[:-1], text[-1:]
    whole, point, rest = count.partition(".")
    try:
        if suffix not in _MULTIPLES:
            return int(text)
        if whole.isdecimal() and point and rest.isdecimal() and suffix.islower():
            return int(float(count) * _MULTIPLES[suffix])
        return int(count if count.isdecimal() else "none") * _MULTIPLES[suffix]
    except ValueError:
        raise ValueError(f"'{text[:40]}' is not a number of bytes such as 4294967296, 4G or 4.2g") from None


def _parse_tokens(text: str) -> int:
    found = _parse_bytes(text)
    if not 0 < found < 2**63:
        raise ValueError("must be at least 1" if found < 1 else "is too large")
    return found


def _read_tokens(value: object) -> int | None:
    if not isinstance(value, str):
        return _read_count(value)
    try:
        return _parse_tokens(value)
    except ValueError:
        return _read_count(value)


def _sizes(text: str) -> list[int]:
    import json

    words = json.loads(text) if text.strip().startswith("[") else text.replace(",", " ").split()
    return [int(word) for word in words]


def _parse_sizes(text: str) -> str:
    try:
        found = _sizes(text)
    except (TypeError, ValueError, RecursionError):
        found = []
    if not found or min(found) < 1:
        raise ValueError(f"'{text[:40]}' is not a list of numbers such as 1,2,4,8")
    return " ".join(str(size) for size in found)


def _read_sizes(value: object) -> str | None:
    try:
        return _parse_sizes(str(value))
    except ValueError:
        return None


def _object(text: str) -> object:
    import json

    return json.loads(text)


def _parse_object(text: str) -> str:
    try:
        found = _object(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"'{text[:40]}' is not a JSON object")
    return text


def _read_object(value: object) -> str | None:
    import json

    try:
        return _parse_object(value if isinstance(value, str) else json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return None


SHARE = Kind("X", _read_share, _parse_share)
"""Above 0 and at most 1."""
SIZE = Kind("X", _read_size, _parse_size)
"""A number above 0."""
COUNT = Kind("N", _read_count, _parse_count)
"""A whole number from 1 on."""
WHOLE = Kind("N", _read_whole, _parse_whole)
"""A whole number from 0 on."""
BYTES = Kind("BYTES", _read_bytes, _parse_bytes)
"""A whole number; 0 is as good as absent for vLLM."""
TOKENS = Kind("N", _read_tokens, _parse_tokens)
"""A whole number from 1 on, which may end in K or k as vLLM reads it."""
WORD = Kind("T", lambda value: value if isinstance(value, str) else None, str)
"""A name that vLLM knows."""
SIZES = Kind("N,…", _read_sizes, _parse_sizes, for_engine=lambda value: _sizes(str(value)))
"""Numbers from 1 on; kept as a text with spaces between them, as they stand on a command line."""
OBJECT = Kind("JSON", _read_object, _parse_object, for_engine=lambda value: _object(str(value)))
"""A JSON object; kept as its text."""
LEVEL = Kind("N", lambda value: str(value) if type(value) in (int, str) else None, str)
"""A number, which may have a letter before it (O2)."""
SWITCH = Kind(None, lambda value: True if str(value).lower() in ("true", "") else None, lambda text: True)
"""On where it is given; a ConfigMap of KAITO's gives it as an empty text."""

TOGGLE = Kind(None, SWITCH.read, SWITCH.parse)
"""On where it is given, off where `no-` stands before it, and left to vLLM where neither is."""

"""`Namespace(a=1, …)`, `{'a': 1, …}` and `a=1, b='x'` as Python prints them, cut, wrapped and with class reprs inside.

Only an item whose end was printed is read: `max_model_len=81` at the end of a cut line may have been 8192.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator

Value = str | int | float | bool | None | list[object] | dict[str, object]

_PAIRS = {"(": ")", "[": "]", "{": "}"}
_KEY = re.compile(r"\s*(?:'(?P<quoted>[\w.-]+)'\s*:|(?P<bare>[A-Za-z_]\w*)\s*=)\s*")
_MOST = 200_000
"""Characters that are looked at: the longest line seen has 12,000."""


class NotReadError(ValueError):
    """A class repr, or something else that is no plain value."""


def items(text: str, *, closes: str | None) -> Iterator[tuple[str, str]]:
    """The items of one level, each as it is printed.

    Args:
        text: what follows the opening bracket, or the whole of a bare list.
        closes: the bracket that ends it; None where nothing does, so that the last item may be cut.
    """
    start, stack, quote, skip = 0, [], "", False
    for at, sign in enumerate(text[:_MOST]):
        if skip:
            skip = False
        elif quote:
            skip = sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            # An apostrophe inside a bare word opens nothing.
            quote = "" if at and text[at - 1].isalnum() else sign
        elif sign in _PAIRS:
            stack.append(_PAIRS[sign])
        elif stack and sign == stack[-1]:
            stack.pop()
        elif not stack and sign in (",", closes):
            if found := _KEY.match(text, start, at):
                yield found["quoted"] or found["bare"], text[found.end() : at].strip()
            if sign == closes:
                return
            start = at + 1


def is_closed(text: str, opens: str) -> bool:
    """Whether the bracket that `text` begins behind is closed in it."""
    stack, quote, skip = [_PAIRS[opens]], "", False
    for at, sign in enumerate(text[:_MOST]):
        if skip:
            skip = False
        elif quote:
            skip = sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = "" if at and text[at - 1].isalnum() else sign
        elif sign in _PAIRS:
            stack.append(_PAIRS[sign])
        elif sign == stack[-1]:
            stack.pop()
            if not stack:
                return True
    return False


def read(printed: str) -> Value:
    """A value as Python prints it: `8192`, `'fp8'`, `torch.bfloat16`, `['a']`; an enum is its value.

    Raises:
        NotReadError: it is none of these.
    """
    if found := re.fullmatch(r"torch\.(\w+)", printed):
        return found[1]
    if found := re.fullmatch(r"<[\w.]+: (.*)>", printed):
        return read(found[1])
    if found := re.fullmatch(r"[A-Z]\w*\.([A-Z_0-9]+)", printed):  # LoadFormat.AUTO
        return found[1].lower()
    if re.fullmatch(r"[A-Za-z_][\w./-]{0,200}", printed) and printed not in ("None", "True", "False"):
        return printed
    if len(printed) > 20_000:
        raise NotReadError
    if found := re.match(r"[A-Z]\w*\(", printed):  # a dataclass: KVTransferConfig(kv_connector='…', …)
        return {
            name: value for name, value in readable(printed[found.end() :], closes=")") if value is not None
        }
    try:
        return _plain(ast.literal_eval(printed), depth=0)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise NotReadError from None


def readable(text: str, *, closes: str | None) -> Iterator[tuple[str, Value]]:
    """The items of one level that are plain values."""
    for name, printed in items(text, closes=closes):
        try:
            yield name, read(printed)
        except (NotReadError, RecursionError):
            continue


def _plain(value: object, *, depth: int) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise NotReadError
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int) and abs(value) < 10**18:
        return value
    if depth < 6 and isinstance(value, list | tuple):
        return [_plain(one, depth=depth + 1) for one in value]
    if depth < 6 and isinstance(value, dict):
        return {str(name): _plain(one, depth=depth + 1) for name, one in value.items()}
    raise NotReadError

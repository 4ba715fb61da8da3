"""How words of the command line are read: numbers, shares, sizes, each refused as argparse refuses.

Nothing heavy is imported here; see `arguments`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kaito_catalog.memory.option_kinds import COUNT, SHARE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kaito_catalog.memory.option_kinds import Value


def number(text_: str) -> float:
    try:
        return float(text_)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text_[:40]}' is not a number") from None


def word(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """How a word of the command line is read, its errors said as argparse says them."""

    def read(text_: str) -> Value:
        try:
            return parse(text_)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def variable(text_: str) -> tuple[str, str]:
    """NAME=VALUE, as a shell takes it."""
    name, equals, value = text_.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text_[:40]}' is not NAME=VALUE")
    return name, value


def own_price(text_: str) -> tuple[str, float]:
    """TYPE=USD: an instance type and what an hour of it costs."""
    name, equals, price = text_.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(
            f"'{text_[:40]}' is not TYPE=USD, such as Standard_NC24ads_A100_v4=2.90"
        )
    value = number(price)
    if not 0 < value <= 10**6:
        raise argparse.ArgumentTypeError("a price is a number of dollars an hour above 0")
    return name, value


positive = word(COUNT.parse)
share = word(SHARE.parse)


def port(text_: str) -> int:
    if not (text_.isascii() and text_.isdigit() and int(text_[:6]) < 2**16):
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text_)


def gibibytes(text_: str) -> float:
    value = number(text_)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number of GiB above 0")
    return value


def capability(text_: str) -> float:
    value = number(text_)
    if not 1 <= value < 100 or round(value, 1) != value:
        raise argparse.ArgumentTypeError("must be a compute capability such as 8.9")
    return value

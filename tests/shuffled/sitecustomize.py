"""Where this folder is on the path, Python imports this at its start, and reads folders in another order each time."""

import os
import random
from collections.abc import Iterator
from typing import Any

_random = random.Random(os.environ["SHUFFLE_SEED"])
_listdir, _scandir = os.listdir, os.scandir


def listdir(*arguments: Any) -> list[Any]:
    found = _listdir(*arguments)
    _random.shuffle(found)
    return found


class Scan:
    """What os.scandir returns, in another order."""

    def __init__(self, *arguments: Any) -> None:
        with _scandir(*arguments) as entries:
            found = list(entries)
        _random.shuffle(found)
        self._entries = iter(found)

    def __iter__(self) -> Iterator[Any]:
        return self._entries

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> "Scan":
        return self

    def __exit__(self, *problem: object) -> None:
        return None

    def close(self) -> None:
        return None


setattr(os, "listdir", listdir)  # noqa: B010
setattr(os, "scandir", Scan)  # noqa: B010

"""Which licence a LICENSE file holds, told by its text: word for word one that is known, or None."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MOST_BYTES = 2**20
"""A longer file is no licence's text."""
_MOST_BEFORE = 440
"""Words that may stand before the terms: a title, holders, what Creative Commons says of itself."""


@dataclass(frozen=True)
class _Known:
    """The terms from `start` to `end` as lower-case words, by their sha256; `after` words may follow: an appendix."""

    id: str
    start: str
    end: str
    after: int
    sha256: str


_BSD = ("redistribution and use in source and binary forms", "possibility of such damage", 5)
_GNU_END = "end of terms and conditions"
# Computed of the texts that choosealicense.com publishes, as identify 2.6 ships them; checked against the LICENSE
# files of some hundred Python packages.
_KNOWN = (
    _Known(
        "mit",
        "permission is hereby granted free of charge",
        "other dealings in the software",
        5,
        "0cf21bdfd1964a97a8615e128534845826afbc887edc95aa5c925cbf64386b5c",
    ),
    _Known(
        "apache-2.0",
        "apache license version 2 0 january 2004",
        "accepting any such warranty or additional liability",
        270,
        "37599287c15c2f2ec060c3c3b55bdf69e3bc7a8aeeb9cd57e18800088789538a",
    ),
    _Known("bsd-2-clause", *_BSD, "a56fee4b2f66331ed54da4950ef9c9391453fd1490b4d8ea202bc29683bcbd30"),
    _Known("bsd-3-clause", *_BSD, "9b83d3dee0616d07b82a272dd9bf5134a9f402b750f5ee6188458073b0a32ff2"),
    _Known("bsd-3-clause-clear", *_BSD, "054d83f73a45f62e07f2e06360fd64739c93fb9065d67addf2ec45a394be859f"),
    _Known(
        "gpl-3.0",
        "gnu general public license version 3",
        _GNU_END,
        480,
        "4daf25711475345bba3326eb65ac074ad13b96798bf4bd295a284f56837f3ac0",
    ),
    _Known(
        "gpl-2.0",
        "gnu general public license version 2",
        _GNU_END,
        480,
        "8607b1cff63e9a9dc468bf76327bdd0bb2d2abe09d6e8076427fd49236f46f29",
    ),
    _Known(
        "agpl-3.0",
        "gnu affero general public license version 3",
        _GNU_END,
        480,
        "185580b28ec7db2f06a5e4dc323a504af595aab8418de3f317380b11c4ebf6aa",
    ),
    _Known(
        "mpl-2.0",
        "mozilla public license version 2 0",
        "defined by the mozilla public license v 2 0",
        5,
        "f82071285728ca3ec7685ee9bc4acdae0b8267142a4d20b8f1805eabedb4a98a",
    ),
    _Known(
        "cc-by-4.0",
        "by exercising the licensed rights",
        "privileges and immunities that apply",
        200,
        "9c2e7aa65d07ce16c231d558193afcf41e35bd39e6a36c534a06e275aa839c13",
    ),
    _Known(
        "cc-by-sa-4.0",
        "by exercising the licensed rights",
        "privileges and immunities that apply",
        200,
        "764a79a75d2b6ebdcfadfe7e034e84b6a3d5eddcc4ea5d69bf2d3cf632fbf2e7",
    ),
    _Known(
        "cc0-1.0",
        "the laws of most jurisdictions",
        "cc0 or use of the work",
        40,
        "edf0ff1a55bbb9b62d466686adc5315f0463d54e65b8b6fbc122e6fc79848c1c",
    ),
    _Known(
        "isc",
        "permission to use copy modify",
        "performance of this software",
        5,
        "217da0747cec63a2e734185db11cbaa819bcd9e5b83cd12f812128fffe66e26a",
    ),
)

_TITLES = {
    "llama 2 community license agreement": "llama2",
    "meta llama 3 community license agreement": "llama3",
    "llama 3 1 community license agreement": "llama3.1",
    "llama 3 2 community license agreement": "llama3.2",
    "llama 3 3 community license agreement": "llama3.3",
    "llama 4 community license agreement": "llama4",
    "gemma terms of use": "gemma",
    "attribution noncommercial 4 0 international": "cc-by-nc-4.0",
    "attribution noncommercial sharealike 4 0 international": "cc-by-nc-sa-4.0",
}
"""Licences of whose terms there is no canonical text file: told by the title at the top of a long text."""


def license_of_text(text: str) -> str | None:
    """The Hub's id of the licence that a file holds; None where its text is none that is known."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("https:", "http:"))
    joined = f" {' '.join(words)} "
    for known in _KNOWN:
        start, end = joined.find(f" {known.start} "), joined.rfind(f" {known.end} ")
        if not 0 <= start < end:
            continue
        end += 1 + len(known.end)
        terms = joined[start + 1 : end]
        if (
            hashlib.sha256(terms.encode()).hexdigest() == known.sha256
            and len(joined[:start].split()) <= _MOST_BEFORE
            and len(joined[end:].split()) <= known.after
        ):
            return known.id
    top = f" {' '.join(words[:40])} "
    return next((id_ for title, id_ in _TITLES.items() if len(words) > 300 and f" {title} " in top), None)

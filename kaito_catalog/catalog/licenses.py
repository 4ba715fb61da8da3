"""Licences as people write them: SPDX expressions, the Hub's ids, usual spellings; where images may be hosted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from kaito_catalog.formats.policy import LicensePolicy

ImageHosting: TypeAlias = Literal["public-mcr", "user-built"]

_LONGEST = 1_000
_DEEPEST = 20
_OPERATORS = ("AND", "OR", "WITH", "(", ")")
_WORDS = re.compile(r"[()]|[^\s()]+")
_REFERENCE = re.compile(r"LicenseRef-(?P<name>[A-Za-z0-9.-]+)\Z", re.IGNORECASE)


class NotALicenseError(ValueError):
    """What was written is not a licence that programs can compare."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class NamedLicense:
    """One licence of an expression."""

    id: str
    """SPDX's id where there is one, else the Hub's, or ``LicenseRef-…``."""
    hub_id: str | None
    exception: str | None = None

    def __str__(self) -> str:
        return f"{self.id} WITH {self.exception}" if self.exception else self.id

    @property
    def has_text_of_its_own(self) -> bool:
        """Whether what it allows is only known from its text."""
        return is_reference(self.id) or self.id == "other"


@dataclass(frozen=True)
class Combined:
    """Licences that all hold (AND), or of which one may be chosen (OR)."""

    operator: Literal["AND", "OR"]
    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        shown = (
            f"({part})" if self.operator == "AND" and isinstance(part, Combined) else str(part)
            for part in self.parts
        )
        return f" {self.operator} ".join(shown)


Expression: TypeAlias = NamedLicense | Combined


def hub_id(claimed: str, policy: LicensePolicy) -> str | None:
    """The Hub's id for a licence as somebody wrote it (SPDX, the Hub's own, a usual spelling), or None."""
    text = _folded(claimed)
    if text in policy.spdx or text in policy.known:
        return text
    if text in policy.aliases:
        return policy.aliases[text]
    return next((hub for hub, spdx in policy.spdx.items() if spdx.lower() == text), None)


def is_reference(claimed: str) -> bool:
    """Whether the id is SPDX's form for a licence outside its list: ``LicenseRef-…``."""
    return _REFERENCE.match(claimed) is not None


def read(claimed: str, policy: LicensePolicy) -> Expression:
    """The licences that a claim names and how they are combined: `Apache-2.0 OR MIT`.

    Each may be written as SPDX's id, as the Hub's id, in a usual spelling, or as ``LicenseRef-…``.

    Raises:
        NotALicenseError: a part of it is not known, or it is not an expression.
    """
    if (hub := hub_id(claimed, policy)) is not None:
        return NamedLicense(policy.spdx.get(hub, hub), hub)
    if len(claimed) > _LONGEST:
        raise _not_an_expression(f"it has {len(claimed):,} characters, of at most {_LONGEST:,}")
    words = _words(claimed)
    read_words = [
        word
        if word in _OPERATORS
        else _exception(word)
        if position and words[position - 1] == "WITH"
        else _license(word, policy)
        for position, word in enumerate(words)
    ]
    _check_structure(claimed, read_words)
    return _parse(list(reversed(read_words)))


def spelt_unusually(claimed: str, policy: LicensePolicy) -> bool:
    """Whether words are among the ids that are understood and are none: `Apache 2.0`."""
    return any(_folded(word) in policy.aliases for word in (claimed, *_words(claimed)))


def each(expression: Expression) -> Iterator[NamedLicense]:
    """The licences of an expression."""
    if isinstance(expression, NamedLicense):
        yield expression
    else:
        for part in expression.parts:
            yield from each(part)


def image_hosting(claimed: str, policy: LicensePolicy) -> ImageHosting:
    """Who builds the image: KAITO's maintainers in a public registry, or the user.

    KAITO's template allows public images for Apache-2.0 and MIT; an unknown licence never qualifies. Of alternatives
    (OR) the best counts, since it may be chosen; of licences that hold together (AND) each has to qualify.
    """
    try:
        expression = read(claimed, policy)
    except NotALicenseError:
        return "user-built"
    return "public-mcr" if _is_public(expression, policy) else "user-built"


def _is_public(expression: Expression, policy: LicensePolicy) -> bool:
    if isinstance(expression, NamedLicense):  # an exception only adds to what the licence allows
        return expression.hub_id in policy.public_images
    found = (_is_public(part, policy) for part in expression.parts)
    return all(found) if expression.operator == "AND" else any(found)


def _folded(claimed: str) -> str:
    return " ".join(claimed.lower().split())


def _words(claimed: str) -> list[str]:
    """Operators in capitals, and what stands between them as one word each: `Apache 2.0 or mit` has three."""
    found: list[str] = []
    is_open = False
    for word in _WORDS.findall(claimed):
        is_operator = word.upper() in _OPERATORS
        if is_open and not is_operator:
            found[-1] += f" {word}"
        else:
            found.append(word.upper() if is_operator else word)
        is_open = not is_operator
    return found


def _license(word: str, policy: LicensePolicy) -> NamedLicense:
    hub = hub_id(word, policy)
    if hub is not None:
        return NamedLicense(policy.spdx.get(hub, hub), hub)
    if reference := _REFERENCE.match(word):
        return NamedLicense(f"LicenseRef-{reference['name']}", None)
    is_named = word.lower().startswith("licenseref-")
    id_ = None if is_named else _canonical(word)
    if id_ is None:
        raise NotALicenseError(
            f"'{word[:60]}' is neither an SPDX id nor one the Hub uses",
            "a name after LicenseRef- has letters, digits, '.' and '-' only"
            if is_named
            else "use the id on the model's page, or LicenseRef-NAME with summary.license.url",
        )
    return NamedLicense(id_, hub_id(id_.removesuffix("+"), policy))


def _exception(word: str) -> str:
    found = _canonical(f"MIT WITH {word}")
    if found is None:
        raise NotALicenseError(
            f"'{word[:60]}' is not an exception that SPDX lists",
            "https://spdx.org/licenses/exceptions-index.html",
        )
    return found.removeprefix("MIT WITH ")


def _check_structure(claimed: str, words: Sequence[NamedLicense | str]) -> None:
    """That operators and parentheses stand where they may.

    Raises:
        NotALicenseError: they do not.
    """
    depth = deepest = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise _not_an_expression(f"it has parentheses in each other, {deepest} deep")
    # Versions of packaging before 26.2 let an exception follow a parenthesis.
    is_misplaced = any(b == "WITH" and not isinstance(a, NamedLicense) for a, b in pairwise(words))
    if (
        is_misplaced
        or _canonical(" ".join("MIT" if isinstance(word, NamedLicense) else word for word in words)) is None
    ):
        raise _not_an_expression(f"'{claimed[:60]}'")


def _not_an_expression(what: str) -> NotALicenseError:
    return NotALicenseError(
        f"the licence is not an SPDX expression: {what}",
        "ids are joined by AND, OR and WITH, such as 'Apache-2.0 OR MIT'",
    )


def _canonical(text: str) -> str | None:
    """The expression in SPDX's own spelling, or None."""
    # Loaded here: nearly all claims are one id that the policy lists.
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return None


def _parse(rest: list[NamedLicense | str], operator: Literal["OR", "AND"] = "OR") -> Expression:
    """The expression at the end of `rest`, whose structure has been checked; what it takes is removed."""
    parts: list[Expression] = []
    while True:
        part = _parse(rest, "AND") if operator == "OR" else _operand(rest)
        parts += part.parts if isinstance(part, Combined) and part.operator == operator else [part]
        if not rest or rest[-1] != operator:
            return parts[0] if len(parts) == 1 else Combined(operator, tuple(parts))
        rest.pop()


def _operand(rest: list[NamedLicense | str]) -> Expression:
    word = rest.pop()
    if word == "(":
        found = _parse(rest)
        rest.pop()
        return found
    assert isinstance(word, NamedLicense)
    if rest and rest[-1] == "WITH":
        rest.pop()
        return NamedLicense(word.id, word.hub_id, str(rest.pop()))
    return word

"""Single texts of a Markdown proposal to values: figures, dates, licences, runtimes; nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from kaito_catalog import quantity
from kaito_catalog.formats.base import MISSING_WORDS
from kaito_catalog.formats.proposal import RuntimeName
from kaito_catalog.kaito.markdown.words import LINK, bare, links, missing_word, plain, repo_id, sentences

_URL = r"https?://[^\s()<>\"]{1,2000}"
_ONLY_LINK = re.compile(rf"\[[^\[\]\n]{{0,300}}\]\((?P<url>{_URL})\)\.?\Z")
_COMMIT = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_ABBREVIATED = re.compile(r"(?=[0-9a-f]*[0-9])[0-9a-f]{6,39}\Z")


# --- figures ---------------------------------------------------------------------------------------------------

_BEFORE = r"(?:~|≈|>=?|≥|<=?|≤|about|around|approx\.|approximately|ca\.|at least|minimum|min\.|up to)"
_AFTER = r"(?P<after>\s?[^0-9()+]*(?:\(.*\))?)"
_SIZE = re.compile(
    rf"(?:(?P<before>{_BEFORE})\s*)?(?P<figure>{quantity.PATTERN})(?![A-Za-z0-9])(?P<plus>\+)?{_AFTER}\Z",
    re.I,
)
_COUNT = re.compile(
    rf"(?:(?P<before>{_BEFORE})\s*)?0{{0,9}}(?P<figure>[1-9][0-9]{{0,8}})(?![A-Za-z0-9.,])(?P<plus>\+)?"
    rf"(?:{_AFTER}|\s?(?P<of>[x×] ?[A-Z].*))\Z",
    re.I,
)


@dataclass(frozen=True)
class ReadFigure:
    """A claim: a size as text, a count, TBD, N/A or None; what was said around it; why it cannot be read."""

    value: str | int | None = None
    note: str | None = None
    problem: str | None = None


def read_size(text: str) -> ReadFigure:
    """``~16GB (per …)`` is 16GB with the note ``~; per …``."""
    return _figure(text, _SIZE)


def read_count(text: str) -> ReadFigure:
    """``01 GPU`` is 1 with the note ``GPU``; ``8+`` is 8 with the note ``8+``."""
    return _figure(text, _COUNT)


def _figure(text: str, pattern: re.Pattern[str]) -> ReadFigure:
    text = bare(text)
    word = missing_word(text)
    if word is not None:
        return ReadFigure(word or None)
    unknown = re.match(r"(TBD|N/A)\s*\((.*)\)\Z", text)
    if unknown:
        return ReadFigure(unknown[1], unknown[2].strip() or None)
    match = pattern.match(text)
    if match is None:
        wanted = quantity.problem(text) if pattern is _SIZE else "write a whole number, such as 1"
        return ReadFigure(None, text, wanted)
    if pattern is _SIZE:
        try:
            quantity.parse(match["figure"])
        except ValueError as error:
            return ReadFigure(None, text, str(error))
    parts = [
        match["before"],
        f"{match['figure']}+" if match["plus"] else None,
        _unwrapped(match.groupdict().get("of") or match["after"]),
    ]
    note = "; ".join(part for part in parts if part)
    value = match["figure"] if pattern is _SIZE else int(match["figure"])
    return ReadFigure(value, note or None)


def _unwrapped(text: str) -> str:
    text = text.strip()
    whole = re.match(r"\(([^()]*)\)\Z", text)
    return whole[1].strip() if whole else text


def context_in(note: str) -> int | None:
    """The tokens of ``~16k context length``: thousands of tokens are counted in 1024."""
    match = re.search(r"(?<![0-9.])([1-9][0-9]{0,3})k(?: tokens?)?(?: of)? context", note, re.I)
    return int(match[1]) * 1024 if match else None


@dataclass(frozen=True)
class Version:
    """A revision as it is to be written, and what is remarkable about it."""

    value: str | None
    abbreviated: str | None = None
    """The short form in the text, when it is one."""
    other: bool = False
    """Whether the text names another commit than its link."""
    note: str | None = None


def read_version(text: str) -> Version:
    """A commit, a branch, or nothing; the full commit comes from the link when the text abbreviates it."""
    link = LINK.search(text)
    shown = bare(link["text"] if link else text)
    if missing_word(shown) is not None:
        return Version(missing_word(shown) or None)
    full = _COMMIT.search(link["url"]) if link else None
    if full:
        if shown == full[0]:
            return Version(shown)
        short = full[0].startswith(shown.lower()) and len(shown) >= 4
        return Version(full[0], shown, other=not short)
    written = _COMMIT.findall(shown)
    if len(set(written)) == 1 and shown != written[0]:
        return Version(written[0], note=shown)
    return Version(shown, shown if _ABBREVIATED.match(shown) else None)


# --- dates -----------------------------------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(
    r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})\Z|([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})\Z"
)


@dataclass(frozen=True)
class Day:
    """A date as ``YYYY-MM-DD``, or None; `problem` says why not, or in which other way it can be read."""

    value: str | None
    problem: str | None = None


def calendar(year: str, month: str, day: str) -> str | None:
    """The date, if the calendar has it."""
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def read_date(text: str, *, known: tuple[str, ...] = ()) -> Day:
    """Read ``2025-05-29`` and ``05/29/2025`` (month first, as KAITO's template has it).

    Args:
        text: the date.
        known: dates of the same proposal; they show when a date was meant day first.
    """
    match = _DATE.match(text)
    if match is None:
        return Day(None, f"'{text[:40]}' is not a date")
    year, month, day, first, second, last = match.groups()
    if year:
        found = calendar(year, month, day)
        return Day(found, None if found else f"{text} is not in the calendar")
    us, european = calendar(last, first, second), calendar(last, second, first)
    if us is None and european is None:
        return Day(None, f"{text} is not in the calendar")
    if us is None:
        return Day(european, f"{text} can only be day/month; KAITO's template has month/day")
    if us != european and european in known and us not in known:
        return Day(us, f"{text} is read as {us} (month/day, as in KAITO's template); day/month would be {european}, "
                   "a date this proposal names elsewhere")  # fmt: skip
    return Day(us)


def spoken_date(text: str) -> re.Match[str] | None:
    """Where a text says ``as of 2025-05-29``, ``as of 27th May 2024`` or ``as of May 27, 2024``."""
    return re.search(
        r"\bas of (?:the )?(?:(?P<iso>[0-9]{4}-[0-9]{2}-[0-9]{2})"
        r"|(?P<day>[0-9]{1,2})(?:st|nd|rd|th)? (?P<month>[A-Za-z]{3,9}),? (?P<year>[0-9]{4})"
        r"|(?P<month2>[A-Za-z]{3,9}) (?P<day2>[0-9]{1,2})(?:st|nd|rd|th)?,? (?P<year2>[0-9]{4}))(?![0-9])",
        text,
        re.I,
    )


def _spoken(match: re.Match[str]) -> str | None:
    if match["iso"]:
        return calendar(*match["iso"].split("-"))
    month = (match["month"] or match["month2"]).lower()
    number = next((i for i, name in enumerate(_MONTHS, 1) if month.startswith(name)), 0)
    return calendar(match["year"] or match["year2"], str(number), match["day"] or match["day2"])


# --- usage and licence -----------------------------------------------------------------------------------------

_SOURCE = re.compile(
    rf",? according to (?:\[[^\[\]\n]{{0,300}}\]\((?P<link>{_URL})\)|(?P<bare>{_URL}))", re.I
)


def read_usage(text: str) -> dict[str, Any]:
    """The usage statistics of a summary: the figure in its words, the day and the source where they are stated."""
    text = text.strip()
    only = _ONLY_LINK.match(text)
    if only:
        return {"source": only["url"]}
    if missing_word(text) is not None:
        return {}
    result: dict[str, Any] = {}
    source = _SOURCE.search(text)
    link = (source["link"] or source["bare"].rstrip(".,;")) if source else None
    if source and not text[source.end() :].strip(" ."):
        text = text[: source.start()]
    if link is None:
        link = next((url for url in links(text) if repo_id(url)), None)
    spoken = spoken_date(text)
    day = _spoken(spoken) if spoken else None
    if spoken and day and not text[spoken.end() :].strip(" ."):
        text = text[: spoken.start()]
    statistics = text.strip().removesuffix(".")
    if statistics and missing_word(statistics) is None:
        result["statistics"] = statistics
    if day:
        result["asOf"] = day
    if link and re.match(rf"{_URL}\Z", link):
        result["source"] = link
    return result


# What proposals call a licence, and the Hub's id for it; `check` compares the id with the Hub's (LIC).
_LICENSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.I), found)
    for pattern, found in (
        (r"\bapache[- ]?(?:license,? )?(?:version )?v?2(?:\.0)?\b", "apache-2.0"),
        (r"\bmodified MIT\b", "modified-mit"),
        (r"\bMIT\b", "mit"),
        (r"\bgemma(?: terms(?: of use)?| licen[cs]e)", "gemma"),
        (r"\bllama (?P<version>[234](?:\.[0-9])?) community licen[cs]e", "llama{version}"),
        (r"\bBSD[- ]3[- ]clause\b", "bsd-3-clause"),
        (r"\bBSD[- ]2[- ]clause\b", "bsd-2-clause"),
        (r"\bCC[- ]BY[- ]NC[- ]4\.0\b", "cc-by-nc-4.0"),
        (r"\bCC[- ]BY[- ]4\.0\b", "cc-by-4.0"),
    )
)
_CANONICAL = re.compile(
    rf"`(?P<id>[^`\n]{{1,100}})`(?:, see \[[^\[\]\n]{{0,100}}\]\((?P<url>{_URL})\))?\.(?: (?P<note>.*))?\Z",
    re.S,
)
_SAYS_ONLY = re.compile(
    r"(?:.{0,120}\b(?:licensed|distributed|released|available) under(?: the)?)?\s*(?:licen[cs]e)?\.?\Z", re.I
)
_IDENTIFIER = re.compile(
    r"(?:LicenseRef-[A-Za-z0-9.-]{1,80}|[A-Za-z0-9+]{1,20}(?:-[A-Za-z0-9.+]{1,20}){1,5})\Z"
)


def read_license(text: str) -> dict[str, Any]:
    """The licence of a summary: its id where it is named, the link to its text, and what else is said."""
    text = text.strip()
    if missing_word(text) is not None:
        return {}
    canonical = _CANONICAL.match(text)
    if canonical:
        return {key: canonical[key] for key in ("id", "url", "note") if canonical[key]}
    result: dict[str, Any] = {}
    first, stop, rest = text.partition(". ")
    words = plain(first)
    found = _license_in(words) or _license_in(plain(text))
    if found:
        result["id"] = found[0]
    elif _IDENTIFIER.match(bare(text.removesuffix("."))):
        return {"id": bare(text.removesuffix("."))}
    url = next((link for link in links(text) if re.match(rf"{_URL}\Z", link)), None)
    if url:
        result["url"] = url
    named = _license_in(words)
    if named and _SAYS_ONLY.match(words.replace(named[1], "", 1).strip()):
        if stop and rest.strip():
            result["note"] = rest.strip()
    else:
        result["note"] = text
    return result


def _license_in(text: str) -> tuple[str, str] | None:
    """The Hub's id of a licence named in the text, and the words that name it."""
    for pattern, found in _LICENSES:
        match = pattern.search(text)
        if match:
            return found.format(**match.groupdict()), match[0]
    return None


# --- runtimes --------------------------------------------------------------------------------------------------

_RUNTIMES: tuple[tuple[re.Pattern[str], RuntimeName], ...] = (
    (re.compile(r"\bvllm\b", re.I), "vllm"),
    (re.compile(r"\btransformers?\b", re.I), "transformers"),
    (re.compile(r"\bonnx\b", re.I), "onnx"),
)
_ONLY_RUNTIME = re.compile(r"(?:hugging ?face )?(?:vllm|transformers?|onnx)(?: runtime)?\Z", re.I)
_DENIAL = re.compile(
    r"\b(?:not|no|isn't|doesn't|cannot|can't|unsupported|without|will be|will follow|planned|upcoming"
    r"|coming|soon|future)\b",
    re.I,
)


def runtimes_in(text: str) -> list[RuntimeName]:
    """The runtimes a text speaks of."""
    return [name for pattern, name in _RUNTIMES if pattern.search(text)]


def denied_runtimes(text: str) -> list[RuntimeName]:
    """The runtimes a text speaks of to say that they do not serve the model, or do not yet."""
    return [name for part in sentences(text) if _DENIAL.search(part) for name in runtimes_in(part)]


@dataclass(frozen=True)
class RuntimeCell:
    """The runtimes a cell names, those it takes back or puts off, words that name none, and what else is said."""

    names: tuple[RuntimeName, ...]
    denied: tuple[tuple[RuntimeName, str], ...]
    unknown: tuple[str, ...]
    rest: str | None


def read_runtimes(text: str) -> RuntimeCell:
    """``Huggingface Transformer & VLLM`` is two runtimes; what denies itself is none."""
    names: list[RuntimeName] = []
    denied: list[tuple[RuntimeName, str]] = []
    unknown: list[str] = []
    rest: list[str] = []
    for number, sentence in enumerate(sentences(text)):
        # A denial in parentheses is about the runtime before it, any other one about the whole sentence.
        refused = bool(_DENIAL.search(re.sub(r"\([^()]*\)", "", sentence)))
        parts = [sentence] if refused else list(_parts(sentence)) if number == 0 else []
        other = [part for part in parts if not _ONLY_RUNTIME.match(part)]
        if other or number:
            rest.append(sentence)
        for part in parts:
            if _DENIAL.search(part):
                denied += [(name, part) for name in runtimes_in(part)]
            else:
                names += runtimes_in(part)
        if not refused:
            unknown += [part for part in other if not runtimes_in(part)]
    kept_back = tuple((name, words) for name, words in denied if name not in names)
    return RuntimeCell(tuple(dict.fromkeys(names)), kept_back, tuple(unknown), " ".join(rest) or None)


def _parts(sentence: str) -> Iterator[str]:
    for part in re.split(r"[,/&;]|\s\+\s|\b(?:and|or)\b", sentence.removesuffix(".")):
        if missing_word(part) is None:
            yield bare(part)


@dataclass(frozen=True)
class Truth:
    """True, False or unknown (None); `unless` is the other value's condition, when one is stated."""

    value: bool | None
    unless: str | None = None


def read_truth(text: str) -> Truth:
    """``False (True for Large)`` is false unless the model is called Large."""
    match = re.match(
        r"(true|false|yes|no)(?:\s*\((?:true|false|yes|no) for ([^()]{1,100})\))?\Z", bare(text), re.I
    )
    if match is None:
        return Truth(None)
    return Truth(match[1].lower() in ("true", "yes"), match[2].strip() if match[2] else None)


def is_missing_figure(value: object) -> bool:
    """Whether a figure claims nothing."""
    return value is None or value in MISSING_WORDS

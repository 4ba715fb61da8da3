"""Lines of a log, whoever carried it: escapes off, envelopes off, and which process of vLLM said it.

In front of vLLM's own words stand `kubectl`'s pod, a container runtime's stream, compose's service, journald's host,
clocks, and the process's own tag; a JSON envelope may hold it all. Nothing here knows what a line says.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

_ESCAPE = re.compile(
    r"(?:\x1b|\^\[|\\x1b|\\u001b|\\033|\\e|#033|␛)\[[0-9;?]*[A-Za-z]|\[\d{1,3}(?:;\d{1,3})*m"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u2060\ufeff]")
_BLANKS = re.compile(r"[\t\u00a0\u2007\u202f\u2028\u2029]")

_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*"
_SOURCE = re.compile(r"\A(?:\[(pod/\S+)\] |([A-Za-z][\w.-]*) +\| )")
_STREAM = re.compile(rf"\A(?:{_STAMP} )?(?:stdout|stderr) ([FP]) ")
_PROCESS = re.compile(
    r"\((?P<name>[A-Za-z]\w*(?: TP\d+)?)(?: rank=(?P<rank>\d+))?,? pid=(?P<pid>\d+)(?:,[^()]{0,80})?\) ?"
)
_LEVEL = re.compile(
    r"\b(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)(?:: +|(?: \d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?)?"
    r" \[?[\w./-]+(?:\.py)?:\d+\]? ?)"
)
_CLOCK = re.compile(
    rf"\A(?:\[?{_STAMP}\]?[ :|]*|\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]? |\w{{3}} +\d+ \d\d:\d\d:\d\d \S+ \S+?: )"
)
_TORCH_RANK = re.compile(r"\A\[rank(\d+)\]: ?")
_NUMBER_OF_A_LINE = re.compile(r"\A\s*\d{1,7} ?[|:] ?(?=[(\[A-Z])")
_RECORD = re.compile(
    r"(?:\([A-Za-z]\w*(?: TP\d+)?(?: rank=\d+)?,? pid=\d+(?:,[^()]{0,80})?\) ?)+"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d )?"
    r"|\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d "
)
"""Where a message begins: two processes may write to one line, and some hosts keep no line breaks."""
_HEAD = 400
"""How far from its beginning a line's tags may end."""
_FIELDS = ("log", "message", "msg", "MESSAGE", "textPayload", "body", "line")
MAX_LINE = 2**18


@dataclass(frozen=True)
class Process:
    """Who wrote a line."""

    name: str
    """`EngineCore`, `Worker`, `APIServer`; empty where a line has no tag."""
    pid: str | None = None
    ranks: tuple[tuple[str, int], ...] = ()
    """The numbers in the tag: (`TP`, 1), (`PP`, 0), (`DP`, 0); `rank` is that of the world."""

    def number(self, kind: str) -> int | None:
        """The rank of that kind, where the tag has it."""
        return next((n for k, n in self.ranks if k == kind), None)


NOBODY = Process("")


@dataclass(frozen=True)
class LogLine:
    """A line without what carried it."""

    text: str
    """vLLM's words."""
    shown: str
    """The words with the tags of process and level."""
    process: Process
    level: str | None
    source: str
    """The pod, or the service, that kubectl or compose names; empty where none is."""
    is_whole: bool
    """Whether a line break follows: the last line of a text may have been cut."""

    @property
    def is_bare(self) -> bool:
        """Whether nothing says where it is from: it may be the rest of the line before."""
        return self.level is None and self.process is NOBODY


def raw_lines(text: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The pieces between line breaks and carriage returns, each with whether it is whole; a line is read to 256 KiB."""
    partial = ""
    for line in text:
        whole = line.endswith("\n")
        for part in line[:MAX_LINE].rstrip("\r\n").split("\r"):
            found = _STREAM.match(part)
            if found is not None and found[1] == "P" and len(partial) < MAX_LINE:
                partial += part[found.end() :]
                continue
            yield (partial + (part[found.end() :] if found else part) if partial else part), whole
            partial = ""
    if partial:
        yield partial, False


def clean(raw: str, *, is_whole: bool = True) -> list[LogLine]:
    """The line, or the lines that a JSON envelope holds."""
    raw = raw.strip()
    if raw.startswith("{") and raw.endswith("}"):
        told = _enveloped(raw)
        if told is not None:
            level, words = told
            parts = [part for part in words.splitlines() if part.strip()]
            lines = [one for part in parts for one in _lines(part, is_whole=True)]
            return [one if one.level else replace(one, level=level) for one in lines]
    return _lines(raw, is_whole=is_whole)


def _enveloped(raw: str) -> tuple[str | None, str] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    words = next((value[name] for name in _FIELDS if isinstance(value.get(name), str)), None)
    if words is None:
        return None
    level = value.get("levelname") or value.get("level")
    return (level.upper() if isinstance(level, str) else None), words


def _lines(raw: str, *, is_whole: bool) -> list[LogLine]:
    """The messages of a line, one as a rule."""
    text = _NUMBER_OF_A_LINE.sub("", _BLANKS.sub(" ", _CONTROL.sub("", _ESCAPE.sub("", raw))))
    source = ""
    if found := _SOURCE.match(text):
        source = found[1] or found[2]
        text = text[found.end() :]
    if found := _STREAM.match(text):
        text = text[found.end() :]
    starts = [record.start() for record in _RECORD.finditer(text)][1:]
    parts = [text[a:b] for a, b in zip((0, *starts), (*starts, len(text)), strict=True)]
    return [
        _message(part, source, is_whole=is_whole and number == len(parts))
        for number, part in enumerate(parts, start=1)
    ]


def _message(text: str, source: str, *, is_whole: bool) -> LogLine:
    process, level, start, end = NOBODY, None, None, 0
    for tag in _PROCESS.finditer(text, 0, _HEAD):
        process = _process(tag)
        start, end = (tag.start() if start is None else start), tag.end()
    found = _LEVEL.search(text, 0, _HEAD)
    # The level stands behind the process's tag; a word such as ERROR further on is part of the message.
    if found and (process is NOBODY or found.start() <= end + 40):
        level = found["level"]
        start, end = min(found.start(), found.start() if start is None else start), max(end, found.end())
    if start is None:
        while clock := _CLOCK.match(text):
            text = text[clock.end() :]
        start = 0
    words = text[end:].strip()
    if (rank := _TORCH_RANK.match(words)) is not None:
        words = words[rank.end() :]
        if process is NOBODY:
            process = Process("torch", None, (("rank", int(rank[1])),))
    return LogLine(words, text[start:].strip(), process, level, source, is_whole)


def _process(tag: re.Match[str]) -> Process:
    ranks = [
        (kind, int(number))
        for kind, number in re.findall(r"(DP|PP|TP|EP|PCP|DCP)(\d{1,6})(?![A-Za-z0-9])", tag["name"])
    ]
    if tag["rank"]:
        ranks.append(("rank", int(tag["rank"][:6])))
    return Process(re.split(r"[_ ]", tag["name"])[0], tag["pid"], tuple(ranks))


class Window:
    """The lines of a log one by one, each with a look at those that follow."""

    def __init__(self, text: Iterable[str], *, ahead: int) -> None:
        self._rest = raw_lines(text)
        self._ahead = ahead
        self._next: deque[tuple[str, bool]] = deque()

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        while True:
            self._fill(1)
            if not self._next:
                return
            yield self._next.popleft()

    def following(self) -> Iterator[LogLine]:
        """The next lines, cleaned, as many as the window holds; none is consumed."""
        self._fill(self._ahead)
        for raw, whole in tuple(self._next):
            yield from clean(raw, is_whole=whole)

    def _fill(self, count: int) -> None:
        while len(self._next) < count and (one := next(self._rest, None)) is not None:
            self._next.append(one)


def continued(line: LogLine, following: Iterable[LogLine]) -> Iterator[str]:
    """The words of the lines that may continue `line`: of the same process or of none, up to its next message."""
    for other in following:
        if other.source != line.source:
            continue
        if other.is_bare:
            yield other.text
        elif other.process == line.process:
            if other.level is not None:
                return
            yield other.text

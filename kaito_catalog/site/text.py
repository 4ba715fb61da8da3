"""Strangers' words on our pages: whatever they hold, they come out as text, in Markdown and in HTML."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup

# Letters, digits and what no Markdown dialect gives a meaning inside a line. All else becomes a character
# reference, which both a Markdown parser and a browser read as the character and as nothing more.
_PLAIN = re.compile(r"[^A-Za-z0-9 .,/()%@-]")
_LINK = re.compile(
    r"\[(?P<text>[^\[\]\n]{1,300})\]\((?P<target>https?://[^\s()<>\"'\\]{1,1000})\)"
    r"|(?P<bare>https?://[^\s()<>\"'\\`|\[\]{}]{1,1000}[^\s()<>\"'\\`|\[\]{}.,;:!?*_])"
    r"|`(?P<code>[^`\n]{1,300})`"
)
_WEB = re.compile(r"https?://[^\s<>\"'\\]{1,2000}\Z")
# Text that a browser would reorder or hide, and separators that Python-Markdown keeps for itself.
_DROPPED = ("Cc", "Cf", "Cs", "Co", "Cn")


def words(text: str) -> str:
    """`text` on one line, without control and invisible characters."""
    if text.isascii() and text.isprintable():  # nearly every text of a page
        return " ".join(text.split())
    visible = "".join(
        " " if c in "\t\n\r\u2028\u2029" or unicodedata.category(c) == "Zs" else c
        for c in text
        if c in "\t\n\r" or unicodedata.category(c) not in _DROPPED
    )
    return " ".join(visible.split())


def escape(value: object) -> Markup:
    """`value` as text: safe inside a line of Markdown, an HTML element and a quoted attribute."""
    if isinstance(value, Markup):
        return value
    return Markup(_PLAIN.sub(_reference, words(str(value))))  # noqa: S704 - nothing but references is left


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    return character if character.isalnum() else f"&#{ord(character)};"


def link(target: str | None, text: object) -> Markup:
    """A link to a web address, or just the text where `target` is something else."""
    if target is None or not _WEB.match(target):
        return escape(text)
    return Markup('<a href="{}" rel="nofollow noopener">{}</a>').format(escape(target), escape(text))


def prose(text: str | None) -> tuple[Markup, ...]:
    """The paragraphs of a description: web links and `code` are kept, everything else is text."""
    paragraphs = (p for p in re.split(r"\n\s*\n", text or "") if p.strip())
    return tuple(_inline(words(paragraph)) for paragraph in paragraphs)


def line(text: str | None) -> Markup:
    """As `prose`, in one paragraph."""
    return _inline(words(text or ""))


def _inline(text: str) -> Markup:
    parts: list[Markup] = []
    end = 0
    for match in _LINK.finditer(text):
        parts.append(escape_spaced(text[end : match.start()]))
        if match["code"] is not None:
            parts.append(Markup("<code>{}</code>").format(escape(match["code"])))
        else:
            target = match["target"] or match["bare"]
            parts.append(link(target, match["text"] or target))
        end = match.end()
    parts.append(escape_spaced(text[end:]))
    return Markup("").join(parts)


def escape_spaced(text: str) -> Markup:
    """As `escape`, but a space at either end is kept."""
    before = " " if text[:1] == " " else ""
    after = " " if len(text) > 1 and text[-1:] == " " else ""
    return Markup(before) + escape(text) + Markup(after)  # noqa: S704 - spaces


def fenced(code: str, *, indent: str = "", language: str = "yaml") -> Markup:
    """A fenced block that `code` cannot end, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = [f"{fence}{language}", *code.rstrip("\n").split("\n"), fence]
    return Markup("\n".join(indent + text if text else "" for text in lines))  # noqa: S704 - inside its fence

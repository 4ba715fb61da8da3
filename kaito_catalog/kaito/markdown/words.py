"""Words of a Markdown proposal: labels, links, names of models, and what says that nothing is known."""

from __future__ import annotations

import re

from kaito_catalog.formats.proposal import HUB_URL

LINK = re.compile(r"\[(?P<text>[^\[\]\n]{0,300})\]\((?P<url>[^()\s]{1,2000})\)")
_BULLETS = {
    "modeldescription": "description",
    "modelusagestatistics": "usage",
    "modellicense": "license",
    "modellicence": "license",
}
_CODE = re.compile(r"`([^`]*)`\Z")


# --- words -----------------------------------------------------------------------------------------------------


def label(text: str) -> str:
    """A row's or bullet's label reduced to its letters: ``**GPU count**`` is ``gpucount``."""
    return re.sub(r"[^a-z]", "", text.lower())


def bare(text: str) -> str:
    """A text without the code marks around it."""
    inner = _CODE.match(text.strip())
    return inner[1].strip() if inner else text.strip()


def missing_word(text: str) -> str | None:
    """``TBD`` or ``N/A`` when the text says that nothing is known, the empty string when it says nothing."""
    word = bare(text).rstrip(".").upper()
    if word in ("", "-", "–", "NONE"):
        return ""
    return {"TBD": "TBD", "N/A": "N/A", "NA": "N/A"}.get(word)


def plain(text: str) -> str:
    """A text with the words of its links instead of the links."""
    return LINK.sub(lambda link: link["text"], text)


def links(text: str) -> list[str]:
    """The addresses a text links to."""
    return [link["url"] for link in LINK.finditer(text)]


def slug(text: str) -> str:
    """A text as the name of a catalog folder."""
    words = re.sub(r"[^a-z0-9._-]+", "-", plain(text[:2000]).lower())
    return re.sub(r"\.{2,}", ".", words)[:80].strip("-._") or "model"


def repositories(text: str) -> list[str]:
    """``org/model`` of every Hub link, and of every code span that is one."""
    found = [
        match[1] or match[2]
        for match in re.finditer(
            r"https?://huggingface\.co/([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\b)"
            r"|`([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})`",
            text,
            re.ASCII,
        )
    ]
    return list(dict.fromkeys(found))


def address(text: str) -> str:
    """The address in a cell: of a link, in angle brackets, in code marks or bare; else the words themselves."""
    link = LINK.search(text)
    return (link["url"] if link else bare(text)).removeprefix("<").removesuffix(">")


def repo_id(site: str) -> str | None:
    """``org/model`` of an address on the Hub."""
    match = HUB_URL.match(site) if len(site) <= 2000 else None
    return match[1] if match else None


def labelled(text: str) -> tuple[str, str] | None:
    """``**Term**: definition`` in its two parts."""
    before, colon, after = text.partition(":")
    if before.count("**") % 2:  # **Term:** definition
        after = after.lstrip().removeprefix("**")
    term = before.strip().removeprefix("**").removesuffix("**").strip()
    return (term, after.strip()) if colon and term and after.strip() and len(term) <= 200 else None


def bullet(text: str) -> tuple[str, str] | None:
    """``**Model license**: …`` as its field and the words behind the colon."""
    before, colon, after = text.partition(":")
    what = _BULLETS.get(label(before)) if colon and len(before) <= 60 else None
    if what is None:
        return None
    if before.count("**") % 2:
        after = after.lstrip().removeprefix("**")
    return what, after.strip()


def sentences(text: str) -> list[str]:
    """The sentences of a text; a version such as v0.10.1 does not end one."""
    return [part.strip() for part in re.split(r"(?<=[.;!]) ", text) if part.strip()]


# --- names ----------------------------------------------------------------------------------------------------

_PLAIN_WORDS = frozenset(
    """proposal proposals for new add adding support supporting supported of to in the a an and with into onboard
    onboarding model models family series official kaito preset presets list two three inference llm llms vllm
    large language instruct chat""".split()  # noqa: SIM905
)
"""What titles and headings say besides names."""
_SIZE_WORDS = frozenset(("nano", "tiny", "mini", "small", "medium", "large"))


def starts_with(name: str, title: str) -> bool:
    """Whether `name` is `title` with something behind it: Acme-7B-Instruct is Acme-7B."""
    name, title = name.lower(), title.lower()
    return bool(title) and name.startswith(title) and not name[len(title) : len(title) + 1].isalnum()


def dashed(text: str) -> str:
    """A text as names of Kubernetes objects are spelt."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())


def other_name(text: str, mine: str) -> str | None:
    """A name in `text`, when none of the names in it stands in `mine`."""
    words: list[str] = [
        word for word in re.findall(r"[A-Za-z][A-Za-z0-9]*", text[:2000]) if word.lower() not in _PLAIN_WORDS
    ]
    names = [word for word in words if re.search(r"[A-Z0-9]", word) and len(word) > 2]
    known = re.sub(r"[^a-z0-9]", "", mine.lower())
    if not names or any(word.lower() in known for word in words if len(word) > 2):
        return None
    return names[0]


def other_size(text: str, name: str) -> str | None:
    """A size in `text` (medium, 7B) where the model's own name has another one."""
    for pattern in (r"[a-z]+", r"(?<![a-z0-9.])[0-9]{1,4}(?:\.[0-9]{1,3})?b(?![a-z0-9])"):
        said, own = (_sizes(pattern, part) for part in (plain(text), name))
        if said and own and not said & own:
            return min(said)
    return None


def _sizes(pattern: str, text: str) -> set[str]:
    found = (match[0] for match in re.finditer(pattern, text[:2000].lower()))
    return {word for word in found if word in _SIZE_WORDS or word[0].isdigit()}

"""What programs read of the site beside its API: `feed.xml` of changes, `llms.txt`, and a page's description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.quantity import gib
from kaito_catalog.site.claims import tokens
from kaito_catalog.site.model_page import ModelPage, license_name, task, weights_bytes
from kaito_catalog.site.text import words

MOST_ENTRIES = 50
"""Entries of the feed; readers keep older ones themselves."""
# The front matter passes through several tools: a stranger's licence name is no text for any of their templates.
_NO_MARKUP = re.compile(r"[^A-Za-z0-9À-ÿ .,:/()×_-]")
_ATOM = "http://www.w3.org/2005/Atom"
# RFC 4151 wants a name of the DNS; the API group of the catalog's files is one.
_TAG = "tag:catalog.kaito.sh,2025:"


def description(page: ModelPage, catalog: Catalog) -> str:
    """One sentence for search engines and link previews: what the model is, and the smallest machine for it."""
    policy, figures = catalog.shared.policy, page.figures
    size = weights_bytes(page)
    parts = [
        task(page, policy),
        f"{gib(size)} of weights" if size is not None else None,
        license_name(page, policy),
    ]
    told = f"{page.repo_id} with KAITO: {', '.join(part for part in parts if part)}."
    smallest = figures.recommended.smallest if figures.recommended else None
    if smallest and figures.max_model_len:
        told += (
            f" Smallest instance type that fits {tokens(figures.max_model_len)}: "
            f"{smallest.name} ({smallest.gpu_count} × {smallest.gpu})."
        )
    return _NO_MARKUP.sub("", words(told))


def atom(models: Sequence[ModelPage]) -> str:
    """The history of all entries as an Atom feed (RFC 4287), newest first. Addresses are relative to the feed."""
    dated = [
        (event.date, page, event.event)
        for page in models
        for event in page.proposal.history or ()
        if event.done and event.date
    ]
    dated.sort(key=lambda item: (item[0], natural(item[1].repo_id), item[2]), reverse=True)
    ElementTree.register_namespace("", _ATOM)
    feed = ElementTree.Element(f"{{{_ATOM}}}feed")
    _add(feed, "title", "kaito-catalog: changes of the catalog")
    _add(feed, "id", f"{_TAG}feed")
    _add(feed, "updated", _moment(dated[0][0] if dated else "1970-01-01"))
    _add(_add(feed, "author"), "name", "kaito-catalog")
    _add(feed, "link", href="feed.xml", rel="self")
    _add(feed, "link", href="index.html")
    for date, page, event in dated[:MOST_ENTRIES]:
        name = page.entry.name
        entry = _add(feed, "entry")
        _add(entry, "title", words(f"{page.repo_id}: {event}"))
        _add(entry, "id", f"{_TAG}{name}/{date}/{_slug(event)}")
        _add(entry, "updated", _moment(date))
        _add(entry, "link", href=f"models/{name}/")
        _add(entry, "summary", words(f"{event} ({page.proposal.metadata.status})"))
    ElementTree.indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(feed, encoding="unicode") + "\n"


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, f"{{{_ATOM}}}{tag}", attributes)
    element.text = text
    return element


def _moment(date: str) -> str:
    return f"{date}T00:00:00Z"


def _slug(event: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in event.lower())[:80].strip("-")


def llms(models: Sequence[ModelPage], catalog: Catalog) -> str:
    """The site for language models, as https://llmstxt.org has it: what there is, and where it is as data."""
    profile = catalog.shared.policy.default_profile()
    lines = [
        "# kaito-catalog",
        "",
        "> LLM serving presets for KAITO, the Kubernetes AI toolchain operator: which instance type serves a model at "
        f"which context, planned as {profile.name} with vLLM {profile.vllm_version} takes GPU memory.",
        "",
        "Sizes in the JSON files are bytes; null means unknown. A plan is computed, not measured, unless it says so.",
        "",
        "## Data",
        "",
        "- [All models](api/v1/index.json): summary of each, with the smallest instance type by cloud",
        "- [Schema of a model's file](api/v1/api-model.schema.json): what each key means",
        "",
        "## Models",
        "",
    ]
    for page in sorted(models, key=lambda found: natural(found.repo_id)):
        told = description(page, catalog).partition(": ")[2].replace("[", "(").replace("]", ")")
        shown = words(page.repo_id).replace("[", "(").replace("]", ")")
        lines.append(f"- [{shown}](api/v1/models/{page.entry.name}.json): {told}")
    lines += [
        "",
        "## Reference",
        "",
        "- [How memory is planned](memory/index.html)",
        "- [What KAITO does with a proposal](kaito/index.html)",
        "- [Checks](checks/index.html)",
    ]
    return "\n".join(lines) + "\n"

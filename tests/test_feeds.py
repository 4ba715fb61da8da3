"""What the site tells programs: the feed of changes, llms.txt, descriptions of pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from generate_helpers import catalog
from site_helpers import FIGURES, Structure

from kaito_catalog import generate
from kaito_catalog.formats.proposal import HistoryEvent
from kaito_catalog.site import build, feeds, figures
from kaito_catalog.site.model_page import ModelPage

ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(figures, "plan_figures", lambda *_: FIGURES)
    return dict(generate.build(catalog()).files)


def page_with(*history: HistoryEvent) -> ModelPage:
    entry = catalog().entries[0]
    assert entry.proposal is not None
    proposal = entry.proposal.model_copy(update={"history": history})
    return ModelPage(
        entry=replace(entry, proposal=proposal),
        proposal=proposal,
        figures=FIGURES,
        manifests=generate._manifests(proposal, entry.facts, catalog()),
        findings=None,
    )


def event(words: str, date: str | None, *, done: bool = True) -> HistoryEvent:
    return HistoryEvent.model_validate({"event": words, "date": date, "done": done})


def test_the_feed_has_what_was_done_newest_first_and_nothing_that_was_not() -> None:
    page = page_with(
        event("Open proposal PR", "2026-01-02"),
        event("Correct the <disk> & the context", "2026-03-04"),
        event("Publish the image", "2026-05-06", done=False),
        event("Start model integration", None),
    )
    feed = ElementTree.fromstring(feeds.atom([page]))
    entries = feed.findall(f"{ATOM}entry")
    assert [e.findtext(f"{ATOM}title") for e in entries] == [
        f"{page.repo_id}: Correct the <disk> & the context",
        f"{page.repo_id}: Open proposal PR",
    ]
    assert feed.findtext(f"{ATOM}updated") == "2026-03-04T00:00:00Z"
    link = entries[0].find(f"{ATOM}link")
    assert link is not None
    assert link.get("href") == f"models/{page.entry.name}/"
    ids = [e.findtext(f"{ATOM}id") for e in entries]
    assert len(set(ids)) == len(ids)


def test_a_feed_of_nothing_is_still_a_feed() -> None:
    feed = ElementTree.fromstring(feeds.atom([page_with()]))
    assert feed.findall(f"{ATOM}entry") == []
    assert feed.findtext(f"{ATOM}updated") == "1970-01-01T00:00:00Z"


def test_the_feed_ends_after_its_most_entries() -> None:
    days = [event(f"Step {n}", f"2026-01-{n % 28 + 1:02}") for n in range(feeds.MOST_ENTRIES + 5)]
    feed = ElementTree.fromstring(feeds.atom([page_with(*days)]))
    assert len(feed.findall(f"{ATOM}entry")) == feeds.MOST_ENTRIES


def test_every_address_of_llms_txt_is_a_file_of_the_site(files: dict[str, str]) -> None:
    text = files["site-src/llms.txt"]
    assert text.startswith("# kaito-catalog\n\n> ")
    addresses = [line.partition("](")[2].partition(")")[0] for line in text.splitlines() if "](" in line]
    assert "api/v1/models/llama-3.3-70b-instruct.json" in addresses
    for address in addresses:
        if not address.endswith("/index.html"):
            assert f"site-src/{address}" in files


def test_a_description_names_the_model_and_its_smallest_machine(files: dict[str, str]) -> None:
    head = files["site-src/models/llama-3.3-70b-instruct.md"].partition("\n---\n")[0]
    assert 'description: "meta-llama/Llama-3.3-70B-Instruct with KAITO: ' in head
    assert 'source: "catalog/models/llama-3.3-70b-instruct/proposal.yaml"' in head


@pytest.mark.skipif(not build.is_installed(), reason="mkdocs-material is not installed")
def test_pages_say_what_they_are_and_where_to_change_them(tmp_path: Path, files: dict[str, str]) -> None:
    wanted = ("site-src/index.md", "site-src/models/llama-3.3-70b-instruct.md")
    kept = {name: files[name].partition("\n# ")[0] + "\n\nA page.\n" for name in wanted}
    kept["site-src/memory.md"] = '# How memory is planned\n\nA plan says whether vLLM "starts".\n\nMore.\n'
    generate.write(tmp_path / "build", kept)
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        "site_name: kaito-catalog\nsite_description: presets\ntheme: {name: material, font: false}\n"
        "repo_url: https://git.example.org/kaito/catalog\nsite_url: https://catalog.example.org/\n"
    )
    build.build_site(config, tmp_path / "build")
    site = tmp_path / "build/site"

    def told(page: str) -> dict[str | None, str | None]:
        metas = Structure((site / page / "index.html").read_text()).all("meta")
        return {m.get("property") or m.get("name"): m.get("content") for m in metas}

    model = told("models/llama-3.3-70b-instruct")
    assert model["og:title"] == "meta-llama/Llama-3.3-70B-Instruct"
    assert model["og:url"] == "https://catalog.example.org/models/llama-3.3-70b-instruct/"
    assert (model["description"] or "").startswith("meta-llama/Llama-3.3-70B-Instruct with KAITO: ")
    assert told("memory")["description"] == 'A plan says whether vLLM "starts".'
    addresses = {
        a.get("href")
        for a in Structure((site / "models/llama-3.3-70b-instruct/index.html").read_text()).all("a")
    }
    repository = "https://git.example.org/kaito/catalog"
    assert f"{repository}/edit/main/catalog/models/llama-3.3-70b-instruct/proposal.yaml" in addresses
    assert any(a and a.startswith(f"{repository}/issues/new?title=A%20wrong%20figure") for a in addresses)

"""A proposal that is written as Markdown and read again is the same proposal, and its texts stay texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import strategies_markdown
from hypothesis import given, settings
from markdown_helpers import SAMPLE, assert_same, there_and_back, value_of
from markdown_it import MarkdownIt

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown.reader import read_proposals
from kaito_catalog.kaito.markdown.writer import file_name, write_proposal


def prose(text: str) -> str:
    """What a reader sees: the Markdown without its YAML."""
    return re.sub(r"(?ms)^(`{3,})yaml\n.*?^\1$|\A---\n.*?^---$", "", text)


def test_every_entry_of_the_catalog_survives_markdown_with_a_block_of_its_own_for_waivers_alone(
    catalog: Catalog,
) -> None:
    for entry in catalog.entries:
        assert entry.proposal is not None
        assert_same(entry.proposal)
        has_block = "For kaito-catalog" in write_proposal(entry.proposal)
        assert has_block is bool(entry.proposal.waivers), entry.name


def test_the_written_template_has_the_sections_and_rows_of_kaitos() -> None:
    text = write_proposal(Proposal.model_validate(value_of(SAMPLE)))
    headings = [line for line in text.split("\n") if line.startswith("#")]
    assert headings == [
        "# Title", "## Glossary", "## Summary", "## Requirements", "## Runtimes", "## Sample manifests", "# History",
    ]  # fmt: skip
    labels = [line.split("|")[1].strip() for line in text.split("\n") if line.startswith("| ")]
    assert labels == [
        "Field", "---", "Family name", "Type", "Download site", "Version", "Storage size", "GPU count",
        "Total GPU memory", "Per GPU memory", "Options", "---", "Runtime", "Distributed Inference",
        "Custom configurations",
    ]  # fmt: skip


def test_what_was_written_is_read_without_a_remark() -> None:
    proposal = Proposal.model_validate(value_of(SAMPLE))
    assert read_proposals(write_proposal(proposal), path=file_name(proposal)).diagnostics == ()


def test_a_waiver_is_carried_by_a_block_that_can_be_seen() -> None:
    value = {**value_of(SAMPLE), "waivers": {"MEM003": "measured on two H100"}}
    proposal = Proposal.model_validate(value)
    text = write_proposal(proposal)
    assert "kind: ModelProposalOverlay\nwaivers:\n  MEM003: measured on two H100\n" in text
    assert_same(proposal)


def test_runtimes_that_differ_get_a_column_each() -> None:
    value = value_of(SAMPLE)
    value["runtimes"].append({"name": "transformers", "distributedInference": False})
    proposal = Proposal.model_validate(value)
    assert "| Options | vLLM | Hugging Face Transformers |" in write_proposal(proposal)
    assert_same(proposal)


def test_a_null_among_the_options_is_kept() -> None:
    value = value_of(SAMPLE)
    value["runtimes"][0]["config"] = {"enforce-eager": None, "a": {"b": [None]}, "max-model-len": 8192}
    assert there_and_back(Proposal.model_validate(value)).runtimes == Proposal.model_validate(value).runtimes


def test_the_file_is_named_by_its_date_and_model() -> None:
    assert file_name(Proposal.model_validate(value_of(SAMPLE))) == "20250529-acme-7b.md"


@settings(max_examples=300, deadline=None)
@given(strategies_markdown.PROPOSALS)
def test_any_proposal_survives_markdown(value: dict[str, Any]) -> None:
    assert_same(Proposal.model_validate(value))


@settings(max_examples=200, deadline=None)
@given(strategies_markdown.PROPOSALS)
def test_texts_of_strangers_become_no_html_no_odd_link_and_no_hidden_character(value: dict[str, Any]) -> None:
    text = write_proposal(Proposal.model_validate(value))
    assert "<" not in prose(text)
    # Between backticks it is no link, so that a renderer decides.
    assert not re.search(
        r"""(href|src)=["']?\s*javascript:""", MarkdownIt().render(prose(text)), re.IGNORECASE
    )
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", text)


@pytest.mark.parametrize(
    "words", ["[a](javascript:b)", "x `[a](javascript:b)", "`[a](javascript:b)`", "a\n[a](javascript:b)"]
)
def test_a_license_that_is_a_link_to_a_script_is_none_where_it_is_shown(words: str) -> None:
    value = value_of(SAMPLE)
    value["summary"]["license"] = {"id": words}
    shown = MarkdownIt().render(prose(write_proposal(Proposal.model_validate(value))))
    assert "javascript:" in shown
    assert "href=" not in shown.split("Model license")[1].split("\n")[0]


@settings(max_examples=200, deadline=None)
@given(strategies_markdown.TEXTS)
def test_no_text_breaks_out_of_its_cell(words: str) -> None:
    value = value_of(SAMPLE)
    value["requirements"]["familyName"] = words
    value["runtimes"][0]["customConfigurations"] = words
    text = write_proposal(Proposal.model_validate(value))
    rows = [
        line for line in text.split("\n") if line.startswith(("| Family name", "| Custom configurations"))
    ]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3]

"""Hostile Markdown: the reader never raises, takes linear time, and says what it left out."""

from __future__ import annotations

import pytest
import strategies_markdown
from hypothesis import given, settings
from markdown_helpers import MANY, SAMPLE, read

from kaito_catalog.documents import reading, writing
from kaito_catalog.kaito.markdown.codes import IMPORT_CODES
from kaito_catalog.system import files


@settings(max_examples=300, deadline=None)
@given(strategies_markdown.loose(SAMPLE))
def test_no_markdown_makes_the_reader_raise(text: str) -> None:
    assert {d.code for d in read(text).diagnostics} <= set(IMPORT_CODES)


@settings(max_examples=300, deadline=None)
@given(strategies_markdown.damaged(SAMPLE), strategies_markdown.damaged(MANY))
def test_a_damaged_proposal_never_makes_the_reader_raise(one: str, many: str) -> None:
    for text in (one, many):
        result = read(text)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert {d.code for d in result.diagnostics} <= set(IMPORT_CODES)
        assert all(1 <= d.place.line <= len(lines) and d.place.column >= 1 for d in result.diagnostics)
        assert all(files.safe_name(p.name) == p.value["metadata"]["name"] for p in result.proposals)
        assert all(reading.parse(writing.write(p.value), path="").value == p.value for p in result.proposals
                   if strategies_markdown.is_shown(p.value))  # fmt: skip


def test_a_file_over_one_mebibyte_is_refused() -> None:
    assert [d.code for d in read("a" * (2**20 + 1)).diagnostics] == ["IMP002"]


def test_only_so_many_models_are_read_and_that_is_said() -> None:
    cells = "a|" * 40
    result = read(f"## Requirements\n|F|{cells}\n|-|{'-|' * 40}\n|Type|{cells}\n")
    assert len(result.proposals) == 32
    assert "IMP022" in [d.code for d in result.diagnostics]


def test_only_so_many_remarks_are_made_and_that_is_said() -> None:
    result = read("## Runtimes\n" + "# A\n" * 1000)
    assert len(result.diagnostics) == 301
    assert "IMP022" in [d.code for d in result.diagnostics]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- " * 100_000,
        "[" * 500_000,
        "](" * 300_000,
        "| a " * 200_000,
        "`" * 500_000,
        "> " * 300_000,
        "- " * 300_000,
        "# Title\n" + "[a](b" * 100_000,
        "## Summary\n- Model usage statistics: " + " as of 1 may 2025 according to [" * 20_000,
        "## Summary\n- Model license: " + "licensed under the " * 30_000,
        "## Requirements\n| F | N |\n|-|-|\n| Storage size | " + "~ 1" * 200_000 + " |\n",
        "## Requirements\n| F | N |\n|-|-|\n" + "| Type | a |\n" * 20_000,
        "## Runtimes\n| F | N |\n|-|-|\n| Runtime | " + "vLLM. not " * 50_000 + " |\n",
        "# History\n" + "- [x] 01/01/2025: a\n" * 20_000,
    ],
    ids=lambda text: text[:24],
)
def test_hostile_input_takes_linear_time(text: str) -> None:
    # Not timed: what is quadratic in half a megabyte does not end within a test run.
    assert {d.code for d in read(text).diagnostics} <= set(IMPORT_CODES)

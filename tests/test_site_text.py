"""Texts of strangers on a page: whatever they say, they stay texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from site_helpers import Structure

from kaito_catalog.site import text


@pytest.mark.parametrize(
    "said", ["<b>", "a & b", "[x](javascript:y)", "`c`", "{{ x }}", "| a |", "*e*", "~~s~~"]
)
def test_escaped_text_is_read_as_it_was(said: str) -> None:
    read = Structure(str(text.escape(said)))
    assert (read.tags, "".join(read.words)) == ([], said)


@given(st.text())
def test_no_character_of_a_strangers_text_is_markup(said: str) -> None:
    escaped = str(text.escape(said))
    assert not set(escaped) & set("<>\"'`*_[]{}|\\~!\n:+=^$")
    assert "".join(Structure(escaped).words) == text.words(said)


def test_what_is_already_markup_is_left_alone() -> None:
    assert text.escape(Markup("<b>x</b>")) == "<b>x</b>"


def test_invisible_and_reordering_characters_are_dropped() -> None:
    assert text.words("a\u202eb\u200bc\x00d\u2028e") == "abcd e"


def test_a_description_keeps_its_web_links_and_code() -> None:
    assert text.prose("See [the *card*](https://example.org/a_b) or `vllm`.") == (
        Markup(
            'See <a href="https&#58;//example.org/a&#95;b" rel="nofollow noopener">the &#42;card&#42;</a> '
            "or <code>vllm</code>."
        ),
    )


def test_a_bare_address_becomes_a_link_without_the_full_stop() -> None:
    assert Structure(str(text.line("At https://example.org/x."))).all("a") == [
        {"href": "https://example.org/x", "rel": "nofollow noopener"}
    ]


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "data:text/html,x", "//example.org", None, "https://a b"]
)
def test_only_web_addresses_become_links(target: str | None) -> None:
    assert text.link(target, "x") == "x"


def test_a_blank_line_separates_paragraphs() -> None:
    assert text.prose("a\nb\n\n \nc") == ("a b", "c")


def test_code_cannot_end_its_own_block() -> None:
    assert text.fenced("a\n````\nb") == "`````yaml\na\n````\nb\n`````"

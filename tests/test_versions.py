"""Versions of vLLM, as its wheels have them: read and compared as packages are."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version

from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.vllm_bridge.reference import known
from kaito_catalog.vllm_bridge.versions import is_same, newest, parsed, release

NUMBER = st.integers(0, 9_999)
BUILT = st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=3).map(".".join)


@st.composite
def versions(draw: st.DrawFn) -> str:
    """A version in one of the spellings that PEP 440 allows."""
    text = draw(st.sampled_from(["", "v", "V"])) + ".".join(
        map(str, draw(st.lists(NUMBER, min_size=2, max_size=4)))
    )
    for suffix, numbers in (("rc", NUMBER), (".post", NUMBER), (".dev", NUMBER), ("+", BUILT)):
        if draw(st.booleans()):
            text += suffix + str(draw(numbers))
    return text


@given(versions())
@example("0.15.2rc1.dev93+g1234567")
@example("0.13.0+cu129.nv26.01")
@example("0.9.2.dev364+gb432b7a28")
@example("v0.11.0-1")
@example("0.10.1.1")
@example("1!0.25.1")
def test_the_browser_reads_the_release_as_packaging_does(text: str) -> None:
    assert version_tuple(text) == (*Version(text).release, 0, 0)[:3]


@given(versions())
def test_what_packaging_reads_is_a_version(text: str) -> None:
    assert parsed(text) == (Version(text) if len(text) <= 64 else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "9",
        "0.25.1; rm",
        "../0.25.1",
        " 0.25.1",
        "0.25.1\n",
        "0.25.1.2.3",
        "0.25.x",
        "٠.٢٥",
        "0.25.1+" + "a" * 100,
    ],
)
def test_what_is_no_version_is_not_read(text: str) -> None:
    assert parsed(text) is None
    assert known(text) is None
    with pytest.raises(ValueError, match="is not a version of vLLM"):
        release(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("0.25.1", "0.25.1", True),
        ("0.25.1", "v0.25.1", True),
        ("0.25.1+cu129", "0.25.1", True),
        ("0.25", "0.25.0", True),
        ("0.25.1", "0.25.1rc1", False),
        ("0.25.1", "0.25.1.post1", False),
        ("0.25.1", "0.25.10", False),
        ("latest", "latest", False),
    ],
)
def test_builds_of_one_version_are_the_same(one: str, other: str, expected: bool) -> None:
    assert is_same(one, other) is expected
    assert is_same(other, one) is expected


def test_a_candidate_belongs_to_its_release() -> None:
    assert release("0.17.0rc2.dev3+g1234567") == Version("0.17.0")


def test_the_newest_is_not_the_one_that_comes_last_as_text() -> None:
    assert newest(["0.9.2", "0.32.0", "0.32.0rc1", "0.25.1"]) == "0.32.0"


def test_a_build_knows_what_its_version_knows() -> None:
    assert known("0.25.1+cu130") is not None
    assert known("0.25.1+cu130") == known("0.25.1")

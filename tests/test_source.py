"""The YAML reader: plain values, the place of every key, and refusals where they stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_catalog.diagnostics import Place
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import MAX_YAML_BYTES, parse, parse_bytes, read
from kaito_catalog.errors import CatalogError


def problems(text: str) -> list[tuple[str, int, int]]:
    return [(d.code, d.place.line, d.place.column) for d in parse(text, path="f.yaml").problems]


def test_every_key_knows_its_line_and_column() -> None:
    document = parse("a:\n  b: 1\n  c:\n    - d: x\n", path="f.yaml")
    assert document.value == {"a": {"b": 1, "c": [{"d": "x"}]}}
    assert document.place(("a", "c", 0, "d")) == Place("f.yaml", 4, 7, 8)


def test_a_key_that_is_absent_is_placed_at_the_nearest_one_above() -> None:
    document = parse("a:\n  b: 1\n", path="f.yaml")
    assert document.place(("a", "missing", "deeper")) == document.place(("a",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("0755", 755),
        ("0o17", 15),
        ("0x1F", 31),
        ("2025-05-29", "2025-05-29"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("~", None),
        ("", None),
        ("'1'", "1"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_core_without_timestamps(text: str, expected: object) -> None:
    value = parse(f"k: {text}\n", path="f.yaml").value["k"]
    assert value == expected
    assert type(value) is type(expected)


def test_a_duplicate_key_is_refused_where_it_stands_again() -> None:
    assert problems("a: 1\nb: 2\na: 3\n") == [("YML002", 3, 1)]


def test_all_refusals_of_a_file_are_reported_at_once() -> None:
    text = "a: &x 1\nb: *x\nc: {<<: {d: 1}}\ne: !!str 2\na: 3\n"
    assert [code for code, _, _ in problems(text)] == ["YML003", "YML003", "YML004", "YML007", "YML002"]


def test_tabs_are_refused_on_each_line_that_has_one() -> None:
    assert problems("a: 1\n\tb: 2\nc: x\ty\n") == [("YML005", 2, 1), ("YML005", 3, 5)]


def test_a_second_document_is_refused() -> None:
    assert problems("a: 1\n---\nb: 2\n") == [("YML006", 2, 1)]


def test_a_proposal_in_markdown_is_one_finding_that_names_the_importer() -> None:
    (problem,) = parse("---\ntitle: x\n---\n# Title\n- **x**: y: z\n", path="proposal.yaml").problems
    assert problem.code == "YML006"
    assert problem.hint is not None
    assert "kaito-catalog import FILE.md" in problem.hint


def test_an_empty_file_is_refused() -> None:
    assert problems("# only a comment\n") == [("YML001", 1, 1)]


@pytest.mark.parametrize(("text", "opened"), [("a: [1\nb: 2\n", "["), ("a: {b: 1\nc: 2\n", "{")])
def test_a_bracket_that_is_not_closed_is_named(text: str, opened: str) -> None:
    (problem,) = parse(text, path="f.yaml").problems
    assert problem.hint == f"close what opened with {opened} before this, or put a comma between"


def test_bad_syntax_is_placed_and_says_what_to_do() -> None:
    (problem,) = parse("a: b: c\n", path="f.yaml").problems
    assert (problem.code, problem.place.line, problem.place.column) == ("YML001", 1, 5)
    assert problem.hint == "quote a text that holds ': '; a key stands in the same column as those around it"


def test_an_unclosed_quotation_mark_is_placed_where_it_opens() -> None:
    (problem,) = parse('a: 1\nb: "text\nc: 2\n', path="f.yaml").problems
    assert (problem.code, problem.place.line, problem.place.column) == ("YML001", 2, 4)
    assert problem.hint == "close the quotation mark that opens here"


def test_a_quotation_mark_that_closes_at_a_later_apostrophe_is_placed_where_it_opens() -> None:
    document = parse("a: 'x y\nb: 1\nc: the model's limit\n", path="p.yaml")
    (problem,) = document.problems
    assert (problem.code, problem.place.line, problem.place.column) == ("YML001", 1, 4)
    assert problem.message == "the text in quotes that opens here ends on line 3, and more follows it"


def test_a_complete_text_in_quotes_over_two_lines_is_not_blamed_for_a_later_error() -> None:
    document = parse("a: 'x\n  y'\nb: c: d\n", path="p.yaml")
    (problem,) = document.problems
    assert problem.place.line == 3


def test_a_billion_laughs_is_refused_without_being_expanded() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"k{i}: &b{i} [*a, *a]\n" for i in range(9))
    assert {code for code, _, _ in problems(bomb)} == {"YML003"}


def test_deep_nesting_is_refused() -> None:
    assert [code for code, _, _ in problems("a: " + "[" * 5000 + "]" * 5000)] == ["YML008"]


def test_a_file_over_one_mebibyte_is_refused() -> None:
    assert parse_bytes(b"a" * (MAX_YAML_BYTES + 1), path="f").problems[0].code == "YML008"


def test_bytes_that_are_not_utf8_are_placed() -> None:
    (problem,) = parse_bytes(b"a: 1\nb: \xff\n", path="f").problems
    assert (problem.code, problem.place.line, problem.place.column) == ("YML009", 2, 4)


def test_invisible_characters_are_refused() -> None:
    assert problems("a: x\u202ey\n") == [("YML010", 1, 5)]


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    assert parse("\ufeffa: 1\r\nb: 2\r\n", path="f").value == {"a": 1, "b": 2}


def test_a_number_beyond_double_precision_is_refused() -> None:
    assert problems("a: 1e999\nb: .inf\n") == [("YML011", 1, 4), ("YML011", 2, 4)]


@pytest.mark.parametrize("digits", ["9" * 400, "-" + "1" * 350, "0x" + "f" * 300])
def test_an_integer_that_no_float_holds_is_refused(digits: str) -> None:
    assert problems(f"a: {digits}\n") == [("YML011", 1, 4)]


def test_a_file_that_cannot_be_opened_is_an_error_with_its_name(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(CatalogError, match=r"cannot read .*nothing\.yaml"):
        read(Path(str(tmp_path)) / "nothing.yaml")


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    parse(text, path="f.yaml")


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    parse_bytes(data, path="f.yaml")


_shown = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=30).filter(
    lambda text: (
        not parse(f'k: "{text}"' if '"' not in text and "\\" not in text else "k: 1", path="f").problems
    )
)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | _shown
    | st.sampled_from(
        [
            "no",
            "1e3",
            "0o17",
            "2025-05-29",
            "012",
            "~",
            "null",
            "1:30",
            "=",
            "<<",
            "a: b",
            "# c",
            "- d",
            "line\nline\n",
            "'",
        ]
    )
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b-c", "no", "1", "x.y", "2025-01-01"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "1e5", "yes"]), _values, min_size=1, max_size=4), st.booleans()
)
def test_what_the_writer_writes_is_read_back_the_same(value: dict[str, object], kubernetes: bool) -> None:
    document = parse(writing.write(value, kubernetes=kubernetes), path="f.yaml")
    assert document.problems == ()
    assert document.value == value

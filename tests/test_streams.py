"""Files with several YAML documents, and YAML in a block scalar: every place is that of the file."""

from __future__ import annotations

import pytest

from kaito_catalog.diagnostics import Place, Route
from kaito_catalog.documents.reading import MAX_YAML_BYTES, Document
from kaito_catalog.documents.streams import MAX_DOCUMENTS, PlacedDocument, parse_all, parse_inside

INNER = ("data", "inference_config.yaml")


def parsed(text: str) -> tuple[Document, ...]:
    return parse_all(text.encode(), path="f.yaml")


def inside(text: str) -> Document:
    (document,) = parsed(text)
    return parse_inside(document, INNER, document.value["data"]["inference_config.yaml"])


def test_each_document_has_the_lines_of_the_file() -> None:
    found = parsed("# head\n---\na: 1\n---  # second\n\nb:\n  c: 2\n...\n")
    assert [d.value for d in found] == [{"a": 1}, {"b": {"c": 2}}]
    assert [found[0].place(("a",)).line, found[1].place(("b", "c")).line] == [3, 7]
    assert found[1].line(7) == "  c: 2"


def test_a_document_on_the_line_of_its_marker_keeps_its_column() -> None:
    assert parsed("a: 1\n--- {b: 2}\n")[1].place(("b",)) == Place("f.yaml", 2, 6, 7)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n---\n# x\n...\n"])
def test_a_file_of_comments_holds_no_document(text: str) -> None:
    assert parsed(text) == ()


def test_windows_line_ends_are_line_ends() -> None:
    assert [d.value for d in parsed("a: 1\r\n---\r\nb: 2\r\n")] == [{"a": 1}, {"b": 2}]


def test_an_error_in_one_document_leaves_the_others() -> None:
    found = parsed("a: 1\n---\nb: [1]]\n---\nc: 3\n")
    assert [d.value for d in (found[0], found[2])] == [{"a": 1}, {"c": 3}]
    assert [(p.code, p.place.line) for p in found[1].problems] == [("YML001", 3)]


def test_a_marker_in_a_literal_block_is_indented_and_none() -> None:
    (found,) = parsed("a: |\n  ---\n  x\nb: 1\n")
    assert found.value == {"a": "---\nx\n", "b": 1}


def test_what_one_document_may_not_hold_none_of_them_may() -> None:
    found = parsed("a: &x 1\n---\nb: !!python/object:os.system 1\n---\nc: 1\nc: 2\n")
    assert [p.code for d in found for p in d.problems] == ["YML003", "YML007", "YML002"]


def test_more_documents_than_a_file_may_hold_are_refused_at_the_first() -> None:
    found = parsed("---\na: 1\n" * (MAX_DOCUMENTS + 5))
    assert len(found) == MAX_DOCUMENTS + 1
    assert (found[-1].problems[0].code, found[-1].problems[0].place.line) == ("YML006", 2 * MAX_DOCUMENTS + 1)


def test_a_large_file_is_one_refused_document() -> None:
    assert [p.code for d in parse_all(b"a" * (MAX_YAML_BYTES + 1), path="f") for p in d.problems] == [
        "YML008"
    ]
    assert [p.code for d in parse_all(b"\xff", path="f") for p in d.problems] == ["YML009"]


LITERAL = """\
data:
  inference_config.yaml: |{}
    # a comment

    vllm:
      max-model-len: 4096
"""


@pytest.mark.parametrize("header", ["", "-", "+", "  # why"])
def test_a_key_in_a_literal_block_has_its_place_in_the_file(header: str) -> None:
    found = inside(LITERAL.format(header))
    assert found.place(("vllm", "max-model-len")) == Place("f.yaml", 6, 7, 20)
    assert found.line(6) == "      max-model-len: 4096"


def test_a_literal_block_that_tells_its_indentation_keeps_what_is_beyond() -> None:
    found = inside("data:\n  inference_config.yaml: |2\n      vllm:\n        a: 1\n")
    assert found.place(("vllm", "a")) == Place("f.yaml", 4, 9, 10)


def test_a_syntax_error_in_a_literal_block_stands_where_it_is() -> None:
    found = inside(LITERAL.format("").replace("4096", "4096: x"))
    assert [(p.code, p.place.line) for p in found.problems] == [("YML001", 6)]


@pytest.mark.parametrize(
    "written", ['"vllm:\\n  a: 1"', "'{vllm: {a: 1}}'", ">-\n    vllm:\n      a: 1", "{vllm: {a: 1}}"]
)
def test_in_a_text_of_another_style_every_place_is_where_it_begins(written: str) -> None:
    (document,) = parsed(f"data:\n  inference_config.yaml: {written}\n")
    text = document.value["data"]["inference_config.yaml"]
    if isinstance(text, str):
        found = parse_inside(document, INNER, text)
        assert found.place(("vllm",)).line == 2
        assert found.place(("vllm",)).column == 26


def test_a_document_made_of_others_points_into_them() -> None:
    places: dict[Route, Place] = {(): Place("a.yaml", 1, 1), ("b",): Place("b.yaml", 7, 3, 9)}
    found = PlacedDocument.of({"b": {"c": 1}}, places, "a.yaml")
    assert found.place(("b", "c")) == Place("b.yaml", 7, 3, 9)
    assert found.place(("x",)) == Place("a.yaml", 1, 1)
    assert ("b",) in found.spans

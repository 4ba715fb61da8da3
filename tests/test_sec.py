"""SEC beyond its documented examples: what is unknown is skipped, and how bad it is depends on who asked for it."""

from __future__ import annotations

from pathlib import Path

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.checks import example, sec
from kaito_catalog.checks.base import Check, Context, Finding, Skip, Subject
from kaito_catalog.diagnostics import Severity
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal

_TRUSTS = "runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 1}, trustRemoteCode: true}]\n"
_BARE = "facts: {remoteCode: {files: [{path: modeling_example.py}]}}\n"


def outcomes(check: Check, context: Context, fragment: str) -> list[Finding | Skip]:
    document, facts_document = example.documents(fragment)
    proposal, problems = load(document, Proposal)
    assert facts_document is not None
    facts, more = load(facts_document, ModelFacts)
    assert (problems, more) == ((), ())
    name = "example-7b-instruct"
    entry = Entry(name, Path(name), document, proposal, facts_document, facts, (), ())
    return list(check.run(Subject.of(entry), context))


def test_code_without_hashes_is_an_error_where_the_proposal_trusts_it(context: Context) -> None:
    (found,) = outcomes(sec.code_has_hashes, context, _BARE + _TRUSTS)
    assert isinstance(found, Finding)
    assert found.severity is Severity.ERROR


def test_and_a_warning_where_only_kaito_does(context: Context) -> None:
    (found,) = outcomes(sec.code_has_hashes, context, _BARE)
    assert isinstance(found, Finding)
    assert found.severity is Severity.WARNING


def test_transcribed_facts_do_not_say_whether_there_is_code(context: Context) -> None:
    for check in (sec.code_of_others_is_pinned, sec.code_has_hashes):
        found = outcomes(check, context, "facts: {source: {kind: transcribed}}")
        assert [type(outcome) for outcome in found] == [Skip]


def test_facts_without_a_list_of_files_are_skipped(context: Context) -> None:
    for check in (sec.safe_names, sec.weights_have_hashes):
        found = outcomes(check, context, "facts: {files: null}")
        assert [type(outcome) for outcome in found] == [Skip]


def test_code_of_another_repository_passes_with_a_pin(context: Context) -> None:
    fragment = (
        "facts: {remoteCode: {files: [], autoMap: {AutoModel: [null, org/code--m.C]}}}\n"
        "runtimes: [{name: vllm, distributedInference: false, config: "
        "{max-model-len: 16384, code-revision: 0123456789abcdef0123456789abcdef01234567}}]\n"
    )
    assert outcomes(sec.code_of_others_is_pinned, context, fragment) == []
    (found,) = outcomes(
        sec.code_of_others_is_pinned, context, fragment.replace("0123456789abcdef0123", "main", 1)
    )
    assert isinstance(found, Finding)
    assert "auto_map loads code from org/code" in found.message


def test_each_unsafe_name_is_a_finding_at_its_file_and_printable(context: Context) -> None:
    fragment = 'facts: {files: [{path: ok.txt}, {path: "a\\u001b[2J"}, {path: ../up}]}\n'
    found = outcomes(sec.safe_names, context, fragment)
    assert [outcome.route for outcome in found if isinstance(outcome, Finding)] == [
        ("files", 1, "path"),
        ("files", 2, "path"),
    ]
    assert all(isinstance(outcome, Finding) and outcome.message.isprintable() for outcome in found)


def test_small_files_need_no_hash(context: Context) -> None:
    assert (
        outcomes(sec.weights_have_hashes, context, "facts: {files: [{path: config.json, sizeBytes: 3}]}")
        == []
    )

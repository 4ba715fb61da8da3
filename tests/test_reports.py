"""Report formats: what a person, a program and GitHub see of the same findings."""

from __future__ import annotations

import io
import json

import pytest

from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import EntryReport, Report
from kaito_catalog.checks.registry import FAMILIES, RULES
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, Skipped
from kaito_catalog.documents.reading import parse
from kaito_catalog.kaito.markdown.codes import IMPORT_CODES
from kaito_catalog.reports.explain import explain_text, list_text
from kaito_catalog.reports.github import github
from kaito_catalog.reports.json import json_report
from kaito_catalog.reports.style import wants_color
from kaito_catalog.reports.text import text

PATH = "catalog/models/phi-4/proposal.yaml"
SOURCE = parse("requirements:\n  storageSize: 140GB\n  gpuCount: 1\n", path=PATH)
FINDING = Diagnostic(
    "STO001",
    Severity.ERROR,
    "140GB is less than 141.1 GB",
    Place(PATH, 2, 3, 14),
    "storageSize: 145GB or more",
)
SKIP = Skipped("LIC001", "phi-4", "there is no facts.yaml", Place(PATH), "add it")


def report(*diagnostics: Diagnostic, skips: tuple[Skipped, ...] = ()) -> Report:
    return Report((EntryReport("phi-4", PATH, True, diagnostics, skips, {}, "public-mcr"),))


def test_text_shows_place_message_line_and_hint() -> None:
    expected = f"""\
{PATH}:2:3: error[STO001] 140GB is less than 141.1 GB
  2 |   storageSize: 140GB
    |   ^^^^^^^^^^^
  hint: storageSize: 145GB or more

failed: 1 model: 1 error, 0 warnings
no claim was looked at
"""
    assert text(report(FINDING), {PATH: SOURCE}) == expected


def test_text_groups_skips_by_reason() -> None:
    assert "skipped[LIC001] there is no facts.yaml: phi-4" in text(report(skips=(SKIP,)), {})


def test_verbose_text_gives_each_skip_its_place() -> None:
    assert f"{PATH}:1:1: skipped[LIC001]" in text(report(skips=(SKIP,)), {}, verbose=True)


def test_a_long_line_is_cut_around_the_place() -> None:
    source = parse("a: " + "x" * 500 + "\n", path=PATH)
    far = Diagnostic("YML001", Severity.ERROR, "here", Place(PATH, 1, 300, 301))
    lines = text(report(far), {PATH: source}).splitlines()
    assert len(lines[1]) < 130
    assert lines[2].rstrip().endswith("^")


def test_control_characters_of_a_proposal_do_not_reach_the_terminal() -> None:
    evil = Diagnostic("DOC003", Severity.ERROR, "bad \x1b[2J name", Place(PATH))
    assert "\x1b" not in text(report(evil), {PATH: parse('a: "\\e[2J"\n', path=PATH)})


def test_colors_are_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_json_is_versioned_and_complete() -> None:
    value = json.loads(json_report(report(FINDING, skips=(SKIP,))))
    assert value["version"] == 1
    assert value["ok"] is False
    assert value["models"][0]["findings"][0] == {
        "code": "STO001",
        "severity": "error",
        "message": "140GB is less than 141.1 GB",
        "hint": "storageSize: 145GB or more",
        "waived": None,
        "path": PATH,
        "line": 2,
        "column": 3,
    }
    assert value["models"][0]["skipped"][0]["reason"] == "there is no facts.yaml"


def test_github_annotations_cannot_be_broken_out_of() -> None:
    evil = Diagnostic("DOC003", Severity.ERROR, "x\n::error::50%", Place("a:b,c\n.yaml", 3, 4))
    first = github(report(evil)).splitlines()[0]
    assert first == "::error file=a%3Ab%2Cc%0A.yaml,line=3,col=4,title=DOC003::x%0A::error::50%25"


def test_github_shows_at_most_ten_of_a_kind_and_says_how_many_more() -> None:
    lines = github(report(*[FINDING] * 14)).splitlines()
    assert sum(line.startswith("::error") for line in lines) == 10
    assert "and 5 more" in lines[9]
    assert "STO001 × 5" in lines[9]


def test_a_waived_finding_is_shown_with_its_reason_and_does_not_fail() -> None:
    waived = report(FINDING.accept("the disk is shared"))
    assert not waived.failed
    assert "waived: the disk is shared" in text(waived, {})
    assert "::error" not in github(waived)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_explain_shows_both_examples(rule: object, context: Context) -> None:
    from kaito_catalog.checks.base import Rule

    assert isinstance(rule, Rule)
    shown = explain_text(rule)
    assert rule.title in shown
    assert "Fails:" in shown
    assert "Passes:" in shown


def test_explain_without_a_code_lists_every_code() -> None:
    shown = list_text(RULES, FAMILIES, IMPORT_CODES)
    assert [r.code for r in RULES if r.code not in shown] == []
    assert [code for code in IMPORT_CODES if code not in shown] == []

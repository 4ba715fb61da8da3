"""The recorded facts against the Hub now: each drift has its code, and its example in the documentation is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.checks import example
from kaito_catalog.checks.base import Context, Rule
from kaito_catalog.checks.engine import check_catalog
from kaito_catalog.checks.hub import HUB_RULES
from kaito_catalog.checks.online import online_report
from kaito_catalog.checks.registry import selected
from kaito_catalog.cli import main
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.fake.files import json_file, lfs_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import FakeRepository, repository
from kaito_catalog.hub.fake.server import FakeHub, Fault

REPO = "example-org/Example-7B-Instruct"


def model(**settings: object) -> FakeRepository:
    files = {
        "config.json": json_file({"architectures": ["LlamaForCausalLM"], "hidden_size": 64}),
        "LICENSE": text_file("the terms\n"),
        "README.md": text_file("# Example\n"),
        "model.safetensors": safetensors_file({"BF16": 5000}),
    }
    return repository(REPO, files, commit=example.REVISION, **settings)


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub([model()]) as found:
        yield found


def recorded_value(server: FakeHub) -> dict[str, Any]:
    with Hub(endpoint=server.endpoint, token="hf_reader") as hub:
        return facts_of(hub.snapshot(REPO, example.REVISION), kind="hub", recorded_at=date(2026, 1, 5)).value


def entry_of(facts_value: dict[str, Any] | None, proposal_change: dict[str, Any] | None = None) -> Entry:
    document, _ = example.documents(writing.write(proposal_change or {}))
    proposal, problems = load(document, Proposal)
    assert problems == ()
    name = "example-7b-instruct"
    if facts_value is None:
        return Entry(name, Path(name), document, proposal, None, None, (), ())
    facts_document = parse(writing.write(facts_value), path="facts.yaml")
    facts, problems = load(facts_document, ModelFacts)
    assert problems == ()
    return Entry(name, Path(name), document, proposal, facts_document, facts, (), ())


def online(
    server: FakeHub, entry: Entry, context: Context, **options: Any
) -> tuple[list[Diagnostic], list[str]]:
    catalog = Catalog(Path(), context.shared, (entry,))
    report = check_catalog(catalog, selected(["YML999"], []), context)
    token = options.pop("token", "hf_reader")
    with Hub(endpoint=server.endpoint, token=token, attempts=2, sleep=lambda _: None) as hub:
        report = online_report(report, catalog, hub, **options)
    return report.diagnostics, [skip.reason for skip in report.skips]


def happen(server: FakeHub, since: dict[str, Any]) -> None:
    """What a rule's example says has happened on the Hub since the facts were recorded."""
    found = server.repositories[REPO]
    files = dict(found.commits[example.REVISION])
    for key, value in since.items():
        match key:
            case "gone":
                server.remove(REPO)
                return
            case "movedTo":
                server.put(replace(found, repo_id=value))
                found = replace(found, moved_to=value)
            case "revisionGone":
                found = repository(REPO, files, commit="f" * 40)
            case "gated":
                found = replace(found, gated=value)
            case "license":
                found = replace(found.with_commit(files | {"README.md": text_file("new\n")}), license=value)
            case "reuploaded" | "pushed":
                changed = files | {
                    path: lfs_file(b"other") if path.endswith(".safetensors") else text_file("other\n")
                    for path in value
                }
                found = found.with_commit(changed, commit=example.REVISION if key == "reuploaded" else None)
            case "downloads":
                found = replace(found, downloads=value)
            case "pipelineTag":
                found = replace(found, pipeline_tag=value)
            case _:
                raise AssertionError(f"a rule's example says '{key}', which this test does not know")
    server.put(found)


def _codes_after(text: str, server: FakeHub, context: Context) -> set[str]:
    situation = parse(text, path="example").value
    value = recorded_value(server)
    happen(server, situation["since"])
    found, skips = online(server, entry_of(value, situation.get("proposal")), context)
    assert skips == []
    return {diagnostic.code for diagnostic in found}


@pytest.mark.parametrize("rule", HUB_RULES, ids=lambda rule: rule.code)
def test_a_drift_is_found_in_its_bad_example(rule: Rule, server: FakeHub, context: Context) -> None:
    assert rule.code in _codes_after(rule.fails, server, context)


@pytest.mark.parametrize("rule", HUB_RULES, ids=lambda rule: rule.code)
def test_a_drift_is_not_found_in_its_good_example(rule: Rule, server: FakeHub, context: Context) -> None:
    assert rule.code not in _codes_after(rule.passes, server, context)


def test_without_any_change_one_call_finds_nothing(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    server.requests.clear()
    assert online(server, entry, context) == ([], [])
    assert len(server.requests) == 1


def test_anonymous_401_is_reported_as_gone_or_private_with_what_tells(
    server: FakeHub, context: Context
) -> None:
    entry = entry_of(recorded_value(server))
    server.remove(REPO)
    (found,), _ = online(server, entry, context, token=False)
    assert (found.code, found.severity) == ("HUB001", Severity.ERROR)
    assert "does not exist or is private" in found.message
    assert "HF_TOKEN" in (found.hint or "")


def test_a_gate_that_was_opened_is_only_a_note(server: FakeHub, context: Context) -> None:
    server.put(model(gated="auto"))
    entry = entry_of(recorded_value(server))
    server.put(model())
    (found,), _ = online(server, entry, context)
    assert (found.code, found.severity) == ("HUB004", Severity.NOTE)


def test_another_licence_at_the_pinned_revision_is_an_error(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    server.put(model(license="other"))
    (found,), _ = online(server, entry, context)
    assert (found.code, found.severity) == ("HUB005", Severity.ERROR)


def test_another_text_of_the_licence_at_main_is_a_warning(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    files = dict(server.repositories[REPO].commits[example.REVISION])
    server.put(server.repositories[REPO].with_commit(files | {"LICENSE": text_file("new\n")}))
    found, _ = online(server, entry, context)
    assert [(d.code, d.severity) for d in found if d.code == "HUB005"] == [("HUB005", Severity.WARNING)]


def test_a_finding_stands_at_the_key_it_speaks_of(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    happen(server, {"gated": "manual"})
    (found,), _ = online(server, entry, context)
    assert entry.facts_document is not None
    assert found.place == entry.facts_document.place(("gated",))


def test_a_name_in_another_case_is_a_spelling(server: FakeHub, context: Context) -> None:
    value = recorded_value(server)
    old = REPO.replace("Example", "example")
    server.put(replace(server.repositories[REPO], repo_id=old, moved_to=REPO))
    change = {"requirements": {"downloadSite": f"https://huggingface.co/{old}"}}
    (found,), _ = online(server, entry_of(value, change), context)
    assert found.message == f"the Hub spells {old} {REPO}"


def test_a_waived_drift_keeps_its_reason(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server), {"waivers": {"HUB007": "waiting for KAITO 0.13"}})
    happen(server, {"pushed": ["model.safetensors"]})
    (found,), _ = online(server, entry, context)
    assert (found.code, found.waived) == ("HUB007", "waiting for KAITO 0.13")


def test_a_hub_that_cannot_be_asked_is_a_skip_and_never_a_pass(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    server.faults.append(Fault("", status=500))
    found, skips = online(server, entry, context)
    assert found == []
    assert skips == [f"{REPO}: at main: the Hub has a problem (500)"]
    strict, _ = online(server, entry, context, require_all=True)
    assert [d.severity for d in strict] == [Severity.ERROR]


def test_a_model_without_facts_is_skipped_but_not_when_it_is_gone(server: FakeHub, context: Context) -> None:
    assert online(server, entry_of(None), context) == ([], ["there are no recorded facts to compare with"])
    server.remove(REPO)
    found, _ = online(server, entry_of(None), context)
    assert [d.code for d in found] == ["HUB001"]


def test_codes_that_are_ignored_are_not_reported(server: FakeHub, context: Context) -> None:
    entry = entry_of(recorded_value(server))
    happen(server, {"gated": "manual"})
    assert online(server, entry, context, ignore=["HUB004"])[0] == []
    assert online(server, entry, context, select=["HUB001"])[0] == []


def test_check_online_on_the_command_line(
    server: FakeHub,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "example-7b-instruct"
    folder.mkdir()
    value = recorded_value(server)
    (folder / "facts.yaml").write_text(writing.write(value))
    (folder / "proposal.yaml").write_text(writing.write(dict(example.documents("{}")[0].value)))
    happen(server, {"gated": "manual"})
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    arguments = [
        "check",
        str(folder),
        "--select",
        "HUB",
        "--format",
        "json",
        "--catalog",
        str(root / "catalog"),
    ]
    assert main([*arguments, "--online"]) == 1
    out, err = capsys.readouterr()
    assert [finding["code"] for finding in json.loads(out)["models"][0]["findings"]] == ["HUB004"]
    assert "1 call to the Hub" in err
    assert main(arguments) == 2, "without --online no check is left"

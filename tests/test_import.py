"""Markdown proposals: everything a proposal says is read, everything it lacks is reported, nothing is invented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kaito_catalog.catalog import Catalog
from kaito_catalog.diagnostics import Severity
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown_reader import IMPORT_CODES, ImportResult, read_proposals
from kaito_catalog.kaito.markdown_writer import file_name, proposal_value, write_proposal

COMMIT = "0123456789abcdef0123456789abcdef01234567"

SAMPLE = f"""\
---
title: Proposal for new model support
authors:
  - "@someone"
reviewers:
  - "Reviewer"
creation-date: 2025-05-29
last-updated: 2025-05-30
status: provisional
---

# Title

Add [acme/Acme-7B](https://huggingface.co/acme/Acme-7B) to the list

## Glossary

- **MoE**: mixture of experts

## Summary

- **Model description**: A model for trying things.
- **Model usage statistics**: 1,000 downloads as of 2025-05-29, according to [Hugging Face](https://huggingface.co/acme/Acme-7B).
- **Model license**: The model is licensed under the [Apache 2.0](https://example.org/LICENSE). Mind the notice.

Sample YAML:

```yaml
apiVersion: kaito.sh/v1beta1
kind: Workspace
resource:
  instanceType: Standard_NC24ads_A100_v4
inference:
  preset:
    name: acme/Acme-7B
    presetOptions:
      modelAccessSecret: token
  config: params
```

```yaml
kind: ConfigMap
metadata:
  name: params
data:
  inference_config.yaml: |
    vllm:
      max-model-len: 8192
```

## Requirements

| Field            | Notes                                          |
| ---------------- | ---------------------------------------------- |
| Family name      | Acme                                           |
| Type             | `text-generation`                              |
| Download site    | https://huggingface.co/acme/Acme-7B            |
| Version          | [0123456](https://huggingface.co/acme/Acme-7B/commit/{COMMIT}) |
| Storage size     | ~16GB                                          |
| GPU count        | 2+                                             |
| Total GPU memory | 160GB (for 8k)                                 |
| Per GPU memory   | 80 GB                                          |

## Runtimes

| Options               | Notes |
| --------------------- | ----- |
| Runtime               | vLLM  |
| Distributed Inference | True  |
| Custom configurations | none worth a word |

# History

- [x] 2025-05-29: Open proposal PR.
- [ ] 06/05/2025: Complete model support.
"""


def read(text: str, path: str = "20250529-acme.md") -> ImportResult:
    return read_proposals(text, path=path)


def value_of(text: str) -> dict[str, Any]:
    (proposal,) = read(text).proposals
    return proposal.value


def codes(text: str, path: str = "20250529-acme.md") -> list[str]:
    return [d.code for d in read(text, path).diagnostics]


def place(text: str, code: str) -> tuple[int, int]:
    found = next(d for d in read(text).diagnostics if d.code == code)
    return found.place.line, found.place.column


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.split("\n"), 1) if part in line)


def test_everything_in_the_template_is_read() -> None:
    assert value_of(SAMPLE) == {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelProposal",
        "metadata": {
            "name": "acme-7b",
            "title": "Proposal for new model support",
            "heading": "Add [acme/Acme-7B](https://huggingface.co/acme/Acme-7B) to the list",
            "authors": ["@someone"],
            "reviewers": ["Reviewer"],
            "creationDate": "2025-05-29",
            "lastUpdated": "2025-05-30",
            "status": "provisional",
        },
        "glossary": {"MoE": "mixture of experts"},
        "summary": {
            "description": "A model for trying things.",
            "usage": {
                "statistics": "1,000 downloads",
                "asOf": "2025-05-29",
                "source": "https://huggingface.co/acme/Acme-7B",
            },
            "license": {"id": "apache-2.0", "url": "https://example.org/LICENSE", "note": "Mind the notice."},
        },
        "requirements": {
            "familyName": "Acme",
            "type": "text-generation",
            "downloadSite": "https://huggingface.co/acme/Acme-7B",
            "version": COMMIT,
            "storageSize": "16GB",
            "gpuCount": 2,
            "totalGPUMemory": "160GB",
            "perGPUMemory": "80 GB",
            "contextLength": 8192,
            "notes": {"storageSize": "~", "totalGPUMemory": "for 8k", "gpuCount": "2+"},
        },
        "runtimes": [
            {
                "name": "vllm",
                "distributedInference": True,
                "customConfigurations": "none worth a word",
                "config": {"max-model-len": 8192},
                "trustRemoteCode": False,
            }
        ],
        "deployment": {
            "instanceType": "Standard_NC24ads_A100_v4",
            "modelAccessSecret": "token",
            "configMap": "params",
        },
        "history": [
            {"event": "Open proposal PR", "date": "2025-05-29", "done": True},
            {"event": "Complete model support", "date": "2025-06-05", "done": False},
        ],
        "waivers": {},
    }


def test_the_order_of_the_keys_is_that_of_the_design() -> None:
    assert list(value_of(SAMPLE)) == [
        "apiVersion", "kind", "metadata", "glossary", "summary", "requirements", "runtimes", "deployment", "history",
        "waivers",
    ]  # fmt: skip


def test_an_abbreviated_revision_is_completed_from_its_link_and_that_is_said() -> None:
    assert place(SAMPLE, "IMP004") == (line_of(SAMPLE, "| Version"), 23)


@pytest.mark.parametrize(
    ("old", "new", "code", "part"),
    [
        (f"[0123456](https://huggingface.co/acme/Acme-7B/commit/{COMMIT})", "TBD", "IMP003", "| Version"),
        ("status: provisional", "status: deprecated", "IMP006", "status: deprecated"),
        ("title: Proposal for new", "title: Proposal for Mistral", "IMP007", "title: Proposal for Mistral"),
        ("/acme/Acme-7B) to the list", "/acme/Acme-70B) to the list", "IMP008", "to the list"),
        ("resource:\n  instanceType: Standard_NC24ads_A100_v4\n", "spec: {}\n", "IMP009", "spec: {}"),
        ("    name: acme/Acme-7B\n", "    nom: acme/Acme-7B\n", "IMP009", "kind: Workspace"),
        ("160GB (for 8k)", "320GB", "IMP010", "| Total GPU memory"),
        ("160GB (for 8k)", "40GB", "IMP010", "| Total GPU memory"),
        ("| Storage size     | ~16GB ", "| Storage size     | TBD ", "IMP011", "| Storage size"),
        ("06/05/2025", "xx/xx/2025", "IMP012", "xx/xx/2025"),
        ("06/05/2025", "13/05/2025", "IMP012", "13/05/2025"),
        ("06/05/2025", "31/31/2025", "IMP012", "31/31/2025"),
        ("creation-date: 2025-05-29", "creation-date: 2025-02-01", "IMP013", "creation-date"),
        ("| vLLM  |", "| Ollama |", "IMP014", "Ollama"),
        ("| vLLM  |", "| Hugging Face Transformers. vLLM will follow. |", "IMP014", "will follow"),
        ("| https://huggingface.co/acme/Acme-7B            |", "| Hugging Face |", "IMP015", "| Download site"),
        ("| 80 GB ", "| plenty ", "IMP016", "plenty"),
        ("Sample YAML:", "Some words that belong nowhere.", "IMP017", "belong nowhere"),
        ("| Family name ", "| Tribe | x |\n| Family name ", "IMP018", "Tribe"),
        ("## Runtimes", "## Musings\n\n## Runtimes", "IMP018", "## Musings"),
        ("kind: ConfigMap", "kind: [ConfigMap", "IMP019", "metadata:\n"),
        ("[Apache 2.0](https://example.org/LICENSE)", "Own Terms", "IMP020", "Own Terms"),
    ],
)  # fmt: skip
def test_what_is_lacking_or_contradictory_is_reported_at_its_line(
    old: str, new: str, code: str, part: str
) -> None:
    text = SAMPLE.replace(old, new)
    assert text != SAMPLE
    found = [d.place.line for d in read(text).diagnostics if d.code == code]
    wanted = line_of(text, part.strip("\n"))
    assert any(abs(line - wanted) <= (2 if code == "IMP019" else 0) for line in found), (found, wanted)


def test_a_month_first_date_that_would_be_the_creation_date_day_first_is_reported() -> None:
    text = SAMPLE.replace("2025-05-29: Open", "03/01/2025: Open").replace(
        "creation-date: 2025-05-29", "creation-date: 2025-01-03"
    )
    assert "IMP012" in codes(text, "20250103-acme.md")
    assert value_of(text)["history"][0]["date"] == "2025-03-01"


def test_a_file_without_a_requirements_table_gives_no_proposal() -> None:
    result = read(SAMPLE.replace("| Family name", "Family name").split("## Requirements")[0])
    assert result.proposals == ()
    assert "IMP002" in [d.code for d in result.diagnostics if d.severity is Severity.ERROR]


def test_a_runtime_that_is_taken_back_below_the_table_is_not_imported() -> None:
    text = SAMPLE.replace("| vLLM  |", "| Transformers, vLLM |").replace(
        "# History", "Note: vLLM is not supported yet.\n\n# History"
    )
    assert [runtime["name"] for runtime in value_of(text)["runtimes"]] == ["transformers"]


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("vLLM", ["vllm"]),
        ("Huggingface Transformer & VLLM", ["transformers", "vllm"]),
        ("HuggingFace Transformers, vLLM", ["transformers", "vllm"]),
        ("Huggingface Transformer / vLLM", ["transformers", "vllm"]),
        ("Huggingface Transformer & onnx", ["transformers", "onnx"]),
    ],
)
def test_a_runtime_cell_is_read_in_every_shape(cell: str, names: list[str]) -> None:
    found = value_of(SAMPLE.replace("| vLLM  |", f"| {cell} |"))["runtimes"]
    assert [runtime["name"] for runtime in found] == names


@pytest.mark.parametrize(
    ("cell", "count", "note"),
    [
        ("1", 1, None),
        ("01 GPU", 1, "GPU"),
        ("1 (minimum)", 1, "minimum"),
        ("8+", 8, "8+"),
        ("~2 GPUs", 2, "~; GPUs"),
    ],
)
def test_a_count_keeps_what_was_said_around_it(cell: str, count: int, note: str | None) -> None:
    found = value_of(SAMPLE.replace("| 2+ ", f"| {cell} "))["requirements"]
    assert (found["gpuCount"], found["notes"].get("gpuCount")) == (count, note)


MANY = """\
---
title: Two models
authors: ["@someone"]
creation-date: 2025-12-05
status: provisional
---
# Title
Add support for the Acme models.
## Summary
- `acme/Acme-7B-Instruct`
- `acme/Acme-70B-Instruct`
## Requirements
| Field | Acme-7B | Acme-70B |
|---|---|---|
| Family name | Acme | Acme |
| Type | `text generation` | `text generation` |
| Download site | Hugging Face | Hugging Face |
| Version | TBD | TBD |
| Storage size | ~16GB | ~140GB |
| GPU count | 1 | 8+ |
## Runtimes
| Options | Notes |
|---|---|
| Runtime | vLLM |
| Distributed Inference | False (True for 70B) |
"""


def test_a_file_with_several_models_gives_one_proposal_each() -> None:
    result = read(MANY, "20251205-acme.md")
    found = [(p.name, p.value["requirements"]["storageSize"]) for p in result.proposals]
    assert found == [("acme-7b-instruct", "16GB"), ("acme-70b-instruct", "140GB")]
    assert [p.value["runtimes"][0]["distributedInference"] for p in result.proposals] == [False, True]
    assert [d.place.line for d in result.diagnostics if d.code == "IMP005"] == [13]


def test_a_missing_figure_stays_missing() -> None:
    value = read(MANY).proposals[0].value
    assert "totalGPUMemory" not in value["requirements"]
    assert "license" not in value["summary"]


# --- there and back ----------------------------------------------------------------------------------


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: found for key, part in value.items() if (found := without_empty(part)) not in ({}, [], None)
        }
    return [without_empty(part) for part in value] if isinstance(value, list) else value


def there_and_back(proposal: Proposal) -> Proposal:
    text = write_proposal(proposal)
    (found,) = read_proposals(text, path=file_name(proposal)).proposals
    return Proposal.model_validate(found.value)


def assert_same(proposal: Proposal) -> None:
    back = there_and_back(proposal)
    assert without_empty(proposal_value(back)) == without_empty(proposal_value(proposal))


def test_every_entry_of_the_catalog_survives_markdown_without_a_block_of_its_own(catalog: Catalog) -> None:
    for entry in catalog.entries:
        assert entry.proposal is not None
        assert_same(entry.proposal)
        assert "For kaito-catalog" not in write_proposal(entry.proposal), entry.name


def _valid(document: dict[str, Any]) -> Proposal | None:
    try:
        return Proposal.model_validate(document)
    except ValidationError:
        return None


@settings(max_examples=300)
@given(strategies.mutated(strategies.BASE))
def test_any_proposal_survives_markdown(document: dict[str, Any]) -> None:
    proposal = _valid(document)
    if proposal is not None:
        assert_same(proposal)


_HOSTILE = st.sampled_from(
    ["|", "`", "```", "<script>x</script>", "\n", "\n\n# Title\n", "---", "[a](javascript:b)",
     "{{x}}", "\\", "~~~", "- [x] ",
     "N/A", "TBD", ": ", "*", "**Model license**: MIT", "&lt;", "\u2028", "kind: ModelProposalOverlay",
     "1. ", ". ", "(", ")", "~", "8+"]
)  # fmt: skip
_TEXT = st.lists(
    st.one_of(
        _HOSTILE, st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"]), max_size=6)
    ),
    max_size=8,
)
_TEXTS = _TEXT.map("".join).filter(bool)


@settings(max_examples=300)
@given(st.data())
def test_hostile_texts_survive_markdown_and_become_no_html(data: st.DataObject) -> None:
    document = json.loads(json.dumps(strategies.BASE))
    document["summary"]["description"] = data.draw(_TEXTS)
    document["summary"]["usage"]["statistics"] = data.draw(_TEXTS)
    document["summary"]["license"] = {"id": data.draw(_TEXTS), "note": data.draw(_TEXTS)}
    document["metadata"]["heading"] = data.draw(_TEXTS)
    document["metadata"]["title"] = data.draw(_TEXTS)
    document["requirements"]["familyName"] = data.draw(_TEXTS)
    document["requirements"]["notes"] = {"gpuCount": data.draw(_TEXTS), "storageSize": data.draw(_TEXTS)}
    document["runtimes"][0]["customConfigurations"] = data.draw(_TEXTS)
    document["history"] = [{"event": data.draw(_TEXTS), "done": True}]
    document["glossary"] = {data.draw(_TEXTS): data.draw(_TEXTS)}
    proposal = Proposal.model_validate(document)
    assert_same(proposal)
    outside = re.sub(r"(?ms)^(`{3,})yaml\n.*?^\1$|\A---\n.*?^---$", "", write_proposal(proposal))
    assert "<" not in outside


@settings(max_examples=300)
@given(st.lists(st.one_of(_HOSTILE, st.sampled_from(SAMPLE.split("\n")), st.text(max_size=10)), max_size=60))
def test_no_markdown_makes_the_reader_raise(parts: list[str]) -> None:
    result = read("\n".join(parts))
    assert {d.code for d in result.diagnostics} <= set(IMPORT_CODES)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_proposal_never_makes_the_reader_raise(data: st.DataObject) -> None:
    lines = SAMPLE.split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = data.draw(st.one_of(_HOSTILE, st.sampled_from(lines), st.text(max_size=20)))
    result = read("\n".join(lines))
    assert {d.code for d in result.diagnostics} <= set(IMPORT_CODES)


# --- KAITO's own files -------------------------------------------------------------------------------


def real_files(kaito_data: Path) -> list[Path]:
    return sorted((kaito_data / "proposals").glob("2*.md"))


def test_the_import_of_kaitos_proposals_is_what_a_person_read(kaito_data: Path) -> None:
    rows = json.loads((kaito_data / "proposals.json").read_text())
    for path in real_files(kaito_data):
        wanted = [row for row in rows if row["file"].endswith("/" + path.name)]
        found = [p.value for p in read_proposals(path.read_text(), path=path.name).proposals]
        assert len(found) == len(wanted), path.name
        for value in found:
            candidates = [
                r
                for r in wanted
                if len(wanted) == 1 or r["model"].lower().endswith("/" + value["metadata"]["name"])
            ]
            (row,) = candidates
            requirements = value["requirements"]
            assert value["metadata"]["creationDate"] == row["creationDate"]
            assert value["metadata"]["status"] == row["status"]
            assert value["metadata"]["title"] == row["title"]
            for key in ("familyName", "type", "downloadSite", "version"):
                assert requirements[key] == row[key], (path.name, key)
            for key in ("storageSize", "totalGPUMemory", "perGPUMemory"):
                if row[key] is not None:
                    assert requirements[key] in row[key], (path.name, key)
            assert str(requirements["gpuCount"]) in row["gpuCount"]
            assert len(value["history"]) == len(row["history"])
            if row["license"]:
                assert value["summary"]["license"]["id"], path.name


def test_every_proposal_of_kaito_survives_markdown(kaito_data: Path) -> None:
    for path in real_files(kaito_data):
        for imported in read_proposals(path.read_text(), path=path.name).proposals:
            value = dict(imported.value)
            if value["metadata"]["status"] == "deprecated":
                value["metadata"] = {**value["metadata"], "status": "withdrawn"}
            assert_same(Proposal.model_validate(value))


def test_what_is_wrong_with_kaitos_proposals_is_reported(kaito_data: Path) -> None:
    wanted = {
        "20240206-phi-2.md": {"IMP006", "IMP007"},
        "20240527-phi3-instruct.md": {"IMP008"},
        "20241212-phi4-instruct.md": {"IMP010", "IMP012"},
        "20250103-qwen2.5-coder.md": {"IMP012"},
        "20250808-gpt-oss-20b.md": {"IMP004", "IMP009", "IMP011", "IMP014"},
        "20251001-gemma-3-27b-instruct.md": {"IMP004", "IMP009", "IMP011"},
        "20251205-mistral-3.md": {"IMP003", "IMP005", "IMP011", "IMP015"},
    }
    for name, expected in wanted.items():
        text = (kaito_data / "proposals" / name).read_text()
        assert {d.code for d in read_proposals(text, path=name).diagnostics} >= expected, name


def test_kaitos_template_itself_is_no_proposal_but_raises_nothing(kaito_data: Path) -> None:
    path = kaito_data / "proposals" / "YYYYMMDD-model-template.md"
    assert read_proposals(path.read_text(), path=path.name).diagnostics

"""What `import` makes of documents beside filled-in proposals: the template, designs, texts with their own headings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run
from markdown_helpers import SAMPLE

from kaito_catalog.diagnostics import Severity
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown.reader import ImportResult, read_proposals
from kaito_catalog.kaito.markdown.writer import write_proposal

FRONT = """---
title: {title}
authors: ["@someone"]
creation-date: 2026-07-22
last-updated: 2026-07-22
status: {status}
---

"""
DESIGN = (
    FRONT.format(title="Weights on every node", status="draft")
    + """# Weights on every node

## Motivation

Nodes download `example-org/Example-7B` again and again.

| Option | Cost |
|---|---|
| cache | disk |

## Alternatives

None.
"""
)
ONBOARDING = (
    FRONT.format(title="Example-9 Onboarding (Small & Large)", status="provisional")
    + """# Example-9 Onboarding

Add the family, `example-org/Example-9-Small` and `example-org/Example-9-Large`; `other-org/Draft-1B` may help.

## Summary

Two models with long context.

- **Example-9-Small** has 9B parameters, ~18.5 GiB of weights.
- **Example-9-Large** has 90B parameters, 180 GB of weights.

## Proposal

### Runtime Configuration

| Concern | Setting | Why |
| --- | --- | --- |
| KV cache | `--kv-cache-dtype=fp8` | room |
| Parser | `tool_call_parser=hermes`, `EXAMPLE_DEBUG=1` | tools |
| Offload | `kaito-kv-cache-cpu-memory-utilization=0` | hybrid cache |

```yaml
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: workspace-example-9-large
resource:
  instanceType: Standard_ND96isr_H100_v5
inference:
  preset:
    name: example-org/Example-9-Large
```
"""
)


def read(text: str) -> ImportResult:
    return read_proposals(text, path="20260722-example.md")


def values(text: str) -> dict[str, dict[str, Any]]:
    return {found.name: found.value for found in read(text).proposals}


TEMPLATE = (
    FRONT.format(title="Proposal", status="provisional|ready to integrate|integrated").replace(
        "2026-07-22", "yyyy-mm-dd"
    )
    + SAMPLE.partition("\n---\n")[2]
)


@pytest.mark.parametrize(
    ("text", "message", "severity"),
    [
        (DESIGN, "a design document", Severity.NOTE),
        (TEMPLATE, "the template itself", Severity.NOTE),
        ("# Hello\n\nworld\n", "neither front matter nor a requirements table", Severity.ERROR),
        ("", "neither front matter nor a requirements table", Severity.ERROR),
    ],
    ids=["design", "template", "readme", "empty"],
)
def test_what_is_no_models_proposal_is_one_remark_and_no_entry(
    text: str, message: str, severity: Severity
) -> None:
    found = read(text)
    assert found.proposals == ()
    assert [(d.code, d.severity) for d in found.diagnostics] == [("IMP023", severity)]
    assert message in found.diagnostics[0].message


def test_a_document_with_headings_of_its_own_gives_each_model_that_its_title_names() -> None:
    found = values(ONBOARDING)
    assert sorted(found) == ["example-9-large", "example-9-small"]
    small, large = found["example-9-small"], found["example-9-large"]
    assert small["requirements"] == {
        "familyName": "Example-9",
        "downloadSite": "https://huggingface.co/example-org/Example-9-Small",
        "storageSize": "18.5 GiB",
        "notes": {"storageSize": "~"},
    }
    assert large["requirements"]["storageSize"] == "180 GB"
    for value in (small, large):
        assert value["runtimes"] == [
            {"name": "vllm", "config": {"kv-cache-dtype": "fp8", "tool-call-parser": "hermes"}}
        ]
        assert value["deployment"]["kvCacheCPUMemoryUtilization"] == 0
        assert value["metadata"]["heading"] == "Example-9 Onboarding"
    assert large["deployment"]["instanceType"] == "Standard_ND96isr_H100_v5"
    assert "instanceType" not in small["deployment"]


def test_what_such_a_document_lacks_is_said_and_not_invented() -> None:
    messages = [d.message for d in read(ONBOARDING).diagnostics]
    assert messages.count("there is no row 'GPU count'") == 2
    assert messages.count("there is no row 'Type'") == 2
    assert "left out: 'EXAMPLE_DEBUG=1' is no option of vLLM" in messages
    assert len([m for m in messages if "are not of the template" in m]) == 1


@pytest.mark.parametrize(
    ("word", "status"),
    [("ready to integrate", "provisional"), ("integrated", "implemented"), ("deprecated", "deprecated")],
)
def test_a_status_of_the_template_is_read_and_written_back_as_it_stood(word: str, status: str) -> None:
    text = SAMPLE.replace("status: provisional", f"status: {word}")
    (value,) = values(text).values()
    assert value["metadata"]["status"] == status
    assert "IMP006" not in [d.code for d in read(text).diagnostics]
    assert f"\nstatus: {word}\n" in write_proposal(Proposal.model_validate(value))


def test_the_templates_word_gives_way_where_the_status_was_changed_since() -> None:
    (value,) = values(SAMPLE.replace("status: provisional", "status: ready to integrate")).values()
    value["metadata"]["status"] = "implemented"
    assert "\nstatus: implemented\n" in write_proposal(Proposal.model_validate(value))


def test_a_line_of_the_history_that_is_not_filled_in_is_no_event() -> None:
    text = SAMPLE.partition("# History")[0] + (
        "# History\n\n- [x] 2026-07-22: Open proposal PR.\n- [ ] MM/DD/YYYY: Start model integration.\n"
    )
    (value,) = values(text).values()
    assert [event["event"] for event in value["history"]] == ["Open proposal PR"]
    assert not [d for d in read(text).diagnostics if "MM/DD" in d.message]


@pytest.mark.models("phi-4")
def test_a_folder_of_documents_is_imported_with_one_line_a_design(here: Path, run: Run) -> None:
    (here / "20260722-design.md").write_text(DESIGN)
    (here / "20260722-example.md").write_text(ONBOARDING)
    code, out, _ = run("import", "20260722-design.md", "20260722-example.md", "--into", "mine")
    assert code == 1, "what the models lack to be valid is an error"
    assert [line for line in out.splitlines() if "design.md" in line] == [
        "20260722-design.md:1:1: note[IMP023] this is a design document, not a model's proposal: nothing is read"
    ]
    assert "2 files: 2 proposals" in out

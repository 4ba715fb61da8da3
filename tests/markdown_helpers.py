"""A Markdown proposal in KAITO's template, one of several models, and what tests read of them."""

from __future__ import annotations

from typing import Any

from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown.reader import ImportResult, read_proposals
from kaito_catalog.kaito.markdown.writer import file_name, proposal_value, write_proposal

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


def there_and_back(proposal: Proposal) -> Proposal:
    text = write_proposal(proposal)
    (found,) = read_proposals(text, path=file_name(proposal)).proposals
    return Proposal.model_validate(found.value)


def assert_same(proposal: Proposal) -> None:
    assert proposal_value(there_and_back(proposal)) == proposal_value(proposal)

"""The page that says what another KAITO release or another vLLM changes for each model of the catalog."""

from __future__ import annotations

from collections.abc import Sequence

from kaito_catalog.reports.upgrade import Upgrade, upgrade_text
from kaito_catalog.site.text import escape

_HEAD = """---
title: What an upgrade changes
---

# What an upgrade changes

Every model on the machine that its proposal names, planned and checked as one profile of `policy.yaml` starts it and
then as another. A profile is a KAITO release with the vLLM that it ships, or a newer vLLM as KAITO would start it.
Figures are computed, not measured. For other machines or versions:

```
kaito-catalog diff --profile A..B [--instance-type T]
kaito-catalog diff --vllm-version 0.25.1..0.32.0
```
"""


def page(upgrades: Sequence[Upgrade]) -> str:
    """The page as Markdown."""
    if not upgrades:
        return f"{_HEAD}\nThe policy of this catalog has one profile, so that there is nothing to compare.\n"
    return "\n".join([_HEAD, *(upgrade_text(found, link=_link) for found in upgrades)])


def _link(model: str) -> str:
    return f"[{escape(model)}](models/{model}.md)"

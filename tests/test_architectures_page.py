"""docs/architectures.md says what is planned, and only that."""

from __future__ import annotations

from pathlib import Path

from kaito_catalog.architectures import ARCHITECTURES
from tools import architectures


def test_the_page_is_what_the_tool_writes(root: Path) -> None:
    assert (root / "docs" / "architectures.md").read_text(encoding="utf-8") == architectures.page()


def test_most_of_what_is_planned_from_the_configuration_is_compared_with_vllm() -> None:
    whole, cache = architectures.compared()
    assert len(whole & set(ARCHITECTURES)) >= 125
    assert not whole & cache
    assert all(ARCHITECTURES[name].has_unread_encoder for name in cache)

"""docs/architectures.md says what is planned, and only that."""

from __future__ import annotations

from pathlib import Path

from kaito_catalog.architectures import READERS
from kaito_catalog.architectures.families.omni import WITHOUT_ENCODER
from tools import architectures


def test_the_page_is_what_the_tool_writes(root: Path) -> None:
    assert (root / "docs" / "architectures.md").read_text(encoding="utf-8") == architectures.page()


def test_most_of_what_is_planned_from_the_configuration_is_compared_with_vllm() -> None:
    whole, cache = architectures.compared()
    assert len(whole & set(READERS)) >= 125
    assert not whole & cache
    assert cache <= WITHOUT_ENCODER


def test_what_is_without_an_encoder_has_a_reader() -> None:
    assert set(READERS) >= WITHOUT_ENCODER

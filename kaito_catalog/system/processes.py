"""What a program that is started gets to know: the environment without tokens that are not for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""The variables that huggingface_hub takes a token from."""
_NOT_THE_SAVED_ONE = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
_SECRET = re.compile(r"(?:.*_)?(?:TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY|PRIVATE_KEY)", re.IGNORECASE)


def environment(
    *, hub_token: bool = False, extra: Mapping[str, str] | None = None, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment for a program of others: git, mkdocs, vLLM.

    Args:
        hub_token: whether it asks the Hub in the user's name; else it gets no token, and huggingface_hub in it does
            not send the one that is saved on disk either.
        extra: variables for it alone.
        base: default the environment of this process.
    """
    base = os.environ if base is None else base
    kept = {
        name: value
        for name, value in base.items()
        if not _SECRET.fullmatch(name) or (hub_token and name in (*HUB_TOKENS, _NOT_THE_SAVED_ONE))
    }
    if not hub_token:
        kept[_NOT_THE_SAVED_ONE] = "1"
    return kept | dict(extra or {})

"""Licence ids: what people write, the Hub's id for it, and where images under it may be hosted."""

from __future__ import annotations

from typing import Literal, TypeAlias

from kaito_catalog.formats.policy import LicensePolicy

ImageHosting: TypeAlias = Literal["public-mcr", "user-built"]


def hub_id(claimed: str, policy: LicensePolicy) -> str | None:
    """The Hub's id for a licence as somebody wrote it (SPDX, the Hub's own, a usual spelling), or None."""
    text = " ".join(claimed.lower().split())
    if text in policy.spdx or text in policy.known:
        return text
    if text in policy.aliases:
        return policy.aliases[text]
    return next((hub for hub, spdx in policy.spdx.items() if spdx.lower() == text), None)


def is_reference(claimed: str) -> bool:
    """Whether the id is SPDX's form for a licence outside its list: ``LicenseRef-…``."""
    return claimed.startswith("LicenseRef-") and len(claimed) > len("LicenseRef-")


def image_hosting(claimed: str, policy: LicensePolicy) -> ImageHosting:
    """Who builds the image: KAITO's maintainers in a public registry, or the user.

    KAITO's template allows public images for Apache-2.0 and MIT; an unknown licence never qualifies.
    """
    return "public-mcr" if hub_id(claimed, policy) in policy.public_images else "user-built"

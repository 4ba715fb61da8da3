"""How two records of one repository differ, each difference under the code that `explain` documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.hub.kept_config import Json
from kaito_catalog.hub.repository import printable


class HubChange(Enum):
    """The name of a difference, as messages have it; HUB codes document them."""

    GONE = "gone"
    MOVED = "moved"
    REVISION_GONE = "revision gone"
    GATED = "gated"
    RELICENSED = "re-licensed"
    REUPLOADED = "re-uploaded"
    RETAGGED = "re-tagged"

    @property
    def code(self) -> str:
        """The code that `explain` documents."""
        return _CODES[self]


_CODES = {
    HubChange.GONE: "HUB001",
    HubChange.MOVED: "HUB002",
    HubChange.REVISION_GONE: "HUB003",
    HubChange.GATED: "HUB004",
    HubChange.RELICENSED: "HUB005",
    HubChange.REUPLOADED: "HUB006",
    HubChange.RETAGGED: "HUB010",
}


@dataclass(frozen=True)
class FactDifference:
    """Something recorded that is no longer so: the key in facts.yaml, the recorded and the found value as text."""

    change: HubChange
    field: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.change.code} {self.change.value}: {self.field} was {self.recorded}, is {self.found}"


def differences(recorded: ModelFacts, found: ModelFacts) -> list[FactDifference]:
    """What two records of one revision contradict each other in.

    What only one of them knows is no contradiction; a transcribed figure agrees with what lies within its
    precision; of two configurations the keys that both have are compared.
    """
    result = list(_scalar_differences(recorded, found))
    result.extend(_size_differences(recorded, found))
    result.extend(_file_differences(recorded, found))
    if recorded.safetensors and found.safetensors:
        old, new = recorded.safetensors.parameters_by_dtype, found.safetensors.parameters_by_dtype
        if old != new:
            result.append(FactDifference(HubChange.REUPLOADED, "safetensors", _counts(old), _counts(new)))
    result.extend(_code_differences(recorded, found))
    for key, old_text, new_text in _config_differences(recorded.config or {}, found.config or {}, "config"):
        result.append(FactDifference(HubChange.REUPLOADED, key, old_text, new_text))
    return result


def _scalar_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[FactDifference]:
    if recorded.repo_id != found.repo_id:
        yield FactDifference(HubChange.MOVED, "repoId", recorded.repo_id, found.repo_id)
    if (
        recorded.gated
        and found.gated
        and recorded.gated != found.gated
        and not (recorded.gated == "yes" and found.gated != "no")
    ):
        yield FactDifference(HubChange.GATED, "gated", recorded.gated, found.gated)
    old, new = recorded.license, found.license
    if old is not None and new is not None:
        for key in ("id", "name", "link", "sha256", "text"):
            before, after = getattr(old, key), getattr(new, key)
            if before is not None and after is not None and before != after:
                yield FactDifference(HubChange.RELICENSED, f"license.{key}", short(before), short(after))
    if recorded.pipeline_tag and found.pipeline_tag and recorded.pipeline_tag != found.pipeline_tag:
        yield FactDifference(HubChange.RETAGGED, "pipelineTag", recorded.pipeline_tag, found.pipeline_tag)
    if recorded.base_models and found.base_models and set(recorded.base_models) != set(found.base_models):
        yield FactDifference(
            HubChange.RETAGGED, "baseModels", ", ".join(recorded.base_models), ", ".join(found.base_models)
        )


def _size_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[FactDifference]:
    if not _agree(recorded.repository, found.repository):
        yield FactDifference(
            HubChange.REUPLOADED, "repository.sizeBytes", _size(recorded.repository), _size(found.repository)
        )
    old, new = recorded.weights, found.weights
    if old is None or new is None:
        return
    if old.format != new.format:
        yield FactDifference(HubChange.REUPLOADED, "weights.format", old.format, new.format)
    if not _agree(old.total, new.total):
        yield FactDifference(HubChange.REUPLOADED, "weights.total", _size(old.total), _size(new.total))
    if old.files is not None and new.files is not None and old.files != new.files:
        yield FactDifference(HubChange.REUPLOADED, "weights.files", str(old.files), str(new.files))


def _file_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[FactDifference]:
    if recorded.files is None or found.files is None:
        return
    new = {file.path: file for file in found.files}
    for file in recorded.files:
        other = new.get(file.path)
        route = f"files: {printable(file.path)}"
        if other is None:
            yield FactDifference(HubChange.REUPLOADED, route, "there", "gone")
        elif file.sha256 and other.sha256 and file.sha256 != other.sha256:
            yield FactDifference(
                HubChange.REUPLOADED, route, f"sha256 {short(file.sha256)}", short(other.sha256)
            )
        elif (
            file.size_bytes is not None
            and other.size_bytes is not None
            and file.size_bytes != other.size_bytes
        ):
            yield FactDifference(
                HubChange.REUPLOADED, route, f"{file.size_bytes:,} bytes", f"{other.size_bytes:,} bytes"
            )
    if recorded.source.kind != "transcribed":
        known = {file.path for file in recorded.files}
        for path in sorted(new.keys() - known):
            yield FactDifference(HubChange.REUPLOADED, f"files: {printable(path)}", "absent", "there")


def _code_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[FactDifference]:
    if recorded.remote_code is None or found.remote_code is None:
        return
    new = {file.path: file.sha256 for file in found.remote_code.files}
    for file in recorded.remote_code.files:
        after = new.get(file.path)
        if file.sha256 and after and file.sha256 != after:
            yield FactDifference(
                HubChange.REUPLOADED,
                f"remoteCode: {printable(file.path)}",
                f"sha256 {short(file.sha256)}",
                short(after),
            )
    before_map, after_map = recorded.remote_code.auto_map, found.remote_code.auto_map
    if before_map and after_map:
        for key, old_text, new_text in _config_differences(before_map, after_map, "remoteCode.autoMap"):
            yield FactDifference(HubChange.REUPLOADED, key, old_text, new_text)


def _config_differences(
    recorded: Mapping[str, Json], found: Mapping[str, Json], where: str
) -> Iterator[tuple[str, str, str]]:
    for key, old in recorded.items():
        if key not in found:
            continue
        new = found[key]
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _config_differences(old, new, f"{where}.{key}")
        elif old != new:
            yield f"{where}.{key}", short(json.dumps(old)), short(json.dumps(new))


def _agree(recorded: StoredSize | None, found: StoredSize | None) -> bool:
    if recorded is None or found is None:
        return True
    return recorded.low_bytes <= found.high_bytes and found.low_bytes <= recorded.high_bytes


def _size(size: StoredSize | None) -> str:
    assert size is not None
    around = f" ± {size.precision_bytes:,}" if size.precision_bytes else ""
    return f"{size.size_bytes:,}{around} bytes"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {dtype}" for dtype, count in counts.items())


def short(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40,64}", text):
        return f"{text[:12]}…"
    return text if len(text) <= 80 else f"{text[:79]}…"

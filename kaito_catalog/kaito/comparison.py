"""Our generated files beside KAITO's own: every difference with its reason, and what a maintainer still does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito import model_catalog
from kaito_catalog.kaito.model_catalog import LeftOut
from kaito_catalog.kaito.release import Release, Row

SCORES = "model_catalog_mtbench_scores.md"
"""The table beside KAITO's model_catalog.yaml that its unit test TestCatalogModelsHaveMTBenchScores reads."""
SCORE_COLUMNS = (
    "Model", "Runtime", "Overall", "Writing", "Roleplay", "Reasoning", "Math", "Coding", "Extraction",
    "STEM", "Humanities", "Date",
)  # fmt: skip
MAX_CATALOG_BYTES = 8 * 2**20
_NO_SCORES = f"{SCORES} is not beside the file, so which models have a score is not known"


@dataclass(frozen=True)
class ExplainedDifference:
    """A field in which the files differ, and why; `reason` is None where none is recorded."""

    name: str
    field: str
    ours: Any
    theirs: Any
    reason: str | None


@dataclass(frozen=True)
class Comparison:
    """Two files of KAITO's, ours and theirs."""

    path: str
    compared: int
    """Models in both."""
    differences: tuple[ExplainedDifference, ...]
    only_ours: tuple[str, ...]
    only_theirs: tuple[tuple[str, str], ...]
    """The models that would be lost, each with the reason why we do not write it."""
    unscored: tuple[str, ...] | None = None
    """Models of ours without an MT-bench score; None where the table of scores is not at hand."""

    @property
    def unexplained(self) -> tuple[ExplainedDifference, ...]:
        """The differences without a recorded reason."""
        return tuple(difference for difference in self.differences if difference.reason is None)

    @property
    def can_replace(self) -> bool:
        """Whether ours may take the place of theirs: all explained, and no model lost."""
        return not self.unexplained and not self.only_theirs


def compare(path: Path, rows: Sequence[Row], left_out: Iterable[LeftOut], kaito: Release) -> Comparison:
    """Our rows beside the file of that release at `path`, its model_catalog.yaml or its presets.md.

    Raises:
        CatalogError: the file is neither, or cannot be read.
    """
    text = _read(path)
    reasons = {gap.name: gap.reason for gap in left_out if gap.what == "model_catalog.yaml"}
    if path.suffix.lower() == ".md":
        return _compare(str(path), _table(rows), _preset_rows(text, str(path)), reasons, kaito)
    theirs = model_catalog.read(text, path=str(path))
    beside = path.with_name(SCORES)
    scored = scored_models(_read(beside)) if beside.is_file() else None
    return _compare(str(path), rows, theirs, reasons, kaito, scored)


def _compare(
    path: str,
    ours: Sequence[Row],
    theirs: Mapping[str, Row],
    reasons: Mapping[str, str],
    kaito: Release,
    scored: frozenset[str] | None = None,
) -> Comparison:
    found = model_catalog.compare(ours, theirs)
    names = {name.lower() for name in theirs}
    mine = {str(row["name"]).lower() for row in ours}
    new = tuple(str(row["name"]) for row in ours if str(row["name"]).lower() not in names)
    return Comparison(
        path=path,
        compared=len(ours) - len(new),
        differences=tuple(
            ExplainedDifference(d.name, d.field, d.ours, d.theirs, kaito.reason_for(d.name, d.field))
            for d in found
            if d.name not in new
        ),
        only_ours=new,
        only_theirs=tuple(
            (name, reasons.get(name.rpartition("/")[2].lower(), "the catalog has no such model"))
            for name in theirs
            if name.lower() not in mine
        ),
        unscored=None
        if scored is None
        else tuple(str(row["name"]) for row in ours if str(row["name"]).lower() not in scored),
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CATALOG_BYTES:
            raise CatalogError(f"{path} is larger than {MAX_CATALOG_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise CatalogError(f"cannot read {path}: {error.strerror or error}") from error


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _preset_rows(text: str, path: str) -> dict[str, Row]:
    """The rows of KAITO's presets.md: the table whose head names the model, the description and the license."""
    rows: dict[str, Row] = {}
    inside = False
    for line in text.splitlines():
        cells = _cells(line) if line.lstrip().startswith("|") else []
        if [cell.lower() for cell in cells] == ["model name", "description", "license"]:
            inside = True
        elif not cells:
            inside = False
        elif inside and len(cells) == 3 and not set(cells[0]) <= set("-: "):
            rows[cells[0]] = {"name": cells[0], "description": cells[1], "license": cells[2]}
    if not rows:
        raise CatalogError(
            f"{path} has no table of presets", hint="its head is | Model Name | Description | License |"
        )
    return rows


def _table(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(_preset_rows(model_catalog.write_presets(rows), "our table").values()) if rows else ()


def scored_models(text: str) -> frozenset[str]:
    """The models that KAITO's unit test finds in its table of scores, in lower case.

    It takes every line that starts with a bar but the first and those with dashes in a row, and of them the
    first cell.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    names = (line.split("|")[1].strip().lower() for line in lines[1:] if "---" not in line)
    return frozenset(name for name in names if name)


def to_do(comparison: Comparison) -> tuple[str, ...]:
    """What a maintainer of KAITO still does by hand before the file may replace theirs."""
    result: list[str] = []
    if comparison.unscored is None:
        wanting = comparison.only_ours
        if wanting:
            result.append(_NO_SCORES)
    else:
        wanting = comparison.unscored
    row = f"| {{}} | vllm | <{'> | <'.join(column.lower() for column in SCORE_COLUMNS[2:])}> |"
    result += [
        f"run MT-bench and add a row to presets/workspace/models/{SCORES}: {row.format(name)}"
        for name in wanting
    ]
    result += [f"{name} would be lost: {reason}" for name, reason in comparison.only_theirs]
    result += [
        f"decide on {d.name}, {d.field}: ours {_shown(d.ours)}, KAITO's {_shown(d.theirs)}"
        for d in comparison.unexplained
    ]
    return tuple(result)


def text(comparison: Comparison) -> str:
    """For a person."""
    lines = [f"{comparison.compared} models are in ours and in {comparison.path}"]
    explained = [d for d in comparison.differences if d.reason is not None]
    if not comparison.differences:
        lines.append("no field differs")
    for title, chosen in (
        ("differences on purpose", explained),
        ("differences without a reason", comparison.unexplained),
    ):
        if chosen:
            lines += ["", f"{title}:"]
        for d in chosen:
            lines.append(f"  {d.name}  {d.field}: ours {_shown(d.ours)}, KAITO's {_shown(d.theirs)}")
            if d.reason:
                lines.append(f"    {d.reason}")
    if comparison.only_ours:
        lines += ["", "only ours:", *(f"  {name}" for name in comparison.only_ours)]
    if comparison.only_theirs:
        lines += ["", "only KAITO's:", *(f"  {name}: {why}" for name, why in comparison.only_theirs)]
    tasks = to_do(comparison)
    if tasks:
        lines += ["", "what a maintainer still does:", *(f"  - {task}" for task in tasks)]
    return "\n".join(lines) + "\n"


def value(comparison: Comparison) -> dict[str, Any]:
    """The contract of `generate --compare FILE --format json`."""
    return {
        "version": 1,
        "file": comparison.path,
        "compared": comparison.compared,
        "canReplace": comparison.can_replace,
        "differences": [
            {"model": d.name, "field": d.field, "ours": d.ours, "theirs": d.theirs, "reason": d.reason}
            for d in comparison.differences
        ],
        "onlyOurs": list(comparison.only_ours),
        "onlyTheirs": [{"model": name, "reason": why} for name, why in comparison.only_theirs],
        "unscored": None if comparison.unscored is None else list(comparison.unscored),
        "toDo": list(to_do(comparison)),
    }


def _shown(what: Any) -> str:
    if what is None:
        return "none"
    return ", ".join(map(str, what)) if isinstance(what, list) else str(what)

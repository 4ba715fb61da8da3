"""Reported runs as files of a catalog: validated, named by what ran and by the log, and never replaced."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse, read
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.system import files

_SCHEMA = "# yaml-language-server: $schema=../../../../schema/reported-run.schema.json\n"


def reported_name(run: Mapping[str, Any], number: int) -> str:
    """The file of a reported run: what ran, and which start of which log it is; of its lines where no log was read."""
    version = run.get("versions", {}).get("vllm", "unknown").lower()
    sizes = run.get("parallelism", {})
    parts = [f"vllm-{version}", run.get("gpu", {}).get("name", "")]
    parts += [f"{key}{sizes[name]}" for key, name in _SPLIT if sizes.get(name, 1) != 1]
    slug = re.sub(r"[^a-z0-9.]+", "-", "-".join(part for part in parts if part).lower())[:80].strip("-.")
    digest = run.get("logSha256") or hashlib.sha256("\n".join(run["lines"]).encode()).hexdigest()
    return f"{slug}-reported-{digest[:8]}{f'-{number + 1}' if number else ''}.yaml"


_SPLIT = (("tp", "tensorParallelSize"), ("pp", "pipelineParallelSize"), ("dp", "dataParallelSize"))


def write_reported(folder: Path, run: Mapping[str, Any], number: int) -> tuple[Path, bool]:
    """Write a reported run to the `evidence/` of a model's folder; whether it is new.

    Raises:
        CatalogError: it is not valid, or the same start is there with something else; nothing is written.
    """
    text = writing.write(dict(run))
    _, problems = load(parse(text, path="(the evidence)"), ReportedRun)
    if problems:
        raise CatalogError(f"this is not valid evidence: {problems[0].message}", hint=problems[0].hint)
    path = folder / "evidence" / reported_name(run, number)
    if path.exists():
        there = read(path).value
        same = isinstance(there, dict) and {**there, "recordedAt": run["recordedAt"]} == dict(run)
        if not same:
            raise CatalogError(
                f"this start is in the catalog already, with something else: {path.name}",
                hint="look at both, and remove the one there if this is to take its place",
            )
        return path, False
    files.write_text(path, _SCHEMA + text)
    return path, True

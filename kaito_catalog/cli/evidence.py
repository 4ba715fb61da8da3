"""`evidence from-log`: a log that somebody else has becomes `kind: ReportedRun`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Entry, Shared
from kaito_catalog.catalog.reading import read_entries, read_shared, shown
from kaito_catalog.cli.common import OK, catalog_root, opened, say
from kaito_catalog.documents import writing
from kaito_catalog.errors import CatalogError
from kaito_catalog.vllm_bridge.start_logs import evidence
from kaito_catalog.vllm_bridge.start_logs.reported import reported_runs


def run_from_log(options: argparse.Namespace) -> int:
    """`evidence from-log FILE|-`."""
    root = written_to(options)
    shared = read_shared(root)
    gpu = _gpu(options.gpu, shared)
    source = options.source or (None if options.file == "-" else Path(options.file).name)
    with opened(options.file, newline="\n") as stream:
        runs = reported_runs(
            stream,
            today=datetime.now(UTC).date().isoformat(),
            model=options.model,
            gpu=gpu,
            reported_by=options.by,
            source=source,
        )
    if not runs:
        raise CatalogError(
            "no start of vLLM is in this log",
            hint="vLLM tells its version and arguments first; "
            "'kubectl logs --previous' has the log of a container that was restarted",
        )
    for run in runs:
        _say_what_is_odd(run, gpu, shared)
    if options.into:
        return write_runs(runs, root)
    emit_runs(runs, options.format)
    return OK


def written_to(options: argparse.Namespace) -> Path:
    """The catalog that `--into` names; where runs are only printed, one that knows GPUs and models.

    Raises:
        CatalogError: there is none.
    """
    if options.into:
        options.catalog = options.into
    return catalog_root(
        argparse.Namespace(catalog=getattr(options, "catalog", None)), or_shipped=not options.into
    )


def emit_runs(runs: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print runs, as a YAML document each or as one JSON value."""
    if form == "json":
        sys.stdout.write(json.dumps({"version": 1, "runs": list(runs)}, ensure_ascii=False) + "\n")
        return
    sys.stdout.write("---\n".join(writing.write(dict(run)) for run in runs))


def write_runs(runs: Sequence[Mapping[str, Any]], root: Path) -> int:
    """Write runs to the `evidence/` of the models that they name.

    Raises:
        CatalogError: the catalog has no such model, or another record of the same start; nothing of it is written.
    """
    entries = list(read_entries(root))
    named = [(run, _entry(str(run.get("model") or ""), entries)) for run in runs]
    of_log: Counter[Any] = Counter()
    for run, entry in named:
        # Which start of its log it is: the file's name is the same whatever else is read at the time.
        number = of_log[run.get("logSha256")] if "logSha256" in run else 0
        of_log[run.get("logSha256")] += 1
        path, is_new = evidence.write_reported(entry.folder, {**run, "model": entry.name}, number)
        sys.stdout.write(f"{'wrote' if is_new else 'already there:'} {shown(path)}\n")
    if not runs[0].get("reportedBy"):
        say("hint: say who reports it with --by, so that readers know whom to ask")
    return OK


def _entry(model: str, entries: Sequence[Entry]) -> Entry:
    """The entry that a log's model is: by its repository or its name."""
    for entry in entries:
        repo_id = entry.proposal.repo_id if entry.proposal else None
        if model and model.lower() in (entry.name, (repo_id or "").lower()):
            return entry
    raise CatalogError(
        f"the catalog has no model {model}" if model else "what ran is not named",
        hint="kaito-catalog evidence from-log --model NAME says which model of the catalog a log is of",
    )


def _gpu(named: str | None, shared: Shared) -> str | None:
    if named is None:
        return None
    found = shared.gpus_called(named)
    if not found:
        say(f"note: gpus.yaml has no GPU {named}; it is kept as you wrote it")
        return named
    if len(found) > 1:
        names = ", ".join(gpu.name for gpu in found)
        raise CatalogError(
            f"'{named}' may be any of {names}", hint="evidence is of one: write its whole name"
        )
    return found[0].name


def _say_what_is_odd(run: Mapping[str, Any], gpu: str | None, shared: Shared) -> None:
    """What the log and the arguments of the command do not agree about."""
    told = run.get("gpu", {}).get("memoryBytes")
    listed = shared.gpu(gpu) if gpu else None
    if (
        told
        and listed
        and listed.memory_bytes
        and abs(told - listed.memory_bytes) > 0.05 * listed.memory_bytes
    ):
        say(
            f"note: the log speaks of a GPU with {told / 2**30:.2f} GiB, {listed.name} has "
            f"{listed.memory_bytes / 2**30:.2f} GiB"
        )
    if "outcome" not in run:
        say("note: the log ends before the start does: whether it served is not known")

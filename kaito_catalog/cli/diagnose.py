"""`diagnose`: a log, a manifest or a command line → why it failed or will, and what to change."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.cli.common import catalog_root, emit, opened_bytes
from kaito_catalog.cli.pasted import MAX_BYTES, Pasted, read_pasted
from kaito_catalog.diagnosis.answers import (
    FAILED_CODE,
    OK_CODE,
    UNKNOWN_CODE,
    Diagnosis,
    diagnose_plan,
    diagnose_run,
)
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.formats.policy import Profile
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.request import PlanArguments
from kaito_catalog.reports.diagnosis import diagnosis_text
from kaito_catalog.reports.style import terminal_width, wants_color
from kaito_catalog.vllm_bridge.start_logs.reported import reported_runs

_MANIFEST = re.compile(
    r"^(?:- )?(?:apiVersion|services)\s*:|\A\s*\{[^\n]{0,200}\n?\s*\"(?:apiVersion|services)\"\s*:",
    re.MULTILINE,
)
_LONGEST_LINE = 2**20


def run_diagnose(options: argparse.Namespace) -> int:
    """`diagnose FILE|-`."""
    root = catalog_root(options, or_shipped=True)
    shared = read_shared(root)
    profile = shared.profile(options.profile)
    given = PlanArguments(
        options.model or "",
        instance_type=options.instance_type,
        gpu=options.gpu,
        gpu_memory_bytes=int(options.gpu_memory * 2**30) if options.gpu_memory else None,
        gpu_count=options.gpu_count,
    )
    with opened_bytes(options.file) as stream:
        head = stream.read(MAX_BYTES + 1)
        is_manifest = _MANIFEST.search(head.decode("utf-8", errors="replace")) is not None
        runs = [] if is_manifest else _runs(_lines(head, stream))
    if runs:
        found = [diagnose_run(run, given, root, shared=shared, profile=profile) for run in runs]
    else:
        found = [_of_manifest(options.file, head, given, root, shared, profile)]
    if options.format == "json":
        value = {"version": 1, "starts": [one.to_json() for one in found]}
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        color, width = wants_color(sys.stdout), terminal_width(sys.stdout)
        emit("\n".join(diagnosis_text(one, color=color, width=width) for one in found))
    codes = {one.exit_code for one in found}
    return next((code for code in (FAILED_CODE, UNKNOWN_CODE) if code in codes), OK_CODE)


def _lines(head: bytes, stream: BinaryIO) -> Iterator[str]:
    """The lines of a log of any size, of which the beginning has been read."""
    rest = b""
    for chunk in chain([head], iter(partial(stream.read, 2**16), b"")):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", errors="replace") + "\n"
        if len(rest) > _LONGEST_LINE:
            yield rest.decode("utf-8", errors="replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", errors="replace")


def _runs(text: Iterable[str]) -> list[ReportedRun]:
    """The starts that a log shows; a command line alone is no start yet."""
    runs = reported_runs(text, today=datetime.now(UTC).date().isoformat())
    shown_by = ("versions", "arguments", "engine", "ranks", "outcome", "kvCacheTokens")
    return [ReportedRun.model_validate(run) for run in runs if any(key in run for key in shown_by)]


def _of_manifest(
    name: str, data: bytes, given: PlanArguments, root: Path, shared: Shared, profile: Profile
) -> Diagnosis:
    try:
        pasted = read_pasted(name, given, shared, profile, read=data)
    except CatalogError as error:
        raise CatalogError(
            f"no start is read in this: {error.message}",
            hint=error.hint or "it takes vLLM's log, a manifest, a compose file, or a vllm serve line",
        ) from error
    request = _somewhere(pasted, given)

    read = partial(planning.read_subject, root=root, shared=shared, profile=profile, written=pasted.written)
    of_kaito = pasted.written is not None
    return diagnose_plan(request, shared=shared, profile=profile, read=read, of_kaito=of_kaito)


def _somewhere(pasted: Pasted, given: PlanArguments) -> PlanArguments:
    """The request on a GPU: what fails is a question of where it is started."""
    if not pasted.request.names_a_gpu:
        raise CatalogError(
            "the file does not say on which GPU this is started",
            hint="name it: --gpu h100, with --gpu-count N, or --instance-type T",
        )
    return pasted.request

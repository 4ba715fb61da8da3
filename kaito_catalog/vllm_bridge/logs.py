"""Evidence in other programs' logs: the lines that are evidence, and messages without a machine's folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

RESULT_KIND = "DryRunResult"
"""What a dry run on another machine prints: the worker's answer, and what was asked (`dry_runs/task`)."""

_MAX_LINE = 2**20
# `kubectl logs` may put the pod and the time in front; nothing else may stand before the line.
_EVIDENCE_LINE = re.compile(r"(?:\[\S+\] )?(?:\d{4}-\d\d-\d\dT\S+ )?\s*(\{.*\})\s*\Z", re.ASCII)


def evidence_lines(stream: TextIO) -> Iterator[dict[str, Any]]:
    """The lines of a log that are evidence; everything else in it is somebody's log."""
    for line in _lines(stream):
        match = _EVIDENCE_LINE.match(line)
        if match is None:
            continue
        try:
            value = json.loads(match[1])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("kind") in ("DryRun", "ExactPlan", RESULT_KIND):
            yield value


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines of at most 1 MiB; the inside of a longer one is never taken for a line."""
    inside = False
    while part := stream.readline(_MAX_LINE + 1):
        if not inside and len(part) <= _MAX_LINE:
            yield part
        inside = not part.endswith("\n")


_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+")


def without_paths(text: str) -> str:
    """`text` with absolute folders shortened: where things lie on a machine is not evidence."""
    return _FOLDERS.sub("…/", text)

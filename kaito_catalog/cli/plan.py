"""The command `plan`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_entry, read_shared, shown
from kaito_catalog.cli import exact_plan
from kaito_catalog.cli.common import OK, catalog_root, emit, say
from kaito_catalog.errors import CatalogError
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.start import GivenOptions
from kaito_catalog.reports.plan import instance_types_text, plan_text
from kaito_catalog.reports.style import terminal_width, wants_color
from kaito_catalog.vllm_bridge import evidence


def run_plan(options: argparse.Namespace) -> int:
    """`plan`."""
    root = catalog_root(options, or_shipped=not options.record)
    request = planning.PlanArguments(
        model=options.model,
        instance_type=options.instance_type,
        gpu=options.gpu,
        gpu_memory_bytes=int(options.gpu_memory * 2**30) if options.gpu_memory else None,
        gpu_count=options.gpu_count,
        max_model_len=options.max_model_len,
        options=GivenOptions.of(vars(options)),
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=options.pipeline_parallel_size,
        data_parallel_size=options.data_parallel_size,
        enable_expert_parallel=options.enable_expert_parallel,
        weights_bytes=options.weights_bytes,
        vllm_version=options.vllm_version,
    )
    shared = read_shared(root)
    profile = shared.profile(options.profile)
    subject = planning.read_subject(request, root, shared=shared, profile=profile)
    color, width = wants_color(sys.stdout), terminal_width(sys.stdout)
    if options.record and not options.exact:
        raise CatalogError("--record writes what --exact found", hint="add --exact")
    if options.exact:
        return _run_exact(options, request, subject, shared, root)
    if request.names_a_gpu:
        plan = planning.plan_one(request, subject, shared)
        if options.format == "json":
            emit(json.dumps(planning.plan_value(subject, plan), indent=2, ensure_ascii=False) + "\n")
        else:
            emit(plan_text(subject, plan, color=color, width=width))
        return OK  # "does not fit" is an answer, not an error
    rows = planning.plan_all(subject, shared)
    if options.format == "json":
        emit(json.dumps(planning.rows_value(subject, rows), indent=2, ensure_ascii=False) + "\n")
    else:
        emit(instance_types_text(subject, rows, color=color, width=width))
    return OK


def _run_exact(
    options: argparse.Namespace,
    request: planning.PlanArguments,
    subject: planning.PlanSubject,
    shared: Shared,
    root: Path,
) -> int:
    asked = request if request.names_a_gpu else replace(request, gpu="NVIDIA H100 80GB")
    plan = planning.plan_one(asked, subject, shared)
    settings, version = subject.start.settings(plan.gpu.name), subject.start.vllm_version
    folder = Path(request.model)
    local = (folder / "config.json").is_file() or (folder / "params.json").is_file()
    with exact_plan.asking(options.vllm_python, root.parent) as worker:
        own: Mapping[str, Any] = {}
        if local:
            config: Path | Mapping[str, Any] = folder
        else:
            entry = read_entry(root / "models" / subject.name)
            config = evidence.need_config(entry.facts, entry.name)
            runtime = entry.proposal.vllm if entry.proposal else None
            own = (runtime.config if runtime else None) or {}
        found = exact_plan.exact_plan(worker(), config, settings, plan, options=own)
        if options.record:
            if local:
                raise CatalogError("only a model of the catalog has evidence", hint="leave out --record")
            path = exact_plan.record_exact(
                read_entry(root / "models" / subject.name), worker, vllm_version=version
            )
            say(f"wrote {shown(path)}")
    if options.format == "json":
        value = {"version": 1, "model": subject.name, **found, "plan": planning.plan_value(subject, plan)}
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        emit(exact_plan.exact_text(subject, plan, found, color=wants_color(sys.stdout)))
    return OK

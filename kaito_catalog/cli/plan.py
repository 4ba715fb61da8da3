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
from kaito_catalog.kaito.release import Release, release_of
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.instance_types import InstanceTypePlan
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
        gpu_memory_used_bytes=int((options.gpu_memory_used or 0) * 2**30),
        compute_capability=options.compute_capability,
        gpu_count=options.gpu_count,
        max_model_len=options.max_model_len,
        options=GivenOptions.of(vars(options)),
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=options.pipeline_parallel_size,
        data_parallel_size=options.data_parallel_size,
        enable_expert_parallel=options.enable_expert_parallel,
        weights_bytes=options.weights_bytes,
        draft_config=options.draft_config,
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
        for words in planning.how_read(request, subject, shared):
            say(words)
        if options.format == "json":
            emit(json.dumps(planning.plan_value(subject, plan), indent=2, ensure_ascii=False) + "\n")
        else:
            emit(plan_text(subject, plan, color=color, width=width))
        _say_whose_nodes(request.instance_type, shared, release_of(profile))
        return OK  # "does not fit" is an answer, not an error
    rows, among = _of_clouds(planning.plan_all(subject, shared), options.cloud, release_of(profile))
    if options.format == "json":
        emit(json.dumps(planning.rows_value(subject, rows), indent=2, ensure_ascii=False) + "\n")
    else:
        emit(instance_types_text(subject, rows, among=among, color=color, width=width))
    return OK


def _of_clouds(
    rows: tuple[InstanceTypePlan, ...], asked: str | None, kaito: Release
) -> tuple[tuple[InstanceTypePlan, ...], str]:
    """The plans on the instance types of a cloud, else of those that KAITO takes; and whose they are, in words."""
    if asked == "all":
        return rows, "instance types of every cloud"
    clouds = (asked,) if asked else kaito.clouds
    chosen = tuple(row for row in rows if row.instance_type.cloud in clouds)
    if asked is None:
        named = f"{', '.join(clouds[:-1])} and {clouds[-1]}"
        return chosen, f"instance types of {named}, which KAITO {kaito.name} takes; --cloud names others"
    return chosen, f"instance types of {asked}" + _bring_nodes(asked, kaito)


def _bring_nodes(cloud: str, kaito: Release) -> str:
    if cloud in kaito.clouds:
        return ""
    return f": KAITO {kaito.name} makes no such nodes and refuses the type where it should, so bring the nodes along"


def _say_whose_nodes(instance_type: str | None, shared: Shared, kaito: Release) -> None:
    machine = shared.instance_type(instance_type) if instance_type else None
    if machine is not None and machine.cloud not in kaito.clouds:
        say(f"{machine.name} is of {machine.cloud}{_bring_nodes(machine.cloud, kaito)}")


def _run_exact(
    options: argparse.Namespace,
    request: planning.PlanArguments,
    subject: planning.PlanSubject,
    shared: Shared,
    root: Path,
) -> int:
    asked = request
    if not request.names_a_gpu:
        asked = replace(request, gpu="NVIDIA H100 80GB")
        if request.gpu_count is None and request.tensor_parallel_size is None:
            asked = replace(asked, gpu_count=planning.fewest_gpus(asked, subject, shared))
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

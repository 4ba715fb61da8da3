"""The command `plan`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import read_entry, read_shared, shown
from kaito_catalog.cli import exact_plan
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, is_markdown, say
from kaito_catalog.cli.pasted import read_pasted
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito.manifests import INFERENCE_SET, WORKSPACE, object_name
from kaito_catalog.kaito.release import Release, release_of
from kaito_catalog.memory.environment import pairs
from kaito_catalog.memory.values import Fit, Plan
from kaito_catalog.near_names import near_names
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.given_options import GivenOptions
from kaito_catalog.plans.instance_types import InstanceTypePlan, cheapest_first, instance_type_plan
from kaito_catalog.plans.replicas import Replicas, for_users, replicas_on
from kaito_catalog.plans.serve_options import read_serve_options
from kaito_catalog.plans.started import Started
from kaito_catalog.plans.values import plan_value, rows_value
from kaito_catalog.reports.plan import VERDICTS, instance_types_text, plan_text
from kaito_catalog.reports.replicas import one_machine_text, users_text
from kaito_catalog.reports.style import terminal_width, wants_color
from kaito_catalog.vllm_bridge import evidence


def run_plan(options: argparse.Namespace) -> int:
    """`plan`."""
    root = catalog_root(options, or_shipped=not options.record)
    shared = read_shared(root).with_own_prices(dict(options.price))
    profile = shared.profile(options.profile)
    if options.source is None and options.model is not None and is_markdown(options.model):
        options.model, options.source = None, options.model
    request, written, facts = _asked(options, profile), None, None
    if options.source is not None and is_markdown(options.source):
        from kaito_catalog.cli.markdown import proposal_of  # only here: it loads the checks

        written, facts = proposal_of(Path(options.source), request.model, root)
        request = replace(request, model=request.model or written.metadata.name)
    elif options.source is not None:
        pasted = read_pasted(options.source, request, shared, profile)
        request, written = pasted.request, pasted.written
    elif not request.model:
        raise CatalogError("name a model, or a file with --from", hint="kaito-catalog plan phi-4")
    subject = planning.read_subject(
        request, root, shared=shared, profile=profile, written=written, facts=facts
    )
    if options.record and not options.exact:
        raise CatalogError("--record writes what --exact found", hint="add --exact")
    if options.exact:
        return _run_exact(options, request, subject, shared, root, facts)
    if request.names_a_gpu:
        return _one(options, request, subject, shared, release_of(profile))
    return _all(options, subject, shared, release_of(profile))


def _environment(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    if options.env and (options.engine or "kaito") == "kaito" and options.source is None:
        raise CatalogError("KAITO sets vLLM's environment itself", hint="add --engine vllm")
    if options.env and options.exact:
        raise CatalogError("--exact reads no --env", hint="plan without --exact")
    return pairs(dict(options.env))


def _asked(options: argparse.Namespace, profile: Profile) -> planning.PlanArguments:
    version = (options.vllm_version or profile.vllm_version).removeprefix("v")
    serve = None if options.behind_dashes is None else read_serve_options(options.behind_dashes, version)
    named = serve.model if serve is not None else None
    if named is not None and options.model is not None and named.lower() != options.model.lower():
        raise CatalogError(
            f"the command line behind -- names {named[:60]}, and {options.model[:60]} is to be planned",
            hint="leave the model out behind --",
        )
    return planning.PlanArguments(
        model=options.model or named or "",
        instance_type=options.instance_type,
        gpu=options.gpu,
        gpu_memory_bytes=int(options.gpu_memory * 2**30) if options.gpu_memory else None,
        gpu_memory_used_bytes=int((options.gpu_memory_used or 0) * 2**30),
        compute_capability=options.compute_capability,
        gpu_count=options.gpu_count,
        node_count=options.node_count,
        engine=options.engine or "kaito",
        serve=serve,
        max_model_len=options.max_model_len,
        options=replace(GivenOptions.of(vars(options)), environment=_environment(options)),
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=options.pipeline_parallel_size,
        data_parallel_size=options.data_parallel_size,
        enable_expert_parallel=options.enable_expert_parallel,
        weights_bytes=options.weights_bytes,
        draft_config=options.draft_config,
        vllm_version=options.vllm_version,
    )


def _one(
    options: argparse.Namespace,
    request: planning.PlanArguments,
    subject: planning.PlanSubject,
    shared: Shared,
    kaito: Release,
) -> int:
    """One plan in detail."""
    started = planning.start_one(request, subject, shared)
    plan = planning.plan_of(started, request, subject)
    for words in planning.how_read(request, subject, shared):
        say(words)
    row = _on_machine(started, request.instance_type, shared, _region(options.region, shared))
    found = replicas_on(row, options.users) if row is not None and options.users else None
    if options.users and row is None:
        raise CatalogError(
            "how many replicas there are is counted in instance types", hint="name one: --instance-type"
        )
    if options.command:
        _emit_command(started, plan)
    elif options.manifest:
        machine = None if row is None else row.instance_type
        _emit_manifest(subject, machine, request.node_count, found, options.users)
        _say_verdict(plan)
    elif options.format == "json":
        value = plan_value(subject, plan, started, row=row, users=options.users)
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        color, width = wants_color(sys.stdout), terminal_width(sys.stdout)
        emit(plan_text(subject, plan, started, color=color, width=width))
        if row is not None:
            emit(one_machine_text(row, found, options.users, width=width))
    _say_whose_nodes(request.instance_type, shared, kaito)
    return _code(options, plan.fits)


def _all(options: argparse.Namespace, subject: planning.PlanSubject, shared: Shared, kaito: Release) -> int:
    """The instance types side by side."""
    region = _region(options.region, shared)
    rows, among = _of_clouds(planning.plan_all(subject, shared, region=region), options.cloud, kaito)
    sort: Literal["size", "price"] = options.sort or ("price" if options.users else "size")
    if sort == "price":
        rows = cheapest_first(rows)
    found = for_users(rows, options.users, sort=sort) if options.users else ()
    best = found[0].row if found else None if options.users else planning.smallest(rows)
    if options.command or options.manifest:
        if best is None:
            raise CatalogError(
                "no instance type is planned to serve it on one node",
                hint="name the machine: --instance-type or --gpu",
            )
        say(f"on {best.instance_type.name}, the {_SORTED[sort]} that fits")
        if options.command:
            _emit_command(best.started, best.plan)
        else:
            _emit_manifest(subject, best.instance_type, None, found[0] if found else None, options.users)
    elif options.format == "json":
        value = rows_value(subject, rows, replicas=found, users=options.users)
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        color, width = wants_color(sys.stdout), terminal_width(sys.stdout)
        if options.users:
            emit(users_text(subject, found, options.users, among=among, sort=sort, color=color, width=width))
        else:
            emit(instance_types_text(subject, rows, among=among, color=color, width=width))
    fits = {row.plan.fits for row in rows}
    verdicts = (Fit.YES, Fit.TIGHT, Fit.UNKNOWN, Fit.NO)
    return _code(options, next((fit for fit in verdicts if fit in fits), Fit.UNKNOWN))


def _region(asked: str | None, shared: Shared) -> str | None:
    if asked is None or asked in shared.regions:
        return asked
    near = near_names(asked, shared.regions)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(shared.regions) or 'none'}"
    raise CatalogError(f"prices.yaml has no price in '{asked[:60]}'", hint=hint)


def _on_machine(
    started: Started, instance_type: str | None, shared: Shared, region: str | None
) -> InstanceTypePlan | None:
    """The plan on an instance type with its price; None where GPUs are named alone."""
    machine = shared.instance_type(instance_type) if instance_type else None
    if machine is None:
        return None
    return replace(instance_type_plan(machine, started), price=shared.price(machine.name, region))


def _emit_manifest(
    subject: planning.PlanSubject,
    machine: InstanceType | None,
    node_count: int | None,
    found: Replicas | None,
    users: int | None,
) -> None:
    """What to apply: ConfigMap and Secret, then a Workspace, or for users an InferenceSet with the replicas."""
    if subject.proposal is None:
        raise CatalogError(
            "KAITO loads a model by its name on the Hub, and a folder has none", hint="name it: ORG/MODEL"
        )
    if users and found is None:
        raise CatalogError("it does not surely serve one request", hint="plan without --manifest says why")
    # Only here: manifests are seldom asked for.
    from kaito_catalog.plans.planned_manifests import planned_manifests

    replicas = found.count if found else 1
    made = planned_manifests(
        subject.start, subject.proposal, subject.facts, machine, replicas=replicas, node_count=node_count
    )
    if made.left_out:
        raise CatalogError(f"there are no manifests: {made.left_out}")
    texts = [text for name, text in made.files.items() if name not in (WORKSPACE, INFERENCE_SET)]
    texts.append(made.files[INFERENCE_SET if users else WORKSPACE])
    emit("---\n".join(texts))
    if machine is not None and "instanceType" not in texts[-1]:
        say(f"label the nodes that you bring along: apps={object_name(subject.proposal.metadata.name)}")


def _emit_command(started: Started, plan: Plan) -> None:
    emit(started.command_line() + "\n")
    _say_verdict(plan)


def _say_verdict(plan: Plan) -> None:
    if plan.fits is not Fit.YES and plan.reason:
        say(f"{VERDICTS[plan.fits][0]}: {plan.reason}")


_SORTED = {"size": "smallest", "price": "cheapest"}
_CODES = {Fit.YES: OK, Fit.NO: FAILED, Fit.TIGHT: 3, Fit.UNKNOWN: 3}


def _code(options: argparse.Namespace, fits: Fit) -> int:
    """ "Does not fit" is an answer and no error, unless the exit code is asked for."""
    return _CODES[fits] if options.exit_code else OK


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
    facts: ModelFacts | None,
) -> int:
    asked = request
    if not request.names_a_gpu:
        asked = replace(request, gpu="NVIDIA H100 80GB")
        if request.gpu_count is None and request.tensor_parallel_size is None:
            asked = replace(asked, gpu_count=planning.fewest_gpus(asked, subject, shared))
    started = planning.start_one(asked, subject, shared)
    plan, version = planning.plan_of(started, asked, subject), subject.start.vllm_version
    folder = Path(request.model)
    local = (folder / "config.json").is_file() or (folder / "params.json").is_file()
    if facts is not None and options.record:
        raise CatalogError("only a model of the catalog has evidence", hint="leave out --record")
    with exact_plan.asking(options.vllm_python, root.parent) as worker:
        config: Path | Mapping[str, Any]
        if facts is not None:
            config = evidence.need_config(facts, subject.name)
        elif local:
            config = folder
        else:
            entry = read_entry(root / "models" / subject.name)
            config = evidence.need_config(entry.facts, entry.name)
        found = exact_plan.exact_plan(worker(), config, started, plan)
        if options.record:
            if local:
                raise CatalogError("only a model of the catalog has evidence", hint="leave out --record")
            path = exact_plan.record_exact(
                read_entry(root / "models" / subject.name), worker, vllm_version=version
            )
            say(f"wrote {shown(path)}")
    if options.format == "json":
        value = {"version": 1, "model": subject.name, **found, "plan": plan_value(subject, plan, started)}
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        emit(exact_plan.exact_text(subject, plan, started, found, color=wants_color(sys.stdout)))
    return OK

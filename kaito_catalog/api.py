"""The three things that other programs import: load a catalog, plan a model's memory, check proposals.

`from kaito_catalog import load_catalog, plan_model, compare_instance_types, check_models` is the public form; it
imports this module when one of the names is first used. Nothing here writes, prints or asks a network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import found_or_shipped, read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import Report, check_catalog
from kaito_catalog.checks.registry import require_codes, selected
from kaito_catalog.errors import CatalogError
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.values import EngineOptions, Plan
from kaito_catalog.plans import request as planning
from kaito_catalog.plans.given_options import GivenOptions
from kaito_catalog.plans.instance_types import InstanceTypePlan


def load_catalog(
    folder: str | os.PathLike[str] | None = None,
    *,
    proposals: Sequence[str | os.PathLike[str]] | None = None,
) -> Catalog:
    """Read a catalog: its policy, GPUs and instance types, and its models in the order of their names.

    A model whose files are not valid is an entry all the same: `Entry.problems` says what is wrong with it, with file,
    line and column, and `Entry.proposal` or `Entry.facts` is None.

    Args:
        folder: the folder with policy.yaml, gpus.yaml, instance-types.yaml and models/. None: the one at or above the
            current folder, else the one that came with this installation.
        proposals: folders with a proposal.yaml, to be read instead of all of models/. A proposal without facts.yaml of
            its own is compared with the facts that the catalog has of the same repository.

    Raises:
        CatalogError: there is no catalog, or one of the files that all models share is not valid.
    """
    root = Path(folder) if folder is not None else found_or_shipped(Path.cwd())
    return read_catalog(root, None if proposals is None else [Path(path).resolve() for path in proposals])


def plan_model(
    model: str | os.PathLike[str],
    *,
    catalog: Catalog,
    instance_type: str | None = None,
    gpu: str | None = None,
    gpu_memory_bytes: int | None = None,
    gpu_memory_used_bytes: int = 0,
    compute_capability: float | None = None,
    gpu_count: int | None = None,
    max_model_len: int | None = None,
    tensor_parallel_size: int | None = None,
    pipeline_parallel_size: int = 1,
    data_parallel_size: int = 1,
    enable_expert_parallel: bool = False,
    weights_bytes: int | None = None,
    draft_config: str | os.PathLike[str] | None = None,
    vllm_version: str | None = None,
    profile: str | None = None,
    **options: Unpack[EngineOptions],
) -> Plan:
    """What vLLM would find on each GPU, and whether one request of `max_model_len` tokens fits.

    The formulas and their sources are on the page "How memory is planned" (docs/memory.md); constants that were
    measured have their spread in `Plan.expected_error_bytes`, and `Plan.sources` says of each figure where it is from.
    What is not known makes `Plan.fits` UNKNOWN with a reason, never a guess.

    Args:
        model: a name or repository id of the catalog, or a folder with a config.json (and *.safetensors).
        catalog: whose models, GPUs, instance types and profiles are meant.
        instance_type: such as Standard_NC24ads_A100_v4; all of its GPUs unless `gpu_count` says otherwise.
        gpu: a name, alias or short name of gpus.yaml. One of `instance_type`, `gpu` and `gpu_memory_bytes` has to be
            given.
        gpu_memory_bytes: total memory of one GPU as the driver reports it.
        gpu_memory_used_bytes: what other processes hold of it before vLLM starts.
        compute_capability: such as 8.9, of a GPU that gpus.yaml does not list.
        gpu_count: None is one, or what the parallel sizes make.
        max_model_len: in tokens; None is the proposal's context, else the model's own limit up to 8,192.
        tensor_parallel_size: vLLM's argument, as are the following three: GPUs that share each layer.
        pipeline_parallel_size: stages that share the layers.
        data_parallel_size: copies of the engine.
        enable_expert_parallel: experts are spread instead of cut.
        weights_bytes: stored size of all weight files, where it is known better than by the facts.
        draft_config: the config.json of the drafter that `speculative_config` names, or its folder.
        vllm_version: None is the profile's.
        profile: a KAITO release of policy.yaml; None is the policy's own.
        options: vLLM's own, which win over the proposal's; they are listed below.

    Returns:
        The plan; memory is in bytes, for the GPU with the least room. "Does not fit" is an answer, not an error.

    Raises:
        CatalogError: there is no such model, GPU, instance type or profile, or a file cannot be read.
    """
    unknown = sorted(options.keys() - {option.attribute for option in PLANNED})
    if unknown:
        raise TypeError(f"plan_model() got an unexpected keyword argument '{unknown[0]}'")
    request = planning.PlanArguments(
        model=os.fspath(model),
        instance_type=instance_type,
        gpu=gpu,
        gpu_memory_bytes=gpu_memory_bytes,
        gpu_memory_used_bytes=gpu_memory_used_bytes,
        compute_capability=compute_capability,
        gpu_count=gpu_count,
        max_model_len=max_model_len,
        options=GivenOptions.of(options),
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        data_parallel_size=data_parallel_size,
        enable_expert_parallel=enable_expert_parallel,
        weights_bytes=weights_bytes,
        draft_config=None if draft_config is None else os.fspath(draft_config),
        vllm_version=vllm_version,
    )
    if not request.names_a_gpu:
        raise CatalogError(
            "a plan needs a GPU",
            hint="give instance_type, gpu or gpu_memory_bytes; or compare_instance_types",
        )
    chosen = catalog.shared.profile(profile)
    subject = planning.read_subject(request, catalog.root, shared=catalog.shared, profile=chosen)
    return planning.plan_one(request, subject, catalog.shared)


if plan_model.__doc__:  # python -OO has none
    plan_model.__doc__ += "\n    vLLM's options:\n" + "".join(
        f"        {option.attribute}: {option.help}.\n" for option in PLANNED
    )


def compare_instance_types(
    model: str | os.PathLike[str],
    *,
    catalog: Catalog,
    max_model_len: int | None = None,
    profile: str | None = None,
) -> tuple[InstanceTypePlan, ...]:
    """The plan of a model on every instance type of the catalog: those that fit first, the smallest of them first.

    Args:
        model: as for `plan_model`.
        catalog: whose models, instance types and profiles are meant.
        max_model_len: in tokens; None as for `plan_model`.
        profile: a KAITO release of policy.yaml; None is the policy's own.

    Raises:
        CatalogError: there is no such model or profile, or a file cannot be read.
    """
    request = planning.PlanArguments(model=os.fspath(model), max_model_len=max_model_len)
    chosen = catalog.shared.profile(profile)
    subject = planning.read_subject(request, catalog.root, shared=catalog.shared, profile=chosen)
    return planning.plan_all(subject, catalog.shared)


def check_models(
    catalog: Catalog,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    require_all: bool = False,
    profile: str | None = None,
) -> Report:
    """Check the claims of every model that was loaded, as `kaito-catalog check` does.

    Args:
        catalog: what was loaded; `load_catalog(proposals=…)` loads single proposals.
        select: codes or families, such as "STO001" or "MEM"; empty is all. YML and SCH always run.
        ignore: codes or families that are left out.
        require_all: what cannot be checked is an error instead of a skip.
        profile: a KAITO release of policy.yaml; None is the policy's own.

    Returns:
        `Report.failed`, `Report.diagnostics` in the order of files and lines (each with code, severity, message, place
        and hint), `Report.skips` with the reason of each, and every model's claims with what is known of them.

    Raises:
        CatalogError: there is no such code or profile, or no check is left.
    """
    checks = selected(require_codes(select), require_codes(ignore))
    if not checks:
        raise CatalogError("no check is left to run", hint="YML and SCH always run, and cannot be selected")
    context = Context(catalog.shared, catalog.shared.profile(profile))
    return check_catalog(catalog, checks, context, require_all=require_all)

"""max-num-seqs for hybrid models: vLLM stops where its states outnumber the blocks of the cache."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import model_catalog, release
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, Plan, Settings
from kaito_catalog.plans.instance_types import plan_gpu, request_for_facts
from kaito_catalog.plans.serving import ServedOptions, served_options


def manifest_options(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> ServedOptions:
    """The options that the generated ConfigMap starts vLLM with: the proposal's, and `max_num_seqs` if need be."""
    options = served_options(proposal)
    count = max_num_seqs(proposal, facts, shared, profile)
    return options if count is None else replace(options, max_num_seqs=count)


def max_num_seqs(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> int | None:
    """The requests at once that a hybrid model can hold on the proposal's instance type, as KAITO splits it.

    A power of two, as vLLM's CUDA graphs are made for. None where the default serves, where the proposal sets
    the option itself, or where no plan can be made.
    """
    own = release.declared(proposal)
    name = proposal.deployment.instance_type if proposal.deployment else None
    machine = shared.instance_type(name) if name and not is_missing(name) else None
    kaito = release.release_of(profile)
    row = model_catalog.row(facts, kaito)[0] if facts else None
    length = proposal.max_model_len
    if facts is None or machine is None or row is None or length is None or "max-num-seqs" in own:
        return None
    node = release.node_of(machine, shared.gpu_by_name[machine.gpu])
    start = release.parallelism(row, node, kaito, max_model_len=length)
    settings = served_options(proposal).settings(profile, machine.gpu, max_model_len=length)
    split = Parallelism(start.tensor_parallel_size, start.pipeline_parallel_size, start.data_parallel_size)
    request = request_for_facts(
        facts,
        gpu=plan_gpu(shared, machine.gpu),
        parallelism=split,
        settings=settings,
        vllm_version=profile.vllm_version,
    )

    def planned(asked: Settings) -> Plan:
        return make_plan(replace(request, settings=asked))

    plan = planned(settings)
    if plan.limited_by != "maxNumSeqs" or plan.settings.max_num_seqs is None:
        return None
    count = 1 << (plan.settings.max_num_seqs.bit_length() - 1)
    while count > 1:
        count //= 2
        found = planned(replace(settings, max_num_seqs=count))
        if found.fits in (Fit.YES, Fit.TIGHT) and found.limited_by != "maxNumSeqs":
            return count
    return None

"""The manifests of a planned start: what to apply to a cluster to have it, unless KAITO or vLLM would refuse them."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Deployment, Proposal
from kaito_catalog.kaito import admission, manifests, model_catalog
from kaito_catalog.kaito.manifests import Manifests
from kaito_catalog.kaito.release import release_of
from kaito_catalog.plans.kaito_start import KaitoModel
from kaito_catalog.plans.start import Start, max_num_seqs, needs_no_lmcache
from kaito_catalog.vllm_bridge.reference import known


def deployed_on(proposal: Proposal, instance_type: str | None, node_count: int | None = None) -> Proposal:
    """The proposal on another instance type; None is nodes that are brought along."""
    before = proposal.deployment or Deployment.model_validate({})
    update = {"instance_type": instance_type, "node_count": node_count, "partition": None}
    return proposal.model_copy(update={"deployment": before.model_copy(update=update)})


def proposed_manifests(
    proposal: Proposal, facts: ModelFacts | None, shared: Shared, profile: Profile
) -> Manifests:
    """The manifests of a proposal as it stands; none, with the first reason, where they would be refused."""
    built = manifests.build(
        proposal,
        facts,
        max_num_seqs=max_num_seqs(proposal, facts, shared, profile),
        without_lmcache=needs_no_lmcache(proposal, facts, shared, profile),
    )
    return unless_refused(built, facts, profile)


def planned_manifests(
    start: Start,
    proposal: Proposal,
    facts: ModelFacts | None,
    machine: InstanceType | None,
    *,
    replicas: int = 1,
    node_count: int | None = None,
) -> Manifests:
    """The manifests that make KAITO start just what is planned; none, with the reason, where it would refuse them.

    Args:
        start: what is planned; its context and what was asked for beside the proposal's options go into the ConfigMap.
        proposal: of the model.
        facts: of the model.
        machine: None for nodes that are brought along, as are those of a cloud that KAITO makes no nodes of.
        replicas: of the InferenceSet.
        node_count: how many nodes were asked for; None leaves it to KAITO.
    """
    if not isinstance(start.kaito, KaitoModel):
        why = start.kaito.reason if start.kaito is not None else "plain vllm serve has no manifests"
        return Manifests({}, why)
    made_there = machine is not None and machine.cloud in start.kaito.kaito.clouds
    name = machine.name if machine is not None and made_there else None
    count = start.kaito.config.vllm.get("max-num-seqs")
    built = manifests.build(
        deployed_on(proposal, name, node_count),
        facts,
        max_num_seqs=count if isinstance(count, int) else None,
        without_lmcache=start.kaito.switches_lmcache_off,
        asked=_with_numbers({**start.asked, "max-model-len": str(start.max_model_len)}),
        replicas=replicas,
    )
    return unless_refused(built, facts, start.profile)


def _with_numbers(options: Mapping[str, str]) -> dict[str, str | int]:
    """Whole numbers as YAML has them, not as quoted texts."""
    return {
        name: int(value) if value.isascii() and value.isdigit() and str(int(value)) == value else value
        for name, value in options.items()
    }


def unless_refused(built: Manifests, facts: ModelFacts | None, profile: Profile) -> Manifests:
    """The manifests, or none with the first reason, where KAITO would refuse them or vLLM would not start."""
    kaito = release_of(profile)
    row = model_catalog.row(facts, kaito)[0] if facts else None
    refused = admission.refusals(
        [yaml.safe_load(text) for text in built.files.values()],
        kaito=kaito,
        model_token_limit=row["modelTokenLimit"] if row else None,
        gated=facts is not None and facts.gated not in (None, "no"),
        vllm=known(profile.vllm_version),
    )
    if not refused:
        return built
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    return Manifests({}, f"KAITO would refuse them: {refused[0]}{more}")

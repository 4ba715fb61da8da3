"""What the site says of one model, and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.diagnostics import Diagnostic, Skipped
from kaito_catalog.formats.evidence import DryRun, ExactPlan
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.manifests import Manifests
from kaito_catalog.kaito.model_catalog import model_token_limit
from kaito_catalog.site.figures import Figures

Finding = Diagnostic | Skipped


@dataclass(frozen=True)
class Proof:
    """How well an entry's figures are known: a word for the table, and what it means."""

    level: str
    word: str
    meaning: str


MEASURED = Proof("measured", "measured", "a dry run of vLLM measured it")
EXACT = Proof("exact", "exact plan", "vLLM's own classes were asked what they allocate")
RECORDED = Proof("recorded", "recorded", "the facts were read from the repository itself")
TRANSCRIBED = Proof("transcribed", "transcribed", "the facts were read in a publication, not yet on the Hub")
CLAIMED = Proof("claimed", "claimed", "no recorded facts")
PROOFS = (MEASURED, EXACT, RECORDED, TRANSCRIBED, CLAIMED)


@dataclass(frozen=True)
class ModelPage:
    """Everything the site says about a model."""

    entry: Entry
    proposal: Proposal
    figures: Figures
    manifests: Manifests
    findings: tuple[Finding, ...] | None
    """None: not checked."""
    on_smallest: Manifests | None = None
    """The manifests for the smallest instance type that fits, where the proposal names another."""

    @property
    def own_machine(self) -> str | None:
        """The instance type that the proposal names."""
        return self.proposal.deployment.instance_type if self.proposal.deployment else None

    @property
    def facts(self) -> ModelFacts | None:
        return self.entry.facts

    @property
    def repo_id(self) -> str:
        """The Hub's name, or the catalog's where there is none."""
        return (self.facts.repo_id if self.facts else None) or self.proposal.repo_id or self.entry.name


def proof(entry: Entry) -> Proof:
    """The best source an entry has."""
    runs = [e.record for e in entry.evidence if isinstance(e.record, DryRun)]
    # A run on a CPU, or of a model that was scaled down, measures nothing that a plan is about.
    if any(run.outcome == "served" and run.device == "cuda" and not run.scaled_down for run in runs):
        return MEASURED
    if any(isinstance(e.record, ExactPlan) for e in entry.evidence):
        return EXACT
    if entry.facts is None:
        return CLAIMED
    return TRANSCRIBED if entry.facts.source.kind == "transcribed" else RECORDED


def license_name(page: ModelPage, policy: Policy) -> str | None:
    """The licence as an SPDX id where it has one, else as the Hub or the proposal calls it."""
    recorded = page.facts.license if page.facts else None
    found = (recorded.name if recorded.id == "other" and recorded.name else recorded.id) if recorded else None
    found = found or page.proposal.license_id
    return policy.licenses.spdx.get(found, found) if found else None


def task(page: ModelPage, policy: Policy) -> str:
    """The Hub's pipeline tag, or the claimed type with older words replaced."""
    claimed = page.proposal.requirements.type
    tag = page.facts.pipeline_tag if page.facts else None
    return tag or policy.types.aliases.get(claimed.lower(), claimed)


def weights_bytes(page: ModelPage) -> int | None:
    """The bytes of the weight files, where they are known."""
    total = page.facts.weights.total if page.facts and page.facts.weights else None
    return total.size_bytes if total else None


def context_limit(page: ModelPage) -> int | None:
    """The longest context the model was made for."""
    return model_token_limit(page.facts) if page.facts else None

"""The catalog as values: a model's entry with its proposal, facts and evidence, and what all entries share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ReportedRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import Gpu, InstanceType, PriceSource
from kaito_catalog.formats.policy import Policy, Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.near_names import near_names

SHARED_FILES = ("policy.yaml", "gpus.yaml", "instance-types.yaml")
PROPOSAL, FACTS, EVIDENCE = "proposal.yaml", "facts.yaml", "evidence"


@dataclass(frozen=True)
class Evidence:
    """One evidence file."""

    document: Document
    record: ExactPlan | DryRun | ReportedRun


@dataclass(frozen=True)
class Entry:
    """A model's folder. `proposal` and `facts` are None when absent or not valid; `problems` says which."""

    name: str
    folder: Path
    proposal_document: Document
    proposal: Proposal | None
    facts_document: Document | None
    facts: ModelFacts | None
    evidence: tuple[Evidence, ...]
    problems: tuple[Diagnostic, ...]

    @property
    def is_readable(self) -> bool:
        """Whether every file of the entry is valid, so that checks can look at it."""
        return self.proposal is not None and not any(p.severity is Severity.ERROR for p in self.problems)


OWN_PRICE = "your own price"
"""The source of a price that somebody gives."""


@dataclass(frozen=True)
class Price:
    """What a machine costs an hour in one region, on demand, as a cloud lists it; or what somebody pays for it."""

    an_hour: float
    region: str | None
    """None for somebody's own price, which holds wherever it is."""
    currency: str
    """The ISO 4217 code."""
    date: str | None
    """When it was read."""
    source: str

    @property
    def where(self) -> str:
        """Whose price it is: `on demand in eastus, as listed on 2026-06-18`."""
        return (
            f"by {self.source}"
            if self.region is None
            else f"on demand in {self.region}, as listed on {self.date}"
        )


@dataclass(frozen=True)
class Shared:
    """The files that all models share."""

    policy: Policy
    gpus: tuple[Gpu, ...]
    instance_types: tuple[InstanceType, ...]
    prices: Mapping[str, tuple[Price, ...]] = field(default_factory=dict)
    """By instance type, the cheapest region first; what no source lists is absent."""
    price_sources: tuple[PriceSource, ...] = ()

    def price(self, instance_type: str, region: str | None = None) -> Price | None:
        """The price in a region, or in the cheapest of those that are listed; None where none is."""
        listed = self.prices.get(instance_type, ())
        return next((p for p in listed if p.region is None or region in (None, p.region)), None)

    def with_own_prices(self, an_hour: Mapping[str, float], *, currency: str = "USD") -> Shared:
        """With somebody's own prices in place of those that are listed, by the name of the instance type.

        Raises:
            CatalogError: there is no instance type of a name.
        """
        own = {}
        for name, price in an_hour.items():
            machine = self.instance_type(name)
            if machine is None:
                near = self.near_instance_types(name)
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else "a name of instance-types.yaml, as in its plan"
                )
                raise CatalogError(f"there is no instance type '{name[:60]}' to have a price", hint=hint)
            own[machine.name] = (Price(price, None, currency, None, OWN_PRICE),)
        return replace(self, prices={**self.prices, **own})

    @property
    def regions(self) -> tuple[str, ...]:
        """Every region that a price is listed for, sorted."""
        regions = {price.region for listed in self.prices.values() for price in listed}
        return tuple(sorted(region for region in regions if region is not None))

    @cached_property
    def gpu_by_name(self) -> dict[str, Gpu]:
        """Each GPU by its name and by its aliases."""
        return {name: gpu for gpu in self.gpus for name in (*(gpu.aliases or ()), gpu.name)}

    def gpu(self, name: str) -> Gpu | None:
        """The GPU of that name, alias or short name, in any case; of several the one with the least memory."""
        return next(iter(self.gpus_called(name)), None)

    def gpus_called(self, name: str) -> tuple[Gpu, ...]:
        """The GPUs that a name may mean, the one with the least memory first.

        A name or alias means its GPU; a short one, such as `h100` or `rtx4090`, each whose name has its words in a row.
        """
        exact = self.gpu_by_name.get(name)
        exact = exact or next((g for n, g in self.gpu_by_name.items() if n.lower() == name.lower()), None)
        if exact is not None:
            return (exact,)
        words = _words(name)
        if not any(_OF_ONE_MODEL.fullmatch(word) for word in words):
            return ()
        found = [gpu for gpu in self.gpus if any(_has(n, words) for n in (gpu.name, *(gpu.aliases or ())))]
        return tuple(sorted(found, key=lambda gpu: gpu.nominal_memory.bytes))

    def instance_type(self, name: str) -> InstanceType | None:
        """The instance type of that name, in any case."""
        return next((t for t in self.instance_types if t.name.lower() == name.lower()), None)

    def near_instance_types(self, name: str) -> tuple[str, ...]:
        """The instance types that somebody may have meant who wrote `name`."""
        # They share long pieces with each other (Standard_N…, _A100_v4), so that more has to agree than of other names.
        return near_names(name, (machine.name for machine in self.instance_types), likeness=0.8)

    def profile(self, name: str | None = None) -> Profile:
        """The KAITO release of that name, the policy's own by default.

        Raises:
            CatalogError: the policy has none of that name.
        """
        policy = self.policy
        if name is None:
            return policy.default_profile()
        found = next((profile for profile in policy.profiles if profile.name == name), None)
        if found is None:
            known = ", ".join(profile.name for profile in policy.profiles)
            raise CatalogError(f"there is no profile '{name}'", hint=f"policy.yaml has: {known}")
        return found


_TYPED_TOGETHER = re.compile(r"(?<=rtx|gtx)(?=[0-9])|(?<=[0-9])(?=nvl|sxm)|(?<=[0-9])gi?b?\b")
"""Where people leave the space out: rtx4090, h100nvl, 80gb; the unit says nothing."""
_OF_ONE_MODEL = re.compile(r"[a-z]+[0-9]+[a-z]*|[0-9]{4,}")
"""The word that tells one model from another: h100, l40s, 4090."""


def _words(name: str) -> tuple[str, ...]:
    """A GPU's name in lower case, word by word: `NVIDIA A100-SXM4-80GB` is nvidia, a100, sxm4, 80."""
    return tuple(re.findall(r"[a-z0-9.]+", _TYPED_TOGETHER.sub(" ", name.lower())))


def _has(name: str, words: tuple[str, ...]) -> bool:
    """Whether the words stand in the name, in a row."""
    whole = _words(name)
    starts = range(len(whole) - len(words) + 1)
    return any(whole[start : start + len(words)] == words for start in starts)


@dataclass(frozen=True)
class Catalog:
    """All entries, sorted by name."""

    root: Path
    shared: Shared
    entries: tuple[Entry, ...]

    def entry(self, name: str) -> Entry | None:
        """The entry whose folder or repository has that name, in any case."""
        wanted = name.lower()
        for entry in self.entries:
            repo_id = entry.proposal.repo_id if entry.proposal else None
            if wanted in (entry.name, (repo_id or "").lower()):
                return entry
        return None


def with_profile(catalog: Catalog, name: str) -> Catalog:
    """The catalog as a policy with that KAITO release for its default has it; whatever is made of it follows.

    Raises:
        CatalogError: the policy has none of that name.
    """
    profile = catalog.shared.profile(name)
    policy = catalog.shared.policy.model_copy(update={"profile": profile.name})
    return replace(catalog, shared=replace(catalog.shared, policy=policy))

"""What another KAITO release or another vLLM changes for what a catalog serves: memory, context, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kaito_catalog.catalog.entries import Catalog, Entry, Shared, with_profile
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_entry
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Profile
from kaito_catalog.memory.values import Fit
from kaito_catalog.plans import request as planning
from kaito_catalog.quantity import gib
from kaito_catalog.reports.markdown import escape
from kaito_catalog.vllm_bridge.reference import planned_as

_WORDS = {Fit.YES: "fits", Fit.TIGHT: "may not fit", Fit.NO: "does not fit", Fit.UNKNOWN: "unknown"}
_RANK = {Fit.NO: 0, Fit.TIGHT: 1, Fit.YES: 2}
_NONE = "—"


@dataclass(frozen=True)
class Served:
    """A model on one machine, as one profile starts it."""

    fits: Fit
    why: str | None
    """Where it does not fit or is unknown."""
    kv_cache_bytes: int | None
    """What is left for the KV cache on the GPU with least room."""
    longest_model_len: int | None
    nodes: int
    """That KAITO starts for one copy of the model."""
    findings: tuple[Diagnostic, ...]
    """Errors and warnings of the proposal's checks that no waiver takes away."""

    @property
    def context(self) -> str:
        """The longest context in words."""
        return _NONE if self.longest_model_len is None else f"{self.longest_model_len:,}"

    @property
    def cache(self) -> str:
        """Room for the KV cache in words."""
        return _NONE if self.kv_cache_bytes is None else gib(self.kv_cache_bytes)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "fits": self.fits.value,
            "reason": self.why,
            "kvCacheAvailableBytes": self.kv_cache_bytes,
            "longestModelLen": self.longest_model_len,
            "nodeCount": self.nodes,
        }


@dataclass(frozen=True)
class UpgradeRow:
    """One model on one machine, before and after."""

    model: str
    instance_type: str
    before: Served
    after: Served

    @property
    def appeared(self) -> tuple[Diagnostic, ...]:
        """Findings that only the later profile gives, such as an option that is gone."""
        return _only(self.after.findings, self.before.findings)

    @property
    def gone(self) -> tuple[Diagnostic, ...]:
        """Findings that only the earlier profile gives."""
        return _only(self.before.findings, self.after.findings)

    @property
    def memory_differs(self) -> bool:
        """Whether the verdict, the nodes, the room for the cache or the longest context changes."""
        return replace(self.before, findings=(), why=None) != replace(self.after, findings=(), why=None)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "model": self.model,
            "instanceType": self.instance_type,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "newFindings": [{"code": d.code, "message": d.message} for d in self.appeared],
            "goneFindings": [{"code": d.code, "message": d.message} for d in self.gone],
        }


@dataclass(frozen=True)
class Upgrade:
    """A catalog under two profiles."""

    before: Profile
    after: Profile
    rows: tuple[UpgradeRow, ...]
    left_out: Mapping[str, str]
    """Models that are not compared: name to reason."""

    def to_json(self) -> dict[str, Any]:
        """The contract of `diff --profile A..B --format json`."""
        return {
            "version": 1,
            "before": _profile_value(self.before),
            "after": _profile_value(self.after),
            "rows": [row.to_json() for row in self.rows],
            "leftOut": dict(self.left_out),
        }


def _profile_value(profile: Profile) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "kaitoRelease": profile.kaito_release,
        "vllmVersion": profile.vllm_version,
        "gpuMemoryUtilization": profile.gpu_memory_utilization,
    }


def _only(these: Iterable[Diagnostic], others: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    # Messages name versions and figures, so that a finding is told by its code and place.
    known = {(d.code, d.place) for d in others}
    return tuple(d for d in these if (d.code, d.place) not in known)


def with_vllm(catalog: Catalog, profile: str, vllm_version: str) -> Catalog:
    """The catalog as that profile would serve it with another vLLM and nothing else changed."""
    policy = catalog.shared.policy
    other = catalog.shared.profile(profile).model_copy(update={"vllm_version": vllm_version})
    profiles = [other if p.name == profile else p for p in policy.profiles]
    changed = policy.model_copy(update={"profiles": profiles, "profile": profile})
    return replace(catalog, shared=replace(catalog.shared, policy=changed))


@dataclass(frozen=True)
class ServedCatalog:
    """A catalog as its default profile serves it."""

    profile: Profile
    served: Mapping[tuple[str, str], Served]
    """By model and instance type."""
    left_out: Mapping[str, str]
    """Models without a row: name to reason."""


def state_of(
    catalog: Catalog,
    *,
    names: Sequence[str] = (),
    instance_types: Sequence[str] = (),
    step: Callable[[str], None] | None = None,
) -> ServedCatalog:
    """Every model on its machine, planned and checked; see `with_profile` and `with_vllm` for another profile.

    Args:
        catalog: what was read.
        names: the models; all by default.
        instance_types: the machines; each proposal's own by default.
        step: told each model's name before it is planned.

    Raises:
        CatalogError: there is no such instance type.
    """
    for name in instance_types:
        if catalog.shared.instance_type(name) is None:
            raise CatalogError(f"there is no instance type '{name[:60]}' in instance-types.yaml")
    served: dict[tuple[str, str], Served] = {}
    left_out: dict[str, str] = {}
    for entry in catalog.entries:
        if names and entry.name not in names:
            continue
        if step is not None:
            step(entry.name)
        proposal = entry.proposal
        if proposal is None or not entry.is_readable:
            left_out[entry.name] = "its files are not valid; see check"
            continue
        own = proposal.deployment.instance_type if proposal.deployment else None
        machines = tuple(instance_types) or ((own,) if own else ())
        if not machines:
            left_out[entry.name] = "its proposal names no instance type"
            continue
        findings = _findings(entry, catalog.shared)
        served |= {(entry.name, machine): _served(entry, catalog, machine, findings) for machine in machines}
    return ServedCatalog(catalog.shared.policy.default_profile(), served, left_out)


def upgrade(before: ServedCatalog, after: ServedCatalog) -> Upgrade:
    """What differs between two states of the same models on the same machines."""
    rows = tuple(UpgradeRow(*key, first, after.served[key]) for key, first in before.served.items())
    return Upgrade(before.profile, after.profile, rows, before.left_out)


def upgrades(catalog: Catalog) -> tuple[Upgrade, ...]:
    """From the policy's default profile to each of its others."""
    default = catalog.shared.policy.default_profile()
    others = [p.name for p in catalog.shared.policy.profiles if p.name != default.name]
    if not others:
        return ()
    before = state_of(catalog)
    return tuple(upgrade(before, state_of(with_profile(catalog, name))) for name in others)


def _findings(entry: Entry, shared: Shared) -> tuple[Diagnostic, ...]:
    report = check_entry(entry, CHECKS, Context(shared, shared.policy.default_profile()))
    wanted = (Severity.ERROR, Severity.WARNING)
    return tuple(d for d in report.diagnostics if d.severity in wanted and not d.waived)


def _served(entry: Entry, catalog: Catalog, machine: str, findings: tuple[Diagnostic, ...]) -> Served:
    asked = planning.PlanArguments(model=entry.name, instance_type=machine)
    shared = catalog.shared
    try:
        subject = planning.read_subject(
            asked, catalog.root, shared=shared, profile=shared.policy.default_profile()
        )
        started = planning.start_one(asked, subject, shared)
    except CatalogError as error:
        return Served(Fit.UNKNOWN, error.message, None, None, 1, findings)
    plan = planning.plan_of(started, asked, subject)
    left = plan.per_gpu.kv_cache_available_bytes if plan.per_gpu else None
    longest = plan.kv_cache.longest_model_len if plan.kv_cache else None
    return Served(plan.fits, plan.reason, left, longest, started.nodes, findings)


# --- Markdown ----------------------------------------------------------------------------------------------------


def upgrade_text(found: Upgrade, *, link: Callable[[str], str] = escape) -> str:
    """The comparison as Markdown: what the two are, counts, a table of memory, findings that differ.

    Args:
        found: the comparison.
        link: a model's name as Markdown.
    """
    changed = [row for row in found.rows if row.memory_differs]
    first, second = found.before, found.after
    ends = (
        (f"vLLM {first.vllm_version}", f"vLLM {second.vllm_version}")
        if first.name == second.name
        else (first.name, second.name)
    )
    blocks = [
        f"## From {escape(ends[0])} to {escape(ends[1])}",
        _what_differs(found.before, found.after),
        _counts(found),
    ]
    if changed:
        blocks.append(_table(changed, link))
    findings = [line for row in _by_model(found.rows) for line in _finding_lines(row, link)]
    if findings:
        blocks.append("\n".join(findings))
    blocks += [f"Not compared: {escape(name)}: {escape(why)}." for name, why in found.left_out.items()]
    return "\n\n".join(blocks) + "\n"


def _what_differs(before: Profile, after: Profile) -> str:
    said = [
        f"{words} {first} → {second}" if first != second else f"{words} {first} in both"
        for words, first, second in (
            ("KAITO", before.kaito_release, after.kaito_release),
            ("vLLM", before.vllm_version, after.vllm_version),
            ("gpu_memory_utilization", before.gpu_memory_utilization, after.gpu_memory_utilization),
        )
    ]
    notes = [f"{note.words}." for p in (before, after) if (note := planned_as(p.vllm_version))]
    return " ".join([f"{', '.join(said)}.", *dict.fromkeys(notes)])


def _counts(found: Upgrade) -> str:
    counted: Counter[str] = Counter()
    for row in found.rows:
        counted[_kind(row)] += 1
    total = len(found.rows)
    said = [f"{counted[kind]} {kind}" for kind in _KINDS if counted[kind]]
    models = len({row.model for row in found.rows})
    pairs = f"{models} models" if total == models else f"{models} models on {total} machines"
    return f"{pairs}: {', '.join(said) or 'nothing to compare'}."


_KINDS = ("fit worse", "fit better", "hold more context", "hold less context", "as before")


def _kind(row: UpgradeRow) -> str:
    before, after = row.before, row.after
    if before.fits is not after.fits:
        worse = _RANK.get(after.fits, -1) < _RANK.get(before.fits, -1)
        return _KINDS[0] if worse else _KINDS[1]
    first, second = before.longest_model_len or 0, after.longest_model_len or 0
    return _KINDS[4] if first == second else _KINDS[2] if second > first else _KINDS[3]


def _table(rows: Sequence[UpgradeRow], link: Callable[[str], str]) -> str:
    lines = [
        "| model | machine | verdict | longest context | left for KV cache, each GPU |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row.before, row.after
        cells = (
            _arrow(_machine(row.instance_type, before), _machine(row.instance_type, after)),
            _arrow(_WORDS[before.fits], _WORDS[after.fits]),
            _arrow(before.context, after.context),
            _arrow(before.cache, after.cache),
        )
        lines.append(f"| {' | '.join((link(row.model), *map(escape, cells)))} |")
    return "\n".join(lines)


def _machine(instance_type: str, served: Served) -> str:
    return instance_type if served.nodes == 1 else f"{served.nodes} × {instance_type}"


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _by_model(rows: Sequence[UpgradeRow]) -> list[UpgradeRow]:
    return list({row.model: row for row in reversed(rows)}.values())[::-1]


def _finding_lines(row: UpgradeRow, link: Callable[[str], str]) -> list[str]:
    new = [f"- {link(row.model)}: {d.code} {escape(d.message)}" for d in row.appeared]
    return new + [f"- {link(row.model)}: no longer {d.code} {escape(d.message)}" for d in row.gone]

"""What a change means: memory, GPUs, licence, files, options and evidence of every model it touches, as Markdown."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kaito_catalog.catalog import licenses
from kaito_catalog.catalog.entries import Catalog, Entry, Shared, with_profile
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun, ReportedRun
from kaito_catalog.plans import request as planning
from kaito_catalog.quantity import gb, gib
from kaito_catalog.reports.markdown import escape
from kaito_catalog.system import git

Facets = Mapping[str, str]
"""What is served, in words: ``Licence: id`` to ``mit``."""
_ABSENT = "—"


def facets(entry: Entry, root: Path, shared: Shared) -> dict[str, str]:
    """All that decides what is served of a model, by a name that a person reads."""
    proposal, facts = entry.proposal, entry.facts
    if proposal is None:
        return {"Proposal": "not readable; see `check`"}
    needs = proposal.requirements
    found: dict[str, object] = {
        "Status": proposal.metadata.status,
        "Model: repository": proposal.repo_id,
        "Model: type": needs.type,
        "Licence: claimed": proposal.license_id,
        "GPUs: count": needs.gpu_count,
        "GPUs: memory each": needs.per_gpu_memory,
        "GPUs: memory together": needs.total_gpu_memory,
        "Context: claimed": needs.context_length,
        "Files: revision": needs.version,
        "Files: disk claimed": needs.storage_size,
    }
    if proposal.license_id:
        found["Licence: images"] = licenses.image_hosting(proposal.license_id, shared.policy.licenses)
    if facts is not None:
        found["Licence: on the Hub"] = facts.license.id if facts.license else None
        found["Licence: gated"] = facts.gated
        if facts.repository is not None:
            found["Files: all"] = gb(facts.repository.size_bytes)
        if facts.weights is not None and facts.weights.total is not None:
            found["Files: weights"] = gb(facts.weights.total.size_bytes)
            found["Files: format"] = facts.weights.format
        found["Facts: how known"] = facts.source.kind
    if proposal.deployment is not None:
        found["GPUs: instance type"] = proposal.deployment.instance_type
        found["Options: secret"] = proposal.deployment.model_access_secret
    for runtime in proposal.runtimes or ():
        found[f"Options: {runtime.name}"] = "served"
        found[f"Options: {runtime.name} distributed"] = _yes(runtime.distributed_inference)
        found[f"Options: {runtime.name} remote code"] = _yes(runtime.trust_remote_code)
        for key, value in (runtime.config or {}).items():
            found[f"Options: {runtime.name} {key}"] = value
    for code, reason in (proposal.waivers or {}).items():
        found[f"Waiver: {code}"] = reason
    for evidence in entry.evidence:
        record = evidence.record
        found[f"Evidence: {Path(evidence.document.path).name}"] = (
            f"reported: {record.outcome or 'not told how it ended'}"
            if isinstance(record, ReportedRun)
            else record.outcome
            if isinstance(record, DryRun)
            else "exact plan"
        )
    found.update(_memory(entry, root, shared))
    return {key: str(value) for key, value in found.items() if value is not None}


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _memory(entry: Entry, root: Path, shared: Shared) -> dict[str, str]:
    deployment = entry.proposal.deployment if entry.proposal else None
    if entry.facts is None or deployment is None or deployment.instance_type is None:
        return {}
    request = planning.PlanArguments(model=entry.name, instance_type=deployment.instance_type)
    try:
        profile = shared.policy.default_profile()
        subject = planning.read_subject(request, root, shared=shared, profile=profile)
        plan = planning.plan_one(request, subject, shared)
    except CatalogError as error:
        return {"Memory: fits": f"unknown: {error.message}"}
    found = {"Memory: fits": plan.fits.value, "Memory: GPUs used": str(plan.parallelism.world_size)}
    if plan.per_gpu is not None:
        found["Memory: weights per GPU"] = gib(plan.per_gpu.weights_bytes)
        found["Memory: one request's KV cache per GPU"] = gib(plan.per_gpu.kv_cache_needed_bytes)
    if plan.kv_cache is not None:
        found["Memory: longest context"] = f"{plan.kv_cache.longest_model_len:,} tokens"
    return found


def _texts(entry: Entry) -> dict[str, bytes]:
    return {
        path.relative_to(entry.folder).as_posix(): path.read_bytes()
        for path in sorted(entry.folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@dataclass(frozen=True)
class ModelChange:
    """One model that is served differently: what of it, as (name, before, after); None is absent."""

    name: str
    how: Literal["new", "removed", "changed"]
    values: tuple[tuple[str, str | None, str | None], ...]


@dataclass(frozen=True)
class CatalogChange:
    """What differs between two catalogs in what they serve."""

    models: tuple[ModelChange, ...] = ()
    texts_only: tuple[str, ...] = ()
    """Models of which only texts changed."""
    shared_files: bool = False
    """Whether a file changed that all models share."""
    not_compared: str | None = None
    """Why nothing of this is known."""


def compare(before: Catalog, after: Catalog) -> CatalogChange:
    """What differs between two catalogs in what they serve."""
    old, new = ({entry.name: entry for entry in catalog.entries} for catalog in (before, after))
    shared_changed = before.shared != after.shared
    changed: list[ModelChange] = []
    texts_only: list[str] = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        edited = a is None or b is None or _texts(a) != _texts(b)
        if not edited and not shared_changed:
            continue
        first = facets(a, before.root, before.shared) if a else {}
        second = facets(b, after.root, after.shared) if b else {}
        if first == second:
            texts_only.extend([name] if edited else [])
            continue
        values = tuple(
            (key, first.get(key), second.get(key))
            for key in dict.fromkeys((*first, *second))
            if first.get(key) != second.get(key)
        )
        changed.append(
            ModelChange(name, "new" if a is None else "removed" if b is None else "changed", values)
        )
    return CatalogChange(tuple(changed), tuple(texts_only), shared_changed)


def change_markdown(change: CatalogChange) -> str:
    """The change as Markdown, a table for each model."""
    if change.not_compared is not None:
        return f"Not compared: {escape(change.not_compared)}\n"
    blocks = [f"### {escape(model.name)}: {model.how}\n\n{_table(model)}\n" for model in change.models]
    if change.shared_files:
        blocks.insert(0, "Files that all models share changed; every model was compared.\n")
    if change.texts_only:
        names = ", ".join(map(escape, change.texts_only))
        blocks.append(f"No change in what is served, only texts: {names}.\n")
    if not blocks or (change.shared_files and len(blocks) == 1):
        blocks.append("No change in what is served.\n")
    return "\n".join(blocks)


def _table(model: ModelChange) -> str:
    rows = ["| what | before | after |", "|---|---|---|"]
    rows.extend(
        f"| {escape(key)} | {escape(_ABSENT if before is None else before)} "
        f"| {escape(_ABSENT if after is None else after)} |"
        for key, before, after in model.values
    )
    return "\n".join(rows)


def diff_text(root: Path, revision: str, *, profile: str | None = None) -> str:
    """`changed_since` as Markdown."""
    return change_markdown(changed_since(root, revision, profile=profile))


def changed_since(root: Path, revision: str, *, profile: str | None = None) -> CatalogChange:
    """What changed between the commit at which this branch left `revision` and the files in `root`.

    Args:
        root: the catalog folder.
        revision: a commit, branch or tag.
        profile: the KAITO release that both are served with; each policy's own by default.

    Raises:
        CatalogError: no clone, no such revision, no such profile, or a catalog that cannot be read at either end.
    """
    base = git.branched_at(root, revision)
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        git.write_tree(root, base, Path(folder))
        if not (Path(folder) / "policy.yaml").is_file():
            raise CatalogError(f"there was no catalog at {base[:12]}", hint="choose a later commit")
        before, after = read_catalog(Path(folder)), read_catalog(root)
        if profile is not None:
            before, after = with_profile(before, profile), with_profile(after, profile)
        return compare(before, after)

"""Each claim of a proposal beside what is known of it: facts, plan and evidence, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ReportedRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import known_count
from kaito_catalog.quantity import gb, gib
from kaito_catalog.site.figures import InstanceRow
from kaito_catalog.site.model_page import ModelPage, context_limit, weights_bytes
from kaito_catalog.site.text import escape

GATED_WORDS = {"no": "no", "auto": "yes, granted at once", "manual": "yes, granted by a person", "yes": "yes"}


@dataclass(frozen=True)
class Claim:
    """A row of the claims table; each cell is ready for the page."""

    field: str
    claimed: Markup
    known: Markup
    source: str
    evidence: Markup
    evidence_source: str


def claims(page: ModelPage, policy: Policy) -> tuple[Claim, ...]:
    """Each claim of the proposal beside what is known, and from where."""
    facts, wanted = page.facts, page.proposal.requirements
    source = facts_source(facts)
    smallest = page.figures.smallest
    plan = f"plan, vLLM {page.figures.vllm_version}" if page.figures.vllm_version else ""
    license_facts = facts.license if facts else None
    rows: list[tuple[str, object, object, str]] = [
        ("Revision", wanted.version, facts.revision if facts else None, source),
        ("Licence", page.proposal.license_id, license_facts.id if license_facts else None, source),
        ("Task", wanted.type, facts.pipeline_tag if facts else None, source),
        ("Storage", note(wanted.storage_size, wanted.notes, "storageSize"), storage(page), source),
        ("GPUs", note(wanted.gpu_count, wanted.notes, "gpuCount"), gpus(smallest), plan),
        ("GPU memory in all", note(wanted.total_gpu_memory, wanted.notes, "totalGPUMemory"), None, ""),
        (
            "GPU memory each",
            note(wanted.per_gpu_memory, wanted.notes, "perGPUMemory"),
            gib(smallest.needed_bytes) + " needed" if smallest and smallest.needed_bytes else None,
            plan,
        ),
        ("Weights on each GPU", None, weights_each(page), plan),
        (
            "Context",
            tokens(known_count(wanted.context_length)),
            tokens(context_limit(page), "at most"),
            source,
        ),
        ("Runtime", ", ".join(r.name for r in page.proposal.runtimes or ()), None, ""),
        ("Gated", None, GATED_WORDS.get(facts.gated or "") if facts else None, source),
    ]
    seen = evidence(page.entry)
    return tuple(
        Claim(
            name,
            cell(claimed),
            cell(known),
            where if known is not None else "",
            *((cell(seen[name][0]), seen[name][1]) if name in seen else (cell(None), "")),
        )
        for name, claimed, known, where in rows
        if not (is_missing(claimed) and known is None and name not in seen)
    )


def weights_each(page: ModelPage) -> str | None:
    """The weights on each GPU of the instance type that the chart is about."""
    chart = page.figures.chart
    return f"{gib(chart.weights_bytes)} with {chart.parallelism}" if chart else None


def evidence(entry: Entry) -> dict[str, tuple[str, str]]:
    """What the newest evidence says of each figure, and where it is from: `dry run, vLLM 0.25.1, 2026-11-01`."""
    found: dict[str, tuple[str, str]] = {}
    records = [e.record for e in entry.evidence]
    # What somebody reports stands where nothing was measured, and never for a revision.
    for record in sorted(records, key=lambda r: (not isinstance(r, ReportedRun), r.recorded_at)):
        if isinstance(record, ReportedRun):
            found |= {field: (value, _reporter(record)) for field, value in _reported(record).items()}
            continue
        kind = "dry run" if isinstance(record, DryRun) else "exact plan"
        source = f"{kind}, vLLM {record.versions.vllm}, {record.recorded_at}"
        said = _dry_run(record) if isinstance(record, DryRun) else _exact_plan(record)
        if record.revision:
            said["Revision"] = record.revision
        found |= {field: (value, source) for field, value in said.items()}
    return found


def _reporter(record: ReportedRun) -> str:
    version = f", vLLM {record.versions.vllm}" if record.versions else ""
    return f"reported by {record.reported_by or 'somebody'}{version}, {record.recorded_at}"


def _reported(record: ReportedRun) -> dict[str, str]:
    said: dict[str, str] = {}
    if record.outcome and record.gpu and record.gpu.name:
        count = f"{record.gpu.count} × " if record.gpu.count else ""
        said["GPUs"] = f"{record.outcome} on {count}{record.gpu.name}"
    elif record.outcome and record.instance_type:
        count = f"{record.node_count} × " if record.node_count else ""
        said["GPUs"] = f"{record.outcome} on {count}{record.instance_type}"
    peak = record.performance.peak_tokens_per_minute if record.performance else None
    if "GPUs" in said and peak is not None:
        said["GPUs"] += f", {peak:,.0f} tokens per minute in KAITO's benchmark"
    weights = [rank.weights_bytes for rank in record.ranks or () if rank.weights_bytes is not None]
    size = record.parallelism.tensor_parallel_size if record.parallelism else None
    if weights:
        said["Weights on each GPU"] = gib(max(weights)) + (f" with TP {size}" if size else "")
    if record.kv_cache_tokens is not None:
        said["Context"] = f"{record.kv_cache_tokens:,} tokens of KV cache"
    return said


def _exact_plan(record: ExactPlan) -> dict[str, str]:
    weights = [
        f"{gib(max(rank.weights_bytes for rank in world.ranks))} with "
        f"TP {world.parallelism.tensor_parallel_size}"
        for world in record.worlds
        if world.ranks and world.parallelism.pipeline_parallel_size == 1
    ]
    return {"Weights on each GPU": "; ".join(weights)} if weights else {}


def _dry_run(record: DryRun) -> dict[str, str]:
    """The figures of a run of the whole model; a scaled-down one says nothing about its size."""
    said: dict[str, str] = {}
    if record.scaled_down is not None:
        return said
    if record.gpu:
        said["GPUs"] = f"{record.outcome} on {record.gpu.count} × {record.gpu.name}"
    weights = [rank.weights_bytes for rank in record.ranks or () if rank.weights_bytes is not None]
    if weights:
        size = record.parallelism.tensor_parallel_size
        said["Weights on each GPU"] = f"{gib(max(weights))} with TP {size}"
    if record.kv_cache_tokens is not None:
        said["Context"] = f"{record.kv_cache_tokens:,} tokens of KV cache"
    return said


def facts_source(facts: ModelFacts | None) -> str:
    """Where the facts are from, in words."""
    if facts is None:
        return ""
    kinds = {"hub": "the Hub", "local": "a copy on disk", "transcribed": "transcribed"}
    return f"{kinds[facts.source.kind]}, {facts.recorded_at}"


def cell(value: object) -> Markup:
    """A table cell; what is not given is a dash."""
    return Markup('<span class="kc-none">—</span>') if is_missing(value) else escape(value)


def note(value: object, notes: Mapping[str, str] | None, field: str) -> str | None:
    """A claim with what was said around it."""
    said = (notes or {}).get(field)
    return None if is_missing(value) else f"{value} ({said})" if said else str(value)


def tokens(count: int | None, prefix: str = "") -> str | None:
    """A context length in words."""
    return None if count is None else f"{prefix} {count:,} tokens".strip()


def both(size_bytes: int | None) -> str | None:
    """A size in GiB and in GB, as proposals mix them up."""
    return None if size_bytes is None else f"{gib(size_bytes)} ({gb(size_bytes)})"


def storage(page: ModelPage) -> str | None:
    """What the files take: the weights that vLLM downloads, and all of the repository."""
    repository = page.facts.repository if page.facts else None
    weights = both(weights_bytes(page))
    whole = both(repository.size_bytes if repository else None)
    parts = (f"weight files {weights}" if weights else None, f"all files {whole}" if whole else None)
    return "; ".join(part for part in parts if part) or None


def gpus(row: InstanceRow | None) -> str | None:
    """The GPUs of the smallest instance type that fits."""
    return f"{row.gpu_count} × {row.gpu}" if row else None

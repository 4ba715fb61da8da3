"""The site's pages as Markdown: the catalog, one page a model, the checks."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.checks.registry import FAMILIES
from kaito_catalog.diagnostics import Diagnostic, Skipped
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.evidence import DryRun, ExactPlan
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal, known_count, known_size
from kaito_catalog.kaito.manifests import Manifests
from kaito_catalog.kaito.model_catalog import model_token_limit, natural
from kaito_catalog.quantity import gb, gib
from kaito_catalog.site import chart
from kaito_catalog.site import kaito as kaito_view
from kaito_catalog.site.figures import Figures, Fit, InstanceRow, MatrixRow
from kaito_catalog.site.text import escape, fenced, line, link, prose, words

Finding = Diagnostic | Skipped

VERDICTS = {Fit.YES: "fits", Fit.TIGHT: "tight", Fit.NO: "does not fit", Fit.UNKNOWN: "unknown"}
SHORT_VERDICTS = {**VERDICTS, Fit.NO: "no"}
LIMITS = {
    "kvCache": "KV cache",
    "maxModelLen": "the model's own limit",
    "maxNumSeqs": "max_num_seqs",
    "gpu": "GPU memory not published",
}
"""Words for the terms of a plan that are no words themselves."""
CLOUDS = {"azure": "Azure", "aws": "AWS", "gcp": "Google Cloud", "arc": "Azure Arc"}
_SHOWN = 6
"""Rows of the tables of instance types before they are folded."""
GATED = {"no": "no", "auto": "yes, granted at once", "manual": "yes, granted by a person", "yes": "yes"}


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
CLAIMED = Proof("claimed", "claimed", "nobody has recorded facts")
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

    @property
    def facts(self) -> ModelFacts | None:
        return self.entry.facts

    @property
    def repo_id(self) -> str:
        """The Hub's name, or the catalog's where there is none."""
        return (self.facts.repo_id if self.facts else None) or self.proposal.repo_id or self.entry.name


@dataclass(frozen=True)
class Claim:
    """A row of the claims table; each cell is ready for the page."""

    field: str
    claimed: Markup
    known: Markup
    source: str
    evidence: Markup
    evidence_source: str


def proof(entry: Entry) -> Proof:
    """The best source an entry has."""
    runs = [e.record for e in entry.evidence if isinstance(e.record, DryRun)]
    # A run on a CPU, or of a model that was scaled down, measures nothing that a plan is about.
    if any(run.outcome == "served" and run.device == "cuda" and not run.scaled_down for run in runs):
        return MEASURED
    if any(not isinstance(e.record, DryRun) for e in entry.evidence):
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
        ("Gated", None, GATED.get(facts.gated or "") if facts else None, source),
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
    for record in sorted((e.record for e in entry.evidence), key=lambda r: r.recorded_at):
        kind = "dry run" if isinstance(record, DryRun) else "exact plan"
        source = f"{kind}, vLLM {record.versions.vllm}, {record.recorded_at}"
        said = _dry_run(record) if isinstance(record, DryRun) else _exact_plan(record)
        if record.revision:
            said["Revision"] = record.revision
        found |= {field: (value, source) for field, value in said.items()}
    return found


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
    """A table cell; what nobody said is a dash."""
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


# Rendering


@functools.cache
def _environment() -> Environment:
    folder = resources.files("kaito_catalog.site") / "templates"

    def load(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        gib=gib, tokens=tokens, cell=cell, prose=prose, line=line, fenced=fenced, json=_front_matter
    )
    environment.globals.update(
        link=link,
        verdicts=VERDICTS,
        short_verdicts=SHORT_VERDICTS,
        clouds=CLOUDS,
        limits=LIMITS,
        short=chart.short,
    )
    return environment


def _front_matter(text: str) -> Markup:
    """A quoted YAML scalar."""
    return Markup(json.dumps(words(text), ensure_ascii=True))  # noqa: S704 - quoted


def index_page(pages: Sequence[ModelPage], catalog: Catalog) -> str:
    """The catalog as one table."""
    policy = catalog.shared.policy
    profile = policy.default_profile()
    rows: list[dict[str, Any]] = [
        {
            "name": page.entry.name,
            "org": page.repo_id.rpartition("/")[0],
            "model": page.repo_id.rpartition("/")[2],
            "family": page.proposal.requirements.family_name,
            "task": task(page, policy),
            "license": license_name(page, policy),
            "weights": weights_bytes(page),
            "smallest": sorted(page.figures.smallest_by_cloud, key=lambda r: list(CLOUDS).index(r.cloud)),
            "planned": bool(page.figures.rows) and page.figures.unknown is None,
            "max_model_len": page.figures.max_model_len,
            "context": context_limit(page),
            "status": page.proposal.metadata.status,
            "proof": proof(page.entry),
            "proof_rank": PROOFS.index(proof(page.entry)),
            "gpu_memory": _gpu_memory(page, catalog),
        }
        for page in sorted(pages, key=lambda p: natural(p.repo_id))
    ]
    instances = {choice.name for row in rows for choice in row["smallest"]}
    choices = (
        ("task", "Task", _distinct(row["task"] for row in rows)),
        ("license", "Licence", _distinct(row["license"] for row in rows)),
        ("family", "Family", _distinct(row["family"] for row in rows)),
        ("instance", "Instance type", _distinct(instances)),
        ("status", "Status", _distinct(row["status"] for row in rows)),
        ("proof", "How well proven", [p.word for p in PROOFS if any(row["proof"] is p for row in rows)]),
    )
    return _render(
        "index.md.j2",
        rows=rows,
        profile=profile,
        proofs=PROOFS,
        choices=choices,
        contexts=CONTEXTS,
        memories=MEMORIES,
    )


CONTEXTS = (8192, 16384, 32768, 65536, 131072, 262144)
"""Contexts that a reader may ask for at least."""
MEMORIES = (8, 16, 32, 64, 128, 256, 512)
"""Weights that a reader may allow at most, in GiB."""


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value}, key=natural)


def _gpu_memory(page: ModelPage, catalog: Catalog) -> int | None:
    """All GPU memory of the smallest instance type that fits."""
    row = page.figures.smallest
    gpu = catalog.shared.gpu(row.gpu) if row else None
    return row.gpu_count * gpu.memory_bytes if row and gpu and gpu.memory_bytes else None


def calculator_page(catalog: Catalog) -> str:
    """The form of the calculator; scripts fill it."""
    return _render("calculator.md.j2", profile=catalog.shared.policy.default_profile())


def hardware_page(catalog: Catalog, gpus: Sequence[object], counts: Sequence[int], known: set[str]) -> str:
    """A table for each GPU, and the form over all."""
    return _render(
        "hardware.md.j2",
        profile=catalog.shared.policy.default_profile(),
        gpus=gpus,
        counts=counts,
        contexts=CONTEXTS,
        without=[gpu.name for gpu in catalog.shared.gpus if gpu.name not in known],
    )


def model_page(page: ModelPage, catalog: Catalog) -> str:
    """What one model is, where it fits, what to paste."""
    policy = catalog.shared.policy
    figures = page.figures
    fitting = [row for row in figures.rows if row.fits is Fit.YES]
    tight = [row for row in figures.rows if row.fits is Fit.TIGHT]
    telling, roomy = _split_matrix(figures.matrix)
    return _render(
        "model.md.j2",
        page=page,
        slug=Markup(page.entry.name),  # noqa: S704 - the pattern of names allows nothing that is markup
        proposal=page.proposal,
        facts=page.facts,
        figures=figures,
        kaito=kaito_view.view(page.entry, catalog.shared),
        best=fitting[:_SHOWN] + tight[:_SHOWN],
        more=fitting[_SHOWN:] + tight[_SHOWN:],
        others=[row for row in figures.rows if row.fits in (Fit.NO, Fit.UNKNOWN)],
        matrix_shown=telling,
        matrix_roomy=roomy,
        chart=figures.chart,
        chart_svg=chart.svg(figures.chart) if figures.chart else None,
        chart_rows=chart.table(figures.chart) if figures.chart else (),
        claims=claims(page, policy),
        proof=proof(page.entry),
        license=license_name(page, policy),
        public_image=_public_image(page, policy),
        task=task(page, policy),
        weights=weights_bytes(page),
        context=context_limit(page),
        references=(page.facts.source.references or ()) if page.facts else (),
        claimed_on=page.proposal.metadata.last_updated or page.proposal.metadata.creation_date,
        evidence=[e.record for e in page.entry.evidence],
        findings=[f for f in page.findings or () if isinstance(f, Diagnostic)],
        skipped=[f for f in page.findings or () if isinstance(f, Skipped)],
        checked=page.findings is not None,
        claimed_size=known_size(page.proposal.requirements.storage_size),
    )


def _split_matrix(rows: Sequence[MatrixRow]) -> tuple[list[MatrixRow], list[MatrixRow]]:
    """The rows worth a look, and those after the first few that say "fits" in every cell."""
    fitting = [row for row in rows if row.ever_fits]
    telling = [r for i, r in enumerate(fitting) if i < _SHOWN or any(c.fits is not Fit.YES for c in r.cells)]
    return telling, [row for row in fitting if row not in telling]


def _public_image(page: ModelPage, policy: Policy) -> bool | None:
    """Whether the licence lets KAITO's maintainers host an image; None where the licence is not known."""
    recorded = page.facts.license if page.facts else None
    return recorded.id in policy.licenses.public_images if recorded else None


def checks_page(checks: Sequence[tuple[str, str, str]]) -> str:
    """The reference of all checks: (code, title, documentation); the latter is our own Markdown."""
    shown = [(code, title, Markup(text.strip())) for code, title, text in checks]  # noqa: S704 - ours
    families = [
        (family, words, [item for item in shown if item[0].startswith(family)])
        for family, words in FAMILIES.items()
    ]
    return _render("checks.md.j2", checks=shown, families=[f for f in families if f[2]])


def _render(template: str, **values: Any) -> str:
    text = _environment().get_template(template).render(**values)
    return "\n".join(text_line.rstrip() for text_line in text.rstrip().split("\n")) + "\n"

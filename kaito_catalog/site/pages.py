"""The site's pages as Markdown: the catalog, one page a model, the checks."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kaito_catalog.catalog.entries import PROPOSAL, Catalog
from kaito_catalog.checks.registry import FAMILIES
from kaito_catalog.diagnostics import Diagnostic, Skipped
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import known_size
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.plans import recommend
from kaito_catalog.quantity import gib
from kaito_catalog.site import chart, feeds
from kaito_catalog.site import kaito as kaito_view
from kaito_catalog.site.claims import cell, claims, tokens
from kaito_catalog.site.figures import Fit, MatrixRow
from kaito_catalog.site.model_page import (
    PROOFS,
    ModelPage,
    context_limit,
    license_name,
    proof,
    task,
    weights_bytes,
)
from kaito_catalog.site.text import escape, fenced, line, link, prose, words

VERDICT_WORDS = {Fit.YES: "fits", Fit.TIGHT: "may not fit", Fit.NO: "does not fit", Fit.UNKNOWN: "unknown"}
SHORT_VERDICTS = {**VERDICT_WORDS, Fit.TIGHT: "maybe", Fit.NO: "no"}
LIMITED_BY_WORDS = {
    "kvCache": "KV cache",
    "maxModelLen": "the model's own limit",
    "maxNumSeqs": "max_num_seqs",
    "freeMemory": "free memory at the start",
    "gpu": "GPU memory not published",
    "nodes": "KAITO starts further nodes",
    "disableHybridKvCacheManager": "the hybrid KV cache manager is off",
    "settings": "the options",
    "speculation": "what guesses tokens",
    "quantization": "how the weights are stored",
}
"""Words for the terms of a plan that are no words themselves."""
CLOUDS = {"azure": "Azure", "aws": "AWS", "gcp": "Google Cloud", "arc": "Azure Arc"}
_SHOWN = 6
"""Rows of the tables of instance types before they are folded."""


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
        gib=gib,
        tokens=tokens,
        cell=cell,
        money=recommend.money,
        prose=prose,
        line=line,
        fenced=fenced,
        json=_front_matter,
    )
    environment.globals.update(
        link=link,
        verdicts=VERDICT_WORDS,
        short_verdicts=SHORT_VERDICTS,
        clouds=CLOUDS,
        limits=LIMITED_BY_WORDS,
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
    if row is None or gpu is None or gpu.memory_bytes is None:
        return None
    machine = catalog.shared.instance_type(row.name)
    return row.gpu_count * ((machine and machine.memory_bytes) or gpu.memory_bytes)


def calculator_page(catalog: Catalog) -> str:
    """The form of the calculator; scripts fill it."""
    return _render("calculator.md.j2", profile=catalog.shared.policy.default_profile())


def hardware_page(catalog: Catalog, gpus: Sequence[object], counts: Sequence[int], known: set[str]) -> str:
    """A table for each rented GPU, and the form over all."""
    rented = {catalog.shared.gpu_by_name[machine.gpu].name for machine in catalog.shared.instance_types}
    return _render(
        "hardware.md.j2",
        profile=catalog.shared.policy.default_profile(),
        gpus=gpus,
        counts=counts,
        contexts=CONTEXTS,
        without=[gpu.name for gpu in catalog.shared.gpus if gpu.name in rented - known],
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
        description=feeds.description(page, catalog),
        source=f"catalog/models/{page.entry.name}/{PROPOSAL}",
        slug=Markup(page.entry.name),  # noqa: S704 - the pattern of names allows nothing that is markup
        proposal=page.proposal,
        facts=page.facts,
        figures=figures,
        prices=catalog.shared.price_sources,
        own_machine=page.own_machine,
        own_row=figures.row(page.own_machine),
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

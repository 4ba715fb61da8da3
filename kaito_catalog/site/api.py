"""The catalog as JSON: `api/v1/index.json` and one file a model. Keys are added, never renamed, within v1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.diagnostics import Diagnostic
from kaito_catalog.formats.proposal import known_count, known_size
from kaito_catalog.kaito.model_catalog import natural
from kaito_catalog.plans import recommend
from kaito_catalog.quantity import Quantity
from kaito_catalog.site import kaito, model_page
from kaito_catalog.site.figures import Figures, InstanceRow, MemoryChart
from kaito_catalog.site.model_page import ModelPage

SITE_API_VERSION = "v1"


def index(models: Sequence[ModelPage], catalog: Catalog) -> str:
    """`{"models": [{"name": …}, …]}`, in the order of the catalog page."""
    ordered = sorted(models, key=lambda page: natural(page.repo_id))
    return _write({"apiVersion": SITE_API_VERSION, "models": [summary(page, catalog) for page in ordered]})


def model(page: ModelPage, catalog: Catalog) -> str:
    """All of a model's page as data; null means unknown. Sizes are bytes."""
    facts, figures, wanted = page.facts, page.figures, page.proposal.requirements
    return _write(
        {
            "apiVersion": SITE_API_VERSION,
            **summary(page, catalog),
            "description": page.proposal.summary.description if page.proposal.summary else None,
            "gated": facts.gated if facts else None,
            "facts": {
                "source": facts.source.kind,
                "recordedAt": facts.recorded_at,
                "revision": facts.revision,
                "license": facts.license.id if facts.license else None,
                "architectures": (facts.config or {}).get("architectures"),
            }
            if facts
            else None,
            "claims": {
                "version": wanted.version,
                "storageSize": _size(wanted.storage_size),
                "gpuCount": known_count(wanted.gpu_count),
                "totalGPUMemory": _size(wanted.total_gpu_memory),
                "perGPUMemory": _size(wanted.per_gpu_memory),
                "contextLength": known_count(wanted.context_length),
                "notes": wanted.notes or {},
            },
            "plan": plan(figures),
            "kaito": kaito.to_json(kaito.view(page.entry, catalog.shared)),
            "manifests": page.manifests.files,
            "notGenerated": page.manifests.left_out,
            "findings": None
            if page.findings is None
            else [
                {
                    "code": finding.code,
                    "severity": finding.severity.value,
                    "message": finding.message,
                    "waived": finding.waived,
                }
                for finding in page.findings
                if isinstance(finding, Diagnostic)
            ],
        }
    )


def summary(page: ModelPage, catalog: Catalog) -> dict[str, Any]:
    """A model as the index lists it."""
    policy = catalog.shared.policy
    smallest = page.figures.smallest
    total = page.facts.weights.total if page.facts and page.facts.weights else None
    return {
        "name": page.entry.name,
        "repoId": page.repo_id,
        "family": page.proposal.requirements.family_name,
        "task": model_page.task(page, policy),
        "license": model_page.license_name(page, policy),
        "status": page.proposal.metadata.status,
        "proof": model_page.proof(page.entry).level,
        "revision": page.facts.revision if page.facts else None,
        "weightsBytes": model_page.weights_bytes(page),
        "weightsPrecisionBytes": total.precision_bytes if total else None,
        "contextLimit": model_page.context_limit(page),
        "smallestInstanceType": smallest.name if smallest else None,
        "smallestInstanceTypes": {row.cloud: row.name for row in page.figures.smallest_by_cloud},
        "smallestInstanceTypeContext": page.figures.max_model_len if smallest else None,
    }


def plan(figures: Figures) -> dict[str, Any] | None:
    """The plan of every instance type, and the chart's curve."""
    if not figures.rows:
        return None if figures.unknown is None else {"unknown": figures.unknown, "instanceTypes": []}
    return {
        "profile": figures.profile,
        "vllmVersion": figures.vllm_version,
        "maxModelLen": figures.max_model_len,
        "options": list(figures.options),
        "unknown": figures.unknown,
        "recommended": {
            **recommend.to_json(figures.recommended),
            "byCloud": recommend.clouds_to_json(figures.recommended_by_cloud),
        }
        if figures.recommended
        else None,
        "instanceTypes": [_row(row) for row in figures.rows],
        "matrix": {
            "contexts": list(figures.contexts),
            "rows": [
                {
                    "instanceTypes": list(row.names),
                    "gpu": row.gpu,
                    "gpuCount": row.gpu_count,
                    "parallelism": row.parallelism,
                    "fits": [cell.fits.value for cell in row.cells],
                    "limitedBy": [cell.limited_by for cell in row.cells],
                }
                for row in figures.matrix
            ],
        },
        "memory": _chart(figures.chart) if figures.chart else None,
    }


def _size(claim: Quantity | str | None) -> dict[str, Any] | None:
    size = known_size(claim)
    return {"text": size.text, "bytes": size.bytes} if size else None


def _row(row: InstanceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "cloud": row.cloud,
        "gpu": row.gpu,
        "gpuCount": row.gpu_count,
        "fits": row.fits.value,
        "limitedBy": row.limited_by,
        "reason": row.reason,
        "parallelism": row.parallelism,
        "nodes": row.nodes,
        "weightsBytesPerGPU": row.weights_bytes,
        "kvCacheNeededBytesPerGPU": row.kv_cache_needed_bytes,
        "neededBytesPerGPU": row.needed_bytes,
        "budgetBytesPerGPU": row.budget_bytes,
        "longestModelLen": row.longest_model_len,
        "price": recommend.price_to_json(row.price),
    }


def _chart(chart: MemoryChart) -> dict[str, Any]:
    return {
        "instanceType": chart.instance_type,
        "budgetBytesPerGPU": chart.budget_bytes,
        "weightsBytesPerGPU": chart.weights_bytes,
        "overheadsBytesPerGPU": chart.overheads_bytes,
        "kvCacheBytesPerGPU": [[p.max_model_len, p.kv_cache_bytes] for p in chart.points],
    }


def _write(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

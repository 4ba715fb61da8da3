"""A model as a CycloneDX 1.6 bill of materials (ML-BOM): the repository at its commit, its licence, its files."""

from __future__ import annotations

import uuid
from typing import Any

from kaito_catalog.exports.wanting import (
    Pinned,
    architecture,
    license_names,
    pinned,
    text_field,
    without_digest,
    written,
)
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import LicensePolicy

BOM = "bom.cdx.json"
SPEC_VERSION = "1.6"


def bill_of_materials(facts: ModelFacts | None, policy: LicensePolicy) -> dict[str, str]:
    """The file of a model, by its name.

    Raises:
        CannotBeMadeError: its commit or licence is not recorded.
    """
    model = pinned(facts)
    listed = model.facts.files or ()
    files = [_file(model, file.path, file.size_bytes, file.sha256) for file in listed]
    ref = _purl(model)
    value: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "kaito-catalog"}]},
            "component": _model(model, policy),
        },
        "components": files,
        "dependencies": [{"ref": ref, "dependsOn": [file["bom-ref"] for file in files]}],
        "compositions": [{"aggregate": _completeness(model), "assemblies": [ref]}],
    }
    # No clock and no chance: the same facts have the same number, and others have another.
    content = written(value)
    value["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    return {BOM: written(value)}


def _purl(model: Pinned) -> str:
    return f"pkg:huggingface/{model.facts.repo_id}@{model.revision}"


def _completeness(model: Pinned) -> str:
    """Whether every file stands in it, with its hash."""
    if not model.facts.files or model.facts.source.kind == "transcribed":
        return "unknown"
    return "incomplete" if without_digest(model.facts.files) else "complete"


def _model(model: Pinned, policy: LicensePolicy) -> dict[str, Any]:
    facts, license_ = model.facts, model.license
    parameters = {
        "task": facts.pipeline_tag,
        "architectureFamily": text_field(facts, "model_type"),
        "modelArchitecture": architecture(facts),
    }
    value: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _purl(model),
        "group": model.organisation,
        "name": model.name,
        "version": model.revision,
        "purl": _purl(model),
        "licenses": [
            {
                "license": {
                    "id" if is_spdx else "name": name,
                    "acknowledgement": "declared",
                    **({"url": license_.link} if license_.link else {}),
                }
            }
            for name, is_spdx in license_names(license_, policy)
        ],
        "externalReferences": [{"type": "distribution", "url": model.page}],
        "modelCard": {"modelParameters": {key: part for key, part in parameters.items() if part}},
        "properties": [{"name": "kaito-catalog:facts", "value": facts.source.kind}],
    }
    if facts.base_models:
        value["pedigree"] = {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "group": base.partition("/")[0],
                    "name": base.partition("/")[2],
                }
                for base in facts.base_models
            ]
        }
    return value


def _file(model: Pinned, path: str, size_bytes: int | None, sha256: str | None) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "file", "bom-ref": f"{_purl(model)}#{path}", "name": path}
    if sha256 is not None:
        value["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    if size_bytes is not None:
        value["properties"] = [{"name": "kaito-catalog:sizeBytes", "value": str(size_bytes)}]
    return value

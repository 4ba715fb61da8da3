"""JSON Schema (draft-07, which editors read best) of every file kind, generated from the models."""

from __future__ import annotations

import json
from typing import Any

from kaito_catalog.formats.base import Model
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ReportedRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.hardware import Gpus, InstanceTypes, Prices
from kaito_catalog.formats.policy import Policy
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.formats.report import CheckReport

FILE_KINDS: dict[str, type[Model]] = {
    "proposal": Proposal,
    "facts": ModelFacts,
    "exact-plan": ExactPlan,
    "dry-run": DryRun,
    "reported-run": ReportedRun,
    "gpus": Gpus,
    "instance-types": InstanceTypes,
    "prices": Prices,
    "policy": Policy,
    "report": CheckReport,
}
"""The name of each schema file, and its model."""


def json_schema(model: type[Model]) -> dict[str, Any]:
    """The draft-07 schema of a file kind."""
    schema = _draft7(model.model_json_schema(by_alias=True, mode="validation"))
    assert isinstance(schema, dict)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _draft7(node: Any) -> Any:
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "$defs":
            result["definitions"] = {name: _draft7(part) for name, part in value.items()}
        elif key == "$ref":
            result[key] = value.replace("#/$defs/", "#/definitions/")
        elif key == "properties":
            result[key] = {name: _draft7(part) for name, part in value.items()}
        elif key == "title" and isinstance(value, str):
            continue  # pydantic makes titles of field names; editors show the key itself
        elif key == "default" and value is None:
            continue
        else:
            result[key] = _draft7(value)
    if "patternProperties" in result:
        # pydantic refuses other keys; JSON Schema lets them pass unless told.
        result.setdefault("additionalProperties", False)
    if "$ref" in result and len(result) > 1:
        # draft-07 ignores everything beside $ref.
        result = {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result


def files() -> dict[str, str]:
    """Every schema file: name to text."""
    return {
        f"{name}.schema.json": json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"
        for name, model in FILE_KINDS.items()
    }

"""KAITO's own CRD files: whether a cluster that has them would take a manifest, by their schemas and CEL rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kaito_catalog.errors import CatalogError, visible

_MOST_BYTES = 8 * 2**20
_MOST_FILES = 200
_PLACES = ("config/crd/bases", "charts/kaito/workspace/templates", "")
_KIND = "CustomResourceDefinition"
_MOST_PROBLEMS = 20
_DEEPEST = 60


@dataclass(frozen=True)
class CustomResources:
    """The kinds of a folder of CRDs."""

    folder: Path
    schemas: Mapping[tuple[str, str], Mapping[str, Any]]
    """By apiVersion and kind, as the file has it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(sorted({kind for _, kind in self.schemas}))

    def problems(self, manifest: Mapping[str, Any]) -> tuple[tuple[tuple[str | int, ...], str], ...] | None:
        """Why a cluster would refuse an object, each with its route; None where no CRD here is of its kind.

        Unknown fields count, as `kubectl` refuses them. Rules about changes of an object (`oldSelf`) need two of them
        and are left out.
        """
        api_version, kind = str(manifest.get("apiVersion")), str(manifest.get("kind"))
        schema = self.schemas.get((api_version, kind))
        if schema is None:
            others = sorted(version for version, name in self.schemas if name == kind)
            wanted = f"the CRD of {kind} has {', '.join(others)}, not {api_version[:80]}"
            return ((("apiVersion",), wanted),) if others else None
        found = [*_schema_problems(schema, manifest), *_rule_problems(schema, manifest, ())]
        return tuple(found[:_MOST_PROBLEMS])


def read_crds(folder: Path) -> CustomResources:
    """The CRDs below a folder: KAITO's `config/crd/bases`, its chart's templates, a checkout, or single files.

    Raises:
        CatalogError: there are none, or what reads them is not installed.
    """
    _need_libraries()
    if not folder.is_dir():
        raise CatalogError(f"{folder} is not a folder", hint="--crds takes KAITO's config/crd/bases")
    root = next(folder / place for place in _PLACES if (folder / place).is_dir())
    schemas: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path in sorted(root.glob("*.yaml"))[:_MOST_FILES]:
        for document in _documents(path):
            schemas.update(_of_definition(document))
    if not schemas:
        raise CatalogError(
            f"no file of {root} is a {_KIND}",
            hint="--crds takes KAITO's config/crd/bases, or a checkout of KAITO",
        )
    return CustomResources(root, schemas)


def _need_libraries() -> None:
    try:
        import celpy  # noqa: F401
        import jsonschema  # noqa: F401
    except ImportError as error:
        raise CatalogError(
            f"--crds needs {error.name}, which is not installed", hint="pip install 'kaito-catalog[crds]'"
        ) from error


def _documents(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CatalogError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB")
        text = path.read_text(encoding="utf-8")
        if f"kind: {_KIND}" not in text:
            return []
        # libyaml where it is there; a chart's templates in the file would be no YAML.
        return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CatalogError(f"cannot read {path}: {visible(str(error))[:300]}") from error


def _of_definition(value: Any) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    if not isinstance(value, dict) or value.get("kind") != _KIND:
        return
    try:
        spec = value["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", str(spec["names"]["kind"]))
            if version.get("served", True):
                yield key, version["schema"]["openAPIV3Schema"]
    except (KeyError, TypeError, AttributeError) as error:
        name = str(value.get("metadata", {}))[:80]
        raise CatalogError(f"the {_KIND} {name} has not the form of one: {error!r}") from error


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema that refuses unknown fields, as a server asked to be strict does."""
    result: dict[str, Any] = _strict(schema, 0)
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}} | result.get("properties", {})
    metadata = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    return {**result, "properties": {**properties, "metadata": metadata}}


def _strict(node: Any, depth: int) -> Any:
    if depth > _DEEPEST or not isinstance(node, dict):
        return node
    result: dict[str, Any] = {}
    for key, part in node.items():
        if key in ("properties", "patternProperties") and isinstance(part, dict):
            result[key] = {name: _strict(inner, depth + 1) for name, inner in part.items()}
        elif key in ("items", "not") or (key == "additionalProperties" and isinstance(part, dict)):
            result[key] = _strict(part, depth + 1)
        elif key in ("allOf", "anyOf", "oneOf") and isinstance(part, list):
            result[key] = part  # they only narrow what the node itself lists
        elif not key.startswith("x-kubernetes-") and key != "description":
            result[key] = part
    if node.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if node.get("nullable") and "type" in result:
        result["type"] = [result["type"], "null"]
    if "properties" in result and not node.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def _schema_problems(
    schema: Mapping[str, Any], manifest: Mapping[str, Any]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    import jsonschema

    validator = jsonschema.Draft202012Validator(strict(schema))
    errors = sorted(
        validator.iter_errors(manifest), key=lambda e: ([str(p) for p in e.absolute_path], e.message)
    )
    for error in errors[:_MOST_PROBLEMS]:
        message = error.message if len(error.message) <= 300 else f"{error.message[:299]}…"
        yield tuple(error.absolute_path), visible(message)


def _rule_problems(
    schema: Mapping[str, Any], value: Any, route: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the CEL rules of a node and of those below it say against a value."""
    if len(route) > _DEEPEST:
        return
    for rule in schema.get("x-kubernetes-validations") or ():
        text = str(rule.get("rule", ""))
        if "oldSelf" in text:
            continue
        said = _against(text, value)
        if said is not None:
            yield route, visible(str(rule.get("message") or f"the rule does not hold: {text}")[:300]) + said
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        for name, part in value.items():
            below = properties.get(name, others if isinstance(others, dict) else None)
            if isinstance(below, dict):
                yield from _rule_problems(below, part, (*route, name))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, part in enumerate(value):
            yield from _rule_problems(schema["items"], part, (*route, number))


def _against(rule: str, value: Any) -> str | None:
    """Empty where the rule does not hold of the value, why where it cannot be computed, None where it holds."""
    import celpy
    from celpy.adapter import json_to_cel
    from celpy.celparser import CELParseError
    from celpy.evaluation import CELEvalError

    try:
        environment = celpy.Environment()
        program = environment.program(environment.compile(rule))
        result = program.evaluate({"self": json_to_cel(value)})
    except (CELParseError, CELEvalError, ValueError, TypeError, RecursionError) as error:
        # A server refuses what a rule cannot be computed of.
        return f" (the rule cannot be computed: {visible(str(error).splitlines()[0])[:120] if str(error) else rule})"
    return None if bool(result) else ""

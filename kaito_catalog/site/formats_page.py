"""The reference of the catalog's file formats: a table for each pydantic model, from its own documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from kaito_catalog.formats import schema
from kaito_catalog.site.text import escape

PLACES = {
    "proposal": "catalog/models/NAME/proposal.yaml",
    "facts": "catalog/models/NAME/facts.yaml",
    "exact-plan": "catalog/models/NAME/evidence/*.yaml",
    "dry-run": "catalog/models/NAME/evidence/*.yaml",
    "reported-run": "catalog/models/NAME/evidence/*.yaml",
    "gpus": "catalog/gpus.yaml",
    "instance-types": "catalog/instance-types.yaml",
    "prices": "catalog/prices.yaml",
    "policy": "catalog/policy.yaml",
    "report": "kaito-catalog check --format json",
}
"""Where files of each kind lie, or the command that prints them."""


def page() -> str:
    """The page as Markdown."""
    parts = [
        "---\ntitle: Formats\n---\n\n# Formats\n",
        "The files of the catalog, as YAML 1.2. Unknown keys are errors, sizes need a unit, and a field that "
        "is not known is left out. The JSON Schema of each kind lies in `schema/`; editors with a YAML language "
        "server read it from the first line of a file.\n",
    ]
    for name in schema.FILE_KINDS:
        parts.append(_kind(name, schema.json_schema(schema.FILE_KINDS[name])))
    return "\n".join(parts)


def _kind(name: str, value: Mapping[str, Any]) -> str:
    place = PLACES[name]
    is_one_file = place.endswith(".yaml") and "*" not in place
    lines = [f"## {place.rpartition('/')[2] if is_one_file else name} {{ #{name} }}", ""]
    lines += [f"`{place}`, schema `schema/{name}.schema.json`.", "", _words(value), ""]
    definitions = value.get("definitions", {})
    lines.append(_table(name, name, value, definitions))
    for part, definition in definitions.items():
        if "properties" in definition:
            lines += ["", f"### {part} {{ #{_anchor(name, part)} }}", "", _words(definition), ""]
            lines.append(_table(name, f"{name}: {part}", definition, definitions))
    return "\n".join(lines) + "\n"


def _table(kind: str, label: str, value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    required = value.get("required", [])
    rows = [
        Markup(
            '<tr><th scope="row"><code>{}</code></th><td>{}</td><td>{}</td><td class="kc-long">{}</td></tr>'
        ).format(
            escape(field),
            _type(kind, about),
            "yes" if field in required else "",
            _meaning(about, definitions),
        )
        for field, about in value.get("properties", {}).items()
    ]
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Field", "Type", "Required", "Meaning"))
    return (
        f'<div class="kc-scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n'
        f'<table class="kc-table">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>\n</div>"
    )


def _words(about: Mapping[str, Any]) -> str:
    """A docstring as one paragraph; it is our own, and in Markdown already."""
    return " ".join(str(about.get("description", "")).replace("``", "`").split())


def _meaning(about: Mapping[str, Any], definitions: Mapping[str, Any]) -> Markup:
    """What a field says of itself, else what its type says."""
    if "const" in about:
        return Markup("Always this.")
    parts = [
        about,
        about.get("items", {}),
        *(part for key in ("anyOf", "allOf") for part in about.get(key, [])),
    ]
    named = [str(part["$ref"]).rpartition("/")[2] for part in parts if "$ref" in part]
    words = _words(about) or next((_words(definitions[name]) for name in named if name in definitions), "")
    said = re.split(r"`([^`]*)`", words)
    return Markup("").join(
        Markup("<code>{}</code>").format(escape(part)) if i % 2 else _spaced(part)
        for i, part in enumerate(said)
    )


def _spaced(part: str) -> Markup:
    before, after = part[:1] == " ", len(part) > 1 and part[-1:] == " "
    return Markup(" " if before else "") + escape(part) + Markup(" " if after else "")  # noqa: S704 - spaces


def _type(kind: str, about: Mapping[str, Any]) -> Markup:
    """The type in words: `text`, `list of File`, `one of hub, local`."""
    if "$ref" in about:
        name = str(about["$ref"]).rpartition("/")[2]
        if name == "JsonValue":
            return Markup("any value")
        return Markup('<a href="#{}">{}</a>').format(_anchor(kind, name), escape(name))
    for key in ("anyOf", "oneOf", "allOf"):
        if key in about:
            choices = [part for part in about[key] if part.get("type") != "null"]
            return Markup(" or ").join(dict.fromkeys(_type(kind, part) for part in choices))
    if "const" in about:
        return Markup("<code>{}</code>").format(escape(about["const"]))
    if "enum" in about:
        values = (Markup("<code>{}</code>").format(escape(value)) for value in about["enum"])
        return Markup("one of ") + Markup(", ").join(values)
    match about.get("type"):
        case "array":
            return Markup("list of ") + _type(kind, about.get("items", {}))
        case "object":
            inner = about.get("additionalProperties")
            return Markup("mapping") + (
                Markup(" to ") + _type(kind, inner) if isinstance(inner, dict) and inner else Markup()
            )
        case "string":
            return Markup("size") if "Ki" in json.dumps(about) or "GiB" in str(about) else Markup("text")
        case "integer":
            return Markup("whole number")
        case "number":
            return Markup("number")
        case "boolean":
            return Markup("true or false")
        case _:
            return Markup("any value")


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{name.lower()}"

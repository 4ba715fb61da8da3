"""From a parsed document to a typed model; all that does not fit the schema is reported at its key."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kaito_catalog.diagnostics import Diagnostic, Route, Severity, sort_key
from kaito_catalog.documents.reading import MAX_PROBLEMS, Document, shorten
from kaito_catalog.formats.base import Model
from kaito_catalog.near_names import nearest

M = TypeVar("M", bound=Model)

_PATTERN_HELP = {
    "[0-9]{4}-[0-9]{2}-[0-9]{2}": "a date is written year-month-day, such as 2025-05-29",
    "[0-9a-f]{40}": "a commit is 40 lower-case hex digits",
    "[0-9a-f]{64}": "a SHA-256 is 64 lower-case hex digits",
    "https?://": "a web address starts with https:// and has no spaces",
    "[a-z0-9]([a-z0-9._-]{0,94}[a-z0-9])?": "use lower-case letters, digits, '.', '_' and '-'",
    "[A-Z]{3}[0-9]{3}": "a waiver's key is the code of a finding, such as MEM003",
    "[A-Za-z][A-Za-z0-9_.-]{0,99}": "an option is written without the leading dashes",
}


def load(document: Document, model: type[M]) -> tuple[M | None, tuple[Diagnostic, ...]]:
    """Validate a document: the model, or None and its problems (at most 50), those of its syntax first."""
    problems = list(document.problems)
    if () in document.broken:
        return None, tuple(problems)
    if not isinstance(document.value, dict):
        found = _describe(document.value)
        problems.append(
            Diagnostic(
                "SCH003",
                Severity.ERROR,
                f"the file holds {found}, wanted keys and values",
                document.place(()),
                "'kaito-catalog new ORG/MODEL' writes a proposal",
            )
        )
        return None, tuple(problems)
    try:
        loaded = model.model_validate(document.value)
    except ValidationError as error:
        problems.extend(_schema_problems(document, model, error))
        return None, tuple(problems)
    return (None if problems else loaded), tuple(problems)


def _schema_problems(document: Document, model: type[Model], error: ValidationError) -> list[Diagnostic]:
    result: list[Diagnostic] = []
    for detail in error.errors(include_url=False):
        if len(result) >= MAX_PROBLEMS:
            break
        route = tuple(part for part in detail["loc"] if part != "[key]")
        known = _existing(document, route)
        if any(route[:length] in document.broken for length in range(len(route) + 1)):
            continue
        if detail["type"] == "missing" and route[:-1] in document.incomplete:
            continue
        code, message, hint = _explain(document, model, detail, route)
        place = document.place(known)
        result.append(Diagnostic(code, Severity.ERROR, message, place, hint))
    return sorted(dict.fromkeys(result), key=sort_key)


def _existing(document: Document, route: Route) -> Route:
    while route and route not in document.spans:
        route = route[:-1]
    return route


def _explain(
    document: Document, model: type[Model], detail: ErrorDetails, route: Route
) -> tuple[str, str, str | None]:
    """The code of a problem, what was found, and what to write."""
    key = _shown(route)
    match detail["type"]:
        case "extra_forbidden":
            keys = _keys_at(model, route[:-1])
            near = nearest(str(route[-1]), keys)
            hint = f"did you mean '{near}'?" if near else f"known keys here: {', '.join(keys)}"
            return "SCH001", f"the key '{shorten(str(route[-1]))}' is not known", hint
        case "missing":
            return (
                "SCH002",
                f"'{route[-1]}' is missing in {_shown(route[:-1])}",
                _help_of(model, route) or _example(model, route),
            )
        case "quantity":
            said, _, wanted = detail["msg"].partition("; ")
            return "SCH004", f"{key}: {said}", wanted or "write a number and a unit, such as 140GB"
        case "string_type" if isinstance(detail["input"], int | float | bool) and route in document.raw:
            raw = document.raw[route]
            reason = (
                "an all-digit revision must be quoted" if route[-1] in ("version", "revision") else "quote it"
            )
            found = _describe(detail["input"])
            return (
                "SCH005",
                f"{key} is read as {found}, wanted a text",
                f'{reason}: {route[-1]}: "{shorten(raw)}"',
            )
        case _:
            return "SCH003", *_explain_value(model, detail, route)


def _explain_value(model: type[Model], detail: ErrorDetails, route: Route) -> tuple[str, str | None]:
    """Of a value that is not of the form wanted."""
    key, found = _shown(route), _describe(detail["input"])
    match detail["type"]:
        case "bool_type":
            return f"{key}: wanted true or false, found {found}", _boolean_hint(detail["input"])
        case "count" if isinstance(detail["input"], str | float):
            return f"{key}: {detail['msg']}, found {found}", _count_hint(route, detail)
        case "string_pattern_mismatch":
            pattern = str(detail["ctx"]["pattern"])
            hint = next(
                (text for part, text in _PATTERN_HELP.items() if part in pattern), f"wanted: {pattern}"
            )
            return f"{key}: '{shorten(str(detail['input']))}' is not in the form wanted", hint
        case "literal_error":
            return _explain_choice(key, detail)
        case "tuple_type":
            return f"{key}: wanted a list, found {found}", "put '- ' before each item"
        case "dict_type" | "model_type":
            keys = _keys_at(model, route)
            some = f" ({', '.join(keys)})" if keys else ""
            hint = _help_of(model, route) or f"write 'key: value' lines{some}, indented below it"
            return f"{key}: wanted keys and values, found {found}", hint
        case "too_short" | "string_too_short":
            return f"{key} is empty", _help_of(model, route) or "fill it in, or leave the key out"
        case _:
            hint = _help_of(model, route) or "'kaito-catalog explain SCH003' says more"
            return f"{key}: {_lower_first(detail['msg'])}, found {found}", hint


def _explain_choice(key: str, detail: ErrorDetails) -> tuple[str, str]:
    expected = str(detail["ctx"]["expected"])
    choices = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
    near = nearest(str(detail["input"]), choices, likeness=0.75)
    found = shorten(str(detail["input"]))
    return (
        f"{key}: '{found}' is not one of {', '.join(choices)}"
        if len(choices) > 1
        else f"{key} has to be {choices[0]}, found '{found}'",
        f"did you mean '{near}'?" if near else f"write {' or '.join(choices)}",
    )


def _shown(route: Route) -> str:
    return ".".join(str(part) for part in route) or "the file"


def _boolean_hint(value: Any) -> str:
    """YAML 1.1 took yes and no for booleans, and many people still write them."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("true", "false"):
        return "write it without quotes"
    meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(word)
    return f"write {meant}" if meant else "write true or false"


def _count_hint(route: Route, detail: ErrorDetails) -> str:
    """What to write where digits are certain; 16k may be 16,000 or 16,384, so there it is an example."""
    digits = re.sub(r"(?<=\d)[ ,_](?=\d{3})", "", str(detail["input"]).strip())
    return f"{route[-1]}: {digits}" if digits.isdecimal() else "write digits only, such as 16384"


def _describe(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {shorten(str(value))}"
        case str():
            return f"the text '{shorten(value)}'"
        case list():
            return "a list"
        case dict():
            return "keys and values"
        case _:
            return "something else"


def _field_at(model: type[Model], route: Route) -> FieldInfo | None:
    current: type[Model] | None = model
    found: FieldInfo | None = None
    for part in route:
        if isinstance(part, int):
            continue
        if current is None:
            return None
        found = next((f for f in current.model_fields.values() if f.alias == part), None)
        current = _model_in(found.annotation) if found else None
    return found


def _keys_at(model: type[Model], route: Route) -> list[str]:
    field = _field_at(model, route) if route else None
    current = (_model_in(field.annotation) if field else None) if route else model
    return [f.alias or name for name, f in current.model_fields.items()] if current else []


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found:
            return found
    return None


def _help_of(model: type[Model], route: Route) -> str | None:
    field = _field_at(model, route)
    return field.description.replace("`", "'").split("\n")[0] if field and field.description else None


def _example(model: type[Model], route: Route) -> str:
    """What to write where a key without documentation is missing: its only value, or what stands below it."""
    field = _field_at(model, route)
    only = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    if len(only) == 1:
        return f"{route[-1]}: {only[0]}"
    below = _keys_at(model, route)
    return f"add it, with {', '.join(below)} below" if below else f"add {route[-1]}: …"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]

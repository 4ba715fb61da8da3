"""`registry` and `options`: the architectures, parsers and options of `vllm serve` that a version knows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from kaito_catalog.vllm_bridge.worker.adapters import architectures_with_lora
from kaito_catalog.vllm_bridge.worker.arguments import serve_parser
from kaito_catalog.vllm_bridge.worker.configuration import versions
from kaito_catalog.vllm_bridge.worker.releases import find, find_if_there, parser_managers, replace
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress


def registry(request: JSON, progress: Progress) -> JSON:
    """Architectures and parsers this vLLM knows, and the architectures it has dropped with the last version."""
    progress("reading the registries")
    from vllm.model_executor.models import registry as models

    tools, reasoning = parser_managers()
    removed = find_if_there("architectures that were dropped") or {}
    return {
        **versions(),
        "architectures": sorted(models.ModelRegistry.get_supported_archs()),
        "loraArchitectures": architectures_with_lora(models.ModelRegistry.models),
        "architectureEndings": [ending for ending, _ in find_if_there("endings of architectures") or ()],
        "removedArchitectures": {name: str(removed[name]) for name in sorted(removed)},
        "toolParsers": sorted(tools.list_registered()),
        "reasoningParsers": sorted(reasoning.list_registered()),
    }


def options(request: JSON, progress: Progress) -> JSON:
    """Every option of `vllm serve`."""
    progress("reading the options")
    parser, limits = parser_and_limits()
    described = [describe_option(action, limits) for action in parser._actions]
    found = {option["name"]: option for option in described if option}
    for name, values in registered_values().items():
        found[name].setdefault("choices", sorted(values))
    return {**versions(), "options": found}


def registered_values() -> dict[str, list[str]]:
    """What an option takes that is a text for the parser because plug-ins may add to it: what vLLM itself has."""
    from vllm.config.model import TokenizerMode
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    return {
        "quantization": list(QUANTIZATION_METHODS),
        "load-format": list(find("load formats")),
        "tokenizer-mode": list(get_args(TokenizerMode)),
    }


LIMIT_WORDS = {"Ge": "minimum", "Gt": "exclusiveMinimum", "Le": "maximum", "Lt": "exclusiveMaximum"}


def parser_and_limits() -> tuple[Any, dict[str, JSON]]:
    """The parser of `vllm serve`, and the limits of options by their `metavar`.

    vLLM makes options of the fields of its configurations (`get_kwargs`) and leaves a field's limits to the
    configuration, which refuses only when the server starts. Fields of several configurations share a name
    (SpeculativeConfig has a max_model_len as well); the metavar is what tells which of them an option sets.
    """
    get_kwargs = find("arguments of a configuration's fields")
    limits: dict[str, JSON] = {}

    def marked(cls: type) -> Any:
        arguments = get_kwargs(cls)
        for name, field in getattr(cls, "__pydantic_fields__", {}).items():
            found = field_limits(field)
            if found and name in arguments:
                mark = f"{cls.__name__}.{name}"
                arguments[name]["metavar"], limits[mark] = mark, found
        return arguments

    replace("arguments of a configuration's fields", marked)
    try:
        return serve_parser(), limits
    finally:
        replace("arguments of a configuration's fields", get_kwargs)


def field_limits(field: Any) -> JSON:
    """A field's limits in JSON Schema's words: `Field(gt=0, le=1)` is `{"exclusiveMinimum": 0, "maximum": 1}`."""
    kinds = ((type(limit).__name__, limit) for limit in field.metadata)
    return {LIMIT_WORDS[kind]: getattr(limit, kind.lower()) for kind, limit in kinds if kind in LIMIT_WORDS}


def describe_option(action: Any, limits: Mapping[str, JSON]) -> JSON | None:
    """`name` without dashes, `type`, `choices`, limits, `default`, `aliases`; None for positionals and --help."""
    names = [name for name in action.option_strings if name.startswith("--")]
    if not names or action.dest == "help":
        return None
    name = names[0].removeprefix("--")
    negated = [other for other in names[1:] if other == f"--no-{name}"]
    described: JSON = {"name": name, "type": option_type(action)}
    if type_name(action.type).startswith("human_readable_int"):
        described["suffixes"] = True
    if action.choices is not None:
        described["choices"] = sorted((str(choice) for choice in action.choices), key=str)
    described.update(limits.get(str(action.metavar), {}))
    described["default"] = None if action.default == "==SUPPRESS==" else plain(action.default)
    aliases = [other for other in action.option_strings if other != names[0] and other not in negated]
    if aliases:
        described["aliases"] = aliases
    if negated:
        described["negation"] = negated[0].removeprefix("--")
    if action.nargs in ("*", "+", "?"):
        described["nargs"] = action.nargs
    return described


TYPE_NAMES = {
    "loads": "json",
    "parse_dataclass": "json",
    "<lambda>": "string",
    "optional_type": "string",
    "union_dict_and_str": "json or string",
    "human_readable_int": "integer",
    "human_readable_int_or_auto": "integer or auto",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}


def option_type(action: Any) -> str:
    if action.nargs == 0:
        return "boolean"
    if action.type is None:
        return "string"
    name = type_name(action.type)
    return TYPE_NAMES.get(name, name)


def type_name(kind: Any) -> str:
    """The name of what reads an option's value: of TYPE_NAMES, where it is one of these."""
    # vLLM wraps a plain type in a closure to accept "None"; the closure holds the type.
    for cell in getattr(kind, "__closure__", None) or ():
        inner = cell.cell_contents
        if callable(inner) and getattr(inner, "__name__", "") in TYPE_NAMES:
            return str(inner.__name__)
    return str(getattr(kind, "__name__", type(kind).__name__))


def plain(value: Any) -> Any:
    """A default as JSON: configuration objects become the fields that were set, the rest its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if hasattr(value, "__dataclass_fields__"):
        return {}
    if hasattr(value, "value") and isinstance(value.value, (str, int)):
        return value.value
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))

"""What a vLLM version knows, from the committed files `data/vllm-<version>.json`: options, architectures, parsers."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from kaito_catalog.memory.option_kinds import BYTES
from kaito_catalog.near_names import nearest
from kaito_catalog.vllm_bridge.versions import parsed, release

LIMITS = {
    "exclusiveMinimum": ("above", operator.gt),
    "minimum": ("at least", operator.ge),
    "exclusiveMaximum": ("below", operator.lt),
    "maximum": ("at most", operator.le),
}
"""JSON Schema's words for a limit, as people say them, and how a value is compared with it."""


@dataclass(frozen=True)
class Option:
    """An option of `vllm serve`."""

    name: str
    type: str
    """`boolean`, `integer`, `number`, `string`, `json`, or two of them with "or"."""
    choices: tuple[str, ...]
    negation: str | None
    nargs: str | None
    """How many values, as argparse says it: `+`, `*`, `?`; None is one, or none of a switch."""
    limits: Mapping[str, float]
    """What vLLM's configuration asks of a number, by the words of `LIMITS`."""
    default: Any = None
    aliases: tuple[str, ...] = ()
    """Other spellings with their dashes, such as `-tp`."""
    has_suffixes: bool = False
    """Whether the number may end in k, m, g, t (of ten) or K, M, G, T (of two)."""

    @property
    def takes_several(self) -> bool:
        """Whether more than one value may follow it."""
        return self.nargs in ("+", "*")

    def wants(self, value: Any) -> str | None:
        """What the option takes, where `value` (of YAML, or a word of the command line) is not it.

        The answer completes "the option is …"; switches are not judged here, KAITO's expansion decides about them.
        """
        text = value if isinstance(value, str) else None
        if isinstance(value, bool):
            return f"not a switch ({self.type})"
        if isinstance(value, list):
            return None if self.takes_several else f"one value ({self.type})"
        if self.choices:
            return None if str(value) in self.choices else f"one of {', '.join(self.choices)}"
        kinds = self.type.split(" or ")
        if "auto" in kinds and text == "auto":
            return None
        if "integer" in kinds and self.has_suffixes and text is not None:
            counted = BYTES.read(text)
            if counted is None:
                return "a whole number, which may end in K, M, G (of two) or k, m, g (of ten)"
            text = str(counted)
        if "integer" in kinds and not (isinstance(value, int) or _reads_as_integer(text)):
            return "a whole number"
        if "number" in kinds and not (isinstance(value, int | float) or _reads_as_number(text)):
            return "a number"
        if kinds == ["json"] and not (isinstance(value, dict) or _reads_as_json(text, self.default)):
            return "a JSON list" if isinstance(self.default, list) else "a JSON object"
        number = value if text is None or not self.limits else float(text)
        if all(LIMITS[word][1](number, bound) for word, bound in self.limits.items()):
            return None
        return " and ".join(f"{LIMITS[word][0]} {bound:g}" for word, bound in self.limits.items())


def _reads_as_integer(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"-?[0-9]{1,300}", text) is not None


def _reads_as_number(text: str | None) -> bool:
    try:
        return text is not None and bool(float(text) or True)
    except ValueError:
        return False


def _reads_as_json(text: str | None, default: object) -> bool:
    try:
        return text is not None and isinstance(json.loads(text), list if isinstance(default, list) else dict)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class VllmVersion:
    """The registries and the parser of one version, as `tools/refresh_vllm_data.py` read them."""

    version: str
    options: Mapping[str, Option]
    removed_options: Mapping[str, Mapping[str, str]]
    architectures: frozenset[str]
    lora_architectures: frozenset[str] | None
    """Those that take LoRA adapters; None where the file does not say."""
    architecture_endings: tuple[str, ...]
    """Endings of class names, in vLLM's order: with another of them, a class is built from one that vLLM has."""
    removed_architectures: Mapping[str, str]
    """Architecture to the last version that had it."""
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]
    newer: Mapping[str, Mapping[str, Any]]
    """What only another version has: version to `options`, `architectures`, `toolParsers`, `reasoningParsers`."""

    def option(self, written: str) -> Option | None:
        """The option as somebody wrote it: with dashes or underscores, or its negation."""
        name = written.replace("_", "-")
        return self.options.get(name) or next((o for o in self.options.values() if o.negation == name), None)

    def option_of_flag(self, flag: str) -> Option | None:
        """The option of a word such as `--tensor-parallel-size` or `-tp`."""
        found = self.option(flag[2:]) if flag.startswith("--") else None
        return found or next((o for o in self.options.values() if flag in o.aliases), None)

    def nearest_option(self, written: str) -> str | None:
        """The known option that is spelt most alike."""
        names = [*self.options, *(o.negation for o in self.options.values() if o.negation)]
        return nearest(written, names)

    def built_as(self, architecture: str) -> str | None:
        """The registered class that vLLM builds for one of config.json: itself, or the one it converts."""
        if architecture in self.architectures:
            return architecture
        ending = next((e for e in self.architecture_endings if architecture.endswith(e)), None)
        if ending is None:
            return None
        others = (architecture.replace(ending, other) for other in self.architecture_endings)
        return next((name for name in others if name in self.architectures), None)

    def only_in(self, kind: str, name: str) -> str | None:
        """The version that has `name`, where this one does not."""
        return next((version for version, found in self.newer.items() if name in found.get(kind, ())), None)


def versions() -> list[str]:
    """The versions of vLLM that have been read, in no order."""
    names = (path.name for path in (resources.files("kaito_catalog") / "data").iterdir())
    return [name.removeprefix("vllm-").removesuffix(".json") for name in names if name.startswith("vllm-")]


@dataclass(frozen=True)
class PlannedAs:
    """Which read versions stand for one whose code has not been read."""

    asked: str
    code: str
    """Whose classes and planner, apart from the thresholds that are known of versions around it."""
    options: str
    """Whose options, defaults and choices."""

    @property
    def words(self) -> str:
        """The same as a sentence."""
        as_code = f"vLLM {self.asked} has not been read: planned as {self.code}"
        if self.code == self.options:
            return f"{as_code}, the newest that has"
        if release(self.asked) > release(self.code):
            return f"{as_code}, with what is known to have changed by then; options of {self.options}"
        return f"{as_code}, the oldest that has; options of {self.options}"

    def to_json(self) -> dict[str, str]:
        """As plain values."""
        return {"code": self.code, "options": self.options}


def planned_as(version: str) -> PlannedAs | None:
    """What stands for a version that has not been read; None where it has been, or is no version."""
    wanted = parsed(version)
    read = sorted(versions(), key=release)
    if wanted is None or release(version) in {release(name) for name in read}:
        return None
    before = [name for name in read if release(name) < release(version)]
    return PlannedAs(version, before[-1] if before else read[0], read[-1])


@lru_cache(maxsize=8)
def known(version: str) -> VllmVersion | None:
    """What that version knows; None where no file says."""
    wanted = parsed(version)
    if wanted is None:
        return None
    path = resources.files("kaito_catalog") / "data" / f"vllm-{wanted.public}.json"
    if not path.is_file():
        return None
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    options = {
        name: Option(
            name,
            option["type"],
            tuple(option.get("choices", ())),
            option.get("negation"),
            option.get("nargs"),
            {word: option[word] for word in LIMITS if word in option},
            option["default"],
            tuple(option.get("aliases", ())),
            bool(option.get("suffixes")),
        )
        for name, option in value["options"].items()
    }
    return VllmVersion(
        value["vllmVersion"],
        options,
        value["removedOptions"],
        frozenset(value["architectures"]),
        frozenset(value["loraArchitectures"]) if "loraArchitectures" in value else None,
        tuple(value.get("architectureEndings", ())),
        value["removedArchitectures"],
        tuple(value["toolParsers"]),
        tuple(value["reasoningParsers"]),
        value.get("onlyIn", {}),
    )

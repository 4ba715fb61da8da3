"""A command line of `vllm serve` → the model and the options it names, read as vLLM's own parser reads them.

Pure: words in, values out. Which options a version has stands in `vllm_bridge/reference`. The rules are those of
vllm/utils/argparse_utils.py (FlexibleArgumentParser) in 0.25.1 and 0.32.0, which is Python's argparse with
underscores for dashes, `--a.b value` for keys of a JSON option, and `-O3`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kaito_catalog.errors import CatalogError
from kaito_catalog.memory.option_kinds import BYTES
from kaito_catalog.vllm_bridge.reference import Option, VllmVersion, known, versions
from kaito_catalog.vllm_bridge.versions import newest

_SHOWN = 60
_HUMAN_READABLE = frozenset(
    {
        "kv-cache-memory-bytes",
        "max-model-len",
        "max-num-batched-tokens",
        "max-num-queued-tokens",
        "max-num-scheduled-tokens",
        "safetensors-prefetch-block-size",
    }
)
"""Numbers that vLLM reads as people write them: 32K is 32,768 and 32k is 32,000 (human_readable_int)."""
_BARE = "true"
"""What a switch stands for, beside its name: as `str(True).lower()`."""


@dataclass(frozen=True)
class ServeOption:
    """An option of a command line."""

    name: str
    """vLLM's, with dashes and without those in front; never the negated name."""
    values: tuple[str, ...]
    """One, or several where the option takes several; a switch has `true` or `false`, a number no letters."""
    written: str
    """As it stood there, `-tp` or `--compilation-config.level`."""
    is_switch: bool = False

    @property
    def value(self) -> str:
        """The value, several of them with a space between."""
        return " ".join(self.values)

    def words(self) -> tuple[str, ...]:
        """The option as words of a command line: `--name=value`, or its name and several values."""
        if self.is_switch:
            return (f"--{self.name}" if self.value == _BARE else f"--no-{self.name}",)
        if len(self.values) == 1:
            return (f"--{self.name}={self.value}",)
        return (f"--{self.name}", *self.values)


@dataclass(frozen=True)
class ServeOptions:
    """What a command line of `vllm serve` sets."""

    model: str | None
    """The repository or folder; None where the command line names none."""
    options: tuple[ServeOption, ...]
    """Each name once, in the order in which they take effect; without the model."""
    replaced: tuple[ServeOption, ...] = ()
    """What a later option of the same name replaced."""

    def get(self, name: str) -> str | None:
        """The value of an option, by vLLM's name with dashes; None where it is not there."""
        return next((option.value for option in self.options if option.name == name), None)

    def as_config(self) -> Mapping[str, str]:
        """As the `vllm:` block of KAITO's ConfigMap has them: an empty text for a switch, `no-…` for a negated one.

        Options with several values have them separated by spaces.
        """
        found = {}
        for option in self.options:
            if option.is_switch:
                found[option.name if option.value == _BARE else f"no-{option.name}"] = ""
            else:
                found[option.name] = option.value
        return found


def read_serve_options(arguments: Sequence[str], vllm_version: str) -> ServeOptions:
    """What the words of a command line set, with or without `vllm serve` in front.

    Args:
        arguments: the words, as a shell splits them.
        vllm_version: whose options are meant; one that has not been read is taken for the newest that has.

    Raises:
        CatalogError: an option is not known, or its value is none; the hint names the nearest option.
    """
    vllm = known(vllm_version) or known(newest(versions()))
    assert vllm is not None
    words = list(arguments)
    if words[:2] == ["vllm", "serve"]:
        words = words[2:]
    if words[:1] == ["serve"]:
        words = words[1:]
    found = _parser(vllm).parse_args(_as_argparse_reads(words, vllm))
    given: list[ServeOption] = [_checked(option, vllm) for option in found.options or ()]
    last = {option.name: option for option in given}
    kept = tuple(option for option in given if last[option.name] is option)
    model = last["model"].value if "model" in last else found.model
    if "model" in last and found.model is not None:
        raise CatalogError(
            f"the command line names two models, '{found.model[:_SHOWN]}' and '{model[:_SHOWN]}'",
            hint="leave out --model: `vllm serve` takes the model as its first word",
        )
    return ServeOptions(
        model,
        tuple(option for option in kept if option.name != "model"),
        tuple(option for option in given if last[option.name] is not option),
    )


class _Collect(argparse.Action):
    """Keeps an option with its values, in the order of the command line."""

    def __init__(self, option_strings: Sequence[str], dest: str, option: Option, **rest: Any) -> None:
        self.option = option
        super().__init__(option_strings, "options", **rest)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        switch = self.nargs == 0
        if switch:
            negated = option_string == f"--{self.option.negation}"
            taken: tuple[str, ...] = ("false" if negated else _BARE,)
        elif isinstance(values, str):
            taken = (values,)
        else:
            taken = tuple(values) if values is not None else (_BARE,)
        found = ServeOption(self.option.name, taken, option_string or "", is_switch=switch)
        namespace.options = [*(namespace.options or ()), found]


class _Parser(argparse.ArgumentParser):
    """Says a wrong argument as an error of the catalog."""

    def __init__(self, vllm: VllmVersion) -> None:
        super().__init__(add_help=False, prog="vllm serve")
        self.vllm = vllm

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            raise _unknown(unknown[1], self.vllm)
        message = re.sub(r"^argument ([^:]*): ", lambda found: f"{found[1]} of vllm serve: ", message)
        raise CatalogError(message[:200], hint=_SEE)


_SEE = "`vllm serve --help=all` lists what each option takes"


def _parser(vllm: VllmVersion) -> _Parser:
    parser = _Parser(vllm)
    parser.add_argument("model", nargs="?")
    for name, option in vllm.options.items():
        names = [f"--{name}", *option.aliases]
        if option.negation:
            names.append(f"--{option.negation}")
        nargs: int | str | None = 0 if option.type == "boolean" else option.nargs
        parser.register("action", "collect", _Collect)
        parser.add_argument(*names, action="collect", option=option, nargs=nargs)
    return parser


def _as_argparse_reads(words: Iterable[str], vllm: VllmVersion) -> list[str]:
    """Dashes for underscores in names, `-O3` in full, and the keys of a JSON option put together at the end."""
    plain: list[str] = []
    keys: dict[str, dict[str, Any]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-O") and not word.startswith("-O."):
            level = word[2:].removeprefix("=")
            plain += ["--optimization-level", *([level] if level else [])]
            continue
        name, equals, value = word.partition("=")
        first, dot, inner = name.partition(".")
        if not word.startswith("-") or (dot and not first.strip("-0123456789")):  # a value, such as -1.5
            plain.append(word)
            continue
        if first.startswith("--"):
            first = first.replace("_", "-")
        if not dot:
            plain.append(f"{first}{equals}{value}")
            continue
        if not equals:
            if not rest:
                raise CatalogError(f"{name[:_SHOWN]} of vllm serve has no value")
            value = rest.pop(0)
        if vllm.option_of_flag(first) is None:
            raise _unknown(name, vllm)
        _put(keys.setdefault(first, {}), inner, value)
    for first, found in keys.items():
        plain.append(f"{first}={json.dumps(found)}")
    return plain


def _put(into: dict[str, Any], path: str, value: str) -> None:
    """Sets a key of nested objects; `path+` adds to a list."""
    found: Any = _json_or_text(value)
    if path.endswith("+"):
        path, found = path[:-1], value.split(",")
    *outer, last = path.split(".")
    for key in outer:
        inside = into.get(key)
        if not isinstance(inside, dict):
            inside = into[key] = {}
        into = inside
    before = into.get(last)
    into[last] = before + found if isinstance(before, list) and isinstance(found, list) else found


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _number_of(value) or value


def _number_of(text: str) -> int | None:
    """A number as people write it."""
    return None if BYTES.read(text) is None else int(str(BYTES.read(text)))


def _checked(option: ServeOption, vllm: VllmVersion) -> ServeOption:
    """The option with its number written out.

    Raises:
        CatalogError: vLLM does not take the value.
    """
    about = vllm.options[option.name]
    if option.is_switch or about.nargs == "?":
        return option
    values = option.values
    if option.name == "max-model-len" and values[0].lower() in ("-1", "auto"):
        values = ("auto",)
    elif option.name in _HUMAN_READABLE:
        number = _number_of(values[0])
        values = values if number is None else (str(number),)
    for value in values:
        wanted = about.wants(value)
        if wanted is not None:
            raise CatalogError(
                f"{option.written} of vllm serve is '{value[:_SHOWN]}', not {wanted}",
                hint=_SEE,
            )
    return ServeOption(option.name, values, option.written)


def _unknown(word: str, vllm: VllmVersion) -> CatalogError:
    """Why vLLM has no such option, and which one may have been meant."""
    if not word.startswith("-"):
        return CatalogError(
            f"'{word[:_SHOWN]}' belongs to no option of vllm serve",
            hint="`vllm serve` takes one model, and options that begin with a dash",
        )
    name = word.lstrip("-").partition("=")[0]
    plain = name.partition(".")[0].replace("_", "-")
    said = f"vLLM {vllm.version} has no option {'-' if word[:2] != '--' else '--'}{name[:_SHOWN]}"
    removed = vllm.removed_options.get(plain)
    if removed:
        return CatalogError(f"{said}: it is gone since {removed['goneBy']}", hint=removed["advice"])
    newer = vllm.only_in("options", plain)
    if newer:
        return CatalogError(f"{said}: it is one of vLLM {newer}", hint="leave it out")
    near = vllm.nearest_option(plain)
    return CatalogError(said, hint=f"did you mean --{near}?" if near else _SEE)

"""Completion in the shell: the command `completion`, and what a Tab may stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from argcomplete import autocomplete
from argcomplete.completers import FilesCompleter
from argcomplete.shell_integration import shellcode

from kaito_catalog.catalog.reading import found_or_shipped, read_shared
from kaito_catalog.cli.common import OK, emit
from kaito_catalog.errors import CatalogError


def run_completion(options: argparse.Namespace) -> int:
    """`completion`."""
    emit(shellcode(["kaito-catalog"], shell=options.shell))
    return OK


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks by way of argcomplete's environment variables, and end the process."""
    for action in _actions(parser):
        completer = COMPLETERS.get(action.dest)
        if completer is not None:
            action.completer = _quiet(completer)  # type: ignore[attr-defined]
    # Without a completer of its own an argument is a file: what argcomplete does by default.
    autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
        else:
            yield action


Completer = Callable[[Path, str], Sequence[str] | Mapping[str, str]]
"""From the catalog and what has been typed to words, or words with their meaning."""


def _quiet(completer: Completer) -> Callable[..., Sequence[str] | Mapping[str, str]]:
    def words(prefix: str, parsed_args: argparse.Namespace, **_: object) -> Sequence[str] | Mapping[str, str]:
        try:
            root = Path(parsed_args.catalog) if parsed_args.catalog else found_or_shipped(Path.cwd())
            return completer(root, prefix)
        except CatalogError:
            return ()  # a message in the middle of a line is not seen

    return words


def _models(root: Path, prefix: str) -> list[str]:
    return sorted(path.parent.name for path in (root / "models").glob("*/proposal.yaml"))


def _models_and_files(root: Path, prefix: str) -> list[str]:
    return [*_models(root, prefix), *FilesCompleter()(prefix)]


def _instance_types(root: Path, prefix: str) -> dict[str, str]:
    return {t.name: f"{t.gpu_count} × {t.gpu}" for t in read_shared(root).instance_types}


def _gpus(root: Path, prefix: str) -> list[str]:
    return [gpu.name for gpu in read_shared(root).gpus]


def _profiles(root: Path, prefix: str) -> dict[str, str]:
    profiles = read_shared(root).policy.profiles
    return {profile.name: f"vLLM {profile.vllm_version}" for profile in profiles}


def _codes(root: Path, prefix: str) -> dict[str, str]:
    from kaito_catalog.checks.registry import RULES

    return {rule.code: rule.title for rule in RULES}


def _families_and_codes(root: Path, prefix: str) -> dict[str, str]:
    from kaito_catalog.checks.registry import FAMILIES

    *before, _ = prefix.split(",")
    kept = "".join(f"{code}," for code in before)
    return {f"{kept}{code}": about for code, about in {**FAMILIES, **_codes(root, prefix)}.items()}


COMPLETERS: dict[str, Completer] = {
    "paths": _models_and_files,
    "model": _models_and_files,
    "names": _models,
    "name": _models,
    "instance_type": _instance_types,
    "gpu": _gpus,
    "profile": _profiles,
    "code": _codes,
    "select": _families_and_codes,
    "ignore": _families_and_codes,
}
"""Name of an argument to what it may be; `choices` are known anyway, and other arguments are files."""

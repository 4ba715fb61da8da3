"""The command line starts as fast as Python does: what a command does not need is not imported."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kaito_catalog import cli
from kaito_catalog.cli.arguments import FORMATS, build_parser
from kaito_catalog.reports import RENDERERS

HEAVY = (
    "dataclasses", "httpx", "huggingface_hub", "inspect", "jinja2", "json", "markdown_it", "mkdocs", "pathlib",
    "pydantic", "typing", "yaml",
)  # fmt: skip
OURS = (
    "kaito_catalog", "kaito_catalog.__main__", "kaito_catalog.cli", "kaito_catalog.cli.arguments",
    "kaito_catalog.cli.kinds_of_words", "kaito_catalog.cli.plan_arguments",
    "kaito_catalog.errors", "kaito_catalog.memory", "kaito_catalog.memory.option_kinds",
    "kaito_catalog.memory.options",
)  # fmt: skip

_SHOW = """
import sys
sys.argv = ["kaito-catalog", *{arguments!r}]
from kaito_catalog.cli import main
try:
    main()
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""


def imported_by(*arguments: str) -> set[str]:
    """The modules that a fresh Python has imported after running the command."""
    # Without site: an editable installation's own hooks import some of these.
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{_SHOW.format(arguments=arguments)}"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("check", "--help"), ()])
def test_asking_for_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    found = imported_by(*arguments)
    assert [name for name in HEAVY if name in found] == []
    assert {name for name in found if name.startswith("kaito_catalog")} <= set(OURS)


def test_explaining_a_check_needs_neither_the_hub_nor_the_site() -> None:
    found = imported_by("explain", "STO001")
    assert "kaito_catalog.checks.sto" in found
    assert found & {"huggingface_hub", "jinja2", "kaito_catalog.hub.client", "kaito_catalog.site"} == set()


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
            for parser_of_actions in action.choices.values():
                yield from commands(parser_of_actions)


@pytest.mark.parametrize("name", [name for name, _ in commands(build_parser())])
def test_every_command_names_a_function_that_exists(name: str) -> None:
    parser = dict(commands(build_parser()))[name]
    assert callable(cli.function(parser.get_default("run")))


def test_the_formats_of_check_are_those_that_can_be_written() -> None:
    assert sorted(RENDERERS) == list(FORMATS)


@pytest.mark.parametrize("port", ["-1", "65536", "x", "9" * 5000])
def test_a_port_that_is_none_is_refused_in_words(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fake-hub", "--port", port])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: argument --port: must be a number from 0 to 65535\nhint: see kaito-catalog fake-hub --help\n"
    )

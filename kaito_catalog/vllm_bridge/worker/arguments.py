"""Arguments of `vllm serve`, read by vLLM's own parser: what the engine takes of them, and what the server takes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.refusals import own_words, refusal
from kaito_catalog.vllm_bridge.worker.releases import find
from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError


def serve_parser() -> Any:
    """The parser of `vllm serve`."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return find("arguments of vllm serve").make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))


class Parsed(NamedTuple):
    namespace: Any
    unrecognized: list[str]
    error: str


def parse(parser: Any, argv: Sequence[str]) -> Parsed:
    """Parse as KAITO's launcher does; the error is the parser's last line, without the usage."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            namespace, unrecognized = parser.parse_known_args(list(argv))
    except SystemExit:
        lines = said.getvalue().strip().splitlines() or ["the parser gave no reason"]
        return Parsed(None, [], lines[-1].partition(": error: ")[2] or lines[-1])
    except Exception as error:
        return Parsed(None, [], own_words(error))
    error_text = f"unrecognized arguments: {' '.join(unrecognized)}" if unrecognized else ""
    return Parsed(namespace, list(unrecognized), error_text)


def find_action(parser: Any, key: str) -> Any:
    flag = "--" + key.partition(".")[0].replace("_", "-")
    actions = parser._option_string_actions
    return actions.get(flag) or actions.get("--" + key)


class Given(NamedTuple):
    """What arguments set: fields of the engine with their values, and names that only the server reads."""

    engine: JSON
    server: list[str]


NOTHING_GIVEN = Given({}, [])

OF_THE_REQUEST = ("model", "model_tag")
"""Set by the request alone: an argument that is left over is taken for the name of a model."""


def given_arguments(argv: Sequence[str]) -> Given:
    """What arguments of `vllm serve` set.

    Raises:
        RequestError: vLLM has not all of them, or refuses one; the message names it.
    """
    from vllm.engine.arg_utils import EngineArgs

    parser = serve_parser()
    parsed = parse(parser, argv)
    if parsed.error:
        raise RequestError("bad-option", f"vllm serve: {parsed.error}")
    defaults = vars(parser.parse_args([]))
    given = {name: value for name, value in vars(parsed.namespace).items() if value != defaults.get(name)}
    for name in OF_THE_REQUEST:
        if name in given:
            words = f"vllm serve: {given[name]!r} would be the name of a model, which the request has"
            raise RequestError("bad-option", words)
    try:
        find("arguments of vllm serve").validate_parsed_serve_args(parsed.namespace)
        find("validation of the server's arguments")(parsed.namespace)
    except Exception as error:
        raise refusal(error, stage="configuration") from error
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    engine = {name: value for name, value in given.items() if name in fields}
    return Given(engine, sorted(given.keys() - fields))

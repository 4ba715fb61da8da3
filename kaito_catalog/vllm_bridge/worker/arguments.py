"""Arguments of `vllm serve`, read by vLLM's own parser: what the engine takes of them, and what the server takes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.refusals import own_words, refusal
from kaito_catalog.vllm_bridge.worker.releases import find
from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError


def serve_parser() -> Any:
    """The parser of `vllm serve`, which keeps what it does not know in `left_over`."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Keeping(FlexibleArgumentParser):
        left_over: Sequence[str] = ()

        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            found, self.left_over = super().parse_known_args(args, namespace)
            return found, []

    return find("arguments of vllm serve").make_arg_parser(Keeping(prog="vllm serve"))


class Parsed(NamedTuple):
    namespace: Any
    unrecognized: list[str]
    error: str


def parse(parser: Any, argv: Sequence[str], namespace: Any = None) -> Parsed:
    """Parse as KAITO's launcher does, `--compilation-config.level=0` and `-O3` included; no usage is in the error."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            namespace = parser.parse_args(list(argv), namespace)
    except SystemExit:
        text = said.getvalue().strip() or "the parser gave no reason"
        reason = text.partition(": error: ")[2] or text.splitlines()[-1]
        return Parsed(None, [], " ".join(re.sub(r"For further information visit \S+", "", reason).split()))
    except Exception as error:
        return Parsed(None, [], own_words(error))
    unrecognized = list(parser.left_over)
    error_text = f"unrecognized arguments: {' '.join(unrecognized)}" if unrecognized else ""
    return Parsed(namespace, unrecognized, error_text)


def find_action(parser: Any, key: str) -> Any:
    flag = "--" + key.partition(".")[0].replace("_", "-")
    actions = parser._option_string_actions
    return actions.get(flag) or actions.get("--" + key)


class Given(NamedTuple):
    """What arguments set, with the values: fields of the engine, and what only the server reads."""

    engine: JSON
    server: JSON

    def described(self, args: JSON) -> JSON:
        """The names: what the engine is made with, what only the server reads, what `args` have otherwise."""
        overridden = {name for name, value in self.engine.items() if args.get(name, value) != value}
        return {
            "engine": sorted(self.engine.keys() - overridden),
            "server": sorted(self.server),
            "overridden": sorted(overridden),
        }


NOTHING_GIVEN = Given({}, {})

OF_THE_REQUEST = ("model", "model_tag")
"""Set by the request alone: an argument that is left over is taken for the name of a model."""


OF_ANOTHER_MACHINE = ("chat_template",)
"""Files of the image that serves: whether they are there cannot be told here."""


def given_arguments(argv: Sequence[str]) -> Given:
    """What arguments of `vllm serve` set; what is written is given, even where it is vLLM's default.

    Raises:
        RequestError: vLLM has not all of them, or refuses one; the message names it.
    """
    from vllm.engine.arg_utils import EngineArgs

    parser = serve_parser()
    defaults = vars(parser.parse_args([]))
    # What is still absent was not given, whatever its default is; an action that appends starts from its default.
    absent = object()
    appending = {a.dest for a in parser._actions if type(a).__name__ in ("_AppendAction", "_ExtendAction")}
    start = argparse.Namespace(**dict.fromkeys(defaults.keys() - appending, absent))
    parsed = parse(parser, argv, start)
    if parsed.error:
        raise RequestError("bad-option", f"vllm serve: {parsed.error}")
    found = vars(parsed.namespace)
    given = {
        name: value
        for name, value in found.items()
        if value is not absent and (name not in appending | {"model_tag"} or value != defaults.get(name))
    }
    namespace = argparse.Namespace(**{**defaults, **given, **dict.fromkeys(OF_ANOTHER_MACHINE)})
    for name in OF_THE_REQUEST:
        if name in given:
            words = f"vllm serve: {given[name]!r} would be the name of a model, which the request has"
            raise RequestError("bad-option", words)
    try:
        find("arguments of vllm serve").validate_parsed_serve_args(namespace)
        find("validation of the server's arguments")(namespace)
    except Exception as error:
        raise refusal(error, stage="configuration") from error
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    engine = {name: value for name, value in given.items() if name in fields}
    return Given(engine, {name: value for name, value in given.items() if name not in fields})

"""`check-options`: a proposal's `vllm:` block as KAITO passes it on, judged by vLLM's parser and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kaito_catalog.vllm_bridge.worker.arguments import find_action, parse, serve_parser
from kaito_catalog.vllm_bridge.worker.configuration import describe_config, describe_settings, versions
from kaito_catalog.vllm_bridge.worker.refusals import failure_class, own_words
from kaito_catalog.vllm_bridge.worker.releases import find
from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, model_path
from kaito_catalog.vllm_bridge.worker.simulated_gpu import SimulatedHardware


def check_options(request: JSON, progress: Progress) -> JSON:
    """The `vllm:` block of KAITO's inference_config, judged by vLLM's parser and engine configuration.

    KAITO turns each pair into `--key` and `str(value)`; that expansion is replayed as it is, so a boolean is found
    to switch its option on whatever it says, and to leave its value behind as a stray argument.
    """
    pairs = list((request.get("options") or {}).items())
    progress("parsing the options")
    parser = serve_parser()
    base = ["--model", model_path(request), "--load-format", "dummy", "--skip-tokenizer-init"]
    findings = [finding for key, value in pairs for finding in judge_option(parser, key, value)]
    argv = [token for key, value in pairs for token in kaito_expansion(key, value)]
    together = parse(parser, [*base, *argv])
    if together.error and not any(finding["kind"] in PARSER_KINDS for finding in findings):
        findings.append({"option": None, "kind": "refused-together", "message": together.error})

    refused = {finding["option"] for finding in findings if finding["kind"] in PARSER_KINDS}
    accepted = [
        token
        for key, value in pairs
        if key not in refused
        for token in intended_arguments(parser, key, value)
    ]
    progress("making the engine configuration")
    resolved, refusals = judge_configuration(parser, [*base, *accepted], dict(pairs))
    return {
        **versions(),
        "accepted": not findings and not refusals,
        "findings": findings + refusals,
        "expansion": argv,
        "unrecognized": together.unrecognized,
        "resolved": resolved,
    }


# Findings of the parser: an option with one of these cannot be handed on to the engine configuration.
PARSER_KINDS = frozenset({"unknown-option", "invalid-value"})


def kaito_expansion(key: str, value: Any) -> list[str]:
    """KAITO's launcher appends the key with two dashes and Python's text of the value."""
    return [f"--{key}"] if value == "" else [f"--{key}", str(value)]


def intended_arguments(parser: Any, key: str, value: Any) -> list[str]:
    """The arguments that say what the pair means, for judging values even where the expansion goes wrong."""
    action = find_action(parser, key)
    if action is not None and action.nargs == 0 and isinstance(value, bool):
        if value:
            return [f"--{key}"]
        negation = f"--no-{key}"
        return [negation] if negation in parser._option_string_actions else []
    return kaito_expansion(key, value)


def judge_option(parser: Any, key: str, value: Any) -> Iterator[JSON]:
    action = find_action(parser, key)
    expansion = kaito_expansion(key, value)
    shown = " ".join(expansion)
    if action is None:
        near = nearest(key, parser._option_string_actions)
        yield {
            "option": key,
            "kind": "unknown-option",
            "message": f"unrecognized arguments: {shown}",
            **({"nearest": near} if near else {}),
        }
        return
    parsed = parse(parser, expansion)
    if parsed.namespace is None:
        yield {"option": key, "kind": "invalid-value", "message": parsed.error}
        return
    if action.nargs != 0:
        return
    got = getattr(parsed.namespace, action.dest)
    wanted = boolean_meaning(value)
    if wanted is False and got is True:
        yield {
            "option": key,
            "kind": "switched-on",
            "message": f"KAITO passes `{shown}`, and --{key} takes no value: it is switched on, not off",
            "parsed": got,
        }
    elif value != "":
        yield {
            "option": key,
            "kind": "stray-value",
            "message": f"KAITO passes `{shown}`, and --{key} takes no value: {value!s} is left over",
            "parsed": got,
        }


def boolean_meaning(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"false": False, "true": True, "no": False, "yes": True, "0": False, "1": True}.get(
        str(value).lower()
    )


def nearest(key: str, flags: Mapping[str, Any]) -> str | None:
    import difflib

    names = [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
    close = difflib.get_close_matches(key, names, n=1)
    return close[0] if close else None


def judge_configuration(parser: Any, argv: Sequence[str], given: JSON) -> tuple[JSON | None, list[JSON]]:
    """Let vLLM make its engine configuration of the options that its parser accepts."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    parsed = parse(parser, argv)
    if parsed.namespace is None:
        return None, [{"option": None, "kind": "refused-together", "message": parsed.error}]
    world = parsed.namespace.tensor_parallel_size * parsed.namespace.pipeline_parallel_size
    SimulatedHardware.device_count = max(8, world)
    if world > 1 and parsed.namespace.distributed_executor_backend is None:
        parsed.namespace.distributed_executor_backend = "mp"
    found: list[JSON] = []
    try:
        find("arguments of vllm serve").validate_parsed_serve_args(parsed.namespace)
        find("validation of the server's arguments")(parsed.namespace)
    except Exception as error:
        found.append(configuration_finding(error, given))
    try:
        config = AsyncEngineArgs.from_cli_args(parsed.namespace).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
    except Exception as error:
        return None, [*found, configuration_finding(error, given)]
    return {**describe_config(config), **describe_settings(config)}, found


def configuration_finding(error: Exception, given: JSON) -> JSON:
    message = own_words(error)
    mentioned = [key for key in given if names_option(message, key)]
    return {
        "option": mentioned[0] if len(mentioned) == 1 else None,
        "kind": "unsupported-architecture"
        if failure_class(error, stage="configuration") == "unsupported-architecture"
        else "configuration",
        "message": message,
    }


def names_option(message: str, key: str) -> bool:
    words = "[-_ ]".join(re.escape(word) for word in re.split("[-_]", key))
    return re.search(rf"(?<![\w-]){words}(?![\w-])", message, re.IGNORECASE) is not None

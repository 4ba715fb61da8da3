"""SEC: what does loading the model run, and are its files what they were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pydantic import JsonValue

from kaito_catalog.checks.base import (
    ERROR,
    NO_FACTS,
    WARNING,
    Context,
    Finding,
    Outcome,
    Skip,
    Subject,
    check,
)
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.repository import is_safe, printable

_RECORD = "record them from the Hub: kaito-catalog record NAME"
_NO_FILES = Skip("the repository's files are not recorded", _RECORD)
_NO_CODE = Skip("whether the repository holds code is not recorded", _RECORD)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@check("SEC001")
def no_pickle(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The weights are pickle files only.

    Loading a pickle (`*.bin`, `*.pt`) can run any code that its author put there. Safetensors hold numbers and
    nothing else, and vLLM prefers them where a repository has both.

    Fails::

        facts: {weights: {format: pickle}}

    Passes::

        facts: {weights: {format: safetensors}}
    """
    if subject.facts is None or subject.facts.weights is None:
        yield (
            NO_FACTS if subject.facts is None else Skip("the format of the weights is not recorded", _RECORD)
        )
    elif subject.facts.weights.format == "pickle":
        yield Finding(
            "the weights are pickle files, which can run code when they are loaded",
            ("weights", "format"),
            "choose a repository or a revision with safetensors",
            in_facts=True,
        )


def _names(auto_map: object) -> Iterator[str]:
    match auto_map:
        case str():
            yield auto_map
        case list() | tuple():
            for part in auto_map:
                yield from _names(part)
        case dict():
            for part in auto_map.values():
                yield from _names(part)
        case _:
            return


def _pins_code(subject: Subject) -> bool:
    config = (subject.proposal.vllm.config if subject.proposal.vllm else None) or {}
    pin = config.get("code-revision", config.get("code_revision"))
    return isinstance(pin, str) and len(pin) == 40


@check("SEC002")
def code_of_others_is_pinned(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The configuration loads code from another repository that is not pinned.

    `auto_map` may name a class as `org/repo--module.Class`. That code comes from the main branch of the other
    repository, whatever revision of this one is pinned, unless `code-revision` says which commit is meant.

    Fails::

        facts:
          remoteCode:
            files: []
            autoMap: {AutoModelForCausalLM: example-org/other-code--modeling_example.ExampleForCausalLM}

    Passes::

        facts:
          remoteCode:
            files:
              - {path: modeling_example.py, sha256: 00000000000000000000000000000000000000000000000000000000000000aa}
            autoMap: {AutoModelForCausalLM: modeling_example.ExampleForCausalLM}
    """
    facts = subject.facts
    if facts is None or not _code_is_known(facts):
        yield NO_FACTS if facts is None else _NO_CODE
        return
    others = sorted(
        {name for name in _names(facts.remote_code.auto_map if facts.remote_code else None) if "--" in name}
    )
    if others and not _pins_code(subject):
        repositories = ", ".join(dict.fromkeys(printable(name.partition("--")[0]) for name in others))
        yield Finding(
            f"auto_map loads code from {repositories}, at whatever commit its main branch has",
            ("remoteCode", "autoMap"),
            "set code-revision in the options of the vllm runtime to a full commit of it",
            in_facts=True,
        )


def _code_is_known(facts: ModelFacts) -> bool:
    """Whether absent `remoteCode` means that there is none: only `record` has looked."""
    return facts.remote_code is not None or (facts.source.kind != "transcribed" and facts.config is not None)


def _trusts(subject: Subject) -> int | None:
    return next(
        (
            number
            for number, runtime in enumerate(subject.proposal.runtimes or ())
            if runtime.trust_remote_code
        ),
        None,
    )


@check("SEC003")
def code_has_hashes(subject: Subject, context: Context) -> Iterator[Outcome]:
    """Code of the repository is run, and its files have no recorded hashes.

    `trustRemoteCode: true` runs the repository's Python files on the GPU node, with its secrets. Which code was
    looked at is known only by its hashes. KAITO v0.12 starts every model with `--trust-remote-code`, so files
    without a hash are a warning also where the proposal does not ask for them. Where the repository was
    not searched for such files, the permission is an error; with transcribed facts it is a warning, since only the Hub
    lists the files.

    Fails::

        facts: {remoteCode: {files: [{path: modeling_example.py}]}}
        runtimes:
          - {name: vllm, distributedInference: false, config: {max-model-len: 16384}, trustRemoteCode: true}

    Passes::

        facts:
          remoteCode:
            files:
              - {path: modeling_example.py, sha256: 00000000000000000000000000000000000000000000000000000000000000aa}
        runtimes:
          - {name: vllm, distributedInference: false, config: {max-model-len: 16384}, trustRemoteCode: true}
    """
    number = _trusts(subject)
    facts = subject.facts
    if facts is None or not _code_is_known(facts):
        if number is not None:
            yield Finding(
                "trustRemoteCode is true, and which files would run is not recorded",
                ("runtimes", number, "trustRemoteCode"),
                _RECORD,
                severity=WARNING if facts is not None and facts.source.kind == "transcribed" else ERROR,
            )
        yield NO_FACTS if facts is None else _NO_CODE
        return
    bare = [file.path for file in facts.remote_code.files if file.sha256 is None] if facts.remote_code else []
    if bare:
        more = f" and {len(bare) - 2} more" if len(bare) > 2 else ""
        yield Finding(
            f"{', '.join(printable(path) for path in bare[:2])}{more} would run, and no hash is recorded",
            ("remoteCode", "files"),
            _RECORD,
            severity=ERROR if number is not None else WARNING,
            in_facts=True,
        )


@check("SEC004")
def safe_names(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A file of the repository has an unsafe name.

    A name that is absolute, contains `..` or a backslash, or characters that cannot be seen, can lead a download
    outside its folder or show one thing and be another. Such a file is listed and never read.

    Fails::

        facts: {files: [{path: ../../etc/cron.d/job, sizeBytes: 12}]}

    Passes::

        facts: {files: [{path: subfolder/config.json, sizeBytes: 12}]}
    """
    if subject.facts is None or subject.facts.files is None:
        yield NO_FACTS if subject.facts is None else _NO_FILES
        return
    for number, file in enumerate(subject.facts.files):
        if not is_safe(file.path):
            yield Finding(
                f"'{printable(file.path[:80])}' is not a safe file name",
                ("files", number, "path"),
                "do not use the repository; tell the Hub (report this model)",
                in_facts=True,
            )


@check("SEC005")
def weights_have_hashes(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A file of weights has no recorded hash.

    The Hub keeps weights in LFS and knows the SHA-256 of each. Without it there is no telling whether the file that a
    node downloads is the one that was checked.

    Fails::

        facts: {files: [{path: model.safetensors, sizeBytes: 16060556288}]}

    Passes::

        facts:
          files:
            - path: model.safetensors
              sizeBytes: 16060556288
              sha256: 00000000000000000000000000000000000000000000000000000000000000aa
    """
    if subject.facts is None or subject.facts.files is None:
        yield NO_FACTS if subject.facts is None else _NO_FILES
        return
    for number, file in enumerate(subject.facts.files):
        if file.path.endswith(_WEIGHTS) and file.sha256 is None:
            yield Finding(
                f"{printable(file.path)} has no recorded SHA-256",
                ("files", number, "path"),
                _RECORD,
                severity=WARNING if subject.facts.source.kind == "transcribed" else None,
                in_facts=True,
            )


@check("SEC006", severity=WARNING)
def trust_is_needed(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The proposal trusts remote code that the repository does not have.

    A permission that nothing needs would hold for whatever a later revision brings.

    Fails::

        runtimes:
          - {name: vllm, distributedInference: false, config: {max-model-len: 16384}, trustRemoteCode: true}

    Passes::

        runtimes:
          - {name: vllm, distributedInference: false, config: {max-model-len: 16384}, trustRemoteCode: false}
    """
    number = _trusts(subject)
    if number is None:
        return
    facts = subject.facts
    if facts is None or not _code_is_known(facts):
        yield NO_FACTS if facts is None else _NO_CODE
    elif facts.remote_code is None:
        yield Finding(
            "trustRemoteCode is true, and the repository holds no code at this revision",
            ("runtimes", number, "trustRemoteCode"),
            "trustRemoteCode: false",
        )


_OTHER_REPOSITORIES = (
    "model",
    "tokenizer",
    "hf-config-path",
    "spec-model",
    "lora-modules",
    "default-mm-loras",
)
_IMPORTED = (
    "io-processor-plugin",
    "logits-processors",
    "middleware",
    "model-class-overrides",
    "reasoning-parser-plugin",
    "scheduler-cls",
    "tool-parser-plugin",
    "worker-cls",
    "worker-extension-cls",
)
_SECRETS = ("api-key", "hf-token")
_OPENED = {
    "allowed-local-media-path": "lets a request read the node's files under",
    "otlp-traces-endpoint": "sends traces of requests to",
    "tool-server": "lets the model use the tools of",
}
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


@check("SEC007")
def options_stay_with_what_was_pinned(subject: Subject, context: Context) -> Iterator[Outcome]:
    """An option leads away from the repository and revision that were checked, or opens the server.

    KAITO appends the options to its own, and the last one counts: `revision: main` undoes the pinned commit, `model`
    and `tokenizer` name another repository, a draft model without a commit is whatever its branch holds, and the
    plug-in options make vLLM import a module that has not been checked. A key in a proposal is public.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384, revision: main}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            config: {max-model-len: 16384}
    """
    for number, runtime in enumerate(subject.proposal.runtimes or ()):
        if runtime.name != "vllm":
            continue
        for written, value in (runtime.config or {}).items():
            said = _leads_away(subject, written.replace("_", "-").partition(".")[0], value)
            if said:
                yield Finding(f"{written} {said[0]}", ("runtimes", number, "config", written), said[1])


def _leads_away(subject: Subject, option: str, value: JsonValue) -> tuple[str, str] | None:
    """What is wrong about an option, after its name, and what to do."""
    shown = printable(value if isinstance(value, str) else json.dumps(value))[:80]
    pinned = subject.proposal.requirements.version
    if option in ("revision", "tokenizer-revision") and value != pinned:
        return f"is {shown}, and the proposal pins {pinned}", "leave it out: the manifests pin it"
    if option == "code-revision" and not _FULL_COMMIT.match(str(value)):
        return f"is {shown}, which can change", "write the full commit of the repository with the code"
    if option in _OTHER_REPOSITORIES and value != subject.proposal.repo_id:
        return f"names {shown}, which has not been checked", "leave it out: KAITO passes the model"
    if option in _IMPORTED and value not in ("", None, [], {}):
        return f"makes vLLM import {shown}, which has not been checked", "leave it out"
    if option in _SECRETS:
        return "would be public", "leave it out; a token belongs into deployment.modelAccessSecret's Secret"
    if option in _OPENED and value not in ("", None):
        return f"{_OPENED[option]} {shown}", "leave it out"
    if option == "speculative-config":
        draft = _draft(value)
        model, revision = draft.get("model"), str(draft.get("revision"))
        if isinstance(model, str) and model != subject.proposal.repo_id and not _FULL_COMMIT.match(revision):
            return (
                f"loads {printable(model)[:80]} at whatever commit it has",
                "add its revision, a full commit",
            )
    return None


def _draft(value: JsonValue) -> dict[str, JsonValue]:
    """The settings of a draft model, given as a mapping or as its JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}  # RUN003
    return value if isinstance(value, dict) else {}

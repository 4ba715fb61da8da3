"""The sample manifests of a Markdown proposal: what they say, and where KAITO would refuse them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from kaito_catalog.diagnostics import Place, Route, Severity
from kaito_catalog.documents import reading
from kaito_catalog.documents.streams import parse_inside
from kaito_catalog.formats.proposal import RuntimeName
from kaito_catalog.kaito.crd import KAITO_KEYS
from kaito_catalog.kaito.markdown.blocks import Block, Markdown, Remarks, TextSpan, shorten
from kaito_catalog.kaito.workspaces import read_workspace, text_at

OVERLAY = "ModelProposalOverlay"
"""The kind of the block in which `writer` keeps what KAITO's template has no place for."""

_RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


@dataclass
class SampleWorkspace:
    """A sample manifest: where it stands, which preset it starts, and what it says."""

    place: TextSpan
    words: str
    deployment: dict[str, Any] = field(default_factory=dict)
    places: dict[Route, TextSpan] = field(default_factory=dict)
    """By the route in a proposal."""


@dataclass
class Samples:
    """What the code blocks say."""

    workspaces: list[SampleWorkspace] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    kaito_keys: dict[str, Any] = field(default_factory=dict)
    """Values of KAITO's own keys, by their field of `deployment`."""
    options_place: TextSpan = field(default_factory=lambda: TextSpan("", 1))
    option_places: dict[Route, TextSpan] = field(default_factory=dict)
    """By runtime, or runtime and option; KAITO's own keys by themselves."""
    secrets: list[TextSpan] = field(default_factory=list)
    config_maps: list[TextSpan] = field(default_factory=list)
    overlay: dict[str, Any] | None = None
    overlay_place: TextSpan = field(default_factory=lambda: TextSpan("", 1))
    overlay_places: dict[Route, TextSpan] = field(default_factory=dict)


def read_samples(markdown: Markdown, remarks: Remarks) -> Samples:
    """Every YAML block of the file; what cannot be read is remarked at its line."""
    samples = Samples()
    for section in markdown.sections:
        for block in section.blocks:
            if block.kind == "code":
                _code(block, samples, remarks)
    return samples


def _code(block: Block, samples: Samples, remarks: Remarks) -> None:
    if block.language not in ("", "yaml", "yml"):
        at = TextSpan("", block.span.line - 1, block.span.column)
        remarks.say("IMP019", f"a block of {shorten(block.language)} is left out", at, None, Severity.NOTE)
        return
    for before, text in _documents(block.text):
        document = reading.parse(text, path=remarks.path)
        start = TextSpan("", block.span.line + before, block.span.column)
        if document.problems or not isinstance(document.value, dict):
            for problem in document.problems:
                at = TextSpan(
                    "", start.line + problem.place.line - 1, start.column + problem.place.column - 1
                )
                remarks.say("IMP019", f"the sample cannot be read: {problem.message}", at, problem.hint)
            if not document.problems:
                remarks.say("IMP019", "the block holds no keys and values", start, "a sample is a manifest")
            continue
        _manifest(document, _At(document, start), samples, remarks)


def _manifest(document: reading.Document, at: _At, samples: Samples, remarks: Remarks) -> None:
    value: Mapping[str, Any] = document.value
    name = text_at(value, "metadata", "name")
    match value.get("kind"):
        case "Workspace" | "InferenceSet":
            samples.workspaces.append(_workspace(value, at, remarks))
        case "ConfigMap":
            _config_map(document, at, samples, remarks)
        case "Secret":
            samples.secrets.append(
                TextSpan(name or "", at("metadata", "name").line, at("metadata", "name").column)
            )
        case kind if kind == OVERLAY:
            samples.overlay = {key: part for key, part in value.items() if key not in ("kind", "apiVersion")}
            samples.overlay_place = at()
            samples.overlay_places = {route: at(*route) for route in document.spans}
        case kind:
            remarks.say(
                "IMP019",
                f"a block of the kind {shorten(str(kind))} is left out",
                at("kind"),
                "samples are a Workspace, a ConfigMap and a Secret",
            )


def _workspace(value: Mapping[str, Any], at: _At, remarks: Remarks) -> SampleWorkspace:
    read = read_workspace(value)
    places = {route: at(*to) for route, to in read.routes.items()}
    name = " ".join(filter(None, (read.preset, read.name)))
    result = SampleWorkspace(at("kind"), name, read.deployment, places)
    for remark in read.remarks:
        remarks.say("IMP009" if remark.refused else "IMP019", remark.message, at(*remark.route), remark.hint)
    return result


def _config_map(document: reading.Document, at: _At, samples: Samples, remarks: Remarks) -> None:
    value: Mapping[str, Any] = document.value
    name, place = text_at(value, "metadata", "name"), at("metadata", "name")
    samples.config_maps.append(TextSpan(name or "", place.line, place.column))
    text = text_at(value, "data", "inference_config.yaml")
    start = at("data", "inference_config.yaml")
    if text is None:
        remarks.say(
            "IMP019",
            "the ConfigMap has no inference_config.yaml",
            at("data"),
            "put the options below data, in inference_config.yaml",
        )
        return
    if samples.options:
        remarks.say("IMP019", "a second ConfigMap is left out", start, "keep one per model")
        return
    inner = parse_inside(document, ("data", "inference_config.yaml"), text)
    for problem in inner.problems:
        at_problem = at.place(problem.place)
        remarks.say(
            "IMP019", f"inference_config.yaml cannot be read: {problem.message}", at_problem, problem.hint
        )
    if inner.problems or not isinstance(inner.value, dict):
        if not inner.problems:
            remarks.say("IMP019", "inference_config.yaml holds no keys and values", start, "start with vllm:")
        return
    samples.options_place = start
    for runtime, options in inner.value.items():
        if isinstance(options, dict) and runtime in _RUNTIMES:
            samples.options[runtime] = options
        elif runtime in KAITO_KEYS and _is_number(options):
            samples.kaito_keys[KAITO_KEYS[runtime]] = options
        else:
            remarks.say(
                "IMP019",
                f"'{shorten(runtime)}' of inference_config.yaml is left out",
                at.place(inner.place((runtime,))),
                "options stand below vllm:",
            )
    samples.option_places = {route: at.place(inner.place(route)) for route in inner.spans if len(route) <= 2}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """The YAML documents of a block, each with the number of lines before it."""
    lines = text.split("\n")
    start = 0
    for number in range(len(lines) + 1):
        if number == len(lines) or lines[number].rstrip() == "---":
            part = "\n".join(lines[start:number])
            if part.strip():
                yield start, part
            start = number + 1


@dataclass(frozen=True)
class _At:
    """Says where the keys of a block stand in the Markdown."""

    document: reading.Document
    start: TextSpan

    def __call__(self, *route: str | int) -> TextSpan:
        return self.place(self.document.place(route))

    def place(self, place: Place) -> TextSpan:
        """A place of the block as one of the file."""
        return TextSpan("", self.start.line + place.line - 1, self.start.column + place.column - 1)

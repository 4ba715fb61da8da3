"""Strangers' input by the hundred thousand: `make fuzz`. Whatever is made up, the answer is a diagnostic or an error.

    python -m tools.fuzz [--count N] [--seed S] [--only TARGET …]

Each target makes one input from a random number generator and gives it to the program's own functions. What counts as
a crash: any exception but CatalogError, and any promise that does not hold (a place outside of the file, a line of a
report that a text of the input began, a manifest that reads back as something else). An input is named by target,
seed and number, and made again by `--only TARGET --seed S --start NUMBER --count 1`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from kaito_catalog import generate
from kaito_catalog.architectures import read_shape
from kaito_catalog.catalog.entries import Catalog, Entry, Evidence
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import Report, check_entry
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.diagnostics import Diagnostic
from kaito_catalog.documents import reading, writing
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun, ExactPlan
from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.directory import LocalSnapshot
from kaito_catalog.hub.facts import facts_of
from kaito_catalog.hub.repository import is_safe
from kaito_catalog.hub.safetensors import header_length, parse_header, tensor_bytes
from kaito_catalog.hub.weight_files import choose_weights, missing_files, missing_layers, read_index
from kaito_catalog.kaito.markdown.reader import read_proposals
from kaito_catalog.kaito.markdown.writer import write_proposal
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Parallelism, PlanGpu, PlanRequest, Settings, to_json
from kaito_catalog.proposals import fix
from kaito_catalog.quantity import GIB
from kaito_catalog.reports.github import github, step_summary
from kaito_catalog.reports.json import json_report
from kaito_catalog.reports.markdown import markdown
from kaito_catalog.reports.sarif import sarif
from kaito_catalog.reports.text import text as text_report
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge import evidence
from kaito_catalog.vllm_bridge.logs import evidence_lines
from tools.exact_models import SMALL_PLANS
from tools.fuzz_inputs import TEXTS, damaged, mutated, reworded

ROOT = Path(__file__).resolve().parents[1]


# --- the real catalog, as what inputs are made of ----------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A model of the catalog as plain values."""

    entry: Entry
    proposal: dict[str, Any]
    facts: dict[str, Any]
    config: dict[str, Any]


@cache
def real_catalog() -> Catalog:
    """The catalog of this repository."""
    return read_catalog(ROOT / "catalog")


@cache
def samples() -> tuple[Sample, ...]:
    """The models of the catalog that have facts."""
    return tuple(
        Sample(
            entry, entry.proposal_document.value, entry.facts_document.value, dict(entry.facts.config or {})
        )
        for entry in real_catalog().entries
        if entry.facts_document is not None and entry.facts is not None
    )


@cache
def evidences() -> tuple[Evidence, ...]:
    """All evidence of the catalog."""
    return tuple(found for entry in real_catalog().entries for found in entry.evidence)


@cache
def context() -> Context:
    """What checks run with."""
    shared = real_catalog().shared
    return Context(shared, shared.profile())


# --- what has to hold ------------------------------------------------------------------------------------------


def hold(promise: bool, what: str) -> None:
    """Fail where a promise does not hold; also under `python -O`."""
    if not promise:
        raise AssertionError(what)


def places_are_inside(problems: Sequence[Diagnostic], text: str) -> None:
    """Every diagnostic stands at a line of the text."""
    lines = text.count("\n") + 1
    for problem in problems:
        hold(
            1 <= problem.place.line <= lines and problem.place.column >= 1,
            f"{problem.place} of {lines} lines",
        )
        hold(bool(problem.message.strip()), f"{problem.code} says nothing")


def reports_hold(entry: Entry) -> None:
    """Check the entry; every report of it is well-formed and no line of it was begun by the input."""
    report = Report((check_entry(entry, CHECKS, context()),))
    documents = {entry.proposal_document.path: entry.proposal_document}
    for line in github(report).splitlines()[:-2]:
        hold(line.startswith(("::error ", "::warning ", "::notice ")), f"github line {line[:80]!r}")
    for made in (step_summary(report), markdown(report, documents)):
        hold("<script" not in made and "\x1b" not in made, "markup in Markdown")
    hold("\x1b" not in text_report(report, documents), "a control character in the text report")
    json.loads(json_report(report), parse_constant=_no_constant)
    json.loads(sarif(report, documents), parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


def entry_of(sample: Sample, proposal: Any = None, facts: Any = None) -> Entry | None:
    """The sample with other values, through YAML as from a disk; None where YAML cannot hold them."""
    document, facts_document = sample.entry.proposal_document, sample.entry.facts_document
    claimed, recorded = sample.entry.proposal, sample.entry.facts
    problems: list[Diagnostic] = []
    if proposal is not None:
        document = reading.parse(writing.write(proposal), path="fuzz/proposal.yaml")
        claimed, found = load(document, Proposal)
        places_are_inside(found, document.text)
        problems.extend(found)
    if facts is not None:
        facts_document = reading.parse(writing.write(facts), path="fuzz/facts.yaml")
        recorded, found = load(facts_document, ModelFacts)
        places_are_inside(found, facts_document.text)
        problems.extend(found)
    return replace(
        sample.entry,
        proposal_document=document,
        proposal=claimed,
        facts_document=facts_document,
        facts=recorded,
        problems=tuple(problems),
    )


# --- targets ---------------------------------------------------------------------------------------------------


def fuzz_yaml(rng: random.Random) -> None:
    """YAML text → a document, a proposal, and what `--fix` would make of it."""
    sample = rng.choice(samples())
    text = damaged(rng, sample.entry.proposal_document.text)
    data = text.encode("utf-8", "surrogatepass")
    document = (
        reading.parse_bytes(data, path="fuzz.yaml")
        if rng.random() < 0.5
        else reading.parse(text, path="f.yaml")
    )
    problems = load(document, Proposal)[1]
    places_are_inside(problems, text)
    if not document.problems:
        wanted = list(fix.corrections(document.value, context().shared.policy))
        fixed, _ = fix.apply(document, wanted)
        hold(not reading.parse(fixed, path="f.yaml").problems, "a correction broke the file")


def fuzz_proposal(rng: random.Random) -> None:
    """A proposal → validation, all checks, all reports."""
    sample = rng.choice(samples())
    change = rng.choice((mutated, reworded))
    entry = entry_of(sample, proposal=change(rng, sample.proposal))
    if entry is not None:
        reports_hold(entry)


def fuzz_facts(rng: random.Random) -> None:
    """Facts → validation, all checks with the real proposal, all reports."""
    sample = rng.choice(samples())
    entry = entry_of(sample, facts=mutated(rng, sample.facts))
    if entry is not None:
        reports_hold(entry)


def fuzz_evidence(rng: random.Random) -> None:
    """Evidence → validation, and the checks that compare it."""
    found = rng.choice(evidences())
    text = writing.write(mutated(rng, found.document.value))
    document = reading.parse(text, path="fuzz/evidence.yaml")
    record, problems = load(document, type(found.record))
    places_are_inside(problems, text)
    if record is not None:
        sample = rng.choice(samples())
        reports_hold(replace(sample.entry, evidence=(Evidence(document, record),)))


def fuzz_markdown(rng: random.Random) -> None:
    """A Markdown proposal → what `import` makes of it."""
    proposal = rng.choice(samples()).entry.proposal
    hold(proposal is not None, "a proposal of the catalog")
    assert proposal is not None
    text = damaged(rng, write_proposal(proposal))
    found = read_proposals(text, path="fuzz.md")
    places_are_inside(found.diagnostics, text.replace("\r\n", "\n").replace("\r", "\n"))
    for imported in found.proposals:
        hold(files.safe_name(imported.name) == imported.name, "a name that leads elsewhere")
        load(reading.parse(writing.write(imported.value), path="f.yaml"), Proposal)


@cache
def configurations() -> list[dict[str, Any]]:
    """The catalog's, and a small one of every other architecture and way to quantise that a plan knows."""
    small = json.loads(SMALL_PLANS.read_text(encoding="utf-8"))["models"].values()
    return [*(sample.config for sample in samples()), *(model["config"] for model in small)]


def fuzz_config(rng: random.Random) -> None:
    """config.json → shape → plan on one or more GPUs."""
    config = mutated(rng, rng.choice(configurations()))
    if not isinstance(config, dict):
        return
    gpu = rng.choice(context().shared.gpus)
    stored = rng.choice((None, None, 1, 10**9, 10**12))
    plan = make_plan(
        PlanRequest(
            read_shape(config),
            stored=StoredSize.model_validate({"sizeBytes": stored}) if stored else None,
            gpu=PlanGpu(gpu.name, rng.choice((gpu.memory_bytes, 80 * GIB, 1)), gpu.compute_capability),
            parallelism=Parallelism(
                rng.choice((1, 2, 3, 8)), rng.choice((1, 1, 2, 5)), enable_expert_parallel=rng.random() < 0.2
            ),
            settings=Settings(rng.choice((1, 4096, 131072, 10**12)), rng.choice((0.84, 0.01, 1.0))),
            vllm_version=rng.choice((context().profile.vllm_version, "0.28.0", "0.32.0", "99")),
        )
    )
    json.dumps(to_json(plan), allow_nan=False)


def fuzz_generate(rng: random.Random) -> None:
    """A proposal → every generated file: readable, inside the output, and not more than before."""
    sample = rng.choice(samples())
    entry = entry_of(sample, proposal=reworded(rng, sample.proposal, most=8))
    if entry is None or not entry.is_readable:
        return
    found = generate.build(replace(real_catalog(), entries=(entry,)))
    for name, text in found.files.items():
        files.check_relative(name)
        hold("\ud800" not in text, f"{name}: half a character")
        if name.endswith(".json"):
            json.loads(text, parse_constant=_no_constant)
        elif name.startswith("presets/"):
            kinds = [part["kind"] for part in yaml.safe_load_all(text) if part]
            hold(len(kinds) >= 1 and set(kinds) <= _KINDS, f"{name}: {kinds}")
        elif name == "kaito/model_catalog.yaml":
            yaml.safe_load(text)
        elif name.endswith(".md") and name.startswith("site-src/models/"):
            page = _FENCED.sub("", text)
            hold(
                "<script>alert" not in page and "onerror=" not in page and "{{ 7" not in page,
                f"{name}: markup",
            )


_FENCED = re.compile(r"^ *(`{3,})yaml\n.*?^ *\1$", re.MULTILINE | re.DOTALL)
_KINDS = {"Workspace", "InferenceSet", "ConfigMap", "Secret", "ModelMirror", "MultiRoleInference"}


def fuzz_safetensors(rng: random.Random) -> None:
    """Headers, indexes and names of weight files."""
    header: Any = {
        f"t{n}": {"dtype": "BF16", "shape": [2, n + 1], "data_offsets": [0, 4 * (n + 1)]} for n in range(3)
    }
    header = mutated(rng, header)
    text = damaged(rng, json.dumps(header)) if rng.random() < 0.3 else json.dumps(header)
    data = text.encode("utf-8", "surrogatepass")
    try:
        header_length(struct.pack("<Q", rng.choice((len(data), 0, 2**63, 10**9))) + data)
        tensor_bytes(
            parse_header(data, size_bytes=rng.choice((None, 8 + len(data) + 12))).parameters_by_dtype
        )
    except ValueError:
        pass
    names = [rng.choice(TEXTS) + rng.choice(("", ".safetensors", ".bin", ".gguf")) for _ in range(5)]
    names += ["model.safetensors.index.json", "model-00001-of-00002.safetensors"]
    names = [name for name in names if is_safe(name)]
    index = read_index(mutated(rng, {"weight_map": {"model.layers.1.a": "b"}}))
    indexed = index.files if index else None
    choose_weights(names, indexed)
    missing_files(names, indexed)
    config = mutated(rng, {"num_hidden_layers": 2, "text_config": {}})
    if isinstance(config, dict):  # what is no JSON object is refused where it is read
        missing_layers(index.tensors if index else (), config)


def fuzz_evidence_lines(rng: random.Random) -> None:
    """A log → evidence lines → what `evidence add` accepts."""
    sample = rng.choice(samples())
    value: Any = {"kind": "DryRunResult", "args": {}, "weights": "dummy", "changed": {}, "result": {
        "outcome": "served", "vllmVersion": "0.25.1", "ranks": [{"weightsBytes": 1}], "message": "x"}}  # fmt: skip
    if rng.random() < 0.5:
        value = rng.choice(evidences()).document.value
    line = json.dumps(mutated(rng, value))
    log = "\n".join(
        ("INFO starting", rng.choice(("", "2026-01-01T00:00:00Z ", "[pod/x] ")) + line, damaged(rng, line))
    )
    for found in evidence_lines(io.StringIO(log)):
        try:
            made = evidence.accepted(sample.entry, found)
        except CatalogError:
            continue
        kind = ExactPlan if made.get("kind") == "ExactPlan" else DryRun
        load(reading.parse(writing.write(made), path="e.yaml"), kind)


def fuzz_local(rng: random.Random) -> None:
    """A directory of a repository → facts."""
    sample = rng.choice(samples())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = json.dumps(mutated(rng, sample.config))
        (folder / "config.json").write_bytes(config.encode("utf-8", "surrogatepass"))
        header = json.dumps(
            mutated(rng, {"t": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})
        ).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
        card = damaged(
            rng, "---\nlicense: mit\nbase_model: [a/b]\npipeline_tag: text-generation\n---\n# A model\n"
        )
        (folder / "README.md").write_bytes(card.encode("utf-8", "surrogatepass"))
        snapshot = LocalSnapshot(folder, repo_id="a/b", revision="0" * 40)
        recorded = facts_of(snapshot, kind="local", recorded_at=date(2026, 1, 1))
        facts, problems = load(reading.parse(recorded.text, path="facts.yaml"), ModelFacts)
        hold(facts is not None, f"what was recorded cannot be read: {problems[:1]}")


class _Server:
    """Answers every request with the bytes that were made for it."""

    def __init__(self) -> None:
        self.answer = b""
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"


@cache
def _server() -> _Server:
    return _Server()


_INFO: Mapping[str, Any] = {
    "id": "a/b", "modelId": "a/b", "sha": "0" * 40, "private": False, "gated": False, "disabled": False,
    "downloads": 5, "pipeline_tag": "text-generation", "tags": ["license:mit", "base_model:a/b"],
    "cardData": {"license": "mit", "base_model": "a/b"}, "safetensors": {"parameters": {"BF16": 10}, "total": 10},
    "lastModified": "2026-01-01T00:00:00.000Z",
    "siblings": [{"rfilename": "config.json", "size": 3, "blobId": "0" * 40},
                 {"rfilename": "model.safetensors", "size": 30, "lfs": {"sha256": "0" * 64, "size": 30}}],
}  # fmt: skip


def fuzz_hub(rng: random.Random) -> None:
    """An answer of the Hub, over HTTP → a repository or an error in words."""
    server = _server()
    text = json.dumps(mutated(rng, _INFO))
    server.answer = (damaged(rng, text) if rng.random() < 0.2 else text).encode("utf-8", "surrogatepass")
    server.status = rng.choice((200, 200, 200, 200, 204, 401, 404, 500))
    with Hub(endpoint=server.endpoint, token=False, attempts=1, timeout_seconds=10) as hub:
        found = hub.repository("a/b")
    hold(all(is_safe(file.path) for file in found.files), "a name that leads elsewhere")


@dataclass(frozen=True)
class Target:
    """What is fuzzed, and its share of the inputs."""

    run: Callable[[random.Random], None]
    share: int


TARGETS: dict[str, Target] = {
    "yaml": Target(fuzz_yaml, 20),
    "proposal": Target(fuzz_proposal, 8),
    "facts": Target(fuzz_facts, 6),
    "evidence": Target(fuzz_evidence, 6),
    "markdown": Target(fuzz_markdown, 10),
    "config": Target(fuzz_config, 20),
    "generate": Target(fuzz_generate, 1),
    "safetensors": Target(fuzz_safetensors, 16),
    "evidence-lines": Target(fuzz_evidence_lines, 6),
    "local": Target(fuzz_local, 4),
    "hub": Target(fuzz_hub, 3),
}


@contextmanager
def _expected() -> Iterator[None]:
    try:
        yield
    except CatalogError as error:
        hold(
            bool(error.message) and "\n" not in error.message, f"an error of several lines: {error.message!r}"
        )


def one(name: str, rng: random.Random) -> None:
    """Make one input for a target and try it.

    Raises:
        Exception: it crashed, or a promise does not hold.
    """
    with _expected():
        TARGETS[name].run(rng)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 when nothing crashed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all (default 100,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first input of each target")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args(arguments)
    total = sum(TARGETS[name].share for name in options.only)
    crashes = made = 0
    for name in options.only:
        share = math.ceil(options.count * TARGETS[name].share / total)
        began, seen = time.monotonic(), set[str]()
        for number in range(options.start, options.start + share):
            made += 1
            try:
                one(name, random.Random(f"{name}:{options.seed}:{number}"))  # noqa: S311 - to be made again
            except Exception as error:
                crashes += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__} {where.filename}:{where.lineno}"
                if kind not in seen:
                    seen.add(kind)
                    print(
                        f"{name}:{options.seed}:{number}: {type(error).__name__}: {str(error)[:200]}",
                        flush=True,
                    )
                    traceback.print_exc()
        print(f"{name:16}{share:>9,} inputs  {time.monotonic() - began:7.1f} s", flush=True)
    print(f"{made:,} inputs, {crashes:,} crashes")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())

"""KAITO's Llama 3.3 70B proposal with its own figures: what `check` says is really wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import EntryReport, check_catalog
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.documents import reading, writing
from kaito_catalog.kaito.markdown.reader import read_proposals
from tools.readme import PROPOSAL

NAME = "llama-3.3-70b-instruct"

# The figures of kaito-project/kaito docs/proposals/20250529-llama-3.3-70b-instruct.md; the description is ours.
VERBATIM = """\
apiVersion: catalog.kaito.sh/v1alpha1
kind: ModelProposal
metadata:
  name: llama-3.3-70b-instruct
  title: Proposal for new model support
  heading: Add [meta-llama/Llama-3.3-70B-Instruct](https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct)
  authors: ["@chewong"]
  reviewers: ["KAITO contributor"]
  creationDate: 2025-05-29
  lastUpdated: 2025-05-29
  status: provisional
summary:
  description: A dense model of 70 billion parameters.
  license: {id: llama3.3}
requirements:
  familyName: Llama 3
  type: conversational
  downloadSite: https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct/tree/main
  version: 6f6073b423013f6a7d4d9f39144961bfbfbc386b
  storageSize: 140GB
  gpuCount: 4
  totalGPUMemory: 320GB
  perGPUMemory: 80GB
  contextLength: 16384
runtimes:
  - name: vllm
    distributedInference: true
    customConfigurations: max_model_len is set to 131072 by default but users can override it
    config: {cpu-offload-gb: 0, gpu-memory-utilization: 0.95, swap-space: 4, max-model-len: 16384}
    trustRemoteCode: false
deployment: {instanceType: Standard_ND96isr_H100_v5, modelAccessSecret: hf-token, configMap: llama-inference-params}
history:
  - {event: Open proposal PR, date: 2025-05-29, done: true}
  - {event: Start model integration, date: 2025-06-05, done: true}
  - {event: Complete model support, date: 2025-06-05, done: true}
"""


def check_folder(folder: Path, root: Path, context: Context) -> EntryReport:
    return check_catalog(read_catalog(root / "catalog", [folder]), CHECKS, context).entries[0]


@pytest.fixture
def verbatim(tmp_path: Path, root: Path, context: Context) -> EntryReport:
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "proposal.yaml").write_text(VERBATIM)
    return check_folder(folder, root, context)


def finding(report: EntryReport, code: str) -> Diagnostic:
    (found,) = [d for d in report.diagnostics if d.code == code]
    return found


def test_the_facts_of_the_catalog_are_used_for_a_proposal_that_lies_elsewhere(verbatim: EntryReport) -> None:
    assert "REV002" not in [skip.code for skip in verbatim.skips]


def test_its_storage_is_less_than_its_own_weights(verbatim: EntryReport) -> None:
    found = finding(verbatim, "STO001")
    assert found.severity is Severity.ERROR
    assert found.message == "140GB is less than 141.1 GB (131.4 GiB) of weights"
    assert found.place.line == 20


def test_four_gpus_are_twice_what_it_needs_at_its_own_utilization_and_needed_at_kaitos(
    verbatim: EntryReport,
) -> None:
    found = finding(verbatim, "MEM003")
    assert found.place.line == 21
    assert "2 × 80GB are enough at the proposal's own gpu-memory-utilization of 0.95" in found.message
    assert "at the 0.84 of kaito-v0.12 it does need 4" in found.message


def test_its_words_contradict_its_configuration(verbatim: EntryReport) -> None:
    found = finding(verbatim, "DOC009")
    assert found.message == "the words say max-model-len is 131072, the options say 16384"


def test_it_is_provisional_though_its_history_is_complete(verbatim: EntryReport) -> None:
    found = finding(verbatim, "DOC005")
    assert (
        found.message
        == "the status is provisional, though the history says 'Complete model support' on 2025-06-05"
    )


def test_its_type_is_an_older_word(verbatim: EntryReport) -> None:
    assert finding(verbatim, "ARC001").hint == "type: text-generation"


def test_one_of_its_options_is_gone_from_vllm(verbatim: EntryReport) -> None:
    found = finding(verbatim, "RUN002")
    assert found.message == "vLLM 0.25.1 has no option swap-space: it is gone since 0.18.0 (last in 0.17.1)"


def test_nothing_else_is_wrong_with_it(verbatim: EntryReport) -> None:
    expected = {"STO001", "MEM003", "DOC005", "DOC009", "ARC001", "RUN002", "KTO002"}
    assert {d.code for d in verbatim.diagnostics} == expected


def test_a_proposal_in_kaitos_form_with_these_figures_gives_the_same_findings(
    tmp_path: Path, root: Path, context: Context, verbatim: EntryReport
) -> None:
    (imported,) = read_proposals(PROPOSAL.read_text(encoding="utf-8"), path=PROPOSAL.name).proposals
    folder = tmp_path / "imported" / NAME
    folder.mkdir(parents=True)
    (folder / "proposal.yaml").write_text(writing.write(imported.value))
    found = check_folder(folder, root, context)
    assert {d.code: d.message for d in found.diagnostics} == {d.code: d.message for d in verbatim.diagnostics}


IMPORTED = """\
apiVersion: catalog.kaito.sh/v1alpha1
kind: ModelProposal
metadata:
  name: llama-3.3-70b-instruct
  title: Proposal for new model support
  heading: >-
    Add [meta-llama/Llama-3.3-70B-Instruct](https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct) to the presets
  authors: ["@chewong"]
  reviewers: ["KAITO contributor"]
  creationDate: 2025-05-29
  lastUpdated: 2025-05-29
  status: provisional
glossary: {}
summary:
  description: >-
    Llama 3.3 70B Instruct is a dense decoder of 70 billion parameters, tuned to follow instructions in eight languages.
  usage:
    statistics: 700,643 downloads in the last 30 days
    asOf: 2025-05-29
    source: https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct
  license:
    id: llama3.3
    url: https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct/blob/main/LICENSE
    note: "The repository is gated: a Hugging Face token is needed to download it."
requirements:
  familyName: Llama 3
  type: conversational
  downloadSite: https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct/tree/main
  version: 6f6073b423013f6a7d4d9f39144961bfbfbc386b
  storageSize: 140GB
  gpuCount: 4
  totalGPUMemory: 320GB
  perGPUMemory: 80GB
  contextLength: 16384
  notes: {totalGPUMemory: "~16k context length, longer contexts take more GPUs"}
runtimes:
  - name: vllm
    distributedInference: true
    customConfigurations: >-
      max_model_len is set to 131072 by default; whoever has fewer GPUs sets a shorter one in the Workspace.
    config: {cpu-offload-gb: 0, gpu-memory-utilization: 0.95, swap-space: 4, max-model-len: 16384}
    trustRemoteCode: false
deployment: {instanceType: Standard_ND96isr_H100_v5, modelAccessSecret: hf-token, configMap: llama-inference-params}
history:
  - {event: Open proposal PR, date: 2025-05-29, done: true}
  - {event: Start model integration, date: 2025-06-05, done: true}
  - {event: Complete model support, date: 2025-06-05, done: true}
waivers: {}
"""


def test_the_import_is_everything_that_the_markdown_says() -> None:
    (imported,) = read_proposals(PROPOSAL.read_text(encoding="utf-8"), path=PROPOSAL.name).proposals
    assert imported.value == reading.parse(IMPORTED, path="imported.yaml").value


def test_the_corrected_entry_passes(root: Path, context: Context) -> None:
    found = check_folder(root / "catalog" / "models" / NAME, root, context)
    assert found.diagnostics == ()
    assert found.image_hosting == "user-built"

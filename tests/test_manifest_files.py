"""`check` and `import` of a Workspace, an InferenceSet and a ConfigMap as people write them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalog_helpers import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_entry
from kaito_catalog.checks.registry import CHECKS, OF_MANIFESTS
from kaito_catalog.diagnostics import Severity
from kaito_catalog.documents.streams import parse_all
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.objects import ManifestFile, read_manifests
from kaito_catalog.kaito.release import recorded_release
from kaito_catalog.proposals.of_manifests import entry_of, imported_value

KAITO = recorded_release("v0.12")
WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: workspace-phi-4
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector:
    matchLabels:
      apps: phi-4
inference:
  preset:
    name: phi-4
  config: phi-params
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: phi-params
data:
  inference_config.yaml: |
    # what KAITO reads
    max_probe_steps: 6
    vllm:
      max-model-len: 8192
      swap-space: 4
"""
BOTH = f"# phi\n---\n{WORKSPACE}---\n{CONFIG_MAP}"
ONLY_PHI = pytest.mark.models("phi-4", evidence=False)


def read(text: str, *others: str) -> ManifestFile:
    files = [parse_all(part.encode(), path=f"{n}.yaml") for n, part in enumerate((text, *others))]
    return read_manifests(files, KAITO)


def messages(text: str) -> list[str]:
    return [p.message for model in read(text).models for p in model.problems]


def report(run: Run, here: Path, text: str, *others: str) -> tuple[int, dict[str, Any], str]:
    names = []
    for number, part in enumerate((text, *others)):
        path = here / f"{number}.yaml"
        path.write_text(part)
        names.append(path.name)
    code, out, err = run("check", *names, "--format", "json")
    return code, json.loads(out) if out else {}, err


# --- what they say ---------------------------------------------------------------------------------------------


def test_a_workspace_and_its_config_map_are_one_model() -> None:
    (model,) = read(BOTH).models
    assert (model.name, model.preset, model.repo_id) == ("workspace-phi-4", "phi-4", "microsoft/phi-4")
    assert model.config == {"max-model-len": 8192, "swap-space": 4}
    assert model.deployment == {
        "instanceType": "Standard_NC24ads_A100_v4", "configMap": "phi-params", "maxProbeSteps": 6,
    }  # fmt: skip
    assert model.problems == ()


def test_an_option_stands_at_its_line_in_the_block_of_the_config_map() -> None:
    (model,) = read(BOTH).models
    place = model.places["runtimes", 0, "config", "swap-space"]
    assert (BOTH.split("\n")[place.line - 1], place.column) == ("      swap-space: 4", 7)


def test_a_config_map_of_another_file_is_found_and_keeps_its_file() -> None:
    (model,) = read(WORKSPACE, CONFIG_MAP).models
    place = model.places["runtimes", 0, "config", "swap-space"]
    assert (place.path, place.line) == ("1.yaml", 11)


def test_a_files_own_config_map_comes_before_another_files() -> None:
    found = read(BOTH, BOTH.replace("8192", "4096")).models
    assert [model.config["max-model-len"] for model in found] == [8192, 4096]


def test_a_config_map_that_is_not_there_is_named() -> None:
    assert messages(WORKSPACE) == [
        "the ConfigMap 'phi-params' is not among these files, so its options are unknown"
    ]


def test_an_inference_set_says_the_same_in_its_template() -> None:
    text = """\
apiVersion: kaito.sh/v1alpha1
kind: InferenceSet
metadata: {name: phi, annotations: {kaito.sh/performance-mode: throughput}}
spec:
  labelSelector: {matchLabels: {apps: phi}}
  template:
    inference: {preset: {name: microsoft/phi-4}}
    resource: {partition: {mode: mig, profile: 3g.40gb}}
"""
    (model,) = read(text).models
    assert model.repo_id == "microsoft/phi-4"
    assert model.deployment == {
        "partition": {"mode": "mig", "profile": "3g.40gb"}, "performanceMode": "throughput",
    }  # fmt: skip
    assert model.problems == ()


def test_the_items_of_a_list_are_read_each_at_its_place() -> None:
    items = yaml.safe_dump({"kind": "List", "items": list(yaml.safe_load_all(WORKSPACE))})
    (model,) = read(items).models
    assert model.preset == "phi-4"
    assert "instanceType" in items.split("\n")[model.places["deployment", "instanceType"].line - 1]


def test_what_a_cluster_adds_is_no_mistake() -> None:
    text = WORKSPACE.replace("metadata:\n", "metadata:\n  uid: a\n  generation: 1\n  managedFields: []\n")
    assert len(messages(text + "status: {workerNodes: []}\n")) == 1  # the ConfigMap


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: phi-4\n  config", "name: phi-5\n  config", "KAITO v0.12 has no preset 'phi-5'"),
        ("  preset:\n    name: phi-4\n", "", "there is no inference.preset.name: KAITO would serve nothing"),
        ("resource:", "resources:", "the key 'resources' is not known"),
        ("    # what", "    cache: 1\n    # what", "'cache' is not a key that KAITO reads"),
        ("max_probe_steps: 6", "max_probe_steps: six", "max_probe_steps is not a number"),
        ("8192", "8192 # tokens", "max-model-len is '8192 # tokens', wanted a whole number and no comment"),
        ("    vllm:\n", "    vllm: [\n", "did not find expected"),
        ("swap-space: 4", "--swap-space: 4", "'--swap-space' is not the name of an option"),
    ],
)
def test_a_mistake_is_named_at_its_line(old: str, new: str, message: str) -> None:
    text = BOTH.replace(old, new)
    assert text != BOTH
    found = [p for model in read(text).models for p in model.problems if message in p.message]
    assert len(found) == 1, messages(text)
    wanted = (new or old).strip().split("\n")[0].strip()
    if message.startswith("there is no"):
        wanted = "inference:"
    if "did not find" not in message:
        assert wanted.split(":")[0] in text.split("\n")[found[0].place.line - 1]


def test_a_secret_without_the_token_is_refused() -> None:
    secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: hf}\nstringData: {TOKEN: x}\n"
    options = "    name: phi-4\n    presetOptions: {modelAccessSecret: hf}\n"
    text = BOTH.replace("    name: phi-4\n", options) + secret
    assert messages(text) == ["the Secret 'hf' has no key HF_TOKEN"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n", "Deployment x: not one of KAITO's"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\n",
            "it has no inference_config.yaml",
        ),
        (WORKSPACE.replace("  preset:\n    name: phi-4\n", "  template: {}\n"), "it serves a pod of its own"),
        (WORKSPACE[: WORKSPACE.index("inference:")] + "tuning: {}\n", "it tunes a model"),
        ("hello: 1\n", "an object without kind"),
    ],
)
def test_what_is_none_of_kaitos_is_named_and_left_out(text: str, why: str) -> None:
    found = read(text)
    assert found.models == ()
    assert [(why in d.message, d.severity) for d in found.left_out] == [(True, Severity.NOTE)]


# --- check -----------------------------------------------------------------------------------------------------


@ONLY_PHI
def test_check_answers_as_for_a_proposal_with_the_places_of_the_manifest(here: Path, run: Run) -> None:
    code, found, _ = report(run, here, BOTH)
    assert code == 1
    (model,) = found["models"]
    assert (model["name"], model["readable"]) == ("workspace-phi-4", True)
    error = next(f for f in model["findings"] if f["severity"] == "error")
    assert (error["code"], error["path"], error["column"]) == ("RUN002", "0.yaml", 7)
    assert BOTH.split("\n")[error["line"] - 1].strip() == "swap-space: 4"
    assert not [s for s in model["skipped"] if s["code"] == "MEM001"]


@ONLY_PHI
def test_a_manifest_without_mistakes_passes(here: Path, run: Run) -> None:
    code, found, _ = report(run, here, BOTH.replace("      swap-space: 4\n", ""))
    assert (code, found["ok"]) == (0, True)


@ONLY_PHI
def test_without_a_context_the_longest_that_fits_is_named_at_the_preset(here: Path, run: Run) -> None:
    _, found, _ = report(run, here, WORKSPACE.replace("  config: phi-params\n", ""))
    note = next(f for f in found["models"][0]["findings"] if f["code"] == "KTO014")
    assert "vLLM takes all of the model's 16,384 tokens on 1 × 80GB" in note["message"]
    assert note["line"] == 12


@ONLY_PHI
def test_a_model_that_does_not_fit_is_an_error_at_its_machine(here: Path, run: Run) -> None:
    text = BOTH.replace("Standard_NC24ads_A100_v4", "Standard_NV36ads_A10_v5").replace("8192", "16384")
    _, found, _ = report(run, here, text)
    codes = {
        f["code"]: f["line"] for f in found["models"][0]["findings"] if "KAITO would start" in f["message"]
    }
    assert all(line == 8 for line in codes.values())


@ONLY_PHI
def test_several_workspaces_are_several_results(here: Path, run: Run) -> None:
    other = WORKSPACE.replace("workspace-phi-4", "second").replace("  config: phi-params\n", "")
    _, found, _ = report(run, here, BOTH, other)
    assert [model["name"] for model in found["models"]] == ["workspace-phi-4", "second"]


@ONLY_PHI
def test_a_config_map_alone_has_its_options_checked(here: Path, run: Run) -> None:
    code, found, _ = report(run, here, CONFIG_MAP)
    assert code == 1
    assert [(f["code"], f["line"]) for f in found["models"][0]["findings"]] == [("RUN002", 11)]


@ONLY_PHI
def test_what_is_no_manifest_is_skipped_on_stderr_and_fails_nothing(here: Path, run: Run) -> None:
    code, found, err = report(run, here, "kind: Service\nmetadata: {name: x}\n", "# nothing\n")
    assert (code, found["models"]) == (0, [])
    assert "0.yaml:1:1: skipped: Service x: not one of KAITO's" in err
    assert "1.yaml: skipped: it holds no object" in err


@ONLY_PHI
def test_a_document_that_cannot_be_read_fails_beside_the_others(here: Path, run: Run) -> None:
    code, found, _ = report(run, here, BOTH + "---\na: [\n")
    assert code == 1
    broken, other = found["models"]
    assert (broken["readable"], broken["findings"][0]["code"]) == (False, "YML001")
    assert other["readable"]


@ONLY_PHI
def test_a_manifest_that_the_crd_refuses_is_checked_no_further(here: Path, run: Run) -> None:
    code, found, _ = report(run, here, BOTH.replace("resource:", "resources:"))
    (model,) = found["models"]
    assert (code, model["readable"]) == (1, False)
    assert {f["code"] for f in model["findings"]} == {"SCH001", "SCH002"}


@ONLY_PHI
@pytest.mark.parametrize("option", ["--fix", "--online", "--changed-since=HEAD"])
def test_options_for_proposals_are_refused_of_manifests(here: Path, run: Run, option: str) -> None:
    (here / "w.yaml").write_text(WORKSPACE)
    code, out, err = run("check", "w.yaml", option)
    assert (code, out) == (2, "")
    assert "w.yaml is a manifest" in err


@ONLY_PHI
def test_a_proposal_under_another_name_is_not_taken_for_a_manifest(here: Path, run: Run) -> None:
    (here / "phi.yaml").write_text((here / "catalog/models/phi-4/proposal.yaml").read_text())
    code, _, err = run("check", "phi.yaml")
    assert code == 2
    assert "a ModelProposal stands in a folder of its own" in err


@ONLY_PHI
@pytest.mark.parametrize("format_", ["text", "github", "sarif", "markdown"])
def test_every_format_shows_the_line_of_the_manifest(here: Path, run: Run, format_: str) -> None:
    (here / "w.yaml").write_text(BOTH)
    code, out, _ = run("check", "w.yaml", "--format", format_)
    assert code == 1
    assert "w.yaml" in out
    assert "RUN002" in out


def test_the_checks_of_manifests_are_checks_without_claims_about_the_model() -> None:
    assert set(OF_MANIFESTS) < set(CHECKS)
    assert not {check.code[:3] for check in OF_MANIFESTS} & {"DOC", "REV", "STO", "EVD"}


# --- import ----------------------------------------------------------------------------------------------------


@ONLY_PHI
def test_import_writes_what_the_manifests_say_and_leaves_gaps(here: Path, run: Run) -> None:
    (here / "w.yaml").write_text(BOTH)
    code, out, _ = run("import", "w.yaml", "--into", "new")
    assert (code, "wrote new/phi-4/proposal.yaml" in out) == (0, True)
    value = yaml.safe_load((here / "new/phi-4/proposal.yaml").read_text())
    assert value["metadata"]["authors"] == ["TBD"]
    assert value["requirements"] == {
        "familyName": "TBD",
        "type": "text-generation",
        "downloadSite": "https://huggingface.co/microsoft/phi-4",
        "gpuCount": 1,
        "perGPUMemory": "80GB",
        "contextLength": 8192,
    }
    assert value["runtimes"] == [{"name": "vllm", "config": {"max-model-len": 8192, "swap-space": 4}}]
    code, out, _ = run("check", "new/phi-4", "--select", "SCH,YML,RUN")
    assert "RUN002" in out


@ONLY_PHI
def test_import_reports_what_it_leaves_out_and_writes_no_config_map_alone(here: Path, run: Run) -> None:
    (here / "c.yaml").write_text(CONFIG_MAP + "---\nkind: Service\nmetadata: {name: x}\n")
    code, out, _ = run("import", "c.yaml", "--into", "new", "--format", "json")
    found = json.loads(out)
    assert (code, found["written"]) == (1, [])
    assert [(f["code"], f["line"]) for f in found["findings"]] == [("IMP019", 2), ("IMP019", 13)]


@ONLY_PHI
def test_two_manifests_of_one_model_are_two_folders(here: Path, run: Run) -> None:
    (here / "w.yaml").write_text(BOTH + "---\n" + WORKSPACE.replace("workspace-phi-4", "second"))
    run("import", "w.yaml", "--into", "new")
    assert sorted(path.name for path in (here / "new").iterdir()) == ["phi-4", "phi-4-2"]


@pytest.mark.models("phi-4", "gemma-3-27b-it", "llama-3.3-70b-instruct", evidence=False)
def test_what_is_generated_can_be_read_back_and_passes(here: Path, run: Run) -> None:
    catalog = read_catalog(here / "catalog")
    files = generate.build_files(catalog)
    for name in ("phi-4", "gemma-3-27b-it", "llama-3.3-70b-instruct"):
        parts = [text for path, text in files.items() if path.startswith(f"presets/{name}/workspace")]
        parts += [text for path, text in files.items() if path.startswith(f"presets/{name}/inference-config")]
        (here / f"{name}.yaml").write_text("---\n".join(parts))
    paths = sorted(here.glob("*.yaml"))
    code, out, err = run("check", *paths)
    assert code == 0, out + err
    assert "IMP" not in out
    code, _, _ = run("import", "--into", here / "new", *paths)
    for name in ("phi-4", "gemma-3-27b-it", "llama-3.3-70b-instruct"):
        entry = catalog.entry(name)
        assert entry is not None
        assert entry.proposal is not None
        value = yaml.safe_load((here / f"new/{name}/proposal.yaml").read_text())
        assert value["requirements"]["version"] == entry.proposal.requirements.version
        assert value["runtimes"][0]["trustRemoteCode"] is False
        assert value["deployment"]["instanceType"] == entry.proposal.deployment.instance_type  # type: ignore[union-attr]


# --- hostile files ---------------------------------------------------------------------------------------------

_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


def _routes(value: Any, route: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [route, *(found for key in keys for found in _routes(value[key], (*route, key)))]


def _with(value: Any, route: tuple[Any, ...], other: Any) -> Any:
    if not route:
        return other
    found = dict(value) if isinstance(value, dict) else list(value)
    found[route[0]] = _with(value[route[0]], route[1:], other)
    return found


_WHOLE: list[Any] = [
    {
        **yaml.safe_load(WORKSPACE),
        "metadata": {
            "name": "w",
            "annotations": {"kaito.sh/performance-mode": "throughput", "kaito.sh/runtime": "x"},
        },
        "resource": {
            "count": 2,
            "instanceType": "Standard_NC24ads_A100_v4",
            "partition": {"mode": "mig", "profile": "3g.40gb"},
            "labelSelector": {"matchLabels": {"a": "b"}},
        },
        "inference": {
            "preset": {"name": "phi-4", "presetOptions": {"modelAccessSecret": "hf"}},
            "config": "phi-params",
            "adapters": [{"source": {"name": "a", "image": "b"}, "strength": "0.5"}],
        },
    },
    yaml.safe_load(CONFIG_MAP),
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "stringData": {"HF_TOKEN": "x"}},
]
_OPTIONS: Any = {
    "vllm": {"max-model-len": 8192, "revision": "a" * 40, "enable-lora": ""},
    "max_probe_steps": 6,
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_manifest_ends_in_a_traceback(catalog: Catalog, data: st.DataObject) -> None:
    inner = _with(_OPTIONS, data.draw(st.sampled_from(_routes(_OPTIONS))), data.draw(_ANYTHING))
    whole = _with(_WHOLE, (1, "data", "inference_config.yaml"), yaml.safe_dump(inner))
    whole = _with(whole, data.draw(st.sampled_from(_routes(whole))), data.draw(_ANYTHING))
    text = yaml.safe_dump_all(whole if isinstance(whole, list) else [whole])
    context = Context(catalog.shared, catalog.shared.profile())
    found = read(text)
    for model in found.models:
        entry = entry_of(model, catalog.root, catalog.shared, KAITO)
        check_entry(entry, OF_MANIFESTS, context)
        if entry.proposal is not None:
            value = imported_value(model, entry, catalog.shared, KAITO, date(2026, 1, 1))
            Proposal.model_validate(value)

"""The commands that ask vLLM, with a worker of our own in its place: what they print, write and refuse."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import pytest
import yaml

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.formats.evidence import DryRun, ExactPlan
from kaito_catalog.vllm_bridge import evidence as exact
from kaito_catalog.vllm_bridge.logs import without_paths
from kaito_catalog.vllm_bridge.scaled_down import scaled_down

WORKER = """\
#!{python}
# Stands for another environment's Python: it is started with the worker script, and answers in its place.
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({{"id": request["id"], "progress": "importing vLLM"}}), flush=True)
    answer = json.loads({answers!r})[request["op"]]
    with open({asked!r}, "a") as stream:
        stream.write(line)
    size = request.get("args", {{}}).get("tensor_parallel_size", 1)
    refused = size == 8 or "--tensor-parallel-size=8" in request.get("arguments", ())
    if request["op"] == "exact-plan" and refused:
        answer = {{"ok": False, "error": {{"class": "bad-option", "message": "10 heads cannot be divided by 8"}}}}
    print(json.dumps({{"id": request["id"], **answer}}), flush=True)
"""

VERSIONS = {"vllmVersion": "0.25.1", "torchVersion": "2.13.0", "transformersVersion": "5.14.1"}
PLAN = {
    **VERSIONS,
    "modelClass": "Phi3ForCausalLM",
    "settings": {"maxModelLen": 16384, "maxNumBatchedTokens": 8192, "maxNumSeqs": 1024},
    "perGPU": {"weightsBytes": 29319014400, "bufferBytes": 4194944, "kvCacheNeededBytes": 3355443200},
    "ranks": [
        {
            "tensorRank": 0,
            "weightsBytes": 29319014400,
            "weightsBytesByDtype": {"bfloat16": 29319014400},
            "bufferBytes": 4194944,
            "afterLoading": {"known": True, "weightsBytes": 29319014400},
        }
    ],
    "kvCache": {
        "neededBytes": 3355443200,
        "neededByLayersBytes": 3355443200,
        "groups": [{"layers": 40, "kind": "FullAttentionSpec", "blockSize": 16, "pageBytes": 81920}],
    },
    "seconds": 0.4,
}
SERVED = {
    **VERSIONS,
    "outcome": "served",
    "device": "cpu",
    "tokensGenerated": [1, 2, 3],
    "ranks": [{"loadedBytesByDtype": {"bfloat16": 100}, "kvCacheBytes": 50}],
    "kvCache": {"tokens": 640, "maxConcurrency": 1.5},
    "seconds": {"import": 8.0, "start": 20.5},
}
REFUSED = {
    **VERSIONS,
    "outcome": "does-not-fit",
    "device": "cuda",
    "hardware": {"gpu": "NVIDIA A10", "memoryBytes": 23686744637},
    "neededBytes": 3 * 2**30,
    "availableBytes": 2**30,
    "longestModelLen": 4096,
    "message": "To serve at least one request (3.0 GiB KV cache is needed)",
}


pytestmark = pytest.mark.models("phi-4", evidence=False)


@pytest.fixture(autouse=True)
def no_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAITO_CATALOG_VLLM_PYTHON", raising=False)


def python_that_answers(folder: Path, **answers: object) -> str:
    path = folder / "python"
    given = {op.replace("_", "-"): {"ok": True, "result": result} for op, result in answers.items()}
    path.write_text(
        WORKER.format(python=sys.executable, answers=json.dumps(given), asked=str(folder / "asked"))
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_exact_plan_is_shown_beside_the_closed_form(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = python_that_answers(here, exact_plan=PLAN)
    assert cli.main(["plan", "phi-4", "--exact", "--vllm-python", python]) == 0
    shown = capsys.readouterr()
    assert "29,319,014,400    29,319,014,400  =" in shown.out
    assert "importing vLLM" in shown.err


def test_the_command_line_that_kaito_makes_gets_to_vllms_own_parser(here: Path) -> None:
    proposal = here / "catalog/models/phi-4/proposal.yaml"
    lines = ("block-size: 32", 'no-enable-prefix-caching: ""', 'enforce-eager: ""')
    options = "".join(f"    {line}\n" for line in lines)
    text = proposal.read_text()
    proposal.write_text(text.replace("    max-model-len: 16384\n", "    max-model-len: 16384\n" + options, 1))
    python = python_that_answers(here, exact_plan=PLAN)
    assert cli.main(["plan", "phi-4", "--exact", "--vllm-python", python]) == 0
    (request,) = [json.loads(line) for line in (here / "asked").read_text().splitlines()]
    assert {
        "--max-model-len=16384",
        "--block-size=32",
        "--no-enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization=0.84",
        '--kv-transfer-config={"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}',
    } <= set(request["arguments"])
    assert not any(word.startswith("--model") for word in request["arguments"])


def test_plain_vllm_gets_the_options_behind_the_dashes(here: Path) -> None:
    python = python_that_answers(here, exact_plan=PLAN)
    gpu = ["--gpu", "NVIDIA H100 80GB", "--engine", "vllm"]
    command = ["plan", "phi-4", "--exact", *gpu, "--vllm-python", python, "--", "--seed", "7"]
    assert cli.main(command) == 0
    (request,) = [json.loads(line) for line in (here / "asked").read_text().splitlines()]
    assert "--seed=7" in request["arguments"]
    assert not any("kv-transfer" in word for word in request["arguments"])


def test_options_that_did_not_come_into_the_exact_plan_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"engine": ["seed"], "server": ["api_key"], "overridden": ["tensor_parallel_size"]}
    python = python_that_answers(here, exact_plan={**PLAN, "arguments": arguments})
    assert cli.main(["plan", "phi-4", "--exact", "--vllm-python", python]) == 0
    shown = capsys.readouterr().out
    assert "other values of the plan were taken of: tensor-parallel-size\n" in shown
    assert "read by the server alone: api-key\n" in shown


def test_the_exact_plan_as_json_has_vllms_figures_and_ours(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = python_that_answers(here, exact_plan=PLAN)
    assert cli.main(["plan", "phi-4", "--exact", "--vllm-python", python, "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["perGPU"]["weightsBytes"] == value["plan"]["perGPU"]["weightsBytes"]
    assert value["perGPU"]["bufferBytes"] == 4194944


def test_a_recorded_exact_plan_is_valid_evidence_with_what_vllm_refused(here: Path) -> None:
    python = python_that_answers(here, exact_plan=PLAN)
    assert cli.main(["plan", "phi-4", "--exact", "--record", "--vllm-python", python]) == 0
    (evidence,) = read_entry(here / "catalog/models/phi-4").evidence
    assert isinstance(evidence.record, ExactPlan)
    worlds = evidence.record.worlds
    assert [world.parallelism.tensor_parallel_size for world in worlds] == [1, 2, 4, 8]
    assert worlds[3].refused == "10 heads cannot be divided by 8"
    assert cli.main(["check", "phi-4", "--select", "EVD001"]) == 0


def test_without_vllm_it_says_what_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "phi-4", "--exact"]) == 2
    assert "make vllm" in capsys.readouterr().err


def test_a_refusal_keeps_vllms_own_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = python_that_answers(here, exact_plan=PLAN)
    gpu = ["--gpu", "NVIDIA H100 80GB", "--tensor-parallel-size", "8"]
    assert cli.main(["plan", "phi-4", "--exact", *gpu, "--vllm-python", python]) == 2
    assert "10 heads cannot be divided by 8" in capsys.readouterr().err


def test_a_dry_run_writes_what_it_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = python_that_answers(here, dry_run=SERVED)
    assert cli.main(["dry-run", "phi-4", "--device", "cpu", "--vllm-python", python]) == 0
    assert "phi-4: served" in capsys.readouterr().out
    (evidence,) = read_entry(here / "catalog/models/phi-4").evidence
    assert isinstance(evidence.record, DryRun)
    assert evidence.record.scaled_down == {"num_hidden_layers": 2}
    assert evidence.record.generated_tokens == 3


def test_a_model_that_does_not_fit_is_exit_code_1_with_the_longest_context(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = python_that_answers(here, dry_run=REFUSED)
    assert cli.main(["dry-run", "phi-4", "--device", "cuda", "--vllm-python", python]) == 1
    shown = capsys.readouterr().out
    assert "needed 3.00 GiB, available 1.00 GiB" in shown
    assert "longest context that fits: 4,096 tokens" in shown


def test_an_illegal_instruction_is_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"outcome": "failed", "class": "illegal-instruction", "message": "ended by SIGILL"}
    python = python_that_answers(here, dry_run={**VERSIONS, **failed, "device": "cpu"})
    assert cli.main(["dry-run", "phi-4", "--device", "cpu", "--vllm-python", python]) == 1
    assert (
        "hint: this build of vLLM or torch uses an instruction that the processor" in capsys.readouterr().out
    )
    (evidence,) = read_entry(here / "catalog/models/phi-4").evidence
    assert isinstance(evidence.record, DryRun)
    assert evidence.record.failure == "illegal-instruction"


def test_on_a_gpu_it_starts_what_the_manifests_start_and_says_what_it_leaves_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = here / "catalog/models/phi-4/proposal.yaml"
    options = "    max-num-seqs: 16\n    kv-cache-dtype: fp8\n    cpu-offload-gb: 4\n"
    text = proposal.read_text()
    proposal.write_text(text.replace("    max-model-len: 16384\n", "    max-model-len: 16384\n" + options, 1))
    python = python_that_answers(here, dry_run=SERVED)
    assert cli.main(["dry-run", "phi-4", "--device", "cuda", "--vllm-python", python]) == 0
    (evidence,) = read_entry(proposal.parent).evidence
    assert isinstance(evidence.record, DryRun)
    assert sorted(evidence.record.command) == [
        "--gpu-memory-utilization=0.84",
        "--kv-cache-dtype=fp8",
        "--max-model-len=16384",
        "--max-num-seqs=16",
    ]
    assert "started without cpu-offload-gb" in capsys.readouterr().err


def test_on_a_cpu_it_says_what_it_leaves_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proposal = here / "catalog/models/phi-4/proposal.yaml"
    options = "    max-num-seqs: 16\n    no-enable-prefix-caching: true\n"
    text = proposal.read_text()
    proposal.write_text(text.replace("    max-model-len: 16384\n", "    max-model-len: 16384\n" + options, 1))
    python = python_that_answers(here, dry_run=SERVED)
    assert cli.main(["dry-run", "phi-4", "--device", "cpu", "--vllm-python", python]) == 0
    assert "started without max-num-seqs, no-enable-prefix-caching: what" in capsys.readouterr().err


def line_of_evidence(catalog: Catalog, **changes: object) -> str:
    entry = catalog.entry("phi-4")
    assert entry is not None
    value = exact.dry_run_evidence(
        entry, SERVED, args={"max_model_len": 1024}, weights="dummy", changed={}, today="2026-11-23"  # type: ignore[arg-type]
    )  # fmt: skip
    return json.dumps({**value, **changes})


def test_evidence_from_elsewhere_is_found_among_other_lines_of_a_log(
    here: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = f"INFO starting\n{line_of_evidence(catalog)}\nINFO done\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(log))
    assert cli.main(["evidence", "add", "-"]) == 0
    assert capsys.readouterr().out == "wrote catalog/models/phi-4/evidence/vllm-0.25.1-cpu-tp1.yaml\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "f" * 40}, "phi-4 pins"),
        ({"configSha256": "0" * 64}, "of another configuration"),
        ({"model": "../../etc"}, "is not in the catalog"),
        ({"model": "phi-5"}, "is not in the catalog"),
        ({"outcome": "great"}, "not valid evidence"),
        ({"surprise": 1}, "not valid evidence"),
        ({"kind": "Other"}, "no line is evidence"),
    ],
)
def test_evidence_that_does_not_belong_is_refused_and_nothing_is_written(
    changes: dict[str, object],
    message: str,
    here: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(line_of_evidence(catalog, **changes)))
    assert cli.main(["evidence", "add", "-"]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "catalog/models/phi-4/evidence").exists()


def test_a_machines_folders_do_not_get_into_evidence() -> None:
    line = 'File "/home/me/.venv-vllm/lib/python3.11/site-packages/vllm/engine.py", line 3; see https://a.org/b/c'
    assert without_paths(line) == 'File "…/engine.py", line 3; see https://a.org/b/c'


def test_a_scaled_down_configuration_keeps_every_kind_of_layer(catalog: Catalog) -> None:
    entry = catalog.entry("gpt-oss-20b")
    assert entry is not None
    assert entry.facts is not None
    config, changed = scaled_down(exact.need_config(entry.facts, entry.name))
    assert sorted(config["layer_types"]) == ["full_attention", "sliding_attention"]
    assert changed["num_hidden_layers"] == 2
    assert changed["num_local_experts"] == 8


@pytest.mark.parametrize("name", ["phi-4", "llama-3.3-70b-instruct", "gpt-oss-20b"])
def test_the_evidence_of_the_catalog_equals_the_closed_form(name: str, catalog: Catalog, root: Path) -> None:
    path = root / f"catalog/models/{name}/evidence/vllm-0.25.1-exact.yaml"
    value = yaml.safe_load(path.read_text())
    assert value["kind"] == "ExactPlan"
    assert (
        cli.main(["check", name, "--catalog", str(root / "catalog"), "--select", "EVD002", "--require-all"])
        == 0
    )

"""`plan` as a person uses it: its answers, its JSON, and what it says to arguments that make no sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run, break_proposal

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.memory.legal_splits import illegal_tensor_parallel
from kaito_catalog.plans import request

pytestmark = pytest.mark.models("phi-4", "llama-3.3-70b-instruct")


def test_a_configuration_is_planned_by_its_file_as_by_its_folder(
    here: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine").mkdir()
    shutil.copy(root / "tests" / "configs" / "qwen3-32b.json", here / "mine" / "config.json")
    assert cli.main(["plan", "mine"]) == 0
    by_folder = capsys.readouterr().out
    assert cli.main(["plan", "mine/config.json"]) == 0
    assert capsys.readouterr().out == by_folder


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_a_number_that_makes_no_sense_is_a_usage_error(value: str, here: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", "phi-4", "--max-model-len", value])
    assert stop.value.code == 2


def test_plan_as_json_keeps_its_contract(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["plan", "phi-4", "--gpu", "NVIDIA H100 80GB", "--gpu-count", "1", "--format", "json"]) == 0
    )
    value = json.loads(capsys.readouterr().out)
    assert set(value["perGPU"]) == {
        "budgetBytes", "weightsBytes", "nonTorchBytes", "activationPeakBytes", "cudaGraphBytes",
        "kvCacheAvailableBytes", "kvCacheNeededBytes",
    }  # fmt: skip
    assert value["fits"] == "yes"
    assert value["perGPU"]["weightsBytes"] == 29_319_014_400
    assert value["kvCache"]["bytesPerToken"] == 204_800


def test_plan_says_which_tensor_parallel_sizes_are_legal_and_why_not_the_others(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", "phi-4", "--gpu", "NVIDIA H100 80GB", "--gpu-count", "1"]
    assert cli.main(asked) == 0
    text = capsys.readouterr().out
    assert "legal tensor_parallel_size: 1, 2\n" in text
    assert "not 4, 8: 10 KV heads can neither be divided nor repeated evenly\n" in text
    assert cli.main([*asked, "--format", "json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["tensorParallelSizes"]
    assert sizes["legal"] == [1, 2]
    assert sizes["illegal"]["3"] == "40 attention heads cannot be divided by 3"
    assert set(sizes["illegal"]) == {str(n) for n in range(3, 17)}


def test_a_model_without_a_cache_has_no_number_of_requests(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "my-encoder"
    folder.mkdir()
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": 512, "vocab_size": 999,
        "type_vocab_size": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    assert cli.main(["plan", "my-encoder", "--gpu-memory", "22", "--gpu-count", "1"]) == 0
    text = capsys.readouterr().out
    assert "keeps no KV cache" in text
    assert "requests of that length" not in text


def test_plan_without_a_gpu_compares_instance_types_smallest_first(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "phi-4", "--engine", "vllm", "--cloud", "all", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["instanceTypes"]
    assert len(rows) == len(read_shared(here / "catalog").instance_types)
    assert [rows[0]["name"], rows[0]["fits"]] == ["a2-highgpu-1g", "yes"]


def test_plan_reads_a_folder_with_a_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "my-model"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "hidden_size": 2048, "num_hidden_layers": 16,
        "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    assert cli.main(["plan", "my-model", "--gpu-memory", "22", "--gpu-count", "1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] == "yes"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"architectures": ["LlamaForCausalLM"], "hidden_size": 1e400}', "\x00"],
)
def test_a_bad_configuration_is_an_error_and_no_traceback(
    text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(text)
    assert cli.main(["plan", "my-model", "--gpu-memory", "22", "--gpu-count", "1"]) in (0, 2)
    shown = capsys.readouterr()
    assert "unknown" in shown.out or "my-model/config.json" in shown.err


def test_a_plan_that_does_not_fit_is_an_answer_and_no_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "llama-3.3-70b-instruct", "--gpu", "NVIDIA A10", "--gpu-count", "1"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_a_gpu_nobody_has_seen_widens_the_expected_error_instead_of_failing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(*arguments: str) -> int:
        assert cli.main(["plan", "phi-4", "--gpu-count", "1", "--format", "json", *arguments]) == 0
        return int(json.loads(capsys.readouterr().out)["expectedErrorBytes"])

    measured = ("--vllm-version", "0.19.0")
    seen = error_of("--gpu", "NVIDIA H100 80GB", *measured)
    assert error_of("--gpu", "Abacus 9000", "--gpu-memory", "79.19", *measured) > seen
    assert error_of("--gpu", "NVIDIA H100 80GB", "--vllm-version", "9.9.9") > seen


def test_a_gpus_name_that_is_spelt_otherwise_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["plan", "phi-4", "--gpu", "NVIDIA H100 NVLink"]) == 2
    assert "did you mean NVIDIA H100 NVL?" in capsys.readouterr().err


def test_a_hundred_million_gpus_are_refused_without_trying_each_number(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    legal = illegal_tensor_parallel

    def counted(shape: Any, size: int, **options: Any) -> str | None:
        tried.append(size)
        return legal(shape, size, **options)

    monkeypatch.setattr(request, "illegal_tensor_parallel", counted)
    cli.main(["plan", "phi-4", "--gpu", "NVIDIA A10", "--gpu-count", "100000000"])
    assert "--tensor-parallel-size 2 uses 2 of the GPUs" in capsys.readouterr().out
    assert 0 < len(tried) <= request.MOST_GPUS_TRIED


@pytest.mark.parametrize("machine", [[], ["--gpu", "NVIDIA A10"]], ids=["all", "one"])
def test_a_word_that_is_no_version_of_vllm_is_refused(
    machine: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "phi-4", "--vllm-version", "latest", *machine]) == 2
    assert "'latest' is not a version of vLLM" in capsys.readouterr().err


@pytest.mark.parametrize("machine", [[], ["--gpu", "NVIDIA A10"]], ids=["all", "one"])
def test_a_cache_dtype_that_vllm_does_not_have_is_refused_with_those_it_has(
    machine: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "phi-4", "--kv-cache-dtype", "fp9", *machine]) == 2
    shown = capsys.readouterr().err
    assert "vLLM has no kv-cache-dtype 'fp9'" in shown
    assert "fp8_e4m3" in shown
    assert cli.main(["plan", "phi-4", "--kv-cache-dtype", "nvfp4", *machine]) == 0  # vLLM has it: unknown


def test_no_instance_type_is_said_to_be_too_small_for_what_nobody_has_planned(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = "    max-model-len: 16384\n"
    break_proposal(here, length, length + "    cpu-offload-gb: 8\n")
    assert cli.main(["plan", "phi-4"]) == 0
    shown = capsys.readouterr().out
    assert "unknown whether any instance type fits it" in shown
    assert "unknown (no plan reads cpu-offload-gb 8: it keeps weights in the host's memory)" in shown
    assert cli.main(["check", "phi-4", "--format", "json"]) == 0
    claims = json.loads(capsys.readouterr().out)["models"][0]["claims"]
    assert claims["requirements.gpuCount"] == "unknown"


@pytest.mark.parametrize("machine", [[], ["--gpu", "NVIDIA A10"]], ids=["all", "one"])
@pytest.mark.parametrize(
    ("version", "words", "value"),
    [
        ("9.9.0", "planned as 0.32.0, the newest that has", {"code": "0.32.0", "options": "0.32.0"}),
        (
            "0.29.1rc2.dev3+g1234567",
            "planned as 0.25.1, with what is known to have changed by then; options of 0.32.0",
            {"code": "0.25.1", "options": "0.32.0"},
        ),
        (
            "0.12.0",
            "planned as 0.25.1, the oldest that has; options of 0.32.0",
            {"code": "0.25.1", "options": "0.32.0"},
        ),
        ("0.25.1+cu129", None, None),
        ("0.32.0", None, None),
    ],
)
def test_a_plan_says_which_vllm_stands_for_one_that_has_not_been_read(
    version: str, words: str | None, value: dict[str, str] | None,
    machine: list[str], here: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = ["plan", "phi-4", "--vllm-version", version, *machine]
    cli.main(asked)
    shown = capsys.readouterr().out
    assert (
        (f"vLLM {version} has not been read: {words}" in shown) if words else ("not been read" not in shown)
    )
    cli.main([*asked, "--format", "json"])
    plan = json.loads(capsys.readouterr().out)
    for one in plan.get("instanceTypes", [plan]):
        assert one["plannedAs"] == value


def test_a_version_may_be_written_as_its_tag_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "phi-4", "--gpu", "NVIDIA A10", "--vllm-version", "v0.32.0"]) == 0
    assert "vLLM 0.32.0," in capsys.readouterr().out


def test_a_model_that_is_nowhere_is_answered_with_a_way_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "some-org/Unheard-Of-Model"]) == 2
    assert "put the config.json of its repository into a folder" in capsys.readouterr().err


def test_plan_names_instance_types_that_kaito_takes_unless_another_cloud_is_asked_for(
    here: Path, run: Run
) -> None:
    usual = run("plan", "phi-4")[1]
    assert "instance types of azure, aws and arc, which KAITO v0.12 takes; --cloud names others" in usual
    assert "next: kaito-catalog plan phi-4 --instance-type Standard_NV72ads_A10_v5" in usual
    assert "a2-highgpu-1g" not in usual
    google = run("plan", "phi-4", "--cloud", "gcp")[1]
    assert "KAITO v0.12 makes no such nodes" in google
    assert "smallest that fits: g2-standard-24" in google
    assert (
        "smallest that fits: a2-highgpu-1g" in run("plan", "phi-4", "--cloud", "gcp", "--engine", "vllm")[1]
    )
    every = json.loads(run("plan", "phi-4", "--cloud", "all", "--format", "json")[1])
    assert {row["cloud"] for row in every["instanceTypes"]} == {"azure", "aws", "gcp", "arc"}
    nodes = {row["name"]: row["nodeCount"] for row in every["instanceTypes"]}
    assert (nodes["a2-highgpu-1g"], nodes["a2-ultragpu-1g"]) == (
        2,
        1,
    )  # KAITO's formula wants more than 40 GB


def test_a_machine_of_another_cloud_is_planned_and_said_to_be_brought_along(here: Path, run: Run) -> None:
    code, out, err = run("plan", "phi-4", "--instance-type", "a2-highgpu-1g")
    assert (code, "fits" in out) == (0, True)
    assert "a2-highgpu-1g is of gcp: KAITO v0.12 makes no such nodes" in err
    assert "makes no such nodes" not in run("plan", "phi-4", "--instance-type", "Standard_NC24ads_A100_v4")[2]

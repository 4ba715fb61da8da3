"""`plan --from`: command lines, compose files and manifests as people write them; nothing of them is run."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.errors import CatalogError
from kaito_catalog.plans.pasted_command import PastedStart, gpus_of_docker, starts_in_text
from kaito_catalog.plans.shell_words import read_commands

VERSION = "0.25.1"


def words_of(text: str) -> list[list[str]]:
    return [[word.text for word in command] for command in read_commands(text, "f")]


def only(text: str) -> PastedStart:
    (found,) = starts_in_text(text, "serve.sh")
    return found


def config(start: PastedStart) -> dict[str, str]:
    found = start.options(VERSION)
    return {"model": found.model or "", **found.as_config()}


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a b  c", [["a", "b", "c"]]),
        ("a \\\n  b", [["a", "b"]]),
        ("a \\\r\n  b\r\n", [["a", "b"]]),
        ("a 'b  c' \"d e\" f\\ g", [["a", "b  c", "d e", "f g"]]),
        ("a # b\nc", [["a"], ["c"]]),
        ("a#b", [["a#b"]]),
        ("a; b && c | d &", [["a"], ["b"], ["c"], ["d"]]),
        ("a > log 2>&1 b", [["a", "b"]]),
        ("$ a b", [["a", "b"]]),
        ("```bash\na b\n```", [["a", "b"]]),
        ('M=x/y\na $M ${M} "$M"', [["M=x/y"], ["a", "x/y", "x/y", "x/y"]]),
        ("A='b  c'\na $A \"$A\"", [["A=b  c"], ["a", "b", "c", "b  c"]]),
        ("a ${B:-c}", [["a", "c"]]),
        ("a '{\"b\": 1}' c={d}", [["a", '{"b": 1}', "c={d}"]]),
    ],
    ids=repr,
)
def test_words_are_those_of_a_shell(text: str, commands: list[list[str]]) -> None:
    assert words_of(text) == commands


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb 'c", "f:2:3: the quote ' is not closed"),
        ("a \\ \n  b", "f:1:3: a blank stands behind the backslash"),
    ],
)
def test_what_a_shell_would_not_read_is_said_at_its_place(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message.replace("\\", "\\\\")):
        words_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve microsoft/phi-4 --max-model-len 8K",
        "HF_TOKEN=$HF_TOKEN nohup vllm serve microsoft/phi-4 --max-model-len=8192 > log 2>&1 &",
        "python -m vllm.entrypoints.openai.api_server --model microsoft/phi-4 --max-model-len 8192",
        "uv run python3 -m vllm.entrypoints.cli.main serve microsoft/phi-4 --max_model_len 8192",
        "/opt/venv/bin/vllm serve --model microsoft/phi-4 --max-model-len 8192",
        "bash -c 'vllm serve microsoft/phi-4 --max-model-len 8192'",
        "docker run --rm -it --gpus all -p 8000:8000 vllm/vllm-openai:latest --model microsoft/phi-4 "
        "--max-model-len 8192",
        "sudo docker run -e A=b --entrypoint vllm vllm/vllm-openai serve microsoft/phi-4 --max-model-len 8192",
        "podman run --device nvidia.com/gpu=all my/image vllm serve microsoft/phi-4 --max-model-len 8192",
        "pip install vllm && vllm serve microsoft/phi-4 --max-model-len 8192",
    ],
)
def test_a_start_is_found_however_it_is_written(text: str) -> None:
    assert config(only(text)) == {"model": "microsoft/phi-4", "max-model-len": "8192"}


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("vllm serve a/b", None),
        ("CUDA_VISIBLE_DEVICES=2,3 vllm serve a/b", 2),
        ("export CUDA_VISIBLE_DEVICES=0,1,2\nvllm serve a/b", 3),
        ("docker run --gpus 4 vllm/vllm-openai --model a/b", 4),
        ("docker run --gpus '\"device=0,5\"' vllm/vllm-openai --model a/b", 2),
        ("docker run -e NVIDIA_VISIBLE_DEVICES=all vllm/vllm-openai --model a/b", None),
    ],
)
def test_the_gpus_that_a_start_is_given_are_counted(text: str, gpus: int | None) -> None:
    assert only(text).gpu_count == gpus


def test_all_gpus_are_no_number() -> None:
    assert gpus_of_docker("all") is None


def test_the_version_is_that_of_vllms_own_image() -> None:
    assert only("docker run vllm/vllm-openai:v0.11.2-x86_64 --model a/b").vllm_version == "0.11.2"
    assert only("docker run me/vllm:1.2.3 --model a/b").vllm_version is None


def test_the_environment_in_front_is_kept() -> None:
    found = only("export A=1\nB=2 vllm serve a/b")
    assert found.environment == {"A": "1", "B": "2"}


def test_kaitos_launcher_attaches_lmcache_unless_it_is_told_not_to() -> None:
    line = "python3 /workspace/vllm/inference_api.py --model=a/b --kaito-config-file=/mnt/config/c.yaml"
    assert "LMCacheConnectorV1" in config(only(line))["kv-transfer-config"]
    off = config(only(f"{line} --kaito-kv-cache-cpu-memory-utilization=0"))
    assert off == {"model": "a/b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vllm serve $MODEL", r"serve.sh:1:12: the model is \$MODEL, and \$MODEL is not known here"),
        ("\nvllm serve a/b \\\n --max-model-len $LEN", r"serve.sh:3:18: a value is \$LEN"),
        (
            "vllm serve a/b \\\n  --max-modle-len 1",
            r"serve.sh:2:3: vLLM 0.25.1 has no option --max-modle-len",
        ),
    ],
)
def test_what_cannot_be_read_is_said_at_its_line(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        only(text).options(VERSION)


def test_a_secret_of_the_shell_is_nothing_that_memory_depends_on() -> None:
    assert config(only("vllm serve a/b --api-key $KEY"))["model"] == "a/b"


COMPOSE = """
services:
  chat:
    image: vllm/vllm-openai:${TAG:-v0.25.1}
    command: >
      --model microsoft/phi-4
      --max-model-len 8192
    environment: [VLLM_LOGGING_LEVEL=DEBUG]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}
  web: {image: open-webui}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: chat}
spec:
  nodeSelector: {nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB}
  containers:
    - name: vllm
      image: vllm/vllm-openai:v0.25.1
      command: [/bin/sh, -c]
      args:
        - |
          python3 -m vllm.entrypoints.openai.api_server \\
            --model microsoft/phi-4 --max-model-len $(LENGTH)
      env: [{name: LENGTH, value: "8192"}]
      resources: {limits: {nvidia.com/gpu: 1}}
"""
LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: chat}
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        containers:
          - name: leader
            image: vllm/vllm-openai:v0.25.1
            command: [vllm, serve, meta-llama/Llama-3.3-70B-Instruct]
            args: [--tensor-parallel-size=4, --pipeline-parallel-size=2, --max-model-len=8192]
            resources: {limits: {nvidia.com/gpu: 4}}
    workerTemplate: {spec: {containers: []}}
"""
KAITO = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: gemma}
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector: {matchLabels: {apps: gemma}}
inference:
  preset: {name: google/gemma-3-27b-it}
  config: gemma
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gemma}
data:
  inference_config.yaml: |
    vllm:
      max-model-len: 8192
"""


def planned(run: Run, path: Path, text: str, *more: str) -> dict[str, Any]:
    path.write_text(text, encoding="utf-8")
    code, out, err = run("plan", "--from", path, *more, "--format", "json")
    assert code == 0, err
    value: dict[str, Any] = json.loads(out)
    return value


@pytest.mark.models("phi-4", "llama-3.3-70b-instruct", "gemma-3-27b-it")
def test_a_compose_file_a_pod_and_a_line_of_the_same_start_give_the_same_plan(here: Path, run: Run) -> None:
    line = "vllm serve microsoft/phi-4 --max-model-len 8192"
    card = ("--gpu", "NVIDIA A100 80GB")
    plans = [
        planned(run, here / "line.sh", line, *card, "--gpu-count", "1"),
        planned(run, here / "compose.yaml", COMPOSE, *card, "--gpu-count", "1"),
        planned(run, here / "pod.yaml", POD),
    ]
    assert [plan.pop("environment") for plan in plans] == [
        {},
        {"VLLM_LOGGING_LEVEL": "DEBUG"},
        {},
    ]
    assert plans[0] == plans[1] == plans[2]
    assert (plans[0]["engine"], plans[0]["settings"]["gpuMemoryUtilization"]) == ("vllm", 0.92)
    assert plans[0]["parallelism"]["tensorParallelSize"] == 1


@pytest.mark.models("phi-4", "llama-3.3-70b-instruct", "gemma-3-27b-it")
def test_a_line_asks_for_the_gpus_that_it_names_and_no_others(here: Path, run: Run) -> None:
    card = ("--gpu", "NVIDIA H100 80GB")
    both = planned(run, here / "compose.yaml", COMPOSE, *card)
    assert both["parallelism"]["tensorParallelSize"] == 1
    (here / "four.sh").write_text(
        "CUDA_VISIBLE_DEVICES=0,1 vllm serve microsoft/phi-4 -tp 4", encoding="utf-8"
    )
    code, out, _ = run("plan", "--from", "four.sh", *card, "--exit-code")
    assert (code, "tensor-parallel-size 4 asks for 4 GPUs, and there are 2" in out) == (1, True)


@pytest.mark.models("phi-4", "llama-3.3-70b-instruct", "gemma-3-27b-it")
def test_a_set_of_leaders_and_workers_is_planned_on_all_its_nodes(here: Path, run: Run) -> None:
    found = planned(run, here / "lws.yaml", LWS, "--gpu", "NVIDIA H100 80GB")
    sizes = found["parallelism"]
    assert (sizes["tensorParallelSize"], sizes["pipelineParallelSize"], found["nodeCount"]) == (4, 2, 2)
    assert found["fits"] == "yes"


@pytest.mark.models("phi-4", "llama-3.3-70b-instruct", "gemma-3-27b-it")
def test_kaitos_own_manifests_are_planned_as_they_are_written(here: Path, run: Run) -> None:
    written = planned(run, here / "workspace.yaml", KAITO)
    off = KAITO + "    kv_cache_cpu_memory_utilization: 0\n"
    without = planned(run, here / "workspace.yaml", off)
    assert (written["engine"], without["engine"]) == ("kaito-v0.12", "kaito-v0.12")
    assert any("LMCacheConnectorV1" in word for word in written["command"])
    assert not any("LMCacheConnectorV1" in word for word in without["command"])
    needed = [plan["perGPU"]["kvCacheNeededBytes"] for plan in (written, without)]
    assert needed[0] > needed[1]


@pytest.mark.models("phi-4")
def test_what_is_pasted_is_planned_with_what_the_command_line_adds(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pasted = io.BytesIO(b"vllm serve microsoft/phi-4 --max-model-len 8192 --max-num-seqs 8\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pasted))
    more = ("--gpu", "NVIDIA A100 80GB", "--max-model-len", "4096", "--format", "json")
    code, out, _ = run("plan", "--from", "-", *more)
    value = json.loads(out)
    assert (code, value["settings"]["maxModelLen"], value["settings"]["maxNumSeqs"]) == (0, 4096, 8)


@pytest.mark.models("phi-4")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.sh", "echo hello\n", "a.sh starts no vLLM"),
        ("a.sh", "vllm serve a/b\nvllm serve c/d\n", "a.sh starts vLLM 2 times: vllm serve (line 1)"),
        ("a.sh", "vllm serve --max-model-len 1\n", "a.sh:1:1: vllm serve names no model"),
        ("a.sh", "vllm serve org/Unheard-Of\n", "'org/Unheard-Of' is neither in the catalog"),
        ("a.yaml", "services:\n  a: {image: x}\n", "a.yaml starts no vLLM"),
        ("a.yaml", "kind: Pod\n\tspec: 1\n", "a.yaml:2:1"),
        (
            "a.yaml",
            "services:\n  a:\n    image: vllm/vllm-openai\n    command: --model ${MODEL}\n",
            "a.yaml:4:5: the model is ${MODEL}",
        ),
        ("a.yaml", "apiVersion: kaito.sh/v1beta1\nkind: Workspace\n", "a.yaml"),
    ],
)
def test_what_is_no_start_is_said_with_its_place(
    name: str, text: str, message: str, here: Path, run: Run
) -> None:
    (here / name).write_text(text, encoding="utf-8")
    code, _, err = run("plan", "--from", name)
    assert (code, message in err) == (2, True), err


@pytest.mark.models("phi-4")
def test_nothing_of_a_pasted_text_is_run(here: Path, run: Run) -> None:
    mark = here / "mark"
    text = f"touch {mark}; $(touch {mark}) vllm serve microsoft/phi-4 --api-key `touch {mark}`"
    (here / "serve.sh").write_text(text, encoding="utf-8")
    assert run("plan", "--from", "serve.sh", "--gpu", "NVIDIA A100 80GB")[0] == 0
    assert not mark.exists()


@pytest.mark.models("phi-4")
def test_a_model_or_a_file_has_to_be_named(here: Path, run: Run) -> None:
    code, _, err = run("plan")
    assert (code, "name a model, or a file with --from" in err) == (2, True)
    code, _, err = run("plan", "--from", "absent.yaml")
    assert (code, "cannot read absent.yaml" in err) == (2, True)

"""`diagnose`: why a start failed or will, what to change, and where its log and the plan disagree."""

from __future__ import annotations

import io
import json
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import CATALOG, Run

from kaito_catalog.diagnosis.comparison import Term, culprit
from kaito_catalog.quantity import GIB
from kaito_catalog.reports.style import fitted

LOGS = Path(__file__).parent / "data" / "start_logs"
LMCACHE = ", 'kv_transfer_config': KVTransferConfig(kv_connector='LMCacheConnectorV1', kv_role='kv_both')"
ERROR = "(EngineCore pid=80) ERROR 06-01 10:01:00 [core.py:1029] "
LOADED = (
    "(EngineCore pid=80) INFO 06-01 10:00:40 [gpu_model_runner.py:4481] "
    "Model loading took 51.1 GiB memory and 54.2 seconds\n"
)


def log(
    model: str, tail: str, *, version: str = "0.25.1", more: str = "", length: int = 16384, tensor: int = 1
) -> str:
    """A log in the form that 0.19 to 0.32 print, up to what `tail` adds."""
    size = f", 'tensor_parallel_size': {tensor}" if tensor > 1 else ""
    return (
        f"(APIServer pid=1) INFO 06-01 10:00:00 [utils.py:299] vLLM API server version {version}\n"
        f"(APIServer pid=1) INFO 06-01 10:00:00 [utils.py:233] non-default args: {{'model': '{model}', "
        f"'max_model_len': {length}{size}{more}}}\n"
        f"(EngineCore pid=80) INFO 06-01 10:00:20 [core.py:101] Initializing a V1 LLM engine (v{version}) with "
        f"config: model='{model}', speculative_config=None, dtype=torch.bfloat16, max_seq_len={length}, "
        f"tensor_parallel_size={tensor}, pipeline_parallel_size=1, data_parallel_size=1, quantization=None, "
        f"enforce_eager=False, kv_cache_dtype=auto, device_config=cuda\n{tail}"
    )


def of_version(name: str, model: str) -> str:
    """A log of tests/data, of one of the catalog's models; some are broken by a terminal."""
    text = (LOGS / name).read_text(encoding="utf-8")
    (old,) = {
        word
        for word in ("Long-30B", "phi-mid", "Hybrid-9B", "Mid-70B-fp8", "Long-8B", "Tiny-1B")
        if word in text
    }
    return text.replace(f"ex\nample/{old}", model).replace(f"example/{old}", model)


class Asked:
    """What `diagnose` says of a text."""

    def __init__(
        self, run: Run, folder: Path, text: str | bytes, arguments: tuple[object, ...], name: str
    ) -> None:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        command = ("diagnose", path, "--catalog", CATALOG, *arguments)
        self.code, out, self.err = run(*command, "--format", "json")
        self.starts: list[dict[str, Any]] = json.loads(out)["starts"] if out else []
        self._again = partial(run, *command)

    @cached_property
    def text(self) -> str:
        return self._again()[1]

    @property
    def only(self) -> dict[str, Any]:
        (start,) = self.starts
        return start

    @property
    def changes(self) -> dict[str, str]:
        """The changes that are enough, by what is changed."""
        return {change["change"]: change["kind"] for change in self.only["changes"]}

    def terms(self) -> dict[str, bool]:
        return {term["term"]: term["agrees"] for term in self.only["comparison"]}


@pytest.fixture
def ask(run: Run, tmp_path: Path) -> Any:
    def call(text: str | bytes, *arguments: object, name: str = "start.log") -> Asked:
        return Asked(run, tmp_path, text, arguments, name)

    return call


# --- what a log shows, and what to change -------------------------------------------------------------------


def test_a_refusal_of_the_cache_names_the_context_the_machine_and_the_options_that_fit(ask: Any) -> None:
    found = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"), "--gpu", "a10")
    assert (found.code, found.only["cause"]["code"]) == (1, "kv-cache")
    assert found.changes == {
        "--max-model-len 30384": "context",  # 3.71 GiB of the 16 GiB that 131,072 tokens need, in blocks of 16
        "--tensor-parallel-size 2": "gpus",
        "Standard_NV72ads_A10_v5": "machine",
    }
    assert "--kv-cache-dtype fp8" in {change["change"] for change in found.only["notEnough"]}
    assert (
        "why: the KV cache of one request of 131,072 tokens needs 16.0 GiB, and 3.71 GiB are left"
        in found.text
    )


def test_the_context_that_fits_is_that_of_the_cache_that_the_log_printed(ask: Any) -> None:
    found = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"), "--gpu", "a10")
    (length,) = (change for change in found.only["changes"] if change["kind"] == "context")
    assert length["kvCacheAvailableBytes"] == pytest.approx(3.71 * GIB, abs=0.01 * GIB)
    assert length["kvCacheNeededBytes"] <= length["kvCacheAvailableBytes"]


def test_where_log_and_plan_disagree_the_term_and_the_figure_are_named(ask: Any) -> None:
    found = ask(of_version("0.19.0-banner-debug.log", "meta-llama/Llama-3.3-70B-Instruct"))
    assert (found.code, found.only["outcome"], found.only["cause"]) == (0, "served", None)
    assert found.only["disagreesIn"] == "weights"
    (weights,) = (term for term in found.only["comparison"] if term["term"] == "weights")
    assert weights["difference"] == pytest.approx((33.88 - 65.71) * GIB, abs=0.05 * GIB)
    assert weights["allowed"] == found.only["plan"]["expectedErrorBytes"]
    assert found.terms()["nonTorch"] is found.terms()["activationPeak"] is True
    assert "disagree, most in weights: -31.8 GiB" in found.text


def test_where_they_agree_that_is_said_with_what_the_plan_may_be_off_by(ask: Any) -> None:
    found = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"), "--gpu", "a10")
    assert set(found.terms()) == {"weights", "beside", "kvCacheAvailable", "kvCacheNeeded"}
    assert (all(found.terms().values()), found.only["disagreesIn"]) == (True, None)
    assert "agree within what the plan may be off by, ± 1.66 GiB" in found.text


def test_an_out_of_memory_error_is_answered_with_what_leaves_as_much(ask: Any) -> None:
    found = ask(of_version("0.13.0-kaito-oom.log", "microsoft/phi-4"))
    assert (found.code, found.only["cause"]["code"]) == (1, "out-of-memory")
    assert "while memory was profiled, where 786.00 MiB more were asked for" in found.text
    assert found.changes == {"--max-num-seqs 64": "option"}
    assert not any("kv-cache-dtype" in change["change"] for change in found.only["notEnough"])
    assert "options go under `vllm:` in the ConfigMap" in found.text


def test_once_the_cache_is_there_a_smaller_one_leaves_what_graphs_lack(ask: Any) -> None:
    tail = LOADED + (
        "(EngineCore pid=80) INFO 06-01 10:01:30 [gpu_worker.py:760] Available KV cache memory: 17.54 GiB\n"
        f"{ERROR}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 has a total capacity "
        "of 79.19 GiB of which 552.50 MiB is free.\n"
    )
    found = ask(log("Qwen/Qwen3.6-27B", tail, length=32768), "--gpu", "a100-80gb")
    assert "the GPU's memory ran out once the cache was there" in found.text
    assert found.changes["--gpu-memory-utilization 0.91"] == "utilization"
    assert found.changes["--enforce-eager"] == "option"


def test_memory_that_others_hold_is_no_question_of_the_model(ask: Any) -> None:
    found = ask(of_version("0.30.0-shared-gpu.log", "Qwen/Qwen3.5-2B"))
    assert (found.code, found.only["cause"]["code"], found.only["changes"]) == (1, "free-memory", [])
    assert "or ask for less: --gpu-memory-utilization 0.4 is what is free" in found.text


def test_without_a_plan_vllms_own_estimate_of_the_context_is_told(ask: Any) -> None:
    found = ask((LOGS / "0.11.0-does-not-fit.log").read_text(encoding="utf-8"))
    assert (found.code, found.changes) == (1, {"--max-model-len 129952": "context"})
    assert "no plan: 'example/Long-30B' is neither in the catalog nor a folder" in found.text


def test_a_short_name_of_a_gpu_is_the_one_with_the_memory_that_the_log_prints(ask: Any) -> None:
    text = of_version("0.30.0-shared-gpu.log", "Qwen/Qwen3.5-2B").replace("23.51", "93.02")
    found = ask(text, "--gpu", "h100")
    assert found.only["plan"]["gpu"]["name"] == "NVIDIA H100 NVL"
    assert "'h100' is read as NVIDIA H100 NVL, by the memory that the log prints" in found.text


def test_a_log_on_a_gpu_that_nobody_names_has_no_plan_and_says_what_to_add(ask: Any) -> None:
    found = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"))
    assert (found.code, found.only["plan"], found.only["comparison"]) == (1, None, [])
    assert found.only["noPlan"] == "the log names neither the GPU nor its memory: --gpu NAME does"


def test_two_starts_in_one_log_are_two_answers_and_the_worse_one_decides_the_code(ask: Any) -> None:
    served = of_version("0.19.0-banner-debug.log", "meta-llama/Llama-3.3-70B-Instruct")
    found = ask(served + of_version("0.13.0-kaito-oom.log", "microsoft/phi-4"))
    assert (found.code, [start["outcome"] for start in found.starts]) == (1, ["served", "failed"])


HMA = "ValueError: Connector LMCacheConnectorV1 does not support HMA but HMA is enabled."
UNIFY = "ValueError: Hybrid KV cache manager is disabled but failed to convert the KV cache specs to one unified type."
GROUPS = "ValueError: LMCache cannot serve this model's KV cache groups: group 0:"


@pytest.mark.parametrize(
    ("version", "message", "words"),
    [
        ("0.21.0", HMA, "LMCacheConnectorV1 cannot keep this model's mixed kinds of cache"),
        ("0.19.1", UNIFY, "--disable-hybrid-kv-cache-manager, switches vLLM's hybrid manager off"),
        ("0.25.1", GROUPS, "LMCache cannot keep this model's mixed kinds of cache"),
    ],
)
def test_lmcache_that_cannot_keep_a_hybrid_models_cache_is_to_be_dropped(
    version: str, message: str, words: str, ask: Any
) -> None:
    text = log("Qwen/Qwen3.6-27B", f"{ERROR}{message}\n", version=version, more=LMCACHE, length=32768)
    found = ask(text, "--gpu", "a100-80gb")
    assert (found.code, found.only["cause"]["code"]) == (1, "kv-connector")
    assert words in found.only["cause"]["words"]
    assert found.changes["drop --kv-transfer-config (LMCacheConnectorV1)"] == "drop"
    assert any("kvCacheCPUMemoryUtilization: 0" in advice for advice in found.only["cause"]["advice"])


@pytest.mark.parametrize(
    ("tail", "code", "words"),
    [
        ("Killed\n", "host-memory", "kvCacheCPUMemoryUtilization: 0"),
        (
            f"{ERROR}ValueError: Hybrid KV cache manager was explicitly enabled but is not supported in this "
            "configuration.\n",
            "bad-option",
            "drop --no-disable-hybrid-kv-cache-manager",
        ),
        (
            "(APIServer pid=1) ValueError: Model architectures ['Qwen3_5ForConditionalGeneration'] are not supported "
            "for now.\n",
            "unsupported-architecture",
            "vLLM 0.25.1 has it",
        ),
        (
            "(APIServer pid=1) ValueError: Model architectures ['NoSuchForCausalLM'] are not supported for now.\n",
            "unsupported-architecture",
            "no version that has been read has it",
        ),
        (
            "(APIServer pid=1) ValueError: User-specified max_model_len (32768) is greater than the derived "
            "max_model_len (max_position_embeddings=16384.0 or model_max_length=None in model's config.json).\n",
            "bad-option",
            "--max-model-len 16384, or leave it out",
        ),
        (
            f"{ERROR}TimeoutError: Timed out waiting for engine core processes to start.\n",
            "time-out",
            "KAITO itself waits 30 minutes for weights of 27.3 GiB",
        ),
        (
            f"{ERROR}RuntimeError: CUDA error: no kernel image is available for execution on the device\n",
            "missing-kernel",
            "this image of vLLM was not built for this kind of GPU",
        ),
    ],
    ids=["killed", "manager", "newer", "nobody", "limit", "slow", "kernel"],
)
def test_what_a_message_means_is_said_with_what_to_do(tail: str, code: str, words: str, ask: Any) -> None:
    found = ask(log("microsoft/phi-4", tail, version="0.11.0"), "--gpu", "a100-80gb")
    assert (found.code, found.only["cause"]["code"]) == (1, code)
    assert words in found.text


def test_a_gpu_without_the_kernel_is_answered_with_those_that_have_it(ask: Any) -> None:
    tail = f"{ERROR}RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
    found = ask(log("openai/gpt-oss-20b", tail), "--gpu", "t4")
    assert (
        found.only["cause"]["words"] == "the quantization mxfp4 needs bfloat16, which this GPU does not have"
    )
    assert next(change for change, kind in found.changes.items() if kind == "gpu").startswith("1 × NVIDIA ")
    assert "machine" in found.changes.values()
    known = ask(log("openai/gpt-oss-20b", tail), "--gpu", "a100-80gb")
    assert (known.changes, known.code) == ({}, 1)


def test_an_option_that_vllm_has_not_is_answered_with_the_one_that_was_meant(ask: Any) -> None:
    text = (
        "(APIServer pid=1) INFO 06-01 10:00:00 [utils.py:299] vLLM API server version 0.25.1\n"
        "vllm serve: error: unrecognized arguments: --max-modellen 4\n"
    )
    found = ask(text)
    assert (found.code, found.only["cause"]["code"]) == (1, "bad-option")
    assert found.only["cause"]["advice"] == ["did you mean --max-model-len?"]


def test_a_model_that_cannot_be_divided_is_answered_with_the_sizes_that_can(ask: Any) -> None:
    tail = (
        "(APIServer pid=1) ValueError: Total number of attention heads (40) must be divisible by tensor parallel "
        "size (3).\n"
    )
    found = ask(log("microsoft/phi-4", tail, tensor=3), "--gpu", "a100-80gb")
    assert found.only["cause"]["words"] == "the model cannot be divided over 3 GPUs"
    assert found.only["cause"]["advice"] == ["--tensor-parallel-size is one of 1, 2"]


@pytest.mark.parametrize(
    ("tail", "code"),
    [(LOADED, "unfinished"), (f"{ERROR}RuntimeError: the flux capacitor is empty\n", "not-recognised")],
)
def test_what_is_not_known_has_a_code_of_its_own(tail: str, code: str, ask: Any) -> None:
    found = ask(log("microsoft/phi-4", tail, more=LMCACHE), "--gpu", "a100-80gb")
    assert (found.code, found.only["cause"]["code"], found.only["changes"]) == (3, code, [])
    assert ("OOMKilled" in found.text) is (code == "unfinished")


# --- what is only written down ------------------------------------------------------------------------------

CONFIG = """---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  inference_config.yaml: |
    vllm:
      max-model-len: LENGTH
"""
WORKSPACE = f"""apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {{name: one}}
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector: {{matchLabels: {{apps: x}}}}
inference:
  preset: {{name: PRESET}}
  config: c
{CONFIG}"""
INFERENCE_SET = f"""apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata: {{name: one}}
spec:
  replicas: 2
  labelSelector: {{matchLabels: {{apps: x}}}}
  template:
    resource: {{instanceType: Standard_NC24ads_A100_v4}}
    inference:
      preset: {{name: PRESET}}
      config: c
{CONFIG}"""
POD = """apiVersion: v1
kind: Pod
metadata: {name: q}
spec:
  containers:
  - name: v
    image: vllm/vllm-openai:v0.25.1
    command: [vllm, serve, MODEL, --max-model-len, "LENGTH"]
    resources: {limits: {nvidia.com/gpu: "1"}}
"""


@pytest.mark.parametrize("manifest", [WORKSPACE, INFERENCE_SET], ids=["Workspace", "InferenceSet"])
def test_a_manifest_of_kaitos_is_planned_as_kaito_starts_it(manifest: str, ask: Any) -> None:
    fits = ask(manifest.replace("PRESET", "phi-4").replace("LENGTH", "16384"), name="one.yaml")
    assert (fits.code, fits.only["cause"], fits.only["plannedBy"]) == (0, None, "as KAITO v0.12 starts it")
    fails = ask(manifest.replace("PRESET", "phi-4").replace("LENGTH", "32768"), name="one.yaml")
    assert (fails.code, fails.only["cause"]["code"]) == (1, "bad-option")
    assert fails.changes == {"--max-model-len 16384": "context"}
    assert "options go under `vllm:` in the ConfigMap" in fails.text


def test_a_manifest_needs_no_file_name_that_says_so(ask: Any) -> None:
    found = ask(WORKSPACE.replace("PRESET", "phi-4").replace("LENGTH", "16384"), name="kubectl.out")
    assert (found.code, found.only["plannedBy"]) == (0, "as KAITO v0.12 starts it")


def test_a_log_may_be_called_json_or_yaml(ask: Any) -> None:
    lines = of_version("0.13.0-kaito-oom.log", "microsoft/phi-4").splitlines(keepends=True)
    docker = "".join(json.dumps({"log": line, "stream": "stderr"}) + "\n" for line in lines)
    assert ask(docker, name="docker-json.json").only["cause"]["code"] == "out-of-memory"
    assert ask("".join(lines), name="pod.yaml").only["cause"]["code"] == "out-of-memory"


def test_a_pods_weights_that_are_too_large_are_answered_with_gpus_and_a_machine(ask: Any) -> None:
    text = POD.replace("MODEL", "meta-llama/Llama-3.3-70B-Instruct").replace("LENGTH", "32768")
    found = ask(text, "--gpu", "a100", name="pod.yaml")
    assert (found.code, found.only["cause"]["code"]) == (1, "weights")
    assert found.changes == {"--tensor-parallel-size 4": "gpus", "Standard_NC80adis_H100_v5": "machine"}
    assert "'a100' is read as NVIDIA A100 40GB, which has the least memory of that name" in found.text


def test_an_option_that_no_plan_reads_is_dropped_and_the_rest_planned(ask: Any) -> None:
    text = POD.replace("MODEL", "Qwen/Qwen3.6-27B").replace('"LENGTH"', '"262144", --enable-lora')
    found = ask(text, "--gpu", "NVIDIA H100 80GB", name="pod.yaml")
    assert (found.code, found.only["cause"]["code"]) == (3, "unknown")
    assert found.only["cause"]["words"] == "no plan reads enable-lora: it adds the weights of adapters"
    assert found.changes["drop --enable-lora, and --max-num-seqs 256"] == "drop"


def test_a_pod_without_a_gpu_says_what_to_add(ask: Any) -> None:
    found = ask(POD.replace("MODEL", "microsoft/phi-4").replace("LENGTH", "16384"), name="pod.yaml")
    assert (found.code, found.starts) == (2, [])
    assert "the file does not say on which GPU this is started" in found.err


def test_a_command_line_on_standard_input_is_planned(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"vllm serve microsoft/phi-4 --max-model-len 16384\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    code, out, _ = run("diagnose", "-", "--gpu", "a100-80gb", "--catalog", CATALOG)
    assert (code, out.splitlines()[0]) == (
        0,
        "phi-4 (vLLM 0.25.1, 1 × NVIDIA A100 80GB, 16,384 tokens): fits",
    )


# --- what is no start, or means harm ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n",
        b"hello\n",
        bytes(range(256)) * 40,
        b"apiVersion: v1\nkind: Pod\n",
        b"{" * 5000,
        b"apiVersion: [" * 99,
    ],
    ids=["empty", "blank", "words", "bytes", "pod", "braces", "brackets"],
)
def test_what_holds_no_start_is_an_error(text: bytes, ask: Any) -> None:
    found = ask(text)
    assert (found.code, found.starts) == (2, [])
    assert found.err.startswith("error: no start is read in this: ")


def test_a_file_that_is_not_there_is_an_error(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.log", tmp_path):
        code, _, err = run("diagnose", path, "--catalog", CATALOG)
        assert (code, err.startswith("error: cannot read ")) == (2, True)


def test_control_characters_of_a_log_do_not_reach_the_terminal(ask: Any) -> None:
    tail = f"{ERROR}RuntimeError: no\x1b[2J way\x07\n"
    assert not {"\x1b", "\x07"} & set(ask(log("x/\x9by", tail)).text)


def test_a_log_larger_than_a_manifest_may_be_is_read_to_its_end(ask: Any) -> None:
    text = of_version("0.13.0-kaito-oom.log", "microsoft/phi-4")
    at = text.index("\n", len(text) // 2) + 1
    noise = "[pod/phi-4-0/phi-4] GET /health 200\n" * 60_000
    assert ask(text[:at] + noise + text[at:]).only["cause"]["code"] == "out-of-memory"


@pytest.mark.parametrize("count", range(0, 14, 3))
def test_a_log_that_is_cut_raises_nothing(count: int, ask: Any) -> None:
    lines = of_version("0.13.0-kaito-oom.log", "microsoft/phi-4").splitlines(keepends=True)
    assert ask("".join(lines[:count])).code in (1, 2, 3)


def test_words_fit_eighty_columns(ask: Any) -> None:
    text = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"), "--gpu", "a10").text
    assert max(len(line) for line in fitted(text, 80).splitlines()) <= 80


def test_the_page_shows_what_is_printed(ask: Any) -> None:
    text = ask(of_version("0.8.2-v1-refused.log", "meta-llama/Llama-3.1-8B-Instruct"), "--gpu", "a10").text
    page = (CATALOG.parent / "docs/diagnose.md").read_text(encoding="utf-8")
    assert f"$ kaito-catalog diagnose vllm.log --gpu a10\n{fitted(text.rstrip(), 100)}\n```" in page


def test_the_culprit_is_a_part_and_not_what_is_left(ask: Any) -> None:
    off = Term("weights", 10, 2, 1), Term("kvCacheAvailable", 0, 9, 1)
    assert culprit(off) is off[0]
    assert culprit((Term("weights", 10, 10, 1),)) is None

"""The worker against a real vLLM, and the client against workers that misbehave."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog.vllm_bridge.answers import ExactPlanAnswer, OptionReport, RunOutcome
from kaito_catalog.vllm_bridge.archive import worker_archive
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.worker.engine import ENGINES
from kaito_catalog.vllm_bridge.worker.machine import available_host_bytes
from kaito_catalog.vllm_bridge.worker.requests import FIELDS
from kaito_catalog.vllm_bridge.worker.warm import PLANNING

ROOT = Path(__file__).resolve().parents[1]

KAITO_VLLM = "0.25.1"
NEWER_VLLM = "0.32.0"

MIB = 1024**2
GIB = 1024**3

# Enough for a few thousand tokens of the tiny model, and quickly allocated.
SMALL_ENGINE = {"kv_cache_memory_bytes": 64 * MIB, "enforce_eager": True}
ENGINE_LIMIT_SECONDS = 240.0


# --- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def python(vllm_python: Path) -> Path:
    return vllm_python


@pytest.fixture(scope="session")
def chat_model(python: Path, model: Callable[..., Path]) -> Path:
    """The tiny Llama with a byte-level tokenizer, made by the `tokenizers` library of vLLM's environment."""
    directory = model("tiny-llama")
    script = """
        import sys
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {symbol: number for number, symbol in enumerate([*alphabet, "<s>", "</s>", "<unk>"])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
        tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(sys.argv[1])
    """
    command = [str(python), "-c", textwrap.dedent(script), str(directory / "tokenizer.json")]
    subprocess.run(command, check=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


# --- exact plans ----------------------------------------------------------------------------------------------------

# Known to the byte from the architectures' own arithmetic: matrices over ranks, norms and routers replicated,
# the vocabulary padded to 64.
LLAMA_70B = {1: 141_107_412_992, 2: 70_555_025_408, 4: 35_278_831_616, 8: 17_640_734_720}


@pytest.mark.parametrize("tensor_parallel_size", LLAMA_70B)
def test_llama_70b_is_exact_at_every_tensor_parallel_size(
    worker: Worker, model: Callable[..., Path], tensor_parallel_size: int
) -> None:
    plan = plan_of(worker, model("llama-70b"), tensor_parallel_size=tensor_parallel_size, max_model_len=8192)
    assert LLAMA_70B[tensor_parallel_size] == plan["perGPU"]["weightsBytes"]
    assert 327_680 / tensor_parallel_size == plan["kvCache"]["bytesPerTokenPerGPU"]
    assert 8192 * 327_680 // tensor_parallel_size == plan["kvCache"]["neededBytes"]


@pytest.mark.parametrize("version", [KAITO_VLLM, NEWER_VLLM])
@pytest.mark.parametrize(
    ("name", "tensor_parallel_size", "weights_bytes"),
    [
        ("llama-70b", 8, {"bfloat16": 17_640_734_720}),
        ("qwen3-32b", 1, {"bfloat16": 65_524_246_528}),
        ("gemma-3-27b-text", 1, {"bfloat16": 54_018_692_608}),
        ("gemma-3-27b", 1, {"bfloat16": 54_864_813_280}),
        (
            "deepseek-v3",
            8,
            {"bfloat16": 678_213_632, "float8_e4m3fn": 84_441_235_456, "float32": 20_681_760},
        ),
        ("gpt-oss-20b", 1, {"bfloat16": 3_608_919_168, "uint8": 10_152_345_600}),
        ("qwen3-next-80b", 4, {"bfloat16": 39_925_737_024, "float32": 1152}),
    ],
)
def test_weights_equal_vllms_to_the_byte(
    worker: Worker,
    model: Callable[..., Path],
    version: str,
    name: str,
    tensor_parallel_size: int,
    weights_bytes: dict[str, int],
) -> None:
    plan = plan_of(
        worker, model(name), version=version, tensor_parallel_size=tensor_parallel_size, max_model_len=32768
    )
    assert version == plan["vllmVersion"]
    assert weights_bytes == plan["perGPU"]["weightsBytesByDtype"]
    assert sum(weights_bytes.values()) == plan["perGPU"]["weightsBytes"]


def test_mla_keeps_one_latent_per_token_on_every_rank(worker: Worker, model: Callable[..., Path]) -> None:
    plan = plan_of(worker, model("deepseek-v3"), tensor_parallel_size=8, max_model_len=32768)
    assert plan["kvCache"]["bytesPerTokenPerGPU"] == 61 * 1152


def test_mla_gains_its_absorbed_matrices_after_loading(worker: Worker, model: Callable[..., Path]) -> None:
    plan = plan_of(
        worker, model("deepseek-v3"), version=NEWER_VLLM, tensor_parallel_size=8, max_model_len=32768
    )
    loaded = plan["perGPU"]["afterLoading"]
    assert loaded["known"]
    # 61 layers × 512 × 16 heads × (128 + 128) × 2 bytes.
    assert loaded["weightsBytes"] - plan["perGPU"]["weightsBytes"] == 255_852_544


def test_mxfp4_is_padded_where_the_gpu_has_no_kernels_for_it(
    worker: Worker, model: Callable[..., Path]
) -> None:
    plan = worker.exact_plan(
        model("gpt-oss-20b"),
        vllm_version=KAITO_VLLM,
        gpu={"name": "NVIDIA A10", "capability": "8.6", "memoryBytes": 23 * GIB},
        args={"max_model_len": 32768},
        after_loading=False,
    )
    assert plan["perGPU"]["weightsBytesByDtype"]["uint8"] == 11_069_816_832
    assert plan["settings"]["maxNumBatchedTokens"] == 2048


@pytest.mark.parametrize(
    ("version", "by_layers", "by_groups"),
    [(KAITO_VLLM, 14_670_102_528, 15_275_130_880), (NEWER_VLLM, 18_159_763_456, 19_301_662_720)],
)
def test_sliding_windows_need_what_the_version_keeps_in_flight(
    worker: Worker, model: Callable[..., Path], version: str, by_layers: int, by_groups: int
) -> None:
    plan = plan_of(worker, model("gemma-3-27b-text"), version=version, max_model_len=131_072)
    assert by_layers == plan["kvCache"]["neededByLayersBytes"]
    # 52 sliding layers in 6 groups of 10 are padded to 60.
    assert by_groups == plan["kvCache"]["neededBytes"]
    assert len(plan["kvCache"]["groups"]) == 7


def test_a_linear_attention_state_sets_the_block_size(worker: Worker, model: Callable[..., Path]) -> None:
    plan = plan_of(worker, model("qwen3-next-80b"), tensor_parallel_size=4, max_model_len=32768)
    layers = {layer["kind"]: layer for layer in plan["kvCache"]["layers"]}
    assert layers["MambaSpec"]["stateBytes"] == 274_432
    assert layers["MambaSpec"]["pageBytes"] == layers["FullAttentionSpec"]["pageBytes"] == 278_528
    assert layers["FullAttentionSpec"]["blockSize"] == 272


def test_a_budget_gives_blocks_tokens_and_the_longest_context(
    worker: Worker, model: Callable[..., Path]
) -> None:
    plan = worker.exact_plan(
        model("llama-70b"),
        vllm_version=KAITO_VLLM,
        args={"tensor_parallel_size": 8, "max_model_len": 8192},
        kv_cache_bytes=1 * GIB,
    )
    cache = plan["kvCache"]
    assert cache["budget"] == {"bytes": GIB, "source": "given"}
    assert cache["fits"]
    assert cache["blocks"] == GIB // (16 * 40_960)
    assert cache["tokens"] == cache["blocks"] * 16
    assert cache["longestModelLen"] == GIB // (16 * 40_960) * 16


def test_a_budget_that_is_too_small_gives_vllms_refusal(worker: Worker, model: Callable[..., Path]) -> None:
    plan = worker.exact_plan(
        model("llama-70b"),
        vllm_version=KAITO_VLLM,
        args={"tensor_parallel_size": 8, "max_model_len": 32768},
        kv_cache_bytes=GIB,
    )
    assert not plan["kvCache"]["fits"]
    assert "To serve at least one request" in plan["kvCache"]["refusal"]
    assert plan["kvCache"]["longestModelLen"] == GIB // (16 * 40_960) * 16


def test_pipeline_stages_are_planned_one_by_one(worker: Worker, model: Callable[..., Path]) -> None:
    plan = plan_of(worker, model("llama-70b"), pipeline_parallel_size=2, max_model_len=8192)
    # The first stage has the embeddings, the last the head and the final norm.
    assert [rank["weightsBytes"] for rank in plan["ranks"]] == [70_553_698_304, 70_553_714_688]
    assert [rank["kvCacheLayers"] for rank in plan["ranks"]] == [40, 40]
    assert plan["perGPU"]["weightsBytes"] == 70_553_714_688


def test_expert_parallelism_spreads_whole_experts(worker: Worker, model: Callable[..., Path]) -> None:
    plan = plan_of(
        worker,
        model("qwen3-next-80b"),
        tensor_parallel_size=4,
        enable_expert_parallel=True,
        max_model_len=32768,
    )
    assert plan["settings"]["enableExpertParallel"]
    assert plan["perGPU"]["weightsBytes"] == 39_925_738_176


def test_the_cpu_platform_has_blocks_of_128_tokens(worker: Worker, model: Callable[..., Path]) -> None:
    plan = worker.exact_plan(model("gemma-3-27b-text"), device="cpu", args={"max_model_len": 131_072})
    assert plan["kvCache"]["neededByLayersBytes"] == 12_100_567_040
    assert {layer["blockSize"] for layer in plan["kvCache"]["layers"]} == {128}


def test_an_architecture_that_vllm_does_not_know_is_refused_in_its_words(
    worker: Worker, model: Callable[..., Path]
) -> None:
    with pytest.raises(WorkerError, match="NoSuchForCausalLM") as refusal:
        plan_of(worker, model("tiny-llama", architectures=["NoSuchForCausalLM"]))
    assert refusal.value.failure_class == "unsupported-architecture"


def test_heads_that_do_not_divide_are_refused_in_vllms_words(
    worker: Worker, model: Callable[..., Path]
) -> None:
    with pytest.raises(WorkerError, match=r"attention heads \(64\) must be divisible by .* \(3\)") as refusal:
        plan_of(worker, model("llama-70b"), tensor_parallel_size=3)
    assert refusal.value.failure_class == "bad-option"


def test_mistrals_own_format_is_enough(worker: Worker, tmp_path: Path) -> None:
    shape = {
        "dim": 4096,
        "n_layers": 32,
        "head_dim": 128,
        "hidden_dim": 14336,
        "n_heads": 32,
        "n_kv_heads": 8,
    }
    params = shape | {
        "norm_eps": 1e-5,
        "vocab_size": 32768,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
    }
    (tmp_path / "params.json").write_text(json.dumps(params), encoding="utf-8")
    plan = plan_of(worker, tmp_path)
    assert plan["perGPU"]["weightsBytes"] == 14_496_047_104


def test_a_side_file_with_the_quantisation_is_read(worker: Worker, model: Callable[..., Path]) -> None:
    directory = model("llama-70b")
    quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    side_file = {"producer": {"name": "modelopt", "version": "0.29.0"}, "quantization": quantization}
    (directory / "hf_quant_config.json").write_text(json.dumps(side_file), encoding="utf-8")
    plan = plan_of(worker, directory, max_model_len=8192)
    assert plan["quantization"] == "modelopt"
    # All but the embeddings, the head and the norms.
    assert plan["perGPU"]["weightsBytesByDtype"]["float8_e4m3fn"] == 80 * (
        2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672
    )
    assert plan["kvCache"]["bytesPerTokenPerGPU"] == 327_680 / 2


def test_a_plan_over_its_time_limit_leaves_the_worker_usable(
    python: Path, model: Callable[..., Path]
) -> None:
    with Worker(python) as worker:
        with pytest.raises(WorkerError, match="importing vLLM") as over:
            worker.exact_plan(model("tiny-llama"), time_limit_seconds=0.5)
        assert over.value.failure_class == "time-out"
        assert worker.alive
        assert worker.exact_plan(model("tiny-llama"))["perGPU"]["weightsBytes"] == 4_820_480


def test_a_version_that_is_not_there_is_named(worker: Worker, model: Callable[..., Path]) -> None:
    with pytest.raises(WorkerError, match=r"0\.1\.2") as refusal:
        plan_of(worker, model("tiny-llama"), version="0.1.2")
    assert refusal.value.failure_class == "no-version"


def test_a_directory_without_a_configuration_is_refused(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"neither config\.json nor params\.json") as refusal:
        plan_of(worker, tmp_path)
    assert refusal.value.failure_class == "bad-request"


def test_progress_names_what_is_being_built(python: Path, model: Callable[..., Path]) -> None:
    seen: list[str] = []
    with Worker(python, progress=seen.append) as worker:
        plan_of(worker, model("tiny-llama"))
    assert [text for text in seen if text.startswith(("importing", "building"))] == [
        "importing vLLM",
        "building LlamaForCausalLM",
    ]


@pytest.mark.parametrize("version", [KAITO_VLLM, NEWER_VLLM])
def test_arguments_of_a_command_line_reach_the_engine_or_are_the_servers(
    worker: Worker, model: Callable[..., Path], version: str
) -> None:
    arguments = ["--max-num-seqs=16", "--block-size=32", "--no-enable-prefix-caching", "--max-model-len=4096"]
    server = ["--enable-auto-tool-choice", "--tool-call-parser=hermes", "--api-key=x"]
    plan = worker.exact_plan(
        model("llama-70b"),
        vllm_version=version,
        arguments=[*arguments, *server],
        args={"max_model_len": 8192, "tensor_parallel_size": 8},
    )
    assert plan["arguments"] == {
        "engine": ["block_size", "enable_prefix_caching", "max_num_seqs"],
        "server": ["api_key", "enable_auto_tool_choice", "tool_call_parser"],
        "overridden": ["max_model_len"],
    }
    assert (plan["settings"]["maxNumSeqs"], plan["settings"]["blockSize"]) == (16, 32)
    assert plan["settings"]["maxModelLen"] == 8192


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--swap-space=4", "unrecognized arguments: --swap-space=4"),
        ("--block-size=seven", "--block-size"),
        ("True", "'True' would be the name of a model"),
        ("--enable-auto-tool-choice --tool-call-parser=nope", "nope"),
        ("--max-num-batched-tokens=-1", "max_num_batched_tokens"),
    ],
)
def test_an_argument_that_is_not_used_is_named(
    worker: Worker, model: Callable[..., Path], argument: str, words: str
) -> None:
    with pytest.raises(WorkerError, match=words) as refusal:
        worker.exact_plan(model("tiny-llama"), vllm_version=KAITO_VLLM, arguments=argument.split())
    assert refusal.value.failure_class == "bad-option"


# --- options --------------------------------------------------------------------------------------------------------


def test_an_option_that_is_gone_is_unknown(worker: Worker, model: Callable[..., Path]) -> None:
    report = judge(worker, model("llama-70b"), {"swap-space": 4})
    assert kinds(report) == [("swap-space", "unknown-option")]


def test_a_misspelt_option_gets_the_nearest_one(worker: Worker, model: Callable[..., Path]) -> None:
    report = judge(worker, model("llama-70b"), {"gpu-memory-utilisation": 0.9})
    assert report["findings"][0]["nearest"] == "gpu-memory-utilization"


def test_switching_a_boolean_off_switches_it_on(worker: Worker, model: Callable[..., Path]) -> None:
    report = judge(worker, model("llama-70b"), {"trust-remote-code": False})
    assert kinds(report) == [("trust-remote-code", "switched-on")]
    assert report["expansion"] == ["--trust-remote-code", "False"]
    assert report["findings"][0]["parsed"] is True


def test_a_second_boolean_breaks_the_parser(worker: Worker, model: Callable[..., Path]) -> None:
    report = judge(worker, model("llama-70b"), {"trust-remote-code": True, "enable-prefix-caching": True})
    assert "refused-together" in dict(map(reversed, kinds(report)))  # type: ignore[arg-type]
    assert report["unrecognized"] == ["True"]


def test_a_bare_negation_survives_the_expansion(worker: Worker, model: Callable[..., Path]) -> None:
    assert judge(worker, model("llama-70b"), {"no-trust-remote-code": ""})["accepted"]


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"dtype": "float8"}, ("dtype", "invalid-value")),
        ({"kv-cache-dtype": "fp7"}, ("kv-cache-dtype", "invalid-value")),
        ({"tensor-parallel-size": 3}, ("tensor-parallel-size", "configuration")),
        ({"max-model-len": 200_000}, ("max-model-len", "configuration")),
        ({"gpu-memory-utilization": 1.5}, ("gpu-memory-utilization", "configuration")),
        ({"quantization": "nope"}, ("quantization", "configuration")),
        ({"reasoning-parser": "nope"}, ("reasoning-parser", "configuration")),
        ({"enable-auto-tool-choice": "", "tool-call-parser": "nope"}, ("tool-call-parser", "configuration")),
    ],
)
def test_a_value_that_vllm_refuses_is_found(
    worker: Worker, model: Callable[..., Path], options: dict[str, Any], finding: tuple[str, str]
) -> None:
    assert [finding] == kinds(judge(worker, model("llama-70b"), options))


def test_options_that_vllm_takes_are_accepted_and_resolved(
    worker: Worker, model: Callable[..., Path]
) -> None:
    options = {
        "tensor-parallel-size": 8,
        "max-model-len": 16384,
        "gpu-memory-utilization": 0.95,
        "cpu-offload-gb": 0,
    }
    report = judge(worker, model("llama-70b"), options)
    assert report["accepted"]
    assert report["resolved"] is not None
    assert report["resolved"]["maxModelLen"] == 16384


def test_the_registries_know_parsers_and_dropped_architectures(worker: Worker) -> None:
    registry = worker.registry(vllm_version=KAITO_VLLM)
    assert "LlamaForCausalLM" in registry["architectures"]
    assert registry["removedArchitectures"]["Phi3SmallForCausalLM"] == "0.9.2"
    assert "llama3_json" in registry["toolParsers"]
    assert "deepseek_r1" in registry["reasoningParsers"]


def test_the_options_have_types_choices_and_defaults(worker: Worker) -> None:
    options = worker.options(vllm_version=KAITO_VLLM)["options"]
    assert "swap-space" not in options
    assert options["trust-remote-code"]["type"] == "boolean"
    assert options["gpu-memory-utilization"]["type"] == "number"
    assert "bfloat16" in options["dtype"]["choices"]
    assert "-tp" in options["tensor-parallel-size"]["aliases"]


def test_the_options_have_the_limits_of_the_configuration_that_they_set(worker: Worker) -> None:
    options = worker.options(vllm_version=KAITO_VLLM)["options"]
    assert options["gpu-memory-utilization"]["exclusiveMinimum"] == 0
    assert options["gpu-memory-utilization"]["maximum"] == 1
    # SpeculativeConfig has a max_model_len as well, of at least 1; the option is ModelConfig's, which reads -1 as auto.
    assert options["max-model-len"]["minimum"] == -1
    # ParallelConfig limits the rank, but its option is not made of that field.
    assert "minimum" not in options["data-parallel-rank"]


@pytest.mark.parametrize("version", [KAITO_VLLM, NEWER_VLLM])
def test_the_committed_data_is_what_vllm_says(worker: Worker, version: str) -> None:
    tool = tool_module("refresh_vllm_data")
    surfaces = {version: tool.read_surface(worker, version) for version in tool.VERSIONS}
    assert tool.content(version, surfaces) == tool.data_file(version).read_text(encoding="utf-8")


@pytest.mark.parametrize("version", [KAITO_VLLM, NEWER_VLLM])
def test_vllms_private_names_are_where_the_table_says(worker: Worker, version: str) -> None:
    found = worker.request("names", {"vllmVersion": version})
    assert (found["vllmVersion"], found["unexpected"]) == (version, [])
    absent = {what for what, place in found["names"].items() if place is None}
    from_0_32 = {"layout of the cache", "layouts of a worker", "speculator of a draft model"}
    assert absent == {"groups of the whole model"} | (from_0_32 if version == KAITO_VLLM else set())


# --- engines --------------------------------------------------------------------------------------------------------


def test_a_dry_run_serves_and_reports_what_it_allocated(worker: Worker, model: Callable[..., Path]) -> None:
    outcome: Any = dry_run(worker, model("tiny-llama"), **SMALL_ENGINE, max_model_len=512)
    assert outcome["outcome"] == "served"
    assert outcome["weights"] == "dummy"
    assert len(outcome["tokensGenerated"]) == 4
    (rank,) = outcome["ranks"]
    assert rank["loadedBytesByDtype"] == {"bfloat16": 4_820_480}
    assert rank["kvCacheBytes"] == pytest.approx(64 * MIB, rel=0.01)
    assert rank["kvCacheLayers"][0]["pageBytes"] == 128 * 512
    assert outcome["kvCache"]["neededBytes"] == 512 * 3 * 512


def test_a_context_that_does_not_fit_has_its_figures(worker: Worker, model: Callable[..., Path]) -> None:
    outcome = dry_run(worker, model("tiny-llama", max_position_embeddings=1 << 21), **SMALL_ENGINE)
    assert outcome["outcome"] == "does-not-fit"
    assert outcome["neededBytes"] == (1 << 21) * 3 * 512
    assert 0 < outcome["availableBytes"] <= 64 * MIB
    assert outcome["longestModelLen"] == outcome["availableBytes"] // (128 * 3 * 512) * 128


def test_an_engine_without_the_architecture_fails_with_its_class(
    worker: Worker, model: Callable[..., Path]
) -> None:
    outcome = dry_run(worker, model("tiny-llama", architectures=["NoSuchForCausalLM"]))
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "unsupported-architecture")


def test_an_engine_with_a_bad_option_fails_with_its_class(worker: Worker, model: Callable[..., Path]) -> None:
    outcome = dry_run(worker, model("tiny-llama"), dtype="float8")
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "bad-option")


def test_an_engine_without_kernels_fails_with_its_class(worker: Worker, model: Callable[..., Path]) -> None:
    nvfp4 = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": []}
    outcome = dry_run(worker, model("tiny-llama", quantization_config=nvfp4), **SMALL_ENGINE)
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "missing-kernel")


def test_an_engine_that_wants_more_memory_than_it_may_have_fails_with_its_class(
    worker: Worker, model: Callable[..., Path]
) -> None:
    outcome = worker.dry_run(
        model("llama-70b"),
        device="cpu",
        args={**SMALL_ENGINE, "max_model_len": 512},
        host_memory_bytes=6 * GIB,
        time_limit_seconds=ENGINE_LIMIT_SECONDS,
    )
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "out-of-memory")


def test_an_engine_that_is_not_done_in_time_fails_with_its_class(
    worker: Worker, model: Callable[..., Path]
) -> None:
    outcome = worker.dry_run(model("tiny-llama"), device="cpu", time_limit_seconds=2.0)
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "time-out")


def test_a_gpu_that_is_not_there_is_an_error_and_no_outcome(
    worker: Worker, model: Callable[..., Path]
) -> None:
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this host has a GPU")
    with pytest.raises(WorkerError) as refusal:
        worker.dry_run(model("tiny-llama"), device="cuda", time_limit_seconds=ENGINE_LIMIT_SECONDS)
    assert refusal.value.failure_class == "no-device"


def test_the_server_answers_a_chat_request_with_both_parsers_on(worker: Worker, chat_model: Path) -> None:
    outcome: Any = worker.serve(
        chat_model,
        options={"max-model-len": 1024, "kv-cache-memory-bytes": 64 * MIB, "enforce-eager": ""},
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        time_limit_seconds=ENGINE_LIMIT_SECONDS,
    )
    assert outcome["outcome"] == "served", outcome
    assert outcome["usage"]["completion_tokens"] > 0
    assert outcome["kvCache"]["block_size"] == "128"


def test_a_server_with_an_option_that_is_gone_fails_with_its_class(worker: Worker, chat_model: Path) -> None:
    outcome = worker.serve(chat_model, options={"swap-space": 4}, time_limit_seconds=ENGINE_LIMIT_SECONDS)
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "bad-option")
    assert "--swap-space" in str(outcome["message"])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_dry_run_leaves_neither_process_nor_file(
    python: Path, model: Callable[..., Path], how: signal.Signals
) -> None:
    mark = f"kaito-catalog-test-{uuid.uuid4().hex}"
    # Shorter than pytest's own, as sockets need it.
    temporary = Path(tempfile.mkdtemp(prefix="kc-"))
    script = """
        import sys
        from kaito_catalog.vllm_bridge.client import Worker
        with Worker(sys.argv[1], progress=lambda text: print(text, flush=True)) as worker:
            worker.dry_run(sys.argv[2], device="cpu")
    """
    caller = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(python), str(model("tiny-llama"))],
        cwd=ROOT,
        env={**os.environ, "KAITO_CATALOG_TEST_MARK": mark, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert caller.stdout is not None
    with caller.stdout:
        # By then the engine's own interpreter runs.
        wait_for(lambda: "reading the configuration" in caller.stdout.readline(), seconds=120)  # type: ignore[union-attr]
        assert len(marked(mark)) >= 3
        caller.send_signal(how)
        caller.wait(60)
    wait_for(lambda: not marked(mark), seconds=20)
    left = [p.name for p in temporary.iterdir() if not p.name.startswith("torchinductor_")]
    shutil.rmtree(temporary)
    assert left == []


def test_two_workers_do_not_disturb_each_other(python: Path, model: Callable[..., Path]) -> None:
    directory = model("tiny-llama")
    with Worker(python) as one, Worker(python) as other:
        assert plan_of(one, directory)["perGPU"] == plan_of(other, directory)["perGPU"]


def test_the_worker_takes_one_request_as_its_argument(
    python: Path, model: Callable[..., Path], tmp_path: Path
) -> None:
    request = {"id": "only", "op": "exact-plan", "vllmVersion": KAITO_VLLM, "model": str(model("tiny-llama"))}
    (tmp_path / "vllm_worker.pyz").write_bytes(worker_archive())
    done = subprocess.run(
        [str(python), "vllm_worker.pyz", json.dumps(request)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["id"], answer["ok"]) == ("only", True)
    assert answer["result"]["perGPU"]["weightsBytes"] == 4_820_480


# --- requests that cannot be answered --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "fields", "words"),
    [
        ("exact-plan", {"model": "/x", "kvCacheByte": 1}, "exact-plan does not read kvCacheByte"),
        ("dry-run", {"model": "/x", "options": {}, "flags": []}, "dry-run does not read flags, options"),
        ("nonsense", {}, "'nonsense' is none of exact-plan, "),
    ],
)
def test_a_field_that_is_not_read_is_refused(op: str, fields: dict[str, Any], words: str) -> None:
    with Worker(sys.executable) as worker, pytest.raises(WorkerError, match=words) as refusal:
        worker.request(op, fields)
    assert refusal.value.failure_class == "bad-request"


def test_every_operation_says_which_fields_it_reads() -> None:
    assert FIELDS.keys() == PLANNING.keys() | ENGINES.keys()


# --- engines that die, in the place of vLLM --------------------------------------------------------------------------

ILLEGAL = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
SERVERS_WORDS = """\
import sys
sys.exit("RuntimeError: Engine core initialization failed. See above. Failed core proc(s): {'EngineCore_DP0': -4}")
"""


def test_an_engine_that_an_illegal_instruction_ends_fails_with_its_class(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    with worker_on(tmp_path, {"vllm/__init__.py": ILLEGAL}) as worker:
        outcome = worker.dry_run(model("tiny-llama"), device="cpu")
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "illegal-instruction")
    assert outcome["message"] == "the process was ended by SIGILL and gave no answer"


@pytest.mark.parametrize("server", [ILLEGAL, SERVERS_WORDS])
def test_a_server_that_an_illegal_instruction_ends_fails_with_its_class(
    server: str, tmp_path: Path, model: Callable[..., Path]
) -> None:
    packages = ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai")
    files = {f"{name}/__init__.py": "" for name in packages}
    with worker_on(tmp_path, {**files, "vllm/entrypoints/openai/api_server.py": server}) as worker:
        outcome = worker.serve(model("tiny-llama"), time_limit_seconds=60)
    assert (outcome["outcome"], class_of(outcome)) == ("failed", "illegal-instruction")


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 8000 * 1024), ("5000000", 5_000_000 - 4_000_000 + 3_000_000), ("1", 0)]
)
def test_an_engine_may_have_what_the_host_and_the_containers_limit_leave(
    tmp_path: Path, limit: str, expected: int
) -> None:
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (cgroup / "memory.max").write_text(f"{limit}\n")
    (cgroup / "memory.current").write_text("4000000\n")
    (cgroup / "memory.stat").write_text("anon 1000000\ninactive_file 2000000\nactive_file 1000000\n")
    assert available_host_bytes(tmp_path) == expected
    assert available_host_bytes(tmp_path / "absent") is None


def worker_on(folder: Path, modules: dict[str, str]) -> Worker:
    """A worker with this Python, to which `modules` are vLLM."""
    for name, text in modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Worker(sys.executable, environment={"PYTHONPATH": str(folder)})


# --- the client against workers that misbehave ----------------------------------------------------------------------


def test_a_worker_that_prints_garbage_is_an_error(tmp_path: Path) -> None:
    with Worker(fake_python(tmp_path, "read line; echo 'Segmentation fault'; sleep 60")) as worker:
        assert_fails(worker, "worker-garbage", "Segmentation fault")


def test_a_worker_that_answers_another_request_is_an_error(tmp_path: Path) -> None:
    answer = json.dumps({"id": 99, "ok": True, "result": {}})
    with Worker(fake_python(tmp_path, f"read line; echo '{answer}'; sleep 60")) as worker:
        assert_fails(worker, "worker-garbage", "something else")


def test_an_answer_with_neither_result_nor_error_is_an_error(tmp_path: Path) -> None:
    answer = json.dumps({"id": 1, "ok": True})
    with Worker(fake_python(tmp_path, f"read line; echo '{answer}'; sleep 60")) as worker:
        assert_fails(worker, "worker-garbage", "neither a result nor an error")


def test_a_worker_that_dies_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Worker(fake_python(tmp_path, "read line; echo 'no such module' >&2; exit 3")) as worker:
        error = assert_fails(worker, "worker-died", "exit code 3")
        assert "no such module" in error.log


def test_a_worker_that_is_killed_is_an_error(tmp_path: Path) -> None:
    with Worker(fake_python(tmp_path, "read line; kill -9 $$")) as worker:
        assert_fails(worker, "worker-died", "SIGKILL")


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito_catalog.vllm_bridge.conversation.GRACE_SECONDS", 0.2)
    with Worker(fake_python(tmp_path, "sleep 60 & sleep 60")) as worker:
        with pytest.raises(WorkerError) as error:
            worker.request("registry", {}, time_limit_seconds=0.1)
        assert error.value.failure_class == "time-out"
        wait_for(lambda: not group_runs(worker.pid), seconds=10)


def test_a_python_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="could not be started") as error:
        Worker(tmp_path / "python")
    assert error.value.failure_class == "no-python"


def test_a_python_without_vllm_is_an_error(tmp_path: Path) -> None:
    with Worker(sys.executable) as worker, pytest.raises(WorkerError) as error:
        worker.registry()
    assert error.value.failure_class == "no-vllm"


def test_the_argument_goes_before_the_variable(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "true")
    assert python == find_python(str(python), environment={"KAITO_CATALOG_VLLM_PYTHON": "/nowhere"})


def test_a_variable_that_names_no_python_is_an_error() -> None:
    with pytest.raises(WorkerError, match="KAITO_CATALOG_VLLM_PYTHON: /nowhere"):
        find_python(environment={"KAITO_CATALOG_VLLM_PYTHON": "/nowhere"})


def test_without_any_python_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="make vllm"):
        find_python(environment={}, root=tmp_path)


# --- the set-up ------------------------------------------------------------------------------------------------------


def test_a_torch_that_is_not_to_be_had_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = tool_module("setup_vllm")

    def no_torch(directory: Path, *arguments: str) -> str:
        raise setup.SetupError("ERROR: No matching distribution found for torch==2.13.0+cpu")

    monkeypatch.setattr(setup, "pip", no_torch)
    monkeypatch.setattr(setup, "make_environment", lambda directory: None)
    assert setup.main(["--into", str(tmp_path / "venv")]) == 1
    assert "PIP_EXTRA_INDEX_URL" in capsys.readouterr().err


def test_an_interrupted_set_up_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = tool_module("setup_vllm")
    done: list[str] = []

    def step(name: str, inputs: str) -> Any:
        return setup.Step(name, inputs, lambda directory: done.append(name))

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    for one in (step("first", "1"), step("second", "1"), step("first", "1"), step("second", "2")):
        setup.perform(tmp_path, one)
    assert done == ["first", "second", "second"]


def test_a_complete_set_up_is_left_alone_by_who_may_not_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = tool_module("setup_vllm")
    monkeypatch.setattr(setup, "is_done", lambda directory, step: True)
    assert setup.main(["--into", "/proc/absent"]) == 0


def test_a_place_where_nothing_may_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = tool_module("setup_vllm")
    assert setup.main(["--into", "/proc/absent"]) == 1
    assert "/proc/absent" in capsys.readouterr().err


def test_kernels_are_installed_into_the_overlay_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = tool_module("setup_vllm")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup, "pip", lambda directory, *arguments: asked.append(arguments))
    monkeypatch.setattr(setup, "steps", tuple)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert setup.main(["--into", str(tmp_path)]) == 0
    assert asked == []
    assert setup.main(["--into", str(tmp_path), "--kernels"]) == 0
    [(command, *options)] = asked
    assert command == "install"
    assert str(tmp_path / "overlays" / "vllm-0.32.0") in options
    assert any(option.startswith("tilelang==") for option in options)


def test_an_overlay_keeps_code_and_data_and_no_binaries(tmp_path: Path) -> None:
    setup = tool_module("setup_vllm")
    with zipfile.ZipFile(tmp_path / "vllm.whl", "w") as wheel:
        wheel.writestr("vllm/__init__.py", "")
        wheel.writestr("vllm/configs/E=8.json", "{}")
        wheel.writestr("vllm/_C.abi3.so", b"\x7fELF...")
    setup.unpack_without_binaries(tmp_path / "vllm.whl", tmp_path / "out")
    files = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == ["vllm/__init__.py", "vllm/configs/E=8.json"]


# --- helpers --------------------------------------------------------------------------------------------------------


def tool_module(name: str) -> Any:
    """A script of `tools/`, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_of(worker: Worker, directory: Path, *, version: str = KAITO_VLLM, **args: Any) -> ExactPlanAnswer:
    return worker.exact_plan(directory, vllm_version=version, args=args, time_limit_seconds=240.0)


def judge(worker: Worker, directory: Path, options: dict[str, Any]) -> OptionReport:
    return worker.check_options(directory, options, vllm_version=KAITO_VLLM, time_limit_seconds=240.0)


def kinds(report: OptionReport) -> list[tuple[str | None, str]]:
    return [(finding["option"], finding["kind"]) for finding in report["findings"]]


def dry_run(worker: Worker, directory: Path, **args: Any) -> RunOutcome:
    return worker.dry_run(directory, device="cpu", args=args, time_limit_seconds=ENGINE_LIMIT_SECONDS)


def class_of(outcome: RunOutcome) -> str | None:
    return outcome.get("class")


def assert_fails(worker: Worker, failure_class: str, words: str) -> WorkerError:
    with pytest.raises(WorkerError, match=words) as error:
        worker.request("registry", {}, time_limit_seconds=30.0)
    assert failure_class == error.value.failure_class
    return error.value


def fake_python(directory: Path, script: str) -> Path:
    """An executable that ignores its arguments and runs `script`."""
    path = directory / "python"
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def marked(mark: str) -> list[int]:
    """The processes that inherited `mark` in their environment and still run."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def group_runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)

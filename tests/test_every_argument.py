"""Every option of `vllm serve` arrives where vLLM keeps it, is only the server's, or is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.reference import Option, known

VERSIONS = ("0.25.1", "0.32.0")


class Line(NamedTuple):
    """Options that need one another, or a model of their own."""

    words: str
    model: str = "tiny-llama"
    refused: str = ""
    """A pattern of the reason."""


APART = (
    # Adapters.
    Line(
        "--enable-lora --max-loras=2 --max-lora-rank=32 --max-cpu-loras=3 --lora-dtype=float16 --fully-sharded-loras "
        "--lora-target-modules q_proj --specialize-active-lora --enable-mixed-moe-lora-format "
        "--enable-tower-connector-lora --lora-modules a=/a "
        "--max-lora-cls-labels=2 --enable-moe-shared-loras"
    ),
    Line('--enable-lora --max-loras=2 --default-mm-loras={"image":"/a"}', "gemma-3-27b"),
    # Images and videos.
    Line(
        "--allowed-local-media-path=/m --allowed-media-domains example.com "
        '--enable-mm-embeds --interleave-mm-strings --limit-mm-per-prompt={"image":2} --media-io-kwargs={"a":{}} '
        "--mm-encoder-attn-backend=TORCH_SDPA --mm-encoder-tp-mode=data --mm-ipc-gpu-memory-gb=1 "
        '--mm-processor-cache-gb=2 --mm-processor-cache-type=shm --mm-processor-kwargs={"a":1} '
        "--mm-shm-cache-max-object-size-mb=64 --skip-mm-profiling --video-pruning-rate=0.5 "
        "--mm-device-do-normalize --mm-hasher-algorithm=sha256 --mm-processor-device=cpu "
        "--video-pruning-method=vidcom2",
        "gemma-3-27b",
    ),
    Line("--language-model-only", "gemma-3-27b"),
    Line("--mm-tensor-ipc=torch_shm", "gemma-3-27b", "VLLM_WORKER_MULTIPROC_METHOD set to spawn"),
    Line("--mm-encoder-only", "gemma-3-27b"),
    Line(
        "--mm-encoder-attn-dtype=fp8 --mm-encoder-fp8-scale-save-path=/s --mm-encoder-fp8-scale-save-margin=2",
        "gemma-3-27b",
    ),
    Line("--mm-encoder-attn-dtype=fp8 --mm-encoder-fp8-scale-path={model}/config.json", "gemma-3-27b"),
    # Several ranks.
    Line(
        "--data-parallel-size=4 --data-parallel-size-local=2 --data-parallel-hybrid-lb --data-parallel-start-rank=2 "
        "--data-parallel-address=10.0.0.1 --data-parallel-rpc-port=7 --api-server-count=2 --dp-sync-interval=7",
        "qwen3-next-80b",
    ),
    Line(
        "--data-parallel-size=2 --data-parallel-rank=1 --data-parallel-external-lb --enable-fault-tolerance",
        "qwen3-next-80b",
    ),
    Line(
        "--data-parallel-size=2 --data-parallel-multi-port-external-lb --data-parallel-size-local=2 "
        "--data-parallel-supervisor-port=7 --dp-supervisor-probe-failure-threshold=7 "
        "--dp-supervisor-probe-interval-s=7 --dp-supervisor-probe-timeout-s=7",
        "qwen3-next-80b",
    ),
    Line(
        "--data-parallel-size=2 --enable-elastic-ep --elastic-ep-max-dp-size=4 --enable-eplb --enable-expert-parallel "
        '--eplb-config={"window_size":7,"use_async":false}',
        "qwen3-next-80b",
    ),
    Line("--tensor-parallel-size=2 --enable-batch-sharded-sampling"),
    Line("--data-parallel-backend=ray --data-parallel-size=2"),
    Line("--nnodes=2 --node-rank=1 --tensor-parallel-size=2 --master-addr=10.0.0.1 --master-port=7"),
    Line("--distributed-executor-backend=ray --ray-workers-use-nsight --pipeline-parallel-size=2"),
    Line("--prefill-context-parallel-size=2"),
    Line(
        "--tensor-parallel-size=8 --decode-context-parallel-size=2 --dcp-comm-backend=a2a "
        "--cp-kv-cache-interleave-size=16 --dcp-kv-cache-interleave-size=16 --dcp-q-replicate",
        "deepseek-v3",
    ),
    Line(
        '--tensor-parallel-size=2 --enable-expert-parallel --enable-eplb --eplb-config={"window_size":7} '
        "--enable-ep-weight-filter --enable-return-routed-experts",
        "qwen3-next-80b",
    ),
    Line(
        "--data-parallel-size=2 --enable-expert-parallel --all2all-backend=deepep_low_latency --enable-dbo "
        "--dbo-decode-token-threshold=7 --dbo-prefill-token-threshold=7 --ubatch-size=7",
        "qwen3-next-80b",
    ),
    # Speculation.
    Line("--spec-method=ngram --spec-tokens=3 --per-request-spec-decode-metrics=detailed"),
    Line('--speculative-config={"method":"ngram","num_speculative_tokens":3}'),
    Line("--spec-model={model} --spec-tokens=3"),
    # States.
    Line(
        "--mamba-backend=flashinfer --mamba-ssm-cache-dtype=float16 --mamba-cache-philox-rounds=7 "
        "--enable-mamba-cache-stochastic-rounding --mamba-ssu-algorithm=simple",
        "qwen3-next-80b",
    ),
    # What excludes something else.
    Line("--offload-backend=uva --cpu-offload-gb=1 --cpu-offload-params mlp"),
    Line(
        "--offload-group-size=2 --offload-num-in-group=1 --offload-prefetch-step=2 --offload-params mlp",
        refused="^--offload-group-size: the GPU's buffers for prefetched weights",
    ),
    Line("--quantization=fp8 --allow-deprecated-quantization"),
    Line('--kv-transfer-config={"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'),
    Line("--kv-offloading-size=4"),
    Line("--numa-bind --numa-bind-nodes 0 --numa-bind-cpus 0-3"),
    Line("--otlp-traces-endpoint=http://a --collect-detailed-traces all"),
    Line("--return-sampling-mask --logprobs-mode=processed_logprobs"),
    Line('--enforce-eager --disable-log-stats --kernel-config={"linear_backend":"cutlass"}'),
    Line("--no-enable-flashinfer-autotune --max-cudagraph-capture-size=8 --attention-backend=TRITON_ATTN"),
    Line("--tokens-only --no-disable-cascade-attn"),
    Line("--use-replayssm", refused="use-replayssm is not supported for architecture"),
    Line('--engram-config={"cpu_offload":false}', refused="EngramConfig requires a model"),
    Line(
        "--max-num-partial-prefills=2 --max-long-partial-prefills=2",
        refused="Concurrent Partial Prefill is not supported",
    ),
    # What starts something else.
    Line("--grpc-port=7", refused="^--grpc-port requires VLLM_USE_RUST_FRONTEND=1"),
    Line("--model=a/b", refused="'a/b' would be the name of a model"),
    Line("--worker-cls=a.B", refused="^--worker-cls: "),
    Line("--headless", refused="^--headless: "),
    Line("--grpc", refused="^--grpc: "),
    Line("--config=a.yaml", refused="^--config: "),
)
"""Not in the line that has all other options."""

VALUES = {
    "additional-config": '{"a":1}',
    "async-scheduling": "no",
    "attention-config": '{"flash_attn_version":2}',
    "aux-output-config": '{"max_bytes":7}',
    "block-size": "32",
    "chat-template": "/workspace/template.jinja",
    "compilation-config": '{"debug_dump_path":"/a"}',
    "config-format": "hf",
    "custom-histogram-buckets": '{"request_latency":[7.0]}',
    "default-chat-template-kwargs": '{"a":1}',
    "diffusion-config": '{"canvas_length":7}',
    "disable-nccl-for-dp-synchronization": "no",
    "dtype": "float16",
    "ec-manager-config": '{"encoder_cache_manager_cls":"a.B"}',
    "ec-transfer-config": '{"ec_ip":"10.0.0.1"}',
    "enable-chunked-prefill": "no",
    "enable-prefix-caching": "no",
    "fault-tolerance-config": '{"engine_recovery_timeout_sec":7}',
    "gpu-memory-utilization": "0.5",
    "hf-config-path": "{model}",
    "hf-overrides": '{"a":1}',
    "ir-op-priority": '{"rms_norm":["vllm_c"]}',
    "kv-cache-metrics-sample": "0.5",
    "kv-events-config": '{"topic":"a"}',
    "load-format": "safetensors",
    "log-config-file": "{model}/logging.json",
    "logging-config": '{"formatter":"json"}',
    "model-class-overrides": '{"LlamaForCausalLM":"vllm.model_executor.models.llama:LlamaForCausalLM"}',
    "model-loader-extra-config": '{"a":1}',
    "optimization-level": "1",
    "override-generation-config": '{"a":1}',
    "pooler-config": '{"use_activation":true}',
    "profiler-config": '{"profiler":"cuda"}',
    "pt-load-map-location": "cuda",
    "quantization-config": '{"ignore":["a"]}',
    "reasoning-config": '{"reasoning_start_str":"<a>"}',
    "reasoning-parser": "qwen3",
    "show-hidden-metrics-for-version": "0.1",
    "skip-tokenizer-init": "no",
    "structured-outputs-config": '{"backend":"guidance"}',
    "tokenizer": "{model}/.",
    "tool-call-parser": "hermes",
    "watermark": "0.5",
    "watermark-config": '{"key":7}',
    "weight-transfer-config": '{"backend":"ipc"}',
}
"""Where another value of the option's kind would not do; `no` switches it off."""

KEPT_AS: dict[str, tuple[str, str]] = {
    "attention_backend": ("attention_config.backend", "TRITON_ATTN"),
    "attention_config": ("attention_config.flash_attn_version", "2"),
    "compilation_config": ("compilation_config.debug_dump_path", "/a"),
    "cpu_offload_params": ("offload_config.uva.cpu_offload_params", "{'mlp'}"),
    "data_parallel_address": ("parallel_config.data_parallel_master_ip", "10.0.0.1"),
    "data_parallel_start_rank": ("parallel_config.data_parallel_rank", "2"),
    "device_ids": ("parallel_config.assigned_physical_gpu_ids", "[7]"),
    "diffusion_config": ("diffusion_config.canvas_length", "7"),
    "dtype": ("model_config.dtype", "torch.float16"),
    "enable_lora": ("lora_config.max_loras", "2"),
    "enable_mamba_cache_stochastic_rounding": ("mamba_config.enable_stochastic_rounding", "True"),
    "ir_op_priority": ("kernel_config.ir_op_priority.rms_norm", "['vllm_c', 'native']"),
    "kernel_config": ("kernel_config.linear_backend", "cutlass"),
    "kv_cache_dtype": ("cache_config.cache_dtype", "bfloat16"),
    "limit_mm_per_prompt": (
        "model_config.multimodal_config.limit_per_prompt.image",
        "ImageDummyOptions(count=2, width=None, height=None)",
    ),
    "log_config_file": ("logging_config.pylogging_config_file", "{model}/logging.json"),
    "lora_dtype": ("lora_config.lora_dtype", "torch.float16"),
    "lora_target_modules": ("lora_config.target_modules", "['q_proj']"),
    "optimization_level": ("optimization_level", "O1"),
    "logging_config": ("logging_config.formatter", "json"),
    "mamba_backend": ("mamba_config.backend", "FLASHINFER"),
    "mamba_cache_philox_rounds": ("mamba_config.stochastic_rounding_philox_rounds", "7"),
    "mamba_ssu_algorithm": ("mamba_config.ssu_algorithm", "simple"),
    "mm_processor_device": ("model_config.multimodal_config.mm_processor_kwargs.device", "cpu"),
    "mm_processor_kwargs": ("model_config.multimodal_config.mm_processor_kwargs.a", "1"),
    "scheduling_policy": ("scheduler_config.policy", "priority"),
    "served_model_name": ("model_config.served_model_name", "7"),
    "spec_method": ("speculative_config.method", "ngram"),
    "spec_model": ("speculative_config.model", "{model}"),
    "spec_tokens": ("speculative_config.num_speculative_tokens", "3"),
    "speculative_config": ("speculative_config.num_speculative_tokens", "3"),
    "tokens_only": ("model_config.skip_tokenizer_init", "True"),
    "watermark_config": ("watermark_config.key", "7"),
}
"""Where vLLM keeps an option under another name, or a value in another form."""

NOT_KEPT = {
    "aggregate_engine_logging": "the loggers ask the argument",
    "data_parallel_multi_port_external_lb": "the supervisor of several servers asks the argument",
    "disable_cascade_attn": "0.32.0 takes it and says that it has no effect",
    "disable_log_stats": "the loggers ask the argument",
    "fail_on_environ_validation": "the environment is looked at before there is a configuration",
    "mm_device_do_normalize": "vLLM takes it back for models that cannot, as Gemma 3",
    "mm_encoder_tp_mode": "vLLM takes it back for models that cannot, as Gemma 3",
    "tokens_only": "it sets skip_tokenizer_init, which is set in every exact plan",
}
"""Arguments of the engine that its configuration does not hold, and why that is so."""


def value_of(name: str, option: Option) -> list[str]:
    """The option as arguments, with another value than its default."""
    if option.type == "boolean":
        off = option.default is True or VALUES.get(name) == "no"
        return [f"--no-{name}" if off else f"--{name}"]
    usual = {str(option.default), "None", "auto", "none"}
    value = VALUES.get(name) or next((choice for choice in option.choices if choice not in usual), "7")
    return [f"--{name}", value] if option.nargs else [f"--{name}={value}"]


def groups_of(words: list[str]) -> list[list[str]]:
    """Each option with its values."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def lines_of(version: str) -> list[tuple[Line, list[str]]]:
    """Lines that have every option of the version and none that it has not, with their arguments."""
    vllm = known(version)
    assert vllm is not None
    named: set[str] = set()
    lines: list[tuple[Line, list[str]]] = []
    for line in APART:
        words: list[str] = []
        for group in groups_of(line.words.split()):
            option = vllm.option(group[0].removeprefix("--").partition("=")[0])
            if option is not None:
                words += group
                named.add(option.name)
        if words:
            lines.append((line, words))
    others = [value_of(name, option) for name, option in vllm.options.items() if name not in named]
    return [*lines, (Line("all others"), [word for words in others for word in words])]


def unkept(answer: dict[str, Any], folder: Path) -> list[str]:
    """What the engine was given and its configuration does not hold."""
    changed: dict[str, str] = answer["changed"]

    def is_kept(name: str, value: str) -> bool:
        place, text = KEPT_AS.get(name, ("", ""))
        if place and changed.get(place) == text.replace("{model}", str(folder)):
            return True
        return any(found == value and place.rpartition(".")[2] == name for place, found in changed.items())

    return sorted(name for name, value in answer["engine"].items() if not is_kept(name, value))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_arrives_or_is_named(worker: Worker, model: Callable[..., Path], version: str) -> None:
    lines = lines_of(version)
    seen: set[str] = set()
    wrong: list[str] = []
    for name in dict.fromkeys(line.model for line, _ in lines):
        folder = model(name)
        (folder / "logging.json").write_text('{"version": 1}', encoding="utf-8")
        mine = [(line, words) for line, words in lines if line.model == name]
        command_lines = [[word.replace("{model}", str(folder)) for word in words] for _, words in mine]
        request = {"model": str(folder), "vllmVersion": version, "commandLines": command_lines}
        answers = worker.request("arguments", request, time_limit_seconds=300)["commandLines"]
        for (line, words), answer in zip(mine, answers, strict=True):
            options = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
            refusal = answer.get("refused", {}).get("message", "")
            if bool(refusal) != bool(line.refused) or not re.search(line.refused, refusal):
                wrong.append(f"{line.words}: {refusal or 'is not refused'}")
            elif not refusal:
                arrived = set(answer["engine"]) | set(answer["server"])
                lost = {name.removeprefix("no-").replace("-", "_") for name in options} - arrived
                wrong += [f"{name} is not named" for name in sorted(lost)]
                wrong += [f"{name} is nowhere" for name in unkept(answer, folder) if name not in NOT_KEPT]
            seen |= {name.removeprefix("no-") for name in options}
    assert "\n".join(wrong) == ""
    vllm = known(version)
    assert vllm is not None
    assert seen == set(vllm.options)


def plan_of(worker: Worker, folder: Path, arguments: str, **fields: Any) -> Any:
    return worker.exact_plan(folder, vllm_version="0.25.1", arguments=arguments.split(), **fields)


def test_the_slots_of_adapters_are_held_beside_the_weights(
    worker: Worker, model: Callable[..., Path]
) -> None:
    folder = model("tiny-llama")
    (rank,) = plan_of(worker, folder, "--enable-lora --max-loras=2 --max-lora-rank=16")["ranks"]
    (without,) = plan_of(worker, folder, "--max-loras=2")["ranks"]
    down = 3 * 256 + 256 + 2 * 256 + 704  # inputs of q, k and v, of o, of gate and up, of down
    up = (256 + 128 + 128) + 256 + 2 * 704 + 256
    vocabulary = 2 * (256 + 384)  # embedding and head
    assert rank["adapterBytes"] == 2 * 16 * (3 * (down + up) + vocabulary) * 2  # slots, rank, bytes
    assert rank["weightsBytes"] == without["weightsBytes"]
    assert "adapterBytes" not in without


def test_weights_that_stay_in_host_memory_are_not_the_gpus(
    worker: Worker, model: Callable[..., Path]
) -> None:
    folder = model("tiny-llama")
    (usual,) = plan_of(worker, folder, "--seed=1")["ranks"]
    (found,) = plan_of(worker, folder, "--cpu-offload-gb=1 --cpu-offload-params mlp")["ranks"]
    assert found["hostBytes"] == 3 * 3 * 256 * 704 * 2
    assert found["weightsBytes"] == usual["weightsBytes"] - found["hostBytes"]
    assert found["afterLoading"] == {"known": False, "reason": "weights are left in the host's memory"}


def test_the_cache_is_as_large_as_the_command_line_says(worker: Worker, model: Callable[..., Path]) -> None:
    folder, arguments = model("tiny-llama"), "--kv-cache-memory-bytes=67108864"
    found = plan_of(worker, folder, arguments)["kvCache"]
    assert found["budget"] == {"bytes": 64 * 2**20, "source": "given"}
    with pytest.raises(WorkerError, match="kvCacheBytes is 7, and kv-cache-memory-bytes 67108864"):
        plan_of(worker, folder, arguments, kv_cache_bytes=7)


def test_ranks_of_context_parallel_prefill_hold_the_whole_model(
    worker: Worker, model: Callable[..., Path]
) -> None:
    (rank,) = plan_of(worker, model("tiny-llama"), "--prefill-context-parallel-size=2")["ranks"]
    (alone,) = plan_of(worker, model("tiny-llama"), "--seed=1")["ranks"]
    assert (rank["standsForRanks"], rank["weightsBytes"]) == (2, alone["weightsBytes"])

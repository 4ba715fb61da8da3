"""Random architectures: the plan's weights, KV cache and longest context against vLLM's own classes and planner."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.kv_cache.planner import plan_layout
from kaito_catalog.memory.kv_cache.versions import batches_in_flight, reserved_blocks, states_per_sequence
from kaito_catalog.memory.weights.ranks import weights_per_rank
from kaito_catalog.memory.weights.split import split_over, stages
from kaito_catalog.vllm_bridge.answers import ExactPlanAnswer
from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.evidence import model_directory
from kaito_catalog.vllm_bridge.exact_plans import H100

GIB = 2**30
Config = dict[str, Any]


# --- architectures ----------------------------------------------------------------------------------------------

_LENGTH = 131_072


def _decoder(draw: st.DrawFn, *, head_dims: tuple[int, ...] = (64, 128)) -> Config:
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4]))
    return {
        "hidden_size": 128 * draw(st.integers(1, 8)),
        "intermediate_size": 128 * draw(st.integers(1, 12)),
        "num_hidden_layers": draw(st.integers(2, 13)),
        "num_attention_heads": max(heads, 4),
        "num_key_value_heads": kv_heads,
        "head_dim": draw(st.sampled_from(head_dims)),
        "vocab_size": draw(st.integers(1000, 200_000)),
        "max_position_embeddings": _LENGTH,
        "tie_word_embeddings": draw(st.booleans()),
        "torch_dtype": draw(st.sampled_from(["bfloat16", "float16"])),
    }


def _windows(draw: st.DrawFn, layers: int) -> list[str]:
    kinds = st.sampled_from(["sliding_attention", "full_attention"])
    return draw(st.lists(kinds, min_size=layers, max_size=layers))


@st.composite
def dense(draw: st.DrawFn) -> Config:
    """Llama and Qwen3: full attention everywhere."""
    name, model_type = draw(
        st.sampled_from(
            [("LlamaForCausalLM", "llama"), ("Qwen3ForCausalLM", "qwen3"), ("Qwen2ForCausalLM", "qwen2")]
        )
    )
    config = _decoder(draw)
    if model_type == "qwen2":  # its head size is not its own to choose
        del config["head_dim"]
        config["hidden_size"] = 64 * config["num_attention_heads"]
    return config | {"architectures": [name], "model_type": model_type}


@st.composite
def windowed(draw: st.DrawFn) -> Config:
    """Gemma 3: any mix of sliding windows and full attention."""
    config = _decoder(draw) | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    config["sliding_window"] = draw(st.sampled_from([64, 512, 1000, 4096]))
    return config | {"layer_types": _windows(draw, config["num_hidden_layers"])}


@st.composite
def experts(draw: st.DrawFn) -> Config:
    """Qwen3's experts."""
    return _decoder(draw) | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": draw(st.sampled_from([8, 16])),
        "num_experts_per_tok": draw(st.integers(1, 4)),
        "moe_intermediate_size": 128 * draw(st.integers(1, 4)),
        "decoder_sparse_step": draw(st.integers(1, 3)),
    }


@st.composite
def latent(draw: st.DrawFn) -> Config:
    """DeepSeek's latents, with the dimensions that vLLM's kernels know."""
    layers = draw(st.integers(2, 9))
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 128 * draw(st.integers(1, 8)),
        "intermediate_size": 128 * draw(st.integers(1, 12)),
        "num_hidden_layers": layers,
        "num_attention_heads": draw(st.sampled_from([4, 16, 128])),
        "q_lora_rank": draw(st.sampled_from([None, 256])),
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 8,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": draw(st.integers(1, 2)),
        "num_experts_per_tok": draw(st.integers(1, 4)),
        "moe_intermediate_size": 128 * draw(st.integers(1, 4)),
        "first_k_dense_replace": draw(st.integers(0, layers)),
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "vocab_size": draw(st.integers(1000, 200_000)),
        "max_position_embeddings": _LENGTH,
        "torch_dtype": "bfloat16",
    }
    return config | {"num_key_value_heads": config["num_attention_heads"]}


@st.composite
def hybrid(draw: st.DrawFn) -> Config:
    """Qwen3-Next: linear attention with a state, and every fourth layer full attention."""
    config = _decoder(draw, head_dims=(128, 256))
    return config | {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "num_hidden_layers": 4 * draw(st.integers(1, 4)),
        "torch_dtype": "bfloat16",
        "linear_num_key_heads": 4 * draw(st.integers(1, 4)),
        "linear_num_value_heads": 16 * draw(st.integers(1, 2)),
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128,
        "shared_expert_intermediate_size": 128 * draw(st.integers(1, 3)),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


@st.composite
def alternating(draw: st.DrawFn) -> Config:
    """gpt-oss: every second layer slides, and experts are mxfp4."""
    config = _decoder(draw, head_dims=(64,))
    layers = config["num_hidden_layers"]
    kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    return config | {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn"],
        },
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": draw(st.sampled_from([64, 128, 300])),
        "layer_types": kinds,
    }


@st.composite
def settings_of_a_start(draw: st.DrawFn) -> dict[str, Any]:
    """How a model is split and served; the tokens in flight decide about windows."""
    tensor, pipeline = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)]))
    return {
        "tensor_parallel_size": tensor,
        "pipeline_parallel_size": pipeline,
        "max_model_len": draw(st.sampled_from([100, 2048, 32_768, 100_001, _LENGTH])),
        "max_num_batched_tokens": draw(st.sampled_from([2048, 8192, 10_000])),
        "max_num_seqs": draw(st.sampled_from([16, 256])),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "auto", "fp8"])),
    }


# --- the comparison ---------------------------------------------------------------------------------------------


def asked(worker: Worker, config: Config, arguments: dict[str, Any], version: str) -> ExactPlanAnswer:
    """What vLLM says, with 1 GiB for the cache, so that it also says how long a request may be."""
    with model_directory(config) as folder:
        return worker.exact_plan(
            folder,
            args=arguments,
            gpu=H100,
            vllm_version=version,
            kv_cache_bytes=GIB,
            after_loading=False,
            time_limit_seconds=120,
        )


REFUSALS = (
    # A stage without any layer of experts.
    "No Qwen3MoE layer found",
    # A stage whose states have no layer of full attention beside them that could be padded.
    "cannot be padded",
    # gpt-oss with fewer KV heads than ranks.
    "integer modulo by zero",
)
"""What vLLM refuses of these architectures; such an example says nothing."""


def compare(worker: Worker, config: Config, arguments: dict[str, Any], version: str) -> None:
    """Weights per rank, bytes of one request, requests at once, longest context: all equal."""
    try:
        plan = asked(worker, config, arguments, version)
    except WorkerError as error:
        assume(not any(words in error.words for words in REFUSALS))
        raise
    read = read_shape(config)
    assert isinstance(read, Shape)
    shape = as_built(read, version, 9.0)
    tensor, pipeline = arguments["tensor_parallel_size"], arguments["pipeline_parallel_size"]
    weights = weights_per_rank(
        shape, split_over(tensor_parallel_size=tensor, compute_capability=9.0), pipeline
    )
    ranks = {rank["pipelineRank"]: rank["weightsBytes"] for rank in plan["ranks"] if rank["tensorRank"] == 0}
    assert weights == tuple(ranks[i] for i in sorted(ranks))
    batches = batches_in_flight(version, pipeline_parallel_size=pipeline)
    states = states_per_sequence(shape, version)
    assert not isinstance(states, Unplannable)
    layouts = plan_layout(
        shape,
        tensor_parallel_size=tensor,
        stages=stages(len(shape.layers), pipeline),
        kv_cache_dtype=arguments["kv_cache_dtype"],
        in_flight_tokens=arguments["max_num_batched_tokens"] * batches,
        states=states,
        reserved=reserved_blocks(version),
    )
    assert not isinstance(layouts, Unplannable)
    tokens = arguments["max_model_len"]
    cache = plan["kvCache"]
    assert max(layout.pool_bytes(tokens) for layout in layouts) == cache["neededBytes"]
    assert min(layout.longest_model_len(GIB, _LENGTH) for layout in layouts) == cache["longestModelLen"]
    if cache["fits"]:
        at_once = min(layout.max_concurrency(GIB, tokens) for layout in layouts)
        assert at_once == pytest.approx(cache["maxConcurrency"], rel=1e-9)


# The same examples every time: a comparison that fails here can be repeated.
few = settings(
    max_examples=int(os.environ.get("KAITO_CATALOG_EXAMPLES", "3")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

VERSIONS = pytest.mark.parametrize("version", ["0.25.1", "0.32.0"])


@VERSIONS
@few
@given(config=dense(), arguments=settings_of_a_start())
def test_full_attention_is_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)


@VERSIONS
@few
@given(config=windowed(), arguments=settings_of_a_start())
def test_windows_are_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)


@VERSIONS
@few
@given(config=experts(), arguments=settings_of_a_start())
def test_experts_are_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)


@VERSIONS
@few
@given(config=latent(), arguments=settings_of_a_start())
def test_latents_are_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)


@VERSIONS
@few
@given(config=hybrid(), arguments=settings_of_a_start())
def test_states_are_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)


@VERSIONS
@few
@given(config=alternating(), arguments=settings_of_a_start())
def test_every_second_window_is_planned_as_vllm_does(
    worker: Worker, version: str, config: Config, arguments: dict[str, Any]
) -> None:
    compare(worker, config, arguments, version)

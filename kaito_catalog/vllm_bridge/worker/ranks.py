"""vLLM's own model classes on the meta device, built as each rank of a world would build them."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.drafter import build_drafter
from kaito_catalog.vllm_bridge.worker.memory import bytes_by_dtype
from kaito_catalog.vllm_bridge.worker.refusals import own_words, refusal
from kaito_catalog.vllm_bridge.worker.releases import read_layer_specs, register_kv_cache_specs
from kaito_catalog.vllm_bridge.worker.requests import JSON, RequestError
from kaito_catalog.vllm_bridge.worker.specs import bytes_per_token, count_specs


class Rank(NamedTuple):
    """One position in the world; `stands_for` counts the ranks that hold the same."""

    data: int
    pipeline: int
    tensor: int
    stands_for: int

    def as_json(self) -> JSON:
        return {"dataParallelRank": self.data, "pipelineRank": self.pipeline, "tensorRank": self.tensor}


class RankContent(NamedTuple):
    """What vLLM's classes allocate on one rank."""

    rank: Rank
    model_class: str
    parameters: dict[str, int]
    buffers: dict[str, int]
    after_loading: JSON
    specs: dict[str, Any]
    shared_layers: int
    attention_backends: list[str]
    drafter: JSON | None = None
    """Its class, and the bytes that it adds to the model's; None without speculation."""


def distinct_ranks(vllm_config: Any) -> list[Rank]:
    """One rank a pipeline stage; two where experts may be unevenly spread over the ranks of a stage."""
    parallel = vllm_config.parallel_config
    tensor, pipeline, data = (
        parallel.tensor_parallel_size,
        parallel.pipeline_parallel_size,
        parallel.data_parallel_size,
    )
    a_stage = tensor * data
    if not parallel.enable_expert_parallel or a_stage == 1:
        return [Rank(0, stage, 0, a_stage) for stage in range(pipeline)]
    first_and_last = ((0, 0, a_stage - 1), (data - 1, tensor - 1, 1))
    return [Rank(d, stage, t, count) for stage in range(pipeline) for d, t, count in first_and_last]


def build_rank(vllm_config: Any, rank: Rank, *, after_loading: bool) -> RankContent:
    """vLLM's model classes on the meta device, as `rank` would build them."""
    import torch
    import torch.distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype

    parallel = vllm_config.parallel_config
    tensor, pipeline = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    local_rank = rank.pipeline * tensor + rank.tensor
    parallel.data_parallel_rank = rank.data
    parallel.rank = local_rank
    torch.distributed.init_process_group(
        backend="fake",
        store=FakeStore(),
        rank=rank.data * parallel.world_size + local_rank,
        world_size=parallel.world_size * parallel.data_parallel_size,
    )
    dtype = vllm_config.model_config.dtype
    try:
        with set_current_vllm_config(vllm_config):
            register_kv_cache_specs(vllm_config)
            parallel_state.init_distributed_environment(
                parallel.world_size, local_rank, "env://", local_rank=0, backend="fake"
            )
            parallel_state.initialize_model_parallel(tensor, pipeline, backend="fake")
            with set_default_torch_dtype(dtype), torch.device("meta"), stay_on_meta():
                model = initialize_model(vllm_config)
                drafter = build_drafter(vllm_config, model)
            of_model, _, _ = bytes_by_dtype(model)
            whole = model if drafter is None else torch.nn.ModuleList([model, drafter])
            parameters, buffers, _ = bytes_by_dtype(whole)
            current_platform.update_block_size_for_backend(vllm_config)
            specs, shared = read_layer_specs(vllm_config)
            backends = attention_backends(vllm_config)
    except Exception as error:
        raise refusal(error, stage="model") from error
    loaded = weights_after_loading(vllm_config, whole) if after_loading else {}
    return RankContent(
        rank,
        type(model).__name__,
        parameters,
        buffers,
        loaded,
        specs,
        shared,
        backends,
        None
        if drafter is None
        else {
            "modelClass": type(drafter).__name__,
            "weightsBytes": sum(parameters.values()) - sum(of_model.values()),
        },
    )


@contextlib.contextmanager
def stay_on_meta() -> Iterator[None]:
    """Tensors whose code names the GPU as their device are made on the meta device like the others.

    What is read out of one while a model is built (slopes of ALiBi) is as many zeros: no bytes depend on them.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class StayOnMeta(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if function is torch.equal and args[0].is_meta:
                return False
            if function is torch.Tensor.cpu and args[0].is_meta:
                return args[0]
            if function is torch.Tensor.tolist and args[0].is_meta:
                return torch.zeros(args[0].shape, device="cpu").tolist()
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = "meta"
            return function(*args, **kwargs)

    with StayOnMeta():
        yield


def weights_after_loading(vllm_config: Any, model: Any) -> JSON:
    """The same sums after vLLM's repacking, or why they cannot be had: some of it calls kernels."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import process_weights_after_loading
    from vllm.utils.torch_utils import set_default_torch_dtype

    try:
        with (
            set_current_vllm_config(vllm_config),
            set_default_torch_dtype(vllm_config.model_config.dtype),
            torch.device("meta"),
            stay_on_meta(),
        ):
            process_weights_after_loading(model, vllm_config.model_config, torch.device("meta"))
    except Exception as error:  # whatever a repacking routine trips over on the meta device
        traceback.print_exc()
        return {"known": False, "reason": f"{type(error).__name__}: {own_words(error)}"[:300]}
    parameters, buffers, others = bytes_by_dtype(model)
    return {
        "known": True,
        "weightsBytes": sum(parameters.values()),
        "weightsBytesByDtype": parameters,
        "bufferBytes": sum(buffers.values()),
        "otherBytes": sum(others.values()),
    }


def uses_blocks(vllm_config: Any) -> bool:
    """fp8 weights scaled by block, which DeepGEMM rearranges with kernels of its own where it is used."""
    return getattr(vllm_config.quant_config, "weight_block_size", None) is not None


def without_deep_gemm(build: Callable[[Rank], RankContent], rank: Rank) -> JSON:
    """What `rank` holds after loading if vLLM is told to leave DeepGEMM alone."""
    os.environ["VLLM_USE_DEEP_GEMM"] = os.environ["VLLM_MOE_USE_DEEP_GEMM"] = "0"
    try:
        return {**build(rank).after_loading, "without": "DeepGEMM"}
    except RequestError:
        return {}


def with_known_loading(content: RankContent, spare: JSON) -> RankContent:
    """Use the figures without DeepGEMM where those with it are unknown; they are the first rank's."""
    usable = spare.get("known") and not content.after_loading["known"] and content.rank.pipeline == 0
    return content._replace(after_loading=spare) if usable else content


def attention_backends(vllm_config: Any) -> list[str]:
    layers = vllm_config.compilation_config.static_forward_context.values()
    named = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
    return sorted(named)


def held_bytes(content: RankContent) -> int:
    """What a rank holds before any KV cache: after loading where that is known."""
    loaded = content.after_loading
    if loaded.get("known"):
        return int(loaded["weightsBytes"] + loaded["bufferBytes"] + loaded["otherBytes"])
    return sum(content.parameters.values()) + sum(content.buffers.values())


def describe_layers(contents: Sequence[RankContent]) -> list[JSON]:
    """The kinds of layer over all pipeline stages, each with its count."""
    return count_specs({name: spec for content in contents for name, spec in content.specs.items()}.values())


def describe_rank(content: RankContent) -> JSON:
    return {
        **content.rank.as_json(),
        "standsForRanks": content.rank.stands_for,
        **({"drafter": content.drafter} if content.drafter is not None else {}),
        "weightsBytes": sum(content.parameters.values()),
        "weightsBytesByDtype": content.parameters,
        "bufferBytes": sum(content.buffers.values()),
        "bufferBytesByDtype": content.buffers,
        "afterLoading": content.after_loading,
        "kvCacheLayers": len(content.specs),
        "kvCacheBytesPerToken": bytes_per_token(content.specs),
    }

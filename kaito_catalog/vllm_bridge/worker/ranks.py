"""vLLM's own model classes on the meta device, built as each rank of a world would build them."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.beside import adapter_bytes, leave_weights_in_host_memory
from kaito_catalog.vllm_bridge.worker.drafter import build_drafter
from kaito_catalog.vllm_bridge.worker.memory import bytes_by_dtype, host_bytes
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
    adapter_bytes: int | None = None
    """The slots of LoRA adapters; None without LoRA."""
    host_bytes: int = 0
    """Parameters that are left in the host's memory."""


def distinct_ranks(vllm_config: Any) -> list[Rank]:
    """One rank a pipeline stage; two where experts may be unevenly spread over the ranks of a stage."""
    parallel = vllm_config.parallel_config
    tensor, pipeline, data = (
        parallel.tensor_parallel_size,
        parallel.pipeline_parallel_size,
        parallel.data_parallel_size,
    )
    # Context parallelism of prefill multiplies the ranks of a stage, and experts are dealt over all of them.
    a_stage = tensor * data * parallel.prefill_context_parallel_size
    if not parallel.enable_expert_parallel or a_stage == 1:
        return [Rank(0, stage, 0, a_stage) for stage in range(pipeline)]
    first_and_last = ((0, 0, a_stage - 1), (data - 1, tensor - 1, 1))
    return [Rank(d, stage, t, count) for stage in range(pipeline) for d, t, count in first_and_last]


def build_rank(vllm_config: Any, rank: Rank, *, after_loading: bool) -> RankContent:
    """vLLM's model classes on the meta device, as `rank` would build them."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype

    dtype = vllm_config.model_config.dtype
    parallel = vllm_config.parallel_config
    context = parallel.prefill_context_parallel_size
    parallel.data_parallel_rank = rank.data
    parallel.rank = rank.pipeline * parallel.tensor_parallel_size * context + rank.tensor
    try:
        with set_current_vllm_config(vllm_config):
            register_kv_cache_specs(vllm_config)
            join_groups(parallel)
            leave_weights_in_host_memory(vllm_config)
            with set_default_torch_dtype(dtype), torch.device("meta"), stay_on_meta():
                model = initialize_model(vllm_config)
                drafter = build_drafter(vllm_config, model)
            whole = model if drafter is None else torch.nn.ModuleList([model, drafter])
            parameters, buffers, _ = bytes_by_dtype(whole)
            current_platform.update_block_size_for_backend(vllm_config)
            specs, shared = read_layer_specs(vllm_config)
            backends = attention_backends(vllm_config)
            in_host, of_drafter = host_bytes(whole), describe_drafter(drafter, model, parameters)
    except Exception as error:
        raise refusal(error, stage="model") from error
    loaded = weights_after_loading(vllm_config, whole) if after_loading else {}
    adapters = slots_of_adapters(vllm_config, model)
    return RankContent(
        rank,
        type(model).__name__,
        parameters,
        buffers,
        loaded,
        specs,
        shared,
        backends,
        of_drafter,
        adapters,
        in_host,
    )


def join_groups(parallel: Any) -> None:
    """Make vLLM's groups of ranks for the rank that `parallel` names, on torch's `fake` backend, and its workspace."""
    import torch
    import torch.distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.distributed import parallel_state
    from vllm.v1.worker.workspace import init_workspace_manager

    torch.distributed.init_process_group(
        backend="fake",
        store=FakeStore(),
        rank=parallel.data_parallel_rank * parallel.world_size + parallel.rank,
        world_size=parallel.world_size * parallel.data_parallel_size,
    )
    parallel_state.init_distributed_environment(
        parallel.world_size, parallel.rank, "env://", local_rank=0, backend="fake"
    )
    parallel_state.initialize_model_parallel(
        parallel.tensor_parallel_size,
        parallel.pipeline_parallel_size,
        parallel.prefill_context_parallel_size,
        parallel.decode_context_parallel_size,
        backend="fake",
    )
    init_workspace_manager(torch.device("meta"), 2 if parallel.enable_dbo else 1)


def describe_drafter(drafter: Any, model: Any, of_both: Mapping[str, int]) -> JSON | None:
    """The class of a drafter, and the bytes of its own parameters; None where there is none."""
    if drafter is None:
        return None
    of_model, _, _ = bytes_by_dtype(model)
    return {
        "modelClass": type(drafter).__name__,
        "weightsBytes": sum(of_both.values()) - sum(of_model.values()),
    }


def slots_of_adapters(vllm_config: Any, model: Any) -> int | None:
    """Bytes of the slots of adapters, which vLLM makes once a model is loaded; refusals carry its own words."""
    from vllm.config import set_current_vllm_config
    from vllm.utils.torch_utils import set_default_torch_dtype

    try:
        with (
            set_current_vllm_config(vllm_config),
            set_default_torch_dtype(vllm_config.model_config.dtype),
            stay_on_meta(),
        ):
            return adapter_bytes(vllm_config, model)
    except Exception as error:
        raise refusal(error, stage="model") from error


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
            if function is torch.Tensor.to and kwargs.get("device") == "cpu" and args[0].is_meta:
                return torch.empty_like(args[0])  # weights that are left in the host's memory
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

    if host_bytes(model):
        return {"known": False, "reason": "weights are left in the host's memory"}
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
        held = int(loaded["weightsBytes"] + loaded["bufferBytes"] + loaded["otherBytes"])
    else:
        held = sum(content.parameters.values()) + sum(content.buffers.values())
    return held + (content.adapter_bytes or 0)


def describe_layers(contents: Sequence[RankContent]) -> list[JSON]:
    """The kinds of layer over all pipeline stages, each with its count."""
    return count_specs({name: spec for content in contents for name, spec in content.specs.items()}.values())


def describe_rank(content: RankContent) -> JSON:
    return {
        **content.rank.as_json(),
        "standsForRanks": content.rank.stands_for,
        **({"drafter": content.drafter} if content.drafter is not None else {}),
        **({"adapterBytes": content.adapter_bytes} if content.adapter_bytes is not None else {}),
        **({"hostBytes": content.host_bytes} if content.host_bytes else {}),
        "weightsBytes": sum(content.parameters.values()),
        "weightsBytesByDtype": content.parameters,
        "bufferBytes": sum(content.buffers.values()),
        "bufferBytesByDtype": content.buffers,
        "afterLoading": content.after_loading,
        "kvCacheLayers": len(content.specs),
        "kvCacheBytesPerToken": bytes_per_token(content.specs),
    }

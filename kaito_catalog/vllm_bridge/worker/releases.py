"""What differs between vLLM's releases: the one table of the private names that are used, and functions over them.

With a new release, ask `names`: it says which of these are gone, before a plan fails for it.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kaito_catalog.vllm_bridge.worker.requests import JSON, Progress, RequestError


class Name(NamedTuple):
    """Where vLLM keeps something, as `module` or `module:attribute`.

    `since` and `gone_by` are the first releases that were seen with it and, after those, without it.
    """

    place: str
    since: str = ""
    gone_by: str = ""

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    @property
    def attributes(self) -> list[str]:
        return [part for part in self.place.partition(":")[2].split(".") if part]

    def find(self) -> Any:
        """What stands there; None where nothing does."""
        try:
            if not importlib.util.find_spec(self.module):
                return None
        except ModuleNotFoundError:
            return None
        found: Any = importlib.import_module(self.module)
        for attribute in self.attributes:
            found = getattr(found, attribute, None)
        return found

    def belongs_to(self, version: str) -> bool:
        """Whether `version` is one of the releases that have it."""
        asked = release_numbers(version)
        return (not self.since or release_numbers(self.since) <= asked) and (
            not self.gone_by or asked < release_numbers(self.gone_by)
        )


def release_numbers(version: str) -> tuple[int, ...]:
    """`0.32.0+cpu` as (0, 32, 0)."""
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdigit())


NAMES: Mapping[str, tuple[Name, ...]] = {
    # Options and registries.
    "arguments of vllm serve": (
        Name("vllm.entrypoints.common.cli_args", since="0.33.0"),
        Name("vllm.entrypoints.launchers.cli_args", since="0.32.0", gone_by="0.33.0"),
        Name("vllm.entrypoints.openai.cli_args", gone_by="0.32.0"),
    ),
    "validation of the server's arguments": (
        Name("vllm.entrypoints.launchers.launcher:validate_api_server_args", since="0.32.0"),
        Name("vllm.entrypoints.openai.api_server:validate_api_server_args"),
    ),
    "arguments of a configuration's fields": (Name("vllm.engine.arg_utils:get_kwargs"),),
    "tool parsers": (
        Name("vllm.tool_parsers:ToolParserManager"),
        Name("vllm.entrypoints.openai.tool_parsers:ToolParserManager", gone_by="0.25.1"),
    ),
    "reasoning parsers": (Name("vllm.reasoning:ReasoningParserManager"),),
    "architectures that were dropped": (
        Name("vllm.model_executor.models.registry:_PREVIOUSLY_SUPPORTED_MODELS"),
    ),
    "endings of architectures": (Name("vllm.config.model:_SUFFIX_TO_DEFAULTS"),),
    "load formats": (Name("vllm.model_executor.model_loader:_LOAD_FORMAT_TO_MODEL_LOADER"),),
    # A simulated GPU.
    "the platform": (Name("vllm.platforms:_current_platform"),),
    "the distribution's name": (Name("vllm.platforms:vllm_version_matches_substr"),),
    "whether DeepGEMM is there": (
        Name("vllm.utils.import_utils:has_deep_gemm"),
        Name("vllm.utils.deep_gemm:has_deep_gemm"),
    ),
    "memory that MiniMax's norms share": (
        Name("vllm.model_executor.layers.minimax_rms_norm.lamport_workspace"),
    ),
    "process groups": (Name("vllm.distributed.parallel_state:GroupCoordinator"),),
    "nodes of a group": (Name("vllm.distributed.parallel_state:_node_count"),),
    "ranks of the same node": (Name("vllm.distributed.parallel_state:in_the_same_node_as"),),
    "inspection of a model class": (Name("vllm.model_executor.models.registry:_run_in_subprocess"),),
    "whether Ray is there": (Name("vllm.v1.executor.ray_utils:assert_ray_available"),),
    "which experts a rank holds, in words": (
        Name(
            "vllm.model_executor.layers.fused_moe.expert_map_manager:ExpertMapManager.get_compressed_map_string"
        ),
    ),
    "tokens around a model's reasoning": (
        Name("vllm.config.reasoning:ReasoningConfig.initialize_token_ids"),
    ),
    "scales of the cache": (
        Name(
            "vllm.model_executor.layers.quantization.kv_cache:BaseKVCacheMethod.process_weights_after_loading"
        ),
    ),
    "speculator of a draft model": (
        Name(
            "vllm.v1.worker.gpu.spec_decode.standalone_ar.speculator:StandaloneARSpeculator", since="0.32.0"
        ),
    ),
    "adapters of a model": (
        Name("vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin.load_lora_model"),
    ),
    "offloader of weights": (Name("vllm.model_executor.offloader:create_offloader"),),
    "use of an offloader": (Name("vllm.model_executor.offloader:set_offloader"),),
    "whether a GPU reads host memory": (Name("vllm.model_executor.offloader.uva:is_uva_available"),),
    "whether host memory is pinned": (Name("vllm.model_executor.offloader.uva:should_pin_memory"),),
    "a GPU's view of host memory": (
        Name("vllm.model_executor.offloader.uva:get_accelerator_view_from_cpu_tensor"),
    ),
    # The planner of the KV cache.
    "kinds of cache": (Name("vllm.v1.engine.core:register_all_kvcache_specs", since="0.25.0"),),
    "caches of the layers": (Name("vllm.v1.worker.gpu_model_runner:GPUModelRunner.get_kv_cache_spec"),),
    "layout of the cache": (
        Name("vllm.v1.attention.backends.utils:resolve_kv_cache_layout", since="0.32.0"),
    ),
    "layouts of a worker": (
        Name("vllm.v1.worker.worker_base:WorkerBase.get_supported_kv_cache_layouts", since="0.32.0"),
    ),
    "the plan of every worker's cache": (
        Name("vllm.v1.core.kv_cache_planning:get_kv_cache_configs", since="0.33.0"),
        Name("vllm.v1.core.kv_cache_utils:get_kv_cache_configs", gone_by="0.33.0"),
    ),
    "groups of the whole model": (
        Name("vllm.v1.core.kv_cache_planning:get_global_kv_cache_groups", since="0.33.0"),
    ),
    "bytes of a block": (
        Name("vllm.v1.core.kv_cache_planning:_pool_bytes_per_block", since="0.33.0"),
        Name("vllm.v1.core.kv_cache_utils:_pool_bytes_per_block", gone_by="0.33.0"),
    ),
    "the admission check": (
        Name("vllm.v1.core.kv_cache_planning:_check_enough_kv_cache_memory", since="0.33.0"),
        Name("vllm.v1.core.kv_cache_utils:_check_enough_kv_cache_memory", gone_by="0.33.0"),
    ),
    # Engines.
    "what follows loading": (
        Name("vllm.model_executor.model_loader.base_loader:process_weights_after_loading"),
    ),
}
"""By what they are: all the places where releases have it, the newest first. What is public and has not moved is
imported where it is used."""

COMPILED_MODULES = (
    "vllm._C",
    "vllm._moe_C",
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm._flashmla_C",
    "vllm._flashmla_extension_C",
    "vllm._flashkda_C",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)
"""Of all releases: what one has not is never imported."""

OPERATOR_NAMESPACES = (
    "_C",
    "_moe_C",
    "_C_cache_ops",
    "_vllm_fa2_C",
    "_vllm_fa3_C",
    "_flashmla_C",
    "_flashkda_C",
)


def find(what: str) -> Any:
    """What NAMES calls `what`, where this release has it.

    Raises:
        RequestError: it has it nowhere.
    """
    found = find_if_there(what)
    if found is None:
        places = ", ".join(name.place.replace(":", ".") for name in NAMES[what])
        raise RequestError("other", f"this vLLM has none of {places}")
    return found


def find_if_there(what: str) -> Any:
    """The same, or None."""
    return next((found for name in NAMES[what] if (found := name.find()) is not None), None)


def replace(what: str, stand_in: Any) -> None:
    """Put `stand_in` everywhere where this release has what NAMES calls `what`."""
    for name in NAMES[what]:
        *owners, last = name.attributes
        owner = Name(f"{name.module}:{'.'.join(owners)}").find()
        if owner is not None and hasattr(owner, last):
            setattr(owner, last, stand_in)


def names(request: JSON, progress: Progress) -> JSON:
    """`names`: which places of the table this vLLM has, and which it should have and has not."""
    import vllm

    progress("looking for the names")
    version = str(vllm.__version__)
    places = [name for several in NAMES.values() for name in several]
    there = {name.place: name.find() is not None for name in places}
    return {
        "vllmVersion": version,
        "names": {
            what: next((name.place for name in several if there[name.place]), None)
            for what, several in NAMES.items()
        },
        "unexpected": sorted(name.place for name in places if there[name.place] != name.belongs_to(version)),
    }


# --- what is done with them -------------------------------------------------------------------------------------------


def parser_managers() -> tuple[Any, Any]:
    """The registries of tool parsers and of reasoning parsers."""
    return find("tool parsers"), find("reasoning parsers")


def register_kv_cache_specs(vllm_config: Any) -> None:
    """The engine core does this first from 0.25 on; before, no registry existed."""
    register = find_if_there("kinds of cache")
    if register is not None:
        register(vllm_config)


def read_layer_specs(vllm_config: Any) -> tuple[dict[str, Any], int]:
    """Every layer's KV cache spec as the model runner collects it, and how many layers use another layer's cache.

    The runner's own method is called on a stand-in that has the two attributes the method reads, so that what it
    does beyond asking the layers (0.25: block strides; 0.32: fitting specs to the back end) is not repeated here.
    """
    stand_in = types.SimpleNamespace(vllm_config=vllm_config, shared_kv_cache_layers={})
    specs = find("caches of the layers")(stand_in)
    return specs, len(stand_in.shared_kv_cache_layers)


def resolve_layout(vllm_config: Any, specs: Any) -> None:
    """From 0.3x on the engine core settles the cache's layout before it sizes the cache."""
    resolve, of_a_worker = find_if_there("layout of the cache"), find_if_there("layouts of a worker")
    if resolve is not None and of_a_worker is not None:
        worker = types.SimpleNamespace(vllm_config=vllm_config)
        resolve(vllm_config, [of_a_worker(worker)], specs)


def plan_every_worker(vllm_config: Any, specs: Any, budgets: Any) -> Any:
    """The cache of every worker, as the engine core plans it; from 0.33 on it makes the groups of all first."""
    plan, group = find("the plan of every worker's cache"), find_if_there("groups of the whole model")
    groups = () if group is None else (group(vllm_config, specs),)
    return plan(vllm_config, specs, budgets, *groups)


def pool_bytes_per_block(vllm_config: Any, groups: Any) -> int:
    """Bytes of one block over all the layers that share the pool; some releases take no configuration (0.30)."""
    function = find("bytes of a block")
    takes_configuration = len(inspect.signature(function).parameters) == 2
    return int(function(vllm_config, groups) if takes_configuration else function(groups))


def leave_expert_maps_undescribed() -> None:
    """A log line lists which experts a rank holds, read off a tensor that has no content on the meta device."""
    replace("which experts a rank holds, in words", lambda self: "not described")


def leave_ray_unasked() -> None:
    """A start on several nodes names Ray, which an exact plan does not need: no executor is made.

    vLLM asks the executor's class whether it schedules asynchronously, and that class is annotated with a name which
    vLLM imports only where Ray is.
    """
    replace("whether Ray is there", lambda: None)
    if importlib.util.find_spec("ray") is None:
        builtins.ObjectRef = object  # type: ignore[attr-defined]


def leave_reasoning_unread() -> None:
    """A reasoning parser makes vLLM look for its words in the vocabulary; a plan has no tokenizer, and needs none.

    That vLLM has the parser is asked as before.
    """

    def look_up(self: Any, model_config: Any) -> None:
        if self.reasoning_parser:
            find("reasoning parsers").get_reasoning_parser(self.reasoning_parser)

    replace("tokens around a model's reasoning", look_up)


def leave_cache_scales_unread() -> None:
    """After loading, vLLM compares the KV cache's scales with 0 and drops them; on the meta device they have none."""

    def drop_scales(self: Any, layer: Any) -> None:
        for name in ("k_scale", "v_scale", "q_scale", "prob_scale"):
            if hasattr(layer, name):
                delattr(layer, name)

    replace("scales of the cache", drop_scales)


def inspect_models_in_process() -> None:
    """vLLM asks a subprocess what a model class can do, to keep CUDA uninitialised; here there is no CUDA."""

    def in_process(function: Callable[[], Any]) -> Any:
        return function()

    replace("inspection of a model class", in_process)
